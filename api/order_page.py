"""A work order to be printed, in the form of table C.1 (DB3201/T 1033-2021): A4, nothing from elsewhere, no scripts."""

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from api.html import Html, element, join, style
from api.order_words import WORDS, local
from gateway.domain.work_order import RATINGS
from schemas.work_order import OrderOut

__all__ = ["HEADERS", "document"]

_PERSON_KINDS = ("emergency_rescue", "public_service_query", "referral", "complaint")
_KINDS = (*_PERSON_KINDS, "institution_query")
_QUERIES = ("public_service_query", "institution_query")

_STYLE = """
@page{size:A4;margin:14mm 13mm}
*{box-sizing:border-box}
html{-webkit-print-color-adjust:exact;print-color-adjust:exact}
body{margin:0;background:#e9ebee;color:#000;
font:10.5pt/1.5 "Songti SC","SimSun","Noto Serif CJK SC","WenQuanYi Zen Hei",serif}
html[lang=en] body{font-family:"Liberation Serif","Times New Roman","Noto Serif CJK SC","WenQuanYi Zen Hei",serif}
article{width:210mm;min-height:297mm;margin:6mm auto;padding:14mm 13mm;background:#fff;box-shadow:0 1px 6px #0003;
display:flex;flex-direction:column}
h1{margin:0 0 4mm;font-size:17pt;font-weight:700;text-align:center;letter-spacing:.35em;text-indent:.35em}
html[lang=en] h1{letter-spacing:.04em;text-indent:0}
table{width:100%;border-collapse:collapse;table-layout:fixed;border:1.2pt solid #000}
col.head{width:14.5%}
th,td{border:.6pt solid #000;padding:1.4mm 1.8mm;vertical-align:middle;overflow-wrap:anywhere;text-align:left;
font-weight:400}
th{text-align:center;font-weight:700;background:#f3f4f6}
td.mid{text-align:center;padding:1.4mm .8mm;font-size:9.5pt}
html[lang=en] td.mid{font-size:9pt}
td.off,td.off span{color:#8a8f98}
tr.on-one-line>*{height:9.5mm}
.box{display:inline-block;width:3.1mm;height:3.1mm;border:.6pt solid currentColor;margin:0 1.1mm -.35mm 0;
text-align:center;font:700 8.5pt/2.9mm sans-serif;vertical-align:baseline}
.options{display:block;white-space:nowrap;font-size:9.5pt;line-height:1.75}
html[lang=en] .options{font-size:8.2pt}
.who span{display:inline-block;margin-right:6mm}
td.record{height:106mm;vertical-align:top;padding:2mm 2.4mm}
html[lang=en] td.record{height:92mm}
.record pre{margin:0;font:inherit;white-space:pre-wrap;font-variant-numeric:tabular-nums}
.record h2{margin:3mm 0 .8mm;font-size:10.5pt;font-weight:700}
.record dl{margin:0;display:grid;grid-template-columns:max-content 1fr;gap:.4mm 3mm}
.record dt{color:#333}.record dd{margin:0;white-space:pre-wrap}
.record ol{margin:0;padding-left:6mm}
.late{font-weight:700}
.note{margin:2.2mm 0 0;font-size:9pt}
footer{margin-top:auto;padding-top:4mm;font-size:8pt;color:#444;display:flex;justify-content:space-between;gap:6mm}
@media print{body{background:none}article{width:auto;min-height:0;margin:0;padding:0;box-shadow:none;display:block}
article+article{break-before:page}tr{break-inside:avoid}tr.long{break-inside:auto}
footer{margin-top:4mm}}
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'self'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "X-Robots-Tag": "noindex, nofollow",
}

_Words = Mapping[str, str]


def document(orders: Sequence[OrderOut], *, lang: str, now: datetime) -> str:
    """Return a page with the work orders, each on sheets of its own. It says itself what it may load: nothing."""
    words = WORDS[lang]
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv_="Content-Security-Policy", content=_policy()),
        element("meta", name_="viewport", content="width=device-width,initial-scale=1"),
        element("meta", name_="robots", content="noindex,nofollow"),
        element("title", words["title"]),
        style(_STYLE),
    )
    body = element("body", *(_article(order, words, now) for order in orders))
    return "<!doctype html>" + element("html", head, body, lang=words["lang"])


def _policy() -> str:
    """Return what holds for a page that was saved: frame-ancestors counts in headers alone."""
    return HEADERS["Content-Security-Policy"].partition("; frame-ancestors")[0]


def _article(order: OrderOut, words: _Words, now: datetime) -> Html:
    return element(
        "article",
        element("h1", words["title"]),
        element(
            "table",
            element("colgroup", element("col", class_="head"), *(element("col") for _ in _KINDS)),
            element("tbody", *_rows(order, words)),
        ),
        element("p", words["note"], class_="note"),
        element(
            "footer",
            element("span", words["id"], " ", str(order.id)),
            element("span", words["printed"].format(at=local(now, order))),
        ),
    )


def _rows(order: OrderOut, words: _Words) -> Iterable[Html]:
    yield _line(
        element("th", words["called_at"]),
        element("td", local(order.called_at, order), colspan="2"),
        element("th", words["number"]),
        element("td", order.number, colspan="2"),
    )
    yield _line(
        element("th", words["operator"]),
        element("td", order.operator, colspan="2"),
        element("th", words["operator_name"]),
        element("td", order.operator_name, colspan="2"),
    )
    yield _line(element("th", words["kind"], rowspan="3"), *_for_whom(order, words))
    yield _line(*_who(order, words))
    yield _line(*(_cell(order, kind, _box(words[kind], ticked=kind == order.kind)) for kind in _KINDS))
    yield _line(
        element("th", words["reply_needed"]), *(_cell(order, kind, _reply(order, kind, words)) for kind in _KINDS)
    )
    yield element(
        "tr",
        element("th", words["record"]),
        element("td", *_record(order, words), colspan=str(len(_KINDS)), class_="record"),
        class_="long",
    )
    yield _line(element("th", words["rating"]), *(_cell(order, kind, _rating(order, kind, words)) for kind in _KINDS))


def _line(*cells: Html) -> Html:
    return element("tr", *cells, class_="on-one-line")


def _for_whom(order: OrderOut, words: _Words) -> Iterable[Html]:
    institution = order.kind == "institution_query"
    yield element("td", _box(words["person"], ticked=not institution), colspan="4", class_="mid")
    yield element("td", _box(words["institution"], ticked=institution), class_="mid")


def _who(order: OrderOut, words: _Words) -> Iterable[Html]:
    person = order.person
    named = {
        "name": None if person is None else person.name,
        "age": None if person is None or person.age is None else str(person.age),
        "phone": None if person is None else person.phone,
    }
    fields = [element("span", words[name], words["colon"], value) for name, value in named.items()]
    yield element("td", *fields, colspan="4", class_="who")
    yield element("td", words["institution_name"], words["colon"], order.institution)


def _cell(order: OrderOut, kind: str, content: Html) -> Html:
    """Return a cell of the column of a kind; those of other kinds step back."""
    return element("td", content, class_="mid" if kind == order.kind else "mid off")


def _box(text: str, *, ticked: bool) -> Html:
    return join(element("span", "✓" if ticked else "", class_="box"), text)


def _reply(order: OrderOut, kind: str, words: _Words) -> Html:
    mine = kind == order.kind
    needed = _box(words["needed"], ticked=mine and order.reply_needed is True)
    if kind not in _QUERIES:
        return needed
    return join(
        element("span", needed, class_="options"),
        element("span", _box(words["not_needed"], ticked=mine and order.reply_needed is False), class_="options"),
    )


def _rating(order: OrderOut, kind: str, words: _Words) -> Html:
    mine = kind == order.kind
    return join(
        *(
            element("span", _box(words[step], ticked=mine and order.rating == step), class_="options")
            for step in RATINGS
        )
    )


def _record(order: OrderOut, words: _Words) -> Iterable[Html]:
    if order.erased:
        yield element("pre", words["erased"])
    if order.record:
        yield element("pre", order.record)
    if order.complaint is not None:
        yield from _pairs(order.complaint.model_dump(), words)
    if order.steps:
        yield element("h2", words["progress"])
        yield element("ol", *(element("li", *_step(order, number, words)) for number in range(len(order.steps))))
    if order.referral is not None:
        if order.referral.needs is not None:
            yield element("h2", words["needs"])
            yield from _pairs(order.referral.needs.model_dump(), words)
        if order.referral.offered:
            yield element("h2", words["offered"])
            lines = (one.model_dump(exclude_none=True).values() for one in order.referral.offered)
            yield element("ol", *(element("li", words["comma"].join(line)) for line in lines))
        outcome = order.referral.outcome
        ended = {"outcome": None if outcome is None else words[outcome]}
        yield from _pairs(ended, words)
        if order.referral.note:
            yield element("pre", order.referral.note)
    yield from _pairs({"replied_at": local(order.replied_at, order) or None}, words)
    if order.rating_asked_by is not None:
        said = words["asked_by"].format(who=order.rating_asked_by)
        comment = order.rating_comment
        yield from _pairs({"rating": said if comment is None else f"{comment}{words['comma']}{said}"}, words)


def _pairs(fields: Mapping[str, str | None], words: _Words) -> Iterable[Html]:
    filled = {name: text for name, text in fields.items() if text}
    if filled:
        yield element(
            "dl",
            *(join(element("dt", words[name]), element("dd", text)) for name, text in filled.items()),
        )


_STEPS = {
    "zh-CN": {"forward": "转交受理单位", "settle": "跟踪处理并告知结果", "escalate": "上报上级主管部门"},
    "en": {"forward": "Forwarded", "settle": "Settled and told", "escalate": "Taken to the superior authority"},
}


def _step(order: OrderOut, number: int, words: _Words) -> Iterable[str]:
    step = order.steps[number]
    yield _STEPS[words["lang"]].get(step.name, step.name)
    if step.state == "done":
        result = words.get(f"result_{step.result}", step.result)
        yield f"{words['colon']}{result}{words['comma']}{local(step.ended_at, order)}"
    elif step.due_at is not None:
        yield f"{words['colon']}{words['due'].format(at=local(step.due_at, order))}"
    if step.breached_at is not None:
        yield element("span", f"{words['comma']}{words['late']}", class_="late")
    if step.note:
        yield f"{words['semicolon']}{step.note}"
