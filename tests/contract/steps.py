"""Steps that contract tests have in common."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from meilisearch import Client
from meilisearch.errors import MeilisearchApiError
from meilisearch.index import Index
from meilisearch.models.task import Task, TaskInfo

TASK_MS = 20_000

Document = dict[str, Any]


def new_uid() -> str:
    return f"test-{uuid.uuid4().hex}"


def outcome(client: Client, task: TaskInfo | dict[str, Any]) -> Task:
    uid = task["taskUid"] if isinstance(task, dict) else task.task_uid
    return client.wait_for_task(uid, timeout_in_ms=TASK_MS, interval_in_ms=5)


def done(client: Client, task: TaskInfo | dict[str, Any]) -> Task:
    """Wait until a task has succeeded."""
    found = outcome(client, task)
    assert found.status == "succeeded", found.error
    return found


def failed(client: Client, task: TaskInfo | dict[str, Any]) -> str:
    """Wait until a task has failed; gives the code of its error."""
    found = outcome(client, task)
    assert found.status == "failed"
    assert found.error is not None
    assert set(found.error) >= {"message", "code", "type", "link"}
    return str(found.error["code"])


def make(client: Client, documents: list[Document], **settings: Any) -> Index:
    """An index of one's own, with these documents and settings."""
    index = client.index(new_uid())
    done(client, client.create_index(index.uid, {"primaryKey": "id"}))
    if settings:
        done(client, index.update_settings(settings))
    if documents:
        done(client, index.add_documents(documents))
    return index


def texts(client: Client, *contents: str, **settings: Any) -> Index:
    """An index of texts, numbered from 0."""
    documents = [{"id": number, "content": content} for number, content in enumerate(contents)]
    return make(client, documents, **settings)


def found(index: Index, query: str = "", **parameters: Any) -> list[Any]:
    """The ids of the hits, in order."""
    return [hit["id"] for hit in index.search(query, parameters)["hits"]]


def formatted(index: Index, query: str, **parameters: Any) -> str:
    """The formatted content of the first hit."""
    text: str = index.search(query, parameters)["hits"][0]["_formatted"]["content"]
    return text


def refused(call: Callable[..., object], *arguments: Any) -> tuple[int, str]:
    """The status and code of the error that a call is answered with."""
    with pytest.raises(MeilisearchApiError) as caught:
        call(*arguments)
    error = caught.value
    assert error.message
    assert error.type
    assert error.link is not None
    assert error.code
    return error.status_code, error.code
