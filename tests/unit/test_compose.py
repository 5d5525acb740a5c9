"""What each role is told, and above all what it is not (R22, R10)."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.directory import Address, ChannelSpec, Household, Party, Person
from gateway.domain.outbox import CaseView, DueNotice
from gateway.domain.privacy import Privacy, privacy_of
from gateway.notify.compose import compose
from schemas.notices import Notice

NOW = datetime(2026, 11, 22, 6, 31, 5, tzinfo=UTC)
CASE = UUID("d6007f4b-0bef-5962-97f4-891cca7bf6c0")
LEG = UUID("bd5f27ac-dd2f-5477-b191-013a582e1de4")
LINK = "https://gateway.example/a/token"

HOME = Household(
    id="home-1",
    site="nanjing",
    district="320102",
    timezone="Asia/Shanghai",
    locale="zh-CN",
    address=Address(
        district="玄武区",
        street="梅园新村街道",
        compound="示范小区",
        building="3",
        room="501",
        landmark="北门对面是小学",
        approach="门禁密码问保安",
        lat=32.061111,
        lon=118.792222,
    ),
    persons=(
        Person(
            id="p-1",
            name="王秀兰",
            born=date(1941, 3, 2),
            phone="+8613900000001",
            health={"conditions": ["高血压"], "blood": "A+"},
        ),
        Person(id="p-2", name="李国强", phone="+8613900000002", health={"mobility": "助行器"}),
    ),
    parties=(Party(id="other", role="guardian", name="王小明", district="320102", phone="+8613800000001"),),
)
PARTY = Party(
    id="party-1",
    role="hotline",
    name="养老服务热线",
    district="320102",
    phone="02500000009",
    channels=(
        ChannelSpec(kind="webhook", options={"url": "https://platform.example/hook", "secret": "whsec_Z2VoZWlt"}),
    ),
)
CASE_VIEW = CaseView(
    id=CASE,
    case_class="emergency",
    state="open",
    site="nanjing",
    district="320102",
    timezone="Asia/Shanghai",
    locale="zh-CN",
    kinds=("sos", "fall"),
    urgency=2,
    test=False,
    pressed_at=NOW - timedelta(seconds=5),
    received_at=NOW - timedelta(seconds=4),
    terminal="860000000000001",
    household=HOME,
    location={
        "lat": 32.099999,
        "lon": 118.777777,
        "datum": "wgs84",
        "source": "gnss",
        "accuracy_m": 12.0,
        "at": (NOW - timedelta(seconds=25)).isoformat(),
    },
    problem="门口的摄像头看不到人",
)
NOTICE = DueNotice(
    id="msg_1",
    leg_id=LEG,
    number=1,
    reason="alarm",
    channel=0,
    tries=0,
    queued_at=NOW,
    first=True,
    role="hotline",
    party=PARTY,
    case=CASE_VIEW,
)

# What belongs to whom. Coordinates are given by their digits: links write them in other datums as well.
HEALTH = ("高血压", "A+", "助行器")
PERSONAL = ("秀兰", "国强", "1941", "85", "+8613900000001", "+8613900000002", "p-1", "p-2")
PLACE = ("32.09", "118.77", "32.06", "118.79", "amap", "geo:")
INSIDE = ("门禁密码问保安", "门口的摄像头看不到人")
NOBODYS = ("王小明", "+8613800000001", "whsec_", "platform.example", "02500000009")
FORBIDDEN = {
    Privacy.FULL: NOBODYS,
    Privacy.CARE: (*NOBODYS, *HEALTH),
    Privacy.FAMILY: (*NOBODYS, *HEALTH),
    Privacy.NEIGHBOUR: (*NOBODYS, *HEALTH, *PERSONAL, *PLACE, *INSIDE),
}
FULL_ROLES = ("ambulance_120", "fire_119", "police_110", "hotline")
NAMED_ROLES = ("guardian", "relative", "community", "service_center", "district", "supplier")


def read(message: bytes) -> Notice:
    """Read a message as the published contract says; it must hold nothing else, and nothing that is null."""
    notice = Notice.model_validate_json(message)
    assert json.loads(message) == json.loads(notice.model_dump_json(exclude_none=True))
    return notice


def sent(notice: DueNotice = NOTICE, *, now: datetime = NOW, **case: Any) -> str:
    """Return the message as it goes out, without the timestamps, whose digits could be anybody's."""
    message = compose(replace(notice, case=replace(notice.case, **case)), now=now, answer_url=LINK)
    body = json.loads(read(message).model_dump_json())
    for name in ("pressed_at", "received_at", "case", "leg"):
        del body["data"][name]
    del body["timestamp"]
    return json.dumps(body, ensure_ascii=False)


def data(notice: DueNotice = NOTICE, *, now: datetime = NOW, **case: Any) -> dict[str, Any]:
    message = compose(replace(notice, case=replace(notice.case, **case)), now=now, answer_url=LINK)
    found: dict[str, Any] = json.loads(read(message).model_dump_json())["data"]
    return found


def to(role: str, **changes: Any) -> DueNotice:
    return replace(NOTICE, role=role, party=replace(PARTY, role=role), **changes)


# Who may know what


def test_a_neighbour_learns_which_door_to_knock_at_and_nothing_else() -> None:
    told = data(to("neighbour"))
    assert told["address"] == {
        "text": "玄武区梅园新村街道示范小区3幢501室",
        "landmark": "北门对面是小学",
        "approach": None,
    }
    nothing = dict.fromkeys(("id", "age", "phone", "health"))
    assert told["persons"] == [{"name": "王老人"} | nothing, {"name": "李老人"} | nothing]
    assert (told["location"], told["maps"], told["problem"]) == (None, {}, None)
    assert told["text"] == "【求助】紧急呼叫、跌倒：玄武区梅园新村街道示范小区3幢501室"


@pytest.mark.parametrize("role", FULL_ROLES)
def test_those_who_rescue_have_the_health_record_and_the_way_in(role: str) -> None:
    told = data(to(role))
    assert told["address"]["approach"] == "门禁密码问保安"
    assert told["persons"] == [
        {
            "id": "p-1",
            "name": "王秀兰",
            "age": 85,
            "phone": "+8613900000001",
            "health": {"conditions": ["高血压"], "blood": "A+"},
        },
        {"id": "p-2", "name": "李国强", "age": None, "phone": "+8613900000002", "health": {"mobility": "助行器"}},
    ]
    assert told["problem"] == "门口的摄像头看不到人"
    assert (told["location"]["lat"], told["location"]["lon"], told["location"]["age_s"]) == (32.099999, 118.777777, 25)
    assert sorted(told["maps"]) == ["amap", "baidu", "geo", "tencent"]


@pytest.mark.parametrize("role", NAMED_ROLES)
def test_those_who_care_have_everything_but_the_health_record(role: str) -> None:
    told = data(to(role))
    assert [person["name"] for person in told["persons"]] == ["王秀兰", "李国强"]
    assert [person["health"] for person in told["persons"]] == [None, None]
    assert told["address"]["approach"] == "门禁密码问保安"
    assert told["location"] is not None


roles = st.sampled_from([*FULL_ROLES, *NAMED_ROLES, "neighbour"]) | st.from_regex(
    r"[a-z][a-z_]{0,20}",
    fullmatch=True,  # a digit might be one of somebody's age
)
levels = st.sampled_from([level.value for level in Privacy])
reasons = st.sampled_from(["alarm", "fallback", "pressed_again", "location", "closed"])


@given(roles, st.dictionaries(roles, levels, max_size=3), reasons, st.integers(1, 9), st.booleans(), st.booleans())
def test_no_role_is_told_what_it_may_not_know(
    role: str, privacy: Mapping[str, str], reason: str, number: int, first: bool, chinese: bool
) -> None:
    notice = to(role, reason=reason, number=number, first=first)
    text = sent(notice, privacy=privacy, locale="zh-CN" if chinese else "en")
    level = privacy_of(role, privacy)
    assert [word for word in FORBIDDEN[level] if word in text] == []


@given(st.from_regex(r"[a-z][a-z0-9_]{0,20}", fullmatch=True))
def test_a_role_nobody_knows_is_told_least(role: str) -> None:
    level = privacy_of(role)
    assert (level is Privacy.NEIGHBOUR) == ("秀兰" not in sent(to(role)))


hidden = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Zs", "Zl", "Zp")), min_size=8, max_size=20
).map(lambda text: f"~{text}~")


@given(hidden, hidden, hidden, hidden, hidden)
def test_whatever_stands_in_the_record_a_neighbour_does_not_see_it(
    given_name: str, phone: str, illness: str, approach: str, problem: str
) -> None:
    person = Person(id="p", name=f"王{given_name}", phone=phone, health={"conditions": [illness]})
    home = replace(HOME, persons=(person,), address=replace(HOME.address, approach=approach))
    told = data(to("neighbour"), household=home, problem=problem)
    text = json.dumps(told, ensure_ascii=False)
    for secret in (given_name, phone, illness, approach, problem):
        assert json.dumps(secret, ensure_ascii=False)[1:-1] not in text


# What kind of message it is


@pytest.mark.parametrize(
    ("reason", "number", "first", "kind"),
    [
        ("alarm", 1, True, "case.alert"),
        ("fallback", 1, True, "case.alert"),
        ("pressed_again", 2, True, "case.alert"),
        ("location", 3, True, "case.alert"),
        ("pressed_again", 2, False, "case.update"),
        ("location", 2, False, "case.update"),
        ("alarm", 1, False, "case.alert"),
        ("closed", 2, False, "case.closed"),
        ("closed", 2, True, "case.closed"),
    ],
)
def test_whoever_never_heard_of_the_case_gets_the_alert(reason: str, number: int, first: bool, kind: str) -> None:
    notice = replace(NOTICE, reason=reason, number=number, first=first)
    assert read(compose(notice, now=NOW, answer_url=LINK)).type == kind


def test_a_message_says_which_obligation_it_is_about() -> None:
    told = data(replace(NOTICE, number=4, reason="pressed_again"))
    assert (told["case"], told["leg"], told["number"], told["reason"]) == (str(CASE), str(LEG), 4, "pressed_again")
    assert told["party"] == {"id": "party-1", "role": "hotline", "name": "养老服务热线"}
    assert (told["kinds"], told["urgency"], told["state"], told["test"]) == (["sos", "fall"], 2, "open", False)


def test_once_it_is_over_nobody_is_asked_to_answer() -> None:
    assert data()["answer_url"] == LINK
    over = data(replace(NOTICE, reason="closed", number=2), state="closed", outcome="helped")
    assert (over["answer_url"], over["outcome"], over["state"]) == (None, "helped", "closed")


# What a human reads


@pytest.mark.parametrize(
    ("reason", "test", "text"),
    [
        ("alarm", False, "【求助】紧急呼叫、跌倒：王秀兰（85岁）、李国强，玄武区梅园新村街道示范小区3幢501室"),
        (
            "pressed_again",
            False,
            "【再次呼叫】紧急呼叫、跌倒：王秀兰（85岁）、李国强，玄武区梅园新村街道示范小区3幢501室",
        ),
        ("location", False, "【位置更新】紧急呼叫、跌倒：王秀兰（85岁）、李国强，玄武区梅园新村街道示范小区3幢501室"),
        ("closed", False, "【已结束】紧急呼叫、跌倒：王秀兰（85岁）、李国强，玄武区梅园新村街道示范小区3幢501室"),
        ("alarm", True, "【测试】【求助】紧急呼叫、跌倒：王秀兰（85岁）、李国强，玄武区梅园新村街道示范小区3幢501室"),
    ],
)
def test_one_sentence_says_it_all(reason: str, test: bool, text: str) -> None:
    assert data(replace(NOTICE, reason=reason), test=test)["text"] == text


def test_the_sentence_comes_in_the_language_of_the_site() -> None:
    text = data(locale="en", test=True)["text"]
    assert text.startswith("TEST HELP: Call for help, Fall - ")


def test_a_kind_without_a_word_is_shown_as_it_came() -> None:
    assert "something_new" in data(kinds=("something_new",))["text"]


def test_a_terminal_that_stands_nowhere_is_named_itself() -> None:
    told = data(household=None, location=None, problem="unknown terminal")
    assert told["text"] == "【求助】紧急呼叫、跌倒：终端 860000000000001"
    assert (told["household"], told["address"], told["persons"], told["maps"]) == (None, None, [], {})
    assert told["problem"] == "unknown terminal"


def test_an_alarm_from_nobody_knows_where_does_not_invent_a_terminal() -> None:
    for locale in ("zh-CN", "en"):
        assert (
            "None"
            not in data(household=None, location=None, terminal=None, kinds=("unreadable",), locale=locale)["text"]
        )


# Time


def test_an_age_is_counted_where_the_person_lives() -> None:
    born = replace(HOME, persons=(replace(HOME.persons[0], born=date(1941, 11, 23)),))
    before_midnight = datetime(2026, 11, 22, 15, 59, tzinfo=UTC)
    assert data(household=born, now=before_midnight)["persons"][0]["age"] == 84
    assert data(household=born, now=before_midnight + timedelta(minutes=1))["persons"][0]["age"] == 85


def test_a_position_gets_older_from_message_to_message() -> None:
    assert data(now=NOW + timedelta(minutes=5))["location"]["age_s"] == 325


def test_a_position_from_a_clock_that_runs_ahead_is_not_younger_than_now() -> None:
    assert data(now=NOW - timedelta(hours=1))["location"]["age_s"] == 0


def test_a_registered_address_has_no_age() -> None:
    place = {"lat": 32.06, "lon": 118.79, "datum": "gcj02", "source": "registered", "accuracy_m": None, "at": None}
    told = data(location=place)["location"]
    assert (told["source"], told["datum"], told["age_s"]) == ("registered", "gcj02", None)


def test_a_plan_may_say_it_in_its_own_words_and_language() -> None:
    template = {
        "zh": "{time} {what}，{who}在{where}，{landmark}；{approach}",
        "en": "{lead}{what} at {where}, press {urgency}",
    }
    said = data(to("hotline", template=template))["text"]
    assert "王秀兰" in said
    assert "门禁密码问保安" in said
    neighbour = data(to("neighbour", template=template))["text"]
    assert "秀兰" not in neighbour, "what a role may not know stays empty"
    assert "门禁密码" not in neighbour
    english = data(to("hotline", template=template, language="en"))["text"]
    assert english.startswith("HELP: ")
    assert data(to("hotline", language="en"))["text"].startswith("HELP: ")


# What messages have in common is made once


def test_a_case_that_changed_is_told_as_it_is_now() -> None:
    """The parts that were kept belong to one state of one case, to one level and to one day."""
    for _ in range(2):
        assert "501" in data()["text"]
        assert "501" not in data(household=None)["text"]
        assert data(location=None)["maps"] == {}
        assert data(kinds=("gas",))["text"].startswith("【求助】燃气报警")
        assert "health" in data(to("ambulance_120"))["persons"][0]
        assert data(to("community"))["persons"][0]["health"] is None
        assert data(to("community"), privacy={"community": "neighbour"})["location"] is None


@given(st.lists(st.tuples(st.sampled_from(FULL_ROLES + NAMED_ROLES + ("neighbour",)), st.booleans()), min_size=1))
def test_messages_say_the_same_in_any_order(told: list[tuple[str, bool]]) -> None:
    """Whatever was told to whomever before."""
    views = {moved: replace(CASE_VIEW, location=None if moved else CASE_VIEW.location) for moved in (False, True)}
    for role, moved in told:
        kept = compose(replace(to(role), case=views[moved]), now=NOW, answer_url=LINK)
        assert kept == compose(replace(to(role), case=replace(views[moved])), now=NOW, answer_url=LINK)


def test_instants_are_told_in_utc() -> None:
    east = timezone(timedelta(hours=8))
    told = json.loads(
        compose(replace(NOTICE, case=replace(CASE_VIEW, received_at=NOW.astimezone(east))), now=NOW, answer_url=None)
    )
    assert told["data"]["received_at"] == "2026-11-22T06:31:05Z"
    assert told["timestamp"] == "2026-11-22T06:31:05Z"
