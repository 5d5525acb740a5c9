"""Inspection of work orders (R18): a sample that nobody can choose, drawn once and kept."""

from dataclasses import dataclass
from datetime import date
from uuid import UUID
from zoneinfo import ZoneInfo

from gateway.domain import keys
from gateway.domain.case import NotFound
from gateway.domain.figures import period_of
from gateway.domain.work_order import draw
from gateway.service.work_orders import only_site
from gateway.store import procedures, work_orders
from gateway.store.directory import Directory
from gateway.store.pool import Pool
from gateway.store.work_orders import InspectionLine, InspectionRow

__all__ = ["Inspection", "draw_inspection", "read_inspection"]


@dataclass(frozen=True, slots=True)
class Inspection:
    """A sample with what was found so far."""

    row: InspectionRow
    lines: list[InspectionLine]


async def draw_inspection(
    pool: Pool,
    directory: Directory,
    *,
    seed: str,
    first: date | None,
    last: date | None,
    per_operator: int,
    district: str | None,
    operator: str | None,
    site: str | None,
    by: str,
) -> Inspection:
    """Draw a sample of so many work orders per operator from a period. The same question gives the sample there is.

    Raises:
        BadPeriod: No such period can be.
        NotFound: No such site.
        StateConflict: There are several sites, and none was named.
    """
    async with pool.connection() as conn, conn.transaction():
        view = await only_site(conn, directory, site)
        now = await procedures.the_time(conn)
        period = period_of(first, last, today=now.astimezone(ZoneInfo(view.timezone)).date())
        question = (view.id, seed, period.first, period.last, district or "", operator or "", per_operator)
        row = InspectionRow(
            id=keys.inspection_id("|".join(str(part) for part in question)),
            seed=seed,
            first_day=period.first,
            last_day=period.last,
            district=district,
            operator=operator,
            per_operator=per_operator,
            drawn_by=by,
            drawn_at=now,
        )
        since, until = period.bounds(view.timezone)
        known = await work_orders.population(
            conn, site=view.id, since=since, until=until, district=district, operator=operator
        )
        await work_orders.add_inspection(conn, row, draw(known, seed=seed, per_operator=per_operator))
    return await read_inspection(pool, row.id)


async def read_inspection(pool: Pool, inspection: UUID) -> Inspection:
    """Return a sample with what was found so far.

    Raises:
        NotFound: No such sample.
    """
    async with pool.connection() as conn:
        row = await work_orders.inspection(conn, inspection)
        if row is None:
            raise NotFound(f"There is no inspection {inspection}.")
        return Inspection(row, await work_orders.inspection_lines(conn, inspection))
