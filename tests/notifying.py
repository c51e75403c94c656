"""Runs `hikyaku worker notify` with short leases, so that what a kill left is done again soon.

python -m tests.notifying 1.0
"""

import sys

from broker.consumer import durable
from broker.log import STREAM
from workers import notify
from workers.push import delivery

_lease_s = float(sys.argv[1])
delivery.LEASE_S = _lease_s + 1.0
notify.NEWS_LEASE_S = _lease_s
notify.CONSUMER = durable(STREAM, notify.NAME, ack_wait_s=_lease_s)

from deploy.cli import main  # noqa: E402

sys.exit(main(["worker", notify.NAME]))
