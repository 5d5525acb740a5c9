"""The alarm lane: store, acknowledge to the broker, tell the terminal, send (I1, D3, D4).

Every step after the commit happens at once and waits for nobody. Whatever waits meanwhile is stored together; an alarm
that comes alone goes at once. What is no emergency waits for those, on disk (`gateway.ingest.inbox`). While the
database is away deliveries stay unacknowledged and are tried again; the broker, and after it the terminal, keep them.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from functools import partial
from random import Random

import psycopg

from gateway.domain.kinds import CaseClass, classify
from gateway.domain.outbox import DueNotice
from gateway.ingest.aftermath import Aftermath
from gateway.ingest.inbox import Inbox
from gateway.ingest.waiting import Batch, Pace, Waiting
from gateway.links.mqtt import Delivery, LinkDown, MqttLink
from gateway.metrics import ALARMS, QUARANTINED, STAGE
from gateway.service.quarantine import Misread, keep, keep_alarm, press_of
from gateway.service.raise_alarm import NoSite, Press, Raised, raise_alarm, raise_alarms
from gateway.service.telemetry import sane_time, state_of
from gateway.store.directory import Directory
from gateway.store.pool import Pool, is_data_error
from protocols.errors import FrameError
from protocols.okc import Down, Up, down_topic, parse_up, up_filter
from schemas.commands import Ack
from schemas.tolerance import ReadAlarm, Unreadable, read_alarm

__all__ = ["FILTERS", "AlarmLane"]

_log = logging.getLogger(__name__)

FILTERS = ((up_filter(Up.ALARM), 1),)
_TRANSPORT = "mqtt"
_WAITED_S = 1.0
_OVERTAKEN_S = 0.05
"""A word that came while an alarm waited for so long may have been stored before it."""

_LOOK_AGAIN_S = 0.1


@dataclass(slots=True, eq=False)
class _Read:
    """A delivery, and the press that it is or why it cannot be read.

    ``again``: repeats that came while it waited. ``settled``: it is stored, or kept as what cannot be.
    """

    delivery: Delivery
    terminal: str | None
    press: Press | None
    reason: str = ""
    again: list[Delivery] = field(default_factory=list)
    settled: bool = False

    @property
    def numbers(self) -> tuple[str, bytes] | None:
        """What a repeat has in common with it, where numbers tell that it is one."""
        press = self.press
        return None if press is None or press.seq is None else (self.delivery.topic, press.digest)

    @property
    def key(self) -> tuple[str, bytes] | None:
        """Under which repeats join it. None join a copy, which may be of a press that is long over."""
        return None if self.press is None or self.press.copy else self.numbers

    @property
    def urgent(self) -> bool:
        """Is it an emergency? What cannot be read may be a call for help (I2, I6)."""
        return self.press is None or classify(self.press.kinds) is CaseClass.EMERGENCY


class AlarmLane:
    """Takes alarms from a link. Those of one terminal are handled in their order, those of several together."""

    def __init__(
        self,
        link: MqttLink,
        pool: Pool,
        directory: Directory,
        *,
        submit: Callable[[Iterable[DueNotice]], None],
        worker: Callable[[], int | None],
        is_working_day: Callable[[date], bool],
        workers: int,
        rng: Random,
        busy: Callable[[], bool] = lambda: False,
        observe: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`submit` sends notices committed in the name of `worker()`; `observe` hears of the steps.

        While `busy` says that much is being sent, what is not the alarm itself can wait.
        """
        self._link = link
        self._pool = pool
        self._directory = directory
        self._submit = submit
        self._worker = worker
        self._rng = rng
        self._observe = observe
        self._tasks: asyncio.TaskGroup | None = None
        self._waiting: Waiting[_Read] = Waiting(most=workers)
        self._others = Pace()
        self._timer: asyncio.TimerHandle | None = None
        self._unstored: dict[tuple[str, bytes], _Read] = {}
        self._inbox = Inbox(pool, worker=worker, found=self._found, rng=rng)
        self._aftermath = Aftermath(pool, directory, worker=worker, is_working_day=is_working_day, rng=rng, busy=busy)

    @property
    def storing(self) -> bool:
        """Are emergencies being stored?"""
        return self._waiting.urgent

    async def run(self) -> None:
        """Handle alarms until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            tasks.create_task(self._aftermath.run(), name="alarms-aftermath")
            tasks.create_task(self._inbox.run(), name="alarms-inbox")
            tasks.create_task(self._link.run(self._take), name="alarms-link")

    def _take(self, delivery: Delivery) -> None:
        self._observe("received")
        read = _surely_read(delivery)
        known = None if read.numbers is None else self._unstored.get(read.numbers)
        if known is not None:
            # The very same press, which still waits: once it is stored both are. In a storm everybody repeats.
            if known.delivery.done:
                self._link.acknowledge(delivery)
            else:
                known.again.append(delivery)
            return
        behind = self._waiting.knows(delivery.topic, urgent=read.urgent)
        if self._inbox.full and (behind or not read.urgent):
            self._inbox.put(delivery, partial(self._put_aside, read), hold=False)
            return
        if read.key is not None:
            self._unstored[read.key] = read
        if not (read.urgent or behind):  # one terminal that cannot stop is a line of its own, and no power cut
            self._others.count(delivery.received_mono)
        self._store(read)
        # An emergency is stored at once, unless its own terminal has more of them than can be: then its acknowledgement
        # would hold up those of all other terminals.
        if behind or (not read.urgent and self._waiting.holds(delivery.topic, urgent=False)):
            self._inbox.put(delivery, partial(self._put_aside, read))

    def _put_aside(self, read: _Read) -> None:
        """Go on without a press that is in the inbox; its terminal hears of it when its case is there."""
        self._acknowledge(read)
        self._observe("kept")

    def _acknowledge(self, read: _Read) -> None:
        """Tell the broker that a press is safe."""
        for copy in (read.delivery, *read.again):
            self._link.acknowledge(copy)

    def _found(self, delivery: Delivery) -> None:
        """Store what waited on disk for somebody who is gone."""
        self._store(_surely_read(delivery))

    def _store(self, read: _Read) -> None:
        """Let a delivery be stored in its turn."""
        self._waiting.put(read, source=read.delivery.topic, urgent=read.urgent)
        self._go_on()

    def _go_on(self) -> None:
        """Store what may be stored now; look again when a batch under way has taken too long to be waited for."""
        assert self._tasks is not None
        now_s = time.monotonic()
        pouring = self._others.pours(now_s)
        while (batch := self._waiting.next(now_s=now_s, pouring=pouring)) is not None:
            self._tasks.create_task(self._handle(batch), name="alarms-store")
        until_s = now_s + _LOOK_AGAIN_S if pouring else self._waiting.held_up_until_s
        if self._timer is None and until_s is not None:
            self._timer = asyncio.get_running_loop().call_later(max(0.01, until_s - now_s), self._look_again)

    def _look_again(self) -> None:
        self._timer = None
        self._go_on()

    async def _handle(self, batch: Batch[_Read]) -> None:
        delay_s = 0.05
        while True:
            try:
                await self._store_and_tell(batch.items)
                break
            except psycopg.Error as exc:
                # Data errors were dealt with below, so this one is the database's, and it will be back.
                _log.warning("cannot store an alarm yet: %s %s", type(exc).__name__, exc.sqlstate)
                await asyncio.sleep(delay_s * self._rng.uniform(0.5, 1.0))
                delay_s = min(delay_s * 2, 1.0)
        self._waiting.done(batch)
        self._go_on()

    async def _store_and_tell(self, batch: Sequence[_Read]) -> None:
        """Store what of a batch is not stored yet: together what is plain, and then, alone, what is left."""
        waiting = [(read, _as_it_came(read, read.press)) for read in batch if read.press and not read.settled]
        plain = [(read, press) for read, press in waiting if not press.copy]
        if len(plain) > 1:
            for (read, press), raised in zip(plain, await self._raise_all([press for _, press in plain]), strict=True):
                if raised is not None:
                    self._settle(read, press, raised)
        for read in batch:
            if read.settled:
                continue
            if read.press is None:
                self._settle(read, None, await self._misread(read.delivery, read.terminal, read.reason))
            else:
                self._settle(read, read.press, await self._raise(read.delivery, _as_it_came(read, read.press)))

    def _settle(self, read: _Read, press: Press | None, raised: Raised | None) -> None:
        """Do all that follows from a commit. Nothing here waits: no alarm is to wait for what follows another's."""
        delivery = read.delivery
        self._observe("committed")
        self._since(delivery, "stored")
        if read.key is not None:
            self._unstored.pop(read.key, None)
        read.settled = True
        self._acknowledge(read)
        self._observe("acknowledged")
        if raised is None:
            self._inbox.strike(delivery)
            return
        self._submit(raised.notices)
        self._observe("submitted")
        ALARMS.labels("unreadable" if press is None else raised.how).inc()
        if read.terminal is not None:
            self._tell(read.terminal, press, raised)
        self._since(delivery, "acknowledged")
        self._observe("told")
        self._follow_up(read, press, raised)

    def _follow_up(self, read: _Read, press: Press | None, raised: Raised) -> None:
        delivery, uid = read.delivery, raised.terminal_uid
        over = partial(self._inbox.strike, delivery)
        if uid is None or press is None or read.terminal is None:
            over()
            return
        self._aftermath.renew(state_of(uid, press))
        if time.monotonic() - delivery.received_mono > _OVERTAKEN_S:
            # It stays in the inbox until then: whoever comes after us would look for it as well.
            self._aftermath.catch_up(read.terminal, uid, since=delivery.received_at, done=over)
        else:
            over()

    def _since(self, delivery: Delivery, stage: str) -> None:
        STAGE.labels(stage).observe(time.monotonic() - delivery.received_mono)

    async def _raise_all(self, presses: Sequence[Press]) -> Sequence[Raised | None]:
        """Store presses together; whatever is refused among them, each has its own chance afterwards."""
        try:
            return await raise_alarms(self._pool, self._directory, presses, worker=self._worker())
        except psycopg.Error as exc:
            if not is_data_error(exc):
                raise
            _log.warning("the database refuses a batch of %d alarms: %s", len(presses), type(exc).__name__)
        except NoSite:
            pass
        except Exception:  # noqa: BLE001 # the one that is at fault is found, and dealt with, alone (see below)
            _log.exception("a batch of %d alarms could not be handled", len(presses))
        return [None] * len(presses)

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

    def _tell(self, terminal: str, press: Press | None, raised: Raised) -> None:
        """Say "received". It is sent with QoS 0: a terminal that does not hear it repeats, and is answered again."""
        ack = Ack(
            boot=None if press is None else press.boot,
            seq=None if press is None else press.seq,
            case=raised.case_id,
        )
        try:
            self._link.post(down_topic(terminal, Down.ACK), ack.model_dump_json().encode())
        except LinkDown as exc:
            _log.warning("cannot tell the terminal: %s", exc, extra={"terminal": terminal})


def _surely_read(delivery: Delivery) -> _Read:
    """Read a delivery; what we fail on is an alarm that cannot be read: people hear of it (I2, D12)."""
    try:
        return _read(delivery)
    except Exception as exc:  # noqa: BLE001 # here nobody else would: it would wait for ever, and all behind it
        _log.exception("an alarm could not be read")
        return _Read(delivery, None, None, f"the gateway failed on it ({type(exc).__name__})")


def _read(delivery: Delivery) -> _Read:
    try:
        terminal, _ = parse_up(delivery.topic)
    except FrameError as exc:
        return _Read(delivery, None, None, str(exc))
    alarm = read_alarm(delivery.payload)
    if isinstance(alarm, Unreadable):
        return _Read(delivery, terminal, None, alarm.reason)
    press = press_of(
        alarm,
        terminal=terminal,
        transport=_TRANSPORT,
        payload=delivery.payload,
        received_at=delivery.received_at,
        # What a session missed while we were away, another replica has dealt with, perhaps to the end.
        # Only numbers together with a time of the terminal's own tell such a copy from a new press.
        copy=delivery.retained or (delivery.stored and None not in (alarm.boot, alarm.seq) and _dated(alarm, delivery)),
    )
    return _Read(delivery, terminal, press)


def _waited(delivery: Delivery) -> timedelta:
    """Return how long it has waited by now, nothing if that is not worth to be spoken of."""
    waited_s = time.monotonic() - delivery.received_mono
    return timedelta(seconds=waited_s) if waited_s > _WAITED_S else timedelta(0)


def _as_it_came(read: _Read, press: Press) -> Press:
    """Return a press for its turn: what waited is judged by when it came."""
    waited = _waited(read.delivery)
    return replace(press, waited=waited) if waited else press


def _dated(alarm: ReadAlarm, delivery: Delivery) -> bool:
    """Has the terminal a clock? Without one its times begin again with it, and would make a new press an old one."""
    return alarm.at is not None and sane_time(alarm.at, delivery.received_at) == alarm.at
