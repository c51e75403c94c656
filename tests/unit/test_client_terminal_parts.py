"""The terminal client without a terminal: commands, conversations, rendering, plain words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client import errors
from client.messages import Hit, SearchPage
from client.state import ConnectionState
from client.terminal import render, words
from client.terminal.commands import HELP, Dm, Find, GroupCommand, Say, Simple, Wrong, parse
from client.terminal.found import found
from client.terminal.lines import HOME, LINES_MAX, Key, Line
from client.terminal.model import Chats, Need
from edge.frames import (
    Ack,
    CaughtUp,
    GroupChatEvent,
    GroupUpdated,
    MemberAdded,
    MemberRemoved,
    Missing,
    TypingEvent,
)

from .test_client_server import message

BOB = Key("dm", "bob")
TEAM = Key("group", "team")


def ack(client_id: str, seq: int) -> Ack:
    return Ack(
        id=1, client_id=client_id, message_id="1", chat_id="c", seq=seq, timestamp=86_400_000
    )


def team_message(seq: int, content: str, author: str = "bob") -> GroupChatEvent:
    return GroupChatEvent(
        seq=seq,
        chat_id="group.team",
        id=str(seq),
        from_=author,
        group_id="team",
        content=content,
        content_type="text",
        timestamp=1000,
        client_id=f"c{seq}",
    )


def texts(chats: Chats, key: Key) -> list[str]:
    return [line.text for line in chats.all[key].lines]


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("", None),
        ("   ", None),
        ("hello", Say("hello")),
        ("//dm bob", Say("/dm bob")),
        ("/dm bob", Dm("bob")),
        ("/DM  two words ", Dm("two words")),
        ('/dm "two words"', Dm("two words")),
        ('/dm the "one"', Dm('the "one"')),
        ("/help", Simple("help")),
        ("/quit", Simple("quit")),
        ("/exit", Simple("quit")),
        ("/retry", Simple("retry")),
        ("/search lunch on friday", Find("lunch on friday")),
        ('/group create t "Our team" bob', GroupCommand("create", ("t", "Our team", "bob"))),
        ("/group add bob carol", GroupCommand("add", ("bob", "carol"))),
        ("/group leave", GroupCommand("leave")),
        ("/group join news", GroupCommand("join", ("news",))),
    ],
)
def test_commands(line: str, command: object) -> None:
    assert parse(line) == command


@pytest.mark.parametrize(
    "line",
    [
        "/dm",
        '/dm ""',
        "/search ",
        "/",
        "/nonsense",
        "/group",
        "/group fly",
        "/group create t",
        "/group join",
        "/group leave now",
        '/group create t "open',
    ],
)
def test_what_is_wrong_is_said_how_to_write(line: str) -> None:
    command = parse(line)
    assert isinstance(command, Wrong)
    assert command.text


@given(st.text())
def test_any_line_can_be_typed(line: str) -> None:
    command = parse(line)
    if not line.strip().startswith("/"):
        assert command == (Say(line.strip()) if line.strip() else None)


def hit(content: str, highlight: str | None, chat: str = "group.team", by: str = "bob") -> Hit:
    return Hit(
        id="1",
        seq=1,
        chat_id=chat,
        from_=by,
        content=content,
        content_type="text",
        timestamp=86_400_000,
        client_id="c",
        highlight=highlight,
    )


def test_what_was_found_is_said_with_what_fits_in_bold() -> None:
    chats = Chats("alice")
    chats.name_group("team", "Our team")
    hits = [
        hit("see you\nat lunch", "see you\nat \ue000lunch\ue001"),
        hit("lunch, edited", None, "dm.alice.carol", "alice"),
        hit("\x1b[31mlunch", "\x1b[31m\ue000lunch\ue001", "group.other"),
    ]
    chats.notice(found(SearchPage(hits=hits, total=40), "lunch", chats), key=HOME)
    shown = render.conversation(chats.all[HOME], "alice")
    first, *lines = shown.plain.splitlines()
    assert first == "40 messages with lunch, the best 3:"
    assert lines[0].endswith("#Our team  bob: see you at lunch")
    assert lines[1].endswith("carol  you: lunch, edited")
    assert lines[2].endswith("#other  bob: \ufffd[31mlunch")
    bold = [shown.plain[span.start : span.end] for span in shown.spans if span.style == "bold"]
    assert bold == ["lunch", "lunch"]


def test_nothing_found_and_one() -> None:
    chats = Chats("alice")
    assert found(SearchPage(hits=[]), "x", chats) == "Nothing was found for: x"
    one = SearchPage(hits=[hit("x", "\ue000x\ue001")], total=1)
    assert found(one, "x", chats).startswith("One message with x:")


def test_the_help_fits_beside_the_sidebar() -> None:
    assert max(len(line) for line in HELP.splitlines()) <= 55
    assert len(HELP.splitlines()) <= 18


def test_messages_open_conversations_and_count_until_they_are_looked_at() -> None:
    chats = Chats("alice")
    chats.apply(message(1, "hi"), 0)
    chats.apply(message(2, "there"), 0)
    assert chats.apply(team_message(3, "team"), 0) == [Need("name", TEAM)]
    assert chats.apply(team_message(4, "again"), 0) == []
    assert chats.all[BOB].unread == 2
    chats.select(BOB)
    assert chats.all[BOB].unread == 0
    chats.apply(message(5, "seen"), 0)
    assert chats.all[BOB].unread == 0
    assert texts(chats, BOB) == ["hi", "there", "seen"]
    chats.step(1)
    assert chats.selected == TEAM
    chats.step(1)
    assert chats.selected == HOME
    chats.step(-1)
    assert chats.selected == TEAM


def test_own_messages_of_another_device_are_no_news() -> None:
    chats = Chats("alice")
    chats.apply(message(1, "from my phone", from_="alice", to="bob"), 0)
    assert chats.all[BOB].lines[0].state == "sent"
    assert chats.all[BOB].unread == 0


@pytest.mark.parametrize("event_first", [True, False])
def test_an_own_message_takes_its_place_once(event_first: bool) -> None:
    chats = Chats("alice")
    chats.sending(BOB, "mine", "hello", 0)
    own = message(7, "hello", from_="alice", to="bob", client_id="mine")
    if event_first:
        chats.apply(own, 0)
    chats.sent(BOB, "mine", ack("mine", 7))
    chats.apply(message(6, "earlier"), 0)
    if not event_first:
        chats.apply(own, 0)
    chats.failed(BOB, "mine", "too late to matter")
    assert [(line.text, line.seq, line.state) for line in chats.all[BOB].lines] == [
        ("earlier", 6, "received"),
        ("hello", 7, "sent"),
    ]


def test_what_failed_can_be_sent_again() -> None:
    chats = Chats("alice")
    chats.sending(BOB, "one", "hello", 0)
    chats.failed(BOB, "one", "no connection")
    assert chats.all[BOB].lines[0].state == "failed"
    assert [line.client_id for line in chats.failures(BOB)] == ["one"]
    assert chats.all[BOB].lines[0].state == "sending"
    assert chats.failures(BOB) == []


@given(st.permutations(list(range(1, 9))))
def test_lines_stand_in_the_order_of_the_log(order: list[int]) -> None:
    chats = Chats("alice")
    chats.sending(BOB, "pending", "last", 0)
    for seq in order:
        chats.apply(message(seq), 0)
    assert texts(chats, BOB) == [*[f"message {seq}" for seq in range(1, 9)], "last"]


def test_old_lines_are_forgotten() -> None:
    chats = Chats("alice")
    for seq in range(1, LINES_MAX + 11):
        chats.apply(message(seq), 0)
    assert len(chats.all[BOB].lines) == LINES_MAX
    assert chats.all[BOB].lines[0].seq == 11


def test_group_events_are_told() -> None:
    chats = Chats("alice")

    def apply(event: MemberAdded | MemberRemoved | GroupUpdated) -> str:
        chats.apply(event, 0)
        return chats.all[TEAM].lines[-1].text

    def added(by: str, *users: str) -> MemberAdded:
        return MemberAdded(seq=1, chat_id="group.team", group_id="team", by=by, users=list(users))

    def removed(by: str, *users: str) -> MemberRemoved:
        return MemberRemoved(seq=1, chat_id="group.team", group_id="team", by=by, users=list(users))

    assert apply(added("bob", "alice", "carol")) == "bob added you, carol"
    assert apply(added("alice", "dave")) == "you added dave"
    assert apply(added("eve", "eve")) == "eve joined"
    assert apply(removed("bob", "carol")) == "bob removed carol"
    assert apply(removed("eve", "eve")) == "eve left"
    named = GroupUpdated(
        seq=2, chat_id="group.team", group_id="team", by="bob", name="Us", roles={"eve": "admin"}
    )
    assert apply(named) == "bob made eve admin"
    assert chats.all[TEAM].title == "#Us"


def test_what_may_have_gaps_is_forgotten_and_asked_for_again() -> None:
    chats = Chats("alice")
    chats.apply(message(1, "old"), 0)
    chats.apply(team_message(2, "kept"), 0)
    chats.sending(BOB, "mine", "unsent", 0)
    missing = [Missing(chat_id="dm.alice.bob", from_seq=3, to_seq=10)]
    assert chats.apply(CaughtUp(cursor="e:9", recovered=True), 0) == []
    assert chats.apply(CaughtUp(cursor="e:9", recovered=True, missing=missing), 0) == [
        Need("chats")
    ]
    assert texts(chats, BOB) == ["unsent"]
    assert texts(chats, TEAM) == ["kept"]
    chats.apply(CaughtUp(cursor="f:1", recovered=False), 0)
    assert texts(chats, TEAM) == []
    assert texts(chats, BOB) == ["unsent"]


def test_typing_is_shown_until_it_expires_or_the_message_comes() -> None:
    chats = Chats("alice")
    for chat in (BOB, Key("group", "té.m")):
        chats.open(chat)
    chats.apply(TypingEvent(chat_id="dm.alice.bob", from_="bob", expires_in=5000), 100.0)
    chats.apply(TypingEvent(chat_id="group.t=C3=A9=2Em", from_="carol"), 100.0)
    chats.apply(TypingEvent(chat_id="dm.alice.bob", from_="alice"), 100.0)
    chats.apply(TypingEvent(chat_id="dm.alice.zoe", from_="zoe"), 100.0)
    assert list(chats.all[BOB].typing) == ["bob"]
    assert list(chats.all[Key("group", "té.m")].typing) == ["carol"]
    assert Key("dm", "zoe") not in chats.all, "typing alone opens nothing"
    assert not chats.expire_typing(104.9)
    assert chats.expire_typing(105.0)
    assert not chats.all[BOB].typing
    chats.apply(TypingEvent(chat_id="dm.alice.bob", from_="bob"), 200.0)
    chats.apply(message(1, "done"), 200.0)
    assert not chats.all[BOB].typing


@pytest.mark.parametrize(
    ("users", "shown"),
    [
        ([], ""),
        (["bob"], "bob is typing…"),
        (["bob", "eve"], "bob, eve are typing…"),
        (["a", "b", "c", "d"], "4 people are typing…"),
        (["b\x1b[2Jb\n"], "b�[2Jb  is typing…"),
    ],
)
def test_who_is_typing(users: list[str], shown: str) -> None:
    assert render.typing(users) == shown


@given(st.text(st.characters()))
def test_nothing_that_steers_the_terminal_gets_through(text: str) -> None:
    cleaned = render.clean(text)
    assert all(c == "\n" or c >= " " for c in cleaned)
    assert not set(cleaned) & set("\x7f\x9b\x85\u202e\u2066\u200f")
    assert "\n" not in render.one_line(text)


def test_what_is_shown_of_a_conversation() -> None:
    chats = Chats("alice")
    chats.apply(message(1, "hi [bold]bob[/]"), 0)
    chats.sending(BOB, "a", "on its way", 1000)
    chats.sending(BOB, "b", "sad", 2000)
    chats.failed(BOB, "b", "no connection")
    chats.notice("a notice", key=BOB)
    chats.apply(message(2, "mine", from_="alice", to="bob"), 0)
    shown = render.conversation(chats.all[BOB], "alice").plain
    assert "bob hi [bold]bob[/]" in shown
    assert "alice on its way  sending…" in shown
    assert "alice sad  ✗ not sent: no connection (/retry)" in shown
    assert "alice mine  ✓" in shown
    assert shown.index("a notice") < shown.index("alice mine")
    assert "──" in shown, "another day"


def test_titles_have_one_line_and_the_unread_count() -> None:
    chats = Chats("alice")
    chats.apply(message(1, from_="bo\nb"), 0)
    assert render.title(chats.all[Key("dm", "bo\nb")]).plain.split() == ["bo", "b", "1"]


@pytest.mark.parametrize(
    ("state", "shown"),
    [
        (ConnectionState("connecting"), "connecting"),
        (ConnectionState("online"), "online"),
        (ConnectionState("waiting", 4.2, "the server restarts"), "in 4 s: the server restarts"),
        (ConnectionState("waiting", 0.5, "gone"), "in 0 s"),
        (ConnectionState("stopped"), "disconnected"),
    ],
)
def test_the_connection_in_words(state: ConnectionState, shown: str) -> None:
    assert shown in words.connection(state, waited_s=1.0)[0]


def test_every_error_has_plain_words() -> None:
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.ClientError)
    ]
    for kind in kinds:
        if kind is errors.SendTimeout:
            error: errors.ClientError = errors.SendTimeout(sent=True)
        elif issubclass(kind, errors.RequestFailed):
            error = kind("code", "the message")
        else:
            error = kind("the message")
        assert words.plain(error)
        assert "Error" not in words.plain(error)


def test_a_line_is_only_data() -> None:
    assert Line("text", "notice").seq > 10**18
