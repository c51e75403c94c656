"""Routes of keys."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .keys import Keys
from .requests import Server, answer, json_body, parameters
from .routes_indexes import paged
from .search_request import whole_in_query


def routes(server: Server) -> list[Route]:
    """All routes of this module."""

    def keys() -> Keys:
        assert server.keys is not None  # no action on keys is allowed without
        return server.keys

    async def listed(request: Request) -> Response:
        server.access(request, "keys.get")
        given = parameters(request, ("offset", "limit"))
        offset = whole_in_query("offset", given.get("offset", "0"), "invalid_api_key_offset")
        limit = whole_in_query("limit", given.get("limit", "20"), "invalid_api_key_limit")
        return answer(paged([keys().view(key) for key in keys().all()], offset, limit))

    async def created(request: Request) -> Response:
        server.access(request, "keys.create")
        key = keys().create(await json_body(request))
        return answer(keys().view(key), 201)

    async def got(request: Request) -> Response:
        server.access(request, "keys.get")
        return answer(keys().view(keys().get(request.path_params["key"])))

    async def updated(request: Request) -> Response:
        server.access(request, "keys.update")
        key = keys().update(request.path_params["key"], await json_body(request))
        return answer(keys().view(key))

    async def deleted(request: Request) -> Response:
        server.access(request, "keys.delete")
        keys().delete(request.path_params["key"])
        return Response(status_code=204)

    return [
        Route("/keys", listed, methods=["GET"]),
        Route("/keys", created, methods=["POST"]),
        Route("/keys/{key}", got, methods=["GET"]),
        Route("/keys/{key}", updated, methods=["PATCH"]),
        Route("/keys/{key}", deleted, methods=["DELETE"]),
    ]
