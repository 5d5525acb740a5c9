"""The configuration we write for Mosquitto, in the real Mosquitto."""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
import stat
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import aiomqtt
import pytest

from gateway.embedded import mosquitto
from gateway.embedded.processes import Process, free_port, spawn
from gateway.site.model import MqttEntry, PartyEntry, Site, TerminalEntry

PROGRAM = shutil.which("mosquitto", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")
SECRETS = {"8600": "secret-of-8600", "8601": "secret-of-8601", "party~hospital": "secret-of-hospital"}

if PROGRAM is None and "CI" not in os.environ:
    pytest.skip("needs Mosquitto 2: apt-get install mosquitto", allow_module_level=True)


def site(secrets: dict[str, str | None]) -> Site:
    terminals = [
        TerminalEntry(id=name, model="m", secret=secret) for name, secret in secrets.items() if "~" not in name
    ]
    hospital = MqttEntry(kind="mqtt", secret=secrets.get("party~hospital") or "x")
    return Site(
        site="s",
        district="d",
        timezone="UTC",
        locale="zh",
        fallback=("hospital",),
        parties=(PartyEntry(id="hospital", role="ambulance_120", name="急救", channels=(hospital,)),),
        terminals=tuple(terminals),
    )


class Broker:
    """A Mosquitto that runs with what we wrote."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port, self.gateway_port = free_port("127.0.0.1"), free_port("127.0.0.1")
        self.url = self.write(site(dict(SECRETS)))
        self.process: Process | None = None

    def write(self, of: Site | None) -> str:
        return mosquitto.write(self.directory, site=of, port=self.port, gateway_port=self.gateway_port)

    def start(self) -> None:
        assert PROGRAM is not None, "needs Mosquitto 2: apt-get install mosquitto"
        self.process = spawn(
            [PROGRAM, "-c", str(self.directory / "mosquitto.conf")],
            log=self.directory.with_name("mosquitto.log"),
            environment={},
            on_our_death=signal.SIGTERM,
        )
        for port in (self.port, self.gateway_port):
            while self.process.poll() is None:
                with contextlib.suppress(ConnectionRefusedError):
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
        assert self.process.poll() is None

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait()

    def client(self, user: str, secret: str | None = None, *, client_id: str | None = None) -> aiomqtt.Client:
        return aiomqtt.Client(
            "127.0.0.1",
            self.port,
            username=user,
            password=SECRETS[user] if secret is None else secret,
            identifier=client_id or user,
            protocol=aiomqtt.ProtocolVersion.V311,
        )

    @contextlib.asynccontextmanager
    async def gateway(self, *, client_id: str = "~alarms-1") -> AsyncIterator[aiomqtt.Client]:
        url = urlsplit(self.url)
        async with aiomqtt.Client(
            "127.0.0.1",
            self.gateway_port,
            username=url.username,
            password=url.password,
            identifier=client_id,
            clean_session=False,
            protocol=aiomqtt.ProtocolVersion.V311,
        ) as client:
            await client.subscribe("okc/v1/+/up/alarm", qos=1)
            yield client

    async def refused(self, user: str, secret: str | None = None) -> bool:
        try:
            async with self.client(user, secret):
                return False
        except aiomqtt.MqttError:
            return True


@pytest.fixture
def broker() -> Iterator[Broker]:
    place = Path(tempfile.mkdtemp(prefix="onekey-test-"))
    broker = Broker(place / "mosquitto")
    broker.start()
    yield broker
    broker.stop()
    shutil.rmtree(place)


async def test_passwords_decide(broker: Broker) -> None:
    assert not await broker.refused("8600")
    assert not await broker.refused("party~hospital")
    assert await broker.refused("8600", "wrong")
    assert await broker.refused("8600", SECRETS["8601"])
    assert await broker.refused("9999", "whatever")
    assert await broker.refused("~gateway", "wrong")


async def test_what_is_published_to_a_foreign_topic_goes_nowhere(broker: Broker) -> None:
    async with broker.gateway() as gateway, broker.client("8600") as terminal, broker.client("party~hospital") as party:
        for client in (terminal, party):
            await client.publish("okc/v1/8601/up/alarm", b"foreign", qos=1)
        await terminal.publish("okc/v1/8600/up/alarm", b"own", qos=1)
        assert (await anext(aiter(gateway.messages))).payload == b"own"


async def test_nobody_hears_what_is_not_his(broker: Broker) -> None:
    async with broker.gateway() as gateway, broker.client("8600") as terminal, broker.client("party~hospital") as party:
        await terminal.subscribe([("#", 1), ("okc/v1/8601/down/+", 1), ("okc/v1/8600/down/+", 1)])
        await party.subscribe([("#", 1), ("okp/v1/hospital/notice", 1)])
        await gateway.publish("okp/v1/police/notice", b"foreign", qos=1)
        await gateway.publish("okc/v1/8601/down/ack", b"foreign", qos=1)
        await gateway.publish("okc/v1/8600/up/alarm", b"foreign", qos=1)
        await gateway.publish("okc/v1/8600/down/ack", b"received", qos=1)
        await gateway.publish("okp/v1/hospital/notice", b"notice", qos=1)
        assert (await anext(aiter(terminal.messages))).payload == b"received"
        assert (await anext(aiter(party.messages))).payload == b"notice"


async def test_nobody_is_thrown_off_by_another_client_with_his_id(broker: Broker) -> None:
    async with broker.gateway() as gateway, broker.client("8601") as victim:
        await victim.subscribe("okc/v1/8601/down/ack")
        for client_id in ("8601", "~alarms-1"):
            async with broker.client("8600", client_id=client_id):
                pass
        await victim.publish("okc/v1/8601/up/alarm", b"help", qos=1)
        assert (await anext(aiter(gateway.messages))).payload == b"help"
        await gateway.publish("okc/v1/8601/down/ack", b"received")
        assert (await anext(aiter(victim.messages))).payload == b"received"


async def test_nothing_is_dropped_while_the_gateway_and_then_the_broker_are_away(broker: Broker) -> None:
    presses = 3000
    async with broker.gateway():
        pass
    async with broker.client("8600") as terminal:
        for number in range(presses):
            await terminal.publish("okc/v1/8600/up/alarm", b"%d" % number, qos=1)
    broker.stop()
    broker.start()
    async with asyncio.timeout(30), broker.gateway() as gateway:
        arrived = []
        async for message in gateway.messages:
            arrived.append(int(message.payload))
            if len(arrived) == presses:
                break
    assert arrived == list(range(presses))


async def test_an_alarm_with_the_retain_flag_arrives(broker: Broker) -> None:
    async with broker.gateway() as gateway, broker.client("8600") as terminal:
        await terminal.publish("okc/v1/8600/up/alarm", b"help", qos=1, retain=True)
        assert (await anext(aiter(gateway.messages))).payload == b"help"


async def test_writing_again_keeps_who_is_not_in_the_file_and_changes_nothing_else(broker: Broker) -> None:
    before = (broker.directory / "passwords").read_text()
    assert broker.write(site(dict(SECRETS))) == broker.url
    assert (broker.directory / "passwords").read_text() == before
    fresh = site({"8601": "another-secret", "8602": None})
    assert broker.write(fresh) == broker.url
    assert mosquitto.without_password(broker.directory, fresh) == ["8602"]
    assert broker.process is not None
    broker.process.send_signal(signal.SIGHUP)
    while await broker.refused("8601", "another-secret"):
        pass
    assert await broker.refused("8601")
    assert not await broker.refused("8600")
    async with broker.gateway():
        pass


def test_the_files_are_ours_alone_and_hold_no_password(broker: Broker) -> None:
    for name in ("mosquitto.conf", "acl", "passwords", "gateway.url"):
        assert stat.S_IMODE((broker.directory / name).stat().st_mode) == 0o600
    text = (broker.directory / "passwords").read_text() + (broker.directory / "acl").read_text()
    assert not any(secret in text for secret in SECRETS.values())
    assert re.search(r"^user party~hospital\ntopic read okp/v1/hospital/notice$", text, re.MULTILINE)
