"""Calls for help over the phone network, and whatever else terminals, persons and strangers say there (R1, I2)."""

import re
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from pydantic import ValidationError

from gateway.domain.kinds import RING
from gateway.service.case_work import locked
from gateway.service.phone.answers import reads_as_answer, take_answer, take_ring_of_party
from gateway.service.phone.message import Message, alarm_of
from gateway.service.phone.turn import Handled, Turn
from gateway.service.quarantine import Misread, keep_alarm_in
from gateway.service.raise_alarm import Press, Raised, raise_alarm_in
from gateway.service.telemetry import fix_record, state_of
from gateway.store import events, phone_book, phone_in, phone_out
from gateway.store.phone_book import Owners
from protocols.oks import SmsReport, text
from schemas.reports import Fix

__all__ = ["look_at", "take_message", "take_ring"]

_TRANSPORT = "sms"
_STRANGER_HOUR = 20
_STRANGERS_HOUR = 500
_CRIES_HOUR = 3
_ALL_CRIES_HOUR = 60
_SHORT = 30
_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)
_CRY, _BROKEN = "call for help", "broken"
_VIA = "sms"
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


async def take_message(turn: Turn, message: Message) -> Handled:
    """Take a text, as far as it is there: an alarm, an answer, words of whoever is protected, or of a stranger."""
    owners = await phone_book.owners(turn.conn, turn.directory.keyring, message.sender) if message.sender else Owners()
    if not message.begins and (case := await phone_in.rest_of(turn.conn, turn.came)) is not None:
        return Handled(outcome="the rest of an alarm", case_id=case)
    alarm = alarm_of(message)
    asked = [] if turn.peer is None else await phone_out.asked_of(turn.conn, turn.peer)
    # Who answers may be somebody who is protected as well: their own call for help is one.
    own = alarm is not None and (alarm.terminal is not None or bool(owners.persons))
    if asked and not owners.terminals and not own:
        return await take_answer(turn, message, asked)
    if alarm is not None:
        return await _call_for_help(turn, message, alarm, owners)
    if owners.terminals:
        return await _misread(turn, message, owners)
    if owners.persons and not (reads_as_answer(message) and await _answers_late(turn, owners, within=_DAY)):
        return await _from_person(turn, message, owners)
    if owners.known:
        await _tell(turn, "phone.unmatched")
        return Handled(outcome="unmatched")
    if message.user is None:
        return await _unreadable(turn, message)
    return replace(await _stranger(turn), words=(message.sender, message.text))


async def _call_for_help(turn: Turn, message: Message, alarm: SmsReport, owners: Owners) -> Handled:
    """Find out whose it is; what belongs to nobody is for the fallback (D13), but not every advertisement."""
    named = alarm.terminal
    if named is not None and await phone_book.is_terminal(turn.conn, named):
        return await _raise(turn, message, alarm, named, owners)
    if owners.terminals or owners.persons:
        terminal = owners.terminals[0] if owners.terminals else await phone_book.terminal_of(turn.conn, owners.persons)
        return await _raise(turn, message, alarm, terminal, owners)
    if named is not None:
        if owners.known:
            return await _raise(turn, message, alarm, named, owners)
        if _is_report(message):
            return await _raise(turn, message, alarm, named, owners)
        # A name that nobody knows from a number that nobody knows: most such are bills with a long number in them.
        if ("sos" in alarm.kinds or text.is_pure(message.text)) and await _is_believed(turn):
            done = await _raise(turn, message, alarm, named, owners)
            return replace(done, outcome=_CRY)
        return replace(await _stranger(turn), words=(message.sender, message.text))
    if owners.known:
        reason = f"a call for help from the phone of {', '.join(owners.parties)}, who has no terminal"
    elif "sos" in alarm.kinds and len(message.text) <= _SHORT and await _is_believed(turn):
        reason = "a call for help from a number that nobody knows"
    else:
        return replace(await _stranger(turn), words=(message.sender, message.text))
    raised = await look_at(turn, message.octets, reason, words=message.text)
    return Handled(outcome=_CRY, case_id=raised.case_id, notices=raised.notices)


def _is_report(message: Message) -> bool:
    """Are these octets of a terminal of our own kind, whole and undamaged?"""
    return message.user is not None and message.user.text is None


async def _is_believed(turn: Turn) -> bool:
    """Is a call for help of a number that nobody knows to be believed? Three times an hour it is (I6).

    Of all such numbers together some more: whoever sends from ever new ones wakes nobody all night.
    """
    return (
        await phone_in.of_peer_since(turn.conn, turn.peer, within=_HOUR, outcome=_CRY) < _CRIES_HOUR
        and await phone_in.of_all_since(turn.conn, within=_HOUR, outcome=_CRY) < _ALL_CRIES_HOUR
    )


async def _unreadable(turn: Turn, message: Message) -> Handled:
    """Open a case for octets that are no message, though they were read again and again."""
    if await phone_in.of_peer_since(turn.conn, None, within=_HOUR, outcome=_BROKEN) >= _CRIES_HOUR:
        return await _stranger(turn)
    reason = "a message by SMS that cannot be read at all"
    raised = await look_at(turn, message.octets, reason)
    return Handled(outcome=_BROKEN, case_id=raised.case_id, notices=raised.notices)


async def _raise(turn: Turn, message: Message, alarm: SmsReport, terminal: str | None, owners: Owners) -> Handled:
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
                turn.came.received_at,
            )
        except ValidationError:
            problems.append("its position cannot be")
    press = Press(
        terminal=terminal,
        transport=_TRANSPORT,
        kinds=alarm.kinds,
        received_at=turn.came.received_at,
        payload=message.octets,
        digest=bytes(turn.came.digest),
        boot=alarm.boot,
        seq=alarm.seq,
        pressed_at=alarm.at,
        fix=fix,
        battery_pct=alarm.battery_pct,
        signal_dbm=alarm.signal_dbm,
        test=alarm.test,
        problems=tuple(problems),
        household=await phone_book.household_of(turn.conn, owners.persons) if terminal is None else None,
        caller=turn.peer,
    )
    raised = await raise_alarm_in(turn.conn, turn.directory, press, worker=turn.worker)
    return _raised(raised, press)


def _raised(raised: Raised, press: Press) -> Handled:
    state = None
    if raised.terminal_uid is not None:
        # A message may have been on its way for hours: it says nothing of the terminal's clock.
        state = replace(state_of(raised.terminal_uid, press), clock_skew_s=None)
    return Handled(outcome=f"alarm {raised.how}", case_id=raised.case_id, notices=raised.notices, state=state)


async def _answers_late(turn: Turn, owners: Owners, *, within: timedelta) -> bool:
    """Is it somebody who is told of others as well, and was a short while ago? What they say is about that."""
    if not owners.parties or turn.peer is None:
        return False
    return await phone_out.told_lately(turn.conn, turn.peer, within=within)


async def _from_person(turn: Turn, message: Message, owners: Owners) -> Handled:
    """Take what a protected person says that is no call for help: it belongs to what is open, else somebody looks."""
    if (case_id := await phone_in.open_emergency(turn.conn, owners.persons)) is not None:
        await _note_said(turn, case_id, message.text)
        return Handled(outcome="said", case_id=case_id)
    if re.sub(r"[\s\W]+$", "", message.text.strip().lower()) in _COURTESIES:
        await _tell(turn, "phone.unmatched")
        return Handled(outcome="unmatched")
    return await _misread(turn, message, owners)


async def _misread(turn: Turn, message: Message, owners: Owners) -> Handled:
    """Open a case for what a terminal, or the person themselves, said and nobody understands: somebody looks (I2)."""
    terminal, household = next(iter(owners.terminals), None), None
    if terminal is not None:
        reason = "a message of a terminal that nothing understands"
    else:
        terminal, household = (
            await phone_book.terminal_of(turn.conn, owners.persons),
            await phone_book.household_of(turn.conn, owners.persons),
        )
        reason = "a message from the person's own phone that nothing understands"
    raised = await look_at(
        turn,
        message.octets,
        reason,
        terminal=terminal,
        household=household,
        words=message.text,
    )
    return Handled(outcome="not understood", case_id=raised.case_id, notices=raised.notices)


async def look_at(
    turn: Turn,
    octets: bytes,
    reason: str,
    *,
    terminal: str | None = None,
    household: str | None = None,
    words: str = "",
) -> Raised:
    """Open a case for what somebody has to look at; its octets are in quarantine, its words on the timeline."""
    misread = Misread(
        transport=_TRANSPORT,
        topic=f"sms/{terminal or '?'}",
        terminal=terminal,
        payload=octets,
        received_at=turn.came.received_at,
        reason=reason,
        household=household,
        # What damage has left without a sender is nobody's but its own.
        caller=turn.peer or bytes(turn.came.digest),
    )
    raised = await keep_alarm_in(turn.conn, turn.directory, misread, worker=turn.worker)
    if words:
        await _note_said(turn, raised.case_id, words)
    return raised


async def _note_said(turn: Turn, case_id: UUID, words: str) -> None:
    work = await locked(turn.conn, turn.directory, case_id, worker=turn.worker)
    work.note("case.said", {"via": _VIA}, actor="caller", private={"text": words[:1000]})
    await work.flush()


async def _stranger(turn: Turn) -> Handled:
    """Keep a message of a number that nobody knows, unless there are very many of them."""
    of_it = await phone_in.of_peer_since(turn.conn, turn.peer, within=_HOUR)
    if of_it >= _STRANGER_HOUR or await phone_in.of_all_since(turn.conn, within=_HOUR) >= _STRANGERS_HOUR:
        return Handled(outcome="flood")
    await _tell(turn, "phone.stranger")
    return Handled(outcome="stranger")


async def _tell(turn: Turn, kind: str) -> None:
    await events.emit(
        turn.conn, kind, district=None, case_id=None, data={"message": turn.came.id, "modem": turn.came.modem}
    )


async def take_ring(turn: Turn, said: dict[str, Any]) -> Handled:
    """Take a call: from a terminal it is an alarm, whatever else failed there; nobody picks up."""
    number = said.get("number")
    owners = Owners() if number is None else await phone_book.owners(turn.conn, turn.directory.keyring, str(number))
    asked = [] if turn.peer is None else await phone_out.asked_of(turn.conn, turn.peer)
    if (
        owners.persons
        and not owners.terminals
        and (case_id := await phone_in.open_emergency(turn.conn, owners.persons)) is not None
    ):
        work = await locked(turn.conn, turn.directory, case_id, worker=turn.worker)
        work.note("case.rang", {}, actor="caller")
        await work.flush()
        return Handled(outcome="person rang", case_id=case_id)
    # Whoever is protected and rings has not been heard yet.
    if owners.terminals or (owners.persons and not asked and not await _answers_late(turn, owners, within=_HOUR)):
        terminal = owners.terminals[0] if owners.terminals else await phone_book.terminal_of(turn.conn, owners.persons)
        press = Press(
            terminal=terminal,
            transport="call",
            kinds=(RING,),
            received_at=turn.came.received_at,
            payload=b"",
            digest=bytes(turn.came.digest),
            problems=() if owners.terminals else ("it came from the person's own phone",),
            household=await phone_book.household_of(turn.conn, owners.persons) if terminal is None else None,
            caller=turn.peer,
        )
        raised = await raise_alarm_in(turn.conn, turn.directory, press, worker=turn.worker)
        return _raised(raised, press)
    if asked:
        return await take_ring_of_party(turn, asked)
    if not owners.known:
        return await _stranger(turn)
    await _tell(turn, "phone.unmatched")
    return Handled(outcome="unmatched call")
