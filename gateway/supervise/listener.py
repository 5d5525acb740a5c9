"""The ears of this gateway: it speaks on the ways of all reports that it stores, and says how far it has heard."""

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta

import psycopg

from gateway.links.mqtt import LinkDown, MqttLink
from gateway.links.steady import FOLLOWED_WITHIN, SteadyClock
from gateway.store import supervision
from gateway.store.pool import Pool
from gateway.supervise.hearing import Ear

__all__ = ["Listener"]

_log = logging.getLogger(__name__)

_EVERY_S = 1.0
_HEARD_WITHIN_S = 0.3
_CLOCK_WITHIN_S = 10.0
_SAID_WITHIN = timedelta(seconds=10)


class Listener:
    """Holds an ear for each share of the reports that is stored here."""

    def __init__(self, pool: Pool, link: MqttLink, clock: SteadyClock) -> None:
        """`link` sends our own words; it is not the one that brings them, where they would wait behind all reports."""
        self._pool = pool
        self._link = link
        self._clock = clock
        self._ears: dict[int, Ear] = {}
        self._leads = False

    @contextmanager
    def ear(self, share: int, ways: Sequence[str]) -> Iterator[Ear]:
        """Listen to a share of the reports."""
        ear = self._ears[share] = Ear(self._clock, ways)
        try:
            yield ear
        finally:
            del self._ears[share]

    @contextmanager
    def leading(self) -> Iterator[None]:
        """Let somebody else call `listen`, and say nothing meanwhile of how far we hear."""
        self._leads = True
        try:
            yield
        finally:
            self._leads = False

    async def listen(self) -> Mapping[int, datetime | None]:
        """Send a word in every share that is stored here, wait a moment, and return what was heard by share."""
        ears = dict(self._ears)
        if self._link.connected.is_set():
            sending = [
                self._link.publish(topic, payload, qos=1, timeout_s=2.0)
                for ear in ears.values()
                for topic, payload in ear.word()
            ]
            for outcome in await asyncio.gather(*sending, return_exceptions=True):
                if isinstance(outcome, BaseException) and not isinstance(outcome, LinkDown):
                    raise outcome
        await asyncio.sleep(_HEARD_WITHIN_S)
        return {share: ear.until for share, ear in ears.items()}

    async def follow(self) -> None:
        """Say how far we hear, for whoever supervises, and go by their clock; until cancelled."""
        while True:
            try:
                if self._ears and not self._leads:
                    await self._report(await self.listen())
            except psycopg.Error as exc:
                _log.warning("cannot say how far we hear: %s %s", type(exc).__name__, exc.sqlstate)
            await asyncio.sleep(_EVERY_S - _HEARD_WITHIN_S)

    async def set_clock(self) -> None:
        """Wait until somebody supervises and go by their clock; after some seconds by our own."""
        try:
            async with asyncio.timeout(_CLOCK_WITHIN_S):
                while not self._leads and not await self._follow_clock():
                    await asyncio.sleep(_EVERY_S)
        except TimeoutError:
            _log.warning("nobody supervises: reports are stored by this machine's clock")

    async def _report(self, heard: Mapping[int, datetime | None]) -> None:
        # The clocks of two machines differ by as much: we may not claim to have heard what they have not sent yet.
        until = {share: at - FOLLOWED_WITHIN for share, at in heard.items() if at is not None}
        async with self._pool.connection() as conn:
            await supervision.keep_shares(conn, until)
        await self._follow_clock()

    async def _follow_clock(self) -> bool:
        async with self._pool.connection() as conn:
            now = await supervision.steady_now(conn, within=_SAID_WITHIN)
        if now is not None:
            self._clock.follow(now)
        return now is not None
