"""Fences and signs of life: accuracy and hours respected, nothing that wavers on the line, nothing before its time."""

from datetime import UTC, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.location import Coordinates, Datum
from gateway.domain.wellbeing import Care, Fence, Place, Signs, astray, inactive

HOME = Coordinates(32.06, 118.79, Datum.WGS84)
NIGHT = (time(22), time(6))
ZONE = ZoneInfo("Asia/Shanghai")
METRE = 1 / 111_195


def local(hour: int, minute: int = 0, day: int = 24) -> datetime:
    return datetime(2026, 11, day, hour, minute, tzinfo=ZONE)


def fence(*, must: Any = "inside", between: tuple[time, time] | None = None) -> Fence:
    return Fence(name="home", centre=HOME, radius_m=200, must=must, between=between)


class Walk:
    """Positions one after the other, as looks see them."""

    def __init__(self, one: Fence) -> None:
        self.fence = one
        self.memory: dict[str, Any] = {}
        self.out = False
        self.next_at: datetime | None = None

    def at(self, when: datetime, metres: float, accuracy_m: float | None = 10, source: str = "gnss") -> bool:
        place = Place(
            at=when.astimezone(UTC),
            coordinates=Coordinates(HOME.lat + metres * METRE, HOME.lon, Datum.WGS84),
            source=source,
            accuracy_m=accuracy_m,
        )
        signs = Signs(now=when, place=place, life=None, watched_since=when)
        found, self.next_at = astray([self.fence], signs, self.memory, before=self.out)
        self.out = found is not None
        return self.out


def test_one_position_just_outside_is_none_and_two_are() -> None:
    walk = Walk(fence())
    assert not walk.at(local(12), 50)
    assert not walk.at(local(12, 1), 260)
    assert not walk.at(local(12, 1), 260)  # the same one looked at again
    assert walk.at(local(12, 2), 270)


def test_one_position_far_away_is_enough() -> None:
    assert Walk(fence()).at(local(12), 900)


def test_a_coarse_position_neither_raises_nor_ends_anything() -> None:
    walk = Walk(fence())
    for minute in range(5):
        assert not walk.at(local(12, minute), 700, accuracy_m=800, source="cell")
    walk.at(local(12, 5), 260)
    assert walk.at(local(12, 6), 260)
    assert walk.at(local(12, 7), 150, accuracy_m=100)
    assert not walk.at(local(12, 8), 150, accuracy_m=10)


def test_who_left_before_the_night_is_missed_when_it_begins_and_until_they_are_back() -> None:
    walk = Walk(fence(between=NIGHT))
    assert not walk.at(local(21, 30), 900)
    assert walk.next_at == local(22)
    assert walk.at(local(22), 900)
    assert walk.at(local(6, 30, day=25), 900)
    assert not walk.at(local(7, day=25), 20)


def test_a_place_where_somebody_must_not_be() -> None:
    walk = Walk(fence(must="outside"))
    assert not walk.at(local(12), 400)
    walk.at(local(12, 1), 50)
    assert walk.at(local(12, 2), 50)
    assert not walk.at(local(12, 3), 300)


@given(st.lists(st.floats(min_value=160, max_value=240), min_size=1, max_size=40))
def test_what_wavers_on_the_line_raises_nothing(metres: list[float]) -> None:
    walk = Walk(fence())
    assert not any(walk.at(local(12) + timedelta(minutes=n), one, accuracy_m=45) for n, one in enumerate(metres))


def signs(now: datetime, life: datetime | None, *, since: datetime | None = None) -> Signs:
    return Signs(now=now, place=None, life=life, watched_since=since or now - timedelta(days=9))


def test_no_sign_of_life_for_too_long() -> None:
    care = Care(inactivity=timedelta(hours=12))
    assert inactive(care, signs(local(20), local(9))) == (None, local(21))
    assert inactive(care, signs(local(21), local(9))) == ({"silent_h": 12.0}, None)
    assert inactive(care, signs(local(21), None)) == (None, None)


def test_the_daily_key_is_missed_at_its_time_and_not_before() -> None:
    care = Care(well_by=time(10))
    assert inactive(care, signs(local(9, 59), local(20, day=23))) == (None, local(10))
    assert inactive(care, signs(local(10), local(20, day=23)))[0] == {"expected_by": "10:00"}
    assert inactive(care, signs(local(10), local(7))) == (None, local(10, day=25))
    # After midnight it is still yesterday for who has not slept, and nobody is missed twice for one morning.
    assert inactive(care, signs(local(1), local(7, day=23)))[0] is None
    # Who began to be watched at noon is not missed for the morning.
    assert inactive(care, signs(local(12), None, since=local(11)))[0] is None
