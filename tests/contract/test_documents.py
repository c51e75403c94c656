"""Documents: added, replaced, changed, removed, read."""

from typing import Any

import pytest
from meilisearch import Client
from meilisearch.index import Index

from .steps import Document, done, failed, found, make, new_uid, outcome, refused


def read(index: Index, id: str) -> dict[str, Any]:
    """A document as it is answered."""
    document: dict[str, Any] = index.http.get(f"indexes/{index.uid}/documents/{id}")
    return document


def test_documents_are_added_and_read(client: Client) -> None:
    index = make(client, [])
    documents: list[Document] = [
        {"id": 1, "text": "one", "deep": {"a": [1, None]}},
        {"id": "x-2_Y", "text": "zwei"},
    ]
    task = done(client, index.add_documents(documents))
    assert task.type == "documentAdditionOrUpdate"
    assert task.details == {"receivedDocuments": 2, "indexedDocuments": 2}
    assert read(index, "1") == documents[0]
    assert read(index, "x-2_Y") == documents[1]
    assert refused(lambda: index.get_document("3")) == (404, "document_not_found")


def test_an_index_is_made_with_the_first_documents(client: Client) -> None:
    index = client.index(new_uid())
    done(client, index.add_documents([{"msgId": 7}]))
    assert client.get_raw_index(index.uid)["primaryKey"] == "msgId"
    other = client.index(new_uid())
    done(client, other.add_documents([{"a_id": 7, "b_id": 8}], "b_id"))
    assert read(other, "8") == {"a_id": 7, "b_id": 8}


def test_primary_keys_that_cannot_be_guessed(client: Client) -> None:
    index = client.index(new_uid())
    task = outcome(client, index.add_documents([{"name": 1}]))
    assert (task.error or {})["code"] == "index_primary_key_no_candidate_found"
    assert task.details == {"receivedDocuments": 1, "indexedDocuments": 0}
    two = client.index(new_uid()).add_documents([{"a_id": 1, "b_id": 2}])
    assert failed(client, two) == "index_primary_key_multiple_candidates_found"
    given = make(client, [{"id": 1}])
    other = given.add_documents([{"key": 1}], "key")
    assert failed(client, other) == "index_primary_key_already_exists"


@pytest.mark.parametrize("id", ["a b", "ü", "a.b", "a/b", "", "x" * 512, 1.5, None, [1], {"a": 1}])
def test_ids_that_cannot_be(client: Client, id: object) -> None:
    index = make(client, [])
    task = index.add_documents([{"id": "good"}, {"id": id}])
    assert failed(client, task) == "invalid_document_id"
    assert found(index) == []  # none of the task's documents, then


def test_a_document_without_an_id(client: Client) -> None:
    index = make(client, [])
    assert failed(client, index.add_documents([{"text": "no id"}])) == "missing_document_id"


def test_adding_replaces_and_updating_changes(client: Client) -> None:
    index = make(client, [{"id": 1, "a": 1, "b": {"c": 1, "d": 2}}])
    done(client, index.update_documents([{"id": 1, "b": {"c": 5}, "e": "new"}, {"id": 2, "a": 2}]))
    assert read(index, "1") == {"id": 1, "a": 1, "b": {"c": 5}, "e": "new"}
    assert read(index, "2") == {"id": 2, "a": 2}
    done(client, index.add_documents([{"id": 1, "e": "only"}]))
    assert read(index, "1") == {"id": 1, "e": "only"}
    assert index.get_stats().number_of_documents == 2


def test_the_last_of_the_same_id_counts(client: Client) -> None:
    index = make(client, [{"id": 1, "a": 1}, {"id": 1, "a": 2}])
    assert read(index, "1") == {"id": 1, "a": 2}
    done(client, index.update_documents([{"id": 1, "b": 1}, {"id": 1, "c": 1}]))
    assert read(index, "1") == {"id": 1, "a": 2, "b": 1, "c": 1}


def test_what_is_replaced_or_removed_is_found_no_more(client: Client) -> None:
    index = make(client, [{"id": 1, "t": "before"}, {"id": 2, "t": "before"}])
    assert found(index, "before") == [1, 2]
    done(client, index.add_documents([{"id": 1, "t": "after"}]))
    assert (found(index, "before"), found(index, "after")) == ([2], [1])
    done(client, index.delete_document("2"))
    assert found(index, "before") == []
    done(client, index.add_documents([{"id": 2, "t": "before"}]))
    assert found(index, "before") == [2]


def test_many_tasks_at_once_are_done_in_order(client: Client) -> None:
    index = make(client, [])
    tasks = []
    for number in range(20):
        tasks.append(index.add_documents([{"id": 1, "n": number}, {"id": number + 10}]))
        tasks.append(index.delete_document(str(number + 9)))
        tasks.append(index.update_documents([{"id": 1, "m": number}]))
    outcomes = [done(client, task) for task in tasks]
    assert [task.uid for task in outcomes] == sorted(task.uid for task in outcomes)
    assert read(index, "1") == {"id": 1, "n": 19, "m": 19}
    assert sorted(found(index)) == [1, 29]
    removed = [(task.details or {}).get("deletedDocuments") for task in outcomes[1::3]]
    assert removed == [0, *[1] * 19]


def test_one_task_that_fails_does_not_disturb_its_neighbours(client: Client) -> None:
    index = make(client, [])
    good = index.add_documents([{"id": 1}])
    bad = index.add_documents([{"id": 2}, {"id": "not good"}])
    also_good = index.add_documents([{"id": 3}])
    assert outcome(client, bad).details == {"receivedDocuments": 2, "indexedDocuments": 0}
    assert failed(client, bad) == "invalid_document_id"
    done(client, good)
    done(client, also_good)
    assert found(index) == [1, 3]


def test_documents_are_removed_by_id(client: Client) -> None:
    index = make(client, [{"id": number} for number in range(5)])
    task = done(client, index.delete_document("0"))
    assert task.type == "documentDeletion"
    wanted = {"providedIds": 1, "deletedDocuments": 1, "originalFilter": None}
    assert task.details == wanted
    batch = client.http.post(f"indexes/{index.uid}/documents/delete-batch", ["1", 2, "77"])  # type: ignore[arg-type]
    task = done(client, batch)
    assert task.details == {"providedIds": 3, "deletedDocuments": 2, "originalFilter": None}
    assert found(index) == [3, 4]
    task = done(client, index.delete_all_documents())
    assert (task.details or {})["deletedDocuments"] == 2
    assert found(index) == []


def test_documents_are_removed_by_filter(client: Client) -> None:
    colors = ["red", "blue", "blue", "green", None]
    documents = [{"id": n} | ({"color": c} if c else {}) for n, c in enumerate(colors)]
    index = make(client, documents, filterableAttributes=["color"])
    task = done(client, index.delete_documents(filter="color = blue"))
    assert task.details == {
        "providedIds": 0,
        "deletedDocuments": 2,
        "originalFilter": '"color = blue"',
    }
    assert found(index) == [0, 3, 4]
    task = done(client, index.delete_documents(filter=[["color = green", "color NOT EXISTS"]]))
    assert (task.details or {})["deletedDocuments"] == 2
    assert (task.details or {})["originalFilter"] == '[["color = green","color NOT EXISTS"]]'
    assert found(index) == [0]


def test_removing_by_a_filter_that_cannot_be(client: Client) -> None:
    index = make(client, [{"id": 1, "a": 1}])

    def remove(body: dict[str, Any]) -> Any:
        return client.http.post(f"indexes/{index.uid}/documents/delete", body)

    assert failed(client, remove({"filter": "a = 1"})) == "invalid_document_filter"
    for given in ("", "a =", "a = 'x", ["", []], 5):
        assert refused(remove, {"filter": given}) == (
            400,
            "invalid_document_filter",
        )
    assert refused(remove, {}) == (400, "missing_document_filter")
    assert refused(remove, {"filter": "a = 1", "b": 1}) == (400, "bad_request")
    assert found(index) == [1]


def test_documents_are_read_in_pages(client: Client) -> None:
    documents = [{"id": number, "even": number % 2 == 0, "n": number} for number in range(30)]
    index = make(client, documents, filterableAttributes=["even", "n"])
    page = client.http.get(f"indexes/{index.uid}/documents")
    assert (page["offset"], page["limit"], page["total"]) == (0, 20, 30)
    assert page["results"] == documents[:20]
    page = client.http.get(f"indexes/{index.uid}/documents?offset=25&limit=10&fields=n,id")
    assert page["results"] == [{"id": number, "n": number} for number in range(25, 30)]
    path = f"indexes/{index.uid}/documents/fetch"
    page = client.http.post(path, {"filter": "even = true AND n > 5", "limit": 2, "offset": 1})
    assert (page["results"], page["total"]) == ([documents[8], documents[10]], 12)
    page = client.http.post(path, {"ids": ["3", 5, "99"], "fields": ["id"]})
    assert (page["results"], page["total"]) == ([{"id": 3}, {"id": 5}], 2)
    page = client.http.post(path, {})
    assert page["results"] == documents[:20]


def test_reading_documents_what_cannot_be(client: Client) -> None:
    index = make(client, [{"id": 1}])
    path = f"indexes/{index.uid}/documents"
    for query, code in {
        "limit=x": "invalid_document_limit",
        "offset=-1": "invalid_document_offset",
        "filter=x": "invalid_document_filter",
        "filter=x=1": "invalid_document_filter",
        "more=1": "bad_request",
    }.items():
        assert refused(client.http.get, f"{path}?{query}") == (400, code)
    for body, code in (
        ({"limit": "x"}, "invalid_document_limit"),
        ({"offset": -1}, "invalid_document_offset"),
        ({"filter": 5}, "invalid_document_filter"),
        ({"fields": "id"}, "invalid_document_fields"),
        ({"ids": "1"}, "invalid_document_ids"),
        ({"more": 1}, "bad_request"),
    ):
        assert refused(client.http.post, f"{path}/fetch", body) == (400, code)


def test_only_displayed_attributes_are_shown(client: Client) -> None:
    index = make(client, [{"id": 1, "a": "seen", "b": "hidden"}], displayedAttributes=["id", "a"])
    assert read(index, "1") == {"id": 1, "a": "seen"}
    assert index.search("hidden")["hits"] == [{"id": 1, "a": "seen"}]


def test_numbers_are_exact_to_2_to_the_53(client: Client) -> None:
    most = 2**53
    documents: list[Document] = [{"id": number, "n": most - number} for number in range(3)]
    documents += [{"id": 9, "n": -most}, {"id": 8, "n": 0.1}]
    index = make(client, documents, filterableAttributes=["n"], sortableAttributes=["n"])
    assert read(index, "0") == {"id": 0, "n": most}
    assert found(index, filter=f"n = {most - 1}") == [1]
    assert found(index, filter=f"n >= {most - 1}") == [0, 1]
    assert found(index, filter=f"n = {-most}") == [9]
    assert found(index, filter="n = 0.1") == [8]
    assert found(index, sort=["n:asc"]) == [9, 8, 2, 1, 0]


def test_payloads_that_cannot_be(client: Client) -> None:
    index = make(client, [])

    def add(body: bytes, content_type: str = "application/json") -> object:
        return index.http.post(f"indexes/{index.uid}/documents", body, content_type)

    for body in (b"{", b'[{"id": 1},]', b'[{"id": 1}', b"[1]", b'["a"]', b'[{"id": "\xff"}]', b"x"):
        assert refused(add, body) == (400, "malformed_payload")
    assert refused(add, b"") == (400, "missing_payload")
    lines = "application/x-ndjson"
    assert refused(add, b'{"id": 1}\n{"id"', lines) == (400, "malformed_payload")
    assert refused(add, b"", lines) == (400, "missing_payload")
    assert refused(add, b"[]", "text/plain") == (415, "invalid_content_type")
    url = f"indexes/{index.uid}/documents?other=1"
    assert refused(lambda: index.http.post(url, [{"id": 1}])) == (400, "bad_request")


def test_one_document_and_documents_by_line(client: Client) -> None:
    index = make(client, [])
    path = f"indexes/{index.uid}/documents"
    done(client, index.http.post(path, {"id": 1}))
    lines = b'{"id": 2}\n\n{"id": 3, "a": "b\\nc"}\n'
    task = done(client, index.add_documents_ndjson(lines))
    assert (task.details or {})["receivedDocuments"] == 2
    assert found(index) == [1, 2, 3]
    done(client, index.http.post(path, b"[]"))
