"""``onekey bench history``: does opening a case take longer when a million are closed?

Two gateways are pressed in turn, so that what else happens on the machine meets both alike: one without a past, one
whose history is full. For the latter some cases are opened and closed by an operator and then copied by the database,
spread over all households, so every one that presses has a past of its own. No key is pressed twice.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from random import Random
from typing import Any
from uuid import UUID

import aiohttp
from rich.console import Console

from firmware_sim.bench import WARM_UP, close_cases, installed, machine, online, progress_bar, settled, undisturbed
from firmware_sim.figures import Judged, Sample, evaluate, quantile, summary
from firmware_sim.fleet import Fleet, PressRecord
from firmware_sim.history import copy_cases, count_rows
from firmware_sim.responders import Responders
from firmware_sim.seat import Seat
from firmware_sim.sites import made_up
from firmware_sim.stack import StackError

__all__ = ["RATIO", "Options", "Report", "judge", "run"]

RATIO = 1.2
"""How much longer the median press may take until its case is committed (design, section 5)."""

_ORIGINALS = 100
_ORIGINAL_EVERY_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to measure. ``presses`` are those of each gateway, ``cases`` how many are closed in the full one."""

    presses: int = 200
    cases: int = 1_000_000
    rate_per_s: float = 5.0
    seed: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Report(Judged):
    """The whole run. ``closed`` and ``bytes`` are what the full database held."""

    options: Options
    empty: tuple[Sample, ...]
    full: tuple[Sample, ...]
    closed: int
    bytes: int

    def series(self) -> dict[str, dict[str, list[float]]]:
        """Return milliseconds from publication to ``received`` and to the last of six, for both gateways."""
        return {"empty": _series(self.empty), "full": _series(self.full)}

    def document(self) -> dict[str, Any]:
        """Return the report as plain data, with every single sample and without addresses."""
        return self.verdict() | {
            "options": asdict(self.options),
            "ratio_limit": RATIO,
            "closed": self.closed,
            "bytes": self.bytes,
            "ms": {
                half: {name: summary(values) for name, values in series.items()}
                for half, series in self.series().items()
            },
            "samples": {"empty": [asdict(one) for one in self.empty], "full": [asdict(one) for one in self.full]},
        }


def _series(samples: Sequence[Sample]) -> dict[str, list[float]]:
    whole = [sample for sample in samples if not sample.problems]
    return {
        "received": [sample.received_ms for sample in whole if sample.received_ms is not None],
        "last": [sample.last_ms for sample in whole],
    }


def judge(*, empty: Sequence[Sample], full: Sequence[Sample], closed: int, wanted: int) -> tuple[str, ...]:
    """Return every reason why the run failed, or proves nothing."""
    failures = [problem for sample in (*empty, *full) for problem in sample.problems]
    if closed < wanted:
        failures.append(f"only {closed} of {wanted} cases were closed, so the history was not full")
    before, after = _series(empty)["received"], _series(full)["received"]
    if not before or not after:
        failures.append("nothing was measured")
    elif (ratio := quantile(after, 0.5) / quantile(before, 0.5)) > RATIO:
        failures.append(f"a case takes {ratio:.2f} × as long to open, the bar is {RATIO:g} ×")
    return tuple(failures)


async def run(options: Options, console: Console) -> Report:
    """Start two gateways of its own, fill the history of one, measure both in turn, and stop them.

    Raises:
        StackError: A gateway or its terminals did not come up, or the first cases could not be closed.
    """
    found = machine()
    async with AsyncExitStack() as cleanup:
        empty = await cleanup.enter_async_context(_gateway("empty", WARM_UP + options.presses, options, console))
        full = await cleanup.enter_async_context(
            _gateway("full", WARM_UP + options.presses + _ORIGINALS, options, console)
        )
        await _fill(full, await full.originals(console), options, console)
        closed, size = await count_rows(full.database)
        rng = Random(options.seed)
        with undisturbed(), console.status("Pressing in turn …") as status:
            for number in range(WARM_UP + options.presses):
                for gateway in rng.sample((empty, full), 2):
                    await asyncio.sleep(rng.uniform(0.5, 1.5) / options.rate_per_s)
                    gateway.press()
                status.update(f"Pressing in turn: {number + 1} of {WARM_UP + options.presses}")
            samples = {gateway.name: await gateway.samples() for gateway in (empty, full)}
        return Report(
            options=options,
            machine=found,
            failures=judge(**samples, closed=closed, wanted=options.cases),
            closed=closed,
            bytes=size,
            **samples,
        )


@dataclass(slots=True)
class _Gateway:
    """One installation with its terminals, each of which presses once, and its six parties."""

    name: str
    database: str
    households: Sequence[str]
    seat: Seat
    fleet: Fleet
    responders: Responders
    unpressed: Iterator[str]
    records: list[PressRecord] = field(default_factory=list)

    def press(self) -> None:
        """Press the next key."""
        self.records.append(self.fleet.press(next(self.unpressed)))

    async def samples(self) -> tuple[Sample, ...]:
        """Wait for all that follows, and return the figures of all but the warm-up."""
        await settled(self.fleet, self.responders, self.records)
        return tuple(evaluate(self.records[WARM_UP:], self.responders.arrivals))

    async def originals(self, console: Console) -> list[UUID]:
        """Press keys that do not count, and return their cases.

        Raises:
            StackError: One was not received.
        """
        with console.status(f"Opening {_ORIGINALS} cases …"):
            for _ in range(_ORIGINALS):
                await asyncio.sleep(_ORIGINAL_EVERY_S)
                self.press()
            await settled(self.fleet, self.responders, self.records)
        cases = [record.case for record in self.records if record.case is not None]
        self.records.clear()
        if len(cases) < _ORIGINALS:
            raise StackError(f"only {len(cases)} of {_ORIGINALS} presses were received")
        return cases


@asynccontextmanager
async def _gateway(name: str, terminals: int, options: Options, console: Console) -> AsyncIterator[_Gateway]:
    site = made_up(terminals, seed=options.seed, prefix=name)
    entries = site.terminals()
    async with AsyncExitStack() as cleanup:
        responders = await cleanup.enter_async_context(Responders(site.responders()).serving())
        site.point_webhooks(responders.url)
        stack, info = await cleanup.enter_async_context(installed(site, console))
        if info.database is None:
            raise StackError("run.json names no database, so its history cannot be filled")
        fleet = await cleanup.enter_async_context(online(entries, stack, info, seed=options.seed, console=console))
        client = await cleanup.enter_async_context(aiohttp.ClientSession())
        yield _Gateway(
            name=name,
            database=info.database,
            households=sorted({entry.household for entry in entries if entry.household is not None}),
            seat=Seat(client, info.http, await stack.create_key(role="operator", name="bench"), "seat-bench"),
            fleet=fleet,
            responders=responders,
            unpressed=iter(fleet.terminals),
        )


async def _fill(gateway: _Gateway, cases: Sequence[UUID], options: Options, console: Console) -> None:
    """Have an operator close the cases, and copy them until there are enough."""
    await close_cases(gateway.seat, cases, console)
    with progress_bar("Closed cases", options.cases, console) as show:
        await copy_cases(gateway.database, to=options.cases, households=gateway.households, progress=show)
