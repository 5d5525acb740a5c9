"""A place with its origin (D7): datum, source, accuracy and age go along with every pair of numbers.

Maps sold in China do not speak WGS-84. GCJ-02 shifts every point of the mainland by 50 to 700 m, and BD-09
shifts GCJ-02 once more by about a kilometre, so a rescuer who is given the wrong datum stands at the wrong
house. Neither shift is published; the terms below are the approximation that the map services' own
converters agree with to about a metre.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from urllib.parse import quote

__all__ = ["Coordinates", "Datum", "Location", "Source", "better", "distance_m", "map_links"]


class Datum(StrEnum):
    """What a pair of coordinates refers to."""

    WGS84 = "wgs84"
    GCJ02 = "gcj02"
    BD09 = "bd09"


class Source(StrEnum):
    """How a position was found. ``MANUAL``: a human said so. ``REGISTERED``: the address in the directory."""

    GNSS = "gnss"
    WIFI = "wifi"
    CELL = "cell"
    MANUAL = "manual"
    REGISTERED = "registered"


@dataclass(frozen=True, slots=True)
class Coordinates:
    """Latitude and longitude in degrees, in `datum`.

    Raises:
        ValueError: Not a number, or off the globe.
    """

    lat: float
    lon: float
    datum: Datum

    def __post_init__(self) -> None:
        if not (-90 <= self.lat <= 90 and -180 <= self.lon <= 180):
            raise ValueError("latitude must lie within ±90° and longitude within ±180°")

    def to(self, datum: Datum) -> "Coordinates":
        """Return the same place in `datum`. There and back again moves a point by less than a millimetre.

        Outside mainland China's bounding box the three datums are the same.
        """
        if datum is self.datum:
            return self
        point = (self.lat, self.lon)
        if self.datum is Datum.BD09:
            point = _unshifted(point, _bd09_shift)
        if self.datum is Datum.WGS84:
            point = _shifted(point, _gcj02_shift)
        elif datum is Datum.WGS84:
            point = _unshifted(point, _gcj02_shift)
        if datum is Datum.BD09:
            point = _shifted(point, _bd09_shift)
        return Coordinates(point[0], point[1], datum)


@dataclass(frozen=True, slots=True)
class Location:
    """Where somebody is, as far as anybody knows.

    ``accuracy_m`` is the radius that holds the true place in 68 % of cases. ``at`` is when it was measured by
    the clock of whoever measured it; None where that clock was not set.
    """

    coordinates: Coordinates
    source: Source
    accuracy_m: float | None
    at: datetime | None

    def age(self, now: datetime) -> timedelta | None:
        """Return how old the measurement is, or None if its time is missing or lies impossibly far ahead."""
        if self.at is None or self.at - now > _CLOCK_TOLERANCE:
            return None
        return max(now - self.at, timedelta(0))


# Which updates are worth telling

_CLOCK_TOLERANCE = timedelta(minutes=5)
_STALE_AFTER = timedelta(minutes=10)
_MOVED_M = 50.0
_RANK = {Source.CELL: 1, Source.WIFI: 2, Source.GNSS: 3}


def better(new: Location, old: Location | None, *, now: datetime) -> bool:
    """Tell whether `new` is worth telling everybody who has been told `old`.

    The first line that fits decides:

        | new            | old            | new is better                                                        |
        |----------------|----------------|----------------------------------------------------------------------|
        | anything       | None           | yes                                                                  |
        | same source    | same source    | unless earlier: accuracy at most half, or moved more than 50 m and   |
        |                |                | more than both accuracies                                            |
        | anything       | registered     | yes                                                                  |
        | registered     | anything       | no: the registered address goes along with every message anyway      |
        | manual         | machine        | unless the machine's is newer                                        |
        | machine        | manual         | only if newer                                                        |
        | better machine | worse machine  | unless more than 10 min older                                        |
        | worse machine  | better machine | only if more than 10 min newer                                       |

    Machines from best to worst: GNSS, Wi-Fi, cell. A missing ``at`` counts as `now`, so whoever keeps such a
    location keeps the time of receipt with it, or it never ages. A time more than 5 min ahead of `now` comes
    from a wrong clock: it is neither newer nor older than anything, so that a clock set to 2036 cannot hold
    back all later positions.
    """
    if old is None:
        return True
    newer_by = _newer_by(new, old, now=now)
    if new.source is old.source:
        return newer_by >= timedelta(0) and (_sharper(new, old) or _moved(new, old))
    if Source.REGISTERED in (new.source, old.source):
        return old.source is Source.REGISTERED
    if new.source is Source.MANUAL:
        return newer_by >= timedelta(0)
    if old.source is Source.MANUAL:
        return newer_by > timedelta(0)
    if _RANK[new.source] > _RANK[old.source]:
        return newer_by >= -_STALE_AFTER
    return newer_by > _STALE_AFTER


def _newer_by(new: Location, old: Location, *, now: datetime) -> timedelta:
    new_at, old_at = (now if location.at is None else location.at for location in (new, old))
    if max(new_at, old_at) - now > _CLOCK_TOLERANCE:
        return timedelta(0)
    return new_at - old_at


def _sharper(new: Location, old: Location) -> bool:
    new_m, old_m = (math.inf if location.accuracy_m is None else location.accuracy_m for location in (new, old))
    return new_m < old_m and new_m <= old_m / 2


def _moved(new: Location, old: Location) -> bool:
    return distance_m(new.coordinates, old.coordinates) > max(_MOVED_M, new.accuracy_m or 0, old.accuracy_m or 0)


# Datums

_Point = tuple[float, float]
_Shift = Callable[[float, float], _Point]

_EARTH_RADIUS_M = 6_371_008.8
_KRASOVSKY_RADIUS_M = 6_378_245.0
_KRASOVSKY_E2 = 0.006_693_421_622_965_943
_SOUTH, _NORTH, _WEST, _EAST = 0.8293, 55.8271, 72.004, 137.8347
_FADE_DEG = 1.0


def _strength(lat: float, lon: float) -> float:
    """Return how much of a shift applies: 1 well inside the mainland's box, 0 outside.

    A shift that ended abruptly at the edge would send two places to one: a point just inside and the point
    outside that it is shifted onto. No inverse could tell them apart, so the shift fades out over the last
    degree. The mainland (73.5° to 135.1° E, up to 53.6° N) ends before that degree begins.
    """
    margin = min(lat - _SOUTH, _NORTH - lat, lon - _WEST, _EAST - lon)
    return min(max(margin / _FADE_DEG, 0.0), 1.0)


def _shifted(point: _Point, shift: _Shift) -> _Point:
    lat, lon = point
    strength = _strength(lat, lon)
    if strength == 0:
        return point
    north, east = shift(lat, lon)
    return lat + strength * north, lon + strength * east


def _unshifted(point: _Point, shift: _Shift) -> _Point:
    """Find the point that `shift` moves onto `point`.

    Over one degree either shift, with its fading, changes by less than 0.05°, so every round leaves less than a
    twentieth of the error: ten rounds bring a kilometre down to what a double can hold.
    """
    lat, lon = point
    for _ in range(10):
        there = _shifted((lat, lon), shift)
        lat, lon = lat + point[0] - there[0], lon + point[1] - there[1]
    return lat, lon


def _gcj02_shift(lat: float, lon: float) -> _Point:
    x, y = lon - 105.0, lat - 35.0

    def wave(amplitude_m: float, phase: float) -> float:
        return amplitude_m * math.sin(phase * math.pi) * 2 / 3

    ripple_m = wave(20, 6 * x) + wave(20, 2 * x)
    north_m = -100 + 2 * x + 3 * y + 0.2 * y * y + 0.1 * x * y + 0.2 * math.sqrt(abs(x))
    north_m += ripple_m + wave(20, y) + wave(40, y / 3) + wave(160, y / 12) + wave(320, y / 30)
    east_m = 300 + x + 2 * y + 0.1 * x * x + 0.1 * x * y + 0.1 * math.sqrt(abs(x))
    east_m += ripple_m + wave(20, x) + wave(40, x / 3) + wave(150, x / 12) + wave(300, x / 30)

    w2 = 1 - _KRASOVSKY_E2 * math.sin(math.radians(lat)) ** 2
    meridian_m = _KRASOVSKY_RADIUS_M * (1 - _KRASOVSKY_E2) / w2**1.5
    parallel_m = _KRASOVSKY_RADIUS_M / math.sqrt(w2) * math.cos(math.radians(lat))
    return math.degrees(north_m / meridian_m), math.degrees(east_m / parallel_m)


def _bd09_shift(lat: float, lon: float) -> _Point:
    turn = math.pi * 3000 / 180
    radius = math.hypot(lat, lon) + 2e-5 * math.sin(lat * turn)
    angle = math.atan2(lat, lon) + 3e-6 * math.cos(lon * turn)
    return radius * math.sin(angle) + 0.006 - lat, radius * math.cos(angle) + 0.0065 - lon


def distance_m(a: Coordinates, b: Coordinates) -> float:
    """Return the distance in metres along a sphere, good to 0.5 %. The datums may differ."""
    a, b = a.to(Datum.WGS84), b.to(Datum.WGS84)
    south_north = math.sin(math.radians(b.lat - a.lat) / 2) ** 2
    west_east = math.sin(math.radians(b.lon - a.lon) / 2) ** 2
    h = south_north + math.cos(math.radians(a.lat)) * math.cos(math.radians(b.lat)) * west_east
    return 2 * _EARTH_RADIUS_M * math.asin(math.sqrt(min(h, 1.0)))


# Links

# The map's own separators; percent-encoding does not protect them, as they are split after decoding.
_TENCENT_SEPARATORS = re.compile(r"[:;|]")


def map_links(coordinates: Coordinates, label: str, *, accuracy_m: float | None = None) -> dict[str, str]:
    """Return links that show the place, each in the datum of its map, to six decimals (0.1 m).

    Keys: ``amap`` (uri.amap.com, GCJ-02, longitude first), ``baidu`` (map URI API, BD-09), ``tencent`` (map URI
    API, GCJ-02) and ``geo`` (RFC 5870, WGS-84, with `accuracy_m` as its uncertainty).

    `label` stands beside the marker and goes to the map's operator in clear, so it must never hold a person's
    name, nor anything else that tells who lives there (R22): write what everybody may know, such as 紧急求助.
    """
    wgs84, gcj02, bd09 = (coordinates.to(datum) for datum in (Datum.WGS84, Datum.GCJ02, Datum.BD09))
    text = quote(label, safe="")
    tencent_text = quote(_TENCENT_SEPARATORS.sub(" ", label), safe="")
    uncertainty = "" if accuracy_m is None else f";u={accuracy_m:.0f}"
    return {
        "amap": "https://uri.amap.com/marker"
        f"?position={gcj02.lon:.6f},{gcj02.lat:.6f}&name={text}&coordinate=gaode&src=onekey",
        "baidu": "https://api.map.baidu.com/marker"
        f"?location={bd09.lat:.6f},{bd09.lon:.6f}&title={text}&content={text}"
        "&output=html&coord_type=bd09ll&src=webapp.onekey.gateway",
        "tencent": "https://apis.map.qq.com/uri/v1/marker"
        f"?marker=coord:{gcj02.lat:.6f},{gcj02.lon:.6f};title:{tencent_text};addr:{tencent_text}&referer=onekey",
        "geo": f"geo:{wgs84.lat:.6f},{wgs84.lon:.6f}{uncertainty}",
    }
