"""The REST contract: the rescue report (救援报告) of a case (R11, R14)."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from schemas.notices import AddressCard, AnswerKind, Location
from schemas.proof import ProofOut
from schemas.units import UtcDatetime

__all__ = [
    "ReportAnswer",
    "ReportDisclosure",
    "ReportFact",
    "ReportLine",
    "ReportOut",
    "ReportParty",
    "ReportPerson",
    "ReportPress",
    "ReportTask",
    "ReportTimes",
]

_AFTER = "Seconds after the gateway received the first press."


class _Out(BaseModel):
    model_config = ConfigDict(frozen=True, from_attributes=True)


Seconds = Annotated[float, Field(description=_AFTER, json_schema_extra={"unit": "s"})]


class ReportPerson(_Out):
    """A protected person; what ails them is not in a report."""

    name: str
    age: int | None = None
    phone: str | None = None


class ReportPress(_Out):
    """One press."""

    terminal: str | None = None
    transport: str
    kinds: list[str]
    test: bool
    pressed_at: Annotated[UtcDatetime | None, Field(description="The terminal's word, which may be wrong.")] = None
    received_at: UtcDatetime
    stored_at: UtcDatetime
    battery_pct: int | None = None
    repeats: Annotated[int, Field(description="How often the terminal sent it again.")]


class ReportAnswer(_Out):
    """What a party answered."""

    answer: AnswerKind
    minutes: int | None = None
    reason: str | None = None
    by: str | None = None
    via: str
    at: UtcDatetime
    after_s: Seconds


class ReportParty(_Out):
    """One party: when it was addressed and told, over which channel, and what it answered."""

    role: str
    party: str | None = None
    name: str | None = None
    phone: str | None = None
    origin: str
    state: str
    problem: str | None = None
    privacy: Annotated[str, Field(description="How much its role may know.")]
    addressed_at: Annotated[UtcDatetime | None, Field(description="When the first try began.")] = None
    told_at: Annotated[UtcDatetime | None, Field(description="When a channel first took a message.")] = None
    told_after_s: Seconds | None = None
    channel: str | None = None
    tries: int
    answers: list[ReportAnswer]


class ReportFact(_Out):
    """Something known of the rescue."""

    fact: str
    role: Annotated[str, Field(description="Whom it is about.")]
    by: Annotated[str, Field(description="Who said so.")]
    at: UtcDatetime
    after_s: Seconds


class ReportTask(_Out):
    """A step of a procedure."""

    procedure: str
    step: str
    title: str
    does: str
    clause: str | None = None
    seat: str | None = None
    aftercare: Annotated[bool, Field(description="It outlives the closure: follow-up, report.")]
    state: str
    planned_at: UtcDatetime
    started_at: UtcDatetime | None = None
    due_at: UtcDatetime | None = None
    breached_at: UtcDatetime | None = None
    ended_at: UtcDatetime | None = None
    result: str | None = None
    by: str | None = None


class ReportLine(_Out):
    """One line of the timeline, in the language of the report."""

    at: UtcDatetime
    after_s: Seconds
    kind: str
    text: str


class ReportDisclosure(_Out):
    """Who saw personal data of the case, beside the parties that were told."""

    who: str
    what: Literal["case", "answer_page", "report", "work_order"]
    privacy: str
    at: UtcDatetime


class ReportTimes(_Out):
    """How long the steps of the rescue took; null: it did not happen."""

    stored_s: Seconds | None = None
    parties: Annotated[int, Field(description="Parties addressed by the first press.")]
    spread_s: Annotated[
        float | None,
        Field(description="Between the first and the last of them being addressed.", json_schema_extra={"unit": "s"}),
    ] = None
    told: Annotated[int, Field(description="How many of them were reached.")]
    told_s: Annotated[float | None, Field(description="Until the last of those that were reached had it.")] = None
    owned_s: Seconds | None = None
    answered_s: Seconds | None = None
    on_scene_s: Seconds | None = None
    safe_s: Seconds | None = None
    closed_s: Seconds | None = None


class ReportOut(_Out):
    """The report of a case: what happened when, who was told and what they did, and how to prove it."""

    language: Literal["zh", "en"]
    made_at: UtcDatetime
    timezone: str
    case: UUID
    case_class: str
    state: str
    test: bool
    kinds: list[str]
    urgency: int
    site: str
    district: str
    household: str | None = None
    terminal: str | None = None
    previous: UUID | None = None
    plans: list[str]
    problem: str | None = None
    erased: Annotated[bool, Field(description="Somebody was erased: what was sealed of them cannot be read any more.")]
    persons: list[ReportPerson]
    address: AddressCard | None = None
    location: Annotated[
        Location | None, Field(description="The last position of the case; age_s is its age at the first press.")
    ] = None
    received_at: UtcDatetime
    opened_at: UtcDatetime
    owner: str | None = None
    first_owner: str | None = None
    owned_at: UtcDatetime | None = None
    safe_at: UtcDatetime | None = None
    safe_by: str | None = None
    closed_at: UtcDatetime | None = None
    closed_by: str | None = None
    outcome: str | None = None
    note: str | None = None
    times: ReportTimes
    timeline: list[ReportLine]
    presses: list[ReportPress]
    parties: list[ReportParty]
    facts: list[ReportFact]
    tasks: list[ReportTask]
    disclosures: list[ReportDisclosure]
    proof: ProofOut
