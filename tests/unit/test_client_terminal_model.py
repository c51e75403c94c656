"""The terminal's conversations without a terminal: pages, changes, unread and read messages."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client import (
    ChatSummary,
    DeliveryReceiptEvent,
    Message,
    MessagePage,
    ReadReceiptEvent,
    Receipt,
)
from client.terminal import render
from client.terminal.commands import Reacted, Reply, Rewrite, Simple, Wrong, parse
from client.terminal.lines import LINES_MAX, OLDER_MAX, Change, Key
from client.terminal.model import Chats, Need, Seen
from edge.frames import Activity, MessageDeleted, MessageEdited, PresenceEvent, Reaction

from .test_client_server import message
from .test_client_terminal_parts import BOB, TEAM, ack, team_message, texts

DM = "dm.alice.bob"


def stored(seq: int, content: str | None = None, **fields: Any) -> Message:
    """A message as `history` has it; bob's, if the fields do not say."""
    found = {**msgspec.to_builtins(message(seq)), **fields}
    if content is not None:
        found["content"] = content
    return msgspec.convert(found, Message)


def page(*messages: Message, more: bool = False) -> MessagePage:
    return MessagePage(messages=list(messages), more=more)


def load(chats: Chats, *messages: Message, more: bool = False, during: Any = ()) -> None:
    chats.open(BOB).begin_load()
    for event in during:
        chats.apply(event, 0)
    chats.loaded(BOB, page(*messages, more=more))


def summary(
    unread: int, last: Message | None = None, chat_id: str = DM, **more: Any
) -> ChatSummary:
    dm = chat_id.startswith("dm")
    return ChatSummary(
        chat_id=chat_id, kind="dm" if dm else "group", last_message=last, unread=unread, **more
    )


def edited(seq: int, of: int, content: str) -> MessageEdited:
    return MessageEdited(
        seq=seq, chat_id=DM, id=str(1000 + of), from_="bob", content=content, edited_at=seq
    )


def deleted(seq: int, of: int) -> MessageDeleted:
    return MessageDeleted(seq=seq, chat_id=DM, id=str(1000 + of), from_="bob", deleted_at=seq)


def reaction(seq: int, of: int, emoji: str, user: str = "bob", removed: bool = False) -> Reaction:
    return Reaction(
        seq=seq, chat_id=DM, id=str(1000 + of), from_=user, emoji=emoji, removed=removed
    )


def receipt(reader: str, of: int, seq: int | None = None) -> ReadReceiptEvent:
    return ReadReceiptEvent(
        chat_id=DM, reader_id=reader, last_read_msg_id=str(1000 + of), read_seq=of, seq=seq
    )


def delivery(user: str, of: int) -> DeliveryReceiptEvent:
    return DeliveryReceiptEvent(
        chat_id=DM, user_id=user, last_delivered_msg_id=str(1000 + of), delivered_seq=of
    )


def shown(chats: Chats, key: Key = BOB) -> str:
    return render.conversation(chats.all[key], chats.me).plain


# --- pages of history ---


@given(st.lists(st.integers(1, 40), unique=True), st.lists(st.integers(1, 40), unique=True))
def test_a_page_and_what_came_live_are_one(live: list[int], read: list[int]) -> None:
    chats = Chats("alice")
    for seq in live:
        chats.apply(message(seq), 0)
    load(chats, *[stored(seq) for seq in sorted(read, reverse=True)], more=True)
    assert texts(chats, BOB) == [f"message {seq}" for seq in sorted({*live, *read})]
    assert chats.all[BOB].older is True


@given(st.data())
def test_changes_arrive_in_the_same_state_whenever_the_page_was_made(data: st.DataObject) -> None:
    """The page knows the first few changes; the rest, or all, come while it is on its way."""
    changes: list[Change] = data.draw(
        st.lists(
            st.one_of(
                st.builds(lambda text: edited(9, 1, text), st.sampled_from("abc")),
                st.builds(
                    lambda emoji, user, removed: reaction(9, 1, emoji, user, removed),
                    st.sampled_from("xy"),
                    st.sampled_from(["bob", "carol"]),
                    st.booleans(),
                ),
                st.just(deleted(9, 1)),
            ),
            max_size=8,
        )
    )
    known = data.draw(st.integers(0, len(changes)))
    late = data.draw(st.integers(0, known))
    reference = Chats("alice")
    reference.apply(message(1), 0)
    for change in changes[:known]:
        reference.apply(change, 0)
    line = reference.all[BOB].lines[0]
    as_read = stored(
        1,
        content=line.text,
        edited_at=line.edited_at or None,
        deleted=line.deleted,
        reactions={emoji: list(users) for emoji, users in line.reactions.items()},
    )
    for change in changes[known:]:
        reference.apply(change, 0)
    chats = Chats("alice")
    load(chats, as_read, during=changes[late:])
    found, wanted = chats.all[BOB].lines[0], reference.all[BOB].lines[0]
    assert (found.text, found.deleted) == (wanted.text, wanted.deleted)
    assert {emoji: sorted(users) for emoji, users in found.reactions.items()} == {
        emoji: sorted(users) for emoji, users in wanted.reactions.items()
    }


def test_an_own_message_whose_answer_was_lost_is_found_in_a_page() -> None:
    chats = Chats("alice")
    chats.sending(BOB, "mine", "hello", 0)
    chats.failed(BOB, "mine", "no connection")
    load(
        chats,
        stored(6, "hello", **{"from": "alice", "to": "bob", "client_id": "mine"}),
        stored(5, "earlier"),
    )
    assert [(line.text, line.state) for line in chats.all[BOB].lines] == [
        ("earlier", "received"),
        ("hello", "sent"),
    ]


def test_another_s_client_id_is_not_taken_for_ours() -> None:
    chats = Chats("alice")
    chats.sending(BOB, "c5", "mine", 0)
    load(chats, stored(5, "bob's"))
    assert texts(chats, BOB) == ["bob's", "mine"]


def test_what_is_trimmed_is_older_again_and_not_while_a_page_comes() -> None:
    chats = Chats("alice")
    load(chats, stored(1000), more=False)
    chat = chats.all[BOB]
    for seq in range(1001, 1001 + LINES_MAX - 1):
        chats.apply(message(seq), 0)
    assert chat.older is False
    chat.begin_load()
    chats.apply(message(2000), 0)
    assert len(chat.lines) == LINES_MAX + 1
    chats.loaded(BOB, None)
    chats.apply(message(2001), 0)
    assert (len(chat.lines), chat.older) == (LINES_MAX, True)
    load(chats, *[stored(seq) for seq in range(900, 800, -1)], more=True)
    chats.select(BOB)
    chats.apply(message(2002), 0)
    assert len(chat.lines) == LINES_MAX + 100, "what was read back stays"
    chats.step(1)
    assert len(chat.lines) == LINES_MAX
    load(chats, *[stored(seq) for seq in range(5000 + OLDER_MAX, 5000, -1)], more=True)
    assert "do not fit" in shown(chats)


# --- what is shown ---


def test_changes_and_threads_are_shown() -> None:
    chats = Chats("alice")
    chats.apply(message(1, "lunch at noon, at the usual place?"), 0)
    chats.apply(message(2, "sure", thread="1001", reply_to="1001"), 0)
    chats.apply(message(3, "from long ago", thread="77"), 0)
    chats.apply(message(4, "oops"), 0)
    chats.apply(edited(5, 2, "sure!"), 0)
    for number, user in enumerate(("bob", "carol", "dave", "alice")):
        chats.apply(reaction(6 + number, 1, "👍", user), 0)
    chats.apply(reaction(10, 1, "🎉"), 0)
    chats.apply(deleted(11, 4), 0)
    chats.apply(reaction(12, 4, "👍"), 0)
    text = shown(chats)
    assert "👍 4   🎉 bob   1 reply" in text
    assert "↳ bob: lunch at noon, at the u…\n      bob sure! (edited)" in text
    assert "↳ in a thread\n      bob from long ago" in text
    assert "bob message deleted\n" in text + "\n"
    assert "oops" not in text
    chats.apply(reaction(13, 1, "🎉", removed=True), 0)
    chats.apply(message(14, "ok", thread="1001"), 0)
    assert "👍 4   2 replies" in shown(chats)
    chats.apply(deleted(14, 2), 0)
    assert "👍 4   1 reply" in shown(chats)
    load(chats, stored(1, "lunch?", replies=7), during=[deleted(15, 1)])
    assert "7 replies" in shown(chats)
    assert "↳ bob: message deleted" in shown(chats)


def test_own_answers_count_once() -> None:
    chats = Chats("alice")
    chats.apply(message(1, "question"), 0)
    root = chats.all[BOB].lines[0]
    line = chats.sending(BOB, "mine", "answer", 0, answers=root)
    assert (line.thread, line.reply_to) == ("1001", "1001")
    chats.sent(BOB, "mine", ack("mine", 2))
    own = message(2, "answer", from_="alice", to="bob", client_id="mine", thread="1001")
    chats.apply(own, 0)
    assert root.replies == 1
    again = chats.sending(BOB, "more", "and more", 0, answers=line)
    assert (again.thread, again.reply_to) == ("1001", line.id)


def test_the_top_says_what_is_above() -> None:
    chats = Chats("alice")
    chats.open(BOB).begin_load()
    assert shown(chats).startswith("loading…")
    chats.loaded(BOB, page(stored(5), more=True))
    assert "PgUp for older" in shown(chats)
    load(chats, stored(4))
    assert "This is where it begins." in shown(chats)


def test_two_ticks_when_the_other_one_has_read() -> None:
    chats = Chats("alice")
    for seq in (1, 2, 3):
        chats.apply(message(seq, from_="alice", to="bob"), 0)
    chats.apply(receipt("bob", 2), 0)
    assert [line.endswith("✓✓") for line in shown(chats).splitlines()[-3:]] == [True, True, False]
    chats.apply(receipt("bob", 9), 0)
    assert shown(chats).count("✓✓") == 3, "that message is not here yet"
    load(chats, stored(9, **{"from": "alice", "to": "bob", "client_id": "x"}))
    assert shown(chats).count("✓✓") == 4


def test_ticks_for_sent_delivered_and_read() -> None:
    chats = Chats("alice")
    for seq in (1, 2, 3):
        chats.apply(message(seq, from_="alice", to="bob"), 0)

    def ticks() -> list[str]:
        text = render.conversation(chats.all[BOB], "alice")
        found = [
            (span.start, f"{text.plain[span.start : span.end].strip()} {span.style}")
            for span in text.spans
            if "✓" in text.plain[span.start : span.end]
        ]
        return [tick for _, tick in sorted(found)]

    sent, got, read = "✓ dim green", "✓✓ dim", "✓✓ green"
    assert ticks() == [sent, sent, sent]
    chats.apply(delivery("bob", 2), 0)
    chats.apply(delivery("alice", 3), 0)
    assert ticks() == [got, got, sent]
    chats.apply(receipt("bob", 1), 0)
    chats.apply(delivery("bob", 1), 0)
    assert ticks() == [read, got, sent]
    told = Receipt(last_read_msg_id="1002", read_seq=2, delivered_seq=3)
    chats.receipts(BOB, {"alice": Receipt(read_seq=9), "bob": told})
    assert ticks() == [read, read, got]


def test_the_list_has_the_ticks_too() -> None:
    chats = Chats("alice")
    last = stored(3, **{"from": "alice", "to": "bob", "client_id": "x"})
    row = summary(0, last)
    row.receipts = {"bob": Receipt(read_seq=3, delivered_seq=3)}
    chats.listed([row])
    load(chats, last)
    assert shown(chats).count("✓✓") == 1


# --- what is unread ---


def test_the_server_s_counts_are_taken_and_later_messages_added() -> None:
    chats = Chats("alice")
    chats.apply(message(9, "before the list came"), 0)
    chats.listed(
        [
            summary(3, stored(8)),
            summary(0, None, "group.team", name="Our team"),
            summary(2, None, "user.x"),
            summary(1, None, "dm.x.y"),
        ]
    )
    assert chats.all[BOB].unread == 4
    assert [chat.title for chat in chats.ordered()] == ["Start here", "bob", "#Our team"]
    chats.apply(message(7, "in the catch-up, counted already"), 0)
    assert chats.all[BOB].unread == 4
    chats.apply(message(10), 0)
    assert chats.all[BOB].unread == 5
    chats.apply(team_message(11, "hi"), 0)
    assert [chat.title for chat in chats.ordered()] == ["Start here", "#Our team", "bob"]
    chats.select(BOB)
    chats.listed([summary(5, stored(10))])
    assert chats.all[BOB].unread == 0


def test_what_another_device_read_is_read() -> None:
    chats = Chats("alice")
    for seq in (1, 2, 3):
        chats.apply(message(seq), 0)
    assert chats.apply(receipt("alice", 2, 4), 0) == []
    assert chats.all[BOB].unread == 1
    assert chats.apply(receipt("alice", 1, 5), 0) == []
    assert chats.all[BOB].unread == 1
    assert chats.apply(receipt("alice", 77, 6), 0) == [Need("unread", BOB)]
    chats.counted(BOB, 0)
    assert chats.apply(receipt("alice", 78, 7), 0) == []
    elsewhere = ReadReceiptEvent(chat_id="dm.x.y", reader_id="x", last_read_msg_id="1")
    assert chats.apply(elsewhere, 0) == []


def test_a_replayed_pointer_leaves_what_came_after_it_unread() -> None:
    """The log: a message, its reading on another device, one more message."""
    chats = Chats("alice")
    chats.listed([summary(1, stored(3))])
    chats.apply(message(1), 0)
    chats.apply(receipt("alice", 1, 2), 0)
    chats.apply(message(3), 0)
    assert chats.all[BOB].unread == 1


def test_looking_at_the_end_is_told_once() -> None:
    chats = Chats("alice")
    assert chats.look() is None
    chats.apply(message(1), 0)
    chats.select(BOB)
    seen = Seen(BOB, DM, "1001")
    assert chats.look() == seen
    assert chats.look() is None
    chats.unseen(seen)
    assert chats.look() == seen
    chats.reading = False
    chats.apply(message(2), 0)
    assert chats.look() is None
    assert chats.all[BOB].unread == 1
    chats.reading = True
    assert chats.look() == Seen(BOB, DM, "1002")
    assert chats.all[BOB].unread == 0
    chats.apply(message(3, from_="alice", to="bob"), 0)
    assert chats.look() is None, "own messages are not told"


def test_a_line_shows_where_the_new_ones_begin() -> None:
    chats = Chats("alice")
    chats.listed([summary(2, stored(5))])
    chats.select(BOB)
    assert "new" not in shown(chats)
    load(chats, stored(5), stored(4), stored(3))
    assert (
        shown(chats).index("message 3")
        < shown(chats).index("── new")
        < shown(chats).index("message 4")
    )
    chats.step(1)
    assert "new" not in shown(chats)


def test_where_the_new_ones_begin_is_found_in_older_pages() -> None:
    chats = Chats("alice")
    chats.listed([summary(3, stored(5))])
    chats.select(BOB)
    load(chats, stored(5), stored(4), more=True)
    chats.apply(message(6), 0)
    assert "── new" not in shown(chats)
    load(chats, stored(3), stored(2))
    assert (
        shown(chats).index("message 2")
        < shown(chats).index("── new")
        < shown(chats).index("message 3")
    )


def test_news_of_a_channel_that_is_not_followed() -> None:
    chats = Chats("alice")
    chats.apply(team_message(1, "old"), 0)
    assert chats.apply(Activity(chat_id="group.team", seq=9), 0) == [Need("unread", TEAM)]
    assert texts(chats, TEAM) == []
    chats.select(TEAM)
    assert chats.apply(Activity(chat_id="group.team", seq=0), 0) == [Need("messages", TEAM)]
    assert chats.all[TEAM].newest == 9
    assert chats.apply(Activity(chat_id="group.new", seq=9), 0) == [Need("chats")]


def test_who_is_there_is_asked_and_shown() -> None:
    chats = Chats("alice")
    assert chats.apply(message(1), 0) == [Need("presence", BOB)]
    chats.apply(PresenceEvent(user_id="bob", status="online", text="", last_seen=None), 0)
    chats.apply(PresenceEvent(user_id="zoe", status="online", text="", last_seen=None), 0)
    assert chats.apply(message(2), 0) == []
    assert render.title(chats.all[BOB]).plain == "● bob             2"
    chats.presence("bob", "offline")
    chats.counted(BOB, 1000)
    assert render.title(chats.all[BOB], width=12).plain == "  bob   999+"


def test_the_first_page_says_what_there_is() -> None:
    chats = Chats("alice")
    chats.greet()
    assert chats.current.lines == []
    chats.listed([summary(2, stored(5)), summary(0, None, "group.team", name="Team")])
    chats.greet()
    assert "Conversations: 2, 2 unread in 1 of them." in texts(chats, chats.selected)[0]


# --- commands ---


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("/edit  better words ", Rewrite("better words")),
        ("/delete", Simple("delete")),
        ("/reply yes", Reply("yes")),
        ("/react 👍", Reacted("👍")),
        ("/react +1", Reacted("👍")),
        ("/react :Heart:", Reacted("❤")),
    ],
)
def test_commands(line: str, command: object) -> None:
    assert parse(line) == command


@pytest.mark.parametrize("line", ["/edit", "/reply ", "/react", "/react x", "/react 👍 👍"])
def test_wrong_commands(line: str) -> None:
    assert isinstance(parse(line), Wrong)
