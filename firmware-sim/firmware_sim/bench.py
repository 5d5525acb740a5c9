"""``onekey bench press``: how long from a key to each of six parties, beside what the same machine can do at best.

Every press stands alone: a terminal and a household of its own, so each opens a new case with six legs. Between
two presses the floor is sampled against the same broker, database and HTTP server: one QoS 1 publication of a
terminal until a subscriber has it, one row inserted and committed, one HTTP request, one after the other. No
gateway that stores before it tells can be faster.
"""

import asyncio
import gc
import json
import os
import platform
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from math import ceil
from pathlib import Path
from random import Random
from time import monotonic, monotonic_ns
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import UUID

import aiohttp
import aiomqtt
import psycopg
from rich.console import Console
from rich.table import Table
from rich.text import Text

from firmware_sim import fleet as fleets
from firmware_sim import stack as stacks
from firmware_sim.fleet import Broker, Fleet, PressRecord
from firmware_sim.load import Orders, Progress
from firmware_sim.responders import Arrival, Responders
from firmware_sim.sites import NANJING, ROLE_WORDS, TerminalEntry, made_up
from firmware_sim.stack import Stack, StackError
from protocols.okc import Up, up_topic
from schemas.reports import HeartbeatReport

__all__ = [
    "BARS",
    "Bar",
    "Floor",
    "Options",
    "Phase",
    "Report",
    "Sample",
    "evaluate",
    "judge",
    "plot",
    "quantile",
    "run",
    "show",
]

_WARM_UP = 10
_ARRIVE_WITHIN_S = 10.0
_ONLINE_WITHIN_S = 120.0
_STEADY_WITHIN_S = 20.0
_LOAD_TERMINALS = 100
_RATE_SLACK = 0.95
_QUANTILES = (0.5, 0.95, 0.99, 1.0)


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
class Report:
    """The whole run. ``failures`` is empty when every bar was held and nothing is missing."""

    options: Options
    machine: Mapping[str, Any]
    phases: tuple[Phase, ...]
    duplicates: int
    failures: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether every bar was held and nothing is missing."""
        return not self.failures

    def document(self) -> dict[str, Any]:
        """Return the report as plain data, with every single sample and without addresses."""
        return {
            "passed": self.passed,
            "failures": list(self.failures),
            "machine": dict(self.machine),
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
                    "ms": {
                        name: {_label(q): round(quantile(values, q), 3) for q in _QUANTILES} | {"n": len(values)}
                        for name, values in phase.series().items()
                        if values
                    },
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


def _label(q: float) -> str:
    return "max" if q == 1.0 else f"p{round(q * 100)}"


def evaluate(presses: Sequence[PressRecord], arrivals: Iterable[Arrival]) -> list[Sample]:
    """Match presses with what reached the parties, by the case that the terminal was told.

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
    shared = [press.case for press in presses]
    samples = []
    for press in presses:
        name = f"press {press.key.boot}/{press.key.seq} of {press.terminal}"
        if press.case is None or press.received_ns is None or press.published_ns is None:
            samples.append(Sample(told_ms={}, received_ms=None, problems=(f"{name}: never received",)))
            continue
        told = by_case.get(press.case, {})
        problems = [f"{name}: {role} was never told" for role in NANJING if role not in told]
        problems += [f"{name}: {problem}" for problem in wrong.get(press.case, ())]
        if shared.count(press.case) > 1:
            problems.append(f"{name}: its case holds another press")
        samples.append(
            Sample(
                told_ms={role: (told[role].at_ns - press.published_ns) / 1e6 for role in NANJING if role in told},
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


# ---------------------------------------------------------------- the floor


class _FloorProbe:
    """A terminal, a subscriber, a database connection and an HTTP client that do nothing but the bare steps."""

    def __init__(
        self,
        *,
        terminal: str,
        publisher: aiomqtt.Client,
        subscriber: aiomqtt.Client,
        database: psycopg.AsyncConnection,
        http: aiohttp.ClientSession,
        url: str,
    ) -> None:
        self._topic = up_topic(terminal, Up.HEARTBEAT)
        self._publisher = publisher
        self._subscriber = subscriber
        self._database = database
        self._http = http
        self._url = url
        self._seq = 0

    async def sample(self) -> Floor:
        self._seq += 1
        beat = HeartbeatReport(v=1, boot=1, seq=self._seq, at=datetime.now(UTC)).model_dump_json()
        async with asyncio.TaskGroup() as tasks:
            began_ns = monotonic_ns()
            tasks.create_task(self._publisher.publish(self._topic, beat, 1), name="floor")
            await anext(aiter(self._subscriber.messages))
            heard_ns = monotonic_ns()
        executing_ns = monotonic_ns()
        await self._database.execute("INSERT INTO onekey_bench_floor (payload) VALUES (%s)", (beat,))
        await self._database.commit()
        committed_ns = monotonic_ns()
        async with self._http.post(self._url, data=beat) as response:
            await response.read()
        return Floor(
            mqtt_ms=(heard_ns - began_ns) / 1e6,
            commit_ms=(committed_ns - executing_ns) / 1e6,
            http_ms=(monotonic_ns() - committed_ns) / 1e6,
        )


@asynccontextmanager
async def _floor_probe(
    info: stacks.RunInfo, *, broker_url: str | None, terminal: TerminalEntry, responders: Responders
) -> AsyncIterator[_FloorProbe]:
    if info.database is None or broker_url is None:
        raise StackError("run.json names no database or broker, so there is no floor to compare with")
    broker, own = Broker.from_url(info.mqtt), urlsplit(broker_url)
    async with (
        aiomqtt.Client(
            broker.host,
            broker.port,
            identifier=terminal.id,
            username=terminal.id,
            password=terminal.secret,
            protocol=aiomqtt.ProtocolVersion.V311,
        ) as publisher,
        aiomqtt.Client(
            own.hostname or broker.host,
            own.port or broker.port,
            identifier="onekey-bench-floor",
            username=None if own.username is None else unquote(own.username),
            password=None if own.password is None else unquote(own.password),
            protocol=aiomqtt.ProtocolVersion.V311,
        ) as subscriber,
        await psycopg.AsyncConnection.connect(info.database) as database,
        aiohttp.ClientSession() as http,
    ):
        await subscriber.subscribe(up_topic(terminal.id, Up.HEARTBEAT), 1)
        await database.execute(
            "CREATE TABLE IF NOT EXISTS onekey_bench_floor (id bigint GENERATED ALWAYS AS IDENTITY, payload text)"
        )
        await database.commit()
        try:
            yield _FloorProbe(
                terminal=terminal.id,
                publisher=publisher,
                subscriber=subscriber,
                database=database,
                http=http,
                # Nobody of this name is played: the server reads the request and answers 404.
                url=responders.url("nobody"),
            )
        finally:
            await database.rollback()
            await database.execute("DROP TABLE onekey_bench_floor")
            await database.commit()


# ---------------------------------------------------------------- the load


class _Load:
    """The process that sends heartbeats, and what it last said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._said = asyncio.Condition()
        self._history: list[tuple[float, Progress]] = []

    async def listen(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            async with self._said:
                self._history.append((monotonic(), Progress(**json.loads(line))))
                self._said.notify_all()
        async with self._said:
            self._said.notify_all()

    async def steady(self, rate_per_s: float) -> None:
        """Wait until the last two seconds had the rate asked for, or it is clear that it will not come."""

        def reached() -> bool:
            return self._process.returncode is not None or (
                len(self._history) > 3 and self.rate_since(len(self._history) - 3) >= _RATE_SLACK * rate_per_s
            )

        try:
            async with asyncio.timeout(_STEADY_WITHIN_S), self._said:
                await self._said.wait_for(reached)
        except TimeoutError:
            # The report says which rate was reached; the run fails by that.
            pass
        if self._process.returncode is not None:
            raise StackError(f"the load generator ended with status {self._process.returncode}")

    def mark(self) -> int:
        """Return a place in the history for `rate_since`."""
        return max(0, len(self._history) - 1)

    def rate_since(self, mark: int) -> float:
        """Return how many heartbeats a second the broker confirmed since `mark`."""
        (began_s, first), (ended_s, last) = self._history[mark], self._history[-1]
        return (last.confirmed - first.confirmed) / (ended_s - began_s) if ended_s > began_s else 0.0


@asynccontextmanager
async def _load(orders: Orders) -> AsyncIterator[_Load]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "firmware_sim.load", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    load = _Load(process)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(load.listen(), name="load")
        try:
            process.stdin.write(json.dumps(asdict(orders)).encode() + b"\n")
            await process.stdin.drain()
            yield load
        finally:
            process.stdin.close()
            await process.wait()


# ---------------------------------------------------------------- the run


async def run(options: Options, console: Console) -> Report:
    """Start a gateway of its own, measure, and stop it again.

    Raises:
        StackError: The gateway, the terminals or the load did not come up.
    """
    machine = _machine()
    phases_wanted = 2 if options.heartbeats_per_s > 0 else 1
    pressing = _WARM_UP + phases_wanted * options.presses
    with tempfile.TemporaryDirectory(prefix="onekey-bench-") as scratch:
        folder = Path(scratch)
        site = made_up(pressing + 1 + _LOAD_TERMINALS, seed=options.seed, prefix="bench")
        entries = site.terminals()
        prober, loaders = entries[pressing], entries[pressing + 1 :]
        async with AsyncExitStack() as cleanup:
            responders = await cleanup.enter_async_context(Responders(site.responders()).serving())
            site.point_webhooks(responders.url)
            site.save(folder / "site.yaml")
            stack = Stack(folder / "data", log=folder / "gateway.log", options=_run_options(options))
            with console.status("Starting PostgreSQL, the broker and the gateway …"):
                info = await cleanup.enter_async_context(stacks.running(stack))
            with console.status(f"Applying a site of {len(entries)} households …"):
                await stack.apply_site(folder / "site.yaml")
            fleet = Fleet(
                Broker.from_url(info.mqtt),
                [entry.member(heartbeat_every=None) for entry in entries[:pressing]],
                rng=Random(options.seed),
            )
            await cleanup.enter_async_context(fleets.running(fleet))
            with console.status(f"Connecting {pressing} terminals …"):
                await _online(fleet, stack)
            probe = await cleanup.enter_async_context(
                _floor_probe(info, broker_url=options.mqtt or info.broker, terminal=prober, responders=responders)
            )
            measure = _Measure(fleet, responders, probe, options, console)
            await measure.phase("warm-up", _WARM_UP)
            phases = [await measure.phase("idle", options.presses)]
            if options.heartbeats_per_s > 0:
                orders = Orders(
                    mqtt=info.mqtt,
                    terminals=[(entry.id, entry.secret) for entry in loaders],
                    rate_per_s=options.heartbeats_per_s,
                )
                async with _load(orders) as load:
                    with console.status(f"Waiting for {options.heartbeats_per_s:.0f} heartbeats/s …"):
                        await load.steady(options.heartbeats_per_s)
                    mark = load.mark()
                    name = f"with {options.heartbeats_per_s:.0f} heartbeats/s"
                    phases.append(await measure.phase(name, options.presses))
                    phases[-1].asked_per_s = options.heartbeats_per_s
                    phases[-1].confirmed_per_s = load.rate_since(mark)
            return Report(
                options=options,
                machine=machine,
                phases=tuple(phases),
                duplicates=responders.duplicates,
                failures=judge(phases),
            )


def _run_options(options: Options) -> list[str]:
    given = {"--database": options.database, "--mqtt": options.mqtt}
    return [part for name, value in given.items() if value is not None for part in (name, value)]


async def _online(fleet: Fleet, stack: Stack) -> None:
    try:
        async with asyncio.timeout(_ONLINE_WITHIN_S):
            await fleet.wait_online()
    except TimeoutError:
        text = f"only {fleet.online} of {len(fleet.terminals)} terminals came online\n{stack.tail()}"
        raise StackError(text) from None


def _machine() -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "cores_usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "load_average_before": [round(load, 2) for load in os.getloadavg()],
    }


class _Measure:
    """Presses the terminals of a fleet one after the other, each once in the whole run."""

    def __init__(
        self, fleet: Fleet, responders: Responders, probe: _FloorProbe, options: Options, console: Console
    ) -> None:
        self._fleet = fleet
        self._responders = responders
        self._probe = probe
        self._options = options
        self._console = console
        self._rng = Random(options.seed)
        self._unpressed = iter(fleet.terminals)

    async def phase(self, name: str, presses: int) -> Phase:
        """Press so many keys, with a sample of the floor between each two, and wait for all that follows."""
        floors: list[Floor] = []
        records: list[PressRecord] = []
        # A collection in this process would look like a slow gateway.
        gc.collect()
        gc.freeze()
        gc.disable()
        try:
            with self._console.status(f"{name}: 0 of {presses} presses") as status:
                for number in range(1, presses + 1):
                    interval_s = self._rng.uniform(0.5, 1.5) / self._options.rate_per_s
                    await asyncio.sleep(interval_s / 2)
                    floors.append(await self._probe.sample())
                    await asyncio.sleep(interval_s / 2)
                    records.append(self._fleet.press(next(self._unpressed)))
                    status.update(f"{name}: {number} of {presses} presses")
                await self._settled(records)
        finally:
            gc.enable()
            gc.unfreeze()
        return Phase(name=name, samples=evaluate(records, self._responders.arrivals), floors=floors)

    async def _settled(self, records: Sequence[PressRecord]) -> None:
        try:
            async with asyncio.timeout(_ARRIVE_WITHIN_S):
                await self._fleet.wait_received(*records)
                cases = {record.case for record in records}
                told: set[tuple[UUID | None, str]] = set()
                looked = 0

                def everybody(arrivals: list[Arrival]) -> bool:
                    nonlocal looked
                    told.update((a.case, a.role) for a in arrivals[looked:] if a.case in cases)
                    looked = len(arrivals)
                    return len(told) >= len(cases) * len(NANJING)

                await self._responders.wait(everybody)
        except TimeoutError:
            # What is missing is named by `evaluate`.
            pass


# ---------------------------------------------------------------- the report


def show(report: Report, console: Console) -> None:
    """Print figures and verdict."""
    machine = report.machine
    console.print(
        f"{machine['cores_usable']} of {machine['cores']} cores, Python {machine['python']}, {machine['system']}, "
        f"load average before {machine['load_average_before']}"
    )
    for phase in report.phases:
        title = f"\n{phase.name}: {len(phase.samples)} presses at {report.options.rate_per_s:g}/s"
        if phase.asked_per_s:
            title += f", {phase.confirmed_per_s:.0f} heartbeats/s confirmed"
        console.print(_table(phase, title))
    console.print(f"{report.duplicates} webhooks came twice.")
    for failure in report.failures[:40]:
        console.print(Text(failure, style="red"))
    if len(report.failures) > 40:
        console.print(f"[red]… and {len(report.failures) - 40} more[/red]")
    bars = ", ".join(f"{bar.name} ≤ {bar.limit_ms:.0f} ms" for bar in BARS)
    verdict = "[bold green]PASS[/bold green]" if report.passed else "[bold red]FAIL[/bold red]"
    console.print(f"{verdict}: p99 of {bars}")


def _table(phase: Phase, title: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("from publication to, ms")
    for heading in ("p50", "p95", "p99", "max", "p50 ÷ floor", "p99 ÷ floor"):
        table.add_column(heading, justify="right")
    series = phase.series()
    floor = series["floor"]
    names = {
        "floor": "floor: hop + commit + request",
        **{role: f"{role} {ROLE_WORDS[role]}" for role in NANJING},
        "last": "last of six",
        "spread": "spread: first to last",
        "received": "«received» at the terminal",
    }
    for key, name in names.items():
        if not (values := series[key]):
            table.add_row(name, *6 * ("–",))
            continue
        ratios = [f"{quantile(values, q) / quantile(floor, q):.1f}" if floor else "–" for q in (0.5, 0.99)]
        figures = [f"{quantile(values, q):.1f}" for q in _QUANTILES]
        table.add_row(name, *figures, *ratios, end_section=key in ("floor", "ambulance_120"))
    return table


def plot(report: Report, file: Path) -> None:
    """Draw how many of the presses had reached the last party after which time, with the bar, as PNG or SVG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 5), layout="constrained")
    for number, phase in enumerate(report.phases):
        series = phase.series()
        for key, style in (("floor", ":"), ("received", "--"), ("last", "-")):
            if series[key]:
                axes.ecdf(series[key], color=f"C{number}", linestyle=style, label=f"{phase.name}: {key}")
    limit_ms = next(bar.limit_ms for bar in BARS if bar.of == "last")
    axes.axvline(limit_ms, color="black", linewidth=1)
    axes.axhline(0.99, color="grey", linewidth=0.5)
    axes.annotate(f"bar: {limit_ms:.0f} ms at 99 %", (limit_ms, 0.02), rotation=90, ha="right", fontsize=8)
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds since the alarm was published")
    axes.set_ylabel("share of presses")
    machine = report.machine
    axes.set_title(f"One press, six parties: {machine['cores_usable']} cores, Python {machine['python']}")
    axes.grid(visible=True, which="both", alpha=0.2)
    axes.legend(fontsize=8, loc="lower right", bbox_to_anchor=(0.95, 0.05))
    figure.savefig(file)
    plt.close(figure)
