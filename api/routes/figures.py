"""Figures of a period: response, duty, records and satisfaction, against what the standard demands."""

from datetime import date
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from api import order_views as views
from api.dependencies import DirectoryDep, District, PoolDep, may
from gateway.service.access import Right
from gateway.service.figures import figures_of
from schemas.figures import FiguresOut
from schemas.rest import Who

__all__ = ["router"]

router = APIRouter(prefix="/v1/figures", tags=["figures"])


@router.get("", dependencies=[Depends(may(Right.READ_FIGURES))])
async def read_figures(
    pool: PoolDep,
    directory: DirectoryDep,
    first: Annotated[date | None, Query(alias="from", description="First day, of the site; null: 30 days.")] = None,
    last: Annotated[date | None, Query(alias="to", description="Last day, included; null: today.")] = None,
    district: District = None,
    operator: Annotated[Who | None, Query(description="Only of this seat.", examples=["seat-7"])] = None,
) -> FiguresOut:
    """Read the figures of a period, of all and per operator and district. Tests and drills never count."""
    found = await figures_of(pool, directory, first=first, last=last, district=district, operator=operator)
    return views.figures_out(found, district=district, operator=operator)
