"""A fleet that only beats: each terminal at its own interval, some of them silent for a while.

A process of its own. It is told its `Orders`, and says its `Progress` twice a second: also when each of those that fall
silent was last heard before, and first afterwards, by the clock that all processes of a machine share.
"""

import asyncio
import json
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from time import monotonic

import uvloop

from firmware_sim.children import hearing, say
from firmware_sim.load import Connection, Progress, connected, keep_alive, publish_packet
from protocols.okc import Up, up_topic
from schemas.reports import HeartbeatReport

__all__ = ["Group", "Orders"]

_TICK_S = 0.02
_REPORT_EVERY_S = 0.5
_BEAT = b'{"v":1,"boot":1,"seq":%d,"at":"%s","battery_pct":88,"signal_dbm":-71,"mains":true}'
HeartbeatReport.model_validate_json(_BEAT % (1, b"2026-01-01T00:00:00Z"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Terminals with numbers from ``first`` on that beat every ``every_s`` seconds, one after the other."""

    first: int
    count: int
    every_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """Who beats where: the name of a terminal is ``prefix`` and its number.

    All go through a few connections under the name ``user``. ``silent`` are numbers with the seconds after the start
    from when and until when they say nothing.
    """

    mqtt: str
    user: str
    secret: str
    connections: int
    prefix: str
    groups: list[dict[str, float]]
    silent: list[tuple[int, float, float]]


class _Fleet:
    def __init__(self, orders: Orders, lines: Sequence[Connection], progress: Progress) -> None:
        self._lines = lines
        self._progress = progress
        self._groups = [
            Group(first=int(g["first"]), count=int(g["count"]), every_s=g["every_s"]) for g in orders.groups
        ]
        self._prefix = orders.prefix
        self._silent: dict[int, list[tuple[float, float]]] = {}
        for number, begin, end in orders.silent:
            self._silent.setdefault(number, []).append((begin, end))
        self._last: dict[int, float] = {}
        self._packet = 0
        self.spells: list[tuple[int, float, float | None]] = []
        self._open: dict[int, float] = {}

    async def run(self) -> None:
        began_s, before_s = monotonic(), 0.0
        while True:
            now_s = monotonic() - began_s
            at = datetime.now(UTC).isoformat(timespec="milliseconds").encode()
            for group in self._groups:
                # Number n of a group beats at (k + n / count) * every_s.
                step = group.every_s / group.count
                for turn in range(int(before_s / step) + 1, int(now_s / step) + 1):
                    self._beat(group.first + turn % group.count, now_s, at, turn // group.count)
            before_s = now_s
            await asyncio.sleep(_TICK_S)

    def _beat(self, number: int, now_s: float, at: bytes, seq: int) -> None:
        spells = self._silent.get(number)
        if spells is not None:
            place = bisect_left(spells, (now_s, now_s))
            if place and now_s < spells[place - 1][1]:
                if number not in self._open and number in self._last:
                    self._open[number] = self._last[number]
                return
            self._last[number] = monotonic()
            if number in self._open:
                self.spells.append((number, self._open.pop(number), self._last[number]))
        self._packet += 1
        line = self._lines[number % len(self._lines)]
        topic = up_topic(f"{self._prefix}{number}", Up.HEARTBEAT).encode()
        line.publish(publish_packet(topic, self._packet % 65_535 + 1, _BEAT % (seq, at)))

    async def report(self) -> None:
        while True:
            said = asdict(self._progress) | {"ended": self.spells, "going_on": list(self._open.items())}
            self.spells = []
            say(said)
            await asyncio.sleep(_REPORT_EVERY_S)


async def _run() -> None:
    """Connect, then beat until standard input is closed."""
    told = await hearing()
    orders = Orders(**json.loads(await told.readline()))
    progress = Progress()
    clients = [(f"~beats-{number}", orders.secret) for number in range(orders.connections)]
    lines = await connected(
        orders.mqtt, clients, lambda client, secret: Connection(client, secret, progress, user=orders.user)
    )
    fleet = _Fleet(orders, lines, progress)
    async with asyncio.TaskGroup() as tasks:
        work = [
            tasks.create_task(fleet.run(), name="beats"),
            tasks.create_task(keep_alive(lines), name="keep alive"),
            tasks.create_task(fleet.report(), name="report"),
        ]
        await told.read()
        for task in work:
            task.cancel()


if __name__ == "__main__":
    uvloop.run(_run())
