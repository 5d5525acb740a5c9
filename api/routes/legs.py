"""Legs (支路): what parties answer through their platforms."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends

from api.dependencies import DirectoryDep, PoolDep, may
from gateway.domain.outbox import PartyAnswer
from gateway.service import case_commands
from gateway.service.access import Principal, Right
from schemas.case import AnsweredOut, AnswerIn

__all__ = ["router"]

router = APIRouter(prefix="/v1/legs", tags=["cases"])


@router.post("/{leg_id}/answers")
async def answer_leg(
    leg_id: UUID,
    body: AnswerIn,
    pool: PoolDep,
    directory: DirectoryDep,
    who: Annotated[Principal, Depends(may(Right.ANSWER_LEGS))],
) -> AnsweredOut:
    """Answer for a party. The same answer again changes nothing; a later one replaces an earlier one."""
    answer = PartyAnswer(body.answer, reason=body.reason, minutes=body.minutes, by=body.by)
    answered = await case_commands.answer_leg(pool, directory, leg_id, answer, number=body.number, via=f"api:{who.id}")
    return AnsweredOut.model_validate(answered)
