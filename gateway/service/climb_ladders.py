"""Calling on: what an unanswered leg wants by now, and who steps in when its deadline passes (I3, I7)."""

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from gateway.domain.case import CaseState, LegState
from gateway.domain.kinds import NEVER_IN_A_TEST
from gateway.domain.ladder import Calls, Climb, Ladder, climb
from gateway.domain.plan import PlannedLeg, stand_ins
from gateway.service import fan_out
from gateway.service.case_work import Work
from gateway.store import cases, outbox
from gateway.store.cases import LegRow

__all__ = ["climb_legs"]

_OPEN = (LegState.PENDING, LegState.DELIVERED)


async def climb_legs(work: Work) -> datetime | None:
    """Make the calls that are due on the legs of an open case; returns when time alone wants another.

    Once the person is safe nobody is called on: what is still open ends with the closure.
    """
    if work.case.state != CaseState.OPEN:
        return None
    legs = await cases.legs_of(work.conn, work.case.id)
    late: list[LegRow] = []
    untried: set[UUID] | None = None
    for leg in legs:
        if leg.state not in _OPEN or leg.party_id is None:
            continue
        wanted = _wanted(leg, work.now)
        if wanted.overdue:
            late.append(leg)
        if wanted.call is not None:
            if untried is None:
                untried = await outbox.untried(work.conn, work.case.id)
            await _call(work, leg, wanted.call, silent=leg.id in untried)
    if late:
        await _miss(work, legs, late)
        legs = await cases.legs_of(work.conn, work.case.id)
    return _earliest(_wanted(leg, work.now).wake_at for leg in legs if leg.state in _OPEN)


def _earliest(times: Iterable[datetime | None]) -> datetime | None:
    return min((at for at in times if at is not None), default=None)


def _wanted(leg: LegRow, now: datetime) -> Climb:
    calls = Calls(armed_at=leg.armed_at, made=leg.calls, overdue=leg.overdue_at is not None)
    return climb(Ladder.of_record(leg.ladder), calls, now=now)


async def _call(work: Work, leg: LegRow, number: int, *, silent: bool) -> None:
    """Call once more, beginning with the next channel of the party; `silent` when the last call has yet to leave."""
    await cases.called_again(work.conn, leg.id, calls=number)
    if silent or work.around.party(str(leg.party_id)) is None:
        return  # it left the directory: its first notice fails the leg and calls the fallback
    work.notices += await fan_out.renotify(
        work.conn,
        work.case,
        [leg],
        reason="unanswered",
        around=work.around,
        worker=work.worker,
        rearm=False,
        channel=number - 1,
    )
    data = {"leg": str(leg.id), "role": leg.role, "party": leg.party_id, "call": number}
    work.note("leg.called_again", data, actor="gateway")


async def _miss(work: Work, legs: list[LegRow], late: list[LegRow]) -> None:
    """Record passed deadlines, and let the next one step in for each role of which nobody answered."""
    for leg in late:
        await cases.overdue(work.conn, leg.id)
        work.note("leg.overdue", {"leg": str(leg.id), "role": leg.role, "party": leg.party_id}, actor="gateway")
    answered = {leg.role for leg in legs if leg.state == LegState.ANSWERED}
    for role, leg in {leg.role: leg for leg in late}.items():
        if role not in answered:
            await _step_in(work, legs, leg)
            legs = await cases.legs_of(work.conn, work.case.id)


async def _step_in(work: Work, legs: list[LegRow], leg: LegRow) -> None:
    household, site = work.around.household, work.around.site
    parties = () if household is None else household.parties
    told = {known.party_id for known in legs if known.party_id is not None}
    party = work.around.party(str(leg.party_id))
    ladder = Ladder.of_record(leg.ladder)
    helpers = stand_ins(leg.role, ladder, parties, told=told, grade=None if party is None else party.grade)
    if not helpers:
        helpers = [
            PlannedLeg(role=known.role, party=known, origin="fallback", ladder=Ladder(), instead_of=leg.role)
            for known in site.fallback
            if known.id not in told and known.channels
        ]
    if work.case.taking_part is not None:
        helpers = [one for one in helpers if one.party is not None and one.party.id in work.case.taking_part]
    elif work.case.test:
        helpers = [one for one in helpers if one.role not in NEVER_IN_A_TEST]
    added, notices = await fan_out.add_legs(
        work.conn, work.case, helpers, around=work.around, worker=work.worker, now=work.now
    )
    work.notices += notices
    if added:
        work.note("leg.stood_in", {"because": str(leg.id), **_named(leg.role, added)}, actor="gateway")


def _named(role: str, added: list[LegRow]) -> dict[str, object]:
    legs: list[tuple[UUID, str]] = [(leg.id, leg.role) for leg in added]
    return {"role": role, "legs": [str(leg) for leg, _ in legs], "by": sorted({by for _, by in legs})}
