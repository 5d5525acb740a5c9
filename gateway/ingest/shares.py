"""Telemetry in shares: each is a session at the broker, and one of the gateways stores it (decision 23).

With one share that session gets everything. With several, heartbeats and positions are dealt out among the sessions by
the broker; events and answers to commands, of which there are few and whose order counts, all come with the first. A
share whose gateway dies is taken over by another within seconds, with all that waits in it: nothing lies with the dead.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import aiomqtt
import psycopg

from gateway.config import Broker
from gateway.links.election import elected
from gateway.links.sharing import end_session, offers_shared
from gateway.store import outbox, supervision
from gateway.store.pool import Pool
from protocols.okc import Up, echo_topic, shared, up_filter

__all__ = ["Share", "Shares", "share_of"]

_log = logging.getLogger(__name__)

_LOCK = 0x74656C65
_GROUP = "onekey"
_KINDS = tuple(kind for kind in Up if kind is not Up.ALARM)
_DEALT = (Up.HEARTBEAT, Up.FIX)
_LOOK_EVERY_S = 1.0
_PATIENCE_S = 5.0
"""How long a gateway leaves a share to those that have fewer."""

_KEEPS_S = 60.0
"""How long it keeps one then, before those that have fewer get another chance."""


@dataclass(frozen=True, slots=True)
class Share:
    """One share: its session at the broker, what that subscribes to and what no more, and the ways of our own words."""

    number: int
    client_id: str
    filters: tuple[tuple[str, int], ...]
    drops: tuple[str, ...]
    ways: tuple[str, ...]


def share_of(number: int, of: int) -> Share:
    """Return share `number` of so many; one that is not among them gets nothing new, and its own words to its end."""
    dealt = tuple(shared(up_filter(kind), _GROUP) for kind in _DEALT)
    plain = tuple(up_filter(kind) for kind in _KINDS)
    client_id = "~telemetry" if number == 0 else f"~telemetry-{number}"
    ways = tuple(echo_topic(kind, number) for kind in (_KINDS if number == 0 else _DEALT))
    if of == 1 and number == 0:
        wanted, drops = plain, dealt
    elif number == 0:
        rest = tuple(up_filter(kind) for kind in _KINDS if kind not in _DEALT)
        own = tuple(echo_topic(kind) for kind in _DEALT)
        wanted, drops = (*dealt, *rest, *own), tuple(up_filter(kind) for kind in _DEALT)
    elif number < of:
        wanted, drops = (*dealt, *ways), ()
    else:
        wanted, drops = ways, dealt
    return Share(number, client_id, tuple((one, 1) for one in wanted), drops, ways)


class Shares:
    """Has as many of the shares stored here as is fair among the gateways that live."""

    def __init__(
        self,
        database: str,
        pool: Pool,
        broker: Broker,
        *,
        wanted: int,
        store: Callable[[Share], Awaitable[None]],
        empty: Callable[[Share], Awaitable[None]],
    ) -> None:
        """`wanted` is the number of shares. `store` stores one until cancelled, `empty` until nothing is left in it."""
        self._database = database
        self._pool = pool
        self._broker = broker
        self._wanted = wanted
        self._store = store
        self._empty = empty
        self._held: set[int] = set()
        self._patient: dict[int, float] = {}
        self._gateways = 1
        self._ends = True
        self.count = 1

    async def run(self) -> None:
        """Take part until cancelled."""
        self.count = self._wanted
        if self._wanted > 1:
            topic = echo_topic(Up.HEARTBEAT, share=self._wanted)
            if not await offers_shared(self._broker, topic, shared(topic, "onekey-probe")):
                _log.error("this broker does not deal messages out: telemetry has one share, not %d", self._wanted)
                self.count = 1
                self._ends = False  # the others may know better, and their shares are not ours to end
        async with asyncio.TaskGroup() as tasks:
            for number in range(self.count):
                tasks.create_task(self._take_part(number), name=f"share-{number}")
            tasks.create_task(self._look_around(tasks), name="shares")

    async def _look_around(self, tasks: asyncio.TaskGroup) -> None:
        """Count who lives, and see to shares that there are no more."""
        ending: set[int] = set()
        while True:
            try:
                async with self._pool.connection() as conn:
                    self._gateways = max(1, await outbox.living(conn))
                    there = await supervision.open_shares(conn)
                for number in there if self._ends else ():
                    if number >= self.count and number not in ending:
                        ending.add(number)
                        tasks.create_task(self._end(number, ending), name=f"share-{number}-ends")
            except psycopg.Error as exc:
                _log.warning("cannot look after the shares of telemetry: %s %s", type(exc).__name__, exc.sqlstate)
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _take_part(self, number: int) -> None:
        while True:
            try:
                await elected(
                    self._database,
                    _LOCK + number,
                    lambda: self._hold(number),
                    eager=lambda free_s: self._eager(number, free_s),
                    stay=lambda: self._stays(number),
                )
            except (psycopg.Error, OSError) as exc:
                _log.warning("share %d of telemetry lost a connection: %s", number, exc)
            except Exception:  # noqa: BLE001 # the alarm lane outlives a failure of any other part (D12)
                _log.exception("share %d of telemetry failed, starting it again", number)
            await asyncio.sleep(_LOOK_EVERY_S)

    def _eager(self, number: int, free_s: float) -> bool:
        """Should this gateway take a share that nobody has held for so long?"""
        self._patient.pop(number, None)
        if len(self._held) < self._fair:
            return True
        if free_s > _PATIENCE_S:
            self._patient[number] = time.monotonic()
            return True
        return False

    def _stays(self, number: int) -> bool:
        """Should it go on with a share, or leave it to another that has fewer?"""
        if len(self._held) <= self._fair or number != max(self._held):
            return True
        return time.monotonic() - self._patient.get(number, -_KEEPS_S) < _KEEPS_S

    @property
    def _fair(self) -> int:
        return math.ceil(self.count / self._gateways)

    async def _hold(self, number: int) -> None:
        self._held.add(number)
        try:
            if number:
                async with self._pool.connection() as conn:
                    await supervision.open_share(conn, number)
            await self._store(share_of(number, self.count))
        finally:
            self._held.discard(number)

    async def _end(self, number: int, ending: set[int]) -> None:
        """Store what still waits in a share that there is no more, and have the broker forget its session."""

        async def empty() -> None:
            share = share_of(number, self.count)
            await self._empty(share)
            await end_session(self._broker, share.client_id)
            async with self._pool.connection() as conn:
                await supervision.close_share(conn, number)
            _log.info("share %d of telemetry is empty and gone", number)

        while True:
            try:
                await elected(self._database, _LOCK + number, empty)
                ending.discard(number)  # somebody with other settings may begin it again
                return
            except (psycopg.Error, OSError, aiomqtt.MqttError) as exc:
                _log.warning("share %d of telemetry cannot be ended yet: %s", number, exc)
            except Exception:  # noqa: BLE001 # as above
                _log.exception("share %d of telemetry cannot be ended", number)
            await asyncio.sleep(_PATIENCE_S)
