"""The auditor on real cities: nothing to find in a healthy life, and every sabotage found within one round (I3)."""

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from random import Random
from types import ModuleType
from typing import Any
from uuid import UUID

import pytest

from gateway.domain.case import Fact, StateConflict
from gateway.domain.outbox import Sent, TryAgain
from gateway.keyring import Keyring
from gateway.service.case_commands import acknowledge_case, mark_safe
from gateway.store.directory import Directory
from tests.integration import test_calling_on, test_drills, test_procedures
from tests.integration.desk import START, Desk, desk_in
from tests.integration.watching import Watch, watching

Story = Callable[..., Awaitable[None]]

CITIES: dict[tuple[ModuleType, str], dict[str, Any]] = {
    (test_procedures, "nanjing"): {"city": "nanjing"},
    (test_procedures, "beijing"): {"city": "beijing", "agreed": True},
    (test_procedures, "beijing_without"): {"city": "beijing"},
    (test_calling_on, "nanjing"): {"city": "nanjing"},
    (test_calling_on, "beijing"): {"city": "beijing"},
    (test_drills, "nanjing"): {"city": "nanjing"},
}
"""The cities of those tests, as their fixtures set them up."""


def stories() -> list[Any]:
    """Every story that other tests tell of one city: each is a healthy life, however it goes."""
    found = []
    for module in (test_procedures, test_calling_on, test_drills):
        for name, story in inspect.getmembers(module, inspect.iscoroutinefunction):
            asked = list(inspect.signature(story).parameters)
            if name.startswith("test_") and len(asked) == 1 and (city := CITIES.get((module, asked[0]))) is not None:
                found.append(pytest.param(city, story, id=name.removeprefix("test_")))
    return found


@pytest.mark.parametrize(("city", "story"), stories())
async def test_a_healthy_life_has_nothing_to_find_at_any_moment(
    city: dict[str, Any], story: Story, database: str, directory: Directory, keyring: Keyring
) -> None:
    async with desk_in(database, directory, keyring, **city) as desk, watching(desk, database, keyring) as watch:
        watch.after_every_act()
        await story(desk)
        await desk.act()


# Sabotage: each kind of finding, by what would bring it about

NANJING, BEIJING = "860000000000001", "860000000000101"


@pytest.fixture
async def nanjing(database: str, directory: Directory, keyring: Keyring) -> AsyncIterator[Watch]:
    async with desk_in(database, directory, keyring, "nanjing") as desk, watching(desk, database, keyring) as watch:
        yield watch


@pytest.fixture
async def beijing(database: str, directory: Directory, keyring: Keyring) -> AsyncIterator[Watch]:
    async with (
        desk_in(database, directory, keyring, "beijing", agreed=True) as desk,
        watching(desk, database, keyring) as watch,
    ):
        yield watch


async def unheard(desk: Desk, *kinds: str) -> UUID:
    """A press that is stored, and that nobody looks at."""
    act, desk.act = desk.act, _nothing  # type: ignore[method-assign]
    try:
        return await desk.press(NANJING, *kinds)
    finally:
        desk.act = act  # type: ignore[method-assign]


async def _nothing() -> None:
    pass


async def forget_leg(watch: Watch, role: str) -> None:
    await watch.sabotage("DELETE FROM attempt USING leg WHERE leg.id = leg_id AND role = %s", role)
    await watch.sabotage("DELETE FROM notice USING leg WHERE leg.id = leg_id AND role = %s", role)
    await watch.sabotage("DELETE FROM leg WHERE role = %s", role)


# Obligations that are not there


async def test_a_role_of_the_plan_without_leg(nanjing: Watch) -> None:
    await nanjing.desk.press(NANJING)
    await nanjing.clean()
    await forget_leg(nanjing, "community")
    finding = await nanjing.raises("role_without_leg", "emergency@1", "community", "角色")
    assert finding.detail["role"] == "community"
    await nanjing.desk.press(NANJING)  # another press brings what the plan asks for
    await nanjing.clears(finding)
    await nanjing.clean()


async def test_one_of_two_guardians_without_leg(database: str, directory: Directory, keyring: Keyring) -> None:
    def change(site: dict[str, Any]) -> None:
        site["parties"].append({"id": "son", "role": "guardian", "name": "x", "channels": [{"kind": "stream"}]})
        site["households"][0]["parties"].append("son")

    async with (
        desk_in(database, directory, keyring, "nanjing", change=change) as desk,
        watching(desk, database, keyring) as watch,
    ):
        await watch.sabotage("UPDATE site SET applied_at = %s", START - timedelta(days=1))
        await desk.press(NANJING)
        await watch.clean()
        await watch.sabotage("DELETE FROM attempt USING leg WHERE leg.id = leg_id AND party_id = 'son'")
        await watch.sabotage("DELETE FROM notice WHERE party_id = 'son'")
        await watch.sabotage("DELETE FROM leg WHERE party_id = 'son'")
        finding = await watch.raises("party_without_leg", "emergency@1", "son", "guardian")
        # Whoever joined the household after the press need not have been told.
        await watch.sabotage("UPDATE site SET applied_at = %s", desk.now + timedelta(seconds=1))
        await watch.clears(finding)


async def test_a_case_without_any_leg(nanjing: Watch) -> None:
    case = await nanjing.desk.press(NANJING)
    for table in ("attempt", "notice", "leg"):
        await nanjing.sabotage(f"DELETE FROM {table}")
    finding = await nanjing.raises("no_legs", "nobody will be told", "没有任何支路")
    assert finding.case_id == case
    assert finding.district == "320102"


async def test_a_leg_that_is_called_less_often_than_its_plan_says(nanjing: Watch) -> None:
    await nanjing.desk.press(NANJING)
    await nanjing.sabotage("UPDATE leg SET ladder = jsonb_set(ladder, '{times}', '1') WHERE role = 'hotline'")
    finding = await nanjing.raises("ladder_differs", "hotline", "emergency@1")
    await nanjing.sabotage("UPDATE leg SET ladder = jsonb_set(ladder, '{times}', '6') WHERE role = 'hotline'")
    await nanjing.clears(finding)


async def test_a_procedure_that_does_not_run(nanjing: Watch) -> None:
    await unheard(nanjing.desk)
    nanjing.desk.turn(seconds=9)
    assert "run_missing" not in await nanjing.found()
    nanjing.desk.turn(seconds=2)
    finding = await nanjing.raises("run_missing", "nanjing-emergency")
    await nanjing.desk.act()
    await nanjing.clears(finding)


async def test_an_emergency_without_any_procedure(nanjing: Watch) -> None:
    await nanjing.desk.press(NANJING, "duress")  # whose plan names none
    await nanjing.desk.at(11)
    await nanjing.clean()
    await nanjing.sabotage("DELETE FROM step")
    await nanjing.sabotage("DELETE FROM run")
    finding = await nanjing.raises("no_procedure", "no procedure at all", "没有运行任何流程")
    await nanjing.sabotage("UPDATE cases SET wake_at = %s", nanjing.desk.now)
    await nanjing.desk.act()
    await nanjing.clears(finding)


async def test_a_second_call_back_that_is_left_out(beijing: Watch) -> None:
    case = await beijing.desk.press(BEIJING)
    await beijing.desk.at(8)
    await beijing.desk.own(case)
    await beijing.desk.done(case, "call-back-1", "no_answer")
    await beijing.sabotage("DELETE FROM step WHERE name = 'call-back-2'")
    beijing.desk.turn(seconds=9)
    assert "step_missing" not in await beijing.found()
    beijing.desk.turn(seconds=2)
    finding = await beijing.raises("step_missing", "call-back-2", "beijing-emergency", "2026-09-25T07:00:08Z")
    await beijing.sabotage("UPDATE cases SET wake_at = %s", beijing.desk.now)  # the runner comes by
    await beijing.desk.act()
    await beijing.clears(finding)
    assert "call-back-2" in await beijing.desk.open_tasks(case)


# Obligations that nobody follows


async def test_an_emergency_of_which_nobody_hears(nanjing: Watch) -> None:
    nanjing.desk.channel = lambda _: TryAgain("no network")
    await nanjing.desk.press(NANJING)
    await nanjing.desk.at(14)
    assert "nobody_reached" not in await nanjing.found()
    await nanjing.desk.at(16)
    finding = await nanjing.raises("nobody_reached", "15 s")
    nanjing.desk.channel = lambda _: Sent(200)
    await nanjing.desk.at(60)
    await nanjing.clears(finding)


async def test_a_fall_that_can_be_cancelled_is_not_late_meanwhile(beijing: Watch) -> None:
    beijing.desk.channel = lambda _: TryAgain("no network")
    await beijing.desk.press(BEIJING, "fall")
    await beijing.desk.at(29)
    await beijing.clean()
    await beijing.desk.at(31)
    await beijing.raises("nobody_reached")


async def test_a_leg_on_which_nothing_is_due(nanjing: Watch) -> None:
    await unheard(nanjing.desk)
    await nanjing.clean()
    mine = "leg_id IN (SELECT id FROM leg WHERE role = 'guardian')"
    await nanjing.sabotage(f"UPDATE notice SET state = 'cancelled' WHERE {mine}")
    finding = await nanjing.raises("leg_without_call", "guardian")
    await nanjing.sabotage(f"UPDATE notice SET state = 'due' WHERE {mine}")
    await nanjing.clears(finding)


async def test_messages_that_nobody_sends(nanjing: Watch) -> None:
    await unheard(nanjing.desk)
    nanjing.desk.turn(seconds=9)
    await nanjing.clean()
    nanjing.desk.turn(seconds=2)
    finding = await nanjing.raises("notice_late", "not sent: 1", "2026-09-25T07:00:00Z", "应发未发")
    assert len([one for one in (await nanjing.round()).open if one.kind == "notice_late"]) == 6, "one a leg"
    await nanjing.desk.deliver()
    await nanjing.clears(finding)


async def test_messages_by_phone_that_nobody_deals_with(nanjing: Watch) -> None:
    await nanjing.sabotage(
        "INSERT INTO phone_in (kind, modem, received_at, key_id, digest) "
        "SELECT 'message', 'm', %s, id, 'x' FROM data_key LIMIT 1",
        nanjing.desk.now,
    )
    nanjing.desk.turn(seconds=29)
    await nanjing.clean()
    nanjing.desk.turn(seconds=2)
    finding = await nanjing.raises("phone_unheard", "not dealt with: 1", "未处理")
    await nanjing.sabotage("UPDATE phone_in SET state = 'handled'")
    await nanjing.clears(finding)


async def test_messages_that_a_living_worker_holds_have_a_little_longer(nanjing: Watch) -> None:
    await unheard(nanjing.desk)
    await nanjing.sabotage("UPDATE notice SET worker = %s", nanjing.desk.worker)
    nanjing.desk.turn(seconds=14)
    assert "notice_late" not in await nanjing.found()
    nanjing.desk.turn(seconds=2)
    assert "notice_late" in await nanjing.found()


async def test_messages_that_a_dead_worker_holds_are_found_at_once(nanjing: Watch) -> None:
    await unheard(nanjing.desk)
    await nanjing.sabotage("UPDATE notice SET worker = %s", nanjing.desk.worker + 1)
    nanjing.desk.turn(seconds=1)
    assert "notice_late" in await nanjing.found()


async def test_a_ladder_that_stands_still_although_its_case_sleeps_well(nanjing: Watch) -> None:
    await nanjing.desk.press(NANJING)
    await nanjing.sabotage("UPDATE cases SET wake_at = NULL")
    await nanjing.desk.at(19)
    assert await nanjing.found() == {}
    nanjing.desk.turn(seconds=2)
    call = await nanjing.raises("call_missing", "hotline", "call 2", "2026-09-25T07:00:10Z")
    found = await nanjing.found()
    assert set(found) == {"call_missing", "deadline_missing", "step_late"}
    assert found["deadline_missing"].detail["role"] == "hotline"
    await nanjing.sabotage("UPDATE cases SET wake_at = %s", nanjing.desk.now)
    await nanjing.desk.act()
    await nanjing.clears(call)
    await nanjing.clean()


async def test_a_case_that_is_not_looked_at_when_it_wants_to_be(nanjing: Watch) -> None:
    await nanjing.desk.press(NANJING)
    nanjing.desk.turn(seconds=19)
    assert "case_asleep" not in await nanjing.found()
    nanjing.desk.turn(seconds=2)
    finding = await nanjing.raises("case_asleep", "2026-09-25T07:00:10Z", "继续处理")
    await nanjing.desk.act()
    await nanjing.clears(finding)
    await nanjing.clean()


async def test_a_deadline_of_aftercare_that_passes_unseen_long_after_the_closure(nanjing: Watch) -> None:
    case = await nanjing.desk.press(NANJING)
    await nanjing.desk.at(5)
    await nanjing.desk.close(case)
    nanjing.desk.turn(days=2)
    await nanjing.raises("step_late", "2026-09-26T09:00:00Z")
    await nanjing.desk.act()
    await nanjing.clean()


async def test_a_step_that_stays_open_after_its_end(nanjing: Watch) -> None:
    case = await nanjing.desk.press(NANJING)
    await nanjing.desk.at(3)
    await acknowledge_case(nanjing.desk.pool, nanjing.desk.directory, case, operator="seat-7")
    nanjing.desk.turn(seconds=11)
    finding = await nanjing.raises("step_stays_open", "take", "2026-09-25T07:00:03Z")
    await nanjing.desk.act()
    await nanjing.clears(finding)
    await nanjing.clean()


# Contradictions


async def test_whatever_is_sent_after_the_closure(nanjing: Watch) -> None:
    case = await nanjing.desk.press(NANJING)
    await nanjing.desk.at(5)
    await nanjing.desk.close(case)
    await nanjing.desk.at(12)
    await nanjing.clean()
    await nanjing.sabotage(
        "INSERT INTO attempt (notice_id, leg_id, channel, queued_at, started_at, answered_at, outcome) "
        "SELECT n.id, n.leg_id, 'webhook', %s, %s, %s, 'sent' FROM notice n JOIN leg l ON l.id = n.leg_id "
        "WHERE l.role = 'guardian' AND n.reason = 'alarm'",
        *[nanjing.desk.now] * 3,
    )
    finding = await nanjing.raises("sent_after_closure", "guardian", "attempts: 1", "警情结束后")
    nanjing.desk.turn(minutes=10)
    await nanjing.clears(finding)  # what can be mended no more is left to the case that it was raised in


async def test_messages_still_due_on_a_closed_case(nanjing: Watch) -> None:
    case = await nanjing.desk.press(NANJING)
    await nanjing.desk.close(case)
    await nanjing.sabotage("UPDATE notice SET state = 'due' WHERE reason = 'alarm' AND party_id = 'ambulance-120'")
    finding = await nanjing.raises("due_after_closure", "ambulance_120")
    await nanjing.sabotage("UPDATE notice SET state = 'cancelled' WHERE state = 'due'")
    await nanjing.clears(finding)


async def test_a_leg_still_open_on_a_closed_case(nanjing: Watch) -> None:
    case = await nanjing.desk.press(NANJING)
    await nanjing.desk.close(case)
    await nanjing.sabotage("UPDATE leg SET state = 'delivered', ended_at = NULL WHERE role = 'district'")
    nanjing.desk.turn(seconds=11)
    finding = await nanjing.raises("leg_open_after_closure", "district")
    await nanjing.sabotage(
        "UPDATE leg SET state = 'withdrawn', ended_at = %s WHERE role = 'district'", nanjing.desk.now
    )
    await nanjing.clears(finding)


async def test_a_step_still_open_on_a_closed_case(nanjing: Watch) -> None:
    case = await nanjing.desk.press(NANJING)
    await nanjing.desk.close(case)
    await nanjing.sabotage("UPDATE step SET state = 'open', ended_at = NULL WHERE name = 'call-120'")
    nanjing.desk.turn(seconds=11)
    await nanjing.raises("step_stays_open", "call-120")


@pytest.mark.parametrize("missing", ["closed_by", "safe_at", "outcome"])
async def test_a_case_closed_without_what_belongs_to_it(nanjing: Watch, missing: str) -> None:
    case = await nanjing.desk.press(NANJING)
    await nanjing.desk.close(case)
    await nanjing.clean()
    ((rule,),) = await nanjing.desk.rows(
        "SELECT conname FROM pg_constraint WHERE pg_get_constraintdef(oid) ~ 'outcome' AND conrelid = 'cases'::regclass"
    )
    await nanjing.without_rule(rule)
    await nanjing.sabotage(f"UPDATE cases SET {missing} = NULL")
    await nanjing.raises("closed_incomplete", missing)


async def test_an_owner_since_nobody_knows_when(nanjing: Watch) -> None:
    case = await nanjing.desk.press(NANJING)
    await nanjing.desk.own(case)
    await nanjing.sabotage("UPDATE cases SET owned_at = NULL")
    finding = await nanjing.raises("owner_without_time")
    await nanjing.sabotage("UPDATE cases SET owned_at = opened_at")
    await nanjing.clears(finding)


async def test_two_emergencies_of_one_household(nanjing: Watch) -> None:
    await nanjing.desk.press(NANJING)
    await nanjing.desk.press("860000000000002")
    await nanjing.clean()
    await nanjing.sabotage("DROP INDEX cases_one_open")
    await nanjing.sabotage("UPDATE cases SET subject = 'household:wang-501'")
    await nanjing.raises("two_emergencies", "2 emergencies")


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM journal WHERE n = 2",
        "UPDATE journal SET hash = decode('00', 'hex') WHERE n = (SELECT max(n) FROM journal)",
        "UPDATE cases SET journal_n = journal_n - 1",
        "INSERT INTO journal SELECT case_id, 100, at, kind, actor, sealed, key_id, prev, hash FROM journal WHERE n = 1",
    ],
)
async def test_a_journal_that_does_not_fit_its_case(nanjing: Watch, statement: str) -> None:
    await nanjing.desk.press(NANJING)
    await nanjing.clean()
    await nanjing.sabotage(statement)
    await nanjing.raises("journal_broken", "journal")


async def a_test_press(watch: Watch) -> UUID:
    """A test press inside a window."""
    await watch.sabotage(
        "INSERT INTO test_window (terminal_uid, opens_at, closes_at, reason, opened_by) "
        "SELECT uid, %s, %s, 'commissioning', 'installer' FROM terminal WHERE public_id = %s",
        watch.desk.now - timedelta(minutes=1),
        watch.desk.now + timedelta(minutes=30),
        NANJING,
    )
    case = await watch.desk.press(NANJING, test=True)
    await watch.desk.at(30)
    await watch.clean()
    return case


async def test_a_test_that_wakes_120(nanjing: Watch) -> None:
    case = await a_test_press(nanjing)
    await nanjing.sabotage(
        "INSERT INTO notice (id, leg_id, case_id, party_id, number, reason, state) "
        "SELECT 'msg_x', id, case_id, party_id, 1, 'alarm', 'sent' FROM leg WHERE role = 'ambulance_120'"
    )
    await nanjing.sabotage(
        "INSERT INTO attempt (notice_id, leg_id, channel, queued_at, started_at, answered_at, outcome) "
        "SELECT id, leg_id, 'webhook', %s, %s, %s, 'sent' FROM notice WHERE id = 'msg_x'",
        *[nanjing.desk.now] * 3,
    )
    finding = await nanjing.raises("test_woke_rescue", "ambulance_120", "测试警情")
    assert finding.case_id == case


async def test_a_drill_that_tells_who_does_not_take_part(nanjing: Watch) -> None:
    case = await a_test_press(nanjing)
    await nanjing.sabotage("UPDATE cases SET drill_id = id, taking_part = '{hotline-12349}'")
    finding = await nanjing.raises("drill_told_others", "does not take part", "演练")
    assert finding.case_id == case
    told = {one.detail["party"] for one in (await nanjing.round()).open if one.kind == "drill_told_others"}
    assert told == {"guardian-wang", "service-meiyuan", "community-daying", "district-xuanwu"}


async def test_the_terminal_hears_of_progress_after_the_closure(nanjing: Watch) -> None:
    case = await nanjing.desk.press(NANJING)
    await nanjing.desk.answer(case, "guardian", "coming", minutes=6)
    await nanjing.desk.at(5)
    await nanjing.desk.close(case)
    await nanjing.desk.at(40)
    await nanjing.clean()
    await nanjing.sabotage("UPDATE progress SET sent_at = %s WHERE state <> 'closed'", nanjing.desk.now)
    await nanjing.raises("progress_after_closure")


async def test_progress_that_the_closure_overtook_is_not_on_record_as_sent(nanjing: Watch) -> None:
    case = await nanjing.desk.press(NANJING)
    await nanjing.desk.at(3)
    desk = nanjing.desk
    act, desk.act = desk.act, _nothing  # type: ignore[method-assign]
    await desk.answer(case, "guardian", "coming", minutes=6)
    await desk.runner.advance_due()
    desk.turn(seconds=1)
    await desk.close(case)
    await desk.runner.send_progress()  # before anybody has said that it is over
    desk.act = act  # type: ignore[method-assign]
    await desk.act()
    assert await desk.rows("SELECT state FROM progress WHERE sent_at IS NOT NULL") == [("closed",)]
    await nanjing.clean()


# The gateway itself, and the auditor


async def test_no_gateway_at_all_while_something_is_due(nanjing: Watch) -> None:
    await unheard(nanjing.desk)
    nanjing.worker_lives = False
    nanjing.desk.turn(seconds=4)
    await nanjing.clean()
    nanjing.desk.turn(seconds=2)
    finding = await nanjing.raises("nobody_runs", "no gateway is alive", "没有任何网关在运行")
    assert finding.case_id is None
    nanjing.worker_lives = True
    await nanjing.clears(finding)


async def test_no_gateway_while_nothing_is_due_is_for_others_to_say(nanjing: Watch) -> None:
    nanjing.worker_lives = False
    nanjing.desk.turn(minutes=5)
    await nanjing.clean()


_WAITING = """
    INSERT INTO inbox (worker, topic, payload, received_at, retained)
    VALUES (1, 'okc/v1/860000000000001/up/alarm', '{{}}', '{at}', false)
"""


async def test_alarms_that_wait_in_the_inbox_are_seen_whether_or_not_somebody_runs(nanjing: Watch) -> None:
    await nanjing.sabotage(_WAITING.format(at=nanjing.desk.now.isoformat()))
    nanjing.desk.turn(seconds=59)
    await nanjing.clean()
    nanjing.desk.turn(seconds=2)
    await nanjing.raises("alarms_wait", "received more than a minute ago", "仍未立案")
    nanjing.worker_lives = False
    finding = await nanjing.raises("nobody_runs", "no gateway is alive", "没有任何网关在运行")
    await nanjing.sabotage("DELETE FROM inbox")
    nanjing.worker_lives = True
    await nanjing.clears(finding)


async def test_a_gateway_that_does_not_hear_alarms_is_given_a_moment(nanjing: Watch) -> None:
    await nanjing.sabotage("UPDATE worker SET status = '{\"alarms\": false}'")
    first = await nanjing.round()
    assert [one.kind for one in first.kept.open] == ["alarms_unheard"]
    assert first.open == []
    nanjing.desk.turn(seconds=11)
    finding = await nanjing.raises("alarms_unheard", "broker")
    await nanjing.sabotage("UPDATE worker SET status = '{\"alarms\": true}'")
    await nanjing.clears(finding)


async def test_a_supervision_that_stands_still_is_found(nanjing: Watch) -> None:
    await nanjing.sabotage(
        "INSERT INTO hearing (horizon, boot, uptime_s, swept_at) VALUES (now(), '', 0, '2020-01-01Z')"
    )
    first = await nanjing.round()
    assert first.open == []
    nanjing.desk.turn(seconds=11)
    finding = await nanjing.raises("terminals_unheard", "2020-01-01")
    await nanjing.sabotage("UPDATE hearing SET swept_at = 'infinity'")
    await nanjing.clears(finding)


@pytest.mark.parametrize(
    ("statement", "check"),
    [
        ("UPDATE leg SET ladder = '{\"times\": \"often\"}' WHERE role = 'guardian'", "legs"),
        ('UPDATE plan SET details = \'{"roles": [{"role": "guardian"}]}\'', "plan emergency@1"),
        ("UPDATE procedure SET body = '{}'", "procedure nanjing-emergency"),
    ],
)
async def test_what_the_auditor_cannot_read_is_found_and_hides_nothing_else(
    nanjing: Watch, statement: str, check: str
) -> None:
    await nanjing.desk.press(NANJING)
    await nanjing.sabotage("UPDATE cases SET journal_n = 0")
    await nanjing.sabotage(statement)
    await nanjing.raises("check_failed", check)
    assert "journal_broken" in await nanjing.found()


async def test_the_auditor_writes_nothing_that_it_audits_and_locks_no_row(nanjing: Watch) -> None:
    await nanjing.desk.press(NANJING)
    async with nanjing.desk.pool.connection() as conn, conn.transaction():
        await conn.execute("SELECT FROM cases FOR UPDATE")
        await conn.execute("SELECT FROM leg FOR UPDATE")
        await conn.execute("SELECT FROM step FOR UPDATE")
        async with asyncio.timeout(5):
            await nanjing.round()


async def test_what_comes_and_goes_is_one_finding(nanjing: Watch) -> None:
    case = await nanjing.desk.press(NANJING)
    await nanjing.desk.own(case)
    ids = set()
    for _ in range(3):
        await nanjing.sabotage("UPDATE cases SET owned_at = NULL")
        ids.add((await nanjing.found())["owner_without_time"].id)
        await nanjing.sabotage("UPDATE cases SET owned_at = opened_at")
        await nanjing.clean()
        await nanjing.desk.at((nanjing.desk.now - START).total_seconds() + 20)
    assert len(ids) == 1
    await nanjing.desk.at(720)
    await nanjing.sabotage("UPDATE cases SET owned_at = NULL")
    assert (await nanjing.found())["owner_without_time"].id not in ids


# Any life, with the runner dead for a while now and then


class Storyteller:
    """Lets anything happen to a city, by the dice."""

    def __init__(self, watch: Watch, rng: Random) -> None:
        self.watch = watch
        self.desk = watch.desk
        self.rng = rng
        self.cases: list[UUID] = []

    async def something_happens(self) -> None:
        """One thing that people or terminals do; what does not fit the state of a case is refused, as it should be."""
        terminal = self.rng.choice(["860000000000001", "860000000000002", "860000000000004"])
        if not self.cases or self.rng.random() < 0.2:
            kinds = self.rng.choice([("sos",), ("fall",), ("duress",), ("power_lost",), ("service",), ("gas", "sos")])
            self.cases.append(await self.desk.press(terminal, *kinds))
            return
        case = self.rng.choice(self.cases)
        with contextlib.suppress(StateConflict, IndexError):
            match self.rng.choice(["own", "answer", "fact", "task", "safe", "close", "say", "again"]):
                case "own":
                    await self.desk.own(case, self.rng.choice(["seat-7", "seat-8"]))
                case "answer":
                    role = self.rng.choice(["guardian", "hotline", "community", "ambulance_120"])
                    await self.desk.answer(case, role, self.rng.choice(["accepted", "coming", "arrived", "cannot"]))
                case "fact":
                    await self.desk.fact(case, self.rng.choice([Fact.HEARD, Fact.ON_SCENE]))
                case "task":
                    open_tasks = sorted(await self.desk.open_tasks(case))
                    if open_tasks:
                        results = ("done", "reached", "unreachable", "taken", "dispatched")
                        await self.desk.done(case, self.rng.choice(open_tasks), self.rng.choice(results))
                case "safe":
                    await mark_safe(self.desk.pool, self.desk.directory, case, by="ambulance_120")
                case "close":
                    await self.desk.close(case)
                case "say":
                    await self.desk.say(terminal, self.rng.choice(["cancel", "heard", "power_restored"]))
                case "again":
                    await self.desk.press(terminal, "sos")

    async def due_for(self) -> timedelta:
        """How long something is due that nobody has done."""
        ((oldest,),) = await self.desk.rows(
            "SELECT min(at) FROM (SELECT min(wake_at) AS at FROM cases "
            "UNION ALL SELECT min(due_at) FROM notice WHERE state = 'due') t"
        )
        return timedelta(0) if oldest is None else self.desk.now - oldest


@pytest.mark.parametrize("seed", range(8))
async def test_any_life_shows_findings_only_while_something_is_late(nanjing: Watch, seed: int) -> None:
    rng = Random(seed)
    teller = Storyteller(nanjing, rng)
    desk, act = nanjing.desk, nanjing.desk.act
    for turn in range(30):
        await teller.something_happens()
        desk.turn(milliseconds=rng.randint(1, 900))
        await desk.act()
        await nanjing.clean()
        if rng.random() < 0.7:
            passed = rng.choice([1, 5, 15, 45, 200])
            for _ in range(3):  # everybody works, and time passes
                await desk.at((desk.now - desk.started).total_seconds() + passed / 3)
                await nanjing.clean()
            continue
        desk.act = _nothing  # type: ignore[method-assign] # the runner and the dispatcher are killed
        for _ in range(rng.randint(1, 4)):
            if rng.random() < 0.5:
                await teller.something_happens()
            desk.turn(seconds=rng.choice([0.5, 3, 8, 20, 90]))
            late, found = await teller.due_for(), await nanjing.found()
            assert late >= timedelta(seconds=10) or not found, (
                f"seed {seed}, turn {turn}: {found} although nothing is late"
            )
            assert late <= timedelta(seconds=15) or found, (
                f"seed {seed}, turn {turn}: late for {late}, and nothing found"
            )
        desk.act = act  # type: ignore[method-assign]
        desk.runner = desk.restarted()
        await desk.act()
        await nanjing.clean()
