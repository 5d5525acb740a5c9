"""The hub: places events in the order of their commits, and wakes whoever waits for them."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import psycopg

from gateway.store import events
from gateway.store.pool import connect

__all__ = ["Hub"]

_log = logging.getLogger(__name__)

_LOOK_ANYWAY_S = 5.0
_LONGEST_BACKOFF_S = 5.0


class Hub:
    """One per process. Clients read from the database themselves, so a slow one holds nobody up."""

    def __init__(self, database: str, *, rng: Random) -> None:
        """Listen to `database`."""
        self._database = database
        self._rng = rng
        self._pulse = asyncio.Event()
        self.connected = False

    @property
    def pulse(self) -> asyncio.Event:
        """The event that is set once there may be more to read. Take it before reading, wait for it after."""
        return self._pulse

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Work beside the body of the context."""
        async with asyncio.TaskGroup() as tasks:
            work = tasks.create_task(self._run(), name="stream hub")
            yield
            work.cancel()

    async def _run(self) -> None:
        failures = 0
        while True:
            try:
                await self._listen()
            except (psycopg.OperationalError, psycopg.errors.UndefinedTable) as exc:
                failures = 1 if self.connected else failures + 1
                self.connected = False
                _log.warning("the stream has lost the database", extra={"error": type(exc).__name__})
            await asyncio.sleep(self._rng.uniform(0.5, 1.0) * min(0.1 * 2 ** min(failures, 10), _LONGEST_BACKOFF_S))

    async def _listen(self) -> None:
        async with await connect(self._database, name="stream") as conn:
            await conn.execute(f"LISTEN {events.CHANNEL}")
            while True:
                await events.place(conn)
                self.connected = True
                self._wake()
                # Asking now and then finds out about a dead connection, and about events whose news got lost with one.
                async for _ in conn.notifies(timeout=_LOOK_ANYWAY_S, stop_after=1):
                    pass

    def _wake(self) -> None:
        pulse, self._pulse = self._pulse, asyncio.Event()
        pulse.set()
