"""The REST contract of supervision: troubles of terminals, incidents, uptime and unprotected hours."""

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field

from schemas.rest import Out
from schemas.units import PublicId, UtcDatetime

__all__ = ["IncidentOut", "TroubleOut", "UptimeDistrictOut", "UptimeOut"]


class TroubleOut(Out):
    """Something that is or was wrong with a terminal, or with the person who has it."""

    id: int
    terminal: PublicId
    household: PublicId | None = None
    district: str
    cause: Annotated[
        str,
        Field(
            description="offline, low_battery, battery_critical, power_lost, out_of_range, tamper, clock_wrong, "
            "signal_weak, sim_unpaid, not_tested, never_pressed, firmware_old, wander or inactivity.",
            examples=["offline"],
        ),
    ]
    since: Annotated[UtcDatetime, Field(description="When it began; of a loss: when it should have been heard.")]
    found_at: UtcDatetime
    cleared_at: Annotated[UtcDatetime | None, Field(description="Null: it goes on.")] = None
    detail: Annotated[dict[str, Any], Field(description="Numbers that belong to it.")] = Field(default_factory=dict)
    incident: Annotated[int | None, Field(description="The incident that stands for it.")] = None
    case_id: Annotated[UUID | None, Field(description="Its own case; null: none yet, or that of its incident.")] = None


class IncidentOut(Out):
    """Many terminals of one area in the same trouble at once."""

    id: int
    site: str
    district: str
    kind: Annotated[
        Literal["building", "street", "feeder", "cell"] | None, Field(description="Of its area; null: a whole site.")
    ] = None
    cause: str
    since: UtcDatetime
    found_at: UtcDatetime
    cleared_at: UtcDatetime | None = None
    members: Annotated[int, Field(description="Terminals in it, at the most.")]
    of_all: Annotated[int, Field(description="Terminals that are supervised in the area.")]
    in_trouble: Annotated[int, Field(description="Those still in trouble.")]
    case_id: UUID | None = None


class UptimeDistrictOut(Out):
    """One district. Terminals that stand in no home do not count."""

    district: str
    terminals: int
    supervised_h: Annotated[
        float, Field(description="Hours that they stood in homes.", json_schema_extra={"unit": "h"})
    ]
    offline_h: Annotated[float, Field(json_schema_extra={"unit": "h"})]
    uptime: Annotated[float, Field(description="The part of the supervised hours in which they were there.")]
    losses: Annotated[int, Field(description="How often one was lost.")]
    persons: int
    unprotected_h: Annotated[
        float,
        Field(
            description="Hours of persons in which no terminal of their home could have called: lost, out of range, "
            "battery nearly empty, SIM unpaid.",
            json_schema_extra={"unit": "h"},
        ),
    ]


class UptimeOut(Out):
    """Uptime and unprotected hours of a span of time, by district."""

    begin: UtcDatetime
    end: UtcDatetime
    districts: list[UptimeDistrictOut]
