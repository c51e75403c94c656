"""What the settings about pushes must satisfy, each told with its name."""

from pathlib import Path

import pytest

from deploy.errors import SettingsError
from deploy.settings import worker_config
from deploy.settings_load import load
from deploy.vapid import with_development_vapid


def problems(**settings: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load({f"HIKYAKU_{name}": value for name, value in settings.items()})
    return caught.value.problems


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"APNS_KEY": "FILE"}, ["APNS_KEY_ID", "APNS_TEAM_ID", "APNS_TOPIC"]),
        ({"FCM_ACCOUNT": "/no/such/file"}, ["FCM_ACCOUNT"]),
        ({"VAPID_KEY": "/no/such/file", "VAPID_SUBJECT": "mailto:x@y.z"}, ["VAPID_KEY"]),
        ({"VAPID_KEY": "FILE"}, ["VAPID_SUBJECT"]),
        ({"VAPID_KEY": "FILE", "VAPID_SUBJECT": "me"}, ["VAPID_SUBJECT"]),
        ({"APNS_URL": "http://api.push.apple.com"}, ["APNS_URL"]),
        ({"FCM_URL": "nonsense"}, ["FCM_URL"]),
        ({"WEBHOOK_URL": "https://x.y/"}, ["WEBHOOK_SECRET"]),
        ({"WEBHOOK_URL": "http://x.y/", "WEBHOOK_SECRET": "x" * 24}, ["WEBHOOK_URL"]),
        ({"WEBHOOK_SECRET": "short"}, ["WEBHOOK_SECRET"]),
        ({"PUSH_ALLOW": "10.0.0.0/8, https://x"}, ["PUSH_ALLOW"]),
        ({"PUSH_CONTENT": "maybe"}, ["PUSH_CONTENT"]),
        ({"PUSH_WAIT_S": "-1"}, ["PUSH_WAIT_S"]),
        ({"PUSH_TTL_S": "1"}, ["PUSH_TTL_S"]),
    ],
)
def test_what_does_not_fit_is_named(
    tmp_path: Path, settings: dict[str, str], expected: list[str]
) -> None:
    file = tmp_path / "key"
    file.write_text("")
    found = problems(**{n: str(file) if v == "FILE" else v for n, v in settings.items()})
    assert [each.partition(":")[0] for each in found] == [f"HIKYAKU_{e}" for e in expected]


def test_a_worker_is_told_what_was_set(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("")
    settings = {
        "APNS_KEY": str(file),
        "APNS_KEY_ID": "K",
        "APNS_TEAM_ID": "T",
        "APNS_TOPIC": "org.example",
        "FCM_ACCOUNT": str(file),
        "VAPID_KEY": str(file),
        "VAPID_SUBJECT": "https://example.org",
        "WEBHOOKS": "on",
        "WEBHOOK_URL": "https://hooks.internal/",
        "WEBHOOK_SECRET": "x" * 24,
        "PUSH_ALLOW": "hooks.internal, 10.1.0.0/16, fd00::/8",
        "PUSH_CONTENT": "off",
        "PUSH_WHEN_AWAY": "on",
        "PUSH_WAIT_S": "0",
        "PUSH_CONCURRENCY": "7",
    }
    loaded = load({f"HIKYAKU_{name}": value for name, value in settings.items()})
    push = worker_config(loaded.settings).push
    assert (push.apns_key, push.apns_topic) == (str(file), "org.example")
    assert push.allowed == ("hooks.internal", "10.1.0.0/16", "fd00::/8")
    assert (push.webhooks, push.content, push.when_away) == (True, False, True)
    assert (push.wait_s, push.concurrency, push.devices_per_user) == (0, 7, 10)


def test_without_anything_there_is_no_provider() -> None:
    push = worker_config(load({}).settings).push
    assert [push.apns_key, push.fcm_account, push.vapid_key, push.webhook_url] == [""] * 4
    assert not push.webhooks


def test_development_makes_a_key_once_and_production_none(tmp_path: Path) -> None:
    environ = {"HIKYAKU_HOME": str(tmp_path / "home")}
    made = with_development_vapid(load(environ).settings)
    again = with_development_vapid(load(environ).settings)
    key = tmp_path / "home" / "vapid.pem"
    assert made.vapid_key == again.vapid_key == str(key)
    assert key.stat().st_mode & 0o777 == 0o600
    text = key.read_text()
    assert text.startswith("-----BEGIN PRIVATE KEY-----")
    assert with_development_vapid(made) is made
    assert key.read_text() == text
    secrets = {"HIKYAKU_JWT_SECRET": "x" * 32, "HIKYAKU_INTERNAL_SECRET": "y" * 32}
    production = {**environ, "HIKYAKU_MODE": "production", **secrets}
    assert with_development_vapid(load(production).settings).vapid_key == ""
