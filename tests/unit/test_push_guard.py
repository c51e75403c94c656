"""Where pushes may not go: what users name must be https, on the public internet."""

import ipaddress
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest

from broker.notify import Address
from workers.push.guard import Guard, is_public, parsed
from workers.push.http import Http
from workers.push.provider import Note, Push, Refused, Unfit
from workers.push.webhook import Webhook

from ..push_server import Authority, PushServer

pytestmark = pytest.mark.anyio

NOT_PUBLIC = [
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "169.254.169.254",
    "169.254.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "100.127.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "168.63.129.16",
    "192.88.99.1",
    "::1",
    "::",
    "fe80::1",
    "febf::1",
    "fc00::1",
    "fd00:ec2::254",
    "fec0::1",
    "ff02::1",
    "2001:db8::1",
    "3fff::1",
    "100::1",
    "5f00::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::127.0.0.1",
    "::10.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:0:0:0:0:0:80ff:fffe",
]

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "100.63.255.255",
    "100.128.0.1",
    "172.32.0.1",
    "17.188.166.1",
    "2606:4700::1111",
    "2a00:1450:4001::200e",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
    "2002:808:808::1",
]


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_addresses_that_are(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://example.org/", "https"),
        ("HTTP://example.org/", "https"),
        ("ftp://example.org/", "https"),
        ("//example.org/", "https"),
        ("example.org", "https"),
        ("file:///etc/passwd", "https"),
        ("https:///path", "https://host/path"),
        ("https://user:secret@example.org/", "user or password"),
        ("https://example.org@127.0.0.1/", "user or password"),
        ("https://example.org:0/", "https://host/path"),
        ("https://example.org:99999/", "no URL"),
        ("https://example.org:x/", "no URL"),
        ("https://[::1/", "no URL"),
        ("https://example.org/#part", "https://host/path"),
        ("https://例え.jp/", "ASCII"),
        ("https://example.org\\@127.0.0.1/", "ASCII"),
        ("https://example.org/a b", "ASCII"),
        ("https://example.org/\r\nHost: x", "ASCII"),
        ("https://example.org/" + "x" * 2048, "2048"),
    ],
)
def test_urls_that_are_refused(url: str, why: str) -> None:
    with pytest.raises(Unfit, match=f"^url: .*{why}") as caught:
        parsed(url, "url")
    assert "secret" not in str(caught.value)


def test_an_url_is_taken_apart_once() -> None:
    found = parsed("https://Push.Example.org:8443/a/b?c=d", "url")
    assert (found.host, found.port, found.target) == ("push.example.org", 8443, "/a/b?c=d")
    assert found.origin == "https://push.example.org:8443"
    assert parsed("https://[2606:4700::1]", "url").origin == "https://[2606:4700::1]"


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "017700000001", "::1", "::ffff:7f00:1"],
)
async def test_names_of_this_machine_are_refused_however_written(host: str) -> None:
    with pytest.raises(Unfit, match=r"^url: ") as caught:
        await Guard().addresses(host, 443, "url")
    assert not caught.value.retryable


async def test_one_private_address_among_public_ones_is_enough() -> None:
    async def resolve(_: str, __: int) -> Sequence[str]:
        return ["8.8.8.8", "10.0.0.1"]

    with pytest.raises(Unfit, match="not public"):
        await Guard(resolve=resolve).addresses("example.org", 443, "url")


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        (socket.gaierror(socket.EAI_NONAME, "no such name"), False),
        (socket.gaierror(socket.EAI_AGAIN, "try again"), True),
        (OSError("network is down"), True),
        (UnicodeError("label too long"), True),
    ],
)
async def test_names_that_are_not_found(error: Exception, retryable: bool) -> None:
    async def resolve(_: str, __: int) -> Sequence[str]:
        raise error

    with pytest.raises(Unfit) as caught:
        await Guard(resolve=resolve).addresses("example.org", 443, "url")
    assert caught.value.retryable is retryable


async def test_what_the_site_allows() -> None:
    async def resolve(host: str, _: int) -> Sequence[str]:
        return {"hooks.internal": ["10.1.2.3"], "other": ["10.9.9.9"]}.get(host, ["192.168.7.7"])

    guard = Guard(["Hooks.Internal", "192.168.7.0/24", "10.9.9.9"], resolve=resolve)
    assert await guard.addresses("hooks.internal", 443, "url") == ["10.1.2.3"]
    assert await guard.addresses("other", 443, "url") == ["10.9.9.9"]
    assert await guard.addresses("any", 443, "url") == ["192.168.7.7"]
    with pytest.raises(Unfit):
        await Guard(["hooks.internal"], resolve=resolve).addresses("other", 443, "url")


NOTE = Note("bob", "d", "dm.a.b", "dm", "", "1", 1, "a", "x", "text", 1, False, 1, 1)


async def test_a_name_that_changes_after_registration_leads_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: public when it is checked, this machine when it is used."""
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    answers = [["8.8.8.8"], ["127.0.0.1"]]

    async def resolve(_: str, __: int) -> Sequence[str]:
        return answers.pop(0)

    guard = Guard(resolve=resolve)
    async with (
        PushServer(authority, "rebind.example") as server,
        Http(guard, connections=1, timeout_s=2) as http,
    ):
        provider = Webhook("webhook", http, guard)
        address = Address(url=f"https://rebind.example:{server.port}/", secret="s")
        await provider.check(address)
        outcome = await provider.send(Push("k", "c", address, 1, NOTE, 60))
        assert isinstance(outcome, Refused)
        assert "not public" in outcome.reason
        assert (server.connections, answers) == (0, [])


async def test_the_address_that_was_checked_is_the_one_that_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name is looked up once for a connection, and TLS is with the name."""
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    asked: list[str] = []

    async def resolve(host: str, _: int) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.1"]

    guard = Guard(["127.0.0.1"], resolve=resolve)
    async with (
        PushServer(authority, "push.example") as server,
        Http(guard, connections=1, timeout_s=2) as http,
    ):
        url = parsed(f"https://push.example:{server.port}/", "url")
        assert (await http.post(url, {}, b"x")).status == 200
        assert asked == ["push.example"]
