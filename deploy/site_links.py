"""`hikyaku site`: links this site with others, shows the links, and cuts them."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
from msgspec import Struct
from rich.console import Console
from rich.table import Table
from rich.text import Text

from broker import relay, sites
from broker.bucket import Bucket
from broker.bus import Bus
from broker.errors import BrokerError, Unavailable
from broker.requests import Failure, ask
from broker.roles import OPERATOR
from broker.snowflake import MACHINES

from . import links
from .errors import UserError
from .local_stack import hint, of_local_stack
from .nats_reload import reload
from .settings import Settings, broker_config, links_folder, machines

PREFIX = "hikyaku-site-"
CONNECT_S = 5.0
ASK_S = 5.0
LINKED_S = 20.0
POLL_S = 0.2

EVERYWHERE = ("0.0.0.0", "[::]", ":")


class Invite(Struct, kw_only=True):
    """What one site gives another, so that it can connect: as secret as a password."""

    site: str
    to: str
    address: str
    password: str
    machines: tuple[int, int]
    ca: str


def run(settings: Settings, action: str, argument: str | None) -> int:
    """Do what was asked; 1 if a link is not what it should be. Raises `UserError`."""
    if (argument is None) != (action == "list"):
        raise UserError(
            "use `site invite NAME`, `site join INVITE`, `site add NAME`, `site renew NAME`,"
            " `site remove NAME`, `site list`"
        )
    try:
        return asyncio.run(_run(of_local_stack(settings), action, argument or ""))
    except BrokerError as error:
        raise UserError(f"{error}{hint(settings) if error.retryable else ''}") from None


async def _run(settings: Settings, action: str, argument: str) -> int:
    async with _opened(settings) as bus:
        match action:
            case "invite":
                return await _invite(settings, bus, _checked(settings, argument))
            case "join":
                return await _join(settings, bus, argument)
            case "add":
                await _know(bus, _checked(settings, argument), sites.Peer())
                print(f"{argument} is known now; it must know {settings.site} too.")
                return 0
            case "renew":
                return await _renew(bus, argument)
            case "remove":
                return await _remove(settings, bus, argument)
            case _:
                return await _list(bus)


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[Bus]:
    async with Bus(broker_config(settings, OPERATOR), name="links") as bus:
        await bus.wait_connected(CONNECT_S)
        yield bus


def _checked(settings: Settings, name: str) -> str:
    """A site's name. Raises `UserError`."""
    for each in (settings.site, name):
        if not sites.NAME.fullmatch(each):
            raise UserError(f"{each!r} is no name for a linked site: 1 to 24 of A-Z a-z 0-9 _ -")
    if name == settings.site:
        raise UserError(f"{name} is the name of this site; each has a name of its own")
    if settings.site == "local":
        raise UserError("give this site a name first: set HIKYAKU_SITE, which cannot change later")
    return name


# --- what NATS is told ---


def _read(settings: Settings) -> links.Links:
    folder = links_folder(settings)
    try:
        return links.read(folder)
    except FileNotFoundError:
        raise UserError(
            f"no NATS server was started with {folder} yet: start the site, or set HIKYAKU_HOME or"
            " HIKYAKU_LINKS to what its NATS server has"
        ) from None


async def _apply(settings: Settings, found: links.Links) -> None:
    """Write the files, and have the servers read them."""
    links.write(links_folder(settings), found)
    await reload(broker_config(settings, OPERATOR))


async def _know(bus: Bus, name: str, peer: sites.Peer) -> None:
    await Bucket(bus, sites.BUCKET).put(name, sites.encode(peer))


# --- commands ---


async def _invite(settings: Settings, bus: Bus, name: str) -> int:
    if not settings.link_listen:
        raise UserError(
            "other sites cannot connect here: set HIKYAKU_LINK_LISTEN to an address and port,"
            " as 0.0.0.0:7422, and HIKYAKU_LINK_ADDRESS to what others reach it by"
        )
    address = settings.link_address or settings.link_listen
    if address.startswith(EVERYWHERE):
        raise UserError(
            f"{address} says where this site listens, not where others find it:"
            " set HIKYAKU_LINK_ADDRESS, as chat.example.org:7422"
        )
    if machines(settings) == (0, MACHINES - 1):
        raise UserError(
            f"this site may use all machine numbers in ids of messages, 0-{MACHINES - 1}, and none"
            f" is left for {name}: set HIKYAKU_MACHINES, as 0-31, and start the edges anew"
        )
    found = _read(settings)
    known, wanted = (links.host_of(each) for each in (found.address or found.listen, address))
    if found.listen != settings.link_listen or known != wanted:
        raise UserError(
            f"the NATS server was started with other settings than now, and has no certificate for"
            f" {wanted} yet: start it anew"
        )
    password = found.accepted[name] = links.fresh_password()
    await _apply(settings, found)
    await _know(bus, name, sites.Peer())
    invite = Invite(
        site=settings.site,
        to=name,
        address=address,
        password=password,
        machines=machines(settings),
        ca=links.authority(links_folder(settings)),
    )
    print(f"Run this at {name}. Whoever has it can speak as {name}: it is a password.\n")
    print(f"  hikyaku site join {_text(invite)}\n")
    print("An invitation made before for the same site is void now.")
    return 0


def _text(invite: Invite) -> str:
    return PREFIX + base64.urlsafe_b64encode(msgspec.json.encode(invite)).decode().rstrip("=")


def _invite_of(text: str) -> Invite:
    data = text.strip().removeprefix(PREFIX)
    try:
        padded = data + "=" * (-len(data) % 4)
        return msgspec.json.decode(base64.urlsafe_b64decode(padded), type=Invite)
    except (ValueError, msgspec.DecodeError):
        raise UserError("this is no whole invitation: copy all of it, on one line") from None


async def _join(settings: Settings, bus: Bus, text: str) -> int:
    invite = _invite_of(text)
    _checked(settings, invite.site)
    if invite.to != settings.site:
        raise UserError(f"the invitation is for {invite.to}, and this site is {settings.site}")
    own = machines(settings)
    others = {"this site": own, **await _others(bus, invite.site)}
    for site, theirs in others.items():
        if sites.overlap(invite.machines, theirs):
            raise UserError(
                f"{invite.site} has the machine numbers {_range(invite.machines)} and {site}"
                f" {_range(theirs)}: ids of messages could be the same. Set HIKYAKU_MACHINES to"
                f" others at one of them (of 0-{MACHINES - 1}), and start its edges anew"
            )
    found = _read(settings)
    found.dialed[invite.site] = links.Dialed(
        address=invite.address, password=invite.password, ca=invite.ca
    )
    await _apply(settings, found)
    await _know(bus, invite.site, sites.Peer(machines=invite.machines))
    return await _until_linked(bus, invite)


def _range(machines: tuple[int, int]) -> str:
    return f"{machines[0]}-{machines[1]}"


async def _others(bus: Bus, besides: str) -> dict[str, tuple[int, int]]:
    """The machine numbers of the sites that are linked, as far as they are known."""
    async with sites.Sites("", bus, bus, lambda: None) as known:
        return {
            site: peer.machines
            for site, peer in known.peers.items()
            if site != besides and peer.state == "linked" and peer.machines != sites.UNKNOWN
        }


async def _until_linked(bus: Bus, invite: Invite) -> int:
    state = "the relay does not answer"
    deadline = asyncio.get_running_loop().time() + LINKED_S
    while asyncio.get_running_loop().time() < deadline:
        try:
            for each in (await _ask(bus)).links:
                if each.site == invite.site:
                    state = each.state
                    if each.connected and each.state == "connected":
                        print(f"{invite.to} and {invite.site} are linked.")
                        return 0
        except (Failure, Unavailable) as error:
            state = str(error)
        await asyncio.sleep(POLL_S)
    print(f"{invite.site} is not connected yet: {state}. It is tried on; see `hikyaku site list`.")
    return 1


async def _remove(settings: Settings, bus: Bus, name: str) -> int:
    known = await Bucket(bus, sites.BUCKET).last(name)
    if known is None:
        raise UserError(f"there is no site {name!r}; see `hikyaku site list`")
    await _know(bus, name, sites.Peer(state="removed"))
    found = _read(settings)
    found.accepted.pop(name, None)
    found.dialed.pop(name, None)
    await _apply(settings, found)
    print(f"The link to {name} is cut. Its users stay known by name; what waited for it, waits.")
    return 0


async def _renew(bus: Bus, name: str) -> int:
    try:
        await ask(bus, relay.SERVICE, "renew", relay.Renew(site=name), relay.Renewed, ASK_S)
    except Failure as failure:
        raise UserError(str(failure)) from None
    print(
        f"The link to {name} begins anew here. Do the same at {name}; then both go on with what"
        " waits."
    )
    return 0


async def _ask(bus: Bus) -> relay.LinksFound:
    return await ask(bus, relay.SERVICE, "links", relay.Links(), relay.LinksFound, ASK_S)


async def _list(bus: Bus) -> int:
    try:
        found = (await _ask(bus)).links
    except Failure as failure:
        raise UserError(str(failure)) from None
    if not found:
        print("There are no links; `hikyaku site invite NAME` begins one.")
        return 0
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("site", "connected", "waiting", "oldest", "last sent", "state"):
        table.add_column(column)
    for each in found:
        cells = (
            each.site,
            "yes" if each.connected else "no",
            str(each.waiting),
            _age(each.oldest_s),
            _age(each.last_s),
            each.state,
        )
        table.add_row(*map(Text, cells))
    Console(soft_wrap=True).print(table)
    return 0 if all(each.connected and each.state == "connected" for each in found) else 1


def _age(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
