"""Steady time over jumps and restarts; and how far we hear, by what has come back."""

from datetime import UTC, datetime, timedelta

import pytest

from gateway.links.steady import Anchor, SteadyClock
from gateway.supervise.hearing import Ear, Horizon

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
WAYS = ("a", "b")


class Machine:
    """The clocks of a machine, moved by hand."""

    def __init__(self) -> None:
        self.wall = NOON
        self.mono = 100.0
        self.boot = "boot-1"
        self.uptime_s = 5000.0

    def pass_by(self, seconds: float) -> None:
        self.wall += timedelta(seconds=seconds)
        self.mono += seconds
        self.uptime_s += seconds

    def clock(self) -> SteadyClock:
        return SteadyClock(wall=lambda: self.wall, mono=lambda: self.mono, machine=lambda: (self.boot, self.uptime_s))


def test_a_step_of_the_wall_clock_moves_no_steady_time() -> None:
    machine = Machine()
    clock = machine.clock()
    machine.pass_by(10)
    machine.wall += HOUR
    machine.pass_by(10)
    assert clock.now() == NOON + timedelta(seconds=20)
    assert clock.now() + clock.shift() == machine.wall
    machine.wall -= 3 * HOUR
    assert clock.now() == NOON + timedelta(seconds=20)


def test_another_process_of_the_same_boot_goes_on_where_the_one_before_stopped() -> None:
    machine = Machine()
    first = machine.clock()
    machine.pass_by(30)
    anchor = first.anchor(first.now() - timedelta(seconds=2))
    machine.wall += HOUR
    machine.pass_by(70)
    machine.mono = 3.0  # its own monotonic clock may be any
    second = machine.clock()
    second.resume(anchor)
    assert second.now() == NOON + timedelta(seconds=100)


@pytest.mark.parametrize(("ahead", "expected"), [(HOUR, NOON + HOUR), (-HOUR, NOON)])
def test_on_another_boot_the_wall_clock_counts_but_never_backwards(ahead: timedelta, expected: datetime) -> None:
    machine = Machine()
    anchor = Anchor(NOON, "another", 9_999_999.0)
    machine.wall += ahead
    clock = machine.clock()
    clock.resume(anchor)
    assert clock.now() == expected


def come_back(ear: Ear, word: list[tuple[str, bytes]], ways: tuple[str, ...] = WAYS) -> None:
    for way, payload in word:
        if way in ways:
            ear.heard(way, payload)


def test_a_word_counts_when_it_has_come_back_on_every_way() -> None:
    machine = Machine()
    ear = Ear(machine.clock(), WAYS)
    word = ear.word()
    machine.pass_by(1)
    come_back(ear, word, ("a",))
    assert ear.until is None
    come_back(ear, word, ("b",))
    assert ear.until == NOON


def test_words_that_overtake_others_and_those_of_another_life() -> None:
    machine = Machine()
    ear, before = Ear(machine.clock(), WAYS), Ear(machine.clock(), WAYS)
    old = before.word()
    first = ear.word()
    machine.pass_by(1)
    second = ear.word()
    come_back(ear, second)
    come_back(ear, old)
    come_back(ear, first)
    ear.heard("a", b"\xff\xfe")
    assert ear.until == NOON + timedelta(seconds=1)


def test_while_nothing_comes_back_the_words_under_way_are_few() -> None:
    machine = Machine()
    ear = Ear(machine.clock(), WAYS)
    words = []
    for _ in range(1000):
        words.append(ear.word())
        machine.pass_by(1)
    for word in words[:900]:
        come_back(ear, word)
    assert ear.until is None, "who answers after so long has nothing to say any more"
    come_back(ear, words[-1])
    assert ear.until == NOON + timedelta(seconds=999)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def test_a_horizon_that_stood_still_was_deaf() -> None:
    horizon = Horizon()
    horizon.resume(at(-60))
    moved = horizon.move([NOON])
    assert moved is not None
    assert (moved.horizon, moved.deaf_from) == (NOON, at(-60))
    again = horizon.move([at(2)])
    assert again is not None
    assert again.deaf_from is None


def test_the_first_time_nobody_was_deaf_before() -> None:
    moved = Horizon().move([NOON])
    assert moved is not None
    assert (moved.horizon, moved.deaf_from) == (NOON, None)


def test_the_horizon_is_that_of_the_last_share_and_never_goes_back() -> None:
    horizon = Horizon()
    assert horizon.move([at(5), None]) is None, "nobody has heard the second share"
    moved = horizon.move([at(5), at(3)])
    assert moved is not None
    assert moved.horizon == at(3)
    assert horizon.move([at(9), at(3)]) is None
    assert horizon.move([at(9), at(1)]) is None, "another holder of the share has heard less so far"
    assert horizon.move([at(9), None]) is None
    moved = horizon.move([at(9), at(8)])
    assert moved is not None
    assert (moved.horizon, moved.deaf_from) == (at(8), None)


def test_who_follows_shows_the_same_time_whatever_the_wall_says() -> None:
    leads, follows = Machine(), Machine()
    follows.wall += HOUR
    leader, follower = leads.clock(), follows.clock()
    follower.follow(leader.now())
    for machine in (leads, follows):
        machine.pass_by(100)
    assert follower.now() == leader.now()
    follower.follow(leader.now() + timedelta(seconds=0.2))  # what it takes to hear of it is no reason to jump
    assert follower.now() == leader.now()
    follower.follow(leader.now() - HOUR)
    assert follower.now() == leader.now() - HOUR


def test_who_has_followed_and_leads_now_does_not_go_back_to_its_own_wall() -> None:
    leads, follows = Machine(), Machine()
    follows.wall -= HOUR
    follows.boot = "another"
    leader, follower = leads.clock(), follows.clock()
    follower.follow(leader.now())
    anchor = leader.anchor(leader.now())
    for machine in (leads, follows):
        machine.pass_by(20)
    follower.resume(anchor)
    assert follower.now() == leader.now()
    follows.pass_by(100)
    follower.resume(anchor)
    assert follower.now() == NOON, "that was too long ago"
