"""What a responder does with its n-th request, and what the witness concludes from all that it saw."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID, uuid5

import pytest

from firmware_sim import demo, figures
from firmware_sim.demo import Verdict
from firmware_sim.figures import Phase, Sample
from firmware_sim.fleet import PressRecord
from firmware_sim.load import publish_packet, take_packets
from firmware_sim.responders import (
    Act,
    Answers,
    Arrival,
    Behaviour,
    Fails,
    FailsFirst,
    Flaps,
    Hangs,
    Ignores,
    Resets,
    act_on,
)
from firmware_sim.sites import NANJING, SiteFile, example, made_up
from firmware_sim.terminal import PressKey
from schemas.case import CaseLineOut, CaseOut
from schemas.notices import Location, Notice, NoticeData, PartyRef

COMING = Answers(answer="coming", minutes=12)


@pytest.mark.parametrize("behaviour", [Ignores(), COMING, Hangs(3), Fails(500), Resets()])
def test_a_plain_behaviour_is_always_the_same(behaviour: Behaviour) -> None:
    assert [act_on(behaviour, count) for count in (1, 2, 100)] == [behaviour] * 3


def test_failing_first_then_recovers() -> None:
    acts = [act_on(FailsFirst(2, 500, COMING), count) for count in range(1, 5)]
    assert acts == [Fails(500), Fails(500), COMING, COMING]


def test_flapping_goes_up_and_down_for_ever() -> None:
    up, down = Ignores(), Fails(503)
    expected: list[Act] = [up, up, down, up, up, down, up]
    assert [act_on(Flaps(2, 1), count) for count in range(1, 8)] == expected


def test_behaviours_nest_and_the_inner_one_counts_what_reaches_it() -> None:
    acts = [act_on(Flaps(1, 1, 503, FailsFirst(1, 500, COMING)), count) for count in range(1, 6)]
    assert acts == [Fails(500), Fails(503), COMING, Fails(503), COMING]
    acts = [act_on(FailsFirst(1, 500, Flaps(1, 1)), count) for count in range(1, 5)]
    assert acts == [Fails(500), Ignores(), Fails(503), Ignores()]


# ---------------------------------------------------------------- what the witness concludes

CASE = UUID("5f1a3c1e-6d0b-5b0e-9a55-7a3f0c2b9d11")
OTHER_CASE = UUID("5f1a3c1e-6d0b-5b0e-9a55-7a3f0c2b9d12")
NOW = datetime(2026, 11, 22, 6, 0, tzinfo=UTC)
START_NS = 1_000_000_000
PARTIES = {f"{role}-1": role for role in NANJING}
GIVEN = {"guardian": COMING}


def press(**changes: Any) -> PressRecord:
    made = PressRecord(
        terminal="t-1", kinds=("sos",), test=False, pressed_at=NOW, pressed_ns=START_NS, key=PressKey(1, 1)
    )
    made.published_ns = START_NS
    made.received_ns = START_NS + 5_000_000
    made.case = CASE
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def arrival(party: str, *, case: UUID = CASE, after_ms: float = 10, located: bool = True, **changes: Any) -> Arrival:
    role = party.rsplit("-", 1)[0]
    place = Location(lat=32.0, lon=118.8, datum="wgs84", source="registered") if located else None
    data = NoticeData(
        case=case,
        leg=uuid5(case, party),
        number=1,
        test=False,
        reason="alarm",
        party=PartyRef(id=party, role=role),
        district="320102",
        state="open",
        kinds=["sos"],
        urgency=1,
        received_at=NOW,
        location=place,
        text="SOS",
    )
    made = Arrival(
        party=party,
        role=role,
        id=f"msg_{party}",
        at=NOW,
        at_ns=START_NS + int(after_ms * 1e6),
        body=b"",
        verified=True,
        problem=None,
        notice=Notice(type="case.alert", timestamp=NOW, data=data),
        duplicate=False,
    )
    return replace(made, **changes)


def everybody() -> list[Arrival]:
    return [arrival(party, after_ms=10 + number) for number, party in enumerate(PARTIES)]


def the_case(**changes: Any) -> CaseOut:
    answers = [{"answer": "coming", "minutes": 12, "via": "webhook", "at": NOW}]
    case = {
        "id": CASE,
        "case_class": "emergency",
        "state": "open",
        "district": "320102",
        "kinds": ["sos"],
        "urgency": 1,
        "test": False,
        "received_at": NOW,
        "opened_at": NOW,
        "timezone": "Asia/Shanghai",
        "alarms": [the_alarm()],
        "legs": [
            {
                "id": uuid5(CASE, role),
                "role": role,
                "origin": "plan",
                "state": "delivered",
                "created_at": NOW,
                "notices": [],
                "answers": answers if role == "guardian" else [],
            }
            for role in NANJING
        ],
        "journal": {"entries": 9, "head": "", "intact": True},
    }
    return CaseOut.model_validate(case | changes)


def the_alarm(*, seq: int = 1) -> dict[str, Any]:
    return {
        "id": CASE,
        "terminal_id": "t-1",
        "boot": 1,
        "seq": seq,
        "transport": "mqtt",
        "kinds": ["sos"],
        "test": False,
        "received_at": NOW,
        "stored_at": NOW,
        "problems": [],
        "repeats": 0,
    }


def line(case: CaseOut) -> CaseLineOut:
    return CaseLineOut.model_validate({**case.model_dump(exclude={"legs"}), "legs": {}})


def conclude(record: PressRecord, arrivals: list[Arrival], *cases: CaseOut) -> Verdict:
    found = cases or (the_case(),)
    lines = [line(case) for case in found]
    return demo.judge(record, arrivals, parties=PARTIES, cases=lines, case=found[0], answers=GIVEN)


def failed(verdict: Verdict) -> list[str]:
    return [check.name for check in verdict.checks if not check.passed]


def test_a_press_that_did_everything_passes() -> None:
    verdict = conclude(press(), everybody())
    assert verdict.passed, failed(verdict)
    assert verdict.spread_ms == pytest.approx(5)
    assert verdict.received_ms == pytest.approx(5)
    assert set(verdict.told_ms) == set(NANJING)


@pytest.mark.parametrize(
    ("arrivals", "expected"),
    [
        pytest.param(everybody()[1:], ["guardian", "all within"], id="one was not told"),
        pytest.param([*everybody(), arrival("hotline-1", duplicate=True)], ["hotline"], id="one was told twice"),
        pytest.param([*everybody(), arrival("hotline-1", id="msg_2")], ["hotline"], id="twice under another id"),
        pytest.param([*everybody(), arrival("neighbour-1")], ["nobody else"], id="a stranger was told"),
        pytest.param([arrival("guardian-1", located=False), *everybody()[1:]], ["guardian"], id="no location"),
        pytest.param(
            [arrival("guardian-1", verified=False, problem="signature: no"), *everybody()[1:]],
            ["guardian"],
            id="a bad signature",
        ),
        pytest.param(
            [arrival("guardian-1", notice=None, problem="body: no"), *everybody()[1:]], ["guardian"], id="a bad body"
        ),
        pytest.param([*everybody()[:5], arrival("ambulance_120-1", after_ms=75)], ["all within"], id="one came late"),
        pytest.param([], [*NANJING, "all within"], id="nobody was told"),
        pytest.param(
            [replace(one, notice=arrival(one.party, case=OTHER_CASE).notice) for one in everybody()],
            [*NANJING, "all within"],
            id="they were told of another case",
        ),
    ],
)
def test_what_the_parties_saw_decides(arrivals: list[Arrival], expected: list[str]) -> None:
    names = failed(conclude(press(), arrivals))
    assert len(names) == len(expected)
    assert all(name.startswith(start) for name, start in zip(names, expected, strict=True)), names


def test_what_the_terminal_heard_and_the_gateway_recorded_decides() -> None:
    assert "the terminal heard «received»" in failed(conclude(press(received_ns=None, case=None), everybody()))
    assert failed(conclude(press(), everybody(), the_case(), the_case(id=OTHER_CASE))) == ["exactly one case"]
    assert failed(conclude(press(), everybody(), the_case(id=OTHER_CASE))) == ["exactly one case"]
    for alarms in ([the_alarm(seq=2)], [the_alarm(), the_alarm(seq=2)], []):
        names = failed(conclude(press(), everybody(), the_case(alarms=alarms)))
        assert names == ["the case holds this press and no other"]
    assert failed(conclude(press(), everybody(), the_case(legs=[]))) == ["the answer of guardian 监护人 is on record"]
    broken = the_case(journal={"entries": 9, "head": "", "intact": False, "problem": "entry 3"})
    assert failed(conclude(press(), everybody(), broken)) == ["the journal is whole"]
    technical = the_case(id=OTHER_CASE, case_class="technical")
    assert conclude(press(), everybody(), the_case(), technical).passed
    unread = demo.judge(press(), everybody(), parties=PARTIES, cases=[], case=None, answers=GIVEN)
    assert len(failed(unread)) == 4


@pytest.mark.parametrize(
    ("values", "q", "expected"),
    [([5.0], 0.99, 5.0), ([3.0, 1.0, 2.0], 0.5, 2.0), (list(range(1, 101)), 0.99, 99), (list(range(1, 102)), 1, 101)],
)
def test_a_quantile_is_a_value_that_was_measured(values: list[float], q: float, expected: float) -> None:
    assert figures.quantile(values, q) == expected


def test_latencies_count_from_the_publication_to_each_party() -> None:
    (sample,) = figures.evaluate([press(pressed_ns=0)], everybody())
    assert sample.problems == ()
    assert sample.told_ms == pytest.approx({role: 10.0 + number for number, role in enumerate(NANJING)})
    assert (sample.last_ms, sample.spread_ms, sample.received_ms) == pytest.approx((15, 5, 5))


def test_a_press_that_misses_anything_is_a_problem_and_has_no_figures() -> None:
    def problems(records: list[PressRecord], arrivals: list[Arrival]) -> list[str]:
        samples = figures.evaluate(records, arrivals)
        phase = figures.Phase(name="idle", samples=samples, floors=[])
        assert len(phase.series()["last"]) == sum(not sample.problems for sample in samples)
        return [problem for sample in samples for problem in sample.problems]

    assert problems([press()], everybody()[1:]) == ["press 1/1 of t-1: guardian was never told"]
    assert problems([press(received_ns=None)], everybody()) == ["press 1/1 of t-1: never received"]
    assert len(problems([press(), press(key=PressKey(1, 2))], everybody())) == 2
    forged = [replace(one, problem="signature: no") for one in everybody()[:1]]
    assert problems([press()], forged + everybody()[1:]) == ["press 1/1 of t-1: guardian: signature: no"]


def phase(name: str, *, last_ms: float = 20.0, spread_ms: float = 3.0, asked: float = 0, got: float = 0) -> Phase:
    told = dict.fromkeys(NANJING, last_ms) | {"guardian": last_ms - spread_ms}
    samples = [Sample(told_ms=told, received_ms=4.0) for _ in range(100)]
    return Phase(name=name, samples=samples, floors=[], asked_per_s=asked, confirmed_per_s=got)


def test_the_bars_hold_under_load() -> None:
    idle, loaded = phase("idle", last_ms=500), phase("load", asked=1000, got=990)
    assert figures.judge([idle, loaded]) == ()
    assert figures.judge([idle]) == ("alarm to all six parties, idle: p99 is 500.0 ms, the bar 100 ms",)
    assert len(figures.judge([idle, phase("load", asked=1000, got=900)])) == 1
    assert len(figures.judge([idle, phase("load", last_ms=90, spread_ms=51, asked=1000, got=1000)])) == 1
    nothing = Phase(name="load", samples=[], floors=[], asked_per_s=1, confirmed_per_s=1)
    assert len(figures.judge([idle, nothing])) == 2


def test_packets_are_cut_where_they_end_however_they_come() -> None:
    stream = publish_packet(b"okc/v1/t/up/heartbeat", 7, b"x" * 300) + bytes((0x40, 2, 0, 7)) + bytes((0xD0, 0))
    buffer, seen = bytearray(), []
    for byte in stream:
        buffer.append(byte)
        seen += take_packets(buffer)
    assert [kind for kind, _ in seen] == [0x30, 0x40, 0xD0]
    assert seen[0][1].endswith(b"\x00\x07" + b"x" * 300)
    assert seen[1][1] == b"\x00\x07"
    assert not buffer


def test_a_made_up_site_is_the_same_again_and_points_where_it_is_told(tmp_path: Path) -> None:
    site = made_up(3, seed=1)
    site.point_webhooks(lambda party: f"http://127.0.0.1:1/{party}")
    site.save(tmp_path / "site.yaml")
    read = SiteFile.load(tmp_path / "site.yaml")
    assert read.terminals() == made_up(3, seed=1).terminals() != made_up(3, seed=2).terminals()
    assert [one.role for one in read.responders()] == list(NANJING)
    assert tuple(read.roles_of("sim-00002").values()) == NANJING
    assert "http://127.0.0.1:1/sim-guardian" in (tmp_path / "site.yaml").read_text()
    assert (tmp_path / "site.yaml").stat().st_mode & 0o077 == 0


def test_the_example_has_the_terminal_and_the_parties_of_the_demonstration() -> None:
    site = SiteFile.load(example("nanjing.yaml"))
    site.add_neighbours(["t-9"], Random(1))
    assert set(site.roles_of(demo.PRESSING).values()) == set(NANJING)
    assert site.roles_of("t-9") == site.roles_of(demo.PRESSING)
    assert {"t-9", demo.PRESSING} < {terminal.id for terminal in site.terminals()}
