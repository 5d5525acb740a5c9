"""The inbox: alarms that have to wait are put on disk as they came, and the broker may forget them (I1).

A broker takes acknowledgements in the order in which it sent, and sends again what it waits for too long: a district's
power cut that is stored case by case would hold back the acknowledgement of the fall in its midst, and come again and
again itself. So whatever cannot be stored at once as what it is is kept here, many in one statement, until it is.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from random import Random

import psycopg

from gateway.links.mqtt import Delivery
from gateway.metrics import INBOX
from gateway.store import inbox
from gateway.store.inbox import NewMessage, WaitingMessage
from gateway.store.pool import Pool, is_data_error

__all__ = ["Inbox"]

_log = logging.getLogger(__name__)

_MOST = 1000
_MOST_KEPT = 50_000
_LOOK_EVERY_S = 1.0
_STRIKE_EVERY_S = 0.2


class Inbox:
    """Keeps what waits, and finds what others kept who are dead."""

    def __init__(
        self,
        pool: Pool,
        *,
        worker: Callable[[], int | None],
        found: Callable[[Delivery], None],
        rng: Random,
    ) -> None:
        """`found` hears of what a dead worker left: it is to be stored like any other.

        Everything is kept in the name of `worker()`, and nothing while that is None.
        """
        self._pool = pool
        self._worker = worker
        self._found = found
        self._rng = rng
        self._new: dict[Delivery, Callable[[], None]] = {}
        self._kept: dict[Delivery, int] = {}
        self._over: list[int] = []
        self._wake = asyncio.Event()

    def put(self, delivery: Delivery, safe: Callable[[], None]) -> None:
        """Keep a delivery that waits, and call `safe` once it is on disk. What is too much is the broker's to keep."""
        if len(self._kept) < _MOST_KEPT:
            self._new[delivery] = safe
            self._wake.set()

    def strike(self, delivery: Delivery) -> None:
        """Forget a delivery: it is stored as what it is, or waits no more for another reason."""
        self._new.pop(delivery, None)
        if (number := self._kept.pop(delivery, None)) is not None:
            self._over.append(number)
            INBOX.set(len(self._kept))

    async def run(self) -> None:
        """Keep, strike and look until cancelled."""
        looked_s = struck_s = 0.0
        while True:
            try:
                async with asyncio.timeout(_STRIKE_EVERY_S if self._over else _LOOK_EVERY_S):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            worker, now_s = self._worker(), time.monotonic()
            try:
                if worker is not None:
                    await self._keep(worker)
                    if now_s - looked_s >= _LOOK_EVERY_S:
                        await self._look(worker)
                        looked_s = now_s
                if now_s - struck_s >= _STRIKE_EVERY_S:
                    await self._strike()
                    struck_s = now_s
            except psycopg.Error as exc:
                # What is not kept is not acknowledged: the broker has it, and it waits here to be stored.
                _log.warning("the inbox cannot be used yet: %s %s", type(exc).__name__, exc.sqlstate)
                await asyncio.sleep(self._rng.uniform(0.3, 1.0))

    async def _keep(self, worker: int) -> None:
        while self._new:
            batch = list(self._new)[:_MOST]
            messages = [NewMessage(one.topic, one.payload, one.received_at, one.retained) for one in batch]
            try:
                async with self._pool.connection() as conn:
                    numbers = await inbox.add(conn, messages, worker=worker)
            except psycopg.Error as exc:
                if not is_data_error(exc):
                    raise
                _log.warning("the database refuses %d messages in the inbox", len(batch))
                numbers = []
            for delivery, number in zip(batch, numbers, strict=bool(numbers)):
                if (safe := self._new.get(delivery)) is not None:
                    self._kept[delivery] = number
                    safe()
                else:
                    self._over.append(number)  # it was stored meanwhile
            for delivery in batch:
                self._new.pop(delivery, None)
            INBOX.set(len(self._kept))

    async def _strike(self) -> None:
        if over := self._over[:]:
            async with self._pool.connection() as conn:
                await inbox.strike(conn, over)
            del self._over[: len(over)]

    async def _look(self, worker: int) -> None:
        room = _MOST_KEPT - len(self._kept)
        if room <= 0:
            return
        holding = [*self._kept.values(), *self._over]
        async with self._pool.connection() as conn:
            lost = await inbox.take_over(conn, worker, holding=holding, limit=min(room, _MOST))
        for message in lost:
            delivery = _again(message)
            self._kept[delivery] = message.id
            self._found(delivery)
        if lost:
            _log.warning("%d alarms waited for a gateway that is gone: they are stored now", len(lost))


def _again(message: WaitingMessage) -> Delivery:
    """Return a message as one that its broker has kept: somebody may have stored it before."""
    return Delivery(
        topic=message.topic,
        payload=message.payload,
        qos=0,
        retained=message.retained,
        received_at=message.received_at,
        received_mono=time.monotonic(),
        mid=0,
        session=-1,
        stored=True,
        done=True,
    )
