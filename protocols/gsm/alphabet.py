"""The 7-bit alphabets of GSM, national ones too, and how septets lie in octets (3GPP TS 23.038, 6.1.2, 6.2, annex A).

The tables themselves come from ``gsmcodecs``. A septet is one octet from 0 to 127 here.
"""

from collections.abc import Mapping

from gsmcodecs.charmaps import GSMCHARMAPS

__all__ = ["ESCAPE", "cost", "fits", "pack", "septets_of", "text_of", "unpack"]

ESCAPE = 0x1B

_SPACE = " "


def _locking(language: int) -> Mapping[int, str]:
    table = GSMCHARMAPS.get(language, {}).get("locking") or GSMCHARMAPS[0]["locking"]
    return {septet: chr(point) for septet, point in table["decode"].items() if septet != ESCAPE}


def _single(language: int) -> Mapping[int, str]:
    table = GSMCHARMAPS.get(language, {}).get("singleShift") or GSMCHARMAPS[0]["singleShift"]
    return {septet: chr(point) for septet, point in table["decode"].items() if septet != ESCAPE}


_LOCKING = {language: _locking(language) for language in GSMCHARMAPS}
_SINGLE = {language: _single(language) for language in GSMCHARMAPS}
_ENCODE = {char: bytes((ESCAPE, septet)) for septet, char in _SINGLE[0].items()} | {
    char: bytes((septet,)) for septet, char in _LOCKING[0].items()
}
_COST = {char: len(septets) for char, septets in _ENCODE.items()}


def fits(text: str) -> bool:
    """Can `text` be written with the default alphabet and its extension?"""
    return all(char in _ENCODE for char in text)


def cost(char: str) -> int:
    """Return how many septets a character takes: 1, or 2 behind an escape.

    Raises:
        KeyError: It is not in the default alphabet.
    """
    return _COST[char]


def septets_of(text: str) -> bytes:
    """Return the septets of `text` in the default alphabet and its extension.

    Raises:
        UnicodeEncodeError: It holds another character, see `fits`.
    """
    try:
        return b"".join([_ENCODE[char] for char in text])
    except KeyError:
        at = next(n for n, char in enumerate(text) if char not in _ENCODE)
        raise UnicodeEncodeError("gsm7", text, at, at + 1, "not in the alphabet") from None


def text_of(septets: bytes, *, locking: int = 0, single: int = 0) -> str:
    """Return the text of `septets`, with the national tables of these languages (0: the default ones).

    What stands behind an escape and is in no table counts as if without it, an escape behind an escape is a space, and
    one at the end is nothing (23.038, 6.2.1.1).
    """
    plain, shifted = _LOCKING.get(locking, _LOCKING[0]), _SINGLE.get(single, _SINGLE[0])
    found: list[str] = []
    escaped = False
    for septet in septets:
        if septet == ESCAPE:
            if escaped:
                found.append(_SPACE)
            escaped = not escaped
            continue
        char = shifted.get(septet) if escaped else None
        found.append(plain.get(septet, _SPACE) if char is None else char)
        escaped = False
    return "".join(found)


def pack(septets: bytes, *, fill: int = 0) -> bytes:
    """Return the octets that hold `septets`, the first bit behind `fill` empty ones."""
    bits = 0
    for place, septet in enumerate(septets):
        bits |= septet << 7 * place
    return (bits << fill).to_bytes((fill + 7 * len(septets) + 7) // 8, "little")


def unpack(octets: bytes, count: int, *, fill: int = 0) -> bytes:
    """Return up to `count` septets, as many as there are, that begin behind `fill` bits."""
    count = max(0, min(count, (8 * len(octets) - fill) // 7))
    bits = int.from_bytes(octets, "little") >> fill
    return bytes([bits >> 7 * place & 0x7F for place in range(count)])
