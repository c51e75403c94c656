"""`hikyaku up`: the whole stack in one terminal, until Ctrl-C. See `docs/operations.md`."""

import asyncio
import os
import shlex
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from .errors import UserError
from .home import locked, make_home
from .remembered import remember
from .service import AllReady, Event
from .settings import Settings, edge_url, web_url
from .settings_load import CONFIG, Loaded
from .stack import declare
from .supervisor import Supervisor
from .tokens import make_token, with_development_secret, with_internal_secret
from .up_view import View, make_view
from .vapid import with_development_vapid

END = "Ctrl-C stops everything."
_SERVERS = f"Only the servers run: now `hikyaku restore`. {END}"


def up(loaded: Loaded, environ: Mapping[str, str], *, servers_only: bool = False) -> None:
    """Run the stack, or only its servers, until SIGINT, SIGTERM or SIGHUP. Raises `UserError`."""
    home = loaded.settings.home_path
    make_home(home)
    with locked(home) as lock:
        try:
            settings = with_internal_secret(with_development_secret(loaded.settings))
            settings = with_development_vapid(settings)
            remember(settings)
            services = declare(settings, environ, servers_only=servers_only)
            view = make_view(services)
            try:
                welcome = _SERVERS
                if not servers_only:
                    welcome = _welcome(settings, loaded.sources, environ)
                supervisor = Supervisor(
                    services,
                    log_dir=home / "log",
                    report=lambda event: _show(view, event, welcome),
                    keep_fds=(lock,),
                )
                asyncio.run(_run(supervisor, view))
            finally:
                view.close()
        except OSError as error:
            raise UserError(f"cannot use {error.filename or home}: {error.strerror}") from error


async def _run(supervisor: Supervisor, view: View) -> None:
    stop, kill = asyncio.Event(), asyncio.Event()

    def interrupted() -> None:
        if stop.is_set():
            view.say("Ending everything at once.")
            kill.set()
        else:
            view.say("\nStopping. Press Ctrl-C again to end everything at once.")
            stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN or number == signal.SIGINT:
            loop.add_signal_handler(number, interrupted)
    await supervisor.run(stop, kill)
    view.say("Everything has stopped.")


def _show(view: View, event: Event, welcome: str) -> None:
    view.show(event)
    if isinstance(event, AllReady):
        view.say(f"\nHikyaku is ready in {event.after_s:.1f} s.\n\n{welcome}")


def _welcome(settings: Settings, sources: Mapping[str, str], environ: Mapping[str, str]) -> str:
    home = settings.home_path
    lines = [*_web(settings), "", f"Mode: {settings.mode}. Data and logs: {home}", ""]
    numbers = range(1, settings.edges + 1)
    lines += [f"  edge-{number}  {edge_url(settings, number)}" for number in numbers]
    if settings.mode == "development" and settings.jwt_secret:
        lines += ["", "Tokens to try it with, good for a day:"]
        lines += [f"  {user:5}  {make_token(settings, user)}" for user in ("alice", "bob")]
        lines += ["", "Two users on two edges: run each of these in a terminal of its own."]
        lines += _commands(settings, sources, environ)
    return "\n".join([*lines, "", END])


def _web(settings: Settings) -> list[str]:
    """The web client's address, and that of another edge for a second user."""
    how = "choose a name" if settings.mode == "development" else "sign in with a token"
    lines = [f"  Open {web_url(settings, 1)} in a browser and {how}."]
    if settings.edges > 1 and settings.mode == "development":
        lines.append(f"  A second one can be at {web_url(settings, 2)}, on the other edge.")
    return lines


def _commands(
    settings: Settings, sources: Mapping[str, str], environ: Mapping[str, str]
) -> list[str]:
    """The settings that the commands need as well come from this terminal's environment."""
    words = [f"{CONFIG}={shlex.quote(environ[CONFIG])}"] if environ.get(CONFIG) else []
    if sources["home"] == "environment":
        words.append(f"HIKYAKU_HOME={shlex.quote(str(settings.home_path))}")
    words += program()
    first = f" --url {edge_url(settings, 1)}" if sources["edge_port"] == "environment" else ""
    last = f" --url {edge_url(settings, settings.edges)}" if settings.edges > 1 else first
    chat = " ".join(words) + " chat --as"
    return [f"  {chat} alice{first}", f"  {chat} bob{last}"]


def program() -> list[str]:
    """How to call this program from the present folder."""
    program = Path(sys.executable).with_name("hikyaku")
    if not program.is_file():
        return [shlex.quote(sys.executable), "-m", "deploy.cli"]
    inside = program.is_relative_to(Path.cwd())
    return [shlex.quote(os.path.relpath(program) if inside else str(program))]
