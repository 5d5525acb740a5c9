"""How long to wait before the next try."""

from datetime import timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.retry import LAST_TRY, TRIES_BEFORE_HELP, backoff


class Extreme(Random):
    """A source that always gives one end of the range."""

    def __init__(self, end: int) -> None:
        super().__init__()
        self.end = end

    def uniform(self, a: float, b: float) -> float:
        return (a, b)[self.end]


MIDDLES_S = [1, 2, 4, 8, 16, 32, 60, 60, 60]


@pytest.mark.parametrize(("tries", "middle_s"), list(enumerate(MIDDLES_S, start=1)))
def test_each_wait_is_twice_the_one_before_up_to_a_minute(tries: int, middle_s: int) -> None:
    assert backoff(tries, Extreme(0)) == timedelta(seconds=middle_s * 0.75)
    assert backoff(tries, Extreme(1)) == timedelta(seconds=middle_s * 1.25)


@given(st.integers(1, 10_000), st.integers(0, 2**32))
def test_no_wait_leaves_its_range_however_often_it_failed(tries: int, seed: int) -> None:
    wait_s = backoff(tries, Random(seed)).total_seconds()
    assert 0.75 <= wait_s <= 75


def test_those_who_failed_together_do_not_come_back_together() -> None:
    rng = Random(7)
    waits = {backoff(5, rng) for _ in range(100)}
    assert len(waits) > 90


def waited_s(tries: int) -> float:
    return sum(backoff(number, Random(0)).total_seconds() for number in range(1, tries))


def test_help_is_called_within_ten_seconds_of_the_first_failure() -> None:
    assert 1 < TRIES_BEFORE_HELP < LAST_TRY
    assert sum(MIDDLES_S[: TRIES_BEFORE_HELP - 1]) <= 10


def test_the_last_channel_is_tried_for_about_a_quarter_of_an_hour() -> None:
    assert 10 * 60 <= waited_s(LAST_TRY) <= 20 * 60
