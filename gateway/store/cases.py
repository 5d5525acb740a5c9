"""Cases, alarms and legs in the database."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from gateway.domain.outbox import CALLS
from gateway.store.pool import Connection, as_jsonb

__all__ = [
    "CaseRow",
    "Delivered",
    "KnownAlarm",
    "LegRow",
    "NewAlarm",
    "Standing",
    "add_alarms",
    "add_cases",
    "add_legs",
    "by_id",
    "called_again",
    "count_repeats",
    "deliver",
    "fail_leg",
    "jsonb",
    "known_copy",
    "last_press",
    "legs_of",
    "lock_case",
    "lock_free_cases",
    "lock_subject",
    "lock_subjects",
    "overdue",
    "standing",
    "standings",
    "undeliver",
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
    begun_urgency: int = 1

    @property
    def presses(self) -> int:
        """How often it was pressed: a case in the midst of an incident begins with more urgency."""
        return self.urgency - self.begun_urgency + 1


_COLUMNS = """
    id, subject, class AS case_class, state, district, site_id, household_id, terminal_id, kinds, urgency, test,
    pressed_at, received_at, opened_at, location, problem, plans, privacy, owner, owned_at, safe_at, safe_by,
    closed_at, closed_by, outcome, note, previous, key_id, journal_n, journal_head, first_owner, seat_b, restored,
    drill_id, taking_part, begun_urgency
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
    return None if value is None else as_jsonb(value)


async def lock_subject(conn: Connection, subject: str) -> None:
    """Take the lock of a household or terminal until the transaction ends: one press at a time decides."""
    await lock_subjects(conn, [subject])


async def lock_subjects(conn: Connection, subjects: Sequence[str]) -> None:
    """Take the locks of several subjects, in an order that is the same for everybody (no deadlocks)."""
    await conn.execute(
        """
        SELECT pg_advisory_xact_lock(number)
        FROM (SELECT DISTINCT hashtextextended(subject, 7) AS number FROM unnest(%b::text[]) AS subject ORDER BY 1) AS l
        """,
        (list(subjects),),
    )


async def known_copy(conn: Connection, terminal: str | None, epoch: int, digest: bytes) -> UUID | None:
    """Return the case that these very bytes from this terminal once led to, however long ago, in this life of it."""
    mine = "terminal_id IS NULL" if terminal is None else "terminal_id = %(terminal)s"  # either finds the index
    cursor = await conn.execute(
        f"""
        SELECT case_id FROM alarm
        WHERE {mine} AND digest = %(digest)s AND epoch IS NOT DISTINCT FROM %(epoch)s LIMIT 1
        """,  # noqa: S608
        {"terminal": terminal, "digest": digest, "epoch": epoch},
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
    """Return the newest alarm under `key`, and lock and return the open case of a subject and the id of its newest."""
    (found,) = await standings(conn, [(subject, case_class, key)], lock=True)
    return found


async def standings(conn: Connection, asked: Sequence[tuple[str, str, str]], *, lock: bool) -> list[Standing]:
    """Return what is known for each of `asked` (subject, class, key); with `lock` the open cases are locked.

    In pipeline mode the three questions travel together.
    """
    subjects, classes, keys = [list(column) for column in zip(*asked, strict=True)]
    async with (
        conn.cursor() as alarm,
        conn.cursor(row_factory=class_row(CaseRow)) as case,
        conn.cursor() as newest,
    ):
        await alarm.execute(
            """
            SELECT a.key, a.id, a.occurrence, a.case_id, a.pressed_at, a.kinds, a.stored_at, c.state, a.test
            FROM unnest(%b::text[]) AS asked (key) CROSS JOIN LATERAL (
                SELECT * FROM alarm WHERE alarm.key = asked.key ORDER BY occurrence DESC LIMIT 1
            ) AS a JOIN cases c ON c.id = a.case_id
            """,
            (keys,),
        )
        await case.execute(
            f"""
            SELECT {_COLUMNS} FROM unnest(%b::text[], %b::text[]) AS asked (wanted, of_class)
            JOIN cases ON subject = wanted AND class = of_class AND state = 'open' {_LOCK if lock else ""}
            """,  # noqa: S608
            (subjects, classes),
        )
        await newest.execute(
            """
            SELECT wanted, of_class, n.id FROM unnest(%b::text[], %b::text[]) AS asked (wanted, of_class)
            CROSS JOIN LATERAL (
                SELECT id FROM cases WHERE subject = wanted AND class = of_class ORDER BY opened_at DESC LIMIT 1
            ) AS n
            """,
            (subjects, classes),
        )
        last = {(row[0], row[1]): row[2] for row in await newest.fetchall()}
        known = {row[0]: KnownAlarm(*row[1:]) for row in await alarm.fetchall()}
        open_now = {(row.subject, row.case_class): row for row in await case.fetchall()}
    return [
        Standing(known.get(key), open_now.get((subject, of_class)), last.get((subject, of_class)))
        for subject, of_class, key in asked
    ]


_LOCK = "FOR NO KEY UPDATE OF cases"


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


def _texts(values: Sequence[str]) -> str:
    """Return a ``text[]`` as PostgreSQL reads it: an array of arrays would be one of two dimensions."""
    escaped = (value.replace("\\", "\\\\").replace('"', '\\"') for value in values)
    return "{" + ",".join(f'"{value}"' for value in escaped) + "}"


async def add_cases(conn: Connection, opened: Sequence[tuple[CaseRow, datetime | None]]) -> None:
    """Store new cases, each with the time at which it is to be looked at first."""
    new = [case for case, _ in opened]
    await conn.execute(
        """
        INSERT INTO cases (id, subject, class, state, district, site_id, household_id, terminal_id, kinds, urgency,
                           test, pressed_at, received_at, opened_at, location, problem, plans, privacy, previous,
                           key_id, journal_n, journal_head, drill_id, taking_part, wake_at, begun_urgency)
        SELECT id, subject, class, state, district, site_id, household_id, terminal_id, kinds::text[], urgency,
               test, pressed_at, received_at, opened_at, location, problem, plans::text[], privacy, previous,
               key_id, journal_n, journal_head, drill_id, taking_part::text[], wake_at, urgency
        FROM unnest(%b::uuid[], %b::text[], %b::text[], %b::text[], %b::text[], %b::text[], %b::text[], %b::text[],
                    %b::text[], %b::int[], %b::bool[], %b::timestamptz[], %b::timestamptz[], %b::timestamptz[],
                    %b::jsonb[], %b::text[], %b::text[], %b::jsonb[], %b::uuid[], %b::uuid[], %b::int[], %b::bytea[],
                    %b::uuid[], %b::text[], %b::timestamptz[])
             AS new (id, subject, class, state, district, site_id, household_id, terminal_id, kinds, urgency,
                     test, pressed_at, received_at, opened_at, location, problem, plans, privacy, previous,
                     key_id, journal_n, journal_head, drill_id, taking_part, wake_at)
        """,
        (
            [case.id for case in new],
            [case.subject for case in new],
            [str(case.case_class) for case in new],
            [str(case.state) for case in new],
            [case.district for case in new],
            [case.site_id for case in new],
            [case.household_id for case in new],
            [case.terminal_id for case in new],
            [_texts(case.kinds) for case in new],
            [case.urgency for case in new],
            [case.test for case in new],
            [case.pressed_at for case in new],
            [case.received_at for case in new],
            [case.opened_at for case in new],
            [jsonb(case.location) for case in new],
            [case.problem for case in new],
            [_texts(case.plans) for case in new],
            [as_jsonb(case.privacy) for case in new],
            [case.previous for case in new],
            [case.key_id for case in new],
            [case.journal_n for case in new],
            [case.journal_head for case in new],
            [case.drill_id for case in new],
            [None if case.taking_part is None else _texts(case.taking_part) for case in new],
            [at for _, at in opened],
        ),
    )


async def add_alarms(conn: Connection, new: Sequence[NewAlarm]) -> None:
    """Store new alarms."""
    await conn.execute(
        """
        INSERT INTO alarm (id, key, occurrence, case_id, terminal_uid, terminal_id, epoch, boot, seq, kinds, test,
                           pressed_at, received_at, transport, fix, battery_pct, signal_dbm, problems, digest,
                           drill_id)
        SELECT id, key, occurrence, case_id, terminal_uid, terminal_id, epoch, boot, seq, kinds::text[], test,
               pressed_at, received_at, transport, fix, battery_pct, signal_dbm, problems::text[], digest,
               drill_id
        FROM unnest(%b::uuid[], %b::text[], %b::int[], %b::uuid[], %b::uuid[], %b::text[], %b::int[], %b::bigint[],
                    %b::bigint[], %b::text[], %b::bool[], %b::timestamptz[], %b::timestamptz[], %b::text[],
                    %b::jsonb[], %b::int2[], %b::int2[], %b::text[], %b::bytea[],
                    %b::uuid[])
             AS new (id, key, occurrence, case_id, terminal_uid, terminal_id, epoch, boot, seq, kinds, test,
                     pressed_at, received_at, transport, fix, battery_pct, signal_dbm, problems, digest,
                     drill_id)
        """,
        (
            [alarm.id for alarm in new],
            [alarm.key for alarm in new],
            [alarm.occurrence for alarm in new],
            [alarm.case_id for alarm in new],
            [alarm.terminal_uid for alarm in new],
            [alarm.terminal_id for alarm in new],
            [alarm.epoch for alarm in new],
            [alarm.boot for alarm in new],
            [alarm.seq for alarm in new],
            [_texts(alarm.kinds) for alarm in new],
            [alarm.test for alarm in new],
            [alarm.pressed_at for alarm in new],
            [alarm.received_at for alarm in new],
            [alarm.transport for alarm in new],
            [jsonb(alarm.fix) for alarm in new],
            [alarm.battery_pct for alarm in new],
            [alarm.signal_dbm for alarm in new],
            [_texts(alarm.problems) for alarm in new],
            [alarm.digest for alarm in new],
            [alarm.drill_id for alarm in new],
        ),
    )


async def count_repeats(conn: Connection, alarms: Sequence[UUID]) -> None:
    """Note that the terminals sent these alarms once more."""
    await conn.execute(
        "UPDATE alarm SET repeats = repeats + 1, repeated_at = onekey_now() WHERE id = ANY(%b)", (list(alarms),)
    )


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
        FROM unnest(%b::uuid[], %b::uuid[], %b::text[], %b::text[], %b::text[], %b::text[], %b::text[], %b::int[],
                    %b::jsonb[], %b::timestamptz[], %b::text[])
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
            [str(leg.state) for leg in legs],
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


@dataclass(frozen=True, slots=True)
class Delivered:
    """A notice of a leg that its channel took."""

    leg: UUID
    number: int
    channel: int
    at: datetime


async def deliver(conn: Connection, delivered: Sequence[Delivered]) -> None:
    """Note what was delivered; a leg is done with that only by its newest call, since word of a place is no call."""
    of_leg: dict[UUID, Delivered] = {}
    for one in delivered:
        before = of_leg.setdefault(one.leg, one)
        if before is not one:
            at, number = min(before.at, one.at), max(before.number, one.number)
            of_leg[one.leg] = Delivered(one.leg, number, one.channel, at)
    await conn.execute(
        """
        UPDATE leg SET delivered_at = coalesce(delivered_at, new.at), channel = new.channel,
            state = CASE WHEN state = 'pending' AND NOT EXISTS (
                SELECT FROM notice n WHERE n.leg_id = leg.id AND n.number > new.number
                    AND n.reason = ANY(%b)
            ) THEN 'delivered' ELSE state END
        FROM unnest(%b::uuid[], %b::int[], %b::int[], %b::timestamptz[]) AS new (id, number, channel, at)
        WHERE leg.id = new.id
        """,
        (
            list(CALLS),
            [one.leg for one in of_leg.values()],
            [one.number for one in of_leg.values()],
            [one.channel for one in of_leg.values()],
            [one.at for one in of_leg.values()],
        ),
    )


async def undeliver(conn: Connection, leg: UUID) -> None:
    """Note that what counted as delivered never arrived; an answer that is there stays."""
    await conn.execute(
        "UPDATE leg SET state = 'pending', delivered_at = NULL WHERE id = %s AND state = 'delivered'", (leg,)
    )


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
