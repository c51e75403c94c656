"""Routes of indexes: what there is, made, renamed, removed, swapped, counted."""

import re
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .errors import ApiError
from .requests import Server, answer, json_body, parameters
from .search_request import whole_in_query
from .settings import kind, wrong
from .views import View

_UID = re.compile(r"[A-Za-z0-9_-]{1,512}")
_IMMUTABLE = {
    "uid": "immutable_index_uid",
    "createdAt": "immutable_index_created_at",
    "updatedAt": "immutable_index_updated_at",
}


def index_uid(value: Any, where: str = "") -> str:
    """A valid name of an index. Raises `ApiError`."""
    if isinstance(value, str) and _UID.fullmatch(value):
        return value
    if not isinstance(value, str):
        raise wrong(where, "a string", value, "invalid_index_uid")
    at = f"Invalid value at `{where}`: " if where else ""
    raise ApiError(
        "invalid_index_uid",
        f"{at}`{value[:600]}` is not a valid index uid. Index uid can be an integer or a string"
        " containing only alphanumeric characters, hyphens (-) and underscores (_), and can not be"
        " more than 512 bytes.",
    )


def path_uid(request: Request) -> str:
    """The index of the path. Raises `ApiError`."""
    return index_uid(request.path_params["uid"])


def paged(items: list[Any], offset: int, limit: int) -> dict[str, Any]:
    """A part of a list, as all lists are answered."""
    part = items[offset : offset + limit]
    return {"results": part, "offset": offset, "limit": limit, "total": len(items)}


def routes(server: Server) -> list[Route]:
    """All routes of this module."""

    async def listed(request: Request) -> Response:
        access = server.access(request, "indexes.get")
        given = parameters(request, ("offset", "limit"))
        offset = whole_in_query("offset", given.get("offset", "0"), "invalid_index_offset")
        limit = whole_in_query("limit", given.get("limit", "20"), "invalid_index_limit")
        views = [v for v in server.engine.views() if access.sees(v.collection.uid)]
        return answer(paged([_shown(view) for view in views], offset, limit))

    async def created(request: Request) -> Response:
        access = server.access(request, "indexes.create")
        body = await json_body(request)
        if not isinstance(body, dict):
            raise ApiError(
                "bad_request", f"Invalid value type: expected an object, but found {kind(body)}"
            )
        _only(body, ("uid", "primaryKey"))
        if "uid" not in body:
            raise ApiError("missing_index_uid", "Missing field `uid`")
        uid = index_uid(body["uid"], ".uid")
        if not access.sees(uid):
            raise ApiError("invalid_api_key", "The provided API key is invalid.")
        key = _primary_key(body)
        return await server.enqueue(
            "indexCreation", uid, work={"primaryKey": key}, details={"primaryKey": key}
        )

    async def got(request: Request) -> Response:
        uid = path_uid(request)
        server.access(request, "indexes.get", uid)
        return answer(_shown(server.engine.view(uid)))

    async def updated(request: Request) -> Response:
        uid = path_uid(request)
        server.access(request, "indexes.update", uid)
        body = await json_body(request)
        if not isinstance(body, dict):
            raise ApiError(
                "bad_request", f"Invalid value type: expected an object, but found {kind(body)}"
            )
        for name in body:
            if name in _IMMUTABLE:
                raise ApiError(
                    _IMMUTABLE[name], f"Immutable field `{name}`: expected one of `primaryKey`"
                )
        _only(body, ("primaryKey",))
        key = _primary_key(body)
        return await server.enqueue(
            "indexUpdate", uid, work={"primaryKey": key}, details={"primaryKey": key}
        )

    async def deleted(request: Request) -> Response:
        uid = path_uid(request)
        server.access(request, "indexes.delete", uid)
        return await server.enqueue(
            "indexDeletion", uid, work={}, details={"deletedDocuments": None}
        )

    async def swapped(request: Request) -> Response:
        access = server.access(request, "indexes.swap")
        swaps = _swaps(await json_body(request))
        for swap in swaps:
            if not all(map(access.sees, swap["indexes"])):
                raise ApiError("invalid_api_key", "The provided API key is invalid.")
        return await server.enqueue(
            "indexSwap", None, work={"swaps": swaps}, details={"swaps": swaps}
        )

    async def counted(request: Request) -> Response:
        uid = path_uid(request)
        server.access(request, "stats.get", uid)
        return answer(_stats(server, server.engine.view(uid)))

    async def all_counted(request: Request) -> Response:
        access = server.access(request, "stats.get")
        views = [v for v in server.engine.views() if access.sees(v.collection.uid)]
        size = await server.run(server.engine.catalog.bytes_on_disk)
        updated = [view.collection.updated_at for view in views]
        return answer(
            {
                "databaseSize": size,
                "usedDatabaseSize": size,
                "lastUpdate": max(updated, default=None),
                "indexes": {view.collection.uid: _stats(server, view) for view in views},
            }
        )

    return [
        Route("/indexes", listed, methods=["GET"]),
        Route("/indexes", created, methods=["POST"]),
        Route("/indexes/{uid}", got, methods=["GET"]),
        Route("/indexes/{uid}", updated, methods=["PATCH"]),
        Route("/indexes/{uid}", deleted, methods=["DELETE"]),
        Route("/indexes/{uid}/stats", counted, methods=["GET"]),
        Route("/swap-indexes", swapped, methods=["POST"]),
        Route("/stats", all_counted, methods=["GET"]),
    ]


def _shown(view: View) -> dict[str, Any]:
    collection = view.collection
    return {
        "uid": collection.uid,
        "createdAt": collection.created_at,
        "updatedAt": collection.updated_at,
        "primaryKey": collection.primary_key,
    }


def _stats(server: Server, view: View) -> dict[str, Any]:
    return {
        "numberOfDocuments": view.collection.size,
        "isIndexing": server.engine.is_indexing(view.collection.uid),
        "fieldDistribution": dict(sorted(view.collection.counts.items())),
    }


def _only(body: dict[str, Any], known: tuple[str, ...]) -> None:
    for name in body:
        if name not in known:
            listed = ", ".join(f"`{each}`" for each in known)
            raise ApiError("bad_request", f"Unknown field `{name}`: expected one of {listed}")


def _primary_key(body: dict[str, Any]) -> str | None:
    key = body.get("primaryKey")
    if key is not None and not isinstance(key, str):
        raise wrong(".primaryKey", "a string", key, "invalid_index_primary_key")
    return key


def _swaps(body: Any) -> list[dict[str, Any]]:
    if not isinstance(body, list):
        raise ApiError(
            "bad_request", f"Invalid value type: expected an array, but found {kind(body)}"
        )
    seen: set[str] = set()
    for at, swap in enumerate(body):
        if not isinstance(swap, dict):
            raise wrong(f"[{at}]", "an object", swap, "bad_request")
        if swap.get("rename") is False:
            del swap["rename"]
        _only(swap, ("indexes",))
        if "indexes" not in swap:
            raise ApiError("missing_swap_indexes", f"Missing field `indexes` inside `[{at}]`")
        names = swap["indexes"]
        if not isinstance(names, list):
            raise wrong(f"[{at}].indexes", "an array", names, "invalid_swap_indexes")
        if len(names) != 2:
            shown = ", ".join(f'"{name}"' for name in names)
            raise ApiError(
                "invalid_swap_indexes",
                f"Two indexes must be given for each swap. The list `[{shown}]` contains"
                f" {len(names)} indexes.",
            )
        for name in names:
            index_uid(name, f"[{at}].indexes")
            if name in seen:
                raise ApiError(
                    "invalid_swap_duplicate_index_found",
                    f"Indexes must be declared only once during a swap. `{name}` was specified"
                    " several times.",
                )
            seen.add(name)
    return body
