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
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from datetime import UTC, datetime
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

from firmware_sim import fleet as fleets
from firmware_sim import stack as stacks
from firmware_sim.figures import Floor, Options, Phase, Report, evaluate, judge
from firmware_sim.fleet import Broker, Fleet, PressRecord
from firmware_sim.load import Orders, Progress
from firmware_sim.responders import Arrival, Responders
from firmware_sim.sites import NANJING, TerminalEntry, made_up
from firmware_sim.stack import Stack, StackError
from protocols.okc import Up, up_topic
from schemas.reports import HeartbeatReport

__all__ = ["run"]

_WARM_UP = 10
_ARRIVE_WITHIN_S = 10.0
_ONLINE_WITHIN_S = 120.0
_STEADY_WITHIN_S = 20.0
_LOAD_TERMINALS = 100
_STEADY_SHARE = 0.95


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
                len(self._history) > 3 and self.rate_since(len(self._history) - 3) >= _STEADY_SHARE * rate_per_s
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
