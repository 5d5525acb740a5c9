"""The dispatcher: takes due notices, sends them all at once, records what came of them.

Delivery is at least once, under the same id (I5). What was committed by this process is handed over in memory at
once; everything else is leased from the outbox: retries, fallbacks, what a dead worker left (D12). While more waits
than can be sent at a time, sending goes before recording: what was simply delivered is written down together, later.
"""

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from uuid import UUID

import psycopg

from gateway.domain.outbox import DueNotice, GiveUp, Outcome, Sent, Tried, TryAgain
from gateway.metrics import ATTEMPTS
from gateway.notify.channel import Channel
from gateway.notify.lanes import Lane, Lanes, Place
from gateway.service.due import lease_due, still_due
from gateway.service.record import Recorded, record_attempts
from gateway.store import outbox
from gateway.store.directory import Directory
from gateway.store.pool import Pool, connect, is_data_error

__all__ = ["Dispatcher"]

_log = logging.getLogger(__name__)

_POLL_S = 0.5
_STALE_S = 0.5
_ASKING_S = 1.0
_BATCH = 256
_BUSY_S = 0.05
_CHANNEL_LIMIT_S = 170.0
"""Longer than any channel takes by its own rules: a text may wait for a modem, and for the network after that."""
_UNRECORDED = TryAgain("the outcome could not be recorded")
_AFTERWARDS = frozenset({"closed", "withdrawn"})

_STARTED_AT_ONCE = 8
_STARTED_WHILE_STORING = 2
_OTHERS_STARTED_AT_ONCE = 4
"""Sends begun in one pass of the event loop: however many wait, a press is read and stored within a few passes."""

_BEGINS_FOR_S = 0.01

_MUCH = 64
"""So many waiting notices are a storm."""

_RECORDED_AFTER = timedelta(seconds=5)
_MOST_UNRECORDED = 16_384
"""What was delivered in a storm is on record after this time, or when there is so much of it. Killed before, it is
sent again under the same id (I5)."""

_RECORDED_AT_ONCE = 512


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
        storing: Callable[[], bool] = lambda: False,
        observe: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`status` is what the worker's row shows of this process; `observe` hears of the steps.

        While `storing` says that alarms wait to be stored, those get the larger part of this process.
        """
        self._database = database
        self._pool = pool
        self._directory = directory
        self._channels = channels
        self._name = name
        self._rng = rng
        self._status = status
        self._storing = storing
        self._observe = observe
        self._lanes = Lanes(parallel=party_parallel, stale_s=_STALE_S)
        self._pumping = False
        self._holding: set[tuple[str, int, int]] = set()
        self._on_leg: Counter[UUID] = Counter()
        self._after: dict[UUID, deque[DueNotice]] = {}
        self._delivered: deque[Tried] = deque()
        self._failed: deque[Tried] = deque()
        self._to_record = asyncio.Event()
        self._tasks: asyncio.TaskGroup | None = None
        self._began_s = -_BEGINS_FOR_S
        self.worker: int | None = None

    def submit(self, notices: Iterable[DueNotice]) -> None:
        """Send notices that the caller has committed in this worker's name. Returns at once."""
        if self._tasks is None:
            return
        cases: set[UUID] = set()
        for notice in notices:
            if _attempt(notice) in self._holding:
                continue
            self._holding.add(_attempt(notice))
            if notice.reason in _AFTERWARDS and self._on_leg[notice.leg_id]:
                # A call for help that is on its way must not arrive after the word that it is over.
                self._after.setdefault(notice.leg_id, deque()).append(notice)
            else:
                self._enter(notice, first=notice.case.id not in cases)
                cases.add(notice.case.id)
        self._go_on()

    @property
    def busy(self) -> bool:
        """Does more wait to be sent than can be sent at a time?"""
        return self._lanes.waiting >= _MUCH

    @property
    def beginning(self) -> bool:
        """Are calls about to be sent, or were they just now, so that their bytes may not have left yet?"""
        return self._lanes.ready or time.monotonic() - self._began_s < _BEGINS_FOR_S

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
                # Looking for what got lost among thousands that are being sent would cost more than it finds.
                holding = None if self.busy else {held for held, _, _ in self._holding}
                leased = await lease_due(self._pool, self._directory, worker=self.worker, holding=holding, limit=_BATCH)
                self.submit(leased)
                if len(leased) == _BATCH:
                    continue
                async for _ in session.notifies(timeout=_POLL_S, stop_after=1):
                    pass

    def _enter(self, notice: DueNotice, *, first: bool) -> None:
        self._on_leg[notice.leg_id] += 1
        self._lanes.put(notice, first=first, now_s=time.monotonic())

    def _leave(self, notice: DueNotice) -> None:
        """One notice less of a leg; behind the last one comes the word that it is over."""
        self._on_leg[notice.leg_id] -= 1
        if not self._on_leg[notice.leg_id]:
            del self._on_leg[notice.leg_id]
            after = self._after.pop(notice.leg_id, None)
            for one in after or ():
                self._enter(one, first=False)

    def _go_on(self) -> None:
        if not self._pumping and self._lanes.ready:
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        """Begin what may be sent now, a little in each pass of the loop."""
        assert self._tasks is not None
        self._pumping = False
        storing = self._storing()
        ready = self._lanes.start(
            now_s=time.monotonic(),
            most=_STARTED_WHILE_STORING if storing else _STARTED_AT_ONCE,
            most_other=1 if storing else _OTHERS_STARTED_AT_ONCE,
            ask=self._ask,
        )
        for lane, notice in ready:
            self._tasks.create_task(self._send(lane, notice), name="send")
        self._go_on()

    def _ask(self, lane: Lane, places: list[Place]) -> None:
        assert self._tasks is not None
        self._tasks.create_task(self._still_due(lane, places), name="still-due")

    async def _still_due(self, lane: Lane, places: list[Place]) -> None:
        """Find out what of a lane is still to be sent: its cases may be closed meanwhile (I4)."""
        due = {place.notice.id for place in places}
        if self.worker is not None:
            try:
                async with asyncio.timeout(_ASKING_S):
                    due = await still_due(self._pool, due, worker=self.worker)
            except (psycopg.Error, TimeoutError):
                pass  # in doubt send: a message too many does less harm than one too few (I6)
        self._lanes.asked(lane, places, due=lambda notice: notice.id in due, now_s=time.monotonic())
        for place in places:
            if place.notice.id not in due:
                self._holding.discard(_attempt(place.notice))
                self._leave(place.notice)
        self._go_on()

    async def _send(self, lane: Lane, notice: DueNotice) -> None:
        kind = notice.spec.kind
        self._observe("sending")
        started_at, started_s = datetime.now(UTC), time.monotonic()
        self._began_s = started_s
        outcome = await self._try(kind, notice)
        took_s = time.monotonic() - started_s
        self._observe("sent")
        ATTEMPTS.labels(kind, type(outcome).__name__).observe(took_s)
        self._note(Tried(notice=notice, started_at=started_at, answered_at=datetime.now(UTC), outcome=outcome))
        self._lanes.sent(lane)
        self._leave(notice)
        self._go_on()

    def _note(self, tried: Tried) -> None:
        (self._delivered if isinstance(tried.outcome, Sent) else self._failed).append(tried)
        self._to_record.set()

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
            tried = await self._gathered()
            recorded = await self._recorded(tried)
            waiting = {one.notice.id for one in recorded.later}
            for one in tried:
                if one.notice.id not in waiting:
                    self._holding.discard(_attempt(one.notice))
            for one in recorded.later:
                asyncio.get_running_loop().call_later(_BUSY_S, self._note, one)
            self.submit(recorded.notices)

    async def _gathered(self) -> list[Tried]:
        """Wait for outcomes. Failures lead to something and are taken at once; deliveries may wait in a storm."""
        while not (self._failed or self._delivered):
            self._to_record.clear()
            await self._to_record.wait()
        while not (self._failed or self._time_to_record):
            await asyncio.sleep(_BUSY_S)
        tried: list[Tried] = []
        for queue in (self._failed, self._delivered) if self._time_to_record else (self._failed,):
            tried += [queue.popleft() for _ in range(min(len(queue), _RECORDED_AT_ONCE - len(tried)))]
        return tried

    @property
    def _time_to_record(self) -> bool:
        """Are deliveries to be recorded now, though there may be more to send?"""
        if not self.busy or len(self._delivered) >= _MOST_UNRECORDED:
            return True
        return bool(self._delivered) and datetime.now(UTC) - self._delivered[0].answered_at > _RECORDED_AFTER

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
