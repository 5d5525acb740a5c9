"""What is to go out over the phone network: messages and calls, who carries them out, and what became of them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID

from psycopg.rows import class_row

from gateway.store.outbox import LEASE, LIVING, WORKER_LOCK
from gateway.store.pool import Connection

__all__ = [
    "CHANNEL",
    "Asked",
    "Job",
    "NewJob",
    "Reported",
    "add",
    "add_part",
    "again",
    "another_ended",
    "asked_of",
    "can_call",
    "codes_in_use",
    "end",
    "finished",
    "give_back",
    "last_modem",
    "lease",
    "listing",
    "parts_sent",
    "report",
    "requeue",
    "sent_since",
    "show",
    "strike",
    "told_lately",
    "withdraw",
]

CHANNEL = "onekey_phone"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """Something that is to go out. ``sealed`` holds number and text under the key ``key_id``."""

    id: str
    kind: str
    peer: bytes
    sealed: bytes
    key_id: UUID
    rank: int
    parts: int = 1
    notice_id: str | None = None
    leg_id: UUID | None = None
    case_id: UUID | None = None
    number: int | None = None
    code: str | None = None
    step_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """Something that is to be carried out now."""

    id: str
    kind: str
    sealed: bytes
    key_id: UUID
    wrapped: bytes | None
    peer: bytes
    rank: int
    parts: int
    tries: int
    avoid: list[str]
    case_id: UUID | None
    leg_id: UUID | None
    step_id: UUID | None


async def add(conn: Connection, job: NewJob) -> None:
    """Queue a job; one that is there already stays as it is, but what failed or was withdrawn gets another chance."""
    await conn.execute(
        """
        INSERT INTO phone_out (id, kind, notice_id, leg_id, case_id, step_id, number, code, peer, sealed, key_id, rank,
                               parts)
        VALUES (%(id)s, %(kind)s, %(notice)s, %(leg)s, %(case)s, %(step)s, %(number)s, %(code)s, %(peer)s, %(sealed)s,
                %(key)s, %(rank)s, %(parts)s)
        ON CONFLICT (id) DO UPDATE SET state = 'queued', due_at = onekey_now(), worker = NULL, avoid = '{}',
            tries = 0, ended_at = NULL, sealed = excluded.sealed, key_id = excluded.key_id, detail = NULL
        WHERE phone_out.state IN ('failed', 'withdrawn')
        """,
        {
            "id": job.id,
            "kind": job.kind,
            "notice": job.notice_id,
            "leg": job.leg_id,
            "case": job.case_id,
            "step": job.step_id,
            "number": job.number,
            "code": job.code,
            "peer": job.peer,
            "sealed": job.sealed,
            "key": job.key_id,
            "rank": job.rank,
            "parts": job.parts,
        },
    )


_STILL_DUE: LiteralString = """
    (notice_id IS NULL OR EXISTS (SELECT FROM notice n WHERE n.id = o.notice_id AND n.state = 'due'))
    AND (step_id IS NULL OR EXISTS (SELECT FROM step s WHERE s.id = o.step_id AND s.state = 'open'))
"""


async def strike(conn: Connection) -> None:
    """Strike what is no longer due: its case is over, somebody answered, or another way was quicker (I4)."""
    await conn.execute(
        f"""
        UPDATE phone_out o SET state = 'withdrawn', ended_at = onekey_now(), detail = 'no longer due'
        WHERE state = 'queued' AND NOT ({_STILL_DUE})
        """  # noqa: S608
    )


async def lease(
    conn: Connection,
    worker: int,
    *,
    modems: Collection[str],
    calling: Collection[str],
    holding: Collection[str] = (),
    most_rank: int = 9,
    limit: int,
) -> list[Job]:
    """Take what is due, calls for help first, that one of `modems` can do; `calling` are those that can call.

    Of messages those up to `most_rank`. Within a rank messages go first: a call takes as long as ten of them.

    `holding` is what the caller is about, perhaps under the name of a session that it has lost. What a dead worker was
    about is taken as well: nobody knows whether it went out, so it goes out again (I6). What is
    for a notice or a task that is over stays behind, for `strike` (I4).
    """
    async with conn.cursor(row_factory=class_row(Job)) as cursor:
        await cursor.execute(
            f"""
            WITH due AS MATERIALIZED (
                SELECT id FROM phone_out o
                WHERE (state = 'queued' AND due_at <= onekey_now()
                       OR state = 'sending' AND worker <> %(me)s AND worker NOT IN ({LIVING}))
                  AND NOT avoid @> CASE kind WHEN 'call' THEN %(calling)s::text[] ELSE %(modems)s::text[] END
                  AND NOT id = ANY(%(holding)s) AND {_STILL_DUE}
                  AND (rank <= %(most_rank)s OR kind = 'call')
                ORDER BY rank, kind = 'call', queued_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
            )
            UPDATE phone_out o SET state = 'sending', worker = %(me)s, started_at = onekey_now(), tries = tries + 1
            FROM due, data_key k WHERE o.id = due.id AND k.id = o.key_id
            RETURNING o.id, o.kind, o.sealed, o.key_id, k.wrapped, o.peer, o.rank, o.parts, o.tries, o.avoid,
                      o.case_id, o.leg_id, o.step_id
            """,  # noqa: S608
            {
                "me": worker,
                "lock": WORKER_LOCK,
                "lease": LEASE,
                "modems": list(modems),
                "calling": list(calling),
                "holding": list(holding),
                "most_rank": most_rank,
                "limit": limit,
            },
        )
        jobs = await cursor.fetchall()
    return sorted(jobs, key=lambda job: job.rank)


async def add_part(conn: Connection, job: str, *, part: int, modem: str, reference: int) -> None:
    """Note that the network took a part."""
    await conn.execute(
        "INSERT INTO phone_part (out_id, part, modem, reference) VALUES (%s, %s, %s, %s)",
        (job, part, modem, reference),
    )


async def parts_sent(conn: Connection, job: str, *, modem: str) -> set[int]:
    """Return which parts went out by a modem already; parts by another one would not be put together with them."""
    cursor = await conn.execute("SELECT part FROM phone_part WHERE out_id = %s AND modem = %s", (job, modem))
    return {row[0] for row in await cursor.fetchall()}


async def end(
    conn: Connection,
    job: str,
    *,
    state: str,
    modem: str | None,
    detail: str | None,
    keys: str | None = None,
) -> None:
    """End a job as ``sent`` or ``failed``."""
    await conn.execute(
        "UPDATE phone_out SET state = %s, modem = %s, detail = %s, keys = %s, ended_at = onekey_now(), worker = NULL "
        "WHERE id = %s",
        (state, modem, detail, keys, job),
    )


async def again(conn: Connection, job: str, *, after: timedelta, avoid: Sequence[str], detail: str) -> None:
    """Let a job be tried again, not by those modems."""
    await conn.execute(
        "UPDATE phone_out SET state = 'queued', worker = NULL, due_at = onekey_now() + %s, avoid = %s, detail = %s "
        "WHERE id = %s AND state = 'sending'",
        (after, list(avoid), detail, job),
    )


async def give_back(conn: Connection, job: str) -> None:
    """Let a job wait on as if nobody had taken it."""
    await conn.execute(
        "UPDATE phone_out SET state = 'queued', worker = NULL, tries = tries - 1, "
        "started_at = CASE WHEN tries > 1 THEN started_at END WHERE id = %s AND state = 'sending'",
        (job,),
    )


async def requeue(conn: Connection, worker: int, *, holding: Collection[str]) -> None:
    """Let be tried again what is in the name of `worker`, who does not know of it."""
    await conn.execute(
        "UPDATE phone_out SET state = 'queued', worker = NULL WHERE state = 'sending' AND worker = %s "
        "AND started_at < onekey_now() - interval '5 seconds' AND NOT id = ANY(%s)",
        (worker, list(holding)),
    )


async def show(conn: Connection, job: str, progress: str) -> None:
    """Note how far a call is."""
    await conn.execute("UPDATE phone_out SET progress = %s WHERE id = %s", (progress, job))


async def withdraw(conn: Connection, job: str) -> bool:
    """Take a job back that nobody has begun; False: it has been begun, or is over."""
    cursor = await conn.execute(
        "UPDATE phone_out SET state = 'withdrawn', ended_at = onekey_now(), detail = 'waited too long' "
        "WHERE id = %s AND state = 'queued' RETURNING id",
        (job,),
    )
    return await cursor.fetchone() is not None


async def finished(conn: Connection, jobs: Collection[str]) -> list[tuple[str, str, str | None, str | None]]:
    """Return (id, state, detail, keys) of those jobs that are over."""
    cursor = await conn.execute(
        "SELECT id, state, detail, keys FROM phone_out WHERE id = ANY(%s) AND state NOT IN ('queued', 'sending')",
        (list(jobs),),
    )
    return await cursor.fetchall()


async def can_call(conn: Connection) -> bool:
    """Is there a modem, of whichever gateway, that is ready to call?"""
    row = await (
        await conn.execute(
            "SELECT EXISTS (SELECT FROM modem "
            "WHERE state = 'ready' AND voice AND seen_at > clock_timestamp() - interval '1 min')"
        )
    ).fetchone()
    return row == (True,)


async def last_modem(conn: Connection, peer: bytes) -> str | None:
    """Return by which modem somebody was written to last: an answer comes back to the number that they know."""
    cursor = await conn.execute(
        "SELECT modem FROM phone_out WHERE peer = %s AND state = 'sent' AND modem IS NOT NULL "
        "ORDER BY queued_at DESC LIMIT 1",
        (peer,),
    )
    row = await cursor.fetchone()
    return None if row is None else row[0]


async def sent_since(conn: Connection, since: datetime) -> dict[str, int]:
    """Return how many messages went out by each modem since then."""
    cursor = await conn.execute("SELECT modem, count(*) FROM phone_part WHERE sent_at >= %s GROUP BY modem", (since,))
    return dict(await cursor.fetchall())


# What comes back


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody may answer: on an open leg of an open case. ``code`` is that of its case.

    ``number`` is of the newest notice that may have reached them, by a message or a call.
    """

    leg_id: UUID
    case_id: UUID
    number: int
    code: str
    role: str
    party_id: str


async def asked_of(conn: Connection, peer: bytes) -> list[Asked]:
    """Return what was asked of a number by messages and calls: one for each leg, in the order of the cases.

    Also what may have gone out though nobody said so.
    """
    async with conn.cursor(row_factory=class_row(Asked)) as cursor:
        await cursor.execute(
            """
            SELECT o.leg_id, o.case_id, min(o.code) AS code, l.role, l.party_id, coalesce(
                       -- A call that nobody picked up has said nothing that could be answered.
                       max(o.number) FILTER (WHERE o.kind = 'sms' OR o.state = 'sent'), min(o.number)) AS number
            FROM phone_out o JOIN leg l ON l.id = o.leg_id JOIN cases c ON c.id = o.case_id
            WHERE o.peer = %s AND o.code IS NOT NULL AND o.started_at IS NOT NULL
              AND c.state <> 'closed' AND l.state NOT IN ('withdrawn', 'skipped')
              AND o.queued_at > onekey_now() - interval '7 days'
            GROUP BY o.leg_id, o.case_id, l.role, l.party_id ORDER BY o.case_id, o.leg_id
            """,
            (peer,),
        )
        return await cursor.fetchall()


async def another_ended(conn: Connection, peer: bytes, case_id: UUID) -> bool:
    """Was a number told of this case while it had another emergency to answer, which ended a short while ago?"""
    cursor = await conn.execute(
        """
        SELECT EXISTS (
            SELECT FROM phone_out o JOIN cases c ON c.id = o.case_id
            CROSS JOIN (SELECT min(queued_at) AS at FROM phone_out WHERE peer = %(peer)s AND case_id = %(case)s) AS told
            WHERE o.peer = %(peer)s AND o.case_id <> %(case)s AND o.started_at IS NOT NULL AND c.class = 'emergency'
              AND c.closed_at > onekey_now() - interval '1 hour' AND o.queued_at < told.at AND c.closed_at > told.at)
        """,
        {"peer": peer, "case": case_id},
    )
    return await cursor.fetchone() == (True,)


async def told_lately(conn: Connection, peer: bytes, *, within: timedelta) -> bool:
    """Was a number told of some case a short while ago?"""
    cursor = await conn.execute(
        "SELECT EXISTS (SELECT FROM phone_out WHERE peer = %s AND leg_id IS NOT NULL AND started_at IS NOT NULL "
        "AND queued_at > onekey_now() - %s)",
        (peer, within),
    )
    return await cursor.fetchone() == (True,)


async def codes_in_use(conn: Connection, peer: bytes) -> dict[UUID, str]:
    """Return by case the letters that answers of a number name cases by; those just closed may still be answered."""
    cursor = await conn.execute(
        """
        SELECT DISTINCT o.case_id, o.code FROM phone_out o JOIN cases c ON c.id = o.case_id
        WHERE o.peer = %s AND o.code IS NOT NULL
          AND (c.state <> 'closed' OR c.closed_at > onekey_now() - interval '1 day')
          AND o.queued_at > onekey_now() - interval '7 days'
        """,
        (peer,),
    )
    return dict(await cursor.fetchall())


@dataclass(frozen=True, slots=True)
class Reported:
    """The message that a status report is about. ``whole``: what is known of all of its parts."""

    id: str
    leg_id: UUID | None
    case_id: UUID | None
    number: int | None
    notice_id: str | None
    whole: str | None


async def report(
    conn: Connection, *, modem: str, reference: int, peer: bytes, status: int, words: str
) -> Reported | None:
    """Note what became of the newest part under this reference; `words` is the status in one of ours."""
    cursor = await conn.execute(
        """
        UPDATE phone_part p SET status = %(status)s, reported_at = onekey_now()
        WHERE (p.out_id, p.part, p.sent_at) IN (
            SELECT q.out_id, q.part, q.sent_at FROM phone_part q JOIN phone_out o ON o.id = q.out_id
            WHERE q.modem = %(modem)s AND q.reference = %(reference)s AND o.peer = %(peer)s
              AND q.sent_at > onekey_now() - interval '7 days'
            ORDER BY q.sent_at DESC LIMIT 1
        ) RETURNING p.out_id
        """,
        {"modem": modem, "reference": reference, "peer": peer, "status": status},
    )
    row = await cursor.fetchone()
    if row is None:
        return None
    async with conn.cursor(row_factory=class_row(Reported)) as found:
        # A text is delivered when all of its parts are, and has failed when one of them has.
        await found.execute(
            """
            UPDATE phone_out o SET report_at = onekey_now(), report = CASE
                WHEN %(words)s = 'failed' THEN 'failed'
                WHEN (SELECT count(DISTINCT part) FROM phone_part WHERE out_id = o.id AND status < 32) >= o.parts
                    THEN %(words)s
                ELSE coalesce(o.report, 'trying') END
            WHERE o.id = %(id)s AND o.report IS DISTINCT FROM 'delivered'
            RETURNING o.id, o.leg_id, o.case_id, o.number, o.notice_id, o.report AS whole
            """,
            {"id": row[0], "words": words},
        )
        return await found.fetchone()


async def listing(conn: Connection, *, limit: int, reports: bool) -> list[tuple[Any, ...]]:
    """Return what went out and came in lately, newest first, sealed as it is; `reports` of delivery as well."""
    cursor = await conn.execute(
        """
        SELECT * FROM (
            SELECT o.queued_at AS at, 'out' AS way, o.kind, o.modem, o.state, o.report, o.detail, o.parts, o.case_id,
                   o.sealed, k.id AS key, k.wrapped, 'phone_out ' || o.id AS about
            FROM phone_out o JOIN data_key k ON k.id = o.key_id
            ORDER BY o.queued_at DESC LIMIT %(limit)s
        ) AS went
        UNION ALL
        SELECT * FROM (
            SELECT i.received_at, 'in', i.kind, i.modem, i.state, NULL, i.outcome, i.parts, i.case_id, i.sealed, k.id,
                   k.wrapped, 'phone_in'
            FROM phone_in i JOIN data_key k ON k.id = i.key_id
            WHERE %(reports)s OR i.kind <> 'report'
            ORDER BY i.received_at DESC LIMIT %(limit)s
        ) AS came
        ORDER BY 1 DESC LIMIT %(limit)s
        """,
        {"limit": limit, "reports": reports},
    )
    return await cursor.fetchall()
