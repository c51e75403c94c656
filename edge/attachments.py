"""The word of the worker `files` that the sender of a message may attach its files."""

from typing import TYPE_CHECKING

from broker import files
from broker.requests import ask

if TYPE_CHECKING:
    from .asker import Asker


async def check(asker: "Asker", ids: list[str], chat_id: str) -> list[files.File]:
    """The files by their ids. Raises what asking raises, `Failure` for those that may not."""
    question = files.Check(user=asker.user.user_id, chat_id=chat_id, files=ids)
    timeout_s = asker.edge.config.request_timeout_s
    bus = asker.edge.asking
    checked = await ask(bus, files.SERVICE, "check", question, files.Checked, timeout_s)
    return checked.files
