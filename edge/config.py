"""What an edge must be told. Built from the settings by `deploy.settings`; nothing is read here."""

from typing import Literal

from msgspec import Struct

from broker.config import BrokerConfig
from broker.following import FollowConfig

from .frames import Limits


class TokenConfig(Struct, frozen=True, kw_only=True):
    """How tokens are verified: a shared secret, a public key (PEM file), or a JWKS (file or URL).

    At least one must be given. `audience` and `issuer`, when given, must be in every token.
    """

    secret: str | None = None
    public_key: str | None = None
    jwks: str | None = None
    audience: str | None = None
    issuer: str | None = None


class EdgeFilesConfig(Struct, frozen=True, kw_only=True):
    """Where the worker `files` is, and the secret shared with it; without an URL there is none."""

    url: str = ""
    secret: str = ""


class EdgeConfig(Struct, frozen=True, kw_only=True):
    """One edge process. Durations are seconds, sizes bytes."""

    name: str = "edge-1"
    site: str = "local"
    mode: Literal["development", "production"] = "development"
    host: str = "127.0.0.1"
    port: int = 8080
    broker: BrokerConfig = BrokerConfig()
    tokens: TokenConfig = TokenConfig()
    limits: Limits = Limits()
    origins: tuple[str, ...] = ()
    url_token: bool = True
    ping_interval_s: float = 30.0
    pong_timeout_s: float = 90.0
    first_frame_s: float = 10.0
    outbox_bytes: int = 1024 * 1024
    request_timeout_s: float = 5.0
    drain_s: float = 5.0
    presence_lease_s: int = 10
    files: EdgeFilesConfig = EdgeFilesConfig()
    follow: FollowConfig = FollowConfig()
