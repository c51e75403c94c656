"""What a connection says of a server that is away or refuses it: little."""

import logging
import time
from typing import Any

import pytest
from msgspec.structs import replace

from broker import sparing
from broker.bus import Bus
from broker.errors import Unavailable
from tests.brokers import as_role
from tests.servers import Nats, eventually

pytestmark = pytest.mark.anyio


async def test_the_same_reason_is_said_again_after_a_growing_pause_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    what = sparing.Sparing()
    said = []
    for tenth in range(3000):
        now = tenth / 10
        if what.may("no NATS"):
            said.append(now)
    assert said == [0, 1, 3, 7, 15, 31, 63, 123, 183, 243]
    assert what.may("it refuses the password")
    what.forget()
    assert what.may("no NATS")


async def test_a_refused_password_is_said_once_with_its_settings(
    nats: Nats, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = 0
    config = replace(as_role(nats.url), password="wrong")
    async with Bus(config, name="test") as bus:
        opened = bus._open

        async def counted(*arguments: Any) -> None:
            nonlocal tried
            tried += 1
            await opened(*arguments)

        monkeypatch.setattr(bus, "_open", counted)
        await eventually(lambda: tried >= 4)
        with pytest.raises(Unavailable, match="HIKYAKU_NATS_PASSWORD"):
            await bus.wait_connected(0.01)
    said = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    assert 1 <= len(said) < tried
    assert all("HIKYAKU_NATS_PASSWORD" in each and nats.url in each for each in said)
    assert "wrong" not in "".join(said)
