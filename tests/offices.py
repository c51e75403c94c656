"""Sites that are linked through a hub: whole stacks, the links through proxies that tests cut."""

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from bench.proxy import Proxy
from broker import relay, sites
from broker.bucket import Bucket
from broker.errors import BrokerError
from broker.requests import Failure, ask
from broker.roles import OPERATOR
from deploy import certificates, links, local_nats

from .brokers import make_bus
from .filesite import FileSite
from .integration.test_backup import hikyaku
from .ports import free_port
from .search_servers import SearchServer
from .searching import search_env
from .servers import LINKS, Hikyaku, Process, Site, as_role


class Hub:
    """A nats-server that only passes on what sites say to each other."""

    def __init__(self, folder: Path, names: Sequence[str]):
        folder.mkdir(parents=True)
        self.port, self.leaf_port = free_port(), free_port()
        users = "\n".join(
            f'{{user: {name}, password: pw, permissions: {{publish: ["fed.*.{name}.>"], '
            f'subscribe: ["fed.{name}.>"]}}}}'
            for name in names
        )
        certificates.write_link(folder, [])
        self.authority = links.authority(folder)
        pem = folder / certificates.SERVER
        conf = folder / "hub.conf"
        conf.write_text(
            f"server_name: hub\nlisten: 127.0.0.1:{self.port}\n"
            f"leafnodes {{ listen: 127.0.0.1:{self.leaf_port}, no_advertise: true,"
            f" tls {{cert_file: {pem}, key_file: {pem}, timeout: {links.HANDSHAKE_S}}} }}\n"
            f"accounts {{ FED: {{ users: [\n{users}\n] }} }}\n"
        )
        self.process = Process((str(local_nats.find()), "--config", str(conf)), folder)


class Office(FileSite):
    """A site with a relay. `link` is the proxy between it and the hub.

    The workers `files` and `index` and the search server are not started with it.
    """

    def __init__(self, folder: Path, name: str, machines: str, **settings: str):
        self.search = SearchServer(folder / "search")
        super().__init__(
            folder,
            **search_env(self.search),
            HIKYAKU_SITE=name,
            HIKYAKU_MACHINES=machines,
            HIKYAKU_MESSAGES_BURST="1000000",
            **settings,
        )
        self.name = name
        self.link: Proxy
        self._env = self.worker.process._env or {}
        self.relay = Hikyaku(folder / "relay", ["worker", "relay"], self._env)
        self.index = Hikyaku(folder / "index", ["worker", "index"], self._env)
        self._folder = folder
        self._nats_folder = folder / "nats"

    def another_relay(self) -> Hikyaku:
        """A second process, not started."""
        return Hikyaku(self._folder / "relay2", ["worker", "relay"], self._env)

    async def site(self, *words: str) -> str:
        """What `hikyaku site` says here."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "deploy.cli", "site", *words),
            env={**os.environ, **self._env, **as_role(OPERATOR)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(60):
            said, _ = await process.communicate()
        return said.decode()

    async def links(self) -> dict[str, relay.Link]:
        """The links, by site; none while the relay does not answer."""
        async with make_bus(self.nats.url) as bus:
            await bus.wait_connected(5)
            try:
                found = await ask(
                    bus, relay.SERVICE, "links", relay.Links(), relay.LinksFound, timeout_s=2
                )
            except (Failure, BrokerError):
                return {}
            return {each.site: each for each in found.links}

    async def until_link(self, site: str, state: str, within_s: float = 60) -> None:
        """Wait until the link says so."""
        async with asyncio.timeout(within_s):
            while True:
                link = (await self.links()).get(site)
                if link is not None and state in link.state:
                    return
                await asyncio.sleep(0.1)

    def copy_data(self, to: Path) -> None:
        """What a disk snapshot has; while the site is stopped."""
        for name in ("nats", "mongo"):
            shutil.copytree(self._folder / name, to / name)

    def put_back(self, there: Path) -> None:
        """Data as it was copied."""
        for name in ("nats", "mongo"):
            shutil.rmtree(self._folder / name)
            shutil.copytree(there / name, self._folder / name)

    def lose_data(self) -> None:
        """Nothing is left but how it is configured; while the site is stopped."""
        for each in self._nats_folder.iterdir():
            if each.is_dir() and each.name != LINKS:
                shutil.rmtree(each)
        self.mongo.lose()

    async def restore(self, backup: Path) -> None:
        """Start with what a backup has, after `lose_data`."""
        await asyncio.gather(self.nats.start(), self.mongo.start())
        done = await hikyaku(self, "restore", str(backup))
        assert done.status == 0, done.said
        processes = (self.worker, self.persist, self.query, *self.edges)
        await asyncio.gather(*(each.start() for each in processes))
        await self.relay.start()

    def configure(self, hub: Hub) -> None:
        """Name the server, and add the way to the hub."""
        conf = self._nats_folder / "nats.conf"
        conf.write_text(conf.read_text().replace("test-nats-1", f"{self.name}-nats-1"))
        folder = self._nats_folder / LINKS
        found = links.read(folder)
        found.own = self.name
        address = f"127.0.0.1:{self.link.port}"
        found.dialed["hub"] = links.Dialed(address=address, password="pw", ca=hub.authority)
        links.write(folder, found)

    async def start(self) -> None:
        await Site.start(self)
        await self.relay.start()

    async def know(self, others: Sequence[str]) -> None:
        async with make_bus(self.nats.url) as bus:
            await bus.wait_connected(5)
            bucket = Bucket(bus, sites.BUCKET)
            for other in others:
                await bucket.put(other, sites.encode(sites.Peer()))

    def stop(self) -> None:
        for each in (self.relay.process, self.index.process, self.search.process):
            each.end(signal.SIGKILL)
        super().stop()


class Company:
    """All of them."""

    def __init__(
        self,
        folder: Path,
        names: Sequence[str],
        *,
        strangers: Sequence[str] = (),
        **settings: str,
    ):
        """`strangers` may speak at the hub and are known to all, but have nothing there."""
        self.hub = Hub(folder / "hub", [*names, *strangers])
        self._strangers = strangers
        self.offices = {
            name: Office(folder / name, name, f"{100 * number}-{100 * number + 99}", **settings)
            for number, name in enumerate(names)
        }

    def __getitem__(self, name: str) -> Office:
        return self.offices[name]

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Company"]:
        self.hub.process.start()
        async with AsyncExitStack() as stack:
            try:
                for office in self.offices.values():
                    office.link = await stack.enter_async_context(Proxy(self.hub.leaf_port))
                    office.configure(self.hub)
                for name, office in self.offices.items():
                    await office.start()
                    others = {*self.offices, *self._strangers} - {name}
                    await office.know(sorted(others))
                yield self
            finally:
                for office in self.offices.values():
                    office.stop()
                self.hub.process.end(signal.SIGKILL)
