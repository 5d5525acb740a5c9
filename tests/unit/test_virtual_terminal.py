"""The virtual terminal, input by input."""

import json
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

from firmware_sim.terminal import (
    Heard,
    Lost,
    Output,
    Pressed,
    PressKey,
    Publish,
    Received,
    Rejected,
    Terminal,
    TerminalConfig,
)
from protocols.okc import Down, Up, down_topic, up_topic
from schemas.commands import Ack, Command, Progress
from schemas.reports import AlarmReport, FixReport, HeartbeatReport

ID = "860000000000001"
T0 = datetime(2026, 11, 22, 6, 0, tzinfo=UTC)
CASE = UUID("5f1a3c1e-6d0b-5b0e-9a55-7a3f0c2b9d11")


def after(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def terminal(**settings: Any) -> Terminal:
    defaults: dict[str, Any] = {"id": ID, "heartbeat_every": None}
    return Terminal(TerminalConfig(**{**defaults, **settings}), Random(7))


def online(**settings: Any) -> Terminal:
    made = terminal(**settings)
    made.power_on(T0)
    made.connected(T0)
    return made


def published(outputs: list[Output]) -> list[Publish]:
    return [output for output in outputs if isinstance(output, Publish)]


def acknowledge(made: Terminal, key: PressKey, now: datetime) -> list[Output]:
    ack = Ack(boot=key.boot, seq=key.seq, case=CASE)
    return made.received(down_topic(ID, Down.ACK), ack.model_dump_json().encode(), now)


def command(made: Terminal, now: datetime, **fields: Any) -> list[Output]:
    message = Command(**fields)
    return made.received(down_topic(ID, Down.COMMAND), message.model_dump_json().encode(), now)


def test_a_press_is_published_at_once_with_all_that_is_known() -> None:
    made = online(clock_offset=timedelta(hours=-1))
    pressed, publish = made.press(T0, ("sos", "fall"))
    assert pressed == Pressed(key=PressKey(1, 1))
    assert isinstance(publish, Publish)
    assert (publish.topic, publish.qos, publish.press) == (up_topic(ID, Up.ALARM), 1, PressKey(1, 1))
    report = AlarmReport.model_validate_json(publish.payload)
    assert report.kinds == ["sos", "fall"]
    assert report.at == after(-3600)
    assert report.fix is not None
    assert (report.battery_pct, report.test) == (100, False)


def test_without_a_clock_the_time_is_null_everywhere() -> None:
    made = online(clock_offset=None)
    body = json.loads(published(made.press(T0))[0].payload)
    assert body["at"] is None
    assert body["fix"]["at"] is None


def test_it_repeats_the_same_bytes_after_two_seconds_and_never_waits_longer_than_ten() -> None:
    made = online()
    first = published(made.press(T0))[0]
    assert made.next_deadline() == after(2)
    assert made.handle_timer(after(1.999)) == []
    waits = []
    for _ in range(8):
        deadline = made.next_deadline()
        assert deadline is not None
        assert published(made.handle_timer(deadline)) == [first]
        following = made.next_deadline()
        assert following is not None
        waits.append((following - deadline).total_seconds())
    assert 3 <= waits[0] <= 4
    assert all(6 <= wait <= 10 for wait in waits[1:])
    assert len(set(waits)) == len(waits)


def test_only_the_answer_to_its_own_numbers_ends_a_press() -> None:
    made = online()
    key = PressKey(1, 1)
    made.press(T0)
    assert acknowledge(made, PressKey(1, 2), after(1)) == []
    assert acknowledge(made, PressKey(2, 1), after(1)) == []
    assert made.received(down_topic(ID, Down.ACK), b'{"v":1,"state":"received"}', after(1)) == []
    assert made.pending == (key,)
    assert acknowledge(made, key, after(1)) == [Received(key=key, case=CASE)]
    assert acknowledge(made, key, after(1)) == []
    assert made.next_deadline() is None


def test_a_press_while_offline_goes_out_first_on_connection() -> None:
    made = terminal(heartbeat_every=timedelta(seconds=10), buffered=3)
    made.power_on(T0)
    for second in range(1, 60, 10):
        made.handle_timer(after(second + 9))
    assert made.press(after(60)) == [Pressed(key=made.pending[0])]
    topics = [publish.topic for publish in published(made.connected(after(61)))]
    assert topics == [up_topic(ID, Up.ALARM)] + 3 * [up_topic(ID, Up.HEARTBEAT)]


def test_repeats_pause_while_offline() -> None:
    made = online()
    made.press(T0)
    made.disconnected(after(1))
    assert made.next_deadline() is None
    assert [publish.press for publish in published(made.connected(after(300)))] == [PressKey(1, 1)]


def test_an_alarm_survives_a_restart_under_its_old_numbers() -> None:
    made = online()
    made.press(T0)
    made.power_off(after(1))
    assert made.press(after(2)) == []
    made.power_on(after(3))
    made.press(after(4))
    assert made.pending == (PressKey(1, 1), PressKey(2, 1))
    assert [publish.press for publish in published(made.connected(after(5)))] == [PressKey(1, 1), PressKey(2, 1)]


def test_reflashing_starts_the_numbers_again_and_says_what_was_lost() -> None:
    made = online()
    made.press(T0)
    assert made.reflash(after(60)) == [Lost(key=PressKey(1, 1))]
    assert made.press(after(61)) == [Pressed(key=PressKey(1, 1))]


def test_heartbeats_drain_the_battery_and_the_low_one_is_an_alarm_once() -> None:
    made = online(heartbeat_every=timedelta(hours=1), battery_life=timedelta(hours=10))
    beats, alarms = [], []
    while (deadline := made.next_deadline()) is not None and deadline < after(20 * 3600):
        for publish in published(made.handle_timer(deadline)):
            if publish.press is None:
                beats.append(HeartbeatReport.model_validate_json(publish.payload).battery_pct or 0)
            else:
                alarms.append(AlarmReport.model_validate_json(publish.payload).kinds)
                acknowledge(made, publish.press, deadline)
    assert beats == sorted(beats, reverse=True)
    assert (beats[0] > 80, beats[-1]) == (True, 0)
    assert alarms == [["low_battery"]]


def test_it_wanders_around_home() -> None:
    made = online(fix_every=timedelta(seconds=10), wander_m=50)
    places = set()
    for _ in range(200):
        deadline = made.next_deadline()
        assert deadline is not None
        (publish,) = published(made.handle_timer(deadline))
        fix = FixReport.model_validate_json(publish.payload).fix
        places.add((fix.lat, fix.lon))
        assert abs(fix.lat - 32.0603) * 111_320 < 300
        assert fix.accuracy_m is not None
        assert 4 <= fix.accuracy_m <= 40
    assert len(places) > 190


def test_a_command_is_accepted_and_done_and_a_second_copy_only_answered() -> None:
    made = online()
    states = [json.loads(p.payload)["state"] for p in published(command(made, T0, id="c1", name="play"))]
    assert states == ["accepted", "done"]
    again = published(command(made, after(1), id="c1", name="play"))
    assert [json.loads(p.payload)["state"] for p in again] == ["done"]
    assert {p.qos for p in again} == {1}


def test_an_expired_command_is_refused() -> None:
    (publish,) = published(command(online(), after(10), id="c1", name="dial", expires_at=after(5)))
    assert json.loads(publish.payload)["state"] == "refused"


def test_locate_and_configure_do_what_they_say() -> None:
    made = online()
    topics = [p.topic for p in published(command(made, T0, id="c1", name="locate"))]
    assert topics == [up_topic(ID, kind) for kind in (Up.RESULT, Up.FIX, Up.RESULT)]
    command(made, T0, id="c2", name="configure", arguments={"heartbeat_s": 30})
    assert made.next_deadline() == after(30)
    for bad in (True, "30", 0, 1e300):
        results = published(command(made, T0, id=f"bad-{bad}", name="configure", arguments={"heartbeat_s": bad}))
        assert json.loads(results[-1].payload)["state"] == "failed"
    assert made.next_deadline() == after(30)


def test_progress_is_heard() -> None:
    progress = Progress(case=CASE, state="coming", role="guardian", minutes=12)
    topic = down_topic(ID, Down.PROGRESS)
    assert online().received(topic, progress.model_dump_json().encode(), T0) == [Heard(message=progress)]


def test_what_breaks_the_contract_is_shown_and_not_obeyed() -> None:
    made = online()
    made.press(T0)
    for topic, payload in [
        (down_topic(ID, Down.ACK), b"\xff\x00"),
        (down_topic(ID, Down.ACK), b'{"v":1,"boot":1,"seq":1,"state":"seen"}'),
        (down_topic("other", Down.ACK), b'{"v":1,"boot":1,"seq":1,"state":"received"}'),
        (up_topic(ID, Up.ALARM), b"{}"),
    ]:
        (output,) = made.received(topic, payload, after(1))
        assert isinstance(output, Rejected)
    assert made.pending == (PressKey(1, 1),)
