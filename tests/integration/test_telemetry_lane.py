"""The telemetry lane on a real database: the broker hears of a report after its commit, and not before (I1)."""

import asyncio
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from gateway.ingest.telemetry import TelemetryLane
from gateway.links.mqtt import Delivery
from gateway.service.workdays import Workdays
from gateway.store.directory import Directory
from gateway.store.pool import Pool, connect
from protocols.okc import Up, echo_topic

BOX = "860000000000001"


class Link:
    """The broker's side: what it hands over, and what it hears."""

    def __init__(self) -> None:
        self.take: Callable[[Delivery], None] = lambda _: None
        self.acknowledged: list[Delivery] = []

    async def run(self, take: Callable[[Delivery], None]) -> None:
        self.take = take
        await asyncio.Event().wait()

    def acknowledge_all(self, deliveries: Iterable[Delivery]) -> None:
        self.acknowledged += deliveries


def beat(seq: int) -> Delivery:
    return Delivery(
        topic=f"okc/v1/{BOX}/up/heartbeat",
        payload=b'{"v":1,"boot":1,"seq":%d}' % seq,
        qos=1,
        retained=False,
        received_at=datetime.now(UTC),
        received_mono=time.monotonic(),
        mid=seq,
        session=1,
    )


def _lane(
    link: Link, pool: Pool, directory: Directory, *, heard: Callable[[str], None] = lambda _: None
) -> TelemetryLane:
    return TelemetryLane(
        link,  # type: ignore[arg-type]
        pool,
        directory,
        submit=lambda _: None,
        worker=lambda: None,
        is_working_day=Workdays().is_working_day,
        rng=Random(1),
        heard=lambda topic, _payload: heard(topic),
    )


@pytest.mark.usefixtures("site")
async def test_a_report_is_acknowledged_after_its_commit(database: str, pool: Pool, directory: Directory) -> None:
    link = Link()
    lane = _lane(link, pool, directory)
    task = asyncio.ensure_future(lane.run())
    await asyncio.sleep(0.05)
    reports = [beat(seq) for seq in range(1, 4)]
    async with await connect(database, name="slow") as slow:
        async with slow.transaction():
            await slow.execute("RESET ROLE")
            await slow.execute("LOCK TABLE terminal_state IN ACCESS EXCLUSIVE MODE")
            for one in reports:
                link.take(one)
            await asyncio.sleep(0.5)
            assert link.acknowledged == []
        async with asyncio.timeout(10):
            while len(link.acknowledged) < len(reports):
                await asyncio.sleep(0.02)
        assert await (await slow.execute("SELECT count(*) FROM heartbeat")).fetchone() == (3,)
    assert link.acknowledged == reports
    task.cancel()
    await asyncio.wait({task})


async def _handled(pool: Pool, directory: Directory, *deliveries: Delivery, heard: list[str] | None = None) -> Link:
    """Let a lane handle these and return its link."""
    link = Link()
    lane = _lane(link, pool, directory, heard=lambda topic: (heard if heard is not None else []).append(topic))
    task = asyncio.ensure_future(lane.run())
    await asyncio.sleep(0.05)
    for one in deliveries:
        link.take(one)
    async with asyncio.timeout(10):
        while len(link.acknowledged) < len(deliveries):
            await asyncio.sleep(0.02)
    task.cancel()
    await asyncio.wait({task})
    return link


@pytest.mark.usefixtures("site")
async def test_reports_in_one_message_are_each_stored_with_both_clocks(pool: Pool, directory: Directory) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    ages = (1200, 600, 0)
    said = [
        {"v": 1, "boot": 1, "seq": n, "at": (now - timedelta(seconds=age)).isoformat(), "battery_pct": 70 - n}
        for n, age in enumerate(ages)
    ]
    said.insert(1, {"v": 1, "battery_pct": 700})  # takes no other with it
    await _handled(pool, directory, replace(beat(1), payload=json.dumps(said).encode()))
    async with pool.connection() as conn:
        rows = await (
            await conn.execute("SELECT at, received_at - at, battery_pct FROM heartbeat ORDER BY at")
        ).fetchall()
        state = await (await conn.execute("SELECT battery_pct, abs(clock_skew_s) < 60 FROM terminal_state")).fetchall()
        kept = await (await conn.execute("SELECT payload FROM quarantine")).fetchall()
    assert [(at, percent) for at, _, percent in rows] == [
        (now - timedelta(seconds=age), 70 - n) for n, age in enumerate(ages)
    ]
    assert [round(behind.total_seconds(), -1) for _, behind, _ in rows] == list(ages)
    assert state == [(68, True)]
    assert [json.loads(payload) for (payload,) in kept] == [{"v": 1, "battery_pct": 700}]


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize("payload", [b"[]", b"[1", b"[" + b"{}," * 600 + b"{}]", b"[" * 100_000])
async def test_a_list_that_is_none_is_kept_whole(pool: Pool, directory: Directory, payload: bytes) -> None:
    await _handled(pool, directory, replace(beat(1), payload=payload))
    async with pool.connection() as conn:
        rows = await (await conn.execute("SELECT payload FROM quarantine")).fetchall()
    assert [bytes(one) for (one,) in rows] == [payload]


@pytest.mark.usefixtures("site")
async def test_our_own_word_is_heard_when_what_came_before_it_is_stored(
    database: str, pool: Pool, directory: Directory
) -> None:
    heard: list[str] = []
    topic = echo_topic(Up.HEARTBEAT)
    async with await connect(database, name="slow") as slow, slow.transaction():
        await slow.execute("RESET ROLE")
        await slow.execute("LOCK TABLE terminal_state IN ACCESS EXCLUSIVE MODE")
        handling = asyncio.ensure_future(
            _handled(pool, directory, beat(1), replace(beat(2), topic=topic, payload=b"a.1"), heard=heard)
        )
        await asyncio.sleep(0.5)
        assert heard == []
    await handling
    assert heard == [topic]
