"""Telemetry gives way to alarms, and a storm of them does not starve it."""

import asyncio
from dataclasses import dataclass

from gateway.ingest.giving_way import GivingWay


@dataclass
class World:
    """A clock, and whether an alarm is on its way."""

    now_s: float = 0.0
    alarm: bool = False


def _waited(world: World, giving_way: GivingWay, *, until_s: float) -> list[bool]:
    """Ask every hundredth of a second."""
    answers = []
    while world.now_s < until_s:
        answers.append(giving_way.now())
        world.now_s += 0.01
    return answers


def test_nobody_waits_for_nothing() -> None:
    world = World()
    assert not any(_waited(world, GivingWay(lambda: world.alarm, clock=lambda: world.now_s), until_s=1))


def test_an_alarm_goes_first_until_it_is_out() -> None:
    world = World(alarm=True)
    giving_way = GivingWay(lambda: world.alarm, clock=lambda: world.now_s)
    assert all(_waited(world, giving_way, until_s=0.05))
    world.alarm = False
    assert not giving_way.now()


def test_in_a_storm_telemetry_has_half_of_the_time() -> None:
    world = World(alarm=True)
    answers = _waited(world, GivingWay(lambda: world.alarm, clock=lambda: world.now_s), until_s=10)
    assert 0.45 < sum(answers) / len(answers) < 0.55
    longest = max(len(run) for run in "".join("x" if one else " " for one in answers).split())
    assert longest <= 11  # a tenth of a second


def test_whoever_asks_seldom_is_let_go_as_well() -> None:
    """An event loop that is slow in a storm asks three times a second: it must not be told to wait each time."""
    world = World(alarm=True)
    giving_way = GivingWay(lambda: world.alarm, clock=lambda: world.now_s)
    answers = []
    for _ in range(20):
        answers.append(giving_way.now())
        world.now_s += 0.3
    assert answers == [True, False] * 10


def test_who_waits_goes_on_as_soon_as_the_way_is_free() -> None:
    async def play() -> bool:
        world = World(alarm=True)
        giving_way = GivingWay(lambda: world.alarm, clock=lambda: world.now_s)
        waiting = asyncio.create_task(giving_way.wait())
        await asyncio.sleep(0.05)
        waited = not waiting.done()
        world.alarm = False
        async with asyncio.timeout(5):
            await waiting
        return waited

    assert asyncio.run(play())
