"""Who may read what: the members of a file's chat, as MongoDB has them at each request."""

from broker import subjects
from broker.errors import InvalidName
from store.directory import Directory
from store.errors import NotMember
from store.files import FileRecord, Files

from .errors import Refused


class Access:
    """Decides. Raises `Refused` and `StoreUnavailable`."""

    def __init__(self, files: Files, directory: Directory):
        self._files = files
        self._directory = directory

    async def file(self, file_id: str, user: str) -> FileRecord:
        """A file that the user may read; one of others is as good as none."""
        found = await self._files.find(file_id)
        if found is None or not await self._is_in(user, found.chat):
            raise Refused("not_found", "there is no such file")
        return found

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
