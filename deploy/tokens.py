"""Tokens made here: for development, and by operators who share the secret with the edges."""

import time

import jwt
from msgspec.structs import replace

from broker.errors import InvalidName
from broker.subjects import encode

from .errors import UserError
from .home import development_secret, has_secret, internal_secret
from .settings import Settings

DAY_S = 86_400


def with_development_secret(settings: Settings) -> Settings:
    """In development, when no key is set, the secret of the home (made if need be) is the key."""
    key = settings.jwt_secret or settings.jwt_public_key or settings.jwt_jwks
    if key or settings.mode != "development":
        return settings
    return replace(settings, jwt_secret=development_secret(settings.home_path))


def with_secret_of_home(settings: Settings) -> Settings:
    """The same for a command beside a site, whose secret is there. Raises `UserError` if not."""
    found = with_development_secret(settings) if has_secret(settings.home_path) else settings
    key = found.jwt_secret or found.jwt_public_key or found.jwt_jwks
    if not key and found.mode == "development":
        raise UserError(
            f"there is no site in HIKYAKU_HOME={settings.home_path}, and a token with another"
            " secret is good for none: start one with `hikyaku up`, or set HIKYAKU_HOME to its"
            " folder, or HIKYAKU_JWT_SECRET to its secret"
        )
    return found


def with_internal_secret(settings: Settings) -> Settings:
    """In development, when none is set, edges and workers share a secret of the home."""
    if settings.internal_secret or settings.mode != "development":
        return settings
    return replace(settings, internal_secret=internal_secret(settings.home_path))


def make_token(settings: Settings, user: str, *, ttl_s: int = DAY_S, vip: bool = False) -> str:
    """An HS256 token for `user`. Raises `UserError` when there is no secret or no such user id."""
    if not settings.jwt_secret:
        raise UserError(
            "there is no secret to sign with: set HIKYAKU_JWT_SECRET, or let whoever holds the"
            " private key of HIKYAKU_JWT_PUBLIC_KEY or HIKYAKU_JWT_JWKS make the token"
        )
    try:
        encode(user, "user")
    except InvalidName as error:
        why = str(error).partition(": ")[2]
        raise UserError(f"{user!r} cannot be a user id: it {why}") from None
    now = int(time.time())
    claims: dict[str, object] = {"sub": user, "iat": now, "exp": now + ttl_s}
    if vip:
        claims["vip"] = True
    if settings.jwt_audience:
        claims["aud"] = settings.jwt_audience
    if settings.jwt_issuer:
        claims["iss"] = settings.jwt_issuer
    return jwt.encode(claims, settings.jwt_secret, algorithm="HS256")
