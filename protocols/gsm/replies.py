"""What modems answer, read: registration, stores, calls, USSD and the like (3GPP TS 27.007, 27.005).

Every function takes lines as they come, with quotes or without, and returns None where nothing can be read.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from protocols.gsm import alphabet

__all__ = [
    "Call",
    "Registration",
    "StoredMessage",
    "Ussd",
    "caller",
    "calls",
    "centre",
    "choices",
    "clock",
    "fields",
    "number_of",
    "operator",
    "registration",
    "signal_dbm",
    "stored_at",
    "stored_messages",
    "stores",
    "ussd",
]

_HOME, _ROAMING = 1, 5
_REGISTERED = frozenset({_HOME, _ROAMING, 6, 7, 9, 10})
_RADIO = {
    0: "gsm",
    1: "gsm-compact",
    2: "umts",
    3: "edge",
    4: "hsdpa",
    5: "hsupa",
    6: "hspa",
    7: "lte",
    8: "ec-gsm-iot",
    9: "lte-nb",
    10: "lte",
    11: "5gnr",
    12: "5gnr",
    13: "lte-5gnr",
}


def fields(line: str) -> list[str]:
    """Return what stands behind the colon, split at commas outside of quotes, without the quotes.

    A quote that is not closed ends with its line.
    """
    _, _, rest = line.partition(":")
    found, text, quoted = [], "", False
    for char in rest:
        if char == '"':
            quoted = not quoted
        elif char == "," and not quoted:
            found.append(text.strip())
            text = ""
        else:
            text += char
    return [*found, text.strip()]


def number_of(text: str, base: int = 10) -> int | None:
    """Return the number in `text`, or None."""
    try:
        return int(text.strip(), base)
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class Registration:
    """Where a modem is registered. ``area`` and ``cell`` are 0 and ``radio`` is None where it does not say."""

    domain: str
    state: int
    area: int = 0
    cell: int = 0
    radio: str | None = None

    @property
    def registered(self) -> bool:
        """Can it send a message?"""
        return self.state in _REGISTERED

    @property
    def denied(self) -> bool:
        """Does the network not want it?"""
        return self.state == 3


def registration(line: str, *, answer: bool) -> Registration | None:
    """Read +CREG, +CGREG, +CEREG or +C5GREG. An `answer` has the mode in front; of notices only some have it."""
    head, colon, _ = line.partition(":")
    domain = head.strip().lstrip("+").upper()
    if not colon or domain not in ("CREG", "CGREG", "CEREG", "C5GREG"):
        return None
    parts = fields(line)
    if answer or (len(parts) >= 4 and parts[1].isdecimal() and len(parts[1]) <= 2):
        parts = parts[1:]
    state = number_of(parts[0]) if parts else None
    if state is None:
        return None
    area = number_of(parts[1], 16) if len(parts) > 1 else None
    rest = parts[2:]
    if domain in ("CGREG", "CEREG") and len(rest) >= 3 and len(rest[0].replace(" ", "")) <= 2:
        rest = rest[1:]  # a routing area in front of the cell
    cell = number_of(rest[0], 16) if rest else None
    radio = number_of(rest[1]) if len(rest) > 1 else None
    return Registration(domain, state, area or 0, cell or 0, None if radio is None else _RADIO.get(radio))


def signal_dbm(line: str) -> int | None:
    """Return the signal strength of +CSQ in dBm; None: not known."""
    rssi = number_of(fields(line)[0])
    return -113 + 2 * rssi if rssi is not None and 0 <= rssi <= 31 else None


def operator(line: str) -> str | None:
    """Return the operator of +COPS, its name or number."""
    parts = fields(line)
    return parts[2] or None if len(parts) > 2 else None


def centre(line: str) -> str | None:
    """Return the number of the service centre of +CSCA, whatever it is written in; None: there is none."""
    number = fields(line)[0]
    if len(number) >= 8 and number.startswith("00") and re.fullmatch(r"(?:[0-9A-Fa-f]{4})+", number):
        number = bytes.fromhex(number).decode("utf-16-be", errors="replace")
    return number or None


def stores(line: str) -> list[list[str]]:
    """Return which stores there are for each of the three purposes of +CPMS=?: reading, writing, receiving.

    Some leave brackets or quotes out.
    """
    _, _, rest = line.partition(":")
    groups, depth, text = [], 0, ""
    for char in rest:
        if char == "(":
            depth += 1
        elif char == ")":
            depth -= 1
        elif char == "," and depth <= 0:
            groups.append(text)
            text = ""
        else:
            text += char
    groups.append(text)
    return [re.findall(r"[A-Z]{2}(?:_P)?", group) for group in groups]


def fill(line: str, store: str) -> tuple[int, int] | None:
    """Return how many messages lie in a store, and how many have room, of what ``+CPMS?`` answers (27.005, 3.2.2)."""
    told = fields(line)
    for name, used, room in zip(told[::3], told[1::3], told[2::3], strict=False):
        if (
            name.strip('"') == store
            and (count := number_of(used)) is not None
            and (most := number_of(room)) is not None
        ):
            return count, most
    return None


def choices(line: str) -> list[set[int]]:
    """Return the numbers that may be chosen for each parameter of an answer such as +CNMI=?: ``(0-2),(0,1)``."""
    _, _, rest = line.partition(":")
    found = []
    for group in re.findall(r"\(([^()]*)\)", rest):
        numbers: set[int] = set()
        for part in group.split(","):
            low, dash, high = part.strip().partition("-")
            first, last = number_of(low), number_of(high) if dash else number_of(low)
            if first is not None and last is not None and 0 <= last - first <= 1000:
                numbers.update(range(first, last + 1))
        found.append(numbers)
    return found


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message in a store of a modem. ``state``: 0 unread, 1 read, 2 unsent, 3 sent; ``length``: of its TPDU."""

    index: int | None
    state: int | None
    length: int | None
    pdu: str

    @property
    def from_phone(self) -> bool:
        """Was it written here, to be sent?"""
        return self.state in (2, 3)


def stored_messages(lines: Sequence[str]) -> list[StoredMessage]:
    """Read the answer to +CMGL or +CMGR in PDU mode; heads without a message are left out."""
    found: list[StoredMessage] = []
    head: list[str] | None = None
    listed = False
    for line in lines:
        upper = line.upper()
        if upper.startswith(("+CMGL:", "+CMGR:")):
            head, listed = fields(line), upper.startswith("+CMGL:")
        elif head is not None:
            index = number_of(head[0]) if listed else None
            state = number_of(head[1 if listed else 0]) if len(head) > 1 else None
            found.append(StoredMessage(index, state, number_of(head[-1]), line.strip()))
            head = None
    return found


def stored_at(line: str) -> tuple[str, int] | None:
    """Return store and place that +CMTI or +CDSI tells of."""
    parts = fields(line)
    index = number_of(parts[1]) if len(parts) > 1 else None
    return None if index is None else (parts[0], index)


def caller(line: str) -> str | None:
    """Return who calls, by +CLIP; None: they do not say. An international number has a plus."""
    parts = fields(line)
    number = parts[0]
    if not number:
        return None
    international = len(parts) > 1 and parts[1] == "145" and not number.startswith("+")
    return f"+{number}" if international else number


_SPEECH = frozenset({0, 3, 4, 5})


@dataclass(frozen=True, slots=True)
class Call:
    """A call of +CLCC. ``state``: 0 active, 1 held, 2 dialling, 3 ringing there, 4 ringing here, 5 waiting, 6 ended."""

    index: int
    incoming: bool
    state: int
    mode: int
    number: str | None

    @property
    def voice(self) -> bool:
        """Is it one of speech, at least now and then?"""
        return self.mode in _SPEECH


def calls(lines: Iterable[str]) -> list[Call]:
    """Read the calls that there are."""
    found = []
    for line in lines:
        if not line.upper().startswith("+CLCC:"):
            continue
        parts = fields(line)
        numbers = [number_of(part) for part in parts[:4]]
        if len(numbers) < 4 or None in numbers:
            continue
        index, direction, state, mode = (number or 0 for number in numbers)
        number = parts[5] if len(parts) > 5 else ""
        found.append(Call(index, direction == 1, state, mode, number or None))
    return found


def clock(line: str) -> datetime | None:
    """Return the modem's time of +CCLK; one without a zone is in UTC."""
    match = re.search(r"(\d{2,4})/(\d{1,2})/(\d{1,2}),(\d{1,2}):(\d{2}):(\d{2})\s*([+-]\d{1,2})?", line)
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    zone = timezone(timedelta(minutes=15 * int(match[7] or 0)))
    try:
        return datetime(year if year > 99 else 2000 + year, month, day, hour, minute, second, tzinfo=zone)
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class Ussd:
    """What the network says to a code such as ``*100#``.

    ``state``: 0 that was all, 1 it waits for an answer, 2 ended, 3 somebody else's, 4 not supported, 5 no answer.
    """

    state: int
    text: str | None
    coding: int | None = None


_UCS2_CODING = 72
_PACKED_CODINGS = frozenset({0, 15})


def ussd(line: str) -> Ussd | None:
    """Read +CUSD. What a modem writes as hexadecimal is read; what it says of the coding is often not true."""
    _, _, rest = line.partition(":")
    match = re.match(
        r'\s*(\d)\s*(?:,\s*"(.*)"\s*(?:,\s*(\d+))?\s*|,\s*([^"].*?)\s*(?:,\s*(\d+))?\s*)?$', rest, re.DOTALL
    )
    if match is None:
        return None
    text = match[2] if match[2] is not None else match[4]
    coding = number_of(match[3] or match[5] or "")
    return Ussd(int(match[1]), None if text is None else _ussd_text(text, coding), coding)


def _ussd_text(text: str, coding: int | None) -> str:
    bare = text.strip()
    if len(bare) < 8 or len(bare) % 2 or re.fullmatch(r"[0-9A-Fa-f]+", bare) is None:
        return text
    octets = bytes.fromhex(bare)
    if len(octets) % 2 == 0 and _is_text(octets.decode("utf-16-be", errors="replace")):
        return octets.decode("utf-16-be")
    septets = alphabet.unpack(octets, len(octets) * 8 // 7)
    if len(septets) % 8 == 0 and septets.endswith(b"\r"):
        septets = septets[:-1]
    packed = alphabet.text_of(septets)
    return packed if coding is None or coding in _PACKED_CODINGS or _is_text(packed) else text


def _is_text(text: str) -> bool:
    """Could people have written this? Letters, digits and CJK, hardly anything else."""
    if "\ufffd" in text or not text:
        return False
    known = sum(
        char.isspace() or 0x20 <= ord(char) < 0x250 or 0x370 <= ord(char) < 0x600 or _is_cjk(char) for char in text
    )
    return known >= 0.9 * len(text)


def _is_cjk(char: str) -> bool:
    return 0x3000 <= ord(char) < 0xA000 or 0xFF00 <= ord(char) < 0xFFF0
