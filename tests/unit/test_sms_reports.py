"""Alarms by SMS: the text that people type, the compact form, and what others write."""

from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import FrameError, LocalProtocolError
from protocols.gsm import alphabet
from protocols.oks import DATUMS, KINDS, SOURCES, Place, SmsReport, binary, text
from schemas.reports import AlarmReport
from schemas.sms import LAYOUT
from tests.conftest import ROOT

IDS = st.text(st.sampled_from("ABCXYZabcxyz0123456789_-"), min_size=1, max_size=64)
U32 = st.integers(0, 4_294_967_295)
DEGREES = {"lat": st.integers(-90_000_000, 90_000_000), "lon": st.integers(-180_000_000, 180_000_000)}
PLACES = st.builds(
    lambda lat, lon, datum, source, accuracy: Place(lat / 1_000_000, lon / 1_000_000, datum, source, accuracy),
    lat=DEGREES["lat"],
    lon=DEGREES["lon"],
    datum=st.sampled_from(DATUMS),
    source=st.sampled_from(SOURCES),
    accuracy=st.none() | st.integers(0, 65_534),
)
REPORTS = st.builds(
    lambda kinds, terminal, numbers, at, place, battery, signal, test: SmsReport(
        kinds=tuple(kind for kind in KINDS if kind in kinds),
        terminal=terminal,
        boot=None if numbers is None else numbers[0],
        seq=None if numbers is None else numbers[1],
        at=at,
        place=place,
        battery_pct=battery,
        signal_dbm=signal,
        test=test,
    ),
    kinds=st.sets(st.sampled_from(KINDS), min_size=1),
    terminal=st.none() | IDS,
    numbers=st.none() | st.tuples(U32, U32),
    at=st.none() | st.integers(0, 4_294_967_295).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)),
    place=st.none() | PLACES,
    battery=st.none() | st.integers(0, 100),
    signal=st.none() | st.integers(-200, 50),
    test=st.booleans(),
)


def test_the_kinds_are_those_of_the_contract_and_their_bits_never_move() -> None:
    assert KINDS == AlarmReport.KINDS


@given(report=REPORTS)
def test_the_compact_form_says_everything_and_fits_into_one_sms(report: SmsReport) -> None:
    data = binary.write(report)
    assert len(data) <= LAYOUT.longest <= 140
    assert binary.is_binary(data)
    assert binary.read(data) == report


@given(report=REPORTS, flip=st.integers(0, 10**6), burst=st.integers(1, 65_535))
def test_damage_on_the_way_is_noticed(report: SmsReport, flip: int, burst: int) -> None:
    """Whatever is wrong within sixteen bits in a row, as lines damage it."""
    data = bytearray(binary.write(report))
    at = flip % (8 * len(data))
    number = int.from_bytes(data, "big") ^ (burst << max(0, at - 16)) % (1 << 8 * len(data))
    damaged = number.to_bytes(len(data), "big")
    if damaged != bytes(data):
        with pytest.raises(FrameError):
            binary.read(damaged)


@given(data=st.binary(max_size=120))
def test_octets_that_are_no_report_are_refused(data: bytes) -> None:
    for one in (data, binary.MAGIC + data):
        try:
            binary.read(one)
        except FrameError:
            continue
        assert binary.write(binary.read(one)) == one


@pytest.mark.parametrize(
    "change", [lambda d: d[:-1], lambda d: d + b"\0", lambda d: d[:2] + b"\x02" + d[3:], lambda _: b""]
)
def test_a_report_that_is_cut_longer_or_of_another_version_is_refused(change) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(FrameError):
        binary.read(change(binary.write(SmsReport(kinds=("sos",), battery_pct=5))))


@pytest.mark.parametrize(
    "report",
    [
        SmsReport(kinds=()),
        SmsReport(kinds=("unheard of",)),
        SmsReport(kinds=("sos",), terminal=""),
        SmsReport(kinds=("sos",), terminal="é"),
        SmsReport(kinds=("sos",), terminal="x" * 65),
        SmsReport(kinds=("sos",), boot=-1, seq=1),
        SmsReport(kinds=("sos",), battery_pct=999),
        SmsReport(kinds=("sos",), place=Place(0, 0, "mars")),
        SmsReport(kinds=("sos",), at=datetime(1969, 1, 1, tzinfo=UTC)),
    ],
)
def test_what_the_compact_form_cannot_say_is_not_written(report: SmsReport) -> None:
    with pytest.raises(LocalProtocolError):
        binary.write(report)


@pytest.mark.parametrize("example", LAYOUT.examples)
def test_the_published_examples_are_what_the_codec_writes(example) -> None:  # type: ignore[no-untyped-def]
    report = text.read(example.says)
    assert report is not None
    assert binary.write(report).hex().upper() == example.octets
    assert binary.read(bytes.fromhex(example.octets)) == report


def test_the_longest_report_is_as_long_as_the_layout_says() -> None:
    longest = SmsReport(
        kinds=KINDS,
        terminal="x" * 64,
        boot=1,
        seq=1,
        at=datetime(2026, 1, 1, tzinfo=UTC),
        place=Place(1, 1),
        battery_pct=1,
        signal_dbm=-1,
    )
    assert len(binary.write(longest)) == LAYOUT.longest
    published = orjson.loads((ROOT / "schemas" / "published" / "sms-alarm.json").read_bytes())
    assert published == LAYOUT.model_dump(mode="json")
    assert Path(binary.__file__).exists()


TYPED = REPORTS.filter(
    # Digits of an id that look like another one's fields are what an id of fifteen digits is for.
    lambda report: report.terminal is None or (report.terminal.isdecimal() and len(report.terminal) == 15)
)


@given(report=TYPED)
def test_the_text_says_the_same(report: SmsReport) -> None:
    written = text.write(report)
    found = text.read(written)
    assert found is not None
    place = None if report.place is None else Place(round(report.place.lat, 6), round(report.place.lon, 6))
    assert (found.kinds, found.terminal, found.boot, found.seq, found.at) == (
        report.kinds,
        report.terminal,
        report.boot,
        report.seq,
        report.at,
    )
    assert (found.battery_pct, found.test, found.place) == (report.battery_pct, report.test, place)
    assert alphabet.fits(written)


@pytest.mark.parametrize(
    ("typed", "kinds"),
    [
        ("SOS", ("sos",)),
        ("sos!", ("sos",)),
        ("ＳＯＳ", ("sos",)),
        ("救命！", ("sos",)),
        ("我摔倒了，快来", ("fall",)),
        ("Help me! imei:860000000000001 lat:22.5431 long:114.0579", ("sos",)),
        ("heip me", ("sos",)),
        ("low battery! bat:12", ("low_battery",)),
        ("Power alarm", ("power_lost",)),
        ("stockade!", ("wander",)),
        ("TEST SOS", ("sos",)),
        ("smoke and fall", ("fall", "smoke")),
        ("SOS,FALL", ("sos", "fall")),
    ],
)
def test_what_people_and_others_write(typed: str, kinds: tuple[str, ...]) -> None:
    found = text.read(typed)
    assert found is not None
    assert found.kinds == kinds


@pytest.mark.parametrize(
    ("typed", "place"),
    [
        ("SOS 32.0603,118.7969", Place(32.0603, 118.7969)),
        ("help me! http://maps.google.com/maps?q=N32.0603,E118.7969", Place(32.0603, 118.7969)),
        ("help me! Lat:N32.0603,Lon:E118.7969,Course:1.20", Place(32.0603, 118.7969)),
        ("help me! lat: 32.0603 long: 118.7969", Place(32.0603, 118.7969)),
        ("SOS S33.8688,E151.2093", Place(-33.8688, 151.2093)),
        ("SOS -33.8688,-70.6693", Place(-33.8688, -70.6693)),
    ],
)
def test_places_are_found_wherever_they_stand(typed: str, place: Place) -> None:
    found = text.read(typed)
    assert found is not None
    assert found.place == place


def test_fields_are_found_in_any_order() -> None:
    found = text.read("12% #3.17 imei:860000000000001 -71 dBm help me!")
    assert found == SmsReport(
        kinds=("sos",), terminal="860000000000001", boot=3, seq=17, battery_pct=12, signal_dbm=-71
    )


@pytest.mark.parametrize(
    "typed",
    ["", "hello", "您的余额不足", "password", "helpless", "no gps", "x" * 5000, "\0\0", "您有一条新消息，请查收"],
)
def test_what_says_nothing_that_is_known_is_no_report(typed: str) -> None:
    assert text.read(typed) is None


@pytest.mark.parametrize("typed", ["SOS 91.5,200.1 101% #99999999999.1 @20269999T000000Z", "SOS #5000000000.1"])
def test_numbers_that_cannot_be_are_left_out_and_the_alarm_stays(typed: str) -> None:
    assert text.read(typed) == SmsReport(kinds=("sos",))


@given(typed=st.text(max_size=200))
def test_no_text_raises(typed: str) -> None:
    for one in (typed, f"SOS {typed}"):
        found = text.read(one)
        assert found is None or found.kinds
    assert text.read(f"SOS {typed}") is not None
