"""A press becomes an alarm, a case and its legs, in one transaction (R1, I1, I3).

The caller acknowledges after the commit, and sends the notices that come back.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from psycopg.types.json import Jsonb

from gateway.domain import keys
from gateway.domain.case import WINDOW, CaseState, DomainError, LegState, is_repeat
from gateway.domain.directory import Party
from gateway.domain.kinds import EMERGENCIES, UNREADABLE, CaseClass, classify
from gateway.domain.ladder import Ladder, first_wake
from gateway.domain.location import better
from gateway.domain.outbox import DueNotice
from gateway.domain.plan import (
    DURESS,
    Plan,
    PlannedLeg,
    Situation,
    delay_of,
    legs_of,
    plans_for,
    procedures_for,
    quiet_left,
)
from gateway.domain.privacy import stricter
from gateway.keyring import ErasedKey, KeyringError
from gateway.service import fan_out
from gateway.service.moving import improve_location
from gateway.service.places import best_location, place_of, record_of
from gateway.service.views import Surroundings, agreements_of, case_key
from gateway.store import cases, drills, events, outbox
from gateway.store.cases import CaseRow, KnownAlarm, LegRow, NewAlarm, Standing
from gateway.store.directory import Directory, Origin
from gateway.store.events import NewEvent
from gateway.store.journal import Head, Note, Writer, flush_all
from gateway.store.pool import Connection, Pool

__all__ = ["NoSite", "Press", "Raised", "raise_alarm", "raise_alarm_in", "raise_alarms", "raise_alarms_in"]

_RAW_KEPT = 65_536


class NoSite(DomainError):
    """No site is set up, so there is nobody who could be told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Press:
    """An alarm as it came in, whatever brought it. ``pressed_at`` is the terminal's word, ``received_at`` ours.

    ``drill``: the drill whose scenario makes it; nobody pressed.
    ``copy``: the broker may send this once more on its own account (retained, or kept for a session that came back),
    so the very same bytes are no new press, however their case stands. ``waited``: how long it lay here before its
    turn; it is judged as of the moment when it came. ``site``: what the gateway itself has to say of a site; it comes
    from no terminal and is always technical. ``about``: what supervision has found, and the subject of its case;
    ``seq`` is then the number under which it was found. It is technical too, but what is wrong with a person.
    ``household``: where they live who call for help without a terminal. ``caller``: who calls, if no terminal does,
    by a digest: two callers are two cases.
    """

    terminal: str | None
    transport: str
    kinds: tuple[str, ...]
    received_at: datetime
    payload: bytes
    digest: bytes
    boot: int | None = None
    seq: int | None = None
    pressed_at: datetime | None = None
    fix: dict[str, Any] | None = None
    battery_pct: int | None = None
    signal_dbm: int | None = None
    test: bool = False
    drill: UUID | None = None
    copy: bool = False
    waited: timedelta = timedelta(0)
    problems: tuple[str, ...] = ()
    site: str | None = None
    about: str | None = None
    household: str | None = None
    caller: bytes | None = None

    @property
    def sender(self) -> str | None:
        """Whose press it is: a terminal's, or a site's or caller's under a name that no terminal can have."""
        if self.site is not None:
            return f"~{self.site}"
        return self.terminal if self.terminal is not None or self.caller is None else f"~~{self.caller.hex()[:32]}"

    @property
    def unreadable(self) -> bool:
        """Did it fail to be read?"""
        return self.kinds == (UNREADABLE,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Raised:
    """What came of a press. ``notices`` have to be sent now; `how` is opened, joined or repeated."""

    case_id: UUID
    how: str
    notices: tuple[DueNotice, ...] = ()
    terminal_uid: UUID | None = None
    district: str | None = None


async def raise_alarm(pool: Pool, directory: Directory, press: Press, *, worker: int | None) -> Raised:
    """Store a press and everything it obliges us to, or nothing.

    A repeat of a press whose case is not yet safe changes nothing but a counter. Any other press joins the open
    emergency of its household, raises its urgency and re-arms the legs that were answered, or opens a new case
    that is linked to the one before (D10).

    Raises:
        NoSite: Nobody could be told, because no site is set up.
    """
    # In pipeline mode only what is read back waits for the server: about half the round trips.
    async with pool.connection() as conn, conn.pipeline(), conn.transaction():
        return await raise_alarm_in(conn, directory, press, worker=worker)


async def raise_alarms(
    pool: Pool, directory: Directory, presses: Sequence[Press], *, worker: int | None
) -> list[Raised | None]:
    """Store several presses in one transaction, or none of them: what `raise_alarm` would have done to each.

    Only what is plain is done for many at once: presses that open a new case, and repeats that say nothing new. For
    any other the result is None, and nothing was done: it is for `raise_alarm`, alone and in its order. So is every
    one of them after an error, since one that the database refuses takes the others with it (D12).

    Raises:
        NoSite: Nobody could be told, because no site is set up.
    """
    async with pool.connection() as conn, conn.pipeline(), conn.transaction():
        return await raise_alarms_in(conn, directory, presses, worker=worker)


async def raise_alarms_in(
    conn: Connection, directory: Directory, presses: Sequence[Press], *, worker: int | None
) -> list[Raised | None]:
    """Do the work of `raise_alarms` in the caller's transaction."""
    origins = await directory.origins(conn, [press.terminal for press in presses])
    await directory.preload(conn, origins)
    plain: dict[str, _Arrived] = {}
    arrived: list[_Arrived | None] = []
    for press, origin in zip(presses, origins, strict=True):
        one = await _arrive(conn, directory, press, origin)
        # Of several presses of one household each has to see what became of the one before.
        alone = not press.copy and not one.several and one.drill is None and one.subject not in plain
        arrived.append(one if alone else None)
        if alone:
            plain[one.subject] = one
    await cases.lock_subjects(conn, list(plain))
    asked = [(one.subject, str(one.case_class), one.key) for one in plain.values()]
    standing = dict(zip(plain, await cases.standings(conn, asked, lock=False), strict=True))
    repeats: list[UUID] = []
    opening: dict[str, _Opening] = {}
    done: dict[str, Raised] = {}
    for subject, one in plain.items():
        before = standing[subject]
        if before.alarm is not None and _repeats(one, before.alarm) and not _brings_fix(one, before.case):
            repeats.append(before.alarm.id)
            done[subject] = _repeated(one, before.alarm, before.case)
        elif before.case is None:
            opening[subject] = _opening(one, before)
    if repeats:
        await cases.count_repeats(conn, repeats)
    if opening:
        done |= zip(opening, await _open(conn, list(opening.values()), worker=worker), strict=True)
        await cases.add_alarms(conn, [one.alarm(one.case.id) for one in opening.values()])
    return [None if one is None else done.get(one.subject) for one in arrived]


async def raise_alarm_in(conn: Connection, directory: Directory, press: Press, *, worker: int | None) -> Raised:
    """Do the work of `raise_alarm` in the caller's transaction."""
    origin = await directory.origin(conn, press.terminal)
    if origin.site is None and press.household is not None:
        origin = await directory.origin_of_household(conn, press.household)
    one = await _arrive(conn, directory, press, origin)
    if one.several:
        if press.copy and (known_case := await cases.known_copy(conn, press.terminal, origin.epoch, press.digest)):
            return Raised(case_id=known_case, how="repeated", terminal_uid=origin.terminal_uid)
        # Each trouble of a terminal is a case of its own, which ends when that one is over. In an order that is the
        # same for everybody: each takes a lock. The second must not look like a copy of the first.
        each = [replace(press, kinds=(kind,), copy=False) for kind in sorted(set(press.kinds))]
        parts = [await raise_alarm_in(conn, directory, part, worker=worker) for part in each]
        return replace(parts[0], notices=tuple(notice for part in parts for notice in part.notices))
    await cases.lock_subject(conn, one.subject)

    if press.copy and (known_case := await cases.known_copy(conn, press.terminal, origin.epoch, press.digest)):
        return Raised(case_id=known_case, how="repeated", terminal_uid=origin.terminal_uid)
    before = await cases.standing(conn, subject=one.subject, case_class=one.case_class, key=one.key)
    known = before.alarm
    if known is not None and _repeats(one, known):
        await cases.count_repeats(conn, [known.id])
        notices = []
        if press.fix is not None:
            notices = await improve_location(conn, directory, known.case_id, press.fix, now=origin.now, worker=worker)
        return _repeated(one, known, before.case, notices)

    if before.case is None:
        taking_part = None if one.drill is None else await drills.participants(conn, one.drill)
        opening = _opening(one, before, taking_part=taking_part)
        (raised,) = await _open(conn, [opening], worker=worker)
        alarm = opening.alarm(raised.case_id)
    else:
        raised = await _join(conn, directory, press, origin, one.around, before.case, one.problem, worker=worker)
        alarm = one.alarm(known, case_id=raised.case_id)
    await cases.add_alarms(conn, [alarm])
    return raised


@dataclass(frozen=True, slots=True, kw_only=True)
class _Arrived:
    """A press, whom it concerns, and the key under which a repeat is found."""

    press: Press
    origin: Origin
    around: Surroundings
    problem: str | None
    test: bool
    drill: UUID | None
    case_class: CaseClass
    subject: str
    key: str
    numbered: bool

    @property
    def several(self) -> bool:
        """Does it say of several troubles of a terminal at once?"""
        return self.case_class is CaseClass.TECHNICAL and self.press.site is None and len(set(self.press.kinds)) > 1

    def alarm_id(self, known: KnownAlarm | None) -> UUID:
        """Return the id of the alarm behind the one that is known already."""
        return keys.alarm_id(self.key, _occurrence(known))

    def alarm(self, known: KnownAlarm | None, *, case_id: UUID) -> NewAlarm:
        """Return the alarm as it is stored."""
        press = self.press
        return NewAlarm(
            id=self.alarm_id(known),
            key=self.key,
            occurrence=_occurrence(known),
            case_id=case_id,
            terminal_uid=self.origin.terminal_uid,
            terminal_id=press.terminal,
            epoch=self.origin.epoch,
            boot=press.boot,
            seq=press.seq,
            kinds=list(press.kinds),
            test=self.test,
            pressed_at=press.pressed_at,
            received_at=press.received_at,
            transport=press.transport,
            fix=press.fix,
            battery_pct=press.battery_pct,
            signal_dbm=press.signal_dbm,
            problems=list(press.problems),
            digest=press.digest,
            drill_id=self.drill,
        )


def _occurrence(known: KnownAlarm | None) -> int:
    return 1 if known is None else known.occurrence + 1


async def _arrive(conn: Connection, directory: Directory, press: Press, origin: Origin) -> _Arrived:
    around, problem = await _surroundings(conn, directory, press, origin)
    test = press.drill is not None or (press.test and origin.in_test_window)
    found = press.about is not None and not EMERGENCIES & set(press.kinds)
    own = press.site is not None or found
    case_class = CaseClass.TECHNICAL if own else classify(press.kinds, test=test)
    key, numbered = _key(press, origin, case_class)
    return _Arrived(
        press=press,
        origin=origin,
        around=around,
        problem=problem,
        test=test,
        drill=(press.drill or origin.drill) if test else None,
        case_class=case_class,
        subject=_subject(press, around, case_class),
        key=key,
        numbered=numbered,
    )


def _repeats(one: _Arrived, known: KnownAlarm) -> bool:
    """Is it the same press as `known` (D5, D10)?"""
    press = one.press
    differs = (
        one.numbered
        and known.pressed_at is not None
        and press.pressed_at is not None
        # The same press by SMS tells whole seconds.
        and abs(known.pressed_at - press.pressed_at) >= timedelta(seconds=1)
    )
    came_at = one.origin.now - press.waited
    in_time = one.numbered or came_at - known.stored_at <= WINDOW
    says_more = (known.test and not press.test) or not set(press.kinds) <= set(known.kinds)
    if press.waited and one.numbered and not differs and not says_more and came_at <= known.stored_at:
        return True  # another copy of it was quicker, whatever became of its case meanwhile
    return in_time and is_repeat(CaseState(known.case_state), another_time=differs, says_more=says_more)


def _brings_fix(one: _Arrived, case: CaseRow | None) -> bool:
    """Does a repeat say where the person is, better than is known?"""
    if one.press.fix is None:
        return False
    if case is None:
        return True
    return better(
        place_of(one.press.fix), None if case.location is None else place_of(case.location), now=one.origin.now
    )


def _repeated(one: _Arrived, known: KnownAlarm, case: CaseRow | None, notices: Sequence[DueNotice] = ()) -> Raised:
    return Raised(
        case_id=known.case_id,
        how="repeated",
        notices=tuple(notices),
        terminal_uid=one.origin.terminal_uid,
        district=case.district if case is not None else None,
    )


def _subject(press: Press, around: Surroundings, case_class: CaseClass) -> str:
    if press.about is not None and case_class is CaseClass.TECHNICAL:
        return press.about
    if case_class is CaseClass.TECHNICAL and press.terminal is not None:
        return keys.trouble_subject(press.terminal, press.kinds[0])
    household = around.household
    return keys.subject(household=None if household is None else household.id, terminal=press.sender)


def _key(press: Press, origin: Origin, case_class: CaseClass) -> tuple[str, bool]:
    terminal = press.sender or "?"
    if press.about is not None and press.seq is not None:
        return keys.found_key(press.about, press.seq), True
    if press.boot is not None and press.seq is not None:
        key = keys.numbered_key(terminal, epoch=origin.epoch, boot=press.boot, seq=press.seq)
        technical = case_class is CaseClass.TECHNICAL and press.site is None
        return (f"{key}:{press.kinds[0]}" if technical else key), True
    return keys.window_key(terminal, epoch=origin.epoch, kinds=press.kinds), False


async def _surroundings(
    conn: Connection, directory: Directory, press: Press, origin: Origin
) -> tuple[Surroundings, str | None]:
    """Find who is concerned; what belongs to nobody concerns the fallback of every site (D13)."""
    problem = "; ".join(press.problems) or None
    if origin.site is None:
        sites = await directory.sites(conn)
        if not sites:
            raise NoSite("no site is set up: nobody could be told. Apply a site file first.")
        if own := [site for site in sites if site.id == press.site]:
            return Surroundings(own[0], None, own[0].key), problem
        everybody = {party.id: party for site in sites for party in site.fallback}
        site = replace(sites[0], fallback=tuple(everybody.values()))
        return Surroundings(site, None, site.key), _and("unknown terminal", problem)
    site = await directory.site(conn, origin.site, origin.revision)
    if origin.household is None:
        return Surroundings(site, None, site.key), _and("the terminal is not assigned to a household", problem)
    try:
        household, key = await directory.household(conn, origin.household, origin.revision)
    except (ErasedKey, KeyringError):
        # Nobody can read where it is any more, but somebody still pressed: the fallback hears (D13).
        return Surroundings(site, None, site.key), _and("the record of the household cannot be read", problem)
    return Surroundings(site, household, key), problem


def _and(first: str, second: str | None) -> str:
    return first if second is None else f"{first}; {second}"


def _applying(
    kinds: Sequence[str], around: Surroundings, origin: Origin, *, found: bool
) -> tuple[list[Plan], list[str]]:
    """Return the plans for `kinds` here and now, and the kinds that none covers: those are for the fallback (D13)."""
    household, site = around.household, around.site
    readable = [kind for kind in kinds if kind != UNREADABLE]
    if household is None:
        return [], list(kinds)
    where = Situation(
        district=household.district,
        model=origin.model,
        local_time=origin.now.astimezone(ZoneInfo(site.timezone)).time(),
    )
    applying, uncovered = plans_for(readable, site.plans, where, found=found)
    return applying, uncovered if applying or uncovered else list(kinds)


def _legs(
    applying: Sequence[Plan],
    uncovered: Sequence[str],
    around: Surroundings,
    *,
    case_class: CaseClass,
    taking_part: Sequence[str] | None,
) -> list[PlannedLeg]:
    household = around.household
    return legs_of(
        applying,
        uncovered,
        parties=() if household is None else household.parties,
        fallback=around.site.fallback,
        case_class=case_class,
        agreements=agreements_of(household),
        taking_part=taking_part,
    )


def _told(legs: Sequence[LegRow]) -> list[dict[str, Any]]:
    return [
        {"leg": str(leg.id), "role": leg.role, "party": leg.party_id, "state": leg.state, "problem": leg.problem}
        for leg in legs
    ]


def _actor(press: Press) -> str:
    if press.about is not None:
        return "supervision"
    return f"terminal:{press.terminal or '?'}" if press.site is None else "auditor"


def _report(press: Press) -> dict[str, Any]:
    return {
        "terminal": press.terminal,
        "transport": press.transport,
        "boot": press.boot,
        "seq": press.seq,
        "kinds": list(press.kinds),
        "pressed_at": press.pressed_at,
        "received_at": press.received_at,
        "fix": press.fix,
        "battery_pct": press.battery_pct,
        "signal_dbm": press.signal_dbm,
        "problems": list(press.problems),
        "sha256": press.digest.hex(),
        "raw": base64.b64encode(press.payload[:_RAW_KEPT]).decode(),
    }


@dataclass(frozen=True, slots=True)
class _Opening:
    """A press that opens a case."""

    arrived: _Arrived
    known: KnownAlarm | None
    case: CaseRow
    planned: Sequence[PlannedLeg]
    delay: timedelta
    procedures: Sequence[str]

    def alarm(self, case_id: UUID) -> NewAlarm:
        """Return its alarm as it is stored."""
        return self.arrived.alarm(self.known, case_id=case_id)


def _opening(one: _Arrived, before: Standing, *, taking_part: list[str] | None = None) -> _Opening:
    press, origin, around, household = one.press, one.origin, one.around, one.around.household
    found = press.about is not None and one.case_class is CaseClass.TECHNICAL
    applying, uncovered = _applying(press.kinds, around, origin, found=found)
    alarm_id = one.alarm_id(before.alarm)
    location = best_location(press.fix, last=origin.last_fix, household=household, now=origin.now)
    # Rescuers who cannot be everywhere go where the lift stands still and the neighbours' terminals are dead as well.
    urgency = 2 if one.case_class is CaseClass.EMERGENCY and origin.in_incident else 1
    case = CaseRow(
        id=keys.case_id(alarm_id),
        subject=one.subject,
        case_class=one.case_class,
        state=CaseState.OPEN,
        district=around.site.district if household is None else household.district,
        site_id=around.site.id,
        household_id=None if household is None else household.id,
        terminal_id=press.terminal,
        kinds=list(dict.fromkeys(press.kinds)),
        urgency=urgency,
        begun_urgency=urgency,
        test=one.case_class is CaseClass.TEST,
        pressed_at=press.pressed_at,
        received_at=press.received_at,
        opened_at=origin.now,
        location=None if location is None else record_of(location),
        problem=one.problem,
        plans=[plan.name for plan in applying],
        privacy=stricter(*(plan.privacy for plan in applying)),
        owner=None,
        owned_at=None,
        safe_at=None,
        safe_by=None,
        closed_at=None,
        closed_by=None,
        outcome=None,
        note=None,
        previous=before.newest,
        key_id=around.key.id,
        journal_n=0,
        journal_head=Head().hash,
        drill_id=one.drill,
        taking_part=taking_part,
    )
    planned = _legs(applying, uncovered, around, case_class=one.case_class, taking_part=taking_part)
    spread = (alarm_id.int % 1_000_000) / 1_000_000  # the same on every replica
    delay = delay_of(press.kinds, applying, case_class=one.case_class, spread=spread)
    if one.case_class is CaseClass.TECHNICAL:
        local = origin.now.astimezone(ZoneInfo(around.site.timezone)).time()
        delay = max(delay, quiet_left(applying, local))
    begun = procedures_for(press.kinds, applying, case_class=one.case_class, drill=one.drill is not None)
    return _Opening(one, before.alarm, case, planned, delay, begun)


async def _open(conn: Connection, opening: Sequence[_Opening], *, worker: int | None) -> list[Raised]:
    calling = [
        fan_out.Calling(one.case, one.planned, one.arrived.around, one.arrived.origin.now, one.delay) for one in opening
    ]
    told = await fan_out.add_legs_of_all(conn, calling, worker=worker)
    journals = [_first_entries(one, legs) for one, (legs, _) in zip(opening, told, strict=True)]
    # The rows get the heads of their journals at once: a second version of each would cost as much as the first.
    heads = [journal.head for journal in journals]
    rows = [
        replace(one.case, journal_n=head.n, journal_head=head.hash) for one, head in zip(opening, heads, strict=True)
    ]
    wakes = [_wakes_at(one, legs) for one, (legs, _) in zip(opening, told, strict=True)]
    await cases.add_cases(conn, list(zip(rows, wakes, strict=True)))
    await flush_all(conn, journals, update_cases=False)
    await events.emit_all(conn, [_news(one, len(legs)) for one, (legs, _) in zip(opening, told, strict=True)])
    return [
        Raised(
            case_id=one.case.id,
            how="opened",
            notices=tuple(notices),
            terminal_uid=one.arrived.origin.terminal_uid,
            district=one.case.district,
        )
        for one, (_, notices) in zip(opening, told, strict=True)
    ]


def _wakes_at(one: _Opening, legs: Sequence[LegRow]) -> datetime | None:
    """Return when time alone changes something: at once if a procedure begins, else when a leg wants its next call.

    A power cut opens thousands of cases without a procedure: to look at each would find nothing.
    """
    if one.procedures:
        return one.arrived.origin.now
    wakes = [first_wake(Ladder.of_record(leg.ladder), leg.armed_at) for leg in legs if leg.state == LegState.PENDING]
    return min((at for at in wakes if at is not None), default=None)


def _first_entries(one: _Opening, legs: Sequence[LegRow]) -> Writer:
    case, press, now = one.case, one.arrived.press, one.arrived.origin.now
    journal = Writer(case.id, one.arrived.around.key)
    journal.add(Note("alarm.received", _report(press), actor=_actor(press)), at=now)
    journal.add(
        Note(
            "case.opened",
            {
                "class": case.case_class,
                "kinds": case.kinds,
                "household": case.household_id,
                "previous": None if case.previous is None else str(case.previous),
                "plans": case.plans,
                "drill": None if case.drill_id is None else str(case.drill_id),
                "location": case.location,
                "problem": case.problem,
                "told_after_s": one.delay.total_seconds(),
                "legs": _told(legs),
            },
        ),
        at=now,
    )
    return journal


def _news(one: _Opening, legs: int) -> NewEvent:
    case = one.case
    return NewEvent(
        kind="case.opened",
        district=case.district,
        case_id=case.id,
        data={
            "class": case.case_class,
            "kinds": case.kinds,
            "urgency": case.urgency,
            "test": case.test,
            "drill": None if case.drill_id is None else str(case.drill_id),
            "household": case.household_id,
            "terminal": case.terminal_id,
            "received_at": case.received_at.isoformat(),
            "location": case.location,
            "legs": legs,
        },
    )


async def _join(
    conn: Connection,
    directory: Directory,
    press: Press,
    origin: Origin,
    around: Surroundings,
    case: CaseRow,
    problem: str | None,
    *,
    worker: int | None,
) -> Raised:
    kinds = list(dict.fromkeys((*case.kinds, *press.kinds)))
    place = None if press.fix is None else place_of(press.fix)
    old = None if case.location is None else place_of(case.location)
    moved = place is not None and better(place, old, now=origin.now)
    # What the case began with stays in force (an open case keeps its plans); kinds new to it bring theirs.
    begun = await directory.plans_of(conn, around.site.id, case.plans)
    news = [kind for kind in press.kinds if kind not in (*case.kinds, UNREADABLE)]
    found = press.about is not None and case.case_class == CaseClass.TECHNICAL
    fresh, uncovered = _applying(news, around, origin, found=found)
    case = replace(
        case,
        kinds=kinds,
        plans=list(dict.fromkeys((*case.plans, *(plan.name for plan in fresh)))),
        privacy=stricter(case.privacy, *(plan.privacy for plan in fresh)),
        restored=[kind for kind in case.restored if kind not in press.kinds],
        urgency=case.urgency + 1,
        location=record_of(place) if moved and place is not None else case.location,
        problem=case.problem if problem is None else problem,
    )
    await conn.execute(
        "UPDATE cases SET kinds = %s, urgency = %s, location = %s, problem = %s, plans = %s, privacy = %s, "
        "restored = %s WHERE id = %s",
        (
            kinds,
            case.urgency,
            cases.jsonb(case.location),
            case.problem,
            case.plans,
            Jsonb(case.privacy),
            case.restored,
            case.id,
        ),
    )
    before = await cases.legs_of(conn, case.id)
    told = [leg for leg in before if _reachable(leg, around)]
    if await outbox.waiting(conn, case.id):
        # Nobody heard of it yet. Who presses while a fall can still be cancelled wants help now; a technical report
        # that comes again is waited for as before.
        told = []
        if case.case_class != CaseClass.TECHNICAL:
            await outbox.hurry(conn, case.id)
    if set(press.kinds) == {DURESS}:  # a silent call: whoever is not in its plan must not even hear of another press
        applying, _ = plans_for((DURESS,), around.site.plans)
        told = [leg for leg in told if any(leg.role in plan.roles for plan in applying)] or told
    notices = await fan_out.renotify(conn, case, told, reason="pressed_again", around=around, worker=worker, rearm=True)
    planned = _legs(
        [*begun, *fresh], uncovered, around, case_class=CaseClass(case.case_class), taking_part=case.taking_part
    )
    new, more = await fan_out.add_legs(conn, case, planned, around=around, worker=worker, now=origin.now)
    journal = Writer(
        case.id,
        await case_key(conn, directory.keyring, case, site=around.site),
        Head(case.journal_n, bytes(case.journal_head)),
    )
    journal.add(Note("alarm.received", _report(press), actor=_actor(press)), at=origin.now)
    journal.add(
        Note(
            "case.pressed_again",
            {"urgency": case.urgency, "kinds": kinds, "location": case.location, "told": len(told), "legs": _told(new)},
        ),
        at=origin.now,
    )
    await journal.flush(conn)
    await events.emit(
        conn,
        "case.updated",
        district=case.district,
        case_id=case.id,
        data={
            "reason": "pressed_again",
            "class": case.case_class,
            "kinds": kinds,
            "urgency": case.urgency,
            "test": case.test,
            "location": case.location,
        },
    )
    return Raised(
        case_id=case.id,
        how="joined",
        notices=(*notices, *more),
        terminal_uid=origin.terminal_uid,
        district=case.district,
    )


def _reachable(leg: LegRow, around: Surroundings) -> bool:
    party: Party | None = None if leg.party_id is None else around.party(leg.party_id)
    return party is not None and bool(party.channels) and leg.state not in (LegState.WITHDRAWN, LegState.SKIPPED)
