"""What the bench of supervision calls missed, made up and late."""

from firmware_sim.bench_supervise import Expected, Seen, compare, judge


def silence(last: float = 100.0, until: float | None = None, allowed_s: float = 60.0) -> Expected:
    return Expected(terminal=1, last=last, until=until, allowed_s=allowed_s)


def test_found_in_time_and_cleared_in_time() -> None:
    found = compare([silence(until=300.0)], [Seen(terminal=1, found=161.0, cleared=301.0)], deaf=[], end=500.0)
    assert (found.missed, found.false, found.late) == ([], [], [])
    assert (found.found_s, found.cleared_s) == ([1.0], [1.0])


def test_late_missed_early_and_made_up() -> None:
    late = compare([silence()], [Seen(terminal=1, found=166.0)], deaf=[], end=500.0)
    assert len(late.late) == 1
    missed = compare([silence()], [], deaf=[], end=500.0)
    assert len(missed.missed) == 1
    early = compare([silence()], [Seen(terminal=1, found=150.0)], deaf=[], end=500.0)
    assert len(early.false) == 1
    made_up = compare([], [Seen(terminal=2, found=150.0)], deaf=[], end=500.0)
    assert len(made_up.false) == 1
    never_cleared = compare([silence(until=300.0)], [Seen(terminal=1, found=161.0)], deaf=[], end=500.0)
    assert len(never_cleared.missed) == 1
    cleared_while_silent = compare([silence()], [Seen(terminal=1, found=161.0, cleared=200.0)], deaf=[], end=500.0)
    assert len(cleared_while_silent.false) == 1


def test_who_is_silent_for_less_than_allowed_must_not_be_found() -> None:
    assert compare([silence(until=150.0)], [], deaf=[], end=500.0).missed == []
    assert len(compare([silence(until=150.0)], [Seen(terminal=1, found=155.0)], deaf=[], end=500.0).false) == 1


def test_in_a_deafness_the_time_begins_when_it_is_over() -> None:
    deaf = [(150.0, 180.0)]
    found = compare([silence()], [Seen(terminal=1, found=182.0)], deaf=deaf, end=500.0)
    assert (found.late, found.after_restart, found.found_s) == ([], 1, [2.0])
    # A kill a second after the deadline takes away the rest of the seconds that were allowed.
    assert compare([silence()], [Seen(terminal=1, found=184.0)], deaf=[(161.0, 180.0)], end=500.0).late == []
    assert len(compare([silence()], [Seen(terminal=1, found=184.0)], deaf=[(166.0, 180.0)], end=500.0).late) == 1
    # Who came back while nobody listened need not have been found.
    assert compare([silence(until=175.0)], [], deaf=deaf, end=500.0).missed == []


def test_the_verdict_names_what_is_missing() -> None:
    good = compare([silence()], [Seen(terminal=1, found=161.0)], deaf=[], end=500.0)
    assert judge(good, kills=3, jumped=True, cases_twice=0, sweep_ms={10: 5.0, 1000: 6.0}) == ()
    bad = judge(good, kills=2, jumped=False, cases_twice=1, sweep_ms={10: 5.0, 1000: 50.0})
    assert len(bad) == 4
