"""As many reports as are allowed, from few connections: what a gateway is drowned in to see how much it can drink.

A process of its own. It is told its `Orders`, then how many reports it may have sent in all, again and again, and says
its `Progress`. So what is on its way is bounded by whoever watches the gateway, and the load adapts to it.
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import uvloop

from firmware_sim.children import hearing, say
from firmware_sim.load import Connection, Progress, connected, keep_alive, publish_packet
from schemas.reports import HeartbeatReport

__all__ = ["Orders"]

_TICK_S = 0.005
_MOST_A_TICK = 200
_REPORT_EVERY_S = 0.05
_BEAT = b'{"v":1,"boot":1,"seq":%d,"at":"%s","battery_pct":88,"battery_mv":3900,"signal_dbm":-71,"mains":true}'
HeartbeatReport.model_validate_json(_BEAT % (1, b"2026-01-01T00:00:00Z"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """Who sends what where: client id and secret of each connection, and its topic.

    ``user`` is the name under which all of them come, their own where it is None.
    """

    mqtt: str
    clients: list[tuple[str, str]]
    topics: list[str]
    user: str | None = None


class _Source(Connection):
    """A terminal with much to tell."""

    def __init__(self, client: str, secret: str, progress: Progress, *, user: str | None) -> None:
        super().__init__(client, secret, progress, user=user)
        self.topic = b""
        self._seq = 0

    def beat(self, at: bytes) -> None:
        self._seq += 1
        self.publish(publish_packet(self.topic, self._seq % 65_535 + 1, _BEAT % (self._seq, at)))


class _Flood:
    def __init__(self, sources: Sequence[_Source], progress: Progress) -> None:
        self._sources = sources
        self._progress = progress
        self._next = 0
        self.allowed = 0

    async def run(self) -> None:
        while True:
            most = min(self.allowed - self._next, _MOST_A_TICK)
            at = datetime.now(UTC).isoformat(timespec="milliseconds").encode()
            for number in range(self._next, self._next + max(0, most)):
                self._sources[number % len(self._sources)].beat(at)
            self._next += max(0, most)
            await asyncio.sleep(_TICK_S)

    async def report(self) -> None:
        while True:
            say(asdict(self._progress))
            await asyncio.sleep(_REPORT_EVERY_S)


async def _run() -> None:
    """Connect, then send what is allowed until standard input is closed."""
    told = await hearing()
    orders = Orders(**json.loads(await told.readline()))
    progress = Progress()
    sources = await connected(
        orders.mqtt, orders.clients, lambda client, secret: _Source(client, secret, progress, user=orders.user)
    )
    for source, topic in zip(sources, orders.topics, strict=True):
        source.topic = topic.encode()
    flood = _Flood(sources, progress)
    async with asyncio.TaskGroup() as tasks:
        work = [
            tasks.create_task(flood.run(), name="flood"),
            tasks.create_task(keep_alive(sources), name="keep alive"),
            tasks.create_task(flood.report(), name="report"),
        ]
        while line := await told.readline():
            flood.allowed = json.loads(line)
        for task in work:
            task.cancel()


if __name__ == "__main__":
    uvloop.run(_run())
