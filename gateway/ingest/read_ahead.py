"""Reading ahead: the households that terminals stand in are in memory before anybody presses.

A first press then asks the database nothing that could be known already: a third of its round trips, most of all when a
district's terminals call at once. Whatever is not here is read when it is needed.
"""

import asyncio
from collections.abc import Callable

from gateway.store.directory import Directory
from gateway.store.pool import Pool

__all__ = ["read_ahead"]

_CHUNK = 32
"""Households opened in one go: some two milliseconds in which nothing else happens here."""

_PAUSE_S = 0.01
_WAIT_S = 0.2
_LOOK_EVERY_S = 5.0


async def read_ahead(pool: Pool, directory: Directory, *, quiet: Callable[[], bool]) -> None:
    """Read all households, and again what a site file changed; only while `quiet` says that nobody waits."""
    revisions: dict[str, int] | None = None
    while True:
        async with pool.connection() as conn:
            now = await directory.revisions(conn)
        if now != revisions:
            last: str | None = ""
            while last is not None:
                while not quiet():
                    await asyncio.sleep(_WAIT_S)
                async with pool.connection() as conn:
                    last = await directory.read_ahead(conn, after=last, limit=_CHUNK)
                await asyncio.sleep(_PAUSE_S)
            revisions = now
        await asyncio.sleep(_LOOK_EVERY_S)
