"""What the telemetry bench calls passed: every bar fails a run by itself, and nothing else does."""

from dataclasses import replace

import pytest

from firmware_sim.bench_telemetry import Run, growth, judge
from firmware_sim.figures import Sample

FLAT = [(n / 10, n * 1000, 150.0) for n in range(100)]
STORED = Run(per_s=9000.0, curve=FLAT)
FLOOR = Run(per_s=14_000.0)


def verdict(
    *, stored: Run = STORED, rows: int = 10, sent: int = 10, last_ms: tuple[float, ...] = (30.0, 60.0)
) -> tuple[str, ...]:
    samples: list[Sample] = []
    return judge(
        floor=FLOOR, stored=stored, rows=rows, sent=sent, samples=samples, last_ms={"beside telemetry": last_ms}
    )


def test_a_run_that_holds_every_bar_passes() -> None:
    assert verdict() == ()


@pytest.mark.parametrize(
    ("failed", "says"),
    [
        (verdict(rows=9), "10 heartbeats were sent and 9 are stored"),
        (verdict(rows=11), "10 heartbeats were sent and 11 are stored"),
        (verdict(stored=replace(STORED, per_s=7999.0)), "0.57 of what the bare client takes"),
        (verdict(stored=replace(STORED, per_s=7999.0)), "7999 reports/s"),
        (verdict(stored=replace(STORED, curve=[(n / 10, n, 100.0 + n) for n in range(100)])), "the memory at the end"),
        (verdict(last_ms=(30.0, 101.0)), "101 ms (p99)"),
    ],
)
def test_every_bar_fails_a_run_by_itself(failed: tuple[str, ...], says: str) -> None:
    assert any(says in failure for failure in failed)


def test_memory_counts_from_when_a_third_of_the_time_is_over() -> None:
    warming_up = [(n / 10, n, 100.0 if n < 30 else 200.0) for n in range(100)]
    assert growth(warming_up) == pytest.approx(1.0)
    assert growth([(0.0, 0, 1.0)]) == 1.0
