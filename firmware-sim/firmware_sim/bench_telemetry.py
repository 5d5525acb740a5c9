"""``onekey bench telemetry``: how many reports a second one gateway stores, and what it could at best and at worst.

Terminals send as much as the gateway takes: what is on its way is kept at some thousands, so broker, database, load and
gateway share the machine all the time. The floor is the gateway's own client on the same broker, which acknowledges
and does nothing else. The ceiling of a naive gateway is this one with a transaction for every report. What counts as
stored is what the database says, and at the end every single report must be there once.
"""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from random import Random
from time import monotonic
from typing import Any, LiteralString, Self
from urllib.parse import unquote, urlsplit

import aiohttp
import psutil
import psycopg
from rich.console import Console

from firmware_sim import processes
from firmware_sim.bench import (
    WARM_UP,
    close_cases,
    installed,
    machine,
    online,
    press_one_by_one,
    settled,
    undisturbed,
)
from firmware_sim.children import Child, child
from firmware_sim.figures import Judged, Sample, evaluate, quantile, summary
from firmware_sim.flood import Orders
from firmware_sim.responders import Responders
from firmware_sim.seat import Seat
from firmware_sim.sites import TerminalEntry, made_up
from firmware_sim.stack import RunInfo, StackError
from protocols.okc import Up, up_topic

__all__ = ["BAR_PER_S", "GROWTH", "LAST_MS", "SHARE", "Options", "Report", "Run", "growth", "judge", "run"]

BAR_PER_S = 8000.0
SHARE = 0.6
"""Reports stored a second, and which part that must be of those that the bare client takes."""

GROWTH = 1.15
"""How much memory the gateway may need at the end for each that it needed when a third of the time was over."""

LAST_MS = 100.0
"""Within which time the last party hears of a press beside telemetry at the bar's rate (99th percentile)."""

_SENDERS = 100
_ON_THE_WAY = 6000
_LOOK_EVERY_S = 0.1
_RAMP_S = 2.0
_DRAINED_WITHIN_S = 60.0
_STRAGGLERS_S = 15.0
_FLOOR_TOPIC = "okb/v1/{}/floor"
_NAIVE_ON_THE_WAY = 500
_NAIVE_S = 5.0
_LONGEST_FLOOR_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to measure: storing for so long, and so many presses in the midst of telemetry at the bar's rate."""

    seconds: float = 20.0
    presses: int = 60
    seed: int = 1


@dataclass(slots=True)
class Run:
    """One flood. ``curve`` holds seconds, reports done and MB of memory of whoever took them; ``took_s`` the rest."""

    per_s: float = 0.0
    sent: int = 0
    done: int = 0
    curve: list[tuple[float, int, float]] = field(default_factory=list)
    busy: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report(Judged):
    """The whole run. ``rows`` is how many heartbeats the database held at the end, ``sent`` how many were sent."""

    options: Options
    floor: Run
    stored: Run
    naive: Run
    rows: int
    sent: int
    idle: tuple[Sample, ...]
    beside: tuple[Sample, ...]

    def series(self) -> dict[str, list[float]]:
        """Return the milliseconds from a press to its last party, alone and beside telemetry at the bar's rate."""
        sides = (("idle", self.idle), ("beside telemetry", self.beside))
        return {name: [one.last_ms for one in samples if not one.problems] for name, samples in sides}

    def document(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return self.verdict() | {
            "options": asdict(self.options),
            "bars": {"per_s": BAR_PER_S, "share": SHARE, "growth": GROWTH},
            "floor": asdict(self.floor),
            "stored": asdict(self.stored),
            "naive": asdict(self.naive),
            "rows": self.rows,
            "sent": self.sent,
            "last_ms": {name: summary(values) for name, values in self.series().items()},
        }


def growth(curve: Sequence[tuple[float, int, float]]) -> float:
    """Return the memory of the last tenth of a run in relation to that of the tenth after its first third."""
    if len(curve) < 30:
        return 1.0
    tenth = len(curve) // 10
    begin = len(curve) // 3
    early = [mb for _, _, mb in curve[begin : begin + tenth]]
    late = [mb for _, _, mb in curve[-tenth:]]
    return (sum(late) / len(late)) / (sum(early) / len(early))


def judge(
    *, floor: Run, stored: Run, rows: int, sent: int, samples: Sequence[Sample], last_ms: Mapping[str, Sequence[float]]
) -> tuple[str, ...]:
    """Return every reason why the run failed."""
    failures = [problem for sample in samples for problem in sample.problems]
    if rows != sent:
        failures.append(f"{sent} heartbeats were sent and {rows} are stored")
    if stored.per_s < BAR_PER_S:
        failures.append(f"{stored.per_s:.0f} reports/s, the bar {BAR_PER_S:.0f}/s")
    if floor.per_s and stored.per_s < SHARE * floor.per_s:
        failures.append(f"{stored.per_s / floor.per_s:.2f} of what the bare client takes, the bar {SHARE:g}")
    if (grown := growth(stored.curve)) > GROWTH:
        failures.append(f"the gateway needs {grown:.2f} × the memory at the end, the bar {GROWTH:g} ×")
    for name, values in last_ms.items():
        if values and quantile(values, 0.99) > LAST_MS:
            failures.append(
                f"{name}: the last party hears after {quantile(values, 0.99):.0f} ms (p99), the bar {LAST_MS:.0f} ms"
            )
    return tuple(failures)


async def run(options: Options, console: Console) -> Report:
    """Start gateways of its own, measure, and stop them again.

    Raises:
        StackError: A gateway, its terminals or the load did not come up.
    """
    found = machine()
    pressing = WARM_UP + 2 * options.presses
    site = made_up(pressing + _SENDERS, seed=options.seed, prefix="bench")
    entries = site.terminals()
    senders = entries[pressing:]
    async with AsyncExitStack() as cleanup:
        responders = await cleanup.enter_async_context(Responders(site.responders()).serving())
        site.point_webhooks(responders.url)
        stack, info = await cleanup.enter_async_context(installed(site, console))
        fleet = await cleanup.enter_async_context(
            online(entries[:pressing], stack, info, seed=options.seed, console=console)
        )
        client = await cleanup.enter_async_context(aiohttp.ClientSession())
        seat = Seat(client, info.http, await stack.create_key(role="operator", name="bench"), "seat-bench")
        unpressed = iter(fleet.terminals)

        async def press(name: str, presses: int) -> tuple[Sample, ...]:
            chosen = [next(unpressed) for _ in range(presses)]
            records = await press_one_by_one(
                name, chosen, fleet, rate_per_s=5.0, rng=Random(options.seed), console=console
            )
            await settled(fleet, responders, records)
            samples = tuple(evaluate(records, responders.arrivals))
            # Else everybody in them would be called again and again, in the midst of what is measured next.
            await close_cases(seat, [record.case for record in records if record.case is not None], console)
            return samples

        with undisturbed():
            await press("warm-up", WARM_UP)
            idle = await press("presses on the idle system", options.presses)
            floor = await _floor(info, options, console)
            async with _flood(info.mqtt, _as_terminals(senders)) as flood, _Table(info, senders) as table:
                pid = _gateway(info.pid)
                stored = await _measure("storing", flood, table.stored, pid, options.seconds, console, root=info.pid)
                await _drained(flood, table.stored)
                steadily = asyncio.ensure_future(_steadily(flood, BAR_PER_S))
                await asyncio.sleep(_RAMP_S)
                beside = await press(f"presses beside {BAR_PER_S:.0f} reports/s", options.presses)
                steadily.cancel()
                await asyncio.wait({steadily})
                sent = await _drained(flood, table.stored)
                rows = await _all_rows(table, sent)
    naive = await _naive(options, console)
    last_ms = {"beside telemetry": [one.last_ms for one in beside if not one.problems]}
    return Report(
        options=options,
        machine=found,
        failures=judge(floor=floor, stored=stored, rows=rows, sent=sent, samples=(*idle, *beside), last_ms=last_ms),
        floor=floor,
        stored=stored,
        naive=naive,
        rows=rows,
        sent=sent,
        idle=idle,
        beside=beside,
    )


def _as_terminals(senders: Sequence[TerminalEntry]) -> tuple[list[tuple[str, str]], list[str]]:
    return [(one.id, one.secret) for one in senders], [up_topic(one.id, Up.HEARTBEAT) for one in senders]


class _Flooding:
    """The process that sends, and what it last said."""

    def __init__(self, process: Child) -> None:
        self._process = process
        self.sent = 0
        self.confirmed = 0
        self._allowed = 0

    async def listen(self) -> None:
        while True:
            said = await self._process.hear()
            self.sent, self.confirmed = said["sent"], said["confirmed"]

    async def allow(self, count: int) -> None:
        if count > self._allowed:
            self._allowed = count
            await self._process.tell(count)


@asynccontextmanager
async def _flood(
    mqtt: str, who: tuple[list[tuple[str, str]], list[str]], *, user: str | None = None
) -> AsyncIterator[_Flooding]:
    clients, topics = who
    async with child("firmware_sim.flood") as process, asyncio.TaskGroup() as tasks:
        await process.tell(asdict(Orders(mqtt=mqtt, clients=clients, topics=topics, user=user)))
        flooding = _Flooding(process)
        listening = tasks.create_task(flooding.listen(), name="flood")
        try:
            yield flooding
        finally:
            listening.cancel()


class _Table:
    """What the database holds of the flood."""

    def __init__(self, info: RunInfo, senders: Sequence[TerminalEntry]) -> None:
        if info.database is None:
            raise StackError("run.json names no database, so nobody can say what is stored")
        self._url = info.database
        self._senders = [one.id for one in senders]

    async def __aenter__(self) -> Self:
        self._conn = await psycopg.AsyncConnection.connect(self._url, autocommit=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._conn.close()

    async def stored(self) -> int:
        """Return how many reports are stored: each sender numbers its own, and they come in their order."""
        return await self._one(
            "SELECT coalesce(sum(s.seq), 0)::bigint FROM terminal_state s JOIN terminal t ON t.uid = s.terminal_uid "
            "WHERE t.public_id = ANY(%s)",
            (self._senders,),
        )

    async def rows(self) -> int:
        """Return how many heartbeats there are."""
        return await self._one("SELECT count(*) FROM heartbeat", ())

    async def _one(self, query: LiteralString, values: tuple[object, ...]) -> int:
        row = await (await self._conn.execute(query, values)).fetchone()
        assert row is not None
        return int(row[0])


async def _measure(
    name: str,
    flood: _Flooding,
    done: Callable[[], Awaitable[int]],
    pid: int,
    seconds: float,
    console: Console,
    *,
    ahead: int = _ON_THE_WAY,
    root: int | None = None,
) -> Run:
    """Keep `ahead` reports on their way for so long, and count what is done of them after a short beginning."""
    process, run, first = psutil.Process(pid), Run(), await done()
    began_s, used_s = monotonic(), {} if root is None else processes.used_s(root)
    with console.status(name) as status:
        while (now_s := monotonic() - began_s) < _RAMP_S + seconds:
            count = await done() - first
            await flood.allow(first + count + ahead)
            run.curve.append((round(now_s, 2), count, round(process.memory_info().rss / 1e6, 1)))
            status.update(f"{name}: {count} reports, {_per_s(run.curve):.0f}/s, {seconds + _RAMP_S - now_s:.0f} s left")
            await asyncio.sleep(_LOOK_EVERY_S)
    took_s = monotonic() - began_s
    run.per_s, run.done, run.sent = _per_s(run.curve), run.curve[-1][1], flood.sent
    if root is not None:
        run.busy = {part: (now - used_s.get(part, 0.0)) / took_s for part, now in processes.used_s(root).items()}
    return run


def _per_s(curve: Sequence[tuple[float, int, float]]) -> float:
    counted = [point for point in curve if point[0] >= _RAMP_S]
    if len(counted) < 2:
        return 0.0
    (began_s, before, _), (ended_s, after, _) = counted[0], counted[-1]
    return (after - before) / (ended_s - began_s)


async def _steadily(flood: _Flooding, per_s: float) -> None:
    """Allow so many reports a second until cancelled."""
    began_s, first = monotonic(), flood.sent
    while True:
        await flood.allow(first + int((monotonic() - began_s) * per_s))
        await asyncio.sleep(_LOOK_EVERY_S / 5)


async def _drained(flood: _Flooding, done: Callable[[], Awaitable[int]]) -> int:
    """Wait until all that was sent is stored, or too long; returns how many that were."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DRAINED_WITHIN_S):
            await asyncio.sleep(1)
            while await done() < flood.sent:
                await asyncio.sleep(_LOOK_EVERY_S)
    return flood.sent


async def _all_rows(table: _Table, sent: int) -> int:
    """Return how many heartbeats there are, when all are there or some time is over.

    A broker with too much unacknowledged passes a report over and brings it a second later, behind newer ones.
    """
    for _ in range(round(_STRAGGLERS_S / _LOOK_EVERY_S)):
        if (rows := await table.rows()) >= sent:
            break
        await asyncio.sleep(_LOOK_EVERY_S)
    return rows


def _gateway(root: int) -> int:
    """Return the process id of the gateway among the children of ``onekey run``."""
    for process in psutil.Process(root).children(recursive=True):
        if process.cmdline()[-1:] == ["gateway"]:
            return process.pid
    raise StackError("the gateway's own process is not there")


async def _floor(info: RunInfo, options: Options, console: Console) -> Run:
    """Measure the gateway's client on the same broker, acknowledging and nothing else."""
    if info.broker is None:
        raise StackError("run.json names no broker, so there is no floor")
    account = urlsplit(info.broker)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "gateway.cli", "receive", "--topic", _FLOOR_TOPIC.format("+")),
        env={**os.environ, "ONEKEY_MQTT": info.broker},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    count = int(await process.stdout.readline())

    async def listen(lines: asyncio.StreamReader) -> None:
        nonlocal count
        while line := await lines.readline():
            count = json.loads(line)

    async def taken() -> int:
        return count

    listening = asyncio.ensure_future(listen(process.stdout))
    names = [f"floor-{number}" for number in range(_SENDERS)]
    who = [(name, unquote(account.password or "")) for name in names], [_FLOOR_TOPIC.format(name) for name in names]
    try:
        await asyncio.sleep(1)  # until it has subscribed
        async with _flood(info.mqtt, who, user=unquote(account.username or "")) as flood:
            seconds = min(options.seconds, _LONGEST_FLOOR_S)
            return await _measure("the bare client", flood, taken, process.pid, seconds, console)
    finally:
        process.terminate()
        await process.wait()
        listening.cancel()


async def _naive(options: Options, console: Console) -> Run:
    """Measure a gateway that stores every report in a transaction of its own."""
    site = made_up(_SENDERS, seed=options.seed, prefix="naive")
    async with AsyncExitStack() as cleanup:
        responders = await cleanup.enter_async_context(Responders(site.responders()).serving())
        site.point_webhooks(responders.url)
        settings = {"ONEKEY_TELEMETRY_BATCH": "1"}
        _, info = await cleanup.enter_async_context(installed(site, console, settings=settings))
        flood = await cleanup.enter_async_context(_flood(info.mqtt, _as_terminals(site.terminals())))
        table = await cleanup.enter_async_context(_Table(info, site.terminals()))
        return await _measure(
            "one transaction each",
            flood,
            table.stored,
            _gateway(info.pid),
            _NAIVE_S,
            console,
            ahead=_NAIVE_ON_THE_WAY,
        )
