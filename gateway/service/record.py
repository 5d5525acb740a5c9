"""What came of attempts: notices end or are put off, legs move, and everything is journaled."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from random import Random
from uuid import UUID

from gateway.domain.case import CaseState, LegState
from gateway.domain.directory import Party
from gateway.domain.kinds import NEVER_IN_A_TEST
from gateway.domain.outbox import CALLS, DueNotice, GiveUp, Sent, Tried
from gateway.domain.plan import PlannedLeg
from gateway.domain.privacy import privacy_of
from gateway.domain.retry import LAST_TRY, TRIES_BEFORE_HELP, backoff
from gateway.service import fan_out
from gateway.service.case_commands import record_answer
from gateway.service.disclosures import shows_health
from gateway.service.views import Surroundings, case_keys, surroundings
from gateway.store import cases, events, outbox, procedures
from gateway.store.cases import CaseRow, Delivered, LegRow
from gateway.store.directory import Directory
from gateway.store.events import NewEvent
from gateway.store.journal import Head, Note, Writer, flush_all
from gateway.store.outbox import NoticeRow
from gateway.store.pool import Connection, Pool

__all__ = ["Recorded", "record_attempts", "record_delivery_report", "record_unreachable"]

_WORDS = {"Sent": "sent", "TryAgain": "try_again", "GiveUp": "give_up"}


@dataclass(frozen=True, slots=True)
class Recorded:
    """``notices`` have to be sent now. ``later`` could not be recorded yet, since somebody holds their cases."""

    notices: list[DueNotice]
    later: list[Tried]


async def record_attempts(
    pool: Pool, directory: Directory, tried: Sequence[Tried], *, worker: int | None, rng: Random
) -> Recorded:
    """Record attempts of any number of cases in one transaction; what is recorded already changes nothing.

    A case that somebody else works on holds up no other: its attempts come back, to be recorded later. A notice that
    failed for good on the last channel of its party fails its leg and calls the fallback in (D13); what `worker` has
    to send because of that is returned.
    """
    by_case: dict[UUID, list[Tried]] = defaultdict(list)
    async with pool.connection() as conn, conn.pipeline(), conn.transaction():
        # The cases first: whoever changes anything of a case holds its row before (no deadlocks).
        held = await cases.lock_free_cases(conn, {one.notice.case.id for one in tried})
        free = {case.id for case in held}
        ours = [one for one in tried if one.notice.case.id in free]
        # The answer to an earlier COMMIT may have been lost on the way: then all of this is on record.
        fresh = await outbox.add_attempts(conn, ours, [_WORDS[type(one.outcome).__name__] for one in ours])
        ours = [one for one in ours if (one.notice.id, one.started_at) in fresh]
        for one in ours:
            by_case[one.notice.case.id].append(one)
        await outbox.finish(conn, [one.notice.id for one in ours if isinstance(one.outcome, Sent)], "sent")
        notices: list[DueNotice] = []
        delivered: list[tuple[CaseRow, Sequence[Tried]]] = []
        for case in held:
            ours = by_case.get(case.id, [])
            if all(isinstance(one.outcome, Sent) and one.outcome.answer is None for one in ours):
                delivered.append((case, ours))
            else:
                notices += await _record_case(conn, directory, case, ours, worker=worker, rng=rng)
        await _record_deliveries(conn, directory, delivered)
    return Recorded(notices, [one for one in tried if one.notice.case.id not in free])


async def record_unreachable(
    pool: Pool, directory: Directory, rows: Sequence[NoticeRow], *, worker: int | None
) -> list[DueNotice]:
    """End notices to parties that left the directory or have no channel any more; the fallback hears instead (D13)."""
    by_case: dict[UUID, list[NoticeRow]] = defaultdict(list)
    for row in rows:
        by_case[row.case_id].append(row)
    notices: list[DueNotice] = []
    for case_id in sorted(by_case):
        async with pool.connection() as conn, conn.transaction():
            case = await cases.lock_case(conn, case_id)
            assert case is not None, "cases are never deleted"
            around = await surroundings(conn, directory, case)
            legs = {leg.id: leg for leg in await cases.legs_of(conn, case_id)}
            calls = await outbox.last_calls(conn, case_id)
            journal = Writer(case.id, around.key, Head(case.journal_n, bytes(case.journal_head)))
            for row in by_case[case_id]:
                await outbox.finish(conn, [row.id], "failed")
                leg = legs[row.leg_id]
                if leg.state == LegState.PENDING and row.number >= calls.get(leg.id, 0) and row.reason != "location":
                    at = await _fail_leg(conn, case, leg, journal, problem="the party is no longer known")
                    failed = replace(leg, state=LegState.FAILED)
                    notices += await _call_fallback(conn, case, failed, around, journal, at=at, worker=worker)
            await journal.flush(conn)
    return notices


async def record_delivery_report(
    conn: Connection,
    directory: Directory,
    *,
    case_id: UUID,
    leg_id: UUID,
    notice_id: str,
    delivered: bool,
    detail: str,
    worker: int | None,
) -> list[DueNotice]:
    """Record what a network says later of a message that it had taken.

    If it could not be delivered, the next channel of the party is taken, and behind the last one the fallback is called
    in (D13), unless somebody of it answered meanwhile. Returns what `worker` has to send.
    """
    case = await cases.lock_case(conn, case_id)
    assert case is not None, "cases are never deleted"
    around = await surroundings(conn, directory, case)
    leg = next(leg for leg in await cases.legs_of(conn, case_id) if leg.id == leg_id)
    notice = await outbox.one(conn, notice_id)
    journal = Writer(case.id, around.key, Head(case.journal_n, bytes(case.journal_head)))
    at = await procedures.the_time(conn)
    about = {"leg": str(leg.id), "role": leg.role, "party": leg.party_id, "notice": notice.number, "detail": detail}
    journal.add(Note("leg.confirmed" if delivered else "leg.undelivered", about), at=at)
    notices: list[DueNotice] = []
    newest = notice.number >= (await outbox.last_calls(conn, case_id)).get(leg_id, 0)
    waits = leg.state in (LegState.PENDING, LegState.DELIVERED) and case.state == CaseState.OPEN
    if not delivered and notice.reason in CALLS and newest and waits and leg.party_id is not None:
        leg = replace(leg, state=LegState.PENDING, delivered_at=None)
        await cases.undeliver(conn, leg_id)
        party = around.party(str(leg.party_id))
        if party is not None and notice.channel + 1 < len(party.channels):
            notices += await fan_out.renotify(
                conn,
                case,
                [leg],
                reason=notice.reason,
                around=around,
                worker=worker,
                rearm=False,
                channel=notice.channel + 1,
            )
        else:
            await _fail_leg(conn, case, leg, journal, problem=f"no channel of the party worked, last: {detail}")
            leg = replace(leg, state=LegState.FAILED)
            notices += await _call_fallback(conn, case, leg, around, journal, at=at, worker=worker)
    await journal.flush(conn)
    return notices


async def _record_deliveries(
    conn: Connection, directory: Directory, delivered: Sequence[tuple[CaseRow, Sequence[Tried]]]
) -> None:
    """Record for any number of cases what was delivered and not answered, in as many statements as for one."""
    tried = [one for _, ours in delivered for one in ours]
    if not tried:
        return
    keys = await case_keys(conn, directory, [case for case, _ in delivered])
    journals = []
    for case, ours in delivered:
        journal = Writer(case.id, keys[case.id], Head(case.journal_n, bytes(case.journal_head)))
        for one in ours:
            _journal_attempt(journal, one)
        journals.append(journal)
    await cases.deliver(conn, [_delivery(one) for one in tried])
    await flush_all(conn, journals)
    await events.emit_all(conn, [_delivered_event(case, one) for case, ours in delivered for one in ours])


def _delivery(one: Tried) -> Delivered:
    return Delivered(leg=one.notice.leg_id, number=one.notice.number, channel=one.notice.channel, at=one.answered_at)


def _delivered_event(case: CaseRow, one: Tried) -> NewEvent:
    notice = one.notice
    return NewEvent(
        kind="leg.delivered",
        district=case.district,
        case_id=case.id,
        data={"leg": str(notice.leg_id), "role": notice.role, "party": notice.party.id, "notice": notice.number},
    )


async def _record_case(
    conn: Connection, directory: Directory, case: CaseRow, tried: Sequence[Tried], *, worker: int | None, rng: Random
) -> list[DueNotice]:
    around = await surroundings(conn, directory, case)
    legs = {leg.id: leg for leg in await cases.legs_of(conn, case.id)}
    journal = Writer(case.id, around.key, Head(case.journal_n, bytes(case.journal_head)))
    calls = await outbox.last_calls(conn, case.id)
    notices: list[DueNotice] = []
    for one in tried:
        newest = one.notice.number >= calls.get(one.notice.leg_id, 0)
        leg = legs[one.notice.leg_id]
        _journal_attempt(journal, one)
        match one.outcome:
            case Sent(answer=answer):
                legs[leg.id] = await _delivered(conn, case, leg, one, newest=newest)
                if answer is not None:
                    via = one.notice.spec.kind
                    anew = {} if newest else await outbox.asked_anew(conn, case.id)
                    overtaken = one.notice.number < anew.get(leg.id, 0)
                    await record_answer(conn, case, legs[leg.id], answer, via=via, writer=journal, overtaken=overtaken)
            case _:
                notices += await _failed(conn, case, leg, one, around, journal, newest=newest, worker=worker, rng=rng)
    await journal.flush(conn)
    return notices


def _journal_attempt(journal: Writer, one: Tried) -> None:
    kind = "leg.delivered" if isinstance(one.outcome, Sent) else "leg.attempt_failed"
    # What went along (R22), also where it failed: it may have arrived. On the stream there are only events.
    case, level = one.notice.case, privacy_of(one.notice.role, one.notice.case.privacy)
    personal = one.notice.spec.kind != "stream"
    journal.add(
        Note(
            kind,
            {
                "leg": str(one.notice.leg_id),
                "role": one.notice.role,
                "party": one.notice.party.id,
                "notice": one.notice.number,
                "reason": one.notice.reason,
                "channel": one.notice.spec.kind,
                "try": one.notice.tries + 1,
                "queued_at": one.notice.queued_at,
                "started_at": one.started_at,
                "latency_ms": round((one.answered_at - one.started_at).total_seconds() * 1000, 1),
                "status": one.outcome.status,
                "detail": one.outcome.detail,
                "privacy": level.value if personal else None,
                "health": personal and shows_health(case.household, level),
            },
        ),
        at=one.answered_at,
    )


async def _delivered(conn: Connection, case: CaseRow, leg: LegRow, one: Tried, *, newest: bool) -> LegRow:
    await cases.deliver(conn, [_delivery(one)])
    await events.emit_all(conn, [_delivered_event(case, one)])
    if leg.state == LegState.PENDING and newest:
        return replace(leg, state=LegState.DELIVERED, delivered_at=one.answered_at)
    return replace(leg, delivered_at=leg.delivered_at or one.answered_at)


async def _failed(
    conn: Connection,
    case: CaseRow,
    leg: LegRow,
    one: Tried,
    around: Surroundings,
    journal: Writer,
    *,
    newest: bool,
    worker: int | None,
    rng: Random,
) -> list[DueNotice]:
    notice = one.notice
    tries = notice.tries + 1
    gives_up = isinstance(one.outcome, GiveUp)
    if notice.channel + 1 < len(notice.party.channels):
        if gives_up or tries >= TRIES_BEFORE_HELP:
            await outbox.postpone(conn, notice.id, channel=notice.channel + 1, tries=0, delay=timedelta(0))
        else:
            await outbox.postpone(conn, notice.id, channel=notice.channel, tries=tries, delay=backoff(tries, rng))
        return []
    if not gives_up and tries < LAST_TRY:
        await outbox.postpone(conn, notice.id, channel=notice.channel, tries=tries, delay=backoff(tries, rng))
        if tries < TRIES_BEFORE_HELP:
            return []
        return await _call_fallback(conn, case, leg, around, journal, at=one.answered_at, worker=worker)
    await outbox.finish(conn, [notice.id], "failed")
    if leg.state != LegState.PENDING or not newest or notice.reason == "location":
        return []
    problem = f"no channel of the party worked, last: {one.outcome.detail}"[:500]
    await _fail_leg(conn, case, leg, journal, problem=problem)
    return await _call_fallback(conn, case, leg, around, journal, at=one.answered_at, worker=worker)


async def _fail_leg(conn: Connection, case: CaseRow, leg: LegRow, journal: Writer, *, problem: str) -> datetime:
    at = await cases.fail_leg(conn, leg.id, problem)
    journal.add(
        Note("leg.failed", {"leg": str(leg.id), "role": leg.role, "party": leg.party_id, "problem": problem}), at=at
    )
    await events.emit(
        conn,
        "leg.failed",
        district=case.district,
        case_id=case.id,
        data={"leg": str(leg.id), "role": leg.role, "party": leg.party_id},
    )
    return at


def _spared(case: CaseRow, party: Party) -> str | None:
    if case.taking_part is not None:
        return None if party.id in case.taking_part else "does not take part in the drill"
    return "a test never wakes this role" if case.test and party.role in NEVER_IN_A_TEST else None


async def _call_fallback(
    conn: Connection,
    case: CaseRow,
    leg: LegRow,
    around: Surroundings,
    journal: Writer,
    *,
    at: datetime,
    worker: int | None,
) -> list[DueNotice]:
    """Let the site's fallback hear of the case, if it did not yet (D13)."""
    if case.state != CaseState.OPEN or leg.state not in (LegState.PENDING, LegState.FAILED):
        return []
    fallback = [
        PlannedLeg(
            role=party.role,
            party=party,
            origin="fallback",
            skipped=_spared(case, party),
        )
        for party in around.site.fallback
        if party.channels and party.id != leg.party_id
    ]
    already = {known.party_id for known in await cases.legs_of(conn, case.id)}
    missing = [planned for planned in fallback if planned.party is not None and planned.party.id not in already]
    added, notices = await fan_out.add_legs(conn, case, missing, around=around, worker=worker, now=at)
    if added:
        journal.add(Note("case.fallback", {"because": str(leg.id), "legs": [str(new.id) for new in added]}), at=at)
    return notices
