"""Types of the fields of a site file, and how what is wrong in it is said.

Every field's description says what a right value looks like: it is the hint beside each error about it.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from difflib import get_close_matches
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, available_timezones

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from gateway.domain.kinds import EMERGENCIES, RING, SERVICE, SUPERVISED, TECHNICAL
from schemas.units import PublicId

__all__ = [
    "KNOWN_KINDS",
    "KNOWN_ROLES",
    "LINE",
    "SMS_WORDS",
    "Finding",
    "Id",
    "Kind",
    "Line",
    "Name",
    "Part",
    "Password",
    "Path",
    "Phone",
    "Role",
    "Severity",
    "Text",
    "doubt",
    "full_date",
    "known_timezone",
    "known_words",
    "suggestion",
    "unknown_role",
    "web_address",
    "webhook_secret",
    "wrong",
]

KNOWN_ROLES = (
    "guardian",
    "relative",
    "hotline",
    "service_center",
    "community",
    "neighbourhood_committee",
    "district",
    "ambulance_120",
    "fire_119",
    "police_110",
    "neighbour",
    "care_station",
    "emergency_contact",
    "supplier",
)
"""Roles of Nanjing and Beijing (R1, R2). A site may have others: roles are data."""

KNOWN_KINDS = tuple(sorted(EMERGENCIES | {RING} | TECHNICAL | SERVICE | SUPERVISED))

_EARLIEST_BIRTH = date(1890, 1, 1)


def suggestion(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that `word` most likely wants to be, or None."""
    plain = {name.lower().replace("-", "_"): name for name in known}
    close = get_close_matches(word.lower().replace("-", "_"), plain, n=1, cutoff=0.7)
    return plain[close[0]] if close else None


def wrong(what: str) -> PydanticCustomError:
    """Return the error for a value that is wrong. The text holds no part of the value: it may be a secret."""
    return PydanticCustomError("site", "{what}", {"what": what})


def full_date(value: object) -> object:
    """Let nothing but a full date pass: pydantic alone would read 19410302 as seconds since 1970."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        try:
            day = date.fromisoformat(value)
        except ValueError:
            raise wrong("there is no such day") from None
        if day < _EARLIEST_BIRTH:
            raise wrong(f"lies before {_EARLIEST_BIRTH}")
        return day
    raise wrong("is not a date")


def known_timezone(value: str) -> str:
    """Let nothing but a known IANA name pass."""
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError):
        near = suggestion(value, available_timezones())
        raise wrong("is not a time zone" + (f"; did you mean {near}?" if near else "")) from None
    return value


def web_address(value: str) -> str:
    """Let nothing but an http or https address pass."""
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or re.search(r"[\s\x00-\x1f\x7f]", value):
        raise wrong("is not a web address")
    return value


def webhook_secret(value: str) -> str:
    """Let nothing but a secret of Standard Webhooks pass."""
    if not value.startswith("whsec_"):
        raise wrong("does not begin with whsec_")
    try:
        key = base64.b64decode(value.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        raise wrong("is not valid base64 behind whsec_") from None
    if not 24 <= len(key) <= 64:
        raise wrong(f"holds a key of {len(key)} bytes")
    return value


SMS_WORDS = ("number", "digits", "national", "text", "id", "timestamp", "timestamp_ms", "nonce", "signature")
"""What the body, the headers and the signature of an SMS provider may hold in braces."""


def known_words(value: str) -> str:
    """Let nothing but known words in braces pass; other braces, as those of JSON, are braces."""
    for word in re.findall(r"\{([a-z_]+)\}", value):
        if word not in SMS_WORDS:
            raise wrong(f"has {{{word}}}, which nothing is put in for: {', '.join(SMS_WORDS)}")
    if "{number}" not in value and "{digits}" not in value and "{national}" not in value:
        raise wrong("has no {number}, {digits} or {national}: nobody would get it")
    if "{text}" not in value:
        raise wrong("has no {text}: nothing would be said")
    return value


LINE = r"^[^\x00-\x1f\x7f]+$"
Id = Annotated[PublicId, Field(description="1 to 64 letters A-Z a-z, digits, - or _, for example wang-501")]
Role = Annotated[
    str,
    Field(pattern=r"^[a-z][a-z0-9_]{0,63}$", description="a word of small letters, digits and _, for example guardian"),
]
Kind = Annotated[str, Field(pattern=LINE, max_length=64, description='a kind of alarm such as sos, or "*" for all')]
Name = Annotated[str, Field(pattern=LINE, max_length=200, description="a name in one line")]
Line = Annotated[str, Field(pattern=LINE, max_length=200, description="a text in one line")]
Text = Annotated[str, Field(min_length=1, max_length=2000, description="a text")]
Phone = Annotated[
    str,
    Field(
        pattern=r"^(\+[1-9][0-9]{5,14}|[0-9]{3,12})$",
        description='digits in quotes: "+86…" with the country code, or a short number such as "120"',
    ),
]
Password = Annotated[
    str,
    Field(pattern=r"^[\x21-\x7e]+$", max_length=256, description="1 to 256 ASCII characters without spaces"),
]


class Part(BaseModel):
    """A part of the file: it refuses fields that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Show nothing but ids: a part that is printed or logged holds names, numbers and secrets (R22)."""
        return ((name, value) for name, value in super().__repr_args__() if name in ("site", "id", "kind"))


# What the shape alone cannot tell

Severity = Literal["error", "warning"]
Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong or doubtful at `path`, with what would be right. Holds no name, number or secret."""

    path: Path
    what: str
    hint: str
    severity: Severity = "error"


def doubt(path: Path, what: str, hint: str) -> Finding:
    """Return a warning."""
    return Finding(path, what, hint, "warning")


def unknown_role(path: Path, role: str) -> Finding:
    """Return the warning about a role that neither city has."""
    near = suggestion(role, KNOWN_ROLES)
    hint = f"did you mean {near}?" if near else "right if you made it up; known are " + ", ".join(KNOWN_ROLES)
    return doubt(path, f"role {role} is not one of the known ones", hint)
