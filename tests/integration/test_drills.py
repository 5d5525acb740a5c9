"""Drills on the real paths: who hears of them, how they are scored, and that they swallow nothing (R23)."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from gateway.domain.case import NotFound, StateConflict
from gateway.domain.outbox import DueNotice, Outcome, Sent
from gateway.domain.scoring import Mark
from gateway.keyring import Keyring
from gateway.service.drills import drive_drills, end_drill, plan_drill, read_drill, start_drill
from gateway.store.directory import Directory
from tests.integration.desk import Desk, desk_in

BOX, OTHER = "860000000000001", "860000000000002"


@pytest.fixture
async def nanjing(database: str, directory: Directory, keyring: Keyring) -> AsyncIterator[Desk]:
    async with desk_in(database, directory, keyring, "nanjing") as desk:
        yield desk


async def _drill(desk: Desk, *, scenario: list[dict[str, Any]], **changes: Any) -> UUID:
    options: dict[str, Any] = {
        "title": "quarterly",
        "terminals": [BOX],
        "participants": ["guardian-wang", "hotline-12349"],
        "lasts": timedelta(minutes=30),
        "with_rescue": False,
        "by": "supervisor-1",
    }
    row = await plan_drill(desk.pool, scenario=scenario, **options | changes)
    return row.id


async def _drive(desk: Desk) -> None:
    await drive_drills(desk.pool, desk.directory, worker=None)
    await desk.act()


FALL = {"after_s": 5, "terminal": BOX, "kinds": ["fall"]}


async def test_a_drill_tells_whoever_takes_part_and_nobody_else(nanjing: Desk) -> None:
    drill = await _drill(nanjing, scenario=[FALL])
    await start_drill(nanjing.pool, drill, by="supervisor-1")
    await _drive(nanjing)
    assert await nanjing.rows("SELECT count(*) FROM cases") == [(0,)], "not yet"
    await nanjing.at(5)
    await _drive(nanjing)
    await _drive(nanjing)
    [(case, test, drill_id)] = await nanjing.rows("SELECT id, test, drill_id FROM cases")
    assert (test, drill_id) == (True, drill)
    legs = await nanjing.legs(case)
    assert {name for name, state in legs.items() if state == "delivered"} == {"guardian-wang", "hotline-12349"}
    assert {state for name, state in legs.items() if name not in ("guardian-wang", "hotline-12349")} == {"skipped"}
    assert await nanjing.rows("SELECT DISTINCT drill_id FROM alarm") == [(drill,)]
    await nanjing.at(1700)
    told = await nanjing.rows(
        "SELECT DISTINCT l.party_id FROM attempt a JOIN leg l ON l.id = a.leg_id ORDER BY l.party_id"
    )
    assert told == [("guardian-wang",), ("hotline-12349",)], "also by ladders, stand-ins and the procedure"


async def test_a_real_press_during_a_drill_is_a_real_case_at_once(nanjing: Desk) -> None:
    drill = await _drill(nanjing, scenario=[FALL | {"after_s": 0}])
    await start_drill(nanjing.pool, drill, by="supervisor-1")
    await _drive(nanjing)
    real = await nanjing.press(BOX)
    assert await nanjing.rows("SELECT class, test, drill_id FROM cases WHERE id = %s", real) == [
        ("emergency", False, None)
    ]
    assert await nanjing.told(real, "ambulance_120") == ["alarm"]
    await end_drill(nanjing.pool, nanjing.directory, drill, by="supervisor-1")
    assert await nanjing.rows("SELECT state FROM cases WHERE id = %s", real) == [("open",)]
    assert await nanjing.rows("SELECT state, outcome FROM cases WHERE drill_id = %s", drill) == [("closed", "test")]


async def test_a_test_press_at_its_terminals_belongs_to_the_drill_only_while_it_runs(nanjing: Desk) -> None:
    drill = await _drill(nanjing, scenario=[])
    await start_drill(nanjing.pool, drill, by="supervisor-1")
    mine = await nanjing.press(BOX, test=True)
    assert await nanjing.rows("SELECT drill_id FROM cases WHERE id = %s", mine) == [(drill,)]
    other = await nanjing.press(OTHER, test=True)
    assert await nanjing.rows("SELECT class FROM cases WHERE id = %s", other) == [("emergency",)], (
        "no window there (D11)"
    )
    await end_drill(nanjing.pool, nanjing.directory, drill, by="supervisor-1")
    nanjing.turn(seconds=1)
    after = await nanjing.press(BOX, test=True)
    assert await nanjing.rows("SELECT class, drill_id FROM cases WHERE id = %s", after) == [("emergency", None)]


async def test_a_drill_is_scored_while_it_runs_and_afterwards(nanjing: Desk) -> None:
    drill = await _drill(nanjing, scenario=[FALL | {"after_s": 0}])
    await start_drill(nanjing.pool, drill, by="supervisor-1")
    await _drive(nanjing)
    [(case,)] = await nanjing.rows("SELECT id FROM cases")
    live = {item.what: item.mark for item in (await read_drill(nanjing.pool, drill)).cases[0].items}
    assert live["owned"] is Mark.RUNNING
    assert live["told hotline"] is Mark.IN_TIME
    await nanjing.at(6)
    await nanjing.own(case)
    await nanjing.at(400)
    await nanjing.answer(case, "guardian", "coming")
    await end_drill(nanjing.pool, nanjing.directory, drill, by="supervisor-1")
    nanjing.turn(days=3)
    file = await read_drill(nanjing.pool, drill)
    marks = {item.what: item.mark for item in file.cases[0].items}
    assert marks["owned"] is Mark.IN_TIME
    assert marks["answer of hotline"] is Mark.IN_TIME
    assert marks["answer of guardian"] is Mark.LATE
    assert marks["task call-120"] is Mark.MISSED
    assert file.in_time is not None
    assert 0.3 < file.in_time < 0.9


async def test_a_drill_ends_by_itself_and_says_so_to_whoever_was_told(nanjing: Desk) -> None:
    drill = await _drill(nanjing, scenario=[FALL | {"after_s": 0}], lasts=timedelta(minutes=2))
    await start_drill(nanjing.pool, drill, by="supervisor-1")
    await _drive(nanjing)
    [(case,)] = await nanjing.rows("SELECT id FROM cases")
    await nanjing.at(121)
    await _drive(nanjing)
    assert await nanjing.rows("SELECT state, ended_by FROM drill") == [("ended", "gateway")]
    assert (await nanjing.told(case, "guardian"))[-1] == "closed"


async def test_terminals_are_asked_nothing_where_nobody_pressed(
    database: str, directory: Directory, keyring: Keyring
) -> None:
    async with desk_in(database, directory, keyring, "beijing") as desk:
        box = "860000000000101"
        scenario = [{"after_s": 0, "terminal": box, "kinds": ["sos"]}]
        everybody = ["platform-yijiantong", "neighbour-chu"]
        drill = await _drill(desk, terminals=[box], participants=everybody[:1], scenario=scenario)
        await start_drill(desk.pool, drill, by="supervisor-1")
        await _drive(desk)
        await desk.at(600)
        assert desk.link.sent == []
        assert await desk.rows(
            "SELECT count(*) FROM notice n JOIN leg l ON l.id = n.leg_id WHERE l.role = 'police_110'"
        ) == [(0,)], "the procedure calls no public service in a drill either"


async def test_what_cannot_be_a_drill_is_refused(nanjing: Desk) -> None:
    with pytest.raises(StateConflict, match="with_rescue"):
        await _drill(nanjing, scenario=[], participants=["ambulance-120"])
    await _drill(nanjing, scenario=[], participants=["ambulance-120"], with_rescue=True)
    with pytest.raises(NotFound, match="party"):
        await _drill(nanjing, scenario=[], participants=["nobody"])
    with pytest.raises(NotFound, match="terminal"):
        await _drill(nanjing, scenario=[], terminals=["nobody"])
    with pytest.raises(StateConflict, match="not in the drill"):
        await _drill(nanjing, scenario=[FALL | {"terminal": OTHER}])
    with pytest.raises(StateConflict, match="after the end"):
        await _drill(nanjing, scenario=[FALL | {"after_s": 1800}])
    drill = await _drill(nanjing, scenario=[])
    await start_drill(nanjing.pool, drill, by="a")
    await nanjing.press(BOX, test=True)
    second = await _drill(nanjing, scenario=[])
    with pytest.raises(StateConflict, match="test case is open"):
        await start_drill(nanjing.pool, second, by="a")
    await end_drill(nanjing.pool, nanjing.directory, drill, by="a")
    with pytest.raises(StateConflict, match="has ended"):
        await start_drill(nanjing.pool, drill, by="a")
    with pytest.raises(NotFound):
        await read_drill(nanjing.pool, UUID(int=0))


async def test_with_120_that_agreed_120_is_called_and_told_that_it_is_a_drill(nanjing: Desk) -> None:
    drill = await _drill(nanjing, scenario=[FALL | {"after_s": 0}], participants=["ambulance-120"], with_rescue=True)
    await start_drill(nanjing.pool, drill, by="supervisor-1")
    seen: list[tuple[str, UUID | None, bool]] = []

    def channel(notice: DueNotice) -> Outcome:
        seen.append((notice.role, notice.case.drill, notice.case.test))
        return Sent(200)

    nanjing.channel = channel
    await _drive(nanjing)
    assert seen == [("ambulance_120", drill, True)]
