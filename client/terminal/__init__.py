"""The terminal client: `hikyaku chat`. See `docs/client.md`."""

from .app import run

__all__ = ["run"]
