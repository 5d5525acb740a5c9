"""Reading the series of one terminal: where it was, and how its battery and signal went."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from psycopg.rows import class_row

from gateway.store.pool import Connection

__all__ = ["CurvePoint", "TrackPoint", "curve", "terminal_uid", "track"]

_ORIGIN = datetime(2020, 1, 1, tzinfo=UTC)
"""Where spells of any length begin to be counted."""

_HOUR = timedelta(hours=1)

Place = tuple[datetime, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackPoint:
    """A position in the datum in which it came. ``boot`` and ``seq`` are -1 where the report had no numbers."""

    at: datetime
    received_at: datetime
    lat: float
    lon: float
    datum: str
    source: str
    accuracy_m: float | None
    boot: int
    seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """What heartbeats said within one spell, which begins at ``at``. ``mains``: was it on mains all the time?"""

    at: datetime
    beats: int
    battery_pct: float | None
    battery_min_pct: int | None
    signal_dbm: float | None
    signal_min_dbm: int | None
    mains: bool | None


async def terminal_uid(conn: Connection, terminal: str) -> UUID | None:
    """Return the uid of a terminal."""
    row = await (await conn.execute("SELECT uid FROM terminal WHERE public_id = %s", (terminal,))).fetchone()
    return None if row is None else row[0]


async def track(
    conn: Connection,
    terminal: UUID,
    *,
    begin: datetime,
    end: datetime,
    every: timedelta | None,
    after: Place | None,
    limit: int,
) -> list[TrackPoint]:
    """Return positions from `begin` until before `end`, in their order; with `every` the first of each such spell.

    `after` is the last one that was returned before: its time and numbers.
    """
    values = {"terminal": terminal, "begin": begin, "end": end, "limit": limit, "every": every, "origin": _ORIGIN}
    at, boot, seq = after or (None, None, None)
    async with conn.cursor(row_factory=class_row(TrackPoint)) as cursor:
        if every is None:
            await cursor.execute(
                """
                SELECT at, received_at, lat, lon, datum, source, accuracy_m, boot, seq FROM fix
                WHERE terminal_uid = %(terminal)s AND at >= greatest(%(begin)s, %(at)s) AND at < %(end)s
                  AND (%(at)s::timestamptz IS NULL OR (at, boot, seq) > (%(at)s, %(boot)s, %(seq)s))
                ORDER BY at, boot, seq LIMIT %(limit)s
                """,
                {**values, "at": at, "boot": boot, "seq": seq},
            )
        else:
            await cursor.execute(
                """
                SELECT DISTINCT ON (date_bin(%(every)s, at, %(origin)s))
                       at, received_at, lat, lon, datum, source, accuracy_m, boot, seq FROM fix
                WHERE terminal_uid = %(terminal)s AND at < %(end)s
                  AND at >= greatest(%(begin)s, date_bin(%(every)s, %(at)s::timestamptz, %(origin)s) + %(every)s)
                ORDER BY date_bin(%(every)s, at, %(origin)s), at, boot, seq LIMIT %(limit)s
                """,
                {**values, "at": at},
            )
        return await cursor.fetchall()


_ROLLED_UP = """
    WITH changed AS (
        SELECT bucket FROM rollup_wanted WHERE series = 'heartbeat' AND bucket >= %(begin)s AND bucket < %(end)s
    ), hours AS (
        SELECT hour, beats, battery_sum, battery_n, battery_min, signal_sum, signal_n, signal_min, mains
        FROM heartbeat_hourly
        WHERE terminal_uid = %(terminal)s AND hour >= %(begin)s AND hour < %(end)s
          AND hour NOT IN (SELECT bucket FROM changed)
        UNION ALL
        SELECT bucket, h.* FROM changed CROSS JOIN LATERAL (
            SELECT count(*), sum(battery_pct), count(battery_pct), min(battery_pct), sum(signal_dbm),
                   count(signal_dbm), min(signal_dbm), bool_and(mains)
            FROM heartbeat WHERE terminal_uid = %(terminal)s AND at >= bucket AND at < bucket + interval '1 hour'
            HAVING count(*) > 0) AS h
    )
    SELECT date_bin(%(every)s, hour, %(origin)s) AS at, sum(beats)::bigint AS beats,
           (sum(battery_sum) / nullif(sum(battery_n), 0))::float8 AS battery_pct, min(battery_min) AS battery_min_pct,
           (sum(signal_sum) / nullif(sum(signal_n), 0))::float8 AS signal_dbm, min(signal_min) AS signal_min_dbm,
           bool_and(mains) AS mains
    FROM hours GROUP BY 1 ORDER BY 1 LIMIT %(limit)s
"""


async def curve(
    conn: Connection, terminal: UUID, *, begin: datetime, end: datetime, every: timedelta, limit: int
) -> list[CurvePoint]:
    """Return what heartbeats said from `begin` until before `end`, by spells of `every`; empty ones are left out.

    Spells of whole hours come from what is rolled up, and only the hours that have changed since are counted anew.
    """
    whole = every % _HOUR == timedelta(0) and (begin - _ORIGIN) % _HOUR == timedelta(0) == (end - _ORIGIN) % _HOUR
    async with conn.cursor(row_factory=class_row(CurvePoint)) as cursor:
        await cursor.execute(
            _ROLLED_UP
            if whole
            else """
            SELECT date_bin(%(every)s, at, %(origin)s) AS at, count(*) AS beats,
                   avg(battery_pct)::float8 AS battery_pct, min(battery_pct) AS battery_min_pct,
                   avg(signal_dbm)::float8 AS signal_dbm, min(signal_dbm) AS signal_min_dbm, bool_and(mains) AS mains
            FROM heartbeat WHERE terminal_uid = %(terminal)s AND at >= %(begin)s AND at < %(end)s
            GROUP BY 1 ORDER BY 1 LIMIT %(limit)s
            """,
            {"terminal": terminal, "begin": begin, "end": end, "every": every, "origin": _ORIGIN, "limit": limit},
        )
        return await cursor.fetchall()
