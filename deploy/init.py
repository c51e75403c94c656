"""`hikyaku init`: writes the `.env` of `compose.yaml`, with secrets of its own for this site.

Beside it, the certificates of the site's servers: see `deploy.certificates`.
"""

import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

from . import certificates
from .errors import UserError

CLUSTER, LINKED = "compose.cluster.yaml", "compose.federation.yaml"

_SECRETS = {
    "HIKYAKU_JWT_SECRET": "signs the tokens of users; whoever has it can be any user",
    "HIKYAKU_EDGE_PASSWORD": "of edges at NATS",
    **{
        f"HIKYAKU_{each.upper()}_PASSWORD": f"of the worker {each} at NATS and MongoDB"
        for each in (
            "directory",
            "persist",
            "query",
            "index",
            "archive",
            "notify",
            "files",
            "relay",
        )
    },
    "HIKYAKU_OPERATOR_PASSWORD": "of the operator's commands at NATS and MongoDB",
    "HIKYAKU_NATS_CLUSTER_PASSWORD": "of NATS servers among themselves",
    "HIKYAKU_MONGO_KEY": "of the members of the replica set among themselves",
    "HIKYAKU_SEARCH_KEY": "of workers at the search server",
    "HIKYAKU_INTERNAL_SECRET": "of edges and workers among themselves",
    "HIKYAKU_S3_KEY_ID": "names the user of the object store",
    "HIKYAKU_S3_SECRET": "of workers at the object store",
    "HIKYAKU_TURN_SECRET": "signs the passwords of callers at the TURN server",
    "HIKYAKU_GRAFANA_PASSWORD": "of the user admin at Grafana",
}

_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = re.compile(rf"(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})*")

CERTIFICATES = "HIKYAKU_CERTIFICATES"
FOLDER = "certificates"

_HEAD = """\
# The site's secrets, made by `hikyaku init`, and whatever of docs/compose.md you set. Keep a copy
# in a safe place, and this file readable by you alone.
"""


def write(
    path: Path,
    *,
    domain: str = "",
    site: str = "",
    cluster: bool = False,
    linked: bool = False,
    add: bool = False,
) -> list[str]:
    """Write the file, or add what it lacks; gives the names written. Raises `UserError`."""
    if domain and not _HOST.fullmatch(domain):
        raise UserError(
            f"--domain: {domain!r} is no name of a host; write it as chat.example.org, without"
            " https:// and without a port"
        )
    names = [*_SECRETS, CERTIFICATES]
    if add:
        names = [name for name in names if name not in _named(path)]
        text = "".join(_lines(names))
    else:
        files = ["compose.yaml", *[CLUSTER] * cluster, *[LINKED] * linked]
        chosen = [f"COMPOSE_FILE={':'.join(files)}\n"] if files[1:] else []
        chosen += [f"HIKYAKU_DOMAIN={domain}\n"] if domain else []
        chosen += [f"HIKYAKU_SITE={site}\n"] if site else []
        text = "".join([_HEAD, *chosen, *_lines(names)])
    flags = os.O_WRONLY | (os.O_APPEND if add else os.O_CREAT | os.O_EXCL)
    try:
        with os.fdopen(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UserError(
            f"{path} is there already and is left as it is, for data was made with its secrets;"
            " `hikyaku init --add` adds the secrets that it lacks"
        ) from None
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from None
    folder = path.parent / FOLDER
    if CERTIFICATES in names and not folder.exists():
        certificates.write(folder)
    return names


def _named(path: Path) -> set[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"there is no {path} to add to: use `hikyaku init`") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    return set(re.findall(r"^\s*(?:export\s+)?(\w+)\s*=", text, re.MULTILINE))


def _lines(names: list[str]) -> Iterator[str]:
    for name in names:
        if name == CERTIFICATES:
            yield f"\n# the servers' certificates; keep a copy of its ca.key\n{name}=./{FOLDER}\n"
        else:
            yield f"\n# {_SECRETS[name]}\n{name}={fresh(name)}\n"


def fresh(name: str) -> str:
    """A new secret. It begins with a letter, for NATS reads one that begins with a digit as a
    number, and has only letters and digits, for it stands in URLs."""
    return "k" + secrets.token_hex(9 if name.endswith("_ID") else 32)
