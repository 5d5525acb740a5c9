"""Which class of case an alarm leads to: in doubt an emergency (I2, I6)."""

import pytest

from gateway.domain.kinds import EMERGENCIES, NEVER_IN_A_TEST, SERVICE, TECHNICAL, CaseClass, classify

CLASSES = [
    (("sos",), CaseClass.EMERGENCY),
    (("duress",), CaseClass.EMERGENCY),
    (("sos", "low_battery"), CaseClass.EMERGENCY),
    (("low_battery", "sos"), CaseClass.EMERGENCY),
    (("service", "fall"), CaseClass.EMERGENCY),
    (("low_battery",), CaseClass.TECHNICAL),
    (("tamper", "power_lost"), CaseClass.TECHNICAL),
    (("service",), CaseClass.SERVICE),
    (("service", "low_battery"), CaseClass.SERVICE),
    (("something_new",), CaseClass.EMERGENCY),
    (("low_battery", "something_new"), CaseClass.EMERGENCY),
    (("SOS",), CaseClass.EMERGENCY),
    (("Low_Battery",), CaseClass.EMERGENCY),
    (("unreadable",), CaseClass.EMERGENCY),
    ((), CaseClass.EMERGENCY),
]


@pytest.mark.parametrize(("kinds", "expected"), CLASSES)
def test_the_most_serious_kind_decides(kinds: tuple[str, ...], expected: CaseClass) -> None:
    assert classify(kinds) is expected


@pytest.mark.parametrize("kind", sorted(EMERGENCIES))
@pytest.mark.parametrize("other", sorted(EMERGENCIES | TECHNICAL | SERVICE))
def test_no_second_kind_makes_an_emergency_less(kind: str, other: str) -> None:
    assert classify((other, kind)) is CaseClass.EMERGENCY


@pytest.mark.parametrize("kinds", [("sos",), ("low_battery",), ("service",), ()])
def test_an_alarm_in_an_open_test_window_is_a_test(kinds: tuple[str, ...]) -> None:
    assert classify(kinds, test=True) is CaseClass.TEST


def test_no_kind_belongs_to_two_classes() -> None:
    assert not EMERGENCIES & TECHNICAL
    assert not EMERGENCIES & SERVICE
    assert not TECHNICAL & SERVICE


def test_a_test_wakes_none_of_the_public_services() -> None:
    assert sorted(NEVER_IN_A_TEST) == ["ambulance_120", "fire_119", "police_110"]
