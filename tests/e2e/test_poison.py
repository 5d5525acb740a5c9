"""Poison on every topic: it opens a case or lies in quarantine, and stops nothing (I2, D12, D13)."""

import asyncio
import json
from pathlib import Path

import aiomqtt
import pytest

from tests.e2e.plant import Plant, fleet_running, plant

POISON = {
    "NUL in a string": b'{"v":1,"kinds":["sos"],"note":"\\u0000","boot":1,"seq":"\\u0000"}',
    "NUL in a kind": b'{"v":1,"kinds":["so\\u0000s"]}',
    "raw NUL": b'{"v":1,"kinds":["sos\x00"]}',
    "a megabyte": b'{"v":1,"kinds":["sos"],"x":"' + b"a" * 1_000_000 + b'"}',
    "nesting": b'{"v":1,"kinds":["sos"],"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a number of 5,000 digits": b'{"v":1,"kinds":["sos"],"boot":' + b"9" * 5000 + b"}",
    "half a surrogate": b'{"v":1,"kinds":["\\ud800"]}',
    "nothing": b"",
    "noise": bytes(range(256)),
}


async def _publish(site: Plant, topic: str, payload: bytes) -> None:
    terminal = site.site.terminals()[0]
    async with aiomqtt.Client(
        "127.0.0.1", site.nats.mqtt_port, username=terminal.id, password=terminal.secret, identifier=terminal.id
    ) as client:
        await client.publish(f"okc/v1/{terminal.id}/up/{topic}", payload, qos=1)


@pytest.mark.parametrize("name", POISON)
async def test_poison_on_the_alarm_topic_opens_a_case_and_stops_nothing(tmp_path: Path, name: str) -> None:
    async with plant(tmp_path, households=2) as site:
        site.start_gateway()
        await site.ready()
        await _publish(site, "alarm", POISON[name])
        await site.eventually("SELECT class, count(*) FROM cases GROUP BY 1", [("emergency", 1)])
        await site.responders.wait(lambda arrivals: len(arrivals) >= 1)
        fleet = site.fleet()
        async with fleet_running(fleet):
            await fleet.wait_received(fleet.press(fleet.terminals[1]))
        assert site.gateway is not None
        assert site.gateway.poll() is None, site.log()


async def test_poison_on_telemetry_goes_to_quarantine_and_stops_nothing(tmp_path: Path) -> None:
    async with plant(tmp_path, households=2) as site:
        site.start_gateway()
        await site.ready()
        for payload in POISON.values():
            await _publish(site, "heartbeat", payload)
        await _publish(site, "event", json.dumps({"v": 1, "name": "door", "value": "a\x00b"}).encode())
        await _publish(site, "heartbeat", b'{"v":1,"battery_pct":55}')
        await site.eventually("SELECT battery_pct FROM terminal_state", [(55,)])
        await site.eventually("SELECT count(*) >= 8 FROM quarantine WHERE case_id IS NULL", [(True,)])
        assert await site.rows("SELECT count(*) FROM cases") == [(0,)]
        fleet = site.fleet()
        async with fleet_running(fleet):
            await fleet.wait_received(fleet.press(fleet.terminals[1]))


async def test_an_alarm_of_a_terminal_without_household_goes_to_the_fallback(tmp_path: Path) -> None:
    async with plant(tmp_path, households=2) as site:
        for connection in ["UPDATE assignment SET until = now()", "UPDATE site SET revision = revision + 1"]:
            await site.rows(f"WITH done AS ({connection} RETURNING 1) SELECT * FROM done")
        site.start_gateway()
        await site.ready()
        fleet = site.fleet()
        async with fleet_running(fleet):
            await fleet.wait_received(fleet.press(fleet.terminals[0]))
        await site.eventually("SELECT origin, role, state FROM leg", [("fallback", "guardian", "delivered")])


async def test_a_reflashed_terminal_counts_again_and_is_heard(tmp_path: Path) -> None:
    async with plant(tmp_path, households=1) as site:
        site.start_gateway()
        await site.ready()
        fleet = site.fleet()
        async with fleet_running(fleet):
            await fleet.wait_online()
            await fleet.wait_received(fleet.press(fleet.terminals[0]))
            await asyncio.sleep(1.1)  # the terminal's clock has seconds
            fleet.reflash(fleet.terminals[0])
            await fleet.wait_received(fleet.press(fleet.terminals[0]))
        await site.eventually("SELECT urgency FROM cases", [(2,)])
        await site.eventually("SELECT count(*) FROM alarm", [(2,)])
