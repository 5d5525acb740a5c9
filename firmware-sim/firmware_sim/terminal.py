"""A virtual one-key terminal: topics and payloads in, publications out, time as an argument.

No I/O and no clock in here. An alarm is kept and repeated under the same ``boot`` and ``seq`` until the gateway
says ``received`` on down/ack (D4); a PUBACK ends nothing. Heartbeats and fixes wait for a connection in a bounded
buffer, alarms in an unbounded one (I2).
"""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Literal, NamedTuple
from uuid import UUID

from pydantic import BaseModel, ValidationError

from protocols.okc import Down, Up, down_topic, up_topic
from schemas.commands import Ack, Command, Progress
from schemas.reports import AlarmReport, EventReport, Fix, FixReport, HeartbeatReport, Report, ResultReport

__all__ = [
    "Heard",
    "Lost",
    "Output",
    "PressKey",
    "Pressed",
    "Publish",
    "Received",
    "Rejected",
    "Terminal",
    "TerminalConfig",
]

_M_PER_DEGREE = 111_320.0
_COMMANDS_REMEMBERED = 64
_LONGEST_HEARTBEAT_S = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminalConfig:
    """What a terminal is made to do.

    Attributes:
        id: Public id; also its client id and user name at the broker.
        home: Latitude and longitude in WGS-84 degrees, around which it wanders.
        heartbeat_every: None: no heartbeats.
        fix_every: None: no fixes of their own; an alarm still carries the last position.
        clock_offset: How far the terminal's clock is ahead of the true time. None: never set, so ``at`` is null.
        battery_life: From full to empty.
        buffered: Heartbeats and fixes kept while offline; the oldest goes first.
        wander_m: How far from home it usually strays.
    """

    id: str
    home: tuple[float, float] | None = (32.0603, 118.7969)
    heartbeat_every: timedelta | None = timedelta(seconds=60)
    fix_every: timedelta | None = None
    clock_offset: timedelta | None = timedelta(0)
    first_repeat: timedelta = timedelta(seconds=2)
    longest_repeat: timedelta = timedelta(seconds=10)
    battery_pct: float = 100.0
    battery_life: timedelta = timedelta(days=30)
    low_battery_pct: int = 10
    buffered: int = 100
    telemetry_qos: Literal[0, 1] = 1
    wander_m: float = 60.0
    firmware: str = "sim-1"


class PressKey(NamedTuple):
    """The numbers under which an alarm is repeated."""

    boot: int
    seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pressed:
    """A press was taken up and will be repeated until it is received."""

    key: PressKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Publish:
    """Bytes for the broker. ``press`` says which alarm they carry, if one."""

    topic: str
    payload: bytes
    qos: Literal[0, 1]
    press: PressKey | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """The gateway has the alarm."""

    key: PressKey
    case: UUID | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """The gateway told how far help is, or wants something done."""

    message: Progress | Command


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A message that breaks the contract, or came on a topic that is not this terminal's."""

    topic: str
    payload: bytes
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """An alarm was wiped together with the memory that held it; only `Terminal.reflash` does this."""

    key: PressKey


Output = Pressed | Publish | Received | Heard | Rejected | Lost


@dataclass(slots=True)
class _Pending:
    topic: str
    payload: bytes
    sent: int = 0
    repeat_at: datetime | None = None


@dataclass(slots=True)
class _Position:
    """Metres north and east of home, pulled back to it: a person who goes out for a walk and returns."""

    north_m: float = 0.0
    east_m: float = 0.0
    accuracy_m: float = 12.0

    def step(self, rng: Random, wander_m: float) -> None:
        self.north_m = 0.8 * self.north_m + 0.6 * wander_m * rng.gauss(0, 1)
        self.east_m = 0.8 * self.east_m + 0.6 * wander_m * rng.gauss(0, 1)
        self.accuracy_m = rng.uniform(4, 40)


class Terminal:
    """One terminal. Every input returns what follows from it; call `handle_timer` at `next_deadline`.

    It is off until `power_on`. Counters and unreceived alarms survive a restart, as in non-volatile memory.
    Never raises on what the gateway sent; bad input becomes `Rejected`.
    """

    def __init__(self, config: TerminalConfig, rng: Random) -> None:
        """Take the terminal out of its box; `rng` decides about its walk, its signal and the jitter of repeats."""
        self.config = config
        self._rng = rng
        self._boot = 0
        self._seq = 0
        self._on = False
        self._online = False
        self._pending: dict[PressKey, _Pending] = {}
        self._buffer: deque[Publish] = deque(maxlen=config.buffered)
        self._commands: deque[str] = deque(maxlen=_COMMANDS_REMEMBERED)
        self._booted_at: datetime | None = None
        self._charged_at: datetime | None = None
        self._heartbeat_every = config.heartbeat_every
        self._heartbeat_at: datetime | None = None
        self._fix_at: datetime | None = None
        self._position = _Position()
        self._signal_dbm = rng.randint(-95, -65)
        self._low_battery_told = False

    @property
    def boot(self) -> int:
        """Restarts so far."""
        return self._boot

    @property
    def pending(self) -> tuple[PressKey, ...]:
        """The alarms that wait for ``received``, oldest first."""
        return tuple(self._pending)

    def power_on(self, now: datetime) -> list[Output]:
        """Start, or start again: the boot count goes up and numbers begin at 1."""
        self.disconnected(now)
        self._on = True
        self._boot += 1
        self._seq = 0
        self._booted_at = now
        self._charged_at = self._charged_at or now
        if self._heartbeat_every is not None:
            # A street that gets its power back must not beat in step.
            self._heartbeat_at = now + self._heartbeat_every * self._rng.random()
        if self.config.fix_every is not None:
            self._fix_at = now + self.config.fix_every * self._rng.random()
        return []

    def power_off(self, now: datetime) -> list[Output]:
        """Lose power: telemetry that was waiting is gone, alarms are not."""
        self._on = False
        self._buffer.clear()
        return self.disconnected(now)

    def reflash(self, now: datetime) -> list[Output]:
        """Wipe the memory and start: numbers that were used once come again (D10)."""
        lost = [Lost(key=key) for key in self._pending]
        self._pending.clear()
        self._buffer.clear()
        self._commands.clear()
        self._boot = 0
        return [*lost, *self.power_on(now)]

    def connected(self, now: datetime) -> list[Output]:
        """Go on after the broker took us and our subscriptions: alarms first, then what was buffered."""
        if not self._on:
            return []
        self._online = True
        outputs: list[Output] = [self._send(key, now) for key in self._pending]
        outputs += self._buffer
        self._buffer.clear()
        return outputs

    def disconnected(self, _now: datetime) -> list[Output]:
        """Do without a connection: repeats wait for the next one."""
        self._online = False
        for pending in self._pending.values():
            pending.repeat_at = None
        return []

    def press(self, now: datetime, kinds: Iterable[str] = ("sos",), *, test: bool = False) -> list[Output]:
        """Somebody pressed the key, or a sensor did. A terminal without power does nothing."""
        if not self._on:
            return []
        key = self._next_key()
        report = AlarmReport(
            v=1,
            boot=key.boot,
            seq=key.seq,
            at=self._clock(now),
            kinds=list(kinds),
            fix=self._fix(now),
            battery_pct=self._battery_pct(now),
            signal_dbm=self._signal_dbm,
            test=test,
        )
        self._pending[key] = _Pending(up_topic(self.config.id, Up.ALARM), _encode(report))
        outputs: list[Output] = [Pressed(key=key)]
        if self._online:
            outputs.append(self._send(key, now))
        return outputs

    def say(self, now: datetime, name: str, value: str | int | None = None) -> list[Output]:
        """Publish an event, as ``cancel`` or ``key.ok``; it waits while the terminal is offline."""
        if not self._on:
            return []
        key = self._next_key()
        report = EventReport(v=1, boot=key.boot, seq=key.seq, at=self._clock(now), name=name, value=value)
        return self._telemetry(Up.EVENT, report, qos=1)

    def received(self, topic: str, payload: bytes, now: datetime) -> list[Output]:
        """Take a message from the broker."""
        own = {down_topic(self.config.id, kind): kind for kind in Down}
        try:
            match own.get(topic):
                case Down.ACK:
                    return self._acknowledged(Ack.model_validate_json(payload))
                case Down.COMMAND:
                    return self._commanded(Command.model_validate_json(payload), now)
                case Down.PROGRESS:
                    return [Heard(message=Progress.model_validate_json(payload))]
                case None:
                    return [Rejected(topic=topic, payload=payload, reason="not a topic of this terminal")]
        except ValidationError as exc:
            reason = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in exc.errors(include_input=False))
            return [Rejected(topic=topic, payload=payload, reason=reason)]

    def next_deadline(self) -> datetime | None:
        """When to call `handle_timer`, or None while the terminal is off or has nothing to do."""
        if not self._on:
            return None
        repeats = [pending.repeat_at for pending in self._pending.values()]
        return min((at for at in (*repeats, self._heartbeat_at, self._fix_at) if at is not None), default=None)

    def handle_timer(self, now: datetime) -> list[Output]:
        """Repeat, beat and tell the position, as far as it is time."""
        if not self._on:
            return []
        outputs: list[Output] = [
            self._send(key, now)
            for key, pending in self._pending.items()
            if pending.repeat_at is not None and pending.repeat_at <= now
        ]
        if self._heartbeat_at is not None and self._heartbeat_every is not None and self._heartbeat_at <= now:
            self._heartbeat_at = _after(self._heartbeat_at, self._heartbeat_every, now)
            outputs += self._heartbeat(now)
        if self._fix_at is not None and self.config.fix_every is not None and self._fix_at <= now:
            self._fix_at = _after(self._fix_at, self.config.fix_every, now)
            self._position.step(self._rng, self.config.wander_m)
            outputs += self._tell_position(now)
        return outputs

    def _next_key(self) -> PressKey:
        self._seq += 1
        return PressKey(self._boot, self._seq)

    def _clock(self, now: datetime) -> datetime | None:
        return None if self.config.clock_offset is None else now + self.config.clock_offset

    def _send(self, key: PressKey, now: datetime) -> Publish:
        pending = self._pending[key]
        pending.sent += 1
        if pending.sent == 1:
            wait = self.config.first_repeat
        else:
            # Jitter only shortens, so that no repeat comes later than the longest wait.
            wait = min(self.config.first_repeat * 2 ** min(pending.sent - 1, 16), self.config.longest_repeat)
            wait *= self._rng.uniform(0.75, 1.0)
        pending.repeat_at = now + wait
        return Publish(topic=pending.topic, payload=pending.payload, qos=1, press=key)

    def _telemetry(self, kind: Up, report: Report, *, qos: Literal[0, 1] | None = None) -> list[Output]:
        publish = Publish(
            topic=up_topic(self.config.id, kind),
            payload=_encode(report),
            qos=self.config.telemetry_qos if qos is None else qos,
        )
        if self._online:
            return [publish]
        self._buffer.append(publish)
        return []

    def _heartbeat(self, now: datetime) -> list[Output]:
        key = self._next_key()
        battery_pct = self._battery_pct(now)
        self._signal_dbm = max(-113, min(-51, self._signal_dbm + self._rng.randint(-3, 3)))
        beat = HeartbeatReport(
            v=1,
            boot=key.boot,
            seq=key.seq,
            at=self._clock(now),
            battery_pct=battery_pct,
            battery_mv=3_300 + 9 * battery_pct,
            signal_dbm=self._signal_dbm,
            mains=False,
            uptime_s=int((now - (self._booted_at or now)).total_seconds()),
            firmware=self.config.firmware,
        )
        outputs: list[Output] = []
        if battery_pct <= self.config.low_battery_pct and not self._low_battery_told:
            self._low_battery_told = True
            outputs += self.press(now, ("low_battery",))
        return outputs + self._telemetry(Up.HEARTBEAT, beat)

    def _tell_position(self, now: datetime) -> list[Output]:
        fix = self._fix(now)
        if fix is None:
            return []
        key = self._next_key()
        return self._telemetry(Up.FIX, FixReport(v=1, boot=key.boot, seq=key.seq, at=self._clock(now), fix=fix))

    def _fix(self, now: datetime) -> Fix | None:
        if self.config.home is None:
            return None
        lat, lon = self.config.home
        place = self._position
        return Fix(
            lat=round(lat + place.north_m / _M_PER_DEGREE, 6),
            lon=round(lon + place.east_m / (_M_PER_DEGREE * math.cos(math.radians(lat))), 6),
            accuracy_m=round(place.accuracy_m, 1),
            at=self._clock(now),
        )

    def _battery_pct(self, now: datetime) -> int:
        drained = 100 * ((now - (self._charged_at or now)) / self.config.battery_life)
        return max(0, min(100, round(self.config.battery_pct - drained)))

    def _acknowledged(self, ack: Ack) -> list[Output]:
        if ack.boot is None or ack.seq is None:
            # We number every alarm, so an answer without numbers is to none of them.
            return []
        key = PressKey(ack.boot, ack.seq)
        if self._pending.pop(key, None) is None:
            return []
        return [Received(key=key, case=ack.case)]

    def _commanded(self, command: Command, now: datetime) -> list[Output]:
        heard: list[Output] = [Heard(message=command)]
        clock = self._clock(now)
        if command.id in self._commands:
            return heard + self._result(command, "done", now)
        if command.expires_at is not None and clock is not None and command.expires_at < clock:
            return heard + self._result(command, "refused", now, detail="expired")
        self._commands.append(command.id)
        outputs = heard + self._result(command, "accepted", now)
        match command.name:
            case "locate":
                outputs += self._tell_position(now)
            case "self_test":
                outputs += self._heartbeat(now)
            case "configure":
                seconds = command.arguments.get("heartbeat_s")
                if isinstance(seconds, bool | str | None) or not 1 <= seconds <= _LONGEST_HEARTBEAT_S:
                    return outputs + self._result(command, "failed", now, detail="heartbeat_s: 1 to 86400")
                self._heartbeat_every = timedelta(seconds=seconds)
                self._heartbeat_at = now + self._heartbeat_every
            case "call_back" | "dial" | "play":
                pass
        return outputs + self._result(command, "done", now)

    def _result(
        self,
        command: Command,
        state: Literal["accepted", "done", "failed", "refused"],
        now: datetime,
        *,
        detail: str | None = None,
    ) -> list[Output]:
        key = self._next_key()
        result = ResultReport(
            v=1, boot=key.boot, seq=key.seq, at=self._clock(now), command=command.id, state=state, detail=detail
        )
        return self._telemetry(Up.RESULT, result, qos=1)


def _encode(report: BaseModel) -> bytes:
    return report.model_dump_json().encode()


def _after(last: datetime, every: timedelta, now: datetime) -> datetime:
    """Return the next beat: in step with the last one, but without making up for those that were missed."""
    return last + every if last + every > now else now + every
