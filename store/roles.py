"""Who may do what in MongoDB: one table, from which its roles and users are made.

A role is a user of MongoDB that reads and writes the collections that stand here and no others. It
may make indexes of what it writes. Edges are none: they have no access to MongoDB at all.
"""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

OPERATOR = "operator"

OF_BEFORE = "hikyaku"
"""The one user that there was once; it is removed."""

_READ = ["find"]
_WRITE = ["find", "insert", "update", "remove", "createIndex"]
_INDEX = ["find", "createIndex"]
_FILES = ("file_blobs", "file_garbage", "file_owners", "file_uploads", "file_uses", "files")


class Role(Struct, frozen=True):
    """What a user of this name may write, what only read, and where it may make indexes too."""

    name: str
    writes: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    indexes: tuple[str, ...] = ()


ROLES = (
    Role(
        "directory",
        writes=("groups", "members", "outbox"),
        reads=("chats", "log", "messages", "reads"),
    ),
    Role("persist", writes=("chats", "file_uses", "files", "log", "messages", "reads")),
    Role(
        "query",
        reads=(
            *("archive_chats", "archives", "chats", "groups", "members", "messages"),
            *("reads", "search"),
        ),
    ),
    Role("index", writes=("search",), reads=("groups", "messages")),
    Role(
        "archive",
        writes=("archive_chats", "archive_garbage", "archives", "leases", "messages"),
        reads=("chats",),
        indexes=("groups",),
    ),
    Role(
        "notify",
        writes=("devices", "members", "notifications", "push_chats", "pushes"),
        reads=("chats", "groups", "messages"),
    ),
    Role("relay", writes=("groups", "guests", "members"), reads=("log",)),
    Role("files", writes=_FILES, reads=("groups", "members", "messages")),
)
"""All roles but the operator's, which may do anything with the site's database."""

NAMES = (*(each.name for each in ROLES), OPERATOR)


async def permit(client: Any, database: str, passwords: Mapping[str, str]) -> None:
    """Make or correct the roles, and a user for each that has a password. Repeating is harmless."""
    of_site = client[database]
    for role in ROLES:
        known = await of_site.command("rolesInfo", role.name)
        verb = "updateRole" if known["roles"] else "createRole"
        privileges = [
            {"resource": {"db": database, "collection": each}, "actions": actions}
            for names, actions in (
                (role.writes, _WRITE),
                (role.reads, _READ),
                (role.indexes, _INDEX),
            )
            for each in names
        ]
        await of_site.command(verb, role.name, privileges=privileges, roles=[])
    for name, password in passwords.items():
        own = ("readWrite", "dbAdmin") if name == OPERATOR else (name,)
        roles = [{"role": each, "db": database} for each in own]
        known = await client.admin.command("usersInfo", name)
        verb = "updateUser" if known["users"] else "createUser"
        await client.admin.command(verb, name, pwd=password, roles=roles)
    if (await client.admin.command("usersInfo", OF_BEFORE))["users"]:
        await client.admin.command("dropUser", OF_BEFORE)
