"""Rollups: hours of heartbeats and ways of days count every report once, whenever and however often it comes."""

from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest

from gateway.ingest.rollups import roll_up_changes
from gateway.service.read_series import read_curve
from gateway.service.telemetry import Told, store_reports
from gateway.store import rollups
from gateway.store.directory import Directory
from gateway.store.pool import Pool
from schemas.reports import Fix, FixReport, HeartbeatReport

WANG = "860000000000001"


async def _hours(pool: Pool) -> list[tuple[Any, ...]]:
    async with pool.connection() as conn:
        cursor = await conn.execute(
            "SELECT hour, beats, battery_sum, battery_n, mains FROM heartbeat_hourly ORDER BY 1"
        )
        return await cursor.fetchall()


async def test_what_comes_twice_or_late_counts_once_in_a_rollup(pool: Pool, directory: Directory, site: str) -> None:
    assert site
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=5)
    times = [hour + timedelta(minutes=n) for n in range(4)]
    beats = [
        Told(WANG, at, HeartbeatReport(v=1, boot=1, seq=n, at=at, battery_pct=50 + n, mains=True))
        for n, at in enumerate(times)
    ]
    await store_reports(pool, directory, beats[:3], worker=None)
    assert await roll_up_changes(pool, now=datetime.now(UTC)) == 1
    assert await roll_up_changes(pool, now=datetime.now(UTC)) == 0
    await store_reports(pool, directory, beats, worker=None)  # the last one is late, and the others come again
    assert await roll_up_changes(pool, now=datetime.now(UTC)) == 1
    assert await _hours(pool) == [(hour, 4, 50 + 51 + 52 + 53, 4, True)]


async def test_a_curve_of_hours_is_the_same_rolled_up_and_not(pool: Pool, directory: Directory, site: str) -> None:
    assert site
    begin = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=30)
    rng = Random(7)
    beats = []
    for n in range(200):
        when = begin + timedelta(seconds=rng.uniform(0, 30 * 3600 - 1))
        said = HeartbeatReport(
            v=1, boot=1, seq=n, at=when, battery_pct=rng.choice((None, 40, 77)), signal_dbm=-60 - n % 40
        )
        beats.append(Told(WANG, when, said))
    await store_reports(pool, directory, beats, worker=None)
    span = {"begin": begin, "end": begin + timedelta(hours=30)}
    for every in (timedelta(hours=1), timedelta(hours=6), timedelta(days=1)):
        before = await read_curve(pool, WANG, **span, every=every)
        await roll_up_changes(pool, now=datetime.now(UTC))
        after = await read_curve(pool, WANG, **span, every=every)
        raw = await read_curve(pool, WANG, begin=span["begin"], end=span["end"] + timedelta(seconds=1), every=every)
        assert before == after
        assert [one.beats for one in raw] == [one.beats for one in after]
        assert [one.battery_pct for one in raw] == pytest.approx([one.battery_pct for one in after])
        await store_reports(pool, directory, beats[:5], worker=None)  # touches some hours again


async def test_a_batch_that_comes_while_an_hour_is_rolled_up_is_not_overlooked(
    pool: Pool, directory: Directory, site: str
) -> None:
    assert site
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=5)
    first, second = (
        Told(WANG, hour, HeartbeatReport(v=1, boot=1, seq=n, at=hour + timedelta(minutes=n))) for n in range(2)
    )
    await store_reports(pool, directory, [first], worker=None)
    async with pool.connection() as conn:
        (one,) = await rollups.wanted(conn, ended_before=datetime.now(UTC), limit=10)
        await store_reports(pool, directory, [second], worker=None)
        await rollups.roll_up(conn, one, timescale=False)
        assert [left.bucket for left in await rollups.wanted(conn, ended_before=datetime.now(UTC), limit=10)] == [hour]


async def test_the_way_of_a_day_is_what_was_walked(pool: Pool, directory: Directory, site: str) -> None:
    assert site
    day = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=2)

    def at(minute: int, lat: float, accuracy_m: float = 5) -> Told:
        when = day + timedelta(minutes=minute)
        place = Fix(lat=lat, lon=118.79, source="gnss", accuracy_m=accuracy_m, at=when)
        return Told(WANG, when, FixReport(v=1, boot=1, seq=minute, at=when, fix=place))

    walk = [at(0, 32.0), at(1, 32.00002), at(10, 32.009), at(11, 33.5), at(20, 32.009)]
    # 2 m are no step, 111 km a minute is no walk; a thousandth of a degree of latitude is 111 m.
    await store_reports(pool, directory, walk + walk, worker=None)
    await roll_up_changes(pool, now=datetime.now(UTC))
    async with pool.connection() as conn:
        rows = await (await conn.execute("SELECT day, points, distance_m FROM movement_daily")).fetchall()
    assert [(one, points) for one, points, _ in rows] == [(day.date(), 5)]
    assert rows[0][2] == pytest.approx(998, abs=5)
