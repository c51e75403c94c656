"""What the worker `notify` must be told."""

from msgspec import Struct


class PushConfig(Struct, frozen=True, kw_only=True):
    """Which providers there are, and the rules that hold for all. Durations are seconds.

    A provider whose key is empty is not there. `allowed` are host names, addresses and networks
    that subscriptions and webhooks may lead to although they are not public.
    """

    apns_key: str = ""
    apns_key_id: str = ""
    apns_team_id: str = ""
    apns_topic: str = ""
    apns_url: str = "https://api.push.apple.com"
    fcm_account: str = ""
    fcm_url: str = "https://fcm.googleapis.com"
    vapid_key: str = ""
    vapid_subject: str = ""
    webhooks: bool = False
    webhook_url: str = ""
    webhook_secret: str = ""
    allowed: tuple[str, ...] = ()
    content: bool = True
    text: str = "New message"
    when_away: bool = False
    wait_s: float = 2.0
    coalesce_s: float = 10.0
    ttl_s: float = 86_400.0
    timeout_s: float = 10.0
    concurrency: int = 50
    devices_per_user: int = 10
