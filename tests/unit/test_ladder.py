"""Calling on: the arithmetic of a ladder, without any database."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.case import Fact
from gateway.domain.directory import ChannelSpec, Party
from gateway.domain.ladder import ONCE, Calls, Ladder, arranged, climb, ending_fact, first_wake

START = datetime(2026, 11, 22, 6, 31, tzinfo=UTC)
USUAL = Ladder()


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def calls(made: int = 1, *, overdue: bool = False) -> Calls:
    return Calls(armed_at=START, made=made, overdue=overdue)


def test_an_unanswered_leg_is_called_again_and_misses_its_deadline() -> None:
    assert first_wake(USUAL, START) == after(60)
    assert climb(USUAL, calls(), now=after(59.9)).call is None
    second = climb(USUAL, calls(), now=after(60))
    assert (second.call, second.overdue, second.wake_at) == (2, False, after(120))
    third = climb(USUAL, calls(2), now=after(120))
    assert (third.call, third.wake_at) == (3, after(180))
    late = climb(USUAL, calls(3), now=after(180))
    assert (late.call, late.overdue, late.wake_at) == (None, True, None)
    assert climb(USUAL, calls(3, overdue=True), now=after(10_000)) == climb(USUAL, calls(3, overdue=True), now=START)


def test_calls_missed_in_an_outage_are_one_call() -> None:
    found = climb(USUAL, calls(), now=after(3600))
    assert (found.call, found.overdue, found.wake_at) == (3, True, None)


def test_a_single_call_wants_nothing_more() -> None:
    assert first_wake(ONCE, START) is None
    assert climb(ONCE, calls(), now=after(10**6)).call is None


def test_a_clock_that_goes_back_calls_nobody_twice() -> None:
    assert climb(USUAL, calls(3), now=after(-500)).call is None


def test_each_role_has_its_own_fact() -> None:
    assert ending_fact("hotline") is Fact.OWNED
    assert ending_fact("ambulance_120") is Fact.DISPATCHED
    assert ending_fact("guardian") is Fact.INFORMED


def test_channels_are_used_in_the_order_of_the_plan() -> None:
    specs = [ChannelSpec(kind=kind) for kind in ("webhook", "mqtt", "stream", "mqtt")]
    party = Party(id="a", role="guardian", name="a", district="1", channels=tuple(specs))
    assert [one.kind for one in arranged(party, ("stream", "mqtt")).channels] == ["stream", "mqtt", "mqtt", "webhook"]
    assert arranged(party, ()) is party


ladders = st.builds(
    Ladder,
    within=st.integers(0, 600).map(lambda s: timedelta(seconds=s)),
    again=st.integers(5, 300).map(lambda s: timedelta(seconds=s)),
    times=st.integers(1, 9),
    channels=st.lists(st.sampled_from(["webhook", "mqtt"])).map(tuple),
    stand_in=st.lists(st.sampled_from(["neighbour", "hotline"])).map(tuple),
    graded=st.booleans(),
)


@given(ladders)
def test_what_a_leg_keeps_is_what_the_plan_said(ladder: Ladder) -> None:
    assert Ladder.of_record(ladder.record()) == ladder
    assert Ladder.of_record(None) == ONCE


@given(ladders, st.lists(st.integers(0, 4000), max_size=30))
def test_however_often_somebody_looks_every_call_is_made_once_and_in_time(ladder: Ladder, looks: list[int]) -> None:
    made, overdue, said = 1, False, []
    now = 0
    for look in [*sorted(looks), 4000]:
        now = look
        found = climb(ladder, Calls(armed_at=START, made=made, overdue=overdue), now=after(now))
        if found.call is not None:
            said.append(found.call)
            made = found.call
        overdue = overdue or found.overdue
        assert found.wake_at is None or found.wake_at > after(now)
    assert said == sorted(set(said)), "no call twice"
    assert made == min(ladder.times, 1 + 4000 // int(ladder.again.total_seconds()))
    assert overdue == bool(ladder.within)
