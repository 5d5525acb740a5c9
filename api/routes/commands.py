"""Terminal linkage (R9): asking terminals to do something, and seeing what became of it."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Path

from api.dependencies import DirectoryDep, PoolDep, may
from gateway.service import read_desk
from gateway.service.access import Principal, Right
from gateway.service.command_terminals import give_command
from schemas.desk import CommandIn, CommandOut
from schemas.units import PublicId

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["terminals"])


@router.post("/terminals/{terminal_id}/commands", status_code=202)
async def command_terminal(
    terminal_id: Annotated[PublicId, Path()],
    body: CommandIn,
    pool: PoolDep,
    directory: DirectoryDep,
    who: Annotated[Principal, Depends(may(Right.COMMAND_TERMINALS))],
) -> CommandOut:
    """Ask a terminal to do something; it is sent until it is answered or too old."""
    del who
    row = await give_command(
        pool,
        directory,
        terminal_id,
        name=body.name,
        arguments=body.arguments,
        life=timedelta(seconds=body.valid_s),
        case_id=body.case,
        by=body.operator,
    )
    return CommandOut.model_validate(row)


@router.get("/commands/{command_id}", dependencies=[Depends(may(Right.READ_TERMINALS))])
async def read_command(command_id: Annotated[str, Path(max_length=64)], pool: PoolDep) -> CommandOut:
    """See how far a command is."""
    return CommandOut.model_validate(await read_desk.read_command(pool, command_id))
