"""A city under test: presses go in, time passes when the test says so, and the runner does what it does (D9)."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

from gateway.domain.case import Fact
from gateway.domain.outbox import DueNotice, Outcome, PartyAnswer, Sent, Tried
from gateway.keyring import Keyring
from gateway.procedures.runner import Runner
from gateway.service.apply_site import apply_site
from gateway.service.case_commands import acknowledge_case, answer_leg, close_case
from gateway.service.desk import complete_task, set_fact
from gateway.service.due import lease_due
from gateway.service.raise_alarm import Press, raise_alarm
from gateway.service.record import record_attempts
from gateway.service.run_procedures import store_shipped
from gateway.service.take_back import take_word
from gateway.service.workdays import Workdays
from gateway.site.load import load
from gateway.site.model import Site
from gateway.store import outbox, procedures
from gateway.store.directory import Directory
from gateway.store.pool import Pool, connect, open_clocked_pool
from tests.conftest import ROOT

__all__ = ["START", "WORKDAYS", "Desk", "desk_in"]

# A Friday afternoon before the national holiday of 2026, 15:00 in Nanjing.
START = datetime(2026, 9, 25, 7, 0, tzinfo=UTC)
WORKDAYS = Workdays()


class Link:
    """Stands where the broker is and keeps what goes to terminals."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes]] = []

    async def publish(self, topic: str, payload: bytes, *, qos: int = 0, timeout_s: float = 5.0) -> None:
        self.sent.append((topic, payload))


class Desk:
    """The gateway without its servers: the real runner, the real tables, a clock that the test turns."""

    def __init__(self, pool: Pool, directory: Directory, clock: list[datetime], worker: int) -> None:
        self.pool = pool
        self.directory = directory
        self.link = Link()
        self.worker = worker
        self.channel: Callable[[DueNotice], Outcome] = lambda _: Sent(200)
        self._clock = clock
        self._seq = 0
        self.started = clock[0]
        self.runner = self.restarted()

    def restarted(self) -> Runner:
        """A runner that knows nothing of what was before."""
        return Runner(
            self.pool,
            self.directory,
            self.link,  # type: ignore[arg-type]
            submit=lambda _: None,
            worker=lambda: None,
            is_working_day=WORKDAYS.is_working_day,
            rng=Random(1),
        )

    async def press(self, terminal: str, *kinds: str, test: bool = False, seq: int | None = None) -> UUID:
        self._seq += 1
        press = Press(
            terminal=terminal,
            transport="mqtt",
            kinds=kinds or ("sos",),
            received_at=self.now,
            payload=b"{}",
            digest=b"",
            boot=1,
            seq=self._seq if seq is None else seq,
            test=test,
        )
        raised = await raise_alarm(self.pool, self.directory, press, worker=None)
        await self.act()
        return raised.case_id

    async def say(self, terminal: str, word: str, *, seq: int | None = None, ago_s: float = 0) -> list[UUID]:
        """Let a terminal publish an event."""
        touched = await take_word(
            self.pool,
            self.directory,
            terminal,
            word,
            seq=seq,
            said_at=self.now - timedelta(seconds=ago_s),
            is_working_day=WORKDAYS.is_working_day,
            worker=None,
        )
        await self.act()
        return touched

    @property
    def now(self) -> datetime:
        return self._clock[0]

    def turn(self, **by: float) -> None:
        """Turn the clock, without anybody looking."""
        self._clock[0] += timedelta(**by)

    async def act(self) -> None:
        """Let the runner and the dispatcher do what is due now."""
        while await self.due():
            await self.runner.advance_due()
        await self.runner.send_commands()
        await self.runner.send_progress()
        await self.deliver()

    async def deliver(self) -> None:
        """Send what is due now, the way the channels answer."""
        leased = await lease_due(self.pool, self.directory, worker=self.worker, holding=(), limit=500)
        tried = [
            Tried(notice=one, started_at=self.now, answered_at=self.now, outcome=self.channel(one)) for one in leased
        ]
        if tried:
            await record_attempts(self.pool, self.directory, tried, worker=None, rng=Random(1))

    async def due(self) -> bool:
        async with self.pool.connection() as conn:
            return bool(await procedures.due_cases(conn, limit=1))

    async def at(self, seconds: float) -> None:
        """Let time pass until so many seconds after the start, waking whenever something wants to be looked at."""
        until = self.started + timedelta(seconds=seconds)
        while (wake := await self.next()) is not None and wake <= until:
            self._clock[0] = max(self.now, wake)
            await self.act()
        self._clock[0] = max(self.now, until)
        await self.act()

    async def next(self) -> datetime | None:
        """When something wants to be looked at next."""
        rows = await self.rows(
            "SELECT min(at) FROM (SELECT min(wake_at) AS at FROM cases UNION ALL "
            "SELECT min(due_at) FROM notice WHERE state = 'due' UNION ALL SELECT min(next_at) FROM progress "
            "UNION ALL SELECT min(next_at) FROM command) t WHERE at > %s",
            self.now,
        )
        return rows[0][0]  # type: ignore[no-any-return]

    async def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        async with self.pool.connection() as conn:
            return await (await conn.execute(query, values)).fetchall()

    async def open_tasks(self, case: UUID) -> set[str]:
        found = await self.rows("SELECT name FROM step WHERE case_id = %s AND does = 'task' AND state = 'open'", case)
        return {name for (name,) in found}

    async def steps(self, case: UUID) -> dict[str, tuple[str, str | None, float]]:
        """State, result and planned second of every step that has one."""
        found = await self.rows("SELECT name, state, result, planned_at FROM step WHERE case_id = %s", case)
        return {name: (state, result, (at - self.started).total_seconds()) for name, state, result, at in found}

    async def legs(self, case: UUID) -> dict[str, str]:
        """State of the legs by party."""
        return dict(await self.rows("SELECT coalesce(party_id, role), state FROM leg WHERE case_id = %s", case))

    async def done(self, case: UUID, name: str, result: str = "done", *, by: str = "seat-7") -> None:
        found = await self.rows(
            "SELECT id FROM step WHERE case_id = %s AND name = %s ORDER BY state = 'open' DESC, planned_at LIMIT 1",
            case,
            name,
        )
        ((task,),) = found
        await complete_task(
            self.pool, self.directory, task, result=result, by=by, note=None, is_working_day=WORKDAYS.is_working_day
        )
        await self.act()

    async def fact(self, case: UUID, fact: Fact, *, role: str = "operator", about: str | None = None) -> None:
        await set_fact(
            self.pool,
            self.directory,
            case,
            fact,
            role=role,
            about=about,
            by="seat-7",
            is_working_day=WORKDAYS.is_working_day,
        )
        await self.act()

    async def answer(self, case: UUID, role: str, answer: str, *, minutes: int | None = None) -> None:
        rows = await self.rows("SELECT id FROM leg WHERE case_id = %s AND role = %s LIMIT 1", case, role)
        await answer_leg(self.pool, self.directory, rows[0][0], PartyAnswer(answer, minutes=minutes), via="api")
        await self.act()

    async def told(self, case: UUID, role: str) -> list[str]:
        """Why each message to a role was sent, in their order, without the further calls while nobody answers."""
        return [reason for reason, _ in await self.messages(case, role) if reason != "unanswered"]

    async def messages(self, case: UUID, role: str) -> list[tuple[str, float]]:
        """Every message to a role that was sent: why, and how many seconds after the start."""
        rows = await self.rows(
            "SELECT n.reason, n.ended_at FROM notice n JOIN leg l ON l.id = n.leg_id WHERE n.case_id = %s "
            "AND l.role = %s AND n.state = 'sent' ORDER BY n.ended_at, n.number",
            case,
            role,
        )
        return [(reason, (at - self.started).total_seconds()) for reason, at in rows]

    async def own(self, case: UUID, operator: str = "seat-7") -> None:
        await acknowledge_case(self.pool, self.directory, case, operator=operator)
        await self.act()

    async def close(self, case: UUID, outcome: str = "helped", note: str | None = None) -> None:
        await close_case(
            self.pool, self.directory, case, outcome=outcome, confirmed_by="ambulance_120", note=note, worker=None
        )
        await self.act()


@asynccontextmanager
async def desk_in(
    database: str,
    directory: Directory,
    keyring: Keyring,
    city: str,
    *,
    agreed: bool = False,
    change: Callable[[dict[str, Any]], None] = lambda _: None,
) -> AsyncIterator[Desk]:
    """Set up the example of a city; with `agreed` everybody signed that an operator may dial for them (R3)."""
    clock = [START]
    document = load(ROOT / "examples" / f"{city}.yaml").site.model_dump(mode="json", exclude_none=True)
    for household in document["households"]:
        for person in household["persons"]:
            person["agreements"] = ["dial_on_behalf"] if agreed else []
    change(document)
    session = await connect(database, name="desk")
    async with session, open_clocked_pool(database, clock=lambda: clock[0]) as pool:
        worker = await outbox.register(session, "desk")
        await store_shipped(pool)
        await apply_site(pool, keyring, Site.model_validate(document), prune=False)
        yield Desk(pool, directory, clock, worker)
