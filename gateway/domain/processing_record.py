"""The processing record (处理记录) of a work order, written from the journal of its case in words for people.

It tells what people did and learned, in the order in which it happened. What the gateway does on its own account
(attempts, deliveries, positions) stays in the journal.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from gateway.domain.kinds import WORDS

__all__ = ["OUTCOMES", "REASONS", "ROLES", "Told", "record_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """An entry of the journal, opened."""

    at: datetime
    kind: str
    actor: str
    data: Mapping[str, Any]


ROLES = {
    "zh": {
        "guardian": "监护人",
        "relative": "亲属",
        "emergency_contact": "紧急联系人",
        "hotline": "热线",
        "service_center": "居家服务中心",
        "community": "社区",
        "neighbourhood_committee": "居委会",
        "district": "区民政部门",
        "ambulance_120": "120 急救",
        "fire_119": "119 消防",
        "police_110": "110 民警",
        "neighbour": "邻居",
        "care_station": "养老服务驿站",
        "supplier": "服务商",
        "person": "老人",
        "operator": "话务员",
        "supervisor": "话务主管",
    },
    "en": {
        "guardian": "guardian",
        "relative": "relative",
        "emergency_contact": "emergency contact",
        "hotline": "hotline",
        "service_center": "home-service centre",
        "community": "community",
        "neighbourhood_committee": "neighbourhood committee",
        "district": "district office",
        "ambulance_120": "120",
        "fire_119": "119",
        "police_110": "110",
        "neighbour": "neighbour",
        "care_station": "care station",
        "supplier": "supplier",
        "person": "person",
        "operator": "operator",
        "supervisor": "supervisor",
    },
}
"""What roles are called, by language."""

OUTCOMES = {
    "zh": {
        "helped": "已获帮助",
        "hospital": "送医",
        "false_alarm": "误报",
        "test": "测试",
        "technical_fixed": "技术问题已解决",
        "service_done": "服务完成",
        "duplicate": "重复",
        "other": "其他",
    },
    "en": {
        "helped": "helped",
        "hospital": "taken to hospital",
        "false_alarm": "false alarm",
        "test": "test",
        "technical_fixed": "technical problem solved",
        "service_done": "service done",
        "duplicate": "duplicate",
        "other": "other",
    },
}
"""What the outcomes of a case are called, by language."""

REASONS = {
    "zh": {
        "accidental": "误碰",
        "child": "儿童误触",
        "device_fault": "设备故障",
        "test_unannounced": "未登记的测试",
        "pet": "宠物触发",
        "unknown": "原因不明",
        "other": "其他",
    },
    "en": {
        "accidental": "pressed by accident",
        "child": "a child pressed",
        "device_fault": "fault of the device",
        "test_unannounced": "a test nobody announced",
        "pet": "a pet",
        "unknown": "unknown",
        "other": "other",
    },
}
"""What the reasons of false alarms are called, by language."""

_WORDS: Mapping[str, Mapping[str, str]] = {
    "zh": {
        "received": "收到报警：{kinds}（终端 {terminal}）",
        "opened": "同时通知 {n} 方：{roles}",
        "again": "老人再次按键（第 {n} 次）",
        "owned": "{who} 接警",
        "handed_over": "{who} 将警情交给 {to}",
        "upgraded": "{who} 将服务请求升级为紧急救援",
        "pressed_key": "老人按键回应",
        "in_time": "老人在通知前取消",
        "coming": "{role}答复：正在赶来",
        "coming_in": "{role}答复：正在赶来，约 {n} 分钟",
        "arrived": "{role}答复：已到达",
        "accepted": "{role}答复：已接单",
        "cannot": "{role}答复：无法前往",
        "failed": "未能通知{role}",
        "informed": "{role}已知晓（{who} 记录）",
        "dispatched": "{role}已派出（{who} 记录）",
        "on_scene": "{role}已到现场（{who} 记录）",
        "heard": "老人有回应（{who} 记录）",
        "done": "{who} 完成“{step}”：{result}",
        "breached": "逾期未完成“{step}”",
        "told": "{step}",
        "safe": "确认老人安全（{who}）",
        "closed": "结案：{outcome}",
        "complaint": "{who} 启动投诉处理流程",
        "aside": "{text}（{more}）",
        "separator": "、",
        "between": "；",
    },
    "en": {
        "received": "Alarm: {kinds} (terminal {terminal})",
        "opened": "Told {n} parties at once: {roles}",
        "again": "Pressed again (time {n})",
        "owned": "{who} took the case",
        "handed_over": "{who} handed the case over to {to}",
        "upgraded": "{who} made it an emergency",
        "pressed_key": "The person answered by a key",
        "in_time": "The person cancelled before anybody was told",
        "coming": "The {role} is coming",
        "coming_in": "The {role} is coming, about {n} min",
        "arrived": "The {role} has arrived",
        "accepted": "The {role} took it over",
        "cannot": "The {role} cannot come",
        "failed": "The {role} could not be told",
        "informed": "The {role} knows (says {who})",
        "dispatched": "{role} is on its way (says {who})",
        "on_scene": "The {role} is there (says {who})",
        "heard": "The person answered (says {who})",
        "done": "{who} did “{step}”: {result}",
        "breached": "Late: “{step}”",
        "told": "{step}",
        "safe": "The person is safe ({who})",
        "closed": "Closed: {outcome}",
        "complaint": "{who} began the procedure of a complaint",
        "aside": "{text} ({more})",
        "separator": ", ",
        "between": "; ",
    },
}

_RESULTS: Mapping[str, Mapping[str, str]] = {
    "zh": {
        "done": "已完成",
        "reached": "已联系上",
        "unreachable": "联系不上",
        "answered": "老人应答",
        "no_answer": "无人应答",
        "dispatched": "已派出",
        "not_needed": "不需要",
        "help_needed": "需要救援",
        "no_help_needed": "不需要救援",
        "satisfied": "满意",
        "dissatisfied": "不满意",
        "guided": "已指导",
    },
    "en": {},
}


def record_of(entries: Iterable[Told], *, lang: str, timezone: str, titles: Mapping[str, str]) -> str:
    """Return the record, one line for each thing that matters, with local times; a date where it changes.

    `titles` are those of the steps of the procedures that ran for the case.
    """
    zone = ZoneInfo(timezone)
    lines: list[str] = []
    day: date | None = None
    for entry in entries:
        tell = _TELLERS.get(entry.kind)
        text = None if tell is None else tell(entry, lang, titles)
        if text is None:
            continue
        at = entry.at.astimezone(zone)
        stamp = at.strftime("%H:%M:%S") if at.date() == day else at.strftime("%Y-%m-%d %H:%M:%S")
        day = at.date()
        lines.append(f"{stamp} {text}")
    return "\n".join(lines)


def _who(text: str, lang: str) -> str:
    kind, _, name = text.rpartition(":")
    return ROLES[lang].get(name, name) if kind in ("", "operator", "party", "terminal") else text


def _role(entry: Told, lang: str) -> str:
    role = str(entry.data.get("role") or "?")
    return ROLES[lang].get(role, role)


def _aside(text: str, words: Mapping[str, str], *more: object) -> str:
    said = words["between"].join(str(one) for one in more if one)
    return words["aside"].format(text=text, more=said) if said else text


def _received(entry: Told, lang: str, _: Mapping[str, str]) -> str:
    words = _WORDS[lang]
    kinds = words["separator"].join(WORDS[lang].get(kind, kind) for kind in entry.data.get("kinds", ()))
    return words["received"].format(kinds=kinds, terminal=entry.data.get("terminal") or "?")


def _opened(entry: Told, lang: str, _: Mapping[str, str]) -> str | None:
    words = _WORDS[lang]
    told = [leg["role"] for leg in entry.data.get("legs", ()) if leg.get("state") == "pending"]
    if not told:
        return None
    roles = words["separator"].join(ROLES[lang].get(role, role) for role in dict.fromkeys(told))
    return words["opened"].format(n=len(told), roles=roles)


def _again(entry: Told, lang: str, _: Mapping[str, str]) -> str:
    return _WORDS[lang]["again"].format(n=entry.data.get("urgency"))


def _handed_over(entry: Told, lang: str, _: Mapping[str, str]) -> str:
    words, data = _WORDS[lang], entry.data
    text = words["handed_over"].format(who=_who(entry.actor, lang), to=data.get("to"))
    return _aside(text, words, data.get("reason"))


def _plainly(word: str) -> Callable[[Told, str, Mapping[str, str]], str]:
    def tell(entry: Told, lang: str, _: Mapping[str, str]) -> str:
        return _WORDS[lang][word].format(who=_who(entry.actor, lang))

    return tell


def _answered(entry: Told, lang: str, _: Mapping[str, str]) -> str:
    words, data = _WORDS[lang], entry.data
    answer = str(data.get("answer"))
    in_minutes = answer == "coming" and data.get("minutes") is not None
    text = words["coming_in" if in_minutes else answer].format(role=_role(entry, lang), n=data.get("minutes"))
    return _aside(text, words, data.get("by"), data.get("reason"))


def _failed(entry: Told, lang: str, _: Mapping[str, str]) -> str:
    return _WORDS[lang]["failed"].format(role=_role(entry, lang))


def _fact(entry: Told, lang: str, _: Mapping[str, str]) -> str | None:
    if entry.actor.startswith("party:"):
        return None  # it follows from an answer, which is told already
    words = _WORDS[lang]
    fact = str(entry.data.get("fact"))
    if fact not in words:
        return None
    return words[fact].format(role=_role(entry, lang), who=_who(entry.actor, lang))


def _done(entry: Told, lang: str, titles: Mapping[str, str]) -> str | None:
    if entry.actor == "gateway":
        return None  # it ended with a fact, which is told already
    words, data = _WORDS[lang], entry.data
    step, result = str(data.get("step")), str(data.get("result"))
    text = words["done"].format(
        who=_who(entry.actor, lang),
        step=titles.get(step, step),
        result=_RESULTS[lang].get(result, result.replace("_", " ")),
    )
    return _aside(text, words, data.get("note"))


def _breached(entry: Told, lang: str, titles: Mapping[str, str]) -> str:
    step = str(entry.data.get("step"))
    return _WORDS[lang]["breached"].format(step=titles.get(step, step))


def _told(entry: Told, lang: str, titles: Mapping[str, str]) -> str | None:
    if entry.data.get("does") not in ("tell", "withdraw"):
        return None
    step = str(entry.data.get("step"))
    return _WORDS[lang]["told"].format(step=titles.get(step, step))


def _safe(entry: Told, lang: str, _: Mapping[str, str]) -> str:
    return _WORDS[lang]["safe"].format(who=_who(str(entry.data.get("by")), lang))


def _closed(entry: Told, lang: str, _: Mapping[str, str]) -> str:
    words, data = _WORDS[lang], entry.data
    outcome = str(data.get("outcome"))
    text = words["closed"].format(outcome=OUTCOMES[lang].get(outcome, outcome))
    reason = data.get("reason")
    return _aside(text, words, None if reason is None else REASONS[lang].get(reason, reason), data.get("note"))


def _started(entry: Told, lang: str, _: Mapping[str, str]) -> str | None:
    if entry.data.get("procedure") != "complaint":
        return None
    return _WORDS[lang]["complaint"].format(who=_who(entry.actor, lang))


_TELLERS: Mapping[str, Callable[[Told, str, Mapping[str, str]], str | None]] = {
    "alarm.received": _received,
    "case.opened": _opened,
    "case.pressed_again": _again,
    "case.acknowledged": _plainly("owned"),
    "case.handed_over": _handed_over,
    "case.upgraded": _plainly("upgraded"),
    "case.person_pressed": _plainly("pressed_key"),
    "case.cancelled_in_time": _plainly("in_time"),
    "leg.answered": _answered,
    "leg.failed": _failed,
    "case.fact": _fact,
    "task.done": _done,
    "task.breached": _breached,
    "step.started": _told,
    "case.safe": _safe,
    "case.closed": _closed,
    "procedure.started": _started,
}
"""What is worth telling, and how. A kind of entry that is not in here is not told."""
