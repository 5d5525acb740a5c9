"""Messages as they travel between a phone and the network (3GPP TS 23.040, 9.2.2), and as modems write them.

The same two bits mean another kind of message in each direction, so a reader has to know who sent it. Broken user data
is read as far as it goes: a text that was cut short is worth more than none. Everything else that is too short, or
cannot be, is a `FrameError`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from construct import (
    BitsInteger,
    BitStruct,
    Bytes,
    ConstructError,
    Flag,
    GreedyBytes,
    If,
    Int8ub,
    Prefixed,
    Struct,
    Switch,
    this,
)

from protocols.errors import FrameError, LocalProtocolError
from protocols.gsm import address
from protocols.gsm.address import Address
from protocols.gsm.coding import PLAIN, DataCoding
from protocols.gsm.times import EnhancedValidity, Validity, relative, relative_octet, stamp, stamp_octets
from protocols.gsm.userdata import UserData

__all__ = [
    "Command",
    "Deliver",
    "DeliverReport",
    "Message",
    "StatusReport",
    "Submit",
    "SubmitReport",
    "build",
    "decode",
    "read_pdu",
    "write_pdu",
]

_FIRST = BitStruct(
    "reply_path" / Flag,
    "header" / Flag,
    "report" / Flag,
    "validity" / BitsInteger(2),
    "bit2" / Flag,
    "kind" / BitsInteger(2),
)
_NO_VALIDITY, _ENHANCED, _RELATIVE, _ABSOLUTE = range(4)

_DELIVER = Struct(
    "first" / _FIRST,
    "address" / address.ADDRESS,
    "pid" / Int8ub,
    "dcs" / Int8ub,
    "stamp" / Bytes(7),
    "length" / Int8ub,
    "user" / GreedyBytes,
)
_SUBMIT = Struct(
    "first" / _FIRST,
    "reference" / Int8ub,
    "address" / address.ADDRESS,
    "pid" / Int8ub,
    "dcs" / Int8ub,
    "validity" / Switch(this.first.validity, {_RELATIVE: Bytes(1), _ENHANCED: Bytes(7), _ABSOLUTE: Bytes(7)}),
    "length" / Int8ub,
    "user" / GreedyBytes,
)
_STATUS = Struct(
    "first" / _FIRST,
    "reference" / Int8ub,
    "address" / address.ADDRESS,
    "stamp" / Bytes(7),
    "ended" / Bytes(7),
    "status" / Int8ub,
    "rest" / GreedyBytes,
)
_COMMAND = Struct(
    "first" / _FIRST,
    "reference" / Int8ub,
    "pid" / Int8ub,
    "command" / Int8ub,
    "number" / Int8ub,
    "address" / address.ADDRESS,
    "data" / Prefixed(Int8ub, GreedyBytes),
)
_CAUSE_FROM = 0x80
_WANTED = BitStruct("extended" / Flag, "reserved" / BitsInteger(4), "user" / Flag, "dcs" / Flag, "pid" / Flag)


def _report(*, stamped: bool) -> Struct:
    return Struct(
        "first" / _FIRST,
        # A failure has a cause, and causes begin at 0x80; what stands here without one says which parts follow.
        "ahead" / Int8ub,
        "cause" / If(this.ahead >= _CAUSE_FROM, Int8ub),
        "stamp" / (Bytes(7) if stamped else Bytes(0)),
        "rest" / GreedyBytes,
    )


_DELIVER_REPORT = _report(stamped=False)
_SUBMIT_REPORT = _report(stamped=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deliver:
    """A message for a phone. ``sent_at`` is the service centre's time, None where it names none.

    ``more``: others wait. ``report_follows``: the sender will hear of its delivery.
    """

    sender: Address
    user: UserData
    sent_at: datetime | None
    pid: int = 0
    coding: DataCoding = PLAIN
    more: bool = False
    report_follows: bool = False
    reply_path: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Submit:
    """A message from a phone. ``validity`` is for how long, or until when, it is worth delivering.

    ``reference`` 0 lets the modem choose one; ``report`` asks for a `StatusReport`.
    """

    recipient: Address
    user: UserData
    reference: int = 0
    pid: int = 0
    coding: DataCoding = PLAIN
    validity: Validity | None = None
    report: bool = False
    reject_duplicates: bool = False
    reply_path: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusReport:
    """What became of a message that was sent. ``status`` as in 9.2.3.15, see `protocols.gsm.causes`.

    ``accepted_at`` is when the service centre took it, ``ended_at`` when this was known, None where it names no time.
    """

    reference: int
    recipient: Address
    accepted_at: datetime | None
    ended_at: datetime | None
    status: int
    more: bool = False
    of_command: bool = False
    pid: int | None = None
    coding: DataCoding | None = None
    user: UserData | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What a phone asks a service centre about a message that it sent."""

    reference: int
    pid: int
    command: int
    number: int
    recipient: Address
    data: bytes = b""
    report: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliverReport:
    """A phone's answer to a message. ``cause`` is why it was not taken, None: it was."""

    cause: int | None = None
    pid: int | None = None
    coding: DataCoding | None = None
    user: UserData | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitReport:
    """The network's answer to a message. ``cause`` is why it was not taken, None: it was."""

    sent_at: datetime | None
    cause: int | None = None
    pid: int | None = None
    coding: DataCoding | None = None
    user: UserData | None = None


Message = Deliver | Submit | StatusReport | Command | DeliverReport | SubmitReport


def decode(octets: bytes, *, from_phone: bool) -> Message:
    """Read a TPDU.

    Raises:
        FrameError: It is cut short before its user data, or is no message of that direction.
    """
    if not octets:
        raise FrameError("an empty message")
    # The reserved fourth kind is read as a message for a phone, as phones do.
    reader = (_FROM_PHONE if from_phone else _FOR_PHONE).get(octets[0] & 3)
    if reader is None:
        raise FrameError(f"no message of a phone begins with {octets[0]:#04x}")
    try:
        return reader(octets)
    except ConstructError as exc:
        raise FrameError(f"the message is cut short or broken: {type(exc).__name__}") from None


def _deliver(octets: bytes) -> Deliver:
    found: Any = _DELIVER.parse(octets)
    coding = DataCoding(found.dcs)
    return Deliver(
        sender=address.of(found.address),
        user=UserData.parse(found.user, found.length, coding=coding, has_header=found.first.header),
        sent_at=stamp(found.stamp),
        pid=found.pid,
        coding=coding,
        more=not found.first.bit2,
        report_follows=found.first.report,
        reply_path=found.first.reply_path,
    )


def _submit(octets: bytes) -> Submit:
    found: Any = _SUBMIT.parse(octets)
    coding = DataCoding(found.dcs)
    return Submit(
        recipient=address.of(found.address),
        user=UserData.parse(found.user, found.length, coding=coding, has_header=found.first.header),
        reference=found.reference,
        pid=found.pid,
        coding=coding,
        validity=_validity(found.first.validity, found.validity),
        report=found.first.report,
        reject_duplicates=found.first.bit2,
        reply_path=found.first.reply_path,
    )


def _validity(form: int, octets: bytes | None) -> Validity | None:
    if octets is None:
        return None
    if form == _RELATIVE:
        return relative(octets[0])
    return stamp(octets) if form == _ABSOLUTE else EnhancedValidity(octets)


def _status_report(octets: bytes) -> StatusReport:
    found: Any = _STATUS.parse(octets)
    # Often nothing follows, or what happened to be in the buffer: it is read where it fits, and not missed elsewhere.
    pid, coding, user = _tail(found.rest, has_header=found.first.header)
    return StatusReport(
        reference=found.reference,
        recipient=address.of(found.address),
        accepted_at=stamp(found.stamp),
        ended_at=stamp(found.ended),
        status=found.status,
        more=not found.first.bit2,
        of_command=found.first.report,
        pid=pid,
        coding=coding,
        user=user,
    )


def _command(octets: bytes) -> Command:
    found: Any = _COMMAND.parse(octets)
    return Command(
        reference=found.reference,
        pid=found.pid,
        command=found.command,
        number=found.number,
        recipient=address.of(found.address),
        data=found.data,
        report=found.first.report,
    )


def _deliver_report(octets: bytes) -> DeliverReport:
    found: Any = _DELIVER_REPORT.parse(octets)
    pid, coding, user = _tail_of(found)
    return DeliverReport(cause=_cause(found), pid=pid, coding=coding, user=user)


def _submit_report(octets: bytes) -> SubmitReport:
    found: Any = _SUBMIT_REPORT.parse(octets)
    pid, coding, user = _tail_of(found)
    return SubmitReport(sent_at=stamp(found.stamp), cause=_cause(found), pid=pid, coding=coding, user=user)


def _cause(found: Any) -> int | None:
    return None if found.cause is None else int(found.ahead)


def _tail_of(found: Any) -> tuple[int | None, DataCoding | None, UserData | None]:
    wanted = found.ahead if found.cause is None else found.cause
    return _tail(bytes((wanted,)) + found.rest, has_header=found.first.header)


def _tail(octets: bytes, *, has_header: bool) -> tuple[int | None, DataCoding | None, UserData | None]:
    """Read the optional end of a report: what there is of it."""
    if not octets:
        return None, None, None
    wanted: Any = _WANTED.parse(octets[:1])
    at = 1
    numbers: list[int | None] = []
    for there in (wanted.pid, wanted.dcs):
        numbers.append(octets[at] if there and at < len(octets) else None)
        at += bool(there)
    pid, dcs = numbers
    coding = None if dcs is None else DataCoding(dcs)
    if wanted.extended or not wanted.user or at >= len(octets):
        return pid, coding, None
    user = UserData.parse(octets[at + 1 :], octets[at], coding=coding or PLAIN, has_header=has_header)
    return pid, coding, user


_FOR_PHONE: Mapping[int, Callable[[bytes], Message]] = {0: _deliver, 1: _submit_report, 2: _status_report, 3: _deliver}
_FROM_PHONE: Mapping[int, Callable[[bytes], Message]] = {0: _deliver_report, 1: _submit, 2: _command}


def build(message: Deliver | Submit | StatusReport | DeliverReport) -> bytes:
    """Return a TPDU.

    Raises:
        LocalProtocolError: It cannot be said: too long, or a time that a time stamp does not know.
    """
    try:
        match message:
            case Deliver():
                return _built(
                    _DELIVER,
                    {
                        "first": _first(
                            0,
                            bit2=not message.more,
                            report=message.report_follows,
                            reply_path=message.reply_path,
                            user=message.user,
                        ),
                        "address": address.record(message.sender),
                        "pid": message.pid,
                        "dcs": message.coding.octet,
                        "stamp": bytes(7) if message.sent_at is None else stamp_octets(message.sent_at),
                        **_user(message.user, message.coding),
                    },
                )
            case Submit():
                form, octets = _validity_octets(message.validity)
                return _built(
                    _SUBMIT,
                    {
                        "first": _first(
                            1,
                            bit2=message.reject_duplicates,
                            report=message.report,
                            reply_path=message.reply_path,
                            user=message.user,
                            validity=form,
                        ),
                        "reference": message.reference,
                        "address": address.record(message.recipient),
                        "pid": message.pid,
                        "dcs": message.coding.octet,
                        "validity": octets,
                        **_user(message.user, message.coding),
                    },
                )
            case StatusReport():
                return _built(
                    _STATUS,
                    {
                        "first": _first(2, bit2=not message.more, report=message.of_command),
                        "reference": message.reference,
                        "address": address.record(message.recipient),
                        "stamp": bytes(7) if message.accepted_at is None else stamp_octets(message.accepted_at),
                        "ended": bytes(7) if message.ended_at is None else stamp_octets(message.ended_at),
                        "status": message.status,
                        "rest": b"",
                    },
                )
            case DeliverReport():
                return b"\0\0" if message.cause is None else bytes((0, message.cause, 0))
    except (ConstructError, ValueError) as exc:
        raise LocalProtocolError(f"this message cannot be written: {exc}") from exc


def _built(layout: Any, values: Mapping[str, Any]) -> bytes:
    octets: bytes = layout.build(values)
    return octets


def _first(
    kind: int,
    *,
    bit2: bool,
    report: bool,
    reply_path: bool = False,
    user: UserData | None = None,
    validity: int = _NO_VALIDITY,
) -> dict[str, Any]:
    return {
        "reply_path": reply_path,
        "header": user is not None and bool(user.header.elements),
        "report": report,
        "validity": validity,
        "bit2": bit2,
        "kind": kind,
    }


def _user(user: UserData, coding: DataCoding) -> dict[str, Any]:
    if coding.alphabet is not user.alphabet:
        raise ValueError(f"{user.alphabet} under a coding of {coding.alphabet}")
    length, octets = user.build()
    return {"length": length, "user": octets}


def _validity_octets(validity: Validity | None) -> tuple[int, bytes | None]:
    match validity:
        case None:
            return _NO_VALIDITY, None
        case timedelta():
            return _RELATIVE, bytes((relative_octet(validity),))
        case datetime():
            return _ABSOLUTE, stamp_octets(validity)
        case EnhancedValidity():
            return _ENHANCED, validity.octets


def read_pdu(text: str, *, from_phone: bool, length: int | None = None) -> tuple[Address | None, Message]:
    """Read a message as a modem writes it: hexadecimal, behind the service centre, which may be absent.

    `length` is what the modem says of the TPDU; it shows when some old firmware leaves the service centre out.

    Raises:
        FrameError: Not hexadecimal, or see `decode`.
    """
    try:
        octets = bytes.fromhex(text)
    except ValueError:
        raise FrameError("a message that is not hexadecimal") from None
    if length is not None and length == len(octets):
        return None, decode(octets, from_phone=from_phone)
    if not octets or len(octets) < 1 + octets[0]:
        raise FrameError("the service centre is cut short")
    centre, tpdu = octets[1 : 1 + octets[0]], octets[1 + octets[0] :]
    return (address.centre_of(centre) if len(centre) > 1 else None), decode(tpdu, from_phone=from_phone)


def write_pdu(message: Deliver | Submit | StatusReport, *, centre: Address | None = None) -> tuple[str, int]:
    """Return a message as modems take it, and the length of its TPDU; without `centre` the modem uses its own.

    Raises:
        LocalProtocolError: See `build`.
    """
    tpdu = build(message)
    front = b"" if centre is None else address.centre_octets(centre)
    return (bytes((len(front),)) + front + tpdu).hex().upper(), len(tpdu)
