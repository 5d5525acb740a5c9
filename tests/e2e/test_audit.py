"""The auditor beside a gateway that is stopped in its tracks: people hear of it, and hear when it is over (I3)."""

import asyncio
import signal
from pathlib import Path

from firmware_sim.responders import Responders
from firmware_sim.sites import made_up
from firmware_sim.stack import Stack
from tests.e2e.test_run_command import parts_of, press


async def test_a_gateway_that_hangs_is_noticed_and_told_past_it(tmp_path: Path) -> None:
    site, file = made_up(1, seed=5), tmp_path / "site.yaml"
    responders = Responders(site.responders())
    stack = Stack(tmp_path / "data", log=tmp_path / "run.log", settings={"ONEKEY_AUDIT_EVERY_S": "1"})
    async with responders.serving():
        site.point_webhooks(responders.url)
        site.save(file)
        info = await stack.start()
        try:
            await stack.apply_site(file)
            case = await press(info, site.terminals()[0])
            async with asyncio.timeout(30):
                await responders.wait(lambda arrivals: len(arrivals) >= 6)
            await asyncio.sleep(3)
            assert responders.audits == [], "a healthy gateway gives nothing to find"

            gateway = parts_of(info)["gateway.cli gateway"]
            gateway.send_signal(signal.SIGSTOP)
            async with asyncio.timeout(60):
                while not any(str(one.case) == case for _, _, said in responders.audits for one in said.data.findings):
                    await asyncio.sleep(0.1)
            kinds = {one.kind for _, _, said in responders.audits for one in said.data.findings}
            assert "nobody_runs" in kinds

            gateway.send_signal(signal.SIGCONT)
            async with asyncio.timeout(90):
                while not any(
                    one.kind == "nobody_runs" and one.state == "cleared"
                    for _, _, said in responders.audits
                    for one in said.data.findings
                ):
                    await asyncio.sleep(0.1)
                # It is a case as well, and the gateway that is back tells the fallback of it in the usual way.
                await responders.wait(
                    lambda arrivals: any(a.notice and "audit" in a.notice.data.kinds for a in arrivals)
                )
        finally:
            await stack.stop()
