"""What an SMS says, and that it fits."""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.directory import Address, ChannelSpec, Household, Party, Person
from gateway.domain.outbox import CaseView, DueNotice
from gateway.notify.short import compose_short, parts_of
from protocols.gsm.userdata import joined, split

NOW = datetime(2026, 11, 27, 6, 31, tzinfo=UTC)
LINK = "https://gw.example/r/" + "a" * 43


def notice(
    *, street: str = "梅园新村街道", locale: str = "zh-CN", reason: str = "alarm", role: str = "guardian"
) -> DueNotice:
    household = Household(
        id="wang-501",
        site="nanjing",
        district="320102",
        timezone="Asia/Shanghai",
        locale=locale,
        address=Address(district="玄武区", street=street, compound="示范小区", building="3", unit="2", room="501"),
        persons=(Person(id="wang", name="王秀兰", born=None),),
    )
    case = CaseView(
        id=UUID(int=1),
        case_class="emergency",
        state="open",
        site="nanjing",
        district="320102",
        timezone="Asia/Shanghai",
        locale=locale,
        kinds=("fall",),
        urgency=1,
        test=False,
        pressed_at=NOW,
        received_at=NOW,
        terminal="860000000000001",
        household=household,
        location=None,
        problem=None,
    )
    party = Party(
        id="li", role=role, name="李", district="320102", phone="+8613800000001", channels=(ChannelSpec(kind="sms"),)
    )
    return DueNotice(
        id="msg_1",
        leg_id=UUID(int=2),
        number=1,
        reason=reason,
        channel=0,
        tries=0,
        queued_at=NOW,
        first=True,
        role=role,
        party=party,
        case=case,
    )


def test_a_text_says_what_to_whom_where_when_and_how_to_answer() -> None:
    text = compose_short(notice(), now=NOW, link=LINK, letter=None, parts=3)
    assert text == ("【求助】跌倒：王秀兰，玄武区梅园新村街道示范小区3幢2单元501室 14:31。回1赶来 2已到 0不能 " + LINK)
    assert parts_of(text) == 2


def test_the_link_goes_first_then_the_time_then_names() -> None:
    alone = compose_short(notice(), now=NOW, link=LINK, letter=None, parts=1)
    assert alone == "【求助】跌倒：王秀兰，玄武区梅园新村街道示范小区3幢2单元501室 14:31。回1赶来 2已到 0不能"
    assert parts_of(alone) == 1
    longer = compose_short(
        notice(street="梅园新村街道" + "六" * (73 - len(alone))), now=NOW, link=LINK, letter=None, parts=1
    )
    assert "14:31" not in longer
    assert "王秀兰" in longer
    longest = compose_short(notice(street="很长的街道" * 8), now=NOW, link=LINK, letter=None, parts=1)
    assert "王秀兰" not in longest
    assert "501室" in longest, "the end of an address tells the door"
    assert longest.endswith("回1赶来 2已到 0不能")
    assert parts_of(longest) == 1


def test_where_a_terminal_says_it_is_comes_along() -> None:
    said = notice()
    place = {"lat": 32.06034, "lon": 118.79691, "datum": "wgs84", "source": "gnss", "at": None}
    said = replace(said, case=replace(said.case, location=place))
    assert "501室 位置32.0603,118.7969 14:31。" in compose_short(said, now=NOW, link=None, letter=None, parts=3)
    home = replace(said, case=replace(said.case, location=place | {"source": "registered"}))
    assert "位置" not in compose_short(home, now=NOW, link=None, letter=None, parts=3)


def test_where_nobody_can_write_back_the_link_stays_and_no_reply_is_asked_for() -> None:
    text = compose_short(notice(), now=NOW, link=LINK, letter=None, parts=2, replies=False)
    assert text.endswith(LINK)
    assert "回1" not in text
    squeezed = compose_short(notice(street="长" * 30), now=NOW, link=LINK, letter=None, parts=2, replies=False)
    assert squeezed.endswith(LINK)


def test_a_letter_names_the_case() -> None:
    text = compose_short(notice(), now=NOW, link=None, letter="B", parts=3)
    assert "回1B赶来 2B已到 0B不能" in text


def test_an_english_text_uses_the_small_alphabet_where_it_can() -> None:
    said = notice(locale="en-GB")
    said = replace(said, case=replace(said.case, household=None))
    text = compose_short(said, now=NOW, link=None, letter=None, parts=1)
    assert text == "HELP: Fall - terminal 860000000000001 14:31. Reply 1 coming, 2 arrived, 0 cannot"


def test_who_may_know_least_learns_least() -> None:
    assert "王秀兰" not in compose_short(notice(role="neighbour"), now=NOW, link=None, letter=None, parts=3)


def test_the_end_of_a_case_asks_for_nothing() -> None:
    text = compose_short(notice(reason="closed"), now=NOW, link=LINK, letter="B", parts=3)
    assert text.startswith("【已结束】")
    assert "回1" not in text
    assert LINK not in text


@given(street=st.text(min_size=1, max_size=400), parts=st.integers(1, 4), english=st.booleans())
def test_whatever_an_address_is_a_text_fits_and_arrives_as_it_is(street: str, parts: int, *, english: bool) -> None:
    said = notice(street=street, locale="en" if english else "zh")
    text = compose_short(said, now=NOW, link=LINK, letter=None, parts=parts)
    assert parts_of(text) <= parts
    arrived = joined(split(text, reference=1)).text
    assert arrived is not None
    assert ("0 cannot" if english else "0不能") in arrived
