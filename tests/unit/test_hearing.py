"""Steady time over jumps and restarts; and how far we hear, by what has come back."""

from datetime import UTC, datetime, timedelta

import pytest

from gateway.links.steady import Anchor, SteadyClock
from gateway.supervise.hearing import Hearing

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


def come_back(hearing: Hearing, word: list[tuple[str, bytes]], ways: tuple[str, ...] = WAYS) -> None:
    for way, payload in word:
        if way in ways:
            hearing.heard(way, payload)


def test_a_word_counts_when_it_has_come_back_on_every_way() -> None:
    machine = Machine()
    hearing = Hearing(machine.clock(), WAYS, life="x")
    word = hearing.word()
    machine.pass_by(1)
    come_back(hearing, word, ("a",))
    assert hearing.move() is None
    come_back(hearing, word, ("b",))
    moved = hearing.move()
    assert moved is not None
    assert (moved.horizon, moved.deaf_from) == (NOON, None)
    assert hearing.move() is None


def test_words_that_overtake_others_and_those_of_another_life() -> None:
    machine = Machine()
    hearing = Hearing(machine.clock(), WAYS, life="x")
    old = Hearing(machine.clock(), WAYS, life="y").word()
    first = hearing.word()
    machine.pass_by(1)
    second = hearing.word()
    come_back(hearing, second)
    come_back(hearing, old)
    come_back(hearing, first)
    hearing.heard("a", b"\xff\xfe")
    moved = hearing.move()
    assert moved is not None
    assert moved.horizon == NOON + timedelta(seconds=1)


def test_a_horizon_that_stood_still_was_deaf() -> None:
    machine = Machine()
    hearing = Hearing(machine.clock(), WAYS, life="x")
    hearing.resume(NOON - timedelta(seconds=60))
    come_back(hearing, hearing.word())
    moved = hearing.move()
    assert moved is not None
    assert (moved.horizon, moved.deaf_from) == (NOON, NOON - timedelta(seconds=60))
    machine.pass_by(2)
    come_back(hearing, hearing.word())
    again = hearing.move()
    assert again is not None
    assert again.deaf_from is None


def test_while_nothing_comes_back_the_words_under_way_are_few() -> None:
    machine = Machine()
    hearing = Hearing(machine.clock(), WAYS, life="x")
    for _ in range(1000):
        last = hearing.word()
        machine.pass_by(1)
    come_back(hearing, last)
    moved = hearing.move()
    assert moved is not None
    assert moved.horizon == NOON + timedelta(seconds=999)
