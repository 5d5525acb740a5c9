"""From a response plan to legs: who is told when these kinds happen in this household."""

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.domain.directory import Party, Plan
from gateway.domain.kinds import NEVER_IN_A_TEST

__all__ = ["DURESS", "EVERY_KIND", "PlannedLeg", "kinds_shown", "legs_for", "plans_for"]

EVERY_KIND = "*"
DURESS = "duress"
"""The kind that has a plan of its own (D13): whoever threatens the person may stand in another one's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedLeg:
    """One leg as the plan wants it.

    ``party`` is None when the role has nobody: the leg then exists as failed, so that it is seen.
    ``problem`` says why a leg cannot be carried out; ``skipped`` that a test may not wake this role.
    """

    role: str
    party: Party | None
    origin: str = "plan"
    problem: str | None = None
    skipped: bool = False


def plans_for(kinds: Sequence[str], plans: Sequence[Plan]) -> tuple[list[Plan], list[str]]:
    """Return the plans that apply to `kinds`, each once, and the kinds that none covers."""
    by_kind = {kind: plan for plan in plans for kind in plan.kinds}
    found: dict[str, Plan] = {}
    uncovered = []
    for kind in kinds:
        plan = by_kind.get(kind) or by_kind.get(EVERY_KIND)
        if plan is None or not plan.roles:
            uncovered.append(kind)
        else:
            found[plan.id] = plan
    return list(found.values()), uncovered


def kinds_shown(kinds: Sequence[str], *, role: str, plans: Sequence[Plan]) -> list[str]:
    """Return the kinds of a case that a party of `role` hears of: all of them, but duress only by its own plan."""
    others = [kind for kind in kinds if kind != DURESS]
    applying, _ = plans_for((DURESS,), plans)
    if len(others) == len(kinds) or not others or any(role in plan.roles for plan in applying):
        return list(kinds)
    return others


def legs_for(
    kinds: Sequence[str],
    *,
    plans: Sequence[Plan],
    parties: Sequence[Party],
    fallback: Sequence[Party],
    test: bool = False,
) -> list[PlannedLeg]:
    """Return the legs for an alarm with `kinds`: one per party of every role that any of the kinds calls for.

    The fallback of the site joins whenever something is missing: a kind without plan, a role without party,
    a party without channel, or no leg at all (D13). Never empty unless `fallback` is.
    """
    applying, uncovered = plans_for(kinds, plans)
    roles = list(dict.fromkeys(role for plan in applying for role in plan.roles))
    own = {party.id: party for party in parties}.values()  # whoever is listed twice is told once
    legs: list[PlannedLeg] = []
    holes = bool(uncovered) or not roles
    for role in roles:
        skipped = test and role in NEVER_IN_A_TEST
        members = [party for party in own if party.role == role]
        if not members:
            holes = holes or not skipped
            problem = f"no party of the household has the role {role}"
            legs.append(PlannedLeg(role=role, party=None, problem=problem, skipped=skipped))
        for party in members:
            problem_or_none = None if party.channels else "the party has no channel"
            holes = holes or (problem_or_none is not None and not skipped)
            legs.append(PlannedLeg(role=role, party=party, problem=problem_or_none, skipped=skipped))
    if holes or not any(leg.problem is None and not leg.skipped for leg in legs):
        told = {leg.party.id for leg in legs if leg.party is not None}
        for party in {party.id: party for party in fallback}.values():
            if party.id not in told:
                skipped = test and party.role in NEVER_IN_A_TEST
                legs.append(
                    PlannedLeg(
                        role=party.role,
                        party=party,
                        origin="fallback",
                        problem=None if party.channels else "the party has no channel",
                        skipped=skipped,
                    )
                )
    return legs
