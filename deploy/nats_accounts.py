"""Writes `broker.roles` down as nats-server reads it: `python -m deploy.nats_accounts`.

`deploy/nats/accounts.conf` is what it prints, for containers, whose environment has the passwords.
"""

import json
from collections.abc import Callable, Iterable

from broker.roles import ACCOUNT, ADMIN, EVERYTHING, FEDERATION, OPERATOR, ROLES, SYSTEM, Role
from broker.subjects import inbox

ANSWER_WITHIN = "1m"
LINKS = "../../links"
"""The folder of `deploy.links` in a container, as seen from that of its configuration."""

_ADMIN = Role(
    ADMIN,
    publish=("$SYS.REQ.SERVER.PING", "$SYS.REQ.SERVER.*.RELOAD"),
    subscribe=(f"{inbox(ADMIN)}>",),
)

_HEAD = "# Written by `python -m deploy.nats_accounts` from the table in broker/roles.py."


def accounts(password: Callable[[str], str], links: str) -> str:
    """The accounts and users; `password` gives what stands for a role's, quoted if need be.

    `links` is the folder with the files of `deploy.links`, which say who is in the federation,
    relative to that of this file.
    """
    lines = ["accounts {", f"  {ACCOUNT} {{", "    jetstream: enabled", "    users: ["]
    for role in ROLES:
        lines += [f"      {{user: {role.name}, password: {password(role.name)}"]
        if EVERYTHING not in (role.publish, role.subscribe):
            lines += _permissions(role)
        lines += ["      }"]
    lines += ["    ]", "  }"]
    lines += [f"  {FEDERATION} {{", f"    include {json.dumps(f'{links}/users.conf')}", "  }"]
    lines += [f"  {SYSTEM} {{", "    users: ["]
    lines += [f"      {{user: {ADMIN}, password: {password(OPERATOR)}"]
    lines += [*_permissions(_ADMIN), "      }", "    ]", "  }", "}", f"system_account: {SYSTEM}"]
    lines += ["leafnodes {", f"  include {json.dumps(f'{links}/leafnodes.conf')}", "}"]
    return "\n".join([*lines, ""])


def _permissions(role: Role) -> Iterable[str]:
    yield "        permissions {"
    yield from _allowed("publish", role.publish)
    yield from _allowed("subscribe", role.subscribe)
    if role.answers:
        yield f'          allow_responses: {{max: 1, expires: "{ANSWER_WITHIN}"}}'
    yield "        }"


def _allowed(verb: str, subjects: Iterable[str]) -> Iterable[str]:
    yield f"          {verb}: {{allow: ["
    yield from (f"            {json.dumps(each)}" for each in subjects)
    yield "          ]}"


def of_containers() -> str:
    """What `deploy/nats/accounts.conf` has to be."""
    password = "$NATS_{}_PASSWORD".format
    return f"{_HEAD}\n{accounts(lambda role: password(role.upper()), LINKS)}"


if __name__ == "__main__":
    print(of_containers(), end="")
