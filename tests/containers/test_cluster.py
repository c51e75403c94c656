"""`compose.cluster.yaml`: three servers each, and whole when any one of them dies."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from client import Client

from .compose import CLUSTER, Compose

STREAMS = {"CHAT", "DEAD", "KV_edges", "KV_machines", "KV_presence", "KV_reads"}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Compose]:
    compose = Compose(tmp_path, CLUSTER, HIKYAKU_MONGO_CACHE_GB="0.25")
    try:
        compose.up()
        yield compose
    finally:
        compose.down()


def replicas(cluster: Compose) -> dict[str, int]:
    said = cluster.execute(
        "nats", "wget", "-q", "-O", "-", "http://127.0.0.1:8222/jsz?streams=true&config=true"
    )
    accounts = {each["name"]: each for each in json.loads(said)["account_details"]}
    streams = accounts["SITE"]["stream_detail"]
    return {each["name"]: each["config"]["num_replicas"] for each in streams}


def members(cluster: Compose) -> set[str]:
    script = """if True:
        import os, pymongo
        client = pymongo.MongoClient(
            os.environ["HIKYAKU_MONGO_URL"],
            username="query",
            password=os.environ["HIKYAKU_MONGO_PASSWORD"],
            tls=True,
            tlsCAFile=os.environ["HIKYAKU_MONGO_CA"],
        )
        client.hikyaku.messages.find_one()
        print(*(f"{host}:{port}" for host, port in client.nodes))
    """
    return set(cluster.execute("query", "python", "-c", script).split())


@pytest.mark.anyio
async def test_one_of_three_may_die(
    cluster: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = replicas(cluster)
    assert found.keys() >= STREAMS
    assert set(found.values()) == {3}
    assert members(cluster) == {"mongo:27017", "mongo-2:27017", "mongo-3:27017"}

    monkeypatch.setenv("SSL_CERT_FILE", str(cluster.certificate(tmp_path)))
    async with (
        Client(cluster.url, cluster.token("alice"), deadline_s=60) as alice,
        Client(cluster.url, cluster.token("bob"), deadline_s=60) as bob,
    ):
        for number, service in enumerate(("nats", "mongo", "nats-2")):
            # Stopped, and it stays away: the others have to do without it.
            await asyncio.to_thread(cluster.run, "kill", service)
            await alice.send("bob", f"without {service}")
            async with asyncio.timeout(60):
                async for event in bob:
                    if getattr(event, "content", "") == f"without {service}":
                        break
            page = await alice.history("dm.alice.bob")
            assert len(page.messages) == number + 1
            await asyncio.to_thread(cluster.run, "start", service)
            await asyncio.to_thread(cluster.ready)
