"""What people answer by SMS or by a key: a digit, perhaps with the letter of a case, or a few words."""

import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass
from itertools import chain, product

__all__ = ["LETTERS", "TextAnswer", "answer_of_key", "free_code", "read_answer"]

LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"
"""By which several open cases of one person are told apart; none that looks like a digit."""

_DIGITS = {"0": "cannot", "1": "coming", "2": "arrived"}
_FORM = re.compile(
    rf"([012])(?:([\s.。,，、!！]*)([{LETTERS}]{{1,2}})(?![0-9A-Z]))?(?![0-9A-Z])([\s.。,，、;；!！:：]*)(.*)",
    re.DOTALL,
)
_PLAIN = re.compile(r"([012])()()(?![0-9A-Z])([\s.。,，、;；!！:：]*)(.*)", re.DOTALL)
_GOES_ON = ("来", "马上", "赶", "在路上", "到了", "已到", "到达", "不", "去不了", "没")
"""Words that may stand right behind the digit: 2到了 is an answer, 2点到 tells a time."""

_YES = re.compile(r"马上|赶|在路上|来了|到了|已到|到达|coming|arrived|on (?:my|the) way", re.IGNORECASE)
_NO = re.compile(
    r"来不了|去不了|不来|不去|不能|不行|不会来|不方便|没空|没时间|没办法|没法|"
    r"(?:can'?t|can ?not|won'?t|unable|not(?! far))\b",
    re.IGNORECASE,
)
_NOT_THERE = re.compile(r"(?:还)?(?:没到|没有到|未到|不到|没在|不在)|not\b", re.IGNORECASE)


def _unclear(answer: str, rest: str) -> bool:
    """Do words say the opposite of their digit? Whichever is meant, calls go on until somebody has said it."""
    match answer:
        case "cannot":
            return _YES.match(rest) is not None and not _NO.search(rest)
        case "arrived":
            return _NOT_THERE.match(rest) is not None
        case _:
            return _NO.match(rest) is not None and not _YES.search(_NO.sub("", rest))


_NO_ANSWER = re.compile(
    r"(?:个|人|点|分|小时|时|秒|天|日|号|楼|层|岁|次|年|月|周|元|块|米|公里|hours?|hrs?|h\b|mins?\b|minutes?|days?|weeks?|"
    r"people|persons?|floors?|o'?clock|am\b|pm\b|km\b|st\b|nd\b)",
    re.IGNORECASE,
)
_UNITS = frozenset({"AM", "PM", "KM", "ST", "ND", "RD", "TH"})
_MINUTES = re.compile(r"(\d{1,3})\s*(?:分钟|分|min)")
_WORDS = {
    "cannot": ("来不了", "去不了", "不能", "不行", "没空", "cannot", "can't", "can not", "no"),
    "arrived": ("到了", "已到", "已到达", "arrived", "i am here", "i'm here"),
    "coming": ("马上来", "马上到", "来了", "赶来", "在路上", "coming", "i am coming", "on my way", "on the way"),
    "accepted": ("收到", "知道了", "好的", "好", "ok", "yes", "received"),
}


@dataclass(frozen=True, slots=True)
class TextAnswer:
    """``answer`` is coming, arrived, cannot or accepted, None: words for the timeline. ``code`` names the case.

    ``unclear``: a digit, and words that say the opposite.
    """

    answer: str | None
    code: str | None = None
    text: str | None = None
    minutes: int | None = None
    unclear: bool = False


def read_answer(text: str, codes: Collection[str] = ()) -> TextAnswer:
    """Read an answer. A digit counts at the beginning only and not as a number of things; words only standing alone.

    `codes` are those that the sender was told: behind a space other letters are the beginning of words.
    """
    plain = unicodedata.normalize("NFKC", text).strip()
    match = _FORM.match(plain.upper())
    if match is not None and match[3] and not _is_code(match[3], plain[match.start(3) :], codes, apart=bool(match[2])):
        match = _PLAIN.match(plain.upper())
    if match is not None:
        answer, code = _DIGITS[match[1]], match[3] or None
        rest = plain[match.start(5) :].strip()
        apart = bool(match[4]) or code is not None
        if not rest or (apart and not _NO_ANSWER.match(rest)) or rest.startswith(_GOES_ON):
            if _unclear(answer, rest):
                return TextAnswer(None, code, plain, unclear=True)
            minutes = _MINUTES.search(plain)
            return TextAnswer(answer, code, rest or None, None if minutes is None else int(minutes[1]))
    bare = re.sub(r"[\s.。,，!！]+$", "", plain.lower())
    for answer, words in _WORDS.items():
        if bare in words:
            return TextAnswer(answer, None, plain)
    return TextAnswer(None, None, plain)


def _is_code(code: str, written: str, codes: Collection[str], *, apart: bool) -> bool:
    """Do letters behind a digit name a case? "1 a few minutes" and 1am name none, "1 b, coming" may."""
    if code in _UNITS or re.match(r"a\s+[a-z]", written):
        return False
    return not apart or len(code) == 1 or code in codes


def answer_of_key(keys: str) -> str | None:
    """Return what the first key says that was pressed in a call; any other key says only that somebody is there."""
    return _DIGITS.get(keys[:1]) if keys else None


def free_code(used: set[str], *, urgent: bool) -> str:
    """Return the code of another open case: a letter, or two when those are used up or it is no emergency."""
    pairs = (pair for pair in map("".join, product(LETTERS, LETTERS)) if pair not in _UNITS)
    codes = chain(LETTERS, pairs) if urgent else pairs
    return next((code for code in codes if code not in used), LETTERS[-1] * 2)
