"""Numbers with units, and the other small types that every contract is made of."""

import re
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, Field

__all__ = [
    "Celsius",
    "Datum",
    "Dbm",
    "FixSource",
    "Latitude",
    "Longitude",
    "Metres",
    "Millivolt",
    "Percent",
    "PublicId",
    "Seconds",
    "Text",
    "UInt16",
    "UInt32",
    "Urgency",
    "UtcDatetime",
]


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def _to_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError as exc:  # pydantic lets it pass through, and the reader of a report must not raise
        raise ValueError("not within the years 1 to 9999 in UTC") from exc


def _without_control(value: str) -> str:
    return _CONTROL.sub(" ", value)


UtcDatetime = Annotated[AwareDatetime, AfterValidator(_to_utc)]
"""An instant with an offset (RFC 3339), kept in UTC."""

Text = Annotated[str, AfterValidator(_without_control)]
"""Free text of a terminal. Control characters are read as spaces: a database refuses a NUL (D12)."""

PublicId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
UInt16 = Annotated[int, Field(ge=0, le=65_535)]
UInt32 = Annotated[int, Field(ge=0, le=4_294_967_295)]
Percent = Annotated[int, Field(ge=0, le=100, json_schema_extra={"unit": "%"})]
Dbm = Annotated[int, Field(ge=-200, le=50, json_schema_extra={"unit": "dBm"})]
Millivolt = Annotated[int, Field(ge=0, le=65_535, json_schema_extra={"unit": "mV"})]
Celsius = Annotated[float, Field(ge=-90, le=150, allow_inf_nan=False, json_schema_extra={"unit": "°C"})]
Seconds = Annotated[int, Field(ge=0, le=4_294_967_295, json_schema_extra={"unit": "s"})]
Urgency = Annotated[
    int,
    Field(
        ge=1,
        description="1 for the first press, one more for every further one; "
        "it begins with 2 where many terminals of the area are in trouble.",
    ),
]
Metres = Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False, json_schema_extra={"unit": "m"})]
Latitude = Annotated[float, Field(ge=-90, le=90, allow_inf_nan=False, json_schema_extra={"unit": "°"})]
Longitude = Annotated[float, Field(ge=-180, le=180, allow_inf_nan=False, json_schema_extra={"unit": "°"})]
Datum = Literal["wgs84", "gcj02", "bd09"]
FixSource = Literal["gnss", "wifi", "cell", "manual"]
