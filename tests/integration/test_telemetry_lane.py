"""The telemetry lane on a real database: the broker hears of a report after its commit, and not before (I1)."""

import asyncio
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from random import Random

import pytest

from gateway.ingest.telemetry import TelemetryLane
from gateway.links.mqtt import Delivery
from gateway.service.workdays import Workdays
from gateway.store.directory import Directory
from gateway.store.pool import Pool, connect

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


@pytest.mark.usefixtures("site")
async def test_a_report_is_acknowledged_after_its_commit(database: str, pool: Pool, directory: Directory) -> None:
    link = Link()
    lane = TelemetryLane(
        link,  # type: ignore[arg-type]
        pool,
        directory,
        submit=lambda _: None,
        worker=lambda: None,
        is_working_day=Workdays().is_working_day,
        rng=Random(1),
    )
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
