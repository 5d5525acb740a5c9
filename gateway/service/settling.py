"""Legs end by the fact of their own role, whoever says it: one of the role, or an operator who spoke with them."""

from datetime import datetime

from gateway.domain.case import Fact, LegState
from gateway.domain.ladder import ending_fact
from gateway.store import cases, events, outbox, queries
from gateway.store.cases import CaseRow
from gateway.store.journal import Note, Writer
from gateway.store.pool import Connection

__all__ = ["settle_role"]


async def settle_role(
    conn: Connection, case: CaseRow, role: str, *, fact: Fact, by: str, journal: Writer, now: datetime
) -> None:
    """End the open legs of `role` if `fact` is what they wait for, and the calls that are due on them.

    No leg of another role is touched: what a guardian knows stops nobody from calling the hotline (R17).
    """
    if fact not in (ending_fact(role), Fact.ON_SCENE):
        return
    for leg in await cases.legs_of(conn, case.id):
        if leg.role != role or leg.state not in (LegState.PENDING, LegState.DELIVERED) or leg.party_id is None:
            continue
        await outbox.cancel(conn, leg.id)
        await queries.set_leg_state(conn, leg.id, LegState.ANSWERED)
        data = {"leg": str(leg.id), "role": role, "party": leg.party_id, "fact": fact, "state": "answered"}
        journal.add(Note("leg.settled", data | {"by": by}, actor=by), at=now)
        await events.emit(conn, "leg.settled", district=case.district, case_id=case.id, data=data)
