"""How far the gateway bends to read a report: far for an alarm, not at all for telemetry.

An alarm is never lost for a bad optional part (I2). What breaks the contract of ``schemas.reports`` is set
aside with a sentence for the people who handle the case; what asks for help is kept. In doubt the result is the
more serious one (I6): an unknown kind is an emergency, a doubtful test is a real press.

Nothing here raises for what the peer sent, and the work is bounded by the size of the payload.
"""

import codecs
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, get_type_hints

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from schemas.reports import AlarmReport, EventReport, Fix, FixReport, HeartbeatReport, Kind, ResultReport

__all__ = [
    "MAX_BYTES",
    "MAX_REPORTS",
    "ReadAlarm",
    "ReadReport",
    "Unreadable",
    "read_alarm",
    "read_report",
    "read_reports",
]

MAX_BYTES = 256 * 1024
"""Longest payload that is looked at."""

MAX_REPORTS = 500
"""Most reports in one message."""

_MAX_KINDS = 32
_MAX_KIND_CHARS = 64
_MAX_SHOWN_CHARS = 100
_MAX_DEPTH = 64
"""Levels of nesting that are read: the contract needs two, the parser of the standard library ends near 1,000."""

_MAX_LOOKED_AT = 1_000
"""Members of ``kinds`` that are all looked at; among the rest, only kinds that change something are picked out."""

_MAX_OBJECTS = 16
_RAW = "raw:"
_BLANK = "\0 \t\r\n"

Note = Callable[[str], None]
Member = tuple[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadAlarm:
    """What an alarm says, as far as it can be understood.

    ``kinds`` holds 1 to 32 words without control characters, those of the terminal first to last; a member that is
    no word stands as ``raw:…``. ``boot`` and ``seq`` are both there or neither. ``problems`` are sentences about
    what was set aside, empty when the alarm keeps the contract.
    """

    kinds: tuple[str, ...]
    boot: int | None = None
    seq: int | None = None
    at: datetime | None = None
    fix: Fix | None = None
    battery_pct: int | None = None
    signal_dbm: int | None = None
    test: bool = False
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Nobody can say what these bytes ask for; they go to quarantine and somebody hears of them (D13)."""

    reason: str


ReadReport = HeartbeatReport | FixReport | EventReport | ResultReport

_REPORTS: Mapping[str, type[ReadReport]] = {
    "heartbeat": HeartbeatReport,
    "fix": FixReport,
    "event": EventReport,
    "result": ResultReport,
}


def read_report(kind: str, payload: bytes) -> ReadReport | Unreadable:
    """Read a report from the topic that ends in `kind`: heartbeat, fix, event or result.

    All or nothing: a report that breaks its contract is `Unreadable`. A number may be written as 88.0 or "88".
    """
    model = _REPORTS.get(kind)
    if model is None:
        return Unreadable(f"no such report: {_shown(kind)}")
    if len(payload) > MAX_BYTES:
        return Unreadable(_too_long(payload))
    try:
        return model.model_validate_json(payload)
    except ValidationError as exc:
        return Unreadable(_faults(exc))


def read_reports(kind: str, payload: bytes) -> list[tuple[ReadReport | Unreadable, bytes]]:
    """Read what a terminal has to report on a topic: one report, or several as a JSON array, oldest first.

    Each of several is read by itself: one that breaks its contract takes no other with it. With every result comes its
    part of the payload. An array that is no JSON, or too long, is unreadable as a whole.
    """
    if payload.startswith(b"{") or not payload.lstrip(_BLANK.encode()).startswith(b"["):
        return [(read_report(kind, payload), payload)]
    if len(payload) > MAX_BYTES:
        return [(Unreadable(_too_long(payload)), payload)]
    try:
        members = from_json(payload, cache_strings="keys")
    except ValueError as exc:
        return [(Unreadable(f"not JSON: {str(exc)[:_MAX_SHOWN_CHARS]}"), payload)]
    if not 0 < len(members) <= MAX_REPORTS:
        return [(Unreadable(f"{len(members)} reports in one message: 1 to {MAX_REPORTS} may be"), payload)]
    found = []
    for member in members:
        part = to_json(member)
        found.append((read_report(kind, part), part))
    return found


def read_alarm(payload: bytes) -> ReadAlarm | Unreadable:
    """Read an alarm, and keep of a faulty one everything that is right by itself.

    A key that stands twice counts with its last value, as JSON readers do; but all values of ``kinds`` count
    together, and ``test`` only when every one of them is true, so that no repetition hides a call for help.
    """
    members = _members(payload)
    if isinstance(members, Unreadable):
        return members
    problems: list[str] = []
    known = [name for name, _ in members if name in AlarmReport.model_fields]
    try:
        report = AlarmReport.model_validate_json(payload, strict=True)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        if first["type"] == "json_invalid":
            problems.append(f"the message is not quite JSON: {first['ctx']['error']}")
    else:
        if len(known) == len(set(known)):
            numbers = _numbers({"boot": report.boot, "seq": report.seq}, problems.append)
            return ReadAlarm(
                kinds=tuple(report.kinds),
                **numbers,
                at=report.at,
                fix=report.fix,
                battery_pct=report.battery_pct,
                signal_dbm=report.signal_dbm,
                test=report.test,
                problems=tuple(problems),
            )
    return _salvage(members, problems)


def _salvage(members: Sequence[Member], problems: list[str]) -> ReadAlarm | Unreadable:
    last = dict(members)
    kinds = _kinds([value for name, value in members if name == "kinds"], problems.append)
    if not kinds:
        return Unreadable("kinds is empty" if "kinds" in last else "kinds is missing")
    for name in AlarmReport.model_fields:
        times = sum(other == name for other, _ in members)
        if times > 1:
            problems.append(f"{name} stands {times} times")
    if "v" not in last:
        problems.append("v is missing")
    elif last["v"] != 1:
        problems.append(f"v is {_shown_json(last['v'])}, not 1")
    kept = _fields(_ALARM_FIELDS, last, problems.append)
    numbers = _numbers(kept, problems.append)
    return ReadAlarm(
        kinds=kinds,
        **numbers,
        at=kept.get("at"),
        fix=_fix(last.get("fix"), problems.append),
        battery_pct=kept.get("battery_pct"),
        signal_dbm=kept.get("signal_dbm"),
        test=_test([value for name, value in members if name == "test"], problems.append),
        problems=tuple(problems),
    )


def _kinds(values: Sequence[object], note: Note) -> tuple[str, ...]:
    members: list[object] = []
    for value in values:
        if isinstance(value, list):
            members += value
        elif value is not None and value != "":
            members.append(value)
    bare = [value for value in values if not isinstance(value, list)]
    if bare:
        note(f"kinds is not a list but {_shown_json(bare[0])}")
    words: dict[str, None] = {}
    strange: dict[str, None] = {}
    unknown = False
    for index, member in enumerate(members):
        # One unknown kind makes it an emergency; a thousand more of them say nothing new.
        if index >= _MAX_LOOKED_AT and unknown and member not in AlarmReport.KINDS:
            continue
        word = _word(member)
        words[word] = None
        unknown = unknown or word not in AlarmReport.KINDS
        if word != member:
            strange[word] = None
    if strange:
        note(f"kinds has members that are no words: {_shown(', '.join(strange))}")
    if len(words) > _MAX_KINDS or len(members) > _MAX_LOOKED_AT:
        note(f"kinds has {len(members)} members, {min(len(words), _MAX_KINDS)} of them are kept")
    # What we know to be an emergency must not be crowded out by what we do not know.
    ranked = sorted(words, key=lambda word: (word not in AlarmReport.KINDS, word in strange))
    kept = frozenset(ranked[:_MAX_KINDS])
    return tuple(word for word in words if word in kept)


_KIND: TypeAdapter[str] = TypeAdapter(Kind)


def _word(member: object) -> str:
    """Return a member of kinds as a kind: itself where it is one, else what can be shown of it."""
    if not isinstance(member, str):
        return _RAW + _shown_json(member, longest=_MAX_KIND_CHARS - len(_RAW))
    try:
        return _KIND.validate_python(member, strict=True)
    except ValidationError:
        # Firmware in C tends to send the end of its string along; "duress" must still be silent.
        bare = member.strip(_BLANK)
        if bare in AlarmReport.KINDS:
            return bare
        return _RAW + _shown(member or '""', longest=_MAX_KIND_CHARS - len(_RAW))


def _test(values: Sequence[object], note: Note) -> bool:
    wrong = [value for value in values if not isinstance(value, bool)]
    if wrong:
        note(f"test is neither true nor false but {_shown_json(wrong[0])}: the alarm counts as real")
    return bool(values) and all(value is True for value in values)


def _numbers(values: Mapping[str, Any], note: Note) -> dict[str, Any]:
    boot, seq = values.get("boot"), values.get("seq")
    if (boot is None) == (seq is None):
        return {"boot": boot, "seq": seq}
    there, missing = ("boot", "seq") if seq is None else ("seq", "boot")
    note(f"{there} is there without {missing}: neither counts")
    return {"boot": None, "seq": None}


def _adapters(model: type[BaseModel], names: Iterable[str]) -> dict[str, TypeAdapter[Any]]:
    hints = get_type_hints(model, include_extras=True)
    return {name: TypeAdapter(hints[name]) for name in names}


_ALARM_FIELDS = _adapters(AlarmReport, ("boot", "seq", "at", "battery_pct", "signal_dbm"))
_FIX_FIELDS = _adapters(Fix, Fix.model_fields)


def _fields(
    adapters: Mapping[str, TypeAdapter[Any]], values: Mapping[str, Any], note: Note, *, under: str = ""
) -> dict[str, Any]:
    """Return those of `values` that are valid by themselves. A null counts as absent."""
    kept = {}
    for name, adapter in adapters.items():
        value = values.get(name)
        if value is None:
            continue
        text = json.dumps(value)
        try:
            kept[name] = adapter.validate_json(text, strict=True)
        except ValidationError as exc:
            try:
                # Lax reading takes 88.0 and "88" for 88, but it also takes true for 1.
                kept[name] = adapter.validate_json(text, strict=isinstance(value, bool))
                note(f"{under}{name} was taken from {_shown(text)}, which is not how it should be written")
            except ValidationError:
                note(f"{under}{name} {_shown(text)} was set aside: {_faults(exc)}")
    return kept


def _fix(value: object, note: Note) -> Fix | None:
    """Return the position, without what is wrong beside it; None when the place itself is in doubt."""
    if value is None:
        return None
    if not isinstance(value, dict):
        note(f"fix {_shown_json(value)} was set aside: it is not an object")
        return None
    kept = _fields(_FIX_FIELDS, value, note, under="fix.")
    if "lat" not in kept or "lon" not in kept or ("datum" not in kept and value.get("datum") is not None):
        note("fix was set aside: it needs lat, lon and a known datum")  # a wrong datum is off by up to a kilometre
        return None
    if "source" not in kept and value.get("source") is not None:
        kept["source"] = "cell"  # the least that a position can claim
    return Fix(**kept)


_ENCODINGS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (b"{\x00", "utf-16-le"),
    (b"\x00{", "utf-16-be"),
)


def _members(payload: bytes) -> list[Member] | Unreadable:
    """Return the members of the JSON object in `payload`, every one of a repeated key.

    Objects that follow the first one, as when two messages were sent in one, add their members. Whatever else
    follows, such as the end of a longer message that the terminal's buffer held before, is left out.
    """
    if len(payload) > MAX_BYTES:
        return Unreadable(_too_long(payload))
    encoding = next((name for mark, name in _ENCODINGS if payload.startswith(mark)), "utf-8")
    text = _prune(payload.decode(encoding, errors="replace").strip(_BLANK))
    if not text:
        return Unreadable("the message is empty")

    closed: list[Member] = []

    def close(pairs: list[Member]) -> dict[str, object]:
        closed[:] = pairs  # the outermost object is the last to be closed
        return dict(pairs)

    decoder = json.JSONDecoder(object_pairs_hook=close, parse_int=_to_number, strict=False)
    members: list[Member] = []
    position = 0
    for _ in range(_MAX_OBJECTS):
        try:
            value, end = decoder.raw_decode(text, position)
        except json.JSONDecodeError as exc:
            if position == 0:
                return Unreadable(f"not JSON: {exc.msg} at character {exc.pos + 1}")
            break
        if not isinstance(value, dict):
            if position == 0:
                return Unreadable(f"not a JSON object but {_shown_json(value)}")
            break
        if position > 0:
            members.append(("test", False))  # of two messages in one, the second must not pass as a test with the first
        members += closed
        position = end
        while position < len(text) and text[position] in _BLANK:
            position += 1
    return members


# Possessive, and the closing quote may be missing: a hostile message must not make the search start over and over.
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


def _prune(text: str) -> str:
    """Replace what is nested too deeply for the parser by null: no field of ours is down there."""
    if text.count("[") + text.count("{") <= _MAX_DEPTH:
        return text
    kept: list[str] = []
    depth = start = 0
    for token in _TOKEN.finditer(text):
        match token[0]:
            case "[" | "{":
                depth += 1
                if depth == _MAX_DEPTH + 1:
                    kept += (text[start : token.start()], "null")
            case "]" | "}":
                if depth == _MAX_DEPTH + 1:
                    start = token.end()
                depth -= 1
    if depth <= _MAX_DEPTH:
        kept.append(text[start:])
    return "".join(kept)


def _to_number(digits: str) -> int | float:
    # Python refuses to read integers of more than 4,300 digits; no number of ours has more than ten.
    return int(digits) if len(digits) <= 20 else float(digits)


def _too_long(payload: bytes) -> str:
    return f"the message has {len(payload)} bytes, more than {MAX_BYTES}"


def _faults(exc: ValidationError) -> str:
    faults = exc.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(": ".join([*map(str, fault["loc"]), fault["msg"]]) for fault in faults[:3])


def _shown_json(value: object, *, longest: int = _MAX_SHOWN_CHARS) -> str:
    return _shown(json.dumps(value, ensure_ascii=False), longest=longest)


def _shown(text: str, *, longest: int = _MAX_SHOWN_CHARS) -> str:
    """Return at most `longest` characters of `text`; what cannot be printed is escaped."""
    shown = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text[: longest + 1]
    )
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"
