"""Who goes astray or gives no sign of life becomes an emergency; places come more often while one is open (R1)."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.keyring import Keyring
from gateway.service.apply_site import apply_site
from gateway.service.case_commands import Outcome, close_case
from gateway.service.command_terminals import give_command, record_result
from gateway.service.read_supervision import list_incidents, list_members, list_troubles, read_uptime
from gateway.service.supervise import note_state
from gateway.service.workdays import Workdays
from gateway.store.directory import Directory
from tests.integration.plants import District, district_site

NIGHT = datetime(2026, 11, 24, 15, 0, tzinfo=UTC)  # eleven at night in Nanjing
CARE = {
    "fences": [{"name": "home", "radius_m": 200, "between": "22:00-06:00"}],
    "inactivity": "12 h",
    "well_by": "10:00",
}


@pytest.fixture
async def district(database: str, keyring: Keyring, directory: Directory) -> AsyncIterator[District]:
    async with District(database, directory, NIGHT) as opened:
        await apply_site(opened.pool, keyring, district_site((3,), care=CARE, track="10 s"), prune=False)
        yield opened


async def emergencies(district: District) -> list[tuple[Any, ...]]:
    return await district.rows(
        "SELECT household_id, kinds, state FROM cases WHERE class = 'emergency' ORDER BY opened_at, id"
    )


async def commands(district: District) -> list[tuple[str, dict[str, Any]]]:
    rows = await district.rows("SELECT terminal_id, arguments FROM command WHERE name = 'configure' ORDER BY queued_at")
    return [(terminal, arguments) for terminal, arguments in rows]


async def test_who_leaves_at_night_is_an_emergency_that_a_human_ends(district: District) -> None:
    for metres in (10, 260, 280, 300):
        await district.tell(district.fix("t0-0", metres), district.fix("t0-1", metres))
        await district.sweep()
        district.pass_by(60)
    assert await emergencies(district) == [("h0-0", ["wander"], "open")]
    (case,) = await district.rows("SELECT id FROM cases WHERE class = 'emergency'")
    # An emergency is told by the plan of the site, 120 among them, and at once.
    assert await district.roles(case[0]) == {"guardian", "service_center", "ambulance_120"}
    await district.sweep()
    assert await commands(district) == [("t0-0", {"fix_s": 10})]
    await district.tell(district.fix("t0-0", 20))
    await district.sweep()
    assert await district.troubles() == set()
    assert await emergencies(district) == [("h0-0", ["wander"], "open")]
    await close_case(
        district.pool, district.directory, case[0], outcome=Outcome.HELPED, confirmed_by="guardian", note=None
    )
    await district.sweep()
    assert await commands(district) == [("t0-0", {"fix_s": 10}), ("t0-0", {"fix_s": 600})]


async def test_no_sign_of_life_is_an_emergency_and_heartbeats_are_none(district: District) -> None:
    await note_state(district.pool, "t0-0", "activity", True, at=district.now)
    for _ in range(12 * 15):
        district.pass_by(240)
        await district.tell(district.beat("t0-0"))
        await district.sweep()
    # In the morning the daily key was missed, an hour before twelve hours were over.
    found = await district.rows("SELECT detail FROM trouble WHERE cause = 'inactivity'")
    assert found == [({"expected_by": "10:00"},)]
    assert await emergencies(district) == [("h0-0", ["inactivity"], "open")]


async def test_the_interval_set_from_here_is_what_is_expected_once_the_terminal_says_so(district: District) -> None:
    command = await give_command(
        district.pool,
        district.directory,
        "t0-1",
        name="configure",
        arguments={"heartbeat_s": 20},
        life=timedelta(minutes=5),
        case_id=None,
        by="seat-1",
    )
    await district.tell(district.beat("t0-1"))
    await district.sweep()
    district.pass_by(61)
    await district.sweep()
    assert await district.state("t0-1") == "online"
    await district.tell(district.beat("t0-1"))
    await record_result(
        district.pool,
        district.directory,
        "t0-1",
        command.id,
        "done",
        detail=None,
        is_working_day=Workdays().is_working_day,
    )
    await district.sweep()
    district.pass_by(60)
    await district.sweep()
    assert await district.state("t0-1") == "offline"


async def test_uptime_counts_hours_and_persons_that_nobody_could_have_heard(district: District) -> None:
    names = [f"t0-{home}" for home in range(3)]
    begin = district.now
    await district.rows("UPDATE assignment SET since = %s RETURNING 1", begin)
    await district.tell(*(district.beat(name) for name in names))
    await district.sweep()
    for _ in range(60):
        district.pass_by(60)
        await district.tell(district.beat(names[0]), district.beat(names[1]))
        await district.sweep()
    await district.tell(district.beat(names[2]))
    await district.sweep()
    found = await read_uptime(district.pool, begin=begin, end=begin + timedelta(hours=2))
    (one,) = found.districts
    assert (one.terminals, one.losses, one.persons) == (3, 1, 3)
    assert one.supervised_h == pytest.approx(3.0)
    assert one.offline_h == pytest.approx(55 / 60)
    assert one.unprotected_h == pytest.approx(55 / 60)
    page = await list_troubles(district.pool, cause="offline")
    assert [(item.terminal, item.cleared_at is not None) for item in page.items] == [("t0-2", True)]


async def test_the_list_of_an_incident_comes_in_pages(district: District) -> None:
    names = [f"t0-{home}" for home in range(3)]
    await district.tell(*(district.beat(name) for name in names))
    await district.sweep()
    district.pass_by(301)
    await district.sweep()
    (incident,) = (await list_incidents(district.pool, is_open=True)).items
    assert (incident.kind, incident.members, incident.of_all, incident.in_trouble) == ("building", 3, 3, 3)
    first = await list_members(district.pool, incident.id, limit=2)
    rest = await list_members(district.pool, incident.id, cursor=first.cursor, limit=2)
    assert sorted(one.terminal for one in (*first.items, *rest.items)) == names
    assert rest.cursor is None
