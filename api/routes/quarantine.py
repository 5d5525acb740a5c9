"""The quarantine: what could not be read, with its bytes, and what to do about it."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Response

from api import views
from api.dependencies import Cursor, DirectoryDep, District, Limit, PoolDep, may
from gateway.service import case_reading
from gateway.service import quarantine as commands
from gateway.service.access import Principal, Right
from schemas.case import Page, QuarantineLineOut, QuarantineOut, ReplayOut

__all__ = ["router"]

router = APIRouter(prefix="/v1/quarantine", tags=["quarantine"])

_Number = Annotated[int, Path(ge=1, le=2**63 - 1)]
_Reader = Depends(may(Right.READ_QUARANTINE))
_Settler = Annotated[Principal, Depends(may(Right.SETTLE_QUARANTINE))]


@router.get("", dependencies=[_Reader])
async def list_quarantine(
    pool: PoolDep,
    state: Literal["kept", "replayed", "dismissed"] | None = None,
    district: District = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[QuarantineLineOut]:
    """List messages that could not be read, newest first."""
    page = await case_reading.list_quarantine(pool, state=state, district=district, cursor=cursor, limit=limit)
    return Page(items=[views.quarantine_line_out(kept) for kept in page.items], cursor=page.cursor)


@router.get("/{number}", dependencies=[_Reader])
async def read_quarantined(number: _Number, pool: PoolDep) -> QuarantineOut:
    """Read one message with its bytes."""
    return views.quarantine_out(await case_reading.read_quarantine(pool, number))


@router.post("/{number}/replay")
async def replay_quarantined(number: _Number, pool: PoolDep, directory: DirectoryDep, who: _Settler) -> ReplayOut:
    """Read a message once more, after a fix, and do what it asks for."""
    return ReplayOut.model_validate(await commands.replay(pool, directory, number, by=f"api:{who.id}"))


@router.post("/{number}/dismissal", status_code=204, response_class=Response)
async def dismiss_quarantined(number: _Number, pool: PoolDep, who: _Settler) -> Response:
    """Settle a message without doing anything. Its bytes stay."""
    await commands.dismiss(pool, number, by=f"api:{who.id}")
    return Response(status_code=204)
