"""The MQTT link with brokers that do what none should: it neither hangs nor loses, nor acknowledges what it has not."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.config import Broker
from gateway.links.mqtt import Delivery, MqttLink

TOPIC = b"okc/v1/a/up/fix"
CONNACK, SUBACK, PINGRESP = b"\x20\x02\x00\x00", b"\x90\x03\x00\x01\x01", b"\xd0\x00"
CONNACK_WITH_SESSION = b"\x20\x02\x01\x00"

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter, int], Awaitable[None]]


def publish(payload: bytes, *, mid: int = 0, again: bool = False, topic: bytes = TOPIC) -> bytes:
    """Return a message, with QoS 1 where it has a number."""
    number = mid.to_bytes(2, "big") if mid else b""
    body = len(topic).to_bytes(2, "big") + topic + number + payload
    return bytes((0x30 | again << 3 | (2 if mid else 0), len(body))) + body


@asynccontextmanager
async def broker(serve: Serve, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Serve connections, which are numbered from 1; the address."""
    count = 0

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        try:
            await serve(reader, writer, count)
        except ConnectionError:
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(one, "localhost", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"{'mqtts' if tls else 'mqtt'}://localhost:{port}"
    finally:
        server.close()


@asynccontextmanager
async def linked(url: str, **how: Any) -> AsyncIterator[tuple[MqttLink, list[Delivery]]]:
    taken: list[Delivery] = []
    link = MqttLink(Broker(url), client_id="x", filters=[("okc/v1/+/up/fix", 1)], **how)
    task = asyncio.create_task(link.run(taken.append))
    try:
        yield link, taken
    finally:
        task.cancel()
        await asyncio.wait({task})


async def until(condition: Callable[[], bool], timeout_s: float = 10) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


async def welcome(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connack: bytes = CONNACK) -> None:
    await reader.read(200)
    writer.write(connack)
    await reader.read(200)
    writer.write(SUBACK)
    await writer.drain()
    await asyncio.sleep(0.1)


@pytest.mark.parametrize(
    "broken", [publish(b"x", topic=b""), b"\xf0\x00", b"\x30\xff\xff\xff\xff\x7f", b"\x32\x01\x00"]
)
async def test_what_breaks_the_protocol_ends_the_connection_and_not_the_loop(broken: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        await welcome(reader, writer)
        writer.write((broken if number == 1 else b"") + publish(b"%d" % number))
        await writer.drain()
        await asyncio.sleep(60)

    async with broker(serve) as url, linked(url) as (_, taken):
        await until(lambda: bool(taken))
        assert [one.payload for one in taken] == [b"2"], "on the next connection"


async def test_what_an_old_connection_still_brings_counts_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker answers too late; meanwhile there is a new connection, on which the same number is another message."""
    original = aiomqtt.Client
    monkeypatch.setattr(aiomqtt, "Client", lambda **how: original(**(how | {"timeout": 0.5})))
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        if number == 1:
            await reader.read(200)
            await asyncio.sleep(1.0)
            writer.write(CONNACK_WITH_SESSION + publish(b"old", mid=1))
            await writer.drain()
        else:
            await asyncio.sleep(0.3)
            await welcome(reader, writer, CONNACK_WITH_SESSION)
            await asyncio.sleep(1.0)
            writer.write(publish(b"new", mid=1, again=True))
            await writer.drain()
        while data := await reader.read(100):
            heard.append(data)

    async with broker(serve) as url, linked(url) as (link, taken):
        await until(lambda: bool(taken))
        await asyncio.sleep(0.3)
        assert [one.payload for one in taken] == [b"new"]
        link.acknowledge_all(taken)
        await until(lambda: b"\x40\x02\x00\x01" in b"".join(heard))


async def test_a_connection_that_cannot_even_be_begun_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when no file can be opened for the certificates just now."""
    original, fails = aiomqtt.Client, [OSError(24, "Too many open files")]

    def client(**how: Any) -> aiomqtt.Client:
        if fails:
            raise fails.pop()
        return original(**how)

    monkeypatch.setattr(aiomqtt, "Client", client)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        del number
        await welcome(reader, writer)
        writer.write(publish(b"y", mid=1))
        await writer.drain()
        await asyncio.sleep(60)

    async with broker(serve) as url, linked(url) as (_, taken):
        await until(lambda: bool(taken))
        assert not fails


async def test_what_was_read_already_is_not_waited_for_at_the_socket() -> None:
    """The link is told to wait between two packets of one piece: nothing more comes, and the second is there."""
    answers: list[bool] = []

    def wait() -> bool:
        return answers.pop(0) if answers else False

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        del number
        await welcome(reader, writer)
        answers[:] = [False, True, True, True]
        writer.write(PINGRESP + publish(b"y", mid=1))
        await writer.drain()
        await asyncio.sleep(60)

    async with broker(serve) as url, linked(url, wait=wait, rest_s=0.004) as (_, taken):
        await until(lambda: bool(taken), timeout_s=3)
        assert not answers


def _certificate(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Make a certificate for localhost; contexts for server and client."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    chain, secret = folder / "chain.pem", folder / "key.pem"
    chain.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server.load_cert_chain(chain, secret)
    client.load_verify_locations(chain)
    return server, client


@pytest.mark.parametrize("together", [1, 50])
async def test_with_tls_a_link_that_rests_reads_record_after_record(
    together: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, client = _certificate(tmp_path)
    monkeypatch.setattr(ssl, "create_default_context", lambda: client)
    count = 2000

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        del number
        await welcome(reader, writer)
        for _ in range(count // together):
            writer.write(publish(b"y" * 60) * together)  # a record each
        await writer.drain()
        await asyncio.sleep(60)

    async with broker(serve, tls=server) as url, linked(url, piece=2048, rest_s=0.05) as (_, taken):
        await until(lambda: bool(taken))
        began_s = time.monotonic()
        await until(lambda: len(taken) == count, timeout_s=30)
        # With a rest behind every record it would be 100 s, or 2 s.
        assert time.monotonic() - began_s < (20 if together == 1 else 1.5)
