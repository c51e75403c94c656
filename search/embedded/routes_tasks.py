"""Routes of tasks: one, or those that match."""

from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .errors import ApiError
from .requests import Access, Server, answer, parameters
from .routes_indexes import index_uid
from .search_request import boolean_in_query, whole_in_query
from .tasks import KINDS, OTHER_KINDS, STATUSES, Task

_LISTS = {
    "uids": "invalid_task_uids",
    "batchUids": "invalid_batch_uids",
    "statuses": "invalid_task_statuses",
    "types": "invalid_task_types",
    "indexUids": "invalid_index_uid",
    "canceledBy": "invalid_task_canceled_by",
}
_DATES = {
    f"{when}{what}": (what[0].lower() + what[1:], when == "after")
    for what in ("EnqueuedAt", "StartedAt", "FinishedAt")
    for when in ("after", "before")
}
_KNOWN = ("limit", "from", "reverse", *_LISTS, *_DATES)


def routes(server: Server) -> list[Route]:
    """All routes of this module."""

    async def got(request: Request) -> Response:
        access = server.access(request, "tasks.get")
        given = request.path_params["uid"]
        uid = whole_in_query("taskUid", given, "invalid_task_uids")
        task = await server.run(server.engine.task, uid)
        if not access.sees(task.index_uid):
            raise ApiError("task_not_found", f"Task `{uid}` not found.")
        return answer(task.view())

    async def listed(request: Request) -> Response:
        access = server.access(request, "tasks.get")
        asked = _Asked(parameters(request, _KNOWN))
        return answer(await server.run(asked.answered, server, access))

    async def refused(request: Request) -> Response:
        server.access(request, "tasks.get")
        raise ApiError("feature_not_enabled", "This server does not cancel or delete tasks.")

    return [
        Route("/tasks", listed, methods=["GET"]),
        Route("/tasks", refused, methods=["DELETE"]),
        Route("/tasks/cancel", refused, methods=["POST"]),
        Route("/tasks/{uid}", got, methods=["GET"]),
    ]


class _Asked:
    """Which tasks are asked for."""

    def __init__(self, given: dict[str, str]):
        """Raises `ApiError`."""
        self._limit = whole_in_query("limit", given.get("limit", "20"), "invalid_task_limit")
        self._from = (
            whole_in_query("from", given["from"], "invalid_task_from") if "from" in given else None
        )
        self._reverse = boolean_in_query(
            "reverse", given.get("reverse", "false"), "invalid_task_reverse"
        )
        self._lists = {
            name: _listed(name, given[name])
            for name in _LISTS
            if name in given and given[name] != "*"
        }
        self._dates = {
            name: _date(name, given[name])
            for name in _DATES
            if name in given and given[name] != "*"
        }

    def answered(self, server: Server, access: Access) -> dict[str, Any]:
        """The answer: one page, how many there are, and where the next page begins."""
        waiting = [
            t for t in server.engine.queue.all() if self._matches(t) and access.sees(t.index_uid)
        ]
        waiting_from = [t for t in waiting if self._reaches(t.uid)]
        where, values = self._condition(access)
        first_waiting = waiting[0].uid if waiting else None
        need = self._limit + 1
        done, total = server.engine.catalog.tasks(
            where, values, start=self._from, descending=not self._reverse, limit=need
        )
        if first_waiting is not None:
            done = [task for task in done if task.uid < first_waiting]
        if self._reverse:
            found = (done + waiting_from)[:need]
        else:
            found = (waiting_from[::-1] + done)[:need]
        shown = found[: self._limit]
        return {
            "results": [task.view() for task in shown],
            "total": total + len(waiting),
            "limit": self._limit,
            "from": shown[0].uid if shown else None,
            "next": found[self._limit].uid if len(found) > self._limit else None,
        }

    def _reaches(self, uid: int) -> bool:
        if self._from is None:
            return True
        return uid >= self._from if self._reverse else uid <= self._from

    def _matches(self, task: Task) -> bool:
        values = {
            "uids": str(task.uid),
            "batchUids": str(task.batch_uid),
            "statuses": task.status,
            "types": task.kind,
            "indexUids": task.index_uid,
            "canceledBy": None,
        }
        if any(values[name] not in wanted for name, wanted in self._lists.items()):
            return False
        times = {"enqueuedAt": task.enqueued_at, "startedAt": task.started_at, "finishedAt": None}
        for name, bound in self._dates.items():
            what, after = _DATES[name]
            time = times[what]
            if time is None or (time <= bound if after else time >= bound):
                return False
        return True

    def _condition(self, access: Access) -> tuple[str, list[Any]]:
        """For those that are done, in SQL."""
        parts, values = ["1"], list[Any]()
        columns = {
            "uids": "uid",
            "batchUids": "batch_uid",
            "statuses": "status",
            "types": "kind",
            "indexUids": "index_uid",
        }
        for name, wanted in self._lists.items():
            if name == "canceledBy":
                parts.append("0")
                continue
            parts.append(f"{columns[name]} IN ({','.join('?' * len(wanted))})")
            values += (
                [int(item) for item in wanted]
                if name.endswith("ids") and name != "indexUids"
                else wanted
            )
        for name, bound in self._dates.items():
            what, after = _DATES[name]
            column = "".join(f"_{char.lower()}" if char.isupper() else char for char in what)
            parts.append(f"{column} {'>' if after else '<'} ?")
            values.append(bound)
        if access.key is not None and "*" not in access.key.indexes:
            patterns = access.key.indexes
            parts.append("(" + " OR ".join(["index_uid GLOB ?"] * len(patterns) or ["0"]) + ")")
            values += patterns
        return " AND ".join(parts), values


def _listed(name: str, text: str) -> list[str]:
    code = _LISTS[name]
    found = text.split(",")
    for item in found:
        if name in ("uids", "batchUids", "canceledBy"):
            whole_in_query(name, item, code)
        elif name == "indexUids":
            index_uid(item)
        elif name == "statuses":
            _one_of(name, item, STATUSES, code)
        elif name == "types":
            _one_of(name, item, (*KINDS, *OTHER_KINDS), code)
    return found


def _one_of(name: str, item: str, known: tuple[str, ...], code: str) -> None:
    if item not in known:
        shown = ", ".join(f"`{each}`" for each in known)
        raise ApiError(
            code,
            f"Invalid value in parameter `{name}`: `{item[:100]}` is not a valid value. Available"
            f" values are {shown}.",
        )


def _date(name: str, text: str) -> str:
    code = "invalid_task_" + "".join(f"_{c.lower()}" if c.isupper() else c for c in name)
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise ApiError(
            code,
            f"Invalid value in parameter `{name}`: `{text[:100]}` is an invalid date-time. It"
            " should follow the YYYY-MM-DD or RFC 3339 date-time format.",
        ) from None
    if len(text) == 10 and name.startswith("after"):
        when += timedelta(days=1)
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return when.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
