"""Heartbeats, fixes and events in the database: counted once, the newest state kept, open cases moved (R24, D7)."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import permutations
from random import Random
from typing import Any
from uuid import UUID

import pytest

from gateway.domain.outbox import PartyAnswer
from gateway.ingest.retention import forget_old
from gateway.service.case_commands import answer_leg, close_case
from gateway.service.raise_alarm import Press, raise_alarm
from gateway.service.telemetry import SANE_CLOCK, Told, store_reports, store_states
from gateway.store.directory import Directory
from gateway.store.pool import Pool
from gateway.store.telemetry import StateRow
from schemas.reports import EventReport, Fix, FixReport, HeartbeatReport, ResultReport

WANG, LI = "860000000000001", "860000000000002"

NOW = datetime.now(UTC).replace(microsecond=0)
MINUTE = timedelta(minutes=1)


class Store:
    """What terminals tell goes in, rows come out."""

    def __init__(self, pool: Pool, directory: Directory) -> None:
        self.pool = pool
        self.directory = directory

    async def tell(self, *told: Told, worker: int | None = None) -> list[str]:
        notices = await store_reports(self.pool, self.directory, told, worker=worker)
        return [notice.reason for notice in notices]

    async def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        async with self.pool.connection() as conn:
            return await (await conn.execute(query, values)).fetchall()

    async def state(self, columns: str, terminal: str = WANG) -> tuple[Any, ...]:
        rows = await self.rows(
            f"SELECT {columns} FROM terminal_state s JOIN terminal t ON t.uid = s.terminal_uid WHERE public_id = %s",
            terminal,
        )
        return rows[0]

    async def press(self) -> UUID:
        press = Press(
            terminal=WANG,
            transport="mqtt",
            kinds=("sos",),
            received_at=datetime.now(UTC),
            payload=b"{}",
            digest=b"",
            boot=9,
            seq=1,
        )
        return (await raise_alarm(self.pool, self.directory, press, worker=None)).case_id

    async def updates(self, case: UUID) -> int:
        """How many notices of a new location a case has."""
        rows = await self.rows("SELECT count(*) FROM notice WHERE case_id = %s AND reason = 'location'", case)
        return int(rows[0][0])

    async def location(self, case: UUID) -> dict[str, Any]:
        found: dict[str, Any] = (await self.rows("SELECT location FROM cases WHERE id = %s", case))[0][0]
        return found


@pytest.fixture
def store(pool: Pool, directory: Directory, site: str) -> Store:
    assert site == "nanjing-demo"
    return Store(pool, directory)


def heartbeat(*, at: datetime | None, received: datetime | None = None, terminal: str = WANG, **fields: Any) -> Told:
    return Told(terminal, received or NOW, HeartbeatReport(v=1, at=at, **fields))


def fix(
    lat: float,
    *,
    at: datetime | None = None,
    source: Any = "gnss",
    accuracy_m: float = 8,
    terminal: str = WANG,
    received: datetime | None = None,
) -> Told:
    place = Fix(lat=lat, lon=118.79, source=source, accuracy_m=accuracy_m, at=at)
    return Told(terminal, received or datetime.now(UTC), FixReport(v=1, fix=place))


# The series


async def test_what_was_delivered_before_does_not_count_again(store: Store) -> None:
    batch = [
        heartbeat(at=NOW, boot=3, seq=16, battery_pct=88, temperature_c=21.5),
        heartbeat(at=NOW, boot=3, seq=17, battery_pct=87),
        fix(32.06, at=NOW),
        Told(WANG, NOW, EventReport(v=1, boot=3, seq=19, at=NOW, name="door.open", value=True)),
        Told(WANG, NOW, ResultReport(v=1, boot=3, seq=20, at=NOW, command="c-42", state="done")),
    ]
    await store.tell(*batch, batch[0])
    await store.tell(*batch)
    assert await store.rows("SELECT seq, battery_pct, temperature_c FROM heartbeat ORDER BY seq") == [
        (16, 88, 21.5),
        (17, 87, None),
    ]
    assert await store.rows("SELECT lat, datum, source, accuracy_m FROM fix") == [(32.06, "wgs84", "gnss", 8)]
    assert await store.rows("SELECT name, value FROM terminal_event ORDER BY name") == [
        ("door.open", True),
        ("result.done", "c-42"),
    ]


@pytest.mark.parametrize(
    ("at", "kept"),
    [
        (None, NOW),
        (NOW - MINUTE, NOW - MINUTE),
        (NOW - SANE_CLOCK, NOW - SANE_CLOCK),
        (NOW - SANE_CLOCK - MINUTE, NOW),
        (NOW + SANE_CLOCK + MINUTE, NOW),
        (datetime(1970, 1, 1, tzinfo=UTC), NOW),
        (datetime(2036, 2, 7, tzinfo=UTC), NOW),
        (datetime(1, 1, 1, tzinfo=UTC), NOW),
        (datetime(9999, 12, 31, tzinfo=UTC), NOW),
    ],
    ids=["none", "near", "a week ago", "longer ago", "far ahead", "1970", "2036", "the first year", "the last year"],
)
async def test_a_series_is_kept_under_the_terminal_s_time_while_that_is_sane(
    store: Store, at: datetime | None, kept: datetime
) -> None:
    await store.tell(heartbeat(at=at))
    assert await store.rows("SELECT at, received_at FROM heartbeat") == [(kept, NOW)]
    skew = None if at is None else (at - NOW).total_seconds()
    assert await store.state("clock_skew_s") == (skew,)


async def test_unknown_terminals_are_left_out_and_harm_nobody(store: Store) -> None:
    strange = heartbeat(at=NOW, terminal="never-heard-of", battery_pct=1)
    assert await store.tell(strange) == []
    assert await store.tell(fix(32.06, terminal="never-heard-of"), strange, heartbeat(at=NOW, battery_pct=55)) == []
    assert await store.rows("SELECT battery_pct FROM heartbeat") == [(55,)]
    assert await store.rows("SELECT count(*) FROM fix") == [(0,)]


# The newest state


async def test_a_late_report_counts_in_the_series_and_overwrites_nothing(store: Store) -> None:
    await store.tell(heartbeat(at=NOW, boot=3, seq=20, battery_pct=40, signal_dbm=-90, mains=False, firmware="2.0"))
    late = heartbeat(
        at=NOW - 5 * MINUTE,
        received=NOW + MINUTE,
        boot=3,
        seq=19,
        battery_pct=80,
        signal_dbm=-50,
        mains=True,
        firmware="1.0",
    )
    await store.tell(late)
    assert await store.rows("SELECT count(*) FROM heartbeat") == [(2,)]
    columns = "status_at, boot, seq, battery_pct, signal_dbm, mains, firmware"
    assert await store.state(columns) == (NOW, 3, 20, 40, -90, False, "2.0")
    assert await store.state("seen_at") == (NOW + MINUTE,), "it was heard nevertheless"


async def test_a_report_says_only_what_it_knows(store: Store) -> None:
    await store.tell(heartbeat(at=NOW, boot=3, seq=20, battery_pct=40, mains=False, firmware="2.0"))
    await store.tell(heartbeat(at=NOW + MINUTE, received=NOW + MINUTE, battery_pct=39))
    assert await store.state("boot, seq, battery_pct, mains, firmware") == (3, 20, 39, False, "2.0")


async def test_the_order_of_arrival_and_of_a_batch_do_not_matter(store: Store) -> None:
    reports = [
        heartbeat(at=NOW - n * MINUTE, boot=3, seq=20 - n, battery_pct=40 + n, signal_dbm=-90 + n) for n in range(3)
    ]
    for order in permutations(reports):
        for batches in ([order], [[one] for one in order]):
            await store.rows("DELETE FROM terminal_state RETURNING 1")
            for batch in batches:
                await store.tell(*batch)
            assert await store.state("status_at, seq, battery_pct, signal_dbm") == (NOW, 20, 40, -90)


async def test_a_late_fix_overwrites_no_newer_one(store: Store) -> None:
    await store.tell(fix(32.01, at=NOW - MINUTE))
    await store.tell(fix(32.02, at=NOW - 5 * MINUTE), fix(32.03, at=NOW - 3 * MINUTE))
    assert (await store.state("fix"))[0]["lat"] == 32.01
    assert await store.rows("SELECT count(*) FROM fix") == [(3,)]
    await store.tell(fix(32.04, at=NOW), fix(32.05, at=NOW - 2 * MINUTE))
    assert (await store.state("fix"))[0]["lat"] == 32.04


async def test_a_heartbeat_says_nothing_about_the_place_and_a_fix_nothing_about_the_battery(store: Store) -> None:
    await store.tell(heartbeat(at=NOW, battery_pct=40), fix(32.01, at=NOW))
    await store.tell(heartbeat(at=NOW + MINUTE, received=NOW + MINUTE, battery_pct=39))
    await store.tell(fix(32.02, at=NOW + 2 * MINUTE, received=NOW + 2 * MINUTE))
    assert await store.state("battery_pct, (fix->>'lat')::float8") == (39, 32.02)


@pytest.mark.parametrize("ahead", [timedelta(hours=8), timedelta(days=6)], ids=str)
async def test_a_clock_that_was_ahead_holds_back_no_later_state(store: Store, ahead: timedelta) -> None:
    """A terminal that boots with a wrong clock and then sets it: what it says next is newer all the same."""
    await store.tell(heartbeat(at=NOW + ahead, received=NOW, battery_pct=90), fix(32.01, at=NOW + ahead, received=NOW))
    later = NOW + 10 * MINUTE
    await store.tell(heartbeat(at=later, received=later, battery_pct=5), fix(32.09, at=later, received=later))
    assert await store.state("battery_pct, (fix->>'lat')::float8") == (5, 32.09)


async def test_what_an_alarm_says_of_its_terminal_is_a_state_like_any_other(store: Store) -> None:
    ((terminal,),) = await store.rows("SELECT uid FROM terminal WHERE public_id = %s", WANG)
    await store.tell(heartbeat(at=NOW, battery_pct=40))
    await store_states(
        store.pool, [StateRow(terminal=terminal, seen_at=NOW - MINUTE, status_at=NOW - MINUTE, battery_pct=90)]
    )
    assert await store.state("battery_pct, seen_at") == (40, NOW)
    after = StateRow(terminal=terminal, seen_at=NOW + MINUTE, status_at=NOW + MINUTE, battery_pct=39)
    before = StateRow(terminal=terminal, seen_at=NOW, status_at=NOW, battery_pct=41, signal_dbm=-70)
    await store_states(store.pool, [after, before])  # several alarms of one terminal may be noted together
    assert await store.state("battery_pct, signal_dbm, seen_at") == (39, -70, NOW + MINUTE)


# Open cases


async def test_a_better_fix_moves_the_open_case_and_queues_one_update_for_each_leg(store: Store) -> None:
    case = await store.press()
    assert (await store.location(case))["source"] == "registered"
    there = fix(32.07, at=datetime.now(UTC))
    assert await store.tell(there) == [], "no worker, nothing handed over"
    assert (await store.location(case))["lat"] == 32.07
    assert await store.updates(case) == 6
    await store.tell(there)
    await store.tell(fix(32.07, at=datetime.now(UTC)))
    assert await store.updates(case) == 6, "the same place again is no news"
    kinds = [row[0] for row in await store.rows("SELECT kind FROM journal WHERE case_id = %s", case)]
    assert kinds.count("case.location") == 1
    ((told,),) = await store.rows("SELECT data FROM event WHERE case_id = %s AND kind = 'case.updated'", case)
    assert told["location"]["lat"] == 32.07


async def test_of_several_fixes_in_a_batch_the_newest_is_told_once(store: Store) -> None:
    case = await store.press()
    now = datetime.now(UTC)
    await store.tell(fix(32.07, at=now - MINUTE), fix(32.08, at=now), fix(32.09, at=now - 2 * MINUTE))
    assert (await store.location(case))["lat"] == 32.08
    assert await store.updates(case) == 6


@pytest.mark.parametrize(
    "worse",
    [
        fix(32.09, source="cell", accuracy_m=900),
        fix(32.09, source="wifi", accuracy_m=60),
        fix(32.0701, accuracy_m=8),
        fix(32.09, at=NOW - timedelta(hours=1)),
    ],
    ids=["cell", "wifi", "close by", "old"],
)
async def test_a_worse_fix_moves_nothing(store: Store, worse: Told) -> None:
    case = await store.press()
    await store.tell(fix(32.07, at=datetime.now(UTC)))
    await store.tell(worse)
    assert (await store.location(case))["lat"] == 32.07
    assert await store.updates(case) == 6


async def test_the_update_is_handed_to_the_worker_that_stored_it(store: Store) -> None:
    case = await store.press()
    assert await store.tell(fix(32.07, at=datetime.now(UTC)), worker=4711) == ["location"] * 6
    assert await store.rows("SELECT DISTINCT worker FROM notice WHERE case_id = %s AND reason = 'location'", case) == [
        (4711,)
    ]


async def test_whoever_refused_hears_no_more_and_whoever_comes_stays_answered(store: Store) -> None:
    case = await store.press()
    legs = dict(await store.rows("SELECT role, id FROM leg WHERE case_id = %s", case))
    await answer_leg(store.pool, store.directory, legs["community"], PartyAnswer("cannot", reason="closed"), via="api")
    await answer_leg(store.pool, store.directory, legs["guardian"], PartyAnswer("coming", minutes=5), via="api")
    await store.tell(fix(32.07, at=datetime.now(UTC)))
    told = await store.rows(
        "SELECT l.role FROM notice n JOIN leg l ON l.id = n.leg_id WHERE n.case_id = %s AND n.reason = 'location'", case
    )
    assert {role for (role,) in told} == set(legs) - {"community"}
    assert await store.rows("SELECT state FROM leg WHERE id = %s", legs["guardian"]) == [("answered",)]


async def test_a_closed_case_stays_where_it_is(store: Store) -> None:
    case = await store.press()
    before = await store.location(case)
    await close_case(store.pool, store.directory, case, outcome="helped", confirmed_by="seat 7", note=None, worker=None)
    await store.tell(fix(32.07, at=datetime.now(UTC)))
    assert await store.location(case) == before
    assert await store.updates(case) == 0


async def test_another_terminal_moves_no_case_of_this_one(store: Store) -> None:
    case = await store.press()
    await store.tell(fix(32.07, at=datetime.now(UTC), terminal=LI))
    assert (await store.location(case))["source"] == "registered"


async def test_a_fix_from_the_future_holds_back_no_later_one(store: Store) -> None:
    case = await store.press()
    await store.tell(fix(32.07, at=datetime(2036, 2, 7, tzinfo=UTC)))
    await store.tell(fix(32.09, at=datetime.now(UTC)))
    assert (await store.location(case))["lat"] == 32.09
    assert await store.updates(case) == 12


async def test_a_big_batch_of_everything_is_one_transaction(store: Store) -> None:
    batch: Sequence[Told] = [
        heartbeat(at=NOW - n * MINUTE, boot=1, seq=n, battery_pct=n % 100, terminal=(WANG, LI)[n % 2])
        for n in range(500)
    ]
    await store.tell(*batch)
    assert await store.rows("SELECT count(*) FROM heartbeat") == [(500,)]
    assert await store.rows("SELECT count(DISTINCT xmin::text) FROM heartbeat") == [(1,)]
    assert await store.state("battery_pct", LI) == (1,)


# Days


def series(rows: list[tuple[Any, ...]]) -> list[str]:
    return sorted(str(row[0]) for row in rows)


_DAYS = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'heartbeat'::regclass"


async def test_a_day_is_a_table_that_is_made_with_its_first_row_and_dropped_whole(store: Store) -> None:
    before = series(await store.rows(_DAYS))
    old = NOW - timedelta(days=20)
    await store.tell(heartbeat(at=None, received=old, seq=1, boot=1), heartbeat(at=NOW))
    names = [f"heartbeat_{at:%Y%m%d}" for at in (old, NOW)]
    assert series(await store.rows(_DAYS)) == sorted({*before, *names})
    assert await forget_old(store.pool, 10, rng=Random(1)) == 3
    assert names[0] not in series(await store.rows(_DAYS))
    assert await store.rows("SELECT count(*) FROM heartbeat") == [(1,)]
    await store.tell(heartbeat(at=None, received=old, seq=2, boot=1))  # of a day that was dropped already
    assert await store.rows("SELECT count(*) FROM heartbeat") == [(2,)]


async def test_whoever_writes_is_not_held_up_by_a_drop_and_the_drop_happens(store: Store) -> None:
    await store.tell(heartbeat(at=None, received=NOW - timedelta(days=20)))
    async with store.pool.connection() as writer:
        async with writer.transaction():
            await writer.execute("SELECT count(*) FROM heartbeat")
            dropping = asyncio.ensure_future(forget_old(store.pool, 10, rng=Random(1)))
            await asyncio.sleep(0.05)  # it waits for the transaction above
            async with asyncio.timeout(5):
                await store.tell(heartbeat(at=NOW))
            assert not dropping.done()
    assert await asyncio.wait_for(dropping, 10) == 3


async def test_a_numbered_report_without_a_clock_is_known_again(store: Store) -> None:
    first = heartbeat(at=None, received=NOW - 5 * MINUTE, boot=1, seq=7, battery_pct=80)
    again = heartbeat(at=None, received=NOW, boot=1, seq=7, battery_pct=80)
    await store.tell(first)
    await store.tell(again, heartbeat(at=None, received=NOW, boot=2, seq=7))
    assert await store.rows("SELECT count(*) FROM heartbeat") == [(2,)]
    assert await store.state("boot, seen_at") == (2, NOW)
