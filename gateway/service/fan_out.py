"""Legs and notices of a case: writing them with the case, and queueing a notice on every leg."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
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


def _row(case: CaseRow, leg: PlannedLeg) -> LegRow:
    party = None if leg.party is None else leg.party.id
    if leg.skipped:
        state, problem = LegState.SKIPPED, "a test never wakes this role"
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
        created_at=case.opened_at,
        delivered_at=None,
        ended_at=None,
    )


@dataclass(frozen=True, slots=True)
class Calling:
    """A case, whom the plan calls for it, and what the directory says about it."""

    case: CaseRow
    planned: Sequence[PlannedLeg]
    around: Surroundings


async def add_legs(
    conn: Connection, case: CaseRow, planned: Sequence[PlannedLeg], *, around: Surroundings, worker: int | None
) -> tuple[list[LegRow], list[DueNotice]]:
    """Write the legs that the case does not have yet, each with its first notice.

    Returns the new legs, failed ones included, and the notices that `worker` now has to send.
    """
    (added,) = await add_legs_of_all(conn, [Calling(case, planned, around)], worker=worker)
    return added


async def add_legs_of_all(
    conn: Connection, calling: Sequence[Calling], *, worker: int | None
) -> list[tuple[list[LegRow], list[DueNotice]]]:
    """Do the work of `add_legs` for several cases, in as many statements as for one."""
    rows = [[_row(one.case, leg) for leg in one.planned] for one in calling]
    fresh: set[UUID] = set()
    for district in dict.fromkeys(one.case.district for one in calling):
        theirs = [row for one, legs in zip(calling, rows, strict=True) if one.case.district == district for row in legs]
        fresh.update(await cases.add_legs(conn, theirs, district=district))
    added = [[row for row in legs if row.id in fresh] for legs in rows]
    notices: list[list[DueNotice]] = [[] for _ in calling]
    for reason, origin in (("alarm", "plan"), ("fallback", "fallback"), ("procedure", "procedure")):
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
) -> list[DueNotice]:
    """Queue one more notice on each of `legs`; with `rearm` those already ended become obligations again."""
    if not legs:
        return []
    cursor = await conn.execute(
        """
        UPDATE leg SET notices = notices + 1,
            state = CASE WHEN %(rearm)s AND state <> 'withdrawn' THEN 'pending' ELSE state END,
            ended_at = CASE WHEN %(rearm)s AND state <> 'withdrawn' THEN NULL ELSE ended_at END
        WHERE id = ANY(%(legs)s) RETURNING id, notices, delivered_at
        """,
        {"rearm": rearm, "legs": [leg.id for leg in legs]},
    )
    numbers = {row[0]: (row[1], row[2]) for row in await cursor.fetchall()}
    current = [replace(leg, notices=numbers[leg.id][0], delivered_at=numbers[leg.id][1]) for leg in legs]
    (notices,) = await _queue(conn, [Calling(case, (), around)], [current], reason=reason, worker=worker)
    return notices


async def _queue(
    conn: Connection, calling: Sequence[Calling], legs: Sequence[Sequence[LegRow]], *, reason: str, worker: int | None
) -> list[list[DueNotice]]:
    wanted = [(leg.id, leg.case_id, leg.party_id, leg.notices) for of in legs for leg in of if leg.party_id is not None]
    queued = await outbox.add(conn, wanted, reason=reason, worker=worker)
    if worker is None:
        return [[] for _ in calling]
    return [_taken(one, of, queued, reason=reason) for one, of in zip(calling, legs, strict=True)]


def _taken(
    one: Calling, legs: Sequence[LegRow], queued: Mapping[UUID, tuple[str, datetime]], *, reason: str
) -> list[DueNotice]:
    if not legs:
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
                channel=0,
                tries=0,
                queued_at=at,
                first=leg.delivered_at is None,
            )
            notices.append(due(row, party=party, case=view, site=around.site))
    return notices
