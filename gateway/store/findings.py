"""The auditor's findings, as others read them: the API, readiness, the figures, and whoever makes cases of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from psycopg.rows import class_row

from gateway.store.pool import Connection

__all__ = ["FindingRow", "cased", "expect_no_auditor", "figures", "listing", "quiet_sites", "silent_for", "uncased"]


@dataclass(frozen=True, slots=True)
class FindingRow:
    """A finding."""

    id: int
    kind: str
    case_id: UUID | None
    site_id: str | None
    district: str | None
    words: dict[str, str]
    detail: dict[str, Any]
    first_seen: datetime
    last_seen: datetime
    raised_at: datetime | None
    cleared_at: datetime | None
    told_at: datetime | None
    audit_case: UUID | None


_COLUMNS = """
    id, kind, case_id, site_id, district, words, detail, first_seen, last_seen, raised_at, cleared_at, told_at,
    audit_case
"""


async def listing(
    conn: Connection, *, is_open: bool | None, case: UUID | None, district: str | None, before: int | None, limit: int
) -> list[FindingRow]:
    """Return findings, newest first."""
    async with conn.cursor(row_factory=class_row(FindingRow)) as cursor:
        await cursor.execute(
            f"""
            SELECT {_COLUMNS} FROM finding
            WHERE (%(open)s::bool IS NULL OR (cleared_at IS NULL) = %(open)s)
              AND (%(case)s::uuid IS NULL OR case_id = %(case)s)
              AND (%(district)s::text IS NULL OR district = %(district)s)
              AND (%(before)s::bigint IS NULL OR id < %(before)s)
            ORDER BY id DESC LIMIT %(limit)s
            """,  # noqa: S608
            {"open": is_open, "case": case, "district": district, "before": before, "limit": limit},
        )
        return await cursor.fetchall()


async def uncased(conn: Connection, *, kind: str, limit: int) -> list[FindingRow]:
    """Lock and return findings that were raised and are in no case yet, oldest first.

    Those about cases of `kind` stay out: such a case must not lead to the next one.
    """
    async with conn.cursor(row_factory=class_row(FindingRow)) as cursor:
        await cursor.execute(
            f"""
            SELECT {_COLUMNS} FROM finding f WHERE raised_at IS NOT NULL AND audit_case IS NULL
              AND NOT EXISTS (SELECT FROM cases c WHERE c.id = f.case_id AND %s = ANY(c.kinds))
            ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED
            """,  # noqa: S608
            (kind, limit),
        )
        return await cursor.fetchall()


async def quiet_sites(conn: Connection, *, pause: timedelta) -> list[str]:
    """Return the sites that may be told of findings by a case now: whose last one is not younger than `pause`."""
    cursor = await conn.execute(
        """
        SELECT id FROM site s WHERE NOT EXISTS (
            SELECT FROM finding f WHERE f.cased_at > onekey_now() - %s AND (f.site_id IS NULL OR f.site_id = s.id))
        ORDER BY id
        """,
        (pause,),
    )
    return [row[0] for row in await cursor.fetchall()]


async def cased(conn: Connection, findings: Sequence[int], case: UUID) -> None:
    """Note in which case findings were raised."""
    await conn.execute(
        "UPDATE finding SET audit_case = %s, cased_at = onekey_now() WHERE id = ANY(%s)", (case, list(findings))
    )


async def silent_for(conn: Connection) -> timedelta | None:
    """Return since how long the auditor has not looked, or None where none is expected."""
    row = await (await conn.execute("SELECT onekey_now() - at FROM audit_run")).fetchone()
    return None if row is None else row[0]


async def expect_no_auditor(conn: Connection) -> None:
    """Expect none any more, until one looks again."""
    await conn.execute("DELETE FROM audit_run")


async def figures(conn: Connection) -> tuple[dict[str, int], int, float | None]:
    """Return open findings by kind, how many sites cannot be told directly, and how long ago somebody looked."""
    counted = await (
        await conn.execute(
            "SELECT kind, count(*) FROM finding WHERE cleared_at IS NULL AND raised_at IS NOT NULL GROUP BY kind"
        )
    ).fetchall()
    row = await (
        await conn.execute("SELECT cardinality(deaf), extract(epoch FROM onekey_now() - at)::float8 FROM audit_run")
    ).fetchone()
    return dict(counted), 0 if row is None else row[0], None if row is None else row[1]
