"""Tokens: which algorithm counts for which key, what a token must say, and where key sets are."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from edge.config import TokenConfig
from edge.tokens import KeyUnusable, TokenVerifier, Unauthorized
from tests.keys import ED, KEYS, OTHER_RSA, RSA, claims, jwk, pem, signed

pytestmark = pytest.mark.anyio

SECRET = "a secret of at least thirty-two bytes"
LONG_SECRET = SECRET * 2


def by_hand(header: bytes, payload: bytes, secret: bytes) -> str:
    """A JWT of any bytes, signed with HMAC-SHA256."""
    parts = [base64.urlsafe_b64encode(each).rstrip(b"=") for each in (header, payload)]
    signature = hmac.new(secret, b".".join(parts), hashlib.sha256).digest()
    parts.append(base64.urlsafe_b64encode(signature).rstrip(b"="))
    return b".".join(parts).decode()


@pytest.fixture
def public_key(tmp_path: Path) -> Callable[[Any], TokenConfig]:
    def configured(key: Any) -> TokenConfig:
        (tmp_path / "key.pem").write_bytes(pem(key))
        return TokenConfig(public_key=str(tmp_path / "key.pem"))

    return configured


# --- shared secret ---


async def test_a_valid_token_says_who_it_is() -> None:
    verifier = TokenVerifier(TokenConfig(secret=SECRET))
    found = await verifier.verify(signed(SECRET, "HS256", name="Alice", vip=True, exp=2e9))
    assert (found.user_id, found.name, found.vip, found.expires_at) == ("alice", "Alice", True, 2e9)


async def test_optional_claims_of_the_wrong_type_are_left_out() -> None:
    verifier = TokenVerifier(TokenConfig(secret=SECRET))
    found = await verifier.verify(signed(SECRET, "HS256", name=["x"], vip="yes"))
    assert (found.name, found.vip) == (None, False)


@pytest.mark.parametrize(
    "bad",
    [
        {"exp": None},
        {"exp": "soon"},
        {"exp": float("inf")},
        {"exp": float("nan")},
        {"exp": time.time() - 1},
        {"sub": None},
        {"sub": 7},
        {"sub": ["alice"]},
        {"nbf": time.time() + 600},
    ],
)
async def test_claims_that_are_required(bad: dict[str, Any]) -> None:
    verifier = TokenVerifier(TokenConfig(secret=SECRET))
    payload = {name: value for name, value in claims(**bad).items() if value is not None}
    token = by_hand(b'{"alg":"HS256"}', json.dumps(payload).encode(), SECRET.encode())
    with pytest.raises(Unauthorized):
        await verifier.verify(token)


@pytest.mark.parametrize("missing", ["sub", "exp"])
async def test_a_missing_claim_is_named(missing: str) -> None:
    verifier = TokenVerifier(TokenConfig(secret=SECRET))
    payload = claims()
    del payload[missing]
    with pytest.raises(Unauthorized, match=missing):
        await verifier.verify(jwt.encode(payload, SECRET, algorithm="HS256"))


async def test_audience_and_issuer_must_be_those_configured() -> None:
    config = TokenConfig(secret=SECRET, audience="chat", issuer="https://id.example")
    verifier = TokenVerifier(config)
    good: dict[str, Any] = {"aud": ["other", "chat"], "iss": "https://id.example"}
    await verifier.verify(signed(SECRET, "HS256", **good))
    bads: list[dict[str, Any]] = [{"aud": "x"}, {"iss": "x"}, {"aud": []}, {"aud": ["chat2"]}]
    for bad in bads:
        with pytest.raises(Unauthorized):
            await verifier.verify(signed(SECRET, "HS256", **{**good, **bad}))
    for absent in ("aud", "iss"):
        left = {name: value for name, value in good.items() if name != absent}
        with pytest.raises(Unauthorized):
            await verifier.verify(signed(SECRET, "HS256", **left))


async def test_audience_and_issuer_do_not_matter_unless_configured() -> None:
    verifier = TokenVerifier(TokenConfig(secret=SECRET))
    await verifier.verify(signed(SECRET, "HS256", aud="anyone", iss="someone"))


# --- what is no token ---


@pytest.mark.parametrize("algorithm", ["HS384", "HS512", "none", "None", "RS256", ""])
async def test_only_hs256_counts_with_a_secret(algorithm: str) -> None:
    verifier = TokenVerifier(TokenConfig(secret=LONG_SECRET))
    header = json.dumps({"alg": algorithm, "typ": "JWT"}).encode()
    token = by_hand(header, json.dumps(claims()).encode(), LONG_SECRET.encode())
    with pytest.raises(Unauthorized):
        await verifier.verify(token)
    if algorithm in ("HS384", "HS512"):
        with pytest.raises(Unauthorized):
            await verifier.verify(signed(LONG_SECRET, algorithm))


async def test_none_is_refused_with_and_without_a_signature() -> None:
    verifier = TokenVerifier(TokenConfig(secret=SECRET))
    unsigned = jwt.encode(claims(), "", algorithm="none")
    for token in (unsigned, unsigned + "AAAA", unsigned.rstrip(".")):
        with pytest.raises(Unauthorized):
            await verifier.verify(token)


async def test_a_header_that_cannot_be_parsed_is_no_failure_of_ours() -> None:
    verifier = TokenVerifier(TokenConfig(secret=SECRET))
    payload = json.dumps(claims()).encode()
    deep = b"[" * 9_000
    for header in (
        deep,
        b'{"alg":' + deep,
        b'{"alg":"HS256","a":' + deep,
        b"[]",
        b"7",
        b'{"alg":["HS256"]}',
        b'{"alg":{"a":1}}',
        b'{"alg":"HS256","kid":7}',
        b'{"alg":"HS256","crit":["x"]}',
        b'{"alg":"HS256","b64":false}',
        b"\xff",
        b'{"alg":' + b"9" * 9000 + b"}",
    ):
        with pytest.raises(Unauthorized):
            await verifier.verify(by_hand(header, payload, SECRET.encode()))


@given(st.one_of(st.text(max_size=60), st.text("ab.=_-é", max_size=40)))
def test_no_text_is_taken_for_a_token(text: str) -> None:
    async def refused() -> None:
        with pytest.raises(Unauthorized):
            await TokenVerifier(TokenConfig(secret=SECRET)).verify(text)

    asyncio.run(refused())


async def test_a_long_text_is_not_even_looked_at() -> None:
    verifier = TokenVerifier(TokenConfig(secret=SECRET))
    with pytest.raises(Unauthorized, match="too long"):
        await verifier.verify(signed(SECRET, "HS256", x="x" * 20_000))


async def test_what_is_said_of_a_bad_token_holds_no_part_of_it() -> None:
    verifier = TokenVerifier(TokenConfig(secret=SECRET))
    good = signed(SECRET, "HS256", sub="alice-in-wonderland")
    for token in (good[:-4] + "AAAA", signed("x" * 32, "HS256"), "alice-in-wonderland.x.y"):
        with pytest.raises(Unauthorized) as refused:
            await verifier.verify(token)
        assert not any(part in str(refused.value) for part in token.split("."))


# --- public keys ---


@pytest.mark.parametrize("algorithm", KEYS)
async def test_a_public_key_verifies_its_own_algorithm(
    public_key: Callable[[Any], TokenConfig], algorithm: str
) -> None:
    verifier = TokenVerifier(public_key(KEYS[algorithm]))
    assert (await verifier.verify(signed(KEYS[algorithm], algorithm))).user_id == "alice"
    for other, key in KEYS.items():
        if other != algorithm:
            with pytest.raises(Unauthorized):
                await verifier.verify(signed(key, other))
    with pytest.raises(Unauthorized):
        await verifier.verify(signed(SECRET, "HS256"))


async def test_another_key_of_the_same_type_is_refused(
    public_key: Callable[[Any], TokenConfig],
) -> None:
    with pytest.raises(Unauthorized):
        await TokenVerifier(public_key(RSA)).verify(signed(OTHER_RSA, "RS256"))


@pytest.mark.parametrize("algorithm", KEYS)
async def test_the_public_key_is_no_shared_secret(
    public_key: Callable[[Any], TokenConfig], algorithm: str
) -> None:
    """Algorithm confusion (RFC 8725, section 2.1): HS256 with the bytes of the public key."""
    key = KEYS[algorithm]
    config = public_key(key)
    with_secret = TokenConfig(public_key=config.public_key, secret=SECRET)
    public = key.public_key()
    raw = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    for secret in (pem(key), pem(key).strip(), public.public_bytes(*raw), b""):
        for claimed in ("HS256", algorithm):
            header = json.dumps({"alg": claimed}).encode()
            token = by_hand(header, json.dumps(claims()).encode(), secret)
            for each in (config, with_secret):
                with pytest.raises(Unauthorized):
                    await TokenVerifier(each).verify(token)


async def test_the_other_algorithms_of_a_key_are_refused(
    public_key: Callable[[Any], TokenConfig],
) -> None:
    verifier = TokenVerifier(public_key(RSA))
    for algorithm in ("RS384", "RS512", "PS256"):
        with pytest.raises(Unauthorized):
            await verifier.verify(signed(RSA, algorithm))


async def test_a_key_in_the_tokens_header_is_not_used(
    public_key: Callable[[Any], TokenConfig],
) -> None:
    verifier = TokenVerifier(public_key(RSA))
    headers = {"jwk": jwk(OTHER_RSA), "jku": "http://127.0.0.1:1/", "x5u": "http://127.0.0.1:1/"}
    token = jwt.encode(claims(), OTHER_RSA, algorithm="RS256", headers=headers)
    with pytest.raises(Unauthorized):
        await verifier.verify(token)


@pytest.mark.parametrize(
    "key", [ec.generate_private_key(ec.SECP384R1()), ed448.Ed448PrivateKey.generate()]
)
def test_a_key_of_another_kind_cannot_be_configured(
    public_key: Callable[[Any], TokenConfig], key: Any
) -> None:
    with pytest.raises(KeyUnusable, match=r"key\.pem: must be RSA, P-256 or Ed25519"):
        TokenVerifier(public_key(key))


def test_a_file_without_a_key_is_named(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    with pytest.raises(KeyUnusable, match=str(file)):
        TokenVerifier(TokenConfig(public_key=str(file)))
    file.write_text("no key")
    with pytest.raises(KeyUnusable, match=str(file)):
        TokenVerifier(TokenConfig(public_key=str(file)))
    private = ED.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(private)
    with pytest.raises(KeyUnusable, match=str(file)):
        TokenVerifier(TokenConfig(public_key=str(file)))
