"""Reading for the seats of a hotline: tasks with what they ask for, commands, and the plan of a running case."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from gateway.domain.case import NotFound
from gateway.domain.procedure import Step
from gateway.service.paging import NOT_OURS, BadCursor, Page, read_cursor, write_cursor
from gateway.service.run_procedures import procedure_of
from gateway.store import procedures
from gateway.store.pool import Connection, Pool
from gateway.store.procedures import CommandRow, FactRow, ProgressRow, RunRow, TaskLine

__all__ = ["Desk", "RunFile", "TaskFile", "desk_of", "list_tasks", "read_command", "read_task"]


@dataclass(frozen=True, slots=True)
class TaskFile:
    """A task and the step of the procedure behind it."""

    line: TaskLine
    step: Step

    def fields(self) -> dict[str, Any]:
        """Return the fields of ``schemas.desk.TaskOut``."""
        names = TaskLine.__dataclass_fields__
        return {name: getattr(self.line, name) for name in names} | {
            "title": dict(self.step.title),
            "clause": self.step.clause,
            "results": list(self.step.results),
        }


@dataclass(frozen=True, slots=True)
class RunFile:
    """A procedure of a case."""

    run: RunRow
    title: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What people and the gateway owe in a case, and what is known of the rescue."""

    runs: list[RunFile]
    tasks: list[TaskFile]
    facts: list[FactRow]
    commands: list[CommandRow]
    progress: list[ProgressRow]


async def desk_of(conn: Connection, case_id: UUID) -> Desk:
    """Return what belongs to a case, in the caller's transaction."""
    runs = await procedures.runs_of(conn, case_id)
    return Desk(
        runs=[RunFile(run, dict((await procedure_of(conn, run)).title)) for run in runs],
        tasks=await _with_steps(conn, await procedures.tasks(conn, case=case_id, limit=1000)),
        facts=await procedures.facts_of(conn, case_id),
        commands=await procedures.commands_of(conn, case_id),
        progress=await procedures.progress_of(conn, case_id),
    )


async def _with_steps(conn: Connection, lines: list[TaskLine]) -> list[TaskFile]:
    files = []
    for line in lines:
        run = RunRow(line.id, line.case_id, line.procedure, line.version, line.planned_at, None)
        steps = (await procedure_of(conn, run)).steps
        files.append(TaskFile(line, next(step for step in steps if step.id == line.name)))
    return files


async def list_tasks(
    pool: Pool,
    *,
    case: UUID | None = None,
    state: str | None = None,
    operator: str | None = None,
    seat: str | None = None,
    district: str | None = None,
    overdue: bool = False,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[TaskFile]:
    """Return tasks, the most urgent deadline first, those without one last.

    Raises:
        BadCursor: Not a cursor of ours.
    """
    async with pool.connection() as conn:
        lines = await procedures.tasks(
            conn,
            case=case,
            state=state,
            owner=operator,
            seat=seat,
            district=district,
            overdue=overdue,
            after=_place(cursor),
            limit=limit + 1,
        )
        files = await _with_steps(conn, lines[:limit])
    last = files[-1].line if len(lines) > limit else None
    mark = None if last is None else f"{last.due_at.isoformat() if last.due_at else 'infinity'}|{last.id}"
    return Page(files, None if mark is None else write_cursor(mark))


def _place(cursor: str | None) -> tuple[str, UUID] | None:
    text = read_cursor(cursor)
    if text is None:
        return None
    at, _, name = text.partition("|")
    try:
        return at if at == "infinity" else datetime.fromisoformat(at).isoformat(), UUID(name)
    except ValueError as exc:
        raise BadCursor(NOT_OURS) from exc


async def read_task(pool: Pool, task: UUID) -> TaskFile:
    """Return one task.

    Raises:
        NotFound: No such task.
    """
    async with pool.connection() as conn:
        lines = await procedures.tasks(conn, task=task, limit=1)
        if not lines:
            raise NotFound(f"There is no task {task}.")
        return (await _with_steps(conn, lines))[0]


async def read_command(pool: Pool, command: str) -> CommandRow:
    """Return one command.

    Raises:
        NotFound: No such command.
    """
    async with pool.connection() as conn:
        row = await procedures.command(conn, command)
    if row is None:
        raise NotFound(f"There is no command {command}.")
    return row
