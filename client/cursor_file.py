"""A cursor in a file: written beside it, synced and renamed, so that a crash leaves old or new."""

import asyncio
import hashlib
import os
import re
import tempfile
from pathlib import Path
from threading import Lock


class FileCursorStore:
    """Keeps the cursor in one small file that only its owner can read."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._writing = Lock()

    async def load(self) -> str | None:
        """Read the file; None if there is none."""
        return await asyncio.to_thread(self._read)

    async def save(self, cursor: str) -> None:
        """Replace the file."""
        await asyncio.to_thread(self._write, cursor)

    def _read(self) -> str | None:
        try:
            return self.path.read_text("utf-8").strip() or None
        except FileNotFoundError:
            return None

    def _write(self, cursor: str) -> None:
        with self._writing:  # a save that was given up may still be at work in its thread
            self._replace(cursor)

    def _replace(self, cursor: str) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
        try:
            with open(handle, "w", encoding="utf-8") as file:
                file.write(cursor + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, self.path)
        except BaseException:
            os.unlink(name)
            raise


def default_path(server: str, user: str) -> Path:
    """Give the usual file for a user at a server, under `$XDG_STATE_HOME` or `~/.local/state`."""
    home = os.environ.get("XDG_STATE_HOME", "")
    base = Path(home) if os.path.isabs(home) else Path.home() / ".local" / "state"
    key = hashlib.sha256(f"{server}\0{user}".encode("utf-8", "replace")).hexdigest()[:16]
    readable = re.sub(r"[^A-Za-z0-9_-]+", "_", user)[:32]
    return base / "hikyaku" / f"{readable}-{key}.cursor"
