"""`hikyaku mongo-init`: makes MongoDB's servers one replica set, with a user for each role."""

import asyncio
from collections.abc import Mapping

from store.errors import StoreError
from store.replica_set import Access
from store.replica_set_site import make_site_set
from store.roles import NAMES

from .errors import StartError, UserError
from .settings import Settings

KEY = "MONGO_KEY"


def run(settings: Settings, environ: Mapping[str, str], within_s: float) -> int:
    """Make or correct it; repeating is harmless. Raises `UserError`."""
    if not settings.mongo_url:
        raise UserError("HIKYAKU_MONGO_URL is not set: it names the servers")
    key = environ.get(KEY, "")
    if not key:
        raise UserError(f"{KEY} is not set: it is what the servers have as their key file")
    passwords = {name: environ.get(_variable(name), "") for name in NAMES}
    if missing := [_variable(name) for name, each in passwords.items() if not each]:
        raise UserError(f"not set: {', '.join(missing)}; see `hikyaku init --add`")
    access = Access(key, settings.mongo_database, passwords)
    made_set = make_site_set(settings.mongo_url, access, ca=settings.mongo_ca, within_s=within_s)
    try:
        made = asyncio.run(made_set)
    except StoreError as error:
        raise StartError(str(error)) from None
    print(
        f"{', '.join(made.members)} are the set {made.name}, with users for {', '.join(passwords)}."
    )
    return 0


def _variable(role: str) -> str:
    return f"MONGO_{role.upper()}_PASSWORD"
