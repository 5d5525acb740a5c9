"""Scoring a drill against the deadlines of its plan and procedure (R23): the same while it runs and afterwards."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

__all__ = ["Item", "Mark", "mark_of", "share_in_time"]


class Mark(StrEnum):
    """How a deadline was met. ``RUNNING`` still can be."""

    IN_TIME = "in_time"
    LATE = "late"
    MISSED = "missed"
    RUNNING = "running"
    VOID = "void"


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One thing that had to happen. ``took`` is how long it took from when it began to count."""

    what: str
    who: str
    mark: Mark
    due_at: datetime
    done_at: datetime | None
    took: timedelta | None


def mark_of(*, due_at: datetime, done_at: datetime | None, now: datetime, void: bool = False) -> Mark:
    """Return how a deadline stands at `now`; `void`: it fell away before anybody had to meet it."""
    if done_at is not None:
        return Mark.IN_TIME if done_at <= due_at else Mark.LATE
    if void:
        return Mark.VOID
    return Mark.MISSED if due_at <= now else Mark.RUNNING


def share_in_time(items: list[Item]) -> float | None:
    """Return the share of decided deadlines that were met, None while none is decided."""
    decided = [item for item in items if item.mark in (Mark.IN_TIME, Mark.LATE, Mark.MISSED)]
    return sum(item.mark is Mark.IN_TIME for item in decided) / len(decided) if decided else None
