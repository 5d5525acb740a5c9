"""One of several replicas does a thing: whoever holds a lock of the database, for as long as its session lives."""

import asyncio
from collections.abc import Awaitable, Callable

from gateway.store.pool import connect

__all__ = ["elected"]

_TRY_S = 1.0


async def elected(
    database: str,
    lock: int,
    part: Callable[[], Awaitable[None]],
    *,
    eager: Callable[[float], bool] = lambda _: True,
    stay: Callable[[], bool] = lambda: True,
) -> None:
    """Wait for the lock, then run `part` until it ends, or the session that holds the lock is lost.

    The lock is not taken before `eager` says so, which is given how long somebody could have taken it, in seconds; and
    `part` is cancelled and the lock left to others when `stay` says no more.

    Raises:
        psycopg.OperationalError: The session was lost; `part` was cancelled.
    """
    async with await connect(database, name="election") as session:
        free_s = 0.0
        while True:
            row = await (await session.execute("SELECT pg_try_advisory_lock(%s)", (lock,))).fetchone()
            if row == (True,):
                if eager(free_s):
                    break
                await session.execute("SELECT pg_advisory_unlock(%s)", (lock,))
                free_s += _TRY_S
            else:
                free_s = 0.0
            await asyncio.sleep(_TRY_S)
        work = asyncio.ensure_future(part())
        try:
            while not work.done():
                await asyncio.wait({work}, timeout=_TRY_S)
                await session.execute("SELECT 1")
                if not work.done() and not stay():
                    return
            await work
        finally:
            work.cancel()
            await asyncio.wait({work})
