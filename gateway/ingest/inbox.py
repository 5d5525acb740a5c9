"""The inbox: alarms that have to wait are put on disk as they came, and the broker may forget them (I1).

A broker takes acknowledgements in the order in which it sent, and sends again what it waits for too long: a district's
power cut that is stored case by case would hold back the acknowledgement of the fall in its midst, and come again and
again itself. So whatever cannot be stored at once as what it is is kept here, many in one statement, until it is.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
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
_MOST_FOUND = 500
_MOST_BYTES = 1 << 22
_MOST_KEPT = 50_000
_MOST_KEPT_BYTES = 1 << 26
_LOOK_EVERY_S = 1.0
_STRIKE_EVERY_S = 0.2
_KEEP_EVERY_S = 0.05
"""What comes within this time is put on disk together: a commit for each handful would cost what it is to save."""


@dataclass(frozen=True, slots=True)
class _New:
    safe: Callable[[], None]
    hold: bool


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
        self._new: dict[Delivery, _New] = {}
        self._kept: dict[Delivery, int] = {}
        self._bytes = 0
        self._over: list[int] = []
        self._owner: int | None = None
        self._wake = asyncio.Event()

    @property
    def full(self) -> bool:
        """Is there no more room in memory?"""
        return len(self._kept) >= _MOST_KEPT or self._bytes >= _MOST_KEPT_BYTES

    def put(self, delivery: Delivery, safe: Callable[[], None], *, hold: bool = True) -> None:
        """Keep a delivery that waits, and call `safe` once it is on disk.

        Whoever does not want to `hold` it has no room for it now: it is found again when there is.
        """
        self._new[delivery] = _New(safe, hold)
        self._wake.set()

    def strike(self, delivery: Delivery) -> None:
        """Forget a delivery: it is stored as what it is, or waits no more for another reason."""
        self._new.pop(delivery, None)
        if (number := self._kept.pop(delivery, None)) is not None:
            self._bytes -= len(delivery.payload)
            self._over.append(number)
            INBOX.set(len(self._kept))

    async def run(self) -> None:
        """Keep, strike and look until cancelled."""
        looked_s = struck_s = kept_s = 0.0
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STRIKE_EVERY_S if self._over else _LOOK_EVERY_S):
                    await self._wake.wait()
            if self._new:
                await asyncio.sleep(kept_s + _KEEP_EVERY_S - time.monotonic())
            self._wake.clear()
            worker, now_s = self._worker(), time.monotonic()
            well = True
            if worker is not None:
                kept_s = now_s if self._new else kept_s
                well = await self._tried(self._keep(worker))
                if now_s - looked_s >= _LOOK_EVERY_S:
                    well = await self._tried(self._look(worker)) and well
                    looked_s = now_s
            if self._over and now_s - struck_s >= _STRIKE_EVERY_S:
                well = await self._tried(self._strike()) and well
                struck_s = now_s
            if not well:
                await asyncio.sleep(self._rng.uniform(0.3, 1.0))
            if self._new and worker is not None:
                self._wake.set()

    async def _tried(self, part: Awaitable[None]) -> bool:
        try:
            await part
        except psycopg.Error as exc:
            # What is not kept is not acknowledged: the broker has it, and it waits here to be stored.
            _log.warning("the inbox cannot be used yet: %s %s", type(exc).__name__, exc.sqlstate)
            return False
        except Exception:  # noqa: BLE001 # a fault of the inbox must not end the lane: what waits is stored without it (D12)
            _log.exception("the inbox failed")
            return False
        return True

    async def _keep(self, worker: int) -> None:
        """Put what is new on disk, as much as goes well into one statement."""
        if self._owner != worker and self._kept:
            async with self._pool.connection() as conn:
                await inbox.own(conn, list(self._kept.values()), worker=worker)
        self._owner = worker
        batch, size = [], 0
        for delivery in self._new:
            batch.append(delivery)
            size += len(delivery.payload)
            if len(batch) >= _MOST or size >= _MOST_BYTES:
                break
        if not batch:
            return
        messages = [NewMessage(one.topic, one.payload, one.received_at, one.retained) for one in batch]
        try:
            async with self._pool.connection() as conn:
                numbers = await inbox.add(conn, messages, worker=worker)
        except psycopg.Error as exc:
            if not is_data_error(exc):
                raise
            _log.warning("the database refuses %d messages in the inbox", len(batch))
            for delivery in batch:
                new = self._new.pop(delivery, None)
                if new is not None and not new.hold:
                    self._found(delivery)  # room or not: nobody else holds it
            return
        for delivery, number in zip(batch, numbers, strict=True):
            new = self._new.pop(delivery, None)
            if new is None:
                self._over.append(number)  # it was stored meanwhile
                continue
            if new.hold:
                self._hold(delivery, number)
            new.safe()

    def _hold(self, delivery: Delivery, number: int) -> None:
        self._kept[delivery] = number
        self._bytes += len(delivery.payload)
        INBOX.set(len(self._kept))

    async def _strike(self) -> None:
        over = self._over[:]
        async with self._pool.connection() as conn:
            await inbox.strike(conn, over)
        del self._over[: len(over)]

    async def _look(self, worker: int) -> None:
        """Find what nobody holds: a dead worker's, and what there was no room for."""
        if self.full:
            return
        holding = [*self._kept.values(), *self._over]
        async with self._pool.connection() as conn:
            lost = await inbox.take_over(conn, worker, holding=holding, limit=_MOST_FOUND)
        for message in lost:
            delivery = _again(message)
            self._hold(delivery, message.id)
            self._found(delivery)
            await asyncio.sleep(0)  # whatever comes meanwhile goes first
        if lost:
            _log.warning("%d alarms waited in the inbox and nobody held them: they are stored now", len(lost))


def _again(message: WaitingMessage) -> Delivery:
    """Return a message as one that its broker has kept: somebody may have stored it before."""
    return Delivery(
        topic=message.topic,
        payload=message.payload,
        qos=0,
        retained=message.retained,
        received_at=message.received_at,
        received_mono=time.monotonic() - message.age_s,
        mid=0,
        session=-1,
        stored=True,
        done=True,
    )
