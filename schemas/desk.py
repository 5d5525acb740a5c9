"""The REST contract of a seat at the hotline: tasks, facts, seats, and what terminals are asked to do."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import ConfigDict, Field

from schemas.rest import FreeText, In, Out, Who
from schemas.units import UtcDatetime

__all__ = [
    "CommandIn",
    "CommandOut",
    "CompletionIn",
    "EmergencyIn",
    "EmergencyOut",
    "FactIn",
    "FactName",
    "FactOut",
    "HandOverIn",
    "ProcedureIn",
    "ProgressOut",
    "RunOut",
    "SeatBIn",
    "SeatName",
    "TaskOut",
    "TaskState",
]

FactName = Literal["informed", "owned", "dispatched", "on_scene", "heard", "safe"]
SeatName = Literal["A", "B", "first", "supervisor"]
TaskState = Literal["open", "done", "skipped", "cancelled"]
_Role = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]


# What clients send


class FactIn(In):
    """Something that is known of a rescue, and of whom (R10, R15). It ends the calls to that role and to no other."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"fact": "dispatched", "about": "ambulance_120", "operator": "seat-7"},
                {"fact": "heard", "operator": "seat-7"},
            ]
        }
    )

    fact: Annotated[
        Literal["informed", "dispatched", "on_scene", "heard"],
        Field(description="informed, dispatched and on_scene of a role; heard: the person answered, by voice or key."),
    ]
    about: Annotated[_Role | None, Field(description="The role that this is about; null for heard.")] = None
    operator: Annotated[Who, Field(description="Seat or staff number of whoever spoke with them.")]


class HandOverIn(In):
    """Give a case to another operator. The first one stays responsible for its follow-up (R11, R17)."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"operator": "seat-7", "to": "seat-9", "reason": "交接班"}]}
    )

    operator: Annotated[Who, Field(description="Whoever owns it now.")]
    to: Annotated[Who, Field(description="Whoever takes it.")]
    reason: Annotated[FreeText, Field(description="Why, for the record.")]


class SeatBIn(In):
    """Who sits at seat B and stays with the person, while A calls the helpers (R13)."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"operator": "seat-9", "by": "seat-7"}]})

    operator: Annotated[Who | None, Field(description="Seat or staff number; null frees the seat.")]
    by: Annotated[Who, Field(description="Whoever says so.")]


class ProcedureIn(In):
    """Start a further procedure for a case, for example that of a complaint (R21)."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"procedure": "complaint", "operator": "seat-7"}]})

    procedure: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$", description="Id of the procedure.")]
    operator: Annotated[Who, Field(description="Who starts it.")]


class EmergencyIn(In):
    """A service request turns out to be an emergency (R25): everybody of that plan is called at once."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"kind": "fall", "operator": "seat-7"}]})

    kind: Annotated[
        Literal["sos", "fall", "smoke", "gas", "water", "inactivity", "wander", "duress"],
        Field(description="What it is."),
    ] = "sos"
    operator: Annotated[Who, Field(description="Who says so.")]


class CompletionIn(In):
    """How a task was done. The same result again changes nothing."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"result": "no_answer", "operator": "seat-7"},
                {"result": "done", "operator": "seat-7", "note": "老人已回家，情况稳定。"},
            ]
        }
    )

    result: Annotated[str, Field(max_length=64, description="One of the task's results.")]
    operator: Annotated[Who, Field(description="Who did it.")]
    note: Annotated[FreeText | None, Field(description="For the record; kept encrypted in the journal only.")] = None


class CommandIn(In):
    """Ask a terminal to do something (R9)."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"name": "locate", "operator": "seat-7", "case": "0b0f3f0c-6a52-5f0e-8a55-3f1f0a6f2d11"},
                {"name": "dial", "arguments": {"number": "120"}, "operator": "seat-7"},
                {"name": "configure", "arguments": {"heartbeat_s": 300}, "operator": "technician-3", "valid_s": 86400},
            ]
        }
    )

    name: Annotated[
        Literal["call_back", "dial", "play", "locate", "configure", "self_test"],
        Field(description="call_back: answer the next call by itself; dial: call a number; play: say a text."),
    ]
    arguments: Annotated[
        dict[str, str | int | float | bool],
        Field(description="dial: number; play: text; configure: heartbeat_s, fix_s; the others none."),
    ] = Field(default_factory=dict)
    case: Annotated[UUID | None, Field(description="The case that it is for; its record shows what became of it.")] = (
        None
    )
    valid_s: Annotated[
        int, Field(ge=5, le=604_800, description="How long it is tried.", json_schema_extra={"unit": "s"})
    ] = 120
    operator: Annotated[Who, Field(description="Who asks.")]


# What clients receive


class FactOut(Out):
    """Something known of a rescue."""

    fact: FactName
    role: Annotated[str, Field(description="Whom it is about; person for heard.")]
    by_whom: Annotated[str, Field(description="Who says so: party:ID, operator:SEAT or terminal:ID.")]
    at: UtcDatetime


class RunOut(Out):
    """A procedure of a case, at the version that it began with."""

    procedure: str
    version: int
    title: Annotated[dict[str, str], Field(description="By language.")]
    started_at: UtcDatetime
    ended_at: UtcDatetime | None = None


class TaskOut(Out):
    """Something that a human has to do by when. A deadline that passed ends nothing: somebody still owes it."""

    id: UUID
    case_id: UUID
    district: str
    household_id: str | None = None
    test: bool
    procedure: str
    version: int
    name: Annotated[str, Field(description="Its name within the procedure.")]
    title: Annotated[dict[str, str], Field(description="What to do, by language.")]
    clause: Annotated[str, Field(description="What asks for it.")] = ""
    results: Annotated[list[str], Field(description="What it may end with.")]
    seat: SeatName
    owner: Annotated[str | None, Field(description="Who sits at that seat now.")] = None
    state: TaskState
    planned_at: Annotated[UtcDatetime, Field(description="When it should have begun.")]
    started_at: UtcDatetime | None = None
    due_at: UtcDatetime | None = None
    breached_at: Annotated[UtcDatetime | None, Field(description="When it was seen to be late.")] = None
    ended_at: UtcDatetime | None = None
    result: str | None = None
    by_whom: str | None = None


class CommandOut(Out):
    """What a terminal was asked to do, and how far it is."""

    id: str
    case_id: UUID | None = None
    terminal_id: str
    name: str
    arguments: dict[str, str | int | float | bool]
    state: Annotated[
        Literal["due", "sent", "accepted", "done", "failed", "refused", "expired"],
        Field(description="sent is not done: only the terminal's answer ends it."),
    ]
    queued_at: UtcDatetime
    expires_at: UtcDatetime
    answered_at: UtcDatetime | None = None
    detail: str | None = None


class ProgressOut(Out):
    """What the person on the floor was told of the help that comes."""

    state: Literal["told", "coming", "arrived", "closed"]
    role: str | None = None
    minutes: Annotated[int | None, Field(json_schema_extra={"unit": "min"})] = None
    queued_at: UtcDatetime


class EmergencyOut(Out):
    """The emergency that a request became."""

    case_id: UUID
    previous: Annotated[UUID, Field(description="The case that it was before.")]
