"""Procedures (流程): timed steps of a case as data, and the one function that says what happens next.

Nothing here waits, asks a clock or touches a database: `advance` is given what is known of a case and the time, and
returns what changes and when it wants to be asked again (D9). A step is planned from the instant that led to it and
never from the instant at which somebody got round to it, so an outage, a slow machine or a clock that jumps delays
what happens and skips nothing.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

__all__ = [
    "Advance",
    "Change",
    "ChangeKind",
    "Does",
    "Due",
    "Procedure",
    "Seat",
    "Signals",
    "Step",
    "StepRow",
    "StepState",
    "advance",
    "end_step",
    "names_used",
    "parse_due",
    "signals_of",
]


class Does(StrEnum):
    """What a step is. ``TASK`` is for a human and ends with their word, the others are done by the gateway."""

    TASK = "task"
    TELL = "tell"
    WITHDRAW = "withdraw"
    COMMAND = "command"


class Seat(StrEnum):
    """Who has to do a task (R13, R17). ``FIRST`` is the first operator, also after a hand-over."""

    A = "A"
    B = "B"
    FIRST = "first"
    SUPERVISOR = "supervisor"


class StepState(StrEnum):
    """A step without a state still waits for what it comes after."""

    OPEN = "open"
    DONE = "done"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"


# When something is due

_DURATION = re.compile(r"(\d+(?:\.\d+)?) ?(ms|s|min|h|d)")
_NEXT_DAY = re.compile(r"next day (\d\d):(\d\d)")
_WORKING_DAYS = re.compile(r"(\d+) working days?")
_UNITS = {"ms": 0.001, "s": 1, "min": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """A deadline relative to the start of a step: one of a duration, a time on the next day, or working days."""

    duration: timedelta | None = None
    next_day: time | None = None
    working_days: int | None = None

    def at(self, start: datetime, *, timezone: str, is_working_day: Callable[[date], bool]) -> datetime:
        """Return the instant that this means for what starts at `start`.

        Days are days of `timezone`. Working days end at midnight: three of them from any time on a Monday end when
        Thursday does, if none of the days between is a holiday (R21).
        """
        if self.duration is not None:
            return start + self.duration
        zone = ZoneInfo(timezone)
        day = start.astimezone(zone).date()
        if self.next_day is not None:
            return datetime.combine(day + timedelta(days=1), self.next_day, zone).astimezone(UTC)
        left = self.working_days or 0
        while left:
            day += timedelta(days=1)
            left -= is_working_day(day)
        return datetime.combine(day + timedelta(days=1), time(0), zone).astimezone(UTC)


def parse_due(text: str) -> Due:
    """Read ``10 s``, ``5 min``, ``2 d``, ``next day 17:00`` or ``3 working days``.

    Raises:
        ValueError: Anything else.
    """
    if match := _DURATION.fullmatch(text):
        return Due(duration=timedelta(seconds=float(match[1]) * _UNITS[match[2]]))
    if match := _NEXT_DAY.fullmatch(text):
        return Due(next_day=time(int(match[1]), int(match[2])))
    if (match := _WORKING_DAYS.fullmatch(text)) and 0 < int(match[1]) <= 250:
        return Due(working_days=int(match[1]))
    raise ValueError("write for example 10 s, 5 min, 2 d, next day 17:00 or 3 working days")


# The data


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step.

    Attributes:
        id: Name of the step within its procedure.
        does: What kind of step it is.
        title: What people see, by language.
        after: Signals that all have to be there; each may name alternatives (``a | b``), the first of which counts.
        delay: How long after that the step begins.
        given: Flags of the case that must hold when it begins (``not x``: must not); otherwise it is skipped.
        unless: Signals that make it needless: before it began it is skipped, afterwards cancelled.
        ends_with: Signals that end it by themselves, each with the result that they stand for.
        within: Deadline, from its planned beginning. Passing it is a breach, which ends nothing.
        expires: Result with which the step ends at its deadline; None: it stays open, whoever owes it.
        seat: Who has to do a task.
        results: What a task may end with.
        roles: Whom to tell, or from whom to withdraw.
        command: What the terminal is to do, see ``schemas.commands.Command``.
        dials: The gateway itself calls the person for this task, where it has a modem. That nobody picks up ends the
            task with ``no_answer``; that somebody does is for a human to judge, but a key that is pressed says that
            the person is there (I7).
        aftercare: It outlives the closure of the case; every other step is cancelled by it (I4).
        clause: What asks for it, as R15.
    """

    id: str
    does: Does
    title: Mapping[str, str]
    after: tuple[str, ...] = ("started",)
    delay: timedelta = timedelta(0)
    given: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()
    ends_with: Mapping[str, str] = field(default_factory=dict)
    within: Due | None = None
    expires: str | None = None
    seat: Seat | None = None
    results: tuple[str, ...] = ("done",)
    roles: tuple[str, ...] = ()
    command: Mapping[str, object] | None = None
    dials: bool = False
    aftercare: bool = False
    clause: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Procedure:
    """A procedure at one version. What once ran keeps the version that it began with."""

    id: str
    version: int
    title: Mapping[str, str]
    steps: tuple[Step, ...]
    source: str = ""


# What is known of a case


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRow:
    """How a step stands. ``planned_at`` is when it should have begun, ``started_at`` when it did."""

    state: StepState
    planned_at: datetime
    started_at: datetime | None = None
    due_at: datetime | None = None
    breached_at: datetime | None = None
    ended_at: datetime | None = None
    result: str | None = None


Signals = Mapping[str, datetime]
"""Since when something is so: ``started``, ``closed``, facts (``owned``, ``on_scene``, ``informed:guardian`` …)."""


def signals_of(steps: Mapping[str, StepRow]) -> dict[str, datetime]:
    """Return what the steps themselves say: ``x``, ``x:RESULT``, ``x:started`` and ``x:breached``."""
    signals: dict[str, datetime] = {}
    for name, row in steps.items():
        if row.started_at is not None:
            signals[f"{name}:started"] = row.planned_at
        if row.breached_at is not None and row.due_at is not None:
            signals[f"{name}:breached"] = row.due_at
        if row.state is StepState.DONE and row.ended_at is not None:
            signals[name] = signals[f"{name}:{row.result}"] = row.ended_at
    return signals


class ChangeKind(StrEnum):
    """What happens to a step."""

    START = "start"
    SKIP = "skip"
    CANCEL = "cancel"
    END = "end"
    BREACH = "breach"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One thing that happens to a step, and how it stands then. ``at`` is when it should have."""

    step: Step
    kind: ChangeKind
    at: datetime
    row: StepRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Advance:
    """What changes now, in order. ``wake_at``: when time alone changes more; None: only something new can.

    ``over`` says that nothing is open and that no step can bring another about; a fact still might.
    """

    changes: tuple[Change, ...]
    steps: Mapping[str, StepRow]
    wake_at: datetime | None
    over: bool


def advance(
    procedure: Procedure,
    steps: Mapping[str, StepRow],
    *,
    signals: Signals,
    flags: frozenset[str],
    now: datetime,
    timezone: str,
    is_working_day: Callable[[date], bool],
) -> Advance:
    """Return everything that has happened by `now` and is not on record yet."""
    rows = dict(steps)
    changes: list[Change] = []
    wake: datetime | None = None
    progress = True
    while progress:
        progress, wake = False, None
        known = {**signals, **signals_of(rows)}
        for step in procedure.steps:
            row = rows.get(step.id)
            if row is not None and row.state is not StepState.OPEN:
                continue
            change, later = (
                _begin(step, known, flags, now, timezone, is_working_day)
                if row is None
                else _go_on(step, row, known, now)
            )
            if change is not None:
                changes.append(change)
                rows[step.id] = change.row
                progress = True
                break  # what this changes may matter to a step further up
            if later is not None and (wake is None or later < wake):
                wake = later
    known = {**signals, **signals_of(rows)}
    over = all(
        (step.id in rows and rows[step.id].state is not StepState.OPEN)
        or (step.id not in rows and not _can_begin(step, known, procedure, rows))
        for step in procedure.steps
    )
    return Advance(changes=tuple(changes), steps=rows, wake_at=wake, over=over)


def _can_begin(step: Step, known: Signals, procedure: Procedure, rows: Mapping[str, StepRow]) -> bool:
    """Can a step that waits still begin because of other steps?"""
    open_steps = {one.id for one in procedure.steps if one.id not in rows or rows[one.id].state is StepState.OPEN}
    for wanted in step.after:
        names = _alternatives(wanted)
        if not any(name in known for name in names) and not any(name.partition(":")[0] in open_steps for name in names):
            return False
    return True


def _alternatives(wanted: str) -> list[str]:
    return [name.strip() for name in wanted.split("|")]


def _since(wanted: str, known: Signals) -> datetime | None:
    return min((known[name] for name in _alternatives(wanted) if name in known), default=None)


def _first(wanted: Iterable[str], known: Signals) -> datetime | None:
    return min((at for name in wanted if (at := _since(name, known)) is not None), default=None)


def _begin(
    step: Step,
    known: Signals,
    flags: frozenset[str],
    now: datetime,
    timezone: str,
    is_working_day: Callable[[date], bool],
) -> tuple[Change | None, datetime | None]:
    times = [_since(wanted, known) for wanted in step.after]
    needless = _first(step.unless, known) if step.aftercare else _first((*step.unless, "closed"), known)
    if any(at is None for at in times):
        if not step.aftercare and (closed := known.get("closed")) is not None:
            return _ended(step, ChangeKind.SKIP, StepRow(state=StepState.SKIPPED, planned_at=closed), closed), None
        return None, None
    planned = max(at for at in times if at is not None) + step.delay
    if not all(_holds(flag, flags) for flag in step.given):
        return _ended(step, ChangeKind.SKIP, StepRow(state=StepState.SKIPPED, planned_at=planned), planned), None
    if needless is not None and needless <= max(planned, now):
        # What made it needless may have come after it should have begun: then nobody did it in time, and now
        # nobody need. It is on record as skipped at that instant.
        at = max(needless, planned) if needless <= now else planned
        return _ended(step, ChangeKind.SKIP, StepRow(state=StepState.SKIPPED, planned_at=planned), at), None
    if planned > now:
        return None, planned
    due = None if step.within is None else step.within.at(planned, timezone=timezone, is_working_day=is_working_day)
    row = StepRow(state=StepState.OPEN, planned_at=planned, started_at=now, due_at=due)
    if step.does in (Does.TELL, Does.WITHDRAW):
        # Reaching them is the matter of the legs, which have attempts and a state of their own.
        row = replace(row, state=StepState.DONE, ended_at=planned, result="done")
    return Change(step=step, kind=ChangeKind.START, at=planned, row=row), None


def _go_on(step: Step, row: StepRow, known: Signals, now: datetime) -> tuple[Change | None, datetime | None]:
    needless = _first(step.unless if step.aftercare else (*step.unless, "closed"), known)
    ends = sorted(
        (at, result) for wanted, result in step.ends_with.items() if (at := _since(wanted, known)) is not None
    )
    expired = row.due_at if step.expires is not None else None
    if row.due_at is not None and row.breached_at is None and row.due_at <= now:
        in_time = min([at for at, _ in ends] + ([] if needless is None else [needless]), default=None)
        if in_time is None or in_time > row.due_at:
            breached = replace(row, breached_at=now)
            return Change(step=step, kind=ChangeKind.BREACH, at=row.due_at, row=breached), None
    if ends and (needless is None or ends[0][0] <= needless):
        at, result = ends[0]
        at = max(at, row.planned_at)
        done = replace(row, state=StepState.DONE, ended_at=at, result=result)
        return Change(step=step, kind=ChangeKind.END, at=at, row=done), None
    if needless is not None:
        at = max(needless, row.planned_at)
        cancelled = replace(row, state=StepState.CANCELLED, ended_at=at)
        return Change(step=step, kind=ChangeKind.CANCEL, at=at, row=cancelled), None
    if expired is not None and expired <= now:
        done = replace(row, state=StepState.DONE, ended_at=expired, result=step.expires)
        return Change(step=step, kind=ChangeKind.END, at=expired, row=done), None
    return None, row.due_at if row.breached_at is None else None


def _holds(flag: str, flags: frozenset[str]) -> bool:
    return flag.removeprefix("not ") not in flags if flag.startswith("not ") else flag in flags


def _ended(step: Step, kind: ChangeKind, row: StepRow, at: datetime) -> Change:
    return Change(step=step, kind=kind, at=at, row=replace(row, ended_at=at))


def end_step(step: Step, row: StepRow, *, result: str, now: datetime) -> Change:
    """Return how an open task ends with the word of a human.

    Raises:
        ValueError: The result is none of those that the step knows, or the step is not open.
    """
    if row.state is not StepState.OPEN:
        raise ValueError(f"The step {step.id} is {row.state} already.")
    if result not in step.results:
        raise ValueError(f"The step {step.id} ends with one of: {', '.join(step.results)}.")
    at = max(now, row.planned_at)
    return Change(
        step=step, kind=ChangeKind.END, at=at, row=replace(row, state=StepState.DONE, ended_at=at, result=result)
    )


def names_used(steps: Sequence[Step]) -> set[str]:
    """Return every signal that the steps refer to."""
    wanted = (name for step in steps for name in (*step.after, *step.unless, *step.ends_with))
    return {name for each in wanted for name in _alternatives(each)}
