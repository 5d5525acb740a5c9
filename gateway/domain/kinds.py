"""Kinds of alarm and the class of case they lead to."""

from collections.abc import Iterable
from enum import StrEnum

__all__ = [
    "AUDIT",
    "EMERGENCIES",
    "NEVER_IN_A_TEST",
    "SERVICE",
    "TECHNICAL",
    "UNREADABLE",
    "WORDS",
    "CaseClass",
    "classify",
]

EMERGENCIES = frozenset({"sos", "fall", "smoke", "gas", "water", "inactivity", "wander", "duress"})
TECHNICAL = frozenset({"low_battery", "power_lost", "tamper"})
SERVICE = frozenset({"service"})
NEVER_IN_A_TEST = frozenset({"ambulance_120", "fire_119", "police_110"})
"""Roles that a drill or test never wakes (promise 5 of the design)."""

UNREADABLE = "unreadable"
"""The kind of an alarm that could not be read: nobody's plan knows it, so it is an emergency."""

AUDIT = "audit"
"""The kind of what the auditor found. From a terminal it is a kind that nobody knows, and so an emergency."""

WORDS = {
    "zh": {
        "sos": "紧急呼叫",
        "fall": "跌倒",
        "smoke": "烟雾报警",
        "gas": "燃气报警",
        "water": "漏水报警",
        "inactivity": "长时间无活动",
        "wander": "走失",
        "duress": "胁迫报警",
        "low_battery": "电量低",
        "power_lost": "断电",
        "tamper": "终端被拆动",
        "service": "服务请求",
        "unreadable": "无法识别的报警",
        "audit": "系统自检发现问题",
    },
    "en": {
        "sos": "Call for help",
        "fall": "Fall",
        "smoke": "Smoke",
        "gas": "Gas",
        "water": "Water",
        "inactivity": "No activity for long",
        "wander": "Gone astray",
        "duress": "Duress",
        "low_battery": "Battery low",
        "power_lost": "Power lost",
        "tamper": "Terminal tampered with",
        "service": "Service wanted",
        "unreadable": "Alarm that could not be read",
        "audit": "Found by the audit",
    },
}
"""What each kind is called, by language. A kind that is not in here is shown as it is."""


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
