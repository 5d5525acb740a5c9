"""What ``bench history`` concludes from two gateways that were pressed in turn."""

from io import StringIO

import pytest
from rich.console import Console

from firmware_sim.bench_history import RATIO, Options, Report, judge
from firmware_sim.bench_report import show_history
from firmware_sim.figures import Sample
from firmware_sim.sites import NANJING

LOST = Sample(told_ms={}, received_ms=None, problems=("press 1/1 of t-1: never received",))


def samples(*received_ms: float) -> list[Sample]:
    """Return presses that were committed after so long, and told to all six a little later."""
    return [Sample(told_ms=dict.fromkeys(NANJING, ms + 5), received_ms=ms) for ms in received_ms]


def failures(empty: list[Sample], full: list[Sample], *, closed: int = 1000) -> tuple[str, ...]:
    return judge(empty=empty, full=full, closed=closed, wanted=1000)


def report(empty: list[Sample], full: list[Sample]) -> Report:
    return Report(
        machine={"cores": 2, "cores_usable": 2, "python": "3", "system": "x", "load_average_before": [0.0, 0.0, 0.0]},
        failures=failures(empty, full),
        options=Options(presses=3, cases=1000),
        empty=tuple(empty),
        full=tuple(full),
        closed=1000,
        bytes=40_000_000,
    )


def shown(made: Report) -> str:
    out = StringIO()
    show_history(made, Console(file=out, width=120))
    return out.getvalue()


def test_the_bar_is_a_ratio_of_medians() -> None:
    assert failures(samples(10, 10, 300), samples(10 * RATIO, 10 * RATIO, 1)) == ()
    assert failures(samples(10, 10, 1), samples(12.2, 12.2, 1)) == (
        "a case takes 1.22 × as long to open, the bar is 1.2 ×",
    )


def test_a_history_that_makes_it_quicker_fails_nothing() -> None:
    assert failures(samples(20), samples(10)) == ()


def test_a_history_that_is_not_full_proves_nothing() -> None:
    assert failures(samples(10), samples(10), closed=999) == (
        "only 999 of 1000 cases were closed, so the history was not full",
    )


@pytest.mark.parametrize("lost", ["empty", "full"])
def test_a_press_that_is_lost_fails_the_run_at_either_gateway_and_has_no_figures(lost: str) -> None:
    both = {"empty": samples(10, 10), "full": samples(11, 11)}
    both[lost] = [*both[lost], LOST]
    assert failures(**both) == LOST.problems
    assert report(**both).series()[lost]["received"] == ([10, 10] if lost == "empty" else [11, 11])


def test_nothing_measured_is_no_success() -> None:
    assert failures([LOST], samples(10)) == (*LOST.problems, "nothing was measured")
    assert failures([], []) == ("nothing was measured",)


def test_the_document_holds_every_sample_of_both() -> None:
    document = report(samples(10, 11, 12), samples(11, 12, 13)).document()
    assert document["ms"]["full"]["received"]["p50"] == 12
    assert document["ms"]["empty"]["last"]["p50"] == 16
    assert [one["received_ms"] for one in document["samples"]["full"]] == [11, 12, 13]
    assert (document["closed"], document["ratio_limit"], document["failures"]) == (1000, RATIO, [])


def test_the_report_shows_both_their_ratio_and_the_verdict() -> None:
    text = shown(report(samples(10, 10, 10), samples(11, 11, 11)))
    assert "1,000 closed cases in the full history, 0.0 GB of database" in text
    assert "no history" in text
    assert "1.10" in text
    assert "1.30 ×" not in text
    missed = shown(report(samples(10), samples(13)))
    assert "a case takes 1.30 × as long to open, the bar is 1.2 ×" in missed


def test_a_run_that_measured_nothing_is_shown_all_the_same() -> None:
    assert "nothing was measured" in shown(report([LOST], [LOST]))
