"""Who is told: the examples that decide. What is always true stands in ``property/test_plan_properties.py``."""

from dataclasses import replace
from datetime import time, timedelta
from typing import Any

from gateway.domain.directory import ChannelSpec, Party
from gateway.domain.kinds import CaseClass
from gateway.domain.ladder import Ladder
from gateway.domain.plan import (
    Plan,
    PlannedLeg,
    Selector,
    Situation,
    delay_of,
    kinds_shown,
    ladder_of,
    legs_for,
    plans_for,
    procedures_for,
    stand_ins,
)


def party(name: str, role: str, *, channels: int = 1) -> Party:
    return Party(
        id=name,
        role=role,
        name=name,
        district="320102",
        channels=tuple(ChannelSpec(kind="stream") for _ in range(channels)),
    )


def plan(name: str, kinds: str, roles: str) -> Plan:
    return Plan(id=name, version=1, kinds=tuple(kinds.split()), roles=tuple(roles.split()))


SON, DAUGHTER = party("son", "guardian"), party("daughter", "guardian")
HOTLINE, AMBULANCE, FIRE = party("hotline", "hotline"), party("120", "ambulance_120"), party("119", "fire_119")
DUTY, SUPPLIER = party("duty", "care_station"), party("supplier", "supplier")
FAMILY = (SON, DAUGHTER, HOTLINE, AMBULANCE, FIRE, SUPPLIER)
SOS = plan("sos", "sos fall", "guardian hotline ambulance_120")
FLAMES = plan("fire", "smoke gas", "guardian fire_119")
REST = plan("rest", "*", "hotline supplier")
PLANS = (SOS, FLAMES, REST)


def names(legs: list[PlannedLeg], *, origin: str | None = None) -> list[str]:
    return sorted(leg.party.id for leg in legs if leg.party is not None and origin in (None, leg.origin))


def told(*kinds: str, parties: tuple[Party, ...] = FAMILY, plans: tuple[Plan, ...] = PLANS) -> list[str]:
    return names(legs_for(kinds, plans=plans, parties=parties, fallback=(DUTY,)))


def test_everybody_of_the_plan_is_told_and_nobody_else() -> None:
    assert told("sos") == ["120", "daughter", "hotline", "son"]


def test_two_kinds_call_everybody_that_either_calls() -> None:
    assert told("sos", "smoke") == ["119", "120", "daughter", "hotline", "son"]


def test_the_plan_for_every_kind_serves_what_no_other_names() -> None:
    assert told("water") == ["hotline", "supplier"]
    assert told("never heard of") == ["hotline", "supplier"]


def test_the_plan_for_every_kind_adds_nothing_where_another_plan_names_the_kind() -> None:
    assert "supplier" not in told("sos")


def test_a_kind_without_plan_calls_the_fallback() -> None:
    assert told("water", plans=(SOS,)) == ["duty"]
    assert told("sos", "water", plans=(SOS,)) == ["120", "daughter", "duty", "hotline", "son"]


def test_a_plan_without_roles_covers_nothing() -> None:
    assert told("water", plans=(plan("empty", "water", ""),)) == ["duty"]


def test_a_role_without_party_is_seen_as_failed_and_calls_the_fallback() -> None:
    legs = legs_for(["smoke"], plans=PLANS, parties=(SON,), fallback=(DUTY,))
    [missing] = [leg for leg in legs if leg.party is None]
    assert (missing.role, missing.origin, missing.skipped) == ("fire_119", "plan", None)
    assert missing.problem == "no party of the household has the role fire_119"
    assert names(legs) == ["duty", "son"]
    assert names(legs, origin="fallback") == ["duty"]


def test_a_party_without_channel_is_seen_as_failed_and_calls_the_fallback() -> None:
    legs = legs_for(["smoke"], plans=PLANS, parties=(replace(SON, channels=()), FIRE), fallback=(DUTY,))
    assert {leg.party.id: leg.problem for leg in legs if leg.party is not None} == {
        "son": "the party has no channel",
        "119": None,
        "duty": None,
    }


def test_who_is_told_by_the_plan_is_not_told_again_by_the_fallback() -> None:
    legs = legs_for(["smoke"], plans=PLANS, parties=(SON, HOTLINE), fallback=(SON, DUTY))
    assert names(legs) == ["duty", "son"]


def test_who_is_listed_twice_is_told_once() -> None:
    # Two legs with one id cannot be stored, and then neither could the press (I1).
    legs = legs_for(["smoke"], plans=PLANS, parties=(SON, SON), fallback=(DUTY, DUTY))
    assert names(legs) == ["duty", "son"]


def test_an_alarm_of_no_kind_calls_the_fallback() -> None:
    assert told() == ["duty"]


def test_a_test_tells_everybody_but_the_public_services() -> None:
    legs = legs_for(["sos", "smoke"], plans=PLANS, parties=FAMILY, fallback=(DUTY,), test=True)
    assert sorted(leg.party.id for leg in legs if leg.party is not None and leg.skipped) == ["119", "120"]
    assert sorted(leg.party.id for leg in legs if leg.party is not None and not leg.skipped) == [
        "daughter",
        "hotline",
        "son",
    ]


def test_a_public_service_that_a_test_would_not_wake_is_no_hole() -> None:
    legs = legs_for(["smoke"], plans=PLANS, parties=(SON,), fallback=(DUTY,), test=True)
    assert names(legs) == ["son"]


def test_a_test_that_would_wake_nobody_tells_the_fallback() -> None:
    only = (plan("only", "*", "ambulance_120"),)
    legs = legs_for(["sos"], plans=only, parties=FAMILY, fallback=(DUTY, FIRE), test=True)
    assert {leg.party.id: bool(leg.skipped) for leg in legs if leg.party is not None} == {
        "120": True,
        "duty": False,
        "119": True,
    }


def test_a_fallback_without_channel_is_seen_as_failed() -> None:
    [leg] = legs_for(["sos"], plans=(), parties=(), fallback=(replace(DUTY, channels=()),))
    assert (leg.party, leg.problem) == (replace(DUTY, channels=()), "the party has no channel")


def test_without_plans_and_fallback_there_is_nobody() -> None:
    assert legs_for(["sos"], plans=(), parties=FAMILY, fallback=()) == []


SILENT = plan("silent", "duress", "hotline police_110")


def shown(*kinds: str, role: str, plans: tuple[Plan, ...] = (SOS, SILENT, REST)) -> list[str]:
    return kinds_shown(kinds, role=role, plans=plans)


def test_duress_is_shown_to_those_of_its_own_plan_only() -> None:
    assert shown("sos", "duress", role="hotline") == ["sos", "duress"]
    assert shown("sos", "duress", role="guardian") == ["sos"]
    assert shown("duress", "low_battery", "fall", role="guardian") == ["low_battery", "fall"]


def test_every_other_kind_is_shown_to_everybody() -> None:
    assert shown("sos", "water", "something_new", role="nobody in any plan") == ["sos", "water", "something_new"]


def test_a_message_about_duress_alone_says_so() -> None:
    assert shown("duress", role="guardian") == ["duress"]


def test_duress_without_a_plan_of_its_own_is_shown_to_those_of_the_plan_for_every_kind() -> None:
    assert shown("sos", "duress", role="supplier", plans=PLANS) == ["sos", "duress"]
    assert shown("sos", "duress", role="guardian", plans=PLANS) == ["sos"]


# Who steps in, who is called by grade, who may not be called


NEIGHBOUR = party("chu", "neighbour")


def calls(role: str, **values: Any) -> tuple[Plan, ...]:
    return (replace(SOS, roles=(role, "hotline"), ladders={role: Ladder(**values)}), REST)


def test_for_a_role_that_has_nobody_the_next_of_its_plan_steps_in_and_no_fallback() -> None:
    legs = legs_for(
        ["sos"],
        plans=calls("relative", stand_in=("emergency_contact", "neighbour")),
        parties=(HOTLINE, NEIGHBOUR),
        fallback=(DUTY,),
    )
    assert names(legs) == ["chu", "hotline"]
    [stepping] = [leg for leg in legs if leg.origin == "stand_in"]
    assert (stepping.role, stepping.instead_of, stepping.ladder.stand_in) == ("neighbour", "relative", ())
    assert any(leg.party is None and leg.role == "relative" for leg in legs), "the hole stays visible"


def test_who_is_told_anyway_steps_in_for_nobody() -> None:
    plans = calls("relative", stand_in=("hotline",))
    assert told("sos", parties=(HOTLINE,), plans=plans) == ["duty", "hotline"]


def test_contacts_are_called_by_their_grade() -> None:
    second = replace(DAUGHTER, grade=2)
    plans = calls("guardian", graded=True)
    legs = legs_for(["sos"], plans=plans, parties=(SON, second, HOTLINE), fallback=(DUTY,))
    assert names(legs) == ["hotline", "son"]
    ladder = plans[0].ladders["guardian"]
    [next_one] = stand_ins("guardian", ladder, (SON, second), told={"son", "hotline"}, grade=1)
    assert (next_one.party, next_one.origin) == (second, "stand_in")
    assert stand_ins("guardian", ladder, (SON, second), told={"son", "daughter"}, grade=2) == []


def test_120_is_called_for_a_person_only_where_no_gate_is_or_an_agreement_opens_it() -> None:
    gated = calls("ambulance_120", gate="dial_on_behalf")
    [closed] = [leg for leg in legs_for(["sos"], plans=gated, parties=FAMILY, fallback=()) if leg.role[:3] == "amb"]
    assert closed.skipped is not None
    assert "dial_on_behalf" in closed.skipped
    agreed = legs_for(["sos"], plans=gated, parties=FAMILY, fallback=(), agreements={"dial_on_behalf"})
    assert all(leg.skipped is None for leg in agreed)
    # Of two plans one without a gate calls.
    both = (*gated[:1], replace(FLAMES, roles=("ambulance_120",)), REST)
    assert all(leg.skipped is None for leg in legs_for(["sos", "smoke"], plans=both, parties=FAMILY, fallback=()))


# Which plan, and when


def test_the_more_particular_plan_is_taken_and_a_kind_before_every_kind() -> None:
    night = replace(SOS, id="night", roles=("hotline",), when=Selector(between=(time(22), time(7))))
    okt = replace(SOS, id="okt", roles=("guardian",), when=Selector(between=(time(22), time(7)), models=("okt-1",)))
    every = replace(REST, id="every-night", when=Selector(districts=("320102",), between=(time(0), time(23))))
    plans = (SOS, night, okt, REST, every)

    def chosen(at: int, model: str = "okt-9") -> list[str]:
        where = Situation(district="320102", model=model, local_time=time(at))
        return [one.id for one in plans_for(["sos"], plans, where)[0]]

    assert (chosen(12), chosen(23), chosen(6), chosen(7)) == (["sos"], ["night"], ["night"], ["sos"])
    assert chosen(23, "okt-1") == ["okt"]
    assert [one.id for one in plans_for(["sos"], plans)[0]] == ["sos"], "what is not known meets no condition"


def test_only_technical_cases_wait_and_a_fall_alone_can_be_cancelled() -> None:
    waiting = replace(REST, delay=timedelta(minutes=10), jitter=timedelta(minutes=5))
    falls = replace(SOS, kinds=("fall",), countdown=timedelta(seconds=20))

    def wait_s(kinds: tuple[str, ...], plans: tuple[Plan, ...], case_class: CaseClass, spread: float = 0.0) -> float:
        return delay_of(kinds, plans, case_class=case_class, spread=spread).total_seconds()

    assert wait_s(("power_lost",), (waiting,), CaseClass.TECHNICAL) == 600
    assert wait_s(("power_lost",), (waiting,), CaseClass.TECHNICAL, 0.5) == 750
    assert wait_s(("power_lost",), (waiting, REST), CaseClass.TECHNICAL) == 0
    assert wait_s(("power_lost", "sos"), (waiting,), CaseClass.EMERGENCY) == 0
    assert wait_s(("fall",), (falls,), CaseClass.EMERGENCY) == 20
    assert wait_s(("fall", "sos"), (falls, SOS), CaseClass.EMERGENCY) == 0
    assert wait_s(("fall",), (), CaseClass.EMERGENCY) == 0


# Which procedures


def test_every_emergency_has_a_procedure_and_a_mere_test_none() -> None:
    rescue = replace(SOS, procedure="nanjing-sos")
    meals = replace(REST, kinds=("service",), procedure="meals")

    def begun(
        kinds: tuple[str, ...], plans: tuple[Plan, ...], case_class: CaseClass, *, drill: bool = False
    ) -> list[str]:
        return procedures_for(kinds, plans, case_class=case_class, drill=drill)

    assert begun(("sos",), (rescue,), CaseClass.EMERGENCY) == ["nanjing-sos"]
    assert begun(("sos",), (SOS,), CaseClass.EMERGENCY) == ["basic-emergency"]
    assert begun(("sos", "service"), (SOS, meals), CaseClass.EMERGENCY) == ["meals", "basic-emergency"]
    assert begun(("power_lost",), (REST,), CaseClass.TECHNICAL) == []
    assert begun(("sos",), (rescue,), CaseClass.TEST) == []
    assert begun(("sos",), (rescue,), CaseClass.TEST, drill=True) == ["nanjing-sos"]


def test_how_a_role_is_called_follows_the_plans_at_hand() -> None:
    calm = replace(SOS, ladders={"hotline": Ladder(times=2)})
    wild = replace(SOS, ladders={"hotline": Ladder(times=9)})
    for _ in range(2):  # the second time it is remembered
        assert ladder_of("hotline", (calm,), case_class=CaseClass.EMERGENCY).times == 2
        assert ladder_of("hotline", (wild,), case_class=CaseClass.EMERGENCY).times == 9
        assert ladder_of("hotline", (calm, wild), case_class=CaseClass.EMERGENCY).times == 9
        assert ladder_of("hotline", (wild,), case_class=CaseClass.TEST).times == 1
