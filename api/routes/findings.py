"""What the auditor found amiss, and whether it is over."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query

from api.dependencies import Cursor, District, Limit, PoolDep, may
from gateway.service import report_findings
from gateway.service.access import Right
from schemas.audit import FindingOut
from schemas.case import Page

__all__ = ["router"]

router = APIRouter(prefix="/v1/findings", tags=["findings"])


@router.get("", dependencies=[Depends(may(Right.READ_CASES))])
async def list_findings(
    pool: PoolDep,
    is_open: Annotated[
        bool | None, Query(alias="open", description="true: only what holds; false: only what is over.")
    ] = None,
    case: Annotated[UUID | None, Query(description="Only about this case.")] = None,
    district: District = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[FindingOut]:
    """List what should have happened and did not, newest first."""
    page = await report_findings.list_findings(
        pool, is_open=is_open, case=case, district=district, cursor=cursor, limit=limit
    )
    return Page(items=[FindingOut.model_validate(one) for one in page.items], cursor=page.cursor)
