"""Two simulated weeks of a district: on time to the second, and the same when it is killed again and again."""

import asyncio
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest
import uvloop

from tests.conftest import ROOT
from tests.integration.district import run

CASES = 100


def _rows(database: str, query: str) -> list[Any]:
    with psycopg.connect(database) as conn:
        return conn.execute(query.encode()).fetchall()


def _hurry(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute(f"ALTER DATABASE {conn.info.dbname} SET synchronous_commit = off".encode())


PROJECTION = {
    "cases": "SELECT id, class, kinds, state, urgency, owner, first_owner, safe_by, closed_by, outcome FROM cases "
    "ORDER BY id",
    "legs": "SELECT id, role, party_id, state, origin, instead_of, overdue_at IS NULL FROM leg ORDER BY id",
    "tasks": "SELECT run_id, name, state, result, by_whom FROM step ORDER BY run_id, name",
    "facts": "SELECT case_id, fact, role, by_whom FROM fact ORDER BY 1, 2, 3",
    "runs": "SELECT id, procedure, version, ended_at IS NULL FROM run ORDER BY id",
    # Who of those told in one moment was the first is nobody's promise: a lease may be with a worker just killed.
    "progress": "SELECT case_id, state, CASE WHEN state <> 'told' THEN role END, minutes FROM progress "
    "ORDER BY 1, 2, 3, 4",
}


def projection(database: str) -> dict[str, list[Any]]:
    """What the fortnight came to; attempts and their times are left out."""
    return {name: _rows(database, query) for name, query in PROJECTION.items()}


def late(database: str) -> float:
    """The longest time by which a step began, or was found late, after it should have; seconds."""
    ((worst,),) = _rows(
        database,
        "SELECT coalesce(max(greatest(extract(epoch FROM started_at - planned_at), "
        "extract(epoch FROM breached_at - due_at))), 0) FROM step",
    )
    return float(worst)


@pytest.mark.timeout(300)
def test_two_weeks_pass_in_seconds_and_every_step_is_on_time(database: str, tmp_path: Path) -> None:
    _hurry(database)
    began = time.monotonic()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(database, tmp_path / "clock", CASES))
    took = time.monotonic() - began
    print(f"two weeks, {CASES} cases in {took:.1f} s")  # noqa: T201 # shown with -s
    assert late(database) <= 1
    assert _rows(database, "SELECT count(*) FROM alarm") == [(CASES,)]
    assert _rows(database, "SELECT count(*) FROM cases WHERE state <> 'closed'") == [(0,)]
    assert _rows(database, "SELECT count(*) FROM step WHERE state = 'open' AND due_at < '2026-10-12' ") == [(0,)]
    # Calls to unanswered parties are on time too.
    late_calls = _rows(
        database,
        """
        SELECT n.id FROM notice n JOIN leg l ON l.id = n.leg_id
        WHERE n.reason = 'unanswered' AND mod(extract(epoch FROM n.queued_at - l.armed_at)::numeric,
              (l.ladder->>'again_s')::numeric) > 1
        """,
    )
    assert late_calls == []
    follow_ups = _rows(
        database, "SELECT DISTINCT (due_at AT TIME ZONE 'Asia/Shanghai')::time::text FROM step WHERE name = 'follow-up'"
    )
    assert follow_ups == [("17:00:00",)]


@pytest.mark.timeout(600)
def test_a_fortnight_that_is_killed_again_and_again_comes_to_the_same(
    server: str, database: str, tmp_path: Path
) -> None:
    _hurry(database)
    asyncio.run(run(database, tmp_path / "clock-of-one", 40))
    whole = projection(database)
    name = "killed_fortnight"
    with psycopg.connect(server.replace("/onekey?", "/postgres?"), autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {name} TEMPLATE onekey".encode())
    other = server.replace("/onekey?", f"/{name}?")
    try:
        _hurry(other)
        rng, kills = Random(7), 0
        program = [sys.executable, "-m", "tests.integration.district", other, str(tmp_path / "clock"), "40"]
        while True:
            child = subprocess.Popen(program, cwd=ROOT)
            try:
                child.wait(timeout=rng.uniform(1.5, 4.0) if kills < 8 else None)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
                kills += 1
                continue
            assert child.returncode == 0
            break
        assert kills >= 3
        again = projection(other)
        for part, rows in whole.items():
            assert again[part] == rows, part
        assert late(other) <= 5
    finally:
        with psycopg.connect(server.replace("/onekey?", "/postgres?"), autocommit=True) as conn:
            conn.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
