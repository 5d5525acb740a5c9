"""What a message says: the state of the case, as far as the role of the party may know it (R22)."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from zoneinfo import ZoneInfo

from gateway.domain.directory import Household, Person
from gateway.domain.kinds import AUDIT, WORDS
from gateway.domain.location import map_links
from gateway.domain.outbox import CaseView, DueNotice
from gateway.domain.privacy import Privacy, privacy_of
from gateway.service.places import place_of
from schemas.notices import AddressCard, Location, Notice, NoticeData, PartyRef, PersonCard

__all__ = ["compose"]

_TYPES = {"closed": "case.closed", "withdrawn": "case.withdrawn"}


def compose(notice: DueNotice, *, now: datetime, answer_url: str | None) -> Notice:
    """Return the message of `notice` as of `now`.

    A leg that never heard of its case gets the alert, whatever the reason of the notice.
    """
    case = notice.case
    level = privacy_of(notice.role, case.privacy)
    kind = _TYPES.get(notice.reason, "case.alert" if notice.first or notice.number == 1 else "case.update")
    household = case.household
    today = now.astimezone(ZoneInfo(case.timezone)).date()
    location = _location(case, level, now)
    return Notice(
        type=kind,
        timestamp=now,
        data=NoticeData(
            case=case.id,
            leg=notice.leg_id,
            number=notice.number,
            test=case.test,
            drill=case.drill,
            reason=notice.reason,
            party=PartyRef(id=notice.party.id, role=notice.role, name=notice.party.name),
            district=case.district,
            state=case.state,
            kinds=list(case.kinds),
            urgency=case.urgency,
            pressed_at=case.pressed_at,
            received_at=case.received_at,
            terminal=case.terminal,
            household=None if household is None else household.id,
            address=None if household is None else _address(household, level),
            location=location,
            maps={} if location is None else map_links(place_of(location.model_dump()).coordinates, _map_label(case)),
            persons=[] if household is None else _persons(household, level, today),
            problem=None if level is Privacy.NEIGHBOUR else case.problem,
            outcome=case.outcome,
            text=_text(case, notice, level, today),
            answer_url=None if notice.reason in _TYPES else answer_url,
        ),
    )


def _location(case: CaseView, level: Privacy, now: datetime) -> Location | None:
    if case.location is None or level is Privacy.NEIGHBOUR:
        return None
    location = Location.model_validate(dict(case.location))
    if location.at is None:
        return location
    return location.model_copy(update={"age_s": max(0, int((now - location.at).total_seconds()))})


def _address(household: Household, level: Privacy) -> AddressCard:
    address = household.address
    approach = None if level is Privacy.NEIGHBOUR else address.approach
    return AddressCard(text=address.text(), landmark=address.landmark, approach=approach)


def _persons(household: Household, level: Privacy, today: date) -> list[PersonCard]:
    if level is Privacy.NEIGHBOUR:
        return [PersonCard(name=f"{person.name[:1]}老人") for person in household.persons]
    return [
        PersonCard(
            id=person.id,
            name=person.name,
            age=person.age(today),
            phone=person.phone,
            health=person.health or None if level is Privacy.FULL else None,
        )
        for person in household.persons
    ]


def _map_label(case: CaseView) -> str:
    return "求助位置" if case.locale.startswith("zh") else "Call for help"


def _text(case: CaseView, notice: DueNotice, level: Privacy, today: date) -> str:
    """Say in one sentence what happened, to whom and where."""
    language = "zh" if (notice.language or case.locale).startswith("zh") else "en"
    words = _ZH if language == "zh" else _EN
    lead = (words.drill if case.drill else words.test if case.test else "") + words.leads.get(notice.reason, words.lead)
    what = words.comma.join(words.kinds.get(kind, kind) for kind in case.kinds)
    people = () if case.household is None or level is Privacy.NEIGHBOUR else case.household.persons
    who = words.comma.join(person.name + _age(person, words, today) for person in people)
    address = None if case.household is None else case.household.address
    if address is not None:
        where = address.text()
    elif AUDIT in case.kinds and case.problem is not None:
        where = case.problem
    else:
        where = words.nowhere if case.terminal is None else f"{words.terminal} {case.terminal}"
    template = notice.template.get(language)
    if template is None:
        return f"{lead}{what}{words.colon}{words.pause.join([*([who] if who else []), where])}"
    return template.format(
        lead=lead,
        what=what,
        who=who,
        where=where,
        landmark="" if address is None else address.landmark or "",
        approach="" if address is None or level is Privacy.NEIGHBOUR else address.approach or "",
        time=case.received_at.astimezone(ZoneInfo(case.timezone)).strftime("%H:%M:%S"),
        urgency=case.urgency,
    )


def _age(person: Person, words: "_Words", today: date) -> str:
    age = person.age(today)
    return "" if age is None else words.age.format(age)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Words:
    kinds: Mapping[str, str]
    leads: Mapping[str, str]
    lead: str
    test: str
    drill: str
    terminal: str
    nowhere: str
    age: str
    comma: str
    pause: str
    colon: str


_ZH = _Words(
    kinds=WORDS["zh"],
    leads={
        "closed": "【已结束】",
        "withdrawn": "【撤销求助】",
        "pressed_again": "【再次呼叫】",
        "unanswered": "【尚无人应答】",
        "cancelled": "【老人按了取消键】",
        "location": "【位置更新】",
    },
    lead="【求助】",
    test="【测试】",
    drill="【演练】",
    terminal="终端",
    nowhere="来源不明",
    age="（{}岁）",
    comma="、",
    pause="，",
    colon="：",
)
_EN = _Words(
    kinds=WORDS["en"],
    leads={
        "closed": "OVER: ",
        "withdrawn": "WITHDRAWN: ",
        "pressed_again": "PRESSED AGAIN: ",
        "unanswered": "NOBODY ANSWERED YET: ",
        "cancelled": "CANCEL KEY PRESSED: ",
        "location": "NEW LOCATION: ",
    },
    lead="HELP: ",
    test="TEST ",
    drill="DRILL ",
    terminal="terminal",
    nowhere="from nobody knows where",
    age=" ({})",
    comma=", ",
    pause=", ",
    colon=" - ",
)
