"""Puts the worker `notify` together: which providers the site has, and what each part is given."""

import logging
from collections.abc import Iterator
from contextlib import AsyncExitStack

import msgspec
from prometheus_client import Metric

from broker import notify, presence, subjects
from broker.bus import Bus
from broker.dead import DeadLetters
from broker.following import following
from broker.lease import LivingEdges
from broker.streams import ensure
from store.audience import Audience
from store.database import Database
from store.devices import Devices
from store.history import History
from store.pushes import Pushes, PushRecord

from .config import WorkerConfig
from .notify import CONSUMER, NotifyWorker
from .notify_answers import NotifyAnswers
from .notify_note import Notes
from .notify_passed import Passed
from .notify_plan import SITE, SITE_DEVICE, Planner
from .push.apns import Apns
from .push.config import PushConfig
from .push.delivery import Delivery
from .push.fcm import Fcm
from .push.guard import Guard
from .push.http import Http
from .push.provider import Gone, Provider, Push
from .push.webhook import Webhook
from .push.webpush import WebPush

_LIVE = f"{subjects.LIVE}{presence.BUCKET}."

_log = logging.getLogger("hikyaku.notify")


class Providers:
    """The providers that are configured. Raises `Unusable` for keys that are none.

    Users' addresses are reached through a guard; what the site has configured is not.
    """

    def __init__(self, config: PushConfig):
        guard = Guard(config.allowed)
        self._trusted = self._http(config, None)
        self._guarded = self._http(config, guard)
        self.offered: dict[notify.ProviderName, Provider] = {}
        self.vapid_key: str | None = None
        self.site: notify.Address | None = None
        if config.apns_key:
            self.offered["apns"] = Apns(config, self._trusted)
        if config.fcm_account:
            self.offered["fcm"] = Fcm(config, self._trusted)
        if config.vapid_key:
            webpush = WebPush(config, self._guarded, guard)
            self.offered["webpush"] = webpush
            self.vapid_key = webpush.public_key
        if config.webhooks:
            self.offered["webhook"] = Webhook("webhook", self._guarded, guard)
        self.all: list[Provider] = list(self.offered.values())
        if config.webhook_url:
            self.site = notify.Address(url=config.webhook_url, secret=config.webhook_secret)
            self.all.append(Webhook(SITE, self._trusted, guard, one_server=True))

    @staticmethod
    def _http(config: PushConfig, guard: Guard | None) -> Http:
        # Two providers share a pool, each with as many pushes at once as it may have.
        connections = 2 * config.concurrency
        return Http(guard, connections=connections, timeout_s=config.timeout_s)

    async def __aenter__(self) -> "Providers":
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._trusted)
            await stack.enter_async_context(self._guarded)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()


class NotifyParts:
    """Everything that one process of `notify` runs. Use as a context manager, then `run`."""

    def __init__(self, config: WorkerConfig, database: Database, live: Bus, asking: Bus):
        push = config.push
        self._live = live
        self._asking = asking
        self._providers = Providers(push)
        self._devices = Devices(database)
        self._pushes = Pushes(database)
        self._living = LivingEdges(live, asking, self._on_edges)
        audience = Audience(database, chat_of=subjects.group)
        notes = Notes(
            asking,
            devices=self._devices,
            audience=audience,
            history=History(database, chat_of=subjects.group),
            content=push.content,
            site=self._providers.site,
        )
        passed = Passed(
            self._living, lease_s=config.presence_lease_s, pong_timeout_s=config.pong_timeout_s
        )
        planner = Planner(
            asking,
            self._living,
            devices=self._devices,
            pushes=self._pushes,
            audience=audience,
            coalesce_s=push.coalesce_s,
            passed=passed,
            away_counts=not push.when_away,
            site=self._providers.site is not None,
            on_planned=self._wake,
        )
        followed = following(config.follow, "notify")
        deliveries = [
            Delivery(
                each,
                self._pushes,
                notes.prepare,
                self._forget,
                concurrency=push.concurrency,
                timeout_s=push.timeout_s,
                following=followed,
            )
            for each in self._providers.all
        ]
        self.worker = NotifyWorker(
            asking,
            self._living,
            planner,
            passed,
            self._pushes,
            deliveries,
            DeadLetters(asking),
            wait_s=push.wait_s,
            ttl_s=push.ttl_s,
            following=followed,
        )
        self._answers = NotifyAnswers(
            asking,
            self._devices,
            self._providers.offered,
            vapid_key=self._providers.vapid_key,
            most_devices=push.devices_per_user,
            on_registered=planner.forget_vips,
        )

    async def ensure(self) -> None:
        """Make the collections' indexes; idempotent."""
        await self._devices.ensure()
        await self._pushes.ensure()

    async def __aenter__(self) -> "NotifyParts":
        await ensure(self._asking, [], [CONSUMER])
        async with AsyncExitStack() as stack:
            sid = self._live.subscribe(f"{_LIVE}*.{presence.LOST}.*", self._on_lost)
            stack.callback(self._live.unsubscribe, sid)
            stack.callback(self._live.on_connect(self.worker.reconnected))
            for each in (self._providers, self._living, self._answers):
                await stack.enter_async_context(each)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def metrics(self) -> Iterator[Metric]:
        """For `/metrics`."""
        yield from self.worker.metrics()
        yield from self._answers.responder.metrics()

    def _on_edges(self) -> None:
        self.worker.edges_changed()

    def _on_lost(self, subject: bytes, _: bytes, _header: bytes | None, data: bytes) -> None:
        token, _lost, connection = subject[len(_LIVE) :].decode().split(".")
        if data:  # else the note has served its time
            silent_s = msgspec.json.decode(data, type=presence.Lost).silent_s
            self.worker.connection_lost(token, connection, silent_s)

    def _wake(self, providers: set[str]) -> None:
        self.worker.wake(providers)

    async def _forget(self, record: PushRecord, push: Push, gone: Gone) -> None:
        if record.device == SITE_DEVICE:
            return
        if gone.since_ms is not None and push.registered_ms > gone.since_ms:
            return  # it was registered again after that
        if await self._devices.remove_gone(record.user, record.device, push.registered_ms):
            _log.info("%s: device %s is gone: %s", record.provider, record.device, gone.reason)
