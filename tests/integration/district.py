"""Two weeks of a district on a virtual clock: presses, operators, holidays, broken channels, until nothing is due.

Run as a program it goes on where it was killed: everything is in the database but the clock, which is in a file. What
people do is a function of what is in the database, so a run that was killed and one that was not do the same.

    python -m tests.integration.district DATABASE CLOCK_FILE CASES
"""

import asyncio
import hashlib
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import uvloop

from gateway.domain.case import DomainError, Fact
from gateway.domain.outbox import CALLS, DueNotice, GiveUp, Outcome, PartyAnswer, Sent, Tried, TryAgain
from gateway.keyring import Keyring
from gateway.procedures.runner import Runner
from gateway.service.apply_site import apply_site
from gateway.service.case_commands import acknowledge_case, close_case, mark_safe
from gateway.service.desk import complete_task, set_fact
from gateway.service.due import lease_due
from gateway.service.raise_alarm import Press, raise_alarm
from gateway.service.record import record_attempts
from gateway.service.run_procedures import start_procedure, store_shipped
from gateway.service.take_back import take_word
from gateway.service.workdays import Workdays
from gateway.site.load import load
from gateway.site.procedure_file import shipped
from gateway.store import outbox
from gateway.store.directory import Directory
from gateway.store.pool import Pool, connect, open_clocked_pool

__all__ = ["START", "run"]

ROOT = Path(__file__).resolve().parents[2]
# A Monday; the week from 1 October on is a holiday in China, some Saturdays around it are worked.
START = datetime(2026, 9, 28, 0, 0, tzinfo=UTC)
LENGTH = timedelta(days=14)
WORKDAYS = Workdays()
BOXES = ("860000000000001", "860000000000002", "860000000000003", "860000000000004", "860000000000005")
KINDS = ("sos",) * 6 + ("fall",) * 2 + ("smoke", "power_lost", "low_battery", "service", "duress")


def chance(*about: object) -> float:
    """Return a number from 0 to 1 that is the same whenever the same is asked."""
    digest = hashlib.sha256(repr(about).encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56


@dataclass(frozen=True)
class Pressing:
    """One press of the fortnight."""

    at: datetime
    terminal: str
    kind: str
    seq: int


def presses(cases: int) -> list[Pressing]:
    """Return the presses in order: one home at a time has trouble, so that each opens a case of its own."""
    found = []
    for number in range(cases):
        at = START + LENGTH * (number / cases) + timedelta(minutes=30 * chance("press", number))
        kind = KINDS[int(chance("kind", number) * len(KINDS))]
        found.append(Pressing(at, BOXES[number % len(BOXES)], kind, number + 1))
    return found


class Links:
    """The broker's place."""

    async def publish(self, topic: str, payload: bytes, *, qos: int = 0, timeout_s: float = 5.0) -> None:
        """Nothing has to arrive: the terminals of this district answer no commands."""


class District:
    """The gateway's parts without servers, and everybody who acts on them."""

    def __init__(self, pool: Pool, clock: list[datetime], worker: int, clock_file: Path, cases: int) -> None:
        self.pool = pool
        self.clock = clock
        self.worker = worker
        self.clock_file = clock_file
        self.presses = presses(cases)
        self.pressed = 0
        self.meant: list[tuple[datetime, str, Any]] = []
        self.directory = Directory(Keyring(bytes(range(32))))
        self.runner = Runner(
            pool,
            self.directory,
            Links(),  # type: ignore[arg-type]
            submit=lambda _: None,
            worker=lambda: None,
            is_working_day=WORKDAYS.is_working_day,
            rng=Random(1),
        )

    async def run(self) -> None:
        """Go on until nothing is due any more."""
        while (at := await self.next_at()) is not None:
            self.clock[0] = max(self.clock[0], at)
            _write(self.clock_file, self.clock[0])
            await self.people()
            while await self.runner.advance_due():
                pass
            await self.machines()

    # Machines

    async def next_at(self) -> datetime | None:
        """Return when the next thing is due, whoever's."""
        async with self.pool.connection() as conn:
            row = await (
                await conn.execute(
                    """
                    SELECT least((SELECT min(wake_at) FROM cases), (SELECT min(due_at) FROM notice WHERE state = 'due'),
                                 (SELECT min(next_at) FROM progress), (SELECT min(next_at) FROM command)),
                           (SELECT coalesce(max(seq), 0) FROM alarm)
                    """
                )
            ).fetchone()
        assert row is not None
        self.pressed = row[1]
        self.meant = await self.intentions()  # nothing changes before people act on it
        times = [row[0], self.presses[row[1]].at if row[1] < len(self.presses) else None]
        times += [at for at, _, _ in self.meant]
        return min((at for at in times if at is not None), default=None)

    async def machines(self) -> None:
        async with self.pool.connection() as conn:
            row = await (
                await conn.execute(
                    "SELECT EXISTS (SELECT FROM notice WHERE state = 'due' AND due_at <= onekey_now()), "
                    "EXISTS (SELECT FROM progress WHERE next_at <= onekey_now()), "
                    "EXISTS (SELECT FROM command WHERE next_at <= onekey_now())"
                )
            ).fetchone()
        assert row is not None
        if row[0]:
            leased = await lease_due(self.pool, self.directory, worker=self.worker, holding=(), limit=500)
            tried = []
            # In an order that is the same in every run: who was told first is what the terminal hears.
            for place, one in enumerate(sorted(leased, key=lambda one: (one.leg_id, one.number, one.channel))):
                # No two attempts on a message begin in the same microsecond, though they do in the same virtual second.
                now = self.clock[0] + timedelta(milliseconds=7 * one.channel + one.tries, microseconds=place)
                tried.append(Tried(notice=one, started_at=now, answered_at=now, outcome=_outcome(one)))
            if tried:
                await record_attempts(self.pool, self.directory, tried, worker=None, rng=_Calm())
        if row[1]:
            await self.runner.send_progress()
        if row[2]:
            await self.runner.send_commands()

    # People

    async def intentions(self) -> list[tuple[datetime, str, Any]]:
        """Return what somebody means to do and when, from what is in the database."""
        async with self.pool.connection() as conn:
            cases = await (
                await conn.execute(
                    "SELECT id, class, kinds, state, opened_at, owner, safe_at, terminal_id FROM cases "
                    "WHERE state <> 'closed' ORDER BY opened_at, id"
                )
            ).fetchall()
            tasks = await (
                await conn.execute(
                    "SELECT s.id, s.name, s.planned_at, r.procedure FROM step s JOIN run r ON r.id = s.run_id "
                    "WHERE s.state = 'open' AND s.does = 'task' ORDER BY s.planned_at, s.id"
                )
            ).fetchall()
            facts = await (
                await conn.execute(
                    "SELECT f.case_id, f.fact FROM fact f JOIN cases c ON c.id = f.case_id WHERE c.state <> 'closed'"
                )
            ).fetchall()
            closed = await (
                await conn.execute(
                    "SELECT c.id, c.closed_at FROM cases c WHERE c.state = 'closed' AND c.class = 'emergency' "
                    "AND NOT EXISTS (SELECT FROM run r WHERE r.case_id = c.id AND r.procedure = 'complaint') "
                    "ORDER BY c.closed_at, c.id"
                )
            ).fetchall()
        known = set(facts)
        wanted: list[tuple[datetime, str, Any]] = []
        for case, of_class, kinds, state, opened_at, owner, safe_at, terminal in cases:
            lucky = chance(case)
            if of_class == "emergency":
                if owner is None:
                    wanted.append((opened_at + timedelta(seconds=4 + 12 * lucky), "own", case))
                elif lucky < 0.3 and (case, "heard") not in known:
                    wanted.append((opened_at + timedelta(seconds=240), "hear", case))
                if state == "open" and owner is not None:
                    wanted.append((opened_at + timedelta(minutes=15 + 60 * lucky), "safe", case))
                elif state == "safe":
                    wanted.append((safe_at + timedelta(minutes=5), "close", case))
            elif "power_lost" in kinds and lucky < 0.6:
                wanted.append((opened_at + timedelta(minutes=3 + 20 * lucky), "restore", (case, terminal)))
            else:
                wanted.append((opened_at + timedelta(hours=1 + 5 * lucky), "settle", case))
        for case, closed_at in closed:
            if chance(case, "complaint") < 0.1:
                wanted.append((closed_at + timedelta(minutes=1), "complain", case))
        for task, name, planned_at, procedure in tasks:
            step = next(one for one in shipped()[procedure].steps if one.id == name)
            result = step.results[int(chance(task, "result") * len(step.results))]
            if set(step.results) == {"done"} and step.ends_with:
                continue  # only a fact ends it
            slow = chance(task, "slow")
            at = planned_at + timedelta(seconds=10 + 40 * slow)
            if name in ("follow-up", "report", "record", "settle", "forward"):
                at = planned_at + timedelta(hours=2 + 60 * slow)
            wanted.append((at, "task", (task, result)))
        return wanted

    async def people(self) -> None:
        now = self.clock[0]
        for at, what, about in sorted(self.meant, key=lambda one: (one[0], one[1], str(one[2]))):
            if at <= now:
                with suppress(DomainError):  # as at a real desk: it is over already
                    await self._do(what, about)
        for pressing in self.presses[self.pressed :]:
            if pressing.at > now:
                break
            await self._press(pressing)

    async def _do(self, what: str, about: Any) -> None:
        pool, directory, working = self.pool, self.directory, WORKDAYS.is_working_day
        match what:
            case "own":
                await acknowledge_case(pool, directory, about, operator=f"seat-{int(chance(about, 'seat') * 4)}")
            case "hear":
                await set_fact(
                    pool,
                    directory,
                    about,
                    Fact.HEARD,
                    role="operator",
                    about=None,
                    by="seat-1",
                    is_working_day=working,
                )
            case "safe":
                await mark_safe(pool, directory, about, by="guardian")
            case "close":
                await self._close(about, "hospital" if chance(about, "end") < 0.4 else "helped")
            case "complain":
                await start_procedure(pool, directory, about, "complaint", by="seat-1", is_working_day=working)
            case "settle":
                await self._close(about, "other")
            case "restore":
                await take_word(
                    pool,
                    directory,
                    about[1],
                    "power_restored",
                    seq=None,
                    said_at=self.clock[0],
                    is_working_day=working,
                    worker=None,
                )
            case "task":
                await complete_task(
                    pool, directory, about[0], result=about[1], by="seat-1", note=None, is_working_day=working
                )

    async def _close(self, case: UUID, outcome: str) -> None:
        await close_case(
            self.pool, self.directory, case, outcome=outcome, confirmed_by="guardian", note="x", worker=None
        )

    async def _press(self, pressing: Pressing) -> None:
        press = Press(
            terminal=pressing.terminal,
            transport="mqtt",
            kinds=(pressing.kind,),
            received_at=self.clock[0],
            payload=b"{}",
            digest=hashlib.sha256(str(pressing.seq).encode()).digest(),
            boot=1,
            seq=pressing.seq,
        )
        await raise_alarm(self.pool, self.directory, press, worker=None)


class _Calm(Random):
    """No jitter: what is retried is retried at the same virtual second in every run."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


def _outcome(notice: DueNotice) -> Outcome:
    """What a channel does with a message: mostly it takes it, sometimes its party answers along."""
    lucky = chance(notice.leg_id, notice.number, notice.channel, notice.tries)
    if lucky < 0.05:
        return TryAgain("busy")
    if lucky < 0.06:
        return GiveUp("gone")
    if notice.reason in CALLS and lucky > 0.75:
        answer = ("coming", "accepted", "arrived", "cannot")[int(chance(notice.leg_id, notice.number, "answer") * 4)]
        return Sent(200, answer=PartyAnswer(answer, minutes=7 if answer == "coming" else None))
    return Sent(200)


def _write(clock_file: Path, now: datetime) -> None:
    fresh = clock_file.with_suffix(".new")
    fresh.write_text(now.isoformat())
    fresh.replace(clock_file)


def _read(clock_file: Path) -> datetime:
    try:
        return datetime.fromisoformat(clock_file.read_text())
    except FileNotFoundError:
        return START


async def run(database: str, clock_file: Path, cases: int) -> None:
    """Begin, or go on, and return when the fortnight and its aftercare are over."""
    clock = [_read(clock_file)]
    session = await connect(database, name="district")
    async with session, open_clocked_pool(database, clock=lambda: clock[0]) as pool:
        worker = await outbox.register(session, "district")
        await store_shipped(pool)
        loaded = load(ROOT / "examples" / "nanjing.yaml").site
        await apply_site(pool, Keyring(bytes(range(32))), loaded, prune=False)
        await District(pool, clock, worker, clock_file, cases).run()


def main(arguments: Sequence[str]) -> None:
    """Run as a program."""
    database, clock_file, cases = arguments
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(database, Path(clock_file), int(cases)))


if __name__ == "__main__":
    main(sys.argv[1:])
