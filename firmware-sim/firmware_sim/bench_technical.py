"""``onekey bench storm --technical``: a fall in the middle of thousands of broken terminals.

A district loses its mains, and every terminal says so within seconds. Whoever falls then must be heard as soon as on a
quiet day: emergencies overtake what can wait, when they are stored and when they are sent. Falls are pressed one after
the other, first on the idle system and then, by other terminals, while the technical alarms come in and are worked off.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from random import Random
from typing import Any

from rich.console import Console

from firmware_sim import receivers, volley
from firmware_sim.bench import WARM_UP, machine
from firmware_sim.bench_storm import Press, Stage, Watch, stage, told_under_two_ids
from firmware_sim.figures import Judged, Sample, evaluate, quantile, summary
from firmware_sim.sites import NANJING, TECHNICAL, made_up

__all__ = ["SLACK_MS", "TECHNICAL_PER_S", "Options", "Report", "judge", "run"]

SLACK_MS = 100.0
"""How much later than on the idle system the last party may hear of a fall, at the 95th percentile."""

_KINDS = ("power_lost", "low_battery")
_PAUSE_S = 0.25
TECHNICAL_PER_S = 2000.0
"""How fast terminals find that their power is gone: faster than a gateway can open cases for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to measure: so many technical alarms at once, and so many falls on each side."""

    technical: int = 10_000
    falls: int = 30
    seed: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Report(Judged):
    """The whole run.

    Attributes:
        idle: The falls on the idle system.
        midst: Those in the midst of the technical alarms.
        waiting: How many technical alarms were not yet committed, and notices of them not yet sent, at each of those.
        technical: The technical alarms themselves.
        took_s: From the first of these to the last notice of any.
    """

    options: Options
    idle: tuple[Sample, ...]
    midst: tuple[Sample, ...]
    waiting: tuple[tuple[int, int], ...]
    technical: tuple[Sample, ...]
    took_s: float
    busy: Mapping[str, float]

    def series(self) -> dict[str, list[float]]:
        """Return the milliseconds from a fall to ``received`` at its terminal and to its first and last party."""
        named: dict[str, list[float]] = {}
        for name, samples in (("idle", self.idle), ("midst", self.midst)):
            whole = [sample for sample in samples if not sample.problems]
            named[f"{name}: received"] = [one.received_ms for one in whole if one.received_ms is not None]
            named[f"{name}: first"] = [min(one.told_ms.values()) for one in whole]
            named[f"{name}: last"] = [one.last_ms for one in whole]
        return named

    def document(self) -> dict[str, Any]:
        """Return the report as plain data, with every single fall and without addresses."""
        technical_ms = [sample.last_ms for sample in self.technical if not sample.problems]
        return self.verdict() | {
            "options": asdict(self.options),
            "slack_ms": SLACK_MS,
            "ms": {name: summary(values) for name, values in self.series().items()},
            "technical_last_ms": summary(technical_ms),
            "waiting": [list(pair) for pair in self.waiting],
            "took_s": round(self.took_s, 2),
            "busy": dict(self.busy),
            "samples": {
                "idle": [asdict(sample) for sample in self.idle],
                "midst": [asdict(sample) for sample in self.midst],
            },
        }


def judge(idle: Sequence[Sample], midst: Sequence[Sample], technical: Sequence[Sample]) -> tuple[str, ...]:
    """Return every reason why the run failed."""
    failures = [problem for sample in (*idle, *midst, *technical) for problem in sample.problems]
    before, beside = ([one.last_ms for one in samples if not one.problems] for samples in (idle, midst))
    if not before or not beside:
        return (*failures, "nothing was measured")
    idle_ms, midst_ms = quantile(before, 0.95), quantile(beside, 0.95)
    if midst_ms > idle_ms + SLACK_MS:
        failures.append(
            f"the last party hears of a fall after {midst_ms:.0f} ms (p95), on the idle system after {idle_ms:.0f} ms; "
            f"the bar is {SLACK_MS:.0f} ms more"
        )
    return tuple(failures)


async def run(options: Options, console: Console) -> Report:
    """Start a gateway of its own, measure, and stop it again.

    Raises:
        StackError: The gateway, the terminals or the parties did not come up.
    """
    found = machine()
    site = made_up(WARM_UP + 2 * options.falls + options.technical, seed=options.seed, prefix="bench", technical=True)
    async with stage(site, console) as on:
        falls = WARM_UP + 2 * options.falls
        kinds = ["fall"] * falls + [_KINDS[number % len(_KINDS)] for number in range(options.technical)]
        presses = [
            Press(entry, Random(f"{options.seed}/{entry.id}"), kind=kind)
            for entry, kind in zip(on.entries, kinds, strict=True)
        ]
        notices = falls * len(NANJING) + options.technical * len(TECHNICAL)
        watch = Watch(on, received=len(presses), notices=notices)
        with console.status("Falls on the idle system …"):
            for number in range(WARM_UP + options.falls):
                await on.terminals.tell(asdict(volley.Fire(payloads=[(number, presses[number].payload)])))
                await asyncio.sleep(_PAUSE_S)
        await watch.begin()
        with console.status(f"{options.technical} technical alarms, and falls in their midst …") as status:
            waiting = await _midst(on, presses, options)
            await watch.until_still(status.update)
        with console.status("Checking every webhook …"):
            await on.collect(presses)
    records = [press.record for press in presses]
    idle = evaluate(records[WARM_UP : WARM_UP + options.falls], on.book.arrivals)
    midst = evaluate(records[WARM_UP + options.falls : falls], on.book.arrivals)
    technical = evaluate(records[falls:], on.book.arrivals, roles=TECHNICAL)
    return Report(
        options=options,
        machine=found,
        failures=judge(idle, midst, technical) + tuple(told_under_two_ids(on.book.arrivals)),
        idle=tuple(idle),
        midst=tuple(midst),
        waiting=tuple(waiting),
        technical=tuple(technical),
        took_s=watch.took_s,
        busy=watch.busy(),
    )


async def _midst(on: Stage, presses: Sequence[Press], options: Options) -> list[tuple[int, int]]:
    """Let everything break at once and press falls meanwhile; returns what of the former waited at each of these."""
    falls = WARM_UP + 2 * options.falls
    before = WARM_UP + options.falls
    told_before = before * len(NANJING)
    payloads = [(number, presses[number].payload) for number in range(falls, len(presses))]
    await on.terminals.tell(asdict(volley.Fire(payloads=payloads, over_s=options.technical / TECHNICAL_PER_S)))
    await asyncio.sleep(_PAUSE_S)
    waiting = []
    for count, number in enumerate(range(before, falls)):
        await on.terminals.tell(asdict(volley.Fire(payloads=[(number, presses[number].payload)])))
        received = volley.Seen(**await on.terminals.ask("progress")).received - before - count
        sent = receivers.Seen(**await on.parties.ask("progress")).notices - told_before - count * len(NANJING)
        waiting.append((options.technical - max(0, received), options.technical * len(TECHNICAL) - max(0, sent)))
        await asyncio.sleep(_PAUSE_S)
    return waiting
