"""Calling the person back by a modem, as a procedure asks (R15): no answer is a fact, picking up is none (I7)."""

from gateway.domain.case import Fact
from gateway.domain.modems import CallState
from gateway.service.case_work import WorkingDay, add_fact, locked
from gateway.service.run_procedures import advance_work, end_step_of
from gateway.store.directory import Directory
from gateway.store.phone_out import Job
from gateway.store.pool import Pool

__all__ = ["NO_ANSWER", "end_call"]

NO_ANSWER = "no_answer"
"""The result of a task whose call nobody picked up."""


async def end_call(
    pool: Pool,
    directory: Directory,
    job: Job,
    *,
    picked_up: bool,
    keys: str,
    how: CallState,
    is_working_day: WorkingDay,
) -> None:
    """Let the task go on that wanted the call: with ``no_answer``, or with the person heard who pressed a key.

    Where somebody picked up and pressed nothing the task stays with its human.
    """
    if job.case_id is None or job.step_id is None:
        return
    if not keys and (picked_up or how not in (CallState.NO_ANSWER, CallState.BUSY)):
        return  # a call that could not be made says nothing of the person
    async with pool.connection() as conn, conn.transaction():
        work = await locked(conn, directory, job.case_id)
        if keys:
            work.note("call.key", {"call": job.id, "keys": keys[:20]}, actor="person")
            await add_fact(work, Fact.HEARD, role="person", by="person")
        else:
            note = f"the call ended: {how.value}"
            await end_step_of(work, job.step_id, NO_ANSWER, by="gateway", note=note)
        await advance_work(work, is_working_day)
        await work.flush()
