"""Response plans (预案): which of them applies, and from it to legs: who is called when these kinds happen here."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import time, timedelta

from gateway.domain.directory import Party
from gateway.domain.kinds import NEVER_IN_A_TEST, RING, CaseClass, classify
from gateway.domain.ladder import ONCE, Ladder

__all__ = [
    "BASIC_PROCEDURE",
    "DURESS",
    "EVERYWHERE",
    "EVERY_KIND",
    "SHIPPED",
    "Plan",
    "PlannedLeg",
    "Selector",
    "Situation",
    "delay_of",
    "kinds_shown",
    "ladder_of",
    "legs_for",
    "legs_of",
    "plans_for",
    "procedures_for",
    "quiet_left",
    "stand_ins",
]

EVERY_KIND = "*"
DURESS = "duress"
"""The kind that has a plan of its own (D13): whoever threatens the person may stand in another one's."""

SHIPPED = "supervision-"
"""How the ids of our own plans begin: they are for what the gateway finds out, never for a terminal's word."""

BASIC_PROCEDURE = "basic-emergency"
"""What runs for an emergency whose plans name no procedure."""

_USUAL = Ladder()


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What a plan may ask of a press beside its kinds. ``local_time`` is that of the site."""

    district: str | None = None
    model: str | None = None
    local_time: time | None = None


EVERYWHERE = Situation()


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """When a plan applies; what is empty asks for nothing. ``between`` may run over midnight, its end not included."""

    districts: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    between: tuple[time, time] | None = None

    @property
    def weight(self) -> int:
        """How much it asks for: of two plans that apply, the more particular one is taken."""
        return bool(self.districts) + bool(self.models) + (self.between is not None)

    def admits(self, where: Situation) -> bool:
        """Does it apply here? What is not known about a press meets no condition."""
        if self.districts and where.district not in self.districts:
            return False
        if self.models and where.model not in self.models:
            return False
        if self.between is None:
            return True
        if where.local_time is None:
            return False
        begins, ends = self.between
        if begins <= ends:
            return begins <= where.local_time < ends
        return where.local_time >= begins or where.local_time < ends


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A response plan at one version.

    Attributes:
        kinds: Kinds of alarm; ``"*"`` is every kind that no other plan names.
        roles: Who is called, all at once.
        ladders: How each role is called; roles that are not in here are called as usual.
        privacy: How much a role may know, where it differs from the default.
        procedure: The procedure that runs.
        when: Where and when the plan applies.
        delay: How long a technical report waits for its restoration before anybody is told.
        jitter: A part of this comes on top, so that a power cut does not tell a whole district at once.
        countdown: How long a fall can be cancelled at the terminal before anybody is told.
        quiet: Hours of the site in which nobody is told of this: it waits for their end, which is not included.
        language: Language of its messages, None: the site's.
        template: Text of its messages by language.
    """

    id: str
    version: int
    kinds: tuple[str, ...]
    roles: tuple[str, ...]
    ladders: Mapping[str, Ladder] = field(default_factory=dict)
    privacy: dict[str, str] = field(default_factory=dict)
    procedure: str | None = None
    when: Selector = field(default_factory=Selector)
    delay: timedelta = timedelta(0)
    jitter: timedelta = timedelta(0)
    countdown: timedelta = timedelta(0)
    quiet: tuple[time, time] | None = None
    language: str | None = None
    template: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Id and version, as a case keeps them."""
        return f"{self.id}@{self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedLeg:
    """One leg as the plan wants it.

    ``party`` is None when the role has nobody: the leg then exists as failed, so that it is seen.
    ``problem`` says why a leg cannot be carried out; ``skipped`` why it is not to be: a test may not wake this role, or
    the person never agreed that it is called for them. ``instead_of`` is the role for which a party steps in.
    """

    role: str
    party: Party | None
    origin: str = "plan"
    problem: str | None = None
    skipped: str | None = None
    ladder: Ladder = ONCE
    instead_of: str | None = None


def plans_for(
    kinds: Sequence[str], plans: Sequence[Plan], where: Situation = EVERYWHERE, *, found: bool = False
) -> tuple[list[Plan], list[str]]:
    """Return the plans that apply to `kinds` here and now, each once, and the kinds that none covers.

    For each kind it is a plan that names it before one for every kind, then one of the site before one that comes with
    the gateway, and then the most particular one. A call of a terminal is a call for help where no plan names calls.
    ``found``: supervision found this out; a plan for every kind is not
    meant for that, as a plan that comes with the gateway is not for what a terminal says.
    """
    plans = [plan for plan in plans if found or not plan.id.startswith(SHIPPED)]
    chosen: dict[str, Plan] = {}
    uncovered = []
    for kind in kinds:
        named = kind != RING or any(RING in plan.kinds for plan in plans)
        wanted = kind if named else "sos"
        applying = [
            ((wanted in plan.kinds, not plan.id.startswith(SHIPPED), plan.when.weight, plan.id), plan)
            for plan in plans
            if (wanted in plan.kinds or (EVERY_KIND in plan.kinds and not found)) and plan.when.admits(where)
        ]
        best = max(applying, key=lambda one: one[0], default=None)
        if best is None or not best[1].roles:
            uncovered.append(kind)
        else:
            chosen[best[1].id] = best[1]
    return list(chosen.values()), uncovered


def kinds_shown(kinds: Sequence[str], *, role: str, plans: Sequence[Plan]) -> list[str]:
    """Return the kinds of a case that a party of `role` hears of: all of them, but duress only by its own plan."""
    others = [kind for kind in kinds if kind != DURESS]
    if len(others) == len(kinds) or not others:
        return list(kinds)
    named = [plan for plan in plans if DURESS in plan.kinds] or [plan for plan in plans if EVERY_KIND in plan.kinds]
    return list(kinds) if any(role in plan.roles for plan in named) else others


def ladder_of(role: str, plans: Sequence[Plan], *, case_class: CaseClass) -> Ladder:
    """Return how `role` is called when several plans apply: by the most insistent of them, gated only if all say so.

    Nobody is called more than once in a test, and in technical and service cases only where a plan says so.
    """
    key = (role, case_class, *(id(plan) for plan in plans))
    known = _ladders.get(key)
    if known is None:
        if len(_ladders) >= _MOST_LADDERS:
            _ladders.clear()
        # The plans are kept with it: as long as they are, nothing else can have their ids.
        known = _ladders[key] = (tuple(plans), _ladder_of(role, plans, case_class=case_class))
    return known[1]


_ladders: dict[tuple[object, ...], tuple[tuple[Plan, ...], Ladder]] = {}
_MOST_LADDERS = 4096


def _ladder_of(role: str, plans: Sequence[Plan], *, case_class: CaseClass) -> Ladder:
    naming = [plan for plan in plans if role in plan.roles]
    own = [plan.ladders[role] for plan in naming if role in plan.ladders]
    usual = _USUAL if case_class is CaseClass.EMERGENCY else ONCE
    ladder = max(own, key=lambda one: (one.times, -one.again), default=usual)
    if any(plan.ladders.get(role, _USUAL).gate is None for plan in naming):
        ladder = replace(ladder, gate=None)
    if case_class is CaseClass.TEST:
        ladder = replace(ladder, times=1, within=timedelta(0), stand_in=(), graded=False)
    return replace(
        ladder,
        language=ladder.language or next((plan.language for plan in naming if plan.language), None),
        template=ladder.template or next((plan.template for plan in naming if plan.template), {}),
    )


def delay_of(kinds: Collection[str], plans: Sequence[Plan], *, case_class: CaseClass, spread: float) -> timedelta:
    """Return how long everybody waits to be told: zero for an emergency, but for a fall that can still be cancelled.

    `spread` from 0 to 1 says which part of the jitter this case has.
    """
    if not plans:
        return timedelta(0)
    if case_class is CaseClass.TECHNICAL:
        return min(plan.delay + plan.jitter * spread if plan.delay else timedelta(0) for plan in plans)
    if set(kinds) == {"fall"}:
        return min(plan.countdown for plan in plans)
    return timedelta(0)


def quiet_left(plans: Sequence[Plan], local_time: time) -> timedelta:
    """Return how long it is quiet yet at `local_time`: for as long as every plan that applies says so."""
    left = []
    for plan in plans:
        if plan.quiet is None or not Selector(between=plan.quiet).admits(Situation(local_time=local_time)):
            return timedelta(0)
        now, ends = (
            timedelta(hours=at.hour, minutes=at.minute, seconds=at.second) for at in (local_time, plan.quiet[1])
        )
        left.append((ends - now) % timedelta(days=1))
    return min(left, default=timedelta(0))


def procedures_for(kinds: Collection[str], plans: Sequence[Plan], *, case_class: CaseClass, drill: bool) -> list[str]:
    """Return the procedures that a case begins with under `plans`: none for a mere test, one for every emergency."""
    if case_class is CaseClass.TEST and not drill:
        return []
    named = [plan.procedure for plan in plans if plan.procedure is not None]
    urgent = {kind for kind in kinds if classify((kind,)) is CaseClass.EMERGENCY} | {EVERY_KIND}
    if case_class is CaseClass.EMERGENCY and not any(plan.procedure for plan in plans if urgent & {*plan.kinds}):
        named.append(BASIC_PROCEDURE)  # one for the service that was asked for as well is none for the emergency
    return list(dict.fromkeys(named))


def legs_for(
    kinds: Sequence[str],
    *,
    plans: Sequence[Plan],
    parties: Sequence[Party],
    fallback: Sequence[Party],
    test: bool = False,
    where: Situation = EVERYWHERE,
    agreements: Collection[str] = (),
) -> list[PlannedLeg]:
    """Return the legs for an alarm with `kinds`, see `legs_of`."""
    applying, uncovered = plans_for(kinds, plans, where)
    case_class = classify(kinds, test=test)
    return legs_of(
        applying, uncovered, parties=parties, fallback=fallback, case_class=case_class, agreements=agreements
    )


def legs_of(
    applying: Sequence[Plan],
    uncovered: Sequence[str],
    *,
    parties: Sequence[Party],
    fallback: Sequence[Party],
    case_class: CaseClass,
    agreements: Collection[str] = (),
    taking_part: Collection[str] | None = None,
) -> list[PlannedLeg]:
    """Return the legs that these plans want: one per party of every role that any of them calls for.

    A role that has nobody is stood in for by the next of its plan. The fallback of the site joins whenever something
    is still missing: a kind without plan, a role without anybody, a party without channel, or no leg at all (D13).
    Never empty unless `fallback` is. In a drill only those `taking_part` are told, and 120 only if it is one of them.
    """
    test = case_class is CaseClass.TEST
    if taking_part is not None:
        case_class = CaseClass.EMERGENCY  # a drill is called on like the real thing
    roles = list(dict.fromkeys(role for plan in applying for role in plan.roles))
    own = list({party.id: party for party in parties}.values())  # whoever is listed twice is told once
    legs: list[PlannedLeg] = []
    holes = bool(uncovered) or not roles

    def skipped(role: str, party: Party | None, ladder: Ladder) -> str | None:
        if taking_part is not None:
            return None if party is not None and party.id in taking_part else "does not take part in the drill"
        if test and role in NEVER_IN_A_TEST:
            return "a test never wakes this role"
        if ladder.gate is not None and ladder.gate not in agreements:
            return f"nobody of the household signed the agreement {ladder.gate}"
        return None

    for role in roles:
        ladder = ladder_of(role, applying, case_class=case_class)
        members = [party for party in own if party.role == role]
        if ladder.graded and members:
            first = min(party.grade for party in members)
            members = [party for party in members if party.grade == first]
        if not members:
            why = skipped(role, None, ladder)
            problem = f"no party of the household has the role {role}"
            legs.append(PlannedLeg(role=role, party=None, problem=problem, skipped=why))
            if why is None:
                # Whoever the plan tells anyway steps in for nobody.
                others = [party for party in own if party.role not in roles]
                helpers = [
                    leg for leg in stand_ins(role, ladder, others, told=()) if not skipped(leg.role, leg.party, ONCE)
                ]
                legs += helpers
                holes = holes or not helpers
        for party in members:
            why = skipped(role, party, ladder)
            problem_or_none = None if party.channels else "the party has no channel"
            holes = holes or (problem_or_none is not None and why is None)
            legs.append(PlannedLeg(role=role, party=party, problem=problem_or_none, skipped=why, ladder=ladder))
    if holes or not any(leg.problem is None and leg.skipped is None for leg in legs):
        told = {leg.party.id for leg in legs if leg.party is not None}
        usual = ladder_of("", (), case_class=case_class)
        for party in {party.id: party for party in fallback}.values():
            if party.id not in told:
                legs.append(
                    PlannedLeg(
                        role=party.role,
                        party=party,
                        origin="fallback",
                        problem=None if party.channels else "the party has no channel",
                        skipped=skipped(party.role, party, ONCE),
                        ladder=usual,
                    )
                )
    return legs


def stand_ins(
    role: str, ladder: Ladder, parties: Sequence[Party], *, told: Collection[str], grade: int | None = None
) -> list[PlannedLeg]:
    """Return who steps in for `role` next: its next grade after `grade`, else the first of its stand-ins not yet told.

    Empty: nobody is left, so it is for the fallback of the site.
    """
    free = [party for party in parties if party.id not in told and party.channels]
    if ladder.graded and grade is not None:
        later = [party for party in free if party.role == role and party.grade > grade]
        if later:
            following = min(party.grade for party in later)
            return [
                PlannedLeg(role=role, party=party, origin="stand_in", ladder=ladder, instead_of=role)
                for party in later
                if party.grade == following
            ]
    for place, other in enumerate(ladder.stand_in, start=1):
        members = [party for party in free if party.role == other]
        if members:
            further = replace(_USUAL, stand_in=ladder.stand_in[place:], language=ladder.language)
            return [
                PlannedLeg(role=other, party=party, origin="stand_in", ladder=further, instead_of=role)
                for party in members
            ]
    return []
