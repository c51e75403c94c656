"""The command `hikyaku`. What a command needs is imported when it runs, so that all start fast."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from .errors import SettingsError, UserError
from .settings_load import Loaded, load

_Command = Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; gives its exit status: 2 when what was asked cannot be done."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if words[:1] == ["bench"]:
            return _bench(words[1:])
        arguments = _parser().parse_args(words)
        command: _Command = arguments.command
        return command(arguments)
    except UserError as error:
        for each in error.problems if isinstance(error, SettingsError) else [str(error)]:
            print(f"hikyaku: {each}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
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

    add("up", _up, "run everything on this machine until Ctrl-C")
    edge = add("edge", _edge, "run one edge: the process that clients connect to")
    edge.add_argument("--number", type=int, default=1, help="1 for the first edge, and so on")
    worker = add("worker", _worker, "run one worker")
    worker.add_argument("name", help="which one, for example directory")
    token = add("token", _token, "print a token for a user")
    token.add_argument("user", help="the user id")
    token.add_argument("--ttl-s", type=_positive, default=86_400, help="seconds until it expires")
    token.add_argument("--vip", action="store_true", help="make the user a VIP")
    check = add("check", _check, "check the configuration and show it")
    check.add_argument("--list", action="store_true", help="only explain all settings")
    add("doctor", _doctor, "look for what is missing on this machine")
    chat = add("chat", _chat, "chat in this terminal")
    chat.add_argument("--as", dest="user", required=True, metavar="USER", help="the user id")
    chat.add_argument("--url", help="address of an edge; the first one of this configuration")
    chat.add_argument("--token", help="made here if not given and the secret is known")
    dead = add("dead", _dead, "look at events that a worker could not handle, and replay them")
    dead.add_argument("action", choices=("list", "show", "replay"), help="what to do")
    dead.add_argument("number", nargs="?", type=_positive, help="of one letter, see `list`")
    dead.add_argument("--all", action="store_true", help="replay every letter")
    archive = add("archive", _archive, "move old messages to the object store, and look after them")
    archive.add_argument(
        "action",
        choices=("run", "verify", "rebuild", "keep"),
        help="run now; compare files and manifest; list lost files again; set a group's retention",
    )
    archive.add_argument("group", nargs="?", help="for `keep`: the group id")
    archive.add_argument("--days", type=_days, help="for `keep`: 0 for ever, without it as others")
    export = add("export", _export, "write all that is held about a user into files")
    export.add_argument("--user", required=True, help="the user id")
    export.add_argument("--to", required=True, help="a new folder, or a file that ends in .zip")
    erase = add("erase", _erase, "remove all that a user wrote, and what is held about the user")
    erase.add_argument("--user", required=True, help="the user id")
    erase.add_argument("--yes", action="store_true", help="do not ask")
    erase.add_argument("--report", metavar="FILE", help="where to write what was done")
    commands.add_parser("bench", help="measure a running stack (`bench --help` for more)")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, not {text!r}")
    return int(text)


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = -1.0
    if not 0 <= days <= 36_500:
        raise argparse.ArgumentTypeError(f"expected days from 0 to 36500, not {text!r}")
    return days


def _load() -> Loaded:
    return load(os.environ)


def _up(_: argparse.Namespace) -> int:
    from .up import up

    up(_load(), os.environ)
    return 0


def _edge(arguments: argparse.Namespace) -> int:
    from edge.server import run

    from .settings import edge_config
    from .tokens import with_development_secret

    settings = _load().settings
    if not 1 <= arguments.number <= 65_536 - settings.edge_port:
        last = 65_536 - settings.edge_port
        raise UserError(f"--number: expected 1 to {last}, not {arguments.number}")
    run(edge_config(with_development_secret(settings), arguments.number))
    return 0


def _worker(arguments: argparse.Namespace) -> int:
    from workers.main import WORKERS, run

    from .settings import worker_config

    if arguments.name not in WORKERS:
        known = ", ".join(WORKERS)
        raise UserError(f"there is no worker {arguments.name!r}; there are: {known}")
    run(arguments.name, worker_config(_load().settings))
    return 0


def _token(arguments: argparse.Namespace) -> int:
    from .tokens import make_token, with_development_secret

    settings = with_development_secret(_load().settings)
    print(make_token(settings, arguments.user, ttl_s=arguments.ttl_s, vip=arguments.vip))
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from .settings_show import explain, show

    if arguments.list:
        explain()
    else:
        show(_load())
    return 0


def _doctor(_: argparse.Namespace) -> int:
    from .doctor import examine

    return examine(_load().settings)


def _dead(arguments: argparse.Namespace) -> int:
    from .dead import run

    return run(_load().settings, arguments.action, arguments.number, every=arguments.all)


def _archive(arguments: argparse.Namespace) -> int:
    from . import archive

    settings = _load().settings
    if (arguments.action == "keep") != (arguments.group is not None):
        raise UserError("use `archive run`, `verify` or `rebuild`, or `archive keep GROUP`")
    if arguments.action == "keep":
        return archive.keep(settings, arguments.group, arguments.days)
    actions = {"run": archive.run, "verify": archive.verify, "rebuild": archive.rebuild}
    return actions[arguments.action](settings)


def _export(arguments: argparse.Namespace) -> int:
    from .personal import export

    return export(_load().settings, arguments.user, arguments.to)


def _erase(arguments: argparse.Namespace) -> int:
    from .erase import erase

    settings = _load().settings
    return erase(settings, arguments.user, sure=arguments.yes, report=arguments.report)


def _chat(arguments: argparse.Namespace) -> int:
    from client.terminal import run

    from .settings import edge_url
    from .tokens import make_token, with_development_secret

    settings = _load().settings
    token = arguments.token
    if token is None:
        token = make_token(with_development_secret(settings), arguments.user)
    run(arguments.url or edge_url(settings, 1), token, arguments.user)
    return 0


def _bench(words: list[str]) -> int:
    from bench.cli import main as bench

    return bench(words)


if __name__ == "__main__":
    sys.exit(main())
