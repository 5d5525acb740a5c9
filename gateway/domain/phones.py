"""Telephone numbers: what is the same in all the ways in which one is written."""

import re

__all__ = ["is_emergency_line", "masked", "tail"]

_EMERGENCY = frozenset({"110", "112", "119", "120", "122", "999"})
_LONGEST_AREA = 4

_TAIL = 10


def tail(number: str) -> str:
    """Return what tells a number from others, with or without the code of its country: its last ten digits.

    A network shows a number now as +8613812345678, now as 13812345678; a landline is 02588011234 at home and
    +862588011234 elsewhere. Of what is no number, as the name of a company, it is the name.
    """
    digits = re.sub(r"\D", "", number)
    return digits[-_TAIL:] or number.strip().lower()


def is_emergency_line(number: str) -> bool:
    """Is it 110, 119, 120 or the like, with or without an area in front? No machine calls these by itself (D13)."""
    plain = number.strip()
    bare = plain.removeprefix("+86").removeprefix("0086")
    digits = re.sub(r"\D", "", bare)
    if digits in _EMERGENCY:
        return True
    has_area = bare != plain or digits.startswith("0")
    return has_area and digits[-3:] in _EMERGENCY and len(digits) <= _LONGEST_AREA + 3


def masked(number: str) -> str:
    """Return a number as a list may show it: who knows it recognises it, nobody else learns it."""
    if len(number) > 8:
        return f"{number[:-8]}****{number[-4:]}"
    return number if len(number) < 6 else f"****{number[-2:]}"
