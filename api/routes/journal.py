"""The journal (日志链): checkpoints to keep elsewhere, and the key that signs them."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from api.dependencies import DirectoryDep, Limit, PoolDep, may
from gateway.report.compose import checkpoint_out, key_out
from gateway.service.access import Right
from gateway.service.checkpoints import list_checkpoints
from schemas.case import Page
from schemas.proof import CheckpointOut, JournalKeyOut

__all__ = ["router"]

router = APIRouter(prefix="/v1/journal", tags=["journal"], dependencies=[Depends(may(Right.READ_CHECKPOINTS))])


@router.get("/checkpoints")
async def read_checkpoints(
    pool: PoolDep,
    after: Annotated[int, Query(ge=0, le=2**63 - 1, description="Number of the newest that you hold.")] = 0,
    limit: Limit = 100,
) -> Page[CheckpointOut]:
    """Read the signed checkpoints in their order, to hold copies elsewhere.

    Append each ``line`` to a file, with an end of line: «onekey case verify --checkpoints FILE» holds the journals
    against it. ``cursor`` is the number to ask ``after`` for more; null when there are none yet.
    """
    rows = await list_checkpoints(pool, after=after, limit=limit)
    return Page(
        items=[checkpoint_out(row) for row in rows], cursor=str(rows[-1].number) if len(rows) == limit else None
    )


@router.get("/key")
async def read_journal_key(directory: DirectoryDep) -> JournalKeyOut:
    """Read the public key of the checkpoints. Keep it where you keep them."""
    return key_out(directory.keyring.public)
