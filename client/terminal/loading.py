"""What the terminal asks the server for: the chats, pages of history, who is there; and it tells
what was read, at most once a second for each conversation.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress

from ..client import Client
from ..errors import ClientError
from .lines import HOME, OLDER_MAX, Key
from .model import Chats, Need, Seen
from .words import plain

log = logging.getLogger("hikyaku.terminal")

PAGE = 50
CHATS_A_PAGE = 200
CHATS_PAGES = 5
READ_EVERY_S = 1.0
FLUSH_WITHIN_S = 1.5
WATCHED_MAX = 500

Spawn = Callable[[Coroutine[None, None, None]], object]


class Loading:
    """Asks, and puts the answers into `chats`. `spawn` runs something beside all else."""

    def __init__(
        self, client: Client, chats: Chats, *, spawn: Spawn, changed: Callable[[], None]
    ) -> None:
        self._client = client
        self._chats = chats
        self._spawn = spawn
        self._changed = changed
        self._listed = False
        self._listing = False
        self._watched: set[str] = set()
        self._ticked: set[Key] = set()
        self._followed: Key | None = None
        self._to_tell: dict[Key, Seen] = {}
        self._telling = False

    def online(self) -> None:
        """There is a connection: load what was not loaded yet."""
        self._ticked.clear()
        if not self._listed:
            self._list()
        self.newest(self._chats.selected)

    def need(self, need: Need) -> None:
        """Ask what an event made necessary."""
        match need.what:
            case "name":
                self._spawn(self._name(need.key))
            case "unread":
                self._spawn(self._count(need.key))
            case "messages":
                self.newest(need.key)
            case "presence":
                self.watch()
            case "chats":
                self._list()
                self.newest(self._chats.selected)

    # --- chats ---

    def _list(self) -> None:
        if not self._listing:
            self._listing = True
            self._spawn(self._load_list())

    async def _load_list(self) -> None:
        after: str | None = None
        try:
            for _ in range(CHATS_PAGES):
                page = await self._client.chats(limit=CHATS_A_PAGE, after=after)
                self._chats.listed(page.chats)
                self._changed()
                if not page.more or not page.chats:
                    break
                after = page.chats[-1].chat_id
            if not self._listed:
                self._chats.greet()
            self._listed = True
        except ClientError as error:
            log.info("the chats could not be listed: %s", error)
            if self._client.state.phase == "online":
                self._chats.notice(f"Your conversations could not be listed: {plain(error)}.")
        finally:
            self._listing = False
        self.watch()
        self._changed()

    async def _name(self, key: Key) -> None:
        try:
            group = await self._client.group_info(key.name)
        except ClientError as error:
            log.info("the name of %s stays unknown: %s", key.name, error)
        else:
            self._chats.name_group(key.name, group.name, group.kind)
            self._changed()

    async def _count(self, key: Key) -> None:
        chat = self._chats.open(key)
        try:
            counts = await self._client.unread([chat.chat_id])
        except ClientError as error:
            log.info("what is unread in %s stays unknown: %s", key.name, error)
        else:
            self._chats.counted(key, counts.get(chat.chat_id, 0))
            self._changed()

    # --- history ---

    def newest(self, key: Key) -> None:
        """Load the newest page of a conversation, if that was not done yet."""
        chat = self._chats.open(key)
        if key.kind == "dm" and key not in self._ticked:
            self._ticked.add(key)
            self._spawn(self._tick(key))
        if key != self._followed and (chat.channel or self._followed is not None):
            self._spawn(self._follow(key if chat.channel else None, self._followed))
            self._followed = key if chat.channel else None
            if chat.channel:
                return
        if key != HOME and chat.older is None and not chat.loading:
            self._spawn(self._page(key, None))

    async def _tick(self, key: Key) -> None:
        """Ask how far the other one is; from then on, on this connection, it is told."""
        try:
            self._chats.receipts(key, await self._client.receipts(self._chats.open(key).chat_id))
        except ClientError as error:
            log.info("how far %s is stays unknown: %s", key.name, error)
        self._changed()

    async def _follow(self, key: Key | None, before: Key | None) -> None:
        """Follow a channel in place of the one before; live first, then what was until then."""
        try:
            if before is not None:
                await self._client.close_chat(self._chats.open(before).chat_id)
            if key is not None:
                await self._client.open(self._chats.open(key).chat_id)
        except ClientError as error:
            log.info("a channel is not followed: %s", error)
        if key is not None:
            self.newest(key)

    async def older(self, key: Key) -> bool:
        """Load the page before the oldest line; whether there was anything to load."""
        chat = self._chats.open(key)
        oldest = chat.oldest()
        if not chat.older or chat.loading or oldest is None or len(chat.lines) >= OLDER_MAX:
            return False
        await self._page(key, oldest.id)
        return True

    async def _page(self, key: Key, before: str | None) -> None:
        chat = self._chats.open(key)
        number = chat.begin_load()
        self._changed()
        page = None
        try:
            page = await self._client.history(chat.chat_id, before=before, limit=PAGE)
        except ClientError as error:
            if number == chat.loads and self._client.state.phase == "online":
                text = f"Earlier messages could not be loaded: {plain(error)}."
                self._chats.notice(text, key=key)
        finally:
            if number == chat.loads:
                self._chats.loaded(key, page)
        self._changed()

    # --- presence ---

    def watch(self) -> None:
        """Watch those whom the user writes with; with strangers it may work later."""
        users = [
            chat.key.name
            for chat in self._chats.ordered()
            if chat.key.kind == "dm" and chat.key.name not in self._watched
        ]
        users = users[: WATCHED_MAX - len(self._watched)]
        if users and self._listed:
            self._watched.update(users)
            self._spawn(self._watch(users))

    async def _watch(self, users: list[str]) -> None:
        try:
            found = await self._client.watch(users)
        except ClientError as error:
            log.info("who is there stays unknown: %s", error)
            return
        for user, seen in found.items():
            self._chats.presence(user, seen.status)
        self._watched.difference_update(set(users) - found.keys())
        self._changed()

    # --- what was read ---

    def tell(self, seen: Seen) -> None:
        """Tell the server that a message was seen, soon."""
        self._to_tell[seen.key] = seen
        if not self._telling:
            self._telling = True
            self._spawn(self._tell())

    async def flush(self) -> None:
        """Tell the rest before the end, if that is quick."""
        if self._client.state.phase == "online":
            with suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_WITHIN_S):
                    await self._tell_all()

    async def _tell(self) -> None:
        try:
            while self._to_tell:
                await self._tell_all()
                await asyncio.sleep(READ_EVERY_S)
        finally:
            self._telling = False

    async def _tell_all(self) -> None:
        for key, seen in list(self._to_tell.items()):
            try:
                await self._client.read(seen.chat_id, seen.message_id)
            except ClientError as error:
                log.info("not told what was read: %s", error)
                if error.retryable:
                    self._chats.unseen(seen)
            if self._to_tell.get(key) is seen:
                del self._to_tell[key]
