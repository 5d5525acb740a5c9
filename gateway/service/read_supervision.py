"""Supervision for people and programs: what is wrong now and was, incidents, uptime and unprotected hours."""

from dataclasses import dataclass
from datetime import datetime

from gateway.domain.supervision import CANNOT_CALL
from gateway.service.paging import NOT_OURS, BadCursor, Page, page_of, read_cursor
from gateway.service.read_series import check_span
from gateway.store import supervision_figures as figures
from gateway.store.pool import Pool
from gateway.store.supervision_figures import DistrictFigures, IncidentLine, TroubleLine

__all__ = ["Uptime", "list_incidents", "list_members", "list_troubles", "read_uptime"]


@dataclass(frozen=True, slots=True)
class Uptime:
    """The figures of a span of time, by district."""

    begin: datetime
    end: datetime
    districts: list[DistrictFigures]


def _number(cursor: str | None) -> int | None:
    text = read_cursor(cursor)
    if text is not None and not (text.isascii() and text.isdigit() and len(text) < 19):
        raise BadCursor(NOT_OURS)
    return None if text is None else int(text)


async def list_troubles(
    pool: Pool,
    *,
    is_open: bool | None = None,
    cause: str | None = None,
    terminal: str | None = None,
    district: str | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[TroubleLine]:
    """Return troubles of terminals, newest first.

    Raises:
        BadCursor: Not a cursor of ours.
    """
    before = _number(cursor)
    async with pool.connection() as conn:
        rows = await figures.troubles(
            conn,
            is_open=is_open,
            cause=cause,
            terminal=terminal,
            district=district,
            before=before,
            limit=limit + 1,
        )
    return page_of(rows, limit, lambda one: str(one.id))


async def list_incidents(
    pool: Pool,
    *,
    is_open: bool | None = None,
    district: str | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[IncidentLine]:
    """Return incidents, newest first.

    Raises:
        BadCursor: Not a cursor of ours.
    """
    before = _number(cursor)
    async with pool.connection() as conn:
        rows = await figures.incidents(conn, is_open=is_open, district=district, before=before, limit=limit + 1)
    return page_of(rows, limit, lambda one: str(one.id))


async def list_members(pool: Pool, incident: int, *, cursor: str | None = None, limit: int = 50) -> Page[TroubleLine]:
    """Return the terminals of an incident with their troubles, oldest first.

    Raises:
        BadCursor: Not a cursor of ours.
    """
    after = _number(cursor)
    async with pool.connection() as conn:
        rows = await figures.members(conn, incident, after=after, limit=limit + 1)
    return page_of(rows, limit, lambda one: str(one.id))


async def read_uptime(pool: Pool, *, begin: datetime, end: datetime, district: str | None = None) -> Uptime:
    """Return how long terminals were there, and for how long persons were without any that could have called.

    Raises:
        BadSpan: It ends before it begins, or is longer than a year.
    """
    check_span(begin, end)
    async with pool.connection() as conn:
        rows = await figures.by_district(
            conn, begin=begin, end=end, district=district, cannot_call=[str(cause) for cause in CANNOT_CALL]
        )
    return Uptime(begin, end, rows)
