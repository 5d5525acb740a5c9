"""The outbox: notices that are due, who is sending them, and what came of each attempt."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from gateway.domain.keys import notice_id
from gateway.domain.outbox import CALLS, Tried
from gateway.store.pool import Connection

__all__ = [
    "CHANNEL",
    "LEASE",
    "LIVING",
    "WORKER_LOCK",
    "NoticeRow",
    "SentRow",
    "add",
    "add_answer",
    "add_attempts",
    "asked_anew",
    "beat",
    "cancel",
    "cancel_of_case",
    "finish",
    "hurry",
    "last_calls",
    "lease",
    "living",
    "one",
    "postpone",
    "register",
    "still_due",
    "untried",
    "waiting",
]

CHANNEL = "onekey_notice"
WORKER_LOCK = 0x776F726B
LEASE = timedelta(seconds=2)
"""A worker that is silent for longer has lost what it was sending (D12)."""
LIVING: LiteralString = """
    SELECT w.id FROM worker w JOIN pg_locks l ON l.locktype = 'advisory' AND l.granted
        AND l.classid = %(lock)s AND l.objid = w.id AND l.objsubid = 2
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    WHERE w.seen_at > clock_timestamp() - %(lease)s
"""
"""Which workers live: `WORKER_LOCK` is ``lock`` and `LEASE` is ``lease``."""


@dataclass(frozen=True, slots=True)
class NoticeRow:
    """A notice as it stands in the table. ``first``: nothing of this leg was sent before."""

    id: str
    leg_id: UUID
    case_id: UUID
    party_id: str
    role: str
    number: int
    reason: str
    channel: int
    tries: int
    queued_at: datetime
    first: bool
    ladder: dict[str, Any] | None


async def register(conn: Connection, name: str) -> int:
    """Enter a worker; it lives as long as this session, whose advisory lock vanishes with the process."""
    cursor = await conn.execute("INSERT INTO worker (name) VALUES (%s) RETURNING id", (name,))
    row = await cursor.fetchone()
    assert row is not None
    await conn.execute("SELECT pg_advisory_lock(%s, %s)", (WORKER_LOCK, row[0]))
    await conn.execute("DELETE FROM worker WHERE seen_at < now() - interval '1 day'")
    return int(row[0])


async def beat(conn: Connection, worker: int, status: dict[str, Any]) -> None:
    """Say that `worker` is alive and how it is."""
    await conn.execute(
        "UPDATE worker SET seen_at = clock_timestamp(), status = %s WHERE id = %s", (Jsonb(status), worker)
    )


async def living(conn: Connection) -> int:
    """Return how many workers live."""
    return len(await (await conn.execute(LIVING, {"lock": WORKER_LOCK, "lease": LEASE})).fetchall())


async def add(
    conn: Connection,
    legs: Sequence[tuple[UUID, UUID, str, int, timedelta]],
    *,
    reason: str,
    worker: int | None,
    channel: int = 0,
) -> dict[UUID, tuple[str, datetime]]:
    """Queue one notice per leg: (leg, case, party, number, delay). Returns id and queueing time by leg.

    With `worker` the caller takes those without a delay at once and has to send them after the commit.
    """
    if not legs:
        return {}
    cursor = await conn.execute(
        """
        INSERT INTO notice (id, leg_id, case_id, party_id, number, reason, worker, channel, due_at)
        SELECT id, leg, kase, party, number, %(reason)s, CASE WHEN delay = interval '0' THEN %(worker)s::bigint END,
               %(channel)s, onekey_now() + delay
        FROM unnest(%(ids)b::text[], %(legs)b::uuid[], %(cases)b::uuid[], %(parties)b::text[], %(numbers)b::int[],
                    %(delays)b::interval[]) AS new (id, leg, kase, party, number, delay)
        RETURNING leg_id, id, queued_at
        """,
        {
            "reason": reason,
            "worker": worker,
            "channel": channel,
            "ids": [notice_id(leg, number) for leg, _, _, number, _ in legs],
            "legs": [leg for leg, _, _, _, _ in legs],
            "cases": [case for _, case, _, _, _ in legs],
            "parties": [party for _, _, party, _, _ in legs],
            "numbers": [number for _, _, _, number, _ in legs],
            "delays": [delay for _, _, _, _, delay in legs],
        },
    )
    return {row[0]: (row[1], row[2]) for row in await cursor.fetchall()}


async def lease(conn: Connection, worker: int, *, holding: Collection[str] | None, limit: int) -> list[NoticeRow]:
    """Take notices that are due and that no living worker is sending.

    A worker lives while its session holds its lock and it was seen within `LEASE`. What this worker owns but
    does not hold in memory (`holding`; None: do not look) is taken too, once it is older than that.
    """
    async with conn.cursor(row_factory=class_row(NoticeRow)) as cursor:
        await cursor.execute(
            f"""
            WITH RECURSIVE owner (id) AS (  -- whoever owns anything, from one to the next by the index
                SELECT min(worker) FROM notice WHERE state = 'due'
                UNION ALL
                SELECT (SELECT min(worker) FROM notice WHERE state = 'due' AND worker > owner.id) FROM owner
                WHERE owner.id IS NOT NULL
            ), dead AS MATERIALIZED (  -- also one whose row is long gone
                SELECT id FROM owner WHERE id <> %(me)s AND id NOT IN ({LIVING})
            ), candidate AS (
                (SELECT id, worker FROM notice WHERE state = 'due' AND due_at <= onekey_now() AND worker IS NULL
                 ORDER BY due_at LIMIT %(limit)s)
                UNION ALL
                SELECT n.id, n.worker FROM dead
                JOIN notice n ON n.worker = dead.id AND n.state = 'due' AND n.due_at <= onekey_now()
                UNION ALL
                SELECT id, worker FROM notice
                WHERE %(look)s AND state = 'due' AND due_at <= onekey_now() AND worker = %(me)s
                    AND queued_at < onekey_now() - %(lease)s
                    AND NOT EXISTS (SELECT FROM unnest(%(holding)b::text[]) AS held (id) WHERE held.id = notice.id)
            ), due AS MATERIALIZED (
                SELECT n.id FROM notice n JOIN candidate c ON c.id = n.id
                WHERE n.state = 'due' AND n.worker IS NOT DISTINCT FROM c.worker
                ORDER BY n.due_at LIMIT %(limit)s FOR UPDATE OF n SKIP LOCKED
            )
            UPDATE notice n SET worker = %(me)s FROM due, leg WHERE n.id = due.id AND leg.id = n.leg_id
            RETURNING n.id, n.leg_id, n.case_id, n.party_id, leg.role, n.number, n.reason, n.channel, n.tries,
                      n.queued_at, leg.delivered_at IS NULL AS first, leg.ladder
            """,  # noqa: S608
            {
                "me": worker,
                "lock": WORKER_LOCK,
                "lease": LEASE,
                "look": holding is not None,
                "holding": list(holding or ()),
                "limit": limit,
            },
        )
        return await cursor.fetchall()


async def last_calls(conn: Connection, case_id: UUID) -> dict[UUID, int]:
    """Return by leg the number of its newest notice that asks for somebody; word of a better location does not."""
    cursor = await conn.execute(
        "SELECT leg_id, max(number) FROM notice WHERE case_id = %s AND reason = ANY(%s) GROUP BY leg_id",
        (case_id, list(CALLS)),
    )
    return {row[0]: row[1] for row in await cursor.fetchall()}


async def asked_anew(conn: Connection, case_id: UUID) -> dict[UUID, int]:
    """Return by leg the number of the notice with which its party was asked anew: answers to earlier ones are over.

    A further call to somebody who has not answered, and one by another channel, ask the same once more.
    """
    cursor = await conn.execute(
        "SELECT n.leg_id, min(n.number) FROM notice n JOIN leg l ON l.id = n.leg_id "
        "WHERE n.case_id = %s AND n.queued_at >= l.armed_at AND (n.reason = 'pressed_again' OR n.reason = 'procedure' "
        "AND EXISTS (SELECT FROM answer a WHERE a.leg_id = n.leg_id AND a.at < n.queued_at)) GROUP BY n.leg_id",
        (case_id,),
    )
    return dict(await cursor.fetchall())


async def still_due(conn: Connection, notices: Collection[str], worker: int) -> set[str]:
    """Return which notices are still to be sent, and by this worker."""
    # Each by its key: among thousands that are due a planner would rather go through all of this worker's.
    cursor = await conn.execute(
        """
        SELECT asked.id FROM unnest(%b::text[]) AS asked (id) CROSS JOIN LATERAL (
            SELECT state, worker FROM notice WHERE id = asked.id OFFSET 0
        ) AS n WHERE n.state = 'due' AND n.worker = %s
        """,
        (list(notices), worker),
    )
    return {row[0] for row in await cursor.fetchall()}


async def add_attempts(conn: Connection, tried: Sequence[Tried], outcomes: Sequence[str]) -> set[tuple[str, datetime]]:
    """Record attempts; `outcomes` are their words in the table. Returns (notice, start) of those not there yet."""
    cursor = await conn.execute(
        """
        INSERT INTO attempt (notice_id, leg_id, channel, queued_at, started_at, answered_at, outcome, status, detail)
        SELECT * FROM unnest(%b::text[], %b::uuid[], %b::text[], %b::timestamptz[], %b::timestamptz[],
                             %b::timestamptz[], %b::text[], %b::int[], %b::text[])
        ON CONFLICT (notice_id, started_at) DO NOTHING RETURNING notice_id, started_at
        """,
        (
            [one.notice.id for one in tried],
            [one.notice.leg_id for one in tried],
            [one.notice.spec.kind for one in tried],
            [one.notice.queued_at for one in tried],
            [one.started_at for one in tried],
            [one.answered_at for one in tried],
            list(outcomes),
            [one.outcome.status for one in tried],
            [None if one.outcome.detail is None else one.outcome.detail[:500] for one in tried],
        ),
    )
    return {(row[0], row[1]) for row in await cursor.fetchall()}


@dataclass(frozen=True, slots=True)
class SentRow:
    """A notice that was sent: its number, why, and on which channel of its party."""

    number: int
    reason: str
    channel: int


async def one(conn: Connection, notice: str) -> SentRow:
    """Return a notice."""
    async with conn.cursor(row_factory=class_row(SentRow)) as cursor:
        await cursor.execute("SELECT number, reason, channel FROM notice WHERE id = %s", (notice,))
        row = await cursor.fetchone()
    assert row is not None, "notices are never deleted"
    return row


async def finish(conn: Connection, notices: Sequence[str], state: str) -> None:
    """End notices as ``sent`` or ``failed``. One that was cancelled while under way counts as sent if it was."""
    await conn.execute(
        "UPDATE notice SET state = %(state)s, ended_at = onekey_now(), worker = NULL "
        "WHERE id = ANY(%(ids)b) AND (state = 'due' OR %(state)s = 'sent')",
        {"state": state, "ids": list(notices)},
    )


async def postpone(conn: Connection, notice: str, *, channel: int, tries: int, delay: timedelta) -> None:
    """Let a notice be tried again after `delay`, by whoever is there."""
    await conn.execute(
        "UPDATE notice SET channel = %s, tries = %s, due_at = onekey_now() + %s, worker = NULL "
        "WHERE id = %s AND state = 'due'",
        (channel, tries, delay, notice),
    )


async def cancel(conn: Connection, leg: UUID) -> None:
    """Cancel the calls that are due on a leg; word of a better location still goes out."""
    await conn.execute(
        "UPDATE notice SET state = 'cancelled', ended_at = onekey_now(), worker = NULL "
        "WHERE leg_id = %s AND state = 'due' AND reason <> 'location'",
        (leg,),
    )


async def waiting(conn: Connection, case_id: UUID) -> bool:
    """Is everybody still to be told of this case: is nothing sent, and nobody sending? Locks what is due."""
    cursor = await conn.execute(
        "SELECT state = 'due' AND worker IS NULL AND due_at > onekey_now() FROM notice "
        "WHERE case_id = %s FOR NO KEY UPDATE",
        (case_id,),
    )
    rows = await cursor.fetchall()
    return bool(rows) and all(row[0] for row in rows)


async def untried(conn: Connection, case_id: UUID) -> set[UUID]:
    """Return the legs of a case with a message that nobody has tried to send yet."""
    cursor = await conn.execute(
        "SELECT leg_id FROM notice WHERE case_id = %s AND state = 'due' AND tries = 0 AND channel = 0", (case_id,)
    )
    return {row[0] for row in await cursor.fetchall()}


async def hurry(conn: Connection, case_id: UUID) -> None:
    """Let nothing of a case wait any longer, and its calls count from now."""
    await conn.execute(
        "UPDATE leg SET armed_at = onekey_now() WHERE case_id = %s AND armed_at > onekey_now()", (case_id,)
    )
    await conn.execute(
        "UPDATE notice SET due_at = onekey_now() WHERE case_id = %s AND state = 'due' AND tries = 0 "
        "AND worker IS NULL AND due_at > onekey_now()",
        (case_id,),
    )
    await conn.execute("SELECT pg_notify(%s, '')", (CHANNEL,))


async def cancel_of_case(conn: Connection, case_id: UUID) -> None:
    """Cancel everything due of a case: nothing is sent for it any more but the word that it is over (I4)."""
    await conn.execute(
        "UPDATE notice SET state = 'cancelled', ended_at = onekey_now(), worker = NULL "
        "WHERE case_id = %s AND state = 'due'",
        (case_id,),
    )


async def add_answer(
    conn: Connection,
    *,
    leg: UUID,
    case: UUID,
    answer: str,
    reason: str | None,
    minutes: int | None,
    by: str | None,
    via: str,
) -> datetime:
    """Record what a party answered; returns when."""
    cursor = await conn.execute(
        "INSERT INTO answer (leg_id, case_id, answer, reason, minutes, by_whom, via) "
        "VALUES (%s, %s, %s, %s, %s, %s, %s) RETURNING at",
        (leg, case, answer, reason, minutes, by, via),
    )
    row = await cursor.fetchone()
    assert row is not None
    at: datetime = row[0]
    return at
