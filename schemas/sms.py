"""The layout of an alarm in one SMS of 8-bit data, for firmware people.

Published as ``sms-alarm.json``. The codec is ``protocols.oks.binary``; a test keeps the two together.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["LAYOUT", "SmsExample", "SmsField", "SmsLayout"]


class SmsField(BaseModel):
    """One field, in its place."""

    model_config = ConfigDict(frozen=True)

    name: str
    type: Annotated[str, Field(description="u: unsigned, i: signed, with its bits, big-endian; or octets.")]
    when: Annotated[str | None, Field(description="The bit of flags with which it is there; null: always.")] = None
    meaning: str


class SmsExample(BaseModel):
    """A message, and what it says."""

    model_config = ConfigDict(frozen=True)

    octets: Annotated[str, Field(description="Hexadecimal.")]
    says: Annotated[str, Field(description="The same in the form that people can type.")]


class SmsLayout(BaseModel):
    """The whole."""

    model_config = ConfigDict(frozen=True)

    title: str
    coding: str
    longest: Annotated[int, Field(description="Octets.")]
    fields: tuple[SmsField, ...]
    examples: tuple[SmsExample, ...]


LAYOUT = SmsLayout(
    title="An alarm in one SMS",
    coding="8-bit data (DCS 04 or F4 to F7), one message, no header",
    longest=99,
    fields=(
        SmsField(name="magic", type="3 octets", meaning="4F 4B 01: the letters OK and the version"),
        SmsField(
            name="flags",
            type="u8",
            meaning="1 terminal, 2 numbers, 4 at, 8 place, 16 battery, 32 signal: the field is there; 64: a test press",
        ),
        SmsField(
            name="kinds",
            type="u16",
            meaning="1 sos, 2 fall, 4 smoke, 8 gas, 16 water, 32 inactivity, 64 wander, 128 duress, 256 low_battery, "
            "512 power_lost, 1024 tamper, 2048 service; any of them together, at least one",
        ),
        SmsField(
            name="terminal",
            type="u8, then so many octets",
            when="1",
            meaning="the id, 1 to 64 characters of ASCII; without it the sender's number says whose the alarm is",
        ),
        SmsField(name="boot", type="u32", when="2", meaning="restarts so far, as in the alarm by MQTT"),
        SmsField(
            name="seq",
            type="u32",
            when="2",
            meaning="number since the restart; the same press by MQTT and by SMS has the same two and is one case",
        ),
        SmsField(name="at", type="u32", when="4", meaning="seconds since 1970-01-01T00:00:00Z"),
        SmsField(name="lat", type="i32", when="8", meaning="ten millionths of a degree, north is positive"),
        SmsField(name="lon", type="i32", when="8", meaning="ten millionths of a degree, east is positive"),
        SmsField(
            name="kind of place",
            type="u8",
            when="8",
            meaning="upper half 0 wgs84, 1 gcj02, 2 bd09; lower half 0 gnss, 1 wifi, 2 cell, 3 manual",
        ),
        SmsField(name="accuracy", type="u16", when="8", meaning="metres; FFFF: not known"),
        SmsField(name="battery", type="u8", when="16", meaning="percent, 0 to 100"),
        SmsField(name="signal", type="i16", when="32", meaning="dBm, -200 to 50"),
        SmsField(name="crc", type="u16", meaning="CRC-16 (CCITT, polynomial 1021, from FFFF) of all octets before it"),
    ),
    examples=(
        SmsExample(octets="4F4B010000013A01", says="SOS"),
        SmsExample(
            octets="4F4B013F00030F38363030303030303030303030303100000003000000116B028C29131C037846CEF7E800FFFF58FFB9A3C4",
            says="SOS FALL 860000000000001 32.060300,118.796900 88% -71dBm #3.17 @20261122T063105Z",
        ),
    ),
)
