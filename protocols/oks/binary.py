"""The compact form: 8-bit data of at most 99 octets, so that an alarm with everything fits into one SMS.

The layout is published as ``schemas/published/sms-alarm.json``. Numbers are big-endian; what is there besides the kinds
the flags say; a CRC (CCITT, from FFFF) over everything before it ends the message.
"""

from binascii import crc_hqx
from datetime import UTC, datetime
from typing import Any

from construct import (
    BitStruct,
    Bytes,
    ConstructError,
    Flag,
    GreedyBytes,
    If,
    Int8ub,
    Int16sb,
    Int16ub,
    Int32sb,
    Int32ub,
    Padding,
    Prefixed,
    Struct,
    this,
)

from protocols.errors import FrameError, LocalProtocolError
from protocols.oks.report import DATUMS, KINDS, SOURCES, Place, SmsReport

__all__ = ["MAGIC", "is_binary", "read", "write"]

MAGIC = b"OK\x01"
"""How such a message begins; the last octet is the version."""

_UNKNOWN = 0xFFFF
_SCALE = 10_000_000
_LONGEST_ID = 64

_PLACE = Struct("lat" / Int32sb, "lon" / Int32sb, "kind" / Int8ub, "accuracy" / Int16ub)
_BODY = Struct(
    "magic" / Bytes(len(MAGIC)),
    "flags"
    / BitStruct(
        Padding(1),
        "test" / Flag,
        "signal" / Flag,
        "battery" / Flag,
        "place" / Flag,
        "at" / Flag,
        "numbers" / Flag,
        "terminal" / Flag,
    ),
    "kinds" / Int16ub,
    "terminal" / If(this.flags.terminal, Prefixed(Int8ub, GreedyBytes)),
    "numbers" / If(this.flags.numbers, Struct("boot" / Int32ub, "seq" / Int32ub)),
    "at" / If(this.flags.at, Int32ub),
    "place" / If(this.flags.place, _PLACE),
    "battery" / If(this.flags.battery, Int8ub),
    "signal" / If(this.flags.signal, Int16sb),
)


def is_binary(data: bytes) -> bool:
    """Does it begin as such a message, of whatever version?"""
    return data[:2] == MAGIC[:2]


def read(data: bytes) -> SmsReport:
    """Read a message. What follows its CRC, as from a longer one before it in a buffer, is an error.

    Raises:
        FrameError: Not such a message, another version, damaged on the way, or numbers that cannot be.
    """
    if data[: len(MAGIC)] != MAGIC:
        raise FrameError("not a report of this version")
    body, crc = data[:-2], data[-2:]
    if len(data) < len(MAGIC) + 5 or crc_hqx(body, _UNKNOWN) != int.from_bytes(crc, "big"):
        raise FrameError("the report was damaged on the way: its CRC does not fit")
    try:
        found: Any = _BODY.parse(body)
        if _BODY.build(found) != body:
            raise FrameError("octets behind the report")
        return _report(found)
    except (ConstructError, ValueError, OverflowError) as exc:
        raise FrameError(f"the report cannot be: {type(exc).__name__}") from None


def _report(found: Any) -> SmsReport:
    kinds = tuple(kind for place, kind in enumerate(KINDS) if found.kinds >> place & 1)
    if not kinds or found.kinds >> len(KINDS):
        raise FrameError("kinds that nobody knows")
    return SmsReport(
        kinds=kinds,
        terminal=None if found.terminal is None else found.terminal.decode("ascii"),
        boot=None if found.numbers is None else found.numbers.boot,
        seq=None if found.numbers is None else found.numbers.seq,
        at=None if found.at is None else datetime.fromtimestamp(found.at, UTC),
        place=None if found.place is None else _place(found.place),
        battery_pct=_within(found.battery, 0, 100),
        signal_dbm=_within(found.signal, -200, 50),
        test=found.flags.test,
    )


def _place(found: Any) -> Place:
    lat, lon = found.lat / _SCALE, found.lon / _SCALE
    datum, source = found.kind >> 4, found.kind & 0xF
    if abs(lat) > 90 or abs(lon) > 180 or datum >= len(DATUMS) or source >= len(SOURCES):
        raise FrameError("a place that is none")
    return Place(lat, lon, DATUMS[datum], SOURCES[source], None if found.accuracy == _UNKNOWN else found.accuracy)


def _within(value: int | None, low: int, high: int) -> int | None:
    if value is not None and not low <= value <= high:
        raise FrameError(f"{value} is not within {low} to {high}")
    return value


def write(report: SmsReport) -> bytes:
    """Return a message.

    Raises:
        LocalProtocolError: A kind, an id or a number that this form cannot say.
    """
    try:
        kinds = sum(1 << KINDS.index(kind) for kind in dict.fromkeys(report.kinds))
        terminal = None if report.terminal is None else report.terminal.encode("ascii")
        if not kinds or (terminal is not None and not 0 < len(terminal) <= _LONGEST_ID):
            raise ValueError("no kind, or no id of 1 to 64 characters")
        body: bytes = _BODY.build(
            {
                "magic": MAGIC,
                "flags": {
                    "test": report.test,
                    "signal": report.signal_dbm is not None,
                    "battery": report.battery_pct is not None,
                    "place": report.place is not None,
                    "at": report.at is not None,
                    "numbers": report.boot is not None and report.seq is not None,
                    "terminal": terminal is not None,
                },
                "kinds": kinds,
                "terminal": terminal,
                "numbers": {"boot": report.boot, "seq": report.seq},
                "at": None if report.at is None else int(report.at.timestamp()),
                "place": None if report.place is None else _place_record(report.place),
                "battery": report.battery_pct,
                "signal": report.signal_dbm,
            }
        )
    except (ConstructError, ValueError) as exc:
        raise LocalProtocolError(f"this report cannot be written: {exc}") from exc
    return body + crc_hqx(body, _UNKNOWN).to_bytes(2, "big")


def _place_record(place: Place) -> dict[str, int]:
    return {
        "lat": round(place.lat * _SCALE),
        "lon": round(place.lon * _SCALE),
        "kind": DATUMS.index(place.datum) << 4 | SOURCES.index(place.source),
        "accuracy": _UNKNOWN if place.accuracy_m is None else min(place.accuracy_m, _UNKNOWN - 1),
    }
