"""Which state follows which, and when a known press is the same press again (D10, I6, I7)."""

import pytest

from gateway.domain.case import ANSWER_STATES, ENDED_LEGS, CaseState, LegState, after_answer, is_repeat

ANSWERS = {
    "accepted": LegState.ANSWERED,
    "coming": LegState.ANSWERED,
    "arrived": LegState.ANSWERED,
    "cannot": LegState.REFUSED,
}


def test_every_answer_has_a_state() -> None:
    assert ANSWER_STATES == ANSWERS


@pytest.mark.parametrize(("answer", "state"), ANSWERS.items())
@pytest.mark.parametrize(
    "before", [LegState.PENDING, LegState.DELIVERED, LegState.ANSWERED, LegState.REFUSED, LegState.FAILED]
)
def test_an_answer_counts_on_every_leg_that_is_not_over(before: LegState, answer: str, state: LegState) -> None:
    assert after_answer(before, answer) is state


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("before", [LegState.WITHDRAWN, LegState.SKIPPED])
def test_an_answer_revives_nothing_that_was_taken_back(before: LegState, answer: str) -> None:
    assert after_answer(before, answer) is before


def test_delivered_is_not_told() -> None:
    assert LegState.PENDING not in ENDED_LEGS
    assert LegState.DELIVERED not in ENDED_LEGS
    assert frozenset(LegState) - ENDED_LEGS == {LegState.PENDING, LegState.DELIVERED}


@pytest.mark.parametrize("state", CaseState)
@pytest.mark.parametrize("another_time", [False, True])
@pytest.mark.parametrize("says_more", [False, True])
def test_a_known_press_is_a_repeat_only_while_its_case_is_open_and_it_says_nothing_new(
    state: CaseState, another_time: bool, says_more: bool
) -> None:
    same = state is CaseState.OPEN and not another_time and not says_more
    assert is_repeat(state, another_time=another_time, says_more=says_more) is same
