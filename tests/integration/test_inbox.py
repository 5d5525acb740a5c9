"""The inbox on a real database: what waits is kept, struck out once it is stored, and taken over from the dead (I1)."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from random import Random

import pytest

from gateway.ingest import inbox as lanes
from gateway.ingest.inbox import Inbox
from gateway.links.mqtt import Delivery
from gateway.store import inbox, outbox
from gateway.store.inbox import NewMessage
from gateway.store.pool import Pool, connect

AT = datetime(2026, 11, 22, 6, 31, 5, tzinfo=UTC)


def delivery(terminal: str, payload: bytes = b"{}") -> Delivery:
    return Delivery(
        topic=f"okc/v1/{terminal}/up/alarm",
        payload=payload,
        qos=1,
        retained=False,
        received_at=AT,
        received_mono=time.monotonic(),
        mid=1,
        session=1,
    )


class Desk:
    """An inbox, what it said, and the table behind it."""

    def __init__(self, pool: Pool, worker: int | None) -> None:
        self.pool = pool
        self.worker = worker
        self.safe: list[str] = []
        self.found: list[Delivery] = []
        self.inbox = Inbox(pool, worker=lambda: self.worker, found=self.found.append, rng=Random(1))

    def put(self, one: Delivery) -> None:
        self.inbox.put(one, lambda: self.safe.append(one.topic))

    async def rows(self) -> list[bytes]:
        async with self.pool.connection() as conn:
            cursor = await conn.execute("SELECT payload FROM inbox ORDER BY id")
            return [row[0] for row in await cursor.fetchall()]

    async def until_rows(self, expected: list[bytes]) -> None:
        async with asyncio.timeout(10):
            while await self.rows() != expected:
                await asyncio.sleep(0.02)

    async def until_found(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.found) < count:
                await asyncio.sleep(0.02)


@asynccontextmanager
async def desk(database: str, pool: Pool) -> AsyncIterator[Desk]:
    async with await connect(database, name="inbox-test") as session:
        opened = Desk(pool, await outbox.register(session, "a"))
        task = asyncio.ensure_future(opened.inbox.run())
        try:
            yield opened
        finally:
            task.cancel()
            await asyncio.wait({task})


async def test_what_waits_is_safe_before_the_broker_hears_and_is_struck_out_once_stored(
    database: str, pool: Pool
) -> None:
    async with desk(database, pool) as here:
        waiting = [delivery(str(number), b"%d" % number) for number in range(2500)]
        for one in waiting:
            here.put(one)
        await here.until_rows([b"%d" % number for number in range(2500)])
        assert here.safe == [one.topic for one in waiting]
        for one in waiting:
            here.inbox.strike(one)
        await here.until_rows([])
        assert not here.found


async def test_what_was_stored_meanwhile_is_kept_for_nothing(database: str, pool: Pool) -> None:
    async with desk(database, pool) as here:
        first, second = delivery("1", b"1"), delivery("2", b"2")
        here.put(first)
        here.put(second)
        here.inbox.strike(first)
        await here.until_rows([b"2"])
        assert here.safe == [second.topic]


async def test_nothing_is_kept_without_a_worker_and_all_of_it_once_there_is_one(database: str, pool: Pool) -> None:
    async with desk(database, pool) as here:
        worker, here.worker = here.worker, None
        here.put(delivery("1", b"1"))
        await asyncio.sleep(0.3)
        assert (here.safe, await here.rows()) == ([], [])
        here.worker = worker
        await here.until_rows([b"1"])


async def test_the_dead_are_taken_over_from_and_the_living_are_not(
    database: str, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "_LOOK_EVERY_S", 0.05)
    async with await connect(database, name="living") as other, await connect(database, name="dead") as third:
        living, dead = await outbox.register(other, "b"), await outbox.register(third, "c")
        async with pool.connection() as conn:
            await inbox.add(conn, [NewMessage("okc/v1/1/up/alarm", b"living", AT, retained=False)], worker=living)
            await inbox.add(conn, [NewMessage("okc/v1/2/up/alarm", b"dead", AT, retained=True)], worker=dead)
        await third.close()
        async with desk(database, pool) as here:
            await here.until_found(1)
            await outbox.beat(other, living, {})
            (found,) = here.found
            assert (found.topic, found.payload, found.received_at) == ("okc/v1/2/up/alarm", b"dead", AT)
            assert (found.retained, found.stored, found.done) == (True, True, True)
            await asyncio.sleep(0.3)  # it is held now, and found no more
            assert len(here.found) == 1
            here.inbox.strike(found)
            await here.until_rows([b"living"])


async def test_a_message_that_the_database_refuses_stays_with_the_broker(database: str, pool: Pool) -> None:
    async with desk(database, pool) as here:
        here.put(delivery("a\0b"))
        good = delivery("1", b"1")
        await asyncio.sleep(0.2)
        here.put(good)
        await here.until_rows([b"1"])
        assert here.safe == [good.topic]
