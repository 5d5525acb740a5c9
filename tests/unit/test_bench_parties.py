"""What ``bench parties`` concludes from the legs of good parties beside good and beside bad ones."""

from base64 import b64encode
from random import Random

import pytest

from firmware_sim.bench_parties import BAD, GOOD, Options, Report, chance, judge, limit_ms
from firmware_sim.figures import Sample, evaluate
from firmware_sim.sites import NANJING, made_up
from tests.unit.test_responder import everybody, press

CALLS = {"the hanging party": 3, "the dead name": 1}


def samples(ms: float, *, slowest_ms: float | None = None) -> list[Sample]:
    """Return a hundred presses whose parties were all told after `ms`, in two of them after `slowest_ms`."""
    times = [ms] * 98 + [slowest_ms or ms] * 2
    return [Sample(told_ms=dict.fromkeys(NANJING, told), received_ms=1.0) for told in times]


def failures(control: list[Sample], troubled: list[Sample], *, calls: dict[str, int] | None = None) -> tuple[str, ...]:
    return judge(before=samples(10), control=control, troubled=troubled, bad_calls=CALLS if calls is None else calls)


@pytest.mark.parametrize(
    ("control_ms", "allowed_ms"), [(5.0, 15.0), (50.0, 60.0), (60.0, 72.0)], ids=["slack", "both", "ratio"]
)
def test_the_bar_is_the_larger_of_the_two_slacks(control_ms: float, allowed_ms: float) -> None:
    assert limit_ms([control_ms]) == pytest.approx(allowed_ms)
    assert failures(samples(control_ms), samples(control_ms, slowest_ms=allowed_ms - 0.1)) == ()
    (failure,) = failures(samples(control_ms), samples(control_ms, slowest_ms=allowed_ms + 0.1))
    assert failure.startswith("beside bad parties the p99 of good ones is ")


def test_a_slow_control_is_no_excuse() -> None:
    (failure,) = failures(samples(90), samples(101))
    assert failure.endswith("is 101.0 ms, the bar 100 ms")


def test_whatever_is_missing_fails_the_run_in_every_phase() -> None:
    lost = [Sample(told_ms={}, received_ms=None, problems=("press 1/1 of t-1: never received",))]
    assert judge(before=lost, control=samples(10), troubled=samples(10), bad_calls=CALLS) == lost[0].problems
    assert failures(samples(10) + lost, samples(10)) == lost[0].problems
    assert failures(samples(10), lost) == (*lost[0].problems, "nothing was measured")


def test_a_difference_that_chance_explains_is_told_from_one_that_it_does_not() -> None:
    noise = [[*samples(10)[:99], *samples(late)[:1]] for late in (300, 20)]
    assert (chance(*noise, rng=Random(1)) or 0) > 0.4
    assert chance(samples(10), samples(30), rng=Random(1)) == 0
    assert chance(samples(10), [], rng=Random(1)) is None


def test_bad_parties_that_nobody_called_prove_nothing() -> None:
    calls = {"the hanging party": 3, "the dead name": 0}
    assert failures(samples(10), samples(10), calls=calls) == (
        "the dead name was never called, so nothing was in the way",
    )


def test_of_a_household_with_bad_parties_only_the_good_ones_count() -> None:
    arrivals = [one for one in everybody() if one.role in GOOD]
    (sample,) = evaluate([press()], arrivals, roles=GOOD)
    assert (sample.problems, tuple(sample.told_ms)) == ((), GOOD)
    (sample,) = evaluate([press()], arrivals)
    assert len(sample.problems) == len(BAD)


def test_the_same_roles_are_compared_and_every_bad_one_is_told_before_a_good_one() -> None:
    told = dict(zip(NANJING, range(1, 7), strict=True))
    kinds = {
        "before": (Sample(told_ms=told, received_ms=1.0),),
        "control": (Sample(told_ms=told, received_ms=1.0),),
        "troubled": (Sample(told_ms={role: told[role] for role in GOOD}, received_ms=1.0),),
    }
    report = Report(machine={}, failures=(), options=Options(), chance=None, bad_calls=CALLS, **kinds)
    assert set(map(tuple, report.series().values())) == {tuple(told[role] for role in GOOD)}
    assert all(any(told[good] > told[bad] for good in GOOD) for bad in BAD)
    assert set(report.document()["ms"]) == set(kinds)


def test_groups_have_parties_of_their_own_and_households_take_turns() -> None:
    site = made_up(4, seed=1, prefix="t", groups=("a", "b"))
    assert [set(site.roles_of(entry.id)) for entry in site.terminals()] == [
        {f"t-{group}-{role}" for role in NANJING} for group in ("a", "b", "a", "b")
    ]
    assert len({party.secret for party in site.responders()}) == 2 * len(NANJING)


def test_one_group_has_the_ids_that_sites_always_had() -> None:
    site = made_up(2, seed=1, prefix="t")
    assert [party.party for party in site.responders()] == [f"t-{role}" for role in NANJING]
    first = Random("t/1").randbytes(32)
    assert site.responders()[0].secret == f"whsec_{b64encode(first).decode()}"
