"""What NATS is told about other sites: who may connect as which site, and where to connect to.

A folder with `links.json`, which is changed here only, and what is made from it for the server:
`users.conf`, the users of the account of the federation, and `leafnodes.conf`, where other sites
connect to and which ones this site connects to. See `deploy.nats_reload` for reading them again.

For containers, `python -m deploy.links FOLDER` makes the files.
"""

import json
import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec import Struct, field

from broker.roles import FEDERATION, POSTMAN

from .errors import UserError

RELAY_VARIABLE = "$NATS_RELAY_PASSWORD"
"""The relay's password in a container: the server puts in what its environment has."""


class Dialed(Struct, kw_only=True):
    """A site that this one connects to; `ca` is the authority of its certificate, as PEM."""

    address: str
    password: str
    ca: str = ""


class Links(Struct, kw_only=True):
    """What the folder holds: `own` is this site, `relay` its relay's password as NATS reads it."""

    own: str
    relay: str
    listen: str = ""
    certificate: str = ""
    key: str = ""
    accepted: dict[str, str] = field(default_factory=dict)
    dialed: dict[str, Dialed] = field(default_factory=dict)


def ensure(folder: Path, own: str, relay: str, *, listen: str = "") -> None:
    """Make the files, or make them anew from what the folder holds.

    `listen` counts from the server's next start on.
    """
    try:
        found = read(folder)
    except FileNotFoundError:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = Links(own=own, relay=relay)
    found.own, found.relay, found.listen = own, relay, listen
    write(folder, found)


def read(folder: Path) -> Links:
    """What the folder holds. Raises `FileNotFoundError`, and `UserError` for what is no such."""
    path = folder / "links.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Links)
    except msgspec.DecodeError as error:
        raise UserError(f"{path} cannot be read: {error}; take it from a backup") from None


def write(folder: Path, links: Links) -> None:
    """Write all files."""
    for site, dialed in links.dialed.items():
        if dialed.ca:
            _put(folder / f"{site}.ca.pem", dialed.ca)
    _put(folder / "links.json", json.dumps(msgspec.to_builtins(links), indent=2))
    _put(folder / "users.conf", _users(links))
    _put(folder / "leafnodes.conf", _leafnodes(links))


def fresh_password() -> str:
    """For a site that is invited."""
    return secrets.token_hex(24)


def _users(links: Links) -> str:
    lines = ["users: [", f"  {{user: {POSTMAN}, password: {links.relay}}}"]
    for site, password in sorted(links.accepted.items()):
        lines.append(
            f"  {{user: {json.dumps(site)}, password: {json.dumps(password)}, permissions: {{"
            f'publish: ["fed.*.{site}.>"], subscribe: ["fed.{site}.>"]}}}}'
        )
    return "\n".join([*lines, "]", ""])


def _leafnodes(links: Links) -> str:
    lines = ["reconnect: 1s", "no_advertise: true"]
    if links.listen:
        lines.append(f"listen: {json.dumps(links.listen)}")
        if links.certificate:
            lines += [
                "tls {",
                f"  cert_file: {json.dumps(links.certificate)}",
                f"  key_file: {json.dumps(links.key)}",
                "}",
            ]
    lines.append("remotes: [")
    for site, dialed in sorted(links.dialed.items()):
        scheme = "tls" if dialed.ca else "nats-leaf"
        url = f"{scheme}://{links.own}:{dialed.password}@{dialed.address}"
        tls = f", tls {{ca_file: {json.dumps(f'{site}.ca.pem')}}}" if dialed.ca else ""
        lines.append(f"  {{url: {json.dumps(url)}, account: {FEDERATION}{tls}}}")
    return "\n".join([*lines, "]", ""])


def _put(path: Path, text: str) -> None:
    """Written beside and moved, so that the server never reads half of it."""
    fresh = path.with_suffix(".new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)


def main(folder: str, environ: Mapping[str, str]) -> None:
    """Make the files for a container, whose environment has the relay's password."""
    site, listen = environ["HIKYAKU_SITE"], environ.get("HIKYAKU_LINK_LISTEN", "")
    ensure(Path(folder), site, RELAY_VARIABLE, listen=listen)


if __name__ == "__main__":
    main(sys.argv[1], os.environ)
