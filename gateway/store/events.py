"""The stream of events: written with what they tell, numbered after the commit, read in the order of commits (D10)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.rows import class_row

from gateway.store.pool import Connection, as_jsonb

__all__ = ["CHANNEL", "Event", "NewEvent", "emit", "emit_all", "last_position", "place", "read_after"]

CHANNEL = "onekey_event"


@dataclass(frozen=True, slots=True)
class Event:
    """One event, placed."""

    position: int
    at: datetime
    kind: str
    district: str | None
    case_id: UUID | None
    data: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvent:
    """An event about to be written. ``data`` holds nothing personal: whoever reads it asks for the case."""

    kind: str
    district: str | None
    case_id: UUID | None
    data: dict[str, Any]


async def emit(
    conn: Connection, kind: str, *, district: str | None, case_id: UUID | None, data: dict[str, Any]
) -> None:
    """Add an event to the caller's transaction; see `NewEvent`."""
    await emit_all(conn, [NewEvent(kind=kind, district=district, case_id=case_id, data=data)])


async def emit_all(conn: Connection, new: Sequence[NewEvent]) -> None:
    """Add events to the caller's transaction, in this order."""
    if not new:
        return
    await conn.execute(
        """
        INSERT INTO event (kind, district, case_id, data)
        SELECT * FROM unnest(%b::text[], %b::text[], %b::uuid[], %b::jsonb[])
        """,
        (
            [one.kind for one in new],
            [one.district for one in new],
            [one.case_id for one in new],
            [as_jsonb(one.data) for one in new],
        ),
    )


async def place(conn: Connection) -> int:
    """Give positions to the events committed since the last call, and return how many there were.

    The lock on the head is held until this transaction is committed, so positions become visible strictly in
    their order: whoever has read up to one has missed none before it.
    """
    async with conn.transaction():
        waiting = await (await conn.execute("SELECT EXISTS (SELECT FROM event WHERE position IS NULL)")).fetchone()
        if waiting == (False,):
            return 0
        await conn.execute("SELECT position FROM event_head FOR UPDATE")
        cursor = await conn.execute(
            """
            WITH fresh AS (
                SELECT id, row_number() OVER (ORDER BY id) AS nth FROM event WHERE position IS NULL
            ), placed AS (
                UPDATE event SET position = (SELECT position FROM event_head) + fresh.nth
                FROM fresh WHERE event.id = fresh.id RETURNING event.position
            )
            UPDATE event_head SET position = greatest(position, coalesce((SELECT max(position) FROM placed), 0))
            RETURNING (SELECT count(*) FROM placed)
            """
        )
        row = await cursor.fetchone()
        return 0 if row is None else int(row[0])


async def last_position(conn: Connection) -> int:
    """Return the newest position."""
    row = await (await conn.execute("SELECT position FROM event_head")).fetchone()
    return 0 if row is None else int(row[0])


async def read_after(conn: Connection, position: int, *, district: str | None, limit: int) -> list[Event]:
    """Return up to `limit` events after `position`, of one district or of all."""
    async with conn.cursor(row_factory=class_row(Event)) as cursor:
        await cursor.execute(
            """
            SELECT position, at, kind, district, case_id, data FROM event
            WHERE position > %(after)s AND (%(district)s::text IS NULL OR district = %(district)s)
            ORDER BY position LIMIT %(limit)s
            """,
            {"after": position, "district": district, "limit": limit},
        )
        return await cursor.fetchall()
