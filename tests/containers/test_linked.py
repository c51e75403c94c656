"""`compose.federation.yaml`: two sites in containers, linked by the operator's commands."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from client import ChatEvent, Client

from ..ports import free_port
from .compose import LINKED, Compose, docker

WITHIN_S = 60
ADDRESS = "chat.tokyo.example"


@pytest.fixture
def sites(tmp_path: Path) -> Iterator[tuple[Compose, Compose]]:
    made = []
    for name, machines in (("tokyo", "0-31"), ("osaka", "32-63")):
        site = Compose(
            tmp_path / name,
            LINKED,
            HIKYAKU_SITE=name,
            HIKYAKU_MACHINES=machines,
            HIKYAKU_LINK_LISTEN=f"127.0.0.1:{free_port()}",
            HIKYAKU_LINK_ADDRESS=f"{ADDRESS}:7422" if name == "tokyo" else "",
            HIKYAKU_MONGO_CACHE_GB="0.25",
        )
        made.append(site)
    try:
        for site in made:
            site.up()
        yield made[0], made[1]
    finally:
        for site in made:
            site.down()


def let_find(here: Compose, there: Compose) -> None:
    """Has the NATS server of `here` find that of `there` by its address, as on the internet."""
    network = f"{here.project}_outbound"
    found = there.containers()["nats"]["Id"]
    docker("network", "connect", "--alias", ADDRESS, network, found)


@pytest.mark.anyio
async def test_two_sites_are_linked_and_cut(
    sites: tuple[Compose, Compose], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokyo, osaka = sites
    let_find(osaka, tokyo)
    invited = tokyo.tool("site", "invite", "osaka").split()
    invite = next(word for word in invited if word.startswith("hikyaku-site-"))
    assert "osaka and tokyo are linked" in osaka.tool("site", "join", invite)
    for site, other in ((tokyo, "osaka"), (osaka, "tokyo")):
        assert other in site.tool("site", "list")

    authorities = tmp_path / "authorities.pem"
    for site in sites:
        folder = tmp_path / site.project
        folder.mkdir()
        with authorities.open("a") as file:
            file.write(site.certificate(folder).read_text())
    monkeypatch.setenv("SSL_CERT_FILE", str(authorities))
    async with (
        Client(tokyo.url, tokyo.token("alice"), deadline_s=60) as alice,
        Client(osaka.url, osaka.token("bob"), deadline_s=60) as bob,
    ):
        await alice.send("bob@osaka", "hello")
        await heard(bob, "hello")
        await bob.send("alice@tokyo", "good day")
        await heard(alice, "good day")

        # The server that accepts the link dies; what is written meanwhile arrives.
        await asyncio.to_thread(tokyo.crash, "nats")
        await bob.send("alice@tokyo", "are you there?")
        await heard(alice, "are you there?")

    assert "is cut" in tokyo.tool("site", "remove", "osaka")
    listed = osaka.run("run", "--rm", "-T", "tool", "site", "list", check=False)
    assert listed.returncode == 1, listed.stdout


async def heard(client: Client, content: str) -> None:
    """Wait for a message; also one's own is an event."""
    async with asyncio.timeout(WITHIN_S):
        async for event in client:
            if isinstance(event, ChatEvent) and event.content == content:
                return
    raise AssertionError("the connection ended")
