"""Heartbeats at a fixed rate from many terminals: the load beside a measurement, in a process of its own.

It is told its `Orders` and then says its `Progress` once a second. MQTT is spoken here by hand (3.1.1: CONNECT,
PUBLISH with QoS 1, PUBACK, SUBSCRIBE, PINGREQ, nothing else): a full client costs ten times the processor time,
which on the same machine is taken from the gateway under test.
"""

import asyncio
import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from time import monotonic
from typing import TypeVar, cast

import uvloop

from firmware_sim.children import hearing, say
from firmware_sim.fleet import Broker
from protocols.okc import Up, up_topic
from schemas.reports import HeartbeatReport

__all__ = [
    "PUBACK",
    "Connection",
    "Orders",
    "Progress",
    "connect_packet",
    "connected",
    "keep_alive",
    "publish_packet",
    "subscribe_packet",
    "take_packets",
]

C = TypeVar("C", bound="Connection")

_TICK_S = 0.01
_KEEP_ALIVE_S = 60
_CONNACK, PUBACK, _PINGREQ = 0x20, 0x40, bytes((0xC0, 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What to send: ``terminals`` are pairs of id and secret, ``rate_per_s`` is the sum over all of them."""

    mqtt: str
    terminals: list[tuple[str, str]]
    rate_per_s: float


@dataclass(slots=True)
class Progress:
    """Sums since the start. ``confirmed`` counts PUBACKs; ``lost`` connections that the broker closed."""

    online: int = 0
    sent: int = 0
    confirmed: int = 0
    lost: int = 0


def _field(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


def _packet(head: int, body: bytes) -> bytes:
    # Remaining length, MQTT 3.1.1, 2.2.3: seven bits a byte, lowest first, the top bit says that more follow.
    length, rest = bytearray(), len(body)
    while True:
        rest, digit = rest >> 7, rest & 0x7F
        length.append(digit | (0x80 if rest else 0))
        if not rest:
            return bytes((head,)) + bytes(length) + body


def connect_packet(terminal: str, secret: str, user: str | None = None) -> bytes:
    """Return CONNECT with a clean session, user name and password (MQTT 3.1.1, 3.1); `user` is the terminal's id."""
    flags = 0b1100_0010
    head = _field(b"MQTT") + bytes((4, flags)) + struct.pack(">H", _KEEP_ALIVE_S)
    return _packet(0x10, head + b"".join(_field(part.encode()) for part in (terminal, user or terminal, secret)))


def publish_packet(topic: bytes, packet_id: int, payload: bytes) -> bytes:
    """Return PUBLISH with QoS 1 (MQTT 3.1.1, 3.3)."""
    return _packet(0x32, _field(topic) + struct.pack(">H", packet_id) + payload)


def subscribe_packet(topic: bytes, packet_id: int) -> bytes:
    """Return SUBSCRIBE to one topic with QoS 0 (MQTT 3.1.1, 3.8)."""
    return _packet(0x82, struct.pack(">H", packet_id) + _field(topic) + bytes((0,)))


def take_packets(buffer: bytearray) -> list[tuple[int, bytes]]:
    """Remove whole packets from the front of `buffer` and return type and body of each."""
    packets: list[tuple[int, bytes]] = []
    while True:
        length, place = 0, 1
        while place < len(buffer) and buffer[place] & 0x80 and place < 4:
            length |= (buffer[place] & 0x7F) << (7 * (place - 1))
            place += 1
        if place >= len(buffer):
            return packets
        length |= (buffer[place] & 0x7F) << (7 * (place - 1))
        end = place + 1 + length
        if end > len(buffer):
            return packets
        packets.append((buffer[0] & 0xF0, bytes(buffer[place + 1 : end])))
        del buffer[:end]


class Connection(asyncio.Protocol):
    """One terminal at the broker. ``accepted`` is done when the broker let it in."""

    def __init__(self, terminal: str, secret: str, progress: Progress, *, user: str | None = None) -> None:
        self.terminal = terminal
        self.accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._connect = connect_packet(terminal, secret, user)
        self._progress = progress
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Introduce the terminal to the broker."""
        self._transport = cast("asyncio.Transport", transport)  # that of uvloop is one without saying so
        self._transport.write(self._connect)

    def data_received(self, data: bytes) -> None:
        """Take what whole packets there are."""
        self._buffer += data
        for kind, body in take_packets(self._buffer):
            self.take(kind, body)

    def take(self, kind: int, body: bytes) -> None:
        """Take one packet of the broker."""
        if kind == PUBACK:
            self._progress.confirmed += 1
        elif kind == _CONNACK and not self.accepted.done():
            if body[1] == 0:
                self._progress.online += 1
                self.accepted.set_result(None)
            else:
                refusal = f"the broker refused terminal {self.terminal}: code {body[1]}"
                self.accepted.set_exception(ConnectionRefusedError(refusal))

    def connection_lost(self, exc: Exception | None) -> None:
        """Count the loss, or fail whoever waits to be let in."""
        self._transport = None
        if self.accepted.done():
            self._progress.online -= 1
            self._progress.lost += 1
        else:
            self.accepted.set_exception(exc or ConnectionResetError("the broker closed the connection"))

    def send(self, packet: bytes) -> bool:
        """Send one packet, or return False: a lost connection sends nothing and is seen in `Progress`."""
        if self._transport is None:
            return False
        self._transport.write(packet)
        return True

    def publish(self, packet: bytes) -> bool:
        """Send one PUBLISH; see `send`."""
        sent = self.send(packet)
        self._progress.sent += sent
        return sent


async def connected(mqtt: str, terminals: Sequence[tuple[str, str]], make: Callable[[str, str], C]) -> list[C]:
    """Connect terminals, pairs of id and secret, one after the other.

    Raises:
        OSError: The broker cannot be reached or refused a terminal.
    """
    broker = Broker.from_url(mqtt)
    connections = []
    for terminal, secret in terminals:
        _, connection = await asyncio.get_running_loop().create_connection(
            partial(make, terminal, secret), broker.host, broker.port
        )
        await connection.accepted
        connections.append(connection)
    return connections


async def keep_alive(connections: Sequence[Connection]) -> None:
    """Ping for ever, twice as often as was promised."""
    while True:
        await asyncio.sleep(_KEEP_ALIVE_S / 2)
        for connection in connections:
            connection.send(_PINGREQ)


class _Beating(Connection):
    """A terminal that beats."""

    def __init__(self, terminal: str, secret: str, progress: Progress) -> None:
        super().__init__(terminal, secret, progress)
        self._topic = up_topic(terminal, Up.HEARTBEAT).encode()
        self._seq = 0

    def beat(self, at: str) -> None:
        self._seq += 1
        payload = _BEAT % (self._seq, at.encode())
        self.publish(publish_packet(self._topic, self._seq % 65_535 + 1, payload))


_BEAT = b'{"v":1,"boot":1,"seq":%d,"at":"%s","battery_pct":88,"battery_mv":3900,"signal_dbm":-71,"mains":true}'
HeartbeatReport.model_validate_json(_BEAT % (1, b"2026-01-01T00:00:00Z"))


async def _beat(connections: Sequence[_Beating], rate_per_s: float) -> None:
    """Send in small bursts on a fixed schedule; what one tick could not send the next one makes up for."""
    began_s, sent = monotonic(), 0
    while True:
        due = int((monotonic() - began_s) * rate_per_s)
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        for number in range(sent, due):
            connections[number % len(connections)].beat(at)
        sent = due
        await asyncio.sleep(_TICK_S)


async def _report(progress: Progress) -> None:
    while True:
        say(asdict(progress))
        await asyncio.sleep(1)


async def _run() -> None:
    """Connect everybody, then beat and report until standard input is closed."""
    told = await hearing()
    orders = Orders(**json.loads(await told.readline()))
    progress = Progress()
    beating = await connected(
        orders.mqtt, orders.terminals, lambda terminal, secret: _Beating(terminal, secret, progress)
    )
    async with asyncio.TaskGroup() as tasks:
        work = [
            tasks.create_task(_beat(beating, orders.rate_per_s), name="beat"),
            tasks.create_task(keep_alive(beating), name="keep alive"),
            tasks.create_task(_report(progress), name="report"),
        ]
        await told.read()
        for task in work:
            task.cancel()


if __name__ == "__main__":
    uvloop.run(_run())
