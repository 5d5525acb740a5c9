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
    "ProgressRow",
    "RunRow",
    "TaskLine",
    "accept_command",
    "add_body",
    "add_command",
    "add_facts",
    "add_progress",
    "add_run",
    "bodies",
    "body",
    "coming",
    "command",
    "commands_of",
    "due_cases",
    "due_commands",
    "due_progress",
    "end_command",
    "end_run",
    "facts_of",
    "late_commands",
    "newest_version",
    "open_cases_of",
    "open_tests_at",
    "progress_of",
    "put_off",
    "runs_of",
    "save_step",
    "set_owner",
    "set_restored",
    "set_seat_b",
    "sleep_until",
    "step_by_id",
    "steps_of",
    "tasks",
    "terminal_exists",
    "terminals_of",
    "the_time",
    "under_duress",
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
    after_closure: bool = False


async def runs_of(conn: Connection, case_id: UUID) -> list[RunRow]:
    """Return the runs of a case, oldest first."""
    async with conn.cursor(row_factory=class_row(RunRow)) as cursor:
        await cursor.execute(
            "SELECT id, case_id, procedure, version, started_at, ended_at, after_closure FROM run WHERE case_id = %s "
            "ORDER BY started_at, procedure",
            (case_id,),
        )
        return await cursor.fetchall()


async def add_run(conn: Connection, run: RunRow) -> None:
    """Store a new run."""
    await conn.execute(
        "INSERT INTO run (id, case_id, procedure, version, started_at, after_closure) VALUES (%s, %s, %s, %s, %s, %s)",
        (run.id, run.case_id, run.procedure, run.version, run.started_at, run.after_closure),
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
    after: tuple[str, UUID] | None = None,
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
                SELECT id AS due_id FROM command
                WHERE state IN ('due', 'sent') AND next_at <= (SELECT onekey_now())
                  AND expires_at > (SELECT onekey_now())
                ORDER BY next_at LIMIT %s FOR UPDATE SKIP LOCKED
            )
            UPDATE command SET state = 'sent', next_at = least(onekey_now() + %s, expires_at) FROM due WHERE id = due_id
            RETURNING {_COMMAND}
            """,  # noqa: S608
            (limit, again_after),
        )
        return await cursor.fetchall()


async def late_commands(conn: Connection) -> list[CommandRow]:
    """Return the commands that were never answered in time."""
    async with conn.cursor(row_factory=class_row(CommandRow)) as cursor:
        await cursor.execute(
            f"SELECT {_COMMAND} FROM command WHERE next_at IS NOT NULL AND expires_at <= (SELECT onekey_now()) "  # noqa: S608
            "ORDER BY expires_at LIMIT 200"
        )
        return await cursor.fetchall()


async def command(conn: Connection, name: str) -> CommandRow | None:
    """Return a command by its id."""
    async with conn.cursor(row_factory=class_row(CommandRow)) as cursor:
        await cursor.execute(f"SELECT {_COMMAND} FROM command WHERE id = %s", (name,))  # noqa: S608
        return await cursor.fetchone()


async def accept_command(conn: Connection, name: str) -> None:
    """Note that a terminal begins; it need not be asked again."""
    await conn.execute(
        "UPDATE command SET state = 'accepted', next_at = expires_at WHERE id = %s AND state IN ('due', 'sent')",
        (name,),
    )


async def end_command(conn: Connection, name: str, *, state: str, detail: str | None) -> bool:
    """Record how a command ended; False when it had ended before. An answer counts although the time was up."""
    cursor = await conn.execute(
        """
        UPDATE command SET state = %(state)s, detail = %(detail)s, next_at = NULL,
            answered_at = CASE WHEN %(state)s = 'expired' THEN NULL ELSE onekey_now() END
        WHERE id = %(id)s AND state NOT IN ('done', 'failed', 'refused')
          AND (%(state)s <> 'expired' OR state <> 'expired')
        """,
        {"id": name, "state": state, "detail": detail},
    )
    return cursor.rowcount == 1


async def terminal_exists(conn: Connection, terminal: str) -> bool:
    """Is there an active terminal of this name?"""
    cursor = await conn.execute("SELECT FROM terminal WHERE public_id = %s AND active", (terminal,))
    return await cursor.fetchone() is not None


async def under_duress(conn: Connection, terminal: str, kind: str) -> bool:
    """Is there an open case with `kind` from this terminal's home?"""
    cursor = await conn.execute(
        "SELECT FROM cases c JOIN alarm a ON a.case_id = c.id "
        "WHERE a.terminal_id = %s AND c.state <> 'closed' AND %s = ANY(c.kinds) LIMIT 1",
        (terminal, kind),
    )
    return await cursor.fetchone() is not None


async def open_cases_of(
    conn: Connection, terminal: str, *, seq: int | None, before: datetime, kind: str | None = None
) -> list[UUID]:
    """Return the cases not yet closed that this terminal pressed for before a time, by its number if one is given.

    Not those for which it pressed again since, with `kind` where one is given: what it said before is not about that.
    """
    cursor = await conn.execute(
        """
        SELECT c.id FROM cases c JOIN alarm a ON a.case_id = c.id
        CROSS JOIN LATERAL (SELECT least(coalesce(a.pressed_at, a.received_at), a.received_at)) AS own (at)
        WHERE a.terminal_id = %(terminal)s AND c.state <> 'closed'
        GROUP BY c.id
        HAVING bool_or((%(seq)s::bigint IS NULL OR a.seq = %(seq)s) AND own.at <= %(before)s)
           AND NOT bool_or(own.at > %(before)s AND (%(kind)s::text IS NULL OR %(kind)s = ANY(a.kinds)))
        ORDER BY max(a.stored_at)
        """,
        {"terminal": terminal, "seq": seq, "before": before, "kind": kind},
    )
    return [row[0] for row in await cursor.fetchall()]


async def open_tests_at(conn: Connection, terminals: Sequence[str]) -> list[str]:
    """Return those of `terminals` whose household has an open test case."""
    cursor = await conn.execute(
        """
        SELECT t.public_id FROM terminal t JOIN assignment a ON a.terminal_uid = t.uid AND a.until IS NULL
        WHERE t.public_id = ANY(%s) AND EXISTS (SELECT FROM cases c WHERE c.household_id = a.household_id
              AND c.class = 'test' AND c.state = 'open') ORDER BY 1
        """,
        (list(terminals),),
    )
    return [row[0] for row in await cursor.fetchall()]


async def set_restored(conn: Connection, case_id: UUID, kinds: Sequence[str]) -> None:
    """Note which technical kinds of a case are over."""
    await conn.execute("UPDATE cases SET restored = %s WHERE id = %s", (list(kinds), case_id))


async def terminals_of(conn: Connection, case_id: UUID) -> list[str]:
    """Return the terminals at which somebody pressed for a case, the first one first."""
    cursor = await conn.execute(
        "SELECT terminal_id FROM alarm WHERE case_id = %s AND terminal_id IS NOT NULL AND transport <> 'drill' "
        "GROUP BY terminal_id ORDER BY min(stored_at)",
        (case_id,),
    )
    return [row[0] for row in await cursor.fetchall()]


async def commands_of(conn: Connection, case_id: UUID) -> list[CommandRow]:
    """Return the commands of a case, oldest first."""
    async with conn.cursor(row_factory=class_row(CommandRow)) as cursor:
        await cursor.execute(f"SELECT {_COMMAND} FROM command WHERE case_id = %s ORDER BY queued_at, id", (case_id,))  # noqa: S608
        return await cursor.fetchall()


# Progress for the person on the floor


@dataclass(frozen=True, slots=True)
class ProgressRow:
    """What a terminal is told of the help that comes."""

    id: int
    case_id: UUID
    state: str
    role: str | None
    minutes: int | None
    queued_at: datetime


async def progress_of(conn: Connection, case_id: UUID) -> list[ProgressRow]:
    """Return what the terminals of a case were or are to be told, in that order."""
    async with conn.cursor(row_factory=class_row(ProgressRow)) as cursor:
        await cursor.execute(
            "SELECT id, case_id, state, role, minutes, queued_at FROM progress WHERE case_id = %s ORDER BY id",
            (case_id,),
        )
        return await cursor.fetchall()


async def add_progress(conn: Connection, case_id: UUID, state: str, *, role: str | None, minutes: int | None) -> None:
    """Queue the next thing to tell; what is older and was sent once is not sent again."""
    await conn.execute(
        "UPDATE progress SET next_at = NULL WHERE case_id = %s AND next_at IS NOT NULL AND (sends > 0 OR %s)",
        (case_id, state == "closed"),
    )
    await conn.execute(
        "INSERT INTO progress (case_id, state, role, minutes) VALUES (%s, %s, %s, %s)", (case_id, state, role, minutes)
    )


async def due_progress(
    conn: Connection, *, silent: str, delays: Sequence[timedelta], limit: int
) -> list[tuple[ProgressRow, list[str]]]:
    """Take what is to be sent now with the terminals that it is for, and lock its cases until it was sent (I4).

    Of a case that was closed meanwhile only that it was closed; nothing of one with the kind `silent`.
    """
    cursor = await conn.execute(
        """
        WITH waiting AS MATERIALIZED (  -- by the index of what is still to be sent, and never through all that was
            SELECT id, case_id FROM progress WHERE next_at <= (SELECT onekey_now()) ORDER BY next_at LIMIT %(most)s
        ), due AS (
            SELECT p.id FROM waiting p JOIN cases c ON c.id = p.case_id
            WHERE c.id = ANY (ARRAY(SELECT case_id FROM waiting))
            ORDER BY p.id LIMIT %(limit)s FOR NO KEY UPDATE OF c SKIP LOCKED
        )
        UPDATE progress p SET sends = sends + 1,
            sent_at = CASE WHEN (c.state <> 'closed' OR p.state = 'closed') AND NOT %(silent)s = ANY(c.kinds)
                THEN coalesce(sent_at, onekey_now()) ELSE sent_at END,
            next_at = CASE WHEN sends < %(again)s
                AND NOT EXISTS (SELECT FROM progress newer WHERE newer.case_id = p.case_id AND newer.id > p.id)
                THEN onekey_now() + (%(delays)s::interval[])[sends + 1] END
        FROM due, cases c WHERE p.id = due.id AND c.id = p.case_id
        RETURNING p.id, p.case_id, p.state, p.role, p.minutes, p.queued_at,
            (c.state <> 'closed' OR p.state = 'closed') AND NOT %(silent)s = ANY(c.kinds),
            (SELECT array_agg(DISTINCT a.terminal_id) FROM alarm a
             WHERE a.case_id = c.id AND a.terminal_id IS NOT NULL AND a.transport <> 'drill')
        """,
        # More than one round takes: cases that others hold keep nobody waiting.
        {"limit": limit, "most": 10 * limit, "silent": silent, "again": len(delays), "delays": list(delays)},
    )
    rows = sorted(await cursor.fetchall())
    return [(ProgressRow(*row[:6]), row[7] or []) for row in rows if row[6]]


async def coming(conn: Connection, case_id: UUID) -> list[tuple[str, int | None, datetime]]:
    """Return who said that they come: role, minutes and when, oldest first."""
    cursor = await conn.execute(
        "SELECT l.role, a.minutes, a.at FROM answer a JOIN leg l ON l.id = a.leg_id "
        "WHERE a.case_id = %s AND a.answer = 'coming' AND l.state = 'answered' ORDER BY a.at, a.id",
        (case_id,),
    )
    return [(row[0], row[1], row[2]) for row in await cursor.fetchall()]
