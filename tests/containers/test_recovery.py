"""What docs/security.md and docs/recovery.md tell an operator to do, done in containers."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from client import Client
from deploy.init import fresh

from .compose import Compose, docker

LOST = ("nats", "mongo", "search")
UID = 10001


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Compose]:
    compose = Compose(tmp_path, HIKYAKU_MONGO_CACHE_GB="0.25")
    try:
        compose.up()
        yield compose
    finally:
        compose.down()


@pytest.mark.anyio
async def test_passwords_are_changed_and_a_backup_comes_back(
    site: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(site.certificate(tmp_path)))
    async with Client(site.url, site.token("alice"), deadline_s=90) as alice:
        await alice.send("bob", "before")
        roles = ("EDGE", "PERSIST", "OPERATOR")
        site.set({f"HIKYAKU_{role}_PASSWORD": fresh("password") for role in roles})
        await asyncio.to_thread(site.up)
        await alice.send("bob", "with other passwords")
        await until(alice, ["with other passwords", "before"])

    backups = tmp_path / "backups"
    backups.mkdir()
    backups.chmod(0o777)
    with_backups = ("run", "--rm", "-T", "-v", f"{backups}:/backups", "tool")
    site.run(*with_backups, "backup", "/backups/today")
    site.run("down")
    for volume in LOST:
        docker("volume", "rm", f"{site.project}_{volume}")
    site.run("up", "-d", "nats", "mongo", "mongo-init")
    await asyncio.to_thread(site.ready)
    restored = site.run(*with_backups, "restore", "/backups/today").stdout
    assert "messages" in restored
    await asyncio.to_thread(site.up)
    site.tool("search", "rebuild")
    monkeypatch.setenv("SSL_CERT_FILE", str(site.certificate(tmp_path)))
    async with Client(site.url, site.token("alice"), deadline_s=90) as alice:
        await until(alice, ["with other passwords", "before"])
        assert [each.content for each in (await alice.search("before")).hits] == ["before"]
        await alice.send("bob", "after")
        await until(alice, ["after", "with other passwords", "before"])


async def until(client: Client, wanted: list[str]) -> None:
    found: list[str | None] = []
    async with asyncio.timeout(60):
        while found != wanted:
            page = await client.history("dm.alice.bob")
            found = [each.content for each in page.messages]
            await asyncio.sleep(0.2)
