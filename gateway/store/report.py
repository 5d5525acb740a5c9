"""What a rescue report needs beside the case: its steps as they went, and who took it first."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from psycopg.rows import class_row

from gateway.store.pool import Connection

__all__ = ["StepLine", "first_owner", "steps_of"]


@dataclass(frozen=True, slots=True)
class StepLine:
    """A step of a procedure that ran for a case."""

    procedure: str
    version: int
    name: str
    does: str
    seat: str | None
    state: str
    planned_at: datetime
    started_at: datetime | None
    due_at: datetime | None
    breached_at: datetime | None
    ended_at: datetime | None
    result: str | None
    by_whom: str | None


async def steps_of(conn: Connection, case_id: UUID) -> list[StepLine]:
    """Return the steps of a case in the order in which they were planned."""
    async with conn.cursor(row_factory=class_row(StepLine)) as cursor:
        await cursor.execute(
            """
            SELECT r.procedure, r.version, s.name, s.does, s.seat, s.state, s.planned_at, s.started_at, s.due_at,
                   s.breached_at, s.ended_at, s.result, s.by_whom
            FROM step s JOIN run r ON r.id = s.run_id WHERE s.case_id = %s
            ORDER BY r.started_at, r.procedure, s.planned_at, s.due_at, s.name
            """,
            (case_id,),
        )
        return await cursor.fetchall()


async def first_owner(conn: Connection, case_id: UUID) -> str | None:
    """Return who owned a case first; they stay responsible for what follows it (R17)."""
    row = await (await conn.execute("SELECT first_owner FROM cases WHERE id = %s", (case_id,))).fetchone()
    return None if row is None else row[0]
