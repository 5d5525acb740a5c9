"""What the auditor tells: findings, as the fallback of a site and the API get them.

A finding is something that should have happened and did not, or that contradicts itself, found by a process of its own
that shares no code with the gateway. It holds ids, counts and times, and nothing personal.
"""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from schemas.rest import Out
from schemas.units import UtcDatetime

__all__ = ["AuditData", "AuditMessage", "FindingOut", "FindingTold"]

_Kind = Annotated[str, Field(description="What is amiss, for example leg_without_call; the operations page lists all.")]
_Case = Annotated[UUID | None, Field(description="The case that it is about; null: the gateway itself.")]
_District = Annotated[str | None, Field(description="District of that case.")]
_Words = Annotated[dict[str, str], Field(description="One sentence for a human, by language: zh and en.")]
_Detail = Annotated[dict[str, object], Field(description="Ids, counts and times; `since` is when it began.")]


class FindingTold(BaseModel):
    """A finding in a message."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[int, Field(description="Of this finding; the same in every message about it.")]
    kind: _Kind
    state: Annotated[
        Literal["raised", "holds", "cleared"],
        Field(description="raised: new; holds: still so, told again every ten minutes; cleared: over."),
    ]
    case: _Case = None
    district: _District = None
    text: _Words
    detail: _Detail
    raised_at: Annotated[UtcDatetime, Field(description="When it was first said.")]
    cleared_at: Annotated[UtcDatetime | None, Field(description="Since when it is over.")] = None


class AuditData(BaseModel):
    """What the auditor has to say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    site: Annotated[str, Field(description="Id of the site.")]
    open: Annotated[int, Field(ge=0, description="Findings that hold now, those not in this message too.")]
    more: Annotated[int, Field(ge=0, description="Findings that had no room in this message; they follow.")] = 0
    findings: Annotated[list[FindingTold], Field(min_length=1, description="What is new, still so, or over.")]


class AuditMessage(BaseModel):
    """What the fallback of a site is told by webhook when something should have happened and did not.

    It comes from the auditor itself, signed as every other message of the site, and also while the gateway is dead.
    Repeated until it is answered with 2xx, under the same ``webhook-id`` as long as it says the same.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "type": "audit.finding",
                    "timestamp": "2026-11-22T06:31:20.412Z",
                    "data": {
                        "site": "nanjing-demo",
                        "open": 1,
                        "findings": [
                            {
                                "id": 17,
                                "kind": "notice_late",
                                "state": "raised",
                                "case": "0b0f3f0c-6a52-5f0e-8a55-3f1f0a6f2d11",
                                "district": "320102",
                                "text": {
                                    "zh": "给 guardian 的 1 条通知自 2026-11-22T06:31:05Z 起应发未发",
                                    "en": "messages to guardian are not sent: 1, due since 2026-11-22T06:31:05Z",
                                },
                                "detail": {
                                    "since": "2026-11-22T06:31:05.400000+00:00",
                                    "leg": "7d0a1c52-51b5-5d1c-9d3a-64b5f4f0c2aa",
                                    "role": "guardian",
                                    "party": "guardian-wang",
                                    "notices": 1,
                                },
                                "raised_at": "2026-11-22T06:31:20.398Z",
                            }
                        ],
                    },
                }
            ]
        },
    )

    type: Annotated[Literal["audit.finding"], Field(description="Tells it from notices, which are of type case.….")]
    timestamp: Annotated[UtcDatetime, Field(description="When the message was made.")]
    data: Annotated[AuditData, Field(description="What was found, and what is over.")]


class FindingOut(Out):
    """A finding of the auditor."""

    id: int
    kind: _Kind
    case_id: _Case
    site_id: Annotated[str | None, Field(description="The site that it concerns; null: all of them.")]
    district: _District
    words: _Words
    detail: _Detail
    first_seen: UtcDatetime
    last_seen: UtcDatetime
    raised_at: Annotated[UtcDatetime | None, Field(description="Since when people are told; null: it may still pass.")]
    cleared_at: Annotated[UtcDatetime | None, Field(description="Since when it is over; null: it holds.")]
    told_at: Annotated[UtcDatetime | None, Field(description="When the fallback last took word of it by webhook.")]
    audit_case: Annotated[UUID | None, Field(description="The technical case in which it was raised.")]
