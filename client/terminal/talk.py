"""What the user does in the terminal: says, changes, reacts, finds, and looks after groups."""

import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from uuid import uuid4

from edge.frames import File

from ..client import Client
from ..errors import ClientError, RequestFailed
from ..groups import Group
from .commands import GroupCommand, Reacted, Reply, Rewrite
from .found import SHOWN, found
from .lines import HOME, Conversation, Key, Line
from .loading import Spawn
from .model import Chats
from .words import plain

SEND_WITHIN_S = 120.0
NOWHERE = "First say to whom: /dm NAME"
KEPT = f"{NOWHERE}. What you wrote is kept until then."


class Talk:
    """Carries out what was typed.

    `changed` is called when there is something to draw, `show` when another conversation is to be
    looked at.
    """

    def __init__(
        self,
        client: Client,
        chats: Chats,
        *,
        spawn: Spawn,
        changed: Callable[[], None],
        show: Callable[[], None],
    ) -> None:
        self._client = client
        self._chats = chats
        self._spawn = spawn
        self._changed = changed
        self._show = show

    # --- messages ---

    def say(self, text: str, *, answers: Line | None = None) -> None:
        """Send a message to the conversation that is looked at."""
        key = self._chats.selected
        if key == HOME:
            self._chats.notice(NOWHERE)
            return
        now_ms = int(time.time() * 1000)
        line = self._chats.sending(key, str(uuid4()), text, now_ms, answers=answers)
        self._spawn(self._send(key, line))

    def retry(self) -> None:
        """Send again what was given up."""
        key = self._chats.selected
        for line in self._chats.failures(key):
            self._spawn(self._send(key, line))

    async def _send(self, key: Key, line: Line) -> None:
        client_id = line.client_id
        send = self._client.send if key.kind == "dm" else self._client.send_group
        try:
            ack = await send(
                key.name,
                line.text,
                reply_to=line.reply_to,
                thread=line.thread,
                attachments=[file.id for file in line.files],
                client_id=client_id,
                deadline_s=SEND_WITHIN_S,
            )
        except ClientError as error:
            self._chats.failed(key, client_id, plain(error))
        else:
            self._chats.sent(key, client_id, ack)
        self._changed()

    def change(self, command: Reply | Rewrite | Reacted | None) -> None:
        """Answer, change or react to the last message; None deletes it."""
        chat, me = self._chats.current, self._chats.me
        own = command is None or isinstance(command, Rewrite)
        line = chat.last(me) if own else chat.last()
        if line is None or not line.stored:
            self._chats.notice(_why_not(chat, line, own))
            return
        client, where = self._client, (chat.chat_id, line.id)
        match command:
            case Reply(text):
                self.say(text, answers=line)
            case Rewrite(text):
                self._spawn(self._told(client.edit(*where, text)))
            case Reacted(emoji):
                again = me in line.reactions.get(emoji, [])
                self._spawn(self._told(client.react(*where, emoji, remove=again)))
            case None:
                self._spawn(self._told(client.delete(*where)))

    # --- finding ---

    def find(self, words: str) -> None:
        """Look for messages in all conversations."""
        self._spawn(self._told(self._find(words, self._chats.selected)))

    async def _find(self, words: str, key: Key) -> None:
        page = await self._client.search(words, limit=SHOWN)
        self._chats.notice(found(page, words, self._chats), key=key)

    # --- files ---

    def send_file(self, path: str) -> None:
        """Upload a file and send it to the conversation that is looked at."""
        key = self._chats.selected
        if key == HOME:
            self._chats.notice(NOWHERE)
            return
        source = Path(path.strip("\"'")).expanduser()
        self._chats.notice(f"Sending {source.name}…", key=key)
        self._spawn(self._file(key, source))

    async def _file(self, key: Key, source: Path) -> None:
        try:
            file = await self._client.upload(self._chats.open(key).chat_id, source)
        except ClientError as error:
            self._chats.notice(f"{source.name} was not sent: {_why(error)}.", key=key)
        except OSError as error:
            self._chats.notice(f"{source.name} cannot be read: {error.strerror}.", key=key)
        else:
            now_ms = int(time.time() * 1000)
            line = self._chats.sending(key, str(uuid4()), "", now_ms, files=[file])
            await self._send(key, line)
        self._changed()

    def save_file(self, folder: str) -> None:
        """Keep the last file of the conversation that is looked at."""
        files = [file for line in self._chats.current.lines for file in line.files]
        if not files:
            self._chats.notice("There is no file here yet.")
            return
        target = Path(folder.strip("\"'")).expanduser()
        if not target.is_dir():
            self._chats.notice(f"There is no folder {target}.")
            return
        self._spawn(self._save(self._chats.selected, files[-1], target))

    async def _save(self, key: Key, file: File, folder: Path) -> None:
        try:
            path = await self._client.download(file.id, folder)
        except ClientError as error:
            self._chats.notice(f"{file.name} was not saved: {plain(error)}.", key=key)
        except OSError as error:
            self._chats.notice(f"It cannot be saved there: {error.strerror}.", key=key)
        else:
            self._chats.notice(f"Saved as {path}.", key=key)
        self._changed()

    # --- groups ---

    def group(self, command: GroupCommand) -> None:
        """Do something with the group that is looked at, or a new one."""
        verb, words = command.verb, command.words
        key = self._chats.selected
        if verb in ("create", "join"):
            key = Key("group", words[0])
        elif key.kind != "group":
            self._chats.notice("Open the group first: choose it on the left with ↑ or ↓.")
            return
        self._spawn(self._told(self._group(verb, key, words)))

    async def _group(self, verb: str, key: Key, words: tuple[str, ...]) -> None:
        client, group_id = self._client, key.name
        match verb:
            case "create":
                group = await client.create_group(words[1], words[2:], group_id=group_id)
                self._enter(group)
            case "join":
                group = await client.join(group_id)
                self._enter(group)
            case "add":
                await client.add_members(group_id, words)
            case "remove":
                await client.remove_members(group_id, words)
            case "leave":
                await client.leave(group_id)
            case "members":
                page = await client.members(group_id)
                names = ", ".join(f"{m.user_id} ({m.role})" for m in page.members)
                self._chats.notice(names + (", …" if page.more else ""), key=key)

    def _enter(self, group: Group) -> None:
        self._chats.name_group(group.group_id, group.name, group.kind)
        self._chats.select(Key("group", group.group_id))
        self._show()

    async def _told(self, doing: Coroutine[None, None, object]) -> None:
        """Do something, and say it in plain words if it fails."""
        try:
            await doing
        except ClientError as error:
            self._chats.notice(f"That did not work: {plain(error)}.")
        self._changed()


def _why(error: ClientError) -> str:
    """What the server says of a file is for people already."""
    said = error.message if isinstance(error, RequestFailed) else ""
    return said.removeprefix("file: ") if said.startswith("file: ") else plain(error)


def _why_not(chat: Conversation, line: Line | None, own: bool) -> str:
    if chat.key == HOME:
        return NOWHERE
    if line is not None:
        return "The last message is not sent yet."
    return "You have not written anything here." if own else "There is no message here yet."
