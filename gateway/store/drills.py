"""Drills in the database: what was planned, what was injected, and what came of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from gateway.store.pool import Connection

__all__ = [
    "DrillRow",
    "LegTimes",
    "StepTimes",
    "add",
    "cases_of",
    "end",
    "inject",
    "known_parties",
    "known_terminals",
    "legs_of",
    "lock",
    "one",
    "page",
    "participants",
    "running",
    "start",
    "steps_of",
]


@dataclass(frozen=True, slots=True)
class DrillRow:
    """A drill. ``scenario`` is a list of ``after_s``, ``terminal`` and ``kinds``."""

    id: UUID
    site_id: str
    district: str
    title: str
    terminals: list[str]
    participants: list[str]
    scenario: list[dict[str, Any]]
    lasts: timedelta
    state: str
    injected: int
    created_at: datetime
    created_by: str
    started_at: datetime | None
    ended_at: datetime | None
    ended_by: str | None


_COLUMNS = """id, site_id, district, title, terminals, participants, scenario, lasts, state, injected, created_at,
    created_by, started_at, ended_at, ended_by"""


async def add(
    conn: Connection,
    *,
    id: UUID,  # noqa: A002 # the column
    site: str,
    district: str,
    title: str,
    terminals: Sequence[str],
    participants: Sequence[str],
    scenario: Sequence[dict[str, Any]],
    lasts: timedelta,
    by: str,
) -> None:
    """Store a planned drill."""
    await conn.execute(
        "INSERT INTO drill (id, site_id, district, title, terminals, participants, scenario, lasts, created_by) "
        "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (id, site, district, title, list(terminals), list(participants), Jsonb(list(scenario)), lasts, by),
    )


async def one(conn: Connection, drill: UUID) -> DrillRow | None:
    """Return a drill."""
    async with conn.cursor(row_factory=class_row(DrillRow)) as cursor:
        await cursor.execute(f"SELECT {_COLUMNS} FROM drill WHERE id = %s", (drill,))  # noqa: S608
        return await cursor.fetchone()


async def lock(conn: Connection, drill: UUID) -> DrillRow | None:
    """Lock and return a drill."""
    async with conn.cursor(row_factory=class_row(DrillRow)) as cursor:
        await cursor.execute(f"SELECT {_COLUMNS} FROM drill WHERE id = %s FOR NO KEY UPDATE", (drill,))  # noqa: S608
        return await cursor.fetchone()


async def page(conn: Connection, *, before: tuple[datetime, UUID] | None, limit: int) -> list[DrillRow]:
    """Return drills, newest first."""
    async with conn.cursor(row_factory=class_row(DrillRow)) as cursor:
        at, last = before or (None, None)
        await cursor.execute(
            f"SELECT {_COLUMNS} FROM drill "  # noqa: S608
            "WHERE %(at)s::timestamptz IS NULL OR (created_at, id) < (%(at)s, %(id)s::uuid) "
            "ORDER BY created_at DESC, id DESC LIMIT %(limit)s",
            {"at": at, "id": last, "limit": limit},
        )
        return await cursor.fetchall()


async def running(conn: Connection) -> list[DrillRow]:
    """Return the drills that run now."""
    async with conn.cursor(row_factory=class_row(DrillRow)) as cursor:
        await cursor.execute(f"SELECT {_COLUMNS} FROM drill WHERE state = 'running' ORDER BY started_at, id")  # noqa: S608
        return await cursor.fetchall()


async def participants(conn: Connection, drill: UUID) -> list[str]:
    """Return who takes part in a drill."""
    row = await (await conn.execute("SELECT participants FROM drill WHERE id = %s", (drill,))).fetchone()
    assert row is not None
    found: list[str] = row[0]
    return found


async def known_parties(conn: Connection, site: str, parties: Sequence[str]) -> dict[str, str]:
    """Return the roles of those of `parties` that the site has in use."""
    cursor = await conn.execute(
        "SELECT id, role FROM party WHERE site_id = %s AND active AND id = ANY(%s)", (site, list(parties))
    )
    return {row[0]: row[1] for row in await cursor.fetchall()}


async def known_terminals(conn: Connection, terminals: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return site and district of those of `terminals` that are in use and stand in a household."""
    cursor = await conn.execute(
        "SELECT t.public_id, t.site_id, t.district FROM terminal t "
        "JOIN assignment a ON a.terminal_uid = t.uid AND a.until IS NULL WHERE t.active AND t.public_id = ANY(%s)",
        (list(terminals),),
    )
    return {row[0]: (row[1], row[2]) for row in await cursor.fetchall()}


async def start(conn: Connection, drill: UUID, *, by: str) -> None:
    """Let a drill run: from now on the test presses of its terminals belong to it."""
    await conn.execute("UPDATE drill SET state = 'running', started_at = onekey_now() WHERE id = %s", (drill,))
    await conn.execute(
        """
        INSERT INTO test_window (terminal_uid, opens_at, closes_at, reason, opened_by, drill_id)
        SELECT t.uid, d.started_at, d.started_at + d.lasts, 'drill', %s, d.id
        FROM drill d JOIN terminal t ON t.public_id = ANY(d.terminals) WHERE d.id = %s
        """,
        (by, drill),
    )


async def end(conn: Connection, drill: UUID, *, by: str) -> None:
    """End a drill and its windows."""
    await conn.execute(
        "UPDATE drill SET state = 'ended', ended_at = onekey_now(), ended_by = %s WHERE id = %s", (by, drill)
    )
    await conn.execute(
        "UPDATE test_window SET closes_at = greatest(onekey_now(), opens_at + interval '1 microsecond') "
        "WHERE drill_id = %s AND closes_at > onekey_now()",
        (drill,),
    )


async def inject(conn: Connection, drill: UUID, number: int) -> None:
    """Note how many presses of the scenario were made."""
    await conn.execute("UPDATE drill SET injected = %s WHERE id = %s", (number, drill))


async def cases_of(conn: Connection, drill: UUID) -> list[tuple[UUID, str, datetime, datetime | None, str | None]]:
    """Return the cases of a drill: id, state, when it was opened and owned, and by whom."""
    cursor = await conn.execute(
        "SELECT id, state, opened_at, owned_at, first_owner FROM cases WHERE drill_id = %s ORDER BY opened_at, id",
        (drill,),
    )
    return [tuple(row) for row in await cursor.fetchall()]


@dataclass(frozen=True, slots=True)
class LegTimes:
    """When a party was told and answered."""

    case_id: UUID
    role: str
    party: str
    state: str
    armed_at: datetime
    delivered_at: datetime | None
    answered_at: datetime | None
    ladder: dict[str, Any] | None


async def legs_of(conn: Connection, drill: UUID) -> list[LegTimes]:
    """Return the legs of a drill's cases to those who take part."""
    async with conn.cursor(row_factory=class_row(LegTimes)) as cursor:
        await cursor.execute(
            """
            SELECT l.case_id, l.role, l.party_id AS party, l.state, l.armed_at, l.delivered_at,
                   CASE WHEN l.state = 'answered' THEN l.ended_at END AS answered_at, l.ladder
            FROM leg l JOIN cases c ON c.id = l.case_id
            WHERE c.drill_id = %s AND l.party_id IS NOT NULL AND l.state <> 'skipped' ORDER BY c.opened_at, l.role, 3
            """,
            (drill,),
        )
        return await cursor.fetchall()


@dataclass(frozen=True, slots=True)
class StepTimes:
    """When a task was due and done."""

    case_id: UUID
    name: str
    seat: str
    state: str
    due_at: datetime | None
    ended_at: datetime | None
    result: str | None
    by_whom: str | None


async def steps_of(conn: Connection, drill: UUID) -> list[StepTimes]:
    """Return the tasks of a drill's cases that have a deadline and began."""
    async with conn.cursor(row_factory=class_row(StepTimes)) as cursor:
        await cursor.execute(
            "SELECT s.case_id, s.name, s.seat, s.state, s.due_at, s.ended_at, s.result, s.by_whom "
            "FROM step s JOIN cases c ON c.id = s.case_id "
            "WHERE c.drill_id = %s AND s.does = 'task' AND s.started_at IS NOT NULL AND s.due_at IS NOT NULL "
            "ORDER BY s.planned_at, s.name",
            (drill,),
        )
        return await cursor.fetchall()
