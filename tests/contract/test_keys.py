"""Keys: what each may do, on which indexes, until when."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from meilisearch import Client
from meilisearch.errors import MeilisearchApiError

from .steps import done, make, new_uid, refused

FORBIDDEN = (403, "invalid_api_key")


def with_key(client: Client, key: str | None) -> Client:
    return Client(client.config.url, key)


def limited(client: Client, actions: list[str], indexes: list[str], **more: Any) -> Client:
    options = {"actions": actions, "indexes": indexes, "expiresAt": None, **more}
    return with_key(client, client.http.post("keys", options)["key"])


def test_without_a_key(client: Client) -> None:
    bare = Client(client.config.url)
    del bare.http.headers["Authorization"]
    missing = (401, "missing_authorization_header")
    for path in ("indexes", "tasks", "stats", "version", "keys", f"indexes/{new_uid()}"):
        assert refused(bare.http.get, path) == missing
    assert refused(bare.http.post, "indexes", {"uid": new_uid()}) == missing
    assert bare.http.get("health") == {"status": "available"}


@pytest.mark.parametrize("key", ["wrong", "", "ü", "x" * 5000])
def test_a_wrong_key(client: Client, key: str) -> None:
    wrong = with_key(client, None)
    wrong.http.headers["Authorization"] = f"Bearer {key}".encode()  # type: ignore[assignment]
    assert refused(wrong.http.get, "indexes") == FORBIDDEN
    assert refused(wrong.http.get, "keys") == FORBIDDEN


def test_the_default_keys(client: Client) -> None:
    keys = {key.name: key for key in client.get_keys({"limit": 1000}).results}
    search, admin = keys["Default Search API Key"], keys["Default Admin API Key"]
    assert (search.actions, search.indexes, search.expires_at) == (["search"], ["*"], None)
    assert (admin.actions, admin.indexes) == (["*"], ["*"])
    index = make(client, [{"id": 1}])
    searcher = with_key(client, search.key)
    assert searcher.index(index.uid).search("")["hits"] == [{"id": 1}]
    assert refused(searcher.index(index.uid).get_documents) == FORBIDDEN
    assert refused(searcher.index(index.uid).add_documents, [{"id": 2}]) == FORBIDDEN
    assert refused(searcher.get_keys) == FORBIDDEN
    done(client, with_key(client, admin.key).index(index.uid).add_documents([{"id": 2}]))


def test_a_key_is_made_read_changed_removed(client: Client) -> None:
    uid = str(uuid.uuid4())
    later = (datetime.now(UTC) + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    body = {
        "uid": uid,
        "name": "a name",
        "description": "what for",
        "actions": ["search", "documents.*"],
        "indexes": ["messages*"],
        "expiresAt": later,
    }
    made = client.http.post("keys", body)
    assert {name: made[name] for name in body} == body
    assert len(made["key"]) == 64
    assert client.http.get(f"keys/{uid}") == client.http.get(f"keys/{made['key']}") == made
    assert refused(client.http.post, "keys", body) == (409, "api_key_already_exists")
    changed = client.http.patch(f"keys/{uid}", {"name": None, "description": "other"})
    assert (changed["name"], changed["description"]) == (None, "other")
    assert (changed["key"], changed["actions"]) == (made["key"], made["actions"])
    assert changed["updatedAt"] >= made["updatedAt"]
    assert client.delete_key(uid) == 204
    assert refused(client.get_key, uid) == (404, "api_key_not_found")
    assert refused(client.delete_key, uid) == (404, "api_key_not_found")
    assert refused(with_key(client, made["key"]).index("messages").search, "") == FORBIDDEN


def test_keys_are_for_some_indexes(client: Client) -> None:
    index, other = make(client, [{"id": 1}]), make(client, [{"id": 2}])
    key = limited(client, ["search", "indexes.get", "stats.get", "tasks.get"], [index.uid])
    assert key.index(index.uid).search("")["hits"] == [{"id": 1}]
    assert refused(key.index(other.uid).search, "") == FORBIDDEN
    assert refused(key.index(new_uid()).search, "") == FORBIDDEN
    assert [each["uid"] for each in key.http.get("indexes")["results"]] == [index.uid]
    assert set(key.http.get("stats")["indexes"]) == {index.uid}
    assert {task["indexUid"] for task in key.http.get("tasks")["results"]} == {index.uid}
    foreign = client.http.get(f"tasks?indexUids={other.uid}&limit=1")["results"][0]["uid"]
    assert refused(key.get_task, foreign) == (404, "task_not_found")
    begins = limited(client, ["search"], [f"{index.uid[:20]}*"])
    assert begins.index(index.uid).search("")["hits"] == [{"id": 1}]


@pytest.mark.parametrize("action", ["documents.add", "documents.*", "*"])
def test_actions_allow(client: Client, action: str) -> None:
    index = make(client, [])
    key = limited(client, [action], ["*"])
    done(client, key.index(index.uid).add_documents([{"id": 1}]))


def test_other_actions_do_not_allow(client: Client) -> None:
    index = make(client, [{"id": 1}])
    key = limited(client, ["documents.get", "settings.get"], ["*"])
    mine = key.index(index.uid)
    assert key.http.get(f"indexes/{index.uid}/documents/1") == {"id": 1}
    assert mine.get_settings()["stopWords"] == []
    for call, *arguments in (
        (mine.search, ""),
        (mine.add_documents, [{"id": 2}]),
        (mine.delete_document, "1"),
        (mine.delete_all_documents,),
        (mine.update_settings, {"stopWords": []}),
        (mine.reset_settings,),
        (mine.delete,),
        (mine.update, "id"),
        (mine.fetch_info,),
        (mine.get_stats,),
        (key.create_index, new_uid()),
        (key.get_indexes,),
        (key.get_tasks,),
        (key.get_version,),
        (key.get_keys,),
        (key.http.post, "swap-indexes", []),
        (key.http.post, "keys", {"actions": ["*"], "indexes": ["*"], "expiresAt": None}),
    ):
        assert refused(call, *arguments) == FORBIDDEN


def test_without_leave_to_make_indexes_none_is_made(client: Client) -> None:
    key = limited(client, ["documents.add", "settings.update"], ["*"])
    uid = new_uid()
    task = key.index(uid).add_documents([{"id": 1}])
    found = client.wait_for_task(task.task_uid, timeout_in_ms=20_000, interval_in_ms=5)
    assert (found.error or {})["code"] == "index_not_found"
    assert refused(client.get_index, uid) == (404, "index_not_found")


def test_a_key_whose_time_is_over(client: Client) -> None:
    index = make(client, [])
    end = datetime.now(UTC) + timedelta(seconds=2)
    key = limited(client, ["search"], ["*"], expiresAt=end.strftime("%Y-%m-%dT%H:%M:%SZ"))
    answers = []
    while datetime.now(UTC) < end + timedelta(seconds=10) and FORBIDDEN not in answers:
        try:
            key.index(index.uid).search("")
        except MeilisearchApiError as error:
            answers.append((error.status_code, error.code))
    assert answers == [FORBIDDEN]
    assert datetime.now(UTC) > end - timedelta(seconds=1)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"actions": "search"}, "invalid_api_key_actions"),
        ({"actions": ["fly"]}, "invalid_api_key_actions"),
        ({"indexes": "a"}, "invalid_api_key_indexes"),
        ({"indexes": ["a b"]}, "invalid_api_key_indexes"),
        ({"expiresAt": "soon"}, "invalid_api_key_expires_at"),
        ({"expiresAt": "2001-01-01T00:00:00Z"}, "invalid_api_key_expires_at"),
        ({"expiresAt": 5}, "invalid_api_key_expires_at"),
        ({"name": [1]}, "invalid_api_key_name"),
        ({"description": 5}, "invalid_api_key_description"),
        ({"uid": "x"}, "invalid_api_key_uid"),
        ({"uid": 5}, "invalid_api_key_uid"),
        ({"unknown": 5}, "bad_request"),
    ],
)
def test_keys_that_cannot_be(client: Client, change: dict[str, Any], code: str) -> None:
    good = {"actions": ["search"], "indexes": ["*"], "expiresAt": None}
    assert refused(client.http.post, "keys", good | change) == (400, code)


def test_what_a_key_needs_and_what_of_it_stays(client: Client) -> None:
    good: dict[str, Any] = {"actions": ["search"], "indexes": ["*"], "expiresAt": None}
    for name, code in {
        "actions": "missing_api_key_actions",
        "indexes": "missing_api_key_indexes",
        "expiresAt": "missing_api_key_expires_at",
    }.items():
        body = {each: value for each, value in good.items() if each != name}
        assert refused(client.http.post, "keys", body) == (400, code)
    key = client.http.post("keys", good)
    for name, code in {
        "actions": "immutable_api_key_actions",
        "indexes": "immutable_api_key_indexes",
        "expiresAt": "immutable_api_key_expires_at",
        "uid": "immutable_api_key_uid",
        "createdAt": "immutable_api_key_created_at",
        "updatedAt": "immutable_api_key_updated_at",
    }.items():
        assert refused(client.http.patch, f"keys/{key['uid']}", {name: "x"}) == (400, code)
