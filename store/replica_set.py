"""Makes one `mongod` the only, primary member of its replica set: transactions need a set.

And says what a `mongod` is in its set.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from pymongo import AsyncMongoClient
from pymongo.errors import OperationFailure, PyMongoError

from .roles import permit

TIMEOUT_MS = 2000

_NOT_YET_INITIALIZED = 94


class NotPrimary(Exception):
    """It is not the primary yet; the text says why. Asking again may help."""


class Access(NamedTuple):
    """The key of the set's members, and who may use which database, by role."""

    key: str
    database: str
    passwords: Mapping[str, str]


async def make_primary(host: str, port: int, access: Access, *, name: str = "rs0") -> None:
    """Return when the `mongod` there is the writable primary of the set `name`, with its users.

    A new one is initiated. One whose port has changed since is not a member of its own set any
    more: the set is changed by force to this address, which is safe because no other has its data.
    Raises `NotPrimary` while it is not, after at most some seconds.
    """
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(
        host,
        port,
        directConnection=True,
        **system(access.key),
        serverSelectionTimeoutMS=TIMEOUT_MS,
        connectTimeoutMS=TIMEOUT_MS,
        socketTimeoutMS=2 * TIMEOUT_MS,
    )
    try:
        await _advance(client, f"{host}:{port}", name)
        await permit(client, access.database, access.passwords)
    except PyMongoError as error:
        raise NotPrimary(str(error)[:200]) from error
    finally:
        await client.close()


def system(key: str) -> dict[str, Any]:
    """How a client becomes `__system`, which the members of a set are to each other."""
    return {
        "username": "__system",
        "password": "".join(key.split()),
        "authSource": "local",
        "authMechanism": "SCRAM-SHA-256",
    }


async def role(host: str, port: int) -> str:
    """Give `primary`, `secondary`, or nothing while it is neither or does not answer."""
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(
        host, port, directConnection=True, serverSelectionTimeoutMS=TIMEOUT_MS
    )
    try:
        hello = await client.admin.command("hello")
    except PyMongoError:
        return ""
    finally:
        await client.close()
    if hello.get("isWritablePrimary"):
        return "primary"
    return "secondary" if hello.get("secondary") else ""


async def _advance(client: AsyncMongoClient[dict[str, Any]], address: str, name: str) -> None:
    hello = await client.admin.command("hello")
    if hello.get("isWritablePrimary") and hello.get("me") == address:
        return
    config = await _config(client)
    if config is None:
        members = [{"_id": 0, "host": address}]
        await client.admin.command("replSetInitiate", {"_id": name, "members": members})
    elif len(config["members"]) != 1:
        raise NotPrimary(f"the set {name} of {address} has more members than this one")
    elif config["members"][0]["host"] != address:
        changed = {**config, "version": config["version"] + 1}
        changed["members"] = [{**config["members"][0], "host": address}]
        await client.admin.command("replSetReconfig", changed, force=True)
    raise NotPrimary(f"{address} is not the primary of {name} yet")


async def _config(client: AsyncMongoClient[dict[str, Any]]) -> dict[str, Any] | None:
    try:
        answer: dict[str, Any] = await client.admin.command("replSetGetConfig")
    except OperationFailure as error:
        if error.code == _NOT_YET_INITIALIZED:
            return None
        raise
    config: dict[str, Any] = answer["config"]
    return config
