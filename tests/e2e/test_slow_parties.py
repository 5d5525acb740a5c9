"""A party that hangs, one that breaks and one whose name never resolves delay nobody else (promise 2, D16)."""

import asyncio
import json
from pathlib import Path

from firmware_sim.responders import Hangs, Ignores, Resets, SilentNameServer
from gateway.keyring import Keyring
from gateway.service.apply_site import apply_site
from gateway.site.load import load
from gateway.store.pool import open_pool
from tests.e2e.plant import Plant, fleet_running, plant

PRESSES = 40
HANGING, RESETTING, LOST = "sim-guardian", "sim-hotline", "sim-service_center"
WELL = {"sim-community", "sim-district", "sim-ambulance_120"}


async def _make_them_slow(site: Plant) -> None:
    """Let three of the six parties misbehave for longer than the test takes."""
    site.site.point_webhooks(lambda party: "http://lost.example.test/" if party == LOST else site.responders.url(party))
    for party in site.site._document["parties"]:
        party["channels"][0]["timeout_s"] = 60
    file = site.directory / "site.yaml"
    site.site.save(file)
    async with open_pool(site.database, name="test", size=1) as pool:
        await apply_site(pool, Keyring.from_text(site.master_key), load(file).site, prune=False)
    site.responders.behave(HANGING, Hangs(600))
    site.responders.behave(RESETTING, Resets())


async def test_slow_parties_delay_nobody(tmp_path: Path) -> None:
    async with (
        SilentNameServer.serving() as names,
        plant(tmp_path, households=PRESSES, ONEKEY_DNS_SERVERS=json.dumps([names.address])) as site,
    ):
        await _make_them_slow(site)
        site.start_gateway()
        await site.ready()
        fleet = site.fleet()
        async with fleet_running(fleet):
            await fleet.wait_online()
            for terminal in fleet.terminals:
                fleet.press(terminal)
            await fleet.wait_received()

            def told(party: str) -> set[object]:
                return {arrival.case for arrival in site.responders.arrivals if arrival.party == party}

            async with asyncio.timeout(60):
                await site.responders.wait(lambda _: all(len(told(party)) == PRESSES for party in WELL))

            # Everybody else was told, and of the hanging requests not one has ended.
            ended = f"SELECT count(*) FROM attempt a JOIN leg l ON l.id = a.leg_id WHERE l.party_id = '{HANGING}'"
            assert await site.rows(ended) == [(0,)]
            assert told(HANGING)
            assert told(LOST) == set()
            assert names.queries > 0
            delivered = "SELECT party_id, count(*) FROM leg WHERE state = 'delivered' GROUP BY 1 ORDER BY 1"
            await site.eventually(delivered, [(party, PRESSES) for party in sorted(WELL)])
            assert await site.rows(ended) == [(0,)]

            # Who breaks the connection is tried again, and hears of everything once it is well.
            site.responders.behave(RESETTING, Ignores())
            await site.eventually(delivered, [(party, PRESSES) for party in sorted({*WELL, RESETTING})], timeout_s=60)
            assert await site.rows(ended) == [(0,)]
        ids: dict[object, set[str]] = {}
        for arrival in site.responders.arrivals:
            assert arrival.verified
            ids.setdefault((arrival.party, arrival.case), set()).add(arrival.id)
        assert {len(one) for one in ids.values()} == {1}, "a repeat came under another id"
