"""Who gets a push of a message, and when: pure functions of what is known, no clock, no network."""

from collections.abc import Collection
from datetime import datetime, time
from functools import lru_cache
from typing import Literal
from zoneinfo import ZoneInfo, available_timezones

from broker import presence
from broker.directory import Kind
from broker.events import Chat, GroupChat
from broker.fanout import fanout
from store.devices import SettingsRecord

When = Literal["now", "coalesced"]
Skip = Literal["online", "muted", "quiet", "read"]


def readers_of_dm(event: Chat) -> list[str]:
    """The other one; nobody is told of what he writes to himself."""
    return [] if event.to == event.from_ else [event.to]


def asked_in_large(event: GroupChat, vips: Collection[str]) -> list[str]:
    """Whom a message of a large channel may concern, if they are members."""
    return [user for user in dict.fromkeys([*event.mentions, *vips]) if user != event.from_]


def when(size: int, kind: Kind, *, vip: bool, mention: bool) -> When | None:
    """By the table of `broker.fanout`; who is mentioned is told at once in any chat."""
    push = fanout(size, kind, vip=vip).push
    if mention or push == "now":
        return "now"
    return "coalesced" if push == "coalesced" else None


def is_here(known: presence.State, *, away_counts: bool) -> bool:
    """Whether the user sees the message anyway; whoever is invisible does, too."""
    status = presence.together(known.connections)
    return status == "online" or (status == "away" and away_counts)


def silenced(
    known: presence.State, settings: SettingsRecord, *, muted: bool, mention: bool, now: datetime
) -> Skip | None:
    """Why the user wants no push now; a mention breaks through mute, if the user lets it."""
    if muted and not (mention and settings.mentions):
        return "muted"
    if known.setting.mode == "dnd" or is_quiet(settings.quiet, now):
        return "quiet"
    return None


def is_quiet(quiet: tuple[str, str, str] | None, now: datetime) -> bool:
    """Whether `now` is between start and end on the clocks of the zone; past midnight, too."""
    if quiet is None:
        return False
    start, end = time.fromisoformat(quiet[0]), time.fromisoformat(quiet[1])
    local = now.astimezone(ZoneInfo(quiet[2])).time()
    if start <= end:
        return start <= local < end
    return local >= start or local < end


@lru_cache(maxsize=1)
def zones() -> frozenset[str]:
    """The names of time zones."""
    return frozenset(available_timezones())
