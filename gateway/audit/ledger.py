"""The findings as rows: raised once, open while they hold, over by themselves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from gateway.audit.looking import Look, Seen
from gateway.audit.words import words_of
from gateway.store.pool import Connection, Pool

__all__ = ["Finding", "Kept", "keep", "told", "untold"]

_LOCK = 0x61756469
_SAME_AGAIN = timedelta(minutes=10)
"""What comes back so soon is the same finding: whatever comes and goes is told once."""

_PATIENCE: Mapping[str, timedelta] = {
    "alarms_unheard": timedelta(seconds=10),
    "terminals_unheard": timedelta(seconds=10),
}
"""How long a finding has to hold before it is raised, where what it looks at has no time of its own."""

_REMIND_AFTER = timedelta(minutes=10)
_OVER_FOR = timedelta(seconds=30)
"""How long something has to be over before that is told."""

_COLUMNS = "id, key, kind, case_id, site_id, district, words, detail, first_seen, raised_at, cleared_at, told_at"


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding as it stands in the table."""

    id: int
    key: str
    kind: str
    case_id: UUID | None
    site_id: str | None
    district: str | None
    words: dict[str, str]
    detail: dict[str, Any]
    first_seen: datetime
    raised_at: datetime | None
    cleared_at: datetime | None
    told_at: datetime | None

    @property
    def state(self) -> Literal["raised", "holds", "cleared"]:
        """What there is to tell of it."""
        if self.cleared_at is not None:
            return "cleared"
        return "raised" if self.told_at is None else "holds"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What a round came to: all that is open, and what of it changed."""

    open: Sequence[Finding]
    raised: Sequence[Finding]
    cleared: Sequence[Finding]


async def keep(pool: Pool, look: Look, *, took_ms: float, deaf: Sequence[str], expected: bool) -> Kept:
    """Bring the table to what was seen, and note that somebody looked.

    With `expected` the note is made in any case, so that silence shows from now on; else only where it is expected.
    """
    async with pool.connection() as conn, conn.transaction():
        await conn.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))  # two auditors at once say it once
        known = await _known(conn, look.now)
        new = [one for key, one in look.seen.items() if key not in known]
        back = [row.id for key, row in known.items() if key in look.seen and row.cleared_at is not None]
        there = {row.id: look.seen[key] for key, row in known.items() if key in look.seen}
        gone = [row.id for key, row in known.items() if key not in look.seen and row.cleared_at is None]
        await _add(conn, new, look.now)
        await _go_on(conn, there, back=back, now=look.now)
        cleared = await _returned(
            conn,
            f"UPDATE finding SET cleared_at = %(now)s WHERE id = ANY(%(ids)s) RETURNING {_COLUMNS}",  # noqa: S608
            {"ids": gone, "now": look.now},
        )
        raised = await _raise(conn, look.now)
        open_now = await _returned(conn, f"SELECT {_COLUMNS} FROM finding WHERE cleared_at IS NULL ORDER BY id", {})  # noqa: S608
        values = {
            "at": look.now,
            "took_ms": took_ms,
            "cases": look.cases,
            "findings": sum(one.raised_at is not None for one in open_now),
            "deaf": list(deaf),
        }
        if expected:
            await conn.execute("INSERT INTO audit_run VALUES (true, %(at)s, 0, 0, 0) ON CONFLICT DO NOTHING", values)
        await conn.execute(
            "UPDATE audit_run SET at = %(at)s, took_ms = %(took_ms)s, cases = %(cases)s, findings = %(findings)s, "
            "deaf = %(deaf)s",
            values,
        )
    return Kept(open=open_now, raised=raised, cleared=cleared)


async def _known(conn: Connection, now: datetime) -> dict[str, Finding]:
    """Return by key what is open, or was not long ago; the open one before one that is over."""
    rows = await _returned(
        conn,
        f"""
        SELECT {_COLUMNS} FROM finding WHERE cleared_at IS NULL OR cleared_at > %(since)s
        ORDER BY cleared_at NULLS LAST
        """,  # noqa: S608
        {"since": now - _SAME_AGAIN},
    )
    return {row.key: row for row in rows}


async def _add(conn: Connection, new: Sequence[Seen], now: datetime) -> None:
    if not new:
        return
    async with conn.cursor() as cursor:
        await cursor.executemany(
            "INSERT INTO finding (key, kind, case_id, site_id, district, words, detail, first_seen, last_seen) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [
                (
                    one.key,
                    one.kind,
                    one.case_id,
                    one.site_id,
                    one.district,
                    Jsonb(words_of(one.kind, one.detail)),
                    Jsonb(dict(one.detail)),
                    now,
                    now,
                )
                for one in new
            ],
        )


async def _go_on(conn: Connection, there: Mapping[int, Seen], *, back: Sequence[int], now: datetime) -> None:
    """Note that findings hold, with what they say by now. One that comes back after its end was told is told anew."""
    if not there:
        return
    await conn.execute(
        """
        UPDATE finding f SET last_seen = %(now)s, detail = s.detail, words = s.words
        FROM unnest(%(ids)s::bigint[], %(details)s::jsonb[], %(words)s::jsonb[]) AS s (id, detail, words)
        WHERE f.id = s.id
        """,
        {
            "now": now,
            "ids": list(there),
            "details": [Jsonb(dict(one.detail)) for one in there.values()],
            "words": [Jsonb(words_of(one.kind, one.detail)) for one in there.values()],
        },
    )
    await conn.execute(
        "UPDATE finding SET cleared_at = NULL, told_at = CASE WHEN over_told_at IS NULL THEN told_at END, "
        "over_told_at = NULL WHERE id = ANY(%s)",
        (list(back),),
    )


async def _raise(conn: Connection, now: datetime) -> list[Finding]:
    return await _returned(
        conn,
        f"""
        UPDATE finding SET raised_at = %(now)s
        WHERE cleared_at IS NULL AND raised_at IS NULL AND first_seen + coalesce(
            (SELECT patience FROM unnest(%(kinds)s::text[], %(patience)s::interval[]) AS slow (slow_kind, patience)
             WHERE slow_kind = kind), interval '0') <= %(now)s
        RETURNING {_COLUMNS}
        """,  # noqa: S608
        {"now": now, "kinds": list(_PATIENCE), "patience": list(_PATIENCE.values())},
    )


async def _returned(conn: Connection, statement: str, values: Mapping[str, Any]) -> list[Finding]:
    async with conn.cursor(row_factory=class_row(Finding)) as cursor:
        await cursor.execute(statement.encode(), values)
        return await cursor.fetchall()


# What is to be told


async def untold(pool: Pool) -> list[Finding]:
    """Return what the fallback has to hear now: what is new, what still holds, and what is over, oldest first."""
    async with pool.connection() as conn:
        return await _returned(
            conn,
            f"""
            SELECT {_COLUMNS} FROM finding
            WHERE cleared_at IS NULL AND raised_at IS NOT NULL
                  AND (told_at IS NULL OR told_at < onekey_now() - %(remind)s)
               OR cleared_at < onekey_now() - %(over)s AND told_at IS NOT NULL AND over_told_at IS NULL
            ORDER BY id
            """,  # noqa: S608
            {"remind": _REMIND_AFTER, "over": _OVER_FOR},
        )


async def told(pool: Pool, findings: Sequence[Finding]) -> None:
    """Note that the fallback took the word of these, as they stood."""
    async with pool.connection() as conn:
        await conn.execute(
            """
            UPDATE finding SET told_at = CASE WHEN said_over THEN told_at ELSE onekey_now() END,
                over_told_at = CASE WHEN said_over THEN onekey_now() END
            FROM unnest(%s::bigint[], %s::bool[]) AS said (said_id, said_over) WHERE id = said_id
            """,
            ([one.id for one in findings], [one.state == "cleared" for one in findings]),
        )
