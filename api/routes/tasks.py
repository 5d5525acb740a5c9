"""Tasks: what people at the seats of a hotline have to do by when."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query

from api.dependencies import Cursor, DirectoryDep, District, Limit, PoolDep, WorkdaysDep, may
from gateway.service import desk, read_desk
from gateway.service.access import Principal, Right
from schemas.case import Page
from schemas.desk import CompletionIn, SeatName, TaskOut, TaskState
from schemas.rest import Who

__all__ = ["router"]

router = APIRouter(prefix="/v1/tasks", tags=["desk"])

_Reader = Depends(may(Right.READ_CASES))
_Handler = Annotated[Principal, Depends(may(Right.HANDLE_CASES))]


@router.get("", dependencies=[_Reader])
async def list_tasks(
    pool: PoolDep,
    state: TaskState | None = "open",
    operator: Annotated[Who | None, Query(description="Only what this seat owes.")] = None,
    seat: SeatName | None = None,
    case: UUID | None = None,
    overdue: Annotated[bool, Query(description="Only what is open and late.")] = False,  # noqa: FBT002 # a query
    district: District = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[TaskOut]:
    """List tasks, the most urgent deadline first."""
    page = await read_desk.list_tasks(
        pool,
        case=case,
        state=state,
        operator=operator,
        seat=seat,
        district=district,
        overdue=overdue,
        cursor=cursor,
        limit=limit,
    )
    return Page(items=[TaskOut.model_validate(file.fields()) for file in page.items], cursor=page.cursor)


@router.get("/{task_id}", dependencies=[_Reader])
async def read_task(task_id: UUID, pool: PoolDep) -> TaskOut:
    """Read one task."""
    return TaskOut.model_validate((await read_desk.read_task(pool, task_id)).fields())


@router.post("/{task_id}/completion")
async def complete_task(
    task_id: UUID, body: CompletionIn, pool: PoolDep, directory: DirectoryDep, workdays: WorkdaysDep, who: _Handler
) -> TaskOut:
    """Say how a task was done. What follows from it happens at once."""
    del who
    await desk.complete_task(
        pool,
        directory,
        task_id,
        result=body.result,
        by=body.operator,
        note=body.note,
        is_working_day=workdays.is_working_day,
    )
    return TaskOut.model_validate((await read_desk.read_task(pool, task_id)).fields())
