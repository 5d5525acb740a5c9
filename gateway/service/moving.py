"""A better location of an open case, from whichever report brings it (D7)."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from gateway.domain.case import CaseState, LegState
from gateway.domain.location import better
from gateway.domain.outbox import DueNotice
from gateway.service import fan_out
from gateway.service.places import place_of, record_of
from gateway.service.views import surroundings
from gateway.store import cases, events
from gateway.store.directory import Directory
from gateway.store.journal import Head, Note, Writer
from gateway.store.pool import Connection

__all__ = ["improve_location", "move_cases"]


async def move_cases(
    conn: Connection, directory: Directory, moving: Mapping[UUID, dict[str, Any]], *, worker: int | None
) -> list[DueNotice]:
    """Move the open cases that these terminals (their uid, their newest fix) raised or joined."""
    cursor = await conn.execute(
        """
        SELECT DISTINCT c.id, a.terminal_uid, (SELECT onekey_now()) FROM cases c JOIN alarm a ON a.case_id = c.id
        WHERE c.state = 'open' AND c.class IN ('emergency', 'test') AND a.terminal_uid = ANY(%s) ORDER BY c.id
        """,
        (list(moving),),
    )
    notices: list[DueNotice] = []
    for case_id, terminal, now in await cursor.fetchall():
        notices += await improve_location(conn, directory, case_id, moving[terminal], now=now, worker=worker)
    return notices


async def improve_location(
    conn: Connection, directory: Directory, case_id: UUID, fix: dict[str, Any], *, now: datetime, worker: int | None
) -> list[DueNotice]:
    """Move an open case to a better location and queue the update on every leg that is not over (D7)."""
    case = await cases.lock_case(conn, case_id)
    place = place_of(fix)
    if case is None or case.state != CaseState.OPEN:
        return []
    if not better(place, None if case.location is None else place_of(case.location), now=now):
        return []
    around = await surroundings(conn, directory, case)
    case = replace(case, location=record_of(place))
    await conn.execute("UPDATE cases SET location = %s WHERE id = %s", (cases.jsonb(case.location), case.id))
    over = (LegState.WITHDRAWN, LegState.SKIPPED, LegState.FAILED, LegState.REFUSED)
    legs = [leg for leg in await cases.legs_of(conn, case.id) if leg.party_id is not None and leg.state not in over]
    notices = await fan_out.renotify(conn, case, legs, reason="location", around=around, worker=worker, rearm=False)
    journal = Writer(case.id, around.key, Head(case.journal_n, bytes(case.journal_head)))
    journal.add(Note("case.location", {"location": case.location, "told": len(legs)}), at=now)
    await journal.flush(conn)
    await events.emit(
        conn,
        "case.updated",
        district=case.district,
        case_id=case.id,
        data={"reason": "location", "location": case.location, "urgency": case.urgency, "kinds": case.kinds},
    )
    return notices
