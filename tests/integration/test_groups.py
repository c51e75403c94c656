"""Groups and channels: making, joining, leaving, roles, and who may do and see what."""

import asyncio

import pytest

from tests.chat import Chat, Clients, Frame, names
from tests.servers import Site

pytestmark = pytest.mark.anyio


async def members_of(client: Chat, group_id: str) -> dict[str, str]:
    """User to role, all pages."""
    found: dict[str, str] = {}
    after: dict[str, str] = {}
    while True:
        page = await client.ask("group_members", group_id=group_id, limit=2, **after)
        assert page["type"] == "result", page
        found.update({each["user_id"]: each["role"] for each in page["members"]})
        if not page.get("more"):
            return found
        after = {"after": page["members"][-1]["user_id"]}


async def refused(client: Chat, code: str, type: str, **fields: object) -> None:
    error = await client.ask(type, **fields)
    assert (error["type"], error["code"]) == ("error", code), error
    assert error["retryable"] is False


async def end(client: Chat, *witnesses: Chat) -> None:
    """A message to each witness, so that what would have come before it has come."""
    for each in witnesses:
        await client.say(each.user, "end")
        await each.until("chat", content="end")


# --- create ---


async def test_who_creates_a_group_can_write_to_it_with_the_next_frame(site: Site) -> None:
    alice, bob, carol = names("alice", "bob", "carol")
    async with Clients() as connect:
        one = await connect(site.edges[0], alice)
        two = await connect(site.edges[1], bob)
        group = await one.group(bob, carol, bob, name="Lunch 🍱")
        group_id = group["group_id"]
        expected = {
            "group_id": group_id,
            "chat_id": f"group.{group_id}",
            "name": "Lunch 🍱",
            "kind": "group",
            "home": "local",
            "members": sorted([alice, bob, carol]),
            "version": 1,
            "created_by": alice,
        }
        assert expected.items() <= group.items()
        ack = await one.tell(group_id, "hello all")
        for client, user in ((one, alice), (two, bob)):
            added = await client.until("member_added")
            assert (added["group_id"], added["by"], added["users"]) == (group_id, alice, [user])
            assert added["chat_id"] == f"group.{group_id}"
            event = await client.until("group_chat")
            assert event["seq"] == ack["seq"] > added["seq"]
            assert (event["from"], event["group_id"]) == (alice, group_id)
            assert "to" not in event
            assert len([each for each in client.frames if each["type"] == "member_added"]) == 1
        assert await members_of(two, group_id) == {alice: "owner", bob: "member", carol: "member"}


async def test_a_group_id_may_be_chosen_once(site: Site) -> None:
    alice, bob, chosen = names("alice", "bob", "g")
    async with Clients() as connect:
        one, two = await connect(site.edges[0], alice), await connect(site.edges[1], bob)
        assert (await one.group(group_id=chosen))["group_id"] == chosen
        for client in (one, two):
            await refused(
                client,
                "duplicate_group",
                "group_create",
                client_id="new",
                name="x",
                group_id=chosen,
            )
        await refused(two, "not_member", "group_info", group_id=chosen)


async def test_the_same_client_id_again_answers_with_the_first_group(site: Site) -> None:
    alice, bob, carol, chosen = names("alice", "bob", "carol", "g")
    async with Clients() as connect:
        one = await connect(site.edges[0], alice)
        again = await connect(site.edges[1], alice)
        first = await one.group(bob, client_id="c1", name="first")
        assert await again.group(bob, client_id="c1", name="first") == first
        assert await again.group(carol, client_id="c1", name="x", group_id=chosen) == first
        other = await connect(site.edges[0], bob)
        assert (await other.group(client_id="c1"))["group_id"] != first["group_id"]
        await refused(one, "not_found", "group_info", group_id=chosen)


async def test_the_same_create_many_times_at_once_makes_one_group(site: Site) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        clients = [await connect(site.edges[number % 2], alice) for number in range(4)]
        made = await asyncio.gather(*(each.group(bob, client_id="c1") for each in clients))
        assert len({group["group_id"] for group in made}) == 1
        await clients[0].tell(made[0]["group_id"], "end")
        for client in clients:
            await client.until("group_chat")
            assert [each["type"] for each in client.durable()] == ["member_added", "group_chat"]


async def test_a_group_has_500_members_at_most(site: Site) -> None:
    (alice,) = names("alice")
    users = [f"{alice}-{number}" for number in range(500)]
    async with Clients() as connect:
        one = await connect(site.edges[0], alice)
        too_many = {"client_id": "c1", "name": "x", "members": users}
        await refused(one, "group_full", "group_create", **too_many)
        group_id = (await one.group(*users[:498]))["group_id"]
        await refused(one, "group_full", "group_add", group_id=group_id, users=users[498:])
        assert (await one.ask("group_add", group_id=group_id, users=users[:499]))[
            "type"
        ] == "result"
        await refused(one, "group_full", "group_add", group_id=group_id, users=users[499:])
        info = await one.ask("group_info", group_id=group_id)
        assert len(info["group"]["members"]) == 500


async def test_a_channel_has_no_such_limit_and_anyone_may_join(site: Site) -> None:
    alice, bob = names("alice", "bob")
    users = [f"{alice}-{number}" for number in range(600)]
    async with Clients() as connect:
        one, two = await connect(site.edges[0], alice), await connect(site.edges[1], bob)
        group = await one.group(*users, kind="channel")
        assert group["kind"] == "channel"
        joined = await two.ask("group_join", group_id=group["group_id"])
        assert joined["group"]["group_id"] == group["group_id"]
        assert (await one.ask("open", chat_id=group["chat_id"]))["type"] == "result"
        await two.tell(group["group_id"], "just arrived")
        await one.until("group_chat", content="just arrived")


# --- add, remove, join, leave ---


async def test_who_is_added_sees_what_comes_after(site: Site) -> None:
    alice, bob, carol = names("alice", "bob", "carol")
    async with Clients() as connect:
        one, two, three = [
            await connect(site.edges[number % 2], user)
            for number, user in enumerate([alice, bob, carol])
        ]
        group_id = (await one.group(bob))["group_id"]
        await one.tell(group_id, "before")
        await refused(three, "not_member", "group_info", group_id=group_id)
        await refused(three, "not_member", "group_members", group_id=group_id)
        result = await one.ask("group_add", group_id=group_id, users=[carol, bob])
        assert carol in result["group"]["members"]
        await one.tell(group_id, "after")
        await three.until("group_chat", content="after")
        assert three.contents() == ["after"]
        assert (await three.until("member_added"))["users"] == [carol]
        await two.until("group_chat", content="after")
        added = [each["users"] for each in two.frames if each["type"] == "member_added"]
        assert added == [[bob], [carol]]
        await three.tell(group_id, "thanks")
        await two.until("group_chat", content="thanks")


async def test_who_is_removed_neither_sees_nor_writes_any_more(site: Site) -> None:
    alice, bob, carol = names("alice", "bob", "carol")
    async with Clients() as connect:
        one = await connect(site.edges[0], alice)
        two, also = [await connect(edge, bob) for edge in site.edges]
        three = await connect(site.edges[1], carol)
        group_id = (await one.group(bob, carol))["group_id"]
        result = await one.ask("group_remove", group_id=group_id, users=[bob, "nobody"])
        assert bob not in result["group"]["members"]
        for client in (two, also):
            assert (await client.until("member_removed"))["users"] == [bob]
        assert (await three.until("member_removed"))["users"] == [bob]
        await one.tell(group_id, "without bob")
        for client in (two, also):
            error = await client.write("group_chat", group_id=group_id, content="may I?")
            assert (error["code"], error["client_id"]) == ("not_member", error["id"])
            assert (await client.ask("typing", group_id=group_id))["code"] == "not_member"
        await end(one, two)
        assert two.contents() == ["end"]
        assert len([each for each in two.frames if each["type"] == "member_removed"]) == 1
        await one.ask("group_add", group_id=group_id, users=[bob])
        await one.tell(group_id, "welcome back")
        for client in (two, also):
            await client.until("group_chat", content="welcome back")
        await two.tell(group_id, "thanks")


async def test_a_channel_is_joined_and_left(site: Site) -> None:
    alice, bob, carol = names("alice", "bob", "carol")
    async with Clients() as connect:
        one, two, three = [await connect(site.edges[0], user) for user in (alice, bob, carol)]
        group_id = (await one.group(kind="channel"))["group_id"]
        info = await two.ask("group_info", group_id=group_id)
        assert info["group"]["kind"] == "channel"
        error = await two.write("group_chat", group_id=group_id, content="not yet")
        assert error["code"] == "not_member"
        await two.ask("group_join", group_id=group_id)
        await two.ask("group_join", group_id=group_id)
        assert await members_of(three, group_id) == {alice: "owner", bob: "member"}
        await two.tell(group_id, "hello")
        await one.until("group_chat", content="hello")
        assert (await two.ask("group_leave", group_id=group_id))["type"] == "result"
        await refused(two, "not_member", "group_leave", group_id=group_id)
        await one.tell(group_id, "gone")
        await end(one, two)
        assert "gone" not in two.contents()
        types = [each["type"] for each in one.durable()]
        assert types.count("member_removed") == 1


async def test_who_comes_into_an_empty_channel_owns_it(site: Site) -> None:
    a, b = names("alice", "bob")
    async with Clients() as connect:
        alice, bob = await connect(site.edges[0], a), await connect(site.edges[1], b)
        group_id = (await alice.group(kind="channel"))["group_id"]
        assert (await alice.ask("group_leave", group_id=group_id))["type"] == "result"
        await bob.ask("group_join", group_id=group_id)
        members = (await bob.ask("group_members", group_id=group_id))["members"]
        assert members == [{"user_id": b, "role": "owner"}]
        updated = await bob.until("group_updated", group_id=group_id)
        assert updated["roles"] == {b: "owner"}
        assert (await bob.ask("group_add", group_id=group_id, users=[a]))["type"] == "result"


async def test_a_group_is_not_joined_from_outside(site: Site) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        one, two = await connect(site.edges[0], alice), await connect(site.edges[0], bob)
        group_id = (await one.group())["group_id"]
        await refused(two, "forbidden", "group_join", group_id=group_id)
        await refused(two, "not_member", "group_add", group_id=group_id, users=[bob])
        assert await members_of(one, group_id) == {alice: "owner"}


async def test_what_is_not_there_is_not_found(site: Site) -> None:
    (alice,) = names("alice")
    async with Clients() as connect:
        client = await connect(site.edges[0], alice)
        for kind in ("group_join", "group_leave", "group_members", "group_info", "group_update"):
            await refused(client, "not_found", kind, group_id=f"{alice}-none")
        for kind in ("group_add", "group_remove"):
            await refused(client, "not_found", kind, group_id=f"{alice}-none", users=[alice])


# --- roles ---


async def test_only_owners_and_admins_change_a_group(site: Site) -> None:
    alice, bob, carol, dave = names("alice", "bob", "carol", "dave")
    async with Clients() as connect:
        owner, admin, member = [
            await connect(site.edges[number % 2], user)
            for number, user in enumerate([alice, bob, carol])
        ]
        group_id = (await owner.group(bob, carol))["group_id"]
        for kind, fields in (
            ("group_add", {"users": [dave]}),
            ("group_remove", {"users": [bob]}),
            ("group_update", {"name": "mine"}),
            ("group_update", {"roles": {carol: "admin"}}),
        ):
            await refused(member, "forbidden", kind, group_id=group_id, **fields)
        await owner.ask("group_update", group_id=group_id, roles={bob: "admin"})
        updated = await member.until("group_updated")
        assert (updated["by"], updated["roles"]) == (alice, {bob: "admin"})
        assert "name" not in updated
        assert (await admin.ask("group_add", group_id=group_id, users=[dave]))["type"] == "result"
        await admin.ask("group_update", group_id=group_id, name="ours", roles={carol: "admin"})
        updated = await member.until("group_updated")
        assert (updated["name"], updated["roles"]) == ("ours", {carol: "admin"})
        for fields in ({"roles": {bob: "owner"}}, {"roles": {alice: "member"}}):
            await refused(admin, "forbidden", "group_update", group_id=group_id, **fields)
        await refused(admin, "forbidden", "group_remove", group_id=group_id, users=[alice])
        await refused(
            owner, "forbidden", "group_update", group_id=group_id, roles={alice: "member"}
        )
        await refused(
            owner, "not_member", "group_update", group_id=group_id, roles={"nobody": "admin"}
        )
        info = (await member.ask("group_info", group_id=group_id))["group"]
        assert (info["name"], info["version"]) == ("ours", 4)
        roles = {alice: "owner", bob: "admin", carol: "admin", dave: "member"}
        assert await members_of(owner, group_id) == roles


async def test_a_change_that_is_refused_changes_nothing(site: Site) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        one, two = await connect(site.edges[0], alice), await connect(site.edges[0], bob)
        group_id = (await one.group(bob, name="before"))["group_id"]
        roles = {bob: "admin", "nobody": "admin"}
        await refused(one, "not_member", "group_update", group_id=group_id, name="x", roles=roles)
        info = (await two.ask("group_info", group_id=group_id))["group"]
        assert (info["name"], info["version"]) == ("before", 1)
        assert await members_of(two, group_id) == {alice: "owner", bob: "member"}
        await end(one, two)
        assert "group_updated" not in {each["type"] for each in two.frames}


async def test_when_the_last_owner_leaves_another_takes_over(site: Site) -> None:
    alice, bob, carol = names("alice", "bob", "carol")
    async with Clients() as connect:
        clients = [await connect(site.edges[0], user) for user in (alice, bob, carol)]
        one, two, three = clients
        group_id = (await one.group(bob, carol))["group_id"]
        await one.ask("group_update", group_id=group_id, roles={carol: "admin"})
        await one.ask("group_leave", group_id=group_id)
        assert await members_of(two, group_id) == {bob: "member", carol: "owner"}
        assert (await two.until("group_updated", roles={carol: "owner"}))["by"] == alice
        await three.ask("group_leave", group_id=group_id)
        assert await members_of(two, group_id) == {bob: "owner"}


async def test_mute_is_ones_own(site: Site) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        one, two = await connect(site.edges[0], alice), await connect(site.edges[0], bob)
        group_id = (await one.group(bob))["group_id"]
        result = await two.ask("group_update", group_id=group_id, mute=True)
        assert result["group"]["group_id"] == group_id
        await end(one, two)
        assert "group_updated" not in {each["type"] for each in two.frames}


# --- writing ---


async def test_a_group_message_reaches_all_devices_of_all_members(site: Site) -> None:
    alice, bob, carol, stranger = names("alice", "bob", "carol", "stranger")
    async with Clients() as connect:
        clients = [
            await connect(site.edges[number % 2], user)
            for number, user in enumerate([alice, bob, carol] * 2)
        ]
        outside = await connect(site.edges[0], stranger)
        group_id = (await clients[0].group(bob, carol))["group_id"]
        for number, client in enumerate(clients):
            await client.until("member_added")
            await client.tell(group_id, str(number))
        seen: list[list[Frame]] = []
        for client in clients:
            await client.until("group_chat", content="5")
            seen.append([each for each in client.durable() if each["type"] == "group_chat"])
        assert all(each == seen[0] for each in seen)
        assert [each["content"] for each in seen[0]] == [str(number) for number in range(6)]
        await end(clients[0], outside)
        assert outside.contents() == ["end"]


async def test_typing_in_a_group(site: Site) -> None:
    alice, bob, carol, stranger = names("alice", "bob", "carol", "stranger")
    async with Clients() as connect:
        one, again, two, three, outside = [
            await connect(site.edges[number % 2], user)
            for number, user in enumerate([alice, alice, bob, carol, stranger])
        ]
        group_id = (await one.group(bob, carol))["group_id"]
        await asyncio.gather(*(each.until("member_added") for each in (one, again, two, three)))
        for _ in range(3):
            await one.send("typing", group_id=group_id)
        for client in (two, three):
            typing = await client.until("typing")
            assert (typing["chat_id"], typing["from"]) == (f"group.{group_id}", alice)
        await end(two, one, again, outside)
        await end(one, three)
        for client, count in ((one, 0), (again, 0), (outside, 0), (three, 1)):
            types = [each["type"] for each in client.frames]
            assert types.count("typing") == count


STRANGE = [".", "*", ">", "a.b", "a.*", "g.>", "=2E", "=XX", "$JS.API.>", "日本", "a b", "x" * 64]


async def test_unusual_group_ids_work_and_reach_nobody_else(site: Site) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        one = await connect(site.edges[0], alice)
        watching = await connect(site.edges[1], bob)
        people: list[Chat] = []
        for group_id in STRANGE:
            (user,) = names("u")
            people.append(await connect(site.edges[1], user))
            group = await one.group(user, group_id=group_id, kind="channel")
            assert group["group_id"] == group_id
        for group_id in STRANGE:
            await one.tell(group_id, f"in {group_id}")
        for group_id, person in zip(STRANGE, people, strict=True):
            await person.until("group_chat", group_id=group_id, content=f"in {group_id}")
        await end(one, watching, *people)
        for group_id, person in zip(STRANGE, people, strict=True):
            assert person.contents() == [f"in {group_id}", "end"]
        assert watching.contents() == ["end"]


async def test_twenty_adds_at_once_to_one_group(site: Site) -> None:
    alice, bob = names("alice", "bob")
    users = list(names(*["u"] * 20))
    async with Clients() as connect:
        clients = [await connect(site.edges[number % 2], alice) for number in range(4)]
        watching = await connect(site.edges[1], bob)
        group_id = (await clients[0].group(bob))["group_id"]
        results = await asyncio.gather(
            *(
                each
                for number in range(4)
                for each in [_adding(clients[number], group_id, users[number * 5 : number * 5 + 5])]
            )
        )
        assert [result for part in results for result in part if result["type"] != "result"] == []
        assert set(await members_of(clients[0], group_id)) == {alice, bob, *users}
        await clients[0].tell(group_id, "end")
        await watching.until("group_chat", content="end")
        added = [each for each in watching.durable() if each["type"] == "member_added"][1:]
        assert sorted(user for each in added for user in each["users"]) == sorted(users)
        info = await clients[0].ask("group_info", group_id=group_id)
        assert info["group"]["version"] == 21


async def _adding(client: Chat, group_id: str, users: list[str]) -> list[Frame]:
    """Ask for all at once on one connection; the answers."""
    for user in users:
        await client.send("group_add", id=user, group_id=group_id, users=[user])
    answers: list[Frame] = []
    while len(answers) < len(users):
        frame = await client.receive()
        if frame["type"] in ("result", "error"):
            answers.append(frame)
    return answers
