"""Plans and procedures as they lie in the database, read by code of the auditor's own."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Asked", "PlanBody", "StepBody", "plan_body", "procedure_body", "seconds"]

_UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_SPAN = re.compile(r"(\d+(?:\.\d+)?) ?(ms|s|min|h|d)")


def seconds(span: str) -> float:
    """Return how many seconds ``10 s``, ``5 min`` or ``2 d`` are.

    Raises:
        ValueError: Not a span of time.
    """
    match = _SPAN.fullmatch(span)
    if match is None:
        raise ValueError(f"{span!r} is not a span of time")
    return float(match[1]) * _UNITS[match[2]]


# Plans


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """How a plan wants one role called. Without figures (a plan from before ladders) only that it is called."""

    role: str
    graded: bool = False
    times: int | None = None
    again_s: float | None = None
    within_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanBody:
    """A plan at one version, as far as the auditor holds the gateway to it."""

    site: str
    name: str
    procedure: str | None
    countdown_s: float
    asked: tuple[Asked, ...]


def plan_body(
    *, site: str, name: str, roles: Sequence[str], procedure: str | None, details: Mapping[str, Any]
) -> PlanBody:
    """Read a row of ``plan``; ``name`` is id@version.

    Raises:
        ValueError: Something in it cannot be read.
    """
    try:
        own = {entry["role"]: entry for entry in details.get("roles", ())}
        asked = [_asked(role, own.get(role)) for role in roles]
        countdown_s = seconds(details.get("countdown", "0 s"))
    except (KeyError, TypeError, AttributeError) as exc:
        raise ValueError(f"the plan {name} cannot be read: {exc!r}") from exc
    return PlanBody(site=site, name=name, procedure=procedure, countdown_s=countdown_s, asked=tuple(asked))


def _asked(role: str, entry: Mapping[str, Any] | None) -> Asked:
    if entry is None:
        return Asked(role=role)
    return Asked(
        role=role,
        graded=bool(entry["graded"]),
        times=int(entry["times"]),
        again_s=seconds(entry["again"]),
        within_s=seconds(entry["within"]),
    )


# Procedures


@dataclass(frozen=True, slots=True, kw_only=True)
class StepBody:
    """A step of a procedure. ``after`` are signals that must all be there, each with its alternatives."""

    name: str
    after: tuple[tuple[str, ...], ...]
    delay_s: float
    ends: tuple[str, ...]
    expires: bool


def procedure_body(body: Mapping[str, Any]) -> tuple[StepBody, ...]:
    """Read the body of a row of ``procedure``.

    ``ends`` holds whatever ends an open step: what completes it, what makes it needless, and the closure of its case
    unless it is aftercare.

    Raises:
        ValueError: Something in it cannot be read.
    """
    try:
        return tuple(_step(step) for step in body["steps"])
    except (KeyError, TypeError, AttributeError) as exc:
        raise ValueError(f"the procedure cannot be read: {exc!r}") from exc


def _step(step: Mapping[str, Any]) -> StepBody:
    wanted = [*step.get("ends_with", ()), *step.get("unless", ())]
    if not step.get("aftercare", False):
        wanted.append("closed")
    return StepBody(
        name=step["step"],
        after=tuple(_alternatives(signal) for signal in step.get("after", ("started",))),
        delay_s=seconds(step.get("delay", "0 s")),
        ends=tuple(name for signal in wanted for name in _alternatives(signal)),
        expires=step.get("expires") is not None,
    )


def _alternatives(signal: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in signal.split("|"))
