"""What is always true of datums and of the choice between two locations."""

import math
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.location import Coordinates, Datum, Location, Source, better, distance_m

NOW = datetime(2026, 11, 22, 6, 30, tzinfo=UTC)
SOUTH, NORTH, WEST, EAST = 0.8293, 55.8271, 72.004, 137.8347

datums = st.sampled_from(Datum)


def _around(edge: float) -> st.SearchStrategy[float]:
    return st.floats(edge - 0.02, edge + 0.02) | st.floats(edge - 1.1, edge + 1.1)


# Uniform points almost never come near the edge of the box, nor near the kink of the shift at 105° E.
latitudes = st.floats(-90, 90) | st.floats(3, 54) | _around(SOUTH) | _around(NORTH)
longitudes = st.floats(-180, 180) | st.floats(73, 136) | _around(WEST) | _around(EAST) | st.floats(104.999, 105.001)


def metres_apart(a: Coordinates, b: Coordinates) -> float:
    return math.hypot((a.lat - b.lat) * 111_200, (a.lon - b.lon) * 111_200 * math.cos(math.radians(a.lat)))


@given(latitudes, longitudes, datums, datums)
def test_there_and_back_again(lat: float, lon: float, here: Datum, there: Datum) -> None:
    start = Coordinates(lat, lon, here)
    assert metres_apart(start, start.to(there).to(here)) < 0.001


@given(latitudes, longitudes, datums, datums, datums)
def test_a_detour_by_a_third_datum_changes_nothing(lat: float, lon: float, a: Datum, b: Datum, c: Datum) -> None:
    start = Coordinates(lat, lon, a)
    assert metres_apart(start.to(c), start.to(b).to(c)) < 0.001


@given(latitudes, longitudes, datums)
def test_no_shift_is_larger_than_two_kilometres_and_none_happens_outside(lat: float, lon: float, datum: Datum) -> None:
    start = Coordinates(lat, lon, Datum.WGS84)
    shift_m = metres_apart(start, Coordinates(start.to(datum).lat, start.to(datum).lon, Datum.WGS84))
    assert shift_m < 2_500
    if not (SOUTH <= lat <= NORTH and WEST <= lon <= EAST):
        assert shift_m == 0


@given(latitudes, longitudes, latitudes, longitudes, datums, datums)
def test_distance_is_the_same_from_both_ends_and_in_every_datum(
    lat: float, lon: float, other_lat: float, other_lon: float, a: Datum, b: Datum
) -> None:
    here, there = Coordinates(lat, lon, Datum.WGS84), Coordinates(other_lat, other_lon, Datum.WGS84)
    metres = distance_m(here, there)
    assert 0 <= metres < 20_016_000
    assert abs(distance_m(there, here) - metres) < 0.01
    assert abs(distance_m(here.to(a), there.to(b)) - metres) < 0.1


machines = (Source.GNSS, Source.WIFI, Source.CELL)
minutes = st.integers(-20, 40)
places = st.builds(Coordinates, st.floats(32.05, 32.07), st.floats(118.78, 118.80), datums)
sources = st.sampled_from(Source)
accuracies = st.none() | st.sampled_from([0.0, 5.0, 10.0, 20.0, 100.0, 1_000.0])


def locations(sources: st.SearchStrategy[Source] = sources) -> st.SearchStrategy[Location]:
    times = st.none() | minutes.map(lambda ago: NOW - timedelta(minutes=ago))
    return st.builds(Location, places, sources, accuracies, times)


@given(locations())
def test_nothing_is_better_than_itself(location: Location) -> None:
    assert not better(location, location, now=NOW)


@given(locations(), locations())
def test_of_two_sources_exactly_one_is_better_or_neither(a: Location, b: Location) -> None:
    if a.source is not b.source:
        assert not (better(a, b, now=NOW) and better(b, a, now=NOW))


@given(locations(), locations())
def test_of_two_known_times_at_most_one_way_is_an_update(a: Location, b: Location) -> None:
    times = [NOW if location.at is None else location.at for location in (a, b)]
    if times[0] != times[1] and max(times) <= NOW + timedelta(minutes=5):
        assert not (better(a, b, now=NOW) and better(b, a, now=NOW))


@given(locations(st.sampled_from(machines)), locations(st.sampled_from(machines)))
def test_a_machine_never_wins_with_an_earlier_fix_from_the_same_or_a_worse_source(new: Location, old: Location) -> None:
    rank = {Source.CELL: 1, Source.WIFI: 2, Source.GNSS: 3}
    new_at, old_at = (NOW if location.at is None else location.at for location in (new, old))
    if max(new_at, old_at) <= NOW + timedelta(minutes=5) and new_at < old_at and rank[new.source] <= rank[old.source]:
        assert not better(new, old, now=NOW)


@given(st.lists(locations(), min_size=1, max_size=12))
def test_a_position_of_any_age_replaces_a_bare_address(stream: list[Location]) -> None:
    told: Location | None = Location(Coordinates(32.06, 118.79, Datum.WGS84), Source.REGISTERED, None, None)
    for location in stream:
        if better(location, told, now=NOW):
            told = location
    assert told is not None
    assert told.source is not Source.REGISTERED or all(one.source is Source.REGISTERED for one in stream)
