"""What could not be read: kept with its bytes, listed, and replayable after a fix."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from psycopg.rows import class_row

from gateway.store.pool import Connection

__all__ = ["Kept", "count_kept", "keep", "listing", "one", "seen", "settle"]


@dataclass(frozen=True, slots=True)
class Kept:
    """One message in quarantine."""

    id: int
    received_at: datetime
    transport: str
    topic: str
    terminal_id: str | None
    district: str | None
    payload: bytes
    reason: str
    copies: int
    case_id: UUID | None
    state: str
    settled_at: datetime | None
    settled_by: str | None


_COLUMNS = """
    id, received_at, transport, topic, terminal_id, district, payload, reason, copies, case_id, state,
    settled_at, settled_by
"""


async def seen(conn: Connection, topic: str, digest: bytes) -> tuple[int, UUID | None] | None:
    """Count one more copy of a message that is in quarantine already; returns its id and case, if it is there."""
    cursor = await conn.execute(
        """
        UPDATE quarantine SET copies = copies + 1 WHERE id = (
            SELECT id FROM quarantine WHERE topic = %s AND digest = %s AND state = 'kept' ORDER BY id DESC LIMIT 1
        ) RETURNING id, case_id
        """,
        (topic, digest),
    )
    row = await cursor.fetchone()
    return None if row is None else (row[0], row[1])


async def keep(
    conn: Connection,
    *,
    received_at: datetime,
    transport: str,
    topic: str,
    terminal: str | None,
    district: str | None,
    payload: bytes,
    digest: bytes,
    reason: str,
    case_id: UUID | None,
) -> int:
    """Keep a message; returns its number."""
    cursor = await conn.execute(
        """
        INSERT INTO quarantine (received_at, transport, topic, terminal_id, district, payload, digest, reason, case_id)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING id
        """,
        (received_at, transport, topic, terminal, district, payload, digest, reason, case_id),
    )
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def listing(
    conn: Connection, *, before: int | None, state: str | None, district: str | None, limit: int
) -> list[Kept]:
    """Return messages, newest first."""
    async with conn.cursor(row_factory=class_row(Kept)) as cursor:
        await cursor.execute(
            f"""
            SELECT {_COLUMNS} FROM quarantine
            WHERE (%(before)s::bigint IS NULL OR id < %(before)s) AND (%(state)s::text IS NULL OR state = %(state)s)
              AND (%(district)s::text IS NULL OR district = %(district)s)
            ORDER BY id DESC LIMIT %(limit)s
            """,  # noqa: S608
            {"before": before, "state": state, "district": district, "limit": limit},
        )
        return await cursor.fetchall()


async def one(conn: Connection, number: int, *, lock: bool = False) -> Kept | None:
    """Return one message."""
    async with conn.cursor(row_factory=class_row(Kept)) as cursor:
        await cursor.execute(
            f"SELECT {_COLUMNS} FROM quarantine WHERE id = %s {'FOR UPDATE' if lock else ''}",  # noqa: S608
            (number,),
        )
        return await cursor.fetchone()


async def settle(conn: Connection, number: int, *, state: str, by: str) -> None:
    """End a message's quarantine as ``replayed`` or ``dismissed``."""
    await conn.execute(
        "UPDATE quarantine SET state = %s, settled_at = onekey_now(), settled_by = %s WHERE id = %s",
        (state, by, number),
    )


async def count_kept(conn: Connection) -> int:
    """Return how many messages wait for somebody."""
    row = await (await conn.execute("SELECT count(*) FROM quarantine WHERE state = 'kept'")).fetchone()
    assert row is not None
    return int(row[0])
