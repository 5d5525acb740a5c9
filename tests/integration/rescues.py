"""Whole rescues on the real tables, played in no time: for what is proved and reported afterwards."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from random import Random
from uuid import UUID

from gateway.domain.outbox import DueNotice, PartyAnswer, Sent, Tried, TryAgain
from gateway.service.case_commands import acknowledge_case, answer_leg, close_case, mark_safe
from gateway.service.due import lease_due
from gateway.service.raise_alarm import Press, raise_alarm
from gateway.service.record import record_attempts
from gateway.service.run_procedures import advance_case, store_shipped
from gateway.store import cases
from gateway.store.directory import Directory
from gateway.store.pool import Pool, open_clocked_pool

__all__ = ["START", "TERMINAL", "Rescue", "rescuing"]

START = datetime(2026, 11, 22, 2, 2, 3, 100_000, tzinfo=UTC)
"""10:02:03.1 in Nanjing."""

TERMINAL = "860000000000001"
FIX = {"lat": 32.0603, "lon": 118.7969, "datum": "wgs84", "source": "gnss", "accuracy_m": 12.0}


@dataclass
class Rescue:
    """One household in need: every call happens `at` so many seconds after the first press."""

    pool: Pool
    directory: Directory
    clock: list[datetime]
    terminal: str = TERMINAL
    seq: int = 0
    case: UUID = field(default_factory=lambda: UUID(int=0))

    def at(self, seconds: float) -> datetime:
        self.clock[0] = START + timedelta(seconds=seconds)
        return self.clock[0]

    async def press(self, seconds: float = 0, *, stored_after_s: float = 0.041) -> UUID:
        received = self.at(seconds)
        self.at(seconds + stored_after_s)
        self.seq += 1
        press = Press(
            terminal=self.terminal,
            transport="mqtt",
            kinds=("sos",),
            received_at=received,
            payload=b"{}",
            digest=self.seq.to_bytes(32, "big"),
            boot=1,
            seq=self.seq,
            pressed_at=received - timedelta(seconds=0.6),
            fix=FIX | {"at": (received - timedelta(seconds=25)).isoformat()},
            battery_pct=78,
        )
        raised = await raise_alarm(self.pool, self.directory, press, worker=None)
        self.case = raised.case_id
        await self.advance()
        return raised.case_id

    async def advance(self) -> None:
        await advance_case(self.pool, self.directory, self.case, is_working_day=_weekday, worker=None)

    async def deliver(self, seconds: float, *, failing: str | None = None) -> None:
        """Let everything that is due reach its party, one after the other within 40 ms; a role may be `failing`."""
        self.at(seconds)
        leased = await lease_due(self.pool, self.directory, worker=1, holding=(), limit=100)
        step = timedelta(seconds=0.04 / max(1, len(leased) - 1))
        tried = [self._tried(one, n * step, failing) for n, one in enumerate(leased)]
        await record_attempts(self.pool, self.directory, tried, worker=None, rng=Random(1))

    def _tried(self, one: DueNotice, later: timedelta, failing: str | None) -> Tried:
        began = self.clock[0] + later
        outcome = TryAgain("the receiver answered 500", status=500) if one.role == failing else Sent(200)
        return Tried(notice=one, started_at=began, answered_at=began + timedelta(seconds=0.023), outcome=outcome)

    async def leg(self, role: str) -> UUID:
        async with self.pool.connection() as conn:
            return next(leg.id for leg in await cases.legs_of(conn, self.case) if leg.role == role)

    async def answer(
        self, seconds: float, role: str, answer: str, *, minutes: int | None = None, reason: str | None = None
    ) -> None:
        self.at(seconds)
        given = PartyAnswer(answer, minutes=minutes, reason=reason, by="王小明" if role == "guardian" else None)
        await answer_leg(self.pool, self.directory, await self.leg(role), given, via="link")

    async def own(self, seconds: float, operator: str = "seat-7") -> None:
        self.at(seconds)
        await acknowledge_case(self.pool, self.directory, self.case, operator=operator)
        await self.advance()

    async def close(self, seconds: float, *, note: str | None = "送至鼓楼医院急诊，女儿陪同。") -> None:
        self.at(seconds)
        await mark_safe(self.pool, self.directory, self.case, by="ambulance_120")
        self.at(seconds + 60)
        await close_case(
            self.pool, self.directory, self.case, outcome="hospital", confirmed_by=None, note=note, operator="seat-7"
        )
        await self.deliver(seconds + 60.1)
        await self.advance()

    async def whole(self) -> UUID:
        """Play a rescue from the press to the closure."""
        await self.press()
        await self.deliver(0.06, failing="community")
        await self.own(6.2)
        await self.deliver(9)
        await self.answer(14.8, "guardian", "coming", minutes=6)
        await self.answer(31, "ambulance_120", "accepted")
        await self.answer(75, "community", "cannot", reason="网格员外出，电话 13900000099")
        await self.press(130)
        await self.deliver(130.1)
        await self.answer(412, "guardian", "arrived")
        await self.answer(560, "ambulance_120", "arrived")
        await self.advance()
        await self.close(1710)
        return self.case


def _weekday(day: date) -> bool:
    return day.weekday() < 5


@asynccontextmanager
async def rescuing(database: str, directory: Directory, *, terminal: str = TERMINAL) -> AsyncIterator[Rescue]:
    """Let a rescue begin in a database to which a site was applied."""
    clock = [START]
    async with open_clocked_pool(database, clock=lambda: clock[0]) as pool:
        await store_shipped(pool)
        yield Rescue(pool, directory, clock, terminal)
