"""Kinds of alarm and the class of case they lead to."""

from collections.abc import Iterable
from enum import StrEnum

__all__ = ["EMERGENCIES", "NEVER_IN_A_TEST", "SERVICE", "TECHNICAL", "CaseClass", "classify"]

EMERGENCIES = frozenset({"sos", "fall", "smoke", "gas", "water", "inactivity", "wander", "duress"})
TECHNICAL = frozenset({"low_battery", "power_lost", "tamper"})
SERVICE = frozenset({"service"})
NEVER_IN_A_TEST = frozenset({"ambulance_120", "fire_119", "police_110"})
"""Roles that a drill or test never wakes (promise 5 of the design)."""


class CaseClass(StrEnum):
    """What a case is about. An alarm of one class never joins a case of another."""

    EMERGENCY = "emergency"
    SERVICE = "service"
    TECHNICAL = "technical"
    TEST = "test"


def classify(kinds: Iterable[str], *, test: bool = False) -> CaseClass:
    """Return the class of a case for an alarm with `kinds`, all of which it will show.

    The most serious kind decides, and a kind that nobody knows counts as an emergency (I2, I6). `test` is our
    own decision that the alarm came inside an open test window, never the terminal's word (D11).
    """
    if test:
        return CaseClass.TEST
    present = set(kinds)
    if present - TECHNICAL - SERVICE or not present:
        return CaseClass.EMERGENCY
    return CaseClass.SERVICE if present & SERVICE else CaseClass.TECHNICAL
