"""Keeps Python's search for cyclic garbage from stopping an edge.

A full search looks at every object there is: with 5,000 connections it stopped all messages for
100 ms, again and again while connections came. So what has lived for a while is put out of its
sight (`gc.freeze`). Nearly all garbage has no cycles and goes at once all the same, frozen or not;
for the rest there is a full search once in half an hour.
"""

import asyncio
import gc
import logging
import time

YOUNG = 5_000
"""So many new objects cause a search among the new ones: a millisecond."""

FREEZE_S = 1.0
FULL_S = 1800.0
NEVER = 1_000_000

_log = logging.getLogger("hikyaku.garbage")


async def keep_out_of_the_way() -> None:
    """Set the collector's thresholds and freeze what lives, until cancelled."""
    before = gc.get_threshold()
    gc.set_threshold(YOUNG, 10, NEVER)
    loop = asyncio.get_running_loop()
    full_at = loop.time() + FULL_S
    try:
        while True:
            gc.freeze()
            await asyncio.sleep(FREEZE_S)
            if loop.time() > full_at:
                full_at = loop.time() + FULL_S
                gc.unfreeze()
                begin_s = time.perf_counter()
                found = gc.collect()
                took_ms = (time.perf_counter() - begin_s) * 1e3
                _log.info("%d objects of cyclic garbage found in %.0f ms", found, took_ms)
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
