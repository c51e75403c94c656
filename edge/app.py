"""The Starlette application of an edge: the WebSocket endpoint and HTTP of `docs/protocol.md`."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import jwt
import msgspec
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute

from broker import subjects
from broker.errors import InvalidName
from broker.metrics import exposition, process_registry, registry

from . import api, devices
from .config import EdgeConfig
from .edge import Edge
from .endpoint import websocket_endpoint
from .files import FileGate
from .frames import ErrorCode
from .metrics import metrics as edge_metrics
from .tokens import TokenVerifier
from .web_client import WebClient

DEVELOPMENT_TOKEN_S = 86_400
MAX_BODY_BYTES = 4096


class _TokenRequest(msgspec.Struct, forbid_unknown_fields=True):
    user_id: str


async def healthz(_: Request) -> Response:
    """The process is alive."""
    return PlainTextResponse("ok\n")


async def readyz(request: Request) -> Response:
    """200 only when NATS and the log answer; else 503 with what is missing."""
    edge: Edge = request.app.state.edge
    missing = edge.missing()
    body = {"ready": not missing, "missing": missing, "connections": edge.hub.sessions}
    return JSONResponse(body, status_code=503 if missing else 200)


async def metrics(request: Request) -> Response:
    """Prometheus text."""
    own = exposition(request.app.state.metrics)
    # Every open file is listed for their number: not in the loop of all connections.
    process = await asyncio.to_thread(exposition, request.app.state.process)
    return Response(own + process, media_type=CONTENT_TYPE_LATEST)


async def development_token(request: Request) -> Response:
    """A token for any user, in development mode only."""
    config: EdgeConfig = request.app.state.edge.config
    if config.tokens.secret is None:
        return api.refusal("not_found", "there is no shared secret to sign tokens with")
    body = await request.body() if _body_fits(request) else b""
    try:
        user_id = msgspec.json.decode(body, type=_TokenRequest).user_id
        subjects.encode(user_id, "user_id")
    except (msgspec.DecodeError, UnicodeDecodeError, InvalidName) as error:
        return api.refusal("invalid", str(error))
    expires_at = int(time.time()) + DEVELOPMENT_TOKEN_S
    claims: dict[str, object] = {"sub": user_id, "exp": expires_at}
    if config.tokens.audience is not None:
        claims["aud"] = config.tokens.audience
    if config.tokens.issuer is not None:
        claims["iss"] = config.tokens.issuer
    token = jwt.encode(claims, config.tokens.secret, algorithm="HS256")
    return JSONResponse({"token": token, "expires_at": expires_at * 1000})


def _body_fits(request: Request) -> bool:
    length = request.headers.get("content-length", "")
    return length.isdigit() and int(length) <= MAX_BODY_BYTES


async def _no_route(request: Request, error: Exception) -> Response:
    """What is under /v1 answers with error frames, whatever is asked."""
    assert isinstance(error, HTTPException)
    if not request.url.path.startswith("/v1/"):
        return PlainTextResponse(f"{error.detail}\n", error.status_code, error.headers)
    code: ErrorCode = "not_found" if error.status_code == 404 else "invalid"
    why = f"{request.method} {request.url.path[:200]}: {error.detail}"
    answer = api.refusal(code, why, error.status_code)
    answer.headers.update(error.headers or {})
    return answer


def create_app(
    config: EdgeConfig, tokens: TokenVerifier, on_failure: Callable[[], None]
) -> Starlette:
    """The application of one edge; its edge lives as long as the lifespan.

    `on_failure` is called when the edge cannot go on and the process should end.
    """

    files = FileGate(config, tokens)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with Edge(config, tokens, on_failure) as edge, files:
            app.state.edge = edge
            app.state.metrics = registry(lambda: edge_metrics(edge, files))
            app.state.process = process_registry()
            app.state.users = api.Users()
            yield

    routes = [
        WebSocketRoute("/ws/chat", websocket_endpoint),
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/metrics", metrics),
        *api.routes,
        *devices.routes,
        *files.routes,
    ]
    if config.mode == "development":
        routes.append(Route("/v1/dev/token", development_token, methods=["POST"]))
    routes += WebClient(development=config.mode == "development").routes
    handlers = {HTTPException: _no_route}
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers)
