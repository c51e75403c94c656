"""Where messages stand that were delivered here lately: a receipt for one needs no search."""

from collections import deque

from broker import events

KNOWN = 20_000


class Places:
    """The seqs of the last 20,000 messages that clients of this edge got.

    Names are read from the events when the first receipt asks for one, so that an event costs
    nothing where nobody sends receipts.
    """

    def __init__(self) -> None:
        self._fresh: deque[tuple[int, str, bytes]] = deque(maxlen=KNOWN)
        self._known: dict[bytes, tuple[int, str]] = {}

    def note(self, seq: int, chat_id: str, stored: bytes) -> None:
        """An event was delivered; of those that are no messages nothing is kept."""
        self._fresh.append((seq, chat_id, stored))

    def seq_of(self, chat_id: str, message_id: str) -> int:
        """The seq of a message of a chat; 0 if it is not known here."""
        known, fresh = self._known, self._fresh
        while fresh:
            seq, chat, stored = fresh.popleft()
            name = events.message_id(stored)
            if name is not None:
                known.setdefault(name, (seq, chat))
        while len(known) > KNOWN:
            del known[next(iter(known))]
        seq, chat = known.get(message_id.encode(), (0, ""))
        return seq if chat == chat_id else 0
