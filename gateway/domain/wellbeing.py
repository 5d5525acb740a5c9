"""How a person is, from what their terminal tells: gone astray, or no sign of life (R1).

A place is only as good as its accuracy says: somebody is outside a fence when they cannot be inside, and back when they
cannot be outside. In between nothing changes, so a position that wavers on the line raises nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Any, Literal

from gateway.domain.location import Coordinates, distance_m

__all__ = ["Care", "Fence", "Place", "Signs", "astray", "inactive"]

_UNSURE_M = {"gnss": 15.0, "wifi": 40.0, "cell": 800.0}
_FAR = 3.0
"""So many times the radius away, one position is enough."""

_DAY_BEGINS = time(3)
"""Whoever is up after midnight has not slept yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """A circle in which a person is to be, or is not to be. ``between``: local times of day, None: always."""

    name: str
    centre: Coordinates
    radius_m: float
    must: Literal["inside", "outside"] = "inside"
    between: tuple[time, time] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Care:
    """What a household has asked for. ``well_by``: the local time by which there must be a sign of life each day."""

    fences: tuple[Fence, ...] = ()
    inactivity: timedelta | None = None
    well_by: time | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the terminal is, and since when that is known."""

    at: datetime
    coordinates: Coordinates
    source: str
    accuracy_m: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Signs:
    """What there is to judge by at the local time ``now``. ``life`` is the newest sign of life, if there was any.

    ``watched_since``: since when anybody would have noticed one.
    """

    now: datetime
    place: Place | None
    life: datetime | None
    watched_since: datetime


def _within(between: tuple[time, time] | None, at: datetime) -> bool:
    if between is None:
        return True
    begins, ends = between
    clock = at.time()
    return begins <= clock < ends if begins <= ends else clock >= begins or clock < ends


def _next(clock: time, after: datetime) -> datetime:
    at = after.replace(hour=clock.hour, minute=clock.minute, second=0, microsecond=0)
    return at if at > after else at + timedelta(days=1)


def astray(
    fences: Sequence[Fence], signs: Signs, memory: dict[str, Any], *, before: bool
) -> tuple[Mapping[str, Any] | None, datetime | None]:
    """Return what there is to say of a person who is where they should not be, or None, and when time changes that.

    `memory` keeps what was known before; `before`: were they astray already? That ends when they are back, not when
    the hours of the fence do.
    """
    found: Mapping[str, Any] | None = None
    next_at: list[datetime] = []
    kept: dict[str, Any] = memory.get("fences", {})
    for fence in fences:
        known = kept.get(fence.name)
        if signs.place is not None:
            known = _judge(fence, signs.place, known)
        if known is None:
            kept.pop(fence.name, None)
            continue
        kept[fence.name] = known
        if known["fixes"] < 2 and not known["far"]:
            continue
        if before or _within(fence.between, signs.now):
            found = found or {"fence": fence.name, "metres": known["metres"]}
        elif fence.between is not None:
            next_at.append(_next(fence.between[0], signs.now))
    for name in set(kept) - {fence.name for fence in fences}:
        del kept[name]
    if kept:
        memory["fences"] = kept
    else:
        memory.pop("fences", None)
    return found, min(next_at, default=None)


def _judge(fence: Fence, place: Place, known: Mapping[str, Any] | None) -> dict[str, Any] | None:
    away = distance_m(place.coordinates, fence.centre)
    unsure = _UNSURE_M.get(place.source, 50.0) if place.accuracy_m is None else place.accuracy_m
    least, most = max(0.0, away - unsure), away + unsure
    if fence.must == "inside":
        wrong, right, far = least > fence.radius_m, most <= fence.radius_m, least > _FAR * fence.radius_m
        # With a coarse position nobody would ever be surely inside a small circle.
        right = right or away <= fence.radius_m / 2
    else:
        wrong, right, far = most <= fence.radius_m, least > fence.radius_m, False
    if right:
        return None
    if not wrong:
        return None if known is None else dict(known)
    at = place.at.isoformat()
    if known is not None and known["at"] >= at:
        return dict(known)
    fixes = 1 if known is None else known["fixes"] + 1
    return {"at": at, "fixes": min(fixes, 2), "far": far, "metres": round(away)}


def inactive(care: Care, signs: Signs) -> tuple[Mapping[str, Any] | None, datetime | None]:
    """Return what there is to say of a person who gives no sign of life, or None, and when time changes that."""
    next_at: list[datetime] = []
    if care.inactivity is not None and signs.life is not None:
        due = signs.life + care.inactivity
        if signs.now >= due:
            return {"silent_h": round((signs.now - signs.life).total_seconds() / 3600, 1)}, None
        next_at.append(due)
    if care.well_by is not None:
        begins = signs.now.replace(hour=_DAY_BEGINS.hour, minute=0, second=0, microsecond=0)
        if signs.now < begins:
            begins -= timedelta(days=1)
        due = _next(care.well_by, begins)
        seen = signs.life is not None and signs.life >= begins
        if not seen and signs.watched_since < begins and signs.now >= due:
            return {"expected_by": care.well_by.strftime("%H:%M")}, None
        next_at.append(due if signs.now < due else due + timedelta(days=1))
    return None, min(next_at, default=None)
