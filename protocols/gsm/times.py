"""Time stamps of service centres, and for how long a message is worth delivering (3GPP TS 23.040, 9.2.3.11 and .12)."""

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

__all__ = ["EnhancedValidity", "Validity", "relative", "relative_octet", "stamp", "stamp_octets"]

_QUARTER = timedelta(minutes=15)
_CENTURY_FROM = 90
"""Two digits of a year from this on are of the century before."""

_HALF_HOURS, _DAYS, _WEEKS = 143, 167, 196
_LONGEST = timedelta(weeks=63)


@dataclass(frozen=True, slots=True)
class EnhancedValidity:
    """Seven octets that few centres know. ``octets`` are as they came."""

    octets: bytes

    @property
    def lasts(self) -> timedelta | None:
        """For how long, where it says so."""
        match self.octets[0] & 7:
            case 1:
                return relative(self.octets[1])
            case 2:
                return timedelta(seconds=self.octets[1])
            case 3:
                hours, minutes, seconds = (_two(octet) for octet in self.octets[1:4])
                if hours is None or minutes is None or seconds is None:
                    return None
                return timedelta(hours=hours, minutes=minutes, seconds=seconds)
        return None


Validity = timedelta | datetime | EnhancedValidity


def _two(octet: int) -> int | None:
    tens, units = octet & 0xF, octet >> 4
    return 10 * tens + units if tens <= 9 and units <= 9 else None


def stamp(octets: bytes) -> datetime | None:
    """Read a time stamp of seven octets; None when it names no time that there is."""
    numbers = [_two(octet) for octet in octets[:6]]
    units, tens = octets[6] >> 4, octets[6] & 7
    if units > 9:
        return None
    offset = _QUARTER * (10 * tens + units)
    year, month, day, hour, minute, second = (-1 if number is None else number for number in numbers)
    if year < 0:
        return None
    try:
        zone = timezone(-offset if octets[6] & 8 else offset)
        return datetime(year + (1900 if year >= _CENTURY_FROM else 2000), month, day, hour, minute, second, tzinfo=zone)
    except ValueError:
        return None


def stamp_octets(at: datetime) -> bytes:
    """Return a time stamp, in the time zone of `at`, which must be known; parts of a second are left out.

    Raises:
        ValueError: Not between 1990 and 2089, or a zone that is no whole quarter of an hour, or further off than 19:45.
    """
    offset = at.utcoffset()
    if offset is None or abs(offset) % _QUARTER or abs(offset) >= 80 * _QUARTER:
        raise ValueError("a time stamp needs a time zone of whole quarters of an hour")
    if not 1990 <= at.year < 2090:
        raise ValueError("a time stamp knows the years 1990 to 2089")
    numbers = (at.year % 100, at.month, at.day, at.hour, at.minute, at.second)
    quarters = abs(offset) // _QUARTER
    zone = quarters // 10 | (quarters % 10) << 4 | (8 if offset < timedelta(0) else 0)
    return bytes(number // 10 | (number % 10) << 4 for number in numbers) + bytes((zone,))


def relative(octet: int) -> timedelta:
    """Return for how long a relative validity of this octet is."""
    if octet <= _HALF_HOURS:
        return timedelta(minutes=5) * (octet + 1)
    if octet <= _DAYS:
        return timedelta(hours=12) + timedelta(minutes=30) * (octet - _HALF_HOURS)
    if octet <= _WEEKS:
        return timedelta(days=octet - 166)
    return timedelta(weeks=octet - 192)


def relative_octet(lasts: timedelta) -> int:
    """Return the octet of the shortest relative validity that is not shorter than `lasts`, of the longest at most."""
    wanted = min(lasts, _LONGEST)
    return next(octet for octet in range(256) if relative(octet) >= wanted)
