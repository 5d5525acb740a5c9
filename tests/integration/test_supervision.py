"""Supervision on the real tables: silences, returns, troubles, one case for each, incidents (R24)."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from gateway.keyring import Keyring
from gateway.links.steady import SteadyClock
from gateway.service import troubles
from gateway.service.apply_site import apply_site
from gateway.service.case_commands import Outcome, close_case
from gateway.service.raise_alarm import Press, raise_alarm
from gateway.service.supervise import note_state
from gateway.store import supervision
from gateway.store.directory import Directory
from gateway.store.pool import Connection, Pool
from gateway.store.troubles import TroubleRow
from gateway.supervise.supervisor import Supervisor
from tests.integration.plants import District, district_site

START = datetime(2026, 11, 24, 2, 0, tzinfo=UTC)  # ten in the morning in Nanjing
BUILDINGS = (4, 3, 2, 2, 2, 2, 2, 2, 2, 2)


@pytest.fixture
async def district(database: str, keyring: Keyring, directory: Directory) -> AsyncIterator[District]:
    async with District(database, directory, START) as opened:
        await apply_site(opened.pool, keyring, district_site(BUILDINGS), prune=False)
        yield opened


def press(district: District, terminal: str, *kinds: str, seq: int = 1) -> Press:
    digest = hashlib.sha256(f"{terminal} {kinds} {seq}".encode()).digest()
    return Press(
        terminal=terminal,
        transport="mqtt",
        kinds=kinds,
        received_at=district.now,
        payload=b"{}",
        digest=digest,
        boot=1,
        seq=seq,
    )


async def test_a_silence_is_found_and_its_end_clears_it(district: District) -> None:
    await district.tell(district.beat("t0-0"))
    await district.sweep()
    assert await district.state("t0-0") == "online"
    district.pass_by(299)
    await district.sweep()
    assert (await district.state("t0-0"), await district.open_cases()) == ("late", [])
    district.pass_by(1)
    await district.sweep()
    assert await district.state("t0-0") == "offline"
    assert await district.open_cases() == [("t0-0", ["offline"])]
    await district.sweep()
    assert await district.open_cases() == [("t0-0", ["offline"])]

    district.pass_by(1000)
    await district.tell(district.beat("t0-0"))
    await district.sweep()
    assert (await district.state("t0-0"), await district.open_cases()) == ("back", [])
    for _ in range(4):
        district.pass_by(100)
        await district.tell(district.beat("t0-0"))
        await district.sweep()
    assert await district.state("t0-0") == "online"


async def test_family_and_centre_hear_of_a_loss_and_nobody_wakes_120(district: District) -> None:
    await district.tell(district.beat("t0-0"))
    await district.sweep()
    district.pass_by(301)
    await district.sweep()
    assert await district.roles(await district.case_of("t0-0", "offline")) == {"service_center", "guardian"}


async def test_only_who_was_heard_too_long_ago_is_lost(district: District) -> None:
    await district.tell(district.beat("t0-0"), district.beat("t0-1"))
    await district.sweep()
    for _ in range(4):
        district.pass_by(100)
        await district.tell(district.beat("t0-1"))
        await district.sweep()
    assert await district.troubles() == {("t0-0", "offline")}


async def test_a_report_that_waits_for_a_sweep_is_seen_or_wakes(district: District) -> None:
    """The race that leaves a terminal lost for ever: its report comes while the sweep writes that it is lost."""
    await district.tell(district.beat("t0-0"))
    await district.sweep()
    district.pass_by(301)
    async with district.pool.connection() as conn, conn.transaction():
        found = await supervision.awake(conn, now=district.now, limit=10)
        assert [row.terminal for row in found if row.heard_at is not None] == ["t0-0"]
        async with district.pool.connection() as other:
            await other.execute("SET lock_timeout = '200ms'")
            # The lane waits for the sweep at the state: it cannot pass by unseen.
            with pytest.raises(Exception, match="lock timeout"):
                await other.execute("UPDATE terminal_state SET seen_at = seen_at")
            await other.execute("SET lock_timeout = 0")
    await district.sweep()
    await district.tell(district.beat("t0-0"))
    await district.sweep()
    assert await district.troubles() == set()


async def test_a_battery_is_low_then_critical_then_charged(district: District) -> None:
    low, critical = "low_battery", "battery_critical"
    course = ((60, None), (20, low), (23, low), (9, critical), (14, critical), (16, low), (24, low), (26, None))
    for percent, expected in course:
        district.pass_by(60)
        await district.tell(district.beat("t0-0", battery_pct=percent))
        await district.sweep()
        found = {cause for _, cause in await district.troubles("t0-0")}
        assert found == ({expected} if expected else set()), percent
        assert await district.open_cases() == ([("t0-0", [expected])] if expected else [])


async def test_a_low_battery_waits_for_the_morning_and_a_loss_does_not(district: District) -> None:
    district.now = datetime(2026, 11, 24, 15, 0, tzinfo=UTC)  # eleven at night
    await district.tell(district.beat("t0-0", battery_pct=15), district.beat("t0-1"))
    await district.sweep()
    due = await district.rows(
        "SELECT min(due_at) FROM notice n JOIN cases c ON c.id = n.case_id WHERE kinds = '{low_battery}'"
    )
    assert due == [(datetime(2026, 11, 24, 23, 0, tzinfo=UTC),)]
    for _ in range(3):
        district.pass_by(100)
        await district.tell(district.beat("t0-0", battery_pct=15))
        await district.sweep()
    lost = await district.rows(
        "SELECT max(due_at) <= %s FROM notice n JOIN cases c ON c.id = n.case_id WHERE kinds = '{offline}'",
        district.now,
    )
    assert lost == [(True,)]


async def test_only_who_was_on_the_mains_can_lose_it(district: District) -> None:
    await district.tell(district.beat("t0-0", mains=False), district.beat("t0-1", mains=True))
    await district.sweep()
    district.pass_by(60)
    await district.tell(district.beat("t0-0", mains=False), district.beat("t0-1", mains=False))
    await district.sweep()
    assert await district.troubles() == {("t0-1", "power_lost")}
    district.pass_by(60)
    await district.tell(district.beat("t0-1", mains=True))
    await district.sweep()
    assert await district.troubles() == set()
    assert await district.open_cases() == []
    assert await district.rows("SELECT count(*) FROM notice WHERE state = 'sent'") == [(0,)]


async def test_what_a_terminal_says_itself_and_what_we_see_is_one_case(district: District) -> None:
    await raise_alarm(district.pool, district.directory, press(district, "t0-0", "low_battery", "tamper"), worker=None)
    assert await district.open_cases() == [("t0-0", ["low_battery"]), ("t0-0", ["tamper"])]
    await district.tell(district.beat("t0-0"))
    await district.sweep()
    assert await district.troubles() == {("t0-0", "low_battery"), ("t0-0", "tamper")}
    district.pass_by(60)
    await district.tell(district.beat("t0-0", battery_pct=12))
    await district.sweep()
    assert len(await district.open_cases()) == 2
    district.pass_by(60)
    await district.tell(district.beat("t0-0", battery_pct=90))
    await district.sweep()
    assert await district.open_cases() == [("t0-0", ["tamper"])]


async def test_a_copy_that_says_of_two_troubles_is_two_cases_once(district: District) -> None:
    copy = replace(press(district, "t0-0", "tamper", "power_lost"), copy=True)
    for _ in range(2):
        await raise_alarm(district.pool, district.directory, copy, worker=None)
    assert await district.open_cases() == [("t0-0", ["power_lost"]), ("t0-0", ["tamper"])]
    assert await district.rows("SELECT count(*) FROM alarm") == [(2,)]


async def test_what_people_closed_and_goes_on_is_told_again_a_day_later(district: District) -> None:
    await district.tell(district.beat("t0-0"))
    await district.sweep()
    district.pass_by(301)
    await district.sweep()
    case = await district.case_of("t0-0", "offline")
    await close_case(
        district.pool, district.directory, case, outcome=Outcome.TECHNICAL_FIXED, confirmed_by="wang", note=None
    )
    district.pass_by(3600)
    await district.sweep()
    assert await district.open_cases() == []
    district.pass_by(86_400)
    await district.sweep()
    assert ("t0-0", ["offline"]) in await district.open_cases()


async def test_a_building_that_is_lost_is_one_incident(district: District) -> None:
    lost = [f"t1-{home}" for home in range(3)]
    others = [f"t{building}-0" for building in (0, 2, 3, 4)]
    await district.tell(*(district.beat(name) for name in lost + others))
    await district.sweep()
    for _ in range(4):
        district.pass_by(100)
        await district.tell(*(district.beat(name) for name in others))
        await district.sweep()
    assert await district.troubles() == {(name, "offline") for name in lost}
    assert await district.open_cases() == [(None, ["area_lost"])]
    assert await district.rows("SELECT members, of_all FROM incident WHERE cleared_at IS NULL") == [(3, 3)]
    district.pass_by(100)
    await district.tell(*(district.beat(name) for name in lost + others))
    await district.sweep()
    assert (await district.troubles(), await district.open_cases()) == (set(), [])


async def test_an_emergency_in_an_incident_is_a_case_of_its_own_with_more_urgency(district: District) -> None:
    names = [f"t1-{home}" for home in range(3)]
    await district.tell(*(district.beat(name) for name in names))
    await district.sweep()
    district.pass_by(301)
    await district.sweep()
    assert await district.open_cases() == [(None, ["area_lost"])]
    inside = await raise_alarm(district.pool, district.directory, press(district, "t1-0", "sos"), worker=None)
    outside = await raise_alarm(district.pool, district.directory, press(district, "t0-0", "sos"), worker=None)
    urgency = dict(await district.rows("SELECT id, urgency FROM cases WHERE class = 'emergency'"))
    assert (urgency[inside.case_id], urgency[outside.case_id]) == (2, 1)


async def test_who_stays_lost_after_an_incident_has_a_case_of_its_own(district: District) -> None:
    names = [f"t0-{home}" for home in range(4)]
    await district.tell(*(district.beat(name) for name in names))
    await district.sweep()
    district.pass_by(301)
    await district.sweep()
    assert await district.open_cases() == [(None, ["area_lost"])]
    district.pass_by(700)
    await district.tell(*(district.beat(name) for name in names[1:]))
    await district.sweep()
    assert await district.open_cases() == [("t0-0", ["offline"])]


async def test_a_terminal_that_stands_nowhere_is_not_missed(district: District, keyring: Keyring) -> None:
    await district.tell(district.beat("t0-0"))
    await district.sweep()
    district.pass_by(301)
    await district.sweep()
    assert await district.troubles() == {("t0-0", "offline")}
    smaller = district_site(BUILDINGS)
    first, *rest = smaller.households
    empty = first.model_copy(update={"terminals": ()})
    await apply_site(district.pool, keyring, smaller.model_copy(update={"households": (empty, *rest)}), prune=False)
    await district.sweep()
    assert (await district.troubles(), await district.open_cases()) == (set(), [])


async def test_a_terminal_that_was_never_heard_is_missed_after_a_day(district: District) -> None:
    district.pass_by(86_000)
    await district.sweep()
    assert await district.troubles() == set()
    district.pass_by(1000)
    await district.sweep()
    assert len(await district.troubles()) == sum(BUILDINGS)
    # All of them at once: that is one incident, not as many cases.
    assert await district.open_cases() == [(None, ["area_lost"])]


async def test_what_a_terminal_says_of_itself_counts(district: District) -> None:
    await district.tell(district.beat("t0-0"))
    for name, value in (("out_of_range", True), ("sim_balance", 3.5)):
        await note_state(district.pool, "t0-0", name, value, at=district.now)
    await district.sweep()
    assert {cause for _, cause in await district.troubles()} == {"out_of_range", "sim_unpaid"}
    await note_state(district.pool, "t0-0", "out_of_range", True, at=district.now)
    await note_state(district.pool, "t0-0", "out_of_range", False, at=district.now + timedelta(seconds=1))
    await note_state(district.pool, "t0-0", "out_of_range", True, at=district.now)  # older: it came late
    await note_state(district.pool, "t0-0", "sim_balance", 50, at=district.now)
    await district.sweep()
    assert await district.troubles() == set()


async def test_what_a_terminal_had_kept_back_itself_makes_it_no_older(district: District) -> None:
    """Its last word while nobody listened may be one that it had kept for long: it was alive when it sent that."""
    await district.tell(district.beat("t0-0", at=district.now), district.beat("t1-0", at=district.now))
    await district.sweep()
    began = district.now
    district.pass_by(290)
    for name, at in (("t0-0", began - timedelta(seconds=200)), ("t1-0", began + timedelta(seconds=100))):
        await district.tell(district.beat(name, at=at)._replace(late=True))
    await district.sweep()
    heard = dict(
        await district.rows(
            "SELECT public_id, heard_at FROM terminal_state s JOIN terminal t ON t.uid = s.terminal_uid"
        )
    )
    assert heard == {"t0-0": district.now, "t1-0": began + timedelta(seconds=100)}


async def test_while_nobody_listened_nobody_is_lost(district: District) -> None:
    names = ("t0-0", "t1-0", "t2-0", "t3-0")
    await district.tell(*(district.beat(name, kept=name != "t1-0") for name in names))
    await district.sweep()
    deaf_from = district.now
    district.pass_by(1000)
    # The broker had kept for us what the others said; what the second one says is never kept.
    await district.tell(*(district.beat(name) for name in names[2:]))
    async with district.pool.connection() as conn, conn.transaction():
        await supervision.keep_hearing(conn, horizon=district.now, boot="test", uptime_s=0, steady=district.now)
        heard, overdue = await supervision.silent_share(conn, since=deaf_from, now=district.now)
        assert (heard, overdue) == (2, 2)
        await supervision.hear_again(conn, deaf_from, district.now, total=False)
    await district.sweep()
    assert await district.troubles() == {("t0-0", "offline")}
    district.pass_by(219)
    await district.tell(*(district.beat(name) for name in names[2:]))
    await district.sweep()
    assert ("t1-0", "offline") not in await district.troubles()
    district.pass_by(2)
    await district.sweep()
    assert ("t1-0", "offline") in await district.troubles()


async def test_a_second_deafness_does_not_take_away_the_time_of_the_first(district: District) -> None:
    """A broker lost everything, and while terminals have the time to report again a gateway restarts."""
    await district.tell(district.beat("t0-0"))
    await district.sweep()
    began = district.now
    district.pass_by(1000)
    first_end = district.now
    async with district.pool.connection() as conn:
        await supervision.keep_hearing(conn, horizon=first_end, boot="test", uptime_s=0, steady=first_end)
        await supervision.hear_again(conn, began, first_end, total=True)
        district.pass_by(20)
        await supervision.hear_again(conn, district.now - timedelta(seconds=10), district.now, total=False)
    await district.sweep()
    assert await district.troubles() == set(), "it has not had the time to report since"
    district.pass_by(5000)
    async with district.pool.connection() as conn:
        await supervision.hear_again(conn, district.now - timedelta(seconds=10), district.now, total=False)
    await district.sweep()
    assert await district.troubles() == {("t0-0", "offline")}, "that was long ago"


class _Ears:
    """Hears everything up to now."""

    def __init__(self, district: District) -> None:
        self._district = district
        self.deaf: set[int] = set()
        self.shares = (0,)

    async def listen(self) -> dict[int, datetime | None]:
        return {share: None if share in self.deaf else self._district.now for share in self.shares}


class _Flaky:
    """A pool of which every connection but the first few is dead for a while."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.alive = 1000

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        self.alive -= 1
        if self.alive < 0:
            raise psycopg.OperationalError("the server has gone")
        async with self._pool.connection() as conn:
            yield conn


async def test_a_deafness_is_not_forgotten_when_it_cannot_be_written_down_at_once(district: District) -> None:
    pool, ears = _Flaky(district.pool), _Ears(district)
    clock = SteadyClock(wall=lambda: district.now, mono=lambda: (district.now - START).total_seconds())
    supervisor = Supervisor(pool, district.directory, ears, clock, shares=lambda: 1)  # type: ignore[arg-type]
    await supervisor.resume()
    await supervisor._round()
    district.pass_by(60)
    pool.alive = 1  # enough to say the time
    with pytest.raises(psycopg.OperationalError):
        await supervisor._round()
    pool.alive = 1000
    district.pass_by(1)
    await supervisor._round()
    ((begin, end),) = await district.rows("SELECT deaf_from, deaf_until FROM hearing")
    assert (begin, end) == (START, START + timedelta(seconds=61))


async def test_a_share_that_nobody_hears_holds_the_horizon_even_one_that_is_given_up(district: District) -> None:
    ears, count = _Ears(district), 2
    clock = SteadyClock(wall=lambda: district.now, mono=lambda: (district.now - START).total_seconds())
    supervisor = Supervisor(district.pool, district.directory, ears, clock, shares=lambda: count)  # type: ignore[arg-type]
    await supervisor.resume()
    horizon = "SELECT horizon FROM hearing"

    async def said(horizon_of_other: datetime) -> None:
        async with district.pool.connection() as conn:
            await supervision.keep_shares(conn, {1: horizon_of_other})

    async with district.pool.connection() as conn:
        await supervision.open_share(conn, 1)
    await supervisor._round()
    assert await district.rows(horizon) == [], "the other has not said anything"
    await said(START - timedelta(seconds=2))
    await supervisor._round()
    assert await district.rows(horizon) == [(START - timedelta(seconds=2),)]
    district.pass_by(3)
    await said(START - timedelta(seconds=5))
    await supervisor._round()
    assert await district.rows(horizon) == [(START - timedelta(seconds=2),)]
    count = 1  # there are no more two shares, but something is left in the second
    await supervisor._round()
    assert await district.rows(horizon) == [(START - timedelta(seconds=2),)]
    async with district.pool.connection() as conn:
        await supervision.close_share(conn, 1)
    await supervisor._round()
    assert await district.rows(horizon) == [(START + timedelta(seconds=3),)]


async def test_a_radio_cell_that_is_lost_is_one_incident(district: District) -> None:
    lost = [f"t{building}-0" for building in (2, 3, 4, 5)]  # of four streets
    others = [f"t{building}-1" for building in (2, 3, 4, 5)]
    await district.tell(
        *(district.beat(name, cell="460-00-1-7") for name in lost), *(district.beat(name, cell="x") for name in others)
    )
    await district.sweep()
    for _ in range(4):
        district.pass_by(100)
        await district.tell(*(district.beat(name) for name in others))
        await district.sweep()
    assert await district.open_cases() == [(None, ["area_lost"])]
    found = await district.rows("SELECT a.kind, i.members FROM incident i JOIN area a ON a.id = i.area_id")
    assert found == [("cell", 4)]


async def test_what_is_lost_in_a_site_as_a_whole_takes_over_what_its_buildings_were(district: District) -> None:
    everybody = [f"t{building}-{home}" for building, homes in enumerate(BUILDINGS) for home in range(homes)]
    early = [name for name in everybody if name.startswith("t1-")]
    await district.tell(*(district.beat(name) for name in early))
    await district.sweep()
    district.pass_by(60)
    await district.tell(*(district.beat(name) for name in everybody if name not in early))
    district.pass_by(245)
    await district.sweep()
    assert await district.rows("SELECT members FROM incident WHERE cleared_at IS NULL") == [(3,)]
    district.pass_by(60)
    await district.sweep()
    assert await district.open_cases() == [(None, ["area_lost"])]
    rows = await district.rows("SELECT area_id IS NULL, members FROM incident WHERE cleared_at IS NULL")
    assert rows == [(True, sum(BUILDINGS))]


async def test_a_trouble_that_we_fail_on_keeps_no_other_from_being_told(
    district: District, monkeypatch: pytest.MonkeyPatch
) -> None:
    def press_but_one(one: TroubleRow, **more: Any) -> Press:
        if one.terminal == "t0-0":
            raise ValueError("nobody thought of this")
        return made(one, **more)

    made = troubles._press
    monkeypatch.setattr(troubles, "_press", press_but_one)
    await district.tell(district.beat("t0-0", battery_pct=15), district.beat("t0-1", battery_pct=15))
    await district.sweep()
    assert await district.open_cases() == [("t0-1", ["low_battery"])]
    monkeypatch.setattr(troubles, "_press", made)
    await district.sweep()
    assert len(await district.open_cases()) == 2
