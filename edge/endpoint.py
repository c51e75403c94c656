"""The WebSocket endpoint: the handshake in Starlette, then the socket goes to a session.

Every refusal is accepted first and then closed with the protocol's code, because a browser shows
no other reason.
"""

from functools import partial
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection
from starlette.websockets import WebSocket

from . import frames
from .close_codes import CloseCode
from .config import EdgeConfig
from .edge import Edge
from .opening import open_session
from .session import Session
from .socket import EXTENSION, ChatSocket

SUBPROTOCOL = "hikyaku.v1"
_BEARER = "bearer."


async def websocket_endpoint(websocket: WebSocket) -> None:
    """Accept, take over, and leave: the session lives in its socket from here on."""
    edge: Edge = websocket.app.state.edge
    offered = websocket.scope["subprotocols"]
    await websocket.accept(subprotocol=SUBPROTOCOL if SUBPROTOCOL in offered else None)
    socket: ChatSocket = websocket.scope["extensions"][EXTENSION]
    session = Session(edge, socket)
    socket.take_over(session, outbox_bytes=edge.config.outbox_bytes)
    if not origin_allowed(websocket, edge.config):
        session.close(CloseCode.FORBIDDEN, "origin not allowed")
        return
    query = websocket.query_params
    if "token" in query and not edge.config.url_token:
        session.close(CloseCode.UNAUTHORIZED, "this server takes no token in the URL")
        return
    token = bearer(websocket) or _offered_token(offered) or query.get("token")
    opening = partial(open_session, edge, session, socket, user_id=query.get("user_id") or None)
    if token:
        edge.spawn(opening(token=token, device=query.get("device"), cursor=query.get("cursor")))
        return

    def greeted(connect: frames.Connect) -> None:
        device = connect.device or query.get("device")
        cursor = connect.cursor if connect.cursor is not None else query.get("cursor")
        socket.pause()
        edge.spawn(opening(token=connect.token, device=device, cursor=cursor))

    session.await_greeting(greeted)
    socket.resume()


def bearer(connection: HTTPConnection) -> str | None:
    """The token of an `Authorization: Bearer` header."""
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


def _offered_token(subprotocols: list[str]) -> str | None:
    for each in subprotocols:
        if each.startswith(_BEARER):
            return each.removeprefix(_BEARER)
    return None


def origin_allowed(connection: HTTPConnection, config: EdgeConfig) -> bool:
    """Whether a browser's page may use this server: same host, or in the allow-list.

    A request without `Origin` is no browser's, so no page can have caused it (RFC 6454).
    """
    origin = connection.headers.get("origin")
    if origin is None or origin in config.origins or "*" in config.origins:
        return True
    try:
        page = urlsplit(origin).netloc.lower()
    except ValueError:
        return False
    return page == connection.headers.get("host", "").lower() != ""
