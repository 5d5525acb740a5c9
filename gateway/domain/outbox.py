"""What is to be sent, and what came of it: the values that pass between a case and the channels."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from gateway.domain.directory import ChannelSpec, Household, Party

__all__ = ["CALLS", "CaseView", "DueNotice", "GiveUp", "Outcome", "PartyAnswer", "Sent", "Tried", "TryAgain"]

CALLS = ("alarm", "fallback", "procedure", "stand_in", "unanswered", "pressed_again")
"""Reasons of notices that ask somebody to help; the others only tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseView:
    """A case as a message shows it. ``location`` is in the form of ``schemas.notices.Location`` without the age."""

    id: UUID
    case_class: str
    state: str
    site: str
    district: str
    timezone: str
    locale: str
    kinds: tuple[str, ...]
    urgency: int
    test: bool
    pressed_at: datetime | None
    received_at: datetime
    terminal: str | None
    household: Household | None
    location: Mapping[str, Any] | None
    problem: str | None
    outcome: str | None = None
    drill: UUID | None = None
    privacy: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DueNotice:
    """One message to one party that is to be sent now. ``id`` is its idempotency key (I5)."""

    id: str
    leg_id: UUID
    number: int
    reason: str
    channel: int
    tries: int
    queued_at: datetime
    first: bool
    role: str
    party: Party
    case: CaseView
    language: str | None = None
    template: Mapping[str, str] = field(default_factory=dict)

    @property
    def spec(self) -> ChannelSpec:
        """The channel to use now: the party's in order, the last one when its list got shorter meanwhile."""
        return self.party.channels[min(self.channel, len(self.party.channels) - 1)]


@dataclass(frozen=True, slots=True)
class PartyAnswer:
    """What a party answered, see ``schemas.notices.Answer``."""

    answer: str
    reason: str | None = None
    minutes: int | None = None
    by: str | None = None


@dataclass(frozen=True, slots=True)
class Sent:
    """The channel took it. That is delivered, not told (I7), unless an answer came along."""

    status: int | None = None
    detail: str | None = None
    answer: PartyAnswer | None = None


@dataclass(frozen=True, slots=True)
class TryAgain:
    """It failed in a way that can pass."""

    detail: str
    status: int | None = None


@dataclass(frozen=True, slots=True)
class GiveUp:
    """It failed in a way that cannot pass: go on to the next channel."""

    detail: str
    status: int | None = None


Outcome = Sent | TryAgain | GiveUp


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One attempt, with its times."""

    notice: DueNotice
    started_at: datetime
    answered_at: datetime
    outcome: Outcome
