"""What a user's keys say: devices together, choices, invisibility; and merging by sequence."""

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker import presence
from broker.mirror import Mirror, Value
from broker.presence import Connection, Seen, Setting, State, View

ONLINE, AWAY = Connection(since=1), Connection(since=2, status="away")
DND, INVISIBLE = Setting("dnd", "busy"), Setting("invisible")


def known(*connections: Connection, setting: Setting = presence.NOTHING) -> State:
    return State(list(connections), setting, 77)


@pytest.mark.parametrize(
    ("state", "public", "own"),
    [
        (known(), ("offline", "", 77), ("offline", "", 77)),
        (known(ONLINE), ("online", "", None), ("online", "", None)),
        (known(AWAY), ("away", "", None), ("away", "", None)),
        (known(AWAY, ONLINE), ("online", "", None), ("online", "", None)),
        (known(AWAY, AWAY), ("away", "", None), ("away", "", None)),
        (known(ONLINE, setting=DND), ("dnd", "busy", None), ("dnd", "busy", None)),
        (known(AWAY, setting=DND), ("dnd", "busy", None), ("dnd", "busy", None)),
        (known(setting=DND), ("offline", "", 77), ("offline", "", 77)),
        (known(ONLINE, setting=INVISIBLE), ("offline", "", 77), ("invisible", "", None)),
        (known(setting=INVISIBLE), ("offline", "", 77), ("offline", "", 77)),
        (known(AWAY, setting=Setting("", "tea")), ("away", "tea", None), ("away", "tea", None)),
    ],
)
def test_views(state: State, public: tuple[object, ...], own: tuple[object, ...]) -> None:
    assert presence.public_view(state) == public
    assert presence.own_view(state) == own


def test_only_connections_of_living_edges_count() -> None:
    values = [
        ("e1.a", msgspec.json.encode(ONLINE)),
        ("e2.b", msgspec.json.encode(AWAY)),
        ("e2.gone", b""),
        ("set", msgspec.json.encode(DND)),
        ("seen", msgspec.json.encode(Seen(5))),
    ]
    assert presence.state(values, {"e1", "e2"}) == State([ONLINE, AWAY], DND, 5)
    assert presence.state(values, {"e2"}) == State([AWAY], DND, 5)
    assert presence.state(values, set()) == State([], DND, 5)
    assert presence.state([], {"e1"}) == State([], presence.NOTHING, None)


def test_a_device_joins_what_the_others_are() -> None:
    assert presence.status_on_arrival([]) == "online"
    assert presence.status_on_arrival([AWAY]) == "away"
    assert presence.status_on_arrival([AWAY, ONLINE]) == "online"


@pytest.mark.parametrize(
    ("status", "device", "setting"),
    [
        ("online", "online", Setting()),
        ("away", "away", Setting()),
        ("dnd", "online", Setting("dnd")),
        ("invisible", "online", Setting("invisible")),
    ],
)
def test_a_choice(status: presence.Choice, device: str, setting: Setting) -> None:
    assert presence.chosen(status, "", DND) == (device, setting)
    for text, expected in ((None, "busy"), ("new", "new")):
        assert presence.chosen(status, text, DND) == (device, Setting(setting.mode, expected))


connections = st.lists(st.sampled_from([ONLINE, AWAY]), max_size=5)


@given(connections, st.sampled_from([presence.NOTHING, DND, INVISIBLE]), st.randoms())
def test_the_order_of_devices_does_not_matter(
    devices: list[Connection], setting: Setting, rng: random.Random
) -> None:
    mixed = devices.copy()
    rng.shuffle(mixed)
    state, other = State(devices, setting, 1), State(mixed, setting, 1)
    assert presence.public_view(state) == presence.public_view(other)
    assert presence.own_view(state) == presence.own_view(other)


@given(connections)
def test_who_is_invisible_looks_like_who_is_not_there(devices: list[Connection]) -> None:
    gone = presence.public_view(State([], presence.NOTHING, 9))
    assert presence.public_view(State(devices, Setting("invisible", "psst"), 9)) == gone
    assert gone == View("offline", "", 9)


# --- merging ------------------------------------------------------------------------------------

KEYS = "abc"


def truth(history: list[tuple[str, bool]], up_to: int) -> dict[str, Value]:
    """What a bucket holds after its first `up_to` writes."""
    values: dict[str, Value] = {}
    for seq, (key, there) in enumerate(history[:up_to], 1):
        if there:
            values[key] = Value(seq, b"%d" % seq)
        else:
            values.pop(key, None)
    return values


histories = st.lists(st.tuples(st.sampled_from(KEYS), st.booleans()), max_size=25)


@given(histories, st.data())
def test_a_mirror_ends_with_the_truth(history: list[tuple[str, bool]], data: st.DataObject) -> None:
    """Whatever was missed before a snapshot, and in whatever order the rest comes."""
    end = len(history)
    up_to = data.draw(st.integers(0, end))
    early = data.draw(st.lists(st.integers(1, end), unique=True)) if end else []
    mirror = Mirror()

    def live(seq: int) -> None:
        key, there = history[seq - 1]
        mirror.apply(key, Value(seq, b"%d" % seq if there else b""))

    for old in data.draw(st.lists(st.integers(0, up_to), max_size=2)):
        mirror.replace(truth(history, old), old)
    for seq in early:
        live(seq)
    mirror.replace(truth(history, up_to), up_to)
    later = [seq for seq in range(up_to + 1, end + 1) if seq not in early]
    for seq in data.draw(st.permutations(later)):
        live(seq)
    assert mirror.values == truth(history, end)


def test_a_change_that_was_known_is_no_news() -> None:
    mirror = Mirror()
    assert mirror.apply("a", Value(3, b"x"))
    assert not mirror.apply("a", Value(3, b"x"))
    assert not mirror.apply("a", Value(2, b""))
    assert mirror.apply("a", Value(4, b""))
    assert not mirror.apply("a", Value(3, b"x"))
    assert mirror.values == {}


def test_how_many_connections_were_there_before() -> None:
    def at(since: int) -> bytes:
        return msgspec.json.encode(Connection(since=since))

    values = [("a.1", at(5)), ("b.1", at(3)), ("dead.1", at(1)), ("a.2", at(5)), ("set", b"{}")]
    living = {"a", "b"}
    counts = {key: presence.before(values, living, key) for key in ("b.1", "a.1", "a.2", "none.1")}
    assert counts == {"b.1": 0, "a.1": 1, "a.2": 2, "none.1": 0}
