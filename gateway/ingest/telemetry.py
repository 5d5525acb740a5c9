"""The telemetry lane: heartbeats, fixes, events and results in micro-batches, acknowledged after the commit.

It runs apart from the alarm lane: nothing here can end, delay or hide an alarm (I2, D12).
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import date
from random import Random
from uuid import UUID

import psycopg

from gateway.domain.outbox import DueNotice
from gateway.links.mqtt import Delivery, MqttLink
from gateway.links.steady import SteadyClock
from gateway.metrics import DROPPED, QUARANTINED, TELEMETRY, TELEMETRY_BATCH
from gateway.service.command_terminals import record_result
from gateway.service.quarantine import Misread, keep
from gateway.service.supervise import STATES, note_state
from gateway.service.take_back import WORDS, take_word
from gateway.service.telemetry import Told, sane_time, store_reports
from gateway.store.directory import Directory
from gateway.store.pool import Pool, is_data_error
from protocols.errors import FrameError
from protocols.okc import is_echo, parse_up
from schemas.reports import EventReport, ResultReport
from schemas.tolerance import Unreadable, read_reports

__all__ = ["PIECE", "REST_S", "TelemetryLane"]

_log = logging.getLogger(__name__)

PIECE = 2048
"""Bytes that are read in one go, some ten reports: an alarm waits for that at every step of its way."""

REST_S = 0.004
"""How long a link of telemetry rests when it has read all there was: many reports at once cost less than one by one."""

_TRANSPORT = "mqtt"
_LINGER_S = 0.1
_LONGEST_QUEUE = 50_000


class TelemetryLane:
    """Takes telemetry from a link."""

    def __init__(
        self,
        link: MqttLink,
        pool: Pool,
        directory: Directory,
        *,
        submit: Callable[[Iterable[DueNotice]], None],
        worker: Callable[[], int | None],
        is_working_day: Callable[[date], bool],
        rng: Random,
        clock: SteadyClock | None = None,
        heard: Callable[[str, bytes], None] = lambda _topic, _payload: None,
        give_way: Callable[[], Awaitable[None]] = lambda: asyncio.sleep(0),
        largest: int = 2000,
    ) -> None:
        """`submit` sends notices committed in the name of `worker()`; up to `largest` reports are stored together.

        `heard` is told of our own words when all that came before them is stored; reports are stamped by `clock`;
        `give_way` is waited for after every small piece of work.
        """
        self._link = link
        self._pool = pool
        self._directory = directory
        self._submit = submit
        self._worker = worker
        self._is_working_day = is_working_day
        self._rng = rng
        self._clock = SteadyClock() if clock is None else clock
        self._heard = heard
        self._give_way = give_way
        self._largest = largest
        self._known: dict[str, UUID] = {}
        self._queue: asyncio.Queue[tuple[Delivery, Sequence[Told | Misread]]] = asyncio.Queue()

    async def run(self) -> None:
        """Handle telemetry until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._work(), name="telemetry-store")
            tasks.create_task(self._link.run(self._take), name="telemetry-link")

    def _take(self, delivery: Delivery) -> None:
        # With QoS 1 the broker waits for us. QoS 0 nobody holds back, and it may be lost: the memory is the limit.
        if not delivery.qos and self._queue.qsize() >= _LONGEST_QUEUE:
            DROPPED.inc()
            return
        if is_echo(delivery.topic):
            self._queue.put_nowait((delivery, ()))
            return
        # Read one by one, as they come: two thousand at once would be a long while in which no alarm gets its turn.
        self._queue.put_nowait((delivery, self._read(delivery)))

    async def _work(self) -> None:
        while True:
            batch = [await self._queue.get()]
            if self._queue.qsize() < self._largest // 4:
                await asyncio.sleep(_LINGER_S if self._largest > 1 else 0)  # lets a batch gather: it is in no hurry
            size = len(batch[0][1])
            while size < self._largest and not self._queue.empty():
                batch.append(self._queue.get_nowait())
                size += len(batch[-1][1]) or 1
            with TELEMETRY_BATCH.time():
                await self._store(batch)
            self._link.acknowledge_all(delivery for delivery, _ in batch)
            for delivery, reports in batch:
                if not reports:
                    self._heard(delivery.topic, delivery.payload)

    async def _store(self, batch: Sequence[tuple[Delivery, Sequence[Told | Misread]]]) -> None:
        told: list[tuple[Delivery, Told]] = []
        for delivery, reports in batch:
            for report in reports:
                if isinstance(report, Told):
                    told.append((delivery, report))
                else:
                    QUARANTINED.labels("telemetry").inc()
                    await self._patiently_keep(report)
        for kind, count in Counter(one.kind for _, one in told).items():
            TELEMETRY.labels(kind).inc(count)
        if told:
            await self._patiently_store(told)
        for _, one in told:
            if isinstance(one.report, ResultReport) or (
                isinstance(one.report, EventReport) and one.report.name in WORDS | STATES
            ):
                await self._patiently_note(one)

    def _read(self, delivery: Delivery) -> list[Told | Misread]:
        terminal: str | None = None
        try:
            terminal, kind = parse_up(delivery.topic)
            reports = read_reports(kind.value, delivery.payload)
        except FrameError as exc:
            return [self._misread(delivery, terminal, str(exc))]
        except Exception as exc:  # noqa: BLE001 # it would wait for ever, and every acknowledgement behind it (D12)
            _log.exception("a report could not be read")
            return [self._misread(delivery, terminal, f"the gateway failed on it ({type(exc).__name__})")]
        heard_at = self._clock.at(delivery.received_mono)
        found: list[Told | Misread] = []
        for number, (report, part) in enumerate(reports, start=1):
            if isinstance(report, Unreadable):
                found.append(self._misread(delivery, terminal, report.reason, payload=part))
                continue
            # Of several in one message all but the last had been kept back: they say nothing about the clock.
            kept_back = delivery.stored or number < len(reports)
            kept = delivery.qos > 0
            found.append(Told(terminal, delivery.received_at, report, heard_at=heard_at, kept=kept, late=kept_back))
        return found

    def _misread(
        self, delivery: Delivery, terminal: str | None, reason: str, *, payload: bytes | None = None
    ) -> Misread:
        return Misread(
            transport=_TRANSPORT,
            topic=delivery.topic,
            terminal=terminal,
            payload=delivery.payload if payload is None else payload,
            received_at=delivery.received_at,
            reason=reason,
        )

    async def _patiently_keep(self, misread: Misread) -> None:
        while True:
            try:
                await keep(self._pool, misread)
                return
            except psycopg.Error as exc:
                if is_data_error(exc):
                    raise
                await self._wait(exc)

    async def _patiently_store(self, told: Sequence[tuple[Delivery, Told]]) -> None:
        """Store a batch; one that the database refuses is halved until the culprit is alone in quarantine."""
        while True:
            try:
                reports = [report for _, report in told]
                self._submit(await self._store_reports(reports))
                return
            except Exception as exc:  # noqa: BLE001 # see below
                if isinstance(exc, psycopg.Error) and not is_data_error(exc):
                    await self._wait(exc)
                    continue
                if not isinstance(exc, psycopg.Error):  # a fault of ours on one report must not end the others (D12)
                    _log.exception("telemetry could not be handled")
                if len(told) == 1:
                    delivery, report = told[0]
                    reason = f"it cannot be stored ({type(exc).__name__})"
                    await self._patiently_keep(self._misread(delivery, report.terminal, reason))
                    return
            half = len(told) // 2
            await self._patiently_store(told[:half])
            await self._patiently_store(told[half:])
            return

    async def _store_reports(self, reports: Sequence[Told]) -> list[DueNotice]:
        return await store_reports(
            self._pool,
            self._directory,
            reports,
            worker=self._worker(),
            known=self._known,
            give_way=self._give_way,
        )

    async def _patiently_note(self, told: Told) -> None:
        """Let a result of a command, or a word about an alarm, count for the cases that it concerns."""
        while True:
            try:
                await self._note(told)
                return
            except Exception as exc:  # noqa: BLE001 # one report must not end the lane (D12)
                if isinstance(exc, psycopg.Error) and not is_data_error(exc):
                    await self._wait(exc)
                    continue
                _log.exception("what a terminal says could not be recorded", extra={"terminal": told.terminal})
                return

    async def _note(self, told: Told) -> None:
        match told.report:
            case ResultReport() as result:
                await record_result(
                    self._pool,
                    self._directory,
                    told.terminal,
                    result.command,
                    result.state,
                    detail=result.detail,
                    is_working_day=self._is_working_day,
                )
            case EventReport() as event:
                value, said_at = event.value, sane_time(event.at, told.received_at)
                if event.name in STATES:
                    await note_state(self._pool, told.terminal, event.name, value, at=said_at)
                if event.name not in WORDS:
                    return
                await take_word(
                    self._pool,
                    self._directory,
                    told.terminal,
                    event.name,
                    seq=value if isinstance(value, int) and not isinstance(value, bool) else None,
                    said_at=said_at,
                    is_working_day=self._is_working_day,
                    worker=None,
                )

    async def _wait(self, exc: psycopg.Error) -> None:
        _log.warning("cannot store telemetry yet: %s %s", type(exc).__name__, exc.sqlstate)
        await asyncio.sleep(self._rng.uniform(0.3, 0.8))
