"""What can be set about pushes: providers and their keys, and the rules that hold for all."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from workers.push.config import PushConfig

_PUSH = PushConfig()

_SECRET = {"secret": True}


class PushSettings(Struct, frozen=True, kw_only=True):
    """A part of `deploy.settings.Settings`. A provider without its key is not offered."""

    apns_key: Annotated[
        str, Meta(description="PEM file (.p8) with the key of Apple's push service.")
    ] = _PUSH.apns_key
    apns_key_id: Annotated[str, Meta(description="Id of that key, 10 characters.")] = (
        _PUSH.apns_key_id
    )
    apns_team_id: Annotated[str, Meta(description="Id of the Apple developer team.")] = (
        _PUSH.apns_team_id
    )
    apns_topic: Annotated[
        str, Meta(description="Bundle id of the application that Apple pushes to.")
    ] = _PUSH.apns_topic
    apns_url: Annotated[
        str,
        Meta(description="Apple's server; https://api.sandbox.push.apple.com for test builds."),
    ] = _PUSH.apns_url
    fcm_account: Annotated[
        str, Meta(description="JSON file with the Google service account that may use FCM.")
    ] = _PUSH.fcm_account
    fcm_url: Annotated[str, Meta(description="Google's server for FCM.")] = _PUSH.fcm_url
    vapid_key: Annotated[
        str, Meta(description="PEM file with the P-256 key that signs Web Push (VAPID).")
    ] = _PUSH.vapid_key
    vapid_subject: Annotated[
        str, Meta(description="mailto: or https: where push services reach you (VAPID).")
    ] = _PUSH.vapid_subject
    webhooks: Annotated[
        Literal["on", "off"], Meta(description="Users may have pushes sent to URLs of theirs.")
    ] = "off"
    webhook_url: Annotated[
        str, Meta(description="URL that gets the pushes of all users; empty for none.")
    ] = _PUSH.webhook_url
    webhook_secret: Annotated[
        str, Meta(description="Secret that signs what goes to that URL.", extra=_SECRET)
    ] = _PUSH.webhook_secret
    push_allow: Annotated[
        tuple[str, ...],
        Meta(description="Hosts and networks that users' push URLs may name, public or not."),
    ] = _PUSH.allowed
    push_content: Annotated[
        Literal["on", "off"], Meta(description="Pushes may show what messages say.")
    ] = "on"
    push_text: Annotated[
        str, Meta(min_length=1, max_length=200, description="What they say where it may not.")
    ] = _PUSH.text
    push_when_away: Annotated[
        Literal["on", "off"], Meta(description="Users who are away get pushes as well.")
    ] = "off"
    push_wait_s: Annotated[
        float,
        Meta(ge=0, le=60, description="Time in which reading elsewhere makes a push needless."),
    ] = _PUSH.wait_s
    push_coalesce_s: Annotated[
        float,
        Meta(ge=0, le=3600, description="In groups over 50, least time between pushes to a user."),
    ] = _PUSH.coalesce_s
    push_ttl_s: Annotated[
        float,
        Meta(ge=60, le=28 * 86_400, description="Messages older than this are not pushed."),
    ] = _PUSH.ttl_s
    push_timeout_s: Annotated[
        float, Meta(ge=0.1, le=30, description="Time that a push service has to answer.")
    ] = _PUSH.timeout_s
    push_concurrency: Annotated[
        int, Meta(ge=1, le=1000, description="Pushes on their way to one provider at once.")
    ] = _PUSH.concurrency
    push_devices: Annotated[
        int, Meta(ge=1, le=100, description="Devices that a user may register for pushes.")
    ] = _PUSH.devices_per_user


def push_config(settings: PushSettings) -> PushConfig:
    """What the worker `notify` is told."""
    return PushConfig(
        apns_key=settings.apns_key,
        apns_key_id=settings.apns_key_id,
        apns_team_id=settings.apns_team_id,
        apns_topic=settings.apns_topic,
        apns_url=settings.apns_url,
        fcm_account=settings.fcm_account,
        fcm_url=settings.fcm_url,
        vapid_key=settings.vapid_key,
        vapid_subject=settings.vapid_subject,
        webhooks=settings.webhooks == "on",
        webhook_url=settings.webhook_url,
        webhook_secret=settings.webhook_secret,
        allowed=settings.push_allow,
        content=settings.push_content == "on",
        text=settings.push_text,
        when_away=settings.push_when_away == "on",
        wait_s=settings.push_wait_s,
        coalesce_s=settings.push_coalesce_s,
        ttl_s=settings.push_ttl_s,
        timeout_s=settings.push_timeout_s,
        concurrency=settings.push_concurrency,
        devices_per_user=settings.push_devices,
    )
