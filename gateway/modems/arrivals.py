"""What modems bring: kept first, then read and acted on, each thing in its turn."""

import asyncio
import logging
import uuid
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from random import Random

import psycopg

from gateway.domain.outbox import DueNotice
from gateway.modems.mailbox import Arrived
from gateway.service.phone.arrivals import arrival, give_up, handle, ring
from gateway.service.phone.turn import Handled, Reply
from gateway.service.raise_alarm import NoSite
from gateway.store import phone_in
from gateway.store.directory import Directory
from gateway.store.phone_in import Came
from gateway.store.pool import Pool, is_data_error
from gateway.store.telemetry import StateRow

__all__ = ["Arrivals"]

_log = logging.getLogger(__name__)

_LOOK_EVERY_S = 1.0
_MOST = 200
_KEPT_FOR = timedelta(days=30)
_CLEAR_EVERY_S = 3600.0
_LATER = timedelta(seconds=10)
_LATEST = timedelta(minutes=10)
_MOST_TRIES = 5
_OTHERS_S = 5.0


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
        heard: Callable[[str, str, str], None],
        note: Callable[[StateRow], None],
        mine: Callable[[str], bool],
        rng: Random,
        observe: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`submit` gets notices to send, `reply` what somebody is to be written back.

        `heard` gets modem, number and words of somebody nobody knows, `note` the state of a terminal that was heard.
        What came by a modem that is not `mine` is dealt with when its own gateway has not done so for a while.
        """
        self._pool = pool
        self._directory = directory
        self._submit = submit
        self._worker = worker
        self._reply = reply
        self._heard = heard
        self._note = note
        self._mine = mine
        self._rng = rng
        self._observe = observe
        self._wake = asyncio.Event()
        self._sure: set[str] = set()

    async def keep(self, modem: str, arrived: Sequence[Arrived]) -> None:
        """Have these on disk before it returns (I1)."""
        self._observe("sms_read")
        self._sure.discard(modem)  # whether it forgets them is seen later
        async with self._pool.connection() as conn, conn.transaction():
            key = await phone_in.own_key(conn, self._directory.keyring)
            new = [arrival(self._directory, key, modem=modem, pdu=one.pdu, length=one.length) for one in arrived]
            await phone_in.add(conn, new, key=key.id)
        self._observe("sms_kept")
        self._wake.set()

    async def forgotten(self, modem: str, arrived: Sequence[Arrived]) -> None:
        """Know that the modem has these no more; with nothing, that its stores are empty."""
        if not arrived:
            if modem not in self._sure:
                async with self._pool.connection() as conn:
                    await phone_in.emptied(conn, modem)
                self._sure.add(modem)
            return
        self._observe("sms_deleted")
        self._sure.discard(modem)  # until it is written down
        async with self._pool.connection() as conn, conn.transaction():
            key = await phone_in.own_key(conn, self._directory.keyring)
            new = [arrival(self._directory, key, modem=modem, pdu=one.pdu, length=one.length) for one in arrived]
            await phone_in.forgotten(conn, [one.digest for one in new])

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
                    await self._round()
                    if clock() - cleared_s > _CLEAR_EVERY_S:
                        async with self._pool.connection() as conn:
                            await phone_in.clear_old(conn, after=_KEPT_FOR)
                        cleared_s = clock()
                except psycopg.Error as exc:
                    _log.warning("what arrived by phone cannot be dealt with yet: %s", type(exc).__name__)
                    await asyncio.sleep(self._rng.uniform(0.2, 0.6))
                except Exception:  # noqa: BLE001 # whatever it is, the next call for help has its turn (D12)
                    _log.exception("what arrived by phone cannot be dealt with")
                    await asyncio.sleep(self._rng.uniform(0.5, 1.0))
            try:
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _round(self) -> None:
        async with self._pool.connection() as conn:
            waiting = await phone_in.open_ones(conn, limit=_MOST)
        for one in waiting:
            if one.age_s >= _OTHERS_S or self._mine(one.modem):
                await self._deal_with(one)
        if len(waiting) == _MOST:
            self._wake.set()

    async def _deal_with(self, one: Came) -> None:
        """Deal with one thing; whatever is wrong with it, the others have their turn (D12)."""
        about = {"came": one.id}
        try:
            if one.tries >= _MOST_TRIES:
                done = await give_up(self._pool, self._directory, one, worker=self._worker())
            else:
                found = await handle(self._pool, self._directory, one, worker=self._worker())
                if found is None:
                    return
                done = found
            self._follow(one, done)
        except NoSite:
            _log.error("something came by phone and no site is set up", extra=about)
        except psycopg.Error as exc:
            if not is_data_error(exc):
                raise
            _log.error("the database refuses something that came by phone: %s", type(exc).__name__, extra=about)
        except Exception:  # noqa: BLE001 # a fault of ours in one message must not hold up the calls for help behind it
            _log.exception("something that came by phone could not be dealt with", extra=about)
        else:
            return
        async with self._pool.connection() as conn:
            await phone_in.put_off(conn, one.id, after=min(_LATER * 2 ** min(one.tries, 8), _LATEST))

    def _follow(self, one: Came, done: Handled) -> None:
        self._observe("sms_handled")
        self._submit(done.notices)
        if done.replies:
            self._reply(done.replies)
        if done.words is not None:
            self._heard(one.modem, *done.words)
        if done.state is not None:
            self._note(done.state)
