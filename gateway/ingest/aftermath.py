"""What follows an alarm that is stored, and can wait: the newest state of its terminal, and words that overtook it.

Nothing here holds up an alarm. In a storm much of it is done in few statements, and later.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import partial
from random import Random
from typing import TypeVar
from uuid import UUID

import psycopg

from gateway.service.take_back import Missed, Waited, missed_words, take_missed
from gateway.service.telemetry import store_states
from gateway.store.directory import Directory
from gateway.store.pool import Pool, is_data_error
from gateway.store.telemetry import StateRow

__all__ = ["Aftermath"]

_log = logging.getLogger(__name__)

T = TypeVar("T")

_AFTER_S = 0.1
_AFTER_STORM_S = 2.0
_MOST = 500
_SIDE_BY_SIDE = 3


@dataclass(frozen=True, slots=True)
class _Waiting:
    waited: Waited
    done: Callable[[], None]


class Aftermath:
    """Takes what stored alarms leave behind."""

    def __init__(
        self,
        pool: Pool,
        directory: Directory,
        *,
        worker: Callable[[], int | None],
        is_working_day: Callable[[date], bool],
        rng: Random,
        busy: Callable[[], bool],
    ) -> None:
        """While `busy` says that much is being sent, things wait a little longer."""
        self._pool = pool
        self._directory = directory
        self._worker = worker
        self._is_working_day = is_working_day
        self._rng = rng
        self._busy = busy
        self._states: asyncio.Queue[StateRow] = asyncio.Queue()
        self._waited: asyncio.Queue[_Waiting] = asyncio.Queue()

    def renew(self, state: StateRow) -> None:
        """Keep what an alarm says of the state of its terminal."""
        self._states.put_nowait(state)

    def catch_up(self, terminal: str, uid: UUID, *, since: datetime, done: Callable[[], None]) -> None:
        """Let count what a terminal took back while its alarm waited: telemetry does not wait for alarms.

        `done` is called when it does, however long the database is away until then.
        """
        self._waited.put_nowait(_Waiting(Waited(terminal, uid, since), done))

    async def run(self) -> None:
        """Follow up until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._note_states(), name="alarms-states")
            tasks.create_task(self._catch_up(), name="alarms-catch-up")

    async def _gathered(self, queue: asyncio.Queue[T], *, patient: bool) -> list[T]:
        """Wait for something, and for a moment for more of it; a longer one in a storm for who is `patient`."""
        found = [await queue.get()]
        began_s = time.monotonic()
        await asyncio.sleep(_AFTER_S)
        while patient and self._busy() and time.monotonic() - began_s < _AFTER_STORM_S:
            await asyncio.sleep(_AFTER_S)
        while len(found) < _MOST and not queue.empty():
            found.append(queue.get_nowait())
        return found

    async def _note_states(self) -> None:
        while True:
            rows = await self._gathered(self._states, patient=True)
            if not await self._stored(rows) and len(rows) > 1:
                for row in rows:
                    await self._stored([row])

    async def _stored(self, rows: list[StateRow]) -> bool:
        """Store states; they are the newest for a while only, so a database that is away is not waited for."""
        try:
            await store_states(self._pool, rows)
        except psycopg.Error as exc:
            _log.warning("cannot note the state of %d terminals: %s", len(rows), type(exc).__name__)
            return not is_data_error(exc)
        return True

    async def _catch_up(self) -> None:
        """Ask for the words of many terminals at once. Only who said something waits for its cases."""
        turns = asyncio.Semaphore(_SIDE_BY_SIDE)
        async with asyncio.TaskGroup() as tasks:
            while True:
                waiting = await self._gathered(self._waited, patient=False)
                words: dict[UUID, list[Missed]] = {}
                for missed in (
                    await self._sure(partial(missed_words, self._pool, [one.waited for one in waiting])) or ()
                ):
                    words.setdefault(missed.uid, []).append(missed)
                for one in waiting:
                    if one.waited.uid not in words:
                        one.done()
                for uid, said in words.items():
                    await turns.acquire()
                    over = [one.done for one in waiting if one.waited.uid == uid]
                    tasks.create_task(self._take_all(said, over, turns), name="alarms-words")

    async def _take_all(
        self, said: Sequence[Missed], over: Sequence[Callable[[], None]], turns: asyncio.Semaphore
    ) -> None:
        try:
            for missed in said:
                await self._sure(partial(self._take, missed))
            for done in over:
                done()
        finally:
            turns.release()

    async def _take(self, missed: Missed) -> None:
        await take_missed(
            self._pool, self._directory, missed, is_working_day=self._is_working_day, worker=self._worker()
        )

    async def _sure(self, act: Callable[[], Awaitable[T]]) -> T | None:
        """Do something as soon as the database lets us. A fault of ours is logged: people see what it is about."""
        while True:
            try:
                return await act()
            except Exception as exc:  # noqa: BLE001 # one terminal's words must not end those of all others (D12)
                if not isinstance(exc, psycopg.Error) or is_data_error(exc):
                    _log.exception("what a terminal took back could not be noted")
                    return None
                _log.warning("cannot look yet for what terminals took back: %s %s", type(exc).__name__, exc.sqlstate)
                await asyncio.sleep(self._rng.uniform(0.3, 1.0))
