"""Heartbeats at a fixed rate from many terminals: the load beside a measurement, in a process of its own.

    python -m firmware_sim.load < orders.json

It writes one line of JSON a second, `Progress`, until its standard input is closed. MQTT is spoken here by
hand (3.1.1: CONNECT, PUBLISH with QoS 1, PUBACK, PINGREQ, nothing else): a full client costs ten times the
processor time, which on the same machine is taken from the gateway under test.
"""

import asyncio
import json
import struct
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from time import monotonic

from firmware_sim.fleet import Broker
from protocols.okc import Up, up_topic
from schemas.reports import HeartbeatReport

__all__ = ["Orders", "Progress", "connect_packet", "publish_packet", "run", "take_packets"]

_TICK_S = 0.01
_KEEP_ALIVE_S = 60
_CONNACK, _PUBACK, _PINGREQ = 0x20, 0x40, bytes((0xC0, 0))


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


def connect_packet(terminal: str, secret: str) -> bytes:
    """Return CONNECT with a clean session, user name and password (MQTT 3.1.1, 3.1)."""
    flags = 0b1100_0010
    head = _field(b"MQTT") + bytes((4, flags)) + struct.pack(">H", _KEEP_ALIVE_S)
    return _packet(0x10, head + b"".join(_field(part.encode()) for part in (terminal, terminal, secret)))


def publish_packet(topic: bytes, packet_id: int, payload: bytes) -> bytes:
    """Return PUBLISH with QoS 1 (MQTT 3.1.1, 3.3)."""
    return _packet(0x32, _field(topic) + struct.pack(">H", packet_id) + payload)


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


class _Connection(asyncio.Protocol):
    """One terminal that beats."""

    def __init__(self, terminal: str, secret: str, progress: Progress) -> None:
        self.accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._connect = connect_packet(terminal, secret)
        self._terminal = terminal
        self._topic = up_topic(terminal, Up.HEARTBEAT).encode()
        self._progress = progress
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._seq = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._connect)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        for kind, body in take_packets(self._buffer):
            if kind == _PUBACK:
                self._progress.confirmed += 1
            elif kind == _CONNACK and not self.accepted.done():
                if body[1] == 0:
                    self._progress.online += 1
                    self.accepted.set_result(None)
                else:
                    refusal = f"the broker refused terminal {self._terminal}: code {body[1]}"
                    self.accepted.set_exception(ConnectionRefusedError(refusal))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self.accepted.done():
            self._progress.online -= 1
            self._progress.lost += 1
        else:
            self.accepted.set_exception(exc or ConnectionResetError("the broker closed the connection"))

    def beat(self, at: str) -> None:
        """Send one heartbeat; a lost connection sends nothing and is seen in `Progress`."""
        if self._transport is None:
            return
        self._seq += 1
        payload = _BEAT % (self._seq, at.encode())
        self._transport.write(publish_packet(self._topic, self._seq % 65_535 + 1, payload))
        self._progress.sent += 1

    def ping(self) -> None:
        """Keep the connection alive."""
        if self._transport is not None:
            self._transport.write(_PINGREQ)


_BEAT = b'{"v":1,"boot":1,"seq":%d,"at":"%s","battery_pct":88,"battery_mv":3900,"signal_dbm":-71,"mains":true}'
HeartbeatReport.model_validate_json(_BEAT % (1, b"2026-01-01T00:00:00Z"))


async def _connected(orders: Orders, progress: Progress) -> Sequence[_Connection]:
    broker = Broker.from_url(orders.mqtt)
    loop = asyncio.get_running_loop()
    connections = []
    for terminal, secret in orders.terminals:
        _, connection = await loop.create_connection(
            partial(_Connection, terminal, secret, progress), broker.host, broker.port
        )
        await connection.accepted
        connections.append(connection)
    return connections


async def _beat(connections: Sequence[_Connection], rate_per_s: float) -> None:
    """Send in small bursts on a fixed schedule; what one tick could not send the next one makes up for."""
    began_s, sent, pinged_s = monotonic(), 0, monotonic()
    while True:
        due = int((monotonic() - began_s) * rate_per_s)
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        for number in range(sent, due):
            connections[number % len(connections)].beat(at)
        sent = due
        if monotonic() - pinged_s > _KEEP_ALIVE_S / 2:
            pinged_s = monotonic()
            for connection in connections:
                connection.ping()
        await asyncio.sleep(_TICK_S)


async def _report(progress: Progress) -> None:
    while True:
        sys.stdout.write(json.dumps(asdict(progress)) + "\n")
        sys.stdout.flush()
        await asyncio.sleep(1)


async def run(orders: Orders) -> None:
    """Connect everybody, then beat and report until standard input is closed.

    Raises:
        OSError: The broker cannot be reached or refused a terminal.
    """
    progress = Progress()
    connections = await _connected(orders, progress)
    stdin = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    async with asyncio.TaskGroup() as tasks:
        beating = tasks.create_task(_beat(connections, orders.rate_per_s), name="beat")
        reporting = tasks.create_task(_report(progress), name="report")
        await stdin.read()
        beating.cancel()
        reporting.cancel()


def main() -> None:
    """Read the orders, one line of JSON, and carry them out."""
    orders = json.loads(sys.stdin.readline())
    asyncio.run(run(Orders(**orders)))


if __name__ == "__main__":
    main()
