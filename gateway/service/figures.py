"""Figures of a period (R16 to R20): counted by the database, added up and set against their bars by the domain."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from gateway.domain.case import NotFound
from gateway.domain.figures import Period, Tally, by_district, by_operator, period_of, total
from gateway.store import figures, procedures
from gateway.store.directory import Directory
from gateway.store.figures import Span, WorstCase
from gateway.store.pool import Connection, Pool

__all__ = ["FiguresOf", "figures_of"]

_WORST = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class FiguresOf:
    """What was counted in a period: the whole, and the parts that it is made of."""

    period: Period
    timezone: str
    total: Tally
    operators: list[Tally]
    districts: list[Tally]
    worst: list[WorstCase]


async def figures_of(
    pool: Pool,
    directory: Directory,
    *,
    first: date | None = None,
    last: date | None = None,
    district: str | None = None,
    operator: str | None = None,
) -> FiguresOf:
    """Count what happened from the first to the last of these days, in the local time of each site.

    Raises:
        BadPeriod: No such period can be.
        NotFound: No site is set up.
    """
    async with pool.connection() as conn, conn.transaction():
        await conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        sites = await directory.sites(conn)
        if not sites:
            raise NotFound("No site is set up: apply a site file.")
        now = await procedures.the_time(conn)
        timezone = sites[0].timezone
        period = period_of(first, last, today=now.astimezone(ZoneInfo(timezone)).date())
        tallies: list[Tally] = []
        worst: list[WorstCase] = []
        for site in sites:
            begins, ends = period.bounds(site.timezone)
            span = Span(site=site.id, begins=begins, ends=ends, now=now, district=district, operator=operator)
            tallies += await _tallies(conn, span)
            worst += await figures.worst(conn, span, limit=_WORST)
    return FiguresOf(
        period=period,
        timezone=timezone,
        total=total(tallies),
        operators=by_operator(tallies),
        districts=by_district(tallies),
        worst=sorted(worst, key=_slowness)[:_WORST],
    )


def _slowness(case: WorstCase) -> tuple[bool, float, datetime]:
    return case.wait_s is not None, -(case.wait_s or 0.0), case.received_at


async def _tallies(conn: Connection, span: Span) -> list[Tally]:
    """Return what each statement counted, as tallies to be added up."""
    counted = [
        *(_of_cases(row) for row in await figures.cases(conn, span)),
        *_plain(await figures.follow_ups(conn, span)),
        *_plain(await figures.complaints(conn, span)),
        *_plain(await figures.orders(conn, span)),
    ]
    for row in await figures.breaches(conn, span):
        late = {(row["procedure"], row["step"]): row["late"]}
        counted.append(Tally(district=row["district"], operator=row["operator"], breaches=late))
    return counted


def _of_cases(row: Mapping[str, Any]) -> Tally:
    counts = {name: value for name, value in row.items() if name not in ("false_alarm", "cases", "waits")}
    reasons = {} if row["false_alarm"] is None else {row["false_alarm"]: row["cases"]}
    return Tally(**counts, waits=sorted(row["waits"]), false_alarms=reasons)


def _plain(rows: Iterable[Mapping[str, Any]]) -> list[Tally]:
    return [Tally(**row) for row in rows]
