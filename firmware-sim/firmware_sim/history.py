"""A long history: cases that were really run and closed are copied by the database, with all that hangs on them.

The copies differ from the originals in their ids, their times and their household. Their journals therefore do not
verify: this fills scratch databases to be measured, never one that anybody relies on.
"""

from collections.abc import AsyncIterator, Sequence
from math import ceil

import psycopg
from psycopg import sql

__all__ = ["copy_cases", "count_rows"]

# In the order of their references. What a case leaves behind in other tables does not grow with their number.
_TABLES = (
    "cases", "alarm", "leg", "notice", "attempt", "answer", "journal", "run", "step", "fact", "work_order", "event",
)  # fmt: skip
_UUIDS = {"id", "case_id", "leg_id", "run_id", "step_id", "previous"}
_TEXTS = {("notice", "id"), ("attempt", "notice_id"), ("alarm", "key")}

# What is still to be done would all be overdue at once.
_CONDITIONS = {"step": "WHERE t.ended_at IS NOT NULL", "event": "WHERE t.position IS NOT NULL"}

_BATCH = 20_000
_YEARS = 5
# Nothing that looks after what has just been closed finds the youngest copy.
_YOUNGEST_DAYS = 30
# Copies stand in the stream before everything that ever happened, each copy in a span of its own.
_SPAN = 10**9


async def copy_cases(database: str, *, to: int, households: Sequence[str]) -> AsyncIterator[int]:
    """Copy the closed cases of `database` until there are `to` of them, yielding their number after each transaction.

    The copies are spread evenly over `households` and the five years before last month. The connection has to be a
    superuser's, because no trigger may take them for news.

    Raises:
        ValueError: No case is closed.
    """
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as conn:
        await conn.execute("SET session_replication_role = replica")
        await conn.execute("SET synchronous_commit = off")
        await conn.execute("CREATE TEMP TABLE template AS SELECT id FROM cases WHERE state = 'closed'")
        originals = await _one(conn, "SELECT count(*) FROM template")
        if not originals:
            raise ValueError("no closed case to copy")
        copies = ceil(max(0, to - originals) / originals)
        statements = [await _copying(conn, table) for table in _TABLES]
        values = {
            "copies": max(1, copies),
            "days": _YEARS * 365,
            "youngest": _YOUNGEST_DAYS,
            "households": list(households),
            "span": _SPAN,
        }
        step = max(1, _BATCH // originals)
        for first in range(1, copies + 1, step):
            last = min(copies, first + step - 1)
            async with conn.transaction():
                for statement in statements:
                    await conn.execute(statement, values | {"first": first, "last": last})
            yield originals * (last + 1)
        await conn.execute("VACUUM ANALYZE")
        await conn.execute("CHECKPOINT")


async def count_rows(database: str) -> tuple[int, int]:
    """Return how many closed cases there are and how many bytes the whole database takes."""
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as conn:
        cases = await _one(conn, "SELECT count(*) FROM cases WHERE state = 'closed'")
        return cases, await _one(conn, "SELECT pg_database_size(current_database())")


async def _one(conn: psycopg.AsyncConnection, query: str) -> int:
    row = await (await conn.execute(query.encode())).fetchone()
    assert row is not None
    return int(row[0])


async def _copying(conn: psycopg.AsyncConnection, table: str) -> sql.Composed:
    """Return the statement that copies what hangs on the templates in one table."""
    cursor = await conn.execute(
        "SELECT column_name, data_type FROM information_schema.columns "
        "WHERE table_schema = 'public' AND table_name = %s AND is_identity = 'NO' "
        "AND is_generated = 'NEVER' ORDER BY ordinal_position",
        (table,),
    )
    columns = {name: _changed(table, name, data_type) for name, data_type in await cursor.fetchall()}
    return sql.SQL(
        """
        INSERT INTO {table} ({names})
        SELECT {values}
        FROM {source} CROSS JOIN LATERAL (
            SELECT n, interval '1 day' * (%(youngest)s + %(days)s * n::float8 / %(copies)s) AS ago
            FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n
        ) AS c {condition}
        """
    ).format(
        table=sql.Identifier(table),
        names=sql.SQL(", ").join(map(sql.Identifier, columns)),
        values=sql.SQL(", ").join(columns.values()),
        source=_source(table),
        condition=sql.SQL(_CONDITIONS.get(table, "")),
    )


def _source(table: str) -> sql.Composable:
    if table == "cases":
        return sql.SQL("cases t JOIN template ON template.id = t.id")
    if table == "attempt":
        return sql.SQL("attempt t JOIN leg ON leg.id = t.leg_id JOIN template ON template.id = leg.case_id")
    return sql.SQL("{} t JOIN template ON template.id = t.case_id").format(sql.Identifier(table))


_HOUSEHOLD = """
    (%(households)s::text[])[
        1 + abs((hashtext(t.id::text)::bigint + c.n * 7919) %% cardinality(%(households)s::text[]))
    ]
"""


def _changed(table: str, name: str, data_type: str) -> sql.Composable:
    column = sql.SQL("t.{}").format(sql.Identifier(name))
    if (table, name) == ("cases", "subject"):
        return sql.SQL("'household:' || " + _HOUSEHOLD)
    if (table, name) == ("cases", "household_id"):
        return sql.SQL(_HOUSEHOLD)
    if (table, name) == ("event", "position"):
        return sql.SQL("{} - c.n * %(span)s").format(column)
    if (table, name) == ("run", "ended_at"):
        return sql.SQL("coalesce(t.ended_at, t.started_at) - c.ago")
    if name == "wake_at":
        return sql.SQL("NULL::timestamptz")
    if data_type == "uuid" and name in _UUIDS:
        return sql.SQL("md5({}::text || '/' || c.n)::uuid").format(column)
    if (table, name) in _TEXTS:
        return sql.SQL("{} || '/' || c.n").format(column)
    if data_type == "timestamp with time zone":
        return sql.SQL("{} - c.ago").format(column)
    return column
