"""Key sets (RFC 7517) in a file and at a URL."""

import asyncio
import base64
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edge.config import TokenConfig
from edge.tokens import KeysUnavailable, KeyUnusable, TokenVerifier, Unauthorized
from tests.keys import KEYS, OTHER_RSA, RSA, KeyServer, jwk, key_set, running, signed

pytestmark = pytest.mark.anyio

SECRET = "a secret of at least thirty-two bytes"


@pytest.fixture
def key_file(tmp_path: Path) -> Callable[..., TokenConfig]:
    def configured(*keys: Any) -> TokenConfig:
        (tmp_path / "keys.json").write_bytes(key_set(*keys))
        return TokenConfig(jwks=str(tmp_path / "keys.json"))

    return configured


async def test_a_key_set_in_a_file(key_file: Callable[..., TokenConfig]) -> None:
    verifier = TokenVerifier(key_file(*(jwk(key, name) for name, key in KEYS.items())))
    for algorithm, key in KEYS.items():
        await verifier.verify(signed(key, algorithm, kid=algorithm))
        with pytest.raises(Unauthorized):
            await verifier.verify(signed(key, algorithm, kid="unknown"))
        with pytest.raises(Unauthorized):
            await verifier.verify(signed(key, algorithm))
    with pytest.raises(Unauthorized):
        await verifier.verify(signed(RSA, "RS256", kid="ES256"))
    with pytest.raises(Unauthorized):
        await verifier.verify(signed(SECRET, "HS256", kid="RS256"))


async def test_a_single_key_needs_no_id(key_file: Callable[..., TokenConfig]) -> None:
    await TokenVerifier(key_file(jwk(RSA, "k1"))).verify(signed(RSA, "RS256"))
    await TokenVerifier(key_file(jwk(RSA))).verify(signed(RSA, "RS256"))


async def test_keys_that_verify_no_token_are_passed_over(
    key_file: Callable[..., TokenConfig],
) -> None:
    """RFC 7517, section 5: keys that are not understood are ignored, the others still count."""
    verifier = TokenVerifier(
        key_file(
            jwk(OTHER_RSA, "enc", use="enc"),
            {"kty": "oct", "k": "AAAA", "kid": "oct"},
            {"kty": "new", "kid": "new"},
            {"kty": "RSA", "kid": "broken"},
            jwk(ec.generate_private_key(ec.SECP384R1()), "p384"),
            {"kty": "OKP", "crv": "X25519", "x": _b64(x25519_public()), "kid": "x25519"},
            "no key",
            jwk(RSA, "good"),
        )
    )
    await verifier.verify(signed(RSA, "RS256", kid="good"))
    with pytest.raises(Unauthorized):
        await verifier.verify(signed(OTHER_RSA, "RS256", kid="enc"))


def x25519_public() -> bytes:
    key = x25519.X25519PrivateKey.generate().public_key()
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def test_a_file_without_a_usable_key_set_is_named(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    for content in ("", "[]", '{"keys":7}', '{"keys":[{"kty":"oct","k":"AAAA"}]}', '{"keys":[]}'):
        file.write_text(content)
        with pytest.raises(KeyUnusable, match=str(file)):
            TokenVerifier(TokenConfig(jwks=str(file)))


@pytest.fixture
def keys() -> Iterator[KeyServer]:
    server = KeyServer()
    with running(server):
        yield server


async def test_a_key_set_at_a_url_is_fetched_once(keys: KeyServer) -> None:
    keys.serve(jwk(RSA, "k1"))
    verifier = TokenVerifier(TokenConfig(jwks=keys.url))
    assert keys.asked == 0
    for _ in range(3):
        await verifier.verify(signed(RSA, "RS256", kid="k1"))
    for _ in range(3):
        with pytest.raises(Unauthorized):
            await verifier.verify(signed(RSA, "RS256", kid="unknown"))
    assert keys.asked == 1


async def test_everyone_waits_for_the_first_fetch(keys: KeyServer) -> None:
    """Found as 4001 for all but the first of the clients that came while the set was fetched."""
    keys.serve(jwk(RSA, "k1"))
    keys.may_answer.clear()
    verifier = TokenVerifier(TokenConfig(jwks=keys.url))
    tokens = [signed(RSA, "RS256", kid="k1") for _ in range(5)]
    verifying = [asyncio.create_task(verifier.verify(each)) for each in tokens]
    deadline = time.monotonic() + 10
    while not keys.asked:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    keys.may_answer.set()
    found = await asyncio.gather(*verifying)
    assert [each.user_id for each in found] == ["alice"] * 5
    assert keys.asked == 1


async def test_a_new_key_is_found_when_the_last_fetch_is_a_while_ago(
    keys: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys.serve(jwk(RSA, "old"))
    verifier = TokenVerifier(TokenConfig(jwks=keys.url))
    await verifier.verify(signed(RSA, "RS256", kid="old"))
    keys.serve(jwk(RSA, "old"), jwk(OTHER_RSA, "new"))
    with pytest.raises(Unauthorized):
        await verifier.verify(signed(OTHER_RSA, "RS256", kid="new"))
    monkeypatch.setattr("edge.tokens.KEY_SET_RETRY_S", 0.0)
    await verifier.verify(signed(OTHER_RSA, "RS256", kid="new"))
    await verifier.verify(signed(RSA, "RS256", kid="old"))
    assert keys.asked == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 500 No\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 20_000,
        b"HTTP/1.1 302 Go\r\nLocation: file:///etc/passwd\r\n\r\n",
    ],
)
async def test_a_key_server_that_talks_nonsense_is_asked_again_later(
    keys: KeyServer, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    keys.serve_raw(answer)
    verifier = TokenVerifier(TokenConfig(jwks=keys.url))
    for _ in range(2):
        with pytest.raises(KeysUnavailable):
            await verifier.verify(signed(RSA, "RS256", kid="k1"))
    keys.serve(jwk(RSA, "k1"))
    monkeypatch.setattr("edge.tokens.KEY_SET_RETRY_S", 0.0)
    await verifier.verify(signed(RSA, "RS256", kid="k1"))


async def test_the_known_keys_stay_while_the_key_server_is_away(
    keys: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys.serve(jwk(RSA, "k1"))
    verifier = TokenVerifier(TokenConfig(jwks=keys.url))
    await verifier.verify(signed(RSA, "RS256", kid="k1"))
    keys.serve_raw(b"HTTP/1.1 500 No\r\n\r\n")
    monkeypatch.setattr("edge.tokens.KEY_SET_RETRY_S", 0.0)
    monkeypatch.setattr("edge.tokens.KEY_SET_REFRESH_S", 0.0)
    await verifier.verify(signed(RSA, "RS256", kid="k1"))
    assert keys.asked == 2
