"""SMS and voice through the modems of this gateway, or of another one that shares the database.

What is to go out lies in a queue by urgency, and who sent it here waits for what becomes of it, but not for ever: a
modem sends some ten to twenty texts a minute, and whoever has another channel is told by that before their turn came.
Accepted by the network is *delivered* until it reports otherwise (I7); an answer comes back by itself later.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from random import Random
from typing import Any

import psycopg

from gateway.domain.answers import answer_of_key
from gateway.domain.outbox import CALLS, DueNotice, GiveUp, Outcome, PartyAnswer, Sent, TryAgain
from gateway.domain.phones import is_emergency_line
from gateway.notify.lanes import rank_of
from gateway.notify.short import compose_short, parts_of
from gateway.service.phone_queue import Letter, enqueue_notice
from gateway.store import phone_out
from gateway.store.directory import Directory
from gateway.store.pool import Pool, connect

__all__ = ["PhoneQueue", "SmsChannel", "VoiceChannel"]

_log = logging.getLogger(__name__)

_LOOK_S = 1.0
_TOGETHER_S = 0.02
_ENTER_AT_ONCE = 3
"""A storm queues thousands of texts: they take their turns at the database, and leave room in its pool."""

_SMS_WAITS_S = 30.0
_CALL_WAITS_S = 60.0
_UNDER_WAY_S = 100.0
"""Longer than the network may take to accept a text, or a call to ring and be talked in."""
_NOBODY = "the modem did not get to it in time"


class PhoneQueue:
    """Waits for what becomes of messages and calls, for whoever queued them here."""

    def __init__(self, database: str, pool: Pool, directory: Directory, *, rng: Random) -> None:
        """Queue in `pool`; a session of its own hears when something is over."""
        self._database = database
        self.pool = pool
        self.directory = directory
        self._rng = rng
        self._entering = asyncio.Semaphore(_ENTER_AT_ONCE)
        self._waiting: dict[str, asyncio.Future[tuple[str, str | None, str | None]]] = {}

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                async with await connect(self._database, name="phone-queue") as session:
                    await session.execute(f"LISTEN {phone_out.CHANNEL}")
                    while True:
                        await self._look()
                        async for _ in session.notifies(timeout=_LOOK_S, stop_after=1):
                            pass
                        async for _ in session.notifies(timeout=_TOGETHER_S):
                            pass
            except psycopg.Error as exc:
                _log.warning("what went out by phone cannot be followed: %s", type(exc).__name__)
            await asyncio.sleep(self._rng.uniform(0.2, 0.6))

    async def _look(self) -> None:
        if not self._waiting:
            return
        async with self.pool.connection() as conn:
            over = await phone_out.finished(conn, list(self._waiting))
        for job, state, detail, keys in over:
            waiter = self._waiting.get(job)
            if waiter is not None and not waiter.done():
                waiter.set_result((state, detail, keys))

    async def enter(
        self, notice: DueNotice, to: str, *, job: str, kind: str, compose: Callable[[Letter], str] | None
    ) -> bool:
        """Queue the text or call of a notice in one's turn; False: its case cannot be read any more."""
        async with self._entering:
            return await enqueue_notice(
                self.pool,
                self.directory,
                job=job,
                kind=kind,
                notice_id=notice.id,
                leg_id=notice.leg_id,
                case_id=notice.case.id,
                number=notice.number,
                to=to,
                rank=rank_of(notice, first=notice.first),
                compose=compose,
                parts_of=parts_of,
            )

    async def outcome(self, job: str, *, within_s: float) -> tuple[str, str | None, str | None] | None:
        """Return (state, detail, keys) of a job once it is over; None: it was not begun in time, and is withdrawn.

        What is being sent at that moment is waited for.
        """
        waiter = self._waiting.get(job)
        if waiter is None:
            waiter = self._waiting[job] = asyncio.get_running_loop().create_future()
        try:
            try:
                async with asyncio.timeout(within_s):
                    return await asyncio.shield(waiter)
            except TimeoutError:
                async with self.pool.connection() as conn:
                    withdrawn = await phone_out.withdraw(conn, job)
                if withdrawn:
                    return None
            try:
                async with asyncio.timeout(_UNDER_WAY_S):
                    return await asyncio.shield(waiter)
            except TimeoutError:
                return None
        finally:
            self._waiting.pop(job, None)


class SmsChannel:
    """A text to the party's phone."""

    def __init__(self, queue: PhoneQueue, *, link: Callable[[DueNotice], str | None]) -> None:
        """`link` makes the address of the answer page of a notice."""
        self._queue = queue
        self._link = link

    async def send(self, notice: DueNotice) -> Outcome:
        """Queue the text once, and wait for the network to accept it."""
        to, options = notice.party.phone, notice.spec.options
        if to is None:
            return GiveUp("the party has no phone")
        queue = self._queue
        job = f"{notice.id}:{notice.channel}"
        link = self._link(notice)

        def compose(letter: Letter) -> str:
            return compose_short(
                notice,
                now=datetime.now(UTC),
                link=link,
                letter=letter.letter if letter.needed else None,
                parts=int(options.get("parts", 3)),
            )

        queued = await queue.enter(notice, to, job=job, kind="sms", compose=compose)
        if not queued:
            return GiveUp("the records of the case cannot be read any more")
        over = await queue.outcome(job, within_s=float(options.get("within_s", _SMS_WAITS_S)))
        return _outcome(notice, over)


class VoiceChannel:
    """A call to the party's phone. That somebody picked up ends nothing; a key that is pressed does (I7)."""

    def __init__(self, queue: PhoneQueue) -> None:
        """Queue in `queue`."""
        self._queue = queue

    async def send(self, notice: DueNotice) -> Outcome:
        """Queue the call once, and wait for its end."""
        to, options = notice.party.phone, notice.spec.options
        if to is None:
            return GiveUp("the party has no phone")
        if is_emergency_line(to) and not options.get("emergency_line"):
            return GiveUp(f"no machine dials {to} unless site and licence allow it")
        if notice.reason not in CALLS:
            return GiveUp("a call cannot say what this is about")
        if notice.case.test:
            return GiveUp("a call cannot say that this is a test")
        job = f"{notice.id}:{notice.channel}:{notice.tries}"
        queue = self._queue
        queued = await queue.enter(notice, to, job=job, kind="call", compose=None)
        if not queued:
            return GiveUp("the records of the case cannot be read any more")
        over = await queue.outcome(job, within_s=_CALL_WAITS_S)
        outcome = _outcome(notice, over)
        if isinstance(outcome, TryAgain) and notice.channel + 1 < len(notice.party.channels):
            return GiveUp(outcome.detail)  # whoever does not pick up is told otherwise, and called again by the plan
        if isinstance(outcome, Sent) and over is not None and over[2]:
            answer = answer_of_key(over[2])
            said: Any = PartyAnswer(answer=answer) if answer is not None else None
            return Sent(detail=f"picked up, pressed {over[2]}", answer=said)
        return outcome


def _outcome(notice: DueNotice, over: tuple[str, str | None, str | None] | None) -> Outcome:
    last = notice.channel + 1 >= len(notice.party.channels)
    if over is None:
        return TryAgain(_NOBODY) if last else GiveUp(_NOBODY)
    state, detail, _ = over
    if state == "sent":
        return Sent(detail=detail)
    return TryAgain(detail or state)
