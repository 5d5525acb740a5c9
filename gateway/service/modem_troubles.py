"""What happens to modems and in calls, where people see it: cases of lost modems, and how far calls are (R24)."""

import hashlib
from uuid import UUID

from gateway.domain.case import CaseState
from gateway.domain.kinds import MODEM_LOST
from gateway.domain.modems import CallState
from gateway.service.case_work import locked
from gateway.service.raise_alarm import Press, raise_alarm_in
from gateway.service.troubles import close_technical
from gateway.store import cases, modems, phone_out, procedures
from gateway.store.directory import Directory
from gateway.store.phone_out import Job
from gateway.store.pool import Pool

__all__ = ["note_call", "raise_trouble", "settle_trouble"]

_ENDED = frozenset({CallState.HUNG_UP, CallState.BUSY, CallState.NO_ANSWER, CallState.FAILED})


async def raise_trouble(pool: Pool, directory: Directory, modem: str, problem: str) -> UUID | None:
    """Raise a technical case for a modem, once for each trouble; returns it, None where no site is set up."""
    async with pool.connection() as conn, conn.transaction():
        number, known = await modems.begin_trouble(conn, modem)
        if known is not None:
            return known
        sites = await directory.sites(conn)
        if not sites:
            return None
        digest = hashlib.sha256(f"modem {modem} {number}".encode()).digest()
        press = Press(
            terminal=None,
            site=sites[0].id,
            transport="modem",
            kinds=(MODEM_LOST,),
            received_at=await procedures.the_time(conn),
            payload=problem.encode(),
            digest=digest,
            seq=number,
            problems=(f"modem …{modem[-4:]}: {problem}",),
            about=f"modem:{modem}",
        )
        raised = await raise_alarm_in(conn, directory, press, worker=None)
        await modems.end_trouble(conn, modem, raised.case_id)
        return raised.case_id


async def settle_trouble(pool: Pool, directory: Directory, modem: str) -> None:
    """Close the case of a modem that works again."""
    async with pool.connection() as conn, conn.transaction():
        row = await (await conn.execute("SELECT case_id FROM modem WHERE id = %s FOR UPDATE", (modem,))).fetchone()
        if row is None or row[0] is None:
            return
        await close_technical(conn, directory, row[0], {"kind": MODEM_LOST}, by="modems")
        await modems.end_trouble(conn, modem, None)


async def note_call(pool: Pool, directory: Directory, job: Job, state: CallState) -> None:
    """Put on record how far a call is: picked up ends no leg (I7)."""
    async with pool.connection() as conn, conn.transaction():
        await phone_out.show(conn, job.id, state)
        if job.case_id is None:
            return
        work = await locked(conn, directory, job.case_id)
        if work.case.state == CaseState.CLOSED and state not in _ENDED:
            return
        data: dict[str, object] = {"call": job.id, "state": state.value}
        if job.leg_id is not None:
            leg = next(leg for leg in await cases.legs_of(conn, job.case_id) if leg.id == job.leg_id)
            data |= {"leg": str(leg.id), "role": leg.role, "party": leg.party_id}
        else:
            data |= {"to": "person"}
        work.note(f"call.{state.value}", data, actor="gateway")
        await work.flush()
