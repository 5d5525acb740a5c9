"""``onekey bench series``: a month of a district's telemetry, and how long it takes to ask it something.

The reports are made up and written by the database itself, day by day, as the gateway would store them. Then the API is
asked for the track of a day and for the newest states of the district, and the oldest day is dropped beside a writer.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from random import Random
from time import monotonic
from typing import Any
from urllib.parse import quote

import aiohttp
import psycopg
from psycopg.errors import LockNotAvailable
from rich.console import Console

from firmware_sim.bench import installed, machine, progress_bar
from firmware_sim.figures import Judged, quantile, summary
from firmware_sim.sites import made_up
from firmware_sim.stack import StackError

__all__ = ["ASKED_MS", "HELD_UP_MS", "Options", "Report", "judge", "run"]

ASKED_MS = 50.0
"""Within which time the track of a day, and a page of the newest states of a district, are there (95th percentile)."""

HELD_UP_MS = 250.0
"""For how long a writer may wait at most while a day is dropped."""

_EVERY = timedelta(minutes=5)
_ASKED = 60
_PAGE = 200
_ROLLED_UP_WITHIN_S = 900.0
_WRITE_EVERY_S = 0.02
_BESIDE_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How much: days of so many terminals, each with a heartbeat and a position every five minutes."""

    days: int = 30
    terminals: int = 2000
    seed: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Report(Judged):
    """The whole run. ``ms`` holds milliseconds by what was asked; ``dropped`` tables went within ``drop_s``."""

    options: Options
    rows: int
    bytes: int
    load_s: float
    ms: dict[str, list[float]]
    dropped: int
    drop_s: float

    def document(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return self.verdict() | {
            "options": asdict(self.options),
            "rows": self.rows,
            "bytes": self.bytes,
            "load_s": round(self.load_s, 1),
            "ms": {name: summary(values) for name, values in self.ms.items()},
            "dropped": self.dropped,
            "drop_s": round(self.drop_s, 3),
        }


def judge(*, rows: int, wanted: int, ms: dict[str, list[float]], dropped: int) -> tuple[str, ...]:
    """Return every reason why the run failed."""
    failures: list[str] = []
    if rows < wanted:
        failures.append(f"only {rows} of {wanted} rows were loaded")
    late = {name: quantile(ms[name], 0.95) for name in ("track of a day", "newest states, a page")}
    failures += [f"{name}: {at:.0f} ms (p95), the bar {ASKED_MS:.0f} ms" for name, at in late.items() if at > ASKED_MS]
    if dropped == 0:
        failures.append("no day was dropped")
    if (held_up_ms := max(ms["a write beside the drop"])) > HELD_UP_MS:
        failures.append(f"a writer waited {held_up_ms:.0f} ms for a drop, the bar {HELD_UP_MS:.0f} ms")
    return tuple(failures)


async def run(options: Options, console: Console) -> Report:
    """Start a gateway of its own, fill its series, ask, and stop it again.

    Raises:
        StackError: The gateway did not come up, or refused to answer.
    """
    found = machine()
    site = made_up(options.terminals, seed=options.seed, prefix="bench")
    terminals = [entry.id for entry in site.terminals()]
    today = datetime.now(UTC).date()
    days = [today - timedelta(days=n) for n in range(options.days, 0, -1)]
    async with AsyncExitStack() as cleanup:
        stack, info = await cleanup.enter_async_context(installed(site, console))
        if info.database is None:
            raise StackError("run.json names no database, so its series cannot be filled")
        connect = psycopg.AsyncConnection.connect
        conn = await cleanup.enter_async_context(await connect(info.database, autocommit=True))
        began_s = monotonic()
        await _fill(conn, days, console)
        load_s = monotonic() - began_s
        await _roll_up(conn, days, console)
        rows, size = await _size(conn)
        key = await stack.create_key(role="operator", name="bench")
        http = await cleanup.enter_async_context(
            aiohttp.ClientSession(info.http, headers={"Authorization": f"Bearer {key}"})
        )
        with console.status("Asking …"):
            ms = await _ask(http, terminals, days, Random(options.seed))
        writer = await cleanup.enter_async_context(await connect(info.database, autocommit=True))
        with console.status("Dropping the oldest day beside a writer …"):
            ms["a write alone"] = await _write(writer, terminals[0], _BESIDE_S)
            writing = asyncio.ensure_future(_write(writer, terminals[0], _BESIDE_S))
            await asyncio.sleep(1)
            began_s = monotonic()
            dropped = await _drop(conn, days[1])
            drop_s = monotonic() - began_s
            ms["a write beside the drop"] = await writing
    wanted = 2 * options.terminals * options.days * (timedelta(days=1) // _EVERY)
    return Report(
        options=options,
        machine=found,
        failures=judge(rows=rows, wanted=wanted, ms=ms, dropped=dropped),
        rows=rows,
        bytes=size,
        load_s=load_s,
        ms=ms,
        dropped=dropped,
        drop_s=drop_s,
    )


async def _fill(conn: psycopg.AsyncConnection, days: Sequence[date], console: Console) -> None:
    with progress_bar("Days of telemetry", len(days), console) as show:
        for number, day in enumerate(days):
            values = {"day": datetime.combine(day, datetime.min.time(), UTC), "n": number}
            await conn.execute("SELECT telemetry_days(ARRAY[%s])", (day,))
            await conn.execute(_BEATS, values)
            await conn.execute(_FIXES, values)
            show(number + 1)
    await conn.execute(_STATES)
    for table in ("heartbeat", "fix", "terminal_state"):
        await conn.execute(f"VACUUM (ANALYZE) {table}")
    await conn.execute("CHECKPOINT")


# A battery falls from full to a fifth in ten days; signal and place go round the day.
_SPELLS = """
    FROM terminal t CROSS JOIN generate_series(0, 287) AS spell (k),
         LATERAL (SELECT %(day)s::timestamptz + k * interval '5 minutes') AS moment (at)
    ORDER BY t.uid, at
"""
_BEATS = (
    """
    INSERT INTO heartbeat (at, terminal_uid, boot, seq, received_at, battery_pct, battery_mv, signal_dbm, mains,
                           uptime_s)
    SELECT at, t.uid, 1, %(n)s * 288 + k, at, 100 - (%(n)s * 288 + k) %% 2880 / 36, 3700 + k, -70 - k %% 20,
           k %% 2 = 0, k
    """
    + _SPELLS
)
_FIXES = (
    """
    INSERT INTO fix (at, terminal_uid, boot, seq, received_at, lat, lon, datum, source, accuracy_m)
    SELECT at, t.uid, 1, %(n)s * 288 + k, at, 32 + sin(k / 46.0) / 100, 118.8 + cos(k / 46.0) / 100, 'wgs84', 'gnss', 8
    """
    + _SPELLS
)
# They count as heard for an hour to come: nobody is to be lost, and to have a case, while we ask.
_STATES = """
    INSERT INTO terminal_state (terminal_uid, seen_at, heard_at, status_at, boot, seq, battery_pct, battery_pct_at,
                                signal_dbm, signal_dbm_at, mains, mains_at)
    SELECT t.uid, b.received_at, now() + interval '1 hour', b.at, b.boot, b.seq, b.battery_pct, b.at, b.signal_dbm,
           b.at, b.mains, b.at
    FROM terminal t CROSS JOIN LATERAL (
        SELECT * FROM heartbeat h WHERE h.terminal_uid = t.uid ORDER BY at DESC LIMIT 1) AS b
    ON CONFLICT DO NOTHING
"""


_WANT = """
    INSERT INTO rollup_wanted (series, bucket)
    SELECT 'heartbeat', generate_series(%(first)s::timestamptz, %(last)s, interval '1 hour')
    UNION ALL SELECT 'fix', generate_series(%(first)s::timestamptz, %(last)s, interval '1 day')
    ON CONFLICT DO NOTHING
"""


async def _roll_up(conn: psycopg.AsyncConnection, days: Sequence[date], console: Console) -> None:
    """Wait until the gateway has made the rollups of what the database wrote behind its back."""
    first, last = (datetime.combine(day, datetime.min.time(), UTC) for day in (days[0], days[-1]))
    await conn.execute(_WANT, {"first": first, "last": last + timedelta(hours=23)})
    total = left = await _wanted(conn)
    with progress_bar("Hours and days rolled up", total, console) as show:
        async with asyncio.timeout(_ROLLED_UP_WITHIN_S):
            while left:
                await asyncio.sleep(1)
                left = await _wanted(conn)
                show(total - left)


async def _wanted(conn: psycopg.AsyncConnection) -> int:
    row = await (
        await conn.execute("SELECT count(*) FROM rollup_wanted WHERE bucket < now() - interval '1 day'")
    ).fetchone()
    assert row is not None
    return int(row[0])


async def _size(conn: psycopg.AsyncConnection) -> tuple[int, int]:
    cursor = await conn.execute(
        "SELECT (SELECT count(*) FROM heartbeat) + (SELECT count(*) FROM fix), pg_database_size(current_database())"
    )
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


async def _ask(
    http: aiohttp.ClientSession, terminals: Sequence[str], days: Sequence[date], rng: Random
) -> dict[str, list[float]]:
    async def asked(path: str) -> tuple[float, Any]:
        began_s = monotonic()
        async with http.get(path) as response:
            answer = await response.json()
            if response.status != 200:
                raise StackError(f"the API answers {response.status} to {path.partition('?')[0]}")
        return (monotonic() - began_s) * 1000, answer

    ms: dict[str, list[float]] = {
        name: []
        for name in ("track of a day", "battery of the month", "newest states, a page", "newest states, all pages")
    }
    district = quote((await asked("/v1/terminals?limit=1"))[1]["items"][0]["district"])
    for turn in range(_ASKED + 5):
        day, terminal = rng.choice(days), rng.choice(terminals)
        span = f"from={day}T00:00:00Z&until={day + timedelta(days=1)}T00:00:00Z"
        track_ms, track = await asked(f"/v1/terminals/{terminal}/track?{span}&limit=500")
        if len(track["items"]) != timedelta(days=1) // _EVERY:
            raise StackError(f"a track of a day has {len(track['items'])} points")
        month = f"from={days[0]}T00:00:00Z&until={days[-1]}T00:00:00Z&every_s=86400"
        curve_ms, curve = await asked(f"/v1/terminals/{terminal}/heartbeats?{month}")
        if len(curve["items"]) != len(days) - 1 or any(one["battery_pct"] is None for one in curve["items"]):
            raise StackError(f"a month by days has {len(curve['items'])} points, or some without a battery")
        pages, cursor = [], ""
        while True:
            page_ms, page = await asked(f"/v1/terminals?district={district}&limit={_PAGE}{cursor}")
            pages.append(page_ms)
            if page["cursor"] is None:
                break
            cursor = f"&cursor={page['cursor']}"
        if turn >= 5:  # the first ones prepare statements
            ms["track of a day"].append(track_ms)
            ms["battery of the month"].append(curve_ms)
            ms["newest states, a page"] += pages
            ms["newest states, all pages"].append(sum(pages))
    return ms


async def _write(conn: psycopg.AsyncConnection, terminal: str, seconds: float) -> list[float]:
    """Write a heartbeat of now, again and again, and return how long each took."""
    took_ms: list[float] = []
    await conn.execute("SELECT telemetry_days(ARRAY[(now() AT TIME ZONE 'UTC')::date])")
    ends_s = monotonic() + seconds
    while monotonic() < ends_s:
        began_s = monotonic()
        await conn.execute(
            "INSERT INTO heartbeat (at, terminal_uid, received_at) "
            "SELECT clock_timestamp(), uid, now() FROM terminal WHERE public_id = %s",
            (terminal,),
        )
        took_ms.append((monotonic() - began_s) * 1000)
        await asyncio.sleep(_WRITE_EVERY_S)
    return took_ms


async def _drop(conn: psycopg.AsyncConnection, before: date) -> int:
    """Drop everything before a day as the gateway does, and return how many tables that were."""
    dropped = 0
    while True:
        with contextlib.suppress(LockNotAvailable):
            row = await (await conn.execute("SELECT telemetry_forget(%s)", (before,))).fetchone()
            if row is None or row[0] is None:
                return dropped
            dropped += 1
