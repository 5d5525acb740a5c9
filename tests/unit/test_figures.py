"""Figures: periods that can be, shares against their bars, sums of parts."""

from datetime import UTC, date, datetime

import pytest

from gateway.domain.figures import (
    BadPeriod,
    Period,
    Share,
    Tally,
    by_district,
    by_operator,
    figure_line,
    percentile,
    period_of,
    total,
    waits_of,
)

TODAY = date(2026, 11, 26)


def test_days_are_days_of_the_site() -> None:
    november = Period(date(2026, 11, 1), date(2026, 11, 30))
    assert november.bounds("Asia/Shanghai") == (
        datetime(2026, 10, 31, 16, tzinfo=UTC),
        datetime(2026, 11, 30, 16, tzinfo=UTC),
    )


def test_a_day_on_which_clocks_go_back_has_25_hours() -> None:
    begins, ends = Period(date(2026, 10, 25), date(2026, 10, 25)).bounds("Europe/Berlin")
    assert (ends - begins).total_seconds() == 25 * 3600


def test_without_days_it_is_the_last_thirty() -> None:
    assert period_of(None, None, today=TODAY) == Period(date(2026, 10, 28), TODAY)
    assert period_of(date(2026, 11, 1), None, today=TODAY) == Period(date(2026, 11, 1), TODAY)
    assert period_of(TODAY, date(2026, 11, 30), today=TODAY) == Period(TODAY, date(2026, 11, 30))


@pytest.mark.parametrize(
    ("first", "last", "says"),
    [
        (date(2026, 11, 3), date(2026, 11, 2), "swap"),
        (date(2026, 11, 27), date(2026, 11, 30), "still to come"),
        (date(1999, 1, 1), None, "ten years"),
        (date(2026, 11, 1), date(9999, 12, 31), "ten years"),
    ],
)
def test_a_period_that_cannot_be_is_refused_with_a_reason(first: date, last: date | None, says: str) -> None:
    with pytest.raises(BadPeriod, match=says):
        period_of(first, last, today=TODAY)


def test_a_bar_is_met_to_the_last_one() -> None:
    assert Share(count=90, of=100, bar=90).met is True
    assert Share(count=89, of=100, bar=90).met is False
    assert Share(count=63, of=70, bar=90).met is True  # as floats 0.9 * 70 is more than 63
    assert Share(count=999_999, of=1_000_000, bar=100).met is False
    assert Share(count=0, of=0, bar=90).met is None
    assert Share(count=1, of=2).met is None
    assert Share(count=0, of=0).share is None


TALLIES = [
    Tally(district="a", operator="seat-2", emergencies=2, answered=1, taken=2, waits=(3.0, 20.0), closed=2),
    Tally(district="b", operator="seat-1", emergencies=1, taken=1, answered=1, waits=(5.0,), false_alarms={"pet": 1}),
    Tally(district="a", operator=None, emergencies=1, breaches={("p", "take"): 1}),
    Tally(district="a", operator="seat-2", orders=3, over=3, complete=2, rated=2, satisfied=1, asked=3),
    Tally(district="b", operator="seat-1", false_alarms={"pet": 2, "other": 1}, breaches={("p", "take"): 2}),
]


def test_the_parts_add_up_to_the_whole() -> None:
    whole = total(TALLIES)
    assert (whole.emergencies, whole.answered, whole.taken, whole.orders) == (4, 2, 3, 3)
    assert whole.waits == (3.0, 5.0, 20.0)
    assert whole.false_alarms == {"pet": 3, "other": 1}
    assert whole.breaches == {("p", "take"): 3}
    assert total(by_operator(TALLIES)) == total(by_district(TALLIES)) == whole


def test_what_nobody_took_comes_last() -> None:
    assert [one.operator for one in by_operator(TALLIES)] == ["seat-1", "seat-2", None]
    assert [one.district for one in by_district(TALLIES)] == ["a", "b"]


def test_a_line_says_what_the_standard_asks() -> None:
    line = figure_line(total(TALLIES))
    assert (line.answered, line.connected) == (Share(count=2, of=4, bar=100), Share(count=3, of=4, bar=100))
    assert line.satisfied == Share(count=1, of=2, bar=90)
    assert line.complete == Share(count=2, of=3)
    assert line.accurate == Share(count=0, of=0, bar=90)
    assert [name for name, share in line.shares().items() if share.met is False] == [
        "answered",
        "connected",
        "satisfied",
    ]


def test_a_press_for_which_nobody_came_hides_in_no_percentile() -> None:
    alone = Tally(district="a", operator=None, emergencies=100, waits=tuple(float(n) for n in range(1, 98)))
    waits = waits_of(alone)
    assert (waits.p50_s, waits.p95_s, waits.p99_s, waits.unconfirmed) == (50.0, 95.0, None, 3)
    assert waits_of(Tally(district="a", operator=None)).p50_s is None


def test_a_percentile_is_a_value_that_was_measured() -> None:
    assert [percentile((1.0, 2.0, 3.0, 4.0), p, of=4) for p in (0, 25, 50, 75, 95, 100)] == [None, 1, 2, 3, 4, 4]
