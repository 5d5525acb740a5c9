"""Calling on until the right human answered: ladders, stand-ins, gates, what terminals take back (I4, I7, D13)."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.domain.case import Fact, NotFound, StateConflict
from gateway.domain.outbox import DueNotice, GiveUp, Outcome, Sent
from gateway.keyring import Keyring
from gateway.service.apply_site import apply_site
from gateway.service.case_commands import mark_safe
from gateway.service.command_terminals import give_command, record_result
from gateway.service.desk import hand_over, take_seat_b
from gateway.service.explain_plan import explain
from gateway.service.upgrade import upgrade_case
from gateway.site.load import load
from gateway.site.model import Site
from gateway.store.directory import Directory
from tests.conftest import ROOT
from tests.integration.desk import WORKDAYS, Desk, desk_in

NANJING, BEIJING = "860000000000001", "860000000000101"


@pytest.fixture
async def nanjing(database: str, directory: Directory, keyring: Keyring) -> AsyncIterator[Desk]:
    async with desk_in(database, directory, keyring, "nanjing") as desk:
        yield desk


@pytest.fixture
async def beijing(database: str, directory: Directory, keyring: Keyring) -> AsyncIterator[Desk]:
    async with desk_in(database, directory, keyring, "beijing") as desk:
        yield desk


# Ladders


async def test_each_party_is_called_again_by_its_own_ladder_until_its_own_fact(nanjing: Desk) -> None:
    case = await nanjing.press(NANJING)
    await nanjing.at(65)
    hotline = [at for _, at in await nanjing.messages(case, "hotline")]
    assert hotline == pytest.approx([0, 10, 20, 30, 40, 50], abs=1)
    assert [at for _, at in await nanjing.messages(case, "guardian")] == pytest.approx([0, 60], abs=1)
    await nanjing.answer(case, "guardian", "coming", minutes=6)
    await nanjing.at(600)
    assert len(await nanjing.messages(case, "guardian")) == 2, "whoever answered is not called again"
    assert len(await nanjing.messages(case, "ambulance_120")) == 6, "and every other role still is"
    assert (await nanjing.legs(case))["hotline-12349"] == "delivered"


async def test_owning_ends_the_calls_to_the_hotline_and_to_nobody_else(nanjing: Desk) -> None:
    case = await nanjing.press(NANJING)
    await nanjing.at(5)
    await nanjing.own(case)
    await nanjing.at(100)
    assert [reason for reason, _ in await nanjing.messages(case, "hotline")] == ["alarm"]
    assert len(await nanjing.messages(case, "ambulance_120")) > 1
    await nanjing.fact(case, Fact.DISPATCHED, about="ambulance_120")
    calls = len(await nanjing.messages(case, "ambulance_120"))
    await nanjing.at(400)
    assert len(await nanjing.messages(case, "ambulance_120")) == calls
    assert len(await nanjing.messages(case, "guardian")) == 3


async def test_once_the_person_is_safe_nobody_is_called_on(nanjing: Desk) -> None:
    case = await nanjing.press(NANJING)
    await mark_safe(nanjing.pool, nanjing.directory, case, by="guardian")
    await nanjing.at(3600)
    assert await nanjing.rows("SELECT count(*) FROM notice WHERE reason = 'unanswered'") == [(0,)]


async def test_a_closed_case_calls_nobody_also_after_a_restart(nanjing: Desk) -> None:
    case = await nanjing.press(NANJING)
    await nanjing.at(15)
    await nanjing.close(case)
    sent = await nanjing.rows("SELECT count(*) FROM notice WHERE state = 'sent'")
    nanjing.runner = nanjing.restarted()
    await nanjing.at(7200)
    assert await nanjing.rows("SELECT count(*) FROM notice WHERE state = 'sent'") == sent


async def test_another_press_begins_the_calls_anew(nanjing: Desk) -> None:
    case = await nanjing.press(NANJING)
    await nanjing.answer(case, "guardian", "coming")
    await nanjing.at(400)
    assert await nanjing.press(NANJING) == case
    await nanjing.at(470)
    reasons = [reason for reason, _ in await nanjing.messages(case, "guardian")]
    assert reasons == ["alarm", "pressed_again", "unanswered"]


async def test_calls_go_through_the_channels_of_a_party_in_turn(nanjing: Desk) -> None:
    case = await nanjing.press(NANJING)
    await nanjing.at(25)
    used = await nanjing.rows(
        "SELECT a.channel FROM attempt a JOIN leg l ON l.id = a.leg_id WHERE l.role = 'hotline' AND l.case_id = %s "
        "ORDER BY a.started_at",
        case,
    )
    assert used == [("webhook",), ("mqtt",), ("stream",)]


async def test_an_outage_makes_of_missed_calls_one(nanjing: Desk) -> None:
    case = await nanjing.press(NANJING)
    nanjing.turn(minutes=30)
    nanjing.runner = nanjing.restarted()
    await nanjing.act()
    assert [reason for reason, _ in await nanjing.messages(case, "guardian")] == ["alarm", "unanswered"]


async def test_who_steps_in_when_nobody_answered_in_time(database: str, directory: Directory, keyring: Keyring) -> None:
    def change(site: dict[str, Any]) -> None:
        stream = [{"kind": "stream"}]
        for name, role in (("niece", "relative"), ("next-door", "neighbour")):
            site["parties"].append({"id": name, "role": role, "name": name, "channels": stream})
            site["households"][0]["parties"].append(name)

    async with desk_in(database, directory, keyring, "nanjing", change=change) as desk:
        case = await desk.press(NANJING)
        await desk.at(179)
        assert "niece" not in await desk.legs(case)
        await desk.at(181)
        legs = await desk.legs(case)
        assert (legs["niece"], "next-door" in legs) == ("delivered", False)
        assert await desk.rows("SELECT instead_of, origin FROM leg WHERE party_id = 'niece'") == [
            ("guardian", "stand_in")
        ]
        assert await desk.told(case, "relative") == ["stand_in"]
        await desk.at(181 + 181)
        assert (await desk.legs(case))["next-door"] == "delivered", "then the next of the chain"


async def test_nobody_of_a_role_but_one_who_answered_needs_no_stand_in(
    database: str, directory: Directory, keyring: Keyring
) -> None:
    def change(site: dict[str, Any]) -> None:
        site["parties"].append({"id": "son", "role": "guardian", "name": "x", "channels": [{"kind": "stream"}]})
        site["parties"].append({"id": "niece", "role": "relative", "name": "x", "channels": [{"kind": "stream"}]})
        site["households"][0]["parties"] += ["son", "niece"]

    async with desk_in(database, directory, keyring, "nanjing", change=change) as desk:
        case = await desk.press(NANJING)
        await desk.answer(case, "guardian", "coming")
        await desk.at(400)
        assert "niece" not in await desk.legs(case)


async def test_whom_no_channel_reaches_fails_and_the_fallback_hears(nanjing: Desk) -> None:
    def dead(notice: DueNotice) -> Outcome:
        return GiveUp("no such number") if notice.role == "guardian" else Sent(200)

    nanjing.channel = dead
    case = await nanjing.press(NANJING)
    await nanjing.at(30)
    legs = await nanjing.legs(case)
    assert [state for name, state in legs.items() if name.startswith("guardian")] == ["failed"]


# Gates


async def test_without_agreement_120_is_not_called_for_the_person_and_everybody_sees_why(beijing: Desk) -> None:
    case = await beijing.press(BEIJING)
    rows = await beijing.rows("SELECT state, problem FROM leg WHERE case_id = %s AND role = 'ambulance_120'", case)
    assert [state for state, _ in rows] == ["skipped"]
    assert "dial_on_behalf" in rows[0][1]
    assert await beijing.told(case, "ambulance_120") == []


# What waits


async def test_power_that_comes_back_in_time_is_told_to_nobody(nanjing: Desk) -> None:
    case = await nanjing.press(NANJING, "power_lost")
    await nanjing.at(500)
    assert await nanjing.rows("SELECT DISTINCT state FROM notice") == [("due",)]
    assert await nanjing.say(NANJING, "power_restored") == [case]
    assert await nanjing.rows("SELECT state, outcome, closed_by FROM cases") == [
        ("closed", "technical_fixed", f"terminal:{NANJING}")
    ]
    await nanjing.at(3600)
    assert await nanjing.rows("SELECT DISTINCT state FROM notice") == [("cancelled",)]


async def test_power_that_stays_away_is_told_after_delay_and_jitter_and_then_that_it_is_back(nanjing: Desk) -> None:
    case = await nanjing.press(NANJING, "power_lost")
    await nanjing.press(NANJING, "power_lost")  # reported once more: nobody is told any earlier
    await nanjing.at(599)
    assert await nanjing.messages(case, "service_center") == []
    await nanjing.at(901)
    [(reason, at)] = await nanjing.messages(case, "service_center")
    assert reason == "alarm"
    assert 600 <= at <= 900
    await nanjing.say(NANJING, "power_restored")
    assert await nanjing.told(case, "service_center") == ["alarm", "closed"]


async def test_a_call_for_help_never_waits_behind_a_technical_report(nanjing: Desk) -> None:
    technical = await nanjing.press(NANJING, "power_lost")
    emergency = await nanjing.press(NANJING, "sos", "power_lost")
    assert emergency != technical
    assert await nanjing.told(emergency, "guardian") == ["alarm"]


async def test_a_fall_that_is_cancelled_in_time_is_told_to_nobody_and_deleted_by_nobody(beijing: Desk) -> None:
    case = await beijing.press(BEIJING, "fall", seq=5)
    await beijing.at(10)
    assert await beijing.rows("SELECT count(*) FROM notice WHERE state <> 'due'") == [(0,)]
    assert await beijing.say(BEIJING, "cancel", seq=4) == [], "another alarm is meant"
    assert await beijing.say(BEIJING, "cancel", seq=5) == [case]
    assert await beijing.rows("SELECT state, outcome FROM cases") == [("closed", "false_alarm")]
    await beijing.at(600)
    assert await beijing.rows("SELECT DISTINCT state FROM notice") == [("cancelled",)]
    assert await beijing.press(BEIJING, "fall") != case


async def test_a_fall_that_is_not_cancelled_is_told_after_the_countdown(beijing: Desk) -> None:
    case = await beijing.press(BEIJING, "fall")
    await beijing.at(14)
    assert await beijing.told(case, "relative") == []
    await beijing.at(16)
    assert await beijing.told(case, "relative") == ["alarm"]
    assert await beijing.say(BEIJING, "cancel") == [case]
    assert await beijing.told(case, "relative") == ["alarm", "cancelled"], "an update, never a deletion"
    assert await beijing.rows("SELECT state FROM cases") == [("open",)]
    assert await beijing.rows("SELECT role, by_whom FROM fact WHERE fact = 'heard'") == [
        ("person", f"terminal:{BEIJING}")
    ]
    assert await beijing.say(BEIJING, "cancel") == [], "said once"


async def test_whoever_presses_while_a_fall_can_still_be_cancelled_gets_help_at_once(beijing: Desk) -> None:
    case = await beijing.press(BEIJING, "fall")
    await beijing.at(3)
    assert await beijing.press(BEIJING, "sos") == case
    assert await beijing.told(case, "relative") == ["alarm"]
    assert await beijing.told(case, "hotline") == ["alarm"]
    await beijing.say(BEIJING, "cancel")
    assert await beijing.rows("SELECT state FROM cases") == [("open",)]


async def test_an_old_cancel_that_comes_late_cancels_no_new_fall(beijing: Desk) -> None:
    await beijing.press(BEIJING, "fall")
    assert await beijing.say(BEIJING, "cancel", ago_s=30) == []
    await beijing.at(20)
    assert await beijing.rows("SELECT state FROM cases") == [("open",)]


async def test_a_key_ends_nothing_under_duress(nanjing: Desk) -> None:
    case = await nanjing.press(NANJING, "duress")
    await nanjing.say(NANJING, "cancel")
    assert await nanjing.rows("SELECT state FROM cases") == [("open",)]
    assert await nanjing.rows("SELECT count(*) FROM fact") == [(0,)]
    assert await nanjing.told(case, "hotline") == ["alarm"]


# What the person hears


def heard(desk: Desk, terminal: str) -> list[tuple[str, str | None, int | None]]:
    told = {}
    for topic, payload in desk.link.sent:
        if topic == f"okc/v1/{terminal}/down/progress":
            message = json.loads(payload)
            told[message["n"]] = (message["state"], message.get("role"), message.get("minutes"))
    return [told[number] for number in sorted(told)]


async def test_the_person_hears_who_knows_who_comes_and_who_is_there(nanjing: Desk) -> None:
    case = await nanjing.press(NANJING)
    await nanjing.answer(case, "guardian", "accepted")
    await nanjing.at(5)
    await nanjing.answer(case, "guardian", "coming", minutes=6)
    await nanjing.answer(case, "community", "accepted")
    await nanjing.at(30)
    await nanjing.answer(case, "guardian", "arrived")
    await nanjing.answer(case, "ambulance_120", "coming", minutes=9)
    await nanjing.close(case)
    await nanjing.at(120)
    assert heard(nanjing, NANJING) == [
        ("told", "guardian", None),
        ("coming", "guardian", 6),
        ("arrived", "guardian", None),
        ("closed", None, None),
    ]
    order = [json.loads(p)["n"] for t, p in nanjing.link.sent if t.endswith("/down/progress")]
    assert order == sorted(order), "what is old is not said again after what is new"


async def test_under_duress_the_terminal_stays_silent(nanjing: Desk) -> None:
    case = await nanjing.press(NANJING, "sos")
    await nanjing.answer(case, "guardian", "coming", minutes=6)
    said = len(heard(nanjing, NANJING))
    await nanjing.press(NANJING, "duress")
    await nanjing.answer(case, "hotline", "coming")
    await nanjing.close(case)
    await nanjing.at(60)
    assert len(heard(nanjing, NANJING)) == said
    with pytest.raises(StateConflict, match="duress"):
        silent = await nanjing.press(NANJING, "duress")
        await _command(nanjing, NANJING, "play", {"text": "help is coming"}, case=silent)


# Commands


async def _command(desk: Desk, terminal: str, name: str, arguments: dict[str, Any], *, case: Any = None) -> str:
    row = await give_command(
        desk.pool,
        desk.directory,
        terminal,
        name=name,
        arguments=arguments,
        life=timedelta(seconds=20),
        case_id=case,
        by="seat-7",
    )
    await desk.act()
    return row.id


async def _result(desk: Desk, command: str, state: str) -> None:
    await record_result(
        desk.pool, desk.directory, NANJING, command, state, detail="x", is_working_day=WORKDAYS.is_working_day
    )


async def test_a_command_is_sent_until_it_is_answered_and_its_case_shows_it(nanjing: Desk) -> None:
    case = await nanjing.press(NANJING)
    command = await _command(nanjing, NANJING, "locate", {}, case=case)
    await nanjing.at(6)
    sent = [json.loads(payload)["id"] for topic, payload in nanjing.link.sent if topic.endswith("/down/command")]
    assert sent.count(command) == 2
    await _result(nanjing, command, "accepted")
    await nanjing.at(15)
    await _result(nanjing, command, "done")
    await _result(nanjing, command, "failed")
    assert await nanjing.rows("SELECT state FROM command WHERE id = %s", command) == [("done",)]
    kinds = [kind for (kind,) in await nanjing.rows("SELECT kind FROM journal WHERE case_id = %s ORDER BY n", case)]
    assert kinds.count("command.given") == kinds.count("command.answered") == 1


async def test_a_command_that_nobody_answers_expires_on_the_record(nanjing: Desk) -> None:
    case = await nanjing.press(NANJING)
    command = await _command(nanjing, NANJING, "self_test", {}, case=case)
    await nanjing.at(60)
    assert await nanjing.rows("SELECT state FROM command WHERE id = %s", command) == [("expired",)]
    assert ("command.expired",) in await nanjing.rows("SELECT kind FROM journal WHERE case_id = %s", case)
    await _result(nanjing, command, "done")
    assert await nanjing.rows("SELECT state FROM command WHERE id = %s", command) == [("done",)], "late is not never"


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("dial", {}), ("dial", {"number": "abc"}), ("configure", {"heartbeat_s": 1}), ("locate", {"x": 1}), ("play", {})],
)
async def test_what_no_terminal_can_do_is_refused(nanjing: Desk, name: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(StateConflict):
        await _command(nanjing, NANJING, name, arguments)
    with pytest.raises(NotFound):
        await _command(nanjing, "nobody", "locate", {})


# Seats


async def test_the_first_operator_stays_the_first_after_a_hand_over(nanjing: Desk) -> None:
    case = await nanjing.press(NANJING)
    give = {"reason": "shift", "is_working_day": WORKDAYS.is_working_day}
    with pytest.raises(StateConflict, match="Nobody owns"):
        await hand_over(nanjing.pool, nanjing.directory, case, by="seat-7", to="seat-9", **give)  # type: ignore[arg-type]
    await nanjing.own(case, "seat-7")
    with pytest.raises(StateConflict, match="seat-7"):
        await hand_over(nanjing.pool, nanjing.directory, case, by="seat-8", to="seat-9", **give)  # type: ignore[arg-type]
    for _ in range(2):
        await hand_over(nanjing.pool, nanjing.directory, case, by="seat-7", to="seat-9", **give)  # type: ignore[arg-type]
    assert await nanjing.rows("SELECT owner, first_owner FROM cases") == [("seat-9", "seat-7")]
    with pytest.raises(StateConflict, match="two people"):
        await take_seat_b(nanjing.pool, nanjing.directory, case, operator="seat-9", by="seat-9")
    await take_seat_b(nanjing.pool, nanjing.directory, case, operator="seat-3", by="seat-9")
    assert await nanjing.rows("SELECT seat_b FROM cases") == [("seat-3",)]


# Requests that become emergencies


async def test_a_service_request_becomes_an_emergency_in_one_step(nanjing: Desk) -> None:
    service = await nanjing.press(NANJING, "service")
    now = datetime.now(UTC)
    emergency = await upgrade_case(nanjing.pool, nanjing.directory, service, kind="fall", by="seat-7", now=now)
    again = await upgrade_case(nanjing.pool, nanjing.directory, service, kind="fall", by="seat-7", now=now)
    assert again == emergency
    await nanjing.act()
    assert await nanjing.told(emergency, "ambulance_120") == ["alarm"]
    with pytest.raises(StateConflict):
        await upgrade_case(nanjing.pool, nanjing.directory, emergency, kind="sos", by="seat-7", now=now)


# Plans


async def test_a_running_case_keeps_the_plan_that_it_began_with(nanjing: Desk, keyring: Keyring) -> None:
    case = await nanjing.press(NANJING)
    document = load(ROOT / "examples" / "nanjing.yaml").site.model_dump(mode="json", exclude_none=True)
    document["plans"][0]["roles"] = [{"role": "hotline", "times": 1}]
    document["plans"][0]["procedure"] = None
    document["plans"][0] = {name: value for name, value in document["plans"][0].items() if value is not None}
    await apply_site(nanjing.pool, keyring, Site.model_validate(document), prune=False)
    await nanjing.at(25)
    assert [reason for reason, _ in await nanjing.messages(case, "hotline")] == ["alarm", "unanswered", "unanswered"]
    await nanjing.press(NANJING)
    assert "take" in await nanjing.open_tasks(case)
    other = await nanjing.press("860000000000002")
    assert set(await nanjing.legs(other)) == {"hotline-12349"}


async def test_a_plan_is_explained_before_it_is_needed(nanjing: Desk) -> None:
    found = await explain(nanjing.pool, nanjing.directory, "wang-xiulan", kinds=("sos",))
    assert [call.role for call in found.calls] == [
        *("guardian", "hotline", "service_center", "community", "district", "ambulance_120")
    ]
    hotline = found.calls[1]
    assert [after.total_seconds() for after, _ in hotline.calls] == [0, 10, 20, 30, 40, 50]
    assert [channel for _, channel in hotline.calls][:3] == ["webhook", "mqtt", "stream"]
    assert (hotline.until, found.procedures) == ("owned", ("nanjing-emergency",))
    with pytest.raises(NotFound):
        await explain(nanjing.pool, nanjing.directory, "nobody", kinds=("sos",))


async def test_what_is_missing_is_explained(database: str, directory: Directory, keyring: Keyring) -> None:
    async with desk_in(database, directory, keyring, "beijing") as desk:
        ((person,),) = await desk.rows("SELECT id FROM person ORDER BY household_id LIMIT 1")
        found = await explain(desk.pool, desk.directory, person, kinds=("sos",))
        gated = next(call for call in found.calls if call.role == "ambulance_120")
        assert gated.calls == ()
        assert any("dial_on_behalf" in what for what in found.missing)


async def test_an_emergency_with_a_request_beside_it_has_the_procedure_of_an_emergency(beijing: Desk) -> None:
    case = await beijing.press(BEIJING, "service", "duress")
    found = await beijing.rows("SELECT procedure FROM run WHERE case_id = %s ORDER BY procedure", case)
    assert found == [("basic-emergency",), ("beijing-service",)]
