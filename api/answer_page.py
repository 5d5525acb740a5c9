"""The page behind a signed link: who needs help and where, and three big buttons. Works without scripts and login."""

import base64
import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from starlette.responses import HTMLResponse

from api.html import Html, element, join, style
from gateway.domain.directory import Person
from gateway.domain.kinds import WORDS
from gateway.domain.location import map_links
from gateway.service.case_reading import LinkView

__all__ = ["CANNOT_REASONS", "MINUTES", "PREFIX", "failed", "language", "reason", "shown"]

PREFIX = "/r/"
MINUTES = (5, 10, 15, 20, 30, 60)
CANNOT_REASONS = ("away", "ill", "wrong", "other")

_STYLE = """
:root{color-scheme:light dark;--back:#f4f5f7;--card:#fff;--ink:#14181f;--soft:#59616e;--line:#dfe3e8;--red:#c01d1d;
--go:#0b7a3b;--blue:#1557b8;--tint:#eef3fb}
@media (prefers-color-scheme:dark){:root{--back:#101318;--card:#1a1f27;--ink:#f1f3f6;--soft:#a7b0bd;--line:#313845;
--red:#d33a3a;--go:#12924a;--blue:#3d7ddb;--tint:#1f2a3c}}
*{box-sizing:border-box}
body{margin:0;min-height:100vh;display:flex;flex-direction:column}
body{background:var(--back);color:var(--ink);font:18px/1.5 system-ui,-apple-system,"PingFang SC",
"HarmonyOS Sans SC","Microsoft YaHei","Noto Sans CJK SC","WenQuanYi Micro Hei",sans-serif;overflow-wrap:anywhere}
header{background:var(--red);color:#fff;padding:14px 20px 16px}
header.calm{background:#3f4a5a}
header h1{margin:0;font-size:28px;line-height:1.25}
header p{margin:4px 0 0;font-size:17px}
.test{background:#f6c344;color:#2b2100;padding:10px 20px;font-weight:700}
main{flex:1;width:100%;max-width:560px;margin:0 auto;padding:12px 12px 16px}
section{background:var(--card);border:1px solid var(--line);border-radius:14px;padding:14px 16px;margin:0 0 12px}
h2{margin:0 0 4px;font-size:15px;font-weight:600;color:var(--soft)}
.where{font-size:22px;font-weight:700;line-height:1.35;margin:0}
.note{margin:6px 0 0;color:var(--soft);font-size:17px}
.person{margin:0;font-size:20px;font-weight:600}
.person+.person{margin-top:10px}
ul{margin:6px 0 0;padding-left:20px;font-size:17px}
a{color:var(--blue)}
.call{display:flex;align-items:center;justify-content:center;min-height:52px;margin-top:10px;
border:2px solid var(--blue);border-radius:12px;font-weight:600;text-decoration:none}
.maps{display:grid;grid-template-columns:repeat(3,1fr);gap:8px;margin-top:10px}
.maps a{display:flex;align-items:center;justify-content:center;min-height:48px;border:1px solid var(--line);
border-radius:10px;text-decoration:none;font-size:16px}
.maps a.first{grid-column:1/-1;min-height:52px;background:var(--tint);border-color:var(--blue);font-weight:600;
font-size:18px}
.done{border:2px solid var(--go)}
.done p{margin:0;font-size:20px;font-weight:700}
form{margin:0}
fieldset{border:0;margin:0;padding:0}
legend{padding:0;font-size:15px;font-weight:600;color:var(--soft)}
.choices{display:grid;grid-template-columns:repeat(3,1fr);gap:8px;margin:6px 0 12px}
.choices.wide{grid-template-columns:repeat(2,1fr)}
.choices label{position:relative;display:block}
.choices input{position:absolute;opacity:0;inset:0;width:100%;height:100%;margin:0;cursor:pointer}
.choices span{display:flex;align-items:center;justify-content:center;min-height:48px;padding:2px 6px;
border:1px solid var(--line);border-radius:10px;text-align:center}
.choices input:checked+span{background:var(--go);border-color:var(--go);color:#fff;font-weight:700}
.refuse .choices input:checked+span{background:var(--soft);border-color:var(--soft);color:var(--card)}
.choices input:focus-visible+span,button:focus-visible,a:focus-visible,summary:focus-visible{outline:3px solid #f6a700;
outline-offset:2px}
button{width:100%;min-height:64px;padding:4px;border:0;border-radius:14px;font:inherit;font-size:22px;font-weight:700;
color:#fff;background:var(--blue);cursor:pointer}
button.coming{background:var(--go)}
button.quiet{background:#59616e;min-height:56px;font-size:19px}
.bar{position:sticky;bottom:0;background:var(--card);border-top:1px solid var(--line);box-shadow:0 -4px 16px #0002;
padding:8px 12px calc(10px + env(safe-area-inset-bottom))}
.bar>div{max-width:536px;margin:0 auto}
.bar legend{text-align:center;width:100%}
.bar .choices{grid-template-columns:repeat(6,1fr);gap:6px;margin:4px 0 8px}
.bar .choices span{min-height:44px;font-size:15px;padding:0;white-space:nowrap}
.buttons{display:grid;grid-template-columns:2fr 1fr;gap:8px}
.buttons.on-the-way{grid-template-columns:1fr 1fr}
.buttons button:last-child{font-size:19px}
summary{min-height:40px;display:flex;align-items:center;justify-content:space-between;cursor:pointer;font-weight:600;
color:var(--soft);list-style:none}
summary::-webkit-details-marker{display:none}
summary::after{content:"▾"}
details[open]>summary::after{content:"▴"}
textarea{width:100%;min-height:72px;margin:0 0 12px;padding:10px;font:inherit;color:inherit;background:var(--back);
border:1px solid var(--line);border-radius:10px}
footer{text-align:center;color:var(--soft);font-size:15px;padding:4px 8px}
footer a{display:inline-block;padding:10px}
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

_HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "X-Robots-Tag": "noindex, nofollow",
    "X-Frame-Options": "DENY",
}

_WORDS = {
    "zh": {
        "lang": "zh-CN",
        "other": "English",
        "title": "求助",
        "test": "测试／演练：没有人遇险",
        "separator": "、",
        "received": "{time} 呼叫 · {ago}",
        "again": "已呼叫 {count} 次",
        "now": "刚刚",
        "minutes_ago": "{n} 分钟前",
        "hours_ago": "{n} 小时前",
        "days_ago": "{n} 天前",
        "address": "地址",
        "landmark": "标志物：{text}",
        "approach": "进场路线：{text}",
        "no_address": "地址未登记",
        "person": "老人",
        "persons": "同住老人",
        "age": "{n} 岁",
        "phone": "拨打 {phone}",
        "health": "健康信息",
        "location": "位置",
        "gnss": "卫星定位",
        "wifi": "Wi-Fi 定位",
        "cell": "基站定位（可能偏差较大）",
        "manual": "人工确认的位置",
        "registered": "登记地址的位置",
        "accuracy": "误差约 {n} 米",
        "amap": "用高德地图导航",
        "baidu": "百度地图",
        "tencent": "腾讯地图",
        "geo": "其他地图",
        "map_label": "求助位置",
        "how_soon": "预计几分钟到达？（可不选）",
        "minutes": "{n} 分",
        "coming": "我正赶来",
        "arrived": "已到达",
        "cannot": "无法前往",
        "why": "原因",
        "away": "不在附近",
        "ill": "身体不便",
        "wrong": "找错人了",
        "other_reason": "其他",
        "more": "补充说明（可不填）",
        "send_cannot": "确认无法前往",
        "you_coming": "您已回复：正在赶来",
        "you_coming_in": "您已回复：正在赶来，约 {n} 分钟",
        "you_arrived": "您已回复：已到达",
        "you_cannot": "您已回复：无法前往",
        "you_accepted": "已接单",
        "at": "{time}，如有变化可再次选择",
        "thanks": "谢谢。请先确认自身安全；到达后请点“已到达”。",
        "over": "本次求助已结束",
        "over_more": "谢谢您的关注，无需再前往。",
        "emergency": "情况危急时请直接拨打",
        "not_found": "链接无效",
        "not_found_more": "请检查链接是否完整，或联系发送给您的热线。",
        "failed": "暂时无法打开",
        "failed_more": "请稍后刷新重试。情况危急时请直接拨打 120。",
        "bad": "没有看懂您的选择",
        "bad_more": "请返回上一页，重新选择。",
    },
    "en": {
        "lang": "en",
        "other": "中文",
        "title": "Help needed",
        "test": "TEST or drill: nobody is in danger",
        "separator": ", ",
        "received": "Called at {time} · {ago}",
        "again": "Called {count} times",
        "now": "just now",
        "minutes_ago": "{n} min ago",
        "hours_ago": "{n} h ago",
        "days_ago": "{n} days ago",
        "address": "Address",
        "landmark": "Landmark: {text}",
        "approach": "How to get in: {text}",
        "no_address": "No address registered",
        "person": "Person",
        "persons": "Persons",
        "age": "{n} years old",
        "phone": "Call {phone}",
        "health": "Health",
        "location": "Location",
        "gnss": "Satellite position",
        "wifi": "Wi-Fi position",
        "cell": "Cell position (may be far off)",
        "manual": "Position confirmed by a person",
        "registered": "Position of the registered address",
        "accuracy": "within about {n} m",
        "amap": "Navigate with Amap",
        "baidu": "Baidu Maps",
        "tencent": "Tencent",
        "geo": "Other map",
        "map_label": "Call for help",
        "how_soon": "Minutes until you are there (optional)",
        "minutes": "{n}",
        "coming": "I am coming",
        "arrived": "Arrived",
        "cannot": "I cannot come",
        "why": "Why",
        "away": "Not nearby",
        "ill": "Not able to",
        "wrong": "Wrong person",
        "other_reason": "Other",
        "more": "Anything to add (optional)",
        "send_cannot": "Confirm: I cannot come",
        "you_coming": "You answered: coming",
        "you_coming_in": "You answered: coming, about {n} min",
        "you_arrived": "You answered: arrived",
        "you_cannot": "You answered: cannot come",
        "you_accepted": "Taken over",
        "at": "{time}. Choose again if that changes.",
        "thanks": "Thank you. Mind your own safety first; press “Arrived” when you are there.",
        "over": "This call for help is over",
        "over_more": "Thank you. There is no need to go any more.",
        "emergency": "In acute danger call",
        "not_found": "This link is not valid",
        "not_found_more": "Check that the link is complete, or ask the hotline that sent it.",
        "failed": "Not available for the moment",
        "failed_more": "Reload in a moment. In acute danger call 120.",
        "bad": "Your choice could not be read",
        "bad_more": "Go back and choose again.",
    },
}


def language(wanted: str | None, otherwise: str) -> str:
    """Return ``zh`` or ``en``: what is wanted, else what a language tag or Accept-Language header names first."""
    if wanted in _WORDS:
        return wanted
    return "zh" if not otherwise or otherwise.lower().startswith("zh") else "en"


def shown(view: LinkView, *, lang: str) -> HTMLResponse:
    """Return the page of a leg."""
    words = _WORDS[lang]
    switch = "zh" if lang == "en" else "en"
    parts = [_header(view, lang)]
    if view.test:
        parts.append(element("div", words["test"], class_="test", role="status"))
    body = [_over(words)] if view.over else [_answer(view, words), *_about(view, words), _refusal(words)]
    footer = element(
        "footer",
        join(element("p", words["emergency"], element("a", "120", href="tel:120")))
        if view.emergency and not view.test and not view.over
        else None,
        element("a", words["other"], href=f"?lang={switch}", lang=switch),
    )
    parts.append(element("main", *body, footer))
    if not view.over:
        parts.append(_bar(view, words))
    return _page(lang, _title(view, lang), *parts)


def reason(choice: str, more: str, lang: str) -> str | None:
    """Return why somebody cannot come, in words for an operator."""
    words = _WORDS[lang]
    label = words["other_reason"] if choice == "other" else words[choice] if choice in CANNOT_REASONS else None
    return ": ".join(part for part in (label, more.strip()) if part) or None


def failed(status: int, accepted: str, headers: Mapping[str, str] | None = None) -> HTMLResponse:
    """Return a page that says what went wrong, in the first language of an Accept-Language header."""
    lang = language(None, accepted)
    words = _WORDS[lang]
    name = "not_found" if status in (404, 405) else "bad" if 400 <= status < 500 else "failed"
    return _page(
        lang,
        words[name],
        element("header", element("h1", words[name]), class_="calm"),
        element("main", element("section", element("p", words[f"{name}_more"], class_="note"))),
        status=status,
        headers=headers,
    )


def _page(
    lang: str, title: str, *parts: Html, status: int = 200, headers: Mapping[str, str] | None = None
) -> HTMLResponse:
    document = element(
        "html",
        element(
            "head",
            element("meta", charset="utf-8"),
            element("meta", name_="viewport", content="width=device-width,initial-scale=1"),
            element("meta", name_="robots", content="noindex,nofollow"),
            element("meta", name_="format-detection", content="telephone=no"),
            element("title", title),
            style(_STYLE),
        ),
        element("body", *parts),
        lang=_WORDS[lang]["lang"],
    )
    return HTMLResponse("<!doctype html>" + document, status, {**_HEADERS, **(headers or {})})


def _title(view: LinkView, lang: str) -> str:
    kinds = _WORDS[lang]["separator"].join(WORDS[lang].get(kind, kind) for kind in view.kinds)
    return _WORDS[lang]["over"] if view.over else kinds or _WORDS[lang]["title"]


def _header(view: LinkView, lang: str) -> Html:
    words = _WORDS[lang]
    when = words["received"].format(
        time=_clock(view.received_at, view.timezone), ago=_ago(view.now - view.received_at, words)
    )
    if view.presses > 1 and not view.over:
        when = f"{when} · {words['again'].format(count=view.presses)}"
    calm = view.over or view.test or not view.emergency
    return element("header", element("h1", _title(view, lang)), element("p", when), class_="calm" if calm else None)


def _clock(at: datetime, timezone: str) -> str:
    return at.astimezone(ZoneInfo(timezone)).strftime("%m-%d %H:%M:%S")


def _ago(age: timedelta, words: Mapping[str, str]) -> str:
    minutes = int(age.total_seconds() // 60)
    if minutes < 1:
        return words["now"]
    if minutes < 90:
        return words["minutes_ago"].format(n=minutes)
    if minutes < 48 * 60:
        return words["hours_ago"].format(n=minutes // 60)
    return words["days_ago"].format(n=minutes // (24 * 60))


def _over(words: Mapping[str, str]) -> Html:
    return element("section", element("p", words["over_more"], class_="where"), role="status")


def _answer(view: LinkView, words: Mapping[str, str]) -> Html | None:
    answer = view.answer
    if answer is None:
        return None
    text = words[f"you_{answer.answer}"]
    if answer.answer == "coming" and answer.minutes is not None:
        text = words["you_coming_in"].format(n=answer.minutes)
    return element(
        "section",
        element("p", text),
        element("div", words["at"].format(time=_clock(answer.at, view.timezone)), class_="note"),
        element("div", words["thanks"], class_="note") if answer.answer == "coming" else None,
        class_="done",
        role="status",
    )


def _about(view: LinkView, words: Mapping[str, str]) -> list[Html]:
    sections = [
        element(
            "section",
            element("h2", words["address"]),
            element("p", view.address or words["no_address"], class_="where"),
            *(
                element("p", words[name].format(text=text), class_="note")
                for name, text in (("landmark", view.landmark), ("approach", view.approach))
                if text
            ),
            _maps(view, words),
        )
    ]
    if view.persons:
        word = words["person"] if len(view.persons) == 1 else words["persons"]
        people = [part for person in view.persons for part in _person(person, view, words)]
        sections.append(element("section", element("h2", word), *people))
    return sections


def _person(person: Person, view: LinkView, words: Mapping[str, str]) -> list[Html | None]:
    age = person.age(view.now.astimezone(ZoneInfo(view.timezone)).date())
    health = [
        element("li", f"{name}：" if words["lang"] == "zh-CN" else f"{name}: ", _plain(value, words))
        for name, value in person.health.items()
        if value not in (None, "", [], {})
    ]
    return [
        element("p", person.name, None if age is None else f" · {words['age'].format(n=age)}", class_="person"),
        element("ul", *health) if health else None,
        element("a", words["phone"].format(phone=person.phone), class_="call", href=f"tel:{person.phone}")
        if person.phone
        else None,
    ]


def _plain(value: object, words: Mapping[str, str]) -> str:
    if isinstance(value, list):
        return words["separator"].join(_plain(item, words) for item in value)
    if isinstance(value, dict):
        return words["separator"].join(f"{key} {_plain(item, words)}" for key, item in value.items())
    return str(value)


def _maps(view: LinkView, words: Mapping[str, str]) -> Html | None:
    location = view.location
    if location is None:
        return None
    told = [words[location.source.value]]
    if location.accuracy_m is not None:
        told.append(words["accuracy"].format(n=f"{location.accuracy_m:.0f}"))
    if (age := location.age(view.now)) is not None:
        told.append(_ago(age, words))
    links = map_links(location.coordinates, words["map_label"], accuracy_m=location.accuracy_m)
    return join(
        element(
            "p",
            f"{words['location']}: " if words["lang"] == "en" else f"{words['location']}：",
            " · ".join(told),
            class_="note",
        ),
        element(
            "div",
            *(
                element(
                    "a",
                    words[name],
                    href=links[name],
                    rel="noreferrer noopener",
                    class_="first" if name == "amap" else None,
                )
                for name in ("amap", "baidu", "tencent", "geo")
            ),
            class_="maps",
        ),
    )


def _choice(name: str, value: str, text: str) -> Html:
    return element("label", element("input", type_="radio", name_=name, value=value), element("span", text))


def _refusal(words: Mapping[str, str]) -> Html:
    reasons = [
        _choice("reason", name, words["other_reason"] if name == "other" else words[name]) for name in CANNOT_REASONS
    ]
    more = element("textarea", "", name_="more", maxlength="400", placeholder=words["more"], aria_label=words["more"])
    form = element(
        "form",
        element("fieldset", element("legend", words["why"]), element("div", *reasons, class_="choices wide")),
        more,
        element("button", words["send_cannot"], name_="answer", value="cannot", class_="quiet"),
        method="post",
        class_="refuse",
    )
    return element("section", element("details", element("summary", words["cannot"]), form))


def _bar(view: LinkView, words: Mapping[str, str]) -> Html:
    """Return the two buttons that are always in sight, with how long it will take."""
    on_the_way = view.answer is not None and view.answer.answer == "coming"
    minutes = [_choice("minutes", str(n), words["minutes"].format(n=n)) for n in MINUTES]
    return element(
        "form",
        element(
            "div",
            element("fieldset", element("legend", words["how_soon"]), element("div", *minutes, class_="choices")),
            element(
                "div",
                element("button", words["coming"], name_="answer", value="coming", class_="coming"),
                element("button", words["arrived"], name_="answer", value="arrived"),
                class_="buttons on-the-way" if on_the_way else "buttons",
            ),
        ),
        method="post",
        class_="bar",
    )
