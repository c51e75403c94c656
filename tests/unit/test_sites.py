"""Names across sites: both ends of a link find the same home, and translate there and back."""

from hypothesis import given
from hypothesis import strategies as st

from broker import events, subjects
from broker.renaming import renamed
from broker.sites import Names

TOKYO = Names("tokyo", frozenset({"osaka", "kyoto"}))
OSAKA = Names("osaka", frozenset({"tokyo", "kyoto"}))

ids = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=10).filter(
    lambda text: text.rpartition("@")[2] not in {"tokyo", "osaka", "kyoto"}
)
places = st.sampled_from(["tokyo", "osaka", "kyoto"])


def name_at(names: Names, user: str, site: str) -> str:
    return user if site == names.own else f"{user}@{site}"


def test_only_known_sites_are_endings() -> None:
    assert TOKYO.site_of("a@osaka") == "osaka"
    assert TOKYO.site_of("a@example.com") is None
    assert TOKYO.site_of("a@tokyo") is None
    assert TOKYO.site_of("a@b@kyoto") == "kyoto"
    assert TOKYO.local("a@example.com", "osaka") == "a@example.com@osaka"


@given(ids, places, ids, places)
def test_both_sites_find_the_same_home(a: str, site_a: str, b: str, site_b: str) -> None:
    homes = []
    for names in (TOKYO, OSAKA):
        chat = subjects.dm(name_at(names, a, site_a), name_at(names, b, site_b))
        homes.append(names.home_of(chat) or names.own)
    if {site_a, site_b} & {"tokyo"} and {site_a, site_b} & {"osaka"}:
        assert homes[0] == homes[1]


@given(ids, places, ids, places)
def test_there_and_back(a: str, site_a: str, b: str, site_b: str) -> None:
    """What Osaka submits and Tokyo puts in order comes back as it was."""
    sender, to = name_at(OSAKA, a, site_a), name_at(OSAKA, b, site_b)
    event = events.Chat(
        id="1",
        chat_id=subjects.dm(sender, to),
        from_=sender,
        to=to,
        content="hello",
        content_type="text",
        timestamp=1,
        client_id="c",
        mentions=[to],
    )
    there = renamed(event, lambda name: TOKYO.local(name, "osaka"))
    assert (there.from_, there.to) == (name_at(TOKYO, a, site_a), name_at(TOKYO, b, site_b))
    assert there.chat_id == subjects.dm(there.from_, there.to)
    assert renamed(there, lambda name: OSAKA.local(name, "tokyo")) == event
