"""Questions and answers of the service `notify`: devices that get pushes, and a user's settings."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

SERVICE = "notify"

ProviderName = Literal["apns", "fcm", "webpush", "webhook"]


class SubscriptionKeys(Struct, kw_only=True):
    """The keys of a browser's push subscription, base64url."""

    p256dh: Annotated[str, Meta(max_length=200)]
    auth: Annotated[str, Meta(max_length=100)]


class Subscription(Struct, kw_only=True):
    """A browser's push subscription, as `PushSubscription.toJSON()` has it."""

    endpoint: Annotated[str, Meta(min_length=1, max_length=2048)]
    keys: SubscriptionKeys


class Address(Struct, kw_only=True, omit_defaults=True):
    """Where a device is reached: a token, a subscription, or a URL with the secret that signs."""

    token: str = ""
    subscription: Subscription | None = None
    url: str = ""
    secret: str = ""


class Register(Struct, kw_only=True):
    """Push to this device of the user from now on; replaces what the device had before."""

    user: str
    vip: bool
    device: str
    provider: ProviderName
    address: Address
    content: bool = True


class Device(Struct, kw_only=True, omit_defaults=True):
    """A registered device as its user sees it; `hint` is the end of its token, or its host."""

    device: str
    provider: ProviderName
    hint: str
    content: bool
    registered_at: int
    secret: str | None = None


class ListDevices(Struct, kw_only=True):
    """Which devices has the user registered?"""

    user: str


class Devices(Struct, kw_only=True):
    """The user's devices."""

    devices: list[Device]


class Unregister(Struct, kw_only=True):
    """Push to this device no longer."""

    user: str
    device: str


class Done(Struct, kw_only=True):
    """It is done."""


class QuietHours(Struct, kw_only=True):
    """From `start` to `end` of each day, on the clocks of `zone`, nothing is pushed."""

    start: Annotated[str, Meta(pattern=r"\A([01][0-9]|2[0-3]):[0-5][0-9]\Z")]
    end: Annotated[str, Meta(pattern=r"\A([01][0-9]|2[0-3]):[0-5][0-9]\Z")]
    zone: Annotated[str, Meta(min_length=1, max_length=64)]


class Change(Struct, kw_only=True):
    """Change the user's settings; what is left out stays. `quiet_hours` empty: there are none."""

    user: str
    content: bool | None = None
    mentions: bool | None = None
    quiet_hours: QuietHours | Literal[""] | None = None
    mute: dict[str, bool] = {}


class Ask(Struct, kw_only=True):
    """What has the user set?"""

    user: str


class Notifications(Struct, kw_only=True):
    """A user's settings, and what the site offers.

    `mentions`: they are pushed from muted chats too. `muted` are chat ids. `vapid_key` is the
    `applicationServerKey` of Web Push, if the site has it.
    """

    content: bool
    mentions: bool
    quiet_hours: QuietHours | None
    muted: list[str]
    providers: list[ProviderName]
    vapid_key: str | None
