"""Alarms that wait to be stored: their bytes, and who is going to store them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row

from gateway.store.outbox import LEASE, LIVING, WORKER_LOCK
from gateway.store.pool import Connection

__all__ = ["NewMessage", "WaitingMessage", "add", "own", "strike", "take_over"]


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message as it came from a broker."""

    topic: str
    payload: bytes
    received_at: datetime
    retained: bool


@dataclass(frozen=True, slots=True)
class WaitingMessage:
    """A message as it waits, since so many seconds by the database's clock."""

    id: int
    topic: str
    payload: bytes
    received_at: datetime
    retained: bool
    age_s: float


async def add(conn: Connection, messages: Sequence[NewMessage], *, worker: int) -> list[int]:
    """Keep messages until `worker` strikes them out; returns their ids in order."""
    cursor = await conn.execute(
        """
        INSERT INTO inbox (worker, topic, payload, received_at, retained)
        SELECT %s, new.topic, new.payload, new.received_at, new.retained
        FROM unnest(%b::text[], %b::bytea[], %b::timestamptz[], %b::boolean[])
            WITH ORDINALITY AS new (topic, payload, received_at, retained, place)
        ORDER BY new.place
        RETURNING id
        """,
        (
            worker,
            [one.topic for one in messages],
            [one.payload for one in messages],
            [one.received_at for one in messages],
            [one.retained for one in messages],
        ),
    )
    return sorted(row[0] for row in await cursor.fetchall())


async def own(conn: Connection, ids: Sequence[int], *, worker: int) -> None:
    """Enter who stores these messages now."""
    await conn.execute("UPDATE inbox SET worker = %s WHERE id = ANY(%b::bigint[])", (worker, list(ids)))


async def strike(conn: Connection, ids: Sequence[int]) -> None:
    """Forget messages that are stored as what they are."""
    await conn.execute("DELETE FROM inbox WHERE id = ANY(%b::bigint[])", (list(ids),))


async def take_over(conn: Connection, worker: int, *, holding: Collection[int], limit: int) -> list[WaitingMessage]:
    """Take messages whose worker is dead, and those of this one that it does not hold in memory, oldest first."""
    async with conn.cursor(row_factory=class_row(WaitingMessage)) as cursor:
        await cursor.execute(
            f"""
            WITH living AS MATERIALIZED ({LIVING}), lost AS MATERIALIZED (
                -- A join, so that thousands held are hashed once and not gone through for each row.
                SELECT i.id FROM inbox i LEFT JOIN unnest(%(holding)b::bigint[]) AS held (id) ON held.id = i.id
                WHERE held.id IS NULL AND CASE i.worker WHEN %(me)s THEN kept_at < clock_timestamp() - %(lease)s
                    ELSE i.worker NOT IN (SELECT id FROM living) END
                ORDER BY i.id LIMIT %(limit)s FOR UPDATE OF i SKIP LOCKED
            ), taken AS (
                UPDATE inbox SET worker = %(me)s FROM lost WHERE inbox.id = lost.id
                RETURNING inbox.id, topic, payload, received_at, retained,
                          extract(epoch FROM clock_timestamp() - kept_at)::float8 AS age_s
            )
            SELECT * FROM taken ORDER BY id
            """,  # noqa: S608
            {"me": worker, "lock": WORKER_LOCK, "lease": LEASE, "holding": list(holding), "limit": limit},
        )
        return await cursor.fetchall()
