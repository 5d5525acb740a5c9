"""All modems of this machine as one: what is to go out is given to whoever can do it best.

The queue is in the database, so that a gateway without modems can use those of another, and so that nothing depends on
which process lives. A modem sends some ten to twenty messages a minute: calls for help go first, always.
"""

import asyncio
import contextlib
import glob
import logging
import re
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import psycopg

from gateway.config import ModemSettings
from gateway.domain.modems import CallState, ModemState
from gateway.domain.outbox import DueNotice
from gateway.domain.phones import tail
from gateway.keyring import ErasedKey, KeyringError
from gateway.modems.arrivals import Arrivals
from gateway.modems.driver import Arrived, Modem, NotSent
from gateway.modems.pace import Pace
from gateway.service import call_backs, modem_troubles
from gateway.service.case_work import WorkingDay
from gateway.service.phone_messages import Reply
from gateway.service.phone_queue import about, enqueue_own
from gateway.store import modems as store
from gateway.store import phone_out
from gateway.store.directory import Directory
from gateway.store.phone_out import Job
from gateway.store.pool import Pool, connect
from protocols.gsm.address import Address
from protocols.gsm.causes import Action
from protocols.gsm.coding import DataCoding
from protocols.gsm.tpdu import Submit, write_pdu
from protocols.gsm.userdata import split

__all__ = ["ModemPool", "pdus"]

_log = logging.getLogger(__name__)

_ALIKE = re.compile(r"[*?\[]")
_LOOK_S = 1.0
_SHOW_S = 5.0
_VALID = timedelta(hours=6)
_MOST_TRIES = 12
_LONGEST_RETRY = timedelta(minutes=2)
_TELL_AFTER_S = 60.0
_BALANCE_EVERY_S = 86_400.0
_TROUBLES = (ModemState.DEAD, ModemState.STOPPED, ModemState.GONE)
_AMOUNT = re.compile(r"(-?\d+(?:\.\d{1,2})?)\s*(?:元|yuan|CNY|RMB)", re.IGNORECASE)


def pdus(number: str, text: str, *, reference: int, report: bool = True) -> list[tuple[str, int]]:
    """Return a text for a number as the modem takes it, part by part.

    Raises:
        ValueError: No such number, or a text that is too long.
    """
    recipient = Address.parse(number)
    return [
        write_pdu(
            Submit(
                recipient=recipient,
                user=user,
                coding=DataCoding.of(user.alphabet),
                validity=_VALID,
                report=report,
            )
        )
        for user in split(text, reference=reference)
    ]


class ModemPool:
    """The modems of this machine."""

    def __init__(
        self,
        database: str,
        pool: Pool,
        directory: Directory,
        settings: Sequence[ModemSettings],
        *,
        replica: str,
        worker: Callable[[], int | None],
        submit: Callable[[Iterable[DueNotice]], None],
        is_working_day: WorkingDay,
        rng: Random,
        pace: Pace | None = None,
        observe: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`worker` is in whose name things are done, `submit` gets notices to send because of what came."""
        self._database = database
        self._pool = pool
        self._directory = directory
        self._settings = settings
        self._replica = replica
        self._worker = worker
        self._is_working_day = is_working_day
        self._rng = rng
        self._pace = pace or Pace()
        self._observe = observe
        self._arrivals = Arrivals(
            pool,
            directory,
            submit=submit,
            worker=worker,
            reply=self._reply,
            heard=self._heard,
            rng=rng,
            observe=observe,
        )
        self._turn = asyncio.Lock()
        self._modems: dict[Path, Modem] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._wake = asyncio.Event()
        self._show = asyncio.Event()
        self._doing: dict[str, Modem] = {}
        self._unrecorded: set[str] = set()
        self._sent: dict[str, int] = {}
        self._busy_s: dict[str, float] = {}
        self._asked_balance_s: dict[str, float] = {}
        self._low: set[str] = set()

    @property
    def modems(self) -> list[Modem]:
        """Every modem that was found so far."""
        return list(self._modems.values())

    def busy_s(self, modem: str) -> float:
        """Return for how many seconds a modem was sending since it was found."""
        return self._busy_s.get(modem, 0.0)

    async def run(self) -> None:
        """Keep the modems in service until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            tasks.create_task(self._find(), name="modems-find")
            tasks.create_task(self._arrivals.run(), name="modems-arrivals")
            tasks.create_task(self._lasting(self._listen), name="modems-listen")
            tasks.create_task(self._lasting(self._give_out), name="modems-give-out")
            tasks.create_task(self._lasting(self._report), name="modems-report")

    async def _lasting(self, part: Callable[[], Any]) -> None:
        """Run a part again when the database or a fault of ours has ended it."""
        while True:
            try:
                await part()
            except psycopg.Error as exc:
                _log.warning("the modems lost the database: %s", type(exc).__name__)
            except Exception:  # noqa: BLE001 # one part must not end the others (D12)
                _log.exception("a part of the modems failed")
            await asyncio.sleep(self._rng.uniform(0.2, 0.6))

    # Which there are

    async def _find(self) -> None:
        """Look for ports, again and again: a modem may be plugged in at any time."""
        assert self._tasks is not None
        while True:
            for one in self._settings:
                paths = sorted(glob.glob(one.path)) if _ALIKE.search(one.path) else [one.path]  # noqa: PTH207 # it may be absolute
                for path in map(Path, paths):
                    if path not in self._modems:
                        modem = Modem(path, one, self, pace=self._pace, turn=self._turn)
                        self._modems[path] = modem
                        self._tasks.create_task(modem.run(), name="modem")
            await asyncio.sleep(self._pace.find_s)

    # The hub of the drivers

    async def keep(self, modem: str, arrived: Sequence[Arrived]) -> None:
        """Have these safe before it returns."""
        await self._arrivals.keep(modem, arrived)

    async def forgotten(self, modem: str, arrived: Sequence[Arrived]) -> None:
        """Know that the modem has these no more."""
        await self._arrivals.forgotten(modem, arrived)

    async def rang(self, modem: str, number: str | None) -> None:
        """Have it safe that this number called."""
        await self._arrivals.rang(modem, number)

    def changed(self, modem: Modem) -> None:
        """Show how it is, and use it if it can be used."""
        del modem
        self._wake.set()
        self._show.set()

    async def pin_refused(self, modem: str, pin: str) -> bool:
        """Was this PIN tried before, and not right?"""
        async with self._pool.connection() as conn:
            return await store.pin_refused(conn, modem, self._directory.keyring.mac("pin", modem, pin))

    async def remember_pin(self, modem: str, pin: str) -> None:
        """Remember what is tried; nothing: it was right."""
        mac = self._directory.keyring.mac("pin", modem, pin) if pin else None
        path = next((str(one.path) for one in self.modems if one.id == modem), modem)
        async with self._pool.connection() as conn:
            await store.remember_pin(conn, modem, mac, replica=self._replica, path=path)

    # What goes out

    async def _listen(self) -> None:
        async with await connect(self._database, name="modems") as session:
            await session.execute(f"LISTEN {phone_out.CHANNEL}")
            async for _ in session.notifies():
                self._wake.set()

    async def _give_out(self) -> None:
        """Give what is due to modems that are free, the most urgent first."""
        checked_s = 0.0
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._wake.wait()
            self._wake.clear()
            worker = self._worker()
            if worker is None:
                continue
            if time.monotonic() - checked_s > _SHOW_S:
                checked_s = time.monotonic()
                await self._count(worker)
            while free := [modem for modem in self.modems if modem.ready and not self._spent(modem)]:
                async with self._pool.connection() as conn, conn.transaction():
                    jobs = await phone_out.lease(
                        conn,
                        worker,
                        modems=[modem.id for modem in free],
                        calling=[modem.id for modem in free if modem.settings.voice],
                        limit=len(free),
                    )
                    known = {job.id: await phone_out.last_modem(conn, job.peer) for job in jobs}
                left = [job for job in jobs if not self._begin(job, free, known[job.id])]
                for job in left:
                    await self._again(job, timedelta(0), job.avoid, "another job was quicker")
                if not jobs or left:
                    break

    async def _count(self, worker: int) -> None:
        midnight = datetime.now(UTC).astimezone().replace(hour=0, minute=0, second=0, microsecond=0)
        async with self._pool.connection() as conn:
            self._sent = await phone_out.sent_since(conn, midnight)
            await phone_out.requeue(conn, worker, holding=[*self._doing, *self._unrecorded])
            await phone_out.strike(conn)

    def _spent(self, modem: Modem) -> bool:
        """Has its SIM sent what it may for today?"""
        return self._sent.get(modem.id, 0) >= modem.settings.daily_limit

    def _begin(self, job: Job, free: list[Modem], known: str | None) -> bool:
        """Give a job to the best of those who are free; False: none of them can do it."""
        assert self._tasks is not None
        able = [one for one in free if one.id not in job.avoid and (job.kind != "call" or one.settings.voice)]
        if not able:
            return False
        modem = max(able, key=lambda one: self._fitness(one, known))
        free.remove(modem)
        modem.busy_with = job.id
        self._doing[job.id] = modem
        self._tasks.create_task(self._do(modem, job), name="modem-job")
        return True

    def _fitness(self, modem: Modem, known: str | None) -> tuple[bool, int, int, int]:
        """How well a modem suits: no failures, the number somebody knows, a good signal, little sent today."""
        return (
            modem.id == known and not modem.failures,
            -modem.failures,
            (modem.signal_dbm or -113) // 10,
            -self._sent.get(modem.id, 0),
        )

    async def _do(self, modem: Modem, job: Job) -> None:
        began_s = time.monotonic()
        try:
            try:
                key = self._directory.keyring.unwrap(job.key_id, job.wrapped)
                body: Any = key.open(bytes(job.sealed), about=about(job.id))
            except (ErasedKey, KeyringError, TypeError):
                await self._surely(lambda: self._end(job, "failed", None, "it cannot be read any more"))
                return
            if job.kind == "call":
                await self._call(modem, job, body)
            else:
                await self._send(modem, job, body)
        except Exception:  # noqa: BLE001 # one message must not end the others (D12); `requeue` finds it again
            _log.exception("something could not be carried out", extra={"modem": modem.id})
        finally:
            self._busy_s[modem.id] = self._busy_s.get(modem.id, 0.0) + time.monotonic() - began_s
            modem.busy_with = None
            self._doing.pop(job.id, None)
            self._wake.set()

    async def _send(self, modem: Modem, job: Job, body: dict[str, Any]) -> None:
        try:
            parts = pdus(body["number"], body["text"], reference=int.from_bytes(job.id.encode()[-2:], "big"))
        except (ValueError, KeyError) as exc:
            why = f"it cannot be sent: {exc}"
            await self._surely(lambda: self._end(job, "failed", None, why))
            return
        done: set[int] = set()
        taken: list[tuple[int, int]] = []
        if job.tries > 1 and len(parts) > 1:
            async with self._pool.connection() as conn:
                done = await phone_out.parts_sent(conn, job.id, modem=modem.id)
        self._observe("sms_sending")
        for number, (pdu, length) in enumerate(parts, start=1):
            if number in done:
                continue
            try:
                reference = await modem.send(pdu, length)
            except NotSent as exc:
                if exc.action is not Action.DONE:
                    await self._surely(lambda: self._parts(job, modem.id, taken))
                    await self._not_sent(modem, job, exc)
                    return
                continue
            self._sent[modem.id] = self._sent.get(modem.id, 0) + 1
            taken.append((number, reference))
        self._observe("sms_sent")
        # It is written down while the modem goes on with the next.
        assert self._tasks is not None
        self._unrecorded.add(job.id)
        self._tasks.create_task(self._record(job, modem.id, taken), name="modem-record")

    async def _record(self, job: Job, modem: str, taken: Sequence[tuple[int, int]]) -> None:
        try:
            await self._surely(lambda: self._accepted(job, modem, taken))
        finally:
            self._unrecorded.discard(job.id)

    async def _accepted(self, job: Job, modem: str, taken: Sequence[tuple[int, int]]) -> None:
        async with self._pool.connection() as conn, conn.transaction():
            for part, reference in taken:
                await phone_out.add_part(conn, job.id, part=part, modem=modem, reference=reference)
            await phone_out.end(conn, job.id, state="sent", modem=modem, detail="accepted by the network")

    async def _parts(self, job: Job, modem: str, taken: Sequence[tuple[int, int]]) -> None:
        async with self._pool.connection() as conn, conn.transaction():
            for part, reference in taken:
                await phone_out.add_part(conn, job.id, part=part, modem=modem, reference=reference)

    async def _end(self, job: Job, state: str, modem: str | None, detail: str, keys: str | None = None) -> None:
        async with self._pool.connection() as conn:
            await phone_out.end(conn, job.id, state=state, modem=modem, detail=detail, keys=keys)

    async def _not_sent(self, modem: Modem, job: Job, exc: NotSent) -> None:
        if exc.action in (Action.RECIPIENT, Action.OURS) or job.tries >= _MOST_TRIES:
            await self._surely(lambda: self._end(job, "failed", modem.id, str(exc)))
            return
        avoid = list(job.avoid)
        delay = timedelta(seconds=self._pace.retry_s)
        if exc.action is not Action.WAIT:
            avoid = [*avoid, modem.id]
            if {one.id for one in self.modems if one.state is ModemState.READY} <= set(avoid):
                avoid = []  # nobody is left: again by anybody, a little later each time
                delay = min(delay * 2 ** min(job.tries, 8), _LONGEST_RETRY)
            else:
                delay = timedelta(0)
        # What may have gone out goes out again: twice does less harm than not at all (I6).
        await self._surely(lambda: self._again(job, delay, avoid, str(exc)))

    async def _again(self, job: Job, delay: timedelta, avoid: list[str], detail: str) -> None:
        async with self._pool.connection() as conn:
            await phone_out.again(conn, job.id, after=delay, avoid=avoid, detail=detail)

    async def _call(self, modem: Modem, job: Job, body: dict[str, Any]) -> None:
        async def progress(state: CallState) -> None:
            await self._surely(lambda: self._progress(job, state))

        try:
            called = await modem.call(body["number"], progress=progress)
        except NotSent as exc:
            await self._not_sent(modem, job, exc)
            return
        await self._surely(
            lambda: call_backs.end_call(
                self._pool,
                self._directory,
                job,
                picked_up=called.picked_up,
                keys=called.keys,
                how=called.how,
                is_working_day=self._is_working_day,
            )
        )
        state = "sent" if called.picked_up else "failed"
        await progress(called.how)
        detail = "picked up" if called.picked_up else called.how.value
        await self._surely(lambda: self._end(job, state, modem.id, detail, called.keys or None))

    async def _progress(self, job: Job, state: CallState) -> None:
        await modem_troubles.note_call(self._pool, self._directory, job, state)

    async def _surely(self, write: Callable[[], Any]) -> None:
        """Write something down, however long the database is away: it has happened."""
        while True:
            try:
                await write()
                return
            except psycopg.OperationalError as exc:
                _log.warning("what a modem did cannot be written down yet: %s", type(exc).__name__)
                await asyncio.sleep(self._rng.uniform(0.2, 0.6))

    def _reply(self, replies: Sequence[Reply]) -> None:
        """Write somebody back who is to say something again."""
        assert self._tasks is not None

        async def queue() -> None:
            async with self._pool.connection() as conn, conn.transaction():
                for one in replies:
                    await enqueue_own(conn, self._directory, one.number, one.text, rank=1)

        self._tasks.create_task(self._surely(queue), name="modems-reply")

    # How they are

    async def _report(self) -> None:
        """Write down how the modems are, and tell people of one that is lost."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SHOW_S):
                    await self._show.wait()
            self._show.clear()
            for modem in self.modems:
                async with self._pool.connection() as conn:
                    await store.show(
                        conn,
                        id=modem.id,
                        replica=self._replica,
                        path=str(modem.path),
                        state=modem.state,
                        problem=modem.problem,
                        maker=modem.identity.maker,
                        model=modem.identity.model,
                        operator=modem.operator,
                        signal_dbm=modem.signal_dbm,
                        busy=modem.busy_with is not None,
                        since=modem.since,
                        heard_at=modem.heard_at,
                    )
                await self._look_after(modem)
            await asyncio.sleep(min(0.2, self._pace.find_s))

    async def _look_after(self, modem: Modem) -> None:
        lost_s = (datetime.now(UTC) - modem.since).total_seconds()
        patience_s = self._pace.find_s if modem.state is not ModemState.GONE else min(_TELL_AFTER_S, self._pace.boot_s)
        if modem.state in _TROUBLES and lost_s >= patience_s:
            await modem_troubles.raise_trouble(self._pool, self._directory, modem.id, modem.problem or modem.state)
        elif modem.state is ModemState.READY:
            if modem.id not in self._low:
                await modem_troubles.settle_trouble(self._pool, self._directory, modem.id)
            await self._ask_balance(modem)

    async def _ask_balance(self, modem: Modem) -> None:
        code, to = modem.settings.balance_code, modem.settings.balance_to
        if (code is None and to is None) or modem.busy_with is not None:
            return
        asked_s = self._asked_balance_s.get(modem.id)
        if asked_s is not None and time.monotonic() - asked_s < _BALANCE_EVERY_S:
            return
        self._asked_balance_s[modem.id] = time.monotonic()
        if code is None:
            assert to is not None
            async with self._pool.connection() as conn, conn.transaction():
                await enqueue_own(conn, self._directory, to, modem.settings.balance_text, rank=2)
            return
        try:
            said = await modem.ask_network(code)
        except NotSent as exc:
            _log.warning("modem %s does not tell its balance: %s", modem.id, exc)
            return
        if said.text is not None:
            await self._note_balance(modem, said.text)

    async def _heard(self, modem_id: str, sender: str, text: str) -> None:
        """Look whether what a stranger writes is the operator's answer about the balance."""
        for modem in self.modems:
            to = modem.settings.balance_to
            if modem.id == modem_id and to is not None and tail(sender) == tail(to):
                await self._note_balance(modem, text)

    async def _note_balance(self, modem: Modem, text: str) -> None:
        match = _AMOUNT.search(text)
        if match is None:
            return
        amount = Decimal(match[1])
        async with self._pool.connection() as conn:
            await store.set_balance(conn, modem.id, amount)
        self._low.discard(modem.id)
        if amount < Decimal(str(modem.settings.balance_low)):
            self._low.add(modem.id)
            await modem_troubles.raise_trouble(self._pool, self._directory, modem.id, f"only {amount} left on its SIM")
