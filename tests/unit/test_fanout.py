"""Who gets a message live and who a push, by size, kind and VIP."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.directory import Kind
from broker.fanout import fanout, is_large


@pytest.mark.parametrize(
    ("members", "kind", "vip", "live", "push"),
    [
        (1, "group", False, "always", "now"),
        (50, "group", False, "always", "now"),
        (50, "channel", False, "always", "now"),
        (51, "group", False, "always", "coalesced"),
        (51, "channel", False, "always", "coalesced"),
        (51, "group", True, "always", "now"),
        (500, "group", False, "always", "coalesced"),
        (500, "channel", False, "always", "coalesced"),
        (500, "channel", True, "always", "now"),
        (501, "channel", False, "open", "mentions"),
        (501, "channel", True, "always", "now"),
        (501, "group", False, "always", "coalesced"),
        (20_000, "channel", False, "open", "mentions"),
        (20_000, "channel", True, "always", "now"),
    ],
)
def test_the_table(members: int, kind: Kind, vip: bool, live: str, push: str) -> None:
    assert fanout(members, kind, vip=vip) == (live, push)


@given(st.integers(0, 10**6), st.sampled_from(["group", "channel"]))
def test_only_large_channels_are_opened(members: int, kind: Kind) -> None:
    assert is_large(members, kind) == (kind == "channel" and members > 500)
