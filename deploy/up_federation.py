"""`hikyaku up-federation`: two linked sites on this machine, to try what a federation is.

Each is a whole `hikyaku up` with a folder of its own in the home, tokyo and osaka. They are linked
with an invitation, as sites anywhere are. Of what the two say, only what is out of the ordinary is
shown.
"""

import io
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import redirect_stdout

from msgspec.structs import replace

from . import site_links
from .errors import UserError
from .settings import Settings, web_url
from .tokens import make_token, with_development_secret
from .up import END, program

READY_S = 180.0
STOP_S = 15.0
LINK_PORT = 7422

_HIKYAKU = (sys.executable, "-P", "-m", "deploy.cli")
_READY = "Hikyaku is ready"
_ORDINARY = re.compile(r"\S+ (?:is ready after|has stopped)|Stopping\.|Everything has stopped|$")


class _Site:
    """One `hikyaku up`; what it says of trouble is shown with its name in front."""

    def __init__(self, settings: Settings, environ: Mapping[str, str]):
        self.settings = settings
        self.ready = threading.Event()
        self._process = subprocess.Popen(
            (*_HIKYAKU, "up"),
            env={**environ, **_variables(settings)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        welcoming = False
        for line in self._process.stdout:
            if _READY in line:
                self.ready.set()
                welcoming = True
            if not welcoming and not _ORDINARY.match(line):
                print(f"{self.settings.site} | {line}", end="", flush=True)
            if line.startswith(END):
                welcoming = False
        self.ready.set()

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        if self.running:
            self._process.send_signal(signal.SIGINT)

    def wait(self) -> int:
        return self._process.wait()


def run(settings: Settings, environ: Mapping[str, str]) -> int:
    """Run both until Ctrl-C. Raises `UserError` when one does not start."""
    home, port = settings.home_path, settings.edge_port
    listen = settings.link_listen or f"127.0.0.1:{LINK_PORT}"
    tokyo = replace(
        settings, site="tokyo", home=str(home / "tokyo"), machines="0-31", link_listen=listen
    )
    osaka = replace(
        settings,
        site="osaka",
        home=str(home / "osaka"),
        machines="32-63",
        link_listen="",
        edge_port=port + settings.edges,
    )
    print("Starting tokyo and osaka, which takes some seconds.", flush=True)
    sites = [_Site(each, environ) for each in (tokyo, osaka)]
    try:
        for each in sites:
            if not each.ready.wait(READY_S) or not each.running:
                raise UserError(f"{each.settings.site} did not start; what it said is above")
        _link(tokyo, osaka)
        for each in sites:
            print("\n".join(_welcome(each.settings)))
        print("\nUsers of osaka write to alice@tokyo, users of tokyo to bob@osaka.")
        print(END, flush=True)
        return max(each.wait() for each in sites)
    except KeyboardInterrupt:
        return 0
    finally:
        for each in sites:
            each.stop()
        for each in sites:
            each.wait()


def _welcome(settings: Settings) -> list[str]:
    lines = ["", f"{settings.site}: open {web_url(settings, 1)}"]
    if settings.mode == "development":
        known = with_development_secret(settings)
        if known.jwt_secret:
            lines += [f"  {user:5}  {make_token(known, user)}" for user in ("alice", "bob")]
    home = os.path.relpath(settings.home_path)
    command = " ".join([f"HIKYAKU_HOME={shlex.quote(home)}", *program()])
    return [*lines, f"  its commands: {command} site list"]


def _link(tokyo: Settings, osaka: Settings) -> None:
    said = io.StringIO()
    with redirect_stdout(said):
        site_links.run(tokyo, "invite", osaka.site)
    found = re.search(rf"{site_links.PREFIX}\S+", said.getvalue())
    assert found is not None
    site_links.run(osaka, "join", found[0])


def _variables(settings: Settings) -> dict[str, str]:
    return {
        "HIKYAKU_HOME": settings.home,
        "HIKYAKU_SITE": settings.site,
        "HIKYAKU_MACHINES": settings.machines,
        "HIKYAKU_LINK_LISTEN": settings.link_listen,
        "HIKYAKU_EDGE_PORT": str(settings.edge_port),
        "PYTHONUNBUFFERED": "1",
    }
