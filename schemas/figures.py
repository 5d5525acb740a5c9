"""The contract of figures: what was counted in a period, as shares with their bars (DB3201/T 1033-2021, 7)."""

from datetime import date
from typing import Annotated
from uuid import UUID

from pydantic import ConfigDict, Field, JsonValue

from schemas.rest import Out
from schemas.units import UtcDatetime

__all__ = ["BreachOut", "FigureLineOut", "FiguresOut", "ShareOut", "WaitsOut", "WorstCaseOut"]


class ShareOut(Out):
    """So many of so many."""

    count: int
    of: int
    share: Annotated[float | None, Field(description="From 0 to 1; null of nothing.")] = None
    bar: Annotated[
        int | None, Field(description="What the standard demands, where it does.", json_schema_extra={"unit": "%"})
    ] = None
    met: Annotated[bool | None, Field(description="Null: no bar, or nothing to measure.")] = None


class FigureLineOut(Out):
    """The figures of an operator, a district or all. Tests and drills never count."""

    emergencies: int
    orders: Annotated[int, Field(description="Work orders.")]
    answered: Annotated[ShareOut, Field(description="Emergencies owned within 10 s of their receipt.")]
    connected: Annotated[ShareOut, Field(description="Emergencies that a human owned at all.")]
    first_operator: Annotated[ShareOut, Field(description="Closed cases that their first owner closed, no hand-over.")]
    follow_ups: Annotated[ShareOut, Field(description="Follow-ups done in time, of those done or due.")]
    complaints: Annotated[ShareOut, Field(description="Complaints settled in time, of those settled or due.")]
    complete: Annotated[ShareOut, Field(description="Work orders with every required field.")]
    accurate: Annotated[
        ShareOut, Field(description="Work orders that inspectors found accurate, of those they judged.")
    ]
    asked: Annotated[ShareOut, Field(description="Clients who were asked for a rating.")]
    rated: Annotated[ShareOut, Field(description="Clients who gave one.")]
    satisfied: Annotated[ShareOut, Field(description="Ratings in the top three of the five steps.")]


class NamedLineOut(FigureLineOut):
    """The figures of one operator or district. Null as name: nobody took these."""

    name: str | None = None


class WaitsOut(Out):
    """Seconds from a press until a responsible human confirmed. A press for which nobody came waits for ever."""

    emergencies: int
    unconfirmed: Annotated[int, Field(description="For whom nobody came.")]
    p50_s: Annotated[float | None, Field(description="Null: nobody came in so many cases.")] = None
    p95_s: float | None = None
    p99_s: float | None = None


class WorstCaseOut(Out):
    """An emergency that waited long."""

    case_id: UUID
    district: str
    operator: str | None = None
    received_at: UtcDatetime
    wait_s: Annotated[float | None, Field(description="Null: nobody came.")] = None
    link: Annotated[str, Field(description="The case, under the address of this API.")]


class BreachOut(Out):
    """A step that was late."""

    procedure: str
    step: str
    late: int


def _share(count: int, of: int, bar: int | None = None) -> dict[str, JsonValue]:
    met = None if bar is None or of == 0 else count * 100 >= bar * of
    return {"count": count, "of": of, "share": None if of == 0 else count / of, "bar": bar, "met": met}


_LINE: dict[str, JsonValue] = {
    "emergencies": 200,
    "orders": 240,
    "answered": _share(196, 200, 100),
    "connected": _share(200, 200, 100),
    "first_operator": _share(190, 200),
    "follow_ups": _share(150, 150),
    "complaints": _share(3, 4),
    "complete": _share(228, 240),
    "accurate": _share(19, 20, 90),
    "asked": _share(216, 240),
    "rated": _share(192, 240),
    "satisfied": _share(180, 192, 90),
}


class FiguresOut(Out):
    """What was counted in a period."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "first_day": "2026-11-01",
                    "last_day": "2026-11-30",
                    "timezone": "Asia/Shanghai",
                    "total": _LINE,
                    "operators": [{"name": "seat-7", **_LINE}],
                    "districts": [{"name": "320102", **_LINE}],
                    "first_human": {"emergencies": 200, "unconfirmed": 0, "p50_s": 4.1, "p95_s": 9.2, "p99_s": 14.8},
                    "worst": [
                        {
                            "case_id": "0b0f3f0c-6a52-5f0e-8a55-3f1f0a6f2d11",
                            "district": "320102",
                            "operator": "seat-7",
                            "received_at": "2026-11-22T06:31:05.120000Z",
                            "wait_s": 31.7,
                            "link": "/v1/cases/0b0f3f0c-6a52-5f0e-8a55-3f1f0a6f2d11",
                        }
                    ],
                    "false_alarms": {"accidental": 14, "pet": 1},
                    "breaches": [{"procedure": "nanjing-emergency", "step": "take", "late": 4}],
                }
            ]
        }
    )

    first_day: date
    last_day: date
    timezone: str
    district: str | None = None
    operator: str | None = None
    total: FigureLineOut
    operators: list[NamedLineOut]
    districts: list[NamedLineOut]
    first_human: WaitsOut
    worst: list[WorstCaseOut]
    false_alarms: Annotated[dict[str, int], Field(description="Closed false alarms by reason.")]
    breaches: Annotated[list[BreachOut], Field(description="Late steps, the most frequent first.")]
