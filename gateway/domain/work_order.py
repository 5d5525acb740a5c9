"""The work order (工单, DB3201/T 1033-2021, appendix C): what belongs into it, what is missing, who is satisfied.

Whether a record is complete is computed here, from its fields. Whether it is accurate nobody can compute: an inspector
judges it, on a sample that `draw` takes (R18).
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any
from uuid import UUID

__all__ = [
    "ALWAYS_REPLIED",
    "COMPLAINT",
    "RATINGS",
    "SETTLE",
    "Kind",
    "draw",
    "is_satisfied",
    "merged",
    "missing",
    "reply_needed",
]


class Kind(StrEnum):
    """What was asked for (需求类型). The last one is the only one of institutions."""

    EMERGENCY_RESCUE = "emergency_rescue"
    PUBLIC_SERVICE_QUERY = "public_service_query"
    REFERRAL = "referral"
    COMPLAINT = "complaint"
    INSTITUTION_QUERY = "institution_query"


ALWAYS_REPLIED = frozenset({Kind.EMERGENCY_RESCUE, Kind.REFERRAL, Kind.COMPLAINT})
"""Kinds that always need a reply; of queries the operator says whether they do."""

RATINGS = ("very_dissatisfied", "dissatisfied", "fair", "satisfied", "very_satisfied")
"""The steps of the client's rating (客户评价), from 1 on."""

COMPLAINT = "complaint"
"""The procedure of a complaint (R21)."""

SETTLE = "settle"
"""The step of it that is due in 3 working days."""

_ALWAYS = ("number", "operator", "operator_name", "reply_needed", "record")
_PERSON = ("person.name", "person.age", "person.phone")
_NEEDS = ("family", "income", "health", "address", "contacts", "demand", "reasons")
_REQUIRED: Mapping[Kind, tuple[str, ...]] = {
    Kind.EMERGENCY_RESCUE: _PERSON,
    Kind.PUBLIC_SERVICE_QUERY: _PERSON,
    Kind.REFERRAL: (*_PERSON, *(f"referral.needs.{need}" for need in _NEEDS), "referral.offered"),
    Kind.COMPLAINT: (*_PERSON, "complaint.about", "complaint.forwarded_to"),
    Kind.INSTITUTION_QUERY: ("institution",),
}
_AT_THE_END: Mapping[Kind, tuple[str, ...]] = {
    Kind.REFERRAL: ("referral.outcome",),
    Kind.COMPLAINT: ("complaint.result",),
}


def missing(kind: Kind, fields: Mapping[str, Any], *, completed: bool) -> list[str]:
    """Return the required fields that are not filled, as paths.

    What can be known only at the end (the outcome of a referral, the result of a complaint, the reply to a query) is
    required once the work order is `completed`.
    """
    required = [*_ALWAYS, *_REQUIRED[kind]]
    if completed:
        required += _AT_THE_END.get(kind, ())
        if kind not in ALWAYS_REPLIED and fields.get("reply_needed"):
            required.append("replied_at")
    return [path for path in required if not _filled(fields, path)]


def _filled(fields: Mapping[str, Any], path: str) -> bool:
    value: Any = fields
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    if isinstance(value, str):
        return bool(value.strip())
    return value is not None and value != []


def merged(content: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """Return `content` with `patch` applied as a JSON merge patch (RFC 7396): null takes a field away."""
    result = dict(content)
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, Mapping):
            before = result.get(name)
            result[name] = merged(before if isinstance(before, Mapping) else {}, value)
        else:
            result[name] = value
    return result


def reply_needed(kind: Kind, *, said: bool | None) -> bool | None:
    """Return whether a reply is needed: what the kind demands, else what the operator said, None for not yet.

    Raises:
        ValueError: The operator said no where the kind always needs one.
    """
    if kind not in ALWAYS_REPLIED:
        return said
    if said is False:
        raise ValueError(f"A work order of the kind {kind} always needs a reply.")
    return True


def is_satisfied(rating: int) -> bool:
    """Does this step of the rating, 1 to 5, count as satisfied? The top three do (note to table C.1)."""
    return rating >= 3


def draw(population: Iterable[tuple[str | None, UUID]], *, seed: str, per_operator: int) -> list[UUID]:
    """Draw a random sample of work orders, given as pairs of operator and id, of so many per operator.

    The same seed draws the same from the same population, on any machine and in whatever order that is given; a larger
    sample contains the smaller one. Each work order's place depends on the seed and its id alone, so whoever knows the
    seed only afterwards could not have chosen what is inspected.
    """
    by_operator: dict[str, list[UUID]] = {}
    for operator, order in population:
        by_operator.setdefault(operator or "", []).append(order)

    def taken() -> Iterator[UUID]:
        for operator in sorted(by_operator):
            yield from sorted(by_operator[operator], key=lambda order: _lot(seed, order))[:per_operator]

    return list(taken())


def _lot(seed: str, order: UUID) -> bytes:
    return hashlib.sha256(f"{seed}|{order}".encode()).digest()
