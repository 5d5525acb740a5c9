"""What a terminal says in one SMS, in whatever form."""

from dataclasses import dataclass, field
from datetime import datetime

__all__ = ["DATUMS", "KINDS", "SOURCES", "Place", "SmsReport"]

KINDS = (
    *("sos", "fall", "smoke", "gas", "water", "inactivity", "wander", "duress"),
    *("low_battery", "power_lost", "tamper", "service"),
)
"""Kinds of alarm. Their places are bits of the binary form: new ones are only put behind."""

DATUMS = ("wgs84", "gcj02", "bd09")
SOURCES = ("gnss", "wifi", "cell", "manual")


@dataclass(frozen=True, slots=True)
class Place:
    """A position: degrees, and the radius in metres within which it is."""

    lat: float
    lon: float
    datum: str = "wgs84"
    source: str = "gnss"
    accuracy_m: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SmsReport:
    """An alarm by SMS. ``terminal`` is its id, None where only the sender's number tells whose it is.

    ``boot`` and ``seq`` are both there or neither; with them it is the same press as the one that came by MQTT.
    """

    kinds: tuple[str, ...]
    terminal: str | None = None
    boot: int | None = None
    seq: int | None = None
    at: datetime | None = None
    place: Place | None = field(default=None)
    battery_pct: int | None = None
    signal_dbm: int | None = None
    test: bool = False
