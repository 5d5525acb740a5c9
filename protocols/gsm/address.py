"""Addresses of phones, short codes and names (3GPP TS 23.040, 9.1.2.5; TS 24.011, 8.2.5.1).

Inside a TPDU the length counts digits, in front of one, for the service centre, octets.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from construct import BitsInteger, BitStruct, Bytes, Flag, Int8ub, Struct, this

from protocols.gsm import alphabet

__all__ = ["ADDRESS", "Address", "NumberType", "centre_octets", "centre_of", "of", "record"]

_DIGITS = "0123456789*#abc"
_FILLER = 0xF
_ISDN = 1
_MOST_CHARS = 11
_MOST_DIGITS = 20


class NumberType(IntEnum):
    """How digits are to be read."""

    UNKNOWN = 0
    INTERNATIONAL = 1
    NATIONAL = 2
    NETWORK = 3
    SUBSCRIBER = 4
    NAME = 5
    ABBREVIATED = 6
    RESERVED = 7


@dataclass(frozen=True, slots=True)
class Address:
    """Whom a message is from or for. ``digits`` may hold ``*#abc`` as well; of a `NumberType.NAME` it is the name."""

    digits: str
    kind: NumberType = NumberType.UNKNOWN
    plan: int = _ISDN

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read a number as people write it: ``+86 138…`` is international, digits are as dialled, else it is a name.

        Raises:
            ValueError: Neither a number of up to 20 digits nor a name of up to 11 characters of the GSM alphabet.
        """
        bare = text.strip()
        digits = bare.translate(str.maketrans("", "", " -().")).lower()
        number = digits.removeprefix("+")
        if number and set(number) <= set(_DIGITS):
            if len(number) > _MOST_DIGITS:
                raise ValueError(f"a number of more than {_MOST_DIGITS} digits")
            return cls(number, NumberType.INTERNATIONAL if digits.startswith("+") else NumberType.UNKNOWN)
        readable = any(char.isalnum() for char in bare) and alphabet.fits(bare)
        if not readable or len(alphabet.septets_of(bare)) > _MOST_CHARS:
            raise ValueError(f"neither a number nor a name of up to {_MOST_CHARS} characters")
        return cls(bare, NumberType.NAME, 0)

    def __str__(self) -> str:
        """Return the number as people write it, with a plus where it is international."""
        return f"+{self.digits}" if self.kind is NumberType.INTERNATIONAL else self.digits


TYPE = BitStruct("always" / Flag, "kind" / BitsInteger(3), "plan" / BitsInteger(4))

ADDRESS = Struct("length" / Int8ub, "type" / TYPE, "value" / Bytes((this.length + 1) // 2))
"""An address in a TPDU: number of semi-octets, type, digits."""


def of(parsed: Any) -> Address:
    """Return what `ADDRESS` has read. The length counts, whatever fills the last octet."""
    kind, plan = NumberType(parsed.type.kind), parsed.type.plan
    if kind is NumberType.NAME:
        return Address(_name(parsed.value, parsed.length), kind, plan)
    return Address(_read(parsed.value)[: parsed.length].rstrip("f"), kind, plan)


def _name(value: bytes, length: int) -> str:
    septets = alphabet.unpack(value, length * 4 // 7)
    # Some write the length of whole octets: then seven bits are left over, and look like an @.
    if septets and len(septets) % 8 == 0 and not septets[-1]:
        septets = septets[:-1]
    return alphabet.text_of(septets)


def record(address: Address) -> dict[str, Any]:
    """Return an address as `ADDRESS` builds it."""
    kind = {"always": True, "kind": int(address.kind), "plan": address.plan}
    if address.kind is NumberType.NAME:
        septets = alphabet.septets_of(address.digits)
        return {"length": (7 * len(septets) + 3) // 4, "type": kind, "value": alphabet.pack(septets)}
    return {"length": len(address.digits), "type": kind, "value": _written(address.digits)}


def centre_of(octets: bytes) -> Address:
    """Read a service centre: its type and digits, behind the number of their octets."""
    parsed: Any = TYPE.parse(octets[:1])
    return Address(_read(octets[1:]).rstrip("f"), NumberType(parsed.kind), parsed.plan)


def centre_octets(address: Address) -> bytes:
    """Return type and digits of a service centre."""
    kind: bytes = TYPE.build({"always": True, "kind": int(address.kind), "plan": address.plan})
    return kind + _written(address.digits)


def _read(octets: bytes) -> str:
    found = []
    for octet in octets:
        found += [_DIGITS[half] if half < _FILLER else "f" for half in (octet & 0xF, octet >> 4)]
    return "".join(found)


def _written(digits: str) -> bytes:
    halves = [_DIGITS.index(digit) for digit in digits]
    if len(halves) % 2:
        halves.append(_FILLER)
    return bytes(low | high << 4 for low, high in zip(halves[::2], halves[1::2], strict=True))
