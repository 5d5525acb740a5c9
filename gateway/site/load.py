"""From the bytes of a site file to a checked `Site`, and from every mistake to its line and column.

YAML 1.2: ``yes`` is a text and 010 is ten. Anchors, aliases and merge keys work; tags do not. No message holds
a value of the file except ids, roles, kinds and names of fields: problems are printed, logged and pasted into
tickets, and the values are names, phone numbers, health records and secrets (R22).
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from gateway.site.model import KNOWN_ROLES, Finding, Severity, Site, findings, suggestion

__all__ = ["LARGEST_FILE_BYTES", "LoadedSite", "Problem", "SiteFileError", "load"]

LARGEST_FILE_BYTES = 64 * 1024 * 1024

_DEEPEST = 50
_Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong, or doubtful, in a site file. Lines and columns count from 1."""

    file: str
    line: int
    column: int
    where: str
    what: str
    hint: str
    severity: Severity

    def __str__(self) -> str:
        """Return the problem in one line, in the form that editors and terminals can jump to."""
        where = f"{self.where}: " if self.where else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{self.file}:{self.line}:{self.column}: {self.severity}: {where}{self.what}{hint}"


class SiteFileError(Exception):
    """A site file that must not be applied. ``problems`` has its warnings too."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class LoadedSite:
    """A site file without errors, and the warnings about it."""

    site: Site
    problems: list[Problem]


def load(path: Path, *, today: date | None = None) -> LoadedSite:
    """Read and check a site file. A site of 2,000 households takes about ten seconds.

    `today` is the last day on which a person can be born; by default it is today in the time zone of the site.

    Raises:
        SiteFileError: At least one problem is an error. A file that cannot be read is one.
    """
    file = str(path)
    try:
        text = _decode(_read(path))
        document = _compose(text)
        plain = _Plain(document, limit=1_000_000 + len(text))
    except _UnreadableError as exc:
        problem = Problem(
            file=file, line=exc.line, column=exc.column, where="", what=exc.what, hint=exc.hint, severity="error"
        )
        raise SiteFileError([problem]) from exc
    placed = list(plain.findings)
    site: Site | None = None
    try:
        site = Site.model_validate(plain.value)
    except ValidationError as exc:
        errors = exc.errors(include_url=False, include_input=False)
        found = [finding for error in errors if (finding := _explained(error, plain.value))]
    else:
        found = list(findings(site, today=today or datetime.now(ZoneInfo(site.timezone)).date()))
    placed += [(finding, *_position(document, finding.path)) for finding in found]
    problems = [
        Problem(
            file=file,
            line=line,
            column=column,
            where=_dotted(finding.path),
            what=finding.what,
            hint=finding.hint,
            severity=finding.severity,
        )
        for finding, line, column in sorted(placed, key=lambda one: one[1:])
    ]
    if site is None or any(problem.severity == "error" for problem in problems):
        raise SiteFileError(problems)
    return LoadedSite(site, problems)


# Bytes to nodes


class _UnreadableError(Exception):
    def __init__(self, what: str, hint: str, *, line: int = 1, column: int = 1) -> None:
        super().__init__(what)
        self.what, self.hint, self.line, self.column = what, hint, line, column


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST_FILE_BYTES + 1)
    except OSError as exc:
        raise _UnreadableError(
            f"the file cannot be read: {exc.strerror}", "check the path and who may read it"
        ) from exc
    if len(raw) > LARGEST_FILE_BYTES:
        mebibytes = LARGEST_FILE_BYTES // (1024 * 1024)
        raise _UnreadableError(f"the file is larger than {mebibytes} MiB", "split it into one file per site")
    return raw


# What YAML 1.2 allows (clause 5.1), except the byte order mark in the middle.
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")


def _decode(raw: bytes) -> str:
    utf8 = "save the file as UTF-8"
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _UnreadableError("the file is UTF-16, not UTF-8", utf8)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line, column = _line_and_column(exc.object[: exc.start].decode())
        what = "the file is not UTF-8, perhaps GBK or GB 18030"
        raise _UnreadableError(what, utf8, line=line, column=column) from exc
    if bad := _UNPRINTABLE.search(text):
        line, column = _line_and_column(text[: bad.start()])
        what = f"the character U+{ord(bad[0]):04X} must not stand in a file"
        raise _UnreadableError(what, "delete it; it may be invisible", line=line, column=column)
    return text


def _line_and_column(before: str) -> tuple[int, int]:
    return before.count("\n") + 1, len(before) - before.rfind("\n")


def _compose(text: str) -> Node:
    yaml = YAML(typ="rt")
    yaml.composer.warn_double_anchors = False
    try:
        document = yaml.compose(text)
    except MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        what = exc.problem or exc.context or "cannot be understood"
        what = f"{exc.context}, {what}" if what.startswith("but ") else what
        hint = _syntax_hint(text, mark.line)
        # Not chained: the original quotes the line, which may hold a secret.
        raise _UnreadableError(f"not valid YAML: {what}", hint, line=mark.line + 1, column=mark.column + 1) from None
    except RecursionError as exc:
        raise _UnreadableError("the file is nested too deeply", "close the brackets of the line before") from exc
    if document is None:
        raise _UnreadableError("the file is empty", "begin with site: and the name of the site")
    assert isinstance(document, Node)
    return document


def _syntax_hint(text: str, line: int) -> str:
    nearby = text.splitlines()[max(line - 1, 0) : line + 1]
    if any(re.match(r"[ ]*\t", one) for one in nearby):
        return "indent with spaces, not with tabs"
    if any(re.match(r"[^:#'\"]*：", one) for one in nearby):
        return "write the colon as : with a space behind it, not as the Chinese ："
    return "check indentation, colons and quotes of this line and the one before"


# Nodes to plain values

_MERGE = "tag:yaml.org,2002:merge"
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_SIMPLE = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")


class _Plain:
    """The document as dicts, lists and scalars, and what YAML could say but a site file must not.

    ``findings`` come with line and column, since two equal keys share a path. Dates stay texts: only the field
    knows whether it wants one. A number too odd for Python stays a text too, and fails where a number is wanted.
    """

    def __init__(self, document: Node, *, limit: int) -> None:
        """Raise `_UnreadableError` if aliases blow the document up to more than `limit` values."""
        self.findings: list[tuple[Finding, int, int]] = []
        self._limit = limit
        self._count = 0
        self.value = self._plain(document, ())

    def _plain(self, node: Node, path: _Path) -> Any:
        self._count += 1
        if self._count > self._limit or len(path) > _DEEPEST:
            what = "an alias contains itself, or the file is nested too deeply"
            line, column = _mark(node)
            raise _UnreadableError(what, "write out what the alias stands for", line=line, column=column)
        tag = str(node.tag)
        if not tag.startswith("tag:yaml.org,2002:") or tag.endswith((":binary", ":set", ":omap", ":pairs")):
            self._find(node, path, "has a tag, which means nothing here", "remove the word that begins with !")
        if isinstance(node, MappingNode):
            return {key: self._plain(value, (*path, key)) for key, _, value in self._entries(node, path)}
        if isinstance(node, SequenceNode):
            return [self._plain(item, (*path, place)) for place, item in enumerate(node.value)]
        value = _scalar(node)
        if isinstance(value, str) and _UNSTORABLE.search(value):
            self._find(node, path, "has a character that cannot be stored", "remove the escape that begins with \\")
            value = _UNSTORABLE.sub("", value)
        return value

    def _entries(self, node: MappingNode, path: _Path) -> Iterator[tuple[str, Node, Node]]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, ScalarNode):
                self._find(key, path, "has a key that is a list or a mapping", "write a word, a colon and the value")
            elif key.value in seen:
                again = (*path, key.value)
                self._find(key, again, "stands here twice", "only one can count: remove the other")
            elif _UNSTORABLE.search(key.value):
                self._find(key, path, "has a key that cannot be stored", "remove the escape that begins with \\")
            else:
                seen.add(key.value)
            if _is_merge(key) and any(not isinstance(source, MappingNode) for source in _merged(node)):
                self._find(key, path, "<< names something that is no mapping", "name an anchor such as *other")
        yield from _entries(node)

    def _find(self, node: Node, path: _Path, what: str, hint: str) -> None:
        self.findings.append((Finding(path, what, hint), *_mark(node)))


def _is_merge(key: Node) -> bool:
    return str(key.tag) == _MERGE


def _merged(node: MappingNode) -> list[Node]:
    """Return what the merge keys of `node` name, the strongest first."""
    sources: list[Node] = []
    for key, value in node.value:
        if _is_merge(key):
            sources += value.value if isinstance(value, SequenceNode) else [value]
    return sources


def _entries(node: MappingNode, *, visited: set[int] | None = None) -> Iterator[tuple[str, Node, Node]]:
    """Yield key, node of the key and node of the value. Of two equal keys the earlier one and the own one win.

    ``visited`` holds the mappings whose keys are out already: a mapping merged twice, or into itself, adds nothing.
    """
    visited = {id(node)} if visited is None else visited
    seen: set[str] = set()
    for key, value in node.value:
        if isinstance(key, ScalarNode) and not _is_merge(key) and key.value not in seen:
            seen.add(key.value)
            yield key.value, key, value
    for source in _merged(node):
        if isinstance(source, MappingNode) and id(source) not in visited:
            visited.add(id(source))
            for name, key, value in _entries(source, visited=visited):
                if name not in seen:
                    seen.add(name)
                    yield name, key, value


def _scalar(node: Node) -> str | int | float | bool | None:
    text: str = node.value
    try:
        match str(node.tag).removeprefix("tag:yaml.org,2002:"):
            case "null":
                return None
            case "bool":
                return text.lower() == "true"
            case "int":
                digits = text.replace("_", "").lower()
                return int(digits, 0 if re.match(r"[-+]?0[box]", digits) else 10)
            case "float" if math.isfinite(number := float(text.replace("_", ""))):
                return number
    except ValueError:
        pass
    return text


# Positions


def _mark(node: Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _position(document: Node, path: _Path) -> tuple[int, int]:
    """Return line and column of the key or item at `path`, or of what should have contained it."""
    node, place = document, _mark(document)
    for part in path:
        if isinstance(part, int) and isinstance(node, SequenceNode) and part < len(node.value):
            node = node.value[part]
            place = _mark(node)
        elif isinstance(part, str) and isinstance(node, MappingNode):
            entry = next((entry for entry in _entries(node) if entry[0] == part), None)
            if entry is None:
                break
            place, node = _mark(entry[1]), entry[2]
        else:
            break
    return place


def _dotted(path: _Path) -> str:
    """Return the path as a text. A key that does not look like one is a value in the wrong place: it stays hidden."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" if _SIMPLE.fullmatch(part) else ".?" for part in path)
    return "".join(parts).removeprefix(".")


# What pydantic found

_Schema = Mapping[str, Any]


@cache
def _schema() -> _Schema:
    return Site.model_json_schema()


def _resolved(schema: _Schema, value: object) -> _Schema:
    """Return the schema that applies to `value` behind references, unions and None."""
    while True:
        if "discriminator" in schema:
            kind = value.get("kind") if isinstance(value, dict) else None
            schema = {"$ref": schema["discriminator"]["mapping"].get(kind)} if isinstance(kind, str) else {}
        if "anyOf" in schema:
            schema = next(option for option in schema["anyOf"] if option.get("type") != "null")
        elif isinstance(schema.get("$ref"), str):
            schema = _schema()["$defs"][schema["$ref"].removeprefix("#/$defs/")]
        else:
            return schema


def _at(path: _Path, data: object) -> tuple[_Schema, object]:
    """Return the schema of `path`, unresolved, and the value that stands there."""
    schema = _schema()
    for part in path:
        schema = _resolved(schema, data)
        if isinstance(part, int):
            schema = schema.get("items") or {}
            data = data[part] if isinstance(data, list) and part < len(data) else None
        else:
            any_name: _Schema = next(iter(schema.get("patternProperties", {}).values()), {})
            schema = schema.get("properties", {}).get(part) or any_name
            data = data.get(part) if isinstance(data, dict) else None
    return schema, data


def _path(error: ErrorDetails) -> _Path:
    """Return where the error is, without the tag of a union and the mark of a key, which pydantic puts in."""
    loc = error["loc"]
    return tuple(
        part
        for place, part in enumerate(loc)
        if part != "[key]" and not (place > 1 and loc[place - 2] == "channels" and isinstance(part, str))
    )


def _explained(error: ErrorDetails, data: object) -> Finding | None:
    """Say what is wrong and what would be right, or None where the error only follows from another."""
    path = _path(error)
    if error["type"] == "extra_forbidden":
        schema, value = _at(path[:-1], data)
        fields = _resolved(schema, value).get("properties", {})
        near = suggestion(str(path[-1]), fields)
        return Finding(path, "unknown field", f"did you mean {near}?" if near else "fields are " + ", ".join(fields))
    if error["loc"][-1:] == ("[key]",):
        near = suggestion(str(path[-1]), KNOWN_ROLES)
        return Finding(path, "is not a role", f"did you mean {near}?" if near else "such as guardian: family")
    if error["type"] in ("union_tag_invalid", "union_tag_not_found"):
        kinds = ("webhook", "mqtt", "stream")
        _, value = _at((*path, "kind"), data)
        near = suggestion(value, kinds) if isinstance(value, str) else None
        what = "is not a kind of channel" if isinstance(value, str) else "is missing"
        return Finding((*path, "kind"), what, f"did you mean {near}?" if near else "webhook, mqtt or stream")
    schema, value = _at(path, data)
    if error["type"] == "too_short" and value:
        return None
    what = _what(error, value)
    return Finding(path, what, _hint(error, schema, value, path))


def _what(error: ErrorDetails, value: object) -> str:
    context = error.get("ctx", {})
    kind = error["type"]
    if kind == "missing":
        return "is missing"
    if value is None or value == "" or kind == "string_too_short":
        return "is empty"
    match kind:
        case "site":
            return error["msg"]
        case "string_type" if isinstance(value, bool):
            return "is read as true or false, not as a text"
        case "string_type" if isinstance(value, int | float):
            return "is read as a number, not as a text"
        case "string_type":
            return "must be a text"
        case "tuple_type" | "list_type":
            return "must be a list"
        case "dict_type" | "model_type" | "model_attributes_type":
            return "must be a mapping"
        case "int_type" | "float_type" | "finite_number":
            return "must be a number"
        case "too_short":
            return "is an empty list"
        case "string_too_long":
            return f"is longer than {context['max_length']} characters"
        case "string_pattern_mismatch":
            return "does not have the right form"
        case "greater_than_equal":
            return f"must not be less than {context['ge']:g}"
        case "less_than_equal":
            return f"must not be more than {context['le']:g}"
        case "literal_error" | "enum":
            return f"must be {context['expected']}"
        case _:
            return "is not valid"


def _hint(error: ErrorDetails, schema: _Schema, value: object, path: _Path) -> str:
    inner = _resolved(schema, value)
    right = str(schema.get("description") or inner.get("description") or "")
    allowed = inner.get("enum")
    if allowed and isinstance(value, str) and (near := suggestion(value, allowed)):
        return f"did you mean {near}?"
    if "role" in path or "roles" in path:
        near = suggestion(value, KNOWN_ROLES) if isinstance(value, str) else None
        return f"did you mean {near}?" if near else right
    if "discriminator" in schema:
        return "begin with kind: webhook, mqtt or stream"
    if error["type"] == "string_type" and isinstance(value, bool | int | float):
        return 'put it in quotes: "…"'
    if error["type"] in ("int_type", "float_type") and isinstance(value, str):
        return f"write it without quotes: {right}"
    if error["type"] == "tuple_type" and isinstance(value, str):
        return "put it in brackets: […]"
    if path[-1:] == ("lat",) and isinstance(value, int | float) and 90 < abs(value) <= 180:
        return f"lat and lon are perhaps swapped: {right}"
    if "properties" in inner:
        return "fields are " + ", ".join(inner["properties"])
    return right
