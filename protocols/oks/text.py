"""The form that people can type: ``SOS``, or ``SOS 860000000000001 32.0603,118.7969 88%``; and words of others.

Case, width and punctuation do not matter, nor the order. What says nothing that is known is no report; whoever gets it
from a terminal has to look at it all the same.

    KIND … [TEST] [id] [lat,lon] [NN%] [-NNdBm] [#boot.seq] [@20261122T063105Z]
"""

import re
import unicodedata
from datetime import UTC, datetime

from protocols.oks.report import KINDS, Place, SmsReport

__all__ = ["is_pure", "read", "write"]

_LONGEST = 2000
_WORDS = (
    ("low_battery", ("low battery", "battery low", "lowbat", "low bat", "low_battery", "电量低", "低电", "电池低")),
    ("power_lost", ("power alarm", "power off", "power lost", "power_lost", "power cut", "断电", "停电", "掉电")),
    ("wander", ("stockade", "wander", "out of fence", "走失", "越界", "出围栏")),
    ("inactivity", ("inactivity", "no movement", "无活动", "久未活动")),
    ("duress", ("duress", "胁迫")),
    ("smoke", ("smoke", "fire", "烟雾", "着火", "失火", "火灾")),
    ("gas", ("gas", "燃气", "煤气", "天然气")),
    ("water", ("water leak", "water", "漏水", "水浸")),
    ("tamper", ("tamper", "remove alarm", "拆动", "拆除", "防拆")),
    ("fall", ("fall", "fell", "fallen", "摔倒", "跌倒", "摔了")),
    ("service", ("service", "服务请求", "家政")),
    (
        "sos",
        (
            "sos",
            "help me",
            "heip me",
            "help",
            "panic",
            "emergency",
            "求救",
            "救命",
            "救我",
            "救救",
            "帮帮我",
            "来人",
            "紧急",
            "急救",
        ),
    ),
)
_TEST = ("test", "测试", "试验")
# A letter before a number is a hemisphere only where it stands alone: SOS 32.06 is not in the south.
_PLACE = re.compile(
    r"(?:(?<![a-z])([ns])\s*)?(?<![\d.])([+-]?\d{1,2}\.\d{2,})\s*[, ]\s*(?:lo?ng?\s*[:=]?\s*)?"
    r"(?:([ew])\s*)?([+-]?\d{1,3}\.\d{2,})"
)
_BATTERY = re.compile(r"(?<![\d.])(\d{1,3})\s*%|\bbat(?:tery)?\s*[:=]\s*(\d{1,3})\b")
_SIGNAL = re.compile(r"([+-]?\d{1,3})\s*dbm")
_NUMBERS = re.compile(r"#(\d{1,10})\.(\d{1,10})\b")
_AT = re.compile(r"@(\d{8}t\d{6})z")
_IMEI = re.compile(r"(?<!\d)(\d{15})(?!\d)")
_ID = re.compile(r"\bid\s*[:=]\s*([a-z0-9_-]{1,64})", re.IGNORECASE)
_LABELS = re.compile(
    r"(?<![a-z])(?:alarm|imei|id|lat|lon|long|lng|bat|batt|battery|time|speed|signal)(?![a-z])|报警|告警|位置"
)
_MOST = 4_294_967_295


def read(text: str) -> SmsReport | None:
    """Read a text; None: it says nothing that is known."""
    plain = unicodedata.normalize("NFKC", text[:_LONGEST])
    small = plain.lower()
    kinds = _kinds(small)
    if not kinds:
        return None
    boot, seq = _numbers(small)
    return SmsReport(
        kinds=kinds,
        terminal=_terminal(plain),
        boot=boot,
        seq=seq,
        at=_at(small),
        place=_place(small),
        battery_pct=_percent(small),
        signal_dbm=_signal(small),
        test=any(_says(small, word) for word in _TEST),
    )


def is_pure(text: str) -> bool:
    """Is a text a report and nothing else? A bill for gas with a number of fifteen digits is none."""
    rest = unicodedata.normalize("NFKC", text[:_LONGEST]).lower()
    for pattern in (_PLACE, _BATTERY, _SIGNAL, _NUMBERS, _AT, _IMEI, _ID):
        rest = pattern.sub(" ", rest)
    for word in (*_TEST, *(word for _, words in _WORDS for word in words)):
        if _says(rest, word):
            rest = rest.replace(word, " ")
    return re.search(r"\w", _LABELS.sub(" ", rest)) is None


def _kinds(text: str) -> tuple[str, ...]:
    """Return the kinds that stand in a text, in the order of `KINDS`; a longer word is not taken for a shorter one."""
    found = set()
    for kind, words in _WORDS:
        for word in words:
            if _says(text, word):
                found.add(kind)
                text = text.replace(word, " ")
    return tuple(kind for kind in KINDS if kind in found)


def _says(text: str, word: str) -> bool:
    if not word.isascii():
        return word in text
    return re.search(rf"(?<![a-z]){re.escape(word)}(?![a-z])", text) is not None


def _terminal(text: str) -> str | None:
    match = _IMEI.search(text) or _ID.search(text)
    return None if match is None else match[1]


def _numbers(text: str) -> tuple[int | None, int | None]:
    match = _NUMBERS.search(text)
    if match is None or max(int(match[1]), int(match[2])) > _MOST:
        return None, None
    return int(match[1]), int(match[2])


def _at(text: str) -> datetime | None:
    match = _AT.search(text)
    try:
        return None if match is None else datetime.strptime(match[1], "%Y%m%dt%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None


def _place(text: str) -> Place | None:
    match = _PLACE.search(text)
    if match is None:
        return None
    lat = float(match[2]) * (-1 if match[1] == "s" else 1)
    lon = float(match[4]) * (-1 if match[3] == "w" else 1)
    return Place(lat, lon) if abs(lat) <= 90 and abs(lon) <= 180 else None


def _percent(text: str) -> int | None:
    match = _BATTERY.search(text)
    value = None if match is None else int(match[1] or match[2])
    return value if value is not None and value <= 100 else None


def _signal(text: str) -> int | None:
    match = _SIGNAL.search(text)
    return int(match[1]) if match is not None and -200 <= int(match[1]) <= 50 else None


def write(report: SmsReport) -> str:
    """Return a report as people would type it. A place has six decimals, a tenth of a metre, and is wgs84."""
    words = [kind.upper() for kind in report.kinds]
    if report.test:
        words.append("TEST")
    if report.terminal is not None:
        words.append(report.terminal if _IMEI.fullmatch(report.terminal) else f"id:{report.terminal}")
    if report.place is not None:
        words.append(f"{report.place.lat:.6f},{report.place.lon:.6f}")
    if report.battery_pct is not None:
        words.append(f"{report.battery_pct}%")
    if report.signal_dbm is not None:
        words.append(f"{report.signal_dbm}dBm")
    if report.boot is not None and report.seq is not None:
        words.append(f"#{report.boot}.{report.seq}")
    if report.at is not None:
        words.append(f"@{report.at.astimezone(UTC):%Y%m%dT%H%M%SZ}")
    return " ".join(words)
