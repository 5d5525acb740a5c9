"""What each role may know (R22): privacy is data of the plan, with careful defaults."""

from collections.abc import Mapping
from enum import StrEnum

__all__ = ["Privacy", "privacy_of", "stricter"]


class Privacy(StrEnum):
    """How much of a case a message shows.

    ``FULL``: everything, with the health record. ``CARE`` and ``FAMILY``: name, age, phone, address, approach route and
    location, no health. ``NEIGHBOUR``: which door to knock at, nothing else.
    """

    FULL = "full"
    CARE = "care"
    FAMILY = "family"
    NEIGHBOUR = "neighbour"


_BY_ROLE = {
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


def privacy_of(role: str, overrides: Mapping[str, str] | None = None) -> Privacy:
    """Return what `role` may know; a role nobody knows may know least."""
    if overrides and role in overrides:
        return Privacy(overrides[role])
    return _BY_ROLE.get(role, Privacy.NEIGHBOUR)


def stricter(*overrides: Mapping[str, str]) -> dict[str, str]:
    """Join the overrides of several plans: each role may know only what every plan that names it allows."""
    order = list(Privacy)  # from most to least
    joined: dict[str, str] = {}
    for one in overrides:
        for role, level in one.items():
            known = joined.get(role, level)
            joined[role] = max(known, level, key=lambda name: order.index(Privacy(name)))
    return joined
