"""The figures that the table shows, their units, and what each must reach."""

from typing import Literal

from msgspec import Struct


class Figure(Struct, frozen=True, kw_only=True):
    """One row: a metric of a scenario; without `goal` it is for information."""

    metric: str
    label: str
    unit: str
    goal: float | None = None
    sense: Literal["below", "above", "exactly"] = "below"

    def reached(self, value: float) -> bool | None:
        """Whether a value reaches the goal; `None` where there is none."""
        if self.goal is None:
            return None
        if self.sense == "exactly":
            return value == self.goal
        return value < self.goal if self.sense == "below" else value > self.goal

    @property
    def goal_text(self) -> str:
        """The goal as the table shows it."""
        if self.goal is None:
            return ""
        return {"below": "< ", "above": "> ", "exactly": ""}[self.sense] + shown(self.goal)


def shown(value: float) -> str:
    """A figure with three significant digits, or in whole thousands with separators."""
    if value >= 1000 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _info(metric: str, label: str, unit: str) -> Figure:
    return Figure(metric=metric, label=label, unit=unit)


FIGURES = [
    _info("dm_p50_ms", "DM at 300/s, p50", "ms"),
    Figure(metric="dm_p99_ms", label="DM at 300/s, p99", unit="ms", goal=3),
    _info("dm_max_ms", "DM at 300/s, max", "ms"),
    _info("crowded_p50_ms", "DM at 300/s among 10,000 connections, p50", "ms"),
    _info("crowded_p99_ms", "DM at 300/s among 10,000 connections, p99", "ms"),
    _info("crowded_max_ms", "DM at 300/s among 10,000 connections, max", "ms"),
    Figure(
        metric="dm_per_s", label="DM saturation", unit="delivered/s", goal=10_000, sense="above"
    ),
    Figure(metric="dm_cpu_ms", label="server CPU per DM", unit="ms", goal=0.12),
    _info("whole_per_s", "DM saturation with search and pushes", "delivered/s"),
    _info("whole_cpu_ms", "server CPU per DM with search and pushes", "ms"),
    Figure(
        metric="group50_per_s",
        label="group of 50, saturation",
        unit="deliveries/s",
        goal=40_000,
        sense="above",
    ),
    Figure(
        metric="group50_cpu_us", label="group of 50, server CPU per delivery", unit="us", goal=20
    ),
    _info("group500_p50_ms", "group of 500 at 4/s, to the last, p50", "ms"),
    Figure(
        metric="group500_p99_ms", label="group of 500 at 4/s, to the last, p99", unit="ms", goal=25
    ),
    _info("group500_max_ms", "group of 500 at 4/s, to the last, max", "ms"),
    Figure(
        metric="group500_per_s",
        label="group of 500, saturation",
        unit="deliveries/s",
        goal=100_000,
        sense="above",
    ),
    Figure(
        metric="group500_cpu_us", label="group of 500, server CPU per delivery", unit="us", goal=8
    ),
    Figure(metric="idle_kb", label="memory per idle connection", unit="kB", goal=25),
    Figure(metric="connect_cpu_ms", label="server CPU per connect", unit="ms", goal=1),
    _info("connect_edge_cpu_ms", "edges' CPU per connect", "ms"),
    _info("connects_per_s", "connects", "1/s"),
    Figure(metric="resume_ms", label="resume of 1,000 missed, one chat", unit="ms", goal=100),
    _info("resume_max_ms", "resume of 1,000 missed, slowest of all", "ms"),
    _info("resume_ten_chats_ms", "resume of 1,000 missed in ten chats", "ms"),
    _info("persist_p50_ms", "in MongoDB at 1,000/s, p50", "ms"),
    Figure(metric="persist_p99_ms", label="in MongoDB at 1,000/s, p99", unit="ms", goal=100),
    Figure(
        metric="catch_up_per_s",
        label="catching up after MongoDB was away",
        unit="messages/s",
        goal=10_000,
        sense="above",
    ),
    _info("history_p50_ms", "50 of a chat of a million, p50", "ms"),
    Figure(metric="history_p99_ms", label="50 of a chat of a million, p99", unit="ms", goal=20),
    _info("unread_p50_ms", "unread of 200 chats, 50 in each, p50", "ms"),
    Figure(
        metric="unread_p99_ms", label="unread of 200 chats, 50 in each, p99", unit="ms", goal=50
    ),
    _info("unread_full_p50_ms", "unread of 200 chats, 1,000 in each, p50", "ms"),
    _info("chats_p50_ms", "50 of a user's 1,000 chats, p50", "ms"),
    _info("chats_p99_ms", "50 of a user's 1,000 chats, p99", "ms"),
    _info("presence_online_p50_ms", "coming, until a watcher knows, p50", "ms"),
    Figure(
        metric="presence_online_p99_ms",
        label="coming, until a watcher knows, p99",
        unit="ms",
        goal=500,
    ),
    Figure(
        metric="presence_offline_p99_ms",
        label="leaving, until a watcher knows, p99",
        unit="ms",
        goal=500,
    ),
    _info("presence_subscribe_p50_ms", "beginning to watch 400 users, p50", "ms"),
    _info("channel_p50_ms", "channel of 20,000, to the last of 400, p50", "ms"),
    _info("channel_p99_ms", "channel of 20,000, to the last of 400, p99", "ms"),
    _info("channel_cpu_us", "channel of 20,000, server CPU per delivery", "us"),
    _info("found_p50_ms", "found by search after its ack at 100/s, p50", "ms"),
    Figure(
        metric="found_p99_ms",
        label="found by search after its ack at 100/s, p99",
        unit="ms",
        goal=2000,
    ),
    _info("search_p50_ms", "a search meanwhile, p50", "ms"),
    _info("search_p99_ms", "a search meanwhile, p99", "ms"),
    _info("search_many_chats_p50_ms", "a search in 1,000 chats, p50", "ms"),
    _info("search_many_chats_p99_ms", "a search in 1,000 chats, p99", "ms"),
    _info("kill_sent", "kill -9: sent", ""),
    _info("kill_acked", "kill -9: acked", ""),
    _info("kill_delivered", "kill -9: delivered", ""),
    Figure(metric="kill_lost", label="kill -9: lost", unit="", goal=0, sense="exactly"),
    Figure(
        metric="kill_doubled", label="kill -9: twice after dedupe", unit="", goal=0, sense="exactly"
    ),
    Figure(
        metric="kill_out_of_order", label="kill -9: out of order", unit="", goal=0, sense="exactly"
    ),
    Figure(
        metric="kill_overtaken",
        label="kill -9: overtaken by the sender's next",
        unit="",
        goal=0,
        sense="exactly",
    ),
    Figure(
        metric="kill_without_ack", label="kill -9: never acked", unit="", goal=0, sense="exactly"
    ),
    _info("kill_longest_wait_s", "kill -9: longest wait of a message", "s"),
    _info("kill_longest_silence_s", "kill -9: longest silence", "s"),
    _info("persist_faults_events", "kill -9 of workers and mongod: events", ""),
    Figure(
        metric="persist_faults_differ",
        label="kill -9 of workers and mongod: log and MongoDB differ",
        unit="",
        goal=0,
        sense="exactly",
    ),
]
