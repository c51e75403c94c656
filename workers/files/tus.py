"""Uploads that go on where they stopped: tus 1.0 with creation, expiration, termination, checksum.

What has come is kept in the object store, in parts, so that any process goes on with any upload.
The last part of a file is not kept: the upload is at its end only when the file is there, so that
what failed at the end is tried again by sending the last part again.
"""

from base64 import b64decode
from email.utils import formatdate

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from broker.files import PATH, File
from broker.snowflake import unix_ms
from store.file_objects import FileObjects
from store.file_uploads import Upload, Uploads

from ..config import FilesConfig
from .access import Access
from .bodies import content_length, pieces
from .errors import Refused
from .intake import Intake, Source, described
from .names import clean
from .receiving import HASHES, Checksum, Receiving
from .spool import Spool, too_large

VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,expiration,termination,checksum"
OPEN_MOST = 20
METADATA_CHARS = 8192
BODY_TYPE = "application/offset+octet-stream"
FILE_HEADER = "Hikyaku-File"
"""Names the file that a finished upload has become."""


class Tus:
    """The requests of the protocol. Raise `Refused` and `StoreError`."""

    def __init__(
        self,
        config: FilesConfig,
        access: Access,
        intake: Intake,
        uploads: Uploads,
        objects: FileObjects,
    ):
        self._config = config
        self._access = access
        self._intake = intake
        self._uploads = uploads
        self._objects = objects
        self.resumed = 0

    async def options(self, request: Request, user: str) -> Response:
        """`OPTIONS`: what this server can."""
        return _response(
            204,
            {
                "Tus-Version": VERSION,
                "Tus-Extension": EXTENSIONS,
                "Tus-Max-Size": str(self._config.file_bytes),
                "Tus-Checksum-Algorithm": ",".join(HASHES),
            },
        )

    async def create(self, request: Request, user: str) -> Response:
        """`POST /v1/files/tus`: begin an upload, and take its first part if that comes with it."""
        _check_version(request)
        headers = request.headers
        length = _number(headers.get("upload-length"), "Upload-Length")
        if length > self._config.file_bytes:
            raise too_large(self._config.file_bytes)
        metadata = headers.get("upload-metadata", "")
        fields = _metadata(metadata)
        if "chat_id" not in fields:
            raise Refused("invalid", "Upload-Metadata: chat_id is missing")
        await self._access.check_chat(fields["chat_id"], user)
        waiting = await self._uploads.open_of(user, unix_ms())
        if len(waiting) >= OPEN_MOST:
            message = f"you have {OPEN_MOST} unfinished uploads; finish or end one"
            raise Refused("forbidden", message)
        await self._intake.check_quota(user, sum(waiting) + length)
        with_body = _content_type(request) == BODY_TYPE
        if not with_body and content_length(headers):
            raise Refused("invalid", f"Content-Type: a body must be {BODY_TYPE}", status=415)
        upload = await self._uploads.create(
            user,
            fields["chat_id"],
            clean(fields.get("filename", "")),
            metadata=metadata,
            length=length,
            expires=self._expires(),
        )
        location = {"Location": f"{PATH}/tus/{upload.id}"}
        if not with_body and length:
            return _response(201, {**location, **_place(upload)})
        upload, file = await self._go_on(request, upload)
        return _response(201, {**location, **_place(upload), **_became(file)})

    async def head(self, request: Request, user: str) -> Response:
        """`HEAD`: up to where it has come."""
        _check_version(request)
        upload = await self._find(request, user)
        headers = {
            **_place(upload),
            "Upload-Length": str(upload.length),
            "Cache-Control": "no-store",
        }
        if upload.metadata:
            headers["Upload-Metadata"] = upload.metadata
        if upload.file is not None:
            headers[FILE_HEADER] = upload.file
        return _response(200, headers)

    async def patch(self, request: Request, user: str) -> Response:
        """`PATCH`: the bytes from where it has come; 204 with where it is now."""
        _check_version(request)
        if _content_type(request) != BODY_TYPE:
            raise Refused("invalid", f"Content-Type: must be {BODY_TYPE}", status=415)
        offset = _number(request.headers.get("upload-offset"), "Upload-Offset")
        upload = await self._find(request, user)
        if offset != upload.offset:
            raise _moved_on(upload.offset)
        if upload.file is not None:
            return _response(204, {**_place(upload), FILE_HEADER: upload.file})
        self.resumed += offset > 0
        upload, file = await self._go_on(request, upload)
        return _response(204, {**_place(upload), **_became(file)})

    async def delete(self, request: Request, user: str) -> Response:
        """`DELETE`: end it; a file that it has become stays."""
        _check_version(request)
        upload = await self._find(request, user)
        await self._uploads.remove(upload.id)
        return _response(204, {})

    async def get(self, request: Request, user: str) -> Response:
        """`GET`: the description of the file that it has become."""
        upload = await self._find(request, user)
        if upload.file is None:
            raise Refused("conflict", "the upload is not finished")
        file = await self._access.file(upload.file, user)
        return JSONResponse(msgspec.to_builtins(described(file)))

    # --- parts ---

    async def _go_on(self, request: Request, upload: Upload) -> tuple[Upload, File | None]:
        """Take the request's bytes, and the file if they are the last."""
        checksum = _checksum(request.headers.get("upload-checksum"))
        room = upload.length - upload.offset
        if (given := content_length(request.headers)) is not None and given > room:
            raise too_large(upload.length)
        with self._intake.turn(upload.owner):
            receiving = Receiving(self._uploads, self._objects, upload, self._expires, checksum)
            try:
                rest = await receiving.take(pieces(request, room))
            finally:
                upload = receiving.upload
            if rest is None:
                return upload, None
            with self._intake.spool() as spool:
                file = await self._finish(upload, rest, spool)
        return upload._replace(offset=upload.length), file

    async def _finish(self, upload: Upload, rest: bytes, spool: Spool) -> File:
        for part in upload.parts:
            async for chunk in self._objects.read(part.key, 0, part.size):
                await spool.write(chunk)
        await spool.write(rest)
        # The user may have left the chat since it was begun.
        await self._access.check_chat(upload.chat, upload.owner)
        source = Source(upload.owner, upload.chat, upload.name, upload.id)
        try:
            return await self._intake.take(spool, source)
        except Refused as refused:
            if not refused.retryable:
                await self._uploads.remove(upload.id)
            raise

    async def _find(self, request: Request, user: str) -> Upload:
        found = await self._uploads.find(request.path_params["id"], user, unix_ms())
        if found is None:
            raise Refused("not_found", "there is no such upload, or it has expired")
        return found

    def _expires(self) -> int:
        return unix_ms() + int(self._config.upload_s * 1000)


def _response(status: int, headers: dict[str, str]) -> Response:
    return Response(status_code=status, headers=headers)


def _place(upload: Upload) -> dict[str, str]:
    expires = formatdate(upload.expires / 1000, usegmt=True)
    return {"Upload-Offset": str(upload.offset), "Upload-Expires": expires}


def _became(file: File | None) -> dict[str, str]:
    return {} if file is None else {FILE_HEADER: file.id}


def _moved_on(offset: int) -> Refused:
    return Refused("conflict", f"Upload-Offset: the upload is at {offset}")


def _check_version(request: Request) -> None:
    if request.headers.get("tus-resumable") != VERSION:
        message = f"Tus-Resumable: must be {VERSION}"
        raise Refused("invalid", message, status=412, headers={"Tus-Version": VERSION})


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _number(text: str | None, name: str) -> int:
    if text is None or not (text.isascii() and text.isdigit() and len(text) < 19):
        raise Refused("invalid", f"{name}: must be a number of bytes")
    return int(text)


def _metadata(text: str) -> dict[str, str]:
    """`key base64,key base64`; a value may be left out."""
    fields: dict[str, str] = {}
    if len(text) > METADATA_CHARS:
        raise Refused("invalid", f"Upload-Metadata: at most {METADATA_CHARS} characters")
    for pair in text.split(",") if text.strip() else []:
        key, _, value = pair.strip().partition(" ")
        try:
            decoded = b64decode(value.strip(), validate=True).decode()
        except ValueError:
            raise Refused("invalid", f"Upload-Metadata: {key[:64]!r} is no base64") from None
        if not key or key in fields:
            raise Refused("invalid", f"Upload-Metadata: {key[:64]!r} is empty or there twice")
        fields[key] = decoded
    return fields


def _checksum(text: str | None) -> Checksum | None:
    if text is None:
        return None
    algorithm, _, value = text.partition(" ")
    if algorithm not in HASHES:
        known = " or ".join(HASHES)
        raise Refused("invalid", f"Upload-Checksum: the algorithm must be {known}")
    try:
        return Checksum(algorithm, b64decode(value.strip(), validate=True))
    except ValueError:
        raise Refused("invalid", "Upload-Checksum: is no base64") from None
