"""The REST contract of a terminal's series: its track, its battery and signal."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from schemas.rest import Out
from schemas.units import UtcDatetime

__all__ = ["CurveOut", "CurvePointOut", "GeoJsonOut", "TrackPointOut"]


class TrackPointOut(Out):
    """One position, in the datum in which it came."""

    at: Annotated[
        UtcDatetime, Field(description="When it was measured: the terminal's time if that is sane, else ours.")
    ]
    received_at: UtcDatetime
    lat: Annotated[float, Field(json_schema_extra={"unit": "°"})]
    lon: Annotated[float, Field(json_schema_extra={"unit": "°"})]
    datum: Literal["wgs84", "gcj02", "bd09"]
    source: str
    accuracy_m: Annotated[float | None, Field(json_schema_extra={"unit": "m"})] = None


class CurvePointOut(Out):
    """What heartbeats said within one spell."""

    at: Annotated[UtcDatetime, Field(description="When the spell begins.")]
    beats: Annotated[int, Field(description="Heartbeats that came; a redelivered one counts once.")]
    battery_pct: Annotated[float | None, Field(description="Mean.", json_schema_extra={"unit": "%"})] = None
    battery_min_pct: Annotated[int | None, Field(json_schema_extra={"unit": "%"})] = None
    signal_dbm: Annotated[float | None, Field(description="Mean.", json_schema_extra={"unit": "dBm"})] = None
    signal_min_dbm: Annotated[int | None, Field(json_schema_extra={"unit": "dBm"})] = None
    mains: Annotated[bool | None, Field(description="Was it on mains all the time?")] = None


class CurveOut(Out):
    """Battery and signal over time; spells in which nothing came are left out."""

    items: list[CurvePointOut]


class GeoJsonOut(Out):
    """A track as a GeoJSON feature (RFC 7946): a line in WGS-84, with the times of its points as a property."""

    model_config = ConfigDict(frozen=True)

    type: Literal["Feature"] = "Feature"
    geometry: dict[str, Any] | None
    properties: dict[str, Any]
