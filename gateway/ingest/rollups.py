"""Rollups by the clock: each hour of heartbeats and day of positions once it is over, and again when it changes."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from random import Random

from gateway.store import rollups
from gateway.store.pool import Pool

__all__ = ["keep_rolled_up", "roll_up_changes"]

_log = logging.getLogger(__name__)

_LOOK_EVERY_S = 60.0
_SETTLES = timedelta(minutes=2)
"""How long after its end an hour is rolled up first: stragglers of its last beats are in by then."""

_BATCH = 50
_LIVES_LONGER = 4


async def keep_rolled_up(pool: Pool, *, days: timedelta, rng: Random) -> None:
    """Roll up what has changed, now and once a minute, until cancelled.

    Rollups are kept four times as long as the reports themselves, which is `days`.
    """
    while True:
        now = datetime.now(UTC)
        await roll_up_changes(pool, now=now)
        async with pool.connection() as conn:
            while await rollups.forget(conn, now - days * _LIVES_LONGER):
                await asyncio.sleep(0)
        await asyncio.sleep(_LOOK_EVERY_S * rng.uniform(0.9, 1.1))


async def roll_up_changes(pool: Pool, *, now: datetime) -> int:
    """Roll up all that has changed and is over; returns how many hours and days that were."""
    done = 0
    async with pool.connection() as conn:
        timescale = await rollups.has_timescale(conn)
        while found := await rollups.wanted(conn, ended_before=now - _SETTLES, limit=_BATCH):
            for one in found:
                await rollups.roll_up(conn, one, timescale=timescale)
                done += 1
            if len(found) < _BATCH:
                break
    if done:
        _log.debug("%d hours and days of telemetry were rolled up", done)
    return done
