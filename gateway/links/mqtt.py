"""The MQTT link: a persistent session whose messages are acknowledged by us, after they are safe (I1).

aiomqtt 2 acknowledges a message as soon as it is queued, reads one packet a pass of the event loop, and hears of a lost
connection only behind all that is queued: under load a broker then finds its buffer full, gives the link up, and nobody
here knows for half a minute. So here, and only here, its insides are changed: acknowledgement is ours, the socket is
read in pieces (``gateway.links.packets``), messages are handed on where they are read, and a loss is seen at once.
``tests/integration/test_mqtt_link.py`` is the contract with real brokers. What waits here is bounded by what a broker
sends unacknowledged (decision 15).
"""

import asyncio
import contextlib
import logging
import random
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import aiomqtt
from paho.mqtt.client import MQTT_ERR_SUCCESS, ConnectFlags, MQTTMessage
from paho.mqtt.enums import MQTTErrorCode

from gateway.config import Broker
from gateway.links.packets import Pieces, Publish

__all__ = ["Delivery", "LinkDown", "MqttLink"]

_log = logging.getLogger(__name__)

_FIRST_DELAY_S = 0.2
_LONGEST_DELAY_S = 5.0
_REFUSED = 0x80
_PUBACK = bytes((0x40, 2))
_BACKLOG_S = 20.0
_STALE_FOR_S = 30.0
"""How long after its acknowledgement what a broker had sent again before may still be read here."""

_LOOK_AGAIN_S = 0.002

_PIECE = 8_192
"""Bytes read at once: some thirty alarms, a few milliseconds of work before the loop goes on."""


class LinkDown(Exception):
    """There is no connection to the broker now."""


@dataclass(slots=True, eq=False)
class Delivery:
    """One message of the broker, to be acknowledged once. ``received_at`` is our clock's word.

    ``stored``: it may be old, since the broker had kept messages for this session while we were away.
    """

    topic: str
    payload: bytes
    qos: int
    retained: bool
    received_at: datetime
    received_mono: float
    mid: int
    session: int
    stored: bool = False
    done: bool = False


def _end_if_cancelled() -> None:
    """End the task if it was to end while something else came at the same moment.

    `asyncio.wait_for` of Python 3.11 forgets a cancellation when its answer is there too, and a goodbye that fails
    covers one: the link would go on for ever, and with it a process that was told to stop.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _close(client: aiomqtt.Client) -> None:
    """Close the socket that a client may have left open: it would bring messages, and keep its session from others."""
    paho: Any = client._client  # noqa: SLF001
    if paho.socket() is not None:
        paho._sock_close()  # noqa: SLF001


class MqttLink:
    """One connection with a session of its own, reconnected for ever with jittered back-off."""

    def __init__(
        self,
        broker: Broker,
        *,
        client_id: str,
        filters: Sequence[tuple[str, int]] = (),
        drops: Sequence[str] = (),
        piece: int = _PIECE,
        rest_s: float = 0.0,
        wait: Callable[[], bool] = lambda: False,
    ) -> None:
        """Prepare a link that subscribes to `filters` (topic filter, QoS). Without any it keeps no session.

        `drops` are filters that its session may still have from before, and is to have no more. `piece` is how many
        bytes are read before anything else in this process has its turn. Once all is read a link rests for `rest_s`, so
        that more comes at once, and it reads nothing while `wait` says so.
        """
        self._broker = broker
        self._piece = piece
        self._rest_s = rest_s
        self._wait = wait
        self._client_id = client_id
        self._filters = filters
        self._drops = drops
        self._client: aiomqtt.Client | None = None
        self._session = 0
        self._backlog_until = 0.0
        self._unacknowledged: deque[Delivery] = deque()
        self._under_way: set[int] = set()
        self._acknowledged: dict[int, tuple[int, float]] = {}
        self._rng = random.Random(client_id)
        self.connected = asyncio.Event()

    async def run(self, take: Callable[[Delivery], None]) -> None:
        """Stay connected and hand every message to `take`, which must not block, until cancelled."""
        delay_s = _FIRST_DELAY_S
        while True:
            client: aiomqtt.Client | None = None
            try:
                client = self._connect(take)
                async with client:
                    delay_s = _FIRST_DELAY_S
                    await self._subscribe(client)
                    _end_if_cancelled()
                    self.connected.set()
                    _log.info("connected to the broker", extra={"client_id": self._client_id})
                    await self._lost(client)
            except (aiomqtt.MqttError, OSError, TimeoutError) as exc:
                _end_if_cancelled()
                _log.warning("broker connection lost: %s", exc, extra={"client_id": self._client_id})
            finally:
                self._client = None
                self.connected.clear()
                self._session += 1
                self._unacknowledged.clear()
                self._under_way.clear()
                self._acknowledged.clear()
                if client is not None:
                    _close(client)
            await asyncio.sleep(delay_s * self._rng.uniform(0.5, 1.0))
            delay_s = min(delay_s * 2, _LONGEST_DELAY_S)

    async def _lost(self, client: aiomqtt.Client) -> None:
        """Wait until the connection is lost, and say why."""
        gone = client._disconnected  # noqa: SLF001
        await asyncio.wait({gone})
        exc = gone.exception()
        if exc is not None and not isinstance(exc, aiomqtt.MqttError | OSError):
            # Bytes that paho trips over, or a fault of ours in taking a message: the next connection brings it again.
            _log.error("a message could not be taken", exc_info=exc)
            raise aiomqtt.MqttError(f"{type(exc).__name__} while reading") from exc
        raise exc or aiomqtt.MqttError("disconnected")

    def _connect(self, take: Callable[[Delivery], None]) -> aiomqtt.Client:
        client = aiomqtt.Client(
            hostname=self._broker.host,
            port=self._broker.port,
            username=self._broker.user,
            password=self._broker.password,
            identifier=self._client_id,
            protocol=aiomqtt.ProtocolVersion.V311,
            clean_session=not self._filters,
            keepalive=15,
            timeout=10,
            tls_context=ssl.create_default_context() if self._broker.tls else None,
            max_inflight_messages=1000,
        )
        paho: Any = client._client  # noqa: SLF001 # the one place, see the module's text
        paho.manual_ack_set(True)  # noqa: FBT003
        connected: Callable[..., None] = paho.on_connect
        create_socket: Callable[[], socket.socket] = paho._create_socket  # noqa: SLF001
        loop_read: Callable[[int], MQTTErrorCode] = paho.loop_read
        on_socket_open: Callable[..., None] = paho.on_socket_open
        loop, session = asyncio.get_running_loop(), self._session

        def note_session(paho: Any, userdata: Any, flags: ConnectFlags, code: Any, properties: Any = None) -> None:
            if session != self._session:
                return  # a broker that takes its time answers a connection that was given up
            self._backlog_until = time.monotonic() + _BACKLOG_S if flags.session_present else 0.0
            if not code.is_failure:
                self._client = client  # what a session had kept comes before the subscription is confirmed
            connected(paho, userdata, flags, code, properties)

        def in_pieces() -> Pieces:
            sock = create_socket()
            # Without it "received" waits some 40 ms for the acknowledgement of the PUBACK before it.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return Pieces(sock, self._piece)

        def opened(_paho: Any, userdata: Any, sock: Any) -> None:
            on_socket_open(_paho, userdata, sock)  # in a thread of aiomqtt, whose reader ours takes the place of
            loop.call_soon_threadsafe(self._watch, client, sock, session)

        def hand_on(published: Iterable[Publish]) -> None:
            if session != self._session:
                return  # acknowledged on another connection, its number would be another message's
            now, now_mono = datetime.now(UTC), time.monotonic()
            for publish in published:
                if not self._is_again(publish):
                    take(self._delivery(publish, now, now_mono))

        def hand_on_one(paho: Any, userdata: Any, message: MQTTMessage) -> None:
            del paho, userdata
            topic, payload = message._topic.decode(errors="replace"), bytes(message.payload)  # noqa: SLF001
            hand_on((Publish(topic, payload, message.qos, message.retain, message.dup, message.mid),))

        def read(max_packets: int = 1) -> MQTTErrorCode:
            pieces = paho._sock  # noqa: SLF001
            if isinstance(pieces, Pieces) and not paho._in_packet["command"]:  # noqa: SLF001
                hand_on(pieces.publishes())
                if not pieces.for_paho:
                    return MQTT_ERR_SUCCESS
            return loop_read(max_packets)

        paho.on_connect = note_session
        paho.on_message = hand_on_one
        paho.loop_read = read
        paho._create_socket = in_pieces  # noqa: SLF001
        paho.on_socket_open = opened
        client.pending_calls_threshold = 10_000
        return client

    def _watch(self, client: aiomqtt.Client, sock: Pieces, session: int) -> None:
        """Read a socket whenever something has come, and there is no reason to wait."""
        loop, paho = asyncio.get_running_loop(), client._client  # noqa: SLF001
        if session != self._session:
            _close(client)  # it was opened in a thread after we had given up
        if paho.socket() is not sock:
            return
        number = sock.fileno()

        def go_on() -> None:
            if paho.socket() is not sock:
                return
            if self._wait():
                loop.call_later(_LOOK_AGAIN_S, go_on)
                return
            loop.add_reader(number, read)
            if sock.pending():
                loop.call_soon(read)  # of what has been read already the socket says nothing any more

        def read() -> None:
            if paho.socket() is not sock:
                return
            try:
                while not (waiting := self._wait()):
                    paho.loop_read()
                    # What broke the protocol has closed the socket; what came behind it nobody reads.
                    if paho.socket() is not sock or not sock.pending():
                        break
            except Exception as exc:  # noqa: BLE001 # as aiomqtt does it: whatever it is, the connection is of no use
                if not client._disconnected.done():  # noqa: SLF001
                    client._disconnected.set_exception(exc)  # noqa: SLF001
                return
            rest_s = _LOOK_AGAIN_S if waiting else 0.0 if sock.full else self._rest_s
            if rest_s and paho.socket() is sock:
                loop.remove_reader(number)
                loop.call_later(rest_s, go_on)

        loop.add_reader(number, read)

    def _is_again(self, publish: Publish) -> bool:
        """Does a broker that tired of waiting send once more what it has sent on this connection already (NATS, D2)?

        While it is under way here it would fill the memory. And when we were slow to read, it may come after we have
        acknowledged it: taken as new, its second acknowledgement would be one for another message, which bears the
        same packet identifier by then and would be lost. What is not marked as sent again is always new,
        and what the broker goes on to send long after the acknowledgement it does want acknowledged.
        """
        if not (publish.again and publish.qos):
            return False
        if publish.mid in self._under_way:
            return True
        content, at_s = self._acknowledged.get(publish.mid, (0, -_STALE_FOR_S))
        return time.monotonic() - at_s < _STALE_FOR_S and content == hash((publish.topic, publish.payload))

    async def _subscribe(self, client: aiomqtt.Client) -> None:
        if not self._filters:
            return
        granted = await client.subscribe(list(self._filters))
        codes = [code if isinstance(code, int) else code.value for code in granted]
        # A lower QoS than asked for is a refusal too: alarms would come unacknowledged.
        asked = zip(self._filters, codes, strict=True)
        refused = [topic for (topic, qos), code in asked if code >= _REFUSED or code < qos]
        if refused:
            raise aiomqtt.MqttError(f"the broker refuses the subscription to {', '.join(refused)}")
        if self._drops:
            await client.unsubscribe(list(self._drops))

    def _delivery(self, publish: Publish, now: datetime, now_mono: float) -> Delivery:
        delivery = Delivery(
            topic=publish.topic,
            payload=publish.payload,
            qos=publish.qos,
            retained=publish.retained,
            received_at=now,
            received_mono=now_mono,
            mid=publish.mid,
            session=self._session,
            stored=now_mono < self._backlog_until,
        )
        if delivery.qos:
            self._unacknowledged.append(delivery)
            self._under_way.add(delivery.mid)
        return delivery

    def acknowledge(self, delivery: Delivery) -> None:
        """Tell the broker that `delivery` is safe.

        Acknowledgements leave in the order of arrival, as MQTT wants it [MQTT-4.6.0-2]; one of a session that is
        gone is dropped, and the broker sends that message again.
        """
        self.acknowledge_all((delivery,))

    def acknowledge_all(self, deliveries: Iterable[Delivery]) -> None:
        """Do the work of `acknowledge` for many, in one packet to the socket."""
        for delivery in deliveries:
            delivery.done = True
        safe, now_s = bytearray(), time.monotonic()
        while self._unacknowledged and self._unacknowledged[0].done:
            head = self._unacknowledged.popleft()
            if self._client is not None and head.session == self._session:
                self._under_way.discard(head.mid)
                self._acknowledged[head.mid] = hash((head.topic, head.payload)), now_s
                safe += _PUBACK + head.mid.to_bytes(2, "big")
        if safe and self._client is not None:
            # Paho would send each of them alone, which takes longer than to receive a message.
            paho: Any = self._client._client  # noqa: SLF001
            paho._packet_queue(_PUBACK[0], bytes(safe), 0, 0)  # noqa: SLF001

    def post(self, topic: str, payload: bytes) -> None:
        """Publish with QoS 0 and wait for nothing.

        Raises:
            LinkDown: Not connected.
        """
        client = self._client
        if client is None or client._client.publish(topic, payload).rc != MQTT_ERR_SUCCESS:  # noqa: SLF001
            raise LinkDown("not connected to the broker")

    async def publish(self, topic: str, payload: bytes, *, qos: int = 0, timeout_s: float = 5.0) -> None:
        """Publish; with QoS 1 wait until the broker has it.

        Raises:
            LinkDown: Not connected, or lost meanwhile.
        """
        client = self._client
        if client is None:
            raise LinkDown("not connected to the broker")
        try:
            await client.publish(topic, payload, qos=qos, timeout=timeout_s)
        except aiomqtt.MqttError as exc:
            raise LinkDown(str(exc)) from exc

    async def wait_connected(self, timeout_s: float) -> bool:
        """Wait until connected, up to `timeout_s`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self.connected.wait()
        return self.connected.is_set()
