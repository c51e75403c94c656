"""Finds the servers of `hikyaku up` for a command that runs beside it."""

from msgspec.structs import replace

from broker.roles import OPERATOR

from . import local_mongo, local_nats, local_search
from .home import role_password, search_key
from .ports import remembered
from .settings import Settings


def hint(settings: Settings) -> str:
    """What else to say when a server does not answer: nothing if its address was set."""
    if settings.nats_url or settings.mongo_url:
        return ""
    home = f"HIKYAKU_HOME={settings.home_path}"
    return f"; does `hikyaku up` run with {home}? Else set HIKYAKU_NATS_URL and HIKYAKU_MONGO_URL"


def of_local_stack(settings: Settings) -> Settings:
    """With the own servers of `hikyaku up` where no others are set."""
    ports = remembered(settings.home_path / "ports.json")
    if not settings.nats_url and "nats_port" in ports:
        url = f"nats://{local_nats.HOST}:{ports['nats_port']}"
        password = role_password(settings.home_path, OPERATOR)
        settings = replace(settings, nats_url=(url,), nats_password=password)
    if not settings.mongo_url and "mongo_port" in ports:
        url = local_mongo.url(ports["mongo_port"])
        password = role_password(settings.home_path, OPERATOR)
        settings = replace(settings, mongo_url=url, mongo_password=password)
    if not settings.search_url and "search_port" in ports:
        settings = replace(
            settings,
            search_url=local_search.url(ports["search_port"]),
            search_key=settings.search_key or search_key(settings.home_path),
        )
    return settings
