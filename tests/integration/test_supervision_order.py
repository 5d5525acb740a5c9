"""However reports are late, doubled, mixed up and cut into batches, and whoever dies meanwhile: supervision comes to
the same as if each had come by itself and in its order."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st
from psycopg import sql

from gateway.keyring import Keyring
from gateway.service.apply_site import apply_site
from gateway.service.telemetry import Told
from gateway.store import supervision
from gateway.store.directory import Directory
from schemas.reports import HeartbeatReport
from tests.integration.plants import District, district_site

START = datetime(2026, 11, 24, 2, 0, tzinfo=UTC)
HOMES = (3,)
NAMES = tuple(f"t0-{home}" for home in range(HOMES[0]))
WINDOW_S = 40


@dataclass(frozen=True)
class Beat:
    """A heartbeat: when it was sent, after the start; `lag_s`: how much older than that is what it says."""

    terminal: str
    sent_s: float
    lag_s: float
    battery: int | None
    mains: bool | None
    signal: int | None

    def told(self, heard_s: float, *, late: bool = False) -> Told:
        at = START + timedelta(seconds=self.sent_s - self.lag_s)
        heard_at = START + timedelta(seconds=heard_s)
        report = HeartbeatReport(v=1, at=at, battery_pct=self.battery, mains=self.mains, signal_dbm=self.signal)
        return Told(self.terminal, heard_at, report, heard_at=heard_at, kept=True, late=late)


@dataclass(frozen=True)
class Window:
    """What is sent between two sweeps. `deaf`: nobody listens, and all of it comes at the end. `disorder` mixes it."""

    beats: tuple[Beat, ...]
    deaf: bool
    disorder: int
    sweeps: int = field(default=1)


@st.composite
def courses(draw: st.DrawFn) -> list[Window]:
    number = draw(st.integers(3, 14))
    course = []
    rng = draw(st.randoms(use_true_random=False))
    quiet = dict.fromkeys(NAMES, 0)
    moments = set[float]()
    for window in range(number):
        beats = []
        for name in NAMES:
            if quiet[name]:
                quiet[name] -= 1
                continue
            if window and rng.random() < 0.15:
                quiet[name] = rng.randrange(1, 10)
            for _ in range(rng.randrange(1, 4)):
                sent_s = window * WINDOW_S + round(rng.uniform(0.5, WINDOW_S - 1), 3)
                # Now and then one that was kept back for long in the terminal itself.
                lag_s = rng.choice((0, 0, 0, round(rng.uniform(1, 100), 3)))
                # Of two that say something of the same moment nobody knows which is true.
                while round(sent_s - lag_s, 3) in moments or round(sent_s, 3) in moments:
                    sent_s += 0.001
                moments |= {round(sent_s - lag_s, 3), round(sent_s, 3)}
                beats.append(
                    Beat(
                        name,
                        round(sent_s, 3),
                        lag_s=lag_s,
                        battery=rng.choice((None, 80, 80, 22, 18, 12, 8)),
                        mains=rng.choice((None, True, True, False)),
                        signal=rng.choice((None, -70, -70, -110)),
                    )
                )
        deaf = rng.random() < 0.2
        if deaf:  # when the broker had kept it, only the terminal's own time tells when it was sent
            beats = [replace(beat, lag_s=0) for beat in beats]
        course.append(Window(tuple(beats), deaf, disorder=rng.randrange(1 << 30), sweeps=rng.randrange(1, 3)))
    return course


async def _run(database: str, directory: Directory, course: list[Window], *, disorder: bool) -> list[tuple[Any, ...]]:
    """Play a course and return all that supervision came to."""
    async with District(database, directory, START) as district:
        await district.tell(*(Beat(name, 0, 0, 80, True, -70).told(0) for name in NAMES))
        await district.sweep()
        for number, window in enumerate(course):
            begins_s, ends_s = number * WINDOW_S, (number + 1) * WINDOW_S
            beats = sorted(window.beats, key=lambda beat: beat.sent_s)
            if not disorder:
                for beat in beats:
                    district.now = START + timedelta(seconds=beat.sent_s)
                    await district.tell(beat.told(beat.sent_s))
            district.now = START + timedelta(seconds=ends_s)
            if disorder:
                rng = Random(window.disorder)
                told = [
                    beat.told(ends_s if window.deaf else beat.sent_s, late=window.deaf)
                    for beat in beats + rng.sample(beats, len(beats) // 2)
                ]
                rng.shuffle(told)
                while told:
                    size = rng.randrange(1, len(told) + 1)
                    await district.tell(*told[:size])
                    told = told[size:]
                if window.deaf:
                    async with district.pool.connection() as conn, conn.transaction():
                        begin = START + timedelta(seconds=begins_s)
                        await supervision.hear_again(conn, begin, district.now, total=False)
                for _ in range(window.sweeps - 1):
                    await district.sweep()
            await district.sweep()
        watches = await district.rows(
            "SELECT public_id, state, state_since, memory FROM watch w JOIN terminal t ON t.uid = w.terminal_uid "
            "ORDER BY 1"
        )
        troubles = await district.rows(
            "SELECT public_id, cause, since, found_at, cleared_at FROM trouble o JOIN terminal t "
            "ON t.uid = o.terminal_uid ORDER BY 1, 2, 3"
        )
        cases = await district.rows(
            "SELECT terminal_id, kinds, state, opened_at, closed_at FROM cases ORDER BY opened_at, terminal_id, kinds"
        )
        return [*watches, *troubles, *cases]


@contextmanager
def _copy(server: str, template: str, name: str) -> Iterator[str]:
    with psycopg.connect(server.replace("/onekey?", "/postgres?"), autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*map(sql.Identifier, (name, template))))
        try:
            yield server.replace("/onekey?", f"/{name}?")
        finally:
            conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def plant(server: str, keyring: Keyring) -> Iterator[str]:
    """The name of a database with the district applied, to be copied."""

    async def prepare(database: str) -> None:
        async with District(database, Directory(keyring), START) as district:
            await apply_site(district.pool, keyring, district_site(HOMES), prune=False)
            async with district.pool.connection() as conn:
                # A daily look comes at a random moment, and that would be another one in each copy.
                await conn.execute("UPDATE watch SET daily_at = %s", (START + timedelta(hours=20),))

    with _copy(server, "onekey", "order_plant") as database:
        asyncio.run(prepare(database))
        yield "order_plant"


def test_any_order_comes_to_the_same(server: str, keyring: Keyring, plant: str) -> None:
    runs = 0

    # Shrinking would take hours: each try makes two databases.
    @settings(
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        phases=(Phase.explicit, Phase.reuse, Phase.generate),
        max_examples=25,
    )
    @given(course=courses())
    def play(course: list[Window]) -> None:
        nonlocal runs
        results = []
        for disorder in (False, True):
            runs += 1
            with _copy(server, plant, f"order_{runs}") as database:
                results.append(asyncio.run(_run(database, Directory(keyring), course, disorder=disorder)))
        event(f"{len([row for row in results[0] if len(row) == 5])} troubles and cases")
        in_order, mixed = ({str(row) for row in rows} for rows in results)
        assert (sorted(in_order - mixed), sorted(mixed - in_order)) == ([], [])
        assert results[0] == results[1]

    play()
