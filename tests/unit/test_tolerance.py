"""What becomes of alarms that break their contract, and of telemetry that does."""

import json
from datetime import UTC, datetime

import pytest

from schemas.reports import EventReport, Fix, FixReport, HeartbeatReport, ResultReport
from schemas.tolerance import MAX_BYTES, ReadAlarm, Unreadable, read_alarm, read_report

NOON = datetime(2026, 11, 22, 4, 0, tzinfo=UTC)


def read(payload: bytes | str) -> ReadAlarm:
    alarm = read_alarm(payload.encode() if isinstance(payload, str) else payload)
    assert isinstance(alarm, ReadAlarm), alarm
    return alarm


def sos(members: str) -> ReadAlarm:
    """Read a press with further members, which must cost nothing of the press."""
    alarm = read('{"v":1,"kinds":["sos"],' + members + "}")
    assert alarm.kinds == ("sos",)
    return alarm


def test_the_smallest_alarm() -> None:
    assert read('{"v":1,"kinds":["sos"]}') == ReadAlarm(kinds=("sos",))


def test_a_full_alarm() -> None:
    alarm = sos(
        '"boot":3,"seq":17,"at":"2026-11-22T12:00:00+08:00","fix":{"lat":32.0603,"lon":118.7969,"datum":"gcj02"},'
        '"battery_pct":88,"signal_dbm":-71,"test":true,"colour":"red"'
    )
    assert alarm == ReadAlarm(
        kinds=("sos",),
        boot=3,
        seq=17,
        at=NOON,
        fix=Fix(lat=32.0603, lon=118.7969, datum="gcj02"),
        battery_pct=88,
        signal_dbm=-71,
        test=True,
    )


@pytest.mark.parametrize("version", ["2", '"1"', "null", "[]", "1e999"])
def test_another_version_is_a_problem_and_no_refusal(version: str) -> None:
    alarm = read(f'{{"v":{version},"kinds":["fall"],"boot":3,"seq":17}}')
    assert (alarm.kinds, alarm.boot, alarm.seq) == (("fall",), 3, 17)
    assert len(alarm.problems) == 1
    assert alarm.problems[0].startswith("v is ")


def test_no_version_is_a_problem_and_no_refusal() -> None:
    assert read('{"kinds":["fall"]}') == ReadAlarm(kinds=("fall",), problems=("v is missing",))


@pytest.mark.parametrize(
    "member",
    [
        '"battery_pct":101',
        '"battery_pct":true',
        '"battery_pct":"full"',
        '"signal_dbm":-999',
        '"at":"2026-11-22 12:00:00"',
        '"at":"9999-12-31T23:59:59-12:00"',
        '"at":"0001-01-01T00:00:00+12:00"',
        '"at":{"y":2026}',
        '"fix":"home"',
        '"fix":{"lat":91,"lon":0}',
        '"fix":{"lat":32.1}',
        '"fix":{"lat":NaN,"lon":118.8}',
        '"fix":{"lat":true,"lon":118.8}',
        '"fix":{"lat":32.1,"lon":118.8,"datum":"nanjing1954"}',
    ],
)
def test_a_bad_optional_part_is_set_aside(member: str) -> None:
    alarm = sos(member)
    assert (alarm.battery_pct, alarm.signal_dbm, alarm.at, alarm.fix) == (None, None, None, None)
    assert "set aside" in alarm.problems[0]


def test_the_good_parts_beside_a_bad_one_stay() -> None:
    alarm = sos('"boot":3,"seq":17,"at":"2026-11-22T04:00:00Z","fix":{"lat":32.1,"lon":118.8},"battery_pct":-1')
    assert (alarm.boot, alarm.seq, alarm.at, alarm.fix) == (3, 17, NOON, Fix(lat=32.1, lon=118.8))
    assert len(alarm.problems) == 1


def test_a_place_survives_what_is_wrong_beside_it() -> None:
    alarm = sos('"fix":{"lat":32.1,"lon":118.8,"accuracy_m":-5,"at":"just now","source":"lbs"}')
    assert alarm.fix == Fix(lat=32.1, lon=118.8, source="cell")
    assert [problem.split()[0] for problem in alarm.problems] == ["fix.source", "fix.accuracy_m", "fix.at"]


def test_values_written_in_another_way_are_taken() -> None:
    alarm = sos('"boot":"3","seq":17.0,"at":1795320000,"fix":{"lat":"32.1","lon":"118.8"},"battery_pct":null')
    assert (alarm.boot, alarm.seq, alarm.at, alarm.battery_pct) == (3, 17, NOON, None)
    assert alarm.fix == Fix(lat=32.1, lon=118.8)
    assert len(alarm.problems) == 5


@pytest.mark.parametrize("number", ["boot", "seq"])
@pytest.mark.parametrize("other", ["", ',"battery_pct":"?"'])
def test_half_a_number_is_none(number: str, other: str) -> None:
    alarm = sos(f'"{number}":3' + other)
    assert (alarm.boot, alarm.seq) == (None, None)
    assert alarm.problems[-1].startswith(f"{number} is there without ")


def test_a_bad_half_of_the_number_takes_the_other_along() -> None:
    alarm = sos('"boot":3,"seq":' + "9" * 5_000)
    assert (alarm.boot, alarm.seq) == (None, None)


@pytest.mark.parametrize("value", ["1", '"true"', '"yes"', "null", "[true]", "{}", "1.0"])
def test_only_true_is_a_test(value: str) -> None:
    alarm = sos(f'"test":{value}')
    assert not alarm.test
    assert alarm.problems[0].startswith("test is neither true nor false")


def test_kinds_as_one_word() -> None:
    alarm = read('{"v":1,"kinds":"sos"}')
    assert alarm == ReadAlarm(kinds=("sos",), problems=('kinds is not a list but "sos"',))


def test_members_that_are_no_words_are_shown() -> None:
    members = ["sos", None, 7, {"a": [1]}, "sos", "a\nb", "a\x85b", "\ud800", "", "x" * 65, 7, "duress\0", "跌倒"]
    alarm = read(json.dumps({"v": 1, "kinds": members}))
    assert alarm.kinds == (
        "sos",
        "raw:null",
        "raw:7",
        'raw:{"a": [1]}',
        r"raw:a\nb",
        r"raw:a\x85b",
        r"raw:\ud800",
        'raw:""',
        "raw:" + "x" * 59 + "…",
        "duress",
        "跌倒",
    )
    assert all(len(kind) <= 64 for kind in alarm.kinds)


@pytest.mark.parametrize("filler", [[f"k{i}" for i in range(100)], list(range(5_000)), ["low_battery"] * 5_000])
def test_a_crowd_hides_no_emergency(filler: list[object]) -> None:
    alarm = read(json.dumps({"v": 1, "kinds": [*filler, "sos"]}))
    assert len(alarm.kinds) <= 32
    assert alarm.kinds[-1] == "sos"
    assert f"kinds has {len(filler) + 1} members" in alarm.problems[-1]


def test_an_unknown_kind_shows_behind_a_crowd_of_known_ones() -> None:
    alarm = read(json.dumps({"v": 1, "kinds": ["low_battery"] * 5_000 + ["着火", "x"]}))
    assert alarm.kinds == ("low_battery", "着火")


@pytest.mark.parametrize("payload", ['{"v":1}', '{"v":1,"kinds":null}', '{"v":1,"kinds":[]}', '{"v":1,"kinds":""}'])
def test_an_alarm_must_say_what_is_wrong(payload: str) -> None:
    assert isinstance(read_alarm(payload.encode()), Unreadable)


def test_every_repetition_of_kinds_counts() -> None:
    alarm = read('{"v":1,"kinds":["sos"],"kinds":["service"],"kinds":[],"kinds":null}')
    assert alarm.kinds == ("sos", "service")
    assert "kinds stands 4 times" in alarm.problems


def test_of_other_repetitions_the_last_counts() -> None:
    alarm = sos('"boot":1,"seq":2,"boot":3,"battery_pct":5,"battery_pct":"?"')
    assert (alarm.boot, alarm.seq, alarm.battery_pct) == (3, 2, None)
    assert "boot stands 2 times" in alarm.problems


@pytest.mark.parametrize("members", ['"test":true,"test":false', '"test":false,"test":true'])
def test_a_press_is_a_test_only_when_nothing_says_otherwise(members: str) -> None:
    assert not sos(members).test


def test_a_repeated_unknown_member_is_no_problem() -> None:
    assert sos('"x":1,"x":2').problems == ()


@pytest.mark.parametrize(
    "member",
    [
        '"x":' + "[" * 100_000 + "]" * 100_000,
        '"x":' + '{"a":[' * 30_000 + '"]}{["' + "]}" * 30_000,
        '"x":' + "9" * 5_000,
        '"x":-' + "9" * 200_000,
        '"x":1e' + "9" * 5_000,
        '"x":NaN,"y":-Infinity',
        r'"x":"\ud800"',
        r'"x":"\u0000"',
        '"x":"a\0\nb"',
        r'"\udfff\u0000":1',
    ],
    ids=lambda member: member[:20].encode("unicode_escape").decode(),
)
def test_no_unknown_member_can_spoil_a_press(member: str) -> None:
    alarm = sos(member + ',"boot":3,"seq":17')
    assert (alarm.boot, alarm.seq) == (3, 17)


@pytest.mark.parametrize(
    "payload",
    [
        b'\xef\xbb\xbf{"v":1,"kinds":["sos"]}',
        '{"v":1,"kinds":["sos"]}'.encode("utf-16"),
        '{"v":1,"kinds":["sos"]}'.encode("utf-16-le"),
        '{"v":1,"kinds":["sos"]}'.encode("utf-16-be"),
        b'{"v":1,"kinds":["sos"]}\0',
        b'{"v":1,"kinds":["sos"]}sos"]}',
        b'{"v":1,"kinds":["sos"]}[1]',
        b'{"v":1,"kinds":["sos"],"x":"\xff\xc0"}',
        b'\r\n\t {"v":1,"kinds":["sos"]}\x01',
    ],
)
def test_dirt_around_a_press_is_wiped_off(payload: bytes) -> None:
    alarm = read(payload)
    assert alarm.kinds == ("sos",)
    assert alarm.problems[0].startswith("the message is not quite JSON")


def test_two_messages_in_one_count_both() -> None:
    alarm = read('{"v":1,"kinds":["low_battery"],"test":true} \n{"v":1,"kinds":["sos"]}')
    assert alarm.kinds == ("low_battery", "sos")
    assert not alarm.test


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\0\0",
        b"sos",
        b'"sos"',
        b'["sos"]',
        b"null",
        b"NaN",
        b'{"v":1,"kinds":["so',
        b"\xff\xfe",
        b"\xff" * 1_000,
        b"[" * 100_000,
        b'{"kinds":["sos"],"x":' + b"[" * 100_000,
        b'{"a":"' + b'\\"' * 100_000,
        b"[" * 70 + b'"' + b'\\"' * 100_000,
    ],
    ids=lambda payload: repr(payload[:20]),
)
def test_what_is_no_object_is_unreadable(payload: bytes) -> None:
    unreadable = read_alarm(payload)
    assert isinstance(unreadable, Unreadable)
    assert len(unreadable.reason) < 200


def test_a_megabyte_is_not_even_looked_at() -> None:
    payload = json.dumps({"v": 1, "kinds": ["sos"], "x": "x" * 1_000_000}).encode()
    assert read_alarm(payload) == Unreadable(f"the message has {len(payload)} bytes, more than 262144")


def test_the_longest_message() -> None:
    payload = b'{"v":1,"kinds":["sos"],"x":"' + b"x" * (MAX_BYTES - 30) + b'"}'
    assert len(payload) == MAX_BYTES
    assert read(payload) == ReadAlarm(kinds=("sos",))


def test_problems_show_little_and_nothing_unprintable() -> None:
    alarm = sos(r'"fix":"\u0000\u001b[2J\u202e\ud800' + "x" * 10_000 + '","test":"' + "y" * 10_000 + '"')
    assert len(alarm.problems) == 3
    for problem in alarm.problems:
        assert problem.isprintable()
        assert len(problem) < 200


def test_problems_do_not_pile_up() -> None:
    assert len(sos(",".join(['"kinds":"sos","v":3,"at":"?","fix":{}'] * 1_000)).problems) < 20


@pytest.mark.parametrize(
    ("kind", "payload", "report"),
    [
        ("heartbeat", '{"v":1,"battery_pct":88.0,"x":1}', HeartbeatReport(v=1, battery_pct=88)),
        ("fix", '{"v":1,"fix":{"lat":32,"lon":118.8}}', FixReport(v=1, fix=Fix(lat=32, lon=118.8))),
        ("event", '{"v":1,"name":"door.open","value":true}', EventReport(v=1, name="door.open", value=True)),
        ("event", r'{"v":1,"name":"a","value":"b\u0000c"}', EventReport(v=1, name="a", value="b c")),
        ("result", '{"v":1,"command":"c","state":"done"}', ResultReport(v=1, command="c", state="done")),
        (
            "result",
            r'{"v":1,"command":"c","state":"failed","detail":"no\ntone\u0085"}',
            ResultReport(v=1, command="c", state="failed", detail="no tone "),
        ),
    ],
)
def test_telemetry(kind: str, payload: str, report: object) -> None:
    assert read_report(kind, payload.encode()) == report


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("heartbeat", '{"v":2}'),
        ("heartbeat", '{"battery_pct":88}'),
        ("heartbeat", '{"v":1,"battery_pct":101}'),
        ("heartbeat", '{"v":1,"at":"9999-12-31T23:59:59-12:00"}'),
        ("heartbeat", '{"v":1,"temperature_c":NaN}'),
        ("heartbeat", '{"v":1,"x":' + "[" * 100_000),
        ("heartbeat", '{"v":1,"x":"' + "x" * MAX_BYTES + '"}'),
        ("fix", '{"v":1}'),
        ("event", '{"v":1,"name":"Door"}'),
        ("event", '{"v":1,"name":"a","value":NaN}'),
        ("event", '{"v":1,"name":"a","value":' + "9" * 4_000 + "}"),
        ("event", '{"v":1,"name":"a","value":[1]}'),
        ("result", '{"v":1,"command":"c","state":"perhaps"}'),
        ("alarm", '{"v":1,"kinds":["sos"]}'),
        ("", ""),
    ],
    ids=lambda text: text[:40],
)
def test_telemetry_that_breaks_its_contract(kind: str, payload: str) -> None:
    unreadable = read_report(kind, payload.encode())
    assert isinstance(unreadable, Unreadable)
    assert len(unreadable.reason) < 500
