"""Modems: how they are."""

from fastapi import APIRouter, Depends

from api.dependencies import PoolDep, may
from gateway.service import read_phones
from gateway.service.access import Right
from schemas.phones import ModemOut

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["phones"])


@router.get("/modems", dependencies=[Depends(may(Right.READ_TERMINALS))])
async def list_modems(pool: PoolDep) -> list[ModemOut]:
    """List the GSM modems of all gateways."""
    return [
        ModemOut(
            id=one.id,
            gateway=one.replica,
            state=one.state if one.fresh else "unknown",
            problem=one.problem,
            model=one.model,
            operator=one.operator,
            signal_dbm=one.signal_dbm,
            since=one.since,
            heard_at=one.heard_at,
            sent_today=one.sent_today,
            balance=None if one.balance is None else float(one.balance),
            balance_at=one.balance_at,
            case_id=None if one.case_id is None else str(one.case_id),
        )
        for one in await read_phones.list_modems(pool)
    ]
