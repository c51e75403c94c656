"""A server reads its configuration again when the operator's commands have it do so."""

from pathlib import Path

import pytest

from broker.bus import Bus
from broker.config import BrokerConfig
from broker.errors import Unavailable
from deploy import links
from deploy.errors import UserError
from deploy.nats_reload import reload

from ..brokers import as_role, make_bus
from ..servers import LINKS, Nats

pytestmark = pytest.mark.anyio


async def test_a_site_that_was_let_in_may_connect(nats: Nats, tmp_path: Path) -> None:
    folder = tmp_path / "nats" / LINKS
    found = links.read(folder)
    found.accepted["osaka"] = "secret"
    links.write(folder, found)
    config = as_role(nats.url)
    await reload(config)
    async with make_bus(nats.url) as bus:
        await bus.wait_connected(5)
    url = nats.url.replace("nats://", "nats://osaka:secret@")
    async with Bus(BrokerConfig(urls=(url,)), name="osaka") as bus:
        await bus.wait_connected(5)


async def test_what_a_server_does_not_take_is_told(nats: Nats, tmp_path: Path) -> None:
    (tmp_path / "nats" / LINKS / "users.conf").write_text("users: [")
    with pytest.raises(UserError, match=r"the NATS server test-nats-1 does not take it: .*users"):
        await reload(as_role(nats.url))


async def test_only_the_operator_may(nats: Nats) -> None:
    config = as_role(nats.url, "edge")
    with pytest.raises(Unavailable):
        await reload(config)
