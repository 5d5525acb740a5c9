"""The REST contract: cases and what people do with them, the directory, the quarantine, problems.

What clients send is checked strictly, so that a misspelt field is refused and not ignored. What they receive
may grow: ignore fields that you do not know.
"""

from datetime import date
from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from schemas.desk import CommandOut, FactOut, ProgressOut, RunOut, TaskOut
from schemas.notices import AnswerKind, Location
from schemas.rest import FreeText, In, Out, Who
from schemas.units import PublicId, Text, Urgency, UtcDatetime

__all__ = [
    "AcknowledgeIn",
    "AddressOut",
    "AlarmOut",
    "AnswerIn",
    "AnswerOut",
    "AnsweredOut",
    "AttemptOut",
    "CaseClass",
    "CaseHeadOut",
    "CaseLineOut",
    "CaseOut",
    "CaseState",
    "ClosureIn",
    "FalseAlarmReason",
    "Health",
    "HouseholdOut",
    "JournalOut",
    "LegOut",
    "NoticeOut",
    "OutcomeName",
    "Page",
    "PartyOut",
    "PersonOut",
    "Problem",
    "ProblemField",
    "QuarantineLineOut",
    "QuarantineOut",
    "ReplayOut",
    "SafetyIn",
    "TerminalOut",
    "TestWindowIn",
    "TestWindowOut",
    "TimelineOut",
]

T = TypeVar("T")

CaseClass = Literal["emergency", "service", "technical", "test"]
CaseState = Literal["open", "safe", "closed"]
LegState = Literal["pending", "delivered", "answered", "refused", "failed", "withdrawn", "skipped"]
OutcomeName = Literal[
    "helped", "hospital", "false_alarm", "test", "technical_fixed", "service_done", "duplicate", "other"
]
FalseAlarmReason = Literal["accidental", "child", "device_fault", "test_unannounced", "pet", "unknown", "other"]

_CASE = "0b0f3f0c-6a52-5f0e-8a55-3f1f0a6f2d11"
_LEG = "6f1f6a0e-2f5e-5c0f-9f0a-0a8e3f5b7c21"

_SEEN = "What you saw of it: refused with 409 when the person has pressed again since; null does not ask."

# What clients send


class AcknowledgeIn(In):
    """Own a case: the first operator stays responsible to the end (R17)."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"operator": "seat-7"}]})

    operator: Annotated[Who, Field(description="Seat or staff number of the operator.")]


class SafetyIn(In):
    """Somebody confirmed that the person is safe: the next press opens a new case."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"by": "guardian"}]})

    by: Annotated[Who, Field(description="Who confirmed it: a role, the id of a party, or a seat number.")]
    urgency: Annotated[int | None, Field(ge=1, description=_SEEN)] = None


class ClosureIn(In):
    """Close a case. An emergency needs somebody who confirmed safety, here or earlier."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "operator": "seat-7",
                    "outcome": "hospital",
                    "confirmed_by": "ambulance_120",
                    "note": "送至鼓楼医院急诊，女儿陪同。",
                },
                {"operator": "seat-7", "outcome": "false_alarm", "reason": "accidental", "confirmed_by": "guardian"},
            ]
        }
    )

    outcome: Annotated[OutcomeName, Field(description="How it ended.")]
    confirmed_by: Annotated[
        Who | None, Field(description="Who confirmed that the person is safe; null when that is on record already.")
    ] = None
    note: Annotated[FreeText | None, Field(description="For the record; kept encrypted in the journal only.")] = None
    reason: Annotated[
        FalseAlarmReason | None,
        Field(description="Why an alarm was false. A note alone counts as other, and other wants a note."),
    ] = None
    operator: Annotated[Who | None, Field(description="Who closes it; null: whoever owns it.")] = None
    urgency: Annotated[int | None, Field(ge=1, description=_SEEN)] = None


class AnswerIn(In):
    """What a party answers. ``cannot`` is a refusal and wants a reason; a later answer replaces an earlier one."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"answer": "coming", "minutes": 6, "by": "女儿"},
                {"answer": "cannot", "reason": "人在外地"},
            ]
        }
    )

    answer: Annotated[
        AnswerKind, Field(description="accepted: a platform took the case over; the others: a human's word.")
    ]
    reason: Annotated[str | None, Field(max_length=500, description="Why, for cannot.")] = None
    minutes: Annotated[
        int | None, Field(ge=0, le=1440, description="Until arrival.", json_schema_extra={"unit": "min"})
    ] = None
    by: Annotated[str | None, Field(max_length=100, description="Who answers.")] = None
    number: Annotated[
        int | None,
        Field(
            ge=1, description="Number of the message that is answered; one that came before a new press ends nothing."
        ),
    ] = None


class TestWindowIn(In):
    """Believe the test flag of a terminal for a while. A press without the flag stays real all the same."""

    __test__ = False
    model_config = ConfigDict(json_schema_extra={"examples": [{"minutes": 15, "reason": "installation"}]})

    minutes: Annotated[int, Field(ge=1, le=1440, description="From now on.", json_schema_extra={"unit": "min"})]
    reason: Annotated[Text, Field(min_length=1, max_length=200, description="Why, for the record.")]


# Cases


class Page(Out, Generic[T]):
    """Part of a list."""

    items: list[T]
    cursor: Annotated[str | None, Field(description="Ask with it for the next part. Null: this is the end.")] = None


_HEAD: dict[str, JsonValue] = {
    "id": _CASE,
    "case_class": "emergency",
    "state": "open",
    "district": "320102",
    "household_id": "wang-501",
    "terminal_id": "860000000000001",
    "kinds": ["sos"],
    "urgency": 1,
    "test": False,
    "received_at": "2026-11-22T06:31:05.120000Z",
    "opened_at": "2026-11-22T06:31:05.123000Z",
    "owner": "seat-7",
    "owned_at": "2026-11-22T06:31:11.402000Z",
    "safe_at": None,
    "closed_at": None,
    "outcome": None,
}


class CaseHeadOut(Out):
    """A case without what belongs to it."""

    model_config = ConfigDict(json_schema_extra={"examples": [_HEAD]})

    id: UUID
    case_class: CaseClass
    state: CaseState
    district: str
    household_id: str | None = None
    terminal_id: str | None = None
    kinds: Annotated[list[str], Field(description="Everything that was reported, the first press first.")]
    urgency: Urgency
    test: Annotated[bool, Field(description="A drill or test inside a window that the gateway opened.")]
    drill_id: Annotated[UUID | None, Field(description="The drill that it belongs to.")] = None
    received_at: Annotated[UtcDatetime, Field(description="When the first press reached the gateway.")]
    opened_at: UtcDatetime
    owner: Annotated[str | None, Field(description="Who is responsible to the end.")] = None
    owned_at: UtcDatetime | None = None
    safe_at: UtcDatetime | None = None
    closed_at: UtcDatetime | None = None
    outcome: OutcomeName | None = None


class CaseLineOut(CaseHeadOut):
    """A case as lists show it."""

    model_config = ConfigDict(json_schema_extra={"examples": [_HEAD | {"legs": {"delivered": 5, "answered": 1}}]})

    legs: Annotated[dict[LegState, int], Field(description="Legs by state.")]


class AlarmOut(Out):
    """One press."""

    id: UUID
    terminal_id: str | None = None
    transport: Annotated[str, Field(description="How it came: mqtt, sms, tcp …")]
    kinds: list[str]
    test: bool
    drill_id: Annotated[UUID | None, Field(description="The drill that it belongs to.")] = None
    pressed_at: Annotated[UtcDatetime | None, Field(description="The terminal's word, which may be wrong.")] = None
    received_at: Annotated[UtcDatetime, Field(description="When it reached the gateway.")]
    stored_at: UtcDatetime
    boot: int | None = None
    seq: int | None = None
    fix: Annotated[dict[str, Any] | None, Field(description="The position it carried.")] = None
    battery_pct: int | None = None
    signal_dbm: int | None = None
    problems: Annotated[list[str], Field(description="What the gateway could not read of it.")]
    repeats: Annotated[int, Field(description="How often the terminal sent it again.")]
    repeated_at: UtcDatetime | None = None


class AttemptOut(Out):
    """One try to deliver a notice."""

    channel: str
    started_at: UtcDatetime
    answered_at: UtcDatetime
    outcome: Literal["sent", "try_again", "give_up"]
    status: Annotated[int | None, Field(description="HTTP status, where there is one.")] = None
    detail: str | None = None


class NoticeOut(Out):
    """One message to one party, with every try."""

    id: Annotated[str, Field(description="The idempotency key that the party sees as webhook-id.")]
    number: int
    reason: Literal[
        "alarm",
        "fallback",
        "procedure",
        "stand_in",
        "unanswered",
        "pressed_again",
        "cancelled",
        "location",
        "withdrawn",
        "closed",
    ]
    state: Literal["due", "sent", "failed", "cancelled"]
    tries: Annotated[int, Field(description="Failed tries on the channel in use.")]
    queued_at: UtcDatetime
    due_at: UtcDatetime
    ended_at: UtcDatetime | None = None
    attempts: list[AttemptOut]


class AnswerOut(Out):
    """What a party answered."""

    answer: AnswerKind
    reason: str | None = None
    minutes: int | None = None
    by: str | None = None
    via: Annotated[str, Field(description="webhook, mqtt, link, or api with the id of the key.")]
    at: UtcDatetime


class LegOut(Out):
    """The obligation to reach one party, with all that happened on it."""

    id: UUID
    role: str
    party: str | None = None
    name: Annotated[str | None, Field(description="Name of the party; null when it is no longer in the directory.")] = (
        None
    )
    phone: str | None = None
    origin: Literal["plan", "fallback", "procedure", "stand_in"]
    state: LegState
    problem: str | None = None
    calls: Annotated[int, Field(description="Calls since the newest press, this one included.")] = 1
    overdue_at: Annotated[UtcDatetime | None, Field(description="Nobody answered by the deadline of the plan.")] = None
    instead_of: Annotated[str | None, Field(description="The role for which this party stepped in.")] = None
    created_at: UtcDatetime
    delivered_at: UtcDatetime | None = None
    ended_at: UtcDatetime | None = None
    notices: list[NoticeOut]
    answers: list[AnswerOut]


class AddressOut(Out):
    """A registered address (R6)."""

    text: Annotated[str, Field(description="In one line, as it is spoken.")]
    district: str = ""
    street: str = ""
    community: str = ""
    compound: str = ""
    building: str = ""
    unit: str = ""
    floor: str = ""
    room: str = ""
    landmark: str | None = None
    approach: Annotated[str | None, Field(description="How rescuers get in.")] = None
    lat: float | None = None
    lon: float | None = None
    datum: str = "wgs84"


class PersonOut(Out):
    """A protected person (R5)."""

    id: PublicId
    household_id: str | None = None
    district: str | None = None
    active: bool = True
    erased: Annotated[bool, Field(description="The record was erased for good.")] = False
    name: str | None = None
    born: date | None = None
    age: int | None = None
    phone: str | None = None
    health: dict[str, Any] = Field(default_factory=dict)


class TimelineOut(Out):
    """One entry of the journal. ``data`` is null when the person was erased."""

    n: int
    at: UtcDatetime
    kind: str
    actor: str
    data: dict[str, Any] | None = None
    erased: bool = False


class JournalOut(Out):
    """How the chain of the journal stands."""

    entries: int
    head: Annotated[str, Field(description="SHA-256 of the newest entry, in hex.")]
    intact: bool
    problem: Annotated[str | None, Field(description="Where the chain breaks, if it does.")] = None


class CaseOut(CaseHeadOut):
    """A whole case."""

    model_config = ConfigDict(json_schema_extra={})

    pressed_at: UtcDatetime | None = None
    location: Location | None = None
    maps: Annotated[dict[str, str], Field(description="Links by map: amap, baidu, tencent, geo.")] = Field(
        default_factory=dict
    )
    problem: str | None = None
    plans: Annotated[list[str], Field(description="Plans it began with, id@version.")] = Field(default_factory=list)
    first_owner: Annotated[
        str | None, Field(description="The first operator, who follows it up (R11); see owner for now.")
    ] = None
    seat_b: Annotated[str | None, Field(description="Who stays with the person (R13).")] = None
    restored: Annotated[list[str], Field(description="Technical kinds that are over.")] = Field(default_factory=list)
    facts: Annotated[list[FactOut], Field(description="What is known of the rescue, by role.")] = Field(
        default_factory=list
    )
    procedures: list[RunOut] = Field(default_factory=list)
    tasks: Annotated[list[TaskOut], Field(description="What people owe or did, by deadline.")] = Field(
        default_factory=list
    )
    commands: Annotated[list[CommandOut], Field(description="What terminals were asked to do.")] = Field(
        default_factory=list
    )
    progress: Annotated[list[ProgressOut], Field(description="What the person was told at the terminal.")] = Field(
        default_factory=list
    )
    safe_by: str | None = None
    closed_by: str | None = None
    previous: Annotated[UUID | None, Field(description="The case before it of the same household.")] = None
    timezone: str
    address: AddressOut | None = None
    persons: list[PersonOut] = Field(default_factory=list)
    alarms: list[AlarmOut] = Field(default_factory=list)
    legs: Annotated[list[LegOut], Field(description="Every obligation to tell somebody, one per party.")] = Field(
        default_factory=list
    )
    timeline: list[TimelineOut] = Field(default_factory=list)
    journal: JournalOut


class AnsweredOut(Out):
    """What an answer did."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"case_id": _CASE, "leg_id": _LEG, "state": "answered", "case_state": "open", "counted": True}]
        }
    )

    case_id: UUID
    leg_id: UUID
    state: LegState
    case_state: CaseState
    counted: Annotated[
        bool,
        Field(description="False: it came too late, the leg or the case was over or a new press needs a new answer."),
    ]


# The directory


class PartyOut(Out):
    """Somebody who is told."""

    id: PublicId
    role: str
    district: str
    active: bool
    name: str | None = None
    phone: str | None = None
    channels: Annotated[list[str], Field(description="Kinds of its channels, in the order in which they are tried.")]


class HouseholdOut(Out):
    """One address with who and what belongs to it, by id."""

    id: PublicId
    district: str
    active: bool
    address: AddressOut | None = None
    persons: list[str]
    parties: list[str]
    terminals: list[str]


class TerminalOut(Out):
    """A terminal with its newest state; everything behind ``test_until`` is null before the first report."""

    id: PublicId
    district: str
    model: str
    active: bool
    household_id: str | None = None
    test_until: Annotated[UtcDatetime | None, Field(description="Until when its test flag is believed.")] = None
    seen_at: Annotated[UtcDatetime | None, Field(description="When anything last came from it.")] = None
    boot: int | None = None
    seq: int | None = None
    battery_pct: int | None = None
    signal_dbm: int | None = None
    mains: bool | None = None
    firmware: str | None = None
    status_at: UtcDatetime | None = None
    fix: dict[str, Any] | None = None
    fix_at: UtcDatetime | None = None
    clock_skew_s: Annotated[
        float | None, Field(description="By how much its clock is ahead of ours.", json_schema_extra={"unit": "s"})
    ] = None
    state: Annotated[
        Literal["never_seen", "online", "late", "offline", "back"] | None,
        Field(description="back: heard again after a loss, not yet for as long as it may be silent."),
    ] = None
    state_since: UtcDatetime | None = None
    battery_days: Annotated[
        float | None, Field(description="Forecast: days until the battery is empty.", json_schema_extra={"unit": "d"})
    ] = None
    troubles: Annotated[list[str], Field(description="What is wrong with it now, see /v1/troubles.")] = Field(
        default_factory=list
    )


class TestWindowOut(Out):
    """A test window that is open now."""

    __test__ = False

    terminal: PublicId
    closes_at: UtcDatetime


# The quarantine


class QuarantineLineOut(Out):
    """A message that could not be read."""

    id: int
    received_at: UtcDatetime
    transport: str
    topic: str
    terminal_id: str | None = None
    district: str | None = None
    reason: Annotated[str, Field(description="What is wrong with it.")]
    size: Annotated[int, Field(description="Length of the payload.", json_schema_extra={"unit": "B"})]
    copies: Annotated[int, Field(description="How often the same bytes came.")]
    case_id: Annotated[UUID | None, Field(description="The case that was opened for it, for an alarm.")] = None
    state: Literal["kept", "replayed", "dismissed"]
    settled_at: UtcDatetime | None = None
    settled_by: str | None = None


class QuarantineOut(QuarantineLineOut):
    """The same with its bytes."""

    payload: Annotated[str, Field(description="All bytes, in base64.")]
    preview: Annotated[str, Field(description="The beginning as text, with everything unprintable escaped.")]


class ReplayOut(Out):
    """What a replay led to."""

    state: str
    case_id: UUID | None = None
    detail: str


# Health and problems


class Health(Out):
    """Whether the service is ready, and if not, why."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"ready": True, "reasons": []},
                {"ready": False, "reasons": ["no gateway hears alarms from the broker"]},
            ]
        }
    )

    ready: bool
    reasons: list[str]


class ProblemField(BaseModel):
    """One field that is wrong."""

    where: Annotated[str, Field(description="The field, as a path.")]
    what: Annotated[str, Field(description="What is wrong with it; never its value.")]


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:onekey:problem:not-found",
                    "title": "Not found",
                    "status": 404,
                    "detail": f"There is no case {_CASE}.",
                }
            ]
        }
    )

    type: Annotated[str, Field(description="Stable name of the kind of problem.")]
    title: Annotated[str, Field(description="The kind of problem in a few words.")]
    status: Annotated[int, Field(description="The HTTP status.")]
    detail: Annotated[str | None, Field(description="What went wrong this time, for a human.")] = None
    errors: Annotated[list[ProblemField] | None, Field(description="Every field that is wrong.")] = None
