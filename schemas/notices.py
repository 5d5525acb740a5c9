"""What the gateway sends to a party, and what the party may answer.

The body is that of a Standard Webhooks message: ``type``, ``timestamp``, ``data``. The header ``webhook-id``
is stable for one notice of one leg and repeated on every retry (I5). What ``data`` holds depends on the
role of the party: fields that its role may not know are absent (R22).
"""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from schemas.units import Datum, PublicId, Urgency, UtcDatetime

__all__ = ["Answer", "AnswerKind", "Location", "Notice", "NoticeData", "NoticeType", "PartyRef", "PersonCard"]

NoticeType = Literal["case.alert", "case.update", "case.withdrawn", "case.closed"]
AnswerKind = Literal["accepted", "coming", "arrived", "cannot"]


class _Out(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PartyRef(_Out):
    """To whom this message goes."""

    id: Annotated[PublicId, Field(description="Id of the party at the gateway.")]
    role: Annotated[str, Field(description="For example hotline, guardian, community, ambulance_120.")]
    name: Annotated[str | None, Field(description="What people call it.")] = None


class Location(_Out):
    """A place with its origin (D7): never a bare pair of numbers."""

    lat: Annotated[float, Field(description="Latitude, north is positive.", json_schema_extra={"unit": "°"})]
    lon: Annotated[float, Field(description="Longitude, east is positive.", json_schema_extra={"unit": "°"})]
    datum: Annotated[Datum, Field(description="Datum of lat and lon. Maps in China draw gcj02 or bd09.")]
    source: Annotated[
        Literal["gnss", "wifi", "cell", "manual", "registered"],
        Field(description="How it was found; registered: the place of the registered address."),
    ]
    accuracy_m: Annotated[
        float | None,
        Field(description="Radius that holds the true place in 68 % of cases.", json_schema_extra={"unit": "m"}),
    ] = None
    at: Annotated[UtcDatetime | None, Field(description="When it was measured; null for the registered address.")] = (
        None
    )
    age_s: Annotated[
        int | None, Field(description="How old it was when the message was made.", json_schema_extra={"unit": "s"})
    ] = None


class AddressCard(_Out):
    """The registered address (R6)."""

    text: Annotated[str, Field(description="From the district down to the room, in one line.")]
    landmark: Annotated[str | None, Field(description="What to look for near by.")] = None
    approach: Annotated[str | None, Field(description="How rescuers get in (R13).")] = None


class PersonCard(_Out):
    """A person of the household, as far as the role may know."""

    id: Annotated[str | None, Field(description="Id of the person at the gateway.")] = None
    name: Annotated[str | None, Field(description="Name, or surname and 老人 where the role may know no more.")] = None
    age: Annotated[int | None, Field(description="Full years.", json_schema_extra={"unit": "a"})] = None
    phone: Annotated[str | None, Field(description="How to call the person.")] = None
    health: Annotated[dict[str, object] | None, Field(description="Conditions, allergies, blood group … (R10).")] = None


class NoticeData(_Out):
    """The state of the case when the message was made."""

    case: Annotated[UUID, Field(description="The emergency; the same in every message about it.")]
    leg: Annotated[UUID, Field(description="Your obligation in this case; answers go to it.")]
    number: Annotated[int, Field(ge=1, description="Counts the notices of this leg: 1 is the alert.")]
    test: Annotated[bool, Field(description="True: a drill or test press. Nobody is in need.")]
    drill: Annotated[
        UUID | None, Field(description="The drill that it belongs to; null: a test, or the real thing.")
    ] = None
    reason: Annotated[
        Literal[
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
        ],
        Field(
            description="Why this was sent. stand_in: somebody before you could not be reached; unanswered: a further "
            "call, since nobody answered; cancelled: the person pressed the cancel key, decide what that means."
        ),
    ]
    party: Annotated[PartyRef, Field(description="You: the one to whom this message goes.")]
    district: Annotated[str, Field(description="District of the household.")]
    state: Annotated[
        Literal["open", "safe", "closed"], Field(description="safe: somebody saw to it that the person is safe.")
    ]
    kinds: Annotated[
        list[str], Field(description="All that was reported so far. Words you do not know are emergencies.")
    ]
    urgency: Urgency
    pressed_at: Annotated[
        UtcDatetime | None, Field(description="By the terminal's clock, which may be wrong. Null: it has none.")
    ] = None
    received_at: Annotated[UtcDatetime, Field(description="When the gateway had the first press, by its own clock.")]
    terminal: Annotated[str | None, Field(description="Id of the terminal.")] = None
    household: Annotated[str | None, Field(description="Id of the household.")] = None
    address: Annotated[AddressCard | None, Field(description="Where the terminal is registered.")] = None
    location: Annotated[Location | None, Field(description="The best position known now.")] = None
    maps: Annotated[dict[str, str], Field(description="Links by map: amap, baidu, tencent, geo.")] = Field(
        default_factory=dict
    )
    persons: Annotated[list[PersonCard], Field(description="Who lives there.")] = Field(default_factory=list)
    problem: Annotated[str | None, Field(description="What the gateway could not read or find out.")] = None
    outcome: Annotated[str | None, Field(description="How it ended, once it is closed.")] = None
    text: Annotated[str, Field(description="One sentence for a human, in the site's language.")]
    answer_url: Annotated[str | None, Field(description="Signed page where a human can answer from a phone.")] = None


class Notice(_Out):
    """What a party is told: the body of a webhook and the message on ``okp/v1/{party}/notice``.

    What ``data`` holds depends on the role of the party; what its role may not know is absent (R22). Ignore fields
    that you do not know.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "case.alert",
                    "timestamp": "2026-11-22T06:31:05.412Z",
                    "data": {
                        "case": "0b0f3f0c-6a52-5f0e-8a55-3f1f0a6f2d11",
                        "leg": "7d0a1c52-51b5-5d1c-9d3a-64b5f4f0c2aa",
                        "number": 1,
                        "test": False,
                        "reason": "alarm",
                        "party": {"id": "hotline-12349", "role": "hotline", "name": "养老服务热线"},
                        "district": "320102",
                        "state": "open",
                        "kinds": ["sos"],
                        "urgency": 1,
                        "pressed_at": "2026-11-22T06:31:05Z",
                        "received_at": "2026-11-22T06:31:05.398Z",
                        "terminal": "860000000000001",
                        "household": "wang-501",
                        "address": {
                            "text": "玄武区梅园新村街道大影壁社区示范小区3幢2单元5层501室",
                            "landmark": "小区北门对面是示范小学",
                            "approach": "从北门进，左转到底",
                        },
                        "location": {
                            "lat": 32.0611,
                            "lon": 118.7921,
                            "datum": "wgs84",
                            "source": "gnss",
                            "accuracy_m": 12,
                            "at": "2026-11-22T06:30:40Z",
                            "age_s": 25,
                        },
                        "persons": [
                            {
                                "id": "wang-xiulan",
                                "name": "王秀兰",
                                "age": 85,
                                "phone": "+8613900000001",
                                "health": {"conditions": ["高血压"], "allergies": ["青霉素"], "blood": "A+"},
                            }
                        ],
                        "text": "【求助】紧急呼叫：王秀兰（85岁），玄武区梅园新村街道大影壁社区示范小区3幢…",
                        "answer_url": "https://gateway.example/a/…",
                    },
                }
            ]
        }
    )

    type: Annotated[
        NoticeType, Field(description="case.alert: act; case.update: it changed; case.closed: no more is needed.")
    ]
    timestamp: Annotated[UtcDatetime, Field(description="When the message was made.")]
    data: Annotated[NoticeData, Field(description="The state of the case.")]


class Answer(BaseModel):
    """What a party may answer: in the body of its 2xx response, or by API.

    ``accepted`` is a platform's explicit acceptance, ``coming`` and ``arrived`` a human's word. ``cannot`` is a
    refusal and wants a reason. A 2xx without such a body only says *delivered* and ends nothing (I7).
    """

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        json_schema_extra={
            "examples": [
                {"answer": "accepted"},
                {"answer": "coming", "minutes": 6, "by": "seat 12"},
                {"answer": "cannot", "reason": "no ambulance free"},
            ]
        },
    )

    answer: Annotated[AnswerKind, Field(description="What you do about it.")]
    reason: Annotated[str | None, Field(max_length=500, description="Why not.")] = None
    minutes: Annotated[
        int | None, Field(ge=0, le=1440, description="Until arrival.", json_schema_extra={"unit": "min"})
    ] = None
    by: Annotated[str | None, Field(max_length=100, description="Who answers.")] = None
