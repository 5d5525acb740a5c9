"""Several gateways share the telemetry at a broker that deals messages out, and nothing lies with a dead one."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

import aiomqtt
import pytest
from paho.mqtt.client import Client, ConnectFlags
from paho.mqtt.enums import CallbackAPIVersion

from protocols.okc import Up, up_topic
from tests.e2e.own import own_mosquitto
from tests.e2e.plant import ROOT, Plant, fleet_running, plant

SHARE_LOCK = 0x74656C65


class Gateway:
    """One of several gateways of a plant, at a broker of the installer's own."""

    def __init__(self, site: Plant, broker: str, name: str, *, shares: int) -> None:
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("ONEKEY_")},
            "PYTHONPATH": f"{ROOT}:{ROOT / 'firmware-sim'}",
            "ONEKEY_DATA": str(site.directory),
            "ONEKEY_DATABASE": site.database,
            "ONEKEY_MQTT": broker,
            "ONEKEY_MASTER_KEY": site.master_key,
            "ONEKEY_REPLICA": name,
            "ONEKEY_TELEMETRY_SHARES": str(shares),
        }
        program = [sys.executable, str(Path(__file__).with_name("gateway_under_test.py"))]
        with (site.directory / "gateway.log").open("ab") as log:
            self._process = subprocess.Popen(program, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def stand_still(self) -> None:
        """Let it do nothing, with all its connections open."""
        self._process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        """Kill it -9."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it in peace."""
        self._process.terminate()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self.kill()


class District:
    """A plant at Mosquitto, its gateways, and terminals that report."""

    def __init__(self, site: Plant, broker: str, port: int) -> None:
        self.site = site
        self.broker = broker
        self._port = port
        self._sent = 0
        self.gateways: dict[str, Gateway] = {}

    def start(self, name: str, *, shares: int) -> Gateway:
        gateway = self.gateways[name] = Gateway(self.site, self.broker, name, shares=shares)
        return gateway

    async def report(self, count: int) -> int:
        """Have a terminal send so many heartbeats, which the broker takes; returns how many there were so far."""
        terminal = self.site.site.terminals()[0]
        client: Any = aiomqtt.Client(
            "127.0.0.1", self._port, username=terminal.id, password=terminal.secret, identifier=terminal.id
        )
        async with client:
            for _ in range(count):
                self._sent += 1
                payload = b'{"v":1,"boot":1,"seq":%d,"battery_pct":80}' % self._sent
                await client.publish(up_topic(terminal.id, Up.HEARTBEAT), payload, qos=1)
        return self._sent

    async def held(self, *holders: int, timeout_s: float = 40) -> None:
        """Wait until so many gateways hold so many shares each, and are connected."""
        await self.site.eventually(
            f"SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = 0 "
            f"AND objid IN ({SHARE_LOCK}, {SHARE_LOCK + 1})",
            [(sum(holders),)],
            timeout_s=timeout_s,
        )
        await self.site.eventually(
            "SELECT count(*) FROM worker WHERE status->>'telemetry' = 'true' AND seen_at > now() - interval '1 s'",
            [(len(holders),)],
            timeout_s=timeout_s,
        )

    async def heard_on(self, timeout_s: float = 30) -> None:
        """Wait until everything up to now is known to be stored."""
        ((now,),) = await self.site.rows("SELECT now()")
        await self.site.eventually(f"SELECT horizon > '{now.isoformat()}' FROM hearing", [(True,)], timeout_s=timeout_s)

    async def stored(self, count: int, *, timeout_s: float = 30) -> None:
        await self.site.eventually(
            "SELECT count(*), count(DISTINCT seq) FROM heartbeat", [(count, count)], timeout_s=timeout_s
        )


@asynccontextmanager
async def district(directory: Path) -> AsyncIterator[District]:
    async with plant(directory, households=2) as site:
        with own_mosquitto(directory, directory / "site.yaml") as (broker, port):
            here = District(site, broker, port)
            try:
                yield here
            finally:
                for gateway in here.gateways.values():
                    with suppress(ProcessLookupError):
                        gateway.kill()


@pytest.mark.timeout(240)
async def test_two_gateways_share_the_reports_and_nothing_lies_with_a_dead_one(tmp_path: Path) -> None:
    async with district(tmp_path) as here:
        here.start("a", shares=2)
        await here.held(2)
        await here.stored(await here.report(100))
        await here.heard_on()

        second = here.start("b", shares=2)
        await here.held(1, 1)
        await here.heard_on()
        await here.stored(await here.report(100))

        # One of them hangs: its half waits at the broker, and nobody is judged by what it may hold.
        second.stand_still()
        sent = await here.report(100)
        await asyncio.sleep(3)
        ((stored,),) = await here.site.rows("SELECT count(*) FROM heartbeat")
        assert 220 <= stored <= 280, "the broker deals them out"
        ((still,),) = await here.site.rows("SELECT max(horizon) < now() - interval '2.5 s' FROM hearing")
        assert still

        second.kill()
        await here.held(2)
        await here.stored(sent)
        await here.heard_on()
        assert await here.site.rows("SELECT count(*) FROM trouble WHERE cause = 'offline'") == [(0,)]


@pytest.mark.timeout(240)
async def test_with_fewer_shares_nothing_is_left_in_those_that_are_gone(tmp_path: Path) -> None:
    async with district(tmp_path) as here:
        first = here.start("a", shares=2)
        await here.held(2)
        await here.stored(await here.report(20))
        first.stop()
        sent = await here.report(60)  # some of them wait in a session that nobody will share any more

        here.start("a", shares=1)
        await here.stored(sent)
        await here.site.eventually("SELECT count(*) FROM telemetry_share", [(0,)], timeout_s=40)
        assert not _has_session(here.broker, "~telemetry-1")
        await here.heard_on()
        await here.stored(await here.report(50))

        # And back again: the one session that had everything shares now.
        here.gateways["a"].stop()
        sent = await here.report(20)
        here.start("a", shares=2)
        here.start("b", shares=2)
        await here.held(1, 1)
        await here.stored(sent)
        here.gateways["b"].stand_still()
        await here.report(100)
        await asyncio.sleep(3)
        ((stored,),) = await here.site.rows("SELECT count(*) FROM heartbeat")
        assert sent + 20 <= stored <= sent + 80


def _has_session(broker: str, client_id: str) -> bool:
    """Does the broker know a session of this client?"""
    address = broker.removeprefix("mqtt://")
    account, _, place = address.rpartition("@")
    user, _, password = account.partition(":")
    host, _, port = place.partition(":")
    present: list[bool] = []

    def connected(client: Client, _userdata: Any, flags: ConnectFlags, _code: Any, _properties: Any) -> None:
        present.append(flags.session_present)
        client.disconnect()

    client = Client(CallbackAPIVersion.VERSION2, client_id=client_id, clean_session=False)
    client.username_pw_set(user, password)
    client.on_connect = connected
    client.connect(host, int(port))
    client.loop_forever()
    return present[0]


@pytest.mark.timeout(120)
async def test_a_broker_that_deals_nothing_out_brings_everything_in_one_share(tmp_path: Path) -> None:
    async with plant(tmp_path, households=2, ONEKEY_TELEMETRY_SHARES="3") as site:
        site.start_gateway()
        await site.ready()
        async with fleet_running(site.fleet(rng=Random(3))):
            await site.eventually("SELECT count(*) > 0 FROM heartbeat", [(True,)], timeout_s=60)
        assert "does not deal messages out" in (site.directory / "gateway.log").read_text(errors="replace")
        assert await site.rows("SELECT count(*) FROM telemetry_share") == [(0,)]
