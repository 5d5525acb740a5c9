"""Who may connect to the real broker, and to what: our answers to its auth callout (D14)."""

import asyncio
import contextlib
import logging
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import aiomqtt
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.embedded.nats import Nats
from gateway.embedded.postgres import Postgres
from gateway.keyring import Keyring
from gateway.links.auth_callout import CredentialCache, Grant, Refusal, Request, Responder, decide, read_request
from gateway.store.migrate import migrate
from protocols.errors import FrameError

KEYRING = Keyring(bytes(range(32)))
SECRETS = {"8600": "secret-of-8600", "8601": "secret-of-8601", "party~hospital": "secret-of-hospital"}


def mac(user: str, secret: str) -> bytes:
    party = user.removeprefix("party~")
    return KEYRING.mac("terminal", user, secret) if party == user else KEYRING.mac("party", party, secret)


# The decision alone

ASKED = Request(
    server="N1", nkey="U1", kind="mqtt", client_id="8600", user="8600", password="secret-of-8600", expires=0
)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"kind": "nats"}, "not MQTT"),
        ({"kind": ""}, "not MQTT"),
        ({"password": "wrong"}, "wrong password"),
        ({"password": ""}, "wrong password"),
        ({"client_id": ""}, "foreign client id"),
        ({"client_id": "8601"}, "foreign client id"),
        ({"client_id": "86001"}, "foreign client id"),
        ({"client_id": "~alarms-1"}, "foreign client id"),
        ({"client_id": "8600~"}, "foreign client id"),
        ({"client_id": "8600~" + "x" * 33}, "foreign client id"),
        ({"client_id": "8600~a/b"}, "foreign client id"),
        ({"client_id": "8600~a\n"}, "foreign client id"),
        ({"user": "8601", "client_id": "8601"}, "wrong password"),
        ({"user": "party~8600", "client_id": "party~8600"}, "wrong password"),
        ({"user": "~gateway", "client_id": "~gateway"}, "malformed user name"),
        ({"user": "8600/up", "client_id": "8600/up"}, "malformed user name"),
        ({"user": "8600\n", "client_id": "8600\n"}, "malformed user name"),
        ({"user": "party~", "client_id": "party~"}, "malformed user name"),
        ({"user": "", "client_id": ""}, "malformed user name"),
        ({"user": "*", "client_id": "*"}, "malformed user name"),
    ],
)
def test_what_is_not_its_own_is_refused(changed: dict[str, str], reason: str) -> None:
    assert decide(replace(ASKED, **changed), mac("8600", "secret-of-8600"), KEYRING) == Refusal(reason)


@pytest.mark.parametrize("client_id", ["8600", "8600~app", "8600~" + "x" * 32])
def test_a_terminal_gets_its_own_topics(client_id: str) -> None:
    granted = decide(replace(ASKED, client_id=client_id), mac("8600", "secret-of-8600"), KEYRING)
    assert isinstance(granted, Grant)
    assert "okc.v1.8600.up.alarm" in granted.publish
    assert {subject.split(".")[2:4] == ["8600", "up"] for subject in granted.publish} == {True}
    assert {subject.split(".")[2:4] == ["8600", "down"] for subject in granted.subscribe} == {True}


def test_an_unknown_user_is_refused() -> None:
    assert decide(ASKED, None, KEYRING) == Refusal("unknown user")


@given(st.binary() | st.lists(st.binary(max_size=40), min_size=3, max_size=3).map(b".".join))
def test_garbage_is_no_request(token: bytes) -> None:
    with pytest.raises(FrameError):
        read_request(token)


# The real broker and the real database


class Site:
    """A database with two terminals and a platform, and a broker that lets them in."""

    def __init__(self, place: Path) -> None:
        self.postgres = Postgres(place / "pg", log=place / "pg.log")
        self.database = self.postgres.start()
        migrate(self.database)
        self.nats = Nats(place / "nats", log=place / "nats.log")
        self.nats.start()
        self.cache = CredentialCache(self.database, KEYRING)
        self.responder = Responder(self.nats.auth_url, self.nats.auth_seed, self.cache)
        with psycopg.connect(self.database) as conn:
            conn.execute("INSERT INTO data_key (id, subject, wrapped) VALUES (gen_random_uuid(), 'site:s', 'x')")
            conn.execute(
                "INSERT INTO site (id, district, timezone, locale, fallback, key_id) "
                "SELECT 's', '320102', 'Asia/Shanghai', 'zh-CN', '{x}', id FROM data_key"
            )
            conn.execute(
                "INSERT INTO party (id, site_id, district, role, sealed, key_id, broker_mac) "
                "SELECT 'hospital', 's', '320102', 'ambulance_120', 'x', id, %s FROM data_key",
                (mac("party~hospital", SECRETS["party~hospital"]),),
            )
            for terminal in ("8600", "8601"):
                self.add(conn, terminal, SECRETS[terminal])

    def add(self, conn: psycopg.Connection, terminal: str, secret: str) -> None:
        conn.execute(
            "INSERT INTO terminal (public_id, site_id, district, model, secret_mac) VALUES (%s, 's', 'd', 'm', %s) "
            "ON CONFLICT (public_id) DO UPDATE SET secret_mac = excluded.secret_mac",
            (terminal, mac(terminal, secret)),
        )

    def client(self, user: str, secret: str | None = None, *, client_id: str | None = None) -> aiomqtt.Client:
        return aiomqtt.Client(
            "127.0.0.1",
            self.nats.mqtt_port,
            username=user,
            password=SECRETS[user] if secret is None else secret,
            identifier=client_id or user,
            protocol=aiomqtt.ProtocolVersion.V311,
        )

    def gateway(self, *, client_id: str = "~alarms-1") -> aiomqtt.Client:
        return self.client("~gateway", urlsplit(self.nats.gateway_url).password, client_id=client_id)

    async def refused(self, user: str, secret: str | None = None, *, client_id: str | None = None) -> bool:
        try:
            async with self.client(user, secret, client_id=client_id):
                return False
        except aiomqtt.MqttError:
            return True


@pytest.fixture(scope="module")
def servers() -> Iterator[Site]:
    place = Path(tempfile.mkdtemp(prefix="onekey-test-"))
    site = Site(place)
    yield site
    site.nats.stop()
    site.postgres.stop()
    shutil.rmtree(place)


@pytest.fixture
async def site(servers: Site) -> AsyncIterator[Site]:
    servers.cache = CredentialCache(servers.database, KEYRING)
    servers.responder = Responder(servers.nats.auth_url, servers.nats.auth_seed, servers.cache)
    async with running(servers.responder):
        yield servers


@contextlib.asynccontextmanager
async def running(responder: Responder) -> AsyncIterator[None]:
    task = asyncio.create_task(responder.run())
    await responder.ready.wait()
    yield
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_passwords_decide(site: Site) -> None:
    assert not await site.refused("8600")
    assert not await site.refused("party~hospital")
    assert await site.refused("8600", "wrong")
    assert await site.refused("8600", SECRETS["8601"])
    assert await site.refused("9999", "whatever")
    assert await site.refused("~gateway", "wrong", client_id="~alarms-1")


async def test_nobody_is_thrown_off_by_another_client_with_his_id(site: Site) -> None:
    async with site.gateway() as gateway, site.client("8601") as victim:
        await gateway.subscribe("okc/v1/+/up/alarm", qos=1)
        await victim.subscribe("okc/v1/8601/down/ack")
        assert await site.refused("8600", client_id="~alarms-1")
        assert await site.refused("8600", client_id="8601")
        await victim.publish("okc/v1/8601/up/alarm", b"help", qos=1)
        assert (await anext(aiter(gateway.messages))).payload == b"help"
        await gateway.publish("okc/v1/8601/down/ack", b"received")
        assert (await anext(aiter(victim.messages))).payload == b"received"


async def test_the_brokers_own_users_are_not_for_mqtt(site: Site) -> None:
    assert await site.refused("~auth", urlsplit(site.nats.auth_url).password)


async def test_what_is_published_to_a_foreign_topic_goes_nowhere(site: Site) -> None:
    async with site.gateway() as gateway, site.client("8600") as terminal, site.client("party~hospital") as party:
        await gateway.subscribe([("okc/v1/+/up/alarm", 1), ("okp/v1/+/notice", 1), ("okc/v1/+/down/ack", 1)])
        for topic in ("okc/v1/8601/up/alarm", "okc/v1/8601/down/ack", "okc/v1/8600/down/ack"):
            await terminal.publish(topic, b"foreign", qos=1)
        await terminal.publish("okp/v1/hospital/notice", b"foreign", qos=1)
        await party.publish("okc/v1/8600/up/alarm", b"foreign", qos=1)
        await party.publish("okp/v1/hospital/notice", b"foreign", qos=1)
        await terminal.publish("okc/v1/8600/up/alarm", b"own", qos=1)
        assert (await anext(aiter(gateway.messages))).payload == b"own"


async def test_nobody_listens_to_what_is_not_his(site: Site) -> None:
    async with site.client("8600") as terminal, site.client("party~hospital") as party:
        own = ["okc/v1/8600/down/ack", "okc/v1/8600/down/command", "okc/v1/8600/down/progress", "okc/v1/8600/down/+"]
        assert await granted(terminal, own) == [True] * 4
        foreign = ["#", "okc/#", "okc/v1/+/down/ack", "okc/v1/8601/down/ack", "okc/v1/8600/up/alarm", "$MQTT/sub/#"]
        assert await granted(terminal, foreign) == [False] * 6
        assert await granted(party, ["okp/v1/hospital/notice"]) == [True]
        assert (
            await granted(party, ["okp/v1/+/notice", "okp/v1/police/notice", "okc/v1/+/up/alarm", "#"]) == [False] * 4
        )


async def granted(client: aiomqtt.Client, topics: list[str]) -> list[bool]:
    codes = await client.subscribe([(topic, 1) for topic in topics])
    return [(code if isinstance(code, int) else code.value) < 0x80 for code in codes]


@pytest.mark.parametrize(("qos", "retain"), [(0, False), (1, False), (1, True), (2, False), (2, True)])
async def test_an_alarm_arrives_however_it_is_published(site: Site, qos: int, retain: bool) -> None:
    async with site.gateway(client_id="~alarms-2") as gateway, site.client("8600") as terminal:
        await gateway.subscribe("okc/v1/8600/up/alarm", qos=1)
        word = f"help {qos} {retain}".encode()
        await terminal.publish("okc/v1/8600/up/alarm", word, qos=qos, retain=retain)
        async for message in gateway.messages:
            if message.payload == word:
                break
        await terminal.publish("okc/v1/8600/up/alarm", b"", qos=1, retain=True)


async def test_a_new_terminal_a_new_password_and_a_retired_one_count_at_once(site: Site) -> None:
    assert await site.refused("8700", "first")
    with psycopg.connect(site.database) as conn:
        site.add(conn, "8700", "first")
    assert not await site.refused("8700", "first")
    with psycopg.connect(site.database) as conn:
        site.add(conn, "8700", "second")
    assert not await site.refused("8700", "second")
    assert await site.refused("8700", "first")
    with psycopg.connect(site.database) as conn:
        conn.execute("UPDATE terminal SET active = false WHERE public_id = '8700'")
    async with asyncio.timeout(30):
        while not await site.refused("8700", "second"):
            pass


async def test_terminals_reconnect_while_the_database_is_away(site: Site) -> None:
    assert not await site.refused("8600")
    site.postgres.stop()
    try:
        assert not await site.refused("8601")
        assert await site.refused("8601", "wrong")
        assert not await site.refused("8601")
    finally:
        assert site.postgres.start() == site.database
    with psycopg.connect(site.database) as conn:
        site.add(conn, "8800", "new")
    async with asyncio.timeout(30):
        while await site.refused("8800", "new"):
            pass


async def test_it_goes_on_after_the_broker_was_away(site: Site) -> None:
    assert site.nats.process is not None
    site.nats.process.kill()
    site.nats.process.wait()
    site.nats.start()
    async with asyncio.timeout(30):
        while await site.refused("8600"):
            pass


async def test_refusals_are_logged_once_with_the_terminal_and_never_the_password(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for _ in range(3):
        assert await site.refused("8600", "guess-me-7731")
    assert await site.refused("my-password!", "guess-me-7731")
    refusals = [record for record in caplog.records if "refused" in record.message]
    assert [(record.message, vars(record)["terminal_id"]) for record in refusals] == [
        ("connection refused: wrong password", "8600"),
        ("connection refused: malformed user name", "?"),
    ]
    assert "guess-me-7731" not in caplog.text
    assert "my-password!" not in caplog.text
