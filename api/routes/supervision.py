"""Supervision: what is wrong with terminals, incidents, uptime and unprotected hours."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query

from api.dependencies import Cursor, District, Limit, PoolDep, may
from gateway.service import read_supervision
from gateway.service.access import Right
from gateway.store.supervision_figures import DistrictFigures
from schemas.case import Page
from schemas.supervision import IncidentOut, TroubleOut, UptimeDistrictOut, UptimeOut
from schemas.units import PublicId, UtcDatetime

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["supervision"])

_Open = Annotated[bool | None, Query(alias="open", description="true: only what goes on; false: only what is over.")]


@router.get("/troubles", dependencies=[Depends(may(Right.READ_TERMINALS))])
async def list_troubles(
    pool: PoolDep,
    is_open: _Open = None,
    cause: Annotated[str | None, Query(max_length=64, examples=["offline"])] = None,
    terminal: Annotated[PublicId | None, Query(description="Only of this terminal.")] = None,
    district: District = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[TroubleOut]:
    """List what is or was wrong with terminals, newest first."""
    page = await read_supervision.list_troubles(
        pool, is_open=is_open, cause=cause, terminal=terminal, district=district, cursor=cursor, limit=limit
    )
    return Page(items=[TroubleOut.model_validate(one) for one in page.items], cursor=page.cursor)


@router.get("/incidents", dependencies=[Depends(may(Right.READ_TERMINALS))])
async def list_incidents(
    pool: PoolDep, is_open: _Open = None, district: District = None, cursor: Cursor = None, limit: Limit = 50
) -> Page[IncidentOut]:
    """List what many terminals of an area had in common, newest first."""
    page = await read_supervision.list_incidents(pool, is_open=is_open, district=district, cursor=cursor, limit=limit)
    return Page(items=[IncidentOut.model_validate(one) for one in page.items], cursor=page.cursor)


@router.get("/incidents/{incident}/troubles", dependencies=[Depends(may(Right.READ_TERMINALS))])
async def list_incident_troubles(
    pool: PoolDep, incident: Annotated[int, Path(ge=1, le=2**62)], cursor: Cursor = None, limit: Limit = 50
) -> Page[TroubleOut]:
    """List the terminals of an incident with their troubles, oldest first."""
    page = await read_supervision.list_members(pool, incident, cursor=cursor, limit=limit)
    return Page(items=[TroubleOut.model_validate(one) for one in page.items], cursor=page.cursor)


@router.get("/uptime", dependencies=[Depends(may(Right.READ_FIGURES))])
async def read_uptime(
    pool: PoolDep,
    begin: Annotated[
        UtcDatetime | None, Query(alias="from", description="Begin; null: 30 days before the end.")
    ] = None,
    until: Annotated[UtcDatetime | None, Query(description="End, which is not included; null: now.")] = None,
    district: District = None,
) -> UptimeOut:
    """Read how long terminals were there, and for how many hours persons were without any that could have called."""
    end = until or datetime.now(UTC)
    found = await read_supervision.read_uptime(
        pool, begin=begin or end - timedelta(days=30), end=end, district=district
    )
    return UptimeOut(begin=found.begin, end=found.end, districts=[_district(one) for one in found.districts])


def _district(one: DistrictFigures) -> UptimeDistrictOut:
    uptime = 1.0 if not one.supervised_h else 1 - one.offline_h / one.supervised_h
    return UptimeDistrictOut(
        district=one.district,
        terminals=one.terminals,
        supervised_h=round(one.supervised_h, 3),
        offline_h=round(one.offline_h, 3),
        uptime=round(uptime, 6),
        losses=one.losses,
        persons=one.persons,
        unprotected_h=round(one.unprotected_h, 3),
    )
