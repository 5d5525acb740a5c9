"""What modems bring: kept first, then read and acted on, each thing in its turn."""

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import timedelta
from random import Random

import psycopg

from gateway.domain.outbox import DueNotice
from gateway.keyring import DataKey
from gateway.modems.driver import Arrived
from gateway.service.phone_messages import Handled, Reply, arrival, handle, ring
from gateway.service.raise_alarm import NoSite
from gateway.service.telemetry import store_states
from gateway.store import phone_in
from gateway.store.directory import Directory
from gateway.store.phone_in import Came
from gateway.store.pool import Pool, is_data_error

__all__ = ["Arrivals"]

_log = logging.getLogger(__name__)

_LOOK_EVERY_S = 1.0
_MOST = 200
_KEPT_FOR = timedelta(days=30)
_CLEAR_EVERY_S = 3600.0
_LATER_S = 30.0


class Arrivals:
    """Keeps what arrives, and deals with it."""

    def __init__(
        self,
        pool: Pool,
        directory: Directory,
        *,
        submit: Callable[[Iterable[DueNotice]], None],
        worker: Callable[[], int | None],
        reply: Callable[[Sequence[Reply]], None],
        heard: Callable[[str, str, str], Awaitable[None]],
        rng: Random,
        observe: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`submit` gets notices to send, `reply` what somebody is to be written back.

        `heard` gets modem, number and words of somebody nobody knows.
        """
        self._pool = pool
        self._directory = directory
        self._submit = submit
        self._worker = worker
        self._reply = reply
        self._heard = heard
        self._rng = rng
        self._observe = observe
        self._wake = asyncio.Event()
        self._key: DataKey | None = None
        self._unsure: set[str] | None = None
        self._later: dict[int, float] = {}

    async def keep(self, modem: str, arrived: Sequence[Arrived]) -> None:
        """Have these on disk before it returns (I1)."""
        self._observe("sms_read")
        async with self._pool.connection() as conn, conn.transaction():
            key = await phone_in.own_key(conn, self._directory.keyring)
            new = [arrival(self._directory, key, modem=modem, pdu=one.pdu, length=one.length) for one in arrived]
            await phone_in.add(conn, new, key=key.id)
        self._observe("sms_kept")
        self._wake.set()

    async def forgotten(self, modem: str, arrived: Sequence[Arrived]) -> None:
        """Know that the modem has these no more; with nothing, that its stores are empty."""
        if not arrived:
            if self._unsure is not None and modem not in self._unsure:
                return
            async with self._pool.connection() as conn:
                await phone_in.emptied(conn, modem)
            self._sure(modem)
            return
        self._observe("sms_deleted")
        async with self._pool.connection() as conn, conn.transaction():
            key = await phone_in.own_key(conn, self._directory.keyring)
            new = [arrival(self._directory, key, modem=modem, pdu=one.pdu, length=one.length) for one in arrived]
            await phone_in.forgotten(conn, [one.digest for one in new])

    def _sure(self, modem: str) -> None:
        self._unsure = set() if self._unsure is None else self._unsure - {modem}

    async def rang(self, modem: str, number: str | None) -> None:
        """Have a call on disk before it returns."""
        async with self._pool.connection() as conn, conn.transaction():
            key = await phone_in.own_key(conn, self._directory.keyring)
            one = ring(self._directory, key, modem=modem, number=number, call=uuid.uuid4().hex)
            await phone_in.add(conn, [one], key=key.id)
        self._wake.set()

    async def run(self) -> None:
        """Deal with what is there until cancelled."""
        cleared_s = 0.0
        clock = asyncio.get_running_loop().time
        while True:
            self._wake.clear()
            if self._worker() is not None:
                try:
                    await self._round(clock())
                    if clock() - cleared_s > _CLEAR_EVERY_S:
                        async with self._pool.connection() as conn:
                            await phone_in.clear_old(conn, after=_KEPT_FOR)
                        cleared_s = clock()
                except psycopg.Error as exc:
                    _log.warning("what arrived by phone cannot be dealt with yet: %s", type(exc).__name__)
                    await asyncio.sleep(self._rng.uniform(0.2, 0.6))
            try:
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _round(self, now_s: float) -> None:
        async with self._pool.connection() as conn:
            waiting = await phone_in.open_ones(conn, limit=_MOST)
        for one in waiting:
            if self._later.get(one.id, 0.0) > now_s or (one.state == "waiting" and one.age_s < _LATER_S):
                continue
            await self._deal_with(one, now_s)
        known = {one.id for one in waiting}
        self._later = {number: at for number, at in self._later.items() if number in known}

    async def _deal_with(self, one: Came, now_s: float) -> None:
        """Deal with one thing; whatever is wrong with it, the others have their turn (D12)."""
        try:
            done = await handle(self._pool, self._directory, one, worker=self._worker())
        except NoSite:
            self._put_off(one, now_s, "no site is set up")
        except psycopg.Error as exc:
            if not is_data_error(exc):
                raise
            self._put_off(one, now_s, type(exc).__name__)
        except Exception:  # noqa: BLE001 # a fault of ours in one message must not hold up the calls for help behind it
            _log.exception("something that came by phone could not be dealt with", extra={"message": one.id})
            self._put_off(one, now_s, "a fault")
        else:
            if done is not None:
                await self._follow(done)
                if done.words is not None:
                    await self._heard(one.modem, *done.words)

    def _put_off(self, one: Came, now_s: float, why: str) -> None:
        _log.error("something that came by phone is tried again later: %s", why, extra={"message": one.id})
        self._later[one.id] = now_s + _LATER_S

    async def _follow(self, done: Handled) -> None:
        self._observe("sms_handled")
        self._submit(done.notices)
        if done.replies:
            self._reply(done.replies)
        if done.state is not None:
            try:
                await store_states(self._pool, [done.state])
            except psycopg.Error as exc:
                _log.warning("the state of a terminal is not noted: %s", type(exc).__name__)
