"""Locations between the wire, the tables and the rules."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from gateway.domain.directory import Household
from gateway.domain.location import Coordinates, Datum, Location, Source, better

__all__ = ["best_location", "place_of", "record_of", "registered"]


def place_of(record: Mapping[str, Any]) -> Location:
    """Return the location that a record of ours or a terminal's fix describes."""
    at = record.get("at")
    return Location(
        coordinates=Coordinates(record["lat"], record["lon"], Datum(record["datum"])),
        source=Source(record["source"]),
        accuracy_m=record.get("accuracy_m"),
        at=datetime.fromisoformat(at) if isinstance(at, str) else at,
    )


def record_of(location: Location) -> dict[str, Any]:
    """Return a location as it is stored and sent, see ``schemas.notices.Location``."""
    return {
        "lat": location.coordinates.lat,
        "lon": location.coordinates.lon,
        "datum": location.coordinates.datum.value,
        "source": location.source.value,
        "accuracy_m": location.accuracy_m,
        "at": None if location.at is None else location.at.isoformat(),
    }


def registered(household: Household | None) -> Location | None:
    """Return the place of the registered address, where its coordinates are known."""
    if household is None:
        return None
    address = household.address
    if address.lat is None or address.lon is None:
        return None
    return Location(
        coordinates=Coordinates(address.lat, address.lon, Datum(address.datum)),
        source=Source.REGISTERED,
        accuracy_m=None,
        at=None,
    )


def best_location(
    fix: Mapping[str, Any] | None, *, last: Mapping[str, Any] | None, household: Household | None, now: datetime
) -> Location | None:
    """Return the best location known at this moment (D7): the fix of the report, the last one known, or the address."""
    best = registered(household)
    for record in (last, fix):
        if record is not None:
            place = place_of(record)
            if better(place, best, now=now):
                best = place
    return best
