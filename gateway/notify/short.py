"""What an SMS says: as much as fits, the address always, and how to answer (R1, R6).

A text of the GSM alphabet has room for 160 characters, or 153 in each of several messages; any other, as Chinese, for
70, or 67. What is left out when it would not fit: first the link, then the time, then where the
terminal says it is, then what is spoken at length.
"""

from datetime import datetime

from gateway.domain.outbox import DueNotice
from gateway.notify.compose import Spoken, spoken
from protocols.gsm.userdata import split

__all__ = ["compose_short", "parts_of"]

_PLACE = {"zh": "位置", "en": "at "}
_NO_ANSWER = frozenset({"closed", "withdrawn", "location"})


def parts_of(text: str) -> int:
    """Return how many messages a text takes."""
    return len(split(text, reference=0))


def compose_short(
    notice: DueNotice, *, now: datetime, link: str | None, letter: str | None, parts: int, replies: bool = True
) -> str:
    """Return the text of `notice`, in at most `parts` messages.

    `letter` names the case in answers, None where it is the only one; `link` is the signed page. Without `replies`
    nobody can write back, and the page is the only way to answer.
    """
    said = spoken(notice, now=now)
    asks = notice.reason not in _NO_ANSWER
    answers = _answers(said.language, letter) if asks and replies else ""
    shown = f" {link}" if link is not None and asks else ""
    time = f" {said.at:%H:%M}"
    place = "" if said.place is None else f" {_PLACE[said.language]}{said.place}"
    whole, short = _body(said), _brief(said)
    end = answers if replies else shown  # the way to answer stays to the last
    for text in (
        f"{whole}{place}{time}{answers}{shown}",
        f"{whole}{place}{time}{end}",
        f"{whole}{place}{end}",
        f"{whole}{end}",
        f"{short}{end}",
    ):
        if parts_of(text) <= parts:
            return text
    return _cut(short, answers, parts)


def _body(said: Spoken) -> str:
    if said.own is not None:
        return said.own
    middle = f"{said.who}{said.pause}" if said.who else ""
    return f"{said.lead}{said.what}{said.colon}{middle}{said.where}"


def _brief(said: Spoken) -> str:
    return f"{said.lead}{said.what}{said.colon}{said.where}"


def _answers(language: str, letter: str | None) -> str:
    mark = letter or ""
    if language == "zh":
        return f"。回1{mark}赶来 2{mark}已到 0{mark}不能"
    return f". Reply 1{mark} coming, 2{mark} arrived, 0{mark} cannot"


def _cut(text: str, end: str, parts: int) -> str:
    """Leave out of the middle what does not fit; the end of an address tells the door."""
    dots = "…" if any(ord(char) > 0xFF for char in text) else "..."
    for kept in range(len(text) - 1, 10, -1):
        front = kept // 2
        cut = f"{text[:front]}{dots}{text[len(text) - (kept - front) :]}{end}"
        if parts_of(cut) <= parts:
            return cut
    return f"{text[:10]}{end}"
