"""Heartbeats, fixes and events: time series, and the newest state of each terminal.

What terminals report goes through a temporary table of the session: the series must not count a redelivered row twice,
and COPY knows no ON CONFLICT. From there three inserts and one upsert take a whole batch.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from psycopg.types.json import Jsonb

from gateway.store.pool import Connection, as_jsonb

__all__ = [
    "ReportRow",
    "StateRow",
    "compress_before",
    "forget_before",
    "prepare_stage",
    "renew",
    "stage",
    "store_staged",
    "uids",
    "words_since",
]


class ReportRow(NamedTuple):
    """One report as it goes into the stage; what its kind does not know is None.

    ``at`` is the terminal's time when that is sane (``dated``), else ours; ``status_at`` is that without the future.
    ``kind`` is heartbeat, fix or event. ``heard_at`` is the steady time when it came, ``sent_at`` when it was sent if a
    broker had kept it for us; ``kept``: a broker would keep such a report.
    """

    n: int
    kind: str
    terminal: UUID
    at: datetime
    dated: bool
    boot: int | None
    seq: int | None
    received_at: datetime
    skew_s: float | None
    heard_at: datetime
    sent_at: datetime | None
    kept: bool
    status_at: datetime | None = None
    battery_pct: int | None = None
    battery_mv: int | None = None
    signal_dbm: int | None = None
    mains: bool | None = None
    uptime_s: int | None = None
    temperature_c: float | None = None
    firmware: str | None = None
    cell: str | None = None
    lat: float | None = None
    lon: float | None = None
    datum: str | None = None
    source: str | None = None
    accuracy_m: float | None = None
    fix_at: datetime | None = None
    fix: Jsonb | None = None
    name: str | None = None
    value: Jsonb | None = None


_TYPES = (
    *("int4", "text", "uuid", "timestamptz", "bool", "int8", "int8", "timestamptz", "float8"),
    *("timestamptz", "timestamptz", "bool"),
    *("timestamptz", "int2", "int4", "int2", "bool", "int8", "float8", "text", "text"),
    *("float8", "float8", "text", "text", "float8", "timestamptz", "jsonb"),
    *("text", "jsonb"),
)
_COLUMNS = ", ".join(f"{name} {kind}" for name, kind in zip(ReportRow._fields, _TYPES, strict=True))
_CREATE = f"CREATE TEMP TABLE IF NOT EXISTS staged ({_COLUMNS}) ON COMMIT DELETE ROWS"
_PIECE = 50
"""Rows that are prepared in one go: an alarm must not wait for two thousand."""

_TRUSTED_SKEW_S = 5
"""How far off a terminal's clock may be if it is to say when what a broker had kept was sent."""

_TRUSTED_FOR = "interval '1 day'"
"""How long a clock that was right counts as right. A report that was only late says nothing against it."""

_COPY = "COPY staged FROM STDIN (FORMAT BINARY)"


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


async def uids(conn: Connection, terminals: Sequence[str]) -> dict[str, UUID]:
    """Return the uids of the terminals that are known, by public id."""
    cursor = await conn.execute("SELECT public_id, uid FROM terminal WHERE public_id = ANY(%s)", (list(terminals),))
    return dict(await cursor.fetchall())


async def prepare_stage(conn: Connection, rows: Sequence[ReportRow]) -> None:
    """Make sure of the stage, and of the days that these reports belong to."""
    await conn.execute(_CREATE)
    await conn.execute("SELECT telemetry_days(%s::date[])", (sorted({row.at.astimezone(UTC).date() for row in rows}),))


async def stage(
    conn: Connection, rows: Sequence[ReportRow], *, give_way: Callable[[], Awaitable[None]] = lambda: asyncio.sleep(0)
) -> None:
    """Put reports into the stage of this session. They are gone from there at the end of the transaction.

    `give_way` is waited for after every small piece of work.
    """
    await prepare_stage(conn, rows)
    async with conn.cursor() as cursor, cursor.copy(_COPY) as copy:
        copy.set_types(_TYPES)
        for n, row in enumerate(rows, 1):
            await copy.write_row(row)
            if n % _PIECE == 0:
                await give_way()


async def store_staged(conn: Connection, kinds: Collection[str]) -> None:
    """Store what is in the stage, `kinds` of it; a row that was stored before does not count again.

    A report with numbers but without a time of its own is known again by these for a day; one with neither always
    counts.
    """
    for kind, insert in _INSERTS.items():
        if kind in kinds:
            await conn.execute(insert)
    if {"heartbeat", "fix"}.intersection(kinds):
        await conn.execute(_WANT_ROLLUPS)
    await conn.execute(_RENEW_STAGED)
    # A statement of its own, after the states are locked: who looks at one now sees the report, or is woken by it.
    await conn.execute(_WAKE_STAGED)


def _insert(table: str, kind: str, columns: str, key: str = "") -> str:
    return f"""
        INSERT INTO {table} (at, terminal_uid, boot, seq, received_at, {columns})
        SELECT s.at, s.terminal, coalesce(s.boot, -1), coalesce(s.seq, -1), s.received_at, {columns}
        FROM staged s
        WHERE s.kind = '{kind}' AND (s.dated OR s.boot IS NULL OR s.seq IS NULL OR NOT EXISTS (
            SELECT FROM {table} o WHERE o.terminal_uid = s.terminal AND o.boot = s.boot AND o.seq = s.seq {key}
              AND o.at BETWEEN s.at - interval '1 day' AND s.at))
        ORDER BY s.terminal, s.at
        ON CONFLICT DO NOTHING
    """  # noqa: S608 # every word of it stands in this file


_INSERTS = {
    "heartbeat": _insert(
        "heartbeat", "heartbeat", "battery_pct, battery_mv, signal_dbm, mains, uptime_s, temperature_c"
    ),
    "fix": _insert("fix", "fix", "lat, lon, datum, source, accuracy_m"),
    "event": _insert("terminal_event", "event", "name, value", "AND o.name = s.name"),
}

_FIELDS = ("battery_pct", "signal_dbm", "mains", "firmware", "cell")
"""What a report may say of a terminal's state. Each is as old as the newest report that said it, however they come."""

_STATE = f"""
    INSERT INTO terminal_state AS s (terminal_uid, seen_at, heard_at, kept, status_at, boot, seq,
                                     {", ".join(f"{name}, {name}_at" for name in _FIELDS)}, fix, fix_at, clock_skew_s,
                                     clock_good_at)
"""
_NEWER_WINS = f"""
    ON CONFLICT (terminal_uid) DO UPDATE SET
        seen_at = greatest(s.seen_at, excluded.seen_at),
        heard_at = greatest(s.heard_at, excluded.heard_at),
        kept = CASE WHEN excluded.heard_at >= s.heard_at THEN excluded.kept ELSE s.kept END,
        clock_skew_s = CASE WHEN excluded.heard_at >= s.heard_at
                            THEN coalesce(excluded.clock_skew_s, s.clock_skew_s) ELSE s.clock_skew_s END,
        clock_good_at = greatest(s.clock_good_at, excluded.clock_good_at),
        status_at = greatest(s.status_at, excluded.status_at),
        boot = CASE WHEN excluded.status_at >= coalesce(s.status_at, '-infinity')
                    THEN coalesce(excluded.boot, s.boot) ELSE s.boot END,
        seq = CASE WHEN excluded.status_at >= coalesce(s.status_at, '-infinity')
                   THEN coalesce(excluded.seq, s.seq) ELSE s.seq END,
        {
    ", ".join(
        f"{name} = CASE WHEN excluded.{name}_at >= coalesce(s.{name}_at, '-infinity') "
        f"THEN excluded.{name} ELSE s.{name} END, {name}_at = greatest(s.{name}_at, excluded.{name}_at)"
        for name in _FIELDS
    )
},
        fix = CASE WHEN excluded.fix_at >= coalesce(s.fix_at, '-infinity') THEN excluded.fix ELSE s.fix END,
        fix_at = greatest(s.fix_at, excluded.fix_at)
"""


def _newest(column: str, by: str = "status_at") -> str:
    return f"(array_agg({column} ORDER BY {by} DESC, n DESC) FILTER (WHERE {column} IS NOT NULL))[1]"


_STATUS = ", ".join(
    (
        *(_newest(name) for name in ("boot", "seq")),
        *(f"{_newest(name)}, max(status_at) FILTER (WHERE {name} IS NOT NULL)" for name in _FIELDS),
    )
)
# Boot and sequence of fixes and events say nothing of the state: only a heartbeat has a status_at.
# In the order of the terminals, so that two writers cannot block each other.
# What a broker had kept was sent before it was heard, if the terminal's clock is one to believe. What is older than the
# time up to which everything was heard the terminal itself had kept back: nobody knows when it sent that.
_RENEW_STAGED = f"""
    {_STATE}
    SELECT uid, max(received_at), max(heard_at), (array_agg(kept ORDER BY heard_at DESC, n DESC))[1],
           max(status_at), {_STATUS}, {_newest("fix", "fix_at")}, max(fix_at), {_newest("skew_s", "heard_at")},
           max(heard_at) FILTER (WHERE abs(skew_s) <= {_TRUSTED_SKEW_S})
    FROM (SELECT terminal AS uid, staged.n, staged.received_at, staged.status_at, staged.skew_s, staged.fix,
                 staged.fix_at, staged.battery_pct, staged.signal_dbm, staged.mains, staged.firmware, staged.cell,
                 staged.kept,
                 CASE WHEN staged.sent_at < staged.heard_at AND known.clock_good_at > staged.heard_at - {_TRUSTED_FOR}
                           AND staged.sent_at > (SELECT horizon FROM hearing)
                      THEN staged.sent_at ELSE staged.heard_at END AS heard_at,
                 CASE WHEN staged.status_at IS NOT NULL THEN staged.boot END AS boot,
                 CASE WHEN staged.status_at IS NOT NULL THEN staged.seq END AS seq
          FROM staged
          LEFT JOIN terminal_state known ON staged.sent_at IS NOT NULL AND known.terminal_uid = terminal) AS told
    GROUP BY uid ORDER BY uid
    {_NEWER_WINS}
"""  # noqa: S608 # every word of it stands in this file

# In the order of the buckets, so that two writers cannot block each other.
_WANT_ROLLUPS = """
    INSERT INTO rollup_wanted AS w (series, bucket)
    SELECT DISTINCT kind,
           date_bin(CASE kind WHEN 'fix' THEN interval '1 day' ELSE interval '1 hour' END, at, '2020-01-01Z')
    FROM staged WHERE kind IN ('heartbeat', 'fix') ORDER BY 1, 2
    ON CONFLICT (series, bucket) DO UPDATE SET changes = w.changes + 1
"""

_TRIPPED = """
    NOT w.calm
    OR (s.battery_pct IS NOT NULL
        AND (w.battery_from IS NULL OR s.battery_pct < w.battery_from OR s.battery_pct >= w.battery_to))
    OR (s.signal_dbm IS NOT NULL
        AND (w.signal_from IS NULL OR s.signal_dbm < w.signal_from OR s.signal_dbm >= w.signal_to))
    OR (s.clock_skew_s IS NOT NULL
        AND (w.skew_from IS NULL OR s.clock_skew_s < w.skew_from OR s.clock_skew_s > w.skew_to))
    OR (s.mains IS NOT NULL AND s.mains IS DISTINCT FROM w.mains)
    OR (s.firmware IS NOT NULL AND s.firmware IS DISTINCT FROM w.firmware)
"""
_WAKE_STAGED = f"""
    UPDATE watch w SET calm = false, look_at = least(w.look_at, s.heard_at)
    FROM terminal_state s
    WHERE s.terminal_uid = w.terminal_uid AND (w.calm OR w.look_at > s.heard_at) AND ({_TRIPPED})
      AND w.terminal_uid IN (SELECT terminal FROM staged)
"""  # noqa: S608 # every word of it stands in this file

_RENEW = f"""
    {_STATE}
    SELECT uid, seen_at, coalesce((SELECT horizon FROM hearing), seen_at), true, status_at, boot, seq,
           {", ".join(f"{name}, CASE WHEN {name} IS NOT NULL THEN status_at END" for name in _FIELDS)}, fix, fix_at,
           skew_s, NULL
    FROM unnest(%b::uuid[], %b::timestamptz[], %b::timestamptz[], %b::bigint[], %b::bigint[], %b::int2[],
                %b::int2[], %b::bool[], %b::text[], %b::text[], %b::jsonb[], %b::timestamptz[], %b::float8[])
         AS told (uid, seen_at, status_at, boot, seq, battery_pct, signal_dbm, mains, firmware, cell, fix, fix_at,
                  skew_s)
    {_NEWER_WINS}
"""  # noqa: S608 # every word of it stands in this file


async def renew(conn: Connection, rows: Sequence[StateRow]) -> None:
    """Bring the newest state up to date. A row says only what it knows; what is older than known changes nothing.

    `rows` holds at most one row per terminal, and comes sorted by terminal so that two writers cannot block each other.
    Whoever renews a state by this counts as heard when everything was last known to be stored, see `gateway.supervise`.
    """
    await conn.execute(
        _RENEW,
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
            [None] * len(rows),
            [None if row.fix is None else as_jsonb(row.fix) for row in rows],
            [row.fix_at for row in rows],
            [row.clock_skew_s for row in rows],
        ],
    )


async def compress_before(conn: Connection, day: date) -> int:
    """Compress what lies before `day`, by terminal; returns how many chunks that were: none without TimescaleDB."""
    row = await (await conn.execute("SELECT telemetry_compress(%s)", (day,))).fetchone()
    assert row is not None
    return int(row[0])


async def forget_before(conn: Connection, day: date) -> str | None:
    """Drop the oldest day before `day` of one of the series, and return its table, or None when there is none.

    Raises:
        psycopg.errors.LockNotAvailable: Somebody writes just now; no writer waited longer than a tenth of a second.
    """
    row = await (await conn.execute("SELECT telemetry_forget(%s)", (day,))).fetchone()
    return None if row is None else row[0]


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
