"""The life of a case (警情) and of its legs: which state may follow which, and what a new press does."""

from datetime import timedelta
from enum import StrEnum

__all__ = [
    "ANSWER_STATES",
    "ENDED_LEGS",
    "WINDOW",
    "CaseState",
    "DomainError",
    "Fact",
    "FalseAlarm",
    "LegState",
    "NotFound",
    "StateConflict",
    "after_answer",
    "facts_of_answer",
    "is_repeat",
    "may_set",
]

WINDOW = timedelta(seconds=30)
"""How long an alarm without numbers counts as a repeat of the same kinds from the same terminal (D5)."""


class DomainError(Exception):
    """Something a person asked for cannot be done; the text is a sentence for them."""


class NotFound(DomainError):
    """The thing asked for is not there."""


class StateConflict(DomainError):
    """The thing asked for does not fit the state it is in."""


class CaseState(StrEnum):
    """A press joins a case only while it is ``OPEN`` (D10)."""

    OPEN = "open"
    SAFE = "safe"
    CLOSED = "closed"


class LegState(StrEnum):
    """``PENDING`` and ``DELIVERED`` are obligations still open: delivered is not told (I7)."""

    PENDING = "pending"
    DELIVERED = "delivered"
    ANSWERED = "answered"
    REFUSED = "refused"
    FAILED = "failed"
    WITHDRAWN = "withdrawn"
    SKIPPED = "skipped"


ENDED_LEGS = frozenset({LegState.ANSWERED, LegState.REFUSED, LegState.FAILED, LegState.WITHDRAWN, LegState.SKIPPED})

ANSWER_STATES = {
    "accepted": LegState.ANSWERED,
    "coming": LegState.ANSWERED,
    "arrived": LegState.ANSWERED,
    "cannot": LegState.REFUSED,
}
"""The state in which each answer of a party leaves its leg."""


def after_answer(state: LegState, answer: str) -> LegState:
    """Return the state of a leg after `answer`.

    A later answer replaces an earlier one: whoever could not may come after all.
    """
    if state in (LegState.WITHDRAWN, LegState.SKIPPED):
        return state
    return ANSWER_STATES[answer]


def is_repeat(case_state: CaseState, *, another_time: bool, says_more: bool) -> bool:
    """Is an alarm whose key is known already the same press again?

    Only while its case is not yet safe, and not when the terminal itself names another time for it or says more than
    before: a reflashed terminal starts to count again, and its next press must not look like an old one (D10, I6).
    """
    return case_state is CaseState.OPEN and not another_time and not says_more


class FalseAlarm(StrEnum):
    """Why an alarm was false: by this false alarms are counted."""

    ACCIDENTAL = "accidental"
    CHILD = "child"
    DEVICE_FAULT = "device_fault"
    TEST_UNANNOUNCED = "test_unannounced"
    PET = "pet"
    UNKNOWN = "unknown"
    OTHER = "other"


# The facts of a case


class Fact(StrEnum):
    """What is known of a rescue. ``HEARD``: the person answered, by voice or by key (I7)."""

    INFORMED = "informed"
    OWNED = "owned"
    DISPATCHED = "dispatched"
    ON_SCENE = "on_scene"
    HEARD = "heard"
    SAFE = "safe"


RESCUE = frozenset({"ambulance_120", "fire_119", "police_110"})
"""Who can send a crew."""

OPERATOR = "operator"
"""Whoever works at a seat of the hotline platform; they may pass on what a role told them by telephone."""

PERSON = "person"
"""The person in need, at the key of the terminal."""

_MAY_SET: dict[Fact, frozenset[str] | None] = {
    Fact.INFORMED: None,
    Fact.OWNED: frozenset({OPERATOR}),
    Fact.DISPATCHED: RESCUE | {OPERATOR},
    Fact.ON_SCENE: None,
    Fact.HEARD: frozenset({OPERATOR, PERSON}),
    Fact.SAFE: RESCUE | {OPERATOR},
}
"""Who may set which fact of a case; None: everybody, for themselves."""


def may_set(fact: Fact, *, role: str, about: str | None = None) -> bool:
    """May `role` set `fact` for the role `about` (None: for itself)?

    A party speaks for itself alone: a guardian who knows does not own the case, and sends no ambulance (R17). An
    operator may pass on what another role said, but that a crew is on its way only of who can send one.
    """
    if about is not None and about != role and role != OPERATOR:
        return False
    if fact is Fact.DISPATCHED and (about or role) not in RESCUE:
        return False
    allowed = _MAY_SET[fact]
    return allowed is None or role in allowed


def facts_of_answer(answer: str, *, role: str) -> tuple[Fact, ...]:
    """Return the facts that an answer of a party on its own leg sets, for its own role.

    Whoever cannot come sets none: nobody may take a refusal for somebody who sees to it. The leg shows it.
    """
    if answer == "cannot":
        return ()
    facts = [Fact.INFORMED]
    if role in RESCUE:
        facts.append(Fact.DISPATCHED)
    if answer == "arrived":
        facts.append(Fact.ON_SCENE)
    return tuple(facts)
