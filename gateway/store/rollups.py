"""Rolling telemetry up, hour by hour and day by day, for what has changed.

A batch notes in its own transaction which hours it touched. Who rolls one up strikes the note only if no further batch
has touched it meanwhile, so late and redelivered reports count once, whenever they come.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from gateway.store.pool import Connection

__all__ = ["Wanted", "forget", "has_timescale", "roll_up", "wanted"]

_HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Wanted:
    """An hour of heartbeats or a day of positions that has changed."""

    series: str
    bucket: datetime
    changes: int


async def wanted(conn: Connection, *, ended_before: datetime, limit: int) -> list[Wanted]:
    """Return what has changed and is over since before `ended_before`, oldest first."""
    cursor = await conn.execute(
        """
        SELECT series, bucket, changes FROM rollup_wanted
        WHERE bucket + CASE series WHEN 'fix' THEN interval '1 day' ELSE interval '1 hour' END <= %s
        ORDER BY bucket, series LIMIT %s
        """,
        (ended_before, limit),
    )
    return [Wanted(*row) for row in await cursor.fetchall()]


async def has_timescale(conn: Connection) -> bool:
    """Are the series hypertables?"""
    row = await (
        await conn.execute("SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb')")
    ).fetchone()
    return row == (True,)


async def roll_up(conn: Connection, one: Wanted, *, timescale: bool) -> None:
    """Roll up one bucket. `conn` is in autocommit: a continuous aggregate is refreshed outside of transactions."""
    if one.series == "heartbeat" and timescale:
        await conn.execute("SET ROLE NONE")  # the owner alone may refresh it
        try:
            await conn.execute(
                "CALL refresh_continuous_aggregate('heartbeat_hourly', %s::timestamptz, %s::timestamptz)",
                (one.bucket, one.bucket + _HOUR),
            )
        finally:
            await conn.execute("SET ROLE onekey_runtime")
        await _done(conn, one)
        return
    async with conn.transaction():
        if one.series == "heartbeat":
            await conn.execute("CALL rollup_hour(%s)", (one.bucket,))
        else:
            await conn.execute("CALL rollup_day((%s::timestamptz AT TIME ZONE 'UTC')::date)", (one.bucket,))
    await _done(conn, one)


async def forget(conn: Connection, before: datetime) -> int:
    """Forget the oldest hour and day before `before`; returns how many rows went, 0 when nothing is left to forget."""
    row = await (await conn.execute("SELECT rollups_forget(%s)", (before,))).fetchone()
    assert row is not None
    return int(row[0])


async def _done(conn: Connection, one: Wanted) -> None:
    await conn.execute(
        "DELETE FROM rollup_wanted WHERE series = %s AND bucket = %s AND changes = %s",
        (one.series, one.bucket, one.changes),
    )
