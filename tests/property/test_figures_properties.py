"""What is always true of figures, samples and sheets."""

from collections import Counter
from math import ceil
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from api.sheets import read_sheet, sheet
from gateway.domain.figures import (
    Share,
    Tally,
    by_district,
    by_operator,
    figure_line,
    percentile,
    total,
    waits_of,
)
from gateway.domain.work_order import draw, is_satisfied

waits = st.lists(st.floats(0, 1e6), max_size=60).map(sorted).map(tuple)
small = st.integers(0, 50)


@st.composite
def tallies(pick: st.DrawFn) -> Tally:
    measured = pick(waits)
    rated = pick(small)
    return Tally(
        district=pick(st.sampled_from("ab")),
        operator=pick(st.sampled_from(["seat-1", "seat-2", None])),
        emergencies=len(measured) + pick(small),
        waits=measured,
        orders=rated + pick(small),
        rated=rated,
        satisfied=pick(st.integers(0, rated)),
        false_alarms=pick(st.dictionaries(st.sampled_from(["pet", "other"]), small, max_size=2)),
    )


@given(waits, st.integers(0, 60), st.integers(1, 100))
def test_a_percentile_covers_so_many_and_is_the_least_that_does(
    known: tuple[float, ...], endless: int, percent: int
) -> None:
    of = len(known) + endless
    value = percentile(known, percent, of=of)
    if value is None:
        assert of == 0 or len(known) < ceil(of * percent / 100)
        return
    assert value in known
    assert sum(one <= value for one in known) * 100 >= percent * of
    assert sum(one < value for one in known) * 100 < percent * of


@given(waits, st.integers(0, 60))
def test_percentiles_rise(known: tuple[float, ...], endless: int) -> None:
    found = waits_of(Tally(district="", operator=None, emergencies=len(known) + endless, waits=known))
    ends = [float("inf") if value is None else value for value in (found.p50_s, found.p95_s, found.p99_s)]
    assert ends == sorted(ends) or not known


@given(st.lists(tallies(), max_size=8))
def test_however_it_is_cut_the_sum_is_the_same(parts: list[Tally]) -> None:
    whole = total(parts)
    for cut in (by_operator(parts), by_district(parts), list(reversed(parts))):
        assert total(cut) == whole
    assert Counter(whole.waits) == Counter(wait for part in parts for wait in part.waits)
    for share in figure_line(whole).shares().values():
        assert share.share is None or 0 <= share.share <= 1


@given(st.lists(st.integers(1, 5), max_size=200))
def test_satisfied_is_who_gave_one_of_the_top_three(ratings: list[int]) -> None:
    share = Share(count=sum(is_satisfied(one) for one in ratings), of=len(ratings), bar=90)
    assert share.of - share.count == sum(one in (1, 2) for one in ratings)
    if ratings:
        assert share.met == (10 * (share.of - share.count) <= share.of)


ids = st.uuids()
populations = st.lists(st.tuples(st.sampled_from(["a", "b", None]), ids), unique_by=lambda pair: pair[1], max_size=40)


@given(populations, st.randoms(use_true_random=False), st.text(max_size=5), st.integers(1, 10))
def test_a_sample_depends_on_seed_and_population_alone(
    population: list[tuple[str | None, UUID]], shuffle: "object", seed: str, count: int
) -> None:
    drawn = draw(population, seed=seed, per_operator=count)
    mixed = list(population)
    shuffle.shuffle(mixed)  # type: ignore[attr-defined]
    assert draw(mixed, seed=seed, per_operator=count) == drawn
    assert set(drawn) <= set(draw(population, seed=seed, per_operator=count + 1))
    of = Counter(operator for operator, _ in population)
    got = Counter({order: operator for operator, order in population}[order] for order in drawn)
    assert got == Counter({operator: min(count, has) for operator, has in of.items()})


@given(populations, ids, st.text(max_size=5), st.integers(1, 10))
def test_one_more_work_order_pushes_out_at_most_one(
    population: list[tuple[str | None, UUID]], more: UUID, seed: str, count: int
) -> None:
    before = set(draw(population, seed=seed, per_operator=count))
    after = set(draw([*population, ("a", more)], seed=seed, per_operator=count))
    assert len(before - after) <= 1
    assert after - before <= {more}


cells = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12) | st.sampled_from(
    ["=1", "+86", "'", "''=", '"', "\r\n", "\r", "a\nb", ";", ",", "\ufeff", "＝"]
)


@given(st.lists(st.lists(cells, min_size=1, max_size=4), max_size=5))
def test_a_sheet_is_read_again_as_it_was_written(rows: list[list[str]]) -> None:
    assert read_sheet("".join(sheet(rows)).encode().decode()) == rows
