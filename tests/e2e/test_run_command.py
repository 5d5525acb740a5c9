"""``onekey run`` and the commands beside it, as a person types them: started, asked, killed, started again, stopped."""

import asyncio
import base64
import json
import os
import signal
import sys
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import aiomqtt
import psutil
import pytest

from firmware_sim.fleet import Broker, Fleet, running
from firmware_sim.responders import Responders
from firmware_sim.sites import TerminalEntry, made_up
from firmware_sim.stack import Api, RunInfo, Stack

PARTS = {"postgres", "nats-server", "gateway.cli gateway", "gateway.cli api", "gateway.cli audit"}


async def onekey(*arguments: str | Path, **settings: str) -> tuple[int, str, str]:
    """Run one command and return its status, what it printed and what it complained about."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("ONEKEY_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway.cli"),
        *map(str, arguments),
        env={**plain, "COLUMNS": "400", **settings},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def parts_of(info: RunInfo) -> dict[str, psutil.Process]:
    """The servers and programs that a run has started, by what their command line shows."""
    found: dict[str, psutil.Process] = {}
    for child in psutil.Process(info.pid).children():
        command = " ".join(child.cmdline())
        found |= {part: child for part in PARTS if part in command}
    return found


async def gone(processes: dict[str, psutil.Process]) -> None:
    _, alive = await asyncio.to_thread(psutil.wait_procs, list(processes.values()), timeout=30)
    assert alive == []


async def press(info: RunInfo, terminal: TerminalEntry) -> str:
    """Press the key of a terminal, wait for "received", and return the case."""
    address, member = urlsplit(info.mqtt), terminal.member()
    fleet = Fleet(Broker(address.hostname or "", address.port or 0), [member], rng=Random(7))
    async with running(fleet), asyncio.timeout(30):
        await fleet.wait_online()
        record = fleet.press(member.config.id)
        await fleet.wait_received(record)
    return str(record.case)


async def garbage(info: RunInfo, terminal: TerminalEntry) -> None:
    """Let a terminal publish a heartbeat that cannot be read."""
    address = urlsplit(info.mqtt)
    async with aiomqtt.Client(
        address.hostname or "",
        address.port or 0,
        username=terminal.id,
        password=terminal.secret,
        identifier=terminal.id,
    ) as client:
        await client.publish(f"okc/v1/{terminal.id}/up/heartbeat", b"garbage", qos=1)


async def test_a_life_of_onekey_run(tmp_path: Path) -> None:
    site, file, data = made_up(2, seed=5), tmp_path / "site.yaml", tmp_path / "data"
    terminal = site.terminals()[0]
    site._document["terminals"][1]["secret"] = None
    responders = Responders(site.responders())
    stack = Stack(data, log=tmp_path / "run.log")
    async with responders.serving():
        site.point_webhooks(responders.url)
        site.save(file)
        info = await stack.start()
        try:
            children = parts_of(info)
            assert set(children) == PARTS
            assert (data / "run.json").stat().st_mode & 0o077 == 0

            # A second one on the same data is refused with a sentence.
            status, out, _ = await onekey("--data", data, "run", "--mqtt-port", "0", "--http-port", "0")
            assert status == 2
            assert f"process {info.pid}" in out
            assert "--data" in out

            # The site: every change is told, a made-up secret once, and the same again changes nothing.
            applied = await stack.apply_site(file)
            assert applied["site"] == "sim-site"
            assert {change["action"] for change in applied["changes"]} == {"add"}
            assert list(applied["secrets"]) == ["sim-00002"]
            assert await stack.apply_site(file) == {"site": "sim-site", "changes": [], "secrets": {}}

            # Keys: shown once, listed, revoked.
            made = await stack.call("key", "create", "desk-1", "--role", "operator", "--json")
            assert (made["name"], made["role"]) == ("desk-1", "operator")
            listed = await stack.call("key", "list", "--json")
            assert [key["id"] for key in listed] == [made["id"]]
            assert made["key"] not in json.dumps(listed)

            # A press, and a heartbeat that cannot be read.
            case = await press(info, terminal)
            async with asyncio.timeout(30):
                await responders.wait(lambda arrivals: len(arrivals) >= 6)
            assert all(arrival.verified for arrival in responders.arrivals)
            await garbage(info, terminal)
            async with asyncio.timeout(30):
                while not (kept := await stack.call("quarantine", "list", "--json")):
                    await asyncio.sleep(0.2)
            (only,) = kept
            assert base64.b64decode(only["payload"]) == b"garbage"
            assert (only["terminal"], only["copies"], only["state"], only["case"]) == ("sim-00001", 1, "kept", None)

            # The settings in force, without the password of the broker.
            assert info.broker is not None
            password = urlsplit(info.broker).password
            assert password
            shown = await stack.call("config", "show", "--json")
            assert urlsplit(shown["mqtt"]).password == "********"
            assert urlsplit(shown["mqtt"]).port == urlsplit(info.broker).port
            assert password not in json.dumps(shown)

            # kill -9: nothing is left over, and the next one goes on where this one ended.
            os.kill(info.pid, signal.SIGKILL)
            await stack.wait()
            await gone(children)
            info = await stack.start()
            async with aiohttp.ClientSession() as http:
                api = Api(http, info.http, made["key"])
                assert [str(line.id) for line in await api.cases()] == [case]
            assert await press(info, terminal) == case, "the second press joins the first"
            assert [one["id"] for one in await stack.call("quarantine", "list", "--json")] == [only["id"]]
            await stack.call("key", "revoke", made["id"], "--json")
            async with (
                aiohttp.ClientSession(headers={"Authorization": f"Bearer {made['key']}"}) as http,
                http.get(f"{info.http}/v1/cases") as response,
            ):
                assert response.status == 401

            # Ctrl-C reaches the whole group of a terminal.
            children = parts_of(info)
            os.killpg(info.pid, signal.SIGINT)
            async with asyncio.timeout(30):
                assert await stack.wait() == 0
            await gone(children)
            assert not (data / "run.json").exists()
        finally:
            await stack.stop()
    log = (tmp_path / "run.log").read_text()
    assert "Traceback" not in log, log


async def test_config_show_masks_every_secret(tmp_path: Path) -> None:
    secrets: dict[str, Any] = {
        "ONEKEY_DATABASE": "postgresql://owner:hidden-1@db.example:5432/onekey?sslmode=require",
        "ONEKEY_MQTT": "mqtts://gateway:hidden-2@broker.example:8883",
        "ONEKEY_MASTER_KEY": base64.b64encode(b"hidden-3" * 4).decode(),
        "ONEKEY_AUTH_URL": "nats://auth:hidden-4@127.0.0.1:4222",
        "ONEKEY_AUTH_SEED": "SAAhidden5",
    }
    for words in (("config", "show", "--json"), ("config", "show")):
        status, out, err = await onekey("--data", tmp_path, *words, **secrets)
        assert status == 0, err
        assert "hidden" not in out
        assert secrets["ONEKEY_MASTER_KEY"] not in out
        assert "owner:********@db.example:5432" in out, "what is no secret helps to find a mistake"
        assert "broker.example:8883" in out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--mqtt", "http://broker.example", "run"), "mqtt://user:password@host:1883"),
        (("gateway",), "--database"),
        (("key", "create", "x", "--role", "admin"), "master key"),
    ],
    ids=["a wrong address", "no database", "no key"],
)
async def test_a_mistake_is_answered_with_a_sentence(tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    status, out, err = await onekey("--data", tmp_path / "data", *words)
    assert status == 2, err
    assert says in err
    assert "Traceback" not in out + err
