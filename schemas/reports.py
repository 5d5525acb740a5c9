"""What a terminal publishes: alarm, heartbeat, fix, event, result.

Unknown fields are ignored, so newer firmware can say more. The models here are the published
contract; how far the gateway bends for an alarm that breaks it is in ``schemas.tolerance``.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.units import (
    Celsius,
    Datum,
    Dbm,
    FixSource,
    Latitude,
    Longitude,
    Metres,
    Millivolt,
    Percent,
    Seconds,
    Text,
    UInt32,
    UtcDatetime,
)

__all__ = ["AlarmReport", "EventReport", "Fix", "FixReport", "HeartbeatReport", "Kind", "Report", "ResultReport"]

Kind = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")]


class Fix(BaseModel):
    """Where the terminal is, as far as it knows."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    lat: Annotated[Latitude, Field(description="Latitude, north is positive.")]
    lon: Annotated[Longitude, Field(description="Longitude, east is positive.")]
    datum: Annotated[Datum, Field(description="Datum of the coordinates. GNSS chips speak wgs84.")] = "wgs84"
    source: Annotated[FixSource, Field(description="How the position was found.")] = "gnss"
    accuracy_m: Annotated[Metres | None, Field(description="Radius that holds the true place in 68 % of cases.")] = None
    at: Annotated[UtcDatetime | None, Field(description="When it was measured. Null: now, or clock not set.")] = None


class Report(BaseModel):
    """What every report may carry."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    v: Annotated[Literal[1], Field(description="Version of this contract.")]
    boot: Annotated[
        UInt32 | None, Field(description="Restarts so far, from non-volatile memory. Counts only together with seq.")
    ] = None
    seq: Annotated[
        UInt32 | None, Field(description="Number since the restart. A repeat keeps it. Counts only together with boot.")
    ] = None
    at: Annotated[UtcDatetime | None, Field(description="When it happened. Null: clock not set.")] = None


class AlarmReport(Report):
    """Somebody asks for help, or the terminal itself is in trouble.

    Publish to ``okc/v1/{terminal}/up/alarm`` with QoS 1, not retained. Repeat with the same ``boot`` and
    ``seq`` until ``okc/v1/{terminal}/down/ack`` says ``received`` for them; a PUBACK alone is not enough.
    Only ``v`` and ``kinds`` must be there: never wait for a fix or a clock before sending (R1).

    Kinds: emergencies ``sos fall smoke gas water inactivity wander duress``; technical
    ``low_battery power_lost tamper``; ``service`` for everything else a person wants (R25). Any other word is
    treated as an emergency and shown as it is.
    """

    KINDS: ClassVar[tuple[str, ...]] = (
        *("sos", "fall", "smoke", "gas", "water", "inactivity", "wander", "duress"),
        *("low_battery", "power_lost", "tamper"),
        "service",
    )

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"v": 1, "kinds": ["sos"]},
                {
                    "v": 1,
                    "boot": 3,
                    "seq": 17,
                    "kinds": ["sos"],
                    "at": "2026-11-22T06:31:05Z",
                    "fix": {"lat": 32.0603, "lon": 118.7969, "datum": "wgs84", "source": "gnss", "accuracy_m": 12},
                    "battery_pct": 88,
                    "signal_dbm": -71,
                    "test": False,
                },
            ]
        }
    )

    kinds: Annotated[list[Kind], Field(min_length=1, max_length=32, description="All that is wrong, in any order.")]
    fix: Annotated[Fix | None, Field(description="Best position known now. Send a later, better one on up/fix.")] = None
    battery_pct: Annotated[Percent | None, Field(description="Charge of the battery.")] = None
    signal_dbm: Annotated[Dbm | None, Field(description="Received signal strength.")] = None
    test: Annotated[bool, Field(description="A test press. Believed only inside a window that the gateway opened.")] = (
        False
    )


class HeartbeatReport(Report):
    """The terminal is alive (R24).

    Publish to ``okc/v1/{terminal}/up/heartbeat`` with QoS 0 or 1, as often as was agreed for the terminal. When none
    comes for too long, somebody looks after it. What could not be sent in time goes as a JSON array of up to 500
    heartbeats, oldest first, each with its ``at``; positions and events may be sent together in the same way.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"v": 1},
                {
                    "v": 1,
                    "boot": 3,
                    "seq": 16,
                    "at": "2026-11-22T06:30:00Z",
                    "battery_pct": 88,
                    "battery_mv": 4010,
                    "signal_dbm": -71,
                    "mains": False,
                    "uptime_s": 93600,
                    "temperature_c": 21.5,
                    "firmware": "2.4.1",
                    "cell": "460-00-1a2b-3c4d5e6",
                },
            ]
        }
    )

    battery_pct: Annotated[Percent | None, Field(description="Charge of the battery.")] = None
    battery_mv: Annotated[Millivolt | None, Field(description="Voltage of the battery under load.")] = None
    signal_dbm: Annotated[Dbm | None, Field(description="Received signal strength.")] = None
    mains: Annotated[bool | None, Field(description="True: on mains power.")] = None
    uptime_s: Annotated[Seconds | None, Field(description="Time since the restart.")] = None
    temperature_c: Annotated[Celsius | None, Field(description="Temperature inside the terminal.")] = None
    firmware: Annotated[Text | None, Field(max_length=64, description="Version of the firmware.")] = None
    cell: Annotated[Text | None, Field(max_length=64, description="Serving cell, for example 460-00-1A2B-3C4D5E6.")] = (
        None
    )


class FixReport(Report):
    """A position.

    Publish to ``okc/v1/{terminal}/up/fix`` with QoS 0 or 1. After an alarm send the first good one at once.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"v": 1, "fix": {"lat": 32.0603, "lon": 118.7969}},
                {
                    "v": 1,
                    "boot": 3,
                    "seq": 18,
                    "at": "2026-11-22T06:31:40Z",
                    "fix": {
                        "lat": 32.06031,
                        "lon": 118.79687,
                        "datum": "wgs84",
                        "source": "gnss",
                        "accuracy_m": 5,
                        "at": "2026-11-22T06:31:38Z",
                    },
                },
            ]
        }
    )

    fix: Annotated[Fix, Field(description="The position.")]


class EventReport(Report):
    """Something happened that asks nobody for help: a key on a menu, a door, a restart.

    Publish to ``okc/v1/{terminal}/up/event`` with QoS 0 or 1. Some names say how the terminal is, and somebody looks
    after it: ``out_of_range`` and ``tamper`` (true or false), ``sim_balance`` (yuan left), ``sim_paid_until`` (a date
    as text). ``well`` is the daily key "I am well", ``activity`` any sign that the person is up.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"v": 1, "name": "restart", "value": "watchdog"},
                {"v": 1, "boot": 3, "seq": 19, "at": "2026-11-22T07:02:11Z", "name": "door.open", "value": True},
            ]
        }
    )

    name: Annotated[
        str, Field(min_length=1, max_length=64, pattern=r"^[a-z0-9_.]+$", description="A name of the vendor's choice.")
    ]
    value: Annotated[
        Text
        | Annotated[int, Field(ge=-9_007_199_254_740_991, le=9_007_199_254_740_991)]
        | Annotated[float, Field(allow_inf_nan=False)]
        | bool
        | None,
        Field(description="At most one value."),
    ] = None


class ResultReport(Report):
    """How a command went (R9).

    Publish to ``okc/v1/{terminal}/up/result`` with QoS 1. ``accepted``: it begins; ``done``, ``failed`` and
    ``refused`` end it. A command that comes twice is carried out once and answered twice.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"v": 1, "command": "c-42", "state": "done"},
                {"v": 1, "boot": 3, "seq": 20, "command": "c-43", "state": "failed", "detail": "no dial tone"},
            ]
        }
    )

    command: Annotated[Text, Field(max_length=64, description="The id that the command carried.")]
    state: Annotated[Literal["accepted", "done", "failed", "refused"], Field(description="How far it is.")]
    detail: Annotated[Text | None, Field(max_length=500, description="Why, for a technician.")] = None
