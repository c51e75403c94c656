"""Answers `svc.notify.*`: the devices that a user registers, and the user's settings."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from broker import notify, subjects
from broker.bus import Bus
from broker.errors import InvalidName
from broker.notify import Address
from broker.requests import Failure, Responder
from store.devices import DEFAULTS, DeviceRecord, Devices, SettingsRecord
from store.errors import LimitReached, NotFound, StoreError

from . import notify_rules as rules
from .notify_note import address_of
from .push.guard import parsed
from .push.provider import Provider, Unfit
from .push.webhook import new_secret

DEADLINE_S = 10.0
MOST_MUTED = 1000
HINT_CHARS = 6


class NotifyAnswers:
    """One process of the service. Use as a context manager."""

    def __init__(
        self,
        bus: Bus,
        devices: Devices,
        providers: Mapping[notify.ProviderName, Provider],
        *,
        vapid_key: str | None,
        most_devices: int,
        on_registered: Callable[[], None],
    ):
        self._devices = devices
        self._providers = providers
        self._vapid_key = vapid_key
        self._most_devices = most_devices
        self._on_registered = on_registered
        self.responder = Responder(
            bus,
            notify.SERVICE,
            {
                "register": (notify.Register, self._guarded(self._register)),
                "devices": (notify.ListDevices, self._guarded(self._list)),
                "unregister": (notify.Unregister, self._guarded(self._unregister)),
                "settings": (notify.Ask, self._guarded(self._settings)),
                "change": (notify.Change, self._guarded(self._change)),
            },
            deadline_s=DEADLINE_S,
        )

    async def __aenter__(self) -> "NotifyAnswers":
        await self.responder.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.responder.__aexit__(*exc_info)

    @staticmethod
    def _guarded(handler: Callable[[Any], Awaitable[Any]]) -> Callable[[Any], Awaitable[Any]]:
        async def guarded(question: Any) -> Any:
            try:
                return await handler(question)
            except Unfit as error:
                code = "unavailable" if error.retryable else "invalid"
                raise Failure(code, str(error), retryable=error.retryable) from error
            except InvalidName as error:
                raise Failure("invalid", str(error)) from error
            except NotFound as error:
                raise Failure("not_found", str(error)) from error
            except LimitReached as error:
                raise Failure("conflict", str(error)) from error
            except StoreError as error:
                code = "unavailable" if error.retryable else "internal"
                raise Failure(code, str(error), retryable=error.retryable) from error

        return guarded

    # --- devices ---

    async def _register(self, question: notify.Register) -> notify.Device:
        provider = self._providers.get(question.provider)
        if provider is None:
            there = ", ".join(self._providers) or "none"
            why = f"this site does not push by {question.provider}; it has: {there}"
            raise Failure("invalid", f"provider: {why}")
        address = question.address
        await provider.check(address)
        if question.provider == "webhook":
            address.secret = new_secret()
        elif question.provider == "apns":
            address.token = address.token.lower()  # hexadecimal: the same token in either case
        record = DeviceRecord(
            question.user,
            question.device,
            question.provider,
            msgspec.to_builtins(address),
            question.content,
            question.vip,
            0,
        )
        unique = _unique(question.provider, address)
        kept = await self._devices.register(record, unique=unique, most=self._most_devices)
        self._on_registered()
        device = _view(kept)
        device.secret = address.secret or None
        return device

    async def _list(self, question: notify.ListDevices) -> notify.Devices:
        found = (await self._devices.of([question.user])).get(question.user, [])
        return notify.Devices(devices=[_view(each) for each in found])

    async def _unregister(self, question: notify.Unregister) -> notify.Done:
        await self._devices.remove(question.user, question.device)
        return notify.Done()

    # --- settings ---

    async def _settings(self, question: notify.Ask) -> notify.Notifications:
        found = await self._devices.settings([question.user])
        return await self._told(question.user, found.get(question.user, DEFAULTS))

    async def _change(self, question: notify.Change) -> notify.Notifications:
        quiet = question.quiet_hours
        if isinstance(quiet, notify.QuietHours):
            if quiet.zone not in rules.zones():
                why = f"{quiet.zone!r} is no time zone; expected one like Europe/Zurich"
                raise Failure("invalid", f"quiet_hours.zone: {why}")
            if quiet.start == quiet.end:
                raise Failure("invalid", "quiet_hours.end: must be another time than start")
        dms, groups = _split(question.user, question.mute)
        there = await self._devices.mute_groups(question.user, groups)
        for group in groups:
            if group not in there:
                raise Failure("not_member", f"mute: you are not in the group {group!r}")
        changed = await self._devices.change(
            question.user,
            content=question.content,
            mentions=question.mentions,
            quiet=(quiet.start, quiet.end, quiet.zone)
            if isinstance(quiet, notify.QuietHours)
            else None,
            no_quiet=quiet == "",
            mute=dms,
            most_muted=MOST_MUTED,
        )
        return await self._told(question.user, changed)

    async def _told(self, user: str, settings: SettingsRecord) -> notify.Notifications:
        groups = await self._devices.muted_groups(user, MOST_MUTED)
        quiet = settings.quiet
        return notify.Notifications(
            content=settings.content,
            mentions=settings.mentions,
            quiet_hours=notify.QuietHours(start=quiet[0], end=quiet[1], zone=quiet[2])
            if quiet
            else None,
            muted=sorted([*settings.muted, *(subjects.group(each) for each in groups)]),
            providers=list(self._providers),
            vapid_key=self._vapid_key,
        )


def _split(user: str, mute: dict[str, bool]) -> tuple[dict[str, bool], dict[str, bool]]:
    """Conversations of two, and groups by their ids. Raises `Failure` for others' chats."""
    token = subjects.encode(user)
    dms: dict[str, bool] = {}
    groups: dict[str, bool] = {}
    for chat_id, on in mute.items():
        kind, tokens = subjects.parse(chat_id)
        if kind == "dm" and token in tokens:
            dms[chat_id] = on
        elif kind == "group":
            groups[subjects.decode(tokens[0])] = on
        else:
            raise Failure("not_member", f"mute: you are not in the chat {chat_id!r}")
    return dms, groups


def _unique(provider: notify.ProviderName, address: Address) -> str:
    """What belongs to one user only; an URL may be that of several."""
    if address.subscription is not None:
        return f"{provider} {address.subscription.endpoint}"
    return f"{provider} {address.token}" if address.token else ""


def _view(record: DeviceRecord) -> notify.Device:
    address = address_of(record)
    if address.subscription is not None:
        hint = parsed(address.subscription.endpoint, "subscription.endpoint").host
    elif address.url:
        hint = parsed(address.url, "url").host
    else:
        hint = address.token[-HINT_CHARS:]
    return notify.Device(
        device=record.device,
        provider=msgspec.convert(record.provider, notify.ProviderName),
        hint=hint,
        content=record.content,
        registered_at=record.registered_ms,
    )
