"""Files across sites: the worker `files` asks for pieces of those elsewhere, and gives peers ours.

A file is kept where its author is. A peer gets it if one of its users is in the file's chat.
"""

from collections import Counter

import msgspec

from broker import files, relay, subjects
from broker.bus import Bus
from broker.errors import Unavailable
from broker.federation import Postal, read
from broker.requests import Failure, Responder, ask
from broker.sites import Sites
from store.errors import StoreError
from store.mirrored import Mirrored

from .answers import answered, asked

ASK_S = 6.0
DEADLINE_S = 8.0
VERB = "file"


class FilePieces:
    """Both ends. Use as a context manager."""

    def __init__(self, bus: Bus, postal: Postal, sites: Sites, mirrored: Mirrored):
        self._bus = bus
        self._postal = postal
        self._sites = sites
        self._mirrored = mirrored
        self._responder = Responder(
            bus, relay.SERVICE, {"file": (relay.FilePiece, self._ask)}, deadline_s=DEADLINE_S
        )
        self.given: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()

    async def __aenter__(self) -> "FilePieces":
        await self._responder.__aenter__()
        self._postal.serve(VERB, self._answer)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._responder.__aexit__(*exc_info)

    async def _ask(self, question: relay.FilePiece) -> relay.FilePieceFound:
        """For the worker `files` here."""
        site = self._sites.names.site_of(question.author)
        if site is None:
            raise Failure("not_found", "there is no such file")
        piece = files.Piece(id=question.id, start=question.start, length=question.length)
        data = await asked(self._sites, self._postal, site, VERB, piece, timeout_s=ASK_S)
        return relay.FilePieceFound(site=site, data=read(data, files.PieceFound, site).data)

    async def _answer(self, peer: str, data: bytes) -> bytes:
        """For a peer."""
        return await answered(self._piece(peer, data))

    async def _piece(self, peer: str, data: bytes) -> bytes:
        piece = read(data, files.Piece, peer)
        if not self._sites.linked(peer):
            raise Failure("forbidden", "the sites are not linked")
        found = await ask(self._bus, files.SERVICE, "piece", piece, files.PieceFound, ASK_S)
        if not await self._is_in(peer, found.chat_id):
            self.refused[peer] += 1
            raise Failure("not_found", "there is no such file")
        self.given[peer] += len(found.data)
        return msgspec.json.encode(found)

    async def _is_in(self, peer: str, chat_id: str) -> bool:
        """Whether a user of the peer is in the chat, or it lives there."""
        if peer in self._sites.names.sites_in(chat_id):
            return True
        kind, tokens = subjects.parse(chat_id)
        if kind != "group":
            return False
        try:
            return await self._mirrored.any_of_site(subjects.decode(tokens[0]), peer)
        except StoreError as error:
            raise Unavailable(str(error)) from error
