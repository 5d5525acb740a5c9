"""``onekey bench parties``: does a party that hangs, breaks or cannot be found delay the others?

Two kinds of households press in turn, so that what else happens on the machine meets both alike: the six parties of
one kind answer at once; of the other kind's six one hangs, one resets the connection and one has a name that no name
server ever answers for. The same three roles are good in both kinds, and only their legs are compared. A gateway that
stalls as a whole would delay both kinds alike, so the first kind is also measured before any bad party was called.
"""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, replace
from itertools import islice
from random import Random
from typing import Any

from rich.console import Console

from firmware_sim.bench import WARM_UP, installed, machine, online, press_one_by_one, settled, undisturbed
from firmware_sim.figures import BARS, Judged, Sample, evaluate, quantile, summary
from firmware_sim.fleet import Fleet, PressRecord
from firmware_sim.responders import Hangs, Resets, Responder, Responders, SilentNameServer
from firmware_sim.sites import NANJING, made_up

__all__ = [
    "BAD",
    "GOOD",
    "LIMIT_MS",
    "SLACK_MS",
    "SLACK_RATIO",
    "Options",
    "Report",
    "chance",
    "judge",
    "legs_ms",
    "limit_ms",
    "run",
]

_HANGING, _RESETTING, _NAMELESS = "guardian", "service_center", "district"
BAD = (_HANGING, _RESETTING, _NAMELESS)
"""Roles whose party is bad in every other household. Each is told before a good one, so that it could be in its way."""
GOOD = tuple(role for role in NANJING if role not in BAD)

_HANGS_S = 30.0
# The top level domain is reserved for this (RFC 6761, 6.2), and nobody is asked for it but our own name server.
_DEAD_URL = "http://platform.onekey-bench.test/hooks"
_TROUBLED = "troubled"

SLACK_MS, SLACK_RATIO = 10.0, 1.2
_SHUFFLES = 1000
LIMIT_MS = next(bar.limit_ms for bar in BARS if bar.of == "last")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to measure. ``presses`` are those of each kind."""

    presses: int = 200
    rate_per_s: float = 5.0
    seed: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Report(Judged):
    """The whole run. ``bad_calls`` says how often each bad party was called; ``chance`` is what `chance` returns."""

    options: Options
    before: tuple[Sample, ...]
    control: tuple[Sample, ...]
    troubled: tuple[Sample, ...]
    chance: float | None
    bad_calls: Mapping[str, int]

    def series(self) -> dict[str, list[float]]:
        """Return the milliseconds of the legs of good parties by kind of press."""
        kinds = {"before": self.before, "control": self.control, "troubled": self.troubled}
        return {name: legs_ms(samples) for name, samples in kinds.items()}

    def document(self) -> dict[str, Any]:
        """Return the report as plain data, with every single sample and without addresses."""
        series = self.series()
        return self.verdict() | {
            "options": asdict(self.options),
            "bad_parties": list(BAD),
            "good_parties": list(GOOD),
            "bad_calls": dict(self.bad_calls),
            "ms": {name: summary(values) for name, values in series.items()},
            "p99_limit_ms": limit_ms(series["control"]) if series["control"] else None,
            "chance": self.chance,
            "samples": {
                name: [asdict(sample) for sample in samples]
                for name, samples in (("before", self.before), ("control", self.control), ("troubled", self.troubled))
            },
        }


def legs_ms(samples: Sequence[Sample]) -> list[float]:
    """Return when each good party was told of each press. Incomplete presses have no figures."""
    return [sample.told_ms[role] for sample in samples if not sample.problems for role in GOOD]


def limit_ms(control_ms: Sequence[float]) -> float:
    """Return what the 99th percentile beside bad parties may be: the larger of the two slacks over the control's."""
    p99_ms = quantile(control_ms, 0.99)
    return max(p99_ms + SLACK_MS, p99_ms * SLACK_RATIO)


def chance(control: Sequence[Sample], troubled: Sequence[Sample], *, rng: Random) -> float | None:
    """Return how often the p99 differs as much as it did when the presses of both kinds are shuffled at random.

    A large share says that the difference is noise of the machine: the slowest legs of a percent of the presses make
    a p99. None where nothing was measured.
    """
    control_ms, troubled_ms = legs_ms(control), legs_ms(troubled)
    if not control_ms or not troubled_ms:
        return None
    found_ms = quantile(troubled_ms, 0.99) - quantile(control_ms, 0.99)
    presses = [*control, *troubled]
    as_large = 0
    for _ in range(_SHUFFLES):
        rng.shuffle(presses)
        first_ms, second_ms = legs_ms(presses[: len(control)]), legs_ms(presses[len(control) :])
        if first_ms and second_ms:
            as_large += quantile(second_ms, 0.99) - quantile(first_ms, 0.99) >= found_ms
    return as_large / _SHUFFLES


def judge(
    *,
    before: Sequence[Sample],
    control: Sequence[Sample],
    troubled: Sequence[Sample],
    bad_calls: Mapping[str, int],
) -> tuple[str, ...]:
    """Return every reason why the run failed, or proves nothing."""
    failures = [problem for sample in (*before, *control, *troubled) for problem in sample.problems]
    failures += [
        f"{name} was never called, so nothing was in the way" for name, calls in bad_calls.items() if not calls
    ]
    control_ms, troubled_ms = legs_ms(control), legs_ms(troubled)
    if not control_ms or not troubled_ms:
        return (*failures, "nothing was measured")
    found_ms, allowed_ms = quantile(troubled_ms, 0.99), limit_ms(control_ms)
    if found_ms > allowed_ms:
        failures.append(
            f"beside bad parties the p99 of good ones is {found_ms:.1f} ms, the control allows {allowed_ms:.1f} ms"
        )
    if found_ms > LIMIT_MS:
        failures.append(f"beside bad parties the p99 of good ones is {found_ms:.1f} ms, the bar {LIMIT_MS:.0f} ms")
    return tuple(failures)


async def run(options: Options, console: Console) -> Report:
    """Start a gateway of its own, measure, and stop it again.

    Raises:
        StackError: The gateway or the terminals did not come up.
    """
    found = machine()
    # Households of the two kinds take turns in the site, and the control presses in two phases.
    site = made_up(
        2 * (WARM_UP + 2 * options.presses), seed=options.seed, prefix="bench", groups=("control", _TROUBLED)
    )
    entries = site.terminals()
    control, troubled = entries[0::2], entries[1::2][: WARM_UP + options.presses]
    async with AsyncExitStack() as cleanup:
        cast = await cleanup.enter_async_context(_cast(site.responders()))
        site.point_webhooks(cast.url)
        settings = {"ONEKEY_DNS_SERVERS": json.dumps([cast.names.address])}
        stack, info = await cleanup.enter_async_context(installed(site, console, settings=settings))
        fleet = await cleanup.enter_async_context(
            online([*control, *troubled], stack, info, seed=options.seed, console=console)
        )
        measure = _Measure(fleet, cast.good, options, console)
        controls, troubles = (iter([entry.id for entry in kind]) for kind in (control, troubled))
        await measure.phase("warm-up", list(islice(controls, WARM_UP)))
        before = await measure.phase("before any bad party", list(islice(controls, options.presses)))
        await measure.phase("warm-up beside bad parties", list(islice(troubles, WARM_UP)))
        both = await measure.phase(
            "in turn", [terminal for pair in zip(controls, troubles, strict=True) for terminal in pair]
        )
        arrivals = cast.good.arrivals
        kinds = {
            "before": tuple(evaluate(before, arrivals)),
            "control": tuple(evaluate(both[0::2], arrivals)),
            "troubled": tuple(evaluate(both[1::2], arrivals, roles=GOOD)),
        }
        calls = cast.calls()
        return Report(
            options=options,
            machine=found,
            failures=judge(**kinds, bad_calls=calls),
            chance=chance(kinds["control"], kinds["troubled"], rng=Random(options.seed)),
            bad_calls=calls,
            **kinds,
        )


@dataclass(frozen=True, slots=True)
class _Cast:
    """Who plays whom. The bad ones have servers of their own: connections are kept by host, and real parties differ."""

    good: Responders
    bad: Mapping[str, Responders]
    names: SilentNameServer

    def url(self, party: str) -> str:
        """Return where the webhooks of `party` go."""
        for server in (self.good, *self.bad.values()):
            if party in server.parties:
                return server.url(party)
        return _DEAD_URL

    def calls(self) -> dict[str, int]:
        """Return how often each of the bad ones was called."""
        requests = {name: len(server.arrivals) for name, server in self.bad.items()}
        return requests | {"the dead name": self.names.queries}


@asynccontextmanager
async def _cast(parties: Sequence[Responder]) -> AsyncIterator[_Cast]:
    troubled = {party.role: party for party in parties if _TROUBLED in party.party and party.role in BAD}
    async with (
        Responders(party for party in parties if party not in troubled.values()).serving() as good,
        Responders([replace(troubled[_HANGING], behaviour=Hangs(_HANGS_S))]).serving() as hanging,
        Responders([replace(troubled[_RESETTING], behaviour=Resets())]).serving() as resetting,
        SilentNameServer.serving() as names,
    ):
        yield _Cast(good, {"the hanging party": hanging, "the resetting party": resetting}, names)


class _Measure:
    """Presses keys one by one and waits for the good parties that they lead to."""

    def __init__(self, fleet: Fleet, good: Responders, options: Options, console: Console) -> None:
        self._fleet = fleet
        self._good = good
        self._options = options
        self._console = console
        self._rng = Random(options.seed)

    async def phase(self, name: str, terminals: Sequence[str]) -> list[PressRecord]:
        """Press the keys of `terminals` in their order."""
        with undisturbed():
            records = await press_one_by_one(
                name,
                terminals,
                self._fleet,
                rate_per_s=self._options.rate_per_s,
                rng=self._rng,
                console=self._console,
            )
            await settled(self._fleet, self._good, records, roles=GOOD)
        return records
