"""Tokens made here: for development, and by operators who share the secret with the edges."""

import time

import jwt
from msgspec.structs import replace

from broker.errors import InvalidName
from broker.subjects import encode

from .errors import UserError
from .home import development_secret, internal_secret
from .settings import Settings

DAY_S = 86_400


def with_development_secret(settings: Settings) -> Settings:
    """In development, when no key is set, the secret of the home (made if need be) is the key."""
    key = settings.jwt_secret or settings.jwt_public_key or settings.jwt_jwks
    if key or settings.mode != "development":
        return settings
    return replace(settings, jwt_secret=development_secret(settings.home_path))


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
