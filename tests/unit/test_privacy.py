"""What each role may know (R22)."""

import pytest

from gateway.domain.privacy import Privacy, privacy_of, stricter

LEVELS = {
    "ambulance_120": Privacy.FULL,
    "fire_119": Privacy.FULL,
    "police_110": Privacy.FULL,
    "hotline": Privacy.FULL,
    "guardian": Privacy.FAMILY,
    "relative": Privacy.FAMILY,
    "emergency_contact": Privacy.FAMILY,
    "service_center": Privacy.CARE,
    "community": Privacy.CARE,
    "neighbourhood_committee": Privacy.CARE,
    "care_station": Privacy.CARE,
    "district": Privacy.CARE,
    "supplier": Privacy.CARE,
    "neighbour": Privacy.NEIGHBOUR,
}


@pytest.mark.parametrize(("role", "level"), LEVELS.items())
def test_every_known_role_has_its_level(role: str, level: Privacy) -> None:
    assert privacy_of(role) is level


@pytest.mark.parametrize("role", ["", "gardener", "Hotline", "ambulance"])
def test_a_role_nobody_knows_may_know_least(role: str) -> None:
    assert privacy_of(role) is Privacy.NEIGHBOUR


@pytest.mark.parametrize("level", Privacy)
def test_the_plan_has_the_last_word_on_its_own_roles_only(level: Privacy) -> None:
    overrides = {"district": level.value}
    assert privacy_of("district", overrides) is level
    assert privacy_of("community", overrides) is Privacy.CARE
    assert privacy_of("gardener", overrides) is Privacy.NEIGHBOUR


@pytest.mark.parametrize("overrides", [None, {}])
def test_without_overrides_the_defaults_hold(overrides: dict[str, str] | None) -> None:
    assert privacy_of("hotline", overrides) is Privacy.FULL


def test_a_level_that_does_not_exist_gives_nothing_away() -> None:
    with pytest.raises(ValueError, match="everything"):
        privacy_of("neighbour", {"neighbour": "everything"})


def test_of_several_plans_the_strictest_word_counts_whatever_their_order() -> None:
    one, other = {"district": "neighbour", "hotline": "care"}, {"district": "full", "guardian": "full"}
    joined = {"district": "neighbour", "hotline": "care", "guardian": "full"}
    assert stricter(one, other) == stricter(other, one) == joined
    assert stricter() == {}
