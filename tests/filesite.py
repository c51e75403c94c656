"""A whole site with the worker `files`, and a client of its HTTP that speaks through an edge."""

import asyncio
import io
import json
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from .metrics import sample
from .ports import free_port
from .servers import Hikyaku, Site, token

INTERNAL = "an internal secret of thirty-two bytes"
TUS = {"Tus-Resumable": "1.0.0"}
PIECE = {"Content-Type": "application/offset+octet-stream"}
WITHIN_S = 60.0


class FileSite(Site):
    """A site whose edges keep files; `files` is the worker, with metrics."""

    def __init__(self, folder: Path, **settings: str):
        self.files_port = free_port()
        health = free_port([self.files_port])
        shared = {
            "HIKYAKU_INTERNAL_SECRET": INTERNAL,
            "HIKYAKU_FILES_PORT": str(self.files_port),
            **settings,
        }
        super().__init__(folder, **shared)
        common = {
            "HIKYAKU_HOME": str(folder / "home"),
            "HIKYAKU_NATS_URL": self.nats.url,
            "HIKYAKU_MONGO_URL": self.mongo.url,
            **shared,
        }
        self.home = folder / "home"
        self.files = self.files_worker(folder / "files", common, health)

    @staticmethod
    def files_worker(folder: Path, common: dict[str, str], health: int) -> Hikyaku:
        env = {**common, "HIKYAKU_WORKER_HEALTH_PORT": str(health)}
        return Hikyaku(folder, ["worker", "files"], env, health)

    async def start(self) -> None:
        await super().start()
        await self.files.start()

    def stop(self) -> None:
        self.files.process.end(9)
        super().stop()

    def metric(self, name: str, **labels: str) -> float:
        """A number of the worker."""
        return sample(self.files.get("/metrics"), f"files_{name}", **labels)

    def stored(self) -> list[Path]:
        """The objects in the home's folder."""
        return sorted(each for each in (self.home / "files").rglob("*") if each.is_file())


class Answer(NamedTuple):
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


class Web:
    """One user's requests to one edge. Use as a context manager."""

    def __init__(self, edge: Hikyaku, user: str | None):
        self.base = f"http://127.0.0.1:{edge.port}"
        self.headers = {} if user is None else {"Authorization": f"Bearer {token(user)}"}

    async def __aenter__(self) -> "Web":
        timeout = aiohttp.ClientTimeout(total=WITHIN_S)
        self.http = aiohttp.ClientSession(timeout=timeout, auto_decompress=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.close()

    async def ask(self, method: str, path: str, *, data: Any = None, **headers: str) -> Answer:
        """One request; `headers` with `_` in place of `-`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if isinstance(data, bytes):
            data = io.BytesIO(data)
        async with self.http.request(
            method, self.base + path, data=data, headers={**self.headers, **named}
        ) as answer:
            body = await answer.read()
            return Answer(answer.status, answer.headers, body)

    async def post(
        self, chat: str | None, data: Any, name: str = "note.bin", content_type: str = "text/html"
    ) -> Answer:
        """Upload by a form."""
        if isinstance(data, bytes):
            data = io.BytesIO(data)
        form = aiohttp.FormData(quote_fields=False)
        if chat is not None:
            form.add_field("chat_id", chat)
        form.add_field("file", data, filename=name, content_type=content_type)
        return await self.ask("POST", "/v1/files", data=form)

    async def upload(self, chat: str, data: Any, name: str = "note.bin") -> dict[str, Any]:
        """Upload by a form; the description."""
        answer = await self.post(chat, data, name)
        assert answer.status == 201, answer
        return answer.json

    async def get(self, file: dict[str, Any] | str, what: str = "", **headers: str) -> Answer:
        """Download."""
        file_id = file if isinstance(file, str) else file["id"]
        return await self.ask("GET", f"/v1/files/{file_id}{what}", **headers)

    # --- tus ---

    async def create(self, chat: str, length: int, name: str = "note.bin", **more: Any) -> Answer:
        """Begin a resumable upload."""
        headers = {"Upload-Length": str(length), "Upload-Metadata": metadata(chat, name)}
        return await self.tus("POST", "/v1/files/tus", **{**headers, **more})

    async def tus(self, method: str, path: str, *, data: Any = None, **headers: str) -> Answer:
        """A request of the protocol."""
        return await self.ask(method, path, data=data, **{**TUS, **headers})

    async def patch(self, place: str, offset: int, data: Any, **headers: str) -> Answer:
        """Go on with an upload."""
        given = {**PIECE, "Upload-Offset": str(offset), **headers}
        return await self.tus("PATCH", place, data=data, **given)


def metadata(chat: str, name: str) -> str:
    fields = {"chat_id": chat, "filename": name}
    return ",".join(f"{key} {b64encode(value.encode()).decode()}" for key, value in fields.items())


async def trickle(
    data: bytes, piece: int, pause: asyncio.Event | None = None
) -> AsyncIterator[bytes]:
    """The bytes in pieces; with `pause`, the last one only when that is set."""
    stream = io.BytesIO(data)
    left = len(data)
    while left:
        part = stream.read(piece)
        left -= len(part)
        if not left and pause is not None:
            await pause.wait()
        yield part
