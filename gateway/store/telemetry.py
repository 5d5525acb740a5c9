"""Heartbeats, fixes and events: time series, and the newest state of each terminal."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from gateway.store.pool import Connection, as_jsonb

__all__ = [
    "EventRow",
    "FixRow",
    "HeartbeatRow",
    "StateRow",
    "add_events",
    "add_fixes",
    "add_heartbeats",
    "renew",
    "uids",
    "words_since",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatRow:
    """One heartbeat. ``at`` is the terminal's time when that is sane, else ours."""

    at: datetime
    terminal: UUID
    boot: int
    seq: int
    received_at: datetime
    battery_pct: int | None
    battery_mv: int | None
    signal_dbm: int | None
    mains: bool | None
    uptime_s: int | None
    temperature_c: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FixRow:
    """One position, in the datum in which it came."""

    at: datetime
    terminal: UUID
    boot: int
    seq: int
    received_at: datetime
    lat: float
    lon: float
    datum: str
    source: str
    accuracy_m: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRow:
    """One event of a terminal."""

    at: datetime
    terminal: UUID
    boot: int
    seq: int
    received_at: datetime
    name: str
    value: object


@dataclass(frozen=True, slots=True, kw_only=True)
class StateRow:
    """What a report says about the newest state of its terminal; None: nothing."""

    terminal: UUID
    seen_at: datetime
    status_at: datetime | None = None
    boot: int | None = None
    seq: int | None = None
    battery_pct: int | None = None
    signal_dbm: int | None = None
    mains: bool | None = None
    firmware: str | None = None
    fix: dict[str, Any] | None = None
    fix_at: datetime | None = None
    clock_skew_s: float | None = None


async def uids(conn: Connection, terminals: Sequence[str]) -> dict[str, tuple[UUID, str]]:
    """Return uid and district of the terminals that are known, by public id."""
    cursor = await conn.execute(
        "SELECT public_id, uid, district FROM terminal WHERE public_id = ANY(%s)", (list(terminals),)
    )
    return {row[0]: (row[1], row[2]) for row in await cursor.fetchall()}


def _columns(rows: Sequence[Any], names: Sequence[str]) -> list[list[Any]]:
    return [[getattr(row, name) for row in rows] for name in names]


async def add_heartbeats(conn: Connection, rows: Sequence[HeartbeatRow]) -> None:
    """Store heartbeats; one that was stored before does not count again."""
    names = (
        "at",
        "terminal",
        "boot",
        "seq",
        "received_at",
        "battery_pct",
        "battery_mv",
        "signal_dbm",
        "mains",
        "uptime_s",
    )
    await conn.execute(
        """
        INSERT INTO heartbeat (at, terminal_uid, boot, seq, received_at, battery_pct, battery_mv, signal_dbm, mains,
                               uptime_s, temperature_c)
        SELECT * FROM unnest(%s::timestamptz[], %s::uuid[], %s::bigint[], %s::bigint[], %s::timestamptz[], %s::int2[],
                             %s::int[], %s::int2[], %s::bool[], %s::bigint[], %s::float8[])
        ON CONFLICT DO NOTHING
        """,
        _columns(rows, (*names, "temperature_c")),
    )


async def add_fixes(conn: Connection, rows: Sequence[FixRow]) -> None:
    """Store positions; one that was stored before does not count again."""
    names = ("at", "terminal", "boot", "seq", "received_at", "lat", "lon", "datum", "source", "accuracy_m")
    await conn.execute(
        """
        INSERT INTO fix (at, terminal_uid, boot, seq, received_at, lat, lon, datum, source, accuracy_m)
        SELECT * FROM unnest(%s::timestamptz[], %s::uuid[], %s::bigint[], %s::bigint[], %s::timestamptz[], %s::float8[],
                             %s::float8[], %s::text[], %s::text[], %s::float8[])
        ON CONFLICT DO NOTHING
        """,
        _columns(rows, names),
    )


async def words_since(
    conn: Connection, since: Mapping[UUID, datetime], names: Collection[str], *, skew: timedelta
) -> list[tuple[UUID, str, object, datetime]]:
    """Return what terminals said of these since we received something of each: terminal, name, value and time.

    In the order in which it came. A time is at most `skew` from that of its receipt.
    """
    cursor = await conn.execute(
        """
        SELECT e.terminal_uid, e.name, e.value, e.at
        FROM unnest(%b::uuid[], %b::timestamptz[]) AS asked (terminal, since)
        JOIN terminal_event e ON e.terminal_uid = asked.terminal AND e.received_at >= asked.since
                              AND e.at >= asked.since - %b
        WHERE e.name = ANY(%b) ORDER BY e.received_at, e.at
        """,
        (list(since), list(since.values()), skew, list(names)),
    )
    return await cursor.fetchall()


async def add_events(conn: Connection, rows: Sequence[EventRow]) -> None:
    """Store events of terminals; one that was stored before does not count again."""
    columns = _columns(rows, ("at", "terminal", "boot", "seq", "received_at", "name"))
    await conn.execute(
        """
        INSERT INTO terminal_event (at, terminal_uid, boot, seq, received_at, name, value)
        SELECT * FROM unnest(%s::timestamptz[], %s::uuid[], %s::bigint[], %s::bigint[], %s::timestamptz[], %s::text[],
                             %s::jsonb[])
        ON CONFLICT DO NOTHING
        """,
        [*columns, [as_jsonb(row.value) for row in rows]],
    )


async def renew(conn: Connection, rows: Sequence[StateRow]) -> None:
    """Bring the newest state up to date. A row says only what it knows; what is older than known changes nothing.

    `rows` holds at most one row per terminal, and comes sorted by terminal so that two writers cannot block each other.
    """
    await conn.execute(
        """
        INSERT INTO terminal_state AS s (terminal_uid, seen_at, status_at, boot, seq, battery_pct, signal_dbm, mains,
                                         firmware, fix, fix_at, clock_skew_s)
        SELECT * FROM unnest(%b::uuid[], %b::timestamptz[], %b::timestamptz[], %b::bigint[], %b::bigint[], %b::int2[],
                             %b::int2[], %b::bool[], %b::text[], %b::jsonb[], %b::timestamptz[], %b::float8[])
        ON CONFLICT (terminal_uid) DO UPDATE SET
            seen_at = greatest(s.seen_at, excluded.seen_at),
            clock_skew_s = coalesce(excluded.clock_skew_s, s.clock_skew_s),
            status_at = greatest(s.status_at, excluded.status_at),
            (boot, seq, battery_pct, signal_dbm, mains, firmware) = (
                SELECT CASE WHEN newer THEN coalesce(excluded.boot, s.boot) ELSE s.boot END,
                       CASE WHEN newer THEN coalesce(excluded.seq, s.seq) ELSE s.seq END,
                       CASE WHEN newer THEN coalesce(excluded.battery_pct, s.battery_pct) ELSE s.battery_pct END,
                       CASE WHEN newer THEN coalesce(excluded.signal_dbm, s.signal_dbm) ELSE s.signal_dbm END,
                       CASE WHEN newer THEN coalesce(excluded.mains, s.mains) ELSE s.mains END,
                       CASE WHEN newer THEN coalesce(excluded.firmware, s.firmware) ELSE s.firmware END
                FROM (SELECT excluded.status_at >= coalesce(s.status_at, '-infinity') AS newer) AS compared
            ),
            fix = CASE WHEN excluded.fix_at >= coalesce(s.fix_at, '-infinity') THEN excluded.fix ELSE s.fix END,
            fix_at = greatest(s.fix_at, excluded.fix_at)
        """,
        [
            [row.terminal for row in rows],
            [row.seen_at for row in rows],
            [row.status_at for row in rows],
            [row.boot for row in rows],
            [row.seq for row in rows],
            [row.battery_pct for row in rows],
            [row.signal_dbm for row in rows],
            [row.mains for row in rows],
            [row.firmware for row in rows],
            [None if row.fix is None else as_jsonb(row.fix) for row in rows],
            [row.fix_at for row in rows],
            [row.clock_skew_s for row in rows],
        ],
    )
