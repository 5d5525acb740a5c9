"""The alarm lane: store, acknowledge to the broker, tell the terminal, send (I1, D3, D4).

Every step after the commit happens at once and waits for nobody. While the database is away deliveries stay
unacknowledged and are tried again; the broker, and after it the terminal, keep them meanwhile.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from random import Random

import psycopg

from gateway.domain.outbox import DueNotice
from gateway.links.mqtt import Delivery, LinkDown, MqttLink
from gateway.metrics import ALARMS, QUARANTINED, STAGE
from gateway.service.quarantine import Misread, keep, keep_alarm, press_of
from gateway.service.raise_alarm import NoSite, Press, Raised, raise_alarm
from gateway.service.telemetry import store_state
from gateway.store.directory import Directory
from gateway.store.pool import Pool, is_data_error
from gateway.store.telemetry import StateRow
from protocols.errors import FrameError
from protocols.okc import Down, Up, down_topic, parse_up, up_filter
from schemas.commands import Ack
from schemas.tolerance import Unreadable, read_alarm

__all__ = ["FILTERS", "AlarmLane"]

_log = logging.getLogger(__name__)

FILTERS = ((up_filter(Up.ALARM), 1),)
_TRANSPORT = "mqtt"


class AlarmLane:
    """Takes alarms from a link. Those of one terminal are handled in their order, those of several at once."""

    def __init__(
        self,
        link: MqttLink,
        pool: Pool,
        directory: Directory,
        *,
        submit: Callable[[Iterable[DueNotice]], None],
        worker: Callable[[], int | None],
        workers: int,
        rng: Random,
        observe: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`submit` sends notices committed in the name of `worker()`; `observe` hears of the steps."""
        self._link = link
        self._pool = pool
        self._directory = directory
        self._submit = submit
        self._worker = worker
        self._rng = rng
        self._observe = observe
        self._tasks: asyncio.TaskGroup | None = None
        self._queues: list[asyncio.Queue[Delivery]] = [asyncio.Queue() for _ in range(workers)]

    async def run(self) -> None:
        """Handle alarms until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            for number, queue in enumerate(self._queues):
                tasks.create_task(self._work(queue), name=f"alarms-{number}")
            tasks.create_task(self._link.run(self._take), name="alarms-link")

    def _take(self, delivery: Delivery) -> None:
        self._queues[hash(delivery.topic) % len(self._queues)].put_nowait(delivery)

    async def _work(self, queue: asyncio.Queue[Delivery]) -> None:
        while True:
            await self._handle(await queue.get())

    async def _handle(self, delivery: Delivery) -> None:
        self._observe("received")
        delay_s = 0.05
        while True:
            try:
                await self._store_and_tell(delivery)
                return
            except psycopg.Error as exc:
                # Data errors were dealt with below, so this one is the database's, and it will be back.
                _log.warning("cannot store an alarm yet: %s %s", type(exc).__name__, exc.sqlstate)
                await asyncio.sleep(delay_s * self._rng.uniform(0.5, 1.0))
                delay_s = min(delay_s * 2, 1.0)

    async def _store_and_tell(self, delivery: Delivery) -> None:
        terminal: str | None
        try:
            terminal, _ = parse_up(delivery.topic)
        except FrameError as exc:
            terminal = None
            raised, press = await self._misread(delivery, terminal, str(exc)), None
        else:
            alarm = read_alarm(delivery.payload)
            if isinstance(alarm, Unreadable):
                raised, press = await self._misread(delivery, terminal, alarm.reason), None
            else:
                press = press_of(
                    alarm,
                    terminal=terminal,
                    transport=_TRANSPORT,
                    payload=delivery.payload,
                    received_at=delivery.received_at,
                    # What a session missed while we were away, another replica has dealt with, perhaps to the end.
                    # Only numbers together with a time of the terminal's own tell such a copy from a new press.
                    copy=delivery.retained
                    or (delivery.stored and None not in (alarm.boot, alarm.seq) and alarm.at is not None),
                )
                raised = await self._raise(delivery, press)
        self._observe("committed")
        self._since(delivery, "stored")
        self._link.acknowledge(delivery)
        self._observe("acknowledged")
        if raised is None:
            return
        self._submit(raised.notices)
        self._observe("submitted")
        ALARMS.labels("unreadable" if press is None else raised.how).inc()
        assert self._tasks is not None
        # Telling begins now and is waited for by nobody: a slow broker must not hold up storing the next alarm.
        self._tasks.create_task(self._afterwards(delivery, terminal, press, raised), name="alarms-told")

    async def _afterwards(self, delivery: Delivery, terminal: str | None, press: Press | None, raised: Raised) -> None:
        if terminal is not None:
            await self._tell(terminal, press, raised)
        self._since(delivery, "acknowledged")
        self._observe("told")
        await self._note_state(delivery, press, raised)

    def _since(self, delivery: Delivery, stage: str) -> None:
        STAGE.labels(stage).observe(time.monotonic() - delivery.received_mono)

    async def _raise(self, delivery: Delivery, press: Press) -> Raised | None:
        try:
            return await raise_alarm(self._pool, self._directory, press, worker=self._worker())
        except NoSite as exc:
            await self._keep_only(delivery, press.terminal, str(exc))
            return None
        except psycopg.Error as exc:
            if not is_data_error(exc):
                raise
            _log.error("the database refuses an alarm: %s", type(exc).__name__, extra={"terminal": press.terminal})
            return await self._misread(delivery, press.terminal, f"the database refuses it ({type(exc).__name__})")
        except Exception as exc:  # noqa: BLE001 # see below
            # A fault of ours in handling one alarm would come back with its redelivery, for ever, and end every
            # other alarm with it. So it goes the way of an alarm that cannot be read: people hear of it (I2, D12).
            _log.exception("an alarm could not be handled", extra={"terminal": press.terminal})
            return await self._misread(delivery, press.terminal, f"the gateway failed on it ({type(exc).__name__})")

    async def _misread(self, delivery: Delivery, terminal: str | None, reason: str) -> Raised | None:
        QUARANTINED.labels("alarm").inc()
        misread = self._as_misread(delivery, terminal, reason)
        try:
            return await keep_alarm(self._pool, self._directory, misread, worker=self._worker())
        except NoSite:
            await keep(self._pool, misread)
            return None
        except psycopg.Error as exc:
            if not is_data_error(exc):
                raise
            _log.error("no case can be opened for an alarm: %s", type(exc).__name__, extra={"terminal": terminal})
        except Exception:  # noqa: BLE001 # whatever is broken there, the other terminals' alarms must go on
            _log.exception("no case can be opened for an alarm", extra={"terminal": terminal})
        # The terminal hears nothing, repeats, and takes its other ways; the bytes are kept for people.
        await keep(self._pool, misread)
        return None

    async def _keep_only(self, delivery: Delivery, terminal: str | None, reason: str) -> None:
        """Keep an alarm of which nobody can be told: the terminal hears nothing, and tries its other ways."""
        _log.error("an alarm came in and no site is set up: it is in quarantine", extra={"terminal": terminal})
        await keep(self._pool, self._as_misread(delivery, terminal, reason))

    def _as_misread(self, delivery: Delivery, terminal: str | None, reason: str) -> Misread:
        return Misread(
            transport=_TRANSPORT,
            topic=delivery.topic,
            terminal=terminal,
            payload=delivery.payload,
            received_at=delivery.received_at,
            reason=reason,
            copy=delivery.retained,
        )

    async def _tell(self, terminal: str, press: Press | None, raised: Raised) -> None:
        """Say "received". It is sent with QoS 0: a terminal that does not hear it repeats, and is answered again."""
        ack = Ack(
            boot=None if press is None else press.boot,
            seq=None if press is None else press.seq,
            case=raised.case_id,
        )
        try:
            await self._link.publish(down_topic(terminal, Down.ACK), ack.model_dump_json().encode())
        except LinkDown as exc:
            _log.warning("cannot tell the terminal: %s", exc, extra={"terminal": terminal})

    async def _note_state(self, delivery: Delivery, press: Press | None, raised: Raised) -> None:
        if raised.terminal_uid is None or press is None:
            return
        skew = None if press.pressed_at is None else (press.pressed_at - press.received_at).total_seconds()
        state = StateRow(
            terminal=raised.terminal_uid,
            seen_at=delivery.received_at,
            status_at=delivery.received_at,
            boot=press.boot,
            seq=press.seq,
            battery_pct=press.battery_pct,
            signal_dbm=press.signal_dbm,
            fix=press.fix,
            fix_at=None if press.fix is None else delivery.received_at,
            clock_skew_s=skew,
        )
        try:
            await store_state(self._pool, raised.terminal_uid, state)
        except psycopg.Error as exc:  # the alarm is safe already; this is only the newest state
            _log.warning("cannot note the state of a terminal: %s", type(exc).__name__)
