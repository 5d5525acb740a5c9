"""The dispatcher: takes due notices, sends them all at once, records what came of them.

Delivery is at least once, under the same id (I5). What was committed by this process is handed over in memory at
once; everything else is leased from the outbox: retries, fallbacks, what a dead worker left (D12).
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from random import Random
from uuid import UUID

import psycopg

from gateway.domain.outbox import DueNotice, GiveUp, Outcome, Tried, TryAgain
from gateway.metrics import ATTEMPTS
from gateway.notify.channel import Channel
from gateway.service.due import lease_due, still_due
from gateway.service.record import Recorded, record_attempts
from gateway.store import outbox
from gateway.store.directory import Directory
from gateway.store.pool import Pool, connect, is_data_error

__all__ = ["Dispatcher"]

_log = logging.getLogger(__name__)

_POLL_S = 0.5
_STALE_S = 0.5
_BATCH = 256
_BUSY_S = 0.05
_CHANNEL_LIMIT_S = 65.0
_UNRECORDED = TryAgain("the outcome could not be recorded")


class Dispatcher:
    """One worker. Every party is behind a bulkhead of its own: so many sends at a time, the rest waits its turn."""

    def __init__(
        self,
        database: str,
        pool: Pool,
        directory: Directory,
        channels: Mapping[str, Channel],
        *,
        name: str,
        party_parallel: int,
        rng: Random,
        status: Callable[[], dict[str, object]],
        observe: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`status` is what the worker's row shows of this process; `observe` hears of the steps."""
        self._database = database
        self._pool = pool
        self._directory = directory
        self._channels = channels
        self._name = name
        self._parallel = party_parallel
        self._rng = rng
        self._status = status
        self._observe = observe
        self._gates: dict[tuple[str, str, bool], asyncio.Semaphore] = {}
        self._holding: set[tuple[str, int, int]] = set()
        self._on_leg: Counter[UUID] = Counter()
        self._tried: asyncio.Queue[Tried] = asyncio.Queue()
        self._tasks: asyncio.TaskGroup | None = None
        self.worker: int | None = None

    def submit(self, notices: Iterable[DueNotice]) -> None:
        """Send notices that the caller has committed in this worker's name. Returns at once."""
        for notice in notices:
            self._start(notice)

    async def run(self) -> None:
        """Send until cancelled. Losing the database only stops the recording until it is back."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            tasks.create_task(self._live(), name="notify-session")
            tasks.create_task(self._record(), name="notify-record")

    async def _live(self) -> None:
        """Hold the session that this worker's leases hang on, and lease what is due."""
        while True:
            try:
                await self._hold_session()
            except (psycopg.OperationalError, psycopg.InterfaceError) as exc:
                _log.warning("dispatcher lost the database: %s %s", type(exc).__name__, exc.sqlstate)
            except Exception:  # noqa: BLE001 # what cannot be leased must not end what is being sent
                _log.exception("dispatcher cannot lease")
            self.worker = None
            await asyncio.sleep(self._rng.uniform(0.2, 0.6))

    async def _hold_session(self) -> None:
        session = await connect(self._database, name=f"worker-{self._name}")
        async with session:
            self.worker = await outbox.register(session, self._name)
            await session.execute(f"LISTEN {outbox.CHANNEL}")
            while True:
                await outbox.beat(session, self.worker, self._status())
                holding = {held for held, _, _ in self._holding}
                leased = await lease_due(self._pool, self._directory, worker=self.worker, holding=holding, limit=_BATCH)
                self.submit(leased)
                if len(leased) == _BATCH:
                    continue
                async for _ in session.notifies(timeout=_POLL_S, stop_after=1):
                    pass

    def _start(self, notice: DueNotice) -> None:
        if _attempt(notice) in self._holding or self._tasks is None:
            return
        self._holding.add(_attempt(notice))
        self._tasks.create_task(self._send(notice), name=f"send-{notice.id}")

    async def _send(self, notice: DueNotice) -> None:
        while notice.reason in ("closed", "withdrawn") and self._on_leg[notice.leg_id]:
            # A call for help that is on its way must not arrive after the word that it is over.
            await asyncio.sleep(_BUSY_S)
        self._on_leg[notice.leg_id] += 1
        try:
            await self._send_in_turn(notice)
        finally:
            self._on_leg[notice.leg_id] -= 1
            if not self._on_leg[notice.leg_id]:
                del self._on_leg[notice.leg_id]

    async def _send_in_turn(self, notice: DueNotice) -> None:
        kind = notice.spec.kind
        # Word of a better location queues apart: many of them must not hold up a call for help.
        gate = self._gates.setdefault(
            (notice.party.id, kind, notice.reason == "location"), asyncio.Semaphore(self._parallel)
        )
        queued = time.monotonic()
        async with gate:
            if time.monotonic() - queued > _STALE_S and not await self._still_due(notice):
                self._holding.discard(_attempt(notice))
                return
            self._observe("sending")
            started_at, started = datetime.now(UTC), time.monotonic()
            outcome = await self._try(kind, notice)
            took_s = time.monotonic() - started
        self._observe("sent")
        ATTEMPTS.labels(kind, type(outcome).__name__).observe(took_s)
        self._tried.put_nowait(
            Tried(notice=notice, started_at=started_at, answered_at=datetime.now(UTC), outcome=outcome)
        )

    async def _still_due(self, notice: DueNotice) -> bool:
        if self.worker is None:
            return True
        try:
            return await still_due(self._pool, notice, worker=self.worker)
        except psycopg.Error:
            return True  # in doubt send: a message too many does less harm than one too few (I6)

    async def _try(self, kind: str, notice: DueNotice) -> Outcome:
        channel = self._channels.get(kind)
        if channel is None:
            return GiveUp(f"this gateway has no channel {kind}")
        try:
            async with asyncio.timeout(_CHANNEL_LIMIT_S):
                return await channel.send(notice)
        except Exception as exc:  # noqa: BLE001 # a channel is foreign ground: whatever breaks there must not end the others
            _log.exception("channel failed", extra={"channel": kind, "notice": notice.id})
            return TryAgain(f"{type(exc).__name__} in the channel")

    async def _record(self) -> None:
        """Write outcomes down, as many at once as have come in meanwhile."""
        while True:
            tried = [await self._tried.get()]
            while len(tried) < _BATCH and not self._tried.empty():
                tried.append(self._tried.get_nowait())
            recorded = await self._recorded(tried)
            waiting = {one.notice.id for one in recorded.later}
            for one in tried:
                if one.notice.id not in waiting:
                    self._holding.discard(_attempt(one.notice))
            for one in recorded.later:
                asyncio.get_running_loop().call_later(_BUSY_S, self._tried.put_nowait, one)
            self.submit(recorded.notices)

    async def _recorded(self, tried: list[Tried]) -> Recorded:
        """Record a batch, waiting for the database as long as it takes; a row it refuses stops no other (D12)."""
        while True:
            try:
                return await record_attempts(self._pool, self._directory, tried, worker=self.worker, rng=self._rng)
            except (psycopg.Error, UnicodeEncodeError) as exc:
                if isinstance(exc, psycopg.Error) and not is_data_error(exc):
                    _log.warning("cannot record attempts yet: %s %s", type(exc).__name__, exc.sqlstate)
                    await asyncio.sleep(self._rng.uniform(0.2, 0.6))
                elif len(tried) > 1:
                    each = [await self._recorded([one]) for one in tried]
                    return Recorded(
                        [notice for one in each for notice in one.notices], [one for part in each for one in part.later]
                    )
                elif tried[0].outcome == _UNRECORDED:
                    _log.error("an attempt cannot be recorded at all", extra={"notice": tried[0].notice.id})
                    return Recorded([], [])
                else:
                    _log.error(
                        "an attempt cannot be recorded: %s", type(exc).__name__, extra={"notice": tried[0].notice.id}
                    )
                    tried = [replace(tried[0], outcome=_UNRECORDED)]

    @property
    def under_way(self) -> int:
        """How many notices are being sent or recorded."""
        return len(self._holding)

    async def idle(self) -> None:
        """Wait until everything submitted was recorded."""
        while self._holding:
            await asyncio.sleep(0.01)


def _attempt(notice: DueNotice) -> tuple[str, int, int]:
    """What is being sent: a notice that comes back for its next try or channel is another one."""
    return notice.id, notice.channel, notice.tries
