"""What waits to be stored: emergencies before everything else, and of one terminal one at a time, in its order.

Pure bookkeeping without a task of its own. Whoever stores asks for `next` whenever something came or something is done.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

__all__ = ["Batch", "Pace", "Waiting"]

T = TypeVar("T")

Line = tuple[str, bool]


@dataclass(frozen=True, slots=True, eq=False)
class Batch(Generic[T]):
    """What is stored together. ``began_s`` is a time of the caller's monotonic clock."""

    items: Sequence[T]
    urgent: bool
    began_s: float
    lines: Sequence[Line] = field(repr=False)


class Pace:
    """Tells whether more than `most` things have come within `spell_s`, now or in the spell before."""

    def __init__(self, *, most: int = 100, spell_s: float = 0.2) -> None:
        """Begin with nothing."""
        self._most = most
        self._spell_s = spell_s
        self._spell = 0
        self._counts = (0, 0)

    def count(self, now_s: float) -> None:
        """Note that one has come."""
        before, here = self._at(now_s)
        self._counts = (before, here + 1)

    def pours(self, now_s: float) -> bool:
        """Is it coming faster than that?"""
        return max(self._at(now_s)) > self._most

    def _at(self, now_s: float) -> tuple[int, int]:
        spell = int(now_s / self._spell_s)
        if spell != self._spell:
            self._counts = (self._counts[1] if spell == self._spell + 1 else 0, 0)
            self._spell = spell
        return self._counts


class Waiting(Generic[T]):
    """Hands out batches: of emergencies at most two at a time, of anything else one, and that alone.

    So an emergency finds a place at once however much else is there, and a database on the same machine is not asked
    for more than it can do at a time. A batch that takes longer than `long_s` (somebody holds the row of a case) no
    longer counts: it must hold up nothing else. `most` batches are under way in any case, and half of these places are
    for emergencies only. What waits for `patient_s` is begun beside an emergency, or somebody's flood would hide it;
    while more comes than can be stored anyway it waits for up to `pouring_s`, since to take it in is work enough, and
    then goes a batch at a time every `patient_s`.
    """

    def __init__(
        self,
        *,
        most: int,
        largest: int = 128,
        largest_other: int = 16,
        long_s: float = 0.25,
        patient_s: float = 1.0,
        pouring_s: float = 10.0,
    ) -> None:
        """Hand out up to `largest` emergencies in a batch, or `largest_other` of anything else."""
        self._most = most
        self._largest = {True: largest, False: largest_other}
        self._long_s = long_s
        self._patient_s = patient_s
        self._pouring_s = pouring_s
        self._others_since_s: float | None = None
        self._lines: dict[Line, deque[T]] = {}
        self._ready: dict[bool, deque[Line]] = {True: deque(), False: deque()}
        self._under_way: list[Batch[T]] = []

    def put(self, item: T, *, source: str, urgent: bool) -> None:
        """Let `item` wait behind what the same source sent before; what is urgent waits for nothing that is not."""
        line = (source, urgent)
        if line in self._lines:
            self._lines[line].append(item)
        else:
            self._lines[line] = deque((item,))
            self._ready[urgent].append(line)

    def next(self, *, now_s: float, pouring: bool = False) -> Batch[T] | None:
        """Return what is to be stored now, or None while nothing waits or enough is under way.

        `pouring` says that much of what can wait is coming in.
        """
        fresh = [batch for batch in self._under_way if now_s - batch.began_s < self._long_s]
        if len(fresh) >= _AT_ONCE or len(self._under_way) >= self._most:
            return None
        if self._turn_of_others(fresh, now_s=now_s, pouring=pouring):
            # As long as it pours, the next one has its turn like any that waits beside emergencies.
            self._others_since_s = now_s - self._pouring_s + self._patient_s if pouring else None
            return self._take(urgent=False, now_s=now_s)
        return self._take(urgent=True, now_s=now_s) if self._ready[True] else None

    def _turn_of_others(self, fresh: Sequence[Batch[T]], *, now_s: float, pouring: bool) -> bool:
        if not self._ready[False]:
            self._others_since_s = None
            return False
        if self._others_since_s is None:
            self._others_since_s = now_s
        if sum(not batch.urgent for batch in self._under_way) >= max(1, self._most // 2):
            return False
        if now_s - self._others_since_s >= (self._pouring_s if pouring else self._patient_s):
            return all(batch.urgent for batch in fresh)
        return not (pouring or fresh or self._ready[True])

    def _take(self, *, urgent: bool, now_s: float) -> Batch[T]:
        ready = self._ready[urgent]
        lines = [ready.popleft() for _ in range(min(len(ready), self._largest[urgent]))]
        batch = Batch([self._lines[line].popleft() for line in lines], urgent, now_s, lines)
        self._under_way.append(batch)
        return batch

    def done(self, batch: Batch[T]) -> None:
        """Let what waits behind `batch` go on."""
        self._under_way.remove(batch)
        for line in batch.lines:
            if self._lines[line]:
                self._ready[line[1]].append(line)
            else:
                del self._lines[line]

    def knows(self, source: str, *, urgent: bool) -> bool:
        """Does anything of this source wait, or is it under way?"""
        return (source, urgent) in self._lines

    def holds(self, source: str, *, urgent: bool) -> bool:
        """Does anything of this source still wait to be begun?"""
        return bool(self._lines.get((source, urgent)))

    @property
    def urgent(self) -> bool:
        """Is there anything urgent, waiting or under way?"""
        return bool(self._ready[True]) or any(batch.urgent for batch in self._under_way)

    @property
    def held_up_until_s(self) -> float | None:
        """When the oldest batch under way will no longer count, or None while nothing waits for that."""
        if not (self._ready[True] or self._ready[False]) or not self._under_way:
            return None
        return min(batch.began_s for batch in self._under_way) + self._long_s


_AT_ONCE = 2
