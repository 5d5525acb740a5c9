"""The REST contract of drills (演练, R23)."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import ConfigDict, Field

from schemas.reports import Kind
from schemas.rest import In, Out, Who
from schemas.units import PublicId, UtcDatetime

__all__ = ["DrillActIn", "DrillIn", "DrillLineOut", "DrillOut", "InjectIn"]


class InjectIn(In):
    """One press of the scenario; nobody has to touch the terminal."""

    after_s: Annotated[int, Field(ge=0, le=86_400, description="After the start.", json_schema_extra={"unit": "s"})]
    terminal: PublicId
    kinds: Annotated[list[Kind], Field(min_length=1, max_length=8)] = Field(default_factory=lambda: ["sos"])


class DrillIn(In):
    """Plan a drill: whose terminals, who takes part, what is injected."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "title": "季度演练：一号楼",
                    "terminals": ["860000000000001"],
                    "participants": ["guardian-wang", "hotline-12349"],
                    "scenario": [{"after_s": 5, "terminal": "860000000000001", "kinds": ["fall"]}],
                    "minutes": 30,
                    "operator": "supervisor-1",
                }
            ]
        }
    )

    title: Annotated[str, Field(min_length=1, max_length=200)]
    terminals: Annotated[
        list[PublicId],
        Field(min_length=1, max_length=200, description="Their test presses belong to the drill while it runs."),
    ]
    participants: Annotated[list[PublicId], Field(min_length=1, max_length=200, description="Only they are told.")]
    scenario: Annotated[list[InjectIn], Field(max_length=500, description="Presses to inject.")] = Field(
        default_factory=list
    )
    minutes: Annotated[
        int, Field(ge=1, le=1440, description="How long at most.", json_schema_extra={"unit": "min"})
    ] = 60
    with_rescue: Annotated[bool, Field(description="120, 119 or 110 takes part, as agreed with them.")] = False
    operator: Annotated[Who, Field(description="Who plans it.")]


class DrillActIn(In):
    """Start or end a drill."""

    operator: Annotated[Who, Field(description="Who says so.")]


class DrillLineOut(Out):
    """A drill as lists show it."""

    id: UUID
    site_id: str
    district: str
    title: str
    terminals: list[str]
    participants: list[str]
    state: Literal["planned", "running", "ended"]
    created_at: UtcDatetime
    created_by: str
    started_at: UtcDatetime | None = None
    ended_at: UtcDatetime | None = None
    ended_by: str | None = None


class ScoreOut(Out):
    """One thing that had to happen, against its deadline."""

    what: str
    who: str
    mark: Annotated[
        Literal["in_time", "late", "missed", "running", "void"],
        Field(description="void: it fell away before it was due."),
    ]
    due_at: UtcDatetime
    done_at: UtcDatetime | None = None
    took_s: Annotated[float | None, Field(json_schema_extra={"unit": "s"})] = None


class DrillCaseOut(Out):
    """One case of a drill."""

    case_id: UUID
    state: Literal["open", "safe", "closed"]
    opened_at: UtcDatetime
    scores: list[ScoreOut]


class DrillOut(DrillLineOut):
    """A drill with its score: live while it runs, the after-action report once it has ended."""

    scenario: list[InjectIn]
    injected: Annotated[int, Field(description="Presses of the scenario made so far.")]
    now: UtcDatetime
    in_time: Annotated[float | None, Field(description="Share of decided deadlines that were met.")] = None
    cases: list[DrillCaseOut]
