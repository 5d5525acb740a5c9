"""What comes over the phone network, read and acted on: alarms, answers, reports of delivery, calls (R1, R17, I1, I2).

Each thing that came is dealt with in one transaction together with the mark that it was: whoever is killed in the midst
has done nothing, and it is dealt with again.
"""

import hashlib
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic import ValidationError

from gateway.domain.answers import TextAnswer, read_answer
from gateway.domain.kinds import RING, CaseClass
from gateway.domain.outbox import DueNotice, PartyAnswer
from gateway.keyring import KeyringError
from gateway.service.case_commands import record_answer
from gateway.service.case_work import locked
from gateway.service.quarantine import Misread, keep_alarm_in
from gateway.service.raise_alarm import Press, Raised, raise_alarm_in
from gateway.service.record import record_delivery_report
from gateway.service.telemetry import fix_record, state_of
from gateway.store import cases, events, outbox, phone_book, phone_in, phone_out
from gateway.store.directory import Directory, SiteView
from gateway.store.phone_book import Owners
from gateway.store.phone_in import Came, NewArrival
from gateway.store.phone_out import Asked
from gateway.store.pool import Connection, Pool
from gateway.store.telemetry import StateRow
from protocols.errors import FrameError
from protocols.gsm.causes import Status, status_of
from protocols.gsm.tpdu import Deliver, StatusReport, read_pdu
from protocols.gsm.userdata import UserData, joined
from protocols.oks import SmsReport, binary, text
from schemas.reports import Fix

__all__ = ["Handled", "Reply", "arrival", "give_up", "handle", "ring"]

_log = logging.getLogger(__name__)

_TRANSPORT = "sms"
_SEAL = "phone_in"
_PARTS_COME_WITHIN = timedelta(seconds=90)
_STRANGER_HOUR = 20
_STRANGERS_HOUR = 500
_CRIES_HOUR = 3
_ALL_CRIES_HOUR = 60
_SHORT = 30
_HOUR = timedelta(hours=1)
_CRY, _BROKEN = "call for help", "broken"
_VIA = "sms"
_MOST_NAMED = 3
_COURTESIES = frozenset(
    {
        "谢谢",
        "谢谢你",
        "谢谢你们",
        "多谢",
        "好",
        "好的",
        "收到",
        "知道了",
        "ok",
        "okay",
        "thanks",
        "thank you",
        "received",
    }
)
_REPORTS = {
    Status.DELIVERED: "delivered",
    Status.UNCONFIRMED: "unconfirmed",
    Status.TRYING: "trying",
    Status.FAILED: "failed",
}


@dataclass(frozen=True, slots=True)
class Reply:
    """What somebody is to be written back."""

    number: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Handled:
    """What came of something that came. ``notices`` have to be sent now; ``state`` is of a terminal that was heard."""

    outcome: str
    case_id: UUID | None = None
    notices: Sequence[DueNotice] = ()
    replies: Sequence[Reply] = field(default=())
    state: StateRow | None = None
    words: tuple[str, str] | None = None
    """Number and text, where nobody knows whose they are."""


def arrival(directory: Directory, key: Any, *, modem: str, pdu: str, length: int | None) -> NewArrival:
    """Return a message as it is kept. One that cannot be read is kept as well: it may be a call for help."""
    kind, peer, parts, part, reference = "message", None, 1, 1, None
    try:
        _, message = read_pdu(pdu, from_phone=False, length=length)
    except FrameError:
        message = None
    if isinstance(message, StatusReport):
        kind, peer = "report", phone_book.peer(directory.keyring, str(message.recipient))
    elif isinstance(message, Deliver):
        peer = phone_book.peer(directory.keyring, str(message.sender))
        if (concat := message.user.header.concat) is not None:
            parts, part, reference = concat.total, concat.seq, concat.reference
    digest = hashlib.sha256(b"pdu " + pdu.upper().encode()).digest()
    sealed = key.seal({"pdu": pdu, "length": length}, about=_SEAL)
    return NewArrival(
        kind=kind, modem=modem, peer=peer, sealed=sealed, digest=digest, parts=parts, part=part, reference=reference
    )


def ring(directory: Directory, key: Any, *, modem: str, number: str | None, call: str) -> NewArrival:
    """Return a call that came as it is kept; `call` tells it from other calls."""
    return NewArrival(
        kind="ring",
        modem=modem,
        peer=None if number is None else phone_book.peer(directory.keyring, number),
        sealed=key.seal({"number": number}, about=_SEAL),
        digest=hashlib.sha256(f"ring {call}".encode()).digest(),
    )


async def handle(pool: Pool, directory: Directory, came: Came, *, worker: int | None) -> Handled | None:
    """Deal with something that came; None: it waits for its other parts, or somebody else has dealt with it.

    Raises:
        NoSite: It is a call for help, and no site is set up.
    """
    async with pool.connection() as conn, conn.transaction():
        parts = await phone_in.parts_of(conn, came)
        if came.id not in {part.id for part in parts}:
            return None
        said = await _opened(conn, directory, parts)
        used: Sequence[int] = [came.id]
        match came.kind:
            case "report":
                done = await _report(conn, directory, came, said[0], worker=worker)
            case "ring":
                done = await _ring(conn, directory, came, said[0], worker=worker)
            case _:
                message = _whole(parts, said)
                if message is None:
                    await phone_in.wait(conn, [part.id for part in parts], longest=_PARTS_COME_WITHIN)
                    return None
                used = message.used
                done = await _message(conn, directory, came, message, worker=worker)
        if done.outcome == "flood":
            await phone_in.count_only(conn, came)
        else:
            await phone_in.handled(conn, used, outcome=done.outcome, case_id=done.case_id)
        return done


async def give_up(pool: Pool, directory: Directory, came: Came, *, worker: int | None) -> Handled:
    """Open a case for something that we fail on again and again: it may be a call for help (I2, D12).

    Raises:
        NoSite: Nobody could be told, because no site is set up.
    """
    async with pool.connection() as conn, conn.transaction():
        said = (await _opened(conn, directory, [came]))[0]
        reason = "the gateway fails on something that came by phone"
        raised = await _look_at(conn, directory, came, str(said).encode(), reason, worker=worker)
        await phone_in.handled(conn, [came.id], outcome="given up", case_id=raised.case_id)
        return Handled(outcome="given up", case_id=raised.case_id, notices=raised.notices)


async def _opened(conn: Connection, directory: Directory, parts: Sequence[Came]) -> list[dict[str, Any]]:
    key = await phone_in.own_key(conn, directory.keyring)
    found: list[dict[str, Any]] = []
    for part in parts:
        try:
            value: Any = {} if part.sealed is None else key.open(bytes(part.sealed), about=_SEAL)
        except KeyringError:
            value = {}
        found.append(value)
    return found


@dataclass(frozen=True, slots=True)
class _Message:
    """A message as far as it is there. ``octets`` are what is kept of it where nobody understands it.

    ``used`` are the rows that it is made of, copies included; ``begins``: its first part is there.
    """

    sender: str
    user: UserData | None
    octets: bytes
    missing: int
    begins: bool
    used: Sequence[int]

    @property
    def text(self) -> str:
        return "" if self.user is None else self.user.text or ""


def _whole(parts: Sequence[Came], said: Sequence[dict[str, Any]]) -> _Message | None:
    """Put the parts together that are there; None: others may still come.

    A beginning that calls for help is not kept waiting: the rest only says more of it (I2).
    """
    users: dict[int, UserData] = {}
    used: list[int] = []
    sender, octets = "", b""
    for part, value in zip(parts, said, strict=True):
        pdu = str(value.get("pdu", ""))
        try:
            _, message = read_pdu(pdu, from_phone=False, length=value.get("length"))
        except FrameError:
            message = None
        if isinstance(message, Deliver):
            # Another text may have the same reference: its parts differ, and have their turn afterwards.
            if users.setdefault(part.part, message.user) != message.user:
                continue
            sender = str(message.sender)
        octets += pdu.encode()
        used.append(part.id)
    total = parts[0].parts
    missing = total - len(users)
    user = joined([users[place] for place in sorted(users)]) if users else None
    whole = _Message(sender, user, octets, missing, 1 in users or total == 1, used)
    late = max(part.age_s for part in parts) >= _PARTS_COME_WITHIN.total_seconds()
    if missing and total > 1 and not late and _alarm(whole) is None:
        return None
    return whole


def _alarm(message: _Message) -> SmsReport | None:
    if message.user is None:
        return None
    if (said := message.user.text) is not None:
        return text.read(said)
    try:
        return binary.read(message.user.payload)
    except FrameError:
        return None


async def _message(
    conn: Connection, directory: Directory, came: Came, message: _Message, *, worker: int | None
) -> Handled:
    owners = await phone_book.owners(conn, directory.keyring, message.sender) if message.sender else Owners()
    if not message.begins and (case := await phone_in.rest_of(conn, came)) is not None:
        return Handled(outcome="the rest of an alarm", case_id=case)
    alarm = _alarm(message)
    asked = [] if came.peer is None else await phone_out.asked_of(conn, bytes(came.peer))
    # Who answers may be somebody who is protected as well: their own call for help is one.
    own = alarm is not None and (alarm.terminal is not None or bool(owners.persons))
    if asked and not owners.terminals and not own:
        return await _answer(conn, directory, came, message, asked, worker=worker)
    if alarm is not None:
        return await _call_for_help(conn, directory, came, message, alarm, owners, worker=worker)
    if owners.terminals:
        return await _misread(conn, directory, came, message, owners, worker=worker)
    if owners.persons and not await _answers_late(conn, came, owners):
        return await _from_person(conn, directory, came, message, owners, worker=worker)
    if owners.known:
        await _tell(conn, came, "phone.unmatched")
        return Handled(outcome="unmatched")
    if message.user is None:
        return await _unreadable(conn, directory, came, message, worker=worker)
    return replace(await _stranger(conn, came), words=(message.sender, message.text))


async def _call_for_help(
    conn: Connection,
    directory: Directory,
    came: Came,
    message: _Message,
    alarm: SmsReport,
    owners: Owners,
    *,
    worker: int | None,
) -> Handled:
    """Find out whose it is; what belongs to nobody is for the fallback (D13), but not every advertisement."""
    named = alarm.terminal
    if named is not None and await _is_known(conn, named):
        return await _raise(conn, directory, came, message, alarm, named, owners, worker=worker)
    if owners.terminals or owners.persons:
        terminal = owners.terminals[0] if owners.terminals else await _terminal_of_person(conn, owners)
        return await _raise(conn, directory, came, message, alarm, terminal, owners, worker=worker)
    if named is not None:
        if owners.known:
            return await _raise(conn, directory, came, message, alarm, named, owners, worker=worker)
        if _is_report(message):
            return await _raise(conn, directory, came, message, alarm, named, owners, worker=worker)
        # A name that nobody knows from a number that nobody knows: most such are bills with a long number in them.
        if ("sos" in alarm.kinds or text.is_pure(message.text)) and await _is_believed(conn, came):
            done = await _raise(conn, directory, came, message, alarm, named, owners, worker=worker)
            return replace(done, outcome=_CRY)
        return replace(await _stranger(conn, came), words=(message.sender, message.text))
    if owners.known:
        reason = f"a call for help from the phone of {', '.join(owners.parties)}, who has no terminal"
    elif "sos" in alarm.kinds and len(message.text) <= _SHORT and await _is_believed(conn, came):
        reason = "a call for help from a number that nobody knows"
    else:
        return replace(await _stranger(conn, came), words=(message.sender, message.text))
    raised = await _look_at(conn, directory, came, message.octets, reason, words=message.text, worker=worker)
    return Handled(outcome=_CRY, case_id=raised.case_id, notices=raised.notices)


def _is_report(message: _Message) -> bool:
    """Are these octets of a terminal of our own kind, whole and undamaged?"""
    return message.user is not None and message.user.text is None


async def _is_believed(conn: Connection, came: Came) -> bool:
    """Is a call for help of a number that nobody knows to be believed? Three times an hour it is (I6).

    Of all such numbers together some more: whoever sends from ever new ones wakes nobody all night.
    """
    peer = None if came.peer is None else bytes(came.peer)
    return (
        await phone_in.of_peer_since(conn, peer, within=_HOUR, outcome=_CRY) < _CRIES_HOUR
        and await phone_in.of_all_since(conn, within=_HOUR, outcome=_CRY) < _ALL_CRIES_HOUR
    )


async def _unreadable(
    conn: Connection, directory: Directory, came: Came, message: _Message, *, worker: int | None
) -> Handled:
    """Open a case for octets that are no message, though they were read again and again."""
    if await phone_in.of_peer_since(conn, None, within=_HOUR, outcome=_BROKEN) >= _CRIES_HOUR:
        return await _stranger(conn, came)
    reason = "a message by SMS that cannot be read at all"
    raised = await _look_at(conn, directory, came, message.octets, reason, worker=worker)
    return Handled(outcome=_BROKEN, case_id=raised.case_id, notices=raised.notices)


async def _terminal_of_person(conn: Connection, owners: Owners) -> str | None:
    """Return a terminal of the household of whoever writes from their own phone."""
    cursor = await conn.execute(
        "SELECT t.public_id FROM person p JOIN assignment a ON a.household_id = p.household_id AND a.until IS NULL "
        "JOIN terminal t ON t.uid = a.terminal_uid AND t.active WHERE p.id = ANY(%s) ORDER BY 1 LIMIT 1",
        (list(owners.persons),),
    )
    row = await cursor.fetchone()
    return None if row is None else row[0]


async def _household_of(conn: Connection, owners: Owners) -> str | None:
    """Return where they live who write from their own phone."""
    cursor = await conn.execute(
        "SELECT household_id FROM person WHERE id = ANY(%s) ORDER BY id LIMIT 1", (list(owners.persons),)
    )
    row = await cursor.fetchone()
    return None if row is None else row[0]


async def _is_known(conn: Connection, terminal: str) -> bool:
    cursor = await conn.execute("SELECT FROM terminal WHERE public_id = %s AND active", (terminal,))
    return await cursor.fetchone() is not None


async def _raise(
    conn: Connection,
    directory: Directory,
    came: Came,
    message: _Message,
    alarm: SmsReport,
    terminal: str | None,
    owners: Owners,
    *,
    worker: int | None,
) -> Handled:
    problems = []
    if terminal is None:
        problems.append("it came from the person's own phone; there is no terminal")
    elif owners.terminals and terminal not in owners.terminals:
        problems.append("it came from the number of another terminal")
    elif not owners.terminals:
        problems.append("it came from the person's own phone" if owners.persons else "it came from another number")
    if (owners.terminals or owners.persons) and alarm.terminal not in (None, terminal, *owners.terminals):
        problems.append(f"it calls itself {alarm.terminal}, which is not registered")
    if message.missing:
        problems.append(f"{message.missing} parts of the message are missing")
    fix = None
    if alarm.place is not None:
        place = alarm.place
        try:
            fix = fix_record(
                Fix(lat=place.lat, lon=place.lon, datum=place.datum, source=place.source, accuracy_m=place.accuracy_m),
                alarm.at,
                came.received_at,
            )
        except ValidationError:
            problems.append("its position cannot be")
    press = Press(
        terminal=terminal,
        transport=_TRANSPORT,
        kinds=alarm.kinds,
        received_at=came.received_at,
        payload=message.octets,
        digest=bytes(came.digest),
        boot=alarm.boot,
        seq=alarm.seq,
        pressed_at=alarm.at,
        fix=fix,
        battery_pct=alarm.battery_pct,
        signal_dbm=alarm.signal_dbm,
        test=alarm.test,
        problems=tuple(problems),
        household=await _household_of(conn, owners) if terminal is None else None,
        caller=came.peer,
    )
    raised = await raise_alarm_in(conn, directory, press, worker=worker)
    return _raised(raised, press)


def _raised(raised: Raised, press: Press) -> Handled:
    state = None
    if raised.terminal_uid is not None:
        # A message may have been on its way for hours: it says nothing of the terminal's clock.
        state = replace(state_of(raised.terminal_uid, press), clock_skew_s=None)
    return Handled(outcome=f"alarm {raised.how}", case_id=raised.case_id, notices=raised.notices, state=state)


async def _answers_late(conn: Connection, came: Came, owners: Owners) -> bool:
    """Is it somebody who is told of others as well, and was a short while ago? What they say is about that."""
    return bool(owners.parties) and came.peer is not None and await phone_out.told_lately(conn, bytes(came.peer))


async def _from_person(
    conn: Connection, directory: Directory, came: Came, message: _Message, owners: Owners, *, worker: int | None
) -> Handled:
    """Take what a protected person says that is no call for help: it belongs to what is open, else somebody looks."""
    if (case_id := await _open_at(conn, owners)) is not None:
        await _note_said(conn, directory, case_id, message.text, worker=worker)
        return Handled(outcome="said", case_id=case_id)
    if re.sub(r"[\s\W]+$", "", message.text.strip().lower()) in _COURTESIES:
        await _tell(conn, came, "phone.unmatched")
        return Handled(outcome="unmatched")
    return await _misread(conn, directory, came, message, owners, worker=worker)


async def _open_at(conn: Connection, owners: Owners) -> UUID | None:
    """Return the emergency that is open where they live who write or ring."""
    cursor = await conn.execute(
        "SELECT c.id FROM cases c JOIN person p ON p.household_id = c.household_id WHERE p.id = ANY(%s) "
        # Locked: what is said while the case is being closed must not end up on the timeline of a closed one.
        "AND c.class = 'emergency' AND c.state = 'open' ORDER BY c.opened_at DESC LIMIT 1 FOR UPDATE OF c",
        (list(owners.persons),),
    )
    row = await cursor.fetchone()
    return None if row is None else row[0]


async def _note_said(conn: Connection, directory: Directory, case_id: UUID, words: str, *, worker: int | None) -> None:
    work = await locked(conn, directory, case_id, worker=worker)
    work.note("case.said", {"via": _VIA}, actor="caller", private={"text": words[:1000]})
    await work.flush()


async def _misread(
    conn: Connection, directory: Directory, came: Came, message: _Message, owners: Owners, *, worker: int | None
) -> Handled:
    """Open a case for what a terminal, or the person themselves, said and nobody understands: somebody looks (I2)."""
    terminal, household = next(iter(owners.terminals), None), None
    if terminal is not None:
        reason = "a message of a terminal that nothing understands"
    else:
        terminal, household = await _terminal_of_person(conn, owners), await _household_of(conn, owners)
        reason = "a message from the person's own phone that nothing understands"
    raised = await _look_at(
        conn,
        directory,
        came,
        message.octets,
        reason,
        terminal=terminal,
        household=household,
        words=message.text,
        worker=worker,
    )
    return Handled(outcome="not understood", case_id=raised.case_id, notices=raised.notices)


async def _look_at(
    conn: Connection,
    directory: Directory,
    came: Came,
    octets: bytes,
    reason: str,
    *,
    terminal: str | None = None,
    household: str | None = None,
    words: str = "",
    worker: int | None,
) -> Raised:
    """Open a case for what somebody has to look at; its octets are in quarantine, its words on the timeline."""
    misread = Misread(
        transport=_TRANSPORT,
        topic=f"sms/{terminal or '?'}",
        terminal=terminal,
        payload=octets,
        received_at=came.received_at,
        reason=reason,
        household=household,
        # What damage has left without a sender is nobody's but its own.
        caller=came.peer or bytes(came.digest),
    )
    raised = await keep_alarm_in(conn, directory, misread, worker=worker)
    if words:
        await _note_said(conn, directory, raised.case_id, words, worker=worker)
    return raised


async def _stranger(conn: Connection, came: Came) -> Handled:
    """Keep a message of a number that nobody knows, unless there are very many of them."""
    peer = None if came.peer is None else bytes(came.peer)
    of_it = await phone_in.of_peer_since(conn, peer, within=_HOUR)
    if of_it >= _STRANGER_HOUR or await phone_in.of_all_since(conn, within=_HOUR) >= _STRANGERS_HOUR:
        return Handled(outcome="flood")
    await _tell(conn, came, "phone.stranger")
    return Handled(outcome="stranger")


async def _tell(conn: Connection, came: Came, kind: str) -> None:
    await events.emit(conn, kind, district=None, case_id=None, data={"message": came.id, "modem": came.modem})


async def _ring(
    conn: Connection, directory: Directory, came: Came, said: dict[str, Any], *, worker: int | None
) -> Handled:
    """Take a call: from a terminal it is an alarm, whatever else failed there; nobody picks up."""
    number = said.get("number")
    owners = Owners() if number is None else await phone_book.owners(conn, directory.keyring, str(number))
    asked = [] if came.peer is None else await phone_out.asked_of(conn, bytes(came.peer))
    if owners.persons and not owners.terminals and (case_id := await _open_at(conn, owners)) is not None:
        work = await locked(conn, directory, case_id, worker=worker)
        work.note("case.rang", {}, actor="caller")
        await work.flush()
        return Handled(outcome="person rang", case_id=case_id)
    # Whoever is protected and rings has not been heard yet.
    if owners.terminals or (owners.persons and not asked and not await _answers_late(conn, came, owners)):
        terminal = owners.terminals[0] if owners.terminals else await _terminal_of_person(conn, owners)
        press = Press(
            terminal=terminal,
            transport="call",
            kinds=(RING,),
            received_at=came.received_at,
            payload=b"",
            digest=bytes(came.digest),
            problems=() if owners.terminals else ("it came from the person's own phone",),
            household=await _household_of(conn, owners) if terminal is None else None,
            caller=came.peer,
        )
        raised = await raise_alarm_in(conn, directory, press, worker=worker)
        return _raised(raised, press)
    for one in asked:  # in the order of their cases, as everybody locks them
        work = await locked(conn, directory, one.case_id, worker=worker)
        work.note(
            "leg.rang", {"leg": str(one.leg_id), "role": one.role, "party": one.party_id}, actor=f"party:{one.party_id}"
        )
        await work.flush()
    if asked:
        return Handled(outcome="party rang", case_id=asked[0].case_id)
    if not owners.known:
        return await _stranger(conn, came)
    await _tell(conn, came, "phone.unmatched")
    return Handled(outcome="unmatched call")


# Answers


async def _answer(
    conn: Connection, directory: Directory, came: Came, message: _Message, asked: Sequence[Asked], *, worker: int | None
) -> Handled:
    # The end of a message that lacks its beginning may begin with any digit.
    codes = {one.code for one in asked}
    said = read_answer(message.text, codes) if message.begins else TextAnswer(None)
    meant = [one for one in asked if one.code == said.code] if said.code is not None else list(asked)
    if said.answer is None or not meant:
        for one in meant or asked:
            await _say(conn, directory, one, message.text, worker=worker)
        again = [Reply(message.sender, await _again(conn, directory, asked[0]))] if said.unclear else []
        return Handled(outcome="said", case_id=asked[0].case_id, replies=again)
    if len({one.case_id for one in meant}) > 1 or (
        # It may be meant for the one that has ended meanwhile.
        said.code is None and came.peer and await phone_out.another_ended(conn, bytes(came.peer), meant[0].case_id)
    ):
        # To end the calls for the wrong person would be worse than to ask again: on record everywhere, it ends nothing.
        for one in meant:
            await _say(conn, directory, one, message.text, worker=worker)
        return Handled(
            outcome="ambiguous",
            case_id=meant[0].case_id,
            replies=[Reply(message.sender, await _which(conn, directory, meant))],
        )
    return await _count(conn, directory, meant, said, worker=worker)


async def _count(
    conn: Connection, directory: Directory, meant: Sequence[Asked], said: TextAnswer, *, worker: int | None
) -> Handled:
    """Count an answer for every leg of a case that has this number: several parties may share a phone on duty."""
    assert said.answer is not None
    case_id = meant[0].case_id
    work = await locked(conn, directory, case_id, worker=worker)
    legs = {leg.id: leg for leg in await cases.legs_of(conn, case_id)}
    anew = await outbox.asked_anew(conn, case_id)
    for one in meant:
        await record_answer(
            conn,
            work.case,
            legs[one.leg_id],
            PartyAnswer(answer=said.answer, reason=said.text, minutes=said.minutes),
            via=_VIA,
            writer=work.journal,
            overtaken=one.number < anew.get(one.leg_id, 0),
        )
    await work.flush()
    return Handled(outcome=f"answer {said.answer}", case_id=case_id)


async def _say(conn: Connection, directory: Directory, one: Asked, words: str, *, worker: int | None) -> None:
    """Put words of a party on the timeline of a case."""
    work = await locked(conn, directory, one.case_id, worker=worker)
    work.note(
        "leg.said",
        {"leg": str(one.leg_id), "role": one.role, "party": one.party_id, "via": _VIA},
        actor=f"party:{one.party_id}",
        private={"text": words[:1000]},
    )
    await work.flush()


async def _which(conn: Connection, directory: Directory, meant: Sequence[Asked]) -> str:
    """Ask which of several cases an answer is for, without a name: it goes to a phone that others may read.

    It is one message, however many there are: the newest emergencies are named.
    """
    said, chinese = [], True
    sites = {site.id: site for site in await directory.sites(conn)}
    newest = {one.case_id: one for one in meant}
    open_ones = [(one, case) for one in newest.values() if (case := await cases.by_id(conn, one.case_id)) is not None]
    open_ones.sort(key=lambda pair: (pair[1].case_class != CaseClass.EMERGENCY, -pair[1].opened_at.timestamp()))
    for one, case in open_ones[:_MOST_NAMED]:
        site = sites.get(case.site_id)
        chinese = site is None or site.locale.startswith("zh")
        said.append(f"{one.code}({case.opened_at.astimezone(_zone(site)).strftime('%H:%M')})")
    example = f"1{open_ones[0][0].code}"
    more = len(open_ones) > _MOST_NAMED
    if chinese:
        listed = "、".join(said) + ("等" if more else "")
        return f"您有{len(open_ones)}个求助：{listed}。请回数字加字母，如{example}，说明是哪一个。"
    listed = ", ".join(said) + (", and more" if more else "")
    return f"{len(open_ones)} calls: {listed}. Answer digit and letters, as {example}, to say which."


async def _again(conn: Connection, directory: Directory, one: Asked) -> str:
    """Ask what is meant by a digit with words that say the opposite."""
    case = await cases.by_id(conn, one.case_id)
    sites = {site.id: site for site in await directory.sites(conn)}
    site = None if case is None else sites.get(case.site_id)
    if site is None or site.locale.startswith("zh"):
        return "不明白您的意思。请只回数字：1赶来，2已到，0不能。"
    return "Not clear. Please answer with the digit alone: 1 coming, 2 arrived, 0 cannot."


def _zone(site: SiteView | None) -> ZoneInfo:
    return ZoneInfo("Asia/Shanghai" if site is None else site.timezone)


# Reports of delivery


async def _report(
    conn: Connection, directory: Directory, came: Came, said: dict[str, Any], *, worker: int | None
) -> Handled:
    try:
        _, report = read_pdu(str(said.get("pdu", "")), from_phone=False, length=said.get("length"))
    except FrameError:
        return Handled(outcome="unreadable report")
    if not isinstance(report, StatusReport) or came.peer is None:
        return Handled(outcome="unreadable report")
    status, words = status_of(report.status)
    found = await phone_out.report(
        conn,
        modem=came.modem,
        reference=report.reference,
        peer=bytes(came.peer),
        status=report.status,
        words=_REPORTS[status],
    )
    if found is None or found.case_id is None or found.leg_id is None or found.notice_id is None:
        return Handled(outcome=f"report {_REPORTS[status]}")
    notices: list[DueNotice] = []
    if found.whole in ("delivered", "failed"):
        notices = await record_delivery_report(
            conn,
            directory,
            case_id=found.case_id,
            leg_id=found.leg_id,
            notice_id=found.notice_id,
            delivered=found.whole == "delivered",
            detail=words,
            worker=worker,
        )
    return Handled(outcome=f"report {_REPORTS[status]}", case_id=found.case_id, notices=notices)
