"""What was found, as the text of a notice. No I/O."""

from datetime import datetime

from ..chat_ids import group_of, other_of
from ..messages import MARK, UNMARK, Hit, SearchPage
from .lines import Key
from .model import Chats

SHOWN = 10


def found(page: SearchPage, words: str, chats: Chats) -> str:
    """Say what was found, the best first; what fits stays marked."""
    if not page.hits:
        return f"Nothing was found for: {words}"
    many = f"{page.total} messages" if page.total > 1 else "One message"
    rest = f", the best {len(page.hits)}" if page.total > len(page.hits) else ""
    lines = [_hit(hit, chats) for hit in page.hits]
    return "\n".join([f"{many} with {words}{rest}:", *lines])


def _hit(hit: Hit, chats: Chats) -> str:
    written = datetime.fromtimestamp(hit.timestamp / 1000)
    text = "".join(f"{MARK}{p.text}{UNMARK}" if p.found else p.text for p in hit.parts)
    who = "you" if hit.from_ == chats.me else hit.from_
    return f"{written:%d %b %H:%M} {_where(hit, chats)}  {who}: {' '.join(text.split())}"


def _where(hit: Hit, chats: Chats) -> str:
    other, group = other_of(hit.chat_id, chats.me), group_of(hit.chat_id)
    key = Key("group", group) if group is not None else Key("dm", other or "")
    known = chats.all.get(key)
    return known.title if known is not None else f"#{group}" if group else key.name
