"""Procedures at work: what is due in a case happens, in one transaction with its record (R10 to R15).

`advance_case` is the one place where steps begin, end and are found late. Whatever matters to a procedure (a fact, an
owner, another press, the closure, a deadline) only wakes the case; nothing else here is called by it.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from gateway.domain import keys
from gateway.domain.case import CaseState, DomainError, LegState, NotFound, StateConflict
from gateway.domain.kinds import CaseClass
from gateway.domain.outbox import DueNotice
from gateway.domain.phones import is_emergency_line
from gateway.domain.plan import BASIC_PROCEDURE, DURESS, EVERY_KIND, Plan, legs_of, procedures_for
from gateway.domain.procedure import (
    Advance,
    Change,
    ChangeKind,
    Does,
    Procedure,
    StepRow,
    StepState,
    advance,
    end_step,
)
from gateway.service import fan_out
from gateway.service.case_work import Work, WorkingDay, locked, work_on
from gateway.service.climb_ladders import climb_legs
from gateway.service.phone_queue import enqueue_call
from gateway.service.tell_terminals import tell_terminals
from gateway.service.views import Surroundings, agreements_of
from gateway.site.procedure_file import dumped, procedure_from, shipped
from gateway.store import cases, outbox, procedures, queries
from gateway.store.cases import CaseRow
from gateway.store.directory import Directory
from gateway.store.pool import Connection, Pool
from gateway.store.procedures import RunRow

__all__ = [
    "advance_case",
    "advance_work",
    "apply_change",
    "end_step_of",
    "procedure_of",
    "start_procedure",
    "start_procedure_in",
    "store_procedure",
    "store_shipped",
]

_log = logging.getLogger(__name__)

_COMMAND_LIFE = timedelta(minutes=2)


class _Bodies:
    """Procedures by id and version. They never change, so they are read once."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], Procedure] = {}

    async def get(self, conn: Connection, procedure: str, version: int) -> Procedure:
        known = self._known.get((procedure, version))
        if known is None:
            known = procedure_from(await procedures.body(conn, procedure, version))
            self._known[procedure, version] = known
        return known


_bodies = _Bodies()


async def procedure_of(conn: Connection, run: RunRow) -> Procedure:
    """Return the procedure of a run at the version that it began with."""
    return await _bodies.get(conn, run.procedure, run.version)


async def store_shipped(pool: Pool) -> None:
    """Store the procedures that come with the package, so that runs can refer to them.

    Raises:
        DomainError: One of them was changed without a new version.
    """
    async with pool.connection() as conn, conn.transaction():
        for procedure in shipped().values():
            await _store(conn, procedure)


async def store_procedure(pool: Pool, procedure: Procedure) -> None:
    """Store a procedure at its version; storing it again changes nothing.

    Raises:
        DomainError: That version says something else already.
    """
    async with pool.connection() as conn, conn.transaction():
        await _store(conn, procedure)


async def _store(conn: Connection, procedure: Procedure) -> None:
    if not await procedures.add_body(conn, procedure.id, procedure.version, dumped(procedure)):
        raise DomainError(
            f"The procedure {procedure.id} says something else at version {procedure.version} than what is stored. "
            "Give what changed a new version: cases that run keep theirs."
        )


async def advance_case(
    pool: Pool, directory: Directory, case_id: UUID, *, is_working_day: WorkingDay, worker: int | None
) -> list[DueNotice]:
    """Let everything happen that is due in a case now; returns what `worker` has to send because of it.

    A case that somebody else holds at this moment is left for the next round.
    """
    async with pool.connection() as conn, conn.pipeline(), conn.transaction():
        held = await cases.lock_free_cases(conn, [case_id])
        if not held:
            return []
        work = await work_on(conn, directory, held[0], worker=worker)
        await advance_work(work, is_working_day)
        await work.flush()
        return work.notices


async def advance_work(work: Work, is_working_day: WorkingDay) -> None:
    """Let everything happen that is due in a case under work, and say when time alone changes more."""
    runs = await _start_runs(work)
    known = await procedures.steps_of(work.conn, work.case.id)
    wake: datetime | None = None
    for run in runs:
        if run.ended_at is not None:
            continue
        procedure = await _bodies.get(work.conn, run.procedure, run.version)
        result = await _advance_run(work, run, procedure, known.get(run.id, {}), is_working_day)
        if result.over and work.case.state == CaseState.CLOSED:
            await procedures.end_run(work.conn, run.id, work.now)
        elif result.wake_at is not None and (wake is None or result.wake_at < wake):
            wake = result.wake_at
    calling = await climb_legs(work)
    await tell_terminals(work)
    if calling is not None and (wake is None or calling < wake):
        wake = calling
    await procedures.sleep_until(work.conn, work.case.id, wake)


async def _start_runs(work: Work) -> list[RunRow]:
    runs = await procedures.runs_of(work.conn, work.case.id)
    running = {run.procedure for run in runs}
    for name in await _wanted(work):
        if name in running:
            continue
        version = await procedures.newest_version(work.conn, name)
        if version is None:
            _log.error("a plan names a procedure that is not there", extra={"case": work.case.id, "procedure": name})
            name, version = BASIC_PROCEDURE, await procedures.newest_version(work.conn, BASIC_PROCEDURE)
            if name in running or version is None:
                continue
        started = work.case.opened_at if not running else work.now
        runs.append(await _add_run(work, name, version, started))
        running.add(name)
    return runs


async def _wanted(work: Work) -> list[str]:
    """Return the procedures of the plans that the case began with; one that is over begins none."""
    case = work.case
    if case.state == CaseState.CLOSED:
        return []
    plans = await work.directory.plans_of(work.conn, work.around.site.id, case.plans)
    return procedures_for(case.kinds, plans, case_class=CaseClass(case.case_class), drill=case.drill_id is not None)


async def _add_run(work: Work, procedure: str, version: int, started: datetime, *, by: str = "gateway") -> RunRow:
    closed = work.case.state == CaseState.CLOSED
    run = RunRow(keys.run_id(work.case.id, procedure), work.case.id, procedure, version, started, None, closed)
    await procedures.add_run(work.conn, run)
    work.note("procedure.started", {"procedure": procedure, "version": version}, actor=by)
    return run


async def _signals(work: Work, run: RunRow) -> dict[str, datetime]:
    case = work.case
    signals = {"started": run.started_at}
    closed_at = None if run.after_closure else case.closed_at
    known = (("closed", closed_at), ("owned", case.owned_at), ("safe", case.safe_at))
    signals |= {name: at for name, at in known if at is not None}
    for fact in await work.facts():
        signals.setdefault(fact.fact, fact.at)
        signals[f"{fact.fact}:{fact.role}"] = fact.at
    if case.presses > 1:
        signals["pressed_again"] = await cases.last_press(work.conn, case.id)
    return signals


def _flags(case: CaseRow, around: Surroundings) -> frozenset[str]:
    flags = {f"kind:{kind}" for kind in case.kinds}
    if case.test:
        flags.add("test")
    if case.drill_id is not None:
        flags.add("drill")
    if DURESS in case.kinds:
        flags.add("duress")
    if around.household is not None:
        flags |= {f"agreed:{name}" for name in agreements_of(around.household)}
        flags |= {f"role:{party.role}" for party in around.household.parties}
    return frozenset(flags)


async def _advance_run(
    work: Work, run: RunRow, procedure: Procedure, known: dict[str, StepRow], is_working_day: WorkingDay
) -> Advance:
    result = advance(
        procedure,
        known,
        signals=await _signals(work, run),
        flags=_flags(work.case, work.around),
        now=work.now,
        timezone=work.around.site.timezone,
        is_working_day=is_working_day,
    )
    for change in result.changes:
        await apply_change(work, run, change)
    return result


async def end_step_of(work: Work, step_id: UUID, result: str, *, by: str, note: str | None = None) -> None:
    """End a step with what a machine knows of it, if it is still open and may end so."""
    found = await procedures.step_by_id(work.conn, step_id)
    if found is None:
        return
    case_id, run_id, name = found
    run = next(one for one in await procedures.runs_of(work.conn, case_id) if one.id == run_id)
    step = next(one for one in (await procedure_of(work.conn, run)).steps if one.id == name)
    stands = (await procedures.steps_of(work.conn, case_id))[run_id][name]
    if stands.state is StepState.OPEN and result in step.results:
        await apply_change(work, run, end_step(step, stands, result=result, now=work.now), by=by, note=note)


_WORDS = {
    ChangeKind.START: "started",
    ChangeKind.SKIP: "skipped",
    ChangeKind.CANCEL: "cancelled",
    ChangeKind.END: "done",
    ChangeKind.BREACH: "breached",
}


async def apply_change(
    work: Work, run: RunRow, change: Change, *, by: str | None = None, note: str | None = None
) -> None:
    """Store one thing that happened to a step, do what it asks of a machine, and put it on record."""
    step, row = change.step, change.row
    step_id = keys.step_id(run.id, step.id)
    await procedures.save_step(
        work.conn,
        row,
        id=step_id,
        run=run.id,
        case=work.case.id,
        district=work.case.district,
        name=step.id,
        does=step.does,
        seat=step.seat,
        by=by,
    )
    data: dict[str, Any] = {
        "step": step.id,
        "task": str(step_id) if step.does is Does.TASK else None,
        "procedure": f"{run.procedure}@{run.version}",
        "does": step.does.value,
        "seat": step.seat,
        "clause": step.clause or None,
        "planned_at": row.planned_at.isoformat(),
        "due_at": None if row.due_at is None else row.due_at.isoformat(),
        "result": row.result,
        "test": work.case.test,
    }
    kind = f"{'task' if step.does is Does.TASK else 'step'}.{_WORDS[change.kind]}"
    if change.kind is ChangeKind.START:
        data |= await _do(work, change, step_id)
    private = None if note is None else {"note": note}
    work.note(kind, data, actor="gateway" if by is None else by, private=private)


async def _do(work: Work, change: Change, step_id: UUID) -> dict[str, Any]:
    """Carry out what a machine can; returns what there is to say about it."""
    step = change.step
    match step.does:
        case Does.TELL:
            return await _tell(work, step.roles)
        case Does.WITHDRAW:
            return await _withdraw(work, step.roles)
        case Does.COMMAND:
            assert step.command is not None
            if work.case.terminal_id is None:
                return {"problem": "nobody knows the terminal"}
            if work.case.terminal_id not in await procedures.terminals_of(work.conn, work.case.id):
                return {"problem": "a drill asks nothing of a terminal where nobody pressed"}
            life = change.row.due_at - change.row.planned_at if change.row.due_at is not None else _COMMAND_LIFE
            arguments: Any = step.command.get("arguments") or {}
            await procedures.add_command(
                work.conn,
                id=keys.command_id(step_id),
                case=work.case.id,
                step=step_id,
                terminal=work.case.terminal_id,
                name=str(step.command["name"]),
                arguments=arguments,
                expires_at=work.now + life,
            )
            return {"command": keys.command_id(step_id), "name": step.command["name"]}
        case Does.TASK:
            return await _dial(work, step_id) if step.dials and not work.case.test else {}


async def _dial(work: Work, step_id: UUID) -> dict[str, Any]:
    """Have a modem call the person, where there is one; the task is a human's all the same."""
    if DURESS in work.case.kinds:
        return {"dials": "not while somebody may stand beside the person"}
    household = work.around.household
    number = None if household is None else next((one.phone for one in household.persons if one.phone), None)
    if number is None or is_emergency_line(number):
        return {"dials": "nobody knows a number of the person"}
    job = await enqueue_call(
        work.conn, work.directory, to=number, case_id=work.case.id, step_id=step_id, key=work.around.key
    )
    return {"dials": "no modem is ready"} if job is None else {"dials": "person", "call": job}


async def _tell(work: Work, roles: Sequence[str]) -> dict[str, Any]:
    """Make reaching every party of these roles an obligation of the case, of the fallback where there is none."""
    household, site, case = work.around.household, work.around.site, work.case
    plan = Plan(id="procedure", version=1, kinds=(EVERY_KIND,), roles=tuple(roles))
    parties = () if household is None else household.parties
    planned = legs_of(
        (plan,),
        (),
        parties=parties,
        fallback=site.fallback,
        case_class=CaseClass(case.case_class),
        agreements=agreements_of(household),
        taking_part=case.taking_part,
    )
    planned = [replace(leg, origin="procedure") if leg.origin == "plan" else leg for leg in planned]
    before = {leg.id: leg for leg in await cases.legs_of(work.conn, case.id)}
    added, notices = await fan_out.add_legs(
        work.conn, case, planned, around=work.around, worker=work.worker, now=work.now
    )
    again = [
        leg
        for leg in before.values()
        if leg.role in roles and leg.party_id is not None and leg.state not in (LegState.SKIPPED, LegState.WITHDRAWN)
    ]
    more = await fan_out.renotify(
        work.conn, case, again, reason="procedure", around=work.around, worker=work.worker, rearm=True
    )
    work.notices += [*notices, *more]
    return {"roles": list(roles), "legs": [str(leg.id) for leg in (*added, *again)]}


async def _withdraw(work: Work, roles: Sequence[str]) -> dict[str, Any]:
    """Take an obligation back, and say so to whoever may have heard of it."""
    case = work.case
    told = await queries.told_legs(work.conn, case.id)
    legs = [leg for leg in await cases.legs_of(work.conn, case.id) if leg.role in roles and leg.party_id is not None]
    for leg in legs:
        await outbox.cancel(work.conn, leg.id)
        await queries.set_leg_state(work.conn, leg.id, LegState.WITHDRAWN)
    heard = [leg for leg in legs if leg.id in told]
    work.notices += await fan_out.renotify(
        work.conn, case, heard, reason="withdrawn", around=work.around, worker=work.worker, rearm=False
    )
    return {"roles": list(roles), "legs": [str(leg.id) for leg in legs], "told": [str(leg.id) for leg in heard]}


async def start_procedure(
    pool: Pool, directory: Directory, case_id: UUID, procedure: str, *, by: str, is_working_day: WorkingDay
) -> None:
    """Start a further procedure for a case, as that for a complaint (R21). One that runs, or ran, is not started again.

    Raises:
        NotFound: No such case or procedure.
        StateConflict: It was started for this case before.
    """
    async with pool.connection() as conn, conn.transaction():
        work = await locked(conn, directory, case_id)
        await start_procedure_in(work, procedure, by=by, is_working_day=is_working_day)
        await work.flush()


async def start_procedure_in(work: Work, procedure: str, *, by: str, is_working_day: WorkingDay) -> None:
    """Do the work of `start_procedure` in the caller's transaction, which flushes the journal."""
    version = await procedures.newest_version(work.conn, procedure)
    if version is None:
        raise NotFound(f"There is no procedure {procedure}.")
    if any(run.procedure == procedure for run in await procedures.runs_of(work.conn, work.case.id)):
        raise StateConflict(f"The procedure {procedure} was started for this case before.")
    await _add_run(work, procedure, version, work.now, by=f"operator:{by}")
    await advance_work(work, is_working_day)
