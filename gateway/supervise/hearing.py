"""How far we hear: every second a word of our own goes the way of all reports, and counts when it is stored.

What the broker had before that word is stored by then. So the time at which it was sent is the horizon of supervision:
nobody is judged by a later one. While we are down, or the broker is, or the database, the horizon stands still, and no
terminal looks dead because of that. A horizon that was still for long and moves again has been deaf meanwhile.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from gateway.links.steady import SteadyClock

__all__ = ["DEAF_AFTER", "Hearing", "Moved"]

DEAF_AFTER = timedelta(seconds=5)
"""For how long the horizon may stand still before that counts as not having listened."""

_MOST_UNDER_WAY = 30


@dataclass(frozen=True, slots=True)
class Moved:
    """The horizon is at ``horizon`` now. ``deaf_from``: it had stood still there for long before."""

    horizon: datetime
    deaf_from: datetime | None


@dataclass(slots=True)
class _Word:
    sent_at: datetime
    missing: set[str] = field(default_factory=set)


class Hearing:
    """Counts our own words. ``ways`` are the topics that bring reports: each word goes all of them."""

    def __init__(self, clock: SteadyClock, ways: Sequence[str], *, life: str) -> None:
        """`life` tells this process from the one before, whose words may still come."""
        self._clock = clock
        self._ways = tuple(ways)
        self._life = life
        self._number = 0
        self._under_way: OrderedDict[str, _Word] = OrderedDict()
        self._heard: datetime | None = None
        self.horizon: datetime | None = None

    def resume(self, horizon: datetime | None) -> None:
        """Go on from the horizon of the process before."""
        self.horizon = horizon
        self._heard = None
        self._under_way.clear()

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
        word = self._under_way.get(payload.decode("ascii", "replace"))
        if word is None:
            return
        word.missing.discard(way)
        if not word.missing:
            if self._heard is None or word.sent_at > self._heard:
                self._heard = word.sent_at
            del self._under_way[payload.decode("ascii")]

    def move(self) -> Moved | None:
        """Move the horizon to the last word that was heard; None: none was since the last time."""
        heard, before = self._heard, self.horizon
        if heard is None or (before is not None and heard <= before):
            return None
        self.horizon = heard
        deaf = before is not None and heard - before > DEAF_AFTER
        return Moved(heard, before if deaf else None)
