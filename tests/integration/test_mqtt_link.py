"""The contract of the MQTT link with real brokers: what is not acknowledged comes again, and nothing else does (I1)."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from gateway.config import Broker
from gateway.links.mqtt import Delivery, LinkDown, MqttLink
from tests.integration.brokers import RealBroker, broker_running

FILTER = "okc/v1/+/up/alarm"
TOPIC = "okc/v1/8600/up/alarm"
ELSEWHERE = "okc/v1/8600/down/ack"

_PUBLISH, _PUBACK = 3, 4


@dataclass(frozen=True)
class Packet:
    """One packet that has a number."""

    upward: bool
    kind: int
    mid: int
    payload: bytes = b""


class Tap:
    """Lies between a link and its broker, writes down what passes, and can cut it.

    With `one_number` it gives every message for the link the packet number 1, as a broker may that has one under way.
    """

    def __init__(self, port: int, *, one_number: bool = False) -> None:
        self.port = 0
        self.passed: list[Packet] = []
        self.connections = 0
        self._broker = port
        self._one_number = one_number
        self._true_number = b""
        self._writers: list[asyncio.StreamWriter] = []
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Tap"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        with closing(server):
            yield self
            self.cut()

    def cut(self) -> None:
        """End every connection without a word."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def acknowledged(self) -> list[int]:
        return [packet.mid for packet in self.passed if packet.upward and packet.kind == _PUBACK]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20), self._changed:
            await self._changed.wait_for(condition)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._broker)
        except OSError:
            writer.transport.abort()
            return
        self._writers += [writer, back]
        self.connections += 1
        await asyncio.gather(self._pump(reader, back, upward=True), self._pump(there, writer, upward=False))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, upward: bool) -> None:
        try:
            while True:
                head = await reader.readexactly(1)
                length, shift = 0, 0
                while True:
                    digit = await reader.readexactly(1)
                    head += digit
                    length |= (digit[0] & 0x7F) << shift
                    shift += 7
                    if digit[0] < 0x80:
                        break
                body = await reader.readexactly(length)
                writer.write(head + (self._renumbered(head[0], body, upward=upward) if self._one_number else body))
                async with self._changed:
                    self._note(head[0], body, upward=upward)
                    self._changed.notify_all()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.transport.abort()

    def _renumbered(self, head: int, body: bytes, *, upward: bool) -> bytes:
        if head >> 4 == _PUBLISH and not upward:
            start = 2 + int.from_bytes(body[:2])
            self._true_number = body[start : start + 2]
            return body[:start] + b"\0\1" + body[start + 2 :]
        return self._true_number if head >> 4 == _PUBACK and upward else body

    def _note(self, head: int, body: bytes, *, upward: bool) -> None:
        kind, qos = head >> 4, head >> 1 & 3
        if kind == _PUBLISH and qos:
            start = 2 + int.from_bytes(body[:2])
            mid = int.from_bytes(body[start : start + 2])
            self.passed.append(Packet(upward, kind, mid, body[start + 2 :]))
        elif kind == _PUBACK:
            self.passed.append(Packet(upward, kind, int.from_bytes(body[:2])))


@pytest.fixture(params=["mosquitto", "nats"])
async def broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[RealBroker]:
    async with broker_running(request.param, tmp_path) as running:
        yield running


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[RealBroker]:
    async with broker_running("nats", tmp_path) as running:
        yield running


class Linked:
    """A link that runs, and what it was handed."""

    def __init__(self, port: int, *, subscribes: bool = True, **how: Any) -> None:
        address = Broker(f"mqtt://test:test@127.0.0.1:{port}")
        self.link = MqttLink(address, client_id="~alarms-a", filters=((FILTER, 1),) if subscribes else (), **how)
        self.taken: asyncio.Queue[Delivery] = asyncio.Queue()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Linked"]:
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(self.link.run(self.taken.put_nowait), name="link")
            yield self
            task.cancel()

    async def connected(self) -> None:
        assert await self.link.wait_connected(20)

    async def take(self) -> Delivery:
        async with asyncio.timeout(20):
            return await self.taken.get()

    async def passed(self) -> None:
        """Return when everything that the link sent before has passed on the same connection."""
        await self.link.publish(ELSEWHERE, b"", qos=1)


@asynccontextmanager
async def _linked(port: int, *, subscribes: bool = True, **how: Any) -> AsyncIterator[Linked]:
    async with Linked(port, subscribes=subscribes, **how).running() as linked:
        await linked.connected()
        yield linked


async def _publish(broker: RealBroker, *payloads: bytes) -> None:
    client: Any = aiomqtt.Client("127.0.0.1", broker.port, username="test", password="test", identifier="terminal")
    async with client:
        for payload in payloads:
            await client.publish(TOPIC, payload, qos=1)


async def test_what_was_not_acknowledged_comes_again_on_the_next_connection(broker: RealBroker) -> None:
    async with Tap(broker.port).open() as tap, _linked(tap.port) as linked:
        await _publish(broker, b"one", b"two")
        first = [await linked.take(), await linked.take()]
        tap.cut()
        again = [await linked.take(), await linked.take()]
        assert [delivery.payload for delivery in first] == [b"one", b"two"]
        assert {delivery.payload for delivery in again} == {b"one", b"two"}
        assert tap.acknowledged() == []
        for delivery in again:
            linked.link.acknowledge(delivery)
        await linked.passed()
        assert tap.acknowledged() == [delivery.mid for delivery in again]


async def test_what_was_acknowledged_does_not_come_again(broker: RealBroker) -> None:
    async with Tap(broker.port).open() as tap, _linked(tap.port) as linked:
        await _publish(broker, b"one", b"two")
        linked.link.acknowledge(await linked.take())
        await linked.take()
        await linked.passed()
        tap.cut()
        assert (await linked.take()).payload == b"two"
        await _publish(broker, b"three")
        assert (await linked.take()).payload == b"three"


async def test_a_gateway_that_comes_back_gets_what_it_had_not_acknowledged_and_what_came_meanwhile(
    broker: RealBroker,
) -> None:
    async with _linked(broker.port) as linked:
        await _publish(broker, b"one")
        assert not (await linked.take()).stored, "the session is new"
    await _publish(broker, b"two")
    async with _linked(broker.port) as linked:
        # In any order: a broker may send what is new before what it repeats.
        both = [await linked.take(), await linked.take()]
        assert {one.payload for one in both} == {b"one", b"two"}
        assert all(one.stored for one in both), "either may be old"


@contextmanager
def _busy(pass_s: float) -> Iterator[None]:
    """Let every pass of the event loop take so long, as when there is much to do."""
    loop, running = asyncio.get_running_loop(), True

    def burden() -> None:
        time.sleep(pass_s)
        if running:
            loop.call_soon(burden)

    burden()
    try:
        yield
    finally:
        running = False


async def test_a_backlog_is_read_however_busy_the_loop_is(broker: RealBroker) -> None:
    """One message a pass would take 20 s here, and a broker gives up whoever leaves its messages lying (NATS: 10 s)."""
    async with Tap(broker.port).open() as tap:
        async with _linked(tap.port):
            pass
        await _publish(broker, *(b"%d" % number for number in range(1000)))
        async with Linked(tap.port).running() as linked:
            began_s = time.monotonic()
            with _busy(0.02):
                async with asyncio.timeout(10):
                    taken = [await linked.take() for _ in range(1000)]
                    for delivery in taken:
                        linked.link.acknowledge(delivery)
                    await linked.passed()
            assert time.monotonic() - began_s < 5
            assert {delivery.payload for delivery in taken} == {b"%d" % number for number in range(1000)}
            assert tap.connections == 2
            assert len(tap.acknowledged()) == 1000


async def test_a_lost_connection_is_noticed_at_once_behind_any_backlog(broker: RealBroker) -> None:
    async with Tap(broker.port).open() as tap, _linked(tap.port) as linked:
        await _publish(broker, *(b"%d" % number for number in range(500)))
        await linked.take()
        tap.cut()
        async with asyncio.timeout(2):
            while linked.link.connected.is_set():
                await asyncio.sleep(0.001)


async def test_a_message_may_lie_across_pieces(broker: RealBroker) -> None:
    """What is read at once ends anywhere: in a length, in a topic, in a payload of many times its size."""
    sizes = (1, 120, 16_000, 33_000, 100_000, 2, 32_768, 5)
    async with _linked(broker.port) as linked:
        await _publish(broker, *(bytes([number]) * size for number, size in enumerate(sizes)))
        taken = [await linked.take() for _ in sizes]
        assert [delivery.payload for delivery in taken] == [bytes([number]) * size for number, size in enumerate(sizes)]


async def test_a_link_that_is_to_wait_reads_nothing_and_then_goes_on(broker: RealBroker) -> None:
    waits = False
    async with _linked(broker.port, piece=2048, rest_s=0.004, wait=lambda: waits) as linked:
        waits = True
        await _publish(broker, *(b"%d" % number for number in range(300)))
        await asyncio.sleep(0.5)
        assert linked.taken.empty()
        waits = False
        taken = [await linked.take() for _ in range(300)]
        assert [delivery.payload for delivery in taken] == [b"%d" % number for number in range(300)]
        for delivery in taken:
            linked.link.acknowledge(delivery)
        await linked.passed()


async def test_a_link_that_rests_is_as_quick_as_there_is_to_read_and_outlives_a_lost_connection(
    broker: RealBroker,
) -> None:
    async with Tap(broker.port).open() as tap, _linked(tap.port, piece=2048, rest_s=0.5) as linked:
        await linked.passed()
        began_s = time.monotonic()
        await _publish(broker, *(b"x" * 1000 for _ in range(100)))
        for _ in range(100):
            linked.link.acknowledge(await linked.take())
        assert time.monotonic() - began_s < 10, "it does not rest after every piece"
        await linked.passed()
        tap.cut()
        await _publish(broker, b"two")
        assert (await linked.take()).payload == b"two"
        assert tap.connections == 2


async def test_what_is_posted_arrives_without_waiting(broker: RealBroker) -> None:
    async with _linked(broker.port) as linked:
        for number in range(100):
            linked.link.post(TOPIC, b"%d" % number)
        assert [(await linked.take()).payload for _ in range(100)] == [b"%d" % number for number in range(100)]


async def test_acknowledgements_leave_in_the_order_of_arrival(broker: RealBroker) -> None:
    async with Tap(broker.port).open() as tap, _linked(tap.port) as linked:
        await _publish(broker, *(b"%d" % number for number in range(5)))
        taken = [await linked.take() for _ in range(5)]
        arrived = [delivery.mid for delivery in taken]
        for number in (2, 1, 4):
            linked.link.acknowledge(taken[number])
        await linked.passed()
        assert tap.acknowledged() == []
        linked.link.acknowledge(taken[0])
        await linked.passed()
        assert tap.acknowledged() == arrived[:3]
        linked.link.acknowledge(taken[3])
        await linked.passed()
        assert tap.acknowledged() == arrived


async def test_a_second_acknowledgement_of_the_same_message_acknowledges_no_other(broker: RealBroker) -> None:
    async with Tap(broker.port).open() as tap, _linked(tap.port) as linked:
        await _publish(broker, b"one", b"two")
        one, two = await linked.take(), await linked.take()
        linked.link.acknowledge(one)
        linked.link.acknowledge(one)
        await linked.passed()
        assert tap.acknowledged() == [one.mid]
        linked.link.acknowledge(two)
        await linked.passed()
        assert tap.acknowledged() == [one.mid, two.mid]


async def test_an_acknowledgement_from_before_the_connection_was_lost_is_dropped(broker: RealBroker) -> None:
    async with Tap(broker.port).open() as tap, _linked(tap.port) as linked:
        await _publish(broker, b"one")
        old = await linked.take()
        tap.cut()
        new = await linked.take()
        linked.link.acknowledge(old)
        await linked.passed()
        assert tap.acknowledged() == []
        linked.link.acknowledge(new)
        await linked.passed()
        assert tap.acknowledged() == [new.mid]


async def test_a_message_sent_again_while_it_is_under_way_is_not_handed_out_twice(nats: RealBroker) -> None:
    async with Tap(nats.port).open() as tap, _linked(tap.port) as linked:
        await _publish(nats, b"one")
        one = await linked.take()
        await tap.until(lambda: [packet.payload for packet in tap.passed].count(b"one") >= 3)
        assert {packet.mid for packet in tap.passed if packet.payload == b"one"} == {one.mid}
        await _publish(nats, b"two")
        assert (await linked.take()).payload == b"two"
        linked.link.acknowledge(one)
        await linked.passed()
        assert tap.acknowledged() == [one.mid]


async def test_what_was_sent_again_and_is_read_late_hides_no_other_message(nats: RealBroker) -> None:
    """The broker tires, we acknowledge, and only then read what it sent again: its numbers are others' by now."""
    first, second = [b"first %d" % n for n in range(100)], [b"second %d" % n for n in range(100)]
    async with _linked(nats.port) as linked:
        await _publish(nats, *first)
        held = [await linked.take() for _ in first]
        time.sleep(3.5)  # noqa: ASYNC251 # nothing is read meanwhile, and the broker sends all of them again
        linked.link.acknowledge_all(held)
        await _publish(nats, *second)
        got: list[bytes] = []
        async with asyncio.timeout(20):
            while not set(second) <= set(got):
                await asyncio.sleep(0.3)  # whatever has come meanwhile is acknowledged together
                held = [linked.taken.get_nowait() for _ in range(linked.taken.qsize())]
                got += [delivery.payload for delivery in held]
                linked.link.acknowledge_all(held)
        assert sorted(got) == sorted(second)


async def test_what_a_broker_goes_on_to_send_is_handed_out_in_the_end(
    nats: RealBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A press that looks like one that was acknowledged, number and all, is late by this at the most, never hidden."""
    monkeypatch.setattr("gateway.links.mqtt._STALE_FOR_S", 2.5)
    async with _linked(nats.port) as linked:
        await _publish(nats, b"one")
        one = await linked.take()
        # As if the same words had been acknowledged under this number a moment ago.
        content = hash((one.topic, one.payload))
        linked.link._acknowledged[one.mid] = content, time.monotonic()
        linked.link._under_way.clear()
        again = await linked.take()
        assert (again.mid, again.payload) == (one.mid, b"one")
        assert again.received_mono - one.received_mono > 2
        linked.link.acknowledge_all([one, again])
        await linked.passed()


async def test_a_packet_number_that_is_used_again_is_a_new_message(broker: RealBroker) -> None:
    """What looks like a repeat of an acknowledged message may be the next press."""
    async with Tap(broker.port, one_number=True).open() as tap, _linked(tap.port) as linked:
        for number in range(3):
            await _publish(broker, b"%d" % number)
            delivery = await linked.take()
            assert (delivery.payload, delivery.mid) == (b"%d" % number, 1)
            linked.link.acknowledge(delivery)
        await linked.passed()
        assert tap.acknowledged() == [1, 1, 1]


async def test_a_restart_of_the_broker_loses_nothing(broker: RealBroker) -> None:
    async with _linked(broker.port) as linked:
        await _publish(broker, b"one", b"two")
        linked.link.acknowledge(await linked.take())
        assert (await linked.take()).payload == b"two"
        await linked.passed()
        await broker.stop()
        await broker.start()
        assert (await linked.take()).payload == b"two"
        await _publish(broker, b"three")
        assert (await linked.take()).payload == b"three"


async def test_publishing_says_when_there_is_no_broker_and_works_when_it_came(tmp_path: Path) -> None:
    broker = RealBroker("nats", tmp_path)
    broker.configure()
    async with Linked(broker.port, subscribes=False).running() as linked:
        with pytest.raises(LinkDown):
            await linked.link.publish(ELSEWHERE, b"", qos=1)
        with pytest.raises(LinkDown):
            linked.link.post(ELSEWHERE, b"")
        await broker.start()
        try:
            await linked.connected()
            await linked.link.publish(ELSEWHERE, b"", qos=1)
        finally:
            await broker.stop()
        async with asyncio.timeout(20):
            with pytest.raises(LinkDown):
                while True:
                    await linked.link.publish(ELSEWHERE, b"", qos=1, timeout_s=0.2)


async def test_a_refused_subscription_is_an_error_and_tried_again(tmp_path: Path) -> None:
    async with broker_running("nats", tmp_path, deny='"okc.>"') as broker, Tap(broker.port).open() as tap:
        async with Linked(tap.port).running() as linked:
            async with asyncio.timeout(20):
                while tap.connections < 2:
                    assert not linked.link.connected.is_set()
                    await asyncio.sleep(0.01)
            broker.configure()
            broker.reload()
            await linked.connected()
            await _publish(broker, b"one")
            assert (await linked.take()).payload == b"one"


async def test_a_link_without_filters_keeps_no_session(broker: RealBroker) -> None:
    async with _linked(broker.port) as linked:
        await _publish(broker, b"one")
        await linked.take()
    async with _linked(broker.port, subscribes=False) as linked:
        await linked.passed()
    async with _linked(broker.port) as linked:
        await _publish(broker, b"two")
        assert (await linked.take()).payload == b"two"
