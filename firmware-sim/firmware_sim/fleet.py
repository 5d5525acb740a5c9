"""Many virtual terminals on one broker, each with a connection of its own, and a record of every press."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from random import Random
from time import monotonic_ns
from urllib.parse import urlsplit
from uuid import UUID

import aiomqtt

from firmware_sim.terminal import (
    Lost,
    Output,
    Pressed,
    PressKey,
    Publish,
    Received,
    Terminal,
    TerminalConfig,
)
from protocols.okc import terminal_subscribe_filters

__all__ = ["Broker", "Fleet", "FleetCounts", "Member", "Pace", "PressRecord", "running"]

log = logging.getLogger(__name__)

_MAX_IN_FLIGHT = 10_000
"""paho holds back what is above its limit (20 by default): an alarm would wait behind unconfirmed heartbeats."""

_FIRST_RECONNECT_S = 0.5
_LONGEST_RECONNECT_S = 15.0


@dataclass(frozen=True, slots=True)
class Broker:
    """Where the broker listens."""

    host: str
    port: int

    @classmethod
    def from_url(cls, url: str) -> "Broker":
        """Parse ``mqtt://host:port``.

        Raises:
            ValueError: Another scheme, or no host.
        """
        parts = urlsplit(url)
        if parts.scheme != "mqtt" or not parts.hostname:
            raise ValueError(f"not an address like mqtt://host:port: {url!r}")
        return cls(parts.hostname, parts.port or 1883)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A terminal with its credential."""

    config: TerminalConfig
    secret: str = field(repr=False)


@dataclass(slots=True, eq=False, kw_only=True)
class PressRecord:
    """What became of one press. Times are ``time.monotonic_ns``, the same clock in every process of this machine.

    Attributes:
        published_ns: When the first publication went to the broker.
        confirmed_ns: When the broker confirmed one (PUBACK); says nothing about the gateway.
        received_ns: When the gateway said ``received`` at the terminal.
        lost: The terminal's memory was wiped before that.
    """

    terminal: str
    kinds: tuple[str, ...]
    test: bool
    pressed_at: datetime
    pressed_ns: int
    key: PressKey
    published_ns: int | None = None
    confirmed_ns: int | None = None
    received_ns: int | None = None
    case: UUID | None = None
    publications: int = 0
    lost: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event, repr=False)


@dataclass(slots=True)
class FleetCounts:
    """Sums over all terminals since the start."""

    connects: int = 0
    disconnects: int = 0
    telemetry_sent: int = 0
    telemetry_confirmed: int = 0


class Pace:
    """Lets one through at a time, so many a second."""

    def __init__(self, per_s: float) -> None:
        self._interval_s = 1 / per_s
        self._next_s = 0.0

    async def turn(self) -> None:
        """Wait until it is the caller's turn. Turns that nobody took are not saved up."""
        now_s = asyncio.get_running_loop().time()
        at_s = max(now_s, self._next_s)
        self._next_s = at_s + self._interval_s
        await asyncio.sleep(at_s - now_s)


class _Node:
    """One terminal and its connection."""

    def __init__(self, fleet: "Fleet", member: Member, rng: Random) -> None:
        self.terminal = Terminal(member.config, rng)
        self.connected = asyncio.Event()
        self._fleet = fleet
        self._member = member
        self._rng = rng
        self._outbox: asyncio.Queue[Publish] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._open: dict[PressKey, PressRecord] = {}
        self._failures = 0
        self.was_online = False

    async def run(self) -> None:
        try:
            while True:
                await self._fleet.pace.turn()
                try:
                    await self._converse()
                except* aiomqtt.MqttError as group:
                    log.debug("terminal %s lost its connection: %s", self._member.config.id, group.exceptions[0])
                # A connection that is lost in the moment in which we are to end covers the cancellation: a task group
                # tells only of the loss, and `asyncio.wait_for` of Python 3.11 forgets it.
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise asyncio.CancelledError
                wait_s = min(_FIRST_RECONNECT_S * 2 ** min(self._failures, 16), _LONGEST_RECONNECT_S)
                self._failures += 1
                await asyncio.sleep(wait_s * self._rng.uniform(0.5, 1.0))
        finally:
            if self._timer is not None:
                self._timer.cancel()

    async def _converse(self) -> None:
        terminal = self._member.config.id
        async with aiomqtt.Client(
            self._fleet.broker.host,
            self._fleet.broker.port,
            identifier=terminal,
            username=terminal,
            password=self._member.secret,
            protocol=aiomqtt.ProtocolVersion.V311,
            clean_session=True,
            max_inflight_messages=_MAX_IN_FLIGHT,
            max_queued_outgoing_messages=0,
            socket_options=((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),),
            logger=log,
        ) as client:
            client.pending_calls_threshold = _MAX_IN_FLIGHT
            await client.subscribe([(topic, 0) for topic in terminal_subscribe_filters(terminal)])
            self._outbox = asyncio.Queue()
            self._fleet.counts.connects += 1
            try:
                self.apply(self.terminal.connected)
                self.connected.set()
                self.was_online = True
                self._failures = 0
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._listen(client), name=f"listen {terminal}")
                    while True:
                        publish = await self._outbox.get()
                        tasks.create_task(self._publish(client, publish), name=f"publish {terminal}")
            finally:
                self._outbox = None
                self.connected.clear()
                self._fleet.counts.disconnects += 1
                self.apply(self.terminal.disconnected)

    async def _listen(self, client: aiomqtt.Client) -> None:
        async for message in client.messages:
            payload = message.payload if isinstance(message.payload, bytes) else b""
            self.apply(partial(self.terminal.received, message.topic.value, payload))

    async def _publish(self, client: aiomqtt.Client, publish: Publish) -> None:
        record = None if publish.press is None else self._open.get(publish.press)
        if record is None:
            self._fleet.counts.telemetry_sent += 1
        else:
            record.publications += 1
            record.published_ns = record.published_ns or monotonic_ns()
        await client.publish(publish.topic, publish.payload, publish.qos)
        if record is None:
            self._fleet.counts.telemetry_confirmed += publish.qos
        else:
            record.confirmed_ns = record.confirmed_ns or monotonic_ns()

    def press(self, kinds: Sequence[str], *, test: bool) -> PressRecord | None:
        pressed_ns = monotonic_ns()
        made: list[PressRecord] = []

        def press(now: datetime) -> list[Output]:
            outputs = self.terminal.press(now, kinds, test=test)
            for output in outputs:
                if isinstance(output, Pressed):
                    record = PressRecord(
                        terminal=self._member.config.id,
                        kinds=tuple(kinds),
                        test=test,
                        pressed_at=now,
                        pressed_ns=pressed_ns,
                        key=output.key,
                    )
                    self._open[output.key] = record
                    made.append(record)
            return outputs

        self.apply(press)
        return made[0] if made else None

    def apply(self, step: Callable[[datetime], list[Output]]) -> None:
        """Give the terminal an input, carry out what follows and wind its timer."""
        for output in step(self._fleet.clock()):
            match output:
                case Publish():
                    if self._outbox is not None:
                        self._outbox.put_nowait(output)
                case Received(key=key, case=case):
                    if (record := self._open.pop(key, None)) is not None:
                        record.received_ns = monotonic_ns()
                        record.case = case
                        record.ended.set()
                case Lost(key=key):
                    if (record := self._open.pop(key, None)) is not None:
                        record.lost = True
                        record.ended.set()
            self._fleet.on_output(self._member.config.id, output)
        if self._timer is not None:
            self._timer.cancel()
        deadline = self.terminal.next_deadline()
        if deadline is not None:
            delay_s = max(0.0, (deadline - self._fleet.clock()).total_seconds())
            self._timer = asyncio.get_running_loop().call_later(delay_s, self.apply, self.terminal.handle_timer)


def _steady_clock() -> Callable[[], datetime]:
    """Return a clock that starts at the wall's time and cannot be set, so that no timer jumps with it."""
    began_at, began_ns = datetime.now(UTC).timestamp(), monotonic_ns()
    return lambda: datetime.fromtimestamp(began_at + (monotonic_ns() - began_ns) / 1e9, UTC)


class Fleet:
    """Terminals that run in this process.

    Attributes:
        presses: Every press so far, in the order of pressing.
        on: Set once every terminal has power; from then on keys can be pressed, with or without a connection.
        on_output: Called with terminal id and output, after the fleet did its own part.
    """

    def __init__(
        self,
        broker: Broker,
        members: Iterable[Member],
        *,
        rng: Random,
        connects_per_s: float = 200.0,
        clock: Callable[[], datetime] | None = None,
        on_output: Callable[[str, Output], None] = lambda _terminal, _output: None,
    ) -> None:
        self.broker = broker
        self.pace = Pace(connects_per_s)
        self.clock = clock or _steady_clock()
        self.counts = FleetCounts()
        self.presses: list[PressRecord] = []
        self.on = asyncio.Event()
        self.on_output = on_output
        self._members = tuple(members)
        self._rng = rng
        self._nodes = {member.config.id: _Node(self, member, Random(rng.random())) for member in self._members}

    @property
    def online(self) -> int:
        """How many terminals are connected now."""
        return self.counts.connects - self.counts.disconnects

    @property
    def terminals(self) -> tuple[str, ...]:
        """The ids of all terminals."""
        return tuple(self._nodes)

    def terminal(self, terminal: str) -> Terminal:
        """Return the state machine of `terminal`, for looking at."""
        return self._nodes[terminal].terminal

    def was_online(self, terminal: str) -> bool:
        """Say whether `terminal` was connected at least once."""
        return self._nodes[terminal].was_online

    async def run(self) -> None:
        """Switch every terminal on and keep it connected until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for terminal, node in self._nodes.items():
                node.apply(node.terminal.power_on)
                tasks.create_task(node.run(), name=f"terminal {terminal}")
            self.on.set()

    def press(self, terminal: str, kinds: Sequence[str] = ("sos",), *, test: bool = False) -> PressRecord:
        """Press the key of `terminal`.

        Raises:
            RuntimeError: The terminal is switched off.
        """
        record = self._nodes[terminal].press(kinds, test=test)
        if record is None:
            raise RuntimeError(f"terminal {terminal} is off")
        self.presses.append(record)
        return record

    def say(self, terminal: str, name: str, value: str | int | None = None) -> None:
        """Let `terminal` publish an event, as ``cancel`` or ``key.ok``."""
        node = self._nodes[terminal]
        node.apply(lambda now: node.terminal.say(now, name, value))

    def restart(self, terminal: str) -> None:
        """Take the power away and give it back: counts a boot; the broker sees nothing of it."""
        node = self._nodes[terminal]
        online = node.connected.is_set()
        node.apply(node.terminal.power_on)
        if online:
            node.apply(node.terminal.connected)

    def reflash(self, terminal: str) -> None:
        """Wipe the memory of `terminal`: boot count and numbers begin again."""
        node = self._nodes[terminal]
        online = node.connected.is_set()
        node.apply(node.terminal.reflash)
        if online:
            node.apply(node.terminal.connected)

    async def wait_online(self) -> None:
        """Wait until every terminal was connected."""
        for node in self._nodes.values():
            await node.connected.wait()

    async def wait_received(self, *records: PressRecord) -> None:
        """Wait until the gateway said ``received`` for each of `records`, or all presses when none is named."""
        for record in records or tuple(self.presses):
            await record.ended.wait()


@asynccontextmanager
async def running(fleet: Fleet) -> AsyncIterator[Fleet]:
    """Run `fleet` for the length of a block, which begins when all its terminals have power."""
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(fleet.run(), name="fleet")
        try:
            await fleet.on.wait()
            yield fleet
        finally:
            task.cancel()
