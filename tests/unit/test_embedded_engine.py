"""The engine of the embedded search server where it is cut off, full, or broken inside."""

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from search.embedded import task_queue
from search.embedded.catalog import Catalog
from search.embedded.engine import Engine, FolderTaken
from search.embedded.errors import ApiError
from search.embedded.fields import flatten
from search.embedded.search_request import SearchRequest
from search.embedded.searching import search
from search.embedded.task_queue import TaskQueue
from search.embedded.tasks import Task
from search.embedded.text_index import Layout, TextIndex

UID = "messages"


class PowerCut(BaseException):
    """Ends the indexing thread where it is raised."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "search"


def add(engine: Engine, documents: list[dict[str, Any]], *, partial: bool = False) -> Task:
    payload = engine.queue.payloads / f"{time.monotonic_ns()}"
    payload.write_bytes(msgspec.json.encode(documents))
    work: dict[str, object] = {"create": True, "partial": partial}
    return engine.queue.add(
        "documentAdditionOrUpdate", UID, work=work, details=None, payload=payload.name
    )


def delete(engine: Engine, *ids: int) -> Task:
    work: dict[str, object] = {"ids": [str(number) for number in ids]}
    return engine.queue.add("documentDeletion", UID, work=work, details=None)


def until(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def finished(engine: Engine, *tasks: Task) -> list[Task]:
    found = []
    for task in tasks:
        until(lambda uid=task.uid: engine.task(uid).finished_at is not None)  # type: ignore[misc]
        found.append(engine.task(task.uid))
    return found


def contents(engine: Engine) -> list[tuple[int, str]]:
    """What a search finds, which must be what the documents say."""
    view = engine.view(UID)
    hits = search(view, engine.catalog, SearchRequest(limit=1000))["hits"]
    page = engine.catalog.page(view.collection.iid, 0, 1000)
    assert [msgspec.json.decode(body) for body in page] == hits
    assert view.index.searcher().num_docs == view.collection.size == len(hits)
    return [(hit["id"], hit["t"]) for hit in hits]


@pytest.fixture
def cut(folder: Path) -> Iterator[Callable[[str, type, str], Engine]]:
    """Run an engine with tasks until the power is cut in a method, then one on what is left."""
    engines: list[Engine] = []

    def run(where: str, owner: type, when: str) -> Engine:
        engine = Engine(folder)
        engines.append(engine)
        finished(engine, add(engine, [{"id": n, "t": "before"} for n in range(5)]))
        original = getattr(owner, where)

        def breaking(*arguments: Any, **named: Any) -> Any:
            if when == "after":
                original(*arguments, **named)
            raise PowerCut

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(owner, where, breaking)
            add(engine, [{"id": 1, "t": "after"}, {"id": 7, "t": "new"}, {"id": 8, "t": "new"}])
            delete(engine, 2, 8)
            until(lambda: engine.failure is not None)
            assert isinstance(engine.failure, PowerCut)
            add(engine, [{"id": 9, "t": "last"}])
        left = folder.with_name("left")
        shutil.copytree(folder, left)
        again = Engine(left)
        engines.append(again)
        until(lambda: not again.queue.all())
        return again

    yield run
    for engine in engines:
        engine.close()


@pytest.mark.parametrize(
    ("where", "owner", "when"),
    [
        ("commit", TextIndex, "before"),  # nothing is written
        ("commit", TextIndex, "after"),  # only the text index is
        ("save", Catalog, "after"),
        ("finish", Catalog, "after"),  # inside the transaction, which is undone
        ("done", TaskQueue, "before"),  # all is written but the queue
        ("done", TaskQueue, "after"),
    ],
)
def test_a_batch_cut_off_is_done_once(
    cut: Callable[[str, type, str], Engine], where: str, owner: type, when: str
) -> None:
    engine = cut(where, owner, when)
    wanted = [(0, "before"), (1, "after"), (3, "before"), (4, "before"), (7, "new"), (9, "last")]
    assert contents(engine) == wanted
    assert [engine.task(uid).status for uid in range(4)] == ["succeeded"] * 4
    with pytest.raises(ApiError):
        engine.task(4)
    assert engine.task(1).details == {"receivedDocuments": 3, "indexedDocuments": 3}
    assert (engine.task(2).details or {})["deletedDocuments"] == 2
    assert list(engine.queue.payloads.iterdir()) == []


def test_files_of_a_commit_that_was_cut_off_are_no_hindrance(tmp_path: Path) -> None:
    layout = Layout(texts=("t",), filters=(), sorts=())
    index = TextIndex(tmp_path / "index", layout)
    for number in range(3):
        index.add(number, flatten({"t": "text"}))
    index.commit()
    index.close()
    shutil.copytree(index.path, tmp_path / "ahead")
    ahead = TextIndex(tmp_path / "ahead", layout)
    ahead.delete([1])
    ahead.commit()
    ahead.close()
    left = [*ahead.path.glob("*.del"), ahead.path / ".managed.json"]
    assert len(left) == 2
    for file in left:
        shutil.copy(file, index.path)
    index = TextIndex(index.path, layout)
    index.delete([1])
    index.commit()
    assert index.searcher().num_docs == 2
    index.close()


def test_a_text_index_that_cannot_be_written_is_made_anew(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(folder)
    try:
        finished(engine, add(engine, [{"id": 1, "t": "one"}]))
        broken = engine.view(UID).index
        original = TextIndex.commit

        def fail(index: TextIndex) -> None:
            if index is broken:
                raise ValueError("broken")
            original(index)

        monkeypatch.setattr(TextIndex, "commit", fail)
        (task,) = finished(engine, add(engine, [{"id": 2, "t": "two"}]))
        assert task.status == "succeeded"
        assert contents(engine) == [(1, "one"), (2, "two")]
        assert not broken.path.exists()
    finally:
        engine.close()


def test_a_fault_in_a_batch_fails_its_tasks_and_leaves_the_rest(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(folder)
    try:
        finished(engine, add(engine, [{"id": 1, "t": "one"}]))
        with monkeypatch.context() as patch:

            def fail(*_: Any) -> None:
                raise OSError("disk full")

            patch.setattr(TextIndex, "commit", fail)
            (bad,) = finished(engine, add(engine, [{"id": 1, "t": "two"}, {"id": 2, "t": "two"}]))
        assert bad.status == "failed"
        assert bad.error is not None
        assert (bad.error["code"], bad.error["message"]) == ("internal", "disk full")
        assert contents(engine) == [(1, "one")]
        finished(engine, add(engine, [{"id": 3, "t": "three"}]))
        assert contents(engine) == [(1, "one"), (3, "three")]
    finally:
        engine.close()


def test_documents_keep_their_place_when_they_are_replaced(folder: Path) -> None:
    engine = Engine(folder)
    try:
        finished(engine, add(engine, [{"id": n, "t": "x"} for n in range(3)]))
        finished(engine, add(engine, [{"id": 0, "t": "y"}]))
        assert contents(engine) == [(0, "y"), (1, "x"), (2, "x")]
        finished(engine, delete(engine, 0), add(engine, [{"id": 0, "t": "z"}]))
        assert {number for number, _ in contents(engine)} == {0, 1, 2}
    finally:
        engine.close()


def test_a_full_queue_refuses_and_loses_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.mkdir()
    queue = TaskQueue(folder, done=-1)
    monkeypatch.setattr(task_queue, "MAX_TASKS", 3)
    uids = [queue.add("indexDeletion", f"i{n}", work={}, details=None).uid for n in range(3)]
    with pytest.raises(ApiError) as caught:
        queue.add("indexDeletion", "more", work={}, details=None)
    assert (caught.value.code, caught.value.status) == ("no_space_left_on_device", 422)
    monkeypatch.setattr(task_queue, "MAX_TASKS", 10)
    monkeypatch.setattr(task_queue, "MAX_BYTES", 10)
    (queue.payloads / "large").write_bytes(b"x" * 11)
    with pytest.raises(ApiError):
        queue.add("documentAdditionOrUpdate", "a", work={}, details=None, payload="large")
    queue.close()
    queue = TaskQueue(folder, done=uids[0])
    assert [task.uid for task in queue.all()] == uids[1:]
    assert list(queue.payloads.iterdir()) == []  # it belongs to no task
    assert queue.add("indexDeletion", "x", work={}, details=None).uid == 3
    queue.close()


def test_numbers_of_tasks_are_not_given_twice(folder: Path) -> None:
    engine = Engine(folder)
    last = finished(engine, add(engine, [{"id": 1, "t": "x"}]), delete(engine, 1))[-1]
    engine.close()
    engine = Engine(folder)
    try:
        assert delete(engine, 1).uid == last.uid + 1
    finally:
        engine.close()


def test_only_one_engine_uses_a_folder(folder: Path) -> None:
    engine = Engine(folder)
    with pytest.raises(FolderTaken):
        Engine(folder)
    engine.close()
    Engine(folder).close()


def test_small_tasks_that_wait_are_done_together(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(folder)
    commits: list[int] = []
    original = TextIndex.commit

    def counted(index: TextIndex) -> None:
        commits.append(1)
        time.sleep(0.05)  # so that the others are waiting by then
        original(index)

    monkeypatch.setattr(TextIndex, "commit", counted)
    try:
        tasks = [add(engine, [{"id": n, "t": "x"}]) for n in range(100)]
        done = finished(engine, *tasks)
        assert len(commits) < 60
        assert len({task.batch_uid for task in done}) == len(commits)
        assert len(contents(engine)) == 100
    finally:
        engine.close()
