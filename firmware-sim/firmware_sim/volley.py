"""Every key at once: alarms from many terminals, published as fast as this process can write.

It is told `Orders`, connects and says how many are online. Then it is told, once or several times, `Fire`; it also
answers "progress" and "report". Nobody repeats an alarm, as a terminal would after two seconds: a repeat would hide a
loss.
"""

import asyncio
import json
import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from time import monotonic, monotonic_ns, process_time

import uvloop

from firmware_sim.children import hearing, say
from firmware_sim.load import PUBACK, Connection, Progress, connected, keep_alive, publish_packet, subscribe_packet
from protocols.okc import Down, Up, down_topic, up_topic

__all__ = ["Fire", "Fired", "Orders", "Seen"]

_PUBLISH, _SUBACK = 0x30, 0x90
_FIRED_AT_ONCE = 250
_TICK_S = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """Who publishes: pairs of id and secret."""

    mqtt: str
    terminals: list[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fire:
    """Who publishes what: pairs of a terminal's number and a payload. ``over_s``: in so many seconds, 0 at once."""

    payloads: list[tuple[int, str]]
    over_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """How far it is: terminals that heard ``received``, and the processor time of this process so far."""

    received: int
    cpu_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fired:
    """One alarm. Times are ``time.monotonic_ns``; ``heard`` is what the gateway said on down/ack."""

    terminal: str
    published_ns: int | None
    confirmed_ns: int | None
    received_ns: int | None
    heard: str | None


class _Armed(Connection):
    """A terminal with its finger on the key."""

    def __init__(self, terminal: str, secret: str, progress: Progress) -> None:
        super().__init__(terminal, secret, progress)
        self.listening: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.published_ns: int | None = None
        self.confirmed_ns: int | None = None
        self.received_ns: int | None = None
        self.heard: bytes | None = None

    def take(self, kind: int, body: bytes) -> None:
        if kind == _PUBLISH:
            if self.heard is None:
                self.received_ns = monotonic_ns()
                # QoS 0: no packet identifier between topic and payload (MQTT 3.1.1, 3.3.2.2).
                self.heard = body[2 + struct.unpack_from(">H", body)[0] :]
        elif kind == _SUBACK:
            self.listening.set_result(None)
        else:
            if kind == PUBACK:
                self.confirmed_ns = monotonic_ns()
            super().take(kind, body)

    async def listen(self) -> None:
        self.send(subscribe_packet(down_topic(self.terminal, Down.ACK).encode(), 1))
        await self.listening

    def fire(self, packet: bytes) -> None:
        now_ns = monotonic_ns()
        if self.publish(packet):
            self.published_ns = now_ns


async def _fire(armed: Sequence[_Armed], fire: Fire) -> None:
    packets = [
        (armed[number], publish_packet(up_topic(armed[number].terminal, Up.ALARM).encode(), 2, payload.encode()))
        for number, payload in fire.payloads
    ]
    began_s, fired = monotonic(), 0
    while fired < len(packets):
        due = len(packets) if not fire.over_s else int((monotonic() - began_s) / fire.over_s * len(packets)) + 1
        for terminal, packet in packets[fired : min(due, fired + _FIRED_AT_ONCE)]:
            terminal.fire(packet)
            fired += 1
        # Whatever else is to be fired need not wait for the whole of a long list.
        await asyncio.sleep(0 if fired < due else _TICK_S)


def _report(armed: Sequence[_Armed]) -> None:
    for terminal in armed:
        fired = Fired(
            terminal=terminal.terminal,
            published_ns=terminal.published_ns,
            confirmed_ns=terminal.confirmed_ns,
            received_ns=terminal.received_ns,
            heard=None if terminal.heard is None else terminal.heard.decode(errors="replace"),
        )
        say(asdict(fired))


async def _run() -> None:
    told = await hearing()
    orders = Orders(**json.loads(await told.readline()))
    progress = Progress()
    armed = await connected(orders.mqtt, orders.terminals, lambda terminal, secret: _Armed(terminal, secret, progress))
    async with asyncio.TaskGroup() as tasks:
        alive = tasks.create_task(keep_alive(armed), name="keep alive")
        for terminal in armed:
            await terminal.listen()
        say(progress.online)
        async for line in told:
            match json.loads(line):
                case dict() as fire:
                    tasks.create_task(_fire(armed, Fire(**fire)), name="fire")
                case "progress":
                    received = sum(terminal.received_ns is not None for terminal in armed)
                    say(asdict(Seen(received=received, cpu_s=process_time())))
                case "report":
                    _report(armed)
        alive.cancel()


if __name__ == "__main__":
    uvloop.run(_run())
