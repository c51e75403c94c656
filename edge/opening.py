"""From an accepted socket to a live session: who it is, what it missed, then live.

1. The token is verified and the session attached to the hub, which holds its events back.
2. The directory says which groups the user is in, unless another session here knows already.
3. `welcome`; from now on frames are read.
4. With a cursor: what was missed, in order, then `caught_up`.
5. What was held back, then live.
"""

import logging
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from broker import events, query, subjects
from broker.errors import BrokerError, InvalidName
from broker.fanout import is_large
from broker.log import Log, Stored
from broker.replay import Range, Replay
from broker.requests import Failure

from . import frames
from .channels import activity
from .close_codes import CloseCode
from .cursor import Cursor, in_log, parse_cursor
from .edge import Edge
from .elsewhere import tell_pending
from .rates import TokenBucket
from .session import Session, device_name
from .socket import ChatSocket, text_frame
from .tokens import Claims, KeysUnavailable, Unauthorized

VERSION = "0.1.0"
CHATS_PAGE = 200
REPLAY_CHUNK_BYTES = 128 * 1024
REPLAY_PATIENCE_S = 0.1
REPLAY_STALL_S = 30.0

_log = logging.getLogger("hikyaku.opening")


class _Ended(Exception):
    """The session was closed while it opened."""


async def open_session(
    edge: Edge,
    session: Session,
    socket: ChatSocket,
    *,
    token: str,
    user_id: str | None,
    device: str | None,
    cursor: str | None,
) -> None:
    """Open a session; failures close it with the protocol's code."""
    try:
        claims = await edge.tokens.verify(token)
        if user_id is not None and user_id != claims.user_id:
            session.close(CloseCode.FORBIDDEN, "user_id is not the token's")
            return
        name = device_name(device)
        if name is None:
            session.error("invalid", "device: must be 1 to 64 of A-Z, a-z, 0-9, _ and -")
            session.close(CloseCode.MALFORMED, "invalid device")
            return
        session.device = name
        await _open(edge, session, socket, claims, cursor)
    except Unauthorized as error:
        session.close(CloseCode.UNAUTHORIZED, str(error))
    except InvalidName:
        session.close(CloseCode.UNAUTHORIZED, "the token's `sub` is no valid user id")
    except (BrokerError, Failure, KeysUnavailable, TimeoutError) as error:
        _log.warning("session %s not opened: %s", session.id, error or "out of time")
        session.error("unavailable", "the server is not ready; connect again", None)
        session.close(CloseCode.SERVICE_RESTART, "not ready; connect again")
    except _Ended:
        _log.debug("session %s ended while it opened", session.id)
    except Exception:
        _log.exception("session %s could not be opened", session.id)
        session.close(CloseCode.SERVICE_RESTART, "the server failed; it was logged")


async def _open(
    edge: Edge, session: Session, socket: ChatSocket, claims: Claims, text: str | None
) -> None:
    feed = edge.feed
    if feed is None or edge.draining:
        session.close(CloseCode.SERVICE_RESTART, "not ready; connect again")
        return
    limits = edge.config.limits
    messages = TokenBucket(limits.messages_per_s, limits.messages_burst, edge.now())
    if session.lost:
        return
    if edge.sites is not None and edge.sites.names.site_of(claims.user_id) is not None:
        session.close(CloseCode.FORBIDDEN, "a user of another site")
        return
    user = edge.hub.attach(session, claims.user_id, messages)
    session.user = user
    session.attached = True
    session.vip = claims.vip
    if sum(not each.closing for each in user.sessions) > limits.connections_per_user:
        session.close(CloseCode.TOO_MANY_CONNECTIONS, "too many connections of this user")
        return
    session.expire_at(claims.expires_at)
    if user.groups is None:
        edge.hub.set_groups(user, await edge.memberships.groups_of(claims.user_id))
    cursor = None if text is None else in_log(parse_cursor(text), feed.epoch, feed.ancestors)
    if cursor is not None:
        await _catch_up(edge, cursor.seq)
    # Only now: from the moment the groups are known, the hub holds back all that comes.
    start = feed.position
    recoverable = cursor is not None and cursor.seq <= start
    since = cursor if cursor is not None and recoverable else Cursor(feed.epoch, start)
    edge.counters.connects += 1
    session.push(
        frames.Welcome(
            user_id=claims.user_id,
            device=session.device,
            session=session.id,
            epoch=feed.epoch,
            cursor=str(since),
            heartbeat_s=max(1, round(edge.config.ping_interval_s)),
            limits=limits,
            server=frames.ServerInfo(name="hikyaku", version=VERSION, site=edge.config.site),
        )
    )
    if not session.lost:
        edge.heartbeat.add(session)
        edge.presence.here.joined(session)
    socket.resume()
    missing: list[frames.Missing] = []
    if since.seq < start:
        quiet = list(edge.hub.quiet(session))
        missing = await _replay(edge, session, socket, since.seq, start, quiet)
        await _tell_news(edge, session, since.seq, start, quiet)
    if text is not None:
        session.push(
            frames.CaughtUp(
                cursor=str(Cursor(feed.epoch, start)), recovered=recoverable, missing=missing
            )
        )
    session.release(start)
    await tell_pending(edge, session)
    for chat_id, channel in edge.hub.quiet(session).items():
        if channel.last_seq > start:
            session.tell(activity(chat_id, channel.last_seq))


async def _tell_news(
    edge: Edge, session: Session, after: int, up_to: int, channels: list[str]
) -> None:
    """Large channels are not replayed: tell which of them have news."""
    for latest in await edge.log.last(channels, has=up_to):
        if latest.seq > after:
            session.tell(activity(latest.subject, latest.seq))


async def _catch_up(edge: Edge, seq: int) -> None:
    """Wait until this edge is where the log is, if that is at the cursor or beyond.

    So it has seen what the one had that the client comes from, and what the directory knows of the
    user's groups: an event that ends a membership comes with the replay or afterwards.
    """
    last = (await edge.log.state()).last_seq
    if seq <= last:
        await edge.reached(last)


async def _replay(
    edge: Edge, session: Session, socket: ChatSocket, after: int, up_to: int, quiet: list[str]
) -> list[frames.Missing]:
    """Send what the user missed but for `quiet`; returns what is to be read with `history`.

    A client that does not take what was read keeps nobody else waiting: it gives up its place, and
    what was read ahead for it, and goes on later from where it is.
    """
    own, *chats = subjects.user_feed(session.user.user_id)
    # Before the first wait: a group that is joined from here on comes live, from its joining on.
    filters = [own, *chats, *(group for group in session.user.groups or () if group not in quiet)]
    stays: _Stays | None = None
    missing: list[Range] | None = None
    since = after
    edge.counters.resumes += 1
    while True:
        async with edge.replays:
            if stays is None:
                stays = await _stays(edge.log, own, after, up_to, all_live=session.vip)
            state = await edge.log.state()
            replay = Replay(edge.log, after=after, up_to=up_to, first_seq=state.first_seq)
            missed = replay.events(filters, stays.floor, stays.left)
            after, complete = await _send(edge, socket, missed, after)
        missing = replay.missing if missing is None else missing
        if complete:
            break
        if not await socket.drained(REPLAY_STALL_S):
            session.close(CloseCode.SLOW_CONSUMER, "the replay does not get through")
            raise _Ended
    if since + 1 < state.first_seq:
        missing += await _aged(edge, session.user.user_id, since, state.first_seq, missing)
    groups = session.user.groups or {}
    return [
        frames.Missing(chat_id=each.chat_id, from_seq=each.from_seq, to_seq=each.to_seq)
        for each in missing
        # What nobody may read with `history`, as a group that was left, is not named.
        if each.chat_id.startswith("dm.") or each.chat_id in groups
    ]


async def _aged(
    edge: Edge, user_id: str, after: int, first_seq: int, known: list[Range]
) -> list[Range]:
    """Chats with news whose events have all left the log: only MongoDB still knows of them."""
    there = {each.chat_id for each in known}
    found: list[Range] = []
    last: str | None = None
    while True:
        question = query.Chats(user=user_id, limit=CHATS_PAGE, after=last)
        page = await edge.ask_query("chats", question, query.ChatsPage)
        for chat in page.chats:
            if _newest(chat) <= after:
                return found
            if chat["chat_id"] not in there:
                found.append(Range(chat["chat_id"], after + 1, first_seq - 1))
        if not page.more:
            return found
        last = page.chats[-1]["chat_id"]


def _newest(chat: dict[str, Any]) -> int:
    """Where a chat's newest message stood: past its retention there is no `last_message`."""
    if "seq" in chat:
        return int(chat["seq"])
    latest = chat["last_message"]  # a worker of an older version
    return latest["seq"] if latest is not None else 0


async def _send(
    edge: Edge, socket: ChatSocket, missed: AsyncIterator[Stored], after: int
) -> tuple[int, bool]:
    """Send until all is sent or the client does not keep up; the last seq, and which it was."""
    waiting = 0
    async for event in missed:
        frame = text_frame(events.with_seq(event.seq, event.data))
        socket.push(frame)
        edge.counters.replayed += 1
        if edge.following is not None:
            edge.following.replayed(event.seq, event.subject, event.data)
        edge.hub.places.note(event.seq, event.subject, event.data)
        after = event.seq
        waiting += len(frame)
        if waiting > REPLAY_CHUNK_BYTES:
            waiting = 0
            if not await socket.drained(REPLAY_PATIENCE_S):
                return after, False
    return after, True


class _Stays(NamedTuple):
    """What changed of a user's groups since the cursor.

    `joined` has the seq from which groups are the user's, `left` when others were.
    """

    joined: dict[str, int]
    left: list[Range]

    def floor(self, subject: str) -> int:
        """From where on a subject is to be read."""
        return self.joined.get(subject, 0)


async def _stays(log: Log, own: str, after: int, up_to: int, *, all_live: bool) -> _Stays:
    """Read it from the user's own events. `all_live`: also large channels are to be read."""
    joined: dict[str, int] = {}
    ended: dict[str, Range] = {}
    left: list[Range] = []
    async for page in log.read_all(own, after + 1, up_to):
        for stored in page:
            event = events.decode_own(stored.data)
            if isinstance(event, events.MemberAdded):
                joined.setdefault(event.chat_id, stored.seq)
                ended.pop(event.chat_id, None)
            elif isinstance(event, events.MemberRemoved) and event.chat_id not in ended:
                since = joined.pop(event.chat_id, after + 1)
                stay = ended[event.chat_id] = Range(event.chat_id, since, stored.seq - 1)
                if all_live or not is_large(event.size + 1, event.kind):
                    left.append(stay)
    for chat_id, stay in ended.items():
        # The directory may know already that the user is in it again.
        joined[chat_id] = stay.to_seq + 1
    return _Stays(joined, left)
