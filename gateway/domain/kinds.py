"""Kinds of alarm and the class of case they lead to."""

from collections.abc import Iterable
from enum import StrEnum

__all__ = [
    "AREA_LOST",
    "AUDIT",
    "EMERGENCIES",
    "MODEM_LOST",
    "NEVER_IN_A_TEST",
    "QUIETABLE",
    "RING",
    "SERVICE",
    "SUPERVISED",
    "TECHNICAL",
    "UNREADABLE",
    "WORDS",
    "CaseClass",
    "classify",
]

RING = "ring"
"""The kind of a call from a terminal's number, which nobody picks up: that it called is the alarm."""

MODEM_LOST = "modem_lost"
"""The kind of what happens to a modem of ours, or to its SIM."""

EMERGENCIES = frozenset({"sos", "fall", "smoke", "gas", "water", "inactivity", "wander", "duress"})
TECHNICAL = frozenset({"low_battery", "power_lost", "tamper"})
SERVICE = frozenset({"service"})
NEVER_IN_A_TEST = frozenset({"ambulance_120", "fire_119", "police_110"})
"""Roles that a drill or test never wakes (promise 5 of the design)."""

UNREADABLE = "unreadable"
"""The kind of an alarm that could not be read: nobody's plan knows it, so it is an emergency."""

AUDIT = "audit"
"""The kind of what the auditor found. From a terminal it is a kind that nobody knows, and so an emergency."""

AREA_LOST = "area_lost"
"""The kind of what many terminals of one area have in common."""

SUPERVISED = frozenset(
    {
        *("offline", "low_battery", "battery_critical", "power_lost", "out_of_range", "tamper", "clock_wrong"),
        *("signal_weak", "sim_unpaid", "not_tested", "never_pressed", "firmware_old"),
    }
)
"""Kinds of what supervision finds. Those that are not in `TECHNICAL` are none for a terminal: from one they are words
that nobody knows, and so an emergency."""

QUIETABLE = SUPERVISED - {"offline", "battery_critical", "power_lost", "out_of_range", "tamper", "sim_unpaid"}
"""Kinds that may wait for the morning: nobody is without help meanwhile."""

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
        "ring": "终端来电求助",
        "low_battery": "电量低",
        "power_lost": "断电",
        "tamper": "终端被拆动",
        "service": "服务请求",
        "unreadable": "无法识别的报警",
        "audit": "系统自检发现问题",
        "offline": "终端失联",
        "battery_critical": "电量即将耗尽",
        "out_of_range": "挂坠超出范围",
        "clock_wrong": "终端时钟错误",
        "signal_weak": "信号弱",
        "sim_unpaid": "电话卡欠费或即将到期",
        "not_tested": "长期未测试",
        "never_pressed": "从未按过按键",
        "firmware_old": "固件过旧",
        "area_lost": "片区终端同时异常",
        "modem_lost": "短信语音模块故障",
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
        "ring": "Call from the terminal",
        "low_battery": "Battery low",
        "power_lost": "Power lost",
        "tamper": "Terminal tampered with",
        "service": "Service wanted",
        "unreadable": "Alarm that could not be read",
        "audit": "Found by the audit",
        "offline": "Terminal lost",
        "battery_critical": "Battery nearly empty",
        "out_of_range": "Pendant out of range",
        "clock_wrong": "Clock of the terminal wrong",
        "signal_weak": "Signal weak",
        "sim_unpaid": "SIM unpaid or about to expire",
        "not_tested": "Not tested for long",
        "never_pressed": "Never pressed",
        "firmware_old": "Firmware too old",
        "area_lost": "Many terminals of one area in trouble",
        "modem_lost": "A modem of the gateway fails",
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
