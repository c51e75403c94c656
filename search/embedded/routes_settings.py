"""Routes of settings: all of an index, or one."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .requests import Server, answer, json_body
from .routes_indexes import path_uid
from .settings import DEFAULTS, ROUTES, check, check_one

_OBJECTS = tuple(name for name, value in DEFAULTS.items() if isinstance(value, dict))


def routes(server: Server) -> list[Route]:
    """All routes of this module."""

    async def got(request: Request) -> Response:
        uid = path_uid(request)
        server.access(request, "settings.get", uid)
        return answer(server.engine.view(uid).collection.settings)

    async def updated(request: Request) -> Response:
        server.access(request, "settings.update", path_uid(request))
        return await change(request, check(await json_body(request)))

    async def reset(request: Request) -> Response:
        return await change(request, dict.fromkeys(DEFAULTS), create=False)

    async def change(request: Request, changes: dict[str, Any], *, create: bool = True) -> Response:
        uid = path_uid(request)
        access = server.access(request, "settings.update", uid)
        work = {"settings": changes, "create": create and access.allows("indexes.create")}
        return await server.enqueue("settingsUpdate", uid, work=work, details=changes)

    def single(path: str, name: str) -> list[Route]:
        async def got_one(request: Request) -> Response:
            uid = path_uid(request)
            server.access(request, "settings.get", uid)
            return answer(server.engine.view(uid).collection.settings[name])

        async def updated_one(request: Request) -> Response:
            server.access(request, "settings.update", path_uid(request))
            value = check_one(name, await json_body(request), at="")
            return await change(request, {name: value})

        async def reset_one(request: Request) -> Response:
            return await change(request, {name: None}, create=False)

        place = f"/indexes/{{uid}}/settings/{path}"
        method = "PATCH" if name in _OBJECTS and name != "synonyms" else "PUT"
        return [
            Route(place, got_one, methods=["GET"]),
            Route(place, updated_one, methods=[method]),
            Route(place, reset_one, methods=["DELETE"]),
        ]

    return [
        Route("/indexes/{uid}/settings", got, methods=["GET"]),
        Route("/indexes/{uid}/settings", updated, methods=["PATCH"]),
        Route("/indexes/{uid}/settings", reset, methods=["DELETE"]),
        *(route for path, name in ROUTES.items() for route in single(path, name)),
    ]
