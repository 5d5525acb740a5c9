"""Datums against points that others converted, the table of `better`, and the links."""

import math
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest

from gateway.domain.location import Coordinates, Datum, Location, Source, better, distance_m, map_links

NOW = datetime(2026, 11, 22, 6, 30, tzinfo=UTC)
W, G, B = Datum.WGS84, Datum.GCJ02, Datum.BD09


def metres_apart(a: Coordinates, b: Coordinates) -> float:
    """Measure on the plane, without the code under test."""
    assert a.datum is b.datum
    return math.hypot((a.lat - b.lat) * 111_200, (a.lon - b.lon) * 111_200 * math.cos(math.radians(a.lat)))


# Answers of the map services' own converters, from their documentation and from published comparisons.
SERVICES = [
    pytest.param(
        Coordinates(39.990475, 116.481499, W), Coordinates(39.991754014757, 116.487585177952, G), 0.1, id="amap-beijing"
    ),
    pytest.param(
        Coordinates(30.281543, 120.021519, W), Coordinates(30.279164, 120.026268, G), 2.0, id="aliyun-hangzhou-gcj02"
    ),
    pytest.param(
        Coordinates(30.279164, 120.026268, G), Coordinates(30.285238, 120.032768, B), 0.1, id="aliyun-hangzhou-bd09"
    ),
    pytest.param(
        Coordinates(28.021381022135415, 120.85385769314236, G),
        Coordinates(28.027651931662543, 120.86029339600422, B),
        0.1,
        id="baidu-wenzhou",
    ),
    pytest.param(
        Coordinates(29.575429778924, 114.21892734521, W),
        Coordinates(29.579084787993, 114.23074871003, B),
        2.0,
        id="baidu-hubei",
    ),
]

# City centres as (lat, lon) in the three datums, all measured, none computed by this formula.
CITIES = {
    "nanjing": ((32.0623216, 118.7916827), (32.0602574, 118.7968802), (32.0666136, 118.8033021)),
    "sanya": ((18.2545417, 109.507813), (18.2528524, 109.5119135), (18.2585878, 109.5184703)),
    "kashgar": ((39.470184, 75.9868089), (39.4704064, 75.9897602), (39.4764048, 75.9962502)),
    "jiamusi": ((46.7975722, 130.3111063), (46.7997822, 130.3188843), (46.8061724, 130.3252439)),
    "lhasa": ((29.655277, 91.1706414), (29.6524954, 91.1721167), (29.6585294, 91.1786184)),
}


@pytest.mark.parametrize(("given", "expected", "tolerance_m"), SERVICES)
def test_agrees_with_the_map_services_in_both_directions(
    given: Coordinates, expected: Coordinates, tolerance_m: float
) -> None:
    assert metres_apart(given.to(expected.datum), expected) < tolerance_m
    assert metres_apart(expected.to(given.datum), given) < tolerance_m


@pytest.mark.parametrize("city", CITIES)
@pytest.mark.parametrize("source", Datum)
@pytest.mark.parametrize("target", Datum)
def test_agrees_with_measured_city_centres(city: str, source: Datum, target: Datum) -> None:
    points = dict(zip((W, G, B), CITIES[city], strict=True))
    converted = Coordinates(*points[source], source).to(target)
    assert converted.datum is target
    assert metres_apart(converted, Coordinates(*points[target], target)) < 2


def test_tiananmen_has_three_addresses_half_a_kilometre_and_more_apart() -> None:
    gate = Coordinates(39.908722, 116.397499, G)
    wgs84, bd09 = gate.to(W), gate.to(B)
    assert metres_apart(wgs84, Coordinates(39.907333, 116.391250, W)) < 15
    assert metres_apart(bd09, Coordinates(39.915119, 116.403963, B)) < 15
    assert 500 < metres_apart(Coordinates(gate.lat, gate.lon, W), wgs84) < 700


@pytest.mark.parametrize("place", [(35.68, 139.69), (51.5, -0.12), (-33.9, 151.2), (0.0, 0.0), (90.0, 180.0)])
def test_nothing_is_shifted_outside_the_mainland(place: tuple[float, float]) -> None:
    for source in Datum:
        for target in Datum:
            assert Coordinates(*place, source).to(target) == Coordinates(*place, target)


@pytest.mark.parametrize("edge", [(0.8293, 100.0), (55.8271, 100.0), (35.0, 72.004), (35.0, 137.8347)])
def test_the_shift_fades_out_at_the_edge_of_the_box(edge: tuple[float, float]) -> None:
    assert metres_apart(Coordinates(*edge, W).to(B), Coordinates(*edge, B)) < 0.001


@pytest.mark.parametrize("lat", [math.nan, math.inf, 90.1, -91.0])
def test_coordinates_off_the_globe_are_refused(lat: float) -> None:
    with pytest.raises(ValueError, match="latitude"):
        Coordinates(lat, 0.0, W)
    with pytest.raises(ValueError, match="longitude"):
        Coordinates(0.0, lat * 2, W)


def test_distance_converts_datums_first() -> None:
    nanjing, beijing = Coordinates(32.0623216, 118.7916827, W), Coordinates(39.9042, 116.4074, W)
    assert distance_m(nanjing, nanjing.to(B)) == pytest.approx(0, abs=0.01)
    assert distance_m(nanjing, beijing.to(G)) == pytest.approx(899_000, rel=0.005)
    assert distance_m(Coordinates(0, 0, W), Coordinates(0, 1, W)) == pytest.approx(111_195, rel=0.001)
    assert distance_m(Coordinates(0, 0, W), Coordinates(0, 180, W)) == pytest.approx(20_015_000, rel=0.001)


HOME = Coordinates(32.0611, 118.7921, W)
NEARBY = Coordinates(32.0611 + 40 / 111_195, 118.7921, W)
AWAY = Coordinates(32.0611 + 200 / 111_195, 118.7921, W)


def at(
    source: Source, minutes_ago: float | None = 0, *, accuracy_m: float | None = 10, place: Coordinates = HOME
) -> Location:
    measured = None if minutes_ago is None else NOW - timedelta(minutes=minutes_ago)
    return Location(place, source, accuracy_m, measured)


GNSS, WIFI, CELL, MANUAL, REGISTERED = Source.GNSS, Source.WIFI, Source.CELL, Source.MANUAL, Source.REGISTERED


@pytest.mark.parametrize("source", Source)
def test_anything_beats_nothing(source: Source) -> None:
    assert better(at(source), None, now=NOW)


@pytest.mark.parametrize("source", sorted(set(Source) - {REGISTERED}))
def test_anything_beats_the_registered_address_and_it_beats_nothing(source: Source) -> None:
    registered = Location(HOME, REGISTERED, None, None)
    assert better(at(source, 600), registered, now=NOW)
    assert not better(registered, at(source, 600), now=NOW)


def test_a_corrected_registered_address_is_told() -> None:
    registered = Location(HOME, REGISTERED, None, None)
    assert not better(registered, registered, now=NOW)
    assert better(Location(AWAY, REGISTERED, None, None), registered, now=NOW)


@pytest.mark.parametrize(
    ("new", "old", "expected"),
    [
        # A human's word against a machine's.
        (at(MANUAL, 1), at(GNSS, 2), True),
        (at(MANUAL, 1), at(GNSS, 1), True),
        (at(MANUAL, 2), at(GNSS, 1), False),
        (at(GNSS, 1), at(MANUAL, 2), True),
        (at(GNSS, 1), at(MANUAL, 1), False),
        (at(CELL, 2), at(MANUAL, 1), False),
        # A better machine against a worse one.
        (at(GNSS, 1), at(WIFI, 1), True),
        (at(WIFI, 1), at(CELL, 1), True),
        (at(GNSS, 5), at(CELL, 1), True),
        (at(GNSS, 11), at(CELL, 1), True),
        (at(GNSS, 11.1), at(CELL, 1), False),
        # A worse machine against a better one.
        (at(CELL, 1), at(GNSS, 1), False),
        (at(WIFI, 1), at(GNSS, 11), False),
        (at(WIFI, 1), at(GNSS, 11.1), True),
        (at(CELL, 1), at(WIFI, 600), True),
    ],
)
def test_source_and_age_decide_between_sources(new: Location, old: Location, expected: bool) -> None:
    assert better(new, old, now=NOW) is expected


@pytest.mark.parametrize(
    ("new", "old", "expected"),
    [
        (at(GNSS, 1, accuracy_m=10), at(GNSS, 2, accuracy_m=20), True),
        (at(GNSS, 1, accuracy_m=11), at(GNSS, 2, accuracy_m=20), False),
        (at(GNSS, 1, accuracy_m=0), at(GNSS, 2, accuracy_m=0), False),
        (at(GNSS, 1, accuracy_m=500), at(GNSS, 2, accuracy_m=None), True),
        (at(GNSS, 1, accuracy_m=None), at(GNSS, 2, accuracy_m=500), False),
        (at(GNSS, 1, accuracy_m=None), at(GNSS, 2, accuracy_m=None), False),
        (at(GNSS, 1, place=AWAY), at(GNSS, 2), True),
        (at(GNSS, 1, place=NEARBY), at(GNSS, 2), False),
        (at(CELL, 1, place=AWAY, accuracy_m=300), at(CELL, 2, accuracy_m=300), False),
        (at(CELL, 1, place=AWAY, accuracy_m=150), at(CELL, 2, accuracy_m=190), True),
        (at(GNSS, 1, place=AWAY, accuracy_m=None), at(GNSS, 2, accuracy_m=None), True),
        (at(MANUAL, 1, place=AWAY, accuracy_m=None), at(MANUAL, 2, accuracy_m=None), True),
        (at(GNSS, 3, place=AWAY), at(GNSS, 2), False),
        (at(GNSS, 3, accuracy_m=1), at(GNSS, 2, accuracy_m=100), False),
        (at(GNSS, 1), at(GNSS, 600), False),
    ],
)
def test_accuracy_and_movement_decide_within_a_source(new: Location, old: Location, expected: bool) -> None:
    assert better(new, old, now=NOW) is expected


def test_a_missing_time_counts_as_now() -> None:
    assert better(at(GNSS, None, place=AWAY), at(GNSS, 1), now=NOW)
    assert not better(at(GNSS, 1, place=AWAY), at(GNSS, None), now=NOW)
    assert better(at(CELL, None), at(GNSS, 11), now=NOW)
    assert better(at(CELL, None), at(MANUAL, 1), now=NOW)


def test_a_clock_far_ahead_is_never_newest() -> None:
    in_2036 = -10 * 365 * 24 * 60
    assert not better(at(CELL, in_2036), at(GNSS, 600), now=NOW)
    assert not better(at(CELL, in_2036), at(MANUAL, 600), now=NOW)
    assert not better(at(CELL, -5.1), at(MANUAL, 1), now=NOW)
    assert better(at(CELL, -4.9), at(MANUAL, 1), now=NOW)


def test_a_clock_far_ahead_does_not_hold_back_what_comes_later() -> None:
    in_2036 = -10 * 365 * 24 * 60
    assert better(at(GNSS, 1), at(CELL, in_2036), now=NOW)
    assert better(at(GNSS, 1, place=AWAY), at(GNSS, in_2036), now=NOW)
    assert better(at(GNSS, in_2036, place=AWAY), at(GNSS, in_2036 - 1), now=NOW)
    assert better(at(MANUAL, 1), at(GNSS, in_2036), now=NOW)


def test_age() -> None:
    assert at(GNSS, 3).age(NOW) == timedelta(minutes=3)
    assert at(GNSS, -4).age(NOW) == timedelta(0)
    assert at(GNSS, -6).age(NOW) is None
    assert at(GNSS, None).age(NOW) is None


def test_links_give_each_map_its_own_datum() -> None:
    links = map_links(HOME, "紧急求助", accuracy_m=12.4)
    assert list(links) == ["amap", "baidu", "tencent", "geo"]
    gcj02, bd09 = HOME.to(G), HOME.to(B)

    amap = urlsplit(links["amap"])
    assert (amap.scheme, amap.netloc, amap.path) == ("https", "uri.amap.com", "/marker")
    query = parse_qs(amap.query)
    assert query["position"] == [f"{gcj02.lon:.6f},{gcj02.lat:.6f}"]
    assert query["coordinate"] == ["gaode"]
    assert query["name"] == ["紧急求助"]

    baidu = urlsplit(links["baidu"])
    assert (baidu.scheme, baidu.netloc, baidu.path) == ("https", "api.map.baidu.com", "/marker")
    query = parse_qs(baidu.query)
    assert query["location"] == [f"{bd09.lat:.6f},{bd09.lon:.6f}"]
    assert query["coord_type"] == ["bd09ll"]
    assert query["output"] == ["html"]
    assert query["title"] == query["content"] == ["紧急求助"]

    tencent = urlsplit(links["tencent"])
    assert (tencent.scheme, tencent.netloc, tencent.path) == ("https", "apis.map.qq.com", "/uri/v1/marker")
    marker = f"coord:{gcj02.lat:.6f},{gcj02.lon:.6f};title:紧急求助;addr:紧急求助"
    assert parse_qs(tencent.query)["marker"] == [marker]

    assert links["geo"] == "geo:32.061100,118.792100;u=12"


def test_links_say_the_same_place_whatever_datum_it_came_in() -> None:
    assert map_links(HOME.to(B), "x") == map_links(HOME, "x") == map_links(HOME.to(G), "x")


def test_a_label_cannot_break_out_of_a_link() -> None:
    label = "a&name=b;coord:1,2|c#d?e 报警"
    links = map_links(HOME, label)
    assert parse_qs(urlsplit(links["amap"]).query)["name"] == [label]
    assert parse_qs(urlsplit(links["baidu"]).query)["title"] == [label]
    marker = parse_qs(urlsplit(links["tencent"]).query)["marker"][0]
    assert [pair.split(":", 1)[0] for pair in marker.split(";")] == ["coord", "title", "addr"]
    assert "|" not in marker
    assert all(link.isascii() and " " not in link and "#" not in link for link in links.values())
    assert links["geo"] == "geo:32.061100,118.792100"
