"""`hikyaku check`: the settings as tables, secrets masked."""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .settings_check import masked
from .settings_load import CONFIG, FIELDS, Field, Loaded


def shown(field: Field, value: Any) -> str:
    """A value for people; a secret's length at most, a URL without its password."""
    if value in ("", ()):
        return "-"
    if field.secret and not field.name.endswith("_url"):
        return f"******** ({len(value.encode())} bytes)"
    parts = value if isinstance(value, tuple) else (value,)
    return ", ".join(masked(part) if field.secret else str(part) for part in parts)


def show(loaded: Loaded) -> None:
    """Print every setting, its value and where it came from."""
    table = _table("setting", "value", "source")
    for field in FIELDS.values():
        source = loaded.sources[field.name]
        style = "dim" if source == "default" else "bold"
        value = shown(field, getattr(loaded.settings, field.name))
        table.add_row(Text(field.variable), Text(value, style), Text(source, style))
    console = Console(soft_wrap=True)
    console.print(table)
    console.print("\nThe configuration is valid.", style="green")


def explain() -> None:
    """Print every setting, its default and its sentence."""
    table = _table("setting", "default", "meaning")
    for field in FIELDS.values():
        default = shown(field, field.default)
        table.add_row(Text(field.variable), Text(default), Text(field.sentence))
    console = Console(soft_wrap=True)
    console.print(table)
    console.print(f"\nOr in lower case, without the prefix, in the TOML file of {CONFIG}.")


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column == "setting")
    return table
