"""``onekey bench supervise``: is every silence found in time, and no other, while the gateway is killed repeatedly?

A hundred thousand terminals report at mixed intervals to a gateway of its own, on the real clock. Some fall silent,
some only nearly; many come back. Meanwhile the gateway is killed three times with signal 9, and the wall clock of
gateway is put forward by an hour (libfaketime; that of an embedded database too, unless root starts it under another
user). What is expected comes from what was sent, and when.

Then the cost of a sweep is measured with ten thousand terminals registered, and with a million.
"""

import asyncio
import os
import signal
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any
from urllib.parse import unquote, urlsplit

import aiohttp
import psutil
import psycopg
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from firmware_sim.beats import Group, Orders
from firmware_sim.bench import installed, machine
from firmware_sim.children import Child, child
from firmware_sim.figures import Judged, summary
from firmware_sim.responders import Responders
from firmware_sim.sites import SiteFile, made_up
from firmware_sim.stack import RunInfo, StackError

__all__ = ["FLAT", "FOUND_S", "Expected", "Options", "Report", "Seen", "compare", "judge", "run"]

FOUND_S = 5.0
"""Seconds after its deadline, or after the backlog of a restart is read, within which a silence is to be found."""

FLAT = 1.5
"""How much longer a sweep may take with a hundred times as many terminals registered."""

_EARLY_S = 0.5
"""Clocks of sender and gateway are read at different ends of the way."""

_MIX = ((0.4, 20.0, 60.0), (0.3, 40.0, 120.0), (0.2, 60.0, 200.0), (0.1, 120.0, 86_400.0))
"""Share of the terminals, seconds between two reports, and seconds of silence after which one is lost."""

_KILLS_AT = (0.25, 0.5, 0.75)
_JUMP_AT = 0.4
_JUMP = "+3600"
_LOOK_EVERY_S = 0.25
_CAUGHT_UP_S = 2.0
"""The backlog of a restart is read when the gateway is no further behind than this; it takes one second in peace."""

_HOMES = 1000
_PREFIX = "watched-"
_SETTLE_S = 20.0
_SWEEPS_S = 30.0
_FAKETIME = (
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
)
_SLEEP = "import select, time\ntime.sleep = lambda seconds: select.select([], [], [], max(0, seconds)) and None\n"
"""What libfaketime breaks in Python: a sleep on the monotonic clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How many terminals, for how long, and how many of them fall silent; then sweeps with so many registered."""

    terminals: int = 100_000
    seconds: float = 420.0
    silent: int = 2000
    registered: tuple[int, ...] = (10_000, 1_000_000)
    seed: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """A spell of silence as the sender knows it: seconds of the shared clock. ``until`` is None while it lasts."""

    terminal: int
    last: float
    until: float | None
    allowed_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A loss as the tables show it, and when the witness saw it begin and end; by the shared clock."""

    terminal: int
    found: float
    cleared: float | None = None


@dataclass(slots=True, kw_only=True)
class Compared:
    """What expected and seen come to. The figures are seconds after the earliest moment at which it could be known."""

    found_s: list[float] = field(default_factory=list)
    cleared_s: list[float] = field(default_factory=list)
    after_restart: int = 0
    missed: list[str] = field(default_factory=list)
    false: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report(Judged):
    """The whole run. ``deaf`` are the times from each kill until the backlog was read."""

    options: Options
    sent: int
    confirmed: int
    compared: Compared
    deaf: list[tuple[float, float]]
    jumped: bool
    open_cases: int
    cases_twice: int
    sweep_ms: dict[int, float]

    def document(self) -> dict[str, Any]:
        """Return the report as plain data."""
        compared = asdict(self.compared)
        return self.verdict() | {
            "options": asdict(self.options),
            "sent": self.sent,
            "confirmed": self.confirmed,
            "found_s": summary(self.compared.found_s),
            "cleared_s": summary(self.compared.cleared_s),
            "problems": {name: compared[name][:40] for name in ("missed", "false", "late")},
            "after_restart": self.compared.after_restart,
            "deaf_s": [round(end - begin, 2) for begin, end in self.deaf],
            "clock_jumped": self.jumped,
            "open_cases": self.open_cases,
            "cases_twice": self.cases_twice,
            "sweep_ms": {str(count): round(ms, 2) for count, ms in self.sweep_ms.items()},
        }


def compare(
    expected: Sequence[Expected], seen: Sequence[Seen], *, deaf: Sequence[tuple[float, float]], end: float
) -> Compared:
    """Match losses with silences. `deaf` are times in which nobody could know; what ends after `end` is left open."""

    def known_from(at: float) -> tuple[float, bool]:
        for begin, over in deaf:
            if begin - FOUND_S <= at <= over:  # a kill takes away what is left of the seconds that were allowed
                return over, True
        return at, False

    result = Compared()
    by_terminal: dict[int, list[Seen]] = {}
    for one in seen:
        by_terminal.setdefault(one.terminal, []).append(one)
    for spell in sorted(expected, key=lambda one: one.last):
        deadline = spell.last + spell.allowed_s
        over = spell.until if spell.until is not None else end
        found = next((one for one in by_terminal.get(spell.terminal, ()) if spell.last < one.found <= over + 10), None)
        name = f"terminal {spell.terminal}, last heard at {spell.last:.1f}"
        begins, in_deafness = known_from(deadline)
        if found is None:
            # Who comes back in the very seconds in which it would be found, or while nobody listens, need not be.
            if over > begins + FOUND_S and deadline < over:
                result.missed.append(f"{name}: silent until {over:.1f}, allowed {spell.allowed_s:.0f} s")
            continue
        by_terminal[spell.terminal].remove(found)
        if found.found < deadline - _EARLY_S:
            result.false.append(f"{name}: lost {deadline - found.found:.1f} s before its time")
            continue
        result.found_s.append(max(0.0, found.found - begins))
        result.after_restart += in_deafness
        if found.found > begins + FOUND_S:
            result.late.append(f"{name}: found {found.found - begins:.1f} s late")
        if spell.until is None:
            if found.cleared is not None:
                result.false.append(f"{name}: cleared though it is silent")
            continue
        back, _ = known_from(spell.until)
        if found.cleared is None:
            if back < end - FOUND_S:
                result.missed.append(f"{name}: back at {spell.until:.1f} and not cleared")
            continue
        result.cleared_s.append(max(0.0, found.cleared - max(back, found.found)))
        if found.cleared > max(back, found.found) + FOUND_S:
            result.late.append(f"{name}: cleared {found.cleared - back:.1f} s late")
    result.false += [
        f"terminal {one.terminal}: lost at {one.found:.1f} and was not silent"
        for left in by_terminal.values()
        for one in left
    ]
    return result


def judge(
    compared: Compared, *, kills: int, jumped: bool, cases_twice: int, sweep_ms: Mapping[int, float]
) -> tuple[str, ...]:
    """Return every reason why the run failed."""
    failures = [f"{len(found)} {name}: {found[0]}" for name, found in (
        ("silences or returns were missed", compared.missed),
        ("losses were none", compared.false),
        ("came too late", compared.late),
    ) if found]  # fmt: skip
    if not compared.found_s:
        failures.append("no silence was found at all")
    if kills < len(_KILLS_AT):
        failures.append(f"the gateway was killed {kills} times instead of {len(_KILLS_AT)}")
    if not jumped:
        failures.append("the clock was not put forward: install libfaketime")
    if cases_twice:
        failures.append(f"{cases_twice} terminals have more than one open case for the same cause")
    if len(sweep_ms) > 1:
        least, most = sweep_ms[min(sweep_ms)], sweep_ms[max(sweep_ms)]
        if most > max(FLAT * least, least + 2):
            failures.append(
                f"a sweep takes {most:.1f} ms with {max(sweep_ms)} terminals and {least:.1f} ms with {min(sweep_ms)}"
            )
    return tuple(failures)


async def run(options: Options, console: Console) -> Report:
    """Start gateways of its own, measure, and stop them again.

    Raises:
        StackError: A gateway or the load did not come up.
    """
    found = machine()
    site = made_up(_HOMES, seed=options.seed, prefix="bench")
    witness = await _watch(options, site, console)
    sweep_ms = {count: await _sweeps(count, site, console) for count in sorted(options.registered)}
    compared = compare(witness.expected, witness.seen, deaf=witness.deaf, end=witness.end)
    return Report(
        options=options,
        machine=found,
        failures=judge(
            compared,
            kills=len(witness.deaf),
            jumped=witness.jumped,
            cases_twice=witness.cases_twice,
            sweep_ms=sweep_ms,
        ),
        sent=witness.sent,
        confirmed=witness.confirmed,
        compared=compared,
        deaf=witness.deaf,
        jumped=witness.jumped,
        open_cases=witness.open_cases,
        cases_twice=witness.cases_twice,
        sweep_ms=sweep_ms,
    )


@dataclass(slots=True, kw_only=True)
class _Witness:
    allowed: dict[int, float]
    expected: list[Expected] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    deaf: list[tuple[float, float]] = field(default_factory=list)
    sent: int = 0
    confirmed: int = 0
    jumped: bool = False
    open_cases: int = 0
    cases_twice: int = 0
    end: float = 0.0


def _groups(terminals: int) -> list[tuple[Group, float]]:
    """Return the groups of the mix, each with the silence that is allowed in it."""
    groups, first = [], 0
    for share, every_s, allowed_s in _MIX:
        count = round(terminals * share)
        groups.append((Group(first=first, count=count, every_s=every_s), allowed_s))
        first += count
    return groups


def _plan(options: Options, rng: Random) -> tuple[list[tuple[int, float, float]], dict[int, float]]:
    """Return who falls silent from when until when, and what each of them is allowed."""
    groups = [one for one in _groups(options.terminals) if one[1] < options.seconds / 2]
    silent, allowed = [], {}
    for group, allowed_s in groups:
        chosen = rng.sample(range(group.first, group.first + group.count), options.silent // len(groups))
        for number in chosen:
            begin = rng.uniform(group.every_s + 5, options.seconds - allowed_s - 15)
            # A third only nearly, a third for a while, a third for good.
            length = rng.choice((allowed_s * 0.5, allowed_s + rng.uniform(10, 90), 1e9))
            silent.append((number, begin, begin + length))
            allowed[number] = allowed_s
    return silent, allowed


async def _watch(options: Options, site: SiteFile, console: Console) -> _Witness:
    silent, allowed = _plan(options, Random(options.seed))
    witness = _Witness(allowed=allowed)
    library = next((path for path in _FAKETIME if os.path.exists(path)), None)  # noqa: PTH110, ASYNC240
    async with AsyncExitStack() as cleanup:
        responders = await cleanup.enter_async_context(Responders(site.responders()).serving())
        site.point_webhooks(responders.url)
        folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="onekey-clock-")))
        clock, settings = folder / "clock", {}
        if library is not None:
            clock.write_text("+0")
            (folder / "sitecustomize.py").write_text(_SLEEP)
            settings = {
                "LD_PRELOAD": library,
                "FAKETIME_TIMESTAMP_FILE": str(clock),
                "FAKETIME_NO_CACHE": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "PYTHONPATH": os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH")))),
            }
        _, info = await cleanup.enter_async_context(installed(site, console, settings=settings))
        if info.database is None:
            raise StackError("run.json names no database, so nobody can say what was found")
        conn = await cleanup.enter_async_context(await psycopg.AsyncConnection.connect(info.database, autocommit=True))
        with console.status(f"Registering {options.terminals} terminals …"):
            await _register(
                conn, options.terminals, {group.first: allowed_s for group, allowed_s in _groups(options.terminals)}
            )
        fleet = await cleanup.enter_async_context(child("firmware_sim.beats"))
        await fleet.tell(asdict(_orders(info, options.terminals, silent)))
        with console.status("Watching") as status:
            await _follow(conn, fleet, info, witness, options, clock if library is not None else None, status.update)
        row = await (await conn.execute(_CASES)).fetchone()
        assert row is not None
        witness.open_cases, witness.cases_twice = row
    return witness


_CASES = """
    SELECT coalesce(sum(n), 0)::int, count(*) FILTER (WHERE n > 1)::int FROM (
        SELECT terminal_id, kinds, count(*) AS n FROM cases WHERE class = 'technical' AND state = 'open'
        AND terminal_id IS NOT NULL GROUP BY 1, 2) AS by_cause
"""


def _orders(info: RunInfo, terminals: int, silent: list[tuple[int, float, float]]) -> Orders:
    if info.broker is None:
        raise StackError("run.json names no broker of the gateway's own")
    at = urlsplit(info.broker)
    return Orders(
        mqtt=f"mqtt://{at.hostname}:{at.port}",
        user=unquote(at.username or ""),
        secret=unquote(at.password or ""),
        connections=20,
        prefix=_PREFIX,
        groups=[asdict(group) for group, _ in _groups(terminals)],
        silent=silent,
    )


async def _register(conn: psycopg.AsyncConnection, terminals: int, allowed: Mapping[int, float]) -> None:
    """Register terminals and let them stand in the homes of the site in turn."""
    firsts = sorted(allowed)
    await conn.execute(
        """
        INSERT INTO terminal (public_id, site_id, district, model)
        SELECT %s || n, s.id, s.district, 'bench' FROM site s, generate_series(0, %s - 1) AS n
        """,
        (_PREFIX, terminals),
    )
    await conn.execute(
        """
        WITH homes AS (SELECT id, row_number() OVER (ORDER BY id) - 1 AS n, count(*) OVER () AS homes FROM household)
        INSERT INTO assignment (terminal_uid, household_id)
        SELECT t.uid, h.id FROM terminal t
        JOIN homes h ON h.n = substr(t.public_id, %(skip)s)::int %% h.homes WHERE t.public_id LIKE %(like)s
        """,
        {"skip": len(_PREFIX) + 1, "like": f"{_PREFIX}%"},
    )
    await conn.execute(
        """
        INSERT INTO watch (terminal_uid, silent_after, late_after, profile, since, state_since, look_at, daily_at)
        SELECT t.uid, a.silent, a.silent * 0.7, '{}', now(), now(), now() + interval '1 day',
               now() + interval '1 day' * random()
        FROM terminal t CROSS JOIN LATERAL (
            SELECT allowed * interval '1 second' AS silent FROM unnest(%(firsts)s::int[], %(allowed)s::float8[])
                AS one (first, allowed)
            WHERE one.first <= substr(t.public_id, %(skip)s)::int ORDER BY one.first DESC LIMIT 1) AS a
        WHERE t.public_id LIKE %(like)s
        """,
        {
            "skip": len(_PREFIX) + 1,
            "like": f"{_PREFIX}%",
            "firsts": firsts,
            "allowed": [allowed[first] for first in firsts],
        },
    )
    await conn.execute("ANALYZE terminal; ANALYZE watch; ANALYZE assignment")


async def _follow(
    conn: psycopg.AsyncConnection,
    fleet: Child,
    info: RunInfo,
    witness: _Witness,
    options: Options,
    clock: Path | None,
    say: Any,
) -> None:
    began = monotonic()
    ended: list[tuple[int, float, float]] = []
    going_on: dict[int, float] = {}

    async def listen() -> None:
        while True:
            said = await fleet.hear()
            witness.sent, witness.confirmed = said["sent"], said["confirmed"]
            ended.extend(tuple(one) for one in said["ended"])
            going_on.clear()
            going_on.update({int(number): last for number, last in said["going_on"]})

    listening = asyncio.ensure_future(listen())
    kills = [began + options.seconds * at for at in _KILLS_AT]
    jump_at = began + options.seconds * _JUMP_AT
    state = _State()
    killed_at: float | None = None
    try:
        while (now := monotonic()) < began + options.seconds:
            if listening.done():
                listening.result()
            if clock is not None and not witness.jumped and now > jump_at:
                clock.write_text(_JUMP)  # noqa: ASYNC240
                witness.jumped = True
            if killed_at is not None:
                behind_s = await _behind_s(conn)
                if behind_s < min(_CAUGHT_UP_S, monotonic() - killed_at):
                    witness.deaf.append((killed_at, monotonic()))
                    killed_at = None
            if kills and now > kills[0] and killed_at is None:
                kills.pop(0)
                killed_at = monotonic()
                os.kill(_gateway(info.pid), signal.SIGKILL)
            await state.look(conn)
            say(
                f"{now - began:.0f} of {options.seconds:.0f} s: {witness.sent} reports sent, "
                f"{len(state.open)} lost, {len(state.seen) - len(state.open)} back, {len(witness.deaf)} restarts"
            )
            await asyncio.sleep(_LOOK_EVERY_S)
        witness.end = monotonic()
        if killed_at is not None:
            witness.deaf.append((killed_at, witness.end))
    finally:
        listening.cancel()
    witness.seen = list(state.seen.values())
    witness.expected = [
        Expected(terminal=number, last=last, until=back, allowed_s=witness.allowed[number])
        for number, last, back in ended
    ] + [
        Expected(terminal=number, last=last, until=None, allowed_s=witness.allowed[number])
        for number, last in going_on.items()
    ]


class _State:
    """What the tables show of losses, as it is seen."""

    def __init__(self) -> None:
        self.seen: dict[int, Seen] = {}
        self.open: set[int] = set()
        self._last = 0

    async def look(self, conn: psycopg.AsyncConnection) -> None:
        cursor = await conn.execute(
            "SELECT o.id, t.public_id FROM trouble o JOIN terminal t ON t.uid = o.terminal_uid "
            "WHERE o.id > %s AND cause = 'offline' ORDER BY o.id",
            (self._last,),
        )
        now = monotonic()
        for number, name in await cursor.fetchall():
            self._last = number
            self.seen[number] = Seen(terminal=int(name.removeprefix(_PREFIX)), found=now)
            self.open.add(number)
        cursor = await conn.execute(
            "SELECT id FROM trouble WHERE id = ANY(%s) AND cleared_at IS NOT NULL", (list(self.open),)
        )
        now = monotonic()
        for (number,) in await cursor.fetchall():
            one = self.seen[number]
            self.seen[number] = Seen(terminal=one.terminal, found=one.found, cleared=now)
            self.open.discard(number)


async def _behind_s(conn: psycopg.AsyncConnection) -> float:
    """Return how far behind the gateway is with reading, in seconds: by our clock, which as its horizon never jumps."""
    row = await (await conn.execute("SELECT horizon FROM hearing")).fetchone()
    return float("inf") if row is None else (datetime.now(UTC) - row[0]).total_seconds()


def _gateway(root: int) -> int:
    for process in psutil.Process(root).children(recursive=True):
        if process.cmdline()[-1:] == ["gateway"]:
            return process.pid
    raise StackError("the gateway's own process is not there")


async def _sweeps(registered: int, site: SiteFile, console: Console) -> float:
    """Return the mean time of a sweep in milliseconds with so many registered, of which ten thousand report."""
    active = 10_000
    async with AsyncExitStack() as cleanup:
        stack, info = await cleanup.enter_async_context(installed(site, console))
        assert info.database is not None
        conn = await cleanup.enter_async_context(await psycopg.AsyncConnection.connect(info.database, autocommit=True))
        with console.status(f"Registering {registered} terminals …"):
            await _register(conn, registered, {0: 60.0, active: 86_400.0})
        fleet = await cleanup.enter_async_context(child("firmware_sim.beats"))
        orders = _orders(info, active, [])
        await fleet.tell(asdict(orders) | {"groups": [asdict(Group(first=0, count=active, every_s=20.0))]})
        listening = asyncio.ensure_future(_ignore(fleet))
        key = await stack.create_key(role="admin", name="bench")
        http = await cleanup.enter_async_context(
            aiohttp.ClientSession(info.http, headers={"Authorization": f"Bearer {key}"})
        )
        with console.status(f"Measuring sweeps with {registered} terminals registered …"):
            await asyncio.sleep(_SETTLE_S + 60)
            before = await _measured(http)
            await asyncio.sleep(_SWEEPS_S)
            after = await _measured(http)
        listening.cancel()
    sweeps = after[1] - before[1]
    if not sweeps:
        raise StackError("nothing was swept")
    return (after[0] - before[0]) / sweeps * 1000


async def _ignore(fleet: Child) -> None:
    while True:
        await fleet.hear()


async def _measured(http: aiohttp.ClientSession) -> tuple[float, float]:
    """Return the seconds that sweeps have taken, and how many there were."""
    async with http.get("/metrics") as response:
        text = await response.text()
    values = {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name in ("onekey_sweep_seconds_sum", "onekey_sweep_seconds_count")
    }
    return values.get("onekey_sweep_seconds_sum", 0.0), values.get("onekey_sweep_seconds_count", 0.0)
