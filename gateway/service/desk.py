"""What people at the seats of the hotline say: tasks done, facts passed on, who sits where (R13, R17, R25)."""

from uuid import UUID

from gateway.domain.case import OPERATOR, CaseState, Fact, NotFound, StateConflict, may_set
from gateway.domain.procedure import end_step
from gateway.service.case_work import WorkingDay, add_fact, locked
from gateway.service.run_procedures import advance_work, apply_change, procedure_of
from gateway.store import procedures
from gateway.store.directory import Directory
from gateway.store.pool import Pool

__all__ = ["complete_task", "hand_over", "set_fact", "take_seat_b"]


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
    its result sets that fact. The same result again changes nothing.

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
        work = await locked(conn, directory, case_id)
        run = next(one for one in await procedures.runs_of(conn, case_id) if one.id == run_id)
        procedure = await procedure_of(conn, run)
        step = next(one for one in procedure.steps if one.id == name)
        row = (await procedures.steps_of(conn, case_id))[run_id][name]
        if row.result == result:
            return
        try:
            change = end_step(step, row, result=result, now=work.now)
        except ValueError as exc:
            raise StateConflict(str(exc)) from exc
        await apply_change(work, run, change, by=f"operator:{by}", note=note)
        for wanted, means in step.ends_with.items():
            fact, _, role = wanted.partition(":")
            if means == result and "|" not in wanted and fact in (Fact.DISPATCHED, Fact.HEARD, Fact.INFORMED):
                await add_fact(work, Fact(fact), role=role or "person", by=f"operator:{by}")
        await advance_work(work, is_working_day)
        await work.flush()


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

    It ends the calls to that role, and to no other.

    Raises:
        NotFound: No such case.
        StateConflict: This role may not say so, or it is said in another way: owning and safety have their own.
    """
    if fact in (Fact.OWNED, Fact.SAFE):
        raise StateConflict("Owning a case and confirming safety have requests of their own.")
    if not may_set(fact, role=role, about=about):
        raise StateConflict(f"The role {role} cannot say {fact} of {about or 'itself'}; ask whoever did it.")
    async with pool.connection() as conn, conn.transaction():
        work = await locked(conn, directory, case_id)
        if work.case.state == CaseState.CLOSED:
            raise StateConflict("The case is closed; what is learned later belongs into its record.")
        default = "person" if fact is Fact.HEARD else role
        await add_fact(work, fact, role=about or default, by=f"{OPERATOR if role == OPERATOR else 'party'}:{by}")
        await advance_work(work, is_working_day)
        await work.flush()


async def hand_over(
    pool: Pool, directory: Directory, case_id: UUID, *, by: str, to: str, reason: str, is_working_day: WorkingDay
) -> None:
    """Give a case from its owner to another operator; the first operator stays the one who follows it up (R11, R17).

    Asking again for what is so changes nothing.

    Raises:
        NotFound: No such case.
        StateConflict: It is closed, nobody owns it, or `by` is not its owner.
    """
    async with pool.connection() as conn, conn.transaction():
        work = await locked(conn, directory, case_id)
        case = work.case
        if case.owner == to:
            return
        if case.state == CaseState.CLOSED:
            raise StateConflict("The case is closed; there is nothing to hand over.")
        if case.owner is None:
            raise StateConflict("Nobody owns the case: take it instead.")
        if case.owner != by:
            raise StateConflict(f"The case is owned by {case.owner}; only they can hand it over.")
        await procedures.set_owner(conn, case_id, to)
        work.change(owner=to)
        data = {"from": by, "to": to}
        work.note("case.handed_over", data, actor=f"operator:{by}", private={"reason": reason})
        await advance_work(work, is_working_day)
        await work.flush()


async def take_seat_b(pool: Pool, directory: Directory, case_id: UUID, *, operator: str | None, by: str) -> None:
    """Say who sits at seat B of a case, who stays with the person (R13); None frees the seat.

    Raises:
        NotFound: No such case.
        StateConflict: It is closed, or this operator has seat A.
    """
    async with pool.connection() as conn, conn.transaction():
        work = await locked(conn, directory, case_id)
        if work.case.seat_b == operator:
            return
        if work.case.state == CaseState.CLOSED:
            raise StateConflict("The case is closed; nobody has to sit there any more.")
        if operator is not None and operator == work.case.owner:
            raise StateConflict("Seat A and seat B are two people: this operator owns the case already.")
        await procedures.set_seat_b(conn, case_id, operator)
        work.note("case.seat_b", {"operator": operator}, actor=f"operator:{by}")
        await work.flush()
