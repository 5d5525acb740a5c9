"""Who would be called right now for a person: the plan explained before it is needed (R1, R8, D13)."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from gateway.domain.case import NotFound
from gateway.domain.directory import Household
from gateway.domain.kinds import CaseClass, classify
from gateway.domain.ladder import arranged, ending_fact
from gateway.domain.plan import PlannedLeg, Situation, delay_of, legs_of, plans_for, procedures_for
from gateway.domain.privacy import privacy_of, stricter
from gateway.service.views import agreements_of
from gateway.store import queries
from gateway.store.directory import Directory, SiteView
from gateway.store.pool import Pool

__all__ = ["Call", "Explanation", "explain"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What one leg would do. ``calls`` are the times after the press, each with the channel that it begins with."""

    role: str
    party: str | None
    name: str | None
    origin: str
    instead_of: str | None
    calls: tuple[tuple[timedelta, str], ...]
    until: str
    deadline: timedelta | None
    then: tuple[str, ...]
    privacy: str
    problem: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What a press would set going. ``missing`` is what somebody should see to before it is needed."""

    household: str
    kinds: tuple[str, ...]
    case_class: CaseClass
    plans: tuple[str, ...]
    procedures: tuple[str, ...]
    delay: timedelta
    calls: tuple[Call, ...]
    missing: tuple[str, ...]


async def explain(
    pool: Pool,
    directory: Directory,
    person: str,
    *,
    kinds: tuple[str, ...],
    at: datetime | None = None,
    test: bool = False,
) -> Explanation:
    """Return who would be told if the terminal of `person` reported `kinds` at `at` (None: now).

    Raises:
        NotFound: No such person, or they belong to no household in use.
    """
    async with pool.connection() as conn:
        found = await queries.home_of(conn, person)
        if found is None:
            raise NotFound(f"There is no person {person} in use.")
        household_id, site_id, revision, now, model = found
        site = await directory.site(conn, site_id, revision)
        household, _ = await directory.household(conn, household_id, revision)
    local = (at or now).astimezone(ZoneInfo(site.timezone)).time()
    where = Situation(district=household.district, model=model, local_time=local)
    applying, uncovered = plans_for(kinds, site.plans, where)
    case_class = classify(kinds, test=test)
    legs = legs_of(
        applying,
        uncovered,
        parties=household.parties,
        fallback=site.fallback,
        case_class=case_class,
        agreements=agreements_of(household),
    )
    overrides = stricter(*(plan.privacy for plan in applying))
    return Explanation(
        household=household.id,
        kinds=kinds,
        case_class=case_class,
        plans=tuple(plan.name for plan in applying),
        procedures=tuple(procedures_for(kinds, applying, case_class=case_class, drill=False)),
        delay=delay_of(kinds, applying, case_class=case_class, spread=1.0),
        calls=tuple(_call(leg, overrides) for leg in legs),
        missing=tuple(_missing(household, site, legs, uncovered, model)),
    )


def _call(leg: PlannedLeg, overrides: dict[str, str]) -> Call:
    party, ladder = leg.party, leg.ladder
    kinds = [] if party is None else [one.kind for one in arranged(party, ladder.channels).channels]
    stopped = leg.problem or leg.skipped
    calls = (
        ()
        if stopped or not kinds
        else tuple((ladder.again * n, kinds[min(n, len(kinds) - 1)]) for n in range(ladder.times))
    )
    return Call(
        role=leg.role,
        party=None if party is None else party.id,
        name=None if party is None else party.name,
        origin=leg.origin,
        instead_of=leg.instead_of,
        calls=calls,
        until=ending_fact(leg.role).value,
        deadline=ladder.within or None,
        then=ladder.stand_in,
        privacy=privacy_of(leg.role, overrides).value,
        problem=stopped,
    )


def _missing(
    household: Household, site: SiteView, legs: list[PlannedLeg], uncovered: list[str], model: str | None
) -> list[str]:
    found = [f"{leg.role}: {leg.problem}" for leg in legs if leg.problem is not None and leg.skipped is None]
    found += [f"{leg.role}: {leg.skipped}" for leg in legs if leg.skipped is not None]
    found += [f"no plan covers the kind {kind}: only the fallback hears" for kind in uncovered]
    if model is None:
        found.append("the household has no terminal in use")
    if household.address.lat is None:
        found.append("the address has no coordinates: without a fix no map shows it")
    if not household.address.approach:
        found.append("the address has no approach: 120 asks for the way in (R13)")
    if not household.address.landmark:
        found.append("the address has no landmark (R6)")
    found += [
        f"person {person.id} has no {what}"
        for person in household.persons
        for what, there in (("phone to call back", person.phone), ("date of birth", person.born))
        if not there
    ]
    if not any(party.channels for party in site.fallback):
        found.append("nobody of the fallback has a channel")
    return list(dict.fromkeys(found))
