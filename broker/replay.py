"""What a resuming client missed: the chats with news, then only those, merged in order of seq.

One `multi_last` over the user's subjects tells which chats have events after the cursor. Each of
them is read in pages, at most its newest 1,000 events; what that leaves out is reported as an
exact range. Memory is bounded: all chats together hold about `WINDOW_EVENTS` events at a time.

Replicas may lag. The `multi_last` is answered by one that has all up to the end, so no chat is left
out; a chat is read until what it said to be the last was seen, or something after the end.
"""

import asyncio
import heapq
from collections.abc import AsyncIterator, Callable, Sequence
from typing import NamedTuple

from .errors import Unavailable
from .log import Log, Stored

CHAT_EVENTS = 1000
WINDOW_EVENTS = 8192
SMALLEST_PAGE = 16
PARALLEL = 16
LAG_RETRY_S = 0.02
LAG_RETRIES = 100


class Range(NamedTuple):
    """A range of a chat's events; both ends belong to it."""

    chat_id: str
    from_seq: int
    to_seq: int


class _News(NamedTuple):
    """A chat that has or may have events from `begin` to `end`; `latest` is its last of all."""

    latest: Stored
    begin: int
    end: int


class Replay:
    """The events after `after`, up to and with `up_to`, of some subjects, in order of seq.

    `first_seq` is the log's first sequence: what lies before it has left the log and is in
    `missing` for every subject known. `floors` are subjects to be read only from a higher sequence
    on: a group that the user joined in the meantime. `left` are ranges to be read beside: of groups
    in which the user was for a part of the time. Raises `Unavailable` while iterating when the log
    does not answer.
    """

    def __init__(self, log: Log, *, after: int, up_to: int, first_seq: int):
        self._log = log
        self._after = after
        self._up_to = up_to
        self._first_seq = first_seq
        self.missing: list[Range] = []

    async def events(
        self,
        filters: list[str],
        floors: Callable[[str], int] = lambda _: 0,
        left: Sequence[Range] = (),
    ) -> AsyncIterator[Stored]:
        """Iterate over the events of all subjects that match `filters`, and of `left`."""
        aged = self._after + 1 < self._first_seq
        latest = await self._log.last(filters, has=self._up_to)
        if aged:
            known = {each.subject for each in latest}
            known.update(each for each in filters if "*" not in each)
            gone = self._first_seq - 1
            self.missing = [Range(chat, self._after + 1, gone) for chat in sorted(known)]
        start = max(self._after + 1, self._first_seq)
        news = [_News(each, max(start, floors(each.subject)), self._up_to) for each in latest]
        news += await self._last_of(left, start)
        news = [each for each in news if each.begin <= min(each.latest.seq, each.end)]
        page = max(SMALLEST_PAGE, min(CHAT_EVENTS, WINDOW_EVENTS // max(1, len(news))))
        readers = [self._chat(each, page) for each in news]
        heap: list[tuple[int, int, Stored]] = []
        for at in range(0, len(readers), PARALLEL):
            part = readers[at : at + PARALLEL]
            firsts = await asyncio.gather(*(anext(reader, None) for reader in part))
            for number, event in enumerate(firsts, at):
                if event is not None:
                    heap.append((event.seq, number, event))
        heapq.heapify(heap)
        while heap:
            _, number, event = heap[0]
            yield event
            following = await anext(readers[number], None)
            if following is None:
                heapq.heappop(heap)
            else:
                heapq.heapreplace(heap, (following.seq, number, following))

    async def _last_of(self, ranges: Sequence[Range], start: int) -> list["_News"]:
        """What there may be of each range."""
        wanted = [each for each in ranges if each.to_seq >= start]
        chats = list(dict.fromkeys(each.chat_id for each in wanted))
        latest = {e.subject: e for e in await self._log.last(chats, has=self._up_to)}
        return [
            _News(latest[each.chat_id], max(start, each.from_seq), min(each.to_seq, self._up_to))
            for each in wanted
            if each.chat_id in latest
        ]

    async def _chat(self, news: "_News", page: int) -> AsyncIterator[Stored]:
        latest, start, end = news
        if start == latest.seq:
            yield latest
            return
        subject = latest.subject
        first = True
        attempt = 0
        seq = start
        # Of a chat that went on after the end there may be nothing before it.
        size = page if latest.seq <= end else SMALLEST_PAGE
        while seq <= min(latest.seq, end):
            found = await self._log.read(subject, seq, size)
            size = page
            if found.events and found.events[0].seq > end:
                return
            if first and len(found.events) + found.pending > CHAT_EVENTS:
                first = False
                newest = await self._newest(subject, found.events[0].seq, min(latest.seq, end))
                if newest > found.events[0].seq:
                    self.missing.append(Range(subject, start, newest - 1))
                    seq = newest
                    continue
            first = False
            if not found.events:
                attempt += 1
                if not await self._behind(latest, attempt):
                    return
                continue
            attempt = 0
            for event in found.events:
                if event.seq > end:
                    return
                yield event
            seq = found.events[-1].seq + 1

    async def _behind(self, latest: Stored, attempt: int) -> bool:
        """Whether the replica that answered lags: `latest` was seen, and is still in the log."""
        if (await self._log.state()).first_seq > latest.seq:
            return False
        if attempt > LAG_RETRIES:
            raise Unavailable(f"{latest.subject} is not readable up to {latest.seq} yet")
        await asyncio.sleep(LAG_RETRY_S)
        return True

    async def _newest(self, subject: str, low: int, high: int) -> int:
        """The seq from which `CHAT_EVENTS` events are left up to `high`, by binary search."""
        beyond, _ = await self._log.count(subject, high + 1)
        wanted = CHAT_EVENTS + beyond
        while low < high:
            middle = (low + high + 1) // 2
            count, seq = await self._log.count(subject, middle)
            if count >= wanted:
                low = max(seq, middle)
            else:
                high = middle - 1
        return low
