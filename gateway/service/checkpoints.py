"""Making checkpoints, keeping them outside the database, and reading them (D15)."""

import asyncio
import logging
from pathlib import Path

from gateway.domain.checkpoint import FIRST, Checkpoint, digest, parse, seal, unsigned
from gateway.keyring import Keyring
from gateway.store import checkpoint_file, checkpoints, procedures
from gateway.store.checkpoints import CheckpointRow
from gateway.store.pool import Pool

__all__ = ["export_checkpoints", "list_checkpoints", "make_checkpoints"]

_log = logging.getLogger(__name__)

LARGEST = 2000
"""Cases in one checkpoint, so that a line stays below 250 KB."""


async def make_checkpoints(pool: Pool, keyring: Keyring) -> int:
    """Sign the heads of all chains that grew since the last checkpoint; returns how many checkpoints that took.

    One replica at a time does it; where nothing grew, nothing is written.
    """
    made = 0
    while await _make_one(pool, keyring):
        made += 1
    return made


async def _make_one(pool: Pool, keyring: Keyring) -> bool:
    async with pool.connection() as conn, conn.transaction():
        await checkpoints.lock(conn)
        heads = await checkpoints.take_grown(conn, limit=LARGEST)
        if not heads:
            return False
        before = await checkpoints.last(conn)
        number, prev = (1, FIRST) if before is None else (before.number + 1, digest(before.line.encode()))
        at = await procedures.the_time(conn)
        text = unsigned(number=number, at=at, prev=prev, heads=heads, key=keyring.public.name)
        line = seal(text, keyring.sign(text))
        await checkpoints.add(conn, CheckpointRow(number, at, line.decode()))
        return True


async def export_checkpoints(pool: Pool, keyring: Keyring, path: Path) -> int:
    """Make what checkpoints are due and write all that `path` does not hold yet; returns the number of the newest.

    A database that lost its newest checkpoints, as one that was restored from a backup, gets them back from the file
    first: the sequence goes on where it stood, and what the database lost besides shows.

    Raises:
        OSError: The file cannot be read or written. The checkpoints are in the database all the same.
    """
    try:
        kept = await asyncio.to_thread(checkpoint_file.last, path)
        if kept is not None:
            await _put_back(pool, keyring, path, newest=kept.number)
    finally:
        await make_checkpoints(pool, keyring)
    number = 0 if kept is None else kept.number
    async with pool.connection() as conn:
        async for page in checkpoints.every(conn, behind=number):
            lines = [parsed for row in page if (parsed := _parsed(row)) is not None]
            await asyncio.to_thread(checkpoint_file.append, path, lines)
            number = page[-1].number
    return number


def _parsed(row: CheckpointRow) -> Checkpoint | None:
    try:
        return parse(row.line.encode())
    except ValueError:
        _log.error("a checkpoint in the database was altered", extra={"checkpoint": row.number})
        return None


async def _put_back(pool: Pool, keyring: Keyring, path: Path, *, newest: int) -> None:
    async with pool.connection() as conn:
        before = await checkpoints.last(conn)
    number, prev = (0, FIRST) if before is None else (before.number, digest(before.line.encode()))
    if number >= newest:
        return
    lost = await asyncio.to_thread(_behind, path, keyring, number, prev)
    async with pool.connection() as conn, conn.transaction():
        await checkpoints.lock(conn)
        if await checkpoints.last(conn) != before:
            return  # somebody was quicker
        for one in lost:
            await checkpoints.add(conn, CheckpointRow(one.number, one.at, one.line.decode()))
    if lost:
        _log.error(
            "the database had lost its newest checkpoints, they were put back from the file",
            extra={"first": lost[0].number, "last": lost[-1].number},
        )
    else:
        _log.error("the checkpoints in the database are not those of the file", extra={"checkpoint": number})


def _behind(path: Path, keyring: Keyring, number: int, prev: str) -> list[Checkpoint]:
    """Return the genuine checkpoints of a file that go on behind `number`, whose line has the hash `prev`."""
    found: list[Checkpoint] = []
    for line in checkpoint_file.read(path):
        try:
            one = parse(line)
        except ValueError:
            continue
        if one.number == number + 1 and one.prev == prev and one.signed(keyring.public.signed):
            found.append(one)
            number, prev = one.number, digest(line)
    return found


async def list_checkpoints(pool: Pool, *, after: int, limit: int) -> list[CheckpointRow]:
    """Return checkpoints behind `after`, in their order."""
    async with pool.connection() as conn:
        return await checkpoints.after(conn, after, limit=limit)
