"""Who lives where, who is responsible, and what a plan says: the directory as values."""

from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal
from uuid import UUID

__all__ = ["Address", "ChannelSpec", "Household", "Party", "Person"]

Datum = Literal["wgs84", "gcj02", "bd09"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A registered address, precise to the room, with what rescuers look for (R6).

    ``lat`` and ``lon`` are degrees in ``datum``; both are there or neither.
    """

    district: str = ""
    street: str = ""
    community: str = ""
    compound: str = ""
    building: str = ""
    unit: str = ""
    floor: str = ""
    room: str = ""
    landmark: str | None = None
    approach: str | None = None
    lat: float | None = None
    lon: float | None = None
    datum: Datum = "wgs84"

    def text(self) -> str:
        """Return the address in one line, as it is spoken in China: from the district down to the room."""
        parts = [self.district, self.street, self.community, self.compound]
        for value, word in ((self.building, "幢"), (self.unit, "单元"), (self.floor, "层"), (self.room, "室")):
            if value:
                parts.append(value + word if value[-1].isalnum() and value.isascii() else value)
        return "".join(part for part in parts if part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """A protected person (R5). ``health`` is free-form: conditions, allergies, blood, history.

    ``agreements`` are those that were signed: ``dial_on_behalf`` lets an operator dial 120 and 119 (R3).
    """

    id: str
    name: str
    born: date | None = None
    phone: str | None = None
    health: dict[str, Any] = field(default_factory=dict)
    agreements: tuple[str, ...] = ()

    def age(self, today: date) -> int | None:
        """Return the age in full years on `today`, or None while the birthday is unknown."""
        if self.born is None:
            return None
        return today.year - self.born.year - ((today.month, today.day) < (self.born.month, self.born.day))


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelSpec:
    """One way to reach a party. ``options`` are those of the kind, as url and secret."""

    kind: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """Somebody who is told (联动方). ``channels`` are in the order in which they are tried.

    ``grade`` orders the contacts of one role (联系人分级, R5): 1 is called first.
    """

    id: str
    role: str
    name: str
    district: str
    phone: str | None = None
    channels: tuple[ChannelSpec, ...] = ()
    grade: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Household:
    """One address with its persons, its parties and the plans of its site: what a case needs to know."""

    id: str
    site: str
    district: str
    timezone: str
    locale: str
    address: Address
    persons: tuple[Person, ...] = ()
    parties: tuple[Party, ...] = ()
    key_id: UUID | None = None
