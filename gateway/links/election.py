"""One of several replicas does a thing: whoever holds a lock of the database, for as long as its session lives."""

import asyncio
from collections.abc import Awaitable, Callable

import psycopg

from gateway.store.pool import connect

__all__ = ["elected"]

_TRY_S = 1.0


async def elected(database: str, lock: int, part: Callable[[], Awaitable[None]]) -> None:
    """Wait for the lock, then run `part` until it ends or the session that holds the lock is lost.

    Raises:
        psycopg.OperationalError: The session was lost; `part` was cancelled.
    """
    async with await connect(database, name="election") as session:
        while True:
            row = await (await session.execute("SELECT pg_try_advisory_lock(%s)", (lock,))).fetchone()
            if row == (True,):
                break
            await asyncio.sleep(_TRY_S)
        work = asyncio.ensure_future(part())
        try:
            while not work.done():
                await asyncio.wait({work}, timeout=_TRY_S)
                await session.execute("SELECT 1")
            await work
        except psycopg.Error:
            work.cancel()
            await asyncio.wait({work})
            raise
        finally:
            work.cancel()
