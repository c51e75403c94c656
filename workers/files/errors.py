"""Refusals: HTTP statuses with the `error` frame of `docs/protocol.md` as body."""

from collections.abc import Mapping

from starlette.responses import JSONResponse, Response

from broker.requests import Failure
from store.errors import StoreError

STATUS = {
    "invalid": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not_member": 403,
    "not_found": 404,
    "conflict": 409,
    "too_large": 413,
    "rate_limited": 429,
    "internal": 500,
    "overloaded": 503,
    "unavailable": 503,
    "timeout": 504,
}
RETRYABLE = frozenset({"rate_limited", "overloaded", "unavailable", "timeout"})
RETRY_MS = 1000


class Refused(Failure):
    """A request that is answered with an error; `status` where it is not that of the code."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(code, message, retryable=code in RETRYABLE)
        self.status = status or STATUS[code]
        self.headers = dict(headers or {})


def refused(error: Failure | StoreError) -> Refused:
    """Any expected error as a refusal; what it says of our own servers is for the log only."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, Failure):
        return Refused(error.code, error.message)
    if error.retryable:
        return Refused("unavailable", "files cannot be read or stored now; try again")
    return Refused("internal", "the server failed; it was logged")


def response_of(error: Refused) -> Response:
    """The answer to a refused request."""
    body: dict[str, object] = {
        "type": "error",
        "code": error.code,
        "message": error.message,
        "retryable": error.retryable,
    }
    headers = dict(error.headers)
    if error.retryable:
        body["retry_after_ms"] = RETRY_MS
        headers["Retry-After"] = str(RETRY_MS // 1000)
    return JSONResponse(body, status_code=error.status, headers=headers)
