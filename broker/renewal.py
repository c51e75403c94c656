"""The log restored from a backup: the same events, a new epoch, and places that nobody has seen.

After the backup was made the lost log went on giving sequences, and clients have seen them. So the
restored one leaves a gap that is larger than what can have been given since, and takes a new epoch
that names the old one as its ancestor: cursors up to the backup go on, later ones are void.

JetStream has no call for "go on from N". A mirror takes over the sequences of what it mirrors, with
all gaps. So CHAT is restored as the mirror of a stream that begins at N, and made a stream of its
own when it has come there.
"""

import asyncio
from collections.abc import AsyncIterator

from .bus import Bus
from .config import BrokerConfig
from .errors import Unavailable
from .log import STREAM, parse_ancestors
from .snapshots import Taken, load
from .streams import call, chat_stream, new_epoch

STEP = 1_000_000
MOST_A_SECOND = 100_000
"""No log takes more than this, so that the gap is above all sequences given since the backup."""

KEPT_ANCESTORS = 8
ARRIVED_S = 60.0
POLL_S = 0.1

JUMP = "RESTORE"
_SUBJECT = "jump.to"


def ancestors_of(metadata: dict[str, str], last_seq: int) -> str:
    """What a log says that goes on from this one, which ended at `last_seq`."""
    before = parse_ancestors(metadata.get("ancestors", ""))
    all_of_them = {metadata["epoch"]: last_seq, **before}
    kept = list(all_of_them.items())[:KEPT_ANCESTORS]
    return " ".join(f"{epoch}:{seq}" for epoch, seq in kept)


def jump_to(last_seq: int, age_s: float) -> int:
    """Where a log goes on whose backup is this old and ended at `last_seq`."""
    return last_seq + STEP + int(MOST_A_SECOND * max(age_s, 0.0))


async def restore_log(bus: Bus, taken: Taken, pieces: AsyncIterator[bytes], *, place: int) -> None:
    """Restore CHAT up to `place`. It can be read then, and nobody uses it before `renew`.

    Nothing leaves it by age meanwhile. Raises `BrokerError`.
    """
    not_of_mirrors = ("subjects", "first_seq", "allow_atomic", "republish", "duplicate_window")
    mirror = {name: value for name, value in taken.config.items() if name not in not_of_mirrors}
    mirror |= {"mirror": {"name": JUMP}, "num_replicas": 1, "max_age": 0}
    await load(bus, mirror, taken.state, pieces)
    # Only now: the server restores message by message, and the mirror works already.
    await call(
        bus,
        f"STREAM.CREATE.{JUMP}",
        {"name": JUMP, "subjects": [_SUBJECT], "first_seq": place, "storage": "file"},
    )
    await bus.request(_SUBJECT, b"", timeout_s=10.0)

    loop = asyncio.get_running_loop()
    deadline = loop.time() + ARRIVED_S
    while (await call(bus, f"STREAM.INFO.{STREAM}"))["state"]["last_seq"] < place:
        if loop.time() > deadline:
            raise Unavailable(f"the log did not come to {place} within {ARRIVED_S:g} s")
        await asyncio.sleep(POLL_S)


async def renew(bus: Bus, config: BrokerConfig, taken: Taken, *, place: int) -> str:
    """Make the log out of what `restore_log` left; gives its epoch. Raises `BrokerError`."""
    metadata = taken.config["metadata"]
    renewed = chat_stream(config).config
    renewed["metadata"] = {
        **{name: value for name, value in metadata.items() if not name.startswith("_nats")},
        "epoch": new_epoch(),
        "ancestors": ancestors_of(metadata, taken.state["last_seq"]),
    }
    await call(bus, f"STREAM.UPDATE.{STREAM}", {"name": STREAM, **renewed})
    await call(bus, f"STREAM.MSG.DELETE.{STREAM}", {"seq": place})
    await call(bus, f"STREAM.DELETE.{JUMP}")
    epoch: str = renewed["metadata"]["epoch"]
    return epoch
