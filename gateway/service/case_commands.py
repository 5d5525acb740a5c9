"""What people do with a case: answer, own, confirm safety, close. Every command may be repeated safely."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from gateway.domain.case import (
    ANSWER_STATES,
    CaseState,
    Fact,
    FalseAlarm,
    LegState,
    NotFound,
    StateConflict,
    after_answer,
    facts_of_answer,
)
from gateway.domain.kinds import CaseClass
from gateway.domain.outbox import DueNotice, PartyAnswer
from gateway.service import case_orders, fan_out
from gateway.service.settling import settle_role
from gateway.service.views import Surroundings, surroundings
from gateway.store import cases, events, outbox, procedures, queries
from gateway.store.cases import CaseRow, LegRow
from gateway.store.directory import Directory
from gateway.store.journal import Head, Note, Writer
from gateway.store.pool import Connection, Pool

__all__ = [
    "Answered",
    "Outcome",
    "acknowledge_case",
    "answer_leg",
    "close_case",
    "close_in",
    "mark_safe",
    "record_answer",
]


class Outcome(StrEnum):
    """How a case ended."""

    HELPED = "helped"
    HOSPITAL = "hospital"
    FALSE_ALARM = "false_alarm"
    TEST = "test"
    TECHNICAL_FIXED = "technical_fixed"
    SERVICE_DONE = "service_done"
    DUPLICATE = "duplicate"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What an answer did. ``counted`` is false when it came too late: it is on record only."""

    case_id: UUID
    leg_id: UUID
    state: LegState
    case_state: CaseState
    counted: bool


@asynccontextmanager
async def _locked(pool: Pool, case_id: UUID) -> AsyncIterator[tuple[Connection, CaseRow]]:
    async with pool.connection() as conn, conn.transaction():
        case = await cases.lock_case(conn, case_id)
        if case is None:
            raise NotFound(f"There is no case {case_id}.")
        yield conn, case


def _writer(case: CaseRow, around: Surroundings) -> Writer:
    return Writer(case.id, around.key, Head(case.journal_n, bytes(case.journal_head)))


async def answer_leg(
    pool: Pool, directory: Directory, leg_id: UUID, answer: PartyAnswer, *, via: str, number: int | None = None
) -> Answered:
    """Record what a party answers on a leg.

    The same answer of the same person again changes nothing, unless the leg became an obligation again
    meanwhile. On a leg or case that is over, the answer is put on record and the state stays; and so it is when
    the person pressed again after the message with this `number`, which it answers.

    Raises:
        NotFound: No such leg.
        StateConflict: The leg has no party, so nobody can have answered.
    """
    async with pool.connection() as conn:
        case_id = await queries.case_of_leg(conn, leg_id)
    if case_id is None:
        raise NotFound(f"There is no leg {leg_id}.")
    async with _locked(pool, case_id) as (conn, case):
        leg = next(leg for leg in await cases.legs_of(conn, case_id) if leg.id == leg_id)
        if leg.party_id is None:
            raise StateConflict(f"Leg {leg_id} has no party: nobody of the household has the role {leg.role}.")
        writer = _writer(case, await surroundings(conn, directory, case))
        anew = {} if number is None else await outbox.asked_anew(conn, case_id)
        overtaken = number is not None and number < anew.get(leg_id, 0)
        state = await record_answer(conn, case, leg, answer, via=via, writer=writer, overtaken=overtaken)
        await writer.flush(conn)
    case_state = CaseState(case.state)
    return Answered(
        case_id=case_id,
        leg_id=leg_id,
        state=state,
        case_state=case_state,
        counted=not overtaken
        and case_state is not CaseState.CLOSED
        and state not in (LegState.WITHDRAWN, LegState.SKIPPED),
    )


async def record_answer(
    conn: Connection,
    case: CaseRow,
    leg: LegRow,
    answer: PartyAnswer,
    *,
    via: str,
    writer: Writer,
    overtaken: bool = False,
) -> LegState:
    """Record an answer in the caller's transaction, which holds the lock of the case, and return the leg's state.

    The caller flushes `writer`. `leg` is the row as it stands now. An answer that is `overtaken`, since the person
    pressed again after the message it answers, is put on record and ends nothing.
    """
    before = LegState(leg.state)
    after = before if overtaken or case.state == CaseState.CLOSED else after_answer(before, answer.answer)
    by, reason = _storable(answer.by, longest=100), _storable(answer.reason, longest=500)
    last = await queries.last_answer(conn, leg.id, by)
    given = (answer.answer, answer.minutes, reason)
    if after is before and last is not None and (last.answer, last.minutes, last.reason) == given:
        return before
    at = await outbox.add_answer(
        conn, leg=leg.id, case=case.id, answer=answer.answer, reason=reason, minutes=answer.minutes, by=by, via=via
    )
    if after is not before:
        await queries.set_leg_state(conn, leg.id, after)
    if before is LegState.PENDING and after is ANSWER_STATES[answer.answer]:
        await outbox.cancel(conn, leg.id)
    told = {
        "leg": str(leg.id),
        "role": leg.role,
        "party": leg.party_id,
        "answer": answer.answer,
        "minutes": answer.minutes,
        "state": after.value,
    }
    writer.add(
        Note("leg.answered", {**told, "reason": reason, "by": by, "via": via}, actor=f"party:{leg.party_id}"), at=at
    )
    await events.emit(conn, "leg.answered", district=case.district, case_id=case.id, data=told)
    facts = facts_of_answer(answer.answer, role=leg.role)
    # A party speaks for its own role alone: what it knows or does ends nobody else's obligation (R17).
    added = await procedures.add_facts(conn, case.id, facts, role=leg.role, by=f"party:{leg.party_id}")
    for name, since in added.items():
        writer.add(Note("case.fact", {"fact": name, "role": leg.role}, actor=f"party:{leg.party_id}"), at=since)
    return after


def _storable(text: str | None, *, longest: int) -> str | None:
    """Return text that the database takes: a party's platform may send a NUL or half a surrogate (D12)."""
    if text is None:
        return None
    return "".join(char if char.isprintable() else " " for char in text)[:longest].strip() or None


async def acknowledge_case(
    pool: Pool, directory: Directory, case_id: UUID, *, operator: str, via: str | None = None
) -> CaseRow:
    """Own a case: the first operator stays responsible to the end (R17). Asking again changes nothing.

    Raises:
        NotFound: No such case.
        StateConflict: Somebody else owns it, or it was closed without an owner.
    """
    async with _locked(pool, case_id) as (conn, case):
        if case.owner == operator:
            return case
        if case.owner is not None:
            raise StateConflict(f"The case is owned already, by {case.owner}; the first operator stays responsible.")
        if case.state == CaseState.CLOSED:
            raise StateConflict("The case was closed without an owner; nobody can take it over any more.")
        around = await surroundings(conn, directory, case)
        at = await queries.own(conn, case_id, operator)
        by = f"operator:{operator}"
        writer = _writer(case, around)
        writer.add(Note("case.acknowledged", {"operator": operator, "via": via}, actor=by), at=at)
        data = {**_about(case), "operator": operator}
        await events.emit(conn, "case.acknowledged", district=case.district, case_id=case_id, data=data)
        # Owning is the hotline's own fact: it ends the calls to the hotline, and to nobody else.
        await settle_role(conn, case, "hotline", fact=Fact.OWNED, by=by, journal=writer, now=at)
        await writer.flush(conn)
        case = replace(case, owner=operator, first_owner=operator, owned_at=at)
        await case_orders.write_up(conn, directory.keyring, case, around, writer.head, operator=operator)
    return case


def _refuse_unseen(case: CaseRow, urgency: int | None) -> None:
    """Whoever decides on what they saw must not end a press that came meanwhile (I2)."""
    if urgency is not None and case.urgency > urgency:
        raise StateConflict(
            f"The person pressed again meanwhile: the urgency is {case.urgency}, and {urgency} was seen. "
            "Look at the case, then decide again."
        )


async def mark_safe(
    pool: Pool, directory: Directory, case_id: UUID, *, by: str, urgency: int | None = None, via: str | None = None
) -> CaseRow:
    """Note that `by` confirmed that the person is safe: the next press opens a new case (D10).

    A case that is safe or closed already stays as it is. `urgency` is what `by` saw of it; None does not ask.

    Raises:
        NotFound: No such case.
        StateConflict: The person pressed again since `urgency` was seen.
    """
    async with _locked(pool, case_id) as (conn, case):
        if case.state != CaseState.OPEN:
            return case
        _refuse_unseen(case, urgency)
        around = await surroundings(conn, directory, case)
        at = await queries.set_safe(conn, case_id, by)
        await _tell(conn, case, around, "case.safe", {"by": by}, actor=by, via=via, at=at)
    return replace(case, state=CaseState.SAFE, safe_at=at, safe_by=by)


async def close_case(
    pool: Pool,
    directory: Directory,
    case_id: UUID,
    *,
    outcome: str,
    confirmed_by: str | None,
    note: str | None,
    reason: str | None = None,
    urgency: int | None = None,
    operator: str | None = None,
    via: str | None = None,
    worker: int | None = None,
) -> list[DueNotice]:
    """Close a case: cancel what is due, withdraw obligations, and tell whoever was told that it is over (I4).

    `confirmed_by` says that the person is safe, unless the case is safe already. `note` is kept in the journal
    alone, where it can be erased (D15). `reason` is why an alarm was false; a `note` alone counts as another reason.
    `urgency` is what whoever closes saw of it; None does not ask. Returns the notices that `worker` has to send.

    Raises:
        NotFound: No such case.
        StateConflict: It was closed with another outcome; or it is an emergency and nobody confirmed safety; or it was
            a false alarm and nothing says why; or the person pressed again since `urgency` was seen.
    """
    outcome = Outcome(outcome)
    async with _locked(pool, case_id) as (conn, case):
        if case.state == CaseState.CLOSED:
            if case.outcome != outcome:
                raise StateConflict(f"The case was closed already, with the outcome {case.outcome}.")
            return []
        _refuse_unseen(case, urgency)
        if case.case_class == CaseClass.EMERGENCY and case.safe_at is None and confirmed_by is None:
            raise StateConflict(
                "An emergency is closed only after somebody confirmed that the person is safe: say who."
            )
        false_alarm = _why_false(outcome, reason, _storable(note, longest=4000))
        around = await surroundings(conn, directory, case)
        by = operator or case.owner or confirmed_by or "gateway"
        writer = _writer(case, around)
        notices = await close_in(
            conn,
            case,
            around,
            writer,
            outcome=outcome,
            confirmed_by=confirmed_by,
            note=note,
            false_alarm=false_alarm,
            by=by,
            actor=f"operator:{by}",
            via=via,
            worker=worker,
        )
        await writer.flush(conn)
        case = replace(case, state=CaseState.CLOSED)
        handled_by = operator or case.first_owner
        await case_orders.write_up(conn, directory.keyring, case, around, writer.head, operator=handled_by)
        return notices


def _why_false(outcome: Outcome, reason: str | None, note: str | None) -> FalseAlarm | None:
    """Return why an alarm was false: false alarms are counted by their reasons."""
    if outcome is not Outcome.FALSE_ALARM:
        if reason is not None:
            raise StateConflict(f"A reason belongs to a false alarm, and the outcome is {outcome}.")
        return None
    if reason is None and note is None:
        raise StateConflict("Say why the alarm was false: choose a reason, or write a note.")
    why = FalseAlarm.OTHER if reason is None else FalseAlarm(reason)
    if why is FalseAlarm.OTHER and note is None:
        raise StateConflict("Another reason needs a note that says which.")
    return why


async def close_in(
    conn: Connection,
    case: CaseRow,
    around: Surroundings,
    writer: Writer,
    *,
    outcome: Outcome,
    confirmed_by: str | None,
    note: str | None,
    by: str,
    actor: str,
    via: str | None,
    worker: int | None,
    false_alarm: FalseAlarm | None = None,
) -> list[DueNotice]:
    """Close a case in the caller's transaction, which holds its lock and flushes `writer`."""
    case_id, safe_by = case.id, confirmed_by or by
    if case.safe_at is None:
        safe_at = await queries.set_safe(conn, case_id, safe_by)
        writer.add(Note("case.safe", {"by": safe_by, "via": via}, actor=actor), at=safe_at)
        await events.emit(conn, "case.safe", district=case.district, case_id=case_id, data=_about(case))
        case = replace(case, safe_at=safe_at, safe_by=safe_by)
    closed_at = await queries.set_closed(conn, case_id, outcome=outcome, by=by, false_alarm=false_alarm)
    case = replace(case, state=CaseState.CLOSED, closed_at=closed_at, closed_by=by, outcome=outcome)

    await queries.lock_due(conn, case_id)
    told = await queries.told_legs(conn, case_id)
    await outbox.cancel_of_case(conn, case_id)
    withdrawn = await queries.withdraw_legs(conn, case_id)
    legs = [leg for leg in await cases.legs_of(conn, case_id) if leg.id in told]
    notices = await fan_out.renotify(conn, case, legs, reason="closed", around=around, worker=worker, rearm=False)
    writer.add(
        Note(
            "case.closed",
            {
                "outcome": outcome,
                "confirmed_by": confirmed_by,
                "reason": false_alarm,
                "note": _storable(note, longest=4000),
                "via": via,
                "withdrawn": [str(leg) for leg in withdrawn],
                "told": [str(leg.id) for leg in legs],
            },
            actor=actor,
        ),
        at=closed_at,
    )
    await events.emit(
        conn,
        "case.closed",
        district=case.district,
        case_id=case_id,
        data={**_about(case), "outcome": outcome, "reason": false_alarm, "told": len(legs)},
    )
    return notices


def _about(case: CaseRow) -> dict[str, object]:
    return {"class": case.case_class, "kinds": case.kinds, "test": case.test}


async def _tell(
    conn: Connection,
    case: CaseRow,
    around: Surroundings,
    kind: str,
    data: dict[str, object],
    *,
    actor: str,
    via: str | None,
    at: datetime,
) -> None:
    writer = _writer(case, around)
    writer.add(Note(kind, {**data, "via": via}, actor=f"operator:{actor}"), at=at)
    await writer.flush(conn)
    await events.emit(conn, kind, district=case.district, case_id=case.id, data={**_about(case), **data})
