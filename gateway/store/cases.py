"""Cases, alarms and legs in the database."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from gateway.store.pool import Connection

__all__ = [
    "CaseRow",
    "KnownAlarm",
    "LegRow",
    "NewAlarm",
    "Standing",
    "add_alarm",
    "add_case",
    "add_legs",
    "by_id",
    "called_again",
    "count_repeat",
    "fail_leg",
    "jsonb",
    "known_copy",
    "last_press",
    "legs_of",
    "lock_case",
    "lock_free_cases",
    "lock_subject",
    "overdue",
    "standing",
]


@dataclass(frozen=True, slots=True)
class CaseRow:
    """A case as it stands in the table."""

    id: UUID
    subject: str
    case_class: str
    state: str
    district: str
    site_id: str
    household_id: str | None
    terminal_id: str | None
    kinds: list[str]
    urgency: int
    test: bool
    pressed_at: datetime | None
    received_at: datetime
    opened_at: datetime
    location: dict[str, Any] | None
    problem: str | None
    plans: list[str]
    privacy: dict[str, str]
    owner: str | None
    owned_at: datetime | None
    safe_at: datetime | None
    safe_by: str | None
    closed_at: datetime | None
    closed_by: str | None
    outcome: str | None
    note: str | None
    previous: UUID | None
    key_id: UUID
    journal_n: int
    journal_head: bytes
    first_owner: str | None = None
    seat_b: str | None = None
    restored: list[str] = field(default_factory=list)
    drill_id: UUID | None = None
    taking_part: list[str] | None = None


_COLUMNS = """
    id, subject, class AS case_class, state, district, site_id, household_id, terminal_id, kinds, urgency, test,
    pressed_at, received_at, opened_at, location, problem, plans, privacy, owner, owned_at, safe_at, safe_by,
    closed_at, closed_by, outcome, note, previous, key_id, journal_n, journal_head, first_owner, seat_b, restored,
    drill_id, taking_part
"""


@dataclass(frozen=True, slots=True)
class LegRow:
    """A leg as it stands in the table."""

    id: UUID
    case_id: UUID
    party_id: str | None
    role: str
    origin: str
    state: str
    channel: int
    problem: str | None
    notices: int
    created_at: datetime
    delivered_at: datetime | None
    ended_at: datetime | None
    ladder: dict[str, Any] | None
    armed_at: datetime
    calls: int = 1
    overdue_at: datetime | None = None
    instead_of: str | None = None


_LEG_COLUMNS = """
    id, case_id, party_id, role, origin, state, channel, problem, notices, created_at, delivered_at, ended_at,
    ladder, armed_at, calls, overdue_at, instead_of
"""


@dataclass(frozen=True, slots=True)
class KnownAlarm:
    """The newest alarm under a key and how its case stands. ``stored_at`` is the database's word."""

    id: UUID
    occurrence: int
    case_id: UUID
    pressed_at: datetime | None
    kinds: list[str]
    stored_at: datetime
    case_state: str
    test: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAlarm:
    """An alarm about to be stored."""

    id: UUID
    key: str
    occurrence: int
    case_id: UUID
    terminal_uid: UUID | None
    terminal_id: str | None
    epoch: int | None
    boot: int | None
    seq: int | None
    kinds: list[str]
    test: bool
    pressed_at: datetime | None
    received_at: datetime
    transport: str
    fix: dict[str, Any] | None
    battery_pct: int | None
    signal_dbm: int | None
    problems: list[str]
    digest: bytes
    drill_id: UUID | None = None


def jsonb(value: dict[str, Any] | None) -> Jsonb | None:
    """Return a value for a nullable ``jsonb`` column."""
    return None if value is None else Jsonb(value)


async def lock_subject(conn: Connection, subject: str) -> None:
    """Take the lock of a household or terminal until the transaction ends: one press at a time decides."""
    await conn.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 7))", (subject,))


async def known_copy(conn: Connection, terminal: str | None, digest: bytes) -> UUID | None:
    """Return the case that these very bytes from this terminal once led to, however long ago."""
    mine = "terminal_id IS NULL" if terminal is None else "terminal_id = %(terminal)s"  # either finds the index
    cursor = await conn.execute(
        f"SELECT case_id FROM alarm WHERE {mine} AND digest = %(digest)s LIMIT 1",  # noqa: S608
        {"terminal": terminal, "digest": digest},
    )
    row = await cursor.fetchone()
    return None if row is None else row[0]


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known already when a press comes in."""

    alarm: KnownAlarm | None
    case: CaseRow | None
    newest: UUID | None


async def standing(conn: Connection, *, subject: str, case_class: str, key: str) -> Standing:
    """Return the newest alarm under `key`, and lock and return the open case of a subject and the id of its newest.

    In pipeline mode the three questions travel together.
    """
    async with (
        conn.cursor(row_factory=class_row(KnownAlarm)) as alarm,
        conn.cursor(row_factory=class_row(CaseRow)) as case,
        conn.cursor() as newest,
    ):
        await alarm.execute(
            """
            SELECT a.id, a.occurrence, a.case_id, a.pressed_at, a.kinds, a.stored_at, c.state AS case_state, a.test
            FROM alarm a JOIN cases c ON c.id = a.case_id WHERE a.key = %s ORDER BY a.occurrence DESC LIMIT 1
            """,
            (key,),
        )
        await case.execute(
            f"SELECT {_COLUMNS} FROM cases WHERE subject = %s AND class = %s AND state = 'open' FOR NO KEY UPDATE",  # noqa: S608
            (subject, case_class),
        )
        await newest.execute(
            "SELECT id FROM cases WHERE subject = %s AND class = %s ORDER BY opened_at DESC LIMIT 1",
            (subject, case_class),
        )
        row = await newest.fetchone()
        return Standing(await alarm.fetchone(), await case.fetchone(), None if row is None else row[0])


async def by_id(conn: Connection, case_id: UUID) -> CaseRow | None:
    """Return a case."""
    async with conn.cursor(row_factory=class_row(CaseRow)) as cursor:
        await cursor.execute(f"SELECT {_COLUMNS} FROM cases WHERE id = %s", (case_id,))  # noqa: S608
        return await cursor.fetchone()


async def lock_case(conn: Connection, case_id: UUID) -> CaseRow | None:
    """Lock and return a case. Whoever changes a case or its legs takes this lock first."""
    async with conn.cursor(row_factory=class_row(CaseRow)) as cursor:
        await cursor.execute(f"SELECT {_COLUMNS} FROM cases WHERE id = %s FOR NO KEY UPDATE", (case_id,))  # noqa: S608
        return await cursor.fetchone()


async def lock_free_cases(conn: Connection, ids: Collection[UUID]) -> list[CaseRow]:
    """Lock and return those of `ids` that nobody else holds at this moment; it never waits."""
    async with conn.cursor(row_factory=class_row(CaseRow)) as cursor:
        await cursor.execute(
            f"SELECT {_COLUMNS} FROM cases WHERE id = ANY(%s) ORDER BY id FOR NO KEY UPDATE SKIP LOCKED",  # noqa: S608
            (list(ids),),
        )
        return await cursor.fetchall()


async def add_case(conn: Connection, case: CaseRow) -> None:
    """Store a new case."""
    await conn.execute(
        """
        INSERT INTO cases (id, subject, class, state, district, site_id, household_id, terminal_id, kinds, urgency,
                           test, pressed_at, received_at, opened_at, location, problem, plans, privacy, previous,
                           key_id, journal_n, journal_head, drill_id, taking_part)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
        """,
        (
            case.id,
            case.subject,
            case.case_class,
            case.state,
            case.district,
            case.site_id,
            case.household_id,
            case.terminal_id,
            case.kinds,
            case.urgency,
            case.test,
            case.pressed_at,
            case.received_at,
            case.opened_at,
            jsonb(case.location),
            case.problem,
            case.plans,
            Jsonb(case.privacy),
            case.previous,
            case.key_id,
            case.journal_n,
            case.journal_head,
            case.drill_id,
            case.taking_part,
        ),
    )


async def add_alarm(conn: Connection, alarm: NewAlarm) -> None:
    """Store a new alarm."""
    await conn.execute(
        """
        INSERT INTO alarm (id, key, occurrence, case_id, terminal_uid, terminal_id, epoch, boot, seq, kinds, test,
                           pressed_at, received_at, transport, fix, battery_pct, signal_dbm, problems, digest,
                           drill_id)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
        """,
        (
            alarm.id,
            alarm.key,
            alarm.occurrence,
            alarm.case_id,
            alarm.terminal_uid,
            alarm.terminal_id,
            alarm.epoch,
            alarm.boot,
            alarm.seq,
            alarm.kinds,
            alarm.test,
            alarm.pressed_at,
            alarm.received_at,
            alarm.transport,
            jsonb(alarm.fix),
            alarm.battery_pct,
            alarm.signal_dbm,
            alarm.problems,
            alarm.digest,
            alarm.drill_id,
        ),
    )


async def count_repeat(conn: Connection, alarm_id: UUID) -> None:
    """Note that the terminal sent this alarm once more."""
    await conn.execute("UPDATE alarm SET repeats = repeats + 1, repeated_at = onekey_now() WHERE id = %s", (alarm_id,))


async def add_legs(conn: Connection, legs: Sequence[LegRow], *, district: str) -> list[UUID]:
    """Store legs and return the ids of those that were not there yet."""
    if not legs:
        return []
    cursor = await conn.execute(
        """
        INSERT INTO leg (id, case_id, party_id, role, district, origin, state, problem, notices, ended_at, ladder,
                         armed_at, instead_of)
        SELECT id, case_id, party_id, role, %s, origin, state, problem, notices,
               CASE WHEN state IN ('pending', 'delivered') THEN NULL ELSE onekey_now() END, ladder, armed_at, instead_of
        FROM unnest(%s::uuid[], %s::uuid[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::int[],
                    %s::jsonb[], %s::timestamptz[], %s::text[])
             AS new (id, case_id, party_id, role, origin, state, problem, notices, ladder, armed_at, instead_of)
        ON CONFLICT DO NOTHING RETURNING id
        """,
        (
            district,
            [leg.id for leg in legs],
            [leg.case_id for leg in legs],
            [leg.party_id for leg in legs],
            [leg.role for leg in legs],
            [leg.origin for leg in legs],
            [leg.state for leg in legs],
            [leg.problem for leg in legs],
            [leg.notices for leg in legs],
            [jsonb(leg.ladder) for leg in legs],
            [leg.armed_at for leg in legs],
            [leg.instead_of for leg in legs],
        ),
    )
    return [row[0] for row in await cursor.fetchall()]


async def called_again(conn: Connection, leg: UUID, *, calls: int) -> None:
    """Note how many calls were made on a leg since it was armed."""
    await conn.execute("UPDATE leg SET calls = %s WHERE id = %s", (calls, leg))


async def overdue(conn: Connection, leg: UUID) -> datetime:
    """Note that the deadline of a leg passed without an answer; returns when that was noted."""
    cursor = await conn.execute("UPDATE leg SET overdue_at = onekey_now() WHERE id = %s RETURNING overdue_at", (leg,))
    row = await cursor.fetchone()
    assert row is not None
    at: datetime = row[0]
    return at


async def legs_of(conn: Connection, case_id: UUID) -> list[LegRow]:
    """Return the legs of a case in the order in which they were planned."""
    async with conn.cursor(row_factory=class_row(LegRow)) as cursor:
        await cursor.execute(
            f"SELECT {_LEG_COLUMNS} FROM leg WHERE case_id = %s ORDER BY created_at, role, party_id",  # noqa: S608
            (case_id,),
        )
        return await cursor.fetchall()


async def fail_leg(conn: Connection, leg: UUID, problem: str) -> datetime:
    """End a leg that cannot be carried out; returns when."""
    cursor = await conn.execute(
        "UPDATE leg SET state = 'failed', ended_at = onekey_now(), problem = %s WHERE id = %s RETURNING ended_at",
        (problem, leg),
    )
    row = await cursor.fetchone()
    assert row is not None
    at: datetime = row[0]
    return at


async def last_press(conn: Connection, case_id: UUID) -> datetime:
    """Return when the newest alarm of a case was stored."""
    row = await (await conn.execute("SELECT max(stored_at) FROM alarm WHERE case_id = %s", (case_id,))).fetchone()
    assert row is not None
    at: datetime = row[0]
    return at
