"""Procedures at work: what is due in a case happens, in one transaction with its record (R10 to R15).

`advance_case` is the one place where steps begin, end and are found late. Whatever matters to a procedure (a fact, an
owner, another press, the closure, a deadline) only wakes the case; nothing else here is called by it.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

from gateway.domain import keys
from gateway.domain.case import OPERATOR, CaseState, DomainError, Fact, LegState, NotFound, StateConflict, may_set
from gateway.domain.directory import Plan
from gateway.domain.kinds import CaseClass
from gateway.domain.outbox import DueNotice
from gateway.domain.plan import DURESS, EVERY_KIND, legs_for
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
from gateway.keyring import ErasedKey, KeyringError
from gateway.service import fan_out
from gateway.service.views import Surroundings, case_key, surroundings
from gateway.site.procedure_file import dumped, procedure_from, shipped
from gateway.store import cases, events, outbox, procedures, queries
from gateway.store.cases import CaseRow
from gateway.store.directory import Directory
from gateway.store.journal import Head, Note, Writer
from gateway.store.pool import Connection, Pool
from gateway.store.procedures import RunRow

__all__ = [
    "DEFAULT",
    "advance_case",
    "complete_task",
    "record_result",
    "set_fact",
    "start_procedure",
    "store_shipped",
]

_log = logging.getLogger(__name__)

DEFAULT = "basic-emergency"
"""What runs for an emergency whose plans name no procedure."""

_COMMAND_LIFE = timedelta(minutes=2)
WorkingDay = Callable[[date], bool]


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


async def store_shipped(pool: Pool) -> None:
    """Store the procedures that come with the package, so that runs can refer to them.

    Raises:
        DomainError: One of them was changed without a new version.
    """
    async with pool.connection() as conn, conn.transaction():
        for procedure in shipped().values():
            await _store(conn, procedure)


async def _store(conn: Connection, procedure: Procedure) -> None:
    if not await procedures.add_body(conn, procedure.id, procedure.version, dumped(procedure)):
        raise DomainError(
            f"The procedure {procedure.id} says something else at version {procedure.version} than what is stored. "
            "Give what changed a new version: cases that run keep theirs."
        )


@dataclass(slots=True)
class _Work:
    """One case under work: its row is locked, and what happens is collected."""

    conn: Connection
    case: CaseRow
    around: Surroundings
    journal: Writer
    now: datetime
    worker: int | None
    notices: list[DueNotice]


async def _work(conn: Connection, directory: Directory, case: CaseRow, *, worker: int | None) -> _Work:
    try:
        around = await surroundings(conn, directory, case)
    except (KeyringError, ErasedKey):
        # The household cannot be read any more; tasks of people go on, and the fallback can still be told.
        row = await (await conn.execute("SELECT revision FROM site WHERE id = %s", (case.site_id,))).fetchone()
        assert row is not None
        site = await directory.site(conn, case.site_id, row[0])
        around = Surroundings(site, None, await case_key(conn, directory.keyring, case, site=site))
    journal = Writer(case.id, around.key, Head(case.journal_n, bytes(case.journal_head)))
    return _Work(conn, case, around, journal, await procedures.the_time(conn), worker, [])


async def advance_case(
    pool: Pool, directory: Directory, case_id: UUID, *, is_working_day: WorkingDay, worker: int | None
) -> list[DueNotice]:
    """Let everything happen that is due in a case now; returns what `worker` has to send because of it.

    A case that somebody else holds at this moment is left for the next round.
    """
    async with pool.connection() as conn, conn.transaction():
        held = await cases.lock_free_cases(conn, [case_id])
        if not held:
            return []
        work = await _work(conn, directory, held[0], worker=worker)
        await _advance(work, is_working_day)
        await work.journal.flush(conn)
        return work.notices


async def _advance(work: _Work, is_working_day: WorkingDay) -> None:
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
    await procedures.sleep_until(work.conn, work.case.id, wake)


async def _start_runs(work: _Work) -> list[RunRow]:
    runs = await procedures.runs_of(work.conn, work.case.id)
    running = {run.procedure for run in runs}
    for name in _wanted(work.case, work.around):
        if name in running:
            continue
        version = await procedures.newest_version(work.conn, name)
        if version is None:
            _log.error("a plan names a procedure that is not there", extra={"case": work.case.id, "procedure": name})
            name, version = DEFAULT, await procedures.newest_version(work.conn, DEFAULT)
            if name in running or version is None:
                continue
        started = work.case.opened_at if not running else work.now
        runs.append(await _add_run(work, name, version, started))
        running.add(name)
    return runs


def _wanted(case: CaseRow, around: Surroundings) -> list[str]:
    """Return the procedures of the plans that the case began with; a case that is over begins none."""
    if case.state == CaseState.CLOSED:
        return []
    applying = {plan.rpartition("@")[0] for plan in case.plans}
    named = [plan.procedure for plan in around.site.plans if plan.id in applying and plan.procedure is not None]
    if not named and case.case_class == CaseClass.EMERGENCY:
        return [DEFAULT]
    return list(dict.fromkeys(named))


async def _add_run(work: _Work, procedure: str, version: int, started: datetime, *, by: str = "gateway") -> RunRow:
    run = RunRow(keys.run_id(work.case.id, procedure), work.case.id, procedure, version, started, None)
    await procedures.add_run(work.conn, run)
    data = {"procedure": procedure, "version": version}
    work.journal.add(Note("procedure.started", data, actor=by), at=work.now)
    await events.emit(work.conn, "procedure.started", district=work.case.district, case_id=work.case.id, data=data)
    return run


async def _signals(work: _Work, run: RunRow) -> dict[str, datetime]:
    case = work.case
    signals = {"started": run.started_at}
    # What was started after the closure, as a complaint, is not ended by it.
    closed_at = None if case.closed_at is None or case.closed_at <= run.started_at else case.closed_at
    known = (("closed", closed_at), ("owned", case.owned_at), ("safe", case.safe_at))
    signals |= {name: at for name, at in known if at is not None}
    for fact in await procedures.facts_of(work.conn, case.id):
        signals.setdefault(fact.fact, fact.at)
        signals[f"{fact.fact}:{fact.role}"] = fact.at
    if case.urgency > 1:
        signals["pressed_again"] = await cases.last_press(work.conn, case.id)
    return signals


def _flags(case: CaseRow, around: Surroundings) -> frozenset[str]:
    flags = {f"kind:{kind}" for kind in case.kinds}
    if case.test:
        flags.add("test")
    if DURESS in case.kinds:
        flags.add("duress")
    if around.household is not None:
        flags |= {f"agreed:{name}" for person in around.household.persons for name in person.agreements}
        flags |= {f"role:{party.role}" for party in around.household.parties}
    return frozenset(flags)


async def _advance_run(
    work: _Work, run: RunRow, procedure: Procedure, known: dict[str, StepRow], is_working_day: WorkingDay
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
        await _apply(work, run, change)
    return result


_WORDS = {
    ChangeKind.START: "started",
    ChangeKind.SKIP: "skipped",
    ChangeKind.CANCEL: "cancelled",
    ChangeKind.END: "done",
    ChangeKind.BREACH: "breached",
}


async def _apply(work: _Work, run: RunRow, change: Change, *, by: str | None = None, note: str | None = None) -> None:
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
    actor = "gateway" if by is None else by
    work.journal.add(Note(kind, data | ({} if note is None else {"note": note}), actor=actor), at=work.now)
    await events.emit(work.conn, kind, district=work.case.district, case_id=work.case.id, data=data)


async def _do(work: _Work, change: Change, step_id: UUID) -> dict[str, Any]:
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
            return {}


async def _tell(work: _Work, roles: Sequence[str]) -> dict[str, Any]:
    """Make reaching every party of these roles an obligation of the case, of the fallback where there is none."""
    household, site, case = work.around.household, work.around.site, work.case
    plan = Plan(id="procedure", version=1, kinds=(EVERY_KIND,), roles=tuple(roles))
    parties = () if household is None else household.parties
    planned = legs_for(case.kinds, plans=(plan,), parties=parties, fallback=site.fallback, test=case.test)
    planned = [replace(leg, origin="procedure") if leg.origin == "plan" else leg for leg in planned]
    before = {leg.id: leg for leg in await cases.legs_of(work.conn, case.id)}
    added, notices = await fan_out.add_legs(work.conn, case, planned, around=work.around, worker=work.worker)
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


async def _withdraw(work: _Work, roles: Sequence[str]) -> dict[str, Any]:
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


# What terminals answer

_COMMAND_ENDS = {"done": "done", "failed": "failed", "refused": "failed"}


async def record_result(
    pool: Pool,
    directory: Directory,
    terminal: str,
    command: str,
    state: str,
    *,
    detail: str | None,
    is_working_day: WorkingDay,
) -> None:
    """Record what a terminal answered to a command; one that nobody gave, or that is answered already, is nothing.

    That a line was picked up is no human's word: it ends the step and sets no fact (I7).
    """
    if state not in _COMMAND_ENDS:
        return
    async with pool.connection() as conn, conn.transaction():
        row = await procedures.end_command(conn, command, terminal=terminal, state=state, detail=detail)
        found = None if row is None or row.step_id is None else await procedures.step_by_id(conn, row.step_id)
        if row is None or found is None:
            return
        case_id, run_id, name = found
        work = await _locked(conn, directory, case_id)
        run = next(one for one in await procedures.runs_of(conn, case_id) if one.id == run_id)
        procedure = await _bodies.get(conn, run.procedure, run.version)
        step = next(one for one in procedure.steps if one.id == name)
        stands = (await procedures.steps_of(conn, case_id))[run_id][name]
        result = _COMMAND_ENDS[state]
        if stands.state is StepState.OPEN and result in step.results:
            change = end_step(step, stands, result=result, now=work.now)
            await _apply(work, run, change, by=f"terminal:{terminal}")
        else:
            work.journal.add(
                Note("step.answered_late", {"step": name, "result": result}, actor=f"terminal:{terminal}"), at=work.now
            )
        await _advance(work, is_working_day)
        await work.journal.flush(conn)


# What people say


async def start_procedure(
    pool: Pool, directory: Directory, case_id: UUID, procedure: str, *, by: str, is_working_day: WorkingDay
) -> None:
    """Start a further procedure for a case, as that for a complaint (R21). One that runs, or ran, is not started again.

    Raises:
        NotFound: No such case or procedure.
        StateConflict: It was started for this case before.
    """
    async with pool.connection() as conn, conn.transaction():
        work = await _locked(conn, directory, case_id)
        version = await procedures.newest_version(conn, procedure)
        if version is None:
            raise NotFound(f"There is no procedure {procedure}.")
        if any(run.procedure == procedure for run in await procedures.runs_of(conn, case_id)):
            raise StateConflict(f"The procedure {procedure} was started for this case before.")
        await _add_run(work, procedure, version, work.now, by=f"operator:{by}")
        await _advance(work, is_working_day)
        await work.journal.flush(conn)


async def _locked(conn: Connection, directory: Directory, case_id: UUID) -> _Work:
    case = await cases.lock_case(conn, case_id)
    if case is None:
        raise NotFound(f"There is no case {case_id}.")
    return await _work(conn, directory, case, worker=None)


async def complete_task(
    pool: Pool,
    directory: Directory,
    task: UUID,
    *,
    result: str,
    by: str,
    note: str | None,
    is_working_day: WorkingDay,
) -> None:
    """Record how a human did a task, and let what follows from it happen at once.

    Where the task stands for a fact that somebody with a seat may pass on (a crew is on its way, the person answered),
    its result sets that fact. The same result of the same person again changes nothing.

    Raises:
        NotFound: No such task.
        StateConflict: It is over already, or does not end with this result.
    """
    async with pool.connection() as conn:
        found = await procedures.step_by_id(conn, task)
    if found is None:
        raise NotFound(f"There is no task {task}.")
    case_id, run_id, name = found
    async with pool.connection() as conn, conn.transaction():
        work = await _locked(conn, directory, case_id)
        run = next(one for one in await procedures.runs_of(conn, case_id) if one.id == run_id)
        procedure = await _bodies.get(conn, run.procedure, run.version)
        step = next(one for one in procedure.steps if one.id == name)
        row = (await procedures.steps_of(conn, case_id))[run_id][name]
        if row.result == result:
            return
        try:
            change = end_step(step, row, result=result, now=work.now)
        except ValueError as exc:
            raise StateConflict(str(exc)) from exc
        await _apply(work, run, change, by=f"operator:{by}", note=note)
        for wanted, means in step.ends_with.items():
            fact, _, role = wanted.partition(":")
            if means == result and "|" not in wanted and fact in (Fact.DISPATCHED, Fact.HEARD):
                await _add_fact(work, Fact(fact), role=role or "person", by=f"operator:{by}")
        await _advance(work, is_working_day)
        await work.journal.flush(conn)


async def set_fact(
    pool: Pool,
    directory: Directory,
    case_id: UUID,
    fact: Fact,
    *,
    role: str,
    about: str | None,
    by: str,
    is_working_day: WorkingDay,
) -> None:
    """Record a fact that somebody with `role` states about the role `about` (None: its own).

    Raises:
        NotFound: No such case.
        StateConflict: This role may not say so, or it is said in another way: owning and safety have their own.
    """
    if fact in (Fact.OWNED, Fact.SAFE):
        raise StateConflict("Owning a case and confirming safety have requests of their own.")
    if not may_set(fact, role=role, about=about):
        raise StateConflict(f"The role {role} cannot say {fact} of {about or 'itself'}; ask whoever did it.")
    async with pool.connection() as conn, conn.transaction():
        work = await _locked(conn, directory, case_id)
        default = "person" if fact is Fact.HEARD else role
        await _add_fact(work, fact, role=about or default, by=f"{OPERATOR if role == OPERATOR else 'party'}:{by}")
        await _advance(work, is_working_day)
        await work.journal.flush(conn)


async def _add_fact(work: _Work, fact: Fact, *, role: str, by: str) -> None:
    added = await procedures.add_facts(work.conn, work.case.id, [fact], role=role, by=by)
    for name, at in added.items():
        data = {"fact": name, "role": role, "by": by}
        work.journal.add(Note("case.fact", data, actor=by), at=at)
        await events.emit(work.conn, "case.fact", district=work.case.district, case_id=work.case.id, data=data)
