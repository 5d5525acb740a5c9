"""The real migrations and the store's own statements on a real TimescaleDB (D1).

It runs under Node, so it needs `node` and `npm`, which fetches it once. It takes one connection at a time and knows no
COPY from a client: the stage is filled by INSERT here, and all that follows is what the gateway does.
"""

import asyncio
import os
import shutil
import socket
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from gateway.ingest.rollups import roll_up_changes
from gateway.keyring import Keyring
from gateway.service.apply_site import apply_site
from gateway.service.read_series import read_curve, read_track
from gateway.service.telemetry import Told, store_reports
from gateway.site.load import load
from gateway.store import telemetry
from gateway.store.directory import Directory
from gateway.store.migrate import migrate
from gateway.store.pool import Connection, Pool, open_pool
from gateway.store.telemetry import ReportRow
from schemas.reports import EventReport, Fix, FixReport, HeartbeatReport
from tests.conftest import ROOT

BOX = "860000000000001"
NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=2)
MINUTE = timedelta(minutes=1)
FILES = ROOT / "tests" / "timescale"


async def _installed(folder: Path) -> Path:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        missing = "TimescaleDB runs under Node here: install nodejs and npm"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    for name in ("package.json", "server.mjs"):
        shutil.copy(FILES / name, folder / name)
    install = await asyncio.create_subprocess_exec(
        *(npm, "install", "--legacy-peer-deps", "--no-audit", "--no-fund", "--no-package-lock", "--silent"), cwd=folder
    )
    if await install.wait() != 0:
        if os.environ.get("CI"):
            pytest.fail("npm could not fetch TimescaleDB")
        pytest.skip("npm could not fetch TimescaleDB: no package registry can be reached")
    return Path(node)


def _forget_statements(url: str) -> None:
    """All connections are one session there: what one has prepared is in the way of the next."""
    with psycopg.connect(url, autocommit=True, prepare_threshold=None) as conn:
        conn.execute("DEALLOCATE ALL")


@pytest.fixture
async def timescale(tmp_path: Path) -> AsyncIterator[str]:
    """A TimescaleDB with all migrations applied; its address."""
    node = await _installed(tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = await asyncio.create_subprocess_exec(
        *(str(node), "server.mjs", str(port)),
        cwd=tmp_path,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        async with asyncio.timeout(60):
            version = (await server.stdout.readline()).decode().strip()
        assert version >= "2."
        url = f"postgresql://postgres:postgres@127.0.0.1:{port}/postgres?sslmode=disable"
        await asyncio.to_thread(migrate, url)
        await asyncio.to_thread(_forget_statements, url)
        yield url
    finally:
        server.stdin.close()
        try:
            await asyncio.wait_for(server.wait(), 10)
        except TimeoutError:
            server.kill()
            await server.wait()


async def _stage_by_insert(conn: Connection, rows: Sequence[ReportRow], **_: object) -> None:
    await telemetry.prepare_stage(conn, rows)
    values = ", ".join(["%s"] * len(ReportRow._fields))
    for row in rows:
        await conn.execute(f"INSERT INTO staged VALUES ({values})", row)


@pytest.fixture
async def pool(timescale: str, keyring: Keyring, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pool]:
    monkeypatch.setattr(telemetry, "stage", _stage_by_insert)
    async with open_pool(timescale, name="test", size=1) as opened:
        await apply_site(opened, keyring, load(ROOT / "examples" / "nanjing.yaml").site, prune=False)
        yield opened


def beats(day: int) -> list[Told]:
    begin = NOON - timedelta(days=day)
    return [
        Told(BOX, begin + n * MINUTE, HeartbeatReport(v=1, boot=1, seq=n, battery_pct=90 - n // 10, signal_dbm=-70))
        for n in range(60)
    ]


async def _one(pool: Pool, query: str) -> object:
    async with pool.connection() as conn:
        row = await (await conn.execute(query)).fetchone()
    assert row is not None
    return row[0]


async def test_series_on_timescale_count_once_are_read_compressed_and_forgotten(pool: Pool, keyring: Keyring) -> None:
    directory = Directory(keyring)
    kinds = "SELECT string_agg(hypertable_name, ' ' ORDER BY hypertable_name) FROM timescaledb_information.hypertables"
    assert await _one(pool, kinds) == "fix heartbeat terminal_event"

    walk = [
        Told(BOX, NOON + n * MINUTE, FixReport(v=1, boot=1, seq=n, fix=Fix(lat=32 + n / 1000, lon=118.8)))
        for n in range(30)
    ]
    event = Told(BOX, NOON, EventReport(v=1, boot=1, seq=99, name="restart", value="watchdog"))
    for _ in range(2):  # the broker delivers it again
        await store_reports(pool, directory, [*beats(0), *walk, event], worker=None)
    await store_reports(pool, directory, beats(3), worker=None)
    assert await _one(pool, "SELECT count(*) FROM heartbeat") == 120
    assert await _one(pool, "SELECT count(*) FROM fix") == 30
    assert await _one(pool, "SELECT count(*) FROM terminal_event") == 1
    state = "SELECT battery_pct FROM terminal_state s JOIN terminal t ON t.uid = s.terminal_uid WHERE public_id = '{}'"
    assert await _one(pool, state.format(BOX)) == 85

    async def seen() -> tuple[list[float], list[tuple[int, int | None]]]:
        track = await read_track(pool, BOX, begin=NOON, end=NOON + 30 * MINUTE, every=10 * MINUTE)
        curve = await read_curve(pool, BOX, begin=NOON, end=NOON + 60 * MINUTE, every=30 * MINUTE)
        return [point.lat for point in track.items], [(point.beats, point.battery_min_pct) for point in curve]

    assert await seen() == ([32.0, 32.01, 32.02], [(30, 88), (30, 85)])

    assert await _one(pool, "SELECT count(*) FROM show_chunks('heartbeat')") == 2
    today = datetime.now(UTC).date()
    async with pool.connection() as conn:
        assert await telemetry.compress_before(conn, today) == 4
        assert await telemetry.compress_before(conn, today) == 0
    assert await seen() == ([32.0, 32.01, 32.02], [(30, 88), (30, 85)])
    await store_reports(pool, directory, beats(0), worker=None)  # late, into what is compressed
    assert await _one(pool, "SELECT count(*) FROM heartbeat") == 120

    # Rolled up by a continuous aggregate, and again when more comes late.
    hour = NOON.replace(tzinfo=UTC)
    assert await roll_up_changes(pool, now=datetime.now(UTC)) >= 2
    rolled = "SELECT sum(beats)::int FROM heartbeat_hourly"
    assert await _one(pool, rolled) == 120
    late = Told(BOX, hour, HeartbeatReport(v=1, boot=1, seq=777, at=hour + timedelta(seconds=30), battery_pct=5))
    await store_reports(pool, directory, [late, *beats(0)], worker=None)
    points = await read_curve(pool, BOX, begin=hour, end=hour + timedelta(hours=1), every=timedelta(hours=1))
    assert [(one.beats, one.battery_min_pct) for one in points] == [(61, 5)]
    assert await _one(pool, rolled) == 120
    assert await roll_up_changes(pool, now=datetime.now(UTC)) >= 1
    assert await _one(pool, rolled) == 121
    async with pool.connection() as conn:
        await conn.execute("DELETE FROM heartbeat WHERE seq = 777")

    async with pool.connection() as conn:
        assert await telemetry.forget_before(conn, today - timedelta(days=3)) is None
    assert await _one(pool, "SELECT count(*) FROM heartbeat") == 60
    assert await _one(pool, "SELECT count(*) FROM fix") == 30
    assert await seen() == ([32.0, 32.01, 32.02], [(30, 88), (30, 85)])


async def test_a_sample_gets_smaller_by_compression(pool: Pool) -> None:
    async with pool.connection() as conn:
        await conn.execute("RESET ROLE")
        await conn.execute(
            """
            INSERT INTO heartbeat (at, terminal_uid, boot, seq, received_at, battery_pct, battery_mv, signal_dbm, mains)
            SELECT at, t.uid, 1, n, at, 90 - n / 100, 4000 - n, -70 - n %% 5, true
            FROM terminal t, generate_series(0, 1439) n,
                 LATERAL (SELECT %s::timestamptz + n * interval '1 minute') AS minute (at)
            """,
            (NOON - timedelta(days=9, hours=12),),
        )
        assert await telemetry.compress_before(conn, (NOON - timedelta(days=8)).date()) > 0
        sizes = (
            "SELECT before_compression_total_bytes, after_compression_total_bytes "
            "FROM hypertable_compression_stats('heartbeat')"
        )
        before, after = await (await conn.execute(sizes)).fetchone() or (0, 0)
        rows = await (await conn.execute("SELECT count(*) FROM heartbeat")).fetchone()
    assert rows is not None
    assert rows[0] >= 1440
    assert after < before / 4, f"{before} bytes became {after}"
