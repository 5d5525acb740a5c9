"""Two gateways on one database and one broker: no fail-over gap, and nothing doubled (D2, D5, D12)."""

import asyncio
import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

from firmware_sim.fleet import Fleet, PressRecord
from tests.e2e.plant import ROOT, Plant, fleet_running, plant

HOUSEHOLDS = 30


class Replica:
    """One more gateway of a plant, under a name of its own."""

    def __init__(self, site: Plant, name: str) -> None:
        self.name = name
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("ONEKEY_")},
            "PYTHONPATH": f"{ROOT}:{ROOT / 'firmware-sim'}",
            "ONEKEY_DATA": str(site.directory),
            "ONEKEY_DATABASE": site.database,
            "ONEKEY_MQTT": site.nats.gateway_url,
            "ONEKEY_AUTH_URL": site.nats.auth_url,
            "ONEKEY_AUTH_SEED": site.nats.auth_seed,
            "ONEKEY_MASTER_KEY": site.master_key,
            "ONEKEY_REPLICA": name,
        }
        program = [sys.executable, str(Path(__file__).with_name("gateway_under_test.py"))]
        with (site.directory / "gateway.log").open("ab") as log:
            self._process = subprocess.Popen(program, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def kill(self) -> None:
        """Kill it -9."""
        self._process.kill()
        self._process.wait()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None


async def _connected(site: Plant, names: list[str]) -> None:
    """Wait until the alarm lanes of all these are connected."""
    await site.eventually(
        "SELECT DISTINCT name FROM worker WHERE status->>'alarms' = 'true' AND status->>'auth' = 'true' "
        "AND seen_at > now() - interval '2 s' ORDER BY 1",
        [(name,) for name in names],
    )


@asynccontextmanager
async def two_gateways(directory: Path) -> AsyncIterator[tuple[Plant, dict[str, Replica]]]:
    async with plant(directory, households=HOUSEHOLDS) as site:
        replicas = {name: Replica(site, name) for name in ("a", "b")}
        try:
            await _connected(site, ["a", "b"])
            yield site, replicas
        finally:
            for replica in replicas.values():
                replica.kill()


def _requests(site: Plant) -> Counter[tuple[str, str]]:
    """How often each party was sent each id."""
    return Counter((arrival.party, arrival.id) for arrival in site.responders.arrivals)


async def _check(site: Plant, presses: list[PressRecord]) -> None:
    """Each press has one case with six legs, and each of the six was told of it under one id."""
    count = len(presses)
    await site.eventually("SELECT count(*), count(DISTINCT subject) FROM cases", [(count, count)])
    await site.eventually("SELECT count(*), count(DISTINCT case_id) FROM alarm", [(count, count)])
    await site.eventually("SELECT state, count(*) FROM leg GROUP BY 1", [("delivered", 6 * count)], timeout_s=30)
    assert {str(press.case) for press in presses} == {str(row[0]) for row in await site.rows("SELECT id FROM cases")}
    told: dict[tuple[str, object], set[str]] = {}
    for arrival in site.responders.arrivals:
        assert arrival.verified
        assert arrival.problem is None
        told.setdefault((arrival.party, arrival.case), set()).add(arrival.id)
    assert len(told) == 6 * count
    assert {len(ids) for ids in told.values()} == {1}, "told of one case under two ids"


async def _press_all(fleet: Fleet, pause_s: float) -> None:
    for terminal in fleet.terminals:
        fleet.press(terminal)
        await asyncio.sleep(pause_s)


async def test_every_press_is_one_case_and_each_party_is_told_once(tmp_path: Path) -> None:
    async with two_gateways(tmp_path) as (site, replicas):
        fleet = site.fleet()
        async with fleet_running(fleet), asyncio.timeout(60):
            await fleet.wait_online()
            await _press_all(fleet, 0.01)
            await fleet.wait_received()
        await _check(site, fleet.presses)
        assert set(_requests(site).values()) == {1}
        assert len(_requests(site)) == 6 * HOUSEHOLDS
        # Both have heard every alarm: one has stored it, the other has seen that it is known.
        await site.eventually("SELECT count(*), bool_and(repeats >= 1) FROM alarm", [(HOUSEHOLDS, True)])
        assert all(replica.alive for replica in replicas.values()), site.log()


async def test_killing_one_in_a_stream_of_presses_loses_nothing(tmp_path: Path) -> None:
    rng = Random(20261122)
    async with two_gateways(tmp_path) as (site, replicas):
        fleet = site.fleet()
        async with fleet_running(fleet), asyncio.timeout(90):
            await fleet.wait_online()
            pressing = asyncio.ensure_future(_press_all(fleet, 0.05))
            for name in ("a", "b"):
                await asyncio.sleep(rng.uniform(0.2, 0.5))
                replicas[name].kill()
                replicas[name] = Replica(site, name)
                await _connected(site, ["a", "b"])
            await pressing
            await fleet.wait_received()
        await _check(site, fleet.presses)


async def test_one_alone_carries_on_and_takes_the_telemetry_over(tmp_path: Path) -> None:
    async with two_gateways(tmp_path) as (site, replicas):
        takes_telemetry = (
            "SELECT DISTINCT name FROM worker WHERE status->>'telemetry' = 'true' AND seen_at > now() - interval '1 s'"
        )
        async with asyncio.timeout(20):
            while not (taking := await site.rows(takes_telemetry)):
                await asyncio.sleep(0.05)
        ((first,),) = taking
        fleet = site.fleet()
        async with fleet_running(fleet), asyncio.timeout(60):
            await fleet.wait_online()
            pressing = asyncio.ensure_future(_press_all(fleet, 0.02))
            await site.responders.wait(lambda arrivals: len(arrivals) >= 30)
            replicas.pop(first).kill()
            await pressing
            await fleet.wait_received()
            ((other, replica),) = replicas.items()
            await site.eventually(takes_telemetry, [(other,)])
            ((before,),) = await site.rows("SELECT count(*) FROM heartbeat")
            await site.eventually(f"SELECT count(*) > {before} FROM heartbeat", [(True,)])
        await _check(site, fleet.presses)
        assert replica.alive, site.log()


async def test_one_that_comes_back_raises_nothing_that_is_over_meanwhile(tmp_path: Path) -> None:
    """The broker kept every press for it: the other has dealt with them to the end."""
    async with two_gateways(tmp_path) as (site, replicas):
        replicas["b"].kill()
        fleet = site.fleet()
        async with fleet_running(fleet), asyncio.timeout(60):
            await fleet.wait_online()
            await _press_all(fleet, 0.01)
            await fleet.wait_received()
            await _check(site, fleet.presses)
        await site.rows(
            "UPDATE leg SET state = 'withdrawn', ended_at = clock_timestamp() WHERE ended_at IS NULL RETURNING 1"
        )
        await site.rows(
            "UPDATE cases SET state = 'closed', outcome = 'helped', safe_at = clock_timestamp(), safe_by = 'test', "
            "closed_at = clock_timestamp(), closed_by = 'test' RETURNING 1"
        )
        replicas["b"] = Replica(site, "b")
        await _connected(site, ["a", "b"])
        await asyncio.sleep(3)
        await site.eventually("SELECT state, count(*) FROM cases GROUP BY 1", [("closed", HOUSEHOLDS)])
        assert set(_requests(site).values()) == {1}
