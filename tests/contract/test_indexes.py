"""Indexes: made, listed, changed, removed, swapped."""

from meilisearch import Client

from .steps import done, failed, found, make, new_uid, refused


def test_the_server_says_that_it_lives_and_what_it_is(client: Client) -> None:
    assert client.health() == {"status": "available"}
    assert set(client.get_version()) >= {"commitSha", "commitDate", "pkgVersion"}


def test_an_index_is_made_and_read(client: Client) -> None:
    uid = new_uid()
    task = done(client, client.create_index(uid, {"primaryKey": "id"}))
    assert (task.type, task.index_uid) == ("indexCreation", uid)
    assert task.details == {"primaryKey": "id"}
    index = client.get_raw_index(uid)
    assert (index["uid"], index["primaryKey"]) == (uid, "id")
    assert index["createdAt"] <= index["updatedAt"]


def test_an_index_is_made_once(client: Client) -> None:
    index = make(client, [])
    assert failed(client, client.create_index(index.uid)) == "index_already_exists"


def test_an_index_that_is_not_there(client: Client) -> None:
    missing = client.index(new_uid())
    for call in (
        missing.fetch_info,
        missing.get_stats,
        missing.get_settings,
        missing.get_ranking_rules,
        lambda: missing.search("x"),
        lambda: missing.get_document("1"),
        lambda: missing.get_documents(),
    ):
        assert refused(call) == (404, "index_not_found")
    assert failed(client, missing.delete()) == "index_not_found"
    assert failed(client, missing.update("id")) == "index_not_found"
    assert failed(client, missing.delete_document("1")) == "index_not_found"
    assert failed(client, missing.delete_all_documents()) == "index_not_found"
    assert failed(client, missing.reset_settings()) == "index_not_found"
    assert failed(client, missing.reset_stop_words()) == "index_not_found"


def test_names_of_indexes(client: Client) -> None:
    def create(body: object) -> object:
        return client.http.post("indexes", body)  # type: ignore[arg-type]

    for uid in ("with space", "a.b", "ü", "", "a/b", "x" * 513):
        assert refused(create, {"uid": uid}) == (400, "invalid_index_uid")
    assert refused(create, {}) == (400, "missing_index_uid")
    assert refused(create, {"uid": 5}) == (400, "invalid_index_uid")
    assert refused(lambda: create({"uid": new_uid(), "more": 1})) == (400, "bad_request")
    wrong_key = {"uid": new_uid(), "primaryKey": 5}
    assert refused(create, wrong_key) == (400, "invalid_index_primary_key")
    assert refused(lambda: client.index("a b").search("")) == (400, "invalid_index_uid")


def test_indexes_are_listed_in_pages(client: Client) -> None:
    uids = sorted(make(client, []).uid for _ in range(3))
    everything = client.http.get("indexes?limit=10000")["results"]
    assert set(uids) <= {index["uid"] for index in everything}
    page = client.http.get("indexes?limit=1&offset=1")
    assert (page["limit"], page["offset"], len(page["results"])) == (1, 1, 1)
    assert page["total"] >= 3
    assert refused(client.http.get, "indexes?limit=x") == (400, "invalid_index_limit")
    assert refused(client.http.get, "indexes?offset=-1") == (400, "invalid_index_offset")
    assert refused(client.http.get, "indexes?other=1") == (400, "bad_request")


def test_the_primary_key_can_change_while_there_are_no_documents(client: Client) -> None:
    index = client.index(new_uid())
    done(client, client.create_index(index.uid))
    assert client.get_raw_index(index.uid)["primaryKey"] is None
    done(client, index.update("name"))
    assert client.get_raw_index(index.uid)["primaryKey"] == "name"
    done(client, index.add_documents([{"name": "a"}]))
    assert failed(client, index.update("id")) == "index_primary_key_already_exists"


def test_an_index_is_removed_with_all_in_it(client: Client) -> None:
    index = make(client, [{"id": 1}, {"id": 2}])
    task = done(client, index.delete())
    assert task.details == {"deletedDocuments": 2}
    assert refused(index.fetch_info) == (404, "index_not_found")
    done(client, client.create_index(index.uid, {"primaryKey": "id"}))
    assert found(index) == []


def test_indexes_are_swapped_with_settings_and_documents(client: Client) -> None:
    live = make(client, [{"id": 1}], stopWords=["live"])
    other = make(client, [{"id": 2}, {"id": 3}], stopWords=["other"])
    swap = [{"indexes": [live.uid, other.uid]}]
    task = done(client, client.swap_indexes(swap))  # type: ignore[arg-type]
    assert task.type == "indexSwap"
    assert task.index_uid is None
    assert (task.details or {})["swaps"][0]["indexes"] == [live.uid, other.uid]
    assert (found(live), found(other)) == ([2, 3], [1])
    assert (live.get_stop_words(), other.get_stop_words()) == (["other"], ["live"])
    assert client.get_raw_index(live.uid)["uid"] == live.uid


def test_swaps_that_cannot_be(client: Client) -> None:
    index, missing = make(client, []), new_uid()

    def swap(*pairs: object) -> object:
        return client.http.post("swap-indexes", list(pairs))  # type: ignore[arg-type]

    assert refused(swap, {"indexes": [index.uid]}) == (400, "invalid_swap_indexes")
    assert refused(swap, {}) == (400, "missing_swap_indexes")
    twice = {"indexes": [index.uid, index.uid]}
    assert refused(swap, twice) == (400, "invalid_swap_duplicate_index_found")
    bad = {"indexes": [index.uid, "no good"]}
    assert refused(swap, bad) == (400, "invalid_index_uid")
    answer = client.http.post("swap-indexes", [{"indexes": [index.uid, missing]}])
    assert failed(client, answer) == "index_not_found"


def test_what_there_is_is_counted(client: Client) -> None:
    index = make(client, [{"id": 1, "a": "x"}, {"id": 2, "a": None, "b": {"c": 1}}])
    stats = client.http.get(f"indexes/{index.uid}/stats")
    assert (stats["numberOfDocuments"], stats["isIndexing"]) == (2, False)
    assert stats["fieldDistribution"] == {"a": 2, "b": 1, "b.c": 1, "id": 2}
    done(client, index.delete_document("2"))
    stats = client.http.get(f"indexes/{index.uid}/stats")
    assert stats["fieldDistribution"] == {"a": 1, "id": 1}
    everything = client.get_all_stats()
    assert everything["databaseSize"] > 0
    assert everything["indexes"][index.uid]["numberOfDocuments"] == 1
