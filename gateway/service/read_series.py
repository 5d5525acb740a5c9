"""The series of a terminal, for people and programs: its track, its battery and signal."""

from datetime import UTC, datetime, timedelta

from gateway.domain.case import DomainError, NotFound
from gateway.service.paging import NOT_OURS, BadCursor, Page, page_of, read_cursor
from gateway.store import queries, series
from gateway.store.pool import Pool
from gateway.store.queries import TerminalLine
from gateway.store.series import CurvePoint, TrackPoint

__all__ = ["BadSpan", "check_span", "read_curve", "read_terminal", "read_track"]

_LONGEST = timedelta(days=366)
_MOST_SPELLS = 5000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class BadSpan(DomainError):
    """A span of time that cannot be asked for."""


async def read_track(
    pool: Pool,
    terminal: str,
    *,
    begin: datetime,
    end: datetime,
    every: timedelta | None = None,
    cursor: str | None = None,
    limit: int = 200,
) -> Page[TrackPoint]:
    """Return where a terminal was from `begin` until before `end`; with `every` one position for each such spell.

    Raises:
        NotFound: No such terminal.
        BadSpan: It ends before it begins, or is longer than a year.
        BadCursor: Not a cursor of ours.
    """
    check_span(begin, end)
    after = _after(cursor)
    async with pool.connection() as conn:
        uid = await series.terminal_uid(conn, terminal)
        if uid is None:
            raise NotFound(f"There is no terminal {terminal}.")
        points = await series.track(conn, uid, begin=begin, end=end, every=every, after=after, limit=limit + 1)
    return page_of(points, limit, lambda one: f"{(one.at - _EPOCH) // timedelta(microseconds=1)}:{one.boot}:{one.seq}")


async def read_curve(
    pool: Pool, terminal: str, *, begin: datetime, end: datetime, every: timedelta
) -> list[CurvePoint]:
    """Return battery and signal of a terminal from `begin` until before `end`, by spells of `every`.

    Raises:
        NotFound: No such terminal.
        BadSpan: It ends before it begins, is longer than a year, or holds too many spells.
    """
    check_span(begin, end)
    if (end - begin) / every > _MOST_SPELLS:
        raise BadSpan(f"That would be more than {_MOST_SPELLS} points: ask for longer spells or a shorter time.")
    async with pool.connection() as conn:
        uid = await series.terminal_uid(conn, terminal)
        if uid is None:
            raise NotFound(f"There is no terminal {terminal}.")
        return await series.curve(conn, uid, begin=begin, end=end, every=every, limit=_MOST_SPELLS + 1)


async def read_terminal(pool: Pool, terminal: str) -> TerminalLine:
    """Return a terminal with its newest state.

    Raises:
        NotFound: No such terminal.
    """
    async with pool.connection() as conn:
        found = await queries.terminal(conn, terminal)
    if found is None:
        raise NotFound(f"There is no terminal {terminal}.")
    return found


def check_span(begin: datetime, end: datetime) -> None:
    """Refuse a span of time that cannot be asked for.

    Raises:
        BadSpan: It ends before it begins, or is longer than a year.
    """
    if end <= begin:
        raise BadSpan("The time ends before it begins.")
    if end - begin > _LONGEST:
        raise BadSpan("At most a year can be asked for at once.")


def _after(cursor: str | None) -> tuple[datetime, int, int] | None:
    text = read_cursor(cursor)
    if text is None:
        return None
    try:
        micros, boot, seq = (int(part) for part in text.split(":"))
        return _EPOCH + timedelta(microseconds=micros), boot, seq
    except (ValueError, OverflowError) as exc:
        raise BadCursor(NOT_OURS) from exc
