"""Messages with files wait for the word of the worker `files` that the sender may attach them.

What the sender writes behind such a message waits too, so that its order stays. The questions are
asked at once, so that all together wait no longer than one.
"""

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from broker import files
from broker.requests import ask

from . import frames, writes
from .asker import EXPECTED

if TYPE_CHECKING:
    from .asker import Asker

HELD_MOST = 64


class Held(NamedTuple):
    """A message, and the question about its files if it has any."""

    request: frames.Chat | frames.GroupChat
    chat_id: str
    question: "asyncio.Task[files.Checked] | None"


def hold(asker: "Asker", request: frames.Chat | frames.GroupChat, chat_id: str) -> None:
    """Send a message when its files are known, behind those that wait already."""
    if len(asker.held) >= HELD_MOST:
        message = "too many messages wait for what they have attached"
        asker.error("overloaded", message, request, retry_after_ms=500)
        return
    question = None
    if request.attachments:
        question = asyncio.create_task(_check(asker, request.attachments, chat_id))
    asker.held.append(Held(request, chat_id, question))
    asker.writing += 1
    if len(asker.held) == 1:
        asker.edge.spawn(_release(asker))


async def _check(asker: "Asker", ids: list[str], chat_id: str) -> files.Checked:
    question = files.Check(user=asker.user.user_id, chat_id=chat_id, files=ids)
    timeout_s = asker.edge.config.request_timeout_s
    bus = asker.edge.asking
    return await ask(bus, files.SERVICE, "check", question, files.Checked, timeout_s)


async def _release(asker: "Asker") -> None:
    """Send what waits, in its order; a message whose files are refused is answered so."""
    try:
        while asker.held:
            request, chat_id, question = asker.held[0]
            try:
                attached = [] if question is None else (await question).files
            except EXPECTED as error:
                if not asker.lost:
                    asker.failed(error, request)
            else:
                writes.commit(asker, request, chat_id, attached)
            asker.held.popleft()
            asker.written()
    finally:
        for each in asker.held:
            if each.question is not None:
                each.question.cancel()
        asker.held.clear()
