"""The life of a client over many connections: connect, serve, decide, wait, connect again."""

import asyncio
import logging
import ssl
import time
from collections.abc import Callable
from http import HTTPStatus
from random import random
from typing import NoReturn
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    InvalidHandshake,
    InvalidMessage,
    InvalidStatus,
    InvalidURI,
    WebSocketException,
)

from edge.close_codes import CloseCode
from edge.frames import Welcome

from .address import with_parameters
from .connection import Connection
from .errors import HandshakeRefused
from .inbox import Inbox
from .policy import HEALTHY_AFTER_S, LOST, Ended, Stop, after_close
from .sender import Sender
from .state import ConnectionState
from .tokens import Tokens
from .tracker import Tracker

log = logging.getLogger("hikyaku.client")

OPEN_WITHIN_S = 10.0
CLOSE_WITHIN_S = 1.0
FRAME_MAX_BYTES = 8 * 1024 * 1024
FRAMES_READ_AHEAD = 16
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_TRY_AGAIN_STATUS = {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.TOO_EARLY,
    HTTPStatus.TOO_MANY_REQUESTS,
}


class Runner:
    """Keeps one user connected. `run` ends only by an error or a cancellation."""

    def __init__(
        self,
        address: str,
        *,
        tokens: Tokens,
        sender: Sender,
        inbox: Inbox,
        tracker: Tracker,
        on_state: Callable[[ConnectionState], None],
        on_welcome: Callable[[Welcome], None],
    ) -> None:
        self._address = address
        self._tokens = tokens
        self._sender = sender
        self._inbox = inbox
        self._tracker = tracker
        self._on_state = on_state
        self._on_welcome = on_welcome
        self._failures = 0
        self._refusals = 0

    async def run(self) -> NoReturn:
        """Connect again and again. Raises `ConnectionStopped` when that makes no sense."""
        while True:
            self._on_state(ConnectionState("connecting"))
            ended = await self._one_connection()
            if ended is not None:
                await self._wait_after(ended)

    async def _wait_after(self, ended: Ended) -> None:
        refused = ended.code in (CloseCode.UNAUTHORIZED, CloseCode.TOKEN_EXPIRED)
        self._failures += 1
        self._refusals = self._refusals + 1 if refused else 0
        decision = after_close(
            ended,
            failures=self._failures,
            refusals=self._refusals,
            can_renew=self._tokens.can_renew,
            chance=random(),
        )
        if isinstance(decision, Stop):
            raise decision.error
        if decision.new_token:
            self._tokens.discard()
        log.info("connection ended (%s %s); again in %.1f s", *_facts(ended), decision.delay_s)
        self._on_state(ConnectionState("waiting", decision.delay_s, describe(ended)))
        await asyncio.sleep(decision.delay_s)

    async def _one_connection(self) -> Ended | None:
        try:
            token = await self._tokens.get()
        except OSError as error:
            return Ended(LOST, f"no new token could be had: {error}")
        opened = await _open(self._uri(), token)
        if isinstance(opened, Ended):
            return opened
        connection = Connection(
            opened,
            sender=self._sender,
            inbox=self._inbox,
            tracker=self._tracker,
            on_welcome=self._welcomed,
        )
        try:
            return await connection.run()
        finally:
            if connection.lived_s() >= HEALTHY_AFTER_S:
                self._failures = 0
            await _hang_up(opened)

    def _uri(self) -> str:
        return with_parameters(self._address, cursor=self._tracker.resume_cursor())

    def _welcomed(self, frame: Welcome) -> None:
        self._refusals = 0
        self._on_welcome(frame)
        self._on_state(ConnectionState("online"))


async def _open(uri: str, token: str) -> ClientConnection | Ended:
    started = time.monotonic()
    try:
        return await connect(
            uri,
            additional_headers={"Authorization": f"Bearer {token}"},
            compression=None,
            open_timeout=OPEN_WITHIN_S,
            close_timeout=CLOSE_WITHIN_S,
            proxy=None if urlsplit(uri).hostname in _LOOPBACK else True,
            ping_interval=None,  # a paused reader would not see the pong; `Connection` asks itself
            max_size=FRAME_MAX_BYTES,
            max_queue=FRAMES_READ_AHEAD,
        )
    except InvalidStatus as error:
        status = error.response.status_code
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _TRY_AGAIN_STATUS:
            return Ended(LOST, f"the server answered with HTTP {status}")
        raise HandshakeRefused(f"no chat server there: HTTP {status}") from error
    except (InvalidURI, ssl.SSLCertVerificationError) as error:
        raise HandshakeRefused(str(error)) from error
    except InvalidMessage as error:
        return Ended(LOST, f"the server did not finish the handshake: {error}")
    except InvalidHandshake as error:
        raise HandshakeRefused(f"no chat server there: {error}") from error
    except TimeoutError:
        return Ended(LOST, f"no answer within {time.monotonic() - started:.0f} s")
    except (OSError, WebSocketException) as error:
        if "Connect call failed" in str(error):
            parts = urlsplit(uri)
            where = parts.hostname if parts.port is None else f"{parts.hostname}:{parts.port}"
            return Ended(LOST, f"nothing answers at {where}")
        return Ended(LOST, f"cannot connect: {error}")


async def _hang_up(socket: ClientConnection) -> None:
    """Close in good order if that is quick, else anyhow."""
    try:
        async with asyncio.timeout(2 * CLOSE_WITHIN_S):
            await socket.close()
    except TimeoutError:
        log.debug("the server did not close in time")
    finally:
        socket.transport.abort()


def _facts(ended: Ended) -> tuple[int, str]:
    return ended.code, ended.reason


_WORDS = {
    CloseCode.SERVICE_RESTART: "the server restarts",
    CloseCode.GOING_AWAY: "the server goes away",
    CloseCode.NORMAL: "the server closed the connection",
    CloseCode.DRAINING: "the server sends its users elsewhere",
    CloseCode.SLOW_CONSUMER: "too much arrived at once",
    CloseCode.NO_PONG: "the server heard nothing from here",
    CloseCode.RATE_LIMITED: "too many messages",
    CloseCode.UNAUTHORIZED: "a new token is needed",
    CloseCode.TOKEN_EXPIRED: "a new token is needed",
}


def describe(ended: Ended) -> str:
    """Say in words for a person why a connection ended."""
    known = {int(code): words for code, words in _WORDS.items()}.get(ended.code)
    return known or ended.reason or "the connection was lost"
