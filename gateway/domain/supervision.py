"""Supervision of terminals: who should have been heard by now, and what is wrong with one (R24).

One function looks at one terminal: from what is known of it, what was known at the look before, and a time it says what
the terminal is now, which troubles begin and which are over, and when to look again. A report needs no look unless it
trips one of the wires that the look before has set.

All times here are steady times, which no step of a wall clock moves, and ``now`` is never later than that up to which
everything the terminals said is stored: whoever could not listen has no right to say that nobody spoke.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any

from gateway.domain.wellbeing import Care, Signs, astray, inactive

__all__ = [
    "CANNOT_CALL",
    "Cause",
    "Deafness",
    "Look",
    "Observed",
    "Presence",
    "Profile",
    "Said",
    "Trouble",
    "Wires",
    "battery_days",
    "look",
]

DAILY = timedelta(days=1)
NEVER_SEEN_AFTER = timedelta(days=1)
"""A terminal that stands in a home and was never heard is as good as a dead one after a day."""

_CHARGED = 5
"""Percent by which a battery must have risen above a threshold before its trouble is over."""

_CLEARER_DB = 6
_CLOCK_GOOD_S = 60.0
_SIM_WARNS = timedelta(days=7)
_DECAY_DB = 10.0


class Presence(StrEnum):
    """Whether a terminal is there. ``back``: heard again after a loss, not yet for as long as it may be silent."""

    NEVER_SEEN = "never_seen"
    ONLINE = "online"
    LATE = "late"
    OFFLINE = "offline"
    BACK = "back"


class Cause(StrEnum):
    """What can be wrong with a terminal, or with the person who has it; each is a case of its own."""

    OFFLINE = "offline"
    LOW_BATTERY = "low_battery"
    BATTERY_CRITICAL = "battery_critical"
    POWER_LOST = "power_lost"
    OUT_OF_RANGE = "out_of_range"
    TAMPER = "tamper"
    CLOCK_WRONG = "clock_wrong"
    SIGNAL_WEAK = "signal_weak"
    SIM_UNPAID = "sim_unpaid"
    NOT_TESTED = "not_tested"
    NEVER_PRESSED = "never_pressed"
    FIRMWARE_OLD = "firmware_old"
    WANDER = "wander"
    INACTIVITY = "inactivity"


_CONFIRMED = (Cause.SIGNAL_WEAK, Cause.CLOCK_WRONG)
"""What must hold for a while; the memory knows since when."""

CANNOT_CALL = frozenset({Cause.OFFLINE, Cause.BATTERY_CRITICAL, Cause.OUT_OF_RANGE, Cause.SIM_UNPAID})
"""With these nobody may count on the key: person and family must know to dial 120 until it is repaired (R24)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What is expected of a terminal.

    Attributes:
        silent_after: Silence after which it is lost.
        heartbeat: How often it is to be heard when all is well; None: three times within ``silent_after``.
        battery_low: Percent at which its battery is to be changed or charged.
        battery_critical: Percent at which it may go off any time.
        signal_weak: dBm at which an alarm may not get through.
        clock_off_s: Seconds by which its clock may be off.
        tested_days: Days within which its key must have been pressed, if only as a test.
        sim_balance: Yuan that must be left on its SIM.
        sim_paid_until: Last day for which its SIM is paid, where nobody can ask the network.
        firmware: Oldest version that is good enough.
        track_s: How often it reports its place while an emergency is open; None: as always.
        fix_s: How often it does otherwise.
    """

    silent_after: timedelta = timedelta(hours=1)
    heartbeat: timedelta | None = None
    battery_low: int = 20
    battery_critical: int = 10
    signal_weak: int = -107
    clock_off_s: float = 300.0
    tested_days: int = 30
    sim_balance: float = 10.0
    sim_paid_until: date | None = None
    firmware: str | None = None
    track_s: int | None = None
    fix_s: int = 600

    @property
    def late_after(self) -> timedelta:
        """Silence after which it is late: two of its beats and a bit."""
        beat = self.silent_after / 3 if self.heartbeat is None else self.heartbeat
        return min(beat * 2.2, self.silent_after * 0.8)

    def record(self) -> dict[str, Any]:
        """Return the thresholds as they are stored; the two times have columns of their own."""
        left = {one.name for one in fields(self)} - {"silent_after", "heartbeat"}
        values = {name: getattr(self, name) for name in left}
        paid = self.sim_paid_until
        return values | {
            "sim_paid_until": None if paid is None else paid.isoformat(),
            "heartbeat_s": None if self.heartbeat is None else self.heartbeat.total_seconds(),
        }

    @classmethod
    def of_record(cls, silent_after: timedelta, record: Mapping[str, Any]) -> "Profile":
        """Return the profile that `record` made."""
        values = dict(record)
        paid, beat = values.pop("sim_paid_until", None), values.pop("heartbeat_s", None)
        return cls(
            silent_after=silent_after,
            heartbeat=None if beat is None else timedelta(seconds=beat),
            sim_paid_until=None if paid is None else date.fromisoformat(paid),
            **values,
        )


@dataclass(frozen=True, slots=True)
class Deafness:
    """The last time in which we could not listen. ``total``: the broker did not keep for us what came meanwhile."""

    begin: datetime
    end: datetime
    total: bool


@dataclass(frozen=True, slots=True)
class Said:
    """What a terminal said of something, and when we heard it."""

    value: object
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What is known of a terminal now.

    ``kept``: its last report came so that a broker would have kept the next one for us. ``said`` holds newest events,
    ``alarms`` when it last raised each kind that has an open technical case. The last three are only known at a
    daily look, see ``daily``.
    """

    since: datetime
    supervised: bool = True
    heard_at: datetime | None = None
    kept: bool = True
    battery_pct: int | None = None
    battery_at: datetime | None = None
    signal_dbm: int | None = None
    mains: bool | None = None
    mains_at: datetime | None = None
    firmware: str | None = None
    skew_s: float | None = None
    said: Mapping[str, Said] = field(default_factory=dict)
    alarms: Mapping[str, datetime] = field(default_factory=dict)
    daily: bool = False
    last_press: datetime | None = None
    battery_curve: Sequence[tuple[date, float]] = ()
    signal_curve: Sequence[tuple[date, float]] = ()
    care: Care | None = None
    signs: Signs | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wires:
    """What a report must say to be worth a look: a value outside [from, to), or another one. None: any value is."""

    battery: tuple[int, int] | None = None
    signal: tuple[int, int] | None = None
    skew: tuple[float, float] | None = None
    mains: bool | None = None
    firmware: str | None = None


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that is wrong from ``since`` on. ``detail`` holds numbers and words, nothing personal."""

    cause: Cause
    since: datetime
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one look found. ``opened`` are troubles that were not there before, ``cleared`` those that are over."""

    state: Presence
    opened: tuple[Trouble, ...]
    cleared: tuple[Cause, ...]
    memory: dict[str, Any]
    look_at: datetime
    daily_at: datetime
    calm: bool
    wires: Wires
    battery_days: float | None


def look(
    profile: Profile,
    seen: Observed,
    *,
    before: Presence,
    memory: Mapping[str, Any],
    has: Collection[Cause],
    daily_at: datetime,
    now: datetime,
    deafness: Deafness | None = None,
) -> Look:
    """Look at one terminal at `now`. `has` are the troubles that it is known to have, `memory` is of the look before.

    What it says depends on `seen` alone and on what looks before have said, never on how often was looked.
    """
    daily_at = daily_at if now < daily_at else now + DAILY
    if not seen.supervised:
        return Look(
            state=before if seen.heard_at is not None else Presence.NEVER_SEEN,
            opened=(),
            cleared=tuple(has),
            memory={},
            look_at=daily_at,
            daily_at=daily_at,
            calm=False,
            wires=Wires(),
            battery_days=None,
        )
    kept = dict(memory)
    state, silent_at, next_at = _presence(profile, seen, before, kept, now, deafness)
    if state in (Presence.OFFLINE, Presence.NEVER_SEEN):
        # A terminal that is not heard says nothing new: whatever else is wrong with it stays as it was.
        for name in _CONFIRMED:
            kept.pop(name, None)
        detail = {"allowed_s": round(profile.silent_after.total_seconds())}
        lost = {Cause.OFFLINE: Trouble(Cause.OFFLINE, silent_at, detail)} if state is Presence.OFFLINE else {}
        # Time passes for the person all the same: nobody has seen them for so long.
        person_at = _person(seen, has, kept, lost, now)
        judged = {Cause.OFFLINE, Cause.INACTIVITY, Cause.WANDER}
        return Look(
            state=state,
            opened=tuple(one for cause, one in lost.items() if cause not in has),
            cleared=tuple(cause for cause in has if cause in judged and cause not in lost),
            memory=kept,
            look_at=min(at for at in (next_at, person_at, daily_at) if at is not None),
            daily_at=daily_at,
            calm=False,
            wires=Wires(),
            battery_days=kept.get("battery_days"),
        )
    wrong: dict[Cause, Trouble] = {}
    battery_wire = _battery(profile, seen, has, wrong, now)
    _power(seen, kept, wrong, now)
    signal_wire, signal_at = _signal(profile, seen, has, kept, wrong, now)
    skew_wire, skew_at = _clock(profile, seen, has, kept, wrong, now)
    _told(profile, seen, wrong, now)
    days = _slow(profile, seen, has, kept, wrong, now)
    person_at = _person(seen, has, kept, wrong, now)
    confirming = [at for at in (signal_at, skew_at) if at is not None]
    return Look(
        state=state,
        opened=tuple(one for cause, one in wrong.items() if cause not in has),
        cleared=tuple(cause for cause in has if cause not in wrong),
        memory=kept,
        look_at=min(at for at in (next_at, *confirming, person_at, daily_at) if at is not None),
        daily_at=daily_at,
        calm=state is Presence.ONLINE and not confirming and seen.care is None,
        wires=Wires(battery=battery_wire, signal=signal_wire, skew=skew_wire, mains=seen.mains, firmware=seen.firmware),
        battery_days=days,
    )


def _presence(
    profile: Profile,
    seen: Observed,
    before: Presence,
    memory: dict[str, Any],
    now: datetime,
    deafness: Deafness | None,
) -> tuple[Presence, datetime, datetime | None]:
    """Return whether it is there, when it had to be heard at the latest, and when time changes that answer."""
    if seen.heard_at is None:
        silent_at = late_at = seen.since + max(profile.silent_after, NEVER_SEEN_AFTER)
    else:
        silent_at, late_at = seen.heard_at + profile.silent_after, seen.heard_at + profile.late_after
    begun = seen.since if seen.heard_at is None else seen.heard_at
    if deafness is not None and begun < deafness.end and (deafness.total or not seen.kept):
        # What it said while nobody listened is lost: it has to have had the time to say it again.
        silent_at = max(silent_at, deafness.end + profile.late_after)
        late_at = max(late_at, deafness.end + profile.late_after)
    if now >= silent_at:
        memory.pop("back_until", None)
        return Presence.OFFLINE, silent_at, None
    if seen.heard_at is None:
        return Presence.NEVER_SEEN, silent_at, silent_at
    if before is Presence.OFFLINE:
        memory["back_until"] = (seen.heard_at + profile.silent_after).isoformat()
    if now >= late_at:
        return Presence.LATE, silent_at, silent_at
    if "back_until" in memory:
        until = datetime.fromisoformat(memory["back_until"])
        if now < until:
            return Presence.BACK, silent_at, min(until, late_at)
        del memory["back_until"]
    return Presence.ONLINE, silent_at, late_at


def _battery(
    profile: Profile, seen: Observed, has: Collection[Cause], wrong: dict[Cause, Trouble], now: datetime
) -> tuple[int, int] | None:
    """Judge the battery; it must have risen well above a threshold before it counts as charged."""
    pct, low, critical = seen.battery_pct, profile.battery_low, profile.battery_critical
    said_at = seen.alarms.get(Cause.LOW_BATTERY)
    alarmed = said_at is not None and (pct is None or seen.battery_at is None or seen.battery_at <= said_at)
    if pct is None:
        if alarmed:
            wrong[Cause.LOW_BATTERY] = Trouble(Cause.LOW_BATTERY, now)
        return None
    was_critical = Cause.BATTERY_CRITICAL in has
    was_low = was_critical or Cause.LOW_BATTERY in has
    if pct <= critical or (was_critical and pct < critical + _CHARGED):
        wrong[Cause.BATTERY_CRITICAL] = Trouble(Cause.BATTERY_CRITICAL, now, {"battery_pct": pct})
        return 0, critical + _CHARGED
    if pct <= low or (was_low and pct < low + _CHARGED):
        wrong[Cause.LOW_BATTERY] = Trouble(Cause.LOW_BATTERY, now, {"battery_pct": pct})
        return critical + 1, low + _CHARGED
    if alarmed:
        wrong[Cause.LOW_BATTERY] = Trouble(Cause.LOW_BATTERY, now, {"battery_pct": pct})
        return None
    return low + 1, 101


def _power(seen: Observed, memory: dict[str, Any], wrong: dict[Cause, Trouble], now: datetime) -> None:
    """Judge the mains: only who was ever on them can lose them."""
    if seen.mains:
        memory["mains"] = True
    said_at = seen.alarms.get(Cause.POWER_LOST)
    alarmed = said_at is not None and (
        seen.mains is None or not memory.get("mains") or seen.mains_at is None or seen.mains_at <= said_at
    )
    if alarmed or (seen.mains is False and memory.get("mains")):
        wrong[Cause.POWER_LOST] = Trouble(Cause.POWER_LOST, now)


def _signal(
    profile: Profile,
    seen: Observed,
    has: Collection[Cause],
    memory: dict[str, Any],
    wrong: dict[Cause, Trouble],
    now: datetime,
) -> tuple[tuple[int, int] | None, datetime | None]:
    """Judge the signal: weak for as long as the terminal may be silent, or weaker from week to week."""
    dbm, weak = seen.signal_dbm, profile.signal_weak
    if seen.daily:
        memory["decay_db"] = round(_fall(seen.signal_curve), 1)
    decays = dbm is not None and dbm <= weak + 2 * _CLEARER_DB and memory.get("decay_db", 0.0) >= _DECAY_DB
    is_open = Cause.SIGNAL_WEAK in has
    low = dbm is not None and (dbm <= weak or (is_open and dbm < weak + _CLEARER_DB))
    sure_at = _confirmed(Cause.SIGNAL_WEAK, memory, now, profile.silent_after, holds=low, is_open=is_open)
    if (low and sure_at is None) or decays:
        detail = {"signal_dbm": dbm} | ({"decay_db": memory["decay_db"]} if decays else {})
        wrong[Cause.SIGNAL_WEAK] = Trouble(Cause.SIGNAL_WEAK, now, detail)
    if dbm is None:
        return None, None
    return ((-200, weak + _CLEARER_DB) if low else (weak + 1, 100)), sure_at


def _clock(
    profile: Profile,
    seen: Observed,
    has: Collection[Cause],
    memory: dict[str, Any],
    wrong: dict[Cause, Trouble],
    now: datetime,
) -> tuple[tuple[float, float] | None, datetime | None]:
    """Judge the clock: what was only delivered late looks wrong as well, but not for long."""
    skew_s = seen.skew_s
    if skew_s is None:
        return None, None
    is_open = Cause.CLOCK_WRONG in has
    off = abs(skew_s) > (_CLOCK_GOOD_S if is_open else profile.clock_off_s)
    sure_at = _confirmed(Cause.CLOCK_WRONG, memory, now, profile.late_after, holds=off, is_open=is_open)
    if off and sure_at is None:
        wrong[Cause.CLOCK_WRONG] = Trouble(Cause.CLOCK_WRONG, now, {"skew_s": round(skew_s)})
    if not off:
        return (-profile.clock_off_s, profile.clock_off_s), None
    return ((_CLOCK_GOOD_S, 1e12) if skew_s > 0 else (-1e12, -_CLOCK_GOOD_S)), sure_at


def _confirmed(
    name: str, memory: dict[str, Any], now: datetime, after: timedelta, *, holds: bool, is_open: bool
) -> datetime | None:
    """Remember since when something holds; returns when it will have held for long enough, None: it has, or is over."""
    if not holds or is_open:
        memory.pop(name, None)
        return None
    began = datetime.fromisoformat(memory.setdefault(name, now.isoformat()))
    if now >= began + after:
        del memory[name]
        return None
    return began + after


def _told(profile: Profile, seen: Observed, wrong: dict[Cause, Trouble], now: datetime) -> None:
    """Judge what the terminal says in so many words."""
    out = seen.said.get("out_of_range")
    if out is not None and out.value is True:
        wrong[Cause.OUT_OF_RANGE] = Trouble(Cause.OUT_OF_RANGE, now)
    tamper, alarmed_at = seen.said.get("tamper"), seen.alarms.get(Cause.TAMPER)
    put_right = tamper is not None and tamper.value is False
    if (tamper is not None and tamper.value is True) or (
        alarmed_at is not None and not (put_right and tamper is not None and tamper.at >= alarmed_at)
    ):
        wrong[Cause.TAMPER] = Trouble(Cause.TAMPER, now)
    balance, paid = seen.said.get("sim_balance"), seen.said.get("sim_paid_until")
    left = balance.value if balance is not None else None
    until = _day(paid.value) if paid is not None else profile.sim_paid_until
    if isinstance(left, int | float) and not isinstance(left, bool) and left < profile.sim_balance:
        wrong[Cause.SIM_UNPAID] = Trouble(Cause.SIM_UNPAID, now, {"balance": left})
    elif until is not None and now.date() > until - _SIM_WARNS:
        wrong[Cause.SIM_UNPAID] = Trouble(Cause.SIM_UNPAID, now, {"paid_until": until.isoformat()})


def _person(
    seen: Observed, has: Collection[Cause], memory: dict[str, Any], wrong: dict[Cause, Trouble], now: datetime
) -> datetime | None:
    """Judge how the person is, where a household has asked for that; returns when time changes it."""
    if seen.care is None or seen.signs is None:
        return None
    where, astray_at = astray(seen.care.fences, seen.signs, memory, before=Cause.WANDER in has)
    if where is not None:
        wrong[Cause.WANDER] = Trouble(Cause.WANDER, now, where)
    silence, silent_at = inactive(seen.care, seen.signs)
    if silence is not None:
        wrong[Cause.INACTIVITY] = Trouble(Cause.INACTIVITY, now, silence)
    due = [at for at in (astray_at, silent_at) if at is not None]
    return now + (min(due) - seen.signs.now) if due else None


def _day(value: object) -> date | None:
    try:
        return date.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _slow(
    profile: Profile,
    seen: Observed,
    has: Collection[Cause],
    memory: dict[str, Any],
    wrong: dict[Cause, Trouble],
    now: datetime,
) -> float | None:
    """Judge what changes from day to day; between two daily looks it stays as it was."""
    if profile.firmware is not None and seen.firmware is not None and _older(seen.firmware, profile.firmware):
        detail = {"firmware": seen.firmware, "wanted": profile.firmware}
        wrong[Cause.FIRMWARE_OLD] = Trouble(Cause.FIRMWARE_OLD, now, detail)
    if not seen.daily:
        for cause in (Cause.NOT_TESTED, Cause.NEVER_PRESSED):
            if cause in has:
                wrong[cause] = Trouble(cause, now)
        days = memory.get("battery_days")
        return None if days is None else float(days)
    allowed = timedelta(days=profile.tested_days)
    if seen.last_press is None:
        if now - seen.since >= allowed:
            wrong[Cause.NEVER_PRESSED] = Trouble(Cause.NEVER_PRESSED, seen.since + allowed)
    elif now - seen.last_press >= allowed:
        wrong[Cause.NOT_TESTED] = Trouble(Cause.NOT_TESTED, seen.last_press + allowed)
    left = battery_days(seen.battery_curve, to=0.0)
    if left is None:
        memory.pop("battery_days", None)
    else:
        memory["battery_days"] = round(left, 1)
    return left


def _older(version: str, wanted: str) -> bool:
    """Is `version` older than `wanted`? Parts that are no numbers say nothing."""
    one, other = _numbers(version), _numbers(wanted)
    return bool(one) and bool(other) and one < other


def _numbers(version: str) -> list[int]:
    parts = version.lstrip("vV").split(".")
    return [int(part) for part in parts] if all(part.isascii() and part.isdigit() for part in parts) else []


def battery_days(curve: Sequence[tuple[date, float]], *, to: float) -> float | None:
    """Return in how many days a battery will be at `to` percent, or None if it does not get emptier.

    `curve` holds one value a day, oldest first; what was before the last charge does not count.
    """
    falling = list(curve)
    for place in range(len(falling) - 1, 0, -1):
        if falling[place][1] > falling[place - 1][1] + _CHARGED:
            falling = falling[place:]
            break
    slope = _slope(falling)
    if len(falling) < 3 or slope >= -0.01:
        return None
    return max(0.0, (falling[-1][1] - to) / -slope)


def _fall(curve: Sequence[tuple[date, float]]) -> float:
    """Return by how much the last three days are below the days before; 0 where there are too few."""
    if len(curve) < 10:
        return 0.0
    late, early = [value for _, value in curve[-3:]], [value for _, value in curve[:-3]]
    return sum(early) / len(early) - sum(late) / len(late)


def _slope(curve: Sequence[tuple[date, float]]) -> float:
    """Return the change a day of the straight line through `curve` (least squares)."""
    if len(curve) < 2:
        return 0.0
    days = [(day - curve[0][0]).days for day, _ in curve]
    values = [value for _, value in curve]
    mean_day, mean = sum(days) / len(days), sum(values) / len(values)
    spread = sum((day - mean_day) ** 2 for day in days)
    if not spread:
        return 0.0
    return sum((day - mean_day) * (value - mean) for day, value in zip(days, values, strict=True)) / spread
