"""Which steps of a running procedure should be there by now, or over: read from its body, not run.

Only what is certain is said. A step whose ``after`` has come has a row in any case: begun, or skipped for what
``given`` and ``unless`` say; so neither has to be weighed here. An open step for whose end there is a signal is over in
any case: done or cancelled. Everything else is the business of whoever runs procedures.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from gateway.audit.bodies import StepBody

__all__ = ["RunSeen", "StepSeen", "amiss"]


@dataclass(frozen=True, slots=True)
class StepSeen:
    """A step as it lies in the table."""

    state: str
    planned_at: datetime
    started: bool
    due_at: datetime | None
    breached: bool
    ended_at: datetime | None
    result: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSeen:
    """A run of a procedure. ``known``: since when the case is closed, owned, safe …, and its facts."""

    known: Mapping[str, datetime]
    steps: Mapping[str, StepSeen]


def amiss(
    body: Sequence[StepBody], run: RunSeen, *, now: datetime, grace: timedelta
) -> Iterator[tuple[str, str, datetime]]:
    """Yield what is amiss with each step for longer than `grace`: kind, step, and since when."""
    signals = {**run.known, **_said(run.steps)}
    late = now - grace
    for step in body:
        row = run.steps.get(step.name)
        if row is None:
            planned = _planned(step, signals)
            if planned is not None and planned < late:
                yield "step_missing", step.name, planned
        elif row.state == "open":
            ended = min((signals[name] for name in step.ends if name in signals), default=None)
            if step.expires and row.due_at is not None and (ended is None or row.due_at < ended):
                ended = row.due_at
            if ended is not None and max(ended, row.planned_at) < late:
                yield "step_stays_open", step.name, max(ended, row.planned_at)


def _said(steps: Mapping[str, StepSeen]) -> dict[str, datetime]:
    """Return what the steps themselves say to each other."""
    said: dict[str, datetime] = {}
    for name, row in steps.items():
        if row.started:
            said[f"{name}:started"] = row.planned_at
        if row.breached and row.due_at is not None:
            said[f"{name}:breached"] = row.due_at
        if row.state == "done" and row.ended_at is not None:
            said[name] = said[f"{name}:{row.result}"] = row.ended_at
    return said


def _planned(step: StepBody, signals: Mapping[str, datetime]) -> datetime | None:
    """Return when a step should begin, or None while something that it comes after is not there."""
    latest: datetime | None = None
    for alternatives in step.after:
        at = min((signals[name] for name in alternatives if name in signals), default=None)
        if at is None:
            return None
        latest = at if latest is None else max(latest, at)
    return None if latest is None else latest + timedelta(seconds=step.delay_s)
