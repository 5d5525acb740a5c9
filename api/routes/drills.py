"""Drills (演练): planning, starting, watching and ending them."""

from dataclasses import asdict
from datetime import timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends

from api.dependencies import Cursor, DirectoryDep, Limit, PoolDep, may
from gateway.service import drills
from gateway.service.access import Principal, Right
from gateway.service.drills import DrillFile
from schemas.case import Page
from schemas.drill import DrillActIn, DrillCaseOut, DrillIn, DrillLineOut, DrillOut, ScoreOut

__all__ = ["drill_out", "router"]

router = APIRouter(prefix="/v1/drills", tags=["drills"])

_Reader = Depends(may(Right.READ_CASES))
_Leader = Annotated[Principal, Depends(may(Right.RUN_DRILLS))]


def drill_out(file: DrillFile) -> DrillOut:
    """Return a drill as clients see it."""
    return DrillOut.model_validate(
        asdict(file.drill)
        | {
            "now": file.now,
            "in_time": file.in_time,
            "cases": [
                DrillCaseOut(
                    case_id=case.case_id,
                    state=case.state,
                    opened_at=case.opened_at,
                    scores=[
                        ScoreOut(
                            what=item.what,
                            who=item.who,
                            mark=item.mark.value,
                            due_at=item.due_at,
                            done_at=item.done_at,
                            took_s=None if item.took is None else item.took.total_seconds(),
                        )
                        for item in case.items
                    ],
                )
                for case in file.cases
            ],
        }
    )


@router.get("", dependencies=[_Reader])
async def list_drills(pool: PoolDep, cursor: Cursor = None, limit: Limit = 50) -> Page[DrillLineOut]:
    """List drills, newest first."""
    page = await drills.list_drills(pool, cursor=cursor, limit=limit)
    return Page(items=[DrillLineOut.model_validate(row) for row in page.items], cursor=page.cursor)


@router.post("", status_code=201)
async def plan_drill(body: DrillIn, pool: PoolDep, who: _Leader) -> DrillOut:
    """Plan a drill. Nothing happens before it is started."""
    del who
    row = await drills.plan_drill(
        pool,
        title=body.title,
        terminals=body.terminals,
        participants=body.participants,
        scenario=[inject.model_dump() for inject in body.scenario],
        lasts=timedelta(minutes=body.minutes),
        with_rescue=body.with_rescue,
        by=body.operator,
    )
    return drill_out(await drills.read_drill(pool, row.id))


@router.get("/{drill_id}", dependencies=[_Reader])
async def read_drill(drill_id: UUID, pool: PoolDep) -> DrillOut:
    """Read a drill with its score: live while it runs, the after-action report afterwards."""
    return drill_out(await drills.read_drill(pool, drill_id))


@router.post("/{drill_id}/start")
async def start_drill(drill_id: UUID, body: DrillActIn, pool: PoolDep, who: _Leader) -> DrillOut:
    """Start a drill. A press without the test flag stays real, from its terminals too."""
    del who
    await drills.start_drill(pool, drill_id, by=body.operator)
    return drill_out(await drills.read_drill(pool, drill_id))


@router.post("/{drill_id}/end")
async def end_drill(drill_id: UUID, body: DrillActIn, pool: PoolDep, directory: DirectoryDep, who: _Leader) -> DrillOut:
    """End a drill, or call a planned one off. Whoever was told hears that it is over."""
    del who
    await drills.end_drill(pool, directory, drill_id, by=body.operator)
    return drill_out(await drills.read_drill(pool, drill_id))
