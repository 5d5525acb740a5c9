"""A made-up history is as whole as a real one, and whatever runs by the clock passes it by."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import sql

from firmware_sim.history import copy_cases, count_rows
from gateway.audit.auditor import Auditor
from gateway.domain import keys
from gateway.domain.case import Fact
from gateway.keyring import Keyring
from gateway.procedures.runner import Runner
from gateway.service.checkpoints import make_checkpoints
from gateway.service.disclosures import settle_disclosures
from gateway.service.due import lease_due
from gateway.service.report_findings import report_findings
from gateway.store import events, queries
from gateway.store.directory import Directory
from gateway.store.pool import Pool, open_clocked_pool
from tests.integration.desk import WORKDAYS, Desk, Link, desk_in

WANG, LI, ZHAO = "860000000000001", "860000000000002", "860000000000004"
HOUSEHOLDS = ("wang-501", "li-chen-203", "zhao-1102")

_TABLES = (
    "cases", "alarm", "leg", "notice", "attempt", "answer", "journal", "run", "step", "fact", "progress",
    "work_order", "event",
)  # fmt: skip

Owner = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture
async def nanjing(database: str, directory: Directory, keyring: Keyring) -> AsyncIterator[Desk]:
    """Two cases are closed, each with all that a case can have; one is open."""
    async with desk_in(database, directory, keyring, "nanjing") as desk:
        for terminal in (WANG, LI):
            case = await desk.press(terminal)
            await desk.own(case)
            await desk.answer(case, "community", "coming", minutes=5)
            await desk.fact(case, Fact.ON_SCENE, about="ambulance_120")
            await desk.at((desk.now - desk.started).total_seconds() + 60)
            await desk.close(case)
        await desk.press(ZHAO)
        async with desk.pool.connection() as conn:
            await events.place(conn)
        yield desk


def counts(owner: Owner, table: str) -> list[tuple[int, int]]:
    """How many rows a case has in a table, and how many closed cases have so many."""
    of_case = {
        "cases": "SELECT id AS case_id FROM cases",
        "attempt": "SELECT l.case_id FROM attempt JOIN leg l ON l.id = leg_id",
    }
    rows = of_case.get(table, f"SELECT case_id FROM {table}")  # a name of this module
    return owner.execute(
        f"SELECT n, count(*) FROM (SELECT count(r.case_id) AS n FROM cases c LEFT JOIN ({rows}) r ON r.case_id = c.id "
        "WHERE c.state = 'closed' GROUP BY c.id) AS of_case GROUP BY n ORDER BY n".encode()
    ).fetchall()


def dangling(owner: Owner) -> list[str]:
    """The foreign keys that do not hold."""
    found = owner.execute(
        "SELECT conrelid::regclass::text, confrelid::regclass::text, conname, "
        "ARRAY(SELECT attname::text FROM unnest(conkey) WITH ORDINALITY k (n, i) JOIN pg_attribute "
        "      ON attrelid = conrelid AND attnum = n ORDER BY i), "
        "ARRAY(SELECT attname::text FROM unnest(confkey) WITH ORDINALITY k (n, i) JOIN pg_attribute "
        "      ON attrelid = confrelid AND attnum = n ORDER BY i) "
        "FROM pg_constraint WHERE contype = 'f' AND connamespace = 'public'::regnamespace"
    ).fetchall()
    assert found
    broken = []
    for table, other, name, mine, theirs in found:
        query = sql.SQL(
            "SELECT count(*) FROM {} a WHERE num_nulls({}) = 0 AND NOT EXISTS (SELECT FROM {} b WHERE {})"
        ).format(
            sql.Identifier(table),
            sql.SQL(", ").join(sql.Identifier("a", one) for one in mine),
            sql.Identifier(other),
            sql.SQL(" AND ").join(
                sql.SQL("{} = {}").format(sql.Identifier("a", one), sql.Identifier("b", two))
                for one, two in zip(mine, theirs, strict=True)
            ),
        )
        if owner.execute(query).fetchone() != (0,):
            broken.append(name)
    return broken


async def test_a_copy_is_a_whole_case(nanjing: Desk, database: str) -> None:
    heard: list[int] = []
    with psycopg.connect(database, autocommit=True) as owner:
        before = {table: counts(owner, table) for table in _TABLES}
        await copy_cases(database, to=50, households=HOUSEHOLDS, progress=heard.append)
        after = {table: counts(owner, table) for table in _TABLES}
        assert before["cases"] == [(1, 2)]
        assert all(n > 0 for of_case in before.values() for n, _ in of_case)
        assert after == {table: [(n, how_many * 25) for n, how_many in of_case] for table, of_case in before.items()}
        assert heard[-1] == 50
        assert (await count_rows(database))[0] == 50
        assert dangling(owner) == []


async def test_nothing_of_a_copy_is_due_and_all_of_it_lies_in_the_past(nanjing: Desk, database: str) -> None:
    ours = "case_id IN (SELECT id FROM cases WHERE closed_at < %s)"
    a_month_ago = nanjing.now - timedelta(days=30)
    await copy_cases(database, to=50, households=HOUSEHOLDS)
    with psycopg.connect(database, autocommit=True) as owner:
        assert owner.execute("SELECT count(*) FROM cases WHERE closed_at < %s", (a_month_ago,)).fetchone() == (48,)
        for due in (
            "leg WHERE ended_at IS NULL",
            "notice WHERE state = 'due'",
            "run WHERE ended_at IS NULL",
            "step WHERE state = 'open'",
            "progress WHERE next_at IS NOT NULL",
            "event WHERE position IS NULL",
            "event WHERE position > 0",
        ):
            query = f"SELECT count(*) FROM {due} AND {ours}"
            assert owner.execute(query.encode(), (a_month_ago,)).fetchone() == (0,), due
        assert owner.execute(
            "SELECT count(*) FROM cases WHERE wake_at IS NOT NULL AND state = 'closed' AND closed_at < %s",
            (a_month_ago,),
        ).fetchone() == (0,)
        years = owner.execute("SELECT max(closed_at) - min(closed_at) FROM cases WHERE state = 'closed'").fetchone()
        assert years is not None
        assert timedelta(days=1800) < years[0] < timedelta(days=1900)
    sent = len(nanjing.link.sent)
    await nanjing.act()
    assert len(nanjing.link.sent) == sent


async def test_copies_belong_to_the_households_and_their_terminals(nanjing: Desk, database: str) -> None:
    await copy_cases(database, to=50, households=HOUSEHOLDS[:2])
    rows = await nanjing.rows(
        "SELECT DISTINCT c.household_id, c.subject, s.household_id = c.household_id, t.public_id = a.terminal_id, "
        "c.terminal_id = a.terminal_id FROM cases c JOIN alarm a ON a.case_id = c.id "
        "JOIN terminal t ON t.uid = a.terminal_uid JOIN assignment s ON s.terminal_uid = t.uid "
        "WHERE c.state = 'closed' ORDER BY 1"
    )
    assert rows == [(name, f"household:{name}", True, True, True) for name in sorted(HOUSEHOLDS[:2])]
    assert await nanjing.rows(
        "SELECT min(n) > 20, max(n) < 30 FROM (SELECT count(*) AS n FROM cases "
        "WHERE state = 'closed' GROUP BY household_id) AS h"
    ) == [(True, True)]


async def test_ids_of_copies_are_in_order_all_over_their_range_and_hang_together(nanjing: Desk, database: str) -> None:
    await copy_cases(database, to=50, households=HOUSEHOLDS)
    rows: list[tuple[UUID, datetime]] = await nanjing.rows(
        "SELECT id, closed_at FROM cases WHERE state = 'closed' ORDER BY closed_at"
    )
    heads = [case.int >> 96 for case, _ in rows[:-2]]
    assert heads == sorted(heads)
    assert heads[0] < 0x10000000
    assert heads[-1] > 0xF0000000
    for leg, number, notice in await nanjing.rows("SELECT leg_id, number, id FROM notice"):
        assert notice == keys.notice_id(leg, number)
    assert await nanjing.rows(
        "SELECT count(*) FROM attempt a JOIN notice n ON n.id = a.notice_id WHERE a.leg_id <> n.leg_id"
    ) == [(0,)]


async def test_the_originals_stay_as_they_are(nanjing: Desk, database: str) -> None:
    query = "SELECT to_jsonb(c) FROM cases c WHERE closed_at > %s OR state <> 'closed' ORDER BY id"
    since = nanjing.started
    before = await nanjing.rows(query, since)
    await copy_cases(database, to=50, households=HOUSEHOLDS)
    assert await nanjing.rows(query, since) == before


async def test_what_is_there_is_enough(nanjing: Desk, database: str) -> None:
    await copy_cases(database, to=2, households=HOUSEHOLDS)
    assert (await count_rows(database))[0] == 2


@pytest.mark.parametrize("households", [HOUSEHOLDS, ("nobody",)])
async def test_without_a_case_or_a_household_there_is_nothing_to_copy(
    database: str, site: str, households: tuple[str, ...]
) -> None:
    with pytest.raises(ValueError, match="no closed case to copy"):
        await copy_cases(database, to=50, households=households)


# ---------------------------------------------------------------- what a history costs

_ROUNDS = 12
"""More than the five after which the database plans a statement once and for all, for values that it does not know."""


async def _a_round(pool: Pool, directory: Directory, auditor: Auditor, runner: Runner) -> None:
    """Do once what gateway, runner, keeper, metrics and auditor do again and again."""
    await runner.advance_due()
    await runner.advance_complaints()
    await runner.send_commands()
    await runner.send_progress()
    await runner.drive_drills()
    await lease_due(pool, directory, worker=1, holding=("none",), limit=100)
    await settle_disclosures(pool, directory)
    await make_checkpoints(pool, directory.keyring)
    await report_findings(pool, directory)
    async with pool.connection() as conn:
        await events.place(conn)
        await queries.figures(conn)
    await auditor.round()
    await auditor.tell()


async def _read(owner: Owner) -> dict[str, int]:
    """How many rows and index entries were read of each table by those who are gone."""
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'onekey%'"
    )
    async with asyncio.timeout(10):
        while owner.execute(query).fetchone() != (0,):
            await asyncio.sleep(0.01)
    return dict(
        owner.execute(
            "SELECT t.relname, t.seq_tup_read + coalesce(t.idx_tup_fetch, 0) + i.read FROM pg_stat_user_tables t "
            "JOIN (SELECT relid, sum(idx_tup_read)::bigint AS read FROM pg_stat_user_indexes GROUP BY relid) i "
            "ON i.relid = t.relid"
        ).fetchall()
    )


async def test_nothing_that_runs_by_the_clock_goes_through_what_is_closed(
    database: str, directory: Directory, keyring: Keyring
) -> None:
    closed = 3000
    async with desk_in(database, directory, keyring, "nanjing") as desk:
        for terminal in (WANG, LI):
            case = await desk.press(terminal)
            await desk.own(case)
            await desk.close(case)
        await desk.press(ZHAO)
        now = desk.now
    await copy_cases(database, to=closed, households=HOUSEHOLDS)
    with psycopg.connect(database, autocommit=True) as owner:
        before = await _read(owner)
        async with open_clocked_pool(database, clock=lambda: now + timedelta(seconds=1), size=1) as pool:
            runner = Runner(
                pool,
                directory,
                Link(),  # type: ignore[arg-type]
                submit=lambda _: None,
                worker=lambda: None,
                is_working_day=WORKDAYS.is_working_day,
                rng=Random(1),
            )
            auditor = Auditor(pool, keyring, every_s=5)
            for _ in range(_ROUNDS):
                await _a_round(pool, directory, auditor, runner)
        after = await _read(owner)
    assert before["cases"] > 0
    read = {table: after[table] - before[table] for table in _TABLES}
    assert {table: n for table, n in read.items() if n >= closed} == {}
    assert read["cases"] > 0
