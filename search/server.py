"""The official client, which waits for each answer, for use beside an event loop.

Its calls run in a few threads, each with a client and a kept connection of its own, since a client
is not safe to share: it puts the headers of a request into one dictionary. How many calls may run
or wait is bounded, each has a deadline, and every failure becomes an error of this package.

Relies on private parts of meilisearch 0.43 (`HttpRequests`, `Client.http`);
`tests/integration/test_search_server.py` fails when they change.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self, TypeVar

import pydantic
import requests
from meilisearch import Client
from meilisearch._httprequests import HttpRequests
from meilisearch.errors import (
    MeilisearchApiError,
    MeilisearchCommunicationError,
    MeilisearchTimeoutError,
)
from meilisearch.index import Index
from meilisearch.models.task import Task

from .config import SearchConfig
from .errors import IndexMissing, SearchError, SearchForbidden, SearchRefused, SearchUnavailable

ANSWER_S = 10
"""The server is given up when it is silent for so long."""

CALL_S = 15.0
TASK_S = 600.0
WAITING_FOR_EACH_THREAD = 8
FIRST_POLL_S = 0.01
LAST_POLL_S = 0.25

_RETRYABLE = (408, 425, 429)
_T = TypeVar("_T")


class SearchServer:
    """Calls to one server. Use as an async context manager. Raises `SearchError`."""

    def __init__(self, config: SearchConfig, *, threads: int):
        self.address = config.url.rpartition("@")[2].removeprefix("http://")
        self._config = config
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="search")
        self._room = threading.BoundedSemaphore(threads * (1 + WAITING_FOR_EACH_THREAD))
        self._own = threading.local()
        self._sessions: list[requests.Session] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        # A call that still waits for its answer ends by its own deadline.
        self._pool.shutdown(wait=False, cancel_futures=True)
        for session in self._sessions:
            session.close()

    async def call(self, work: Callable[[Client], _T], *, timeout_s: float = CALL_S) -> _T:
        """Run `work` with a client in a thread. Raises `SearchError`."""
        if not self._room.acquire(blocking=False):
            raise SearchUnavailable("too many questions wait for the search server")
        try:
            future: Future[_T] = self._pool.submit(self._run, work)
        except BaseException:
            self._room.release()
            raise
        future.add_done_callback(lambda _: self._room.release())
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            raise SearchUnavailable(f"{self.address} does not answer in time") from None

    async def finished(self, uid: int) -> Task:
        """Wait for a task to succeed. Raises `SearchError` for one that failed, or never ends."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + TASK_S
        pause_s = FIRST_POLL_S
        while True:
            task = await self.call(lambda client: client.get_task(uid))
            match task.status:
                case "succeeded":
                    return task
                case "failed":
                    raise _of_task(task.error or {})
                case "canceled":
                    raise SearchUnavailable(f"the search server's task {uid} was canceled")
            if loop.time() > deadline:
                raise SearchUnavailable(f"the search server's task {uid} takes over {TASK_S:g} s")
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, LAST_POLL_S)

    # --- in a thread ---

    def _run(self, work: Callable[[Client], _T]) -> _T:
        try:
            return work(self._client())
        except MeilisearchTimeoutError as error:
            raise SearchUnavailable(f"{self.address} does not answer in time") from error
        except MeilisearchCommunicationError as error:
            raise SearchUnavailable(f"no search server answers at {self.address}") from error
        except MeilisearchApiError as error:
            raise _of_answer(error) from error
        except (requests.RequestException, pydantic.ValidationError) as error:
            raise SearchUnavailable(f"{self.address} does not speak as Meilisearch") from error

    def _client(self) -> Client:
        client: Client | None = getattr(self._own, "client", None)
        if client is None:
            client = Client(self._config.url, self._config.key or None, timeout=ANSWER_S)
            session = requests.Session()
            # No proxy or password from the surroundings: a .netrc would replace the key.
            session.trust_env = False
            self._sessions.append(session)
            client.http = client.task_handler.http = _Kept(client, session)
            self._own.client = client
        return client


class _Kept(HttpRequests):
    """Requests over one kept connection, where the client opens one for each."""

    def __init__(self, client: Client, session: requests.Session):
        super().__init__(client.config)
        self._session = session

    def send_request(self, http_method: Callable[..., Any], *words: Any, **named: Any) -> Any:
        """Send as the client does, by the method of the session."""
        return super().send_request(getattr(self._session, http_method.__name__), *words, **named)


def index_of(client: Client, uid: str) -> Index:
    """An index of the server, over the kept connection."""
    index = client.index(uid)
    index.http = client.http
    return index


def _of_answer(error: MeilisearchApiError) -> SearchError:
    status, code = error.status_code, error.code or ""
    message = error.message.partition(". Hint: ")[0][:500]
    if status in (401, 403):
        return SearchForbidden(f"the search server does not take HIKYAKU_SEARCH_KEY: {message}")
    if code == "index_not_found":
        return IndexMissing(message)
    if status >= 500 or status in _RETRYABLE or code == "task_not_found":
        return SearchUnavailable(f"the search server cannot now: {message} ({code or status})")
    if not code and status != 413:
        return SearchUnavailable(f"not Meilisearch, but something else answers: {status}")
    return SearchRefused(code or "payload_too_large", message)


def _of_task(error: dict[str, Any]) -> SearchError:
    code, message = str(error.get("code", "")), str(error.get("message", ""))[:500]
    if code == "index_not_found":
        return IndexMissing(message)
    if error.get("type") == "invalid_request":
        return SearchRefused(code, message)
    return SearchUnavailable(f"the search server could not do it: {message} ({code})")
