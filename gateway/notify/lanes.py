"""Which notice is sent next: a lane for each party and channel, calls of emergencies before everything else.

Pure bookkeeping without a task of its own. Every lane has so many places; lanes take their turns, so that no party
waits behind another's queue, and of one lane notices of one rank leave in the order in which they came. Ranks matter
only while more waits than can be sent at a time.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import islice

from gateway.domain.kinds import CaseClass
from gateway.domain.outbox import CALLS, DueNotice

__all__ = ["Lane", "Lanes", "Place", "Rank"]


class Rank(IntEnum):
    """What goes first. Of each emergency one party hears before any hears of another one twice."""

    FIRST_CALL = 0
    CALL = 1
    OTHER = 2


def rank_of(notice: DueNotice, *, first: bool) -> Rank:
    """Return the rank of a notice; `first` says that it is the one for its case that goes first.

    Word of a better place or of the end, drills, service and broken terminals can wait for calls for help.
    """
    if notice.case.case_class != CaseClass.EMERGENCY or notice.reason not in CALLS:
        return Rank.OTHER
    return Rank.FIRST_CALL if first else Rank.CALL


@dataclass(slots=True)
class Place:
    """A notice in its lane. ``known_s``: when it was last known to be due, by the caller's monotonic clock."""

    notice: DueNotice
    rank: Rank
    known_s: float


@dataclass(slots=True, eq=False)
class Lane:
    """What waits for one party on one channel, and how much is being sent. ``asking``: see `Lanes.start`."""

    waiting: dict[Rank, deque[Place]] = field(default_factory=lambda: {rank: deque() for rank in Rank})
    sending: int = 0
    asking: bool = False


class Lanes:
    """All lanes of a worker."""

    def __init__(self, *, parallel: int, stale_s: float) -> None:
        """Send up to `parallel` notices in a lane at a time; what has waited for `stale_s` is looked up again."""
        self._parallel = parallel
        self._stale_s = stale_s
        self._lanes: dict[tuple[str, str, bool], Lane] = {}
        self._turns: dict[Rank, deque[Lane]] = {rank: deque() for rank in Rank}
        self._in_turn: dict[Rank, set[Lane]] = {rank: set() for rank in Rank}
        self.waiting = 0

    def put(self, notice: DueNotice, *, first: bool, now_s: float) -> None:
        """Let `notice`, which is due now, wait for its turn; see `rank_of`."""
        # Word of a better location queues apart: many of them must not hold up a call for help.
        key = (notice.party.id, notice.spec.kind, notice.reason == "location")
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane()
        rank = rank_of(notice, first=first)
        lane.waiting[rank].append(Place(notice, rank, now_s))
        self.waiting += 1
        self._line_up(lane)

    def _line_up(self, lane: Lane) -> None:
        if lane.asking or lane.sending >= self._parallel:
            return
        for rank, waiting in lane.waiting.items():
            if waiting and lane not in self._in_turn[rank]:
                self._in_turn[rank].add(lane)
                self._turns[rank].append(lane)

    @property
    def ready(self) -> bool:
        """Is there anything that `start` would return?"""
        return any(self._turns.values())

    def start(
        self, *, now_s: float, most: int, most_other: int, ask: Callable[[Lane, list[Place]], None]
    ) -> Iterable[tuple[Lane, DueNotice]]:
        """Return up to `most` calls of emergencies, and of anything else up to `most_other`, to be sent now.

        Whoever has waited too long may be over meanwhile (I4): `ask` gets a lane with those at its head, to find out
        and to say so by `asked`. The lane stands still until then, and no other.
        """
        for rank in (Rank.FIRST_CALL, Rank.CALL):
            for started in self._start(rank, most=most, now_s=now_s, ask=ask):
                most -= 1
                yield started
        yield from self._start(Rank.OTHER, most=most_other, now_s=now_s, ask=ask)

    def _start(
        self, rank: Rank, *, most: int, now_s: float, ask: Callable[[Lane, list[Place]], None]
    ) -> Iterable[tuple[Lane, DueNotice]]:
        turns = self._turns[rank]
        while turns and most:
            lane = turns.popleft()
            self._in_turn[rank].discard(lane)
            waiting = lane.waiting[rank]
            if lane.asking or lane.sending >= self._parallel or not waiting:
                continue
            if now_s - waiting[0].known_s > self._stale_s:
                lane.asking = True
                stale = list(islice(waiting, _ASKED_AT_ONCE))
                for _ in stale:
                    waiting.popleft()
                ask(lane, stale)
                continue
            place = waiting.popleft()
            lane.sending += 1
            self.waiting -= 1
            most -= 1
            self._line_up(lane)
            yield lane, place.notice

    def asked(self, lane: Lane, places: list[Place], *, due: Callable[[DueNotice], bool], now_s: float) -> None:
        """Put what is still due back to its place, ahead of what came later; the rest is out."""
        lane.asking = False
        self.waiting -= len(places)
        for place in reversed(places):
            if due(place.notice):
                place.known_s = now_s
                lane.waiting[place.rank].appendleft(place)
                self.waiting += 1
        self._line_up(lane)

    def sent(self, lane: Lane) -> None:
        """Give a place in `lane` back."""
        lane.sending -= 1
        self._line_up(lane)


_ASKED_AT_ONCE = 128
