"""Who may read what: the members of a file's chat, as MongoDB has them at each request.

A file that only a message tells of is brought here from the site of the message's author.
"""

from broker import subjects
from broker.bus import Bus
from broker.errors import BrokerError, InvalidName
from store.directory import Directory
from store.errors import NotMember
from store.files import FileRecord, Files, Used

from .elsewhere import Elsewhere
from .errors import Refused
from .uses_known import uses_known

KNOWN_S = 2.0
"""A client asks for a file as soon as it is shown the message; MongoDB has it a moment later."""


class Access:
    """Decides. Raises `Refused` and `StoreUnavailable`."""

    def __init__(self, bus: Bus, files: Files, directory: Directory, elsewhere: Elsewhere):
        self._bus = bus
        self._files = files
        self._directory = directory
        self._elsewhere = elsewhere

    async def file(self, file_id: str, user: str) -> FileRecord:
        """A file that the user may read; one of others is as good as none."""
        if (found := await self._files.find(file_id)) is not None:
            if await self._is_in(user, found.chat):
                return found
        elif (used := await self._used(file_id)) is not None and await self._is_in(user, used.chat):
            return await self._elsewhere.bring(used)
        raise Refused("not_found", "there is no such file")

    async def _used(self, file_id: str) -> Used | None:
        """What a message of another site's user says of it; also one that came just now."""
        used = await self._files.first_use(file_id)
        try:
            if used is None and await uses_known(self._bus, KNOWN_S):
                used = await self._files.first_use(file_id)
        except BrokerError as error:
            raise Refused("unavailable", f"{error}; try again") from error
        return used

    async def check_chat(self, chat_id: str, user: str) -> None:
        """Raises `Refused` unless the user is in the chat."""
        try:
            allowed = await self._is_in(user, chat_id)
        except InvalidName as error:
            raise Refused("invalid", str(error)) from None
        if not allowed:
            raise Refused("not_member", f"you are not in the chat {chat_id[:400]!r}")

    async def _is_in(self, user: str, chat_id: str) -> bool:
        kind, tokens = subjects.parse(chat_id)
        if kind == "dm":
            return subjects.encode(user) in tokens
        if kind != "group":
            return False
        try:
            await self._directory.role(subjects.decode(tokens[0]), user)
        except NotMember:
            return False
        return True
