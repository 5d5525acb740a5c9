"""A request that turns out to be an emergency becomes one in one step (R25)."""

import hashlib
from datetime import datetime
from uuid import UUID

from gateway.domain.case import CaseState, StateConflict
from gateway.domain.kinds import CaseClass
from gateway.service.case_work import locked
from gateway.service.raise_alarm import Press, raise_alarm_in
from gateway.store.directory import Directory
from gateway.store.pool import Pool

__all__ = ["upgrade_case"]


async def upgrade_case(pool: Pool, directory: Directory, case_id: UUID, *, kind: str, by: str, now: datetime) -> UUID:
    """Raise an emergency of `kind` for what was a service or technical case; returns the emergency's case.

    It is a press like any other: it joins an emergency of the household that is open already. The case from before
    stays open beside it.

    Raises:
        NotFound: No such case.
        StateConflict: It is an emergency already, closed, or nobody knows whose terminal it came from.
    """
    async with pool.connection() as conn, conn.transaction():
        work = await locked(conn, directory, case_id)
        case = work.case
        if case.case_class == CaseClass.EMERGENCY:
            raise StateConflict("The case is an emergency already.")
        if case.state == CaseState.CLOSED:
            raise StateConflict("The case is closed: press for the person anew at the terminal, or call 120.")
        if case.terminal_id is None:
            raise StateConflict("Nobody knows the terminal of this case, so nobody knows whom to send there.")
        press = Press(
            terminal=case.terminal_id,
            transport="operator",
            kinds=(kind,),
            received_at=now,
            payload=b"",
            digest=hashlib.sha256(f"{case_id} {kind} {now.isoformat()}".encode()).digest(),
        )
        raised = await raise_alarm_in(conn, directory, press, worker=None)
        data = {"emergency": str(raised.case_id), "kind": kind}
        work.note("case.upgraded", data, actor=f"operator:{by}")
        await work.flush()
    return raised.case_id
