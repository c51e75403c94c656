"""How a process writes its log: lines for people, or an object of JSON each, to standard error.

An object has `time` (UTC), `level`, `logger`, `process`, `message`, the fields of what is followed
(`id`, `seq`, `chat` and so on), and `exception` with the traceback if there is one.
"""

import logging
from datetime import UTC, datetime
from typing import Any

import msgspec

from .settings import Settings

TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

_encode = msgspec.json.Encoder(enc_hook=str).encode


class TextLines(logging.Formatter):
    """As people read them; fields come last."""

    def __init__(self) -> None:
        super().__init__(TEXT)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """The line without a traceback."""
        told = "".join(f" {name}={value}" for name, value in _fields(record).items())
        return super().formatMessage(record) + told


class JsonLines(logging.Formatter):
    """An object each, in one line."""

    def __init__(self, process: str):
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        at = datetime.fromtimestamp(record.created, UTC)
        line = {
            "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": self._process,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _encode(line).decode()


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return getattr(record, "fields", {})


def set_up(settings: Settings, process: str) -> None:
    """Begin to log as the settings say; `process` is this one's name, as `edge-1`."""
    handler = logging.StreamHandler()
    as_json = settings.log_format == "json"
    handler.setFormatter(JsonLines(process) if as_json else TextLines())
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler])
    # uvicorn logs the query string of every WebSocket at INFO, and with it the token.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    if settings.log_messages:
        logging.getLogger("hikyaku.messages").setLevel(logging.INFO)
