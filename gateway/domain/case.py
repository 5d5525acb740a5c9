"""The life of a case (警情) and of its legs: which state may follow which, and what a new press does."""

from datetime import timedelta
from enum import StrEnum

__all__ = [
    "ANSWER_STATES",
    "ENDED_LEGS",
    "WINDOW",
    "CaseState",
    "DomainError",
    "LegState",
    "NotFound",
    "StateConflict",
    "after_answer",
    "is_repeat",
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
