"""A foreign MQTT client plays the terminal against ``onekey run``, on embedded servers and on servers of one's own."""

import asyncio
import json
import os
import pwd
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from firmware_sim.responders import Responders
from firmware_sim.sites import NANJING, SiteFile, made_up
from firmware_sim.stack import RunInfo, Stack, running
from gateway.embedded.processes import free_port
from tests.e2e.own import needed, own_mosquitto

_POSTGRES = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)


@contextmanager
def _own_postgres(directory: Path) -> Iterator[str]:
    if _POSTGRES is None:
        sentence = "PostgreSQL is missing: apt-get install postgresql"
        pytest.fail(sentence) if os.environ.get("CI") else pytest.skip(sentence)
    user: dict[str, Any] = {}
    data, port = directory / "own-pg", free_port("127.0.0.1")
    data.mkdir()
    if os.geteuid() == 0:
        account = pwd.getpwnam("postgres")
        os.chown(data, account.pw_uid, account.pw_gid)
        directory.chmod(0o755)
        user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    quiet: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    words = [_POSTGRES / "initdb", "-D", data, "-A", "trust", "-U", "owner", "-E", "UTF8", "--no-locale"]
    subprocess.run([str(word) for word in words], check=True, cwd="/", **user, **quiet)
    options = [f"-p{port}", "-h127.0.0.1", "-k", str(data)]
    server = subprocess.Popen([str(_POSTGRES / "postgres"), "-D", str(data), *options], cwd="/", **user, **quiet)
    try:
        asked = [str(_POSTGRES / "pg_isready"), "-h", "127.0.0.1", "-p", str(port), "-t", "1"]
        while subprocess.run(asked, check=False, **quiet).returncode != 0:
            assert server.poll() is None
        yield f"postgresql://owner@127.0.0.1:{port}/postgres"
    finally:
        server.terminate()
        server.wait(30)


class Place:
    """A running installation, and a foreign client to press with."""

    def __init__(self, stack: Stack, run: RunInfo, mqtt_port: int, site: SiteFile, responders: Responders) -> None:
        self.stack = stack
        self.run = run
        self.responders = responders
        self.mqtt_port = mqtt_port
        self.terminal, self.other = site.terminals()[:2]
        self.secrets = {party.party: party.secret for party in site.responders()}

    async def client(self, program: str, *words: str, user: str | None = None, password: str | None = None) -> str:
        """Run a client of Mosquitto as the terminal and return what it printed, with its status in front."""
        user = user or self.terminal.id
        process = await asyncio.create_subprocess_exec(
            needed(program, "mosquitto-clients"),
            *("-V", "311", "-h", "127.0.0.1", "-p", str(self.mqtt_port), "-q", "1"),
            *("-u", user, "-P", password or self.terminal.secret),
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        printed, _ = await asyncio.wait_for(process.communicate(), 30)
        return f"{process.returncode} {printed.decode()}"

    async def press(self, payload: str) -> dict[str, Any]:
        up, down = f"okc/v1/{self.terminal.id}/up/alarm", f"okc/v1/{self.terminal.id}/down/ack"
        printed = await self.client("mosquitto_rr", "-i", self.terminal.id, "-t", up, "-e", down, "-m", payload)
        status, _, answer = printed.partition(" ")
        assert status == "0", printed
        received: dict[str, Any] = json.loads(answer)
        return received


@asynccontextmanager
async def _place(directory: Path, kind: str) -> AsyncIterator[Place]:
    site, file = made_up(2, seed=3), directory / "site.yaml"
    responders = Responders(site.responders())
    async with responders.serving():
        site.point_webhooks(responders.url)
        site.save(file)
        if kind == "embedded":
            stack = Stack(directory / "data", log=directory / "run.log")
            async with running(stack) as run:
                await stack.apply_site(file)
                yield Place(stack, run, urlsplit(run.mqtt).port or 0, site, responders)
            return
        with _own_postgres(directory) as database, own_mosquitto(directory, file) as (broker, port):
            settings = {"ONEKEY_DATABASE": database, "ONEKEY_MQTT": broker}
            stack = Stack(directory / "data", log=directory / "run.log", settings=settings)
            async with running(stack) as run:
                await stack.apply_site(file)
                yield Place(stack, run, port, site, responders)


@pytest.mark.parametrize("kind", ["embedded", "own servers"])
async def test_a_foreign_client_presses_and_six_parties_hear(tmp_path: Path, kind: str) -> None:
    async with _place(tmp_path, kind) as place:
        received = await place.press('{"v":1,"boot":3,"seq":17,"kinds":["sos"],"battery_pct":88}')
        assert (received["state"], received["boot"], received["seq"]) == ("received", 3, 17)
        assert (await place.press('{"v":1,"boot":3,"seq":17,"kinds":["sos"]}'))["case"] == received["case"]
        await place.responders.wait(lambda arrivals: len(arrivals) >= 6)
        arrivals = place.responders.arrivals
        assert {arrival.role for arrival in arrivals} == set(NANJING)
        assert all(arrival.verified and arrival.problem is None for arrival in arrivals)
        assert {str(arrival.case) for arrival in arrivals} == {received["case"]}

        # What is not allowed: a wrong password, another one's topic, another one's client id.
        alarm = ("-m", '{"v":1,"kinds":["sos"]}')
        own, foreign = f"okc/v1/{place.terminal.id}/up/alarm", f"okc/v1/{place.other.id}/up/alarm"
        refused = await place.client("mosquitto_pub", "-i", place.terminal.id, "-t", own, *alarm, password="wrong")
        assert not refused.startswith("0 ")
        await place.client("mosquitto_pub", "-i", place.terminal.id, "-t", foreign, *alarm)
        stolen = await place.client("mosquitto_pub", "-i", "~alarms-x", "-t", foreign, *alarm)
        assert not stolen.startswith("0 ") or kind == "own servers"  # Mosquitto renames the client instead

        # Garbage: kept, a case for an alarm, none for a heartbeat.
        await place.client("mosquitto_pub", "-i", place.terminal.id, "-t", own, "-m", "garbage")
        await place.client(
            "mosquitto_pub", "-i", place.terminal.id, "-t", f"okc/v1/{place.terminal.id}/up/heartbeat", "-m", "{}"
        )
        async with asyncio.timeout(20):
            while len(kept := await place.stack.call("quarantine", "list", "--json")) < 2:
                await asyncio.sleep(0.2)
        by_topic = {one["topic"].rpartition("/")[2]: one for one in kept}
        assert by_topic["alarm"]["case"] == received["case"], "it joins the emergency of its household"
        assert by_topic["heartbeat"]["case"] is None
        key = await place.stack.create_key(role="operator", name="desk")
        case = await _case(place, key, received["case"])
        assert case["urgency"] == 2
        assert {alarm["terminal_id"] for alarm in case["alarms"]} == {place.terminal.id}
        acknowledged = await _post(place, key, f"/v1/cases/{received['case']}/acknowledgement", {"operator": "desk-1"})
        assert acknowledged["owner"] == "desk-1"


async def _case(place: Place, key: str, case: str) -> dict[str, Any]:
    return await _call(place, key, "GET", f"/v1/cases/{case}")


async def _post(place: Place, key: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    return await _call(place, key, "POST", path, body)


async def _call(place: Place, key: str, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        aiohttp.ClientSession(headers=headers) as client,
        client.request(method, place.run.http + path, json=body) as response,
    ):
        answer: dict[str, Any] = await response.json()
        assert response.status < 300, answer
        return answer
