"""What the settings about pushes must satisfy together."""

import os
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from .settings_push import PushSettings

MIN_SECRET_BYTES = 24
"""Of a webhook, as Standard Webhooks asks."""

_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}|[0-9A-Fa-f:.]+(/[0-9]{1,3})?")

Problem = tuple[str, str]

PUSH_NAMES = frozenset(PushSettings.__struct_fields__)


def push_problems(settings: PushSettings) -> Iterator[Problem]:
    """Everything that does not fit together, with the name of the setting."""
    yield from _apns(settings)
    for name in ("apns_key", "fcm_account", "vapid_key"):
        path = getattr(settings, name)
        if path and not os.path.isfile(path):
            yield name, f"there is no file {path!r}"
    for name in ("apns_url", "fcm_url", "webhook_url"):
        url = getattr(settings, name)
        if url and not _is_https(url):
            yield name, f"{url!r} does not fit: expected https://host"
    subject = settings.vapid_subject
    if settings.vapid_key and not subject:
        yield "vapid_subject", "with HIKYAKU_VAPID_KEY, set this to mailto: and your address"
    if subject and not subject.startswith("mailto:") and not _is_https(subject):
        yield "vapid_subject", f"{subject!r} does not fit: expected mailto:… or https://…"
    secret = settings.webhook_secret
    if (secret or settings.webhook_url) and len(secret.encode()) < MIN_SECRET_BYTES:
        need = f"a webhook needs a secret of {MIN_SECRET_BYTES} bytes or more"
        yield "webhook_secret", f"{need} (`openssl rand -hex 32` makes one)"
    for each in settings.push_allow:
        if not _HOST.fullmatch(each):
            yield "push_allow", f"{each!r} does not fit: expected a host, an address or a network"


def _apns(settings: PushSettings) -> Iterator[Problem]:
    if settings.apns_key:
        for name in ("apns_key_id", "apns_team_id", "apns_topic"):
            if not getattr(settings, name):
                yield name, "with HIKYAKU_APNS_KEY, this must be set as well"


def _is_https(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme == "https" and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
