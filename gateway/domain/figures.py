"""Figures of the service (R16 to R20): from counts to shares, each with its bar; pure, so that anybody can check them.

The database counts per district and operator; here the counts are added up and set against the standard
(DB3201/T 1033-2021, 7 and 8.1.2). Tests and drills never come here.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, date, datetime, time, timedelta
from heapq import merge
from math import ceil
from zoneinfo import ZoneInfo

from gateway.domain.case import DomainError

__all__ = [
    "ANSWER_WITHIN",
    "BARS",
    "BadPeriod",
    "FigureLine",
    "Period",
    "Share",
    "Tally",
    "Waits",
    "by_district",
    "by_operator",
    "figure_line",
    "percentile",
    "period_of",
    "total",
    "waits_of",
]

ANSWER_WITHIN = timedelta(seconds=10)
"""How soon a human has to take an emergency (R16)."""

_LONGEST = timedelta(days=3660)


class BadPeriod(DomainError):
    """A period that cannot be."""


@dataclass(frozen=True, slots=True)
class Period:
    """Days of the site, the first and the last included."""

    first: date
    last: date

    def bounds(self, timezone: str) -> tuple[datetime, datetime]:
        """Return when it begins and, exclusively, ends where `timezone` is the local time."""
        zone = ZoneInfo(timezone)
        begins, ends = (datetime.combine(day, time(0), zone) for day in (self.first, self.last + timedelta(days=1)))
        return begins.astimezone(UTC), ends.astimezone(UTC)


def period_of(first: date | None, last: date | None, *, today: date) -> Period:
    """Return the period that is asked for: without a last day until today, without a first one 30 days.

    Raises:
        BadPeriod: It ends before it begins, begins in the future, or is longer than ten years.
    """
    end = today if last is None else last
    begin = end - timedelta(days=29) if first is None else first
    if begin > today:
        raise BadPeriod(f"The period begins on {begin}, which is still to come: today is {today}.")
    if end < begin:
        raise BadPeriod(f"The period ends on {end}, before it begins on {begin}: swap the two days.")
    if end - begin > _LONGEST or end > today + _LONGEST:
        raise BadPeriod(f"The period from {begin} to {end} is longer than ten years.")
    return Period(begin, end)


# What was counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What the database counted for one district and operator. An operator of None: nobody took these.

    Attributes:
        emergencies: Presses that a human had to take; one that is younger than 10 s and not yet taken is left out.
        answered: Those of them that were owned within 10 s of their receipt.
        taken: Those that were owned at all.
        waits: Seconds from receipt until a responsible human confirmed, ascending, for whom somebody did.
        closed: Cases closed that somebody had owned.
        closed_by_first: Those of them that their first owner closed, without a hand-over.
        follow_ups: Follow-ups that are done or should be.
        follow_ups_in_time: Those of them that were done in time.
        complaints: Complaints that are settled or should be; in time: within their working days.
        orders: Work orders; ``over`` those that have to be complete, ``complete`` those that are.
        asked: Clients who were asked for a rating; ``rated`` those who gave one.
        satisfied: Ratings from 3 on.
        inspected: Work orders that an inspector judged; ``accurate`` those found so.
        false_alarms: Closed false alarms by reason.
        breaches: Steps that were late, by procedure and step.
    """

    district: str
    operator: str | None
    emergencies: int = 0
    answered: int = 0
    taken: int = 0
    waits: Sequence[float] = ()
    closed: int = 0
    closed_by_first: int = 0
    follow_ups: int = 0
    follow_ups_in_time: int = 0
    complaints: int = 0
    complaints_in_time: int = 0
    orders: int = 0
    over: int = 0
    complete: int = 0
    asked: int = 0
    rated: int = 0
    satisfied: int = 0
    inspected: int = 0
    accurate: int = 0
    false_alarms: Mapping[str, int] = field(default_factory=dict)
    breaches: Mapping[tuple[str, str], int] = field(default_factory=dict)


_COUNTS = tuple(one.name for one in fields(Tally) if one.type in ("int", int))


def total(tallies: Iterable[Tally], *, district: str = "", operator: str | None = None) -> Tally:
    """Return the sum of `tallies`, under the name of what they have in common."""
    counts = dict.fromkeys(_COUNTS, 0)
    false_alarms: Counter[str] = Counter()
    breaches: Counter[tuple[str, str]] = Counter()
    waits: list[Sequence[float]] = []
    for tally in tallies:
        for name in _COUNTS:
            counts[name] += getattr(tally, name)
        false_alarms.update(tally.false_alarms)
        breaches.update(tally.breaches)
        waits.append(tally.waits)
    return Tally(
        district=district,
        operator=operator,
        waits=tuple(merge(*waits)),
        false_alarms=dict(false_alarms),
        breaches=dict(breaches),
        **counts,
    )


def by_operator(tallies: Sequence[Tally]) -> list[Tally]:
    """Return one sum per operator, by seat number; what nobody took comes last."""
    names = sorted({tally.operator for tally in tallies}, key=lambda name: (name is None, name or ""))
    return [total((one for one in tallies if one.operator == name), operator=name) for name in names]


def by_district(tallies: Sequence[Tally]) -> list[Tally]:
    """Return one sum per district."""
    names = sorted({tally.district for tally in tallies})
    return [total((one for one in tallies if one.district == name), district=name) for name in names]


# What it means


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """So many of so many, and the bar in percent where the standard sets one."""

    count: int
    of: int
    bar: int | None = None

    @property
    def share(self) -> float | None:
        """Return the share, None of nothing."""
        return None if self.of == 0 else self.count / self.of

    @property
    def met(self) -> bool | None:
        """Is the bar reached? None where there is no bar, or nothing to measure."""
        if self.bar is None or self.of == 0:
            return None
        return self.count * 100 >= self.bar * self.of


BARS: Mapping[str, int] = {"answered": 100, "connected": 100, "satisfied": 90, "accurate": 90}
"""What DB3201/T 1033-2021, 7 demands, in percent: every ring within 10 s, every call, satisfaction, accuracy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureLine:
    """The figures of one operator, one district or of all, as shares."""

    emergencies: int
    orders: int
    answered: Share
    connected: Share
    first_operator: Share
    follow_ups: Share
    complaints: Share
    complete: Share
    accurate: Share
    asked: Share
    rated: Share
    satisfied: Share

    def shares(self) -> dict[str, Share]:
        """Return every share by its name, in their order."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name not in ("emergencies", "orders")}


_SHARES: Mapping[str, Callable[[Tally], tuple[int, int]]] = {
    "answered": lambda tally: (tally.answered, tally.emergencies),
    "connected": lambda tally: (tally.taken, tally.emergencies),
    "first_operator": lambda tally: (tally.closed_by_first, tally.closed),
    "follow_ups": lambda tally: (tally.follow_ups_in_time, tally.follow_ups),
    "complaints": lambda tally: (tally.complaints_in_time, tally.complaints),
    "complete": lambda tally: (tally.complete, tally.over),
    "accurate": lambda tally: (tally.accurate, tally.inspected),
    "asked": lambda tally: (tally.asked, tally.orders),
    "rated": lambda tally: (tally.rated, tally.orders),
    "satisfied": lambda tally: (tally.satisfied, tally.rated),
}


def figure_line(tally: Tally) -> FigureLine:
    """Return what a tally means."""
    shares = {}
    for name, of in _SHARES.items():
        count, whole = of(tally)
        shares[name] = Share(count=count, of=whole, bar=BARS.get(name))
    return FigureLine(emergencies=tally.emergencies, orders=tally.orders, **shares)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """How long presses waited for the first responsible human. A percentile is None where nobody came for so many."""

    emergencies: int
    unconfirmed: int
    p50_s: float | None
    p95_s: float | None
    p99_s: float | None


def waits_of(tally: Tally) -> Waits:
    """Return the percentiles over all presses: one for which nobody came waits for ever, and hides in no average."""
    unconfirmed = max(0, tally.emergencies - len(tally.waits))
    count = len(tally.waits) + unconfirmed
    p50, p95, p99 = (percentile(tally.waits, percent, of=count) for percent in (50, 95, 99))
    return Waits(emergencies=tally.emergencies, unconfirmed=unconfirmed, p50_s=p50, p95_s=p95, p99_s=p99)


def percentile(ascending: Sequence[float], percent: int, *, of: int) -> float | None:
    """Return the nearest-rank percentile of `of` values, of which those known are given and the rest are endless.

    It is a value that was measured, never one between two. None: it is endless, or there is none.
    """
    rank = ceil(of * percent / 100)
    return ascending[rank - 1] if 0 < rank <= len(ascending) else None
