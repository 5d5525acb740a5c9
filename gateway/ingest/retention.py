"""Retention: whole days of telemetry are dropped when they are too old; cases and journals are not concerned."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from random import Random

from psycopg.errors import LockNotAvailable

from gateway.service.telemetry import SANE_CLOCK
from gateway.store.pool import Pool
from gateway.store.telemetry import compress_before, forget_before

__all__ = ["forget_old", "keep_days"]

_log = logging.getLogger(__name__)

_LOOK_EVERY_S = 3600.0
_AGAIN_AFTER_S = 0.5
_SETTLED = SANE_CLOCK + timedelta(days=1)
"""Nothing is stored under an older time: what is late comes within this."""


async def keep_days(pool: Pool, days: int, *, rng: Random) -> None:
    """Drop what is older than `days`, and compress what is settled, now and once an hour, until cancelled."""
    while True:
        await forget_old(pool, days, rng=rng)
        async with pool.connection() as conn:
            compressed = await compress_before(conn, (datetime.now(UTC) - _SETTLED).date())
        if compressed:
            _log.info("%d days of telemetry were compressed", compressed)
        await asyncio.sleep(_LOOK_EVERY_S * rng.uniform(0.9, 1.1))


async def forget_old(pool: Pool, days: int, *, rng: Random) -> int:
    """Drop what is older than `days`; returns how many tables that were.

    Whoever writes goes first: a drop that does not get its turn within a tenth of a second is tried again.
    """
    before, dropped = (datetime.now(UTC) - timedelta(days=days)).date(), 0
    while True:
        try:
            async with pool.connection() as conn:
                table = await forget_before(conn, before)
        except LockNotAvailable:
            await asyncio.sleep(_AGAIN_AFTER_S * rng.uniform(0.5, 1.5))
            continue
        if table is None:
            return dropped
        dropped += 1
        _log.info("telemetry is too old and was dropped: %s", table)
