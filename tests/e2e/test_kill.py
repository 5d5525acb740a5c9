"""kill -9 between any two steps: what a terminal was told is never lost, nothing is doubled (promise 1, I1, D12)."""

import asyncio
import time
from pathlib import Path
from random import Random

import pytest

from tests.e2e.plant import Plant, fleet_running, plant

HOUSEHOLDS = 24
STEPS = ("received", "committed", "acknowledged", "submitted", "told", "sending", "sent")

OUT_WITHIN_S = 5.0
"""After a restart all first attempts of what was committed are out within this time (D12).

The test waits no longer than this from when the gateway is ready, and as long as it took to be so once more.
"""


async def _press_all(site: Plant, fleet: object) -> None:
    for terminal in fleet.terminals:  # type: ignore[attr-defined]
        fleet.press(terminal)  # type: ignore[attr-defined]
        await asyncio.sleep(0.02)


async def _check(site: Plant, presses: list[object]) -> None:
    """Each press has one case with six legs and one alarm, told to each of the six under one id."""
    households = len(presses)
    await site.eventually("SELECT count(*), count(DISTINCT subject) FROM cases", [(households, households)])
    await site.eventually("SELECT count(*) FROM leg", [(6 * households,)])
    await site.eventually("SELECT count(*), count(DISTINCT case_id) FROM alarm", [(households, households)])
    await site.eventually("SELECT state, count(*) FROM leg GROUP BY 1", [("delivered", 6 * households)], timeout_s=30)
    told: dict[tuple[str, object], set[str]] = {}
    for arrival in site.responders.arrivals:
        assert arrival.verified
        assert arrival.problem is None
        told.setdefault((arrival.party, arrival.case), set()).add(arrival.id)
    assert len(told) == 6 * households
    assert {len(ids) for ids in told.values()} == {1}, "a repeat came under another id"
    assert all(press.case is not None for press in presses)  # type: ignore[attr-defined]
    cases = {str(row[0]) for row in await site.rows("SELECT id FROM cases")}
    assert {str(press.case) for press in presses} == cases  # type: ignore[attr-defined]


@pytest.mark.parametrize("step", STEPS)
async def test_a_gateway_killed_at_any_step_loses_and_doubles_nothing(tmp_path: Path, step: str) -> None:
    async with plant(tmp_path, households=HOUSEHOLDS) as site:
        site.start_gateway(kill_at=f"{step}:{40 if step in ('sending', 'sent') else 8}")
        await site.ready()
        fleet = site.fleet()
        async with fleet_running(fleet):
            await fleet.wait_online()
            await asyncio.gather(_press_all(site, fleet), site.gateway_died())
            committed = await site.rows("SELECT count(*) FROM notice")
            site.start_gateway()
            restarted = time.monotonic()
            await site.ready()
            ready_s = time.monotonic() - restarted
            await site.eventually(
                f"SELECT count(*) >= {committed[0][0]} FROM notice WHERE state <> 'due'",
                [(True,)],
                timeout_s=OUT_WITHIN_S + ready_s,
            )
            await fleet.wait_received()
        await _check(site, fleet.presses)


async def test_a_gateway_killed_again_and_again_loses_and_doubles_nothing(tmp_path: Path) -> None:
    rng = Random(20261122)
    async with plant(tmp_path, households=HOUSEHOLDS) as site:
        site.start_gateway()
        await site.ready()
        fleet = site.fleet()
        async with fleet_running(fleet):
            await fleet.wait_online()
            pressing = asyncio.ensure_future(_press_all(site, fleet))
            for _ in range(4):
                await asyncio.sleep(rng.uniform(0.05, 0.4))
                site.kill_gateway()
                site.start_gateway()
                await site.ready()
            await pressing
            await fleet.wait_received()
        await _check(site, fleet.presses)


async def test_what_waited_on_disk_is_stored_by_the_next_gateway(tmp_path: Path) -> None:
    """The broker has forgotten it, and the terminals are gone: only the inbox still knows of it."""
    async with plant(tmp_path, households=HOUSEHOLDS) as site:
        site.start_gateway(kill_at="kept:5")
        await site.ready()
        fleet = site.fleet()
        async with fleet_running(fleet):
            await fleet.wait_online()
            for terminal in fleet.terminals:
                fleet.press(terminal, ["tamper"])
            await site.gateway_died()
        waited = await site.rows("SELECT split_part(topic, '/', 3) FROM inbox ORDER BY id")
        assert waited
        site.start_gateway()
        await site.ready()
        await site.eventually("SELECT count(*) FROM inbox", [(0,)])
        await site.eventually("SELECT state, count(*) FROM leg WHERE state <> 'delivered' GROUP BY 1", [])
        stored = await site.rows("SELECT terminal_id, count(*) FROM alarm GROUP BY 1")
        assert {terminal for (terminal,) in waited} <= {terminal for terminal, _ in stored}
        assert {count for _, count in stored} == {1}
