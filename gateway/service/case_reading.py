"""Reading: cases as a list and whole, the directory page by page, and what a signed link shows."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from gateway.domain import journal
from gateway.domain.case import CaseState, LegState, NotFound
from gateway.domain.directory import Address, Household, Party, Person
from gateway.domain.location import Location
from gateway.domain.privacy import Privacy, privacy_of
from gateway.keyring import ErasedKey, Keyring, KeyringError
from gateway.service.disclosures import disclose, shows_health
from gateway.service.paging import NOT_OURS, BadCursor, Page, page_of, read_cursor
from gateway.service.places import place_of
from gateway.service.read_desk import Desk, desk_of
from gateway.service.views import kinds_for
from gateway.store import cases, quarantine, queries
from gateway.store.cases import CaseRow, LegRow
from gateway.store.directory import Directory, SiteView
from gateway.store.disclosures import Disclosure
from gateway.store.pool import Connection, Pool
from gateway.store.quarantine import Kept
from gateway.store.queries import (
    AlarmRow,
    AnswerRow,
    AttemptRow,
    CaseLine,
    HouseholdLine,
    JournalRow,
    NoticeLine,
    PersonLine,
    TerminalLine,
)

__all__ = [
    "CaseFile",
    "HouseholdRecord",
    "LegFile",
    "LinkView",
    "PartyRecord",
    "PersonRecord",
    "TimelineEntry",
    "case_file",
    "list_cases",
    "list_households",
    "list_parties",
    "list_persons",
    "list_quarantine",
    "list_terminals",
    "read_case",
    "read_line",
    "read_link",
    "read_quarantine",
]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _before(cursor: str | None) -> tuple[datetime, UUID] | None:
    text = read_cursor(cursor)
    if text is None:
        return None
    micros, _, name = text.partition(":")
    try:
        return _EPOCH + timedelta(microseconds=int(micros)), UUID(name)
    except (ValueError, OverflowError) as exc:
        raise BadCursor(NOT_OURS) from exc


# Cases


async def list_cases(
    pool: Pool,
    *,
    state: str | None = None,
    case_class: str | None = None,
    district: str | None = None,
    household: str | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[CaseLine]:
    """Return cases, newest first. A case opened while somebody leafs through shifts nothing.

    Raises:
        BadCursor: Not a cursor of ours.
    """
    async with pool.connection() as conn:
        lines = await queries.page_of_cases(
            conn,
            state=state,
            case_class=case_class,
            district=district,
            household=household,
            before=_before(cursor),
            limit=limit + 1,
        )
    return page_of(lines, limit, lambda line: f"{(line.opened_at - _EPOCH) // timedelta(microseconds=1)}:{line.id}")


@dataclass(frozen=True, slots=True)
class LegFile:
    """A leg with all that happened on it."""

    leg: LegRow
    party: Party | None
    notices: list[tuple[NoticeLine, list[AttemptRow]]]
    answers: list[AnswerRow]


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """An entry of the journal, opened. ``data`` is None when the person was erased, or it cannot be opened."""

    n: int
    at: datetime
    kind: str
    actor: str
    data: dict[str, Any] | None
    erased: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseFile:
    """A whole case. ``broken`` tells where the chain breaks.

    ``household`` is None where there is none, and where the person was erased: whoever lives there now is another.
    """

    case: CaseRow
    site: SiteView
    household: Household | None
    alarms: list[AlarmRow]
    legs: list[LegFile]
    desk: Desk
    chain: list[JournalRow]
    timeline: list[TimelineEntry]
    broken: journal.Break | None
    now: datetime


async def read_case(pool: Pool, directory: Directory, case_id: UUID, *, by: str | None = None) -> CaseFile:
    """Return a case with everything known about it, as of one instant, to be shown to `by` (R22).

    Raises:
        NotFound: No such case.
    """
    async with pool.connection() as conn, conn.transaction():
        file = await case_file(conn, directory, case_id)
    if by is not None:
        health = shows_health(file.household, Privacy.FULL)
        await disclose(
            pool, directory, Disclosure(case_id=case_id, who=by, what="case", level=Privacy.FULL, health=health)
        )
    return file


async def case_file(conn: Connection, directory: Directory, case_id: UUID) -> CaseFile:
    """Return a case as `read_case` does; from here on the caller's transaction reads as of one instant.

    Raises:
        NotFound: No such case.
    """
    now = await _instant(conn)
    case = await cases.by_id(conn, case_id)
    if case is None:
        raise NotFound(f"There is no case {case_id}.")
    site, household = await _place(conn, directory, case)
    legs = await cases.legs_of(conn, case_id)
    known = {party.id: party for party in await directory.parties(conn, await queries.party_names(conn, case_id))}
    notices = await queries.notices_of(conn, case_id)
    attempts = await queries.attempts_of(conn, case_id)
    answers = await queries.answers_of(conn, case_id)
    alarms = await queries.alarms_of(conn, case_id)
    chain = await queries.journal_of(conn, case_id)
    desk = await desk_of(conn, case_id)
    if chain and chain[0].wrapped is None:
        household = None
    return CaseFile(
        case=case,
        site=site,
        household=household,
        alarms=alarms,
        legs=[
            LegFile(
                leg,
                None if leg.party_id is None else known.get(leg.party_id),
                [
                    (notice, [attempt for attempt in attempts if attempt.notice_id == notice.id])
                    for notice in notices
                    if notice.leg_id == leg.id
                ],
                [answer for answer in answers if answer.leg_id == leg.id],
            )
            for leg in legs
        ],
        desk=desk,
        chain=chain,
        timeline=[_opened(directory.keyring, row) for row in chain],
        broken=journal.verify([row.entry for row in chain], head=bytes(case.journal_head), count=case.journal_n),
        now=now,
    )


async def read_line(pool: Pool, case_id: UUID) -> CaseRow:
    """Return a case without what belongs to it.

    Raises:
        NotFound: No such case.
    """
    async with pool.connection() as conn:
        case = await cases.by_id(conn, case_id)
    if case is None:
        raise NotFound(f"There is no case {case_id}.")
    return case


async def _instant(conn: Connection) -> datetime:
    """Make the transaction read as of one instant, and return that."""
    await conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
    row = await (await conn.execute("SELECT onekey_now()")).fetchone()
    assert row is not None
    now: datetime = row[0]
    return now


async def _place(conn: Connection, directory: Directory, case: CaseRow) -> tuple[SiteView, Household | None]:
    row = await (await conn.execute("SELECT revision FROM site WHERE id = %s", (case.site_id,))).fetchone()
    assert row is not None
    site = await directory.site(conn, case.site_id, row[0])
    if case.household_id is None:
        return site, None
    try:
        household, _ = await directory.household(conn, case.household_id, row[0])
    except ErasedKey:
        return site, None
    return site, household


def _opened(keyring: Keyring, row: JournalRow) -> TimelineEntry:
    entry = row.entry
    try:
        data: Any = keyring.unwrap(row.key_id, row.wrapped).open(
            entry.sealed, about=f"journal {entry.case_id} {entry.n}"
        )
    except ErasedKey:
        return TimelineEntry(entry.n, entry.at, entry.kind, entry.actor, None, erased=True)
    except KeyringError:  # somebody altered it: the chain says so, and the rest can still be read
        data = None
    return TimelineEntry(entry.n, entry.at, entry.kind, entry.actor, data, erased=False)


# The directory


@dataclass(frozen=True, slots=True)
class PartyRecord:
    """A party and the kinds of its channels; never their secrets."""

    id: str
    role: str
    district: str
    active: bool
    name: str | None
    phone: str | None
    channels: list[str]


@dataclass(frozen=True, slots=True)
class PersonRecord:
    """A person; ``person`` is None after an erasure."""

    line: PersonLine
    person: Person | None


@dataclass(frozen=True, slots=True)
class HouseholdRecord:
    """A household; ``address`` is None after an erasure."""

    line: HouseholdLine
    address: Address | None


def _record(keyring: Keyring, key_id: UUID, wrapped: bytes | None, sealed: bytes, about: str) -> Any:
    try:
        return keyring.unwrap(key_id, wrapped).open(bytes(sealed), about=about)
    except ErasedKey:
        return None


async def list_parties(
    pool: Pool,
    directory: Directory,
    *,
    district: str | None = None,
    role: str | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[PartyRecord]:
    """Return parties by id."""
    async with pool.connection() as conn:
        lines = await queries.parties(conn, district=district, role=role, after=read_cursor(cursor), limit=limit + 1)
    found = []
    for line in lines:
        record = _record(directory.keyring, line.key_id, line.wrapped, line.sealed, f"party {line.id}") or {}
        kinds = [channel["kind"] for channel in record.get("channels", ())]
        found.append(
            PartyRecord(line.id, line.role, line.district, line.active, record.get("name"), record.get("phone"), kinds)
        )
    return page_of(found, limit, lambda party: party.id)


async def list_persons(
    pool: Pool,
    directory: Directory,
    *,
    district: str | None = None,
    household: str | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[PersonRecord]:
    """Return persons by id."""
    async with pool.connection() as conn:
        lines = await queries.persons(
            conn, district=district, household=household, after=read_cursor(cursor), limit=limit + 1
        )
    found = [
        PersonRecord(
            line,
            None
            if line.wrapped is None
            else directory.person(line.id, bytes(line.sealed), directory.keyring.unwrap(line.key_id, line.wrapped)),
        )
        for line in lines
    ]
    return page_of(found, limit, lambda record: record.line.id)


async def list_households(
    pool: Pool, directory: Directory, *, district: str | None = None, cursor: str | None = None, limit: int = 50
) -> Page[HouseholdRecord]:
    """Return households by id."""
    async with pool.connection() as conn:
        lines = await queries.households(conn, district=district, after=read_cursor(cursor), limit=limit + 1)
    found = []
    for line in lines:
        record = _record(directory.keyring, line.key_id, line.wrapped, line.sealed, f"household {line.id}")
        found.append(HouseholdRecord(line, None if record is None else Address(**record)))
    return page_of(found, limit, lambda record: record.line.id)


async def list_terminals(
    pool: Pool,
    *,
    district: str | None = None,
    household: str | None = None,
    silent_for: timedelta | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[TerminalLine]:
    """Return terminals by id, each with its newest state."""
    async with pool.connection() as conn:
        lines = await queries.terminals(
            conn,
            district=district,
            household=household,
            silent_for=silent_for,
            after=read_cursor(cursor),
            limit=limit + 1,
        )
    return page_of(lines, limit, lambda line: line.id)


# The quarantine


async def list_quarantine(
    pool: Pool, *, state: str | None = None, district: str | None = None, cursor: str | None = None, limit: int = 50
) -> Page[Kept]:
    """Return messages that could not be read, newest first."""
    text = read_cursor(cursor)
    if text is not None and not (text.isascii() and text.isdigit() and len(text) < 19):
        raise BadCursor(NOT_OURS)
    before = None if text is None else int(text)
    async with pool.connection() as conn:
        kept = await quarantine.listing(conn, before=before, state=state, district=district, limit=limit + 1)
    return page_of(kept, limit, lambda one: str(one.id))


async def read_quarantine(pool: Pool, number: int) -> Kept:
    """Return a message that could not be read.

    Raises:
        NotFound: No such message.
    """
    async with pool.connection() as conn:
        kept = await quarantine.one(conn, number)
    if kept is None:
        raise NotFound(f"There is no message {number} in quarantine.")
    return kept


# A signed link


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkView:
    """What whoever holds the link of a leg may see (R22): nothing personal is in here that their role may not know.

    Once the case or the leg is over, the link tells that and no more: it may lie about in a chat for years.
    """

    leg_id: UUID
    role: str
    locale: str
    timezone: str
    state: CaseState
    leg_state: LegState
    emergency: bool
    test: bool
    kinds: tuple[str, ...]
    presses: int
    received_at: datetime
    now: datetime
    answer: AnswerRow | None
    address: str | None = None
    landmark: str | None = None
    approach: str | None = None
    persons: tuple[Person, ...] = ()
    location: Location | None = None

    @property
    def over(self) -> bool:
        """Is there nothing left to answer?"""
        return self.state is CaseState.CLOSED or self.leg_state in (LegState.WITHDRAWN, LegState.SKIPPED)


async def read_link(pool: Pool, directory: Directory, token: str, *, shown: bool = False) -> LinkView:
    """Return what the holder of a signed link may see. It ends nothing: a link that was fetched is not a human (I7).

    With `shown` it is put on record that the party saw it (R22).

    Raises:
        NotFound: We did not make this link.
    """
    leg_id = directory.keyring.read_link(token)
    if leg_id is None:
        raise NotFound("This link is not valid.")
    async with pool.connection() as conn, conn.transaction():
        now = await _instant(conn)
        case_id = await queries.case_of_leg(conn, leg_id)
        case = None if case_id is None else await cases.by_id(conn, case_id)
        if case is None:
            raise NotFound("This link is not valid.")
        leg = next(leg for leg in await cases.legs_of(conn, case.id) if leg.id == leg_id)
        site, household = await _place(conn, directory, case)
        answers = [answer for answer in await queries.answers_of(conn, case.id) if answer.leg_id == leg_id]
    view = LinkView(
        leg_id=leg_id,
        role=leg.role,
        locale=site.locale,
        timezone=site.timezone,
        state=CaseState(case.state),
        leg_state=LegState(leg.state),
        emergency=case.case_class == "emergency",
        test=case.test,
        kinds=kinds_for(leg.party_id, leg.role, kinds=case.kinds, site=site),
        presses=case.presses,
        received_at=case.received_at,
        now=now,
        answer=answers[-1] if answers else None,
    )
    if view.over:
        return view
    if shown:
        level = privacy_of(leg.role, case.privacy)
        who, health = f"party:{leg.party_id}", shows_health(household, level)
        await disclose(
            pool, directory, Disclosure(case_id=case.id, who=who, what="answer_page", level=level, health=health)
        )
    return _with_place(view, case, household)


def _with_place(view: LinkView, case: CaseRow, household: Household | None) -> LinkView:
    level = privacy_of(view.role, case.privacy)
    if household is not None:
        view = replace(view, address=household.address.text(), landmark=household.address.landmark)
    if level is Privacy.NEIGHBOUR:
        return view
    if household is not None:
        persons = household.persons
        if level is not Privacy.FULL:
            persons = tuple(replace(person, health={}) for person in persons)
        view = replace(view, approach=household.address.approach, persons=persons)
    return replace(view, location=None if case.location is None else place_of(case.location))
