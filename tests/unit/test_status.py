"""What `hikyaku status` calls a problem, without servers."""

import pytest

from broker import alive, relay, status
from deploy.settings import Settings
from deploy.status import PINGED, _broker_problems, _link_problems


def link(**fields: object) -> relay.Link:
    told = {"site": "osaka", "connected": True, "state": "connected", "waiting": 0, **fields}
    return relay.Link(**told)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (link(since_s=99.0), []),
        (link(connected=False, state="not connected", since_s=5.0), []),
        (
            link(connected=False, state="not connected", since_s=35.0, waiting=3),
            ["the link to osaka is down for 35 s, 3 parcels wait for it: not connected"],
        ),
        (
            link(state="overlap", since_s=1.0),
            ["the link to osaka is down, 0 parcels wait for it: overlap"],
        ),
    ],
)
def test_a_link_that_is_down(found: relay.Link, said: list[str]) -> None:
    assert list(_link_problems([found])) == said


def test_a_worker_that_refuses_says_why() -> None:
    workers = [alive.Worker(worker=name, host="vm", pid=7, started=0.0) for name in PINGED]
    workers[0].waits = "the log ends at 5"
    broker = status.BrokerStatus(
        address="",
        streams=[],
        consumers=[],
        edges=[alive.Edge()],
        workers=workers[:-1],
        machine_leases=0,
        dead_letters={},
    )
    assert list(_broker_problems(broker, Settings())) == [
        "no relay answers: start `hikyaku worker relay`, or see its log",
        "directory (process 7) does not work yet: the log ends at 5",
    ]
