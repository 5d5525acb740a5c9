"""Response plans in a site file: their shape, what is wrong in them, and the values that they become (预案)."""

import string
from collections.abc import Iterator, Sequence
from datetime import time, timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from gateway.domain.kinds import EMERGENCIES, QUIETABLE
from gateway.domain.ladder import Ladder
from gateway.domain.plan import DURESS, EVERY_KIND, SHIPPED, Plan, Selector
from gateway.domain.privacy import Privacy
from gateway.domain.procedure import parse_due
from gateway.site.fields import (
    KNOWN_KINDS,
    KNOWN_ROLES,
    Finding,
    Id,
    Kind,
    Line,
    Part,
    Path,
    Role,
    Text,
    doubt,
    suggestion,
    unknown_role,
    wrong,
)

__all__ = [
    "PLACEHOLDERS",
    "PlanEntry",
    "RoleEntry",
    "SelectorEntry",
    "between_of",
    "hours_of_day",
    "plan_findings",
    "to_plan",
]

PLACEHOLDERS = frozenset({"lead", "what", "who", "where", "landmark", "approach", "time", "urgency"})
"""What a template may hold in braces; what a role may not know stays empty."""


def _duration(value: str) -> str:
    try:
        due = parse_due(value)
    except ValueError:
        due = None
    if due is None or due.duration is None:
        raise wrong("is not a duration")
    return value


def hours_of_day(value: str) -> str:
    """Return two times of day as they are, or refuse what is none."""
    begins, _, ends = value.partition("-")
    try:
        if time.fromisoformat(begins.strip()) != time.fromisoformat(ends.strip()):
            return value
    except ValueError:
        pass
    raise wrong("is not a time of day")


def _template(value: str) -> str:
    try:
        names = {name for _, name, _, _ in string.Formatter().parse(value) if name is not None}
    except ValueError:
        raise wrong("has braces that do not match") from None
    if unknown := names - PLACEHOLDERS:
        near = suggestion(min(unknown), PLACEHOLDERS)
        raise wrong("has a placeholder that nobody fills" + (f"; did you mean {{{near}}}?" if near else ""))
    return value


_Duration = Annotated[str, AfterValidator(_duration), Field(description='a duration: "30 s", "10 min", "2 h" or "1 d"')]
_Template = Annotated[
    dict[
        Annotated[str, Field(pattern="^(zh|en)$", description="zh or en")],
        Annotated[Text, AfterValidator(_template)],
    ],
    Field(description="language: text lines; in braces may stand " + ", ".join(sorted(PLACEHOLDERS))),
]
_Language = Annotated[
    str | None, Field(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$", description="a language tag, for example zh-CN")
]


def _as_entry(value: object) -> object:
    return {"role": value} if isinstance(value, str) else value


class RoleEntry(Part):
    """Who is called, and how. A role's name alone is called as usual: three times, a minute apart, within 3 min."""

    role: Role
    channels: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[a-z_]+$", description="webhook, mqtt, stream …")], ...],
        Field(description="kinds of channels in the order in which calls use them; the others come after these"),
    ] = ()
    within: _Duration = "3 min"
    again: _Duration = "1 min"
    times: Annotated[int, Field(strict=True, ge=1, le=50, description="calls in all, 1 to 50")] = 3
    stand_in: Annotated[
        tuple[Role, ...], Field(description="roles that step in when this one has nobody or nobody answers in time")
    ] = ()
    graded: Annotated[bool, Field(strict=True, description="true: one grade of contacts after the other (R5)")] = False
    gate: Annotated[
        Literal["dial_on_behalf"] | None,
        Field(description="dial_on_behalf: only for persons who signed that agreement (R3)"),
    ] = None
    language: _Language = None
    template: _Template = Field(default_factory=dict)


class SelectorEntry(Part):
    """Where and when a plan applies; without it always."""

    districts: Annotated[tuple[Id, ...], Field(description='codes of districts, for example ["320102"]')] = ()
    models: Annotated[tuple[Line, ...], Field(description="models of terminals")] = ()
    between: Annotated[
        str | None,
        AfterValidator(lambda value: None if value is None else hours_of_day(value)),
        Field(description='two times of day at the site, for example "22:00-07:00"'),
    ] = None


class PlanEntry(Part):
    """Which roles are called for which kinds of alarm, how, and how much they may know (预案)."""

    id: Id
    kinds: Annotated[
        tuple[Kind, ...], Field(min_length=1, description='a list of kinds of alarm, or ["*"] for all others')
    ]
    roles: Annotated[
        tuple[Annotated[RoleEntry, BeforeValidator(_as_entry)], ...],
        Field(min_length=1, description="a list of roles, each a name or role: with how it is called"),
    ]
    when: Annotated[SelectorEntry, Field(description="districts, models, between")] = SelectorEntry()
    privacy: Annotated[
        dict[Role, Annotated[Privacy, Field(description="full, care, family or neighbour")]],
        Field(description="role: level lines, with level full, care, family or neighbour"),
    ] = Field(default_factory=dict)
    procedure: Annotated[
        str | None,
        Field(
            pattern=r"^[a-z0-9][a-z0-9-]{0,63}$",
            description="the id of a procedure, for example nanjing-emergency; see onekey procedure list",
        ),
    ] = None
    delay: _Duration = "0 s"
    jitter: _Duration = "0 s"
    countdown: _Duration = "0 s"
    quiet: Annotated[
        str | None,
        AfterValidator(lambda value: None if value is None else hours_of_day(value)),
        Field(description='two times of day at the site, for example "21:00-07:00": nobody is told in between'),
    ] = None
    language: _Language = None
    template: _Template = Field(default_factory=dict)

    def definition(self) -> dict[str, Any]:
        """Return the plan as it is stored: versions of it are compared by this."""
        left_out = {"id"} if self.quiet is not None else {"id", "quiet"}
        return self.model_dump(mode="json", exclude=left_out)


# What the shape alone cannot tell


def plan_findings(plans: Sequence[PlanEntry]) -> Iterator[Finding]:
    """Yield what is wrong or doubtful between and in plans."""
    claimed: dict[tuple[str, SelectorEntry], int] = {}
    for index, plan in enumerate(plans):
        for place, kind in enumerate(plan.kinds):
            path: Path = ("plans", index, "kinds", place)
            earlier = claimed.setdefault((kind, plan.when), index)
            if earlier != index:
                what = f"plan {plans[earlier].id} already has the kind {kind}"
                yield Finding(path, what, "each kind, and *, belongs to one plan, or each plan has another when")
            elif kind in plan.kinds[:place]:
                yield doubt(path, f"kind {kind} is listed twice", "once is enough")
            if kind != EVERY_KIND and kind not in KNOWN_KINDS:
                near = suggestion(kind, KNOWN_KINDS)
                hint = f"did you mean {near}?" if near else "right if your terminals send it"
                yield doubt(path, f"kind {kind} is not one of the known ones", hint)
        if plan.id.startswith(SHIPPED):
            yield Finding(
                ("plans", index, "id"), f"begins with {SHIPPED}", "such names are the gateway's own: rename it"
            )
        yield from _roles(("plans", index), plan)
        yield from _waiting(("plans", index), plan)
    always = {kind for kind, when in claimed if when == SelectorEntry()}
    if EVERY_KIND not in always:
        where: Path = ("plans",) if plans else ()
        hint = f'a kind nobody planned for would go to fallback only: add a plan with kinds: ["{EVERY_KIND}"]'
        what = f'no plan has the kind "{EVERY_KIND}"' + (" at all times" if any(k == "*" for k, _ in claimed) else "")
        yield Finding(where, what, hint, "error" if plans else "warning")


def _roles(path: Path, plan: PlanEntry) -> Iterator[Finding]:
    names = [entry.role for entry in plan.roles]
    for place, entry in enumerate(plan.roles):
        here = (*path, "roles", place)
        if entry.role not in KNOWN_ROLES:
            yield unknown_role(here, entry.role)
        if entry.role in names[:place]:
            yield doubt(here, f"role {entry.role} is listed twice", "once is enough")
        for number, role in enumerate(entry.stand_in):
            if role not in KNOWN_ROLES:
                yield unknown_role((*here, "stand_in", number), role)
            if role == entry.role:
                yield doubt((*here, "stand_in", number), f"role {role} steps in for itself", "name another, or graded")
        if entry.times > 1 and _seconds(entry.again) < 5:
            yield Finding((*here, "again"), "is shorter than 5 s", "nobody can answer that fast; write at least 5 s")
        if DURESS in plan.kinds and (entry.stand_in or entry.graded):
            what = "lets others step in for a duress call"
            yield doubt(here, what, "whoever threatens the person may be one of them: leave stand_in and graded out")
    for role in plan.privacy:
        if role not in names:
            what = f"role {role} is not told by plan {plan.id}"
            yield doubt((*path, "privacy", role), what, "add it to roles, or leave it out here")


def _waiting(path: Path, plan: PlanEntry) -> Iterator[Finding]:
    emergencies = [kind for kind in plan.kinds if kind in EMERGENCIES]
    if _seconds(plan.delay) and emergencies:
        what = f"would let {', '.join(emergencies)} wait"
        yield Finding((*path, "delay"), what, "only technical kinds can wait to be restored: make a plan of their own")
    if _seconds(plan.jitter) and not _seconds(plan.delay):
        yield doubt((*path, "jitter"), "has no delay to spread", "add delay, or leave it out")
    if plan.quiet is not None and (loud := [kind for kind in plan.kinds if kind not in QUIETABLE]):
        what = f"would let {', '.join(loud)} wait for the morning"
        hint = "only these can: " + ", ".join(sorted(QUIETABLE)) + "; make a plan of their own"
        yield Finding((*path, "quiet"), what, hint)
    if _seconds(plan.countdown) and set(plan.kinds) != {"fall"}:
        yield Finding((*path, "countdown"), "is only for falls", 'make a plan with kinds: ["fall"] of its own')
    if _seconds(plan.countdown) > 120:
        yield Finding((*path, "countdown"), "is longer than 2 min", "somebody may lie on the floor: at most 2 min")


# To the directory


def _span(text: str) -> timedelta:
    duration = parse_due(text).duration
    assert duration is not None, "validated as a duration"
    return duration


def _seconds(text: str) -> float:
    return _span(text).total_seconds()


def between_of(hours: str | None) -> tuple[time, time] | None:
    """Return the two times of day that `hours` names."""
    if hours is None:
        return None
    begins, _, ends = hours.partition("-")
    return time.fromisoformat(begins.strip()), time.fromisoformat(ends.strip())


def to_plan(plan: PlanEntry, *, version: int) -> Plan:
    """Return the plan as the gateway goes by it. `version` is counted up by whoever stores it."""
    return Plan(
        id=plan.id,
        version=version,
        kinds=plan.kinds,
        roles=tuple(dict.fromkeys(entry.role for entry in plan.roles)),
        ladders={entry.role: _ladder(entry) for entry in plan.roles if entry != RoleEntry(role=entry.role)},
        privacy={role: level.value for role, level in plan.privacy.items()},
        procedure=plan.procedure,
        when=Selector(districts=plan.when.districts, models=plan.when.models, between=between_of(plan.when.between)),
        delay=_span(plan.delay),
        jitter=_span(plan.jitter),
        countdown=_span(plan.countdown),
        quiet=between_of(plan.quiet),
        language=plan.language,
        template=dict(plan.template),
    )


def _ladder(entry: RoleEntry) -> Ladder:
    return Ladder(
        channels=entry.channels,
        within=_span(entry.within),
        again=_span(entry.again),
        times=entry.times,
        stand_in=entry.stand_in,
        graded=entry.graded,
        gate=entry.gate,
        language=entry.language,
        template=dict(entry.template),
    )
