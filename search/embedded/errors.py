"""The one error of the embedded search server, in Meilisearch's form.

ApiError
    code      Meilisearch's name of the error, also of a failed task
    message   what happened and what to do
    status    of the HTTP answer; 503 and 507 may be tried again, others not
"""

from typing import Any

LINK = "https://docs.meilisearch.com/errors#"

_STATUS = {
    "api_key_already_exists": 409,
    "api_key_not_found": 404,
    "document_not_found": 404,
    "index_already_exists": 409,
    "index_not_found": 404,
    "internal": 500,
    "invalid_api_key": 403,
    "invalid_content_type": 415,
    "method_not_allowed": 405,
    "missing_authorization_header": 401,
    "missing_content_type": 415,
    "missing_master_key": 401,
    "no_space_left_on_device": 422,
    "not_found": 404,
    "payload_too_large": 413,
    "task_not_found": 404,
    "too_many_search_requests": 503,
}
"""Codes whose status is not 400."""

_TYPE = {
    "internal": "internal",
    "invalid_api_key": "auth",
    "missing_authorization_header": "auth",
    "missing_master_key": "auth",
    "no_space_left_on_device": "system",
    "too_many_search_requests": "system",
}
"""Codes whose type is not `invalid_request`."""


class ApiError(Exception):
    """A request or a task cannot be done."""

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code
        self.message = message

    @property
    def status(self) -> int:
        """Status of the HTTP answer."""
        return _STATUS.get(self.code, 400)

    def body(self) -> dict[str, Any]:
        """As it is answered, and kept in a failed task."""
        return {
            "message": self.message,
            "code": self.code,
            "type": _TYPE.get(self.code, "invalid_request"),
            "link": LINK + self.code,
        }
