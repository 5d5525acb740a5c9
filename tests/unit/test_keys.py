"""Ids are a contract: every replica, the spool, a retry and the next version derive the same ones (D5, D10, I5)."""

from uuid import UUID

from gateway.domain import keys

TERMINAL = "860000000000001"
NUMBERED = keys.numbered_key(TERMINAL, epoch=1, boot=17, seq=4)
ALARM = UUID("a32b10cc-d110-5129-9f59-35a51069601a")
CASE = UUID("a32b10cc-d110-5129-97f4-891cca7bf6c0")
LEG = UUID("a32b10cc-d110-5129-a6f9-0c03398d8e0a")


# The literals below were written down once. Who changes them breaks every case that is open during an upgrade.


def test_the_keys_of_a_press_never_change() -> None:
    assert keys.numbered_key(TERMINAL, epoch=1, boot=17, seq=4) == "n:860000000000001:1:17:4"
    assert keys.window_key(TERMINAL, epoch=2, kinds=("sos", "fall", "sos")) == "w:860000000000001:2:fall+sos"


def test_the_ids_of_alarms_never_change() -> None:
    assert keys.alarm_id(NUMBERED, 1) == ALARM
    assert keys.alarm_id(NUMBERED, 2) == UUID("e97f621c-b589-5b69-97f1-67857ab1c3e8")
    assert keys.alarm_id("w:860000000000001:2:fall+sos", 1) == UUID("c46792b9-c008-5b7e-a783-afa16ce815be")


def test_the_ids_of_a_case_and_its_legs_never_change() -> None:
    assert keys.case_id(ALARM) == CASE
    assert keys.leg_id(CASE, role="guardian", party="guardian-wang") == LEG
    assert keys.leg_id(CASE, role="fire_119", party=None) == UUID("a32b10cc-d110-5129-be08-98d0cf788e0f")


def test_the_idempotency_key_of_a_notice_never_changes() -> None:
    assert keys.notice_id(LEG, 1) == "msg_a32b10ccd1105129a6f90c03398d8e0a_1"
    assert keys.notice_id(LEG, 12) == "msg_a32b10ccd1105129a6f90c03398d8e0a_12"


def test_a_case_is_about_the_household_where_that_is_known() -> None:
    assert keys.subject(household="wang-501", terminal=TERMINAL) == "household:wang-501"
    assert keys.subject(household=None, terminal=TERMINAL) == "terminal:860000000000001"
    assert keys.subject(household=None, terminal=None) == "terminal:?"


def test_a_household_and_a_terminal_of_the_same_name_are_two_subjects() -> None:
    assert keys.subject(household="x", terminal=None) != keys.subject(household=None, terminal="x")


def test_the_order_of_kinds_makes_no_other_press() -> None:
    assert keys.window_key(TERMINAL, epoch=1, kinds=("sos", "fall")) == keys.window_key(
        TERMINAL, epoch=1, kinds=("fall", "sos")
    )


def test_a_refurbished_terminal_that_counts_from_the_start_makes_new_presses() -> None:
    assert keys.numbered_key(TERMINAL, epoch=2, boot=17, seq=4) != NUMBERED
    assert keys.window_key(TERMINAL, epoch=2, kinds=("sos",)) != keys.window_key(TERMINAL, epoch=1, kinds=("sos",))
