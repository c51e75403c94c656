"""The HTTP application: all routes, and every error in Meilisearch's form."""

import logging
from importlib.metadata import version

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from . import (
    routes_documents,
    routes_indexes,
    routes_keys,
    routes_search,
    routes_settings,
    routes_tasks,
)
from .errors import ApiError
from .requests import Server, answer

_log = logging.getLogger("hikyaku.search")


def create_app(server: Server) -> Starlette:
    """The application of a server."""

    async def health(_: Request) -> Response:
        if server.engine.failure is not None:
            raise ApiError("internal", f"Indexing has ended: {server.engine.failure}")
        return answer({"status": "available"})

    async def versions(request: Request) -> Response:
        server.access(request, "version")
        known = {"commitSha": "unknown", "commitDate": "unknown"}
        return answer({**known, "pkgVersion": f"{version('hikyaku')}+embedded"})

    modules = (
        routes_indexes,
        routes_documents,
        routes_settings,
        routes_search,
        routes_tasks,
        routes_keys,
    )
    return Starlette(
        routes=[
            Route("/health", health, methods=["GET"]),
            Route("/version", versions, methods=["GET"]),
            *(route for module in modules for route in module.routes(server)),
        ],
        exception_handlers={
            ApiError: _refused,
            HTTPException: _unknown,
            Exception: _broken,
        },
    )


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    response = answer(error.body(), error.status)
    if error.status == 503:
        response.headers["Retry-After"] = "10"
    return response


async def _unknown(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path[:200]
    if error.status_code == 405:
        refusal = ApiError("method_not_allowed", f"`{path}` does not take {request.method}.")
    else:
        refusal = ApiError("not_found", f"This server does not know `{path}`.")
    return answer(refusal.body(), error.status_code)


async def _broken(_: Request, error: Exception) -> Response:
    _log.error("a request failed", exc_info=error)
    refusal = ApiError("internal", "The request failed; the log of the server says why.")
    return answer(refusal.body(), 500)
