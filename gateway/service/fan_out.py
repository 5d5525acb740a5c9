"""Legs and notices of a case: writing them with the case, and queueing a notice on every leg."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from gateway.domain.case import LegState
from gateway.domain.keys import leg_id
from gateway.domain.outbox import DueNotice
from gateway.domain.plan import PlannedLeg
from gateway.service.views import Surroundings, due, view_of
from gateway.store import cases, outbox
from gateway.store.cases import CaseRow, LegRow
from gateway.store.outbox import NoticeRow
from gateway.store.pool import Connection

__all__ = ["Calling", "add_legs", "add_legs_of_all", "renotify"]


def _row(case: CaseRow, leg: PlannedLeg, armed_at: datetime) -> LegRow:
    party = None if leg.party is None else leg.party.id
    if leg.skipped is not None:
        state, problem = LegState.SKIPPED, leg.skipped
    elif leg.problem is not None:
        state, problem = LegState.FAILED, leg.problem
    else:
        state, problem = LegState.PENDING, None
    return LegRow(
        id=leg_id(case.id, role=leg.role, party=party),
        case_id=case.id,
        party_id=party,
        role=leg.role,
        origin=leg.origin,
        state=state,
        channel=0,
        problem=problem,
        notices=1 if state is LegState.PENDING else 0,
        created_at=armed_at,
        delivered_at=None,
        ended_at=None,
        ladder=leg.ladder.record(),
        armed_at=armed_at,
        instead_of=leg.instead_of,
    )


_FIRST_REASON = {"plan": "alarm", "fallback": "fallback", "procedure": "procedure", "stand_in": "stand_in"}


@dataclass(frozen=True, slots=True)
class Calling:
    """A case, whom the plan calls for it and after how long, and what the directory says about it."""

    case: CaseRow
    planned: Sequence[PlannedLeg]
    around: Surroundings
    now: datetime
    delay: timedelta = timedelta(0)


async def add_legs(
    conn: Connection,
    case: CaseRow,
    planned: Sequence[PlannedLeg],
    *,
    around: Surroundings,
    worker: int | None,
    now: datetime,
    delay: timedelta = timedelta(0),
) -> tuple[list[LegRow], list[DueNotice]]:
    """Write the legs that the case does not have yet, each with its first notice.

    Returns the new legs, failed ones included, and the notices that `worker` now has to send: none with a `delay`,
    after which any worker finds them.
    """
    (added,) = await add_legs_of_all(conn, [Calling(case, planned, around, now, delay)], worker=worker)
    return added


async def add_legs_of_all(
    conn: Connection, calling: Sequence[Calling], *, worker: int | None
) -> list[tuple[list[LegRow], list[DueNotice]]]:
    """Do the work of `add_legs` for several cases, in as many statements as for one."""
    rows = [[_row(one.case, leg, one.now + one.delay) for leg in one.planned] for one in calling]
    fresh: set[UUID] = set()
    for district in dict.fromkeys(one.case.district for one in calling):
        theirs = [row for one, legs in zip(calling, rows, strict=True) if one.case.district == district for row in legs]
        fresh.update(await cases.add_legs(conn, theirs, district=district))
    added = [[row for row in legs if row.id in fresh] for legs in rows]
    notices: list[list[DueNotice]] = [[] for _ in calling]
    for origin, reason in _FIRST_REASON.items():
        legs = [[row for row in new if row.origin == origin and row.state == LegState.PENDING] for new in added]
        for told, more in zip(notices, await _queue(conn, calling, legs, reason=reason, worker=worker), strict=True):
            told += more
    return list(zip(added, notices, strict=True))


async def renotify(
    conn: Connection,
    case: CaseRow,
    legs: Sequence[LegRow],
    *,
    reason: str,
    around: Surroundings,
    worker: int | None,
    rearm: bool,
    channel: int = 0,
) -> list[DueNotice]:
    """Queue one more notice on each of `legs`, beginning with their `channel`.

    With `rearm` those already ended become obligations again, and their calls count anew.
    """
    if not legs:
        return []
    cursor = await conn.execute(
        """
        UPDATE leg SET notices = notices + 1,
            state = CASE WHEN %(rearm)s AND state <> 'withdrawn' THEN 'pending' ELSE state END,
            ended_at = CASE WHEN %(rearm)s AND state <> 'withdrawn' THEN NULL ELSE ended_at END,
            armed_at = CASE WHEN %(rearm)s THEN onekey_now() ELSE armed_at END,
            calls = CASE WHEN %(rearm)s THEN 1 ELSE calls END,
            overdue_at = CASE WHEN %(rearm)s THEN NULL ELSE overdue_at END
        WHERE id = ANY(%(legs)s) RETURNING id, notices, delivered_at
        """,
        {"rearm": rearm, "legs": [leg.id for leg in legs]},
    )
    numbers = {row[0]: (row[1], row[2]) for row in await cursor.fetchall()}
    current = [replace(leg, notices=numbers[leg.id][0], delivered_at=numbers[leg.id][1]) for leg in legs]
    calling = [Calling(case, (), around, case.opened_at)]
    (notices,) = await _queue(conn, calling, [current], reason=reason, worker=worker, channel=channel)
    return notices


async def _queue(
    conn: Connection,
    calling: Sequence[Calling],
    legs: Sequence[Sequence[LegRow]],
    *,
    reason: str,
    worker: int | None,
    channel: int = 0,
) -> list[list[DueNotice]]:
    wanted = [
        (leg.id, leg.case_id, leg.party_id, leg.notices, one.delay)
        for one, of in zip(calling, legs, strict=True)
        for leg in of
        if leg.party_id is not None
    ]
    queued = await outbox.add(conn, wanted, reason=reason, worker=worker, channel=channel)
    if worker is None:
        return [[] for _ in calling]
    return [_taken(one, of, queued, reason=reason, channel=channel) for one, of in zip(calling, legs, strict=True)]


def _taken(
    one: Calling, legs: Sequence[LegRow], queued: Mapping[UUID, tuple[str, datetime]], *, reason: str, channel: int
) -> list[DueNotice]:
    if not legs or one.delay:
        return []
    case, around = one.case, one.around
    view = view_of(case, site=around.site, household=around.household)
    notices = []
    for leg in legs:
        party = None if leg.party_id is None else around.party(leg.party_id)
        if leg.id in queued and party is not None and party.channels:
            notice, at = queued[leg.id]
            row = NoticeRow(
                id=notice,
                leg_id=leg.id,
                case_id=case.id,
                party_id=party.id,
                role=leg.role,
                number=leg.notices,
                reason=reason,
                channel=channel,
                tries=0,
                queued_at=at,
                first=leg.delivered_at is None,
                ladder=leg.ladder,
            )
            notices.append(due(row, party=party, case=view, site=around.site))
    return notices
