"""Who saw personal data of a case first, and what of that is still to be journaled."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from psycopg.rows import class_row

from gateway.store.pool import Connection

__all__ = ["Disclosure", "DisclosureRow", "add", "drop_due", "due_cases", "due_of", "known", "of_case", "put_due"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Disclosure:
    """Somebody (``api:KEY``, ``party:ID``, ``cli``) saw something of a case. ``health``: the health record as well."""

    case_id: UUID
    who: str
    what: str
    level: str
    health: bool = False


@dataclass(frozen=True, slots=True)
class DisclosureRow:
    """A disclosure on record; entry ``n`` of the case's journal says it."""

    who: str
    what: str
    level: str
    n: int
    at: datetime


async def known(conn: Connection, one: Disclosure) -> bool:
    """Was this journaled before, or is it waiting for that?"""
    cursor = await conn.execute(
        """
        SELECT EXISTS (SELECT FROM disclosure WHERE case_id = %(case)s AND who = %(who)s AND what = %(what)s
                       AND level = %(level)s)
            OR EXISTS (SELECT FROM disclosure_due WHERE case_id = %(case)s AND who = %(who)s AND what = %(what)s
                       AND level = %(level)s)
        """,
        {"case": one.case_id, "who": one.who, "what": one.what, "level": one.level},
    )
    return await cursor.fetchone() == (True,)


async def add(conn: Connection, one: Disclosure, *, n: int, at: datetime) -> None:
    """Note what entry `n` says. The caller holds the case's row and asked before whether it is known."""
    await conn.execute(
        "INSERT INTO disclosure (case_id, who, what, level, n, at) VALUES (%s, %s, %s, %s, %s, %s)",
        (one.case_id, one.who, one.what, one.level, n, at),
    )


async def put_due(conn: Connection, one: Disclosure) -> None:
    """Keep a disclosure until the case's row is free. This waits for nobody who works on the case."""
    await conn.execute(
        "INSERT INTO disclosure_due (case_id, who, what, level, health) VALUES (%s, %s, %s, %s, %s) "
        "ON CONFLICT DO NOTHING",
        (one.case_id, one.who, one.what, one.level, one.health),
    )


async def due_cases(conn: Connection) -> list[UUID]:
    """Return the cases of which disclosures wait."""
    return [row[0] for row in await (await conn.execute("SELECT DISTINCT case_id FROM disclosure_due")).fetchall()]


async def due_of(conn: Connection, case_id: UUID) -> list[tuple[Disclosure, datetime]]:
    """Return what waits of a case, in the order in which it happened."""
    cursor = await conn.execute(
        "SELECT who, what, level, health, at FROM disclosure_due WHERE case_id = %s ORDER BY at, who", (case_id,)
    )
    return [
        (Disclosure(case_id=case_id, who=row[0], what=row[1], level=row[2], health=row[3]), row[4])
        for row in await cursor.fetchall()
    ]


async def drop_due(conn: Connection, one: Disclosure) -> None:
    """Forget that a disclosure waits: it is journaled."""
    await conn.execute(
        "DELETE FROM disclosure_due WHERE case_id = %s AND who = %s AND what = %s AND level = %s",
        (one.case_id, one.who, one.what, one.level),
    )


async def of_case(conn: Connection, case_id: UUID) -> list[DisclosureRow]:
    """Return who saw what of a case, in the order in which it was journaled."""
    async with conn.cursor(row_factory=class_row(DisclosureRow)) as cursor:
        await cursor.execute("SELECT who, what, level, n, at FROM disclosure WHERE case_id = %s ORDER BY n", (case_id,))
        return await cursor.fetchall()
