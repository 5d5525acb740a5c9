"""The series of a terminal: its track with pages and spells, its curves, and what cannot be asked for."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.cli import sparkline
from gateway.domain.case import NotFound
from gateway.service.paging import BadCursor
from gateway.service.read_series import BadSpan, read_curve, read_track
from gateway.service.telemetry import Told, store_reports
from gateway.store.directory import Directory
from gateway.store.pool import Pool
from schemas.reports import Fix, FixReport, HeartbeatReport

BOX, OTHER = "860000000000001", "860000000000002"
NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=1)
MINUTE = timedelta(minutes=1)


@pytest.fixture
async def walked(pool: Pool, directory: Directory, site: str) -> Pool:
    """A terminal that walked north for an hour, a step each minute, and whose battery fell a percent each two."""
    assert site
    told = [
        Told(BOX, NOON + n * MINUTE, FixReport(v=1, boot=1, seq=n, fix=Fix(lat=32.0 + n / 1000, lon=118.8)))
        for n in range(60)
    ]
    told += [
        Told(BOX, NOON + n * MINUTE, HeartbeatReport(v=1, boot=1, seq=n, battery_pct=90 - n // 2, signal_dbm=-70))
        for n in range(60)
    ]
    told.append(Told(OTHER, NOON, FixReport(v=1, fix=Fix(lat=31.0, lon=118.8))))
    await store_reports(pool, directory, told, worker=None)
    return pool


async def test_a_track_comes_in_pages_that_fit_together(walked: Pool) -> None:
    seen: list[float] = []
    cursor = None
    for _ in range(7):
        page = await read_track(walked, BOX, begin=NOON, end=NOON + 60 * MINUTE, cursor=cursor, limit=9)
        seen += [round((point.lat - 32.0) * 1000) for point in page.items]
        cursor = page.cursor
    assert cursor is None
    assert seen == list(range(60))


async def test_of_each_spell_the_first_position_is_taken(walked: Pool) -> None:
    seen: list[timedelta] = []
    cursor = None
    for _ in range(3):
        page = await read_track(
            walked, BOX, begin=NOON, end=NOON + 60 * MINUTE, every=10 * MINUTE, cursor=cursor, limit=2
        )
        seen += [point.at - NOON for point in page.items]
        cursor = page.cursor
    assert cursor is None
    assert seen == [n * 10 * MINUTE for n in range(6)]


async def test_a_track_begins_and_ends_where_it_was_asked_to(walked: Pool) -> None:
    page = await read_track(walked, BOX, begin=NOON + 10 * MINUTE, end=NOON + 12 * MINUTE)
    assert [point.at - NOON for point in page.items] == [10 * MINUTE, 11 * MINUTE]


async def test_a_curve_holds_what_came_and_a_redelivered_batch_once(walked: Pool, directory: Directory) -> None:
    again = [Told(BOX, NOON + n * MINUTE, HeartbeatReport(v=1, boot=1, seq=n, battery_pct=1)) for n in range(60)]
    await store_reports(walked, directory, again, worker=None)
    curve = await read_curve(walked, BOX, begin=NOON, end=NOON + 90 * MINUTE, every=30 * MINUTE)
    assert [(point.at - NOON, point.beats, point.battery_min_pct) for point in curve] == [
        (timedelta(0), 30, 76),
        (30 * MINUTE, 30, 61),
    ]
    assert curve[0].battery_pct == pytest.approx(83.0)
    assert (curve[0].signal_dbm, curve[0].mains) == (-70.0, None)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"terminal": "nobody"}, NotFound),
        ({"end": NOON}, BadSpan),
        ({"end": NOON + timedelta(days=400)}, BadSpan),
        ({"cursor": "x"}, BadCursor),
    ],
)
async def test_what_cannot_be_asked_is_said_clearly(
    walked: Pool, change: dict[str, Any], error: type[Exception]
) -> None:
    asked = {"terminal": BOX, "begin": NOON, "end": NOON + MINUTE} | change
    with pytest.raises(error):
        await read_track(walked, asked.pop("terminal"), **asked)


async def test_too_many_spells_are_refused(walked: Pool) -> None:
    with pytest.raises(BadSpan, match="5000 points"):
        await read_curve(walked, BOX, begin=NOON, end=NOON + timedelta(days=2), every=timedelta(seconds=1))


def test_a_sparkline_shows_low_high_and_gaps() -> None:
    assert sparkline([(0.2, 1.0), (1.9, 8.0), (3.0, 4.0)], 5) == "▁█ ▄ "
    assert sparkline([], 3) == "   "
    assert sparkline([(0, 5.0), (9, 5.0)], 3) == "▁ ▁"
