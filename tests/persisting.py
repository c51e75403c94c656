"""Runs `hikyaku worker persist` with a short wait for acknowledgements; it may die before one.

python -m tests.persisting 1.0 [die]
"""

import os
import signal
import sys

from broker.consumer import Puller, durable
from broker.log import STREAM
from workers import persist

ACK_WAIT_S = 1.0

persist.CONSUMER = durable(STREAM, persist.NAME, ack_wait_s=float(sys.argv[1]))


def _die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if sys.argv[2:] == ["die"]:
    Puller.ack = _die  # type: ignore[method-assign,assignment]

from deploy.cli import main  # noqa: E402

sys.exit(main(["worker", persist.NAME]))
