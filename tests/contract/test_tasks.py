"""Tasks: listed, chosen, shown."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from meilisearch import Client

from .steps import done, make, new_uid, outcome, refused


def listed(client: Client, query: str) -> Any:
    return client.http.get(f"tasks?{query}")


def uids(client: Client, query: str) -> list[int]:
    return [task["uid"] for task in listed(client, query)["results"]]


def test_what_a_task_says(client: Client) -> None:
    index = make(client, [])
    answer = client.http.post(f"indexes/{index.uid}/documents", [{"id": 1}])
    assert set(answer) >= {"taskUid", "indexUid", "status", "type", "enqueuedAt"}
    assert (answer["indexUid"], answer["status"]) == (index.uid, "enqueued")
    assert answer["type"] == "documentAdditionOrUpdate"
    done(client, answer)
    task = client.http.get(f"tasks/{answer['taskUid']}")
    assert (task["uid"], task["indexUid"]) == (answer["taskUid"], index.uid)
    assert (task["status"], task["error"], task["canceledBy"]) == ("succeeded", None, None)
    assert re.fullmatch(r"PT[0-9.]+S", task["duration"])
    assert answer["enqueuedAt"] == task["enqueuedAt"] <= task["startedAt"] <= task["finishedAt"]


def test_a_task_that_is_not_there(client: Client) -> None:
    assert refused(client.get_task, 2**31) == (404, "task_not_found")
    assert refused(client.http.get, "tasks/x") == (400, "invalid_task_uids")


def test_tasks_are_listed_the_newest_first(client: Client) -> None:
    index = make(client, [])
    tasks = [done(client, index.add_documents([{"id": n}])).uid for n in range(5)]
    of_index = f"indexUids={index.uid}"
    newest = uids(client, of_index)
    assert newest[:5] == tasks[::-1]
    assert len(newest) == 6  # and the one that made the index
    page = listed(client, f"{of_index}&limit=2")
    assert [task["uid"] for task in page["results"]] == tasks[:2:-1]
    assert (page["total"], page["limit"], page["from"]) == (6, 2, tasks[4])
    page = listed(client, f"{of_index}&limit=2&from={page['next']}")
    assert [task["uid"] for task in page["results"]] == tasks[2:0:-1]
    last = listed(client, f"{of_index}&limit=10&from={page['next']}")
    assert last["next"] is None
    assert uids(client, f"{of_index}&reverse=true") == newest[::-1]
    assert uids(client, f"{of_index}&reverse=true&from={tasks[3]}") == tasks[3:]


def test_tasks_are_chosen(client: Client) -> None:
    index, other = make(client, []), make(client, [])
    good = done(client, index.add_documents([{"id": 1}]))
    bad = outcome(client, index.add_documents([{"no": 1}]))
    gone = done(client, index.delete_document("1"))
    of_index = f"indexUids={index.uid}"
    assert uids(client, f"{of_index}&statuses=failed") == [bad.uid]
    assert uids(client, f"{of_index}&types=documentDeletion") == [gone.uid]
    kinds = "documentAdditionOrUpdate,documentDeletion"
    assert uids(client, f"{of_index}&types={kinds}") == [gone.uid, bad.uid, good.uid]
    assert uids(client, f"uids={good.uid},{bad.uid}&statuses=succeeded,enqueued") == [good.uid]
    assert uids(client, f"{of_index}&statuses=enqueued,processing,canceled") == []
    assert uids(client, f"{of_index}&canceledBy=1") == []
    both = uids(client, f"indexUids={index.uid},{other.uid}&types=*")
    assert len(both) == 5
    assert listed(client, f"{of_index}&limit=0")["results"] == []


def test_tasks_are_chosen_by_time(client: Client) -> None:
    index = make(client, [{"id": 1}])
    soon = (datetime.now(UTC) + timedelta(minutes=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    before = (datetime.now(UTC) - timedelta(minutes=10)).strftime("%Y-%m-%dT%H:%M:%SZ")
    of_index = f"indexUids={index.uid}"
    for what in ("EnqueuedAt", "StartedAt", "FinishedAt"):
        assert len(uids(client, f"{of_index}&after{what}={before}&before{what}={soon}")) == 2
        assert uids(client, f"{of_index}&after{what}={soon}") == []
        assert uids(client, f"{of_index}&before{what}={before}") == []
        assert uids(client, f"{of_index}&before{what}=2020-01-01") == []


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("uids=x", "invalid_task_uids"),
        ("uids=1,x", "invalid_task_uids"),
        ("statuses=x", "invalid_task_statuses"),
        ("types=x", "invalid_task_types"),
        ("indexUids=a%20b", "invalid_index_uid"),
        ("canceledBy=x", "invalid_task_canceled_by"),
        ("limit=x", "invalid_task_limit"),
        ("from=x", "invalid_task_from"),
        ("reverse=x", "invalid_task_reverse"),
        ("afterEnqueuedAt=x", "invalid_task_after_enqueued_at"),
        ("beforeFinishedAt=x", "invalid_task_before_finished_at"),
        ("unknown=1", "bad_request"),
    ],
)
def test_choices_that_cannot_be(client: Client, query: str, code: str) -> None:
    assert refused(client.http.get, f"tasks?{query}") == (400, code)


def test_a_swap_is_seen_in_the_history(client: Client) -> None:
    one, two = make(client, []), make(client, [])
    task = done(client, one.add_documents([{"id": 1}]))
    swap = client.http.post("swap-indexes", [{"indexes": [one.uid, two.uid]}])
    done(client, swap)
    assert client.get_task(task.uid).index_uid == two.uid
    assert task.uid in uids(client, f"indexUids={two.uid}")
    assert refused(client.index(new_uid()).get_stats) == (404, "index_not_found")
