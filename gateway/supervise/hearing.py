"""How far we hear: every second a word of our own goes the way of all reports, and counts when it is stored.

What the broker had before that word is stored by then. So the time at which it was sent is the horizon of supervision:
nobody is judged by a later one. While we are down, or the broker is, or the database, the horizon stands still, and no
terminal looks dead because of that. A horizon that was still for long and moves again has been deaf meanwhile.
Where several gateways share the reports each share has an ear of its own, and the horizon is that of the last.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import uuid4

from gateway.links.steady import SteadyClock

__all__ = ["DEAF_AFTER", "Ear", "Horizon", "Moved"]

DEAF_AFTER = timedelta(seconds=5)
"""For how long the horizon may stand still before that counts as not having listened."""

_MOST_UNDER_WAY = 30


@dataclass(slots=True)
class _Word:
    sent_at: datetime
    missing: set[str] = field(default_factory=set)


class Ear:
    """Counts our own words in one share of the reports.

    ``ways`` are the topics that bring them: each word goes all of them. ``until`` is when the last one was sent that
    came back; all that the broker had before it is stored.
    """

    def __init__(self, clock: SteadyClock, ways: Sequence[str]) -> None:
        self._clock = clock
        self._ways = tuple(ways)
        self._life = uuid4().hex[:12]  # tells our words from those of the process before, which may still come
        self._number = 0
        self._under_way: OrderedDict[str, _Word] = OrderedDict()
        self.until: datetime | None = None

    def word(self) -> list[tuple[str, bytes]]:
        """Return the next word to be sent: topics and payloads."""
        self._number += 1
        name = f"{self._life}.{self._number}"
        self._under_way[name] = _Word(self._clock.now(), set(self._ways))
        while len(self._under_way) > _MOST_UNDER_WAY:
            self._under_way.popitem(last=False)
        return [(way, name.encode()) for way in self._ways]

    def heard(self, way: str, payload: bytes) -> None:
        """Note that a word has come this way, and that all before it is stored."""
        name = payload.decode("ascii", "replace")
        word = self._under_way.get(name)
        if word is None:
            return
        word.missing.discard(way)
        if not word.missing:
            if self.until is None or word.sent_at > self.until:
                self.until = word.sent_at
            del self._under_way[name]


@dataclass(frozen=True, slots=True)
class Moved:
    """The horizon is at ``horizon`` now. ``deaf_from``: it had stood still there for long before."""

    horizon: datetime
    deaf_from: datetime | None


class Horizon:
    """Up to when everything is stored, in whatever share."""

    def __init__(self) -> None:
        self.at: datetime | None = None

    def resume(self, at: datetime | None) -> None:
        """Go on from the horizon of the process before."""
        self.at = at

    def move(self, until: Iterable[datetime | None]) -> Moved | None:
        """Move to the least of what the shares have heard; None: one has heard nothing new, or nothing at all."""
        each, before = list(until), self.at
        known = [one for one in each if one is not None]
        if not known or len(known) < len(each) or (before is not None and min(known) <= before):
            return None
        self.at = min(known)
        deaf = before is not None and self.at - before > DEAF_AFTER
        return Moved(self.at, before if deaf else None)
