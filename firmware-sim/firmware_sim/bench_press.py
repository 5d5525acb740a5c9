"""``onekey bench press``: how long from a key to each of six parties, beside what the same machine can do at best.

Every press stands alone: a terminal and a household of its own, so each opens a new case with six legs. Between
two presses the floor is sampled against the same broker, database and HTTP server: one QoS 1 publication of a
terminal until a subscriber has it, one row inserted and committed, one HTTP request, one after the other. No
gateway that stores before it tells can be faster.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import islice
from random import Random
from time import monotonic, monotonic_ns
from urllib.parse import unquote, urlsplit

import aiohttp
import aiomqtt
import psycopg
from rich.console import Console

from firmware_sim.bench import WARM_UP, installed, machine, online, press_one_by_one, settled, undisturbed
from firmware_sim.children import Child, child
from firmware_sim.figures import Floor, Options, Phase, Report, evaluate, judge
from firmware_sim.fleet import Broker, Fleet
from firmware_sim.load import Orders, Progress
from firmware_sim.responders import Responders
from firmware_sim.sites import TerminalEntry, made_up
from firmware_sim.stack import RunInfo, StackError
from protocols.okc import Up, up_topic
from schemas.reports import HeartbeatReport

__all__ = ["run"]

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
    info: RunInfo, *, broker_url: str | None, terminal: TerminalEntry, responders: Responders
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

    def __init__(self, process: Child) -> None:
        self._process = process
        self._said = asyncio.Condition()
        self._history: list[tuple[float, Progress]] = []

    async def listen(self) -> None:
        while True:
            progress = Progress(**await self._process.hear())
            async with self._said:
                self._history.append((monotonic(), progress))
                self._said.notify_all()

    async def steady(self, rate_per_s: float) -> None:
        """Wait until the last two seconds had the rate asked for, or it is clear that it will not come."""

        def reached() -> bool:
            return len(self._history) > 3 and self.rate_since(len(self._history) - 3) >= _STEADY_SHARE * rate_per_s

        try:
            async with asyncio.timeout(_STEADY_WITHIN_S), self._said:
                await self._said.wait_for(reached)
        except TimeoutError:
            # The report says which rate was reached; the run fails by that.
            pass

    def mark(self) -> int:
        """Return a place in the history for `rate_since`."""
        return max(0, len(self._history) - 1)

    def rate_since(self, mark: int) -> float:
        """Return how many heartbeats a second the broker confirmed since `mark`."""
        if not self._history:
            return 0.0
        (began_s, first), (ended_s, last) = self._history[mark], self._history[-1]
        return (last.confirmed - first.confirmed) / (ended_s - began_s) if ended_s > began_s else 0.0


@asynccontextmanager
async def _load(orders: Orders) -> AsyncIterator[_Load]:
    async with child("firmware_sim.load") as process, asyncio.TaskGroup() as tasks:
        await process.tell(asdict(orders))
        load = _Load(process)
        listening = tasks.create_task(load.listen(), name="load")
        try:
            yield load
        finally:
            listening.cancel()


# ---------------------------------------------------------------- the run


async def run(options: Options, console: Console) -> Report:
    """Start a gateway of its own, measure, and stop it again.

    Raises:
        StackError: The gateway, the terminals or the load did not come up.
    """
    found = machine()
    phases_wanted = 2 if options.heartbeats_per_s > 0 else 1
    pressing = WARM_UP + phases_wanted * options.presses
    site = made_up(pressing + 1 + _LOAD_TERMINALS, seed=options.seed, prefix="bench")
    entries = site.terminals()
    prober, loaders = entries[pressing], entries[pressing + 1 :]
    async with AsyncExitStack() as cleanup:
        responders = await cleanup.enter_async_context(Responders(site.responders()).serving())
        site.point_webhooks(responders.url)
        stack, info = await cleanup.enter_async_context(installed(site, console, options=_run_options(options)))
        fleet = await cleanup.enter_async_context(
            online(entries[:pressing], stack, info, seed=options.seed, console=console)
        )
        probe = await cleanup.enter_async_context(
            _floor_probe(info, broker_url=options.mqtt or info.broker, terminal=prober, responders=responders)
        )
        measure = _Measure(fleet, responders, probe, options, console)
        await measure.phase("warm-up", WARM_UP)
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
            machine=found,
            phases=tuple(phases),
            duplicates=responders.duplicates,
            failures=judge(phases),
        )


def _run_options(options: Options) -> list[str]:
    given = {"--database": options.database, "--mqtt": options.mqtt}
    return [part for name, value in given.items() if value is not None for part in (name, value)]


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

        async def sample() -> None:
            floors.append(await self._probe.sample())

        with undisturbed():
            records = await press_one_by_one(
                name,
                list(islice(self._unpressed, presses)),
                self._fleet,
                rate_per_s=self._options.rate_per_s,
                rng=self._rng,
                console=self._console,
                between=sample,
            )
            await settled(self._fleet, self._responders, records)
        return Phase(name=name, samples=evaluate(records, self._responders.arrivals), floors=floors)
