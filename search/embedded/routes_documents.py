"""Routes of documents: added, changed, removed, read."""

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .errors import ApiError
from .filter_parser import parse
from .filters import Filters
from .formatting import picked
from .payloads import count
from .requests import Server, answer, content_type, json_body, parameters
from .routes_indexes import path_uid
from .search_request import whole_in_query
from .settings import kind, wrong
from .tasks import Task
from .views import View, decode_document, numbers_of

JSON, LINES = "application/json", "application/x-ndjson"


def routes(server: Server) -> list[Route]:
    """All routes of this module."""

    async def added(request: Request) -> Response:
        uid = path_uid(request)
        access = server.access(request, "documents.add", uid)
        given = parameters(request, ("primaryKey",))
        lines = content_type(request, (JSON, LINES)) == LINES
        payload = server.engine.queue.payloads / f"{secrets.token_hex(16)}"
        kept = False
        try:
            if not await server.save(request, payload):
                name = "ndjson" if lines else "json"
                raise ApiError("missing_payload", f"A {name} payload is missing.")
            received = await server.run(_counted, payload, lines)
            work: dict[str, object] = {
                "primaryKey": given.get("primaryKey"),
                "partial": request.method == "PUT",
                "lines": lines,
                "create": access.allows("indexes.create"),
            }

            def keep() -> Task:
                """Together, since the request may be cancelled in between."""
                nonlocal kept
                task = server.engine.queue.add(
                    "documentAdditionOrUpdate",
                    uid,
                    work=work,
                    details={"receivedDocuments": received, "indexedDocuments": None},
                    payload=payload.name,
                )
                kept = True
                return task

            return answer((await server.run(keep)).summary(), 202)
        finally:
            if not kept:
                payload.unlink(missing_ok=True)

    async def removed(request: Request) -> Response:
        return await remove(request, {"ids": [request.path_params["id"]]}, 1)

    async def all_removed(request: Request) -> Response:
        uid = path_uid(request)
        server.access(request, "documents.delete", uid)
        return await server.enqueue(
            "documentDeletion",
            uid,
            work={"all": True},
            details={"deletedDocuments": None},
        )

    async def some_removed(request: Request) -> Response:
        server.access(request, "documents.delete", path_uid(request))
        body = await json_body(request)
        if not isinstance(body, list):
            raise ApiError(
                "bad_request", f"Invalid value type: expected an array, but found {kind(body)}"
            )
        ids = [item if isinstance(item, str) else str(item) for item in body]
        return await remove(request, {"ids": ids}, len(ids))

    async def matching_removed(request: Request) -> Response:
        server.access(request, "documents.delete", path_uid(request))
        body = await json_body(request)
        if not isinstance(body, dict):
            raise ApiError(
                "bad_request", f"Invalid value type: expected an object, but found {kind(body)}"
            )
        for name in body:
            if name != "filter":
                raise ApiError("bad_request", f"Unknown field `{name}`: expected one of `filter`")
        if body.get("filter") is None:
            raise ApiError("missing_document_filter", "Missing field `filter`")
        if parse(body["filter"], code="invalid_document_filter") is None:
            raise ApiError("invalid_document_filter", "Sending an empty filter is forbidden.")
        return await remove(request, {"filter": body["filter"]}, 0)

    async def remove(request: Request, work: dict[str, Any], provided: int) -> Response:
        uid = path_uid(request)
        server.access(request, "documents.delete", uid)
        given = work.get("filter")
        details = {
            "providedIds": provided,
            "deletedDocuments": None,
            "originalFilter": None if given is None else _text(given),
        }
        return await server.enqueue("documentDeletion", uid, work=work, details=details)

    async def got(request: Request) -> Response:
        uid = path_uid(request)
        server.access(request, "documents.get", uid)
        given = _checked(parameters(request, ("fields", "retrieveVectors")))
        view, wanted = server.engine.view(uid), request.path_params["id"]
        found = await server.run(server.engine.catalog.one, view.collection.iid, wanted)
        if found is None:
            raise ApiError("document_not_found", f"Document `{wanted[:600]}` not found.")
        return answer(_shown(view, found, _fields(given)))

    async def listed(request: Request) -> Response:
        known = ("offset", "limit", "fields", "retrieveVectors", "ids", "filter")
        given: dict[str, Any] = dict(_checked(parameters(request, known)))
        for name in ("offset", "limit"):
            if name in given:
                given[name] = whole_in_query(name, given[name], f"invalid_document_{name}")
        if "ids" in given:
            given["ids"] = given["ids"].split(",")
        return await fetch(request, given)

    async def fetched(request: Request) -> Response:
        server.access(request, "documents.get", path_uid(request))
        body = await json_body(request)
        if not isinstance(body, dict):
            raise ApiError(
                "bad_request", f"Invalid value type: expected an object, but found {kind(body)}"
            )
        return await fetch(request, _fetch(body))

    async def fetch(request: Request, given: Mapping[str, Any]) -> Response:
        uid = path_uid(request)
        server.access(request, "documents.get", uid)
        view = server.engine.view(uid)
        return answer(await server.run(_page, server, view, given))

    return [
        Route("/indexes/{uid}/documents", added, methods=["POST", "PUT"]),
        Route("/indexes/{uid}/documents", listed, methods=["GET"]),
        Route("/indexes/{uid}/documents", all_removed, methods=["DELETE"]),
        Route("/indexes/{uid}/documents/fetch", fetched, methods=["POST"]),
        Route("/indexes/{uid}/documents/delete-batch", some_removed, methods=["POST"]),
        Route("/indexes/{uid}/documents/delete", matching_removed, methods=["POST"]),
        Route("/indexes/{uid}/documents/{id}", got, methods=["GET"]),
        Route("/indexes/{uid}/documents/{id}", removed, methods=["DELETE"]),
    ]


def _counted(payload: Path, lines: bool) -> int:
    return count(payload, lines=lines)


def _text(given: Any) -> str:
    return msgspec.json.encode(given).decode()


def _checked(given: dict[str, str]) -> dict[str, str]:
    if given.pop("retrieveVectors", "false") != "false":
        raise ApiError("invalid_document_retrieve_vectors", "This server has no vectors.")
    return given


def _fields(given: Mapping[str, Any]) -> tuple[str, ...]:
    fields = given.get("fields")
    if fields is None:
        return ("*",)
    return tuple(fields.split(",")) if isinstance(fields, str) else tuple(fields)


def _shown(view: View, body: bytes, fields: tuple[str, ...]) -> dict[str, Any]:
    displayed = view.collection.settings["displayedAttributes"]
    return picked(picked(decode_document(body), displayed), fields)


def _fetch(body: dict[str, Any]) -> dict[str, Any]:
    known = ("offset", "limit", "fields", "retrieveVectors", "ids", "filter")
    given = {name: value for name, value in body.items() if value is not None}
    for name, value in given.items():
        if name not in known:
            listed = ", ".join(f"`{each}`" for each in known)
            raise ApiError("bad_request", f"Unknown field `{name}`: expected one of {listed}")
        code = f"invalid_document_{name}"
        if name in ("offset", "limit"):
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise wrong(f".{name}", "a positive integer", value, code)
        elif name in ("fields", "ids"):
            if not isinstance(value, list):
                raise wrong(f".{name}", "an array", value, code)
            for at, item in enumerate(value):
                whole = isinstance(item, int) and not isinstance(item, bool)
                if not (isinstance(item, str) or (whole and name == "ids")):
                    raise wrong(f".{name}[{at}]", "a string", item, code)
    if given.pop("retrieveVectors", False) is not False:
        raise ApiError("invalid_document_retrieve_vectors", "This server has no vectors.")
    if "ids" in given:
        given["ids"] = [str(item) for item in given["ids"]]
    return given


def _page(server: Server, view: View, given: Mapping[str, Any]) -> dict[str, Any]:
    catalog, iid = server.engine.catalog, view.collection.iid
    offset, limit = min(given.get("offset", 0), 2**53), min(given.get("limit", 20), 2**53)
    code = "invalid_document_filter"
    condition = parse(given["filter"], code=code) if "filter" in given else None
    if condition is not None:
        query = Filters(view.index, code).query(condition)
        numbers = numbers_of(view.index.searcher(), query)
        if "ids" in given:
            wanted = set(given["ids"])
            numbers = [n for n in numbers if catalog.id_of(iid, n) in wanted]
        found = catalog.bodies(iid, numbers[offset : offset + limit])
        bodies, total = [found[number] for number in sorted(found)], len(numbers)
    elif "ids" in given:
        every = catalog.some(iid, list(dict.fromkeys(given["ids"])))
        bodies, total = every[offset : offset + limit], len(every)
    else:
        bodies, total = catalog.page(iid, offset, limit), view.collection.size
    fields = _fields(given)
    return {
        "results": [_shown(view, body, fields) for body in bodies],
        "offset": offset,
        "limit": limit,
        "total": total,
    }
