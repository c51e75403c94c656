"""The HTTP of the worker: who asks is told by an edge, and every answer has its safe headers."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

import msgspec
from prometheus_client import Metric
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from broker.files import ASKER, PATH, Vouching
from broker.metrics import counter, gauge
from broker.requests import Failure
from store.errors import StoreError

from ..config import FilesConfig
from .access import Access
from .bodies import FORM_BYTES, Form, content_length
from .downloads import Downloads
from .errors import Refused, refused, response_of
from .intake import Intake, Source
from .names import clean
from .spool import too_large
from .tus import VERSION, Tus

Answer = Callable[[Request, str], Awaitable[Response]]

_log = logging.getLogger("hikyaku.files")


class Application:
    """Joins the handlers, and turns what they raise into answers."""

    def __init__(
        self,
        config: FilesConfig,
        vouching: Vouching,
        access: Access,
        intake: Intake,
        downloads: Downloads,
        tus: Tus,
    ):
        self._config = config
        self._vouching = vouching
        self._access = access
        self._intake = intake
        self._downloads = downloads
        self._tus = tus
        self._running: set[asyncio.Timeout] = set()
        self._stopping = False
        self.refusals: Counter[str] = Counter()

    def stop(self) -> None:
        """Answer what is not answered yet with `unavailable`, so that clients repeat it."""
        self._stopping = True
        for each in self._running:
            each.reschedule(asyncio.get_running_loop().time())

    def starlette(self) -> Starlette:
        """The application for a server."""
        downloads, tus = self._downloads, self._tus
        one, upload = f"{PATH}/{{id}}", f"{PATH}/tus/{{id}}"
        routes = [
            self._route(PATH, "POST", self.upload),
            self._route(f"{PATH}/tus", "OPTIONS", tus.options, tus=True),
            self._route(f"{PATH}/tus", "POST", tus.create, tus=True),
            self._route(upload, "HEAD", tus.head, tus=True),
            self._route(upload, "PATCH", tus.patch, tus=True),
            self._route(upload, "DELETE", tus.delete, tus=True),
            self._route(upload, "GET", tus.get, tus=True),
            self._route(one, "GET", downloads.content),
            self._route(f"{one}/thumbnail", "GET", downloads.thumbnail),
            self._route(f"{one}/info", "GET", downloads.info),
            self._route(f"{one}/link", "POST", downloads.link),
        ]
        return Starlette(routes=routes)

    async def upload(self, request: Request, user: str) -> Response:
        """`POST /v1/files`: a form with `file` and `chat_id`."""
        limit = self._config.file_bytes
        announced = content_length(request.headers)
        if announced is not None and announced > limit + FORM_BYTES:
            raise too_large(limit)
        await self._intake.check_quota(user, max(0, (announced or 0) - FORM_BYTES))

        async def check(chat_id: str) -> None:
            await self._access.check_chat(chat_id, user)

        with self._intake.turn(user), self._intake.spool() as spool:
            form = Form(request, spool, limit=limit, check=check)
            await form.read()
            assert form.chat_id is not None
            source = Source(user, form.chat_id, clean(form.name or ""))
            file = await self._intake.take(spool, source)
        return JSONResponse(msgspec.to_builtins(file), status_code=201)

    def _route(self, path: str, method: str, answer: Answer, *, tus: bool = False) -> Route:
        headers = {"Tus-Resumable": VERSION} if tus else {}

        async def endpoint(request: Request) -> Response:
            try:
                response = await self._answered(request, answer)
            except (Failure, StoreError) as error:
                response = self._refusal(request, error)
            for name, value in headers.items():
                response.headers[name] = value
            return response

        return Route(path, endpoint, methods=[method])

    async def _answered(self, request: Request, answer: Answer) -> Response:
        user = self._asker(request)
        limit = asyncio.timeout(0 if self._stopping else None)
        self._running.add(limit)
        try:
            async with limit:
                return await answer(request, user)
        except TimeoutError:
            if not limit.expired():
                raise
            raise Refused("unavailable", "this server stops; try again") from None
        finally:
            self._running.discard(limit)

    def _asker(self, request: Request) -> str:
        user = self._vouching.asked(request.headers.get(ASKER, ""), time.time())
        if user is None:
            # Not for clients: only an edge comes here, and this one has another secret.
            raise Refused("unauthorized", "this server answers only edges with its secret")
        return user

    def _refusal(self, request: Request, error: Failure | StoreError) -> Response:
        told = refused(error)
        self.refusals[told.code] += 1
        if isinstance(error, StoreError):
            log = _log.warning if error.retryable else _log.error
            log("%s %s: %s", request.method, request.url.path, error)
        return response_of(told)

    def metrics(self) -> Iterator[Metric]:
        """For `/metrics`."""
        yield from self._intake.metrics()
        yield counter("hikyaku_files_downloads_total", "Downloads begun.", self._downloads.begun)
        text = "Bytes given out."
        yield counter("hikyaku_files_downloaded_bytes_total", text, self._downloads.bytes)
        yield gauge("hikyaku_files_downloading", "Downloads on their way.", self._downloads.now)
        text = "Downloads that ended early by our fault."
        yield counter("hikyaku_files_downloads_broken_total", text, self._downloads.broken)
        text = "Uploads that went on after a break."
        yield counter("hikyaku_files_uploads_resumed_total", text, self._tus.resumed)
        refusals = dict.fromkeys(("unavailable", "overloaded", "too_large", "unauthorized"), 0)
        text = "Requests refused, by code."
        yield counter("hikyaku_files_refused_total", text, refusals | self.refusals, "code")
