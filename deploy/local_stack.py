"""Finds the servers of `hikyaku up` for a command that runs beside it."""

from msgspec.structs import replace

from . import local_mongo, local_nats
from .ports import remembered
from .settings import Settings


def of_local_stack(settings: Settings) -> Settings:
    """With the own servers of `hikyaku up` where no others are set."""
    ports = remembered(settings.home_path / "ports.json")
    if not settings.nats_url and "nats_port" in ports:
        url = f"nats://{local_nats.HOST}:{ports['nats_port']}"
        settings = replace(settings, nats_url=(url,))
    if not settings.mongo_url and "mongo_port" in ports:
        settings = replace(settings, mongo_url=local_mongo.url(ports["mongo_port"]))
    return settings
