"""From any plan to legs: nobody whom a kind calls is left out, and a hole is always seen (I3, D13)."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.directory import ChannelSpec, Party
from gateway.domain.plan import EVERY_KIND, Plan, PlannedLeg, legs_for

PUBLIC = {"ambulance_120", "fire_119", "police_110"}
ROLES = ("guardian", "hotline", "neighbour", *sorted(PUBLIC))
KINDS = ("sos", "fall", "smoke", "duress", "something_new")


@dataclass(frozen=True)
class Situation:
    """What a plan is carried out in."""

    kinds: tuple[str, ...]
    plans: tuple[Plan, ...]
    parties: tuple[Party, ...]
    fallback: tuple[Party, ...]
    test: bool

    def legs(self, kinds: tuple[str, ...] | None = None) -> list[PlannedLeg]:
        chosen = self.kinds if kinds is None else kinds
        return legs_for(chosen, plans=self.plans, parties=self.parties, fallback=self.fallback, test=self.test)

    def roles_of(self, kind: str) -> tuple[str, ...]:
        """Say it once more in other words: the plan that names the kind, else the one for every kind."""
        for name in (kind, EVERY_KIND):
            for plan in self.plans:
                if name in plan.kinds:
                    return plan.roles
        return ()


def pairs(legs: list[PlannedLeg], *, origin: str | None = None) -> set[tuple[str, str | None]]:
    return {
        (leg.role, None if leg.party is None else leg.party.id)
        for leg in legs
        if origin is None or leg.origin == origin
    }


@st.composite
def people(draw: st.DrawFn) -> tuple[Party, ...]:
    """Three of every role, one in four of them without a channel."""
    return tuple(
        Party(
            id=f"{role}-{number}",
            role=role,
            name=role,
            district="320102",
            channels=(ChannelSpec(kind="stream"),) * draw(st.sampled_from([1, 2, 1, 0])),
        )
        for role in ROLES
        for number in range(3)
    )


@st.composite
def plans(draw: st.DrawFn) -> tuple[Plan, ...]:
    """Plans as a site may have them: each kind, and ``*``, belongs to one at most."""
    home = {kind: draw(st.integers(0, 3)) for kind in (*KINDS[:-1], EVERY_KIND)}
    found = []
    for number in range(1, 4):
        kinds = tuple(kind for kind, plan in home.items() if plan == number)
        if kinds:
            roles = tuple(draw(st.lists(st.sampled_from(ROLES), min_size=draw(st.sampled_from([1, 1, 0])), max_size=4)))
            found.append(Plan(id=f"plan-{number}", version=1, kinds=kinds, roles=roles))
    return tuple(draw(st.permutations(found)))


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    everybody = draw(people())
    chosen = st.lists(st.sampled_from(everybody), max_size=12).map(tuple)
    family = draw(chosen | st.just(everybody))
    fallback = draw(st.lists(st.sampled_from(everybody), min_size=draw(st.sampled_from([1, 1, 0])), max_size=3))
    return Situation(
        kinds=tuple(draw(st.lists(st.sampled_from(KINDS), max_size=4))),
        plans=draw(plans()),
        parties=family,
        fallback=tuple(fallback),
        test=draw(st.booleans()),
    )


@given(situations())
def test_every_party_of_every_role_that_a_kind_calls_gets_a_leg(situation: Situation) -> None:
    legs = situation.legs()
    for kind in situation.kinds:
        for role in situation.roles_of(kind):
            members: set[str | None] = {party.id for party in situation.parties if party.role == role}
            assert {(role, name) for name in members or {None}} <= pairs(legs, origin="plan")


@given(situations())
def test_the_plan_tells_nobody_whom_no_kind_calls(situation: Situation) -> None:
    called = {role for kind in situation.kinds for role in situation.roles_of(kind)}
    assert {role for role, _ in pairs(situation.legs(), origin="plan")} <= called


@given(situations())
def test_nobody_gets_two_legs(situation: Situation) -> None:
    legs = situation.legs()
    assert len(legs) == len(pairs(legs))
    names = [leg.party.id for leg in legs if leg.party is not None]
    assert len(names) == len(set(names))


@given(situations())
def test_a_hole_always_brings_the_whole_fallback(situation: Situation) -> None:
    legs = situation.legs()
    planned = [leg for leg in legs if leg.origin == "plan"]
    uncovered = any(not situation.roles_of(kind) for kind in situation.kinds)
    broken = any(leg.problem is not None and not leg.skipped for leg in planned)
    tellable = any(leg.problem is None and not leg.skipped for leg in planned)
    if uncovered or broken or not tellable:
        assert {party.id for party in situation.fallback} <= {leg.party.id for leg in legs if leg.party is not None}
    else:
        assert planned == legs


@given(situations())
def test_there_is_no_alarm_without_legs_unless_there_is_no_fallback(situation: Situation) -> None:
    if situation.fallback:
        assert situation.legs()


@given(situations())
def test_a_leg_that_cannot_be_carried_out_says_why(situation: Situation) -> None:
    for leg in situation.legs():
        assert (leg.problem is not None) == (leg.party is None or not leg.party.channels)


@given(situations())
def test_a_test_never_wakes_a_public_service_and_a_real_alarm_skips_nobody(situation: Situation) -> None:
    for leg in situation.legs():
        assert (leg.skipped is not None) == (situation.test and leg.role in PUBLIC)


@given(situations())
def test_the_order_of_kinds_and_plans_changes_nothing(situation: Situation) -> None:
    turned = Situation(
        kinds=(*reversed(situation.kinds), *situation.kinds[:1]),
        plans=tuple(reversed(situation.plans)),
        parties=situation.parties,
        fallback=situation.fallback,
        test=situation.test,
    )
    assert pairs(turned.legs()) == pairs(situation.legs())
    assert pairs(turned.legs(), origin="fallback") == pairs(situation.legs(), origin="fallback")


@given(situations(), st.sampled_from(KINDS))
def test_one_kind_never_hides_the_roles_of_another(situation: Situation, more: str) -> None:
    before, after = situation.legs(), situation.legs((*situation.kinds, more))
    assert pairs(before, origin="plan") <= pairs(after)
    if not situation.test and situation.kinds:
        assert pairs(before) <= pairs(after)
