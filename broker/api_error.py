"""Errors of the JetStream API (ADR-7), and what they are to us."""

from msgspec import Struct

from .errors import Overloaded, Refused, Unavailable


class ApiError(Struct):
    """An error of the JetStream API (ADR-7)."""

    code: int = 0
    err_code: int = 0
    description: str = ""


def api_error(error: ApiError) -> Refused | Unavailable | Overloaded:
    """The exception for an error of the JetStream API: retryable, full, or final."""
    if error.err_code in (10077, 10047, 10023, 10122):
        return Overloaded(f"the log is full: {error.description} ({error.err_code})")
    if error.code in (429, 503) or error.err_code == 10158:
        return Unavailable(f"JetStream is not ready: {error.description} ({error.err_code})")
    return Refused(error.err_code, error.description)
