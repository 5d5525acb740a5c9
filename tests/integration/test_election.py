"""One of several does a thing: the lock, who takes it, and when it is left to others."""

import asyncio

import psycopg
import pytest

from gateway.links.election import elected
from gateway.store.pool import connect

LOCK = 4711


class Part:
    """Something that only one may do at a time."""

    def __init__(self) -> None:
        self.doing = 0
        self.most = 0
        self.begun = asyncio.Event()

    async def run(self) -> None:
        self.doing += 1
        self.most = max(self.most, self.doing)
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.2)  # whoever ends needs a moment for that
            self.doing -= 1


async def test_one_does_it_and_another_when_that_one_is_gone(database: str) -> None:
    part = Part()
    first = asyncio.create_task(elected(database, LOCK, part.run))
    async with asyncio.timeout(10):
        await part.begun.wait()
    second = asyncio.create_task(elected(database, LOCK, part.run))
    await asyncio.sleep(2.5)
    assert part.doing == 1
    part.begun.clear()
    first.cancel()
    async with asyncio.timeout(10):
        await part.begun.wait()
    assert part.most == 1, "the lock is held until the work has ended"
    second.cancel()
    await asyncio.wait({first, second})


async def test_a_session_that_is_lost_ends_the_work(database: str) -> None:
    part = Part()
    work = asyncio.create_task(elected(database, LOCK, part.run))
    async with asyncio.timeout(10):
        await part.begun.wait()
    async with await connect(database, name="test") as conn:
        await conn.execute("RESET ROLE")
        await conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'onekey-election' "
            "AND datname = current_database()"
        )
    async with asyncio.timeout(10):
        with pytest.raises(psycopg.OperationalError):
            await work
    assert part.doing == 0


async def test_who_has_enough_leaves_it_to_others_but_not_for_long(database: str) -> None:
    part = Part()
    asked: list[float] = []

    def eager(free_s: float) -> bool:
        asked.append(free_s)
        return free_s >= 2

    async with await connect(database, name="other") as other:
        work = asyncio.create_task(elected(database, LOCK, part.run, eager=eager))
        async with asyncio.timeout(10):
            while not asked:
                await asyncio.sleep(0.01)
        # Asking keeps nobody from taking it.
        assert await (await other.execute("SELECT pg_try_advisory_lock(%s)", (LOCK,))).fetchone() == (True,)
        await asyncio.sleep(2.5)
        assert not part.begun.is_set()
        assert asked == [0.0]
    async with asyncio.timeout(10):
        await part.begun.wait()
    assert asked[1:] == [0.0, 1.0, 2.0]
    work.cancel()
    await asyncio.wait({work})


async def test_who_has_too_much_gives_it_up(database: str) -> None:
    part, stay = Part(), True
    work = asyncio.create_task(elected(database, LOCK, part.run, stay=lambda: stay))
    async with asyncio.timeout(10):
        await part.begun.wait()
    await asyncio.sleep(1.5)
    assert part.doing == 1
    stay = False
    async with asyncio.timeout(10):
        await work
    assert part.doing == 0
