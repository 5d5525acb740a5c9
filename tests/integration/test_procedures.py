"""The procedures of both cities on a real database and a clock that the test turns (R10 to R15, D9)."""

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta

import pytest

from gateway.domain.case import Fact, StateConflict
from gateway.keyring import Keyring
from gateway.service.case_commands import mark_safe
from gateway.service.case_reading import read_case
from gateway.service.command_terminals import record_result
from gateway.service.run_procedures import start_procedure
from gateway.store import procedures
from gateway.store.directory import Directory
from tests.integration.desk import WORKDAYS, Desk, desk_in


@pytest.fixture
async def nanjing(database: str, directory: Directory, keyring: Keyring) -> AsyncIterator[Desk]:
    async with desk_in(database, directory, keyring, "nanjing") as desk:
        yield desk


@pytest.fixture
async def beijing(database: str, directory: Directory, keyring: Keyring) -> AsyncIterator[Desk]:
    """Everybody has signed that an operator may dial for them."""
    async with desk_in(database, directory, keyring, "beijing", agreed=True) as desk:
        yield desk


@pytest.fixture
async def beijing_without(database: str, directory: Directory, keyring: Keyring) -> AsyncIterator[Desk]:
    """Nobody has signed."""
    async with desk_in(database, directory, keyring, "beijing") as desk:
        yield desk


NANJING, BEIJING = "860000000000001", "860000000000101"


async def test_beijing_without_any_response_ends_with_110_asked_and_b_still_calling(beijing: Desk) -> None:
    case = await beijing.press(BEIJING)
    assert await beijing.open_tasks(case) == {"take", "call-back-1"}
    await beijing.at(8)
    await beijing.own(case)
    await beijing.done(case, "call-back-1", "no_answer")
    await beijing.at(40)
    await beijing.done(case, "call-back-2", "no_answer")
    assert await beijing.open_tasks(case) == {"keep-calling", "contacts"}
    await beijing.at(100)
    await beijing.done(case, "contacts", "unreachable")
    assert await beijing.told(case, "police_110") == []
    await beijing.done(case, "committee", "unreachable")
    assert await beijing.told(case, "police_110") == ["procedure"]
    await beijing.at(3600)
    assert await beijing.open_tasks(case) == {"keep-calling", "call-110"}
    assert await beijing.rows("SELECT state FROM cases") == [("open",)], "nothing closes by time alone"


async def test_beijing_with_nobody_at_the_seats_goes_on_by_the_clock(beijing: Desk) -> None:
    case = await beijing.press(BEIJING)
    await beijing.at(600)
    steps = await beijing.steps(case)
    assert steps["call-back-2"] == ("done", "no_answer", 60)
    assert steps["contacts"] == ("done", "unreachable", 120)
    assert steps["committee"] == ("done", "unreachable", 300)
    assert steps["ask-110"] == ("done", "done", 480)
    assert steps["take-over"][0] == "open", "a supervisor has to see that nobody took the case"
    breached = await beijing.rows("SELECT name FROM step WHERE breached_at IS NOT NULL ORDER BY planned_at, name")
    assert ("take",) in breached


async def test_beijing_takes_the_request_to_110_back_when_the_person_is_heard(beijing: Desk) -> None:
    case = await beijing.press(BEIJING)
    await beijing.at(600)
    assert await beijing.told(case, "police_110") == ["procedure"]
    # That the line was picked up is no word of the person (I7).
    ((command,),) = await beijing.rows("SELECT id FROM command WHERE name = 'call_back'")
    await record_result(
        beijing.pool, beijing.directory, BEIJING, command, "done", detail=None, is_working_day=WORKDAYS.is_working_day
    )
    await beijing.at(610)
    assert await beijing.told(case, "police_110") == ["procedure"]
    await beijing.fact(case, Fact.HEARD)
    assert await beijing.told(case, "police_110") == ["procedure", "withdrawn"]
    assert await beijing.rows("SELECT state FROM leg WHERE role = 'police_110'") == [("withdrawn",)]
    assert "tell-110" in await beijing.open_tasks(case)
    assert (await beijing.steps(case))["keep-calling"][:2] == ("done", "heard")


async def test_beijing_answered_a_calls_for_help_and_b_stays_with_the_person(beijing: Desk) -> None:
    case = await beijing.press(BEIJING)
    await beijing.at(9)
    await beijing.own(case)
    await beijing.done(case, "call-back-1", "answered")
    assert (await beijing.rows("SELECT role FROM fact WHERE fact = 'heard'")) == [("person",)]
    await beijing.at(60)
    await beijing.done(case, "assess", "help_needed")
    assert await beijing.open_tasks(case) == {"comfort", "dial-for-person", "contacts"}
    await beijing.done(case, "dial-for-person", "dispatched")
    await beijing.answer(case, "ambulance_120", "arrived")
    assert await beijing.open_tasks(case) >= {"record"}
    assert (await beijing.steps(case))["comfort"][:2] == ("done", "arrived")
    await beijing.close(case)
    assert await beijing.open_tasks(case) == {"record", "follow-up"}
    ((due,),) = await beijing.rows("SELECT due_at - %s FROM step WHERE name = 'follow-up'", beijing.now)
    assert due == timedelta(days=2)


async def test_beijing_without_agreement_the_terminal_dials_and_the_hotline_sees_why(beijing_without: Desk) -> None:
    desk = beijing_without
    case = await desk.press(BEIJING)
    await desk.done(case, "call-back-1", "answered")
    await desk.done(case, "assess", "help_needed")
    steps = await desk.steps(case)
    assert steps["dial-for-person"][0] == "skipped"
    assert steps["no-agreement"][0] == "open"
    await desk.at(1)
    sent = [payload for topic, payload in desk.link.sent if topic == f"okc/v1/{BEIJING}/down/command"]
    assert sum(b'"dial"' in payload and b'"120"' in payload for payload in sent) == 1
    await desk.at(20)
    sent = [payload for _, payload in desk.link.sent if b'"dial"' in payload]
    assert len(sent) > 1, "it is sent again until it is answered"
    assert len(set(sent)) == 1, "under the same id"


async def test_nanjing_calls_120_at_once_and_follows_the_person_to_the_hospital(nanjing: Desk) -> None:
    case = await nanjing.press(NANJING)
    assert {"take", "call-120"} <= await nanjing.open_tasks(case), "no gate, no call-back before 120 (R10)"
    await nanjing.at(6)
    await nanjing.own(case)
    await nanjing.answer(case, "ambulance_120", "coming")
    assert (await nanjing.steps(case))["call-120"][:2] == ("done", "dispatched")
    assert await nanjing.open_tasks(case) == {"family", "supervisor", "to-hospital"}
    await nanjing.answer(case, "guardian", "coming")
    assert await nanjing.open_tasks(case) == {"supervisor", "to-hospital"}
    await mark_safe(nanjing.pool, nanjing.directory, case, by="ambulance_120")
    await nanjing.done(case, "supervisor")
    await nanjing.close(case, "hospital")
    assert await nanjing.open_tasks(case) == {"follow-up", "report"}
    # Before 17:00 of the next day in Nanjing, a Saturday: emergencies know no holidays (R11).
    assert await nanjing.rows("SELECT DISTINCT due_at FROM step WHERE state = 'open'") == [
        (datetime(2026, 9, 26, 9, 0, tzinfo=UTC),)
    ]
    await nanjing.done(case, "follow-up")
    await nanjing.done(case, "report")
    assert await nanjing.rows("SELECT ended_at IS NOT NULL FROM run") == [(True,)]
    await nanjing.at(60)
    assert await nanjing.next() is None, "nothing is left that time alone would bring"


async def test_one_role_knows_and_every_other_is_still_asked(nanjing: Desk) -> None:
    case = await nanjing.press(NANJING)
    await nanjing.answer(case, "guardian", "accepted")
    states = dict(await nanjing.rows("SELECT role, state FROM leg WHERE case_id = %s", case))
    assert states.pop("guardian") == "answered"
    assert set(states.values()) == {"delivered"}
    with pytest.raises(StateConflict):
        await nanjing.fact(case, Fact.DISPATCHED, role="guardian")
    with pytest.raises(StateConflict):
        await nanjing.fact(case, Fact.INFORMED, role="guardian", about="hotline")
    await nanjing.fact(case, Fact.DISPATCHED, about="ambulance_120")
    assert (await nanjing.steps(case))["call-120"][:2] == ("done", "dispatched")


async def test_a_refusal_is_nobody_who_sees_to_it(nanjing: Desk) -> None:
    case = await nanjing.press(NANJING)
    await nanjing.own(case)
    await nanjing.answer(case, "guardian", "cannot")
    assert "family" in await nanjing.open_tasks(case)


async def test_after_an_outage_what_was_due_meanwhile_happens_and_is_found_late(nanjing: Desk) -> None:
    case = await nanjing.press(NANJING)
    nanjing._clock[0] += timedelta(hours=3)  # nobody looked for three hours
    nanjing.runner = nanjing.restarted()
    await nanjing.act()
    steps = await nanjing.steps(case)
    assert steps["take-over"] == ("open", None, 30), "planned from what led to it, not from when somebody looked"
    assert await nanjing.rows("SELECT count(*) FROM step WHERE breached_at IS NOT NULL") == [(3,)]


async def test_a_clock_that_goes_back_repeats_nothing(nanjing: Desk) -> None:
    case = await nanjing.press(NANJING)
    await nanjing.at(100)
    before = await nanjing.rows("SELECT name, state, planned_at, due_at, breached_at FROM step ORDER BY name")
    events = await nanjing.rows("SELECT count(*) FROM event")
    nanjing._clock[0] -= timedelta(seconds=95)
    await nanjing.act()
    await nanjing.at(100)
    assert await nanjing.rows("SELECT name, state, planned_at, due_at, breached_at FROM step ORDER BY name") == before
    assert await nanjing.rows("SELECT count(*) FROM event") == events
    await nanjing.own(case)


async def test_a_running_case_keeps_the_version_that_it_began_with(nanjing: Desk) -> None:
    case = await nanjing.press(NANJING)
    async with nanjing.pool.connection() as conn:
        body = await procedures.body(conn, "nanjing-emergency", 1)
        newer = body | {"version": 2, "steps": body["steps"][:1]}
        assert await procedures.add_body(conn, "nanjing-emergency", 2, newer)
        assert not await procedures.add_body(conn, "nanjing-emergency", 2, body)
    await nanjing.own(case)
    assert "supervisor" in await nanjing.open_tasks(case)
    other = await nanjing.press("860000000000002")
    assert set(await nanjing.steps(other)) == {"take"}


async def test_a_complaint_is_due_in_three_working_days_around_the_holiday(nanjing: Desk) -> None:
    case = await nanjing.press(NANJING)
    await nanjing.own(case)
    await nanjing.close(case)
    nanjing._clock[0] = datetime(2026, 9, 30, 8, 0, tzinfo=UTC)  # the day before a week of holidays
    await start_procedure(
        nanjing.pool, nanjing.directory, case, "complaint", by="seat-7", is_working_day=WORKDAYS.is_working_day
    )
    assert {"forward", "settle"} <= await nanjing.open_tasks(case)
    ((due,),) = await nanjing.rows("SELECT due_at FROM step WHERE name = 'settle'")
    days = [date(2026, 10, 8), date(2026, 10, 9), date(2026, 10, 10)]  # the Saturday is worked instead
    assert all(WORKDAYS.is_working_day(day) for day in days)
    assert due == datetime(2026, 10, 10, 16, 0, tzinfo=UTC)
    nanjing.started = nanjing.now
    await nanjing.at(15 * 86400)
    assert "escalate" in await nanjing.open_tasks(case)


async def test_a_false_alarm_is_closed_only_with_its_reason(nanjing: Desk) -> None:
    case = await nanjing.press(NANJING)
    with pytest.raises(StateConflict, match="why"):
        await nanjing.close(case, "false_alarm")
    await nanjing.close(case, "false_alarm", "碰到了按钮")


async def test_another_press_asks_for_an_answer_at_once(nanjing: Desk) -> None:
    case = await nanjing.press(NANJING)
    await nanjing.own(case)
    assert await nanjing.press(NANJING) == case
    assert "again" in await nanjing.open_tasks(case)


async def test_what_happened_is_on_record_in_the_journal(nanjing: Desk) -> None:
    case = await nanjing.press(NANJING)
    await nanjing.own(case)
    await nanjing.done(case, "supervisor")
    read = await read_case(nanjing.pool, nanjing.directory, case)
    kinds = [entry.kind for entry in read.timeline]
    assert kinds.count("procedure.started") == 1
    assert {"task.started", "task.done"} <= set(kinds)
