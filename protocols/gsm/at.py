"""The dialogue with a modem: commands, answers, and what it says of itself in between (3GPP TS 27.007, 27.005).

One command is under way at a time. Bytes may come in any pieces, echoed or not, in words or as numbers, with notices in
the middle of an answer and noise anywhere. Nothing that a modem sends raises.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from protocols.errors import LocalProtocolError

__all__ = ["Answer", "AtEvent", "Dialogue", "Final", "Notice", "Outcome", "Prompt"]

_CR, _LF = 0x0D, 0x0A
_ESCAPE, _END = b"\x1b", b"\x1a"
_LONGEST_LINE = 8192
_HEX = frozenset("0123456789ABCDEFabcdef")


class Outcome(Enum):
    """How a command ended."""

    OK = auto()
    ERROR = auto()
    CONNECTED = auto()
    NO_CARRIER = auto()
    BUSY = auto()
    NO_ANSWER = auto()
    NO_DIALTONE = auto()


@dataclass(frozen=True, slots=True)
class Final:
    """The last line of an answer. ``area`` is CME or CMS with a ``code``, or with ``text`` if the modem has words."""

    outcome: Outcome
    area: str | None = None
    code: int | None = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command came to. ``lines`` hold no echo, no notices and no final line; messages follow their head."""

    command: str
    lines: tuple[str, ...]
    final: Final

    @property
    def ok(self) -> bool:
        """Was it done?"""
        return self.final.outcome is Outcome.OK


@dataclass(frozen=True, slots=True)
class Prompt:
    """The modem waits for the text of a message: ``body`` is to be written now."""

    body: bytes


@dataclass(frozen=True, slots=True)
class Notice:
    """What the modem says unasked. ``pdu`` is the message that comes with some of them."""

    line: str
    pdu: str | None = None


AtEvent = Answer | Prompt | Notice

_WORDS = {
    "OK": Outcome.OK,
    "ERROR": Outcome.ERROR,
    "COMMAND NOT SUPPORT": Outcome.ERROR,
    "COMMAND NOT SUPPORTED": Outcome.ERROR,
    "TOO MANY PARAMETERS": Outcome.ERROR,
    "NO CARRIER": Outcome.NO_CARRIER,
    "BUSY": Outcome.BUSY,
    "NO ANSWER": Outcome.NO_ANSWER,
    "NO DIALTONE": Outcome.NO_DIALTONE,
    "NO DIAL TONE": Outcome.NO_DIALTONE,
}
_NUMBERS = {
    "0": Outcome.OK,
    "3": Outcome.NO_CARRIER,
    "4": Outcome.ERROR,
    "6": Outcome.NO_DIALTONE,
    "7": Outcome.BUSY,
    "8": Outcome.NO_ANSWER,
}
_OF_CALLS = {Outcome.NO_CARRIER, Outcome.BUSY, Outcome.NO_ANSWER, Outcome.NO_DIALTONE}

_WITH_PDU = ("+CMT:", "+CDS:", "+CBM:")
_NOTICES = (
    *_WITH_PDU,
    *("+CMTI:", "+CDSI:", "+CBMI:", "+CRING:", "+CLIP:", "+CCWA:", "+CSSI:", "+CSSU:", "+CIEV:", "+CGEV:"),
    *("+CTZV:", "+CTZE:", "*PSUTTZ", "+QIND:", "+QUSIM:", "^DSCI:", "^ORIG:", "^CONF:", "^CONN:", "^CEND:", "^RSSI:"),
    *("^HCSQ:", "^BOOT:", "^MODE:", "^DSFLOWRPT:", "^CSNR:", "^SRVST:", "^SIMST:", "^NWTIME:", "^STIN:", "^SMMEMFULL"),
    *("+ZEND", "*ATREADY:", "VOICE CALL:", "MISSED_CALL:", "+DTMF:", "+RXDTMF:", "+QTONEDET:", "+COLP:", "+CUSD:"),
    *("MO RING", "MO CONNECTED", "+SIM READY", "+PACSP", "+E_UTRAN SERVICE", "+SMS FULL"),
)
_NOTICE_WORDS = frozenset(
    (
        *("RING", "RDY", "CALL READY", "SMS READY", "SMS DONE", "PB DONE", "NORMAL POWER DOWN", "POWERED DOWN"),
        *("UNDER-VOLTAGE WARNNING", "UNDER-VOLTAGE POWER DOWN", "OVER-VOLTAGE WARNNING", "NITZ", "+CFUN: 1", "START"),
    )
)
_ALSO_NOTICES = ("+CREG:", "+CGREG:", "+CEREG:", "+C5GREG:", "+CPIN:", "+CLCC:", "+CSQ:", "+COPS:", "+CFUN:")
"""Answers to a question while that is under way, and notices at any other time."""


@dataclass(slots=True)
class _Running:
    """The command under way."""

    text: str
    prefixes: tuple[str, ...]
    free: bool
    calls: bool
    numeric: bool
    body: bytes | None
    lines: list[str] = field(default_factory=list)
    echoed: bool = False
    prompted: bool = False


class Dialogue:
    """Our side of the dialogue."""

    def __init__(self) -> None:
        """Begin with no command under way."""
        self._line = bytearray()
        self._running: _Running | None = None
        self._notice: str | None = None
        self._head = False

    @property
    def busy(self) -> bool:
        """Is a command under way?"""
        return self._running is not None

    def send(
        self,
        command: str,
        *,
        prefix: str | Sequence[str] = (),
        free: bool = False,
        calls: bool = False,
        numeric: bool = False,
        body: str | None = None,
    ) -> bytes:
        """Begin a command, and return the bytes that say it.

        `prefix` is how lines of its answer begin; with `free` they may be any. `calls`: a call may end it with NO
        CARRIER, BUSY and the like. `numeric`: the modem may still answer in numbers. `body` is written behind a prompt.

        Raises:
            LocalProtocolError: Another one is under way.
        """
        if self._running is not None:
            raise LocalProtocolError(f"{self._running.text} is not answered yet")
        prefixes = (prefix,) if isinstance(prefix, str) else tuple(prefix)
        written = None if body is None else body.encode("ascii") + _END
        self._running = _Running(command, prefixes, free, calls, numeric, written)
        self._head = False
        return command.encode("ascii") + b"\r"

    def abandon(self) -> bytes:
        """Give the command under way up, and return the bytes that bring a modem out of whatever it waits for.

        What it still has to say of it counts as a notice; ask ``AT`` until it answers before anything else is sent.
        """
        self._running = None
        self._head = False
        self._line.clear()
        return _ESCAPE + b"\r"

    def feed(self, data: bytes) -> list[AtEvent]:
        """Take what the modem has sent, and return what it says."""
        events: list[AtEvent] = []
        for byte in data:
            if byte in (_CR, _LF):
                if self._line:
                    line = self._line.decode("ascii", errors="replace").strip()
                    self._line.clear()
                    if line:
                        self._take(line, events)
                continue
            if byte >= 0x20 and len(self._line) < _LONGEST_LINE:
                self._line.append(byte)
            if byte in (0x20, 0x3E):
                self._look_for_prompt(events)
        return events

    def _look_for_prompt(self, events: list[AtEvent]) -> None:
        running = self._running
        if running is None or running.body is None or running.prompted:
            return
        if self._line.strip() == b">":
            self._line.clear()
            running.prompted = True
            events.append(Prompt(running.body))

    def _take(self, line: str, events: list[AtEvent]) -> None:
        if self._notice is not None:
            head, self._notice = self._notice, None
            if _is_hex(line):
                events.append(Notice(head, line))
                return
            events.append(Notice(head))  # its message got lost; what is stored will be found again
        running = self._running
        if running is None:
            self._tell(line, events)
        elif self._is_echo(running, line):
            running.echoed = True
        elif self._head and _is_hex(line):
            running.lines.append(line)
            self._head = False
        elif (final := _final(line, running)) is not None and not _too_early(final, running):
            self._running = None
            self._head = False
            events.append(Answer(running.text, tuple(running.lines), final))
        elif _belongs(line, running):
            running.lines.append(line)
            self._head = line.upper().startswith(("+CMGL:", "+CMGR:"))
        elif _is_notice(line) or not running.free:
            self._tell(line, events)
        else:
            running.lines.append(line)

    def _is_echo(self, running: _Running, line: str) -> bool:
        bare = line.removeprefix("> ")
        if running.body is not None and bare.encode() == running.body.removesuffix(_END):
            return True
        return not running.echoed and line == running.text

    def _tell(self, line: str, events: list[AtEvent]) -> None:
        if line.upper().startswith(_WITH_PDU):
            self._notice = line
        else:
            events.append(Notice(line))


def _too_early(final: Final, running: _Running) -> bool:
    """Is it done before it asked for its text? Then this is the late answer to another command."""
    return final.outcome is Outcome.OK and running.body is not None and not running.prompted


def _is_hex(line: str) -> bool:
    return len(line) >= 4 and _HEX.issuperset(line)


def _belongs(line: str, running: _Running) -> bool:
    """Is a line part of the answer, by how it begins?"""
    upper = line.upper()
    prefix = next((one for one in running.prefixes if upper.startswith(one.upper())), None)
    if prefix is None:
        return False
    if prefix.upper() in ("+CREG:", "+CGREG:", "+CEREG:", "+C5GREG:"):
        return _answers_registration(line[len(prefix) :])
    return True


def _answers_registration(rest: str) -> bool:
    """Does it begin with mode and state? A notice has the state alone, or a place behind it, which is hexadecimal."""
    fields = [part.strip() for part in rest.split(",")]
    return len(fields) >= 2 and fields[1].isdigit() and len(fields[1]) <= 2


def _is_notice(line: str) -> bool:
    upper = line.upper()
    return upper in _NOTICE_WORDS or upper.startswith((*_NOTICES, *_ALSO_NOTICES))


def _final(line: str, running: _Running) -> Final | None:
    upper = line.upper()
    outcome = _WORDS.get(upper)
    if outcome is None and running.numeric:
        outcome = _NUMBERS.get(upper)
    if outcome is not None:
        # The end of a call that somebody else made is no answer to a question about something else.
        return None if outcome in _OF_CALLS and not running.calls else Final(outcome)
    if upper.startswith("CONNECT"):
        return Final(Outcome.CONNECTED, text=line) if running.calls else None
    for area in ("CME", "CMS"):
        if upper.startswith(f"+{area} ERROR"):
            rest = line[len(area) + 7 :].lstrip(": ").strip()
            code = int(rest) if rest.isdecimal() and len(rest) <= 5 else None
            return Final(Outcome.ERROR, area, code, "" if code is not None else rest)
    if upper.startswith("MODEM ERROR"):
        return Final(Outcome.ERROR, text=line)
    return None
