"""From bytes to a request, or to a `BadFrame` that says what is wrong."""

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from .fields import ErrorCode
from .requests import Request


class BadFrame(Exception):
    """A frame that is no request: `code` is `bad_frame`, `unknown_type` or `invalid`."""

    def __init__(self, code: ErrorCode, message: str, *, id: Any = None, client_id: Any = None):
        super().__init__(message)
        self.code = code
        self.message = message
        self.id = id
        self.client_id = client_id


class _Named(Struct):
    type: Any = None
    id: Any = None
    client_id: Any = None


_decode: Callable[[bytes], Request] = msgspec.json.Decoder(Request).decode
_decode_named = msgspec.json.Decoder(_Named).decode


def decode_request(data: bytes) -> Request:
    """Decode one frame. Raises `BadFrame`; never anything else, whatever the bytes are."""
    try:
        return _decode(data)
    except msgspec.ValidationError as error:
        raise _explain(data, str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadFrame("bad_frame", f"the frame is not valid JSON in UTF-8: {error}") from None
    except RecursionError:
        raise BadFrame("bad_frame", "the frame is nested too deeply") from None


def _explain(data: bytes, why: str) -> BadFrame:
    try:
        named = _decode_named(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return BadFrame("bad_frame", "a frame is one JSON object with a string `type`")
    request_id = named.id if isinstance(named.id, str | int) else None
    client_id = named.client_id if isinstance(named.client_id, str) else None
    if not isinstance(named.type, str):
        return BadFrame("bad_frame", "a frame is one JSON object with a string `type`")
    if why.endswith("`$.type`"):
        code: ErrorCode = "unknown_type"
        why = f"this server knows no frame of type {named.type[:64]!r}"
    else:
        code = "invalid"
    return BadFrame(code, why, id=request_id, client_id=client_id)
