"""The ladder (梯级) of a leg: how often and by which channel a party is called until its own fact is there.

A leg ends with what its own role does, never with what another role knows: a guardian who is on the way does not stop
the calls to the hotline. Times are planned from when the leg was armed, so an outage delays a call and repeats none.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from gateway.domain.case import RESCUE, Fact
from gateway.domain.directory import Party

__all__ = ["ONCE", "Calls", "Climb", "Ladder", "arranged", "climb", "ending_fact", "first_wake"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """How one role is called in a plan.

    Attributes:
        channels: Kinds of channels in the order in which calls use them; empty: the party's own order.
        within: By when a human of the role must have answered. Passing it is a breach, and calls the stand-ins in.
        again: How long a call waits for an answer before the next one.
        times: Calls in all. The obligation stays open after the last one.
        stand_in: Roles that step in when this one has nobody, or nobody of it answered in time; in this order.
        graded: Only the parties of the first grade are called at once; each further grade is a stand-in before others.
        gate: Agreement that a person of the household must have signed before this role is called at all (R3).
        language: Language of the messages, None: that of the plan or site.
        template: Text of the message by language, see ``gateway.notify.compose``.
    """

    channels: tuple[str, ...] = ()
    within: timedelta = timedelta(minutes=3)
    again: timedelta = timedelta(minutes=1)
    times: int = 3
    stand_in: tuple[str, ...] = ()
    graded: bool = False
    gate: str | None = None
    language: str | None = None
    template: Mapping[str, str] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """Return what a leg keeps of it: an open case goes by the plan that it began with.

        It is the same mapping for all legs of a ladder, and not to be changed.
        """
        known = _records.get(id(self))
        if known is None:
            if len(_records) >= _MOST_RECORDS:
                _records.clear()
                _recorded.clear()
            # Both are kept, so nothing else can have their ids.
            known = _records[id(self)] = (self, self._record())
            _recorded[id(known[1])] = self
        return known[1]

    def _record(self) -> dict[str, Any]:
        return {
            "channels": list(self.channels),
            "within_s": self.within.total_seconds(),
            "again_s": self.again.total_seconds(),
            "times": self.times,
            "stand_in": list(self.stand_in),
            "graded": self.graded,
            "gate": self.gate,
            "language": self.language,
            "template": dict(self.template),
        }

    @classmethod
    def of_record(cls, record: Mapping[str, Any] | None) -> "Ladder":
        """Read what `record` wrote; nothing: a single call."""
        if not record:
            return ONCE
        if (known := _recorded.get(id(record))) is not None:
            return known
        return cls(
            channels=tuple(record.get("channels", ())),
            within=timedelta(seconds=record["within_s"]),
            again=timedelta(seconds=record["again_s"]),
            times=record["times"],
            stand_in=tuple(record.get("stand_in", ())),
            graded=record.get("graded", False),
            gate=record.get("gate"),
            language=record.get("language"),
            template=record.get("template") or {},
        )


_MOST_RECORDS = 4096
_records: dict[int, tuple[Ladder, dict[str, Any]]] = {}
_recorded: dict[int, Ladder] = {}

ONCE = Ladder(times=1, within=timedelta(0))
"""A single call without a deadline: what technical reports and tests get, and who was called in by hand."""


def ending_fact(role: str) -> Fact:
    """Return the fact that ends the calls to `role`: what only this role, or whoever spoke with it, can have done."""
    if role == "hotline":
        return Fact.OWNED
    return Fact.DISPATCHED if role in RESCUE else Fact.INFORMED


def arranged(party: Party, kinds: tuple[str, ...]) -> Party:
    """Return the party with its channels in the order of `kinds`; those not named stay behind the others."""
    if not kinds:
        return party
    place = {kind: number for number, kind in reversed(list(enumerate(kinds)))}
    return replace(party, channels=tuple(sorted(party.channels, key=lambda one: place.get(one.kind, len(place)))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """How the calls on a leg stand. ``armed_at`` is the press that they belong to, ``made`` counts from there."""

    armed_at: datetime
    made: int
    overdue: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Climb:
    """What a leg wants now: ``call`` is the number of the call to make, ``overdue`` that its deadline has passed."""

    call: int | None
    overdue: bool
    wake_at: datetime | None


def first_wake(ladder: Ladder, armed_at: datetime) -> datetime | None:
    """Return when a leg that was armed then wants to be looked at first."""
    return climb(ladder, Calls(armed_at=armed_at, made=1, overdue=False), now=armed_at).wake_at


def climb(ladder: Ladder, calls: Calls, *, now: datetime) -> Climb:
    """Return what is due on an unanswered leg by `now`.

    Calls that were missed while nobody looked are one call, on the channel of the newest.
    """
    passed = 1 + max(0, (now - calls.armed_at) // ladder.again) if ladder.again else 1
    due = min(ladder.times, passed)
    made = max(calls.made, due)
    deadline = calls.armed_at + ladder.within if ladder.within else None
    overdue = deadline is not None and not calls.overdue and deadline <= now
    wakes = []
    if made < ladder.times:
        wakes.append(calls.armed_at + made * ladder.again)
    if deadline is not None and not calls.overdue and not overdue:
        wakes.append(deadline)
    return Climb(call=due if due > calls.made else None, overdue=overdue, wake_at=min(wakes, default=None))
