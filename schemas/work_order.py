"""The contract of work orders (工单, DB3201/T 1033-2021, appendix C), of their inspection, and of operators' names."""

import re
from datetime import date
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, model_validator

from schemas.rest import Out, Who
from schemas.units import PublicId, Text, UtcDatetime

__all__ = [
    "ComplaintFields",
    "InspectionIn",
    "InspectionLineOut",
    "InspectionOut",
    "JudgementIn",
    "JudgementOut",
    "NeedsFields",
    "OfferedInstitution",
    "OperatorIn",
    "OperatorOut",
    "OrderKind",
    "OrderLineOut",
    "OrderOut",
    "OrderPatch",
    "OrderStepOut",
    "PersonFields",
    "RatingIn",
    "RatingName",
    "ReferralFields",
    "StepResultIn",
    "WorkOrderIn",
]

OrderKind = Literal["emergency_rescue", "public_service_query", "referral", "complaint", "institution_query"]
RatingName = Literal["very_dissatisfied", "dissatisfied", "fair", "satisfied", "very_satisfied"]

_ORDER = "3c0f9a52-7a51-5d1c-9d3a-64b5f4f0c2aa"
_CASE = "0b0f3f0c-6a52-5f0e-8a55-3f1f0a6f2d11"

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def _printable(value: str) -> str:
    return _CONTROL.sub(" ", value.replace("\r\n", "\n"))


FreeText = Annotated[str, Field(min_length=1, max_length=4000), AfterValidator(_printable)]
Record = Annotated[str, Field(min_length=1, max_length=20_000), AfterValidator(_printable)]
Short = Annotated[Text, Field(min_length=1, max_length=200)]
Phone = Annotated[Text, Field(min_length=1, max_length=40)]


class _Fields(BaseModel):
    """Fields that an operator fills in, each when it is known. Null takes a field away."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PersonFields(_Fields):
    """The person served (服务老人)."""

    name: Short | None = None
    age: Annotated[int | None, Field(ge=0, le=130, description="In full years.")] = None
    phone: Phone | None = None


class NeedsFields(_Fields):
    """What has to be recorded of whoever is referred (6.1.4.1)."""

    family: Annotated[FreeText | None, Field(description="Family, and how the children stand.")] = None
    income: FreeText | None = None
    health: Annotated[FreeText | None, Field(description="Health and medical history.")] = None
    address: FreeText | None = None
    contacts: Annotated[FreeText | None, Field(description="Phones of the person and the guardian.")] = None
    demand: Annotated[FreeText | None, Field(description="The service that is asked for.")] = None
    reasons: Annotated[FreeText | None, Field(description="The main problem, and why to refer.")] = None


class OfferedInstitution(_Fields):
    """An institution that was offered, with what the person is to be told of it (6.1.4.4)."""

    name: Short
    nature: Annotated[Short | None, Field(description="Public, private, run by whom.")] = None
    charges: Short | None = None
    address: Short | None = None
    phone: Phone | None = None


class ReferralFields(_Fields):
    """A referral (资源转介) and how it went on."""

    needs: NeedsFields | None = None
    offered: Annotated[
        list[OfferedInstitution] | None,
        Field(max_length=10, description="Two or three, where there are so many (6.1.4.5)."),
    ] = None
    outcome: Annotated[
        Literal["placed", "chose_another", "declined", "not_eligible", "unreachable", "other"] | None,
        Field(description="How it ended, once that is known (6.1.4.6)."),
    ] = None
    note: FreeText | None = None


class ComplaintFields(_Fields):
    """A complaint (投诉) and what became of it."""

    about: Annotated[FreeText | None, Field(description="What is complained of, as verified.")] = None
    forwarded_to: Annotated[Short | None, Field(description="Which authority or institution has to settle it.")] = None
    result: Annotated[FreeText | None, Field(description="What was settled, as told to whoever complained.")] = None


class _Content(_Fields):
    number: Annotated[Phone | None, Field(description="The calling number.")] = None
    operator_name: Annotated[Short | None, Field(description="Null: the name known for the seat.")] = None
    person: PersonFields | None = None
    institution: Annotated[Short | None, Field(description="Name of the institution that asks.")] = None
    record: Annotated[
        Record | None,
        Field(description="The processing record. Of a case: null lets the journal write it again."),
    ] = None
    referral: ReferralFields | None = None
    complaint: ComplaintFields | None = None


class WorkOrderIn(_Content):
    """The work order of a call that came without a terminal. Fields that are not known yet can follow."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "call": "pbx-20261122-0417",
                    "kind": "complaint",
                    "operator": "seat-7",
                    "number": "02500000031",
                    "person": {"name": "周桂芳", "age": 78, "phone": "02500000031"},
                    "record": "来电反映助餐点送餐连续三天迟到，已核实。",
                    "complaint": {"about": "助餐送餐迟到", "forwarded_to": "梅园居家养老服务中心"},
                }
            ]
        }
    )

    call: Annotated[
        Text,
        Field(
            min_length=1,
            max_length=100,
            description="Name of the call at your telephone system: the same call and kind is the same work order.",
        ),
    ]
    kind: OrderKind
    operator: Annotated[Who, Field(description="Seat number of who took the call.")]
    called_at: Annotated[UtcDatetime | None, Field(description="When it came in; null: now.")] = None
    reply_needed: Annotated[bool | None, Field(description="For queries; everything else always needs a reply.")] = None
    case: Annotated[UUID | None, Field(description="The case that it is about, as a complaint may be.")] = None
    person_id: Annotated[
        PublicId | None,
        Field(description="A person of the directory: name, age and phone come from there, and go with an erasure."),
    ] = None
    site: Annotated[PublicId | None, Field(description="Needed where several sites are set up.")] = None
    district: Annotated[PublicId | None, Field(description="Null: that of the case or of the site.")] = None

    @model_validator(mode="after")
    def _fits(self) -> "WorkOrderIn":
        if self.reply_needed is False and self.kind in ("emergency_rescue", "referral", "complaint"):
            raise ValueError(f"{self.kind} always needs a reply")
        if self.kind == "institution_query" and (self.person is not None or self.person_id is not None):
            raise ValueError("institution_query is asked by an institution, not by a person")
        return self


class OrderPatch(_Content):
    """A change. What is left out stays; null takes a field away; objects are merged, lists are replaced (RFC 7396)."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"version": 3, "by": "seat-7", "person": {"age": 85}, "completed": True},
                {"version": 2, "referral": {"outcome": "placed"}},
            ]
        }
    )

    version: Annotated[int, Field(ge=1, description="The version that you saw: refused with 409 if it is no longer.")]
    by: Annotated[Who | None, Field(description="Who changes it; null: its operator.")] = None
    kind: OrderKind | None = None
    operator: Annotated[Who | None, Field(description="Seat number.")] = None
    reply_needed: bool | None = None
    replied: Annotated[bool | None, Field(description="The reply that was needed was given.")] = None
    completed: Annotated[bool | None, Field(description="Nothing more is to follow; false opens it again.")] = None


class RatingIn(_Fields):
    """How satisfied the client is (客户评价). The top three steps count as satisfied."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"rating": "very_satisfied", "asked_by": "seat-7"}]})

    rating: Annotated[RatingName | None, Field(description="Null: they were asked, and gave none.")] = None
    asked_by: Annotated[Who, Field(description="Who asked.")]
    comment: FreeText | None = None


class JudgementIn(_Fields):
    """What an inspector found by comparing the work order with what was."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"accurate": False, "inspector": "chief-1", "remarks": "处理记录与录音不符。"}]}
    )

    accurate: bool
    inspector: Who
    remarks: FreeText | None = None


class StepResultIn(_Fields):
    """How a step of a complaint ended."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"result": "dissatisfied", "by": "seat-7"}]})

    result: Annotated[
        str,
        Field(
            pattern="^[a-z_]{1,40}$", description="forward: done; settle: satisfied or dissatisfied; escalate: done."
        ),
    ]
    by: Who
    note: FreeText | None = None


class InspectionIn(_Fields):
    """Draw a sample. The same question gives the sample that was drawn for it."""

    model_config = ConfigDict(
        populate_by_name=True,
        json_schema_extra={
            "examples": [
                {"from": "2026-11-01", "to": "2026-11-30", "per_operator": 5, "seed": "2026-11", "by": "chief-1"}
            ]
        },
    )

    first: Annotated[date | None, Field(alias="from", description="First day; null: 30 days.")] = None
    last: Annotated[date | None, Field(alias="to", description="Last day, included; null: today.")] = None
    per_operator: Annotated[int, Field(ge=1, le=1000, description="So many of each operator.")]
    seed: Annotated[
        Text, Field(min_length=1, max_length=100, description="Any text: the same one draws the same sample again.")
    ]
    by: Who
    operator: Annotated[Who | None, Field(description="Only of this one.")] = None
    district: Annotated[PublicId | None, Field(description="Only of this one.")] = None
    site: Annotated[PublicId | None, Field(description="Needed where several sites are set up.")] = None


class OperatorIn(_Fields):
    """Who works at a seat."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "陈晓"}]})

    name: Short
    site: Annotated[PublicId | None, Field(description="Needed where several sites are set up.")] = None


# What clients receive


_LINE: dict[str, JsonValue] = {
    "id": _ORDER,
    "kind": "emergency_rescue",
    "case_id": _CASE,
    "district": "320102",
    "operator": "seat-7",
    "called_at": "2026-11-22T06:31:05.120000Z",
    "reply_needed": True,
    "rating": "very_satisfied",
    "missing": [],
    "accurate": None,
    "version": 4,
    "completed_at": "2026-11-23T02:10:44.812000Z",
    "due_at": None,
}


class OrderLineOut(Out):
    """A work order as lists show it: nothing personal."""

    model_config = ConfigDict(json_schema_extra={"examples": [_LINE]})

    id: UUID
    kind: OrderKind
    case_id: UUID | None = None
    district: str
    operator: Annotated[str | None, Field(description="Seat number; null: nobody took it.")] = None
    called_at: UtcDatetime
    reply_needed: Annotated[bool | None, Field(description="Null: nobody said yet.")] = None
    rating: RatingName | None = None
    missing: Annotated[list[str], Field(description="Required fields that are not filled, as paths.")]
    accurate: Annotated[bool | None, Field(description="The newest judgement of an inspector, if there is one.")] = None
    version: int
    completed_at: UtcDatetime | None = None
    due_at: Annotated[
        UtcDatetime | None, Field(description="Next deadline of its complaint, or of the tasks of its case.")
    ] = None


class OrderStepOut(Out):
    """A step of a complaint. It is late when ``due_at`` is over, and ``breached_at`` tells when that was noticed."""

    name: str
    seat: Annotated[str | None, Field(description="first: whoever took the call; supervisor.")] = None
    state: Literal["open", "done", "skipped", "cancelled"]
    due_at: UtcDatetime | None = None
    breached_at: UtcDatetime | None = None
    ended_at: UtcDatetime | None = None
    result: str | None = None
    by_whom: str | None = None
    note: str | None = None


class JudgementOut(Out):
    """What an inspector found."""

    version: Annotated[int, Field(description="Of the work order that was judged.")]
    accurate: bool
    inspector: str
    remarks: str | None = None
    at: UtcDatetime


class OrderOut(OrderLineOut):
    """A whole work order."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    **_LINE,
                    "erased": False,
                    "number": "+8614400000001",
                    "operator_name": "陈晓",
                    "person": {"name": "王秀兰", "age": 85, "phone": "+8613900000001"},
                    "record": "2026-11-22 14:31:05 收到报警：紧急呼叫（终端 860000000000001）\n14:31:11 seat-7 接警",
                    "record_edited": False,
                    "rating_asked_by": "seat-7",
                    "rating_asked_at": "2026-11-23T02:09:00Z",
                    "satisfied": True,
                    "steps": [],
                    "judgements": [],
                    "timezone": "Asia/Shanghai",
                    "created_at": "2026-11-22T06:31:11.410000Z",
                    "updated_at": "2026-11-23T02:10:44.812000Z",
                    "completed_by": "seat-7",
                }
            ]
        }
    )

    erased: Annotated[bool, Field(description="What it said was erased; the counts remain.")] = False
    number: str | None = None
    operator_name: str | None = None
    person: PersonFields | None = None
    institution: str | None = None
    record: str | None = None
    record_edited: Annotated[bool, Field(description="False: the journal of the case writes it.")] = False
    referral: ReferralFields | None = None
    complaint: ComplaintFields | None = None
    replied_at: UtcDatetime | None = None
    rating_asked_by: str | None = None
    rating_asked_at: UtcDatetime | None = None
    rating_comment: str | None = None
    satisfied: bool | None = None
    steps: list[OrderStepOut]
    judgements: list[JudgementOut]
    timezone: str
    created_at: UtcDatetime
    updated_at: UtcDatetime
    completed_by: str | None = None


class InspectionLineOut(Out):
    """A work order of a sample."""

    work_order: UUID
    operator: str | None = None
    kind: OrderKind
    called_at: UtcDatetime
    accurate: Annotated[bool | None, Field(description="Null: not judged yet.")] = None


class InspectionOut(Out):
    """A sample, and what was found in it so far."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "9f1f6a0e-2f5e-5c0f-9f0a-0a8e3f5b7c21",
                    "seed": "2026-11",
                    "first_day": "2026-11-01",
                    "last_day": "2026-11-30",
                    "per_operator": 5,
                    "drawn_by": "chief-1",
                    "drawn_at": "2026-12-01T01:00:00Z",
                    "judged": 1,
                    "accurate": 1,
                    "items": [
                        {
                            "work_order": _ORDER,
                            "operator": "seat-7",
                            "kind": "emergency_rescue",
                            "called_at": "2026-11-22T06:31:05.120000Z",
                            "accurate": True,
                        }
                    ],
                }
            ]
        }
    )

    id: UUID
    seed: str
    first_day: date
    last_day: date
    district: str | None = None
    operator: str | None = None
    per_operator: int
    drawn_by: str
    drawn_at: UtcDatetime
    judged: int
    accurate: int
    items: list[InspectionLineOut]


class OperatorOut(Out):
    """Who works at a seat."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"id": "seat-7", "site": "nanjing-demo", "name": "陈晓"}]}
    )

    id: str
    site: str
    name: str | None = None
