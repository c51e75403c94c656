"""What a role's credentials may not do at a real NATS server, and that it is never silent."""

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from msgspec.structs import replace

from broker.bus import Bus
from broker.consumer import Puller, durable
from broker.errors import Refused, Unavailable
from broker.log import STREAM
from broker.roles import ROLES
from broker.streams import ensure
from deploy import local_nats
from deploy.probes import http_ok
from tests.brokers import api, as_role, make_bus, prepare
from tests.servers import Nats, Process, eventually, password, until_ready

from ..ports import free_port

pytestmark = pytest.mark.anyio

TIMEOUT_S = 10.0
WORKERS = ("directory", "files", "index", "notify", "persist", "query")


@pytest.fixture(scope="module")
async def nats(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Nats]:
    server = Nats(tmp_path_factory.mktemp("nats"))
    try:
        await server.start()
        async with make_bus(server.url) as bus:
            await prepare(bus)
        yield server
    finally:
        server.process.end(9)


class Roles:
    """A connection of each role that is asked for."""

    def __init__(self, nats: Nats, stack: AsyncExitStack):
        self._nats = nats
        self._stack = stack

    async def __call__(self, role: str) -> Bus:
        bus = await self._stack.enter_async_context(make_bus(self._nats.url, role, role=role))
        await bus.wait_connected(TIMEOUT_S)
        return bus


@pytest.fixture
async def roles(nats: Nats) -> AsyncIterator[Roles]:
    async with AsyncExitStack() as stack:
        yield Roles(nats, stack)


async def refused(bus: Bus, *subjects: str) -> None:
    """Each is answered at once, with the subject."""
    for subject in subjects:
        with pytest.raises(Refused) as error:
            await bus.request(subject, b"{}", timeout_s=TIMEOUT_S)
        assert str(error.value).endswith(f"publish to {subject} (0)"), subject


class Heard:
    """What a subscription is given."""

    def __init__(self) -> None:
        self.subjects: list[str] = []

    def __call__(self, subject: bytes, *_: object) -> None:
        self.subjects.append(subject.decode())


async def not_heard(
    bus: Bus, others: Bus, subscribed: str, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The subscription is refused, said in the log, and gives nothing."""
    caplog.clear()
    heard = Heard()
    bus.subscribe(subscribed, heard)
    said = f"subscribe to {subscribed}; see docs/security.md"
    await eventually(lambda: said in caplog.text, what=subscribed)
    assert [each.levelno for each in caplog.records if said in each.message] == [logging.ERROR]
    others.publish(told, b"for others")
    for each in (others, bus):  # what came before the answer would have been there
        await each.request("$JS.API.STREAM.NAMES", timeout_s=TIMEOUT_S)
    assert heard.subjects == []


# --- streams ---


@pytest.mark.parametrize("role", ["edge", *WORKERS])
async def test_nobody_but_the_operator_deletes_the_log(roles: Roles, role: str) -> None:
    bus = await roles(role)
    api_of = "$JS.API.STREAM"
    await refused(
        bus,
        f"{api_of}.DELETE.CHAT",
        f"{api_of}.MSG.DELETE.CHAT",
        f"{api_of}.SNAPSHOT.CHAT",
        f"{api_of}.RESTORE.CHAT",
        f"{api_of}.CREATE.MINE",
        f"{api_of}.DELETE.KV_presence",
        f"{api_of}.PURGE.KV_reads",
        "$JS.API.CONSUMER.DELETE.CHAT.persist",
        "$JS.API.CONSUMER.CREATE.CHAT.mine.>",
        "$JS.API.CONSUMER.CREATE.CHAT",
        "$JS.API.INFO",
        "$SYS.REQ.SERVER.PING",
    )


@pytest.mark.parametrize("role", ["edge", "files", "index", "notify", "query"])
async def test_only_makers_make_and_change_streams(roles: Roles, role: str) -> None:
    bus = await roles(role)
    await refused(bus, *(f"$JS.API.STREAM.{verb}.CHAT" for verb in ("CREATE", "UPDATE", "PURGE")))
    await refused(bus, "$JS.API.STREAM.UPDATE.KV_presence", "$JS.API.STREAM.CREATE.DEAD")


# --- writing ---


async def test_an_edge_writes_messages_and_its_own_buckets_only(roles: Roles) -> None:
    edge = await roles("edge")
    await edge.request("dm.a.b", b"{}", timeout_s=TIMEOUT_S)
    await edge.request("$KV.presence.a.e.c", b"{}", timeout_s=TIMEOUT_S)
    await refused(
        edge,
        "user.a",  # what only directory and query say
        "$KV.reads.dm.a.b.a",
        "$KV.delivered.dm.a.b.a",
        "dead.persist",
        "live.dm.a.b",
        "$JS.API.DIRECT.GET.KV_reads",
        "$JS.API.STREAM.MSG.GET.DEAD",
        "$JS.API.CONSUMER.MSG.NEXT.CHAT.persist",
        "$JS.ACK.CHAT.persist.1.1.1.1.1",
    )


@pytest.mark.parametrize(
    ("role", "subjects"),
    [
        ("directory", ("dm.a.b", "eph.dm.a.b", "$KV.reads.x", "dead.persist")),
        ("files", ("dm.a.b", "user.a", "group.g", "eph.group.g", "dead.files")),
        ("index", ("dm.a.b", "user.a", "dead.persist", "$JS.ACK.CHAT.persist.1.1.1.1.1")),
        ("notify", ("dm.a.b", "user.a", "$KV.presence.a.set", "$KV.reads.x", "$KV.edges.e")),
        ("persist", ("dm.a.b", "user.a", "$KV.machines.1", "$JS.API.CONSUMER.MSG.NEXT.CHAT.index")),
        ("query", ("dm.a.b", "group.g", "$KV.presence.a.set", "dead.query")),
    ],
)
async def test_a_worker_writes_what_is_its_own(
    roles: Roles, role: str, subjects: tuple[str, ...]
) -> None:
    await refused(await roles(role), *subjects, "svc.directory.leave", "svc.files.check")


async def test_what_was_published_without_an_answer_is_said_too(
    roles: Roles, caplog: pytest.LogCaptureFixture
) -> None:
    edge = await roles("edge")
    edge.publish("user.a", b"{}")
    said = "NATS does not let edge publish to user.a; see docs/security.md"
    await eventually(lambda: said in caplog.text)


# --- reading ---


async def test_nobody_reads_the_replies_of_another_role(
    roles: Roles, caplog: pytest.LogCaptureFixture
) -> None:
    edge, operator = await roles("edge"), await roles("operator")
    for role in WORKERS:
        bus = await roles(role)
        await not_heard(edge, operator, f"_INBOX.{role}.>", f"_INBOX.{role}.x.1", caplog)
        await not_heard(bus, operator, "_INBOX.edge.>", "_INBOX.edge.x.1", caplog)
    for wide in (">", "_INBOX.>", "_INBOX.*.*.*"):
        await not_heard(edge, operator, wide, "_INBOX.query.x.1", caplog)


async def test_an_edge_hears_no_questions_and_nothing_unpublished(
    roles: Roles, caplog: pytest.LogCaptureFixture
) -> None:
    edge, operator = await roles("edge"), await roles("operator")
    for subject, told in (
        ("svc.>", "svc.directory.chats"),
        ("svc.directory.*", "svc.directory.chats"),
        ("user.*", "user.a"),
        ("$KV.>", "$KV.reads.x"),
        ("$JS.API.>", "$JS.API.INFO"),
        ("live.>", "live.reads.x"),
    ):
        await not_heard(edge, operator, subject, told, caplog)


async def test_a_worker_answers_whom_it_was_asked_by_and_once(
    roles: Roles, caplog: pytest.LogCaptureFixture
) -> None:
    edge, files = await roles("edge"), await roles("files")

    def answer(_: bytes, reply: bytes, *__: object) -> None:
        files.publish(reply.decode(), b"yes")
        files.publish(reply.decode(), b"and again")

    files.subscribe("svc.files.*", answer, queue="files")
    await files.request("$JS.API.STREAM.NAMES", timeout_s=TIMEOUT_S)  # it stands
    said = await edge.request("svc.files.check", b"{}", timeout_s=TIMEOUT_S)
    assert said.data == b"yes"
    await eventually(lambda: "files publish to _inbox.edge." in caplog.text.lower())
    await refused(files, "_INBOX.edge.guessed.1")


# --- getting in ---


async def test_each_role_has_a_password_of_its_own(nats: Nats) -> None:
    for role in ROLES:
        config = replace(as_role(nats.url, role.name), password=password("another"))
        async with Bus(config, name="test") as bus:
            with pytest.raises(Unavailable, match=f"refuses the password of {role.name}"):
                await bus.wait_connected(1.0)


async def test_an_account_takes_over_what_there_was_before_accounts(tmp_path: Path) -> None:
    port, monitor_port = free_port(), free_port()

    def server() -> Process:
        service = local_nats.service(
            local_nats.find(),
            tmp_path,
            site="test",
            port=port,
            monitor_port=monitor_port,
            links_folder=tmp_path / "links",
            password=password,
            env={},
        )
        return Process(service.command, tmp_path)

    async def answers() -> None:
        await http_ok("127.0.0.1", monitor_port, "/healthz?js-enabled-only=true")

    url = f"nats://127.0.0.1:{port}"
    old = server()
    conf = tmp_path / "nats.conf"
    conf.write_text(conf.read_text().partition("accounts {")[0])
    old.start()
    try:
        await until_ready(old, answers)
        async with make_bus(url) as bus:
            await prepare(bus)
            await bus.request("dm.a.b", b'{"kept":1}', timeout_s=TIMEOUT_S)
        old.end()
        new = server()
        new.start()
        try:
            await until_ready(new, answers)
            async with make_bus(url) as bus:
                await bus.wait_connected(TIMEOUT_S)
                consumer = durable(STREAM, "persist", ack_wait_s=30)
                await ensure(bus, [], [consumer])
                puller = Puller(bus, consumer)
                (found,) = await puller.fetch(10)
                assert found.data == b'{"kept":1}'
                assert (await api(bus, "STREAM.INFO.CHAT"))["state"]["last_seq"] == 1
        finally:
            new.end(9)
    finally:
        old.end(9)


def test_passwords_stand_in_no_argument_and_no_log(nats: Nats) -> None:
    arguments = Path(f"/proc/{nats.process.pid}/cmdline").read_bytes()
    log = nats.process.log.read_bytes()
    for role in ROLES:
        secret = password(role.name).encode()
        assert secret not in arguments
        assert secret not in log
