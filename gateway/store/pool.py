"""Connections to PostgreSQL."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from weakref import WeakKeyDictionary

import orjson
import psycopg
from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool

from gateway.store.migrate import RUNTIME_ROLE

__all__ = ["Connection", "Pool", "as_jsonb", "connect", "is_data_error", "open_clocked_pool", "open_pool"]

Connection = AsyncConnection[TupleRow]
Pool = AsyncConnectionPool[Connection]

_OPTIONS: dict[str, Any] = {
    "autocommit": True,
    "prepare_threshold": 0,  # presses are rare and must be quick: every statement is prepared the first time
    "connect_timeout": 5,
    "keepalives_idle": 2,
    "keepalives_interval": 1,
    "keepalives_count": 3,
    "tcp_user_timeout": 5000,
}


def as_jsonb(value: object) -> Jsonb:
    """Return a value for a ``jsonb`` column."""
    return Jsonb(value, dumps=_dumps)


def _dumps(value: object) -> bytes | str:
    try:
        return orjson.dumps(value)
    except TypeError:  # numbers of more than 64 bits, which JSON and the database know
        return json.dumps(value)


async def _as_runtime(conn: Connection) -> None:
    await conn.execute(f"SET ROLE {RUNTIME_ROLE}")
    # The time zone: what a terminal says of its clock must be readable again. The commit: ours is a promise (I1).
    # The keepalives: a gateway that is cut off must not hold its locks for the two hours of the server's own.
    # Compiling: before version 18 a scan that is only discouraged costs so much that a server compiles its statement.
    await conn.execute(
        "SELECT set_config('idle_in_transaction_session_timeout', '5s', false), set_config('timezone', 'UTC', false), "
        "set_config('synchronous_commit', 'on', false), set_config('jit', 'off', false), "
        "set_config('tcp_keepalives_idle', '2', false), set_config('tcp_keepalives_interval', '1', false), "
        "set_config('tcp_keepalives_count', '3', false)"
    )


async def _for_lookups(conn: Connection) -> None:
    """Let every statement go by an index.

    Plans are kept, those behind foreign keys and constraint triggers too. One made while a table holds thirty rows
    reads it from end to end, and goes on to when a storm has made that thirty thousand rows a few seconds later.
    """
    await _as_runtime(conn)
    await conn.execute("SELECT set_config('enable_seqscan', 'off', false)")


@asynccontextmanager
async def open_pool(url: str, *, name: str, size: int, wide: bool = False) -> AsyncIterator[Pool]:
    """Open a pool of up to `size` connections that act with the rights of the service.

    Connections are in autocommit mode: whoever wants a transaction opens one. The pool reconnects by itself. Without
    `wide` it is for statements that find their rows by an index; figures and the audit read whole tables.
    """
    pool: Pool = AsyncConnectionPool(
        url,
        min_size=min(2, size),
        max_size=size,
        open=False,
        kwargs=_OPTIONS | {"application_name": f"onekey-{name}"},
        configure=_as_runtime if wide else _for_lookups,
        name=name,
        timeout=2,
        reconnect_timeout=2,  # the pool doubles its delay up to this; callers ask again, so it never gives up
    )
    async with pool:
        yield pool


class _ClockedPool(AsyncConnectionPool[Connection]):
    """A pool whose connections go by the clock of whoever plays, set anew whenever one is taken."""

    clock: Callable[[], datetime]
    shown: "WeakKeyDictionary[Connection, datetime]"

    async def getconn(self, timeout: float | None = None) -> Connection:
        conn = await super().getconn(timeout)
        now = self.clock()
        if self.shown.get(conn) != now:
            await conn.execute("SELECT set_config('onekey.now', %s, false)", (now.isoformat(),))
            self.shown[conn] = now
        return conn


@asynccontextmanager
async def open_clocked_pool(url: str, *, clock: Callable[[], datetime], size: int = 2) -> AsyncIterator[Pool]:
    """Open a pool on which the time of the database is what `clock` says (D9): weeks in seconds, on the real tables."""
    pool = _ClockedPool(
        url,
        min_size=min(2, size),
        max_size=size,
        open=False,
        kwargs=_OPTIONS | {"application_name": "onekey-clocked"},
        configure=_for_lookups,
        name="clocked",
        timeout=10,
    )
    pool.clock = clock
    pool.shown = WeakKeyDictionary()
    async with pool:
        yield pool


async def connect(url: str, *, name: str) -> Connection:
    """Open one connection of our own, for LISTEN and session locks."""
    conn = await AsyncConnection.connect(url, **(_OPTIONS | {"application_name": f"onekey-{name}"}))
    try:
        await _as_runtime(conn)
    except BaseException:  # also when cancelled: nobody else knows of this connection yet
        await conn.close()
        raise
    return conn


def is_data_error(exc: psycopg.Error) -> bool:
    """Is this row, or our own SQL, at fault, and not the connection?

    SQLSTATE classes 22 and 23, text it cannot even encode, statements it does not understand, rows beyond its limits
    (54): trying again would fail again for ever.
    """
    faults = psycopg.DataError | psycopg.IntegrityError | psycopg.ProgrammingError | psycopg.NotSupportedError
    return isinstance(exc, faults) or (exc.sqlstate or "").startswith("54")
