"""What is always true of the contracts: an alarm survives everything, and the published schemas fit the code."""

import json
from datetime import UTC
from functools import cache
from typing import Any, TypeVar, get_args

from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import BaseModel

from schemas.commands import Ack, Command, Progress
from schemas.export import MODELS, schema_of
from schemas.notices import AddressCard, Answer, Location, Notice, NoticeData, PartyRef, PersonCard
from schemas.reports import AlarmReport, EventReport, Fix, FixReport, HeartbeatReport, ResultReport
from schemas.tolerance import ReadAlarm, Unreadable, read_alarm, read_report

M = TypeVar("M", bound=BaseModel)

OPTIONAL = ("boot", "seq", "at", "fix", "battery_pct", "signal_dbm", "test")
EMERGENCIES = ("sos", "fall", "smoke", "gas", "water", "inactivity", "wander", "duress")

# The control characters and lone surrogates in here are what a database and UTF-8 choke on.
poison = st.text(st.sampled_from('a"\\\0\n\x1b\x7f\x85\ud800\udfff\u202e\ufeff跌'), max_size=100)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-(10**400), max_value=10**400)
    | st.floats()
    | poison
    | st.sampled_from([*AlarmReport.KINDS, "2026-11-22T06:31:05Z", "2026-11-22 06:31:05", "0001-01-01T00:00:00+23:59"])
)
json_values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.sampled_from(["lat", "lon", "datum", "at", "v"]) | poison, inner, max_size=5)
    ),
    max_leaves=20,
)

words = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=64)
kinds = st.lists(st.sampled_from(AlarmReport.KINDS) | words, min_size=1, max_size=32)
instants = st.datetimes(timezones=st.just(UTC))
counts = st.integers(0, 4_294_967_295)
lines = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=64)
small = st.integers(0, 1440)
finite = st.floats(allow_nan=False, allow_infinity=False)


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


def literals(alias: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(get_args(alias))


def built(model: type[M], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[M]:
    """Build `model` with any subset of the fields that it does not need."""
    needed = {name: field for name, field in fields.items() if model.model_fields[name].is_required()}
    spare = {name: field for name, field in fields.items() if name not in needed}
    return st.fixed_dictionaries(needed, optional=spare).map(lambda values: model(**values))


fixes = built(
    Fix,
    lat=st.floats(-90, 90),
    lon=st.floats(-180, 180),
    datum=st.sampled_from(["wgs84", "gcj02", "bd09"]),
    source=st.sampled_from(["gnss", "wifi", "cell", "manual"]),
    accuracy_m=maybe(st.floats(0, 1_000_000)),
    at=maybe(instants),
)
head: dict[str, st.SearchStrategy[Any]] = {
    "v": st.just(1),
    "boot": maybe(counts),
    "seq": maybe(counts),
    "at": maybe(instants),
}
percents = maybe(st.sampled_from([0, 100]) | st.integers(0, 100))
signals = maybe(st.integers(-200, 50))
alarms = built(
    AlarmReport,
    **head,
    kinds=kinds,
    fix=maybe(fixes),
    battery_pct=percents,
    signal_dbm=signals,
    test=st.booleans(),
)
whole_alarms = alarms.filter(lambda alarm: (alarm.boot is None) == (alarm.seq is None))
heartbeats = built(
    HeartbeatReport,
    **head,
    battery_pct=percents,
    battery_mv=maybe(st.integers(0, 65_535)),
    signal_dbm=signals,
    mains=maybe(st.booleans()),
    uptime_s=maybe(counts),
    temperature_c=maybe(st.floats(-90, 150)),
    firmware=maybe(lines),
)
fix_reports = built(FixReport, **head, fix=fixes)
events = built(
    EventReport,
    **head,
    name=st.text("abcxyz019_.", min_size=1, max_size=64),
    value=lines | st.integers(-(2**53) + 1, 2**53 - 1) | finite | st.booleans() | st.none(),
)
results = built(
    ResultReport,
    **head,
    command=lines,
    state=st.sampled_from(["accepted", "done", "failed", "refused"]),
    detail=maybe(lines),
)
acks = built(Ack, boot=maybe(counts), seq=maybe(counts), case=maybe(st.uuids()))
commands = built(
    Command,
    id=lines,
    name=literals(Command.model_fields["name"].annotation),
    arguments=st.dictionaries(lines, lines | st.integers() | finite | st.booleans(), max_size=3),
    expires_at=maybe(instants),
)
progress = built(
    Progress,
    case=st.uuids(),
    state=literals(Progress.model_fields["state"].annotation),
    role=maybe(lines),
    minutes=maybe(small),
)
public_ids = st.text("azAZ09_-", min_size=1, max_size=64)
notices = built(
    Notice,
    type=literals(Notice.model_fields["type"].annotation),
    timestamp=instants,
    data=built(
        NoticeData,
        case=st.uuids(),
        leg=st.uuids(),
        number=st.integers(1, 1_000),
        test=st.booleans(),
        reason=literals(NoticeData.model_fields["reason"].annotation),
        party=built(PartyRef, id=public_ids, role=lines, name=maybe(lines)),
        district=lines,
        state=st.sampled_from(["open", "safe", "closed"]),
        kinds=kinds,
        urgency=st.integers(1, 100),
        pressed_at=maybe(instants),
        received_at=instants,
        terminal=maybe(lines),
        household=maybe(lines),
        address=maybe(built(AddressCard, text=lines, landmark=maybe(lines), approach=maybe(lines))),
        location=maybe(
            built(
                Location,
                lat=st.floats(-90, 90),
                lon=st.floats(-180, 180),
                datum=st.sampled_from(["wgs84", "gcj02", "bd09"]),
                source=st.sampled_from(["gnss", "wifi", "cell", "manual", "registered"]),
                accuracy_m=maybe(st.floats(0, 1_000_000)),
                at=maybe(instants),
                age_s=maybe(st.integers(0, 1_000_000)),
            )
        ),
        maps=st.dictionaries(st.sampled_from(["amap", "baidu", "tencent", "geo"]), lines),
        persons=st.lists(
            built(
                PersonCard,
                id=maybe(lines),
                name=maybe(lines),
                age=maybe(st.integers(0, 130)),
                phone=maybe(lines),
                health=maybe(st.dictionaries(lines, lines | st.lists(lines, max_size=2), max_size=2)),
            ),
            max_size=2,
        ),
        problem=maybe(lines),
        outcome=maybe(lines),
        text=lines,
        answer_url=maybe(lines),
    ),
)
answers = built(
    Answer,
    answer=literals(Answer.model_fields["answer"].annotation),
    reason=maybe(lines),
    minutes=maybe(small),
    by=maybe(lines),
)

telemetry: st.SearchStrategy[tuple[str, BaseModel]] = (
    st.tuples(st.just("heartbeat"), heartbeats)
    | st.tuples(st.just("fix"), fix_reports)
    | st.tuples(st.just("event"), events)
    | st.tuples(st.just("result"), results)
)
messages: st.SearchStrategy[tuple[str, BaseModel]] = (
    st.tuples(st.just("alarm"), alarms)
    | telemetry
    | st.tuples(st.just("ack"), acks)
    | st.tuples(st.just("command"), commands)
    | st.tuples(st.just("progress"), progress)
    | st.tuples(st.just("notice"), notices)
    | st.tuples(st.just("answer"), answers)
)


def members_of(report: BaseModel) -> dict[str, Any]:
    members: dict[str, Any] = json.loads(report.model_dump_json(exclude_unset=True))
    return members


def as_json(members: list[tuple[str, Any]]) -> bytes:
    """Write an object that may have a key twice."""
    return ("{" + ",".join(f"{json.dumps(name)}:{json.dumps(value)}" for name, value in members) + "}").encode()


def check_kept(alarm: ReadAlarm | Unreadable) -> None:
    """Whatever came in, what is kept can be stored and shown."""
    if isinstance(alarm, Unreadable):
        assert alarm.reason.isprintable()
        assert len(alarm.reason) < 500
        return
    assert 1 <= len(alarm.kinds) <= 32
    assert all(1 <= len(kind) <= 64 for kind in alarm.kinds)
    assert (alarm.boot is None) == (alarm.seq is None)
    for text in (*alarm.kinds, *alarm.problems):
        text.encode()
        assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in text)
    assert all(len(problem) < 500 for problem in alarm.problems)


# Plain bytes are hardly ever JSON, so most of these are an alarm that was damaged on its way.
damaged = st.builds(
    lambda alarm, at, junk, cut: (
        (raw := alarm.model_dump_json().encode())[: at % len(raw)] + junk + raw[at % len(raw) + cut :]
    ),
    alarms,
    st.integers(0, 2_000),
    st.binary(max_size=4) | st.sampled_from([b"\0", b'"', b"\\", b"{", b"]", b"\\ud800", b"\xff", b"9" * 5_000]),
    st.integers(0, 3),
)


@given(st.binary() | damaged | damaged.map(lambda raw: raw.decode(errors="replace").encode("utf-16")))
@example(b'{"v":1,"kinds":["sos"],"at":"9999-12-31T23:59:59-12:00"}')
def test_no_bytes_raise(payload: bytes) -> None:
    check_kept(read_alarm(payload))
    for kind in ("heartbeat", "fix", "event", "result"):
        read_report(kind, payload)


@given(
    json_values
    | st.lists(st.tuples(st.sampled_from(list(AlarmReport.model_fields)) | poison, json_values), max_size=12).map(dict)
)
def test_no_json_raises(value: Any) -> None:
    payload = json.dumps(value).encode()
    check_kept(read_alarm(payload))
    for kind in ("heartbeat", "fix", "event", "result"):
        read_report(kind, payload)


@given(whole_alarms)
def test_a_valid_alarm_is_read_exactly(report: AlarmReport) -> None:
    expected = ReadAlarm(
        kinds=tuple(report.kinds),
        boot=report.boot,
        seq=report.seq,
        at=report.at,
        fix=report.fix,
        battery_pct=report.battery_pct,
        signal_dbm=report.signal_dbm,
        test=report.test,
    )
    assert read_alarm(report.model_dump_json().encode()) == expected
    assert read_alarm(report.model_dump_json(exclude_unset=True).encode()) == expected


@given(whole_alarms, st.sampled_from(["v", *OPTIONAL]), json_values)
def test_one_bad_part_costs_only_itself(report: AlarmReport, name: str, value: Any) -> None:
    alarm = read_alarm(as_json([*(members_of(report) | {name: value}).items()]))
    assert isinstance(alarm, ReadAlarm)
    check_kept(alarm)
    assert set(alarm.kinds) == set(report.kinds)
    lost = {"boot", "seq"} if name in ("boot", "seq") else {name}
    for other in set(OPTIONAL) - lost:
        assert getattr(alarm, other) == getattr(report, other)
    assert alarm.test <= (value is True if name == "test" else report.test)


@given(
    st.lists(st.sampled_from(EMERGENCIES), min_size=1, max_size=8, unique=True),
    st.lists(json_values, max_size=40),
    st.lists(
        st.tuples(st.sampled_from(list(AlarmReport.model_fields)) | poison, json_values)
        | st.tuples(st.just("kinds"), st.just(["service"]) | st.none() | st.just([])),
        max_size=8,
    ),
    st.randoms(use_true_random=False),
)
@example(["sos"], [], [("kinds", ["service"])], None)
@example(["sos"], [f"k{number}" for number in range(50)], [], None)
def test_an_emergency_is_never_lost(
    emergencies: list[str], members: list[Any], others: list[tuple[str, Any]], random: Any
) -> None:
    crowd = [*members, *emergencies]
    pairs = [("v", 1), ("kinds", crowd), *others]
    if random is not None:
        random.shuffle(crowd)
        random.shuffle(pairs)
    alarm = read_alarm(as_json(pairs))
    assert isinstance(alarm, ReadAlarm)
    check_kept(alarm)
    assert set(emergencies) <= set(alarm.kinds)


@given(telemetry)
def test_valid_telemetry_is_read_exactly(message: tuple[str, BaseModel]) -> None:
    kind, report = message
    assert read_report(kind, report.model_dump_json().encode()) == report


@cache
def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(schema_of(name))


@settings(max_examples=500)
@given(messages)
def test_a_valid_message_fits_its_published_schema(message: tuple[str, BaseModel]) -> None:
    name, model = message
    assert type(model) is MODELS[name]
    for text in (
        model.model_dump_json(),
        model.model_dump_json(exclude_none=True),
        model.model_dump_json(exclude_unset=True),
    ):
        validator(name).validate(json.loads(text))
