"""What `hikyaku up` shows: a live table while starting, then lines; without a terminal, lines."""

from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from time import monotonic
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from .service import (
    AllReady,
    Died,
    Event,
    Failed,
    Ready,
    Service,
    Starting,
    Stopped,
    Stopping,
    Waiting,
)

_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_FRAMES_PER_S = 8


class View(Protocol):
    """Shows events of the supervisor."""

    def show(self, event: Event) -> None:
        """Show what happened."""

    def say(self, text: str) -> None:
        """Print lines."""

    def close(self) -> None:
        """Leave the terminal in order. Idempotent."""


def make_view(services: Iterable[Service]) -> View:
    """A table where a person watches, else plain lines."""
    services = list(services)
    console = Console()
    return TableView(services, console) if console.is_terminal else PlainView(services)


def line(event: Event, addresses: dict[str, str]) -> str:
    """The event as a line, or empty if it is not worth one."""
    match event:
        case Ready(name=name, after_s=after_s, again=again):
            where = f" ({addresses[name]})" if addresses.get(name) and not again else ""
            return f"{name} is ready{' again' if again else ''} after {after_s:.1f} s{where}"
        case Waiting(name=name, why=why):
            return f"{name}: {why}"
        case Died(name=name, how=how, delay_s=delay_s, lines=lines):
            said = "".join(f"\n    {each}" for each in lines)
            return f"{name} {how}; starting it again in {delay_s:g} s{said}"
        case Stopped(name=name, killed=killed):
            return f"{name} {'had to be killed' if killed else 'has stopped'}"
    return ""


class PlainView:
    """One line for each event, without colours."""

    def __init__(self, services: Iterable[Service]):
        self._addresses = {service.name: service.address for service in services}

    def show(self, event: Event) -> None:
        """Print the event's line."""
        text = line(event, self._addresses)
        if text:
            self.say(text)

    def say(self, text: str) -> None:
        """Print lines. Nobody may be reading any more: that is no reason to end the server."""
        with suppress(OSError):
            print(text, flush=True)

    def close(self) -> None:
        """Nothing to do: every line was written at once."""


class TableView:
    """A live table until everything is ready or has failed; after that, lines with the time."""

    def __init__(self, services: list[Service], console: Console):
        self._console = console
        self._addresses = {service.name: service.address for service in services}
        self._state = {service.name: Text("waiting", "dim") for service in services}
        self._since: dict[str, float] = {}
        self._took: dict[str, float] = {}
        self._live: Live | None = Live(
            get_renderable=self._table, console=console, refresh_per_second=_FRAMES_PER_S
        )
        self._live.start()

    def show(self, event: Event) -> None:
        """Change the event's row, or print its line once the table is done."""
        match event:
            case Starting(name=name):
                self._since[name] = monotonic()
                self._state[name] = Text("starting", "yellow")
            case Ready(name=name, after_s=after_s, again=False):
                self._took[name] = after_s
                self._state[name] = Text("ready", "green")
            case Failed(name=name):
                self._state[name] = Text("failed", "red")
            case AllReady() | Stopping():
                self.close()
            case Ready() | Died() | Stopped() | Waiting():
                first, newline, rest = line(event, self._addresses).partition("\n")
                text = Text(f"{datetime.now():%H:%M:%S} {first}{newline}")
                text.stylize("red" if isinstance(event, Died) else "")
                self._print(text + Text(rest, "dim"))

    def say(self, text: str) -> None:
        """Print lines as they are; long ones are left whole, so that they can be copied."""
        self.close()
        self._print(Text(text))

    def close(self) -> None:
        """End the table. Idempotent."""
        live, self._live = self._live, None
        if live is not None:
            with suppress(OSError):
                live.stop()

    def _print(self, text: Text) -> None:
        with suppress(OSError):  # the terminal may be gone: no reason to end the server
            self._console.print(text, soft_wrap=True)

    def _table(self) -> Table:
        table = Table(box=None, padding=(0, 3, 0, 0), header_style="bold")
        for column in ("what", "address", "state", "ready in"):
            table.add_column(column, no_wrap=True)
        for name, state in self._state.items():
            table.add_row(name, self._addresses[name], self._marked(name, state), self._time(name))
        return table

    def _marked(self, name: str, state: Text) -> Text:
        if name in self._took:
            return Text("✓ ", "green") + state
        mark = _SPINNER[int(monotonic() * _FRAMES_PER_S) % len(_SPINNER)]
        return Text(f"{mark} " if name in self._since else "  ", "yellow") + state

    def _time(self, name: str) -> str:
        if name in self._took:
            return f"{self._took[name]:.1f} s"
        return f"{monotonic() - self._since[name]:.0f} s …" if name in self._since else ""
