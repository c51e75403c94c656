"""Errors of the store package.

StoreError
├── StoreUnavailable   MongoDB does not answer; retryable
├── NotFound           there is no such document
├── NotMember          the asker is not in the group
├── Forbidden          the asker's role does not allow it
├── DuplicateGroup     the group id is taken
├── GroupFull          the group's limit of members would be passed
└── LimitReached       as many as are allowed are there already
"""


class StoreError(Exception):
    """Base of all errors of this package."""

    retryable = False


class StoreUnavailable(StoreError):
    """MongoDB does not answer, or not in time."""

    retryable = True


class NotFound(StoreError):
    """There is no such document."""


class NotMember(StoreError):
    """The asker is not in the group."""


class Forbidden(StoreError):
    """The asker's role does not allow it."""


class DuplicateGroup(StoreError):
    """The group id is taken."""


class GroupFull(StoreError):
    """The group's limit of members would be passed."""


class LimitReached(StoreError):
    """As many as are allowed are there already."""
