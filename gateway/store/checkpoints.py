"""Checkpoints in the database: made one after the other under a lock, never changed, read in their order."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from psycopg.rows import class_row

from gateway.store.pool import Connection

__all__ = ["CheckpointRow", "add", "after", "every", "gaps", "last", "lock", "naming", "one", "take_grown"]

_LOCK = 0x63686B70  # "chkp"
_PAGE = 1000


@dataclass(frozen=True, slots=True)
class CheckpointRow:
    """A checkpoint as it is stored. Only the line is signed."""

    number: int
    at: datetime
    line: str


async def lock(conn: Connection) -> None:
    """Let nobody else make a checkpoint until the transaction ends: the sequence must not fork."""
    await conn.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))


async def take_grown(conn: Connection, *, limit: int) -> list[tuple[UUID, int, bytes]]:
    """Take cases whose chains grew since the checkpoint before, with number and hash of their newest entries.

    It is one statement and thus one instant: what is committed later grows the chain again.
    """
    cursor = await conn.execute(
        """
        WITH taken AS (
            DELETE FROM chain_growth WHERE case_id IN (SELECT DISTINCT case_id FROM chain_growth LIMIT %s)
            RETURNING case_id
        )
        SELECT id, journal_n, journal_head FROM cases
        WHERE id = ANY (ARRAY(SELECT case_id FROM taken)) ORDER BY id  -- each by its key, never through all cases
        """,
        (limit,),
    )
    return [(row[0], row[1], bytes(row[2])) for row in await cursor.fetchall()]


async def add(conn: Connection, row: CheckpointRow) -> None:
    """Store a checkpoint."""
    await conn.execute("INSERT INTO checkpoint (number, at, line) VALUES (%s, %s, %s)", (row.number, row.at, row.line))


async def last(conn: Connection) -> CheckpointRow | None:
    """Return the newest checkpoint."""
    async with conn.cursor(row_factory=class_row(CheckpointRow)) as cursor:
        await cursor.execute("SELECT number, at, line FROM checkpoint ORDER BY number DESC LIMIT 1")
        return await cursor.fetchone()


async def one(conn: Connection, number: int) -> CheckpointRow | None:
    """Return a checkpoint."""
    async with conn.cursor(row_factory=class_row(CheckpointRow)) as cursor:
        await cursor.execute("SELECT number, at, line FROM checkpoint WHERE number = %s", (number,))
        return await cursor.fetchone()


async def after(conn: Connection, number: int, *, limit: int) -> list[CheckpointRow]:
    """Return the checkpoints behind `number`, in their order."""
    async with conn.cursor(row_factory=class_row(CheckpointRow)) as cursor:
        await cursor.execute(
            "SELECT number, at, line FROM checkpoint WHERE number > %s ORDER BY number LIMIT %s", (number, limit)
        )
        return await cursor.fetchall()


async def every(conn: Connection, *, behind: int = 0) -> AsyncIterator[list[CheckpointRow]]:
    """Yield all checkpoints behind `behind` in their order, some at a time."""
    while page := await after(conn, behind, limit=_PAGE):
        yield page
        behind = page[-1].number


async def naming(conn: Connection, case_id: UUID) -> list[CheckpointRow]:
    """Return the checkpoints that name a case, in their order."""
    async with conn.cursor(row_factory=class_row(CheckpointRow)) as cursor:
        await cursor.execute(
            "SELECT number, at, line FROM checkpoint WHERE checkpoint_cases(line) @> ARRAY[%s::uuid] ORDER BY number",
            (case_id,),
        )
        return await cursor.fetchall()


async def gaps(conn: Connection) -> int:
    """Return how many checkpoints are missing in front of the newest one."""
    row = await (await conn.execute("SELECT coalesce(max(number), 0) - count(*) FROM checkpoint")).fetchone()
    assert row is not None
    return int(row[0])
