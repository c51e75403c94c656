"""What a local site is, kept in its home: a command with that home need not be told again.

`hikyaku up` writes `site.json`; the environment and the settings file count before it.
"""

import json
from collections.abc import Collection
from pathlib import Path

import msgspec
from msgspec.structs import replace

from .settings import Settings
from .settings_load import Loaded

LASTING = ("site", "machines")
"""What the site's data was made with: `hikyaku up` itself goes on with these."""

ALL = (*LASTING, "link_listen", "link_address", "edge_host", "edge_port", "edges")


def remember(settings: Settings) -> None:
    """Keep it for later commands. Raises `OSError`."""
    found = {name: getattr(settings, name) for name in ALL}
    _file(settings).write_text(json.dumps(found, indent=2) + "\n")


def with_remembered(loaded: Loaded, names: Collection[str] = ALL) -> Loaded:
    """With what the home knows of `names` and nobody has set."""
    found = _read(_file(loaded.settings))
    taken = {
        name: found[name] for name in names if name in found and loaded.sources[name] == "default"
    }
    if not taken:
        return loaded
    try:
        msgspec.convert(taken, Settings)
    except msgspec.ValidationError:
        return loaded
    source = f"file {_file(loaded.settings)}"
    sources = {**loaded.sources, **dict.fromkeys(taken, source)}
    return Loaded(settings=replace(loaded.settings, **taken), sources=sources)


def _file(settings: Settings) -> Path:
    return settings.home_path / "site.json"


def _read(file: Path) -> dict[str, object]:
    """A file that cannot be understood is as good as none."""
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
