"""What belongs into a work order, what is missing, who is satisfied, and what an inspector is given."""

from typing import Any
from uuid import UUID, uuid5

import pytest

from gateway.domain.work_order import ALWAYS_REPLIED, RATINGS, Kind, draw, is_satisfied, merged, missing, reply_needed

FILLED: dict[str, Any] = {
    "number": "+8614400000001",
    "operator": "seat-7",
    "operator_name": "陈晓",
    "reply_needed": True,
    "record": "14:31:05 收到报警",
    "person": {"name": "王秀兰", "age": 85, "phone": "+8613900000001"},
}
NEEDS = dict.fromkeys(("family", "income", "health", "address", "contacts", "demand", "reasons"), "有")


def test_an_emergency_needs_who_called_whom_it_was_for_and_what_was_done() -> None:
    assert missing(Kind.EMERGENCY_RESCUE, FILLED, completed=True) == []
    assert missing(Kind.EMERGENCY_RESCUE, {}, completed=False) == [
        *("number", "operator", "operator_name", "reply_needed", "record"),
        *("person.name", "person.age", "person.phone"),
    ]


@pytest.mark.parametrize("nothing", [None, "", "  \n", []])
def test_what_is_empty_is_missing(nothing: Any) -> None:
    assert missing(Kind.EMERGENCY_RESCUE, FILLED | {"record": nothing}, completed=False) == ["record"]


def test_an_age_of_nought_and_no_reply_are_answers() -> None:
    person = {"name": "x", "age": 0, "phone": "1"}
    fields = FILLED | {"person": person, "reply_needed": False}
    assert missing(Kind.PUBLIC_SERVICE_QUERY, fields, completed=True) == []


def test_an_institution_is_asked_for_its_name_and_no_person() -> None:
    fields = {name: value for name, value in FILLED.items() if name != "person"}
    assert missing(Kind.INSTITUTION_QUERY, fields, completed=False) == ["institution"]


def test_a_referral_records_every_need_and_at_the_end_its_outcome() -> None:
    started = FILLED | {"referral": {"needs": NEEDS, "offered": [{"name": "甲"}, {"name": "乙"}]}}
    assert missing(Kind.REFERRAL, started, completed=False) == []
    assert missing(Kind.REFERRAL, started, completed=True) == ["referral.outcome"]
    without = {"needs": NEEDS | {"income": " "}, "offered": []}
    assert missing(Kind.REFERRAL, FILLED | {"referral": without}, completed=False) == [
        "referral.needs.income",
        "referral.offered",
    ]


def test_a_complaint_says_about_what_to_whom_and_at_the_end_what_was_settled() -> None:
    fields = FILLED | {"complaint": {"about": "送餐迟到", "forwarded_to": "中心"}}
    assert missing(Kind.COMPLAINT, FILLED, completed=False) == ["complaint.about", "complaint.forwarded_to"]
    assert missing(Kind.COMPLAINT, fields, completed=True) == ["complaint.result"]


def test_a_query_that_needs_a_reply_is_not_over_without_it() -> None:
    assert missing(Kind.PUBLIC_SERVICE_QUERY, FILLED, completed=False) == []
    assert missing(Kind.PUBLIC_SERVICE_QUERY, FILLED, completed=True) == ["replied_at"]


def test_who_always_gets_a_reply_and_who_is_asked() -> None:
    assert {Kind.EMERGENCY_RESCUE, Kind.REFERRAL, Kind.COMPLAINT} == ALWAYS_REPLIED
    for kind in Kind:
        if kind in ALWAYS_REPLIED:
            assert reply_needed(kind, said=None) is True
            with pytest.raises(ValueError, match="always needs a reply"):
                reply_needed(kind, said=False)
        else:
            assert [reply_needed(kind, said=said) for said in (None, True, False)] == [None, True, False]


def test_the_top_three_of_five_steps_are_satisfied() -> None:
    assert [name for step, name in enumerate(RATINGS, start=1) if is_satisfied(step)] == [
        "fair",
        "satisfied",
        "very_satisfied",
    ]


def test_a_merge_patch_as_in_rfc_7396() -> None:
    before = {"a": {"x": 1, "y": 2}, "b": [1, 2], "c": "z"}
    patch = {"a": {"x": None, "z": 3}, "b": [3], "c": None, "d": {"e": None, "f": 1}}
    assert merged(before, patch) == {"a": {"y": 2, "z": 3}, "b": [3], "d": {"f": 1}}
    assert before["a"] == {"x": 1, "y": 2}


SPACE = UUID(int=1)
ORDERS = [(f"seat-{n % 3}", uuid5(SPACE, str(n))) for n in range(60)]


def test_a_sample_is_so_many_of_each_operator() -> None:
    drawn = draw(ORDERS, seed="2026-11", per_operator=4)
    of = {order: operator for operator, order in ORDERS}
    assert [of[order] for order in drawn] == ["seat-0"] * 4 + ["seat-1"] * 4 + ["seat-2"] * 4
    assert draw(ORDERS[:1], seed="2026-11", per_operator=4) == [ORDERS[0][1]]


def test_a_seed_draws_the_same_everywhere_and_another_one_something_else() -> None:
    drawn = draw(ORDERS, seed="2026-11", per_operator=2)
    assert drawn == draw(reversed(ORDERS), seed="2026-11", per_operator=2)
    # What it draws is on record with the sample, so it must never change with a version of ours.
    assert [str(order)[:8] for order in drawn[:2]] == ["b0660ed1", "fa0aa9ce"]
    assert drawn != draw(ORDERS, seed="2026-12", per_operator=2)
