"""Complaints (R21): forwarded, settled in 3 working days, the result told, otherwise taken higher.

A complaint about a case runs the procedure ``complaint`` in that case, where its tasks stand among the others. One
without a case has no case to run in, and a case made up for it would need somebody to be told, and would count as a
press. It runs the very same procedure, at the same version, through the same rules, for its work order alone; its tasks
are told as every task is, and name the work order where others name a case.
"""

from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from gateway.domain import keys
from gateway.domain.case import NotFound, StateConflict
from gateway.domain.procedure import Change, ChangeKind, Does, Procedure, Step, StepState, advance, end_step
from gateway.domain.work_order import COMPLAINT
from gateway.service.case_work import Work, WorkingDay
from gateway.service.run_procedures import start_procedure_in
from gateway.service.views import site_of
from gateway.site.procedure_file import procedure_from
from gateway.store import events, procedures, work_orders
from gateway.store.directory import Directory
from gateway.store.pool import Connection, Pool
from gateway.store.work_orders import OrderRow

__all__ = ["advance_complaint", "advance_in", "end_own_step", "started"]

_WORDS = {
    ChangeKind.START: "started",
    ChangeKind.SKIP: "skipped",
    ChangeKind.CANCEL: "cancelled",
    ChangeKind.END: "done",
    ChangeKind.BREACH: "breached",
}


async def started(
    conn: Connection, order: OrderRow, work: Work | None, *, since: datetime, by: str, is_working_day: WorkingDay
) -> OrderRow:
    """Return `order`, which is about to be stored, with the procedure of its complaint: in its case, else of its own.

    The deadlines of its own count from `since`. `work` is the case's, whose journal the caller flushes. A case runs
    each procedure once, so a second complaint about the same case goes by one of its own.

    Raises:
        NotFound: The procedure is not there, because no gateway ever started on this database.
    """
    if work is not None:
        run = await work_orders.run_of(conn, work.case.id, COMPLAINT)
        if run is None:
            await start_procedure_in(work, COMPLAINT, by=by, is_working_day=is_working_day)
            run = await work_orders.run_of(conn, work.case.id, COMPLAINT)
        assert run is not None
        if not run[1]:
            return replace(order, run_id=run[0])
    version = await procedures.newest_version(conn, COMPLAINT)
    if version is None:
        raise NotFound(f"There is no procedure {COMPLAINT}: it comes with the first start of the gateway.")
    return replace(order, procedure=COMPLAINT, procedure_version=version, procedure_since=since)


async def _procedure(conn: Connection, order: OrderRow) -> Procedure:
    """Return what a work order's own procedure asks of people: without a case there is nobody to tell but them."""
    assert order.procedure is not None
    assert order.procedure_version is not None
    procedure = procedure_from(await procedures.body(conn, order.procedure, order.procedure_version))
    return replace(procedure, steps=tuple(step for step in procedure.steps if step.does is Does.TASK))


async def advance_complaint(pool: Pool, directory: Directory, order_id: UUID, *, is_working_day: WorkingDay) -> None:
    """Let happen what is due in a complaint of its own; one that somebody else holds waits for the next round."""
    async with pool.connection() as conn, conn.transaction():
        order = await work_orders.lock_if_free(conn, order_id)
        if order is not None:
            await advance_in(conn, directory, order, is_working_day=is_working_day)


async def advance_in(conn: Connection, directory: Directory, order: OrderRow, *, is_working_day: WorkingDay) -> None:
    """Do the work of `advance_complaint` in the caller's transaction, which holds the work order."""
    if order.procedure is None:
        return
    assert order.procedure_since is not None
    site = await site_of(conn, directory, order.site_id)
    result = advance(
        await _procedure(conn, order),
        await work_orders.step_rows(conn, order.id),
        signals={"started": order.procedure_since},
        flags=frozenset(),
        now=await procedures.the_time(conn),
        timezone=site.timezone,
        is_working_day=is_working_day,
    )
    for change in result.changes:
        await _apply(conn, order, change, by=None)
    await work_orders.sleep_until(conn, order.id, result.wake_at)


async def end_own_step(
    conn: Connection,
    directory: Directory,
    order: OrderRow,
    name: str,
    *,
    result: str,
    by: str,
    is_working_day: WorkingDay,
) -> bool:
    """Record how a human did a step of a work order's own procedure; False when the same was said before.

    Raises:
        NotFound: No such step, or it has not begun.
        StateConflict: It is over already, or does not end with this result.
    """
    steps = {step.id: step for step in (await _procedure(conn, order)).steps}
    rows = await work_orders.step_rows(conn, order.id)
    if name not in steps or name not in rows:
        raise NotFound(f"There is no step {name} that has begun; those that have: {', '.join(rows)}.")
    if rows[name].state is StepState.DONE and rows[name].result == result:
        return False
    try:
        change = end_step(steps[name], rows[name], result=result, now=await procedures.the_time(conn))
    except ValueError as exc:
        raise StateConflict(str(exc)) from exc
    await _apply(conn, order, change, by=f"operator:{by}")
    await advance_in(conn, directory, order, is_working_day=is_working_day)
    return True


async def _apply(conn: Connection, order: OrderRow, change: Change, *, by: str | None) -> None:
    step, row = change.step, change.row
    step_id = keys.step_id(order.id, step.id)
    await work_orders.save_step(
        conn,
        row,
        id=step_id,
        order=order.id,
        district=order.district,
        name=step.id,
        seat=step.seat,
        by=by,
    )
    await events.emit(
        conn,
        f"task.{_WORDS[change.kind]}",
        district=order.district,
        case_id=order.case_id,
        data=_data(order, step, step_id, change),
    )


def _data(order: OrderRow, step: Step, step_id: UUID, change: Change) -> dict[str, Any]:
    row = change.row
    return {
        "work_order": str(order.id),
        "operator": order.operator,
        "step": step.id,
        "task": str(step_id),
        "procedure": f"{order.procedure}@{order.procedure_version}",
        "does": step.does.value,
        "seat": step.seat,
        "clause": step.clause or None,
        "planned_at": row.planned_at.isoformat(),
        "due_at": None if row.due_at is None else row.due_at.isoformat(),
        "result": row.result,
        "test": False,
    }
