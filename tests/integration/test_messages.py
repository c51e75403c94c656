"""Messages between two users, typing, duplicates, `expect_seq`, devices, and unusual ids."""

import asyncio
import time

import pytest

from tests.chat import Chat, Clients, names
from tests.servers import Site, eventually

pytestmark = pytest.mark.anyio

STRANGE = [
    ".",
    "..",
    "*",
    ">",
    "a.b",
    "a.*",
    "a.>",
    "dm.*.*",
    "user.>",
    "$JS.API.>",
    "$JS",
    "_INBOX.x",
    "=2E",
    "=",
    "=XX",
    "%2E",
    "a b",
    " ",
    "日本語",
    "🚚飛脚",
    "e\u0301",
    "é",
    "A",
    "a",
    "a/b",
    'quote"',
    "back\\slash",
    "alice@example.org",
    "\u202eevil",
    "null",
    "x" * 64,
    "あ" * 21,
]


# --- one message ---


async def test_a_message_is_acked_and_reaches_the_other_edge(site: Site) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        sender = await connect(site.edges[0], alice)
        receiver = await connect(site.edges[1], bob)
        now = time.time() * 1000
        await sender.send("chat", id=7, client_id="c1", to=bob, content="hello 飛脚")
        ack = await sender.until("ack")
        event = await receiver.until("chat")
        assert abs(ack.pop("timestamp") - now) < 60_000
        assert ack == {
            "type": "ack",
            "id": 7,
            "client_id": "c1",
            "message_id": event["id"],
            "chat_id": f"dm.{alice}.{bob}",
            "seq": event["seq"],
            "status": "sent",
            "duplicate": False,
        }
        assert abs(event.pop("timestamp") - now) < 60_000
        assert event == {
            "type": "chat",
            "seq": ack["seq"],
            "id": ack["message_id"],
            "chat_id": f"dm.{alice}.{bob}",
            "from": alice,
            "to": bob,
            "content": "hello 飛脚",
            "content_type": "text",
            "client_id": "c1",
        }
        assert int(event["id"]) > 0


async def test_every_field_of_a_message_arrives(site: Site) -> None:
    alice, bob = names("alice", "bob")
    fields = {
        "content": "hello",
        "content_type": "text/markdown",
        "reply_to": "123",
        "thread": "456",
        "mentions": [bob],
    }
    async with Clients() as connect:
        receiver = await connect(site.edges[1], bob)
        sender = await connect(site.edges[0], alice)
        await sender.write("chat", to=bob, **fields)
        event = await receiver.until("chat")
        assert fields.items() <= event.items()


async def test_all_devices_of_both_get_it_the_sending_one_too(site: Site) -> None:
    alice, bob, carol = names("alice", "bob", "carol")
    async with Clients() as connect:
        sending = await connect(site.edges[0], alice, device="phone")
        others = [
            await connect(site.edges[number % 2], user)
            for number, user in enumerate([alice, alice, bob, bob, bob])
        ]
        stranger = await connect(site.edges[0], carol)
        await sending.say(bob, "to all of us")
        events = [await each.until("chat") for each in [sending, *others]]
        assert events == [events[0]] * 6
        await stranger.say(carol, "only mine")
        await stranger.until("chat")
        assert stranger.contents() == ["only mine"]


async def test_a_message_to_oneself_arrives_once_on_each_device(site: Site) -> None:
    (alice,) = names("alice")
    async with Clients() as connect:
        one = await connect(site.edges[0], alice)
        two = await connect(site.edges[1], alice)
        ack = await one.say(alice, "note")
        assert ack["chat_id"] == f"dm.{alice}.{alice}"
        await one.say(alice, "end")
        for each in (one, two):
            await each.until("chat", content="end")
            assert each.contents() == ["note", "end"]


async def test_all_see_the_same_order_and_each_sender_its_own(site: Site) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        clients = [
            await connect(site.edges[number % 2], user)
            for number, user in enumerate([alice, bob, alice, bob])
        ]
        one, two = clients[0], clients[1]
        for number in range(50):
            for client, peer in ((one, bob), (two, alice)):
                name = f"{client.user} {number}"
                await client.send("chat", client_id=name, to=peer, content=name)
        for client in clients:
            for user in (alice, bob):
                await client.until("chat", content=f"{user} 49")
        seen = clients[0].contents()
        assert all(each.contents() == seen for each in clients)
        for user in (alice, bob):
            mine = [content for content in seen if content.startswith(user)]
            assert mine == [f"{user} {number}" for number in range(50)]
        for client in clients:
            seqs = [frame["seq"] for frame in client.durable()]
            assert seqs == sorted(set(seqs))


async def test_acks_come_in_the_order_of_sending(site: Site) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        client = await connect(site.edges[0], alice)
        for number in range(40):
            await client.send("chat", id=number, client_id=f"c{number}", to=bob, content="x")
        acks = [await client.until("ack") for _ in range(40)]
    assert [ack["id"] for ack in acks] == list(range(40))
    seqs = [ack["seq"] for ack in acks]
    assert seqs == sorted(seqs)


# --- unusual ids ---


async def test_unusual_ids_work_and_reach_nobody_else(site: Site) -> None:
    async with Clients() as connect:
        clients = await asyncio.gather(
            *(connect(site.edges[n % 2], user) for n, user in enumerate(STRANGE))
        )
        following = dict(zip(STRANGE, STRANGE[1:] + STRANGE[:1], strict=True))
        for client in clients:
            await client.say(following[client.user], f"from {client.user}")
        for client in clients:
            await client.say(client.user, "end")
            await client.until("chat", content="end")
        before = {peer: user for user, peer in following.items()}
        for client in clients:
            expected = {f"from {client.user}", f"from {before[client.user]}", "end"}
            assert set(client.contents()) == expected, client.user
            assert len(client.contents()) == 3
            for event in client.durable():
                assert {event["from"], event["to"]} & {client.user}


async def test_ids_that_only_look_alike_are_two_users(site: Site) -> None:
    async with Clients() as connect:
        clients = {user: await connect(site.edges[0], user) for user in ("é", "e\u0301", "A", "a")}
        for user in clients:
            await clients["a"].say(user, f"to {user!a}")
        for user, client in clients.items():
            await client.until("chat", content=f"to {user!a}")
        assert clients["é"].contents() == ["to '\\xe9'"]
        assert clients["A"].contents() == ["to 'A'"]


@pytest.mark.parametrize(
    "bad", ["", "x" * 65, "あ" * 22, "a\nb", "a\u0000b", "a\u007f", "a\u0085b", 7, None, ["a"]]
)
async def test_an_id_that_can_be_none_is_invalid(site: Site, bad: object) -> None:
    (alice,) = names("alice")
    async with Clients() as connect:
        client = await connect(site.edges[0], alice)
        for kind, fields in (
            ("chat", {"to": bad}),
            ("group_chat", {"group_id": bad}),
        ):
            error = await client.write(kind, content="x", **fields)
            assert (error["type"], error["code"]) == ("error", "invalid")
            assert error["client_id"] == error["id"]
            assert error["retryable"] is False
        if bad is not None:
            for field in ("to", "group_id"):
                error = await client.ask("typing", **{field: bad})
                assert error["code"] == "invalid"


# --- errors ---


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"type": "nonsense"}, "unknown_type"),
        ({"type": "edit_everything", "to": "bob"}, "unknown_type"),
        ({"type": ""}, "unknown_type"),
        ({"type": "chat", "content": "x"}, "invalid"),
        ({"type": "chat", "to": "bob"}, "invalid"),
        ({"type": "chat", "to": "bob", "content": ""}, "invalid"),
        ({"type": "chat", "to": "bob", "content": 7}, "invalid"),
        ({"type": "chat", "to": "bob", "content": "x", "reply_to": "x"}, "invalid"),
        ({"type": "chat", "to": "bob", "content": "x", "reply_to": 7}, "invalid"),
        ({"type": "chat", "to": "bob", "content": "x", "attachments": "f"}, "invalid"),
        ({"type": "chat", "to": "bob", "content": "x", "expect_seq": -1}, "invalid"),
        ({"type": "chat", "to": "bob", "content": "x", "content_type": ""}, "invalid"),
        ({"type": "group_chat", "content": "x"}, "invalid"),
        ({"type": "group_chat", "group_id": "no-such", "content": "x"}, "not_member"),
        ({"type": "group_create", "name": ""}, "invalid"),
        ({"type": "group_create", "name": "g", "kind": "club"}, "invalid"),
        ({"type": "group_create", "name": "g", "members": ["a\nb"]}, "invalid"),
    ],
)
@pytest.mark.parametrize("number", ["id-1", 7])
async def test_an_error_names_the_request_that_failed(
    site: Site, fields: dict[str, object], code: str, number: str | int
) -> None:
    (alice,) = names("alice")
    async with Clients() as connect:
        client = await connect(site.edges[0], alice)
        await client.send(**{**fields, "id": number, "client_id": "c1"})  # type: ignore[arg-type]
        error = await client.until("error")
        assert (error["id"], error["client_id"]) == (number, "c1")
        assert (error["code"], error["retryable"]) == (code, False)
        assert error["message"]
        await client.say(alice, "the connection lives on")


@pytest.mark.parametrize("client_id", ["", "x" * 65, 7, None])
async def test_a_write_needs_a_client_id(site: Site, client_id: object) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        client = await connect(site.edges[0], alice)
        error = await client.write("chat", to=bob, content="x", client_id=client_id)
        assert (error["type"], error["code"]) == ("error", "invalid")
        await client.say(bob, "fine", client_id="x" * 64)
        await client.say(bob, "fine too", client_id="\0\r\n. *>飛脚")


async def test_unknown_fields_are_ignored(site: Site) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        client = await connect(site.edges[0], alice)
        await client.say(bob, "x", seq=1, chat_id="dm.a.b", id_="7", color="blue", **{"from": bob})
        event = await client.until("chat")
        assert event["from"] == alice
        assert event["chat_id"] == f"dm.{alice}.{bob}"
        assert "color" not in event


# --- the same client_id again ---


async def test_the_same_client_id_again_answers_with_the_first_outcome(site: Site) -> None:
    alice, bob, carol = names("alice", "bob", "carol")
    async with Clients() as connect:
        client = await connect(site.edges[0], alice)
        other = await connect(site.edges[1], alice)
        first = await client.say(bob, "first", client_id="c1")
        for again in (
            await client.write("chat", client_id="c1", to=bob, content="first"),
            await client.write("chat", client_id="c1", to=bob, content="changed"),
            await client.write("chat", client_id="c1", to=carol, content="elsewhere"),
            await other.write("chat", client_id="c1", to=bob, content="first"),
        ):
            assert {**again, "id": 0, "duplicate": False} == {**first, "id": 0}
            assert again["duplicate"] is True
        await client.say(bob, "end")
        await other.until("chat", content="end")
        assert other.contents() == ["first", "end"]


async def test_the_same_client_id_at_the_same_time_is_stored_once(site: Site) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        one = await connect(site.edges[0], alice)
        two = await connect(site.edges[1], alice)
        for number in range(20):
            for client in (one, two):
                await client.send("chat", id=number, client_id="c1", to=bob, content="once")
        acks = [await each.until("ack") for each in (one, two) for _ in range(20)]
        assert len({(ack["message_id"], ack["seq"], ack["timestamp"]) for ack in acks}) == 1
        assert [ack["duplicate"] for ack in acks].count(False) == 1
        await one.say(bob, "end")
        await two.until("chat", content="end")
        assert two.contents() == ["once", "end"]


async def test_a_client_id_belongs_to_its_user(site: Site) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        one = await connect(site.edges[0], alice)
        two = await connect(site.edges[0], bob)
        acks = [
            await one.say(bob, "mine", client_id="c1"),
            await two.say(alice, "x", client_id="c1"),
        ]
        assert [ack["duplicate"] for ack in acks] == [False, False]


# --- expect_seq ---


async def test_expect_seq_stores_only_behind_that_message(site: Site) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        client = await connect(site.edges[0], alice)
        error = await client.write("chat", to=bob, content="too early", expect_seq=5)
        assert (error["code"], error["seq"], error["retryable"]) == ("conflict", 0, False)
        first = await client.say(bob, "first", expect_seq=0)
        await client.say(alice, "another chat does not count")
        second = await client.say(bob, "second", expect_seq=first["seq"])
        error = await client.write("chat", to=bob, content="late", expect_seq=first["seq"])
        assert (error["code"], error["seq"]) == ("conflict", second["seq"])
        assert error["client_id"] == error["id"]
        await client.say(bob, "plain")
        await client.until("chat", content="plain")
        assert [content for content in client.contents() if "another" not in content] == [
            "first",
            "second",
            "plain",
        ]


async def test_expect_seq_again_with_the_same_client_id_is_a_duplicate(site: Site) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        client = await connect(site.edges[0], alice)
        fields = {"to": bob, "content": "once", "client_id": "c1", "expect_seq": 0}
        first = await client.write("chat", **fields)
        again = await client.write("chat", **fields)
        assert (again["type"], again["seq"], again["duplicate"]) == ("ack", first["seq"], True)


async def test_of_two_who_expect_the_same_only_one_is_stored(site: Site) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        one = await connect(site.edges[0], alice)
        two = await connect(site.edges[1], bob)
        last = 0
        for _ in range(8):
            answers = await asyncio.gather(
                one.write("chat", to=bob, content="x", expect_seq=last),
                two.write("chat", to=alice, content="x", expect_seq=last),
            )
            assert sorted(each["type"] for each in answers) == ["ack", "error"]
            winner, loser = sorted(answers, key=lambda each: str(each["type"]))
            assert (loser["code"], loser["seq"]) == ("conflict", winner["seq"])
            last = winner["seq"]


# --- typing ---


async def typing_seen(client: Chat, marker: Chat) -> list[str]:
    """Chats of the typing signals that a client got before a message that it gets now."""
    await marker.say(client.user, "end of typing")
    await client.until("chat", content="end of typing")
    return [frame["chat_id"] for frame in client.frames if frame["type"] == "typing"]


async def test_typing_reaches_the_other_one_and_is_not_stored(site: Site) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        one = await connect(site.edges[0], alice)
        again = await connect(site.edges[1], alice)
        two = await connect(site.edges[1], bob)
        cursor = two.cursor
        await one.send("typing", to=bob)
        assert await two.until("typing") == {
            "type": "typing",
            "chat_id": f"dm.{alice}.{bob}",
            "from": alice,
            "expires_in": 5000,
        }
        await one.say(bob, "said")
        for each in (one, again):
            await each.until("chat")
            assert "typing" not in {frame["type"] for frame in each.frames}
        late = await connect(site.edges[0], bob, cursor=cursor)
        await late.until("caught_up")
        assert [frame["type"] for frame in late.frames] == ["welcome", "chat", "caught_up"]


async def test_typing_is_passed_on_once_in_an_interval_for_each_chat(site: Site) -> None:
    alice, bob, carol = names("alice", "bob", "carol")
    async with Clients() as connect:
        one = await connect(site.edges[0], alice)
        again = await connect(site.edges[0], alice)
        two, three = await connect(site.edges[0], bob), await connect(site.edges[0], carol)
        for _ in range(5):
            for sending in (one, again):
                await sending.send("typing", to=bob)
                await sending.send("typing", to=carol)
        await two.until("typing")
        await three.until("typing")
        assert len(await typing_seen(two, one)) == 1
        assert len(await typing_seen(three, one)) == 1


async def test_typing_needs_one_addressee(site: Site) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        client = await connect(site.edges[0], alice)
        for fields in ({}, {"to": bob, "group_id": "g"}):
            assert (await client.ask("typing", **fields))["code"] == "invalid"
        assert (await client.ask("typing", group_id="g"))["code"] == "not_member"


async def test_typing_to_oneself_comes_back_to_nobody(site: Site) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        one, two = await connect(site.edges[0], alice), await connect(site.edges[0], bob)
        await one.send("typing", to=alice)
        assert await typing_seen(one, two) == []


# --- clients that leave ---


async def test_messages_of_a_client_that_died_behind_them_are_stored(site: Site) -> None:
    alice, bob = names("alice", "bob")
    async with Clients() as connect:
        receiver = await connect(site.edges[1], bob)
        dying = await connect(site.edges[0], alice)
        for number in range(30):
            await dying.send("chat", client_id=f"c{number}", to=bob, content=str(number))
        await dying.until("ack")
        dying.abort()
        again = await connect(site.edges[0], alice)
        for number in range(30):
            await again.write("chat", client_id=f"c{number}", to=bob, content=str(number))
        await receiver.until("chat", content="29")
        assert receiver.contents() == [str(number) for number in range(30)]


async def test_connections_that_came_and_went_leave_nothing(site: Site) -> None:
    edge = site.edges[0]

    def connections() -> float:
        line = next(
            line
            for line in edge.get("/metrics").splitlines()
            if line.startswith("hikyaku_edge_connections ")
        )
        return float(line.split()[1])

    await eventually(lambda: connections() == 0, what="the tests before have left")
    async with Clients() as connect:
        clients = [await connect(edge, user) for user in names(*["u"] * 20)]
        assert connections() == 20
        for client in clients[:10]:
            client.abort()
        await eventually(lambda: connections() == 10)
    await eventually(lambda: connections() == 0)
