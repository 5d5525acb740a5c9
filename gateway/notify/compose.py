"""What a message says: the state of the case, as far as the role of the party may know it (R22)."""

from datetime import date, datetime
from zoneinfo import ZoneInfo

from gateway.domain.directory import Household
from gateway.domain.location import map_links
from gateway.domain.outbox import CaseView, DueNotice
from gateway.domain.privacy import Privacy, privacy_of
from gateway.service.places import place_of
from schemas.notices import AddressCard, Location, Notice, NoticeData, PartyRef, PersonCard

__all__ = ["compose"]

_TYPES = {"closed": "case.closed"}

_KINDS_ZH = {
    "sos": "紧急呼叫",
    "fall": "跌倒",
    "smoke": "烟雾报警",
    "gas": "燃气报警",
    "water": "漏水报警",
    "inactivity": "长时间无活动",
    "wander": "走失",
    "duress": "胁迫报警",
    "low_battery": "电量低",
    "power_lost": "断电",
    "tamper": "终端被拆动",
    "service": "服务请求",
    "unreadable": "无法识别的报警",
}


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
            answer_url=None if notice.reason == "closed" else answer_url,
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
    inside = level is Privacy.FULL or level is Privacy.CARE or level is Privacy.FAMILY
    return AddressCard(text=address.text(), landmark=address.landmark, approach=address.approach if inside else None)


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
    chinese = case.locale.startswith("zh")
    where = "" if case.household is None else case.household.address.text()
    if case.household is None:
        where = f"终端 {case.terminal}" if chinese else f"terminal {case.terminal}"
    if level is Privacy.NEIGHBOUR or case.household is None or not case.household.persons:
        who = ""
    else:
        who = "、".join(
            person.name + (f"（{person.age(today)}岁）" if chinese and person.age(today) is not None else "")
            for person in case.household.persons
        )
    if chinese:
        what = "、".join(_KINDS_ZH.get(kind, kind) for kind in case.kinds)
        lead = {"closed": "【已结束】", "pressed_again": "【再次呼叫】", "location": "【位置更新】"}.get(
            notice.reason, "【求助】"
        )
        return f"{'【测试】' if case.test else ''}{lead}{what}：{who}{'，' if who else ''}{where}"
    what = ", ".join(case.kinds)
    lead = {"closed": "OVER", "pressed_again": "PRESSED AGAIN", "location": "NEW LOCATION"}.get(notice.reason, "HELP")
    return f"{'TEST ' if case.test else ''}{lead}: {what} - {who}{', ' if who else ''}{where}"
