"""Errors of the search package.

SearchError
├── SearchUnavailable   the server does not answer, or cannot now; retryable
│   └── IndexMissing    the index is not there: it is being made, or was lost
├── SearchForbidden     the server does not take the key; mend HIKYAKU_SEARCH_KEY
└── SearchRefused       the server will never take this; `code` is Meilisearch's
"""


class SearchError(Exception):
    """Base of all errors of this package."""

    retryable = False


class SearchUnavailable(SearchError):
    """The server does not answer, or cannot now; the outcome of a write is unknown."""

    retryable = True


class IndexMissing(SearchUnavailable):
    """The index is not there."""


class SearchForbidden(SearchError):
    """The server does not take the key."""


class SearchRefused(SearchError):
    """The server will never take this; `code` is one of Meilisearch's error codes."""

    def __init__(self, code: str, message: str):
        super().__init__(f"{message} ({code})" if code else message)
        self.code = code
