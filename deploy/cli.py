"""The command `hikyaku`. What a command needs is imported when it runs, so that all start fast."""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence, Set
from pathlib import Path

from .errors import SettingsError, UserError
from .settings import Settings
from .settings_load import Loaded, load

_NOT_FOR_WORKERS = frozenset({"jwt_secret"})
"""Only edges judge tokens, so production's workers have no key for them."""

_WORKERS = "directory, persist, query, index, archive, notify, files and relay"

_Command = Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; gives its exit status: 2 when what was asked cannot be done."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if words[:1] == ["bench"]:
            return _bench(words[1:])
        arguments = _parser().parse_args(words)
        command: _Command = arguments.command
        status = command(arguments)
        sys.stdout.flush()
        return status
    except UserError as error:
        for each in error.problems if isinstance(error, SettingsError) else [str(error)]:
            print(f"hikyaku: {each}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read what is printed, as `head`, has ended; nothing is left to be flushed to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _parser() -> argparse.ArgumentParser:
    from .capacity import OPTIONS

    parser = argparse.ArgumentParser(
        prog="hikyaku",
        description="A federated, self-hosted chat server.",
        epilog="Settings come from HIKYAKU_* and the file HIKYAKU_CONFIG; see `hikyaku check`.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: _Command, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(command=command)
        return added

    up = add("up", _up, "run everything on this machine until Ctrl-C")
    up.add_argument(
        "--servers", action="store_true", help="only NATS, MongoDB and search, to restore a backup"
    )
    add("up-federation", _up_federation, "run two linked sites on this machine until Ctrl-C")
    edge = add("edge", _edge, "run one edge: the process that clients connect to")
    edge.add_argument("--number", type=int, default=1, help="1 for the first edge, and so on")
    worker = add("worker", _worker, "run one worker")
    worker.add_argument("name", metavar="NAME", help=f"one of {_WORKERS}")
    token = add("token", _token, "print a token for a user")
    token.add_argument("user", help="the user id")
    token.add_argument("--ttl-s", type=_positive, default=86_400, help="seconds until it expires")
    token.add_argument("--vip", action="store_true", help="make the user a VIP")
    check = add("check", _check, "check the configuration and show it")
    check.add_argument("--list", action="store_true", help="only explain all settings")
    init = add("init", _init, "write .env for compose.yaml, with fresh secrets")
    init.add_argument("file", nargs="?", default=".env", help="instead of .env here")
    init.add_argument("--domain", default="", help="where clients find the site; localhost if not")
    init.add_argument("--site", default="", help="the site's name, if it is not alone")
    init.add_argument("--cluster", action="store_true", help="three servers of NATS and MongoDB")
    init.add_argument("--linked", action="store_true", help="a site that is linked with others")
    init.add_argument("--add", action="store_true", help="only add what the file lacks")
    certificates = add(
        "certificates", _certificates, "renew the certificates of the site's NATS and MongoDB"
    )
    certificates.add_argument(
        "folder", nargs="?", default="certificates", help="instead of certificates here"
    )
    certificates.add_argument(
        "--name", action="append", default=[], help="another name or address of a server"
    )
    certificates.add_argument(
        "--days", type=_positive, default=397, help="how long they are good; 397 unless given"
    )
    mongo = add("mongo-init", _mongo_init, "make MongoDB a replica set with the site's users")
    mongo.add_argument("--within-s", type=_positive, default=120, help="how long to try")
    add("doctor", _doctor, "look for what is missing on this machine")
    status = add("status", _status, "show how the site is; exit status 1 if something is wrong")
    status.add_argument("--json", action="store_true", help="for programs")
    chat = add("chat", _chat, "chat in this terminal")
    chat.add_argument("--as", dest="user", required=True, metavar="USER", help="the user id")
    chat.add_argument("--url", help="address of an edge; the first one of this configuration")
    chat.add_argument("--token", help="made here if not given and the secret is known")
    dead = add("dead", _dead, "look at events that a worker could not handle, and replay them")
    dead.add_argument("action", choices=("list", "show", "replay"), help="what to do")
    dead.add_argument("number", nargs="?", type=_positive, help="of one letter, see `list`")
    dead.add_argument("--all", action="store_true", help="replay every letter")
    archive = add("archive", _archive, "move old messages to the object store, and look after them")
    actions = archive.add_subparsers(required=True, dest="action", metavar="ACTION")
    actions.add_parser("run", help="archive now what is old")
    actions.add_parser("verify", help="compare every file with what is known of it")
    actions.add_parser("rebuild", help="list files again that MongoDB no longer knows of")
    keep = actions.add_parser("keep", help="set how long a group's messages are kept")
    keep.add_argument("group", help="the group id")
    keep.add_argument(
        "--days", type=_days, required=True, help="from 0, which is for ever; or `as-others`"
    )
    site = add("site", _site, "link this site with others")
    site.add_argument("action", choices=("invite", "join", "add", "list", "renew", "remove"))
    site.add_argument("argument", nargs="?", help="the other site's name, or its invitation")
    search = add("search", _search, "look after the search")
    search.add_argument(
        "action",
        choices=("rebuild", "serve"),
        help="make the index anew from MongoDB; run the own search server until it is stopped",
    )
    export = add("export", _export, "write all that is held about a user into files")
    export.add_argument("--user", required=True, help="the user id")
    export.add_argument("--to", required=True, help="a new folder, or a new file that ends in .zip")
    erase = add("erase", _erase, "remove all that a user wrote, and what is held about the user")
    erase.add_argument("--user", required=True, help="the user id")
    erase.add_argument("--yes", action="store_true", help="do not ask")
    erase.add_argument("--report", metavar="FILE", help="a new file for what was done; else here")
    backup = add("backup", _backup, "write the whole site into a folder, while it serves")
    backup.add_argument("folder", help="a new folder")
    backup.add_argument(
        "--without-objects", action="store_true", help="leave out files and the archive's objects"
    )
    restore = add("restore", _restore, "fill empty servers from a backup; nothing else may run")
    restore.add_argument("folder", help="the folder of the backup")
    restore.add_argument(
        "--keep-log", action="store_true", help="only MongoDB was lost: NATS keeps what it has"
    )
    capacity = add("capacity", _capacity, "what a number of users needs, from measured figures")
    capacity.add_argument("--json", action="store_true", help="all of it as JSON")
    for each in OPTIONS:
        capacity.add_argument(each.option, type=each.kind, dest=each.name, help=each.what)
    commands.add_parser("bench", help="measure a running stack (`bench --help` for more)")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, not {text!r}")
    return int(text)


def _days(text: str) -> float | None:
    if text == "as-others":
        return None
    try:
        days = float(text)
    except ValueError:
        days = -1.0
    if not 0 <= days <= 36_500:
        why = f"expected days from 0 to 36500, or `as-others`, not {text!r}"
        raise argparse.ArgumentTypeError(why)
    return days


def _load(*, unused: Set[str] = frozenset()) -> Loaded:
    from .remembered import with_remembered

    return with_remembered(load(os.environ, unused=unused))


def _beside() -> Settings:
    """For a command that runs beside a site and, like most workers, is told no secret of it."""
    return _load(unused=_NOT_FOR_WORKERS | {"internal_secret"}).settings


def _quiet() -> None:
    """What parts note while they try again is not for the terminal; errors end the command."""
    logging.getLogger("hikyaku").setLevel(logging.ERROR)


def _up(arguments: argparse.Namespace) -> int:
    from .remembered import LASTING, with_remembered
    from .up import up

    loaded = with_remembered(load(os.environ), LASTING)
    up(loaded, os.environ, servers_only=arguments.servers)
    return 0


def _edge(arguments: argparse.Namespace) -> int:
    from edge.server import run

    from .logs import set_up
    from .settings import edge_config
    from .tokens import with_development_secret, with_internal_secret

    settings = _load().settings
    if not 1 <= arguments.number <= 65_536 - settings.edge_port:
        last = 65_536 - settings.edge_port
        raise UserError(f"--number: expected 1 to {last}, not {arguments.number}")
    settings = with_internal_secret(with_development_secret(settings))
    set_up(settings, f"edge-{arguments.number}")
    run(edge_config(settings, arguments.number))
    return 0


def _worker(arguments: argparse.Namespace) -> int:
    from broker.errors import OlderLog
    from workers.main import WORKERS, run
    from workers.push.provider import Unusable

    from .logs import set_up
    from .settings import worker_config
    from .tokens import with_internal_secret

    if arguments.name not in WORKERS:
        known = ", ".join(WORKERS)
        raise UserError(f"there is no worker {arguments.name!r}; there are: {known}")
    files = arguments.name == "files"
    unused = _NOT_FOR_WORKERS if files else _NOT_FOR_WORKERS | {"internal_secret"}
    settings = _load(unused=unused).settings
    if files:
        settings = with_internal_secret(settings)
    set_up(settings, arguments.name)
    try:
        run(arguments.name, worker_config(settings, arguments.name))
    except (Unusable, OlderLog) as error:
        raise UserError(str(error)) from None
    return 0


def _token(arguments: argparse.Namespace) -> int:
    from .tokens import make_token, with_secret_of_home

    settings = with_secret_of_home(_load().settings)
    print(make_token(settings, arguments.user, ttl_s=arguments.ttl_s, vip=arguments.vip))
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from .settings_show import explain, show

    if arguments.list:
        explain()
    else:
        show(_load())
    return 0


def _init(arguments: argparse.Namespace) -> int:
    from .init import write

    path = Path(arguments.file)
    adding = bool(arguments.add)
    names = write(
        path,
        domain=arguments.domain,
        site=arguments.site,
        cluster=arguments.cluster,
        linked=arguments.linked,
        add=adding,
    )
    if adding:
        print(f"Added to {path}: {', '.join(names) or 'nothing, it lacks nothing'}.")
    else:
        print(f"Wrote {path}. Now: docker compose up -d --wait")
    return 0


def _certificates(arguments: argparse.Namespace) -> int:
    from .certificates import write

    folder = Path(arguments.folder)
    until = write(folder, names=arguments.name, days=arguments.days)
    print(f"Wrote certificates into {folder}, good until {until:%Y-%m-%d}. Now have them read:")
    print("  docker compose exec -T nats sh -c 'kill -HUP 1'   (in a cluster also nats-2, nats-3)")
    print("  docker compose run --rm --no-deps mongo-init")
    return 0


def _mongo_init(arguments: argparse.Namespace) -> int:
    from .mongo_init import run

    return run(_load().settings, os.environ, arguments.within_s)


def _doctor(_: argparse.Namespace) -> int:
    from .doctor import examine

    return examine(_load().settings)


def _status(arguments: argparse.Namespace) -> int:
    from .status import run

    settings = _load(unused=_NOT_FOR_WORKERS | {"internal_secret"}).settings
    _quiet()
    return run(settings, as_json=arguments.json)


def _dead(arguments: argparse.Namespace) -> int:
    from .dead import run

    _quiet()
    return run(_beside(), arguments.action, arguments.number, every=arguments.all)


def _archive(arguments: argparse.Namespace) -> int:
    from . import archive

    settings = _beside()
    _quiet()
    if arguments.action == "keep":
        return archive.keep(settings, arguments.group, arguments.days)
    actions = {"run": archive.run, "verify": archive.verify, "rebuild": archive.rebuild}
    return actions[arguments.action](settings)


def _up_federation(_: argparse.Namespace) -> int:
    from .up_federation import run

    _quiet()
    return run(load(os.environ).settings, os.environ)


def _site(arguments: argparse.Namespace) -> int:
    from . import site_links

    _quiet()
    return site_links.run(_load().settings, arguments.action, arguments.argument)


def _search(arguments: argparse.Namespace) -> int:
    if arguments.action == "rebuild":
        from .search import rebuild

        return rebuild(_beside())
    from search.embedded.server import run

    from .local_search import config
    from .logs import set_up

    settings = _load().settings
    set_up(settings, "search")
    run(config(settings))
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from .personal import export

    _quiet()
    return export(_beside(), arguments.user, arguments.to)


def _erase(arguments: argparse.Namespace) -> int:
    from .erase import erase

    settings = _beside()
    _quiet()
    return erase(settings, arguments.user, sure=arguments.yes, report=arguments.report)


def _backup(arguments: argparse.Namespace) -> int:
    from .backup import backup

    settings = _beside()
    _quiet()
    return backup(settings, arguments.folder, objects=not arguments.without_objects)


def _restore(arguments: argparse.Namespace) -> int:
    from .restore import restore

    settings = _beside()
    _quiet()
    return restore(settings, arguments.folder, keep_log=arguments.keep_log)


def _capacity(arguments: argparse.Namespace) -> int:
    from .capacity import OPTIONS, assumed, capacity

    given = {each.name: getattr(arguments, each.name) for each in OPTIONS}
    load = assumed({name: value for name, value in given.items() if value is not None})
    return capacity(load, json=arguments.json)


def _chat(arguments: argparse.Namespace) -> int:
    from client.terminal import run

    from .settings import edge_url
    from .tokens import make_token, with_secret_of_home

    settings = _load().settings
    token, signed_with = arguments.token, ""
    if token is None:
        signed_with = "HIKYAKU_JWT_SECRET"
        if not settings.jwt_secret:
            signed_with = f"the secret of HIKYAKU_HOME={settings.home_path}"
        token = make_token(with_secret_of_home(settings), arguments.user)
    url = arguments.url or edge_url(settings, 1)
    run(url, token, arguments.user, signed_with=signed_with)
    return 0


def _bench(words: list[str]) -> int:
    from bench.cli import main as bench

    return bench(words)


if __name__ == "__main__":
    sys.exit(main())
