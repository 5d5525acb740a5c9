"""Procedures, their runs and steps, facts, and commands to terminals in the database."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from gateway.domain.procedure import StepRow, StepState
from gateway.store.pool import Connection

__all__ = [
    "CommandRow",
    "FactRow",
    "RunRow",
    "TaskLine",
    "add_body",
    "add_command",
    "add_facts",
    "add_run",
    "bodies",
    "body",
    "commands_of",
    "due_cases",
    "due_commands",
    "end_command",
    "end_run",
    "expire_commands",
    "facts_of",
    "newest_version",
    "put_off",
    "runs_of",
    "save_step",
    "set_owner",
    "set_seat_b",
    "sleep_until",
    "step_by_id",
    "steps_of",
    "tasks",
    "the_time",
]


async def the_time(conn: Connection) -> datetime:
    """Return the time that the database goes by: its clock, unless somebody plays with it (D9)."""
    row = await (await conn.execute("SELECT onekey_now()")).fetchone()
    assert row is not None
    at: datetime = row[0]
    return at


# Procedures


async def add_body(conn: Connection, procedure: str, version: int, body: Mapping[str, Any]) -> bool:
    """Store a procedure at a version; False when that version is there and says something else."""
    await conn.execute(
        "INSERT INTO procedure (id, version, body) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
        (procedure, version, Jsonb(dict(body))),
    )
    cursor = await conn.execute(
        "SELECT body = %s FROM procedure WHERE id = %s AND version = %s", (Jsonb(dict(body)), procedure, version)
    )
    return await cursor.fetchone() == (True,)


async def body(conn: Connection, procedure: str, version: int) -> dict[str, Any]:
    """Return what a procedure says at a version that a run refers to."""
    cursor = await conn.execute("SELECT body FROM procedure WHERE id = %s AND version = %s", (procedure, version))
    row = await cursor.fetchone()
    assert row is not None
    found: dict[str, Any] = row[0]
    return found


async def bodies(conn: Connection) -> list[dict[str, Any]]:
    """Return every procedure at its newest version."""
    cursor = await conn.execute("SELECT DISTINCT ON (id) body FROM procedure ORDER BY id, version DESC")
    return [row[0] for row in await cursor.fetchall()]


async def newest_version(conn: Connection, procedure: str) -> int | None:
    """Return the newest version of a procedure, or None when there is no such one."""
    row = await (await conn.execute("SELECT max(version) FROM procedure WHERE id = %s", (procedure,))).fetchone()
    return None if row is None else row[0]


# Runs and steps


@dataclass(frozen=True, slots=True)
class RunRow:
    """A procedure that runs, or ran, for a case."""

    id: UUID
    case_id: UUID
    procedure: str
    version: int
    started_at: datetime
    ended_at: datetime | None


async def runs_of(conn: Connection, case_id: UUID) -> list[RunRow]:
    """Return the runs of a case, oldest first."""
    async with conn.cursor(row_factory=class_row(RunRow)) as cursor:
        await cursor.execute(
            "SELECT id, case_id, procedure, version, started_at, ended_at FROM run WHERE case_id = %s "
            "ORDER BY started_at, procedure",
            (case_id,),
        )
        return await cursor.fetchall()


async def add_run(conn: Connection, run: RunRow) -> None:
    """Store a new run."""
    await conn.execute(
        "INSERT INTO run (id, case_id, procedure, version, started_at) VALUES (%s, %s, %s, %s, %s)",
        (run.id, run.case_id, run.procedure, run.version, run.started_at),
    )


async def end_run(conn: Connection, run: UUID, at: datetime) -> None:
    """Note that nothing of a run can happen any more."""
    await conn.execute("UPDATE run SET ended_at = %s WHERE id = %s", (at, run))


async def steps_of(conn: Connection, case_id: UUID) -> dict[UUID, dict[str, StepRow]]:
    """Return by run how each step that has a state stands."""
    cursor = await conn.execute(
        "SELECT run_id, name, state, planned_at, started_at, due_at, breached_at, ended_at, result "
        "FROM step WHERE case_id = %s",
        (case_id,),
    )
    steps: dict[UUID, dict[str, StepRow]] = {}
    for run, name, state, planned, started, due, breached, ended, result in await cursor.fetchall():
        steps.setdefault(run, {})[name] = StepRow(
            state=StepState(state),
            planned_at=planned,
            started_at=started,
            due_at=due,
            breached_at=breached,
            ended_at=ended,
            result=result,
        )
    return steps


async def save_step(
    conn: Connection,
    row: StepRow,
    *,
    id: UUID,  # noqa: A002 # the column
    run: UUID,
    case: UUID,
    district: str,
    name: str,
    does: str,
    seat: str | None,
    by: str | None,
) -> None:
    """Store how a step stands now."""
    await conn.execute(
        """
        INSERT INTO step (id, run_id, case_id, district, name, does, seat, state, planned_at, started_at, due_at,
                          breached_at, ended_at, result, by_whom)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
        ON CONFLICT (id) DO UPDATE SET state = EXCLUDED.state, due_at = EXCLUDED.due_at, result = EXCLUDED.result,
            breached_at = EXCLUDED.breached_at, ended_at = EXCLUDED.ended_at, by_whom = EXCLUDED.by_whom
        """,
        (
            id,
            run,
            case,
            district,
            name,
            does,
            seat,
            row.state,
            row.planned_at,
            row.started_at,
            row.due_at,
            row.breached_at,
            row.ended_at,
            row.result,
            by,
        ),
    )


async def step_by_id(conn: Connection, step: UUID) -> tuple[UUID, UUID, str] | None:
    """Return case, run and name of a step."""
    row = await (await conn.execute("SELECT case_id, run_id, name FROM step WHERE id = %s", (step,))).fetchone()
    return None if row is None else (row[0], row[1], row[2])


# When a case wants to be looked at


async def due_cases(conn: Connection, *, limit: int, overdue: timedelta = timedelta(0)) -> list[UUID]:
    """Return the cases for which something may happen now, the longest overdue first; those due for `overdue`."""
    cursor = await conn.execute(
        "SELECT id FROM cases WHERE wake_at <= (SELECT onekey_now() - %s) ORDER BY wake_at LIMIT %s", (overdue, limit)
    )
    return [row[0] for row in await cursor.fetchall()]


async def sleep_until(conn: Connection, case_id: UUID, at: datetime | None) -> None:
    """Say when time alone changes something again. Whatever else matters wakes the case by itself."""
    await conn.execute("UPDATE cases SET wake_at = %s WHERE id = %s", (at, case_id))


async def put_off(conn: Connection, case_id: UUID, delay: timedelta) -> None:
    """Let a case that cannot be handled wait, so that it does not keep the others waiting (D12)."""
    await conn.execute("UPDATE cases SET wake_at = onekey_now() + %s WHERE id = %s", (delay, case_id))


# Facts and seats


@dataclass(frozen=True, slots=True)
class FactRow:
    """Something known of a rescue."""

    fact: str
    role: str
    by_whom: str
    at: datetime


async def facts_of(conn: Connection, case_id: UUID) -> list[FactRow]:
    """Return what is known of a case, oldest first."""
    async with conn.cursor(row_factory=class_row(FactRow)) as cursor:
        await cursor.execute(
            "SELECT fact, role, by_whom, at FROM fact WHERE case_id = %s ORDER BY at, fact", (case_id,)
        )
        return await cursor.fetchall()


async def add_facts(
    conn: Connection, case_id: UUID, facts: Sequence[str], *, role: str, by: str
) -> dict[str, datetime]:
    """Store facts about a role; returns those that are new, with their time."""
    cursor = await conn.execute(
        """
        INSERT INTO fact (case_id, fact, role, by_whom) SELECT %s, fact, %s, %s FROM unnest(%s::text[]) AS fact
        ON CONFLICT DO NOTHING RETURNING fact, at
        """,
        (case_id, role, by, list(facts)),
    )
    return {row[0]: row[1] for row in await cursor.fetchall()}


async def set_owner(conn: Connection, case_id: UUID, operator: str) -> None:
    """Hand a case over (R17)."""
    await conn.execute("UPDATE cases SET owner = %s WHERE id = %s", (operator, case_id))


async def set_seat_b(conn: Connection, case_id: UUID, operator: str | None) -> None:
    """Say who sits at seat B of a case (R13)."""
    await conn.execute("UPDATE cases SET seat_b = %s WHERE id = %s", (operator, case_id))


# Tasks


@dataclass(frozen=True, slots=True)
class TaskLine:
    """A task as a list shows it. ``owner`` is who sits at its seat now."""

    id: UUID
    case_id: UUID
    district: str
    household_id: str | None
    test: bool
    procedure: str
    version: int
    name: str
    seat: str
    owner: str | None
    state: str
    planned_at: datetime
    started_at: datetime | None
    due_at: datetime | None
    breached_at: datetime | None
    ended_at: datetime | None
    result: str | None
    by_whom: str | None


async def tasks(
    conn: Connection,
    *,
    case: UUID | None = None,
    task: UUID | None = None,
    state: str | None = None,
    owner: str | None = None,
    seat: str | None = None,
    district: str | None = None,
    overdue: bool = False,
    after: tuple[datetime, UUID] | None = None,
    limit: int,
) -> list[TaskLine]:
    """Return tasks of humans, the most urgent first: by deadline, those without one last."""
    async with conn.cursor(row_factory=class_row(TaskLine)) as cursor:
        await cursor.execute(
            """
            SELECT * FROM (
                SELECT s.id, s.case_id, s.district, c.household_id, c.test, r.procedure, r.version, s.name, s.seat,
                       CASE s.seat WHEN 'A' THEN c.owner WHEN 'B' THEN c.seat_b WHEN 'first' THEN c.first_owner END
                           AS owner,
                       s.state, s.planned_at, s.started_at, s.due_at, s.breached_at, s.ended_at, s.result, s.by_whom
                FROM step s JOIN run r ON r.id = s.run_id JOIN cases c ON c.id = s.case_id
                WHERE s.does = 'task' AND s.started_at IS NOT NULL
                  AND (%(case)s::uuid IS NULL OR s.case_id = %(case)s)
                  AND (%(task)s::uuid IS NULL OR s.id = %(task)s)
                  AND (%(state)s::text IS NULL OR s.state = %(state)s)
                  AND (%(seat)s::text IS NULL OR s.seat = %(seat)s)
                  AND (%(district)s::text IS NULL OR s.district = %(district)s)
                  AND (NOT %(overdue)s OR s.state = 'open' AND s.due_at <= onekey_now())
            ) t
            WHERE (%(owner)s::text IS NULL OR owner = %(owner)s)
              AND (%(at)s::timestamptz IS NULL OR (coalesce(due_at, 'infinity'), id) > (%(at)s, %(id)s::uuid))
            ORDER BY coalesce(due_at, 'infinity'), id LIMIT %(limit)s
            """,
            {
                "case": case,
                "task": task,
                "state": state,
                "owner": owner,
                "seat": seat,
                "district": district,
                "overdue": overdue,
                "at": None if after is None else after[0],
                "id": None if after is None else after[1],
                "limit": limit,
            },
        )
        return await cursor.fetchall()


# Commands


@dataclass(frozen=True, slots=True)
class CommandRow:
    """What a terminal was asked to do."""

    id: str
    case_id: UUID | None
    step_id: UUID | None
    terminal_id: str
    name: str
    arguments: dict[str, Any]
    state: str
    queued_at: datetime
    expires_at: datetime
    answered_at: datetime | None
    detail: str | None


_COMMAND = "id, case_id, step_id, terminal_id, name, arguments, state, queued_at, expires_at, answered_at, detail"


async def add_command(
    conn: Connection,
    *,
    id: str,  # noqa: A002 # the column
    case: UUID | None,
    step: UUID | None,
    terminal: str,
    name: str,
    arguments: Mapping[str, Any],
    expires_at: datetime,
) -> None:
    """Queue a command; the same id again changes nothing."""
    await conn.execute(
        "INSERT INTO command (id, case_id, step_id, terminal_id, name, arguments, expires_at) "
        "VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
        (id, case, step, terminal, name, Jsonb(dict(arguments)), expires_at),
    )


async def due_commands(conn: Connection, *, again_after: timedelta, limit: int) -> list[CommandRow]:
    """Take the commands that are to be sent now, and put each off until it would be sent again."""
    async with conn.cursor(row_factory=class_row(CommandRow)) as cursor:
        await cursor.execute(
            f"""
            WITH due AS (
                SELECT id AS due_id FROM command WHERE next_at <= (SELECT onekey_now()) AND state IN ('due', 'sent')
                ORDER BY next_at LIMIT %s FOR UPDATE SKIP LOCKED
            )
            UPDATE command SET state = 'sent', next_at = onekey_now() + %s FROM due WHERE id = due_id
            RETURNING {_COMMAND}
            """,  # noqa: S608
            (limit, again_after),
        )
        return await cursor.fetchall()


async def expire_commands(conn: Connection) -> None:
    """End commands that were never answered."""
    await conn.execute(
        "UPDATE command SET state = 'expired', next_at = NULL WHERE next_at IS NOT NULL AND expires_at <= onekey_now()"
    )


async def end_command(
    conn: Connection, command: str, *, terminal: str, state: str, detail: str | None
) -> CommandRow | None:
    """Record what a terminal answered; None when nothing was asked of it, or it was answered before."""
    async with conn.cursor(row_factory=class_row(CommandRow)) as cursor:
        await cursor.execute(
            f"""
            UPDATE command SET state = %s, detail = %s, answered_at = onekey_now(), next_at = NULL
            WHERE id = %s AND terminal_id = %s AND answered_at IS NULL RETURNING {_COMMAND}
            """,  # noqa: S608
            (state, detail, command, terminal),
        )
        return await cursor.fetchone()


async def commands_of(conn: Connection, case_id: UUID) -> list[CommandRow]:
    """Return the commands of a case, oldest first."""
    async with conn.cursor(row_factory=class_row(CommandRow)) as cursor:
        await cursor.execute(f"SELECT {_COMMAND} FROM command WHERE case_id = %s ORDER BY queued_at, id", (case_id,))  # noqa: S608
        return await cursor.fetchall()
