"""What NATS is told about other sites: who may connect as which site, and where to connect to.

A folder with `links.json`, which is changed here only, and what is made from it for the server:
`users.conf`, the users of the account of the federation, and `leafnodes.conf`, where other sites
connect to and which ones this site connects to. See `deploy.nats_reload` for reading them again.

Links are encrypted: a site that listens has an authority of its own in the folder (`ca.key`,
`ca.pem`), whose certificate an invitation brings, and `server.pem`, made anew at every start.

For containers, `python -m deploy.links FOLDER` makes the files.
"""

import json
import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import msgspec
from msgspec import Struct, field

from broker.roles import FEDERATION, POSTMAN

from . import certificates
from .errors import UserError

HANDSHAKE_S = 10
"""A narrow link with losses takes some seconds to agree on keys; the default is two."""

SEEN = "/links"
"""The folder as the NATS server of `compose.yaml` sees it."""

RELAY_VARIABLE = "$NATS_RELAY_PASSWORD"
"""The relay's password in a container: the server puts in what its environment has."""


class Dialed(Struct, kw_only=True):
    """A site that this one connects to; `ca` is the authority of its certificate, as PEM."""

    address: str
    password: str
    ca: str


class Links(Struct, kw_only=True):
    """What the folder holds: `own` is this site, `relay` its relay's password as NATS reads it.

    `folder` is the folder as the server sees it.
    """

    own: str
    relay: str
    folder: str
    listen: str = ""
    address: str = ""
    accepted: dict[str, str] = field(default_factory=dict)
    dialed: dict[str, Dialed] = field(default_factory=dict)


def ensure(
    folder: Path, own: str, relay: str, *, listen: str = "", address: str = "", seen: str = ""
) -> None:
    """Make the files, or make them anew from what the folder holds.

    `listen`, and `address`, by which others reach it, count from the server's next start on; `seen`
    is the folder as the server sees it, if it sees it elsewhere. Raises `UserError`.
    """
    seen = seen or str(folder.resolve())
    try:
        found = read(folder)
    except FileNotFoundError:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = Links(own=own, relay=relay, folder=seen)
    found.own, found.relay, found.folder = own, relay, seen
    found.listen, found.address = listen, address
    if listen:
        certificates.write_link(folder, [host_of(each) for each in (address, listen) if each])
    write(folder, found)


def host_of(address: str) -> str:
    """The host of `host:port`; one of version 6 stands in brackets there."""
    return address.rpartition(":")[0].strip("[]") or "localhost"


def authority(folder: Path) -> str:
    """The certificate of the site's authority, for those who connect here."""
    return (folder / certificates.AUTHORITY).read_text()


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
        _put(folder / _authority_of(site), dialed.ca)
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


def _authority_of(site: str) -> str:
    return f"{site}.ca.pem"


def _leafnodes(links: Links) -> str:
    def path(name: str) -> str:
        return json.dumps(str(PurePosixPath(links.folder, name)))

    lines = ["reconnect: 1s", "no_advertise: true"]
    if links.listen:
        server = path(certificates.SERVER)
        lines += [
            f"listen: {json.dumps(links.listen)}",
            f"tls {{cert_file: {server}, key_file: {server}, timeout: {HANDSHAKE_S}}}",
        ]
    lines.append("remotes: [")
    for site, dialed in sorted(links.dialed.items()):
        url = json.dumps(f"tls://{links.own}:{dialed.password}@{dialed.address}")
        tls = f"tls {{ca_file: {path(_authority_of(site))}, timeout: {HANDSHAKE_S}}}"
        lines.append(f"  {{url: {url}, account: {FEDERATION}, {tls}}}")
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
    ensure(
        Path(folder),
        environ["HIKYAKU_SITE"],
        RELAY_VARIABLE,
        listen=environ.get("HIKYAKU_LINK_LISTEN", ""),
        address=environ.get("HIKYAKU_LINK_ADDRESS", ""),
        seen=SEEN,
    )


if __name__ == "__main__":
    main(sys.argv[1], os.environ)
