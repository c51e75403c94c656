"""The engine: one folder, the collections in it, and the thread that does the tasks.

The order of a batch: the text index is committed, then documents and outcomes in one transaction,
then the tasks leave the queue. A batch cut off anywhere is done again from the start, with the
same result: documents are the truth, and the text index is brought back to them.
"""

import errno
import fcntl
import logging
import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

from msgspec.structs import replace

from .catalog import Catalog, Collection
from .documents import DocumentBatch
from .errors import ApiError
from .fields import flatten
from .settings import merged
from .task_queue import TaskQueue
from .tasks import DOCUMENT_KINDS, Task, now
from .text_index import TextIndex
from .views import View, decode_document

_log = logging.getLogger("hikyaku.search")


class FolderTaken(Exception):
    """Another process uses the folder."""


class Engine:
    """Open from construction to `close`. Any thread asks; its own thread writes."""

    def __init__(self, folder: Path, on_failure: Callable[[], None] = lambda: None):
        """Raises `FolderTaken`. `on_failure` is called in the thread when that cannot go on."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder = folder
        self._lock_fd = _locked(folder / "lock")
        self.catalog = Catalog(folder)
        self.queue = TaskQueue(folder, done=self.catalog.last_done())
        self._views: dict[str, View] = {}
        for collection in self.catalog.collections():
            self._views[collection.uid] = View(collection, self._open(collection))
        self._remove_strangers()
        self._waiting_at_start = len(self.queue.all())
        self.failure: BaseException | None = None
        self._on_failure = on_failure
        self._thread = threading.Thread(target=self._run, name="indexing")
        self._thread.start()

    def close(self) -> None:
        """Finish the present batch and close everything."""
        self.queue.stop()
        self._thread.join()
        for view in self._views.values():
            view.index.close()
        self.queue.close()
        self.catalog.close()
        os.close(self._lock_fd)

    # What any thread may ask

    def view(self, uid: str) -> View:
        """A collection as it is now. Raises `ApiError` if there is none."""
        found = self._views.get(uid)
        if found is None:
            raise _no_index(uid)
        return found

    def views(self) -> list[View]:
        """All collections, by name."""
        return [view for _, view in sorted(self._views.items())]

    def task(self, uid: int) -> Task:
        """One task. Raises `ApiError` if there is none."""
        waiting = next((task for task in self.queue.all() if task.uid == uid), None)
        found = waiting or self.catalog.task(uid)
        if found is None:
            raise ApiError("task_not_found", f"Task `{uid}` not found.")
        return found

    def is_indexing(self, uid: str) -> bool:
        """Whether a task on this collection is being done."""
        return any(t.status == "processing" and t.index_uid == uid for t in self.queue.all())

    # The thread

    def _run(self) -> None:
        try:
            if not self._waiting_at_start:
                self._verify()
            while batch := self.queue.next_batch():
                self._do(batch)
                if self._waiting_at_start > 0:
                    self._waiting_at_start -= len(batch)
                    if self._waiting_at_start <= 0:
                        self._verify()
        except BaseException as error:
            self.failure = error
            _log.critical("indexing has ended: %s", error, exc_info=error)
            self._on_failure()

    def _do(self, batch: list[Task]) -> None:
        """Work on copies: who asks sees a task as being done until all of it is on disk."""
        started = now()
        for task in batch:
            task.status, task.started_at, task.batch_uid = "processing", started, batch[0].uid
        batch = [replace(task) for task in batch]
        try:
            self._try(batch)
        except Exception as error:
            _log.exception("tasks %d to %d failed", batch[0].uid, batch[-1].uid)
            self._give_up(batch, error)
        self.queue.done(batch)

    def _try(self, batch: list[Task]) -> None:
        task = batch[0]
        if task.kind in DOCUMENT_KINDS:
            self._documents(batch)
            return
        work: Callable[[Task], None] = {
            "indexCreation": self._create,
            "indexUpdate": self._update,
            "indexDeletion": self._delete,
            "indexSwap": self._swap,
            "settingsUpdate": self._settings,
        }[task.kind]
        try:
            work(task)
        except ApiError as error:
            self._fail(task, error)

    def _fail(self, task: Task, error: ApiError) -> None:
        task.status, task.error = "failed", error.body()
        _finished(task)
        with self.catalog.transaction() as writer:
            self.catalog.finish(writer, [task])

    def _give_up(self, batch: list[Task], error: Exception) -> None:
        """Nothing of the batch was written; all its tasks say what was wrong."""
        view = self._views.get(str(batch[0].index_uid))
        if view is not None:
            view.index.close()
            view.index.relayout(view.collection.layout())
        code = "no_space_left_on_device" if _is_full(error) else "internal"
        for task in batch:
            task.status, task.error = "failed", ApiError(code, str(error)).body()
            _finished(task)
        with self.catalog.transaction() as writer:
            self.catalog.finish(writer, batch)

    def _documents(self, batch: list[Task]) -> None:
        uid = str(batch[0].index_uid)
        view = self._views.get(uid)
        missing = view is None
        if view is None and not any(task.work.get("create") for task in batch):
            for task in batch:
                self._fail(task, _no_index(uid))
            return
        with self.catalog.transaction() as writer:
            if view is None:
                view = self._made(uid, None, self.catalog.next_iid(writer))
            work = DocumentBatch(
                self.catalog, writer, view, payloads=self.queue.payloads, missing=missing
            )
            for task in batch:
                work.do(task)
                _finished(task)
            collection = work.flush()
            index = view.index
            if work.outgrown or (work.touched and not self._committed(view)):
                collection = replace(collection, generation=collection.generation + 1)
                index = self._rebuilt(collection)
            if not (missing and work.all_failed):
                self.catalog.save(writer, collection)
            self.catalog.finish(writer, batch)
        if missing and work.all_failed:
            index.remove()
            return
        self._views[uid] = View(collection, index)
        if index is not view.index:
            view.index.remove()

    def _create(self, task: Task) -> None:
        uid = str(task.index_uid)
        if uid in self._views:
            raise ApiError("index_already_exists", f"Index `{uid}` already exists.")
        with self.catalog.transaction() as writer:
            view = self._made(uid, task.work.get("primaryKey"), self.catalog.next_iid(writer))
            self._succeed(task)
            self.catalog.save(writer, view.collection)
            self.catalog.finish(writer, [task])
        self._views[uid] = view

    def _update(self, task: Task) -> None:
        view = self.view(str(task.index_uid))
        key = task.work.get("primaryKey")
        if key is not None and view.collection.size:
            raise ApiError(
                "index_primary_key_already_exists",
                f"Index `{task.index_uid}`: Index already has a primary key:"
                f" `{view.collection.primary_key}`.",
            )
        changed = replace(
            view.collection,
            primary_key=key or view.collection.primary_key,
            updated_at=now(),
        )
        self._keep(task, changed, view.index)

    def _settings(self, task: Task) -> None:
        uid = str(task.index_uid)
        view = self._views.get(uid)
        if view is None and not task.work.get("create"):
            raise _no_index(uid)
        with self.catalog.transaction() as writer:
            if view is None:
                view = self._made(uid, None, self.catalog.next_iid(writer))
            before = view.collection
            changed = replace(
                before,
                settings=merged(before.settings, task.work["settings"]),
                updated_at=now(),
            )
            index = view.index
            if changed.layout() != before.layout():
                changed = replace(changed, generation=before.generation + 1)
                index = self._rebuilt(changed)
            self._succeed(task)
            self.catalog.save(writer, changed)
            self.catalog.finish(writer, [task])
        self._views[uid] = View(changed, index)
        if index is not view.index:
            view.index.remove()

    def _delete(self, task: Task) -> None:
        view = self.view(str(task.index_uid))
        task.details = {"deletedDocuments": view.collection.size}
        with self.catalog.transaction() as writer:
            self._succeed(task)
            self.catalog.drop(writer, view.collection)
            self.catalog.finish(writer, [task])
        del self._views[str(task.index_uid)]
        view.index.remove()

    def _swap(self, task: Task) -> None:
        pairs = [swap["indexes"] for swap in task.work["swaps"]]
        names = [name for pair in pairs for name in pair]
        missing = sorted(name for name in names if name not in self._views)
        if missing:
            shown = ", ".join(f"`{name}`" for name in missing)
            text = (
                f"Index {shown} not found." if len(missing) == 1 else f"Indexes {shown} not found."
            )
            raise ApiError("index_not_found", text)
        other = dict(pairs) | {two: one for one, two in pairs}
        swapped = {
            other[name]: replace(self._views[name].collection, uid=other[name]) for name in names
        }
        with self.catalog.transaction() as writer:
            self._succeed(task)
            for collection in swapped.values():
                self.catalog.save(writer, collection)
            if other:
                self.catalog.rename_in_tasks(writer, other)
            self.catalog.finish(writer, [task])
        indexes = {other[name]: self._views[name].index for name in names}
        self._views.update(
            {name: View(collection, indexes[name]) for name, collection in swapped.items()}
        )

    def _keep(self, task: Task, collection: Collection, index: TextIndex) -> None:
        with self.catalog.transaction() as writer:
            self._succeed(task)
            self.catalog.save(writer, collection)
            self.catalog.finish(writer, [task])
        self._views[collection.uid] = View(collection, index)

    def _succeed(self, task: Task) -> None:
        task.status = "succeeded"
        _finished(task)

    # Text indexes

    def _committed(self, view: View) -> bool:
        """Commit a text index; if that fails it is of no use, but can be made of the documents."""
        try:
            view.index.commit()
        except Exception:
            _log.exception("the text index of %s is made anew", view.collection.uid)
            return False
        return True

    def _made(self, uid: str, primary_key: str | None, iid: int) -> View:
        time = now()
        collection = Collection(
            iid=iid, uid=uid, primary_key=primary_key, created_at=time, updated_at=time
        )
        return View(collection, self._open(collection))

    def _path(self, collection: Collection) -> Path:
        return self.folder / "indexes" / f"{collection.iid}-{collection.generation}"

    def _open(self, collection: Collection) -> TextIndex:
        """Its text index, without what a batch that was cut off left in it."""
        path, layout = self._path(collection), collection.layout()
        try:
            index = TextIndex(path, layout)
        except (ValueError, OSError) as error:
            _log.warning("the text index of %s is of no use: %s", collection.uid, error)
            TextIndex.discard(path)
            index = TextIndex(path, layout)
        index.forget_from(collection.next_number)
        return index

    def _rebuilt(self, collection: Collection) -> TextIndex:
        """A text index made anew from the documents, as the writer sees them."""
        path = self._path(collection)
        TextIndex.discard(path)
        index = TextIndex(path, collection.layout())
        for number, body in self.catalog.every(collection.iid):
            index.add(number, flatten(decode_document(body)))
        index.commit()
        return index

    def _verify(self) -> None:
        """Make text indexes anew that do not have as many documents as there are."""
        for uid, view in list(self._views.items()):
            if view.index.searcher().num_docs == view.collection.size:
                continue
            _log.warning("the text index of %s is made anew", uid)
            changed = replace(view.collection, generation=view.collection.generation + 1)
            index = self._rebuilt(changed)
            with self.catalog.transaction() as writer:
                self.catalog.save(writer, changed)
            self._views[uid] = View(changed, index)
            view.index.remove()

    def _remove_strangers(self) -> None:
        known = {view.index.path for view in self._views.values()}
        for path in (self.folder / "indexes").glob("*"):
            if path not in known:
                TextIndex.discard(path)


def _is_full(error: Exception) -> bool:
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    return isinstance(error, OSError) and error.errno == errno.ENOSPC


def _no_index(uid: str) -> ApiError:
    return ApiError("index_not_found", f"Index `{uid}` not found.")


def _finished(task: Task) -> None:
    task.finished_at = now()


def _locked(path: Path) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise FolderTaken(f"another process uses {path.parent}") from None
    return fd
