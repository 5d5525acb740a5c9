"""What ``bench storm --technical`` concludes from falls beside technical alarms."""

from pathlib import Path

import pytest

from firmware_sim.bench_technical import SLACK_MS, Options, Report, judge
from firmware_sim.figures import Sample
from firmware_sim.sites import NANJING, TECHNICAL, made_up
from gateway.site.load import load


def fall(last_ms: float, *problems: str) -> Sample:
    """Return a fall of which the last party was told after so long, the first in half the time."""
    return Sample(told_ms={"guardian": last_ms / 2, "hotline": last_ms}, received_ms=last_ms / 4, problems=problems)


IDLE = [fall(20.0)] * 20


@pytest.mark.parametrize(
    ("midst", "held"),
    [
        ([fall(20.0 + SLACK_MS)] * 20, True),
        ([fall(20.1 + SLACK_MS)] * 20, False),
        # One of twenty may be slow: the bar is the 95th percentile.
        ([fall(30.0)] * 19 + [fall(5000.0)], True),
        ([fall(30.0)] * 18 + [fall(5000.0)] * 2, False),
    ],
)
def test_the_bar_is_how_much_later_than_on_the_idle_system(midst: list[Sample], held: bool) -> None:
    failures = judge(IDLE, midst, [fall(1.0)])
    assert (failures == ()) is held, failures


def test_a_technical_alarm_that_is_lost_fails_the_run() -> None:
    lost = fall(1.0, "press 1/1 of t-9: community was never told")
    assert judge(IDLE, IDLE, [fall(1.0), lost]) == ("press 1/1 of t-9: community was never told",)


def test_a_fall_with_a_problem_has_no_figures() -> None:
    broken = fall(1.0, "press 1/1 of t-1: never received")
    assert judge(IDLE, [broken], []) == ("press 1/1 of t-1: never received", "nothing was measured")


def test_the_report_has_every_fall_of_both_sides() -> None:
    report = Report(
        options=Options(technical=100, falls=2),
        machine={},
        failures=(),
        idle=(fall(20.0), fall(30.0)),
        midst=(fall(40.0), fall(60.0, "lost")),
        waiting=((100, 200), (50, 90)),
        technical=(fall(900.0),),
        took_s=1.5,
        busy={"gateway": 0.8},
    )
    assert report.series()["idle: last"] == [20.0, 30.0]
    assert report.series()["midst: first"] == [20.0]
    document = report.document()
    assert document["technical_last_ms"]["max"] == 900.0
    assert len(document["samples"]["midst"]) == 2


def test_only_those_who_mend_terminals_hear_of_broken_ones(tmp_path: Path) -> None:
    made_up(3, seed=1, technical=True).save(tmp_path / "site.yaml")
    plans = load(tmp_path / "site.yaml").site.plans
    told = {kind: [one.role for one in plan.roles] for plan in plans for kind in plan.kinds}
    assert told["*"] == list(NANJING)
    assert told["power_lost"] == told["low_battery"] == list(TECHNICAL)
