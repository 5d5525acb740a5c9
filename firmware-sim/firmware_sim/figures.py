"""What a bench measured, as values: samples, phases, the verdict against the bars. No I/O in here."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import ceil
from typing import Any
from uuid import UUID

from firmware_sim.fleet import PressRecord
from firmware_sim.responders import Arrival
from firmware_sim.sites import NANJING

__all__ = [
    "BARS",
    "QUANTILES",
    "Bar",
    "Floor",
    "Judged",
    "Options",
    "Phase",
    "Report",
    "Sample",
    "evaluate",
    "judge",
    "quantile",
    "summary",
]

QUANTILES = (0.5, 0.95, 0.99, 1.0)

_RATE_SLACK = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """What has to hold for the 99th percentile, in milliseconds (design, section 5)."""

    name: str
    of: str
    limit_ms: float


BARS = (
    Bar(name="alarm to all six parties", of="last", limit_ms=100.0),
    Bar(name="spread between first and last party", of="spread", limit_ms=50.0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to measure. ``presses`` are those of each phase; ``heartbeats_per_s`` is the load of the second one."""

    presses: int = 300
    rate_per_s: float = 5.0
    heartbeats_per_s: float = 1000.0
    database: str | None = field(default=None, repr=False)
    mqtt: str | None = field(default=None, repr=False)
    seed: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """One sample of what cannot be undercut, in milliseconds."""

    mqtt_ms: float
    commit_ms: float
    http_ms: float

    @property
    def total_ms(self) -> float:
        """The three one after the other."""
        return self.mqtt_ms + self.commit_ms + self.http_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One press. Times are milliseconds since its first publication; ``problems`` say what did not come."""

    told_ms: Mapping[str, float]
    received_ms: float | None
    problems: tuple[str, ...] = ()

    @property
    def last_ms(self) -> float:
        """When the last party was told."""
        return max(self.told_ms.values())

    @property
    def spread_ms(self) -> float:
        """From the first party told to the last."""
        return max(self.told_ms.values()) - min(self.told_ms.values())


@dataclass(slots=True, kw_only=True)
class Phase:
    """What was measured under one load."""

    name: str
    samples: list[Sample]
    floors: list[Floor]
    asked_per_s: float = 0.0
    confirmed_per_s: float = 0.0

    def series(self) -> dict[str, list[float]]:
        """Return the figures by name: floor, each role, last, spread, received. Incomplete presses have none."""
        whole = [sample for sample in self.samples if not sample.problems]
        named = {"floor": [floor.total_ms for floor in self.floors]}
        for role in NANJING:
            named[role] = [sample.told_ms[role] for sample in whole]
        named["last"] = [sample.last_ms for sample in whole]
        named["spread"] = [sample.spread_ms for sample in whole]
        named["received"] = [sample.received_ms for sample in whole if sample.received_ms is not None]
        return named


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What every report says. ``failures`` is empty when every bar was held and nothing is missing."""

    machine: Mapping[str, Any]
    failures: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether every bar was held and nothing is missing."""
        return not self.failures

    def verdict(self) -> dict[str, Any]:
        """Return the beginning of every document."""
        return {"passed": self.passed, "failures": list(self.failures), "machine": dict(self.machine)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report(Judged):
    """The whole run of ``bench press``."""

    options: Options
    phases: tuple[Phase, ...]
    duplicates: int

    def document(self) -> dict[str, Any]:
        """Return the report as plain data, with every single sample and without addresses."""
        return self.verdict() | {
            "options": {
                "presses": self.options.presses,
                "rate_per_s": self.options.rate_per_s,
                "heartbeats_per_s": self.options.heartbeats_per_s,
                "seed": self.options.seed,
            },
            "bars": [asdict(bar) for bar in BARS],
            "duplicates": self.duplicates,
            "phases": [
                {
                    "name": phase.name,
                    "heartbeats_asked_per_s": phase.asked_per_s,
                    "heartbeats_confirmed_per_s": round(phase.confirmed_per_s, 1),
                    "ms": {name: summary(values) for name, values in phase.series().items() if values},
                    "samples": [asdict(sample) for sample in phase.samples],
                    "floors": [asdict(floor) for floor in phase.floors],
                }
                for phase in self.phases
            ],
        }


def quantile(values: Sequence[float], q: float) -> float:
    """Return the smallest of `values` that at least the share `q` of them does not exceed (nearest rank).

    Raises:
        ValueError: There are no values.
    """
    if not values:
        raise ValueError("no values")
    return sorted(values)[max(0, ceil(q * len(values)) - 1)]


def summary(values: Sequence[float]) -> dict[str, float]:
    """Return the quantiles by name and the number of `values`; of none, only the number."""
    names = {q: "max" if q == 1.0 else f"p{round(q * 100)}" for q in QUANTILES}
    return {names[q]: round(quantile(values, q), 3) for q in QUANTILES if values} | {"n": len(values)}


def evaluate(
    presses: Sequence[PressRecord], arrivals: Iterable[Arrival], *, roles: Sequence[str] = NANJING
) -> list[Sample]:
    """Match presses with what reached the parties of these roles, by the case that the terminal was told.

    A press that shares its case with another one, or that any party was not told of, is a problem of its own.
    """
    by_case: dict[UUID, dict[str, Arrival]] = {}
    wrong: dict[UUID, list[str]] = {}
    for arrival in arrivals:
        case = arrival.case
        if case is None:
            continue
        if arrival.problem is not None:
            wrong.setdefault(case, []).append(f"{arrival.role}: {arrival.problem}")
        by_case.setdefault(case, {}).setdefault(arrival.role, arrival)
    presses_of = Counter(press.case for press in presses)
    samples = []
    for press in presses:
        name = f"press {press.key.boot}/{press.key.seq} of {press.terminal}"
        if press.case is None or press.received_ns is None or press.published_ns is None:
            samples.append(Sample(told_ms={}, received_ms=None, problems=(f"{name}: never received",)))
            continue
        told = by_case.get(press.case, {})
        problems = [f"{name}: {role} was never told" for role in roles if role not in told]
        problems += [f"{name}: {problem}" for problem in wrong.get(press.case, ())]
        if presses_of[press.case] > 1:
            problems.append(f"{name}: its case holds another press")
        samples.append(
            Sample(
                told_ms={role: (told[role].at_ns - press.published_ns) / 1e6 for role in roles if role in told},
                received_ms=(press.received_ns - press.published_ns) / 1e6,
                problems=tuple(problems),
            )
        )
    return samples


def judge(phases: Sequence[Phase]) -> tuple[str, ...]:
    """Return every reason why the run failed. The bars are those of the phase with the highest load."""
    failures = [problem for phase in phases for sample in phase.samples for problem in sample.problems]
    decisive = max(phases, key=lambda phase: phase.asked_per_s)
    if decisive.confirmed_per_s < _RATE_SLACK * decisive.asked_per_s:
        failures.append(
            f"{decisive.name}: {decisive.confirmed_per_s:.0f} heartbeats/s were confirmed, "
            f"{decisive.asked_per_s:.0f}/s asked for"
        )
    series = decisive.series()
    for bar in BARS:
        if not series[bar.of]:
            failures.append(f"{bar.name}: nothing was measured")
        elif (found_ms := quantile(series[bar.of], 0.99)) > bar.limit_ms:
            failures.append(f"{bar.name}, {decisive.name}: p99 is {found_ms:.1f} ms, the bar {bar.limit_ms:.0f} ms")
    return tuple(failures)
