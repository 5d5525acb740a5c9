"""Operators (话务员): the names behind seat numbers, which work orders show and nothing else knows."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Response

from api.dependencies import DirectoryDep, PoolDep, may
from gateway.service import operators
from gateway.service.access import Right
from schemas.rest import Who
from schemas.work_order import OperatorIn, OperatorOut

__all__ = ["router"]

router = APIRouter(prefix="/v1/operators", tags=["work orders"])

_Id = Annotated[Who, Path()]
_Namer = Depends(may(Right.NAME_OPERATORS))


@router.get("", dependencies=[Depends(may(Right.READ_WORK_ORDERS))])
async def list_operators(pool: PoolDep, directory: DirectoryDep) -> list[OperatorOut]:
    """List everybody whose name is known, by seat number."""
    return [OperatorOut.model_validate(one) for one in await operators.list_operators(pool, directory)]


@router.put("/{operator}", dependencies=[_Namer])
async def name_operator(operator: _Id, body: OperatorIn, pool: PoolDep, directory: DirectoryDep) -> OperatorOut:
    """Say who works at a seat. Work orders made before keep the name that they were made with."""
    named = await operators.name_operator(pool, directory, operator, name=body.name, site=body.site)
    return OperatorOut.model_validate(named)


@router.delete("/{operator}", status_code=204, response_class=Response, dependencies=[_Namer])
async def drop_operator(operator: _Id, pool: PoolDep) -> Response:
    """Forget who works at a seat."""
    await operators.drop_operator(pool, operator)
    return Response(status_code=204)
