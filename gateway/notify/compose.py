"""What a message says: the state of the case, as far as the role of the party may know it (R22).

The form is that of ``schemas.notices.Notice``; tests hold every message against that contract. Six parties hear of a
case, and in a storm thousands of cases are told: what their messages have in common is made once.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Any, Generic, TypeVar
from zoneinfo import ZoneInfo

import orjson

from gateway.domain.directory import Address, Household, Person
from gateway.domain.kinds import AUDIT, WORDS
from gateway.domain.location import map_links
from gateway.domain.outbox import CaseView, DueNotice
from gateway.domain.privacy import Privacy, privacy_of
from gateway.service.places import place_of

__all__ = ["Spoken", "compose", "spoken"]

T = TypeVar("T")

_TYPES = {"closed": "case.closed", "withdrawn": "case.withdrawn"}


def compose(notice: DueNotice, *, now: datetime, answer_url: str | None) -> bytes:
    """Return the message of `notice` as of `now`, as JSON. What a role may not know, or nobody knows, is absent.

    A leg that never heard of its case gets the alert, whatever the reason of the notice.
    """
    case = notice.case
    level = privacy_of(notice.role, case.privacy)
    today = now.astimezone(_zone(case.timezone)).date()
    language = _language(notice)
    part = _parts.get(case, (level, today, language), lambda: _part(case, level, today, _WORDS[language]))
    data = part.fields | {
        "leg": notice.leg_id,
        "number": notice.number,
        "reason": notice.reason,
        "party": {"id": notice.party.id, "role": notice.role, "name": notice.party.name},
        "text": _sentence(notice, part),
    }
    if part.place.location is not None:
        data["location"] = _aged(part.place.location, part.place.measured_at, now)
    if answer_url is not None and notice.reason not in _TYPES:
        data["answer_url"] = answer_url
    message = {
        "type": _TYPES.get(notice.reason, "case.alert" if notice.first or notice.number == 1 else "case.update"),
        "timestamp": now,
        "data": data,
    }
    return orjson.dumps(message, option=orjson.OPT_UTC_Z)


_zone = lru_cache(ZoneInfo)


def _known(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what nobody knows; instants are told in UTC."""
    return {
        name: value.astimezone(UTC) if isinstance(value, datetime) else value
        for name, value in fields.items()
        if value is not None
    }


@dataclass(frozen=True, slots=True)
class _Place:
    """What is the same for whoever may know it. ``location`` lacks its age."""

    address: str | None
    location: dict[str, Any] | None
    measured_at: datetime | None
    maps: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Part:
    """What all messages say that go to roles of one level; ``fields`` stand in them as they are."""

    fields: dict[str, Any]
    address: dict[str, Any]
    place: _Place
    what: str
    who: str
    where: str


class _Memo(Generic[T]):
    """Keeps what was made of the newest cases. A case is a value: whatever changes in it makes another one."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[tuple[int, object], tuple[CaseView, T]] = OrderedDict()

    def get(self, case: CaseView, key: object, make: Callable[[], T]) -> T:
        kept = self._kept.get((id(case), key))
        if kept is not None and kept[0] is case:
            return kept[1]
        made = make()
        self._kept[id(case), key] = (case, made)
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)
        return made


_parts: _Memo[_Part] = _Memo(1024)
_places: _Memo[_Place] = _Memo(1024)
_NOWHERE = _Place(None, None, None, {})
_LOCATION = ("lat", "lon", "datum", "source", "accuracy_m")


def _place(case: CaseView) -> _Place:
    address = None if case.household is None else case.household.address.text()
    if case.location is None:
        return _Place(address, None, None, {})
    place = place_of(case.location)
    return _Place(
        address=address,
        location=_known({name: case.location.get(name) for name in _LOCATION}),
        measured_at=None if place.at is None else place.at.astimezone(UTC),
        maps=map_links(place.coordinates, _map_label(case)),
    )


def _part(case: CaseView, level: Privacy, today: date, words: "_Words") -> _Part:
    household = case.household
    place = _places.get(case, None, lambda: _place(case))
    shown = _NOWHERE if level is Privacy.NEIGHBOUR else place
    people = () if household is None or level is Privacy.NEIGHBOUR else household.persons
    address = None if household is None else _address(household.address, level, text=place.address)
    fields = {
        "case": case.id,
        "test": case.test,
        "drill": case.drill,
        "district": case.district,
        "state": case.state,
        "kinds": case.kinds,
        "urgency": case.urgency,
        "pressed_at": case.pressed_at,
        "received_at": case.received_at,
        "terminal": case.terminal,
        "household": None if household is None else household.id,
        "address": address,
        "maps": shown.maps,
        "persons": [] if household is None else _persons(household, level, today),
        "problem": None if level is Privacy.NEIGHBOUR else case.problem,
        "outcome": case.outcome,
    }
    return _Part(
        fields=_known(fields),
        address=address or {},
        place=shown,
        what=words.comma.join(words.kinds.get(kind, kind) for kind in case.kinds),
        who=words.comma.join(person.name + _age(person, words, today) for person in people),
        where=_where(case, place, words),
    )


def _aged(location: dict[str, Any], measured_at: datetime | None, now: datetime) -> dict[str, Any]:
    if measured_at is None:
        return location
    age_s = max(0, int((now - measured_at).total_seconds()))
    return location | {"at": measured_at, "age_s": age_s}


def _address(address: Address, level: Privacy, *, text: str | None) -> dict[str, Any]:
    approach = None if level is Privacy.NEIGHBOUR else address.approach
    return _known({"text": text, "landmark": address.landmark, "approach": approach})


def _persons(household: Household, level: Privacy, today: date) -> list[dict[str, Any]]:
    if level is Privacy.NEIGHBOUR:
        return [{"name": f"{person.name[:1]}老人"} for person in household.persons]
    return [
        _known(
            {
                "id": person.id,
                "name": person.name,
                "age": person.age(today),
                "phone": person.phone,
                "health": person.health or None if level is Privacy.FULL else None,
            }
        )
        for person in household.persons
    ]


def _map_label(case: CaseView) -> str:
    return "求助位置" if case.locale.startswith("zh") else "Call for help"


def _language(notice: DueNotice) -> str:
    return "zh" if (notice.language or notice.case.locale).startswith("zh") else "en"


@dataclass(frozen=True, slots=True)
class Spoken:
    """The parts of the sentence of a message.

    ``place`` are measured coordinates, ``own`` is the sentence of the plan's own template, if it has one.
    """

    language: str
    lead: str
    what: str
    who: str
    where: str
    place: str | None
    colon: str
    pause: str
    at: datetime
    own: str | None


def spoken(notice: DueNotice, *, now: datetime) -> Spoken:
    """Return what a short message of `notice` may say, by the same rules as a long one."""
    case, language = notice.case, _language(notice)
    words = _WORDS[language]
    level = privacy_of(notice.role, case.privacy)
    zone = _zone(case.timezone)
    today = now.astimezone(zone).date()
    part = _parts.get(case, (level, today, language), lambda: _part(case, level, today, words))
    return Spoken(
        language=language,
        lead=_lead(notice, words),
        what=part.what,
        who=part.who,
        where=part.where,
        place=_measured(part.place.location),
        colon=words.colon,
        pause=words.pause,
        at=case.received_at.astimezone(zone),
        own=None if notice.template.get(language) is None else _sentence(notice, part),
    )


def _measured(location: Mapping[str, Any] | None) -> str | None:
    """Return where a terminal says that it is; what is registered stands in the address already."""
    if location is None or location.get("source") not in ("gnss", "wifi", "cell"):
        return None
    return f"{location['lat']:.4f},{location['lon']:.4f}"


def _lead(notice: DueNotice, words: "_Words") -> str:
    case = notice.case
    return (words.drill if case.drill else words.test if case.test else "") + words.leads.get(notice.reason, words.lead)


def _sentence(notice: DueNotice, part: _Part) -> str:
    """Say in one sentence what happened, to whom and where; what kind of news it is stands in front."""
    case, language = notice.case, _language(notice)
    words = _WORDS[language]
    lead = _lead(notice, words)
    template = notice.template.get(language)
    if template is None:
        return f"{lead}{part.what}{words.colon}{words.pause.join([*([part.who] if part.who else []), part.where])}"
    return template.format(
        lead=lead,
        what=part.what,
        who=part.who,
        where=part.where,
        landmark=part.address.get("landmark") or "",
        approach=part.address.get("approach") or "",
        time=case.received_at.astimezone(_zone(case.timezone)).strftime("%H:%M:%S"),
        urgency=case.urgency,
    )


def _where(case: CaseView, place: _Place, words: "_Words") -> str:
    if place.address is not None:
        return place.address
    if AUDIT in case.kinds and case.problem is not None:
        return case.problem
    return words.nowhere if case.terminal is None else f"{words.terminal} {case.terminal}"


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
_WORDS = {"zh": _ZH, "en": _EN}
