"""Broker and database go away and come back: the lanes recover inside the process (D12)."""

import asyncio
import os
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest

from firmware_sim.children import Child, child
from firmware_sim.flood import Orders
from protocols.okc import Up, up_topic
from tests.e2e.plant import fleet_running, plant

NO_DATABASE_S = 60 if os.environ.get("CI") else 15


async def _settled(site: object, cases: int) -> None:
    await site.eventually("SELECT count(*) FROM cases", [(cases,)], timeout_s=40)  # type: ignore[attr-defined]
    await site.eventually(  # type: ignore[attr-defined]
        "SELECT state, count(*) FROM leg GROUP BY 1", [("delivered", 6 * cases)], timeout_s=40
    )


async def test_a_broker_restart_loses_nothing(tmp_path: Path) -> None:
    async with plant(tmp_path, households=8) as site:
        site.start_gateway()
        await site.ready()
        pid = site.gateway.pid if site.gateway else 0
        fleet = site.fleet()
        async with fleet_running(fleet):
            await fleet.wait_online()
            for terminal in fleet.terminals[:4]:
                fleet.press(terminal)
            await asyncio.to_thread(site.nats.stop)
            for terminal in fleet.terminals[4:]:
                fleet.press(terminal)
            await asyncio.to_thread(site.nats.start)
            await fleet.wait_received()
        await _settled(site, 8)
        assert site.gateway is not None
        assert site.gateway.pid == pid
        assert site.gateway.poll() is None, site.log()


@pytest.mark.parametrize("away_s", [0, NO_DATABASE_S])
async def test_a_database_that_goes_away_loses_nothing(tmp_path: Path, away_s: int) -> None:
    async with plant(tmp_path, households=8) as site:
        site.start_gateway()
        await site.ready()
        fleet = site.fleet()
        async with fleet_running(fleet):
            await fleet.wait_online()
            await fleet.wait_received(fleet.press(fleet.terminals[0]))
            await asyncio.to_thread(site.postgres.stop)
            for terminal in fleet.terminals[1:]:
                fleet.press(terminal)
            await asyncio.sleep(away_s)
            assert not any(press.received_ns for press in fleet.presses[1:]), "received without a commit (I1)"
            await asyncio.to_thread(site.postgres.start)
            await fleet.wait_received()
        await _settled(site, 8)
        assert site.gateway is not None
        assert site.gateway.poll() is None, site.log()


async def test_a_terminal_connects_and_is_kept_while_the_database_is_away(tmp_path: Path) -> None:
    async with plant(tmp_path, households=2) as site:
        site.start_gateway()
        await site.ready()
        await asyncio.to_thread(site.postgres.stop)
        fleet = site.fleet()
        async with fleet_running(fleet):
            async with asyncio.timeout(20):
                await fleet.wait_online()
            press = fleet.press(fleet.terminals[0])
            await asyncio.to_thread(site.postgres.start)
            await fleet.wait_received(press)
        await _settled(site, 1)


async def test_telemetry_goes_on_when_the_database_is_back_and_needs_no_more_memory_meanwhile(tmp_path: Path) -> None:
    async with plant(tmp_path, households=20) as site, child("firmware_sim.flood") as process:
        site.start_gateway()
        await site.ready()
        assert site.gateway is not None
        entries = site.site.terminals()
        orders = Orders(
            mqtt=f"mqtt://127.0.0.1:{site.nats.mqtt_port}",
            clients=[(one.id, one.secret) for one in entries],
            topics=[up_topic(one.id, Up.HEARTBEAT) for one in entries],
        )
        await process.tell(asdict(orders))
        load = Load(process)
        sending = asyncio.ensure_future(load.keep_sending(per_s=1000))
        await asyncio.sleep(5)
        await asyncio.to_thread(site.postgres.stop)
        gateway = psutil.Process(site.gateway.pid)
        before_mb = gateway.memory_info().rss / 1e6
        highest_mb = 0.0
        for _ in range(NO_DATABASE_S):
            await asyncio.sleep(1)
            highest_mb = max(highest_mb, gateway.memory_info().rss / 1e6)
        await asyncio.to_thread(site.postgres.start)
        await asyncio.sleep(2)
        sending.cancel()
        await asyncio.wait({sending})
        sent = await load.confirmed()
        assert sent > 1000 * NO_DATABASE_S / 2, "it was no load"
        await site.eventually("SELECT count(*) FROM heartbeat", [(sent,)], timeout_s=60)
        assert highest_mb < before_mb + 100, f"{before_mb:.0f} MB grew to {highest_mb:.0f} MB"
        assert site.gateway.poll() is None, site.log()


class Load:
    """A flood at a fixed rate."""

    def __init__(self, process: Child) -> None:
        self._process = process
        self._allowed = 0
        self._said: dict[str, int] = {}

    async def keep_sending(self, *, per_s: int) -> None:
        while True:
            self._allowed += per_s // 10
            await self._process.tell(self._allowed)
            for _ in range(2):
                self._said = await self._process.hear()

    async def confirmed(self) -> int:
        """Return how many the broker has, once it has all that were allowed."""
        async with asyncio.timeout(30):
            while self._said.get("confirmed") != self._allowed:
                self._said = await self._process.hear()
        return self._allowed
