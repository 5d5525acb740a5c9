"""Broker and database go away and come back: the lanes recover inside the process (D12)."""

import asyncio
import os
from pathlib import Path

import pytest

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
