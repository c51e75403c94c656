"""Makes the servers that a URL names one replica set with the users of the site.

For sites whose MongoDB asks who one is: it is done as `__system`, the user that members of a set
are to each other, whose password is their key file. Everything can be repeated: a password that
has changed is changed, servers that have come are added. A server that has lost its disk comes back
into the set that the others have; no second, empty set is begun beside it.
"""

import asyncio
from typing import Any, NamedTuple

from pymongo import AsyncMongoClient
from pymongo.errors import ConnectionFailure, OperationFailure, PyMongoError
from pymongo.uri_parser import parse_uri

from .errors import StoreError, StoreUnavailable
from .replica_set import Access, system
from .roles import permit

TIMEOUT_MS = 2000
PAUSE_S = 0.2

_NOT_YET_INITIALIZED = 94
_AUTHENTICATION_FAILED = 18

Client = AsyncMongoClient[dict[str, Any]]


class SiteSet(NamedTuple):
    """What is wanted: from the URL that the processes of the site use."""

    name: str
    members: tuple[str, ...]


class Unusable(StoreError):
    """The URL says too little, or the servers refuse the key."""


class _NotAllThere(Exception):
    """A set cannot be begun while a server is silent: it may be what has the site's data."""


def site_set(url: str) -> SiteSet:
    """Read the URL. Raises `Unusable`."""
    try:
        parts = parse_uri(url)
    except (PyMongoError, ValueError) as error:
        raise Unusable(f"the URL of MongoDB cannot be read: {error}") from None
    name = parts["options"].get("replicaSet")
    if not name:
        raise Unusable("the URL of MongoDB must have `replicaSet`")
    members = tuple(f"{host}:{port or 27017}" for host, port in parts["nodelist"])
    return SiteSet(name, members)


async def make_site_set(url: str, access: Access, *, ca: str = "", within_s: float) -> SiteSet:
    """Return when the set has these members and a primary, and the roles their users.

    With a `ca` there is TLS, and servers begin to use certificates that were renewed.

    Raises `Unusable`, and `StoreUnavailable` when there is no primary in time; it says why.
    """
    wanted = site_set(url)
    servers = _Servers(access.key, ca)
    why = "nothing was tried"
    loop = asyncio.get_running_loop()
    end = loop.time() + within_s
    # The deadline is looked at here as well: PyMongo can swallow a cancellation, and there is but
    # one for each `timeout`.
    while loop.time() < end:
        try:
            async with asyncio.timeout_at(end):
                await _advance(wanted, servers, access)
                return wanted
        except OperationFailure as error:
            if error.code == _AUTHENTICATION_FAILED:
                raise Unusable("MongoDB refuses the key of the set") from None
            why = str(error)
        except (PyMongoError, _NotAllThere) as error:
            why = str(error)
        except TimeoutError:
            break
        await asyncio.sleep(PAUSE_S)
    raise StoreUnavailable(
        f"MongoDB at {', '.join(wanted.members)} has no primary after {within_s:g} s: {why[:300]}"
    )


async def _advance(wanted: SiteSet, servers: "_Servers", access: Access) -> None:
    if not await _begun(wanted, servers):
        await _begin(wanted, servers)
    primary = servers.client(list(wanted.members), replicaSet=wanted.name)
    try:
        await _add_members(primary, wanted)
        await permit(primary, access.database, access.passwords)
    finally:
        await primary.close()
    if servers.ca:
        await _renew(wanted, servers)


class _Servers(NamedTuple):
    """How the servers are reached."""

    key: str
    ca: str

    def client(self, hosts: list[str], **options: Any) -> Client:
        if self.ca:
            options |= {"tls": True, "tlsCAFile": self.ca}
        return AsyncMongoClient(
            hosts,
            serverSelectionTimeoutMS=TIMEOUT_MS,
            connectTimeoutMS=TIMEOUT_MS,
            socketTimeoutMS=10 * TIMEOUT_MS,
            **system(self.key),
            **options,
        )


async def _renew(wanted: SiteSet, servers: _Servers) -> None:
    """Have each server read its certificate again; one that is away does so when it starts."""
    for host in wanted.members:
        member = servers.client([host], directConnection=True)
        try:
            await member.admin.command("rotateCertificates")
        except ConnectionFailure:
            continue
        finally:
            await member.close()


async def _begun(wanted: SiteSet, servers: _Servers) -> bool:
    """Whether any server is in a set. Raises `_NotAllThere` if none is and one is silent."""
    silent = ""
    for host in wanted.members:
        member = servers.client([host], directConnection=True)
        try:
            await member.admin.command("replSetGetConfig")
            return True
        except OperationFailure as error:
            if error.code != _NOT_YET_INITIALIZED:
                raise
        except PyMongoError as error:
            silent = f"{host} does not answer, and it may have the site's data: {error}"
        finally:
            await member.close()
    if silent:
        raise _NotAllThere(f"a set is begun only when all servers answer; {silent}")
    return False


async def _begin(wanted: SiteSet, servers: _Servers) -> None:
    """The first server alone; the others come one by one, as MongoDB wants it."""
    first = servers.client([wanted.members[0]], directConnection=True)
    members = [{"_id": 0, "host": wanted.members[0]}]
    try:
        await first.admin.command("replSetInitiate", {"_id": wanted.name, "members": members})
    finally:
        await first.close()


async def _add_members(primary: Client, wanted: SiteSet) -> None:
    for host in wanted.members:
        config = (await primary.admin.command("replSetGetConfig"))["config"]
        members = config["members"]
        if host in [each["host"] for each in members]:
            continue
        number = max(each["_id"] for each in members) + 1
        changed = {**config, "version": config["version"] + 1}
        changed["members"] = [*members, {"_id": number, "host": host}]
        await primary.admin.command("replSetReconfig", changed)
