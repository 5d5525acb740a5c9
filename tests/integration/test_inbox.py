"""The inbox on a real database: what waits is kept, struck out once it is stored, and taken over from the dead (I1)."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from gateway.ingest import aftermath, alarms
from gateway.ingest import inbox as lanes
from gateway.ingest.alarms import AlarmLane
from gateway.ingest.inbox import Inbox
from gateway.links.mqtt import Delivery
from gateway.service.raise_alarm import raise_alarm
from gateway.service.take_back import Missed, missed_words, take_word
from gateway.service.telemetry import Told, store_reports
from gateway.service.workdays import Workdays
from gateway.store import inbox, outbox
from gateway.store.cases import lock_subject
from gateway.store.directory import Directory
from gateway.store.inbox import NewMessage
from gateway.store.pool import Pool, connect
from schemas.reports import EventReport

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


async def test_what_has_no_room_in_memory_is_safe_and_found_when_there_is(
    database: str, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "_LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(lanes, "_MOST_KEPT", 1)
    monkeypatch.setattr(inbox, "LEASE", timedelta(0))
    async with desk(database, pool) as here:
        held = delivery("1", b"1")
        here.put(held)
        await here.until_rows([b"1"])
        assert here.inbox.full
        here.inbox.put(delivery("2", b"2"), lambda: here.safe.append("2"), hold=False)
        await here.until_rows([b"1", b"2"])
        await asyncio.sleep(0.2)
        assert (here.safe, here.found) == ([held.topic, "2"], [])
        here.inbox.strike(held)
        await here.until_found(1)
        assert here.found[0].payload == b"2"
        assert here.found[0].received_mono <= time.monotonic() - 0.2  # it has waited since it was kept


async def test_what_the_database_refuses_is_stored_when_nobody_else_holds_it(database: str, pool: Pool) -> None:
    async with desk(database, pool) as here:
        refused = delivery("a\0b")
        here.inbox.put(refused, lambda: here.safe.append("never"), hold=False)
        await here.until_found(1)
        assert (here.found, here.safe) == ([refused], [])


async def test_a_worker_under_a_new_name_keeps_what_it_holds(database: str, pool: Pool) -> None:
    async with desk(database, pool) as here, await connect(database, name="again") as session:
        here.put(delivery("1", b"1"))
        await here.until_rows([b"1"])
        here.worker = await outbox.register(session, "a")
        here.put(delivery("2", b"2"))
        await here.until_rows([b"1", b"2"])
        async with pool.connection() as conn:
            owners = await (await conn.execute("SELECT DISTINCT worker FROM inbox")).fetchall()
        assert owners == [(here.worker,)]
        assert not here.found


# The lane before it


class Link:
    """The broker's side of the alarm lane: what it hands over, and what it hears."""

    def __init__(self) -> None:
        self.take: Callable[[Delivery], None] = lambda _: None
        self.acknowledged: list[bytes] = []

    async def run(self, take: Callable[[Delivery], None]) -> None:
        self.take = take
        await asyncio.Event().wait()

    def acknowledge(self, one: Delivery) -> None:
        if not one.done:
            one.done = True
            self.acknowledged.append(one.payload)

    def post(self, topic: str, payload: bytes) -> None:
        """The terminal hears nothing here."""


def alarm(kind: str, seq: int) -> bytes:
    return json.dumps({"v": 1, "kinds": [kind], "boot": 1, "seq": seq}).encode()


@asynccontextmanager
async def lane(database: str, pool: Pool, directory: Directory) -> AsyncIterator[Link]:
    link = Link()
    async with await connect(database, name="lane-test") as session:
        worker = await outbox.register(session, "a")
        opened = AlarmLane(
            link,  # type: ignore[arg-type]
            pool,
            directory,
            submit=lambda _: None,
            worker=lambda: worker,
            is_working_day=Workdays().is_working_day,
            workers=4,
            rng=Random(1),
        )
        task = asyncio.ensure_future(opened.run())
        await asyncio.sleep(0.05)
        try:
            yield link
        finally:
            task.cancel()
            await asyncio.wait({task})


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not condition():
            await asyncio.sleep(0.02)


BOX, OTHER = "860000000000001", "860000000000002"


async def _subject(pool: Pool, terminal: str) -> str:
    async with pool.connection() as conn:
        cursor = await conn.execute("SELECT subject FROM cases WHERE terminal_id = %s", (terminal,))
        row = await cursor.fetchone()
    assert row is not None
    return str(row[0])


@pytest.mark.usefixtures("site")
async def test_a_terminal_that_cannot_stop_pressing_holds_up_nobodys_acknowledgement(
    database: str, pool: Pool, directory: Directory
) -> None:
    async with lane(database, pool, directory) as link:
        link.take(delivery(BOX, alarm("sos", 0)))
        await until(lambda: len(link.acknowledged) == 1)
        subject = await _subject(pool, BOX)
        async with await connect(database, name="slow") as slow, slow.transaction():
            await lock_subject(slow, subject)  # whatever this household presses takes long to be stored
            first, *rest = [delivery(BOX, alarm("sos", number)) for number in range(1, 20)]
            for one in (first, *rest):
                link.take(one)
            link.take(delivery(OTHER, alarm("sos", 0)))
            await until(lambda: all(one.done for one in rest))
            assert not first.done  # it is being stored, and is the only one that the broker waits for
            await until(lambda: alarm("sos", 0) in link.acknowledged[1:])
        await until(lambda: first.done)
        async with asyncio.timeout(15), pool.connection() as conn:
            while await (await conn.execute("SELECT count(*) FROM alarm")).fetchone() != (21,):
                await asyncio.sleep(0.05)
            while await (await conn.execute("SELECT count(*) FROM inbox")).fetchone() != (0,):
                await asyncio.sleep(0.05)


@pytest.mark.usefixtures("site")
async def test_power_that_came_back_while_its_loss_waited_to_be_stored_is_no_trouble(
    database: str, pool: Pool, directory: Directory
) -> None:
    lost = delivery(BOX, alarm("power_lost", 0))
    lost.received_at = datetime.now(UTC) - timedelta(seconds=20)
    lost.received_mono -= 20
    back = EventReport(name="power_restored", value=None, at=None, boot=1, seq=1, v=1)
    await store_reports(pool, directory, [Told(BOX, datetime.now(UTC), back)], worker=None)
    async with lane(database, pool, directory) as link:
        link.take(lost)
        async with asyncio.timeout(15), pool.connection() as conn:
            asked = "SELECT state, outcome FROM cases"
            while await (await conn.execute(asked)).fetchall() != [("closed", "technical_fixed")]:
                await asyncio.sleep(0.05)


@pytest.mark.usefixtures("site")
async def test_who_comes_after_a_dead_worker_looks_for_what_was_said_meanwhile_as_well(
    database: str, pool: Pool, directory: Directory
) -> None:
    long_ago = datetime.now(UTC) - timedelta(seconds=20)
    lost = alarm("power_lost", 0)
    press = alarms._read(replace(delivery(BOX, lost), received_at=long_ago)).press
    assert press is not None
    await raise_alarm(pool, directory, press, worker=None)  # stored, and then its worker died
    back = EventReport(name="power_restored", value=None, at=None, boot=1, seq=1, v=1)
    await store_reports(pool, directory, [Told(BOX, datetime.now(UTC), back)], worker=None)
    async with pool.connection() as conn:
        await conn.execute(
            "INSERT INTO inbox (worker, topic, payload, received_at, retained) VALUES (-1, %s, %s, %s, false)",
            (delivery(BOX).topic, lost, long_ago),
        )
    async with lane(database, pool, directory), asyncio.timeout(15), pool.connection() as conn:
        while await (await conn.execute("SELECT state, outcome FROM cases")).fetchall() != [
            ("closed", "technical_fixed")
        ]:
            await asyncio.sleep(0.05)
        while await (await conn.execute("SELECT count(*) FROM inbox")).fetchone() != (0,):
            await asyncio.sleep(0.05)


@pytest.mark.usefixtures("site")
async def test_what_waits_stays_on_disk_until_the_words_that_overtook_it_count(
    database: str, pool: Pool, directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    async def slowly(*values: Any) -> list[Missed]:
        asked.set()
        await answer.wait()
        return await missed_words(*values)

    monkeypatch.setattr(aftermath, "missed_words", slowly)
    async with lane(database, pool, directory) as link, pool.connection() as conn:
        for seq in range(40):  # more than are stored together: some lie on disk meanwhile
            one = delivery(BOX, alarm("low_battery", seq))
            one.received_mono -= 1
            link.take(one)
        await until(lambda: len(link.acknowledged) == 40)
        async with asyncio.timeout(15):
            while await (await conn.execute("SELECT count(*) FROM alarm")).fetchone() != (40,):
                await asyncio.sleep(0.02)
        await asked.wait()
        await asyncio.sleep(0.5)
        kept = await (await conn.execute("SELECT count(*) FROM inbox")).fetchone()
        assert kept is not None
        assert kept[0] > 0
        answer.set()
        async with asyncio.timeout(15):
            while await (await conn.execute("SELECT count(*) FROM inbox")).fetchone() != (0,):
                await asyncio.sleep(0.02)


@pytest.mark.usefixtures("site")
async def test_power_that_failed_again_is_not_taken_for_restored_by_an_older_word(
    pool: Pool, directory: Directory
) -> None:
    now = datetime.now(UTC)

    async def lose(seq: int, at: datetime) -> None:
        press = alarms._read(replace(delivery(BOX, alarm("power_lost", seq)), received_at=at)).press
        assert press is not None
        await raise_alarm(pool, directory, press, worker=None)

    async def restore(at: datetime) -> int:
        touched = await take_word(
            pool,
            directory,
            BOX,
            "power_restored",
            seq=None,
            said_at=at,
            is_working_day=Workdays().is_working_day,
            worker=None,
        )
        return len(touched)

    await lose(1, now - timedelta(seconds=30))
    await lose(2, now - timedelta(seconds=10))
    assert await restore(now - timedelta(seconds=20)) == 0, "it was lost again after that"
    assert await restore(now - timedelta(seconds=5)) == 1


async def test_what_a_terminal_said_is_asked_until_the_database_answers(
    pool: Pool, directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, done = 0, asyncio.Event()

    async def away(_pool: Pool, _waited: object) -> list[object]:
        nonlocal asked
        asked += 1
        if asked < 3:
            raise psycopg.OperationalError("away")
        return []

    monkeypatch.setattr(aftermath, "missed_words", away)
    after = aftermath.Aftermath(
        pool,
        directory,
        worker=lambda: None,
        is_working_day=Workdays().is_working_day,
        rng=Random(1),
        busy=lambda: False,
    )
    task = asyncio.ensure_future(after.run())
    after.catch_up(BOX, uuid4(), since=AT, done=done.set)
    await asyncio.wait_for(done.wait(), 10)
    assert asked == 3
    task.cancel()
    await asyncio.wait({task})


@pytest.mark.usefixtures("site")
async def test_an_alarm_that_we_fail_to_read_is_a_call_for_help_that_cannot_be_read(
    database: str, pool: Pool, directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: bytes) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(alarms, "read_alarm", broken)
    async with lane(database, pool, directory) as link:
        link.take(delivery(BOX, alarm("sos", 1)))
        await until(lambda: len(link.acknowledged) == 1)
    async with pool.connection() as conn:
        assert await (await conn.execute("SELECT class, kinds FROM cases")).fetchall() == [
            ("emergency", ["unreadable"])
        ]


@pytest.mark.usefixtures("site")
async def test_a_broken_inbox_ends_no_lane(
    database: str, pool: Pool, directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object, **__: object) -> list[int]:
        raise RuntimeError("broken")

    monkeypatch.setattr(inbox, "add", broken)
    async with lane(database, pool, directory) as link:
        for number in range(300):
            link.take(delivery(BOX, alarm("low_battery", number)))
        link.take(delivery(OTHER, alarm("sos", 0)))
        await until(lambda: alarm("sos", 0) in link.acknowledged)


@pytest.mark.parametrize(("at", "is_copy"), [("2026-11-22T06:31:05Z", True), ("1970-01-01T00:00:09Z", False)])
def test_only_a_clock_that_goes_right_makes_an_old_press_a_copy(at: str, is_copy: bool) -> None:
    one = delivery(BOX, json.dumps({"v": 1, "kinds": ["sos"], "boot": 1, "seq": 1, "at": at}).encode())
    one.stored = True
    press = alarms._read(one).press
    assert press is not None
    assert press.copy is is_copy
