"""Routes of searches."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .errors import ApiError
from .requests import Server, answer, json_body
from .routes_indexes import index_uid, path_uid
from .search_request import SearchRequest, from_body, from_query
from .searching import search
from .settings import wrong

MAX_QUERIES = 100


def routes(server: Server) -> list[Route]:
    """All routes of this module."""

    def find(uid: str, asked: SearchRequest) -> dict[str, Any]:
        return search(server.engine.view(uid), server.engine.catalog, asked)

    async def posted(request: Request) -> Response:
        uid = path_uid(request)
        server.access(request, "search", uid)
        asked = from_body(await json_body(request))
        return answer(await server.search(find, uid, asked))

    async def got(request: Request) -> Response:
        uid = path_uid(request)
        server.access(request, "search", uid)
        asked = from_query(request.query_params)
        return answer(await server.search(find, uid, asked))

    async def several(request: Request) -> Response:
        access = server.access(request, "search")
        queries = _queries(await json_body(request))
        results = []
        for uid, asked in queries:
            if not access.sees(uid):
                raise ApiError("invalid_api_key", "The provided API key is invalid.")
            results.append({"indexUid": uid, **await server.search(find, uid, asked)})
        return answer({"results": results})

    return [
        Route("/indexes/{uid}/search", posted, methods=["POST"]),
        Route("/indexes/{uid}/search", got, methods=["GET"]),
        Route("/multi-search", several, methods=["POST"]),
    ]


def _queries(body: Any) -> list[tuple[str, SearchRequest]]:
    if not isinstance(body, dict):
        raise wrong("", "an object", body, "bad_request")
    for name, value in body.items():
        if name == "federation" and value is not None:
            raise ApiError(
                "invalid_multi_search_federation_options", "This server has no federated search."
            )
        if name not in ("queries", "federation"):
            raise ApiError(
                "bad_request", f"Unknown field `{name}`: expected one of `federation`, `queries`"
            )
    queries = body.get("queries")
    if not isinstance(queries, list):
        raise wrong(".queries", "an array", queries, "bad_request")
    if len(queries) > MAX_QUERIES:
        raise ApiError("bad_request", f".queries: this server takes {MAX_QUERIES} at most.")
    found = []
    for at, query in enumerate(queries):
        if not isinstance(query, dict):
            raise wrong(f".queries[{at}]", "an object", query, "bad_request")
        given = dict(query)
        if "indexUid" not in given:
            raise ApiError("missing_index_uid", f"Missing field `indexUid` inside `.queries[{at}]`")
        uid = index_uid(given.pop("indexUid"), f".queries[{at}].indexUid")
        try:
            found.append((uid, from_body(given)))
        except ApiError as error:
            raise ApiError(error.code, f"Inside `.queries[{at}]`: {error.message}") from None
    return found
