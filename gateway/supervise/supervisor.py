"""The supervisor: once a second it looks at everybody whose turn it is, and tells of what it found.

One gateway at a time does this: the one that stores the first share of the telemetry.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import datetime

import psycopg

from gateway.links.steady import Anchor, SteadyClock
from gateway.metrics import SUPERVISED, SWEEP
from gateway.service.supervise import sweep
from gateway.service.troubles import (
    gather_incidents,
    settle_incidents,
    settle_troubles,
    tell_troubles,
    track_emergencies,
)
from gateway.store import supervision
from gateway.store.directory import Directory
from gateway.store.pool import Pool, is_data_error
from gateway.supervise.hearing import Horizon, Moved
from gateway.supervise.listener import Listener

__all__ = ["Supervisor"]

_log = logging.getLogger(__name__)

_EVERY_S = 1.0
_GATHER_EVERY_S = 10.0
"""How often it is looked for incidents that are over while no trouble is new."""


class Supervisor:
    """Supervises the terminals of a database."""

    def __init__(
        self, pool: Pool, directory: Directory, listener: Listener, clock: SteadyClock, *, shares: Callable[[], int]
    ) -> None:
        """`shares` is in how many parts the reports come; of those that are not stored here others say what they heard.

        `listener` has an ear for the others.
        """
        self._pool = pool
        self._directory = directory
        self._listener = listener
        self._clock = clock
        self._shares = shares
        self._horizon = Horizon()
        self._found = False
        self._gathered_s = 0.0

    async def resume(self) -> None:
        """Go on where another process stopped: with its clock, and from its horizon."""
        async with self._pool.connection() as conn:
            before = await supervision.hearing(conn)
        self._clock.resume(None if before is None else Anchor(before.horizon, before.boot, before.uptime_s))
        self._horizon.resume(None if before is None else before.horizon)

    async def run(self) -> None:
        """Supervise until cancelled."""
        with self._listener.leading():
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._every_second(self._round), name="supervisor-look")
                # Apart from looking: who is told of one loss must not keep the next one from being found.
                tasks.create_task(self._every_second(self._tell), name="supervisor-tell")

    async def _every_second(self, act: Callable[[], Awaitable[None]]) -> None:
        while True:
            began_s = time.monotonic()
            try:
                await act()
            except psycopg.Error as exc:
                if is_data_error(exc):
                    _log.exception("a part of supervision failed")
                else:
                    _log.warning("cannot supervise now: %s %s", type(exc).__name__, exc.sqlstate)
            except Exception:  # noqa: BLE001 # one terminal that we fail on must not end the supervision of all others
                _log.exception("a part of supervision failed")
            await asyncio.sleep(max(0.05, _EVERY_S - (time.monotonic() - began_s)))

    async def _round(self) -> None:
        until = dict(await self._listener.listen())
        async with self._pool.connection() as conn:
            # Others go by our clock, and what we wait for may wait for that.
            await supervision.say_steady(conn, self._clock.now())
            # Also those that there are no more: what is left in them belongs to the time before.
            elsewhere = await supervision.shares_heard(conn)
        shares = set(range(self._shares())) | set(elsewhere)
        before = self._horizon.at
        moved = self._horizon.move(until[share] if share in until else elsewhere.get(share) for share in shares)
        if moved is None:
            return
        try:
            await self._note(moved)
        except BaseException:
            self._horizon.resume(before)  # else nobody would know the next time that we had been deaf
            raise
        await self._look(moved.horizon)

    async def _note(self, moved: Moved) -> None:
        now = moved.horizon
        anchor = self._clock.anchor(now)
        async with self._pool.connection() as conn, conn.transaction():
            await supervision.keep_hearing(
                conn, horizon=now, boot=anchor.boot, uptime_s=anchor.uptime_s, steady=self._clock.now()
            )
            if moved.deaf_from is not None:
                heard, overdue = await supervision.silent_share(conn, since=moved.deaf_from, now=now)
                # A broker that was there has kept what most of them said. One that was not has kept nothing.
                total = overdue > heard
                await supervision.hear_again(conn, moved.deaf_from, now, total=total)
                _log.warning(
                    "nothing was heard for %.1f s%s",
                    (now - moved.deaf_from).total_seconds(),
                    ", nor kept for us: terminals get the time to report again" if total else "",
                )

    async def _look(self, now: datetime) -> None:
        shift = self._clock.shift()
        more = True
        while more:
            with SWEEP.time():
                swept = await sweep(self._pool, self._directory.keyring, now=now, shift=shift)
            SUPERVISED.labels("put off").inc(swept.postponed)
            SUPERVISED.labels("looked at").inc(swept.looked_at)
            SUPERVISED.labels("opened").inc(swept.opened)
            SUPERVISED.labels("cleared").inc(swept.cleared)
            self._found = self._found or swept.opened > 0
            more = swept.more

    async def _tell(self) -> None:
        if self._found or time.monotonic() - self._gathered_s > _GATHER_EVERY_S:
            self._found, self._gathered_s = False, time.monotonic()
            await gather_incidents(self._pool, self._directory)
        await settle_incidents(self._pool, self._directory)
        await track_emergencies(self._pool, self._directory)
        while True:
            told = await tell_troubles(self._pool, self._directory)
            settled = await settle_troubles(self._pool, self._directory)
            if not told and not settled:
                return
