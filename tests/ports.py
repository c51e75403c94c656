"""Ports for servers of tests: never the same twice, so that one chosen now may be used later.

A site chooses a dozen ports before the first of them is listened on; choosing at random among all
would meet a chosen one now and then. The product's own choice (`deploy.ports`) begins where these
end.
"""

import itertools
import os
import random
from collections.abc import Collection

from deploy.ports import LOWEST, why_not

FIRST = 2_048
DEFAULTS = {8080, 8081}
"""Edges have them where nothing else is set."""

REFUSED = {2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, *range(6665, 6670), 6679, 6697, 10080}
"""Ports that browsers open nothing from, since other protocols have them."""


def _range() -> range:
    """This process' share, among those that run tests side by side."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    share = (LOWEST - FIRST) // workers
    return range(FIRST + number * share, FIRST + (number + 1) * share)


_ports = itertools.cycle(_range())
# Two runs side by side on one machine begin at different places.
for _ in range(random.randrange(len(_range()))):
    next(_ports)


def free_port(avoid: Collection[int] = ()) -> int:
    """A loopback port on which nobody listens, and that this process was not given before."""
    for port in itertools.islice(_ports, len(_range())):
        if port not in {*DEFAULTS, *REFUSED, *avoid} and not why_not("127.0.0.1", port):
            return port
    raise AssertionError("every port of the tests is in use")
