"""Writes in chats that live at another site: on disk here, then on their way, then in order.

The sender gets an `ack` with status `accepted` when the write is in this site's outbox, and one
with `sent` when it came back in its chat's order. In between everyone here who is in the chat sees
it as `provisional`.
"""

from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw, Struct

from broker import events, outbox, subjects
from broker.committer import Committed, Outcome
from broker.errors import InvalidName
from broker.requests import Failure

from . import frames
from .socket import text_frame

if TYPE_CHECKING:
    from .asker import Asker
    from .edge import Edge
    from .session import Session

WAITING = 100_000
"""So many writes are waited for; the senders of more learn from the event itself."""


class _Wait(Struct):
    asker: Any
    request: Any
    message_id: str
    timestamp: int
    seq: int = 0


class Elsewhere:
    """What users of this edge wrote in chats that live elsewhere and is not in order yet.

    `waits` has it by chat, then by user and `client_id`.
    """

    def __init__(self) -> None:
        self.waits: dict[str, dict[tuple[str, str], _Wait]] = {}
        self._count = 0

    def submit(
        self,
        asker: "Asker",
        request: frames.Chat | frames.GroupChat | frames.Edit | frames.Delete | frames.React,
        home: str,
        event: events.Message | events.Change,
        timestamp: int,
    ) -> None:
        """Put a write into the outbox. Raises as the committer's `submit` does."""
        if getattr(request, "expect_seq", None) is not None:
            raise InvalidName("expect_seq", f"cannot be used: the chat lives at {home}")
        key, chat_id = (event.from_, event.client_id), event.chat_id
        wait = _Wait(asker, request, event.id, timestamp)
        parcel = outbox.Submitted(chat_id=chat_id, data=Raw(events.encode(event)))
        asker.edge.outbound.submit(
            outbox.submission(home, chat_id),
            outbox.encode(parcel),
            msg_id=subjects.message_id_header(*key),
            done=partial(self._accepted, wait, chat_id, key),
        )
        asker.lane.writing += 1
        if self._count < WAITING and key not in self.waits.setdefault(chat_id, {}):
            self._count += 1
            self.waits[chat_id][key] = wait

    def _accepted(self, wait: _Wait, chat_id: str, key: tuple[str, str], outcome: Outcome) -> None:
        asker = wait.asker
        if not isinstance(outcome, Committed):
            self._end(chat_id, key)
            if not asker.lost:
                asker.failed(outcome, wait.request)
        elif not asker.lost and not wait.seq:
            if outcome.first is not None:
                first = events.decode_identity(outbox.decode_submitted(outcome.first).data)
                wait.message_id, wait.timestamp = first.id, first.at
            asker.edge.counters.acks += 1
            asker.push(_ack(wait, chat_id, duplicate=outcome.first is not None))
        asker.written()

    # --- from the log ---

    def ordered(self, chat_id: str, seq: int, stored: bytes) -> None:
        """An event of a chat for which somebody waits."""
        event = events.decode(stored)
        if isinstance(event, events.Message | events.Change):
            wait = self._end(chat_id, (event.from_, event.client_id))
            if wait is not None and not wait.asker.lost:
                wait.seq, wait.message_id = seq, event.id
                wait.asker.push(_ack(wait, chat_id))

    def refused(self, user: str, event: events.WriteRefused) -> None:
        """The home does not take a write; the event itself tells the sender."""
        self._end(event.chat_id, (user, event.client_id))

    def _end(self, chat_id: str, key: tuple[str, str]) -> _Wait | None:
        waits = self.waits.get(chat_id, {})
        wait = waits.pop(key, None)
        if wait is not None:
            self._count -= 1
        if not waits:
            self.waits.pop(chat_id, None)
        return wait


def home_of(asker: "Asker", chat_id: str) -> str | None:
    """The other site where a chat lives; None for this one.

    Raises `Failure` when there is no link to a site that the chat needs, and `InvalidName` for a
    user whose id is too long for other sites.
    """
    sites = asker.edge.sites
    if sites is None or not sites.peers:
        return None
    for site in sites.names.sites_in(chat_id):
        if not sites.linked(site):
            raise Failure("not_found", f"there is no link to the site {site!r} any more")
    home = sites.names.home_of(chat_id)
    if home is not None:
        sites.names.check_own(asker.user.user_id, "user")
    return home


async def tell_pending(edge: "Edge", session: "Session") -> None:
    """Tell a session what is provisional in its user's chats."""
    sites = edge.sites
    if sites is None or not sites.peers:
        return
    token = session.user.token
    filters = [outbox.submission("*", f"dm.{token}.*"), outbox.submission("*", f"dm.*.{token}")]
    filters += [
        outbox.submission(home, group)
        for group in session.user.groups or ()
        if (home := sites.names.home_of(group)) is not None
    ]
    for latest in await edge.out_log.last(filters):
        page = await edge.out_log.read(latest.subject, 1)
        for stored in page.events:
            if (frame := provisional(stored.data)) is not None:
                session.whisper(frame)


def provisional(data: bytes) -> bytes | None:
    """The frame that shows a submitted message; None for what is no message."""
    parcel = outbox.decode_submitted(data)
    if events.message_id(bytes(parcel.data)) is None:
        return None
    return text_frame(
        msgspec.json.encode(frames.Provisional(chat_id=parcel.chat_id, event=parcel.data))
    )


def _ack(wait: _Wait, chat_id: str, *, duplicate: bool = False) -> frames.Ack:
    return frames.Ack(
        id=wait.request.id,
        client_id=wait.request.client_id,
        message_id=wait.message_id,
        chat_id=chat_id,
        seq=wait.seq,
        timestamp=wait.timestamp,
        status="sent" if wait.seq else "accepted",
        duplicate=duplicate,
    )
