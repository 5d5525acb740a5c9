"""A procedure on a virtual clock: what would happen by when, if people did this or that (D9)."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, datetime

from gateway.domain.procedure import Change, ChangeKind, Does, Procedure, StepRow, StepState, advance, end_step

__all__ = ["Act", "Assumption", "simulate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """Somebody does something: ends the task ``step`` with ``result``, or makes ``signal`` true."""

    at: datetime
    step: str | None = None
    result: str | None = None
    signal: str | None = None


Assumption = Callable[[Change], Act | None]
"""What people do about a task that has just begun, if anything."""


def simulate(
    procedure: Procedure,
    acts: Iterable[Act],
    *,
    start: datetime,
    until: datetime,
    flags: frozenset[str] = frozenset(),
    timezone: str = "Asia/Shanghai",
    is_working_day: Callable[[date], bool] = lambda day: day.weekday() < 5,
    people: Assumption = lambda _: None,
) -> list[Change]:
    """Return everything that happens to the steps until `until`, in order.

    An act on a step that is not open then does nothing, as at a real desk.
    """
    waiting = sorted(acts, key=lambda act: act.at)
    rows: dict[str, StepRow] = {}
    signals = {"started": start}
    happened: list[Change] = []
    now = start
    while True:
        result = advance(
            procedure,
            rows,
            signals=signals,
            flags=flags,
            now=now,
            timezone=timezone,
            is_working_day=is_working_day,
        )
        rows = dict(result.steps)
        happened += result.changes
        fresh = [act for change in result.changes if _begins(change) and (act := people(change)) is not None]
        waiting = sorted([*waiting, *fresh], key=lambda act: act.at)
        times = [at for at in (result.wake_at, waiting[0].at if waiting else None) if at is not None]
        if not times or min(times) > until:
            return happened
        now = max(now, min(times))
        while waiting and waiting[0].at <= now:
            change = _carry_out(waiting.pop(0), procedure, rows, signals, now)
            if change is not None:
                happened.append(change)
                rows[change.step.id] = change.row


def _begins(change: Change) -> bool:
    return change.kind is ChangeKind.START and change.step.does is Does.TASK


def _carry_out(
    act: Act, procedure: Procedure, rows: dict[str, StepRow], signals: dict[str, datetime], now: datetime
) -> Change | None:
    if act.signal is not None:
        signals.setdefault(act.signal, now)
        head = act.signal.partition(":")[0]
        signals.setdefault(head, now)
        return None
    step = next((one for one in procedure.steps if one.id == act.step), None)
    row = rows.get(act.step or "")
    if step is None or row is None or row.state is not StepState.OPEN:
        return None
    return end_step(step, row, result=act.result or step.results[0], now=now)
