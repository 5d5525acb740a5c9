"""A long history: cases that were really run and closed are copied by the database, with all that hangs on them.

The copies differ from the originals in their ids, their times, their household and its terminal; what was not over yet
is over in them. Their journals therefore do not verify: this fills scratch databases to be measured, never one that
anybody relies on.

The id of a copy ends as that of its original and begins with a number that grows from copy to copy over the whole range
of ids. So a million cases are put into the indexes in their order, which is quick, and what is pressed afterwards finds
its place anywhere among them, as it does among ids that were made one by one.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from math import ceil
from typing import LiteralString

import psycopg
from psycopg import sql

__all__ = ["copy_cases", "count_rows"]

# In the order of their references. A case leaves nothing else behind but who has seen it, which is nobody here, and its
# place in a checkpoint, of which there is at most one a minute and behind no press.
_TABLES = (
    "cases", "alarm", "leg", "notice", "attempt", "answer", "journal", "run", "step", "fact", "command", "progress",
    "work_order", "event",
)  # fmt: skip
_LARGEST_FIRST = ("journal", "event", "notice", "attempt", "leg")

_CONNECTIONS = 2
_BATCH = 5_000
_DAYS = 5 * 365
# Nothing that looks after what has just been closed finds the youngest copy.
_YOUNGEST_DAYS = 30
# Copies stand in the stream before everything that ever happened, each copy in a span of its own.
_SPAN = 10**9
_HEAD = 8
"""So many hexadecimal digits at the beginning of an id say which copy it is."""

_UUIDS = {"id", "case_id", "leg_id", "run_id", "step_id", "previous"}
_FROM_UUID = {("notice", "id"): "msg_", ("attempt", "notice_id"): "msg_", ("command", "id"): "cmd_"}
"""Texts that hold a uuid, and what stands before it."""

_OVER: Mapping[tuple[str, str], LiteralString] = {
    ("leg", "state"): "CASE WHEN t.ended_at IS NULL THEN 'withdrawn' ELSE t.state END",
    ("leg", "ended_at"): "coalesce(t.ended_at, t.created_at)",
    ("notice", "state"): "CASE t.state WHEN 'due' THEN 'cancelled' ELSE t.state END",
    ("notice", "worker"): "NULL::bigint",
    ("notice", "ended_at"): "coalesce(t.ended_at, t.due_at)",
    ("run", "ended_at"): "coalesce(t.ended_at, t.started_at)",
    ("step", "state"): "CASE t.state WHEN 'open' THEN 'cancelled' ELSE t.state END",
    ("step", "ended_at"): "coalesce(t.ended_at, t.planned_at)",
    ("command", "state"): "CASE WHEN t.next_at IS NULL THEN t.state ELSE 'expired' END",
    ("work_order", "over"): "true",
}
"""How what an original still has to do stands in its copies. All of it would be overdue at once."""

_MOVED: Mapping[tuple[str, str], LiteralString] = {
    ("cases", "subject"): "'household:' || h.household",
    ("cases", "household_id"): "h.household",
    ("cases", "terminal_id"): "h.terminal",
    ("alarm", "terminal_id"): "h.terminal",
    ("alarm", "terminal_uid"): "h.terminal_uid",
    ("alarm", "key"): "concat('n:', h.terminal, ':', t.epoch, ':0:', c.n * c.alarms + t.row_nth)",
    ("alarm", "boot"): "0",
    ("alarm", "seq"): "c.n * c.alarms + t.row_nth",
}
"""What a copy has of its household ``h`` and as its own press."""


async def copy_cases(
    database: str, *, to: int, households: Sequence[str], progress: Callable[[int], object] = lambda _closed: None
) -> None:
    """Copy the closed cases of `database` until there are at least `to` of them; `progress` hears their number.

    The copies are spread evenly over `households` and the five years before last month. Then everything is vacuumed,
    analysed and written out, so that nothing of it is left to be done beside a measurement. The address has to be a
    superuser's, because no trigger may take copies for news.

    Raises:
        ValueError: No case is closed, or no household has a terminal.
    """
    async with AsyncExitStack() as cleanup:
        connections = [
            await cleanup.enter_async_context(await psycopg.AsyncConnection.connect(database, autocommit=True))
            for _ in range(_CONNECTIONS)
        ]
        # All of them before the first copy, which nobody may take for an original.
        originals = max([await _prepare(conn, households) for conn in connections])
        copies = max(0, ceil(to / originals) - 1)
        step = max(1, _BATCH // originals)
        batches = iter([(first, min(copies, first + step - 1)) for first in range(1, copies + 1, step)])
        closed = originals
        await _set_autovacuum(connections[0], sql.SQL("SET (autovacuum_enabled = off)"))  # it would come all the time

        async def copy(conn: psycopg.AsyncConnection) -> None:
            nonlocal closed
            statements = [await _copying(conn, table) for table in _TABLES]
            for first, last in batches:
                async with conn.transaction():
                    for statement in statements:
                        await conn.execute(statement, {"first": first, "last": last, "copies": copies})
                closed += originals * (last - first + 1)
                progress(closed)

        await _with_each(connections, copy)
        await _set_autovacuum(connections[0], sql.SQL("RESET (autovacuum_enabled)"))
        tables = iter(_LARGEST_FIRST)

        async def tidy(conn: psycopg.AsyncConnection) -> None:
            for table in tables:
                await conn.execute(sql.SQL("VACUUM (BUFFER_USAGE_LIMIT 0, ANALYZE) {}").format(sql.Identifier(table)))

        await _with_each(connections, tidy)
        await connections[0].execute("VACUUM (BUFFER_USAGE_LIMIT 0, ANALYZE)")
        await connections[0].execute("CHECKPOINT")


async def count_rows(database: str) -> tuple[int, int]:
    """Return how many closed cases there are and how many bytes the whole database takes."""
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as conn:
        cases = await _one(conn, "SELECT count(*) FROM cases WHERE state = 'closed'")
        return cases, await _one(conn, "SELECT pg_database_size(current_database())")


async def _one(conn: psycopg.AsyncConnection, query: LiteralString) -> int:
    row = await (await conn.execute(query)).fetchone()
    assert row is not None
    return int(row[0])


async def _set_autovacuum(conn: psycopg.AsyncConnection, setting: sql.SQL) -> None:
    for table in _TABLES:
        await conn.execute(sql.SQL("ALTER TABLE {} {}").format(sql.Identifier(table), setting))


async def _with_each(
    connections: Sequence[psycopg.AsyncConnection],
    work: Callable[[psycopg.AsyncConnection], Coroutine[None, None, None]],
) -> None:
    async with asyncio.TaskGroup() as tasks:
        for conn in connections:
            tasks.create_task(work(conn), name="history")


async def _prepare(conn: psycopg.AsyncConnection, households: Sequence[str]) -> int:
    """Lay out what is copied, and whither, in tables of this session; return how many cases are copied."""
    await conn.execute(
        "SELECT set_config(name, value, false) FROM (VALUES ('session_replication_role', 'replica'), "
        "('synchronous_commit', 'off'), ('wal_compression', 'off'), ('jit', 'off'), ('temp_buffers', '64MB'), "
        "('max_parallel_workers_per_gather', '0')) AS setting (name, value)"
    )
    await conn.execute(
        """
        CREATE TEMP TABLE original AS
        SELECT id, row_number() OVER (ORDER BY right(id::text, 28)) AS nth FROM cases WHERE state = 'closed'
        """
    )
    await conn.execute(
        """
        CREATE TEMP TABLE home AS
        SELECT row_number() OVER (ORDER BY household) - 1 AS nth, * FROM (
            SELECT DISTINCT ON (a.household_id) a.household_id AS household, t.uid AS terminal_uid,
                   t.public_id AS terminal
            FROM assignment a JOIN terminal t ON t.uid = a.terminal_uid
            WHERE a.until IS NULL AND a.household_id = ANY(%s) ORDER BY a.household_id, t.public_id
        ) AS h
        """,
        (list(households),),
    )
    originals = await _one(conn, "SELECT count(*) FROM original")
    if not originals or not await _one(conn, "SELECT count(*) FROM home"):
        raise ValueError("no closed case to copy, or no household with a terminal to copy it to")
    for table in _TABLES:
        columns = await _columns(conn, table)
        await conn.execute(
            sql.SQL(
                """
                CREATE TEMP TABLE {laid_out} AS
                SELECT o.nth AS case_nth, row_number() OVER (ORDER BY o.nth, t.ctid) AS row_nth, {values}
                FROM {table} t {joined} ORDER BY row_nth
                """
            ).format(
                laid_out=_laid_out(table),
                table=sql.Identifier(table),
                joined=_joined(table),
                values=sql.SQL(", ").join(
                    sql.SQL("{} AS {}").format(_template(table, name, data_type), sql.Identifier(name))
                    for name, data_type in columns.items()
                ),
            )
        )
        await conn.execute(sql.SQL("ANALYZE {}").format(_laid_out(table)))
    await conn.execute("ANALYZE home")
    return originals


async def _columns(conn: psycopg.AsyncConnection, table: str) -> dict[str, str]:
    """Return the types of the columns of a table that are not made by themselves."""
    cursor = await conn.execute(
        "SELECT column_name, data_type FROM information_schema.columns "
        "WHERE table_schema = 'public' AND table_name = %s AND is_identity = 'NO' "
        "AND is_generated = 'NEVER' ORDER BY ordinal_position",
        (table,),
    )
    return dict(await cursor.fetchall())


def _laid_out(table: str) -> sql.Identifier:
    return sql.Identifier(f"original_{table}")


def _joined(table: str) -> sql.SQL:
    if table == "cases":
        return sql.SQL("JOIN original o ON o.id = t.id")
    if table == "attempt":
        return sql.SQL("JOIN leg ON leg.id = t.leg_id JOIN original o ON o.id = leg.case_id")
    return sql.SQL("JOIN original o ON o.id = t.case_id")


def _template(table: str, name: str, data_type: str) -> sql.Composable:
    """Return what a column of an original is laid out as: ids without the digits that each copy has of its own."""
    column = sql.SQL("t.{}").format(sql.Identifier(name))
    if (table, name) in _OVER:
        return sql.SQL(_OVER[table, name])
    if name in {"wake_at", "next_at"}:
        return sql.SQL("NULL::timestamptz")
    if data_type == "uuid" and name in _UUIDS:
        return sql.SQL("right({}::text, {})").format(column, -_HEAD)
    if (table, name) in _FROM_UUID:
        return sql.SQL("right({}, {})").format(column, -_HEAD - len(_FROM_UUID[table, name]))
    return column


def _copied(table: str, name: str, data_type: str) -> sql.Composable:
    """Return what a column is in the copy ``c`` of ``t``."""
    column = sql.SQL("t.{}").format(sql.Identifier(name))
    if (table, name) in _MOVED:
        return sql.SQL(_MOVED[table, name])
    if (table, name) == ("event", "position"):
        return sql.SQL("t.row_nth - c.before * {}").format(_SPAN)
    if data_type == "uuid" and name in _UUIDS:
        return sql.SQL("(c.head || {})::uuid").format(column)
    if (table, name) in _FROM_UUID:
        return sql.SQL("{} || c.head || {}").format(_FROM_UUID[table, name], column)
    if data_type == "timestamp with time zone":
        return sql.SQL("{} - c.ago").format(column)
    return column


async def _copying(conn: psycopg.AsyncConnection, table: str) -> sql.Composed:
    """Return the statement that makes the copies ``first`` to ``last`` of ``copies`` in one table."""
    columns = await _columns(conn, table)
    # Copy by copy, as the indexes like it: the planner is left no other way.
    return sql.SQL(
        """
        WITH c AS MATERIALIZED (
            SELECT n, before, lpad(to_hex(n * ((1::bigint << 32) / (%(copies)s + 1))), {head}, '0') AS head,
                   interval '1 day' * ({youngest} + {days} * before::float8 / %(copies)s) AS ago,
                   (SELECT count(*) FROM {alarms}) AS alarms, (SELECT count(*) FROM home) AS homes
            FROM (SELECT n, %(copies)s + 1 - n AS before
                  FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n) AS numbered
        )
        INSERT INTO {table} ({names})
        SELECT {values} FROM c CROSS JOIN LATERAL (SELECT * FROM {laid_out} WHERE c.n > 0 OFFSET 0) AS t {home}
        """
    ).format(
        head=_HEAD,
        youngest=_YOUNGEST_DAYS,
        days=_DAYS,
        alarms=_laid_out("alarm"),
        table=sql.Identifier(table),
        names=sql.SQL(", ").join(map(sql.Identifier, columns)),
        values=sql.SQL(", ").join(_copied(table, name, data_type) for name, data_type in columns.items()),
        laid_out=_laid_out(table),
        home=sql.SQL(
            "JOIN home h ON h.nth = mod(c.n * 7919 + t.case_nth, c.homes)" if table in {"cases", "alarm"} else ""
        ),
    )
