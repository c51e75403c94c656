"""TLS to real NATS and MongoDB servers, with the certificates that `hikyaku init` makes."""

import asyncio
import signal
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from broker.bus import Bus
from broker.config import BrokerConfig
from broker.errors import Unavailable
from deploy import certificates, local_mongo
from deploy.cli import main
from store.config import StoreConfig
from store.database import connect
from store.errors import StoreUnavailable
from store.replica_set_site import make_site_set
from store.roles import OPERATOR
from tests.brokers import as_role
from tests.servers import Mongo, Nats, Process, eventually, mongo_access, password

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

TIMEOUT_S = 10.0
TRIED_S = 2.0
WITHIN_S = 60.0


class Served:
    """A NATS server with TLS, and certificates."""

    def __init__(self, folder: Path):
        self.folder = folder / "certificates"
        certificates.write(self.folder)
        self.nats = Nats(folder / "nats")
        conf = folder / "nats" / "nats.conf"
        own = self.folder / "nats"
        conf.write_text(
            conf.read_text()
            + f'tls {{ cert_file: "{own}/server.pem", key_file: "{own}/server.pem",'
            f' ca_file: "{own}/ca.pem" }}\n'
        )

    @property
    def config(self) -> BrokerConfig:
        url = f"tls://localhost:{self.nats.port}"
        return replace(as_role(url, "edge"), ca=str(self.folder / "public" / "ca.pem"))

    def reload(self) -> None:
        self.nats.process.send(signal.SIGHUP)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    served = Served(tmp_path)
    try:
        await served.nats.start()
        yield served
    finally:
        served.nats.process.end(9)


async def refusal(config: BrokerConfig) -> str:
    async with Bus(config, name="test") as bus:
        with pytest.raises(Unavailable) as error:
            await bus.wait_connected(TRIED_S)
    return str(error.value)


async def serial(config: BrokerConfig) -> str:
    """Of the certificate that the server shows a new connection."""
    async with Bus(config, name="test") as bus:
        await bus.wait_connected(TIMEOUT_S)
        assert bus._wire is not None
        shown: str = bus._wire._transport._io_writer.get_extra_info(  # type: ignore[union-attr]
            "peercert"
        )["serialNumber"]
        return shown


async def test_a_server_of_the_own_authority_is_trusted(served: Served) -> None:
    async with Bus(served.config, name="test") as bus:
        await bus.wait_connected(TIMEOUT_S)
        reply = await bus.request("$JS.API.STREAM.NAMES", timeout_s=TIMEOUT_S)
        assert b'"total":0' in reply.data


async def test_without_the_authority_nothing_is_sent(served: Served, tmp_path: Path) -> None:
    certificates.write(tmp_path / "other")
    other = replace(served.config, ca=str(tmp_path / "other" / "public" / "ca.pem"))
    for config in (other, replace(served.config, ca="")):
        said = await refusal(config)
        assert f"NATS does not answer at tls://localhost:{served.nats.port}" in said
        assert "its certificate is no good" in said
        assert "`hikyaku certificates`" in said


async def test_a_certificate_of_another_name_is_refused(served: Served) -> None:
    url = f"tls://127.1:{served.nats.port}"  # the same address, by another name
    said = await refusal(replace(served.config, urls=(url,)))
    assert url in said
    assert "Hostname mismatch" in said
    certificates.write(served.folder, names=["127.1"])
    served.reload()
    await eventually(lambda: "Reloaded" in served.nats.process.log.read_text())
    assert await serial(replace(served.config, urls=(url,)))


async def test_an_expired_certificate_is_refused_and_a_new_one_needs_no_restart(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    before = await serial(served.config)
    certificates.write(served.folder, days=-1)
    served.reload()
    await eventually(lambda: "Reloaded" in served.nats.process.log.read_text())
    said = await refusal(served.config)
    assert "its certificate is no good (certificate has expired): renew it with" in said
    assert f"localhost:{served.nats.port}" in said
    async with Bus(served.config, name="waiting") as waiting:
        assert main(["certificates", str(served.folder), "--days", "20"]) == 0
        served.reload()
        await waiting.wait_connected(TIMEOUT_S)
        await eventually(lambda: "ends in 19 days" in caplog.text)
    assert await serial(served.config) != before


async def test_a_connection_goes_on_while_certificates_are_renewed(served: Served) -> None:
    async with Bus(served.config, name="test") as bus:
        await bus.wait_connected(TIMEOUT_S)
        certificates.write(served.folder)
        served.reload()
        await eventually(lambda: "Reloaded" in served.nats.process.log.read_text())
        await bus.request("$JS.API.STREAM.NAMES", timeout_s=TIMEOUT_S)
        assert bus.reconnects == 0


async def test_a_server_without_tls_gets_no_password(tmp_path: Path) -> None:
    certificates.write(tmp_path / "certificates")
    got: list[bytes] = []

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","auth_required":true,"max_payload":1000}\r\n')
        got.append(await reader.read(1000))
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    ca = str(tmp_path / "certificates" / "public" / "ca.pem")
    try:
        said = await refusal(replace(as_role(f"tls://127.0.0.1:{port}", "edge"), ca=ca))
    finally:
        server.close()
        await server.wait_closed()
    assert "speaks without TLS" in said
    assert got
    assert set(got) == {b""}


async def test_a_missing_authority_is_named(served: Served) -> None:
    said = await refusal(replace(served.config, ca="/nowhere/ca.pem"))
    assert "there is no file /nowhere/ca.pem" in said


# --- MongoDB ---


async def test_mongodb_is_spoken_to_in_tls_and_reads_its_certificate_again(tmp_path: Path) -> None:
    folder = tmp_path / "certificates"
    certificates.write(folder)
    mongo = Mongo(tmp_path / "mongo")
    service = local_mongo.service(
        local_mongo.find(), tmp_path / "mongo", port=mongo.port, access=mongo_access(), env={}
    )
    tls: tuple[str, ...] = ("--tlsMode", "requireTLS", "--tlsAllowConnectionsWithoutCertificates")
    tls += ("--tlsCertificateKeyFile", str(folder / "mongo" / "server.pem"))
    tls += ("--tlsCAFile", str(folder / "mongo" / "ca.pem"))
    process = Process((*service.command, *tls), tmp_path / "mongo")
    process.start()
    url = f"mongodb://localhost:{mongo.port}/?replicaSet=rs0"
    ca = str(folder / "public" / "ca.pem")
    config = StoreConfig(url=url, role=OPERATOR, password=password(OPERATOR), ca=ca)

    async def use(config: StoreConfig) -> None:
        async with connect(config) as database:
            with database.errors():
                await database["things"].insert_one({"a": 1})

    async def shown() -> bytes:
        context = ssl.create_default_context(cafile=ca)
        _, writer = await asyncio.open_connection("localhost", mongo.port, ssl=context)
        certificate: bytes = writer.get_extra_info("ssl_object").getpeercert(True)
        writer.close()
        await writer.wait_closed()
        return certificate

    try:
        await make_site_set(url, mongo_access(), ca=ca, within_s=WITHIN_S)
        await use(config)
        before = await shown()
        certificates.write(folder)
        await make_site_set(url, mongo_access(), ca=ca, within_s=WITHIN_S)
        assert await shown() != before
        await use(config)
        certificates.write(tmp_path / "other")
        other = replace(config, ca=str(tmp_path / "other" / "public" / "ca.pem"))
        with pytest.raises(StoreUnavailable, match=f"localhost:{mongo.port}.*HIKYAKU_MONGO_CA"):
            await use(other)
    finally:
        process.end(signal.SIGKILL)
