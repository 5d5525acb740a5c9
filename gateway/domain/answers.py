"""What people answer by SMS or by a key: a digit, perhaps with the letter of a case, or a few words."""

import re
import unicodedata
from dataclasses import dataclass

__all__ = ["LETTERS", "TextAnswer", "answer_of_key", "free_letter", "read_answer"]

LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"
"""By which several open cases of one person are told apart; none that looks like a digit."""

_DIGITS = {"0": "cannot", "1": "coming", "2": "arrived"}
_FORM = re.compile(rf"([012])(?:[\s.。,，、!！]*([{LETTERS}]))?(?![0-9A-Z])([\s.。,，、;；!！:：]*)(.*)", re.DOTALL)
_GOES_ON = ("来", "马上", "赶", "在路上", "到了", "已到", "到达", "不", "去不了", "没")
"""Words that may stand right behind the digit: 2到了 is an answer, 2点到 tells a time."""

_NO_ANSWER = re.compile(
    r"(?:个|人|点|分|小时|时|秒|天|日|号|楼|层|岁|次|年|月|周|元|块|米|公里|hours?|hrs?|h\b|mins?\b|minutes?|days?|weeks?|"
    r"people|persons?|floors?|o'?clock|am\b|pm\b|km\b|st\b|nd\b)",
    re.IGNORECASE,
)
_MINUTES = re.compile(r"(\d{1,3})\s*(?:分钟|分|min)")
_WORDS = {
    "cannot": ("来不了", "去不了", "不能", "不行", "没空", "cannot", "can't", "can not", "no"),
    "arrived": ("到了", "已到", "已到达", "arrived", "i am here", "i'm here"),
    "coming": ("马上来", "马上到", "来了", "赶来", "在路上", "coming", "i am coming", "on my way", "on the way"),
    "accepted": ("收到", "知道了", "好的", "好", "ok", "yes", "received"),
}


@dataclass(frozen=True, slots=True)
class TextAnswer:
    """``answer`` is coming, arrived, cannot or accepted, None: words for the timeline. ``letter`` names the case."""

    answer: str | None
    letter: str | None = None
    text: str | None = None
    minutes: int | None = None


def read_answer(text: str) -> TextAnswer:
    """Read an answer. A digit counts at the beginning only and not as a number of things; words only standing alone."""
    plain = unicodedata.normalize("NFKC", text).strip()
    match = _FORM.match(plain.upper())
    if match is not None:
        rest = plain[match.start(4) :].strip()
        apart = bool(match[3]) or match[2] is not None
        if not rest or (apart and not _NO_ANSWER.match(rest)) or rest.startswith(_GOES_ON):
            minutes = _MINUTES.search(plain)
            return TextAnswer(_DIGITS[match[1]], match[2], rest or None, None if minutes is None else int(minutes[1]))
    bare = re.sub(r"[\s.。,，!！]+$", "", plain.lower())
    for answer, words in _WORDS.items():
        if bare in words:
            return TextAnswer(answer, None, plain)
    return TextAnswer(None, None, plain)


def answer_of_key(keys: str) -> str | None:
    """Return what the first key says that was pressed in a call; any other key says only that somebody is there."""
    return _DIGITS.get(keys[:1]) if keys else None


def free_letter(used: set[str]) -> str:
    """Return the letter of another open case; the last one when somebody has more of them than there are letters."""
    return next((letter for letter in LETTERS if letter not in used), LETTERS[-1])
