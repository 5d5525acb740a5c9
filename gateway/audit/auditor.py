"""The auditor at work: look, write down, tell, and once all is well let the dead man's switch know."""

import asyncio
import logging
from dataclasses import dataclass
from time import monotonic
from typing import NoReturn

import aiohttp
import psycopg

from gateway.audit.ledger import Finding, Kept, keep
from gateway.audit.looking import Look, Looking
from gateway.audit.telling import Voice
from gateway.keyring import Keyring
from gateway.store.pool import Pool

__all__ = ["Auditor", "Round"]

_log = logging.getLogger(__name__)

_PING_EVERY_S = 30.0
_PING_TIMEOUT = aiohttp.ClientTimeout(total=10)
_TELL_EVERY_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What one round came to."""

    look: Look
    kept: Kept
    took_ms: float

    @property
    def open(self) -> list[Finding]:
        """The findings that count, as they stand."""
        return [one for one in self.kept.open if one.raised_at is not None]

    @property
    def clean(self) -> bool:
        """Was nothing at all amiss?"""
        return not self.kept.open


class Auditor:
    """Audits until cancelled. A lost database is waited out: whoever watches sees that nobody audits."""

    def __init__(
        self, pool: Pool, keyring: Keyring, *, every_s: float, ping_url: str | None = None, expected: bool = True
    ) -> None:
        """Look every `every_s` seconds. `ping_url` is fetched after rounds without any finding.

        With `expected` its silence makes the service not ready from its first round on.
        """
        self._pool = pool
        self._voice = Voice(pool, keyring)
        self._every_s = every_s
        self._ping_url = ping_url
        self._expected = expected
        self._looking = Looking()
        self._clean_at: float | None = None

    async def run(self) -> None:
        """Look and tell, each at its own pace: a fallback that hangs keeps nobody from looking."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_looking(), name="look")
            tasks.create_task(self._keep_telling(), name="tell")
            if self._ping_url is not None:
                tasks.create_task(self._keep_pinging(self._ping_url), name="ping")

    async def round(self) -> Round:
        """Look once, and write down what was seen."""
        began = monotonic()
        look = await self._looking.look(self._pool)
        took_ms = (monotonic() - began) * 1000
        kept = await keep(self._pool, look, took_ms=took_ms, deaf=self._voice.deaf, expected=self._expected)
        for one in kept.raised:
            _log.error("found: %s", one.words["en"], extra={"finding": one.id, "kind": one.kind, "case": one.case_id})
        for one in kept.cleared:
            _log.info("over: %s", one.words["en"], extra={"finding": one.id, "kind": one.kind, "case": one.case_id})
        self._clean_at = None if kept.open else monotonic()
        return Round(look=look, kept=kept, took_ms=took_ms)

    async def tell(self) -> bool:
        """Tell the fallback of each site what it has not heard yet; True when there is nothing left to tell."""
        return await self._voice.tell()

    async def _keep_looking(self) -> NoReturn:
        while True:
            began = monotonic()
            try:
                await self.round()
            except psycopg.Error as exc:
                _log.error("cannot audit: %s %s", type(exc).__name__, exc.sqlstate)
            await asyncio.sleep(max(0.1, self._every_s - (monotonic() - began)))

    async def _keep_telling(self) -> NoReturn:
        while True:
            try:
                await self.tell()
            except psycopg.Error as exc:
                _log.error("cannot read what to tell: %s %s", type(exc).__name__, exc.sqlstate)
            await asyncio.sleep(_TELL_EVERY_S)

    async def _keep_pinging(self, url: str) -> NoReturn:
        """Let the dead man's switch know, but only while the newest round found nothing and is not old."""
        async with aiohttp.ClientSession(headers={"User-Agent": "onekey-auditor"}) as http:
            while True:
                clean_at = self._clean_at
                if clean_at is None or monotonic() - clean_at > 2 * self._every_s + 5:
                    await asyncio.sleep(0.2)
                    continue
                try:
                    async with http.get(url, timeout=_PING_TIMEOUT) as response:
                        if response.status >= 400:
                            _log.warning("the dead man's switch answered %s", response.status)
                except (aiohttp.ClientError, OSError, TimeoutError) as exc:
                    _log.warning("the dead man's switch cannot be reached: %s", type(exc).__name__)
                await asyncio.sleep(_PING_EVERY_S)
