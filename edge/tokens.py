"""Who is connecting: verifies JWTs (RFC 7519) with a secret, a public key, or a key set.

The algorithm follows from the key, never from the token: HS256 with the shared secret, RS256, ES256
or EdDSA with a public key of that type. `none` and a mismatch are refused (RFC 8725, section 3.1).
"""

import asyncio
import json
import logging
import time
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from msgspec import Struct

from .config import TokenConfig

MAX_TOKEN_BYTES = 16 * 1024
KEY_SET_TIMEOUT_S = 5.0
KEY_SET_BYTES = 1024 * 1024
KEY_SET_REFRESH_S = 300.0
KEY_SET_RETRY_S = 10.0

_KEY_TYPES = {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA"}

_log = logging.getLogger("hikyaku.tokens")


class Claims(Struct, frozen=True, kw_only=True):
    """What a valid token says. `expires_at` is in Unix seconds."""

    user_id: str
    expires_at: float
    name: str | None = None
    vip: bool = False


class Unauthorized(Exception):
    """The token does not say who this is; the message says why and holds no part of the token."""


class KeysUnavailable(Exception):
    """The key set cannot be fetched now, so nothing can be said of the token: try again later."""


class KeyUnusable(Exception):
    """A configured key cannot be used; the message names the file or address and says why."""


class TokenVerifier:
    """Verifies tokens. Raises `KeyUnusable` when a configured key file is no good."""

    def __init__(self, config: TokenConfig):
        self._config = config
        self._public: tuple[str, Any] | None = None
        self._key_set: dict[str | None, tuple[str, Any]] = {}
        self._key_set_at = -KEY_SET_REFRESH_S
        self._fetch_failed = False
        self._fetching = asyncio.Lock()
        if config.public_key is not None:
            self._public = _public_key(Path(config.public_key))
        if config.jwks is not None and not config.jwks.startswith(("http://", "https://")):
            try:
                document = json.loads(Path(config.jwks).read_bytes())
            except (OSError, ValueError) as error:
                raise KeyUnusable(f"key set {config.jwks}: {error}") from None
            self._key_set = _parse_key_set(document, config.jwks)
            self._key_set_at = float("inf")

    async def verify(self, token: str) -> Claims:
        """Who the token is for. Raises `Unauthorized` or `KeysUnavailable`."""
        if len(token) > MAX_TOKEN_BYTES:
            raise Unauthorized("the token is too long")
        try:
            header = jwt.get_unverified_header(token)
        except jwt.InvalidTokenError:
            raise Unauthorized("the token is no JWT") from None
        algorithm = header.get("alg")
        key = await self._key(str(algorithm), header.get("kid"))
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[str(algorithm)],
                audience=self._config.audience,
                issuer=self._config.issuer,
                options={
                    "require": ["exp", "sub"],
                    "verify_aud": self._config.audience is not None,
                },
            )
        except jwt.ExpiredSignatureError:
            raise Unauthorized("the token has expired") from None
        except jwt.InvalidTokenError as error:
            raise Unauthorized(f"the token is not valid: {error}") from None
        name = claims.get("name")
        return Claims(
            user_id=claims["sub"],
            expires_at=float(claims["exp"]),
            name=name if isinstance(name, str) else None,
            vip=claims.get("vip") is True,
        )

    async def _key(self, algorithm: str, key_id: Any) -> Any:
        if algorithm == "HS256" and self._config.secret is not None:
            return self._config.secret
        if self._public is not None and self._public[0] == algorithm:
            return self._public[1]
        if self._config.jwks is not None and algorithm in _KEY_TYPES.values():
            key_id = key_id if isinstance(key_id, str) else None
            await self._refresh(missing=key_id not in self._key_set)
            known = self._key_set.get(key_id)
            if known is None and key_id is None and len(self._key_set) == 1:
                known = next(iter(self._key_set.values()))
            if known is not None and known[0] == algorithm:
                return known[1]
            if known is None and self._fetch_failed:
                raise KeysUnavailable("the key set cannot be fetched now")
            raise Unauthorized("the token's key is not in the key set")
        raise Unauthorized("the token's algorithm is not accepted here")

    async def _refresh(self, *, missing: bool) -> None:
        """Fetch the key set when it is old, or a key is missing and the last try is a while ago."""
        age_s = time.monotonic() - self._key_set_at
        if age_s < (KEY_SET_RETRY_S if missing else KEY_SET_REFRESH_S):
            return
        async with self._fetching:
            if time.monotonic() - self._key_set_at < KEY_SET_RETRY_S:
                return
            url = str(self._config.jwks)
            try:
                document = await asyncio.to_thread(_fetch, url)
                self._key_set = _parse_key_set(document, url)
                self._fetch_failed = False
            except (OSError, HTTPException, ValueError, RecursionError, KeyUnusable) as error:
                _log.warning("key set not fetched, next try in %g s: %s", KEY_SET_RETRY_S, error)
                self._fetch_failed = True
            finally:
                # Not before: who comes during the fetch must wait for it, not go without.
                self._key_set_at = time.monotonic()


def _fetch(url: str) -> Any:
    request = Request(url, headers={"Accept": "application/json"})  # noqa: S310 - http(s) only
    with urlopen(request, timeout=KEY_SET_TIMEOUT_S) as response:  # noqa: S310
        return json.loads(response.read(KEY_SET_BYTES))


def _parse_key_set(document: Any, where: str) -> dict[str | None, tuple[str, Any]]:
    """Key id to algorithm and key. Those that can verify no signature here are passed over."""
    keys: dict[str | None, tuple[str, Any]] = {}
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise KeyUnusable(f"key set {where}: there is no list `keys`")
    for entry in entries:
        try:
            found = _parse_key(entry)
        except (jwt.PyJWKError, jwt.InvalidKeyError, ValueError, TypeError) as error:
            _log.warning("key set %s: key %r passed over: %s", where, entry.get("kid"), error)
            continue
        if found is not None:
            keys[entry.get("kid")] = found
    if not keys:
        raise KeyUnusable(f"key set {where}: there is no key for RS256, ES256 or EdDSA")
    return keys


def _parse_key(entry: Any) -> tuple[str, Any] | None:
    if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
        return None
    algorithm = _KEY_TYPES.get(str(entry.get("kty")))
    if algorithm is None:
        return None
    key = jwt.PyJWK(entry, algorithm=algorithm).key
    return _public_algorithm(key), key


def _public_key(path: Path) -> tuple[str, Any]:
    try:
        key = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise KeyUnusable(f"public key {path}: {error}") from None
    try:
        return _public_algorithm(key), key
    except ValueError as error:
        raise KeyUnusable(f"public key {path}: {error}") from None


def _public_algorithm(key: Any) -> str:
    """The one algorithm that a key is used for; a private or other key is a `ValueError`."""
    if isinstance(key, rsa.RSAPublicKey):
        return "RS256"
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return "ES256"
    if isinstance(key, ed25519.Ed25519PublicKey):
        return "EdDSA"
    raise ValueError("must be RSA, P-256 or Ed25519")
