"""What the API asks and changes: pages of cases and of the directory, one case with everything, figures."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from psycopg.rows import class_row, dict_row

from gateway.domain.journal import Entry
from gateway.store.pool import Connection

__all__ = [
    "AlarmRow",
    "AnswerRow",
    "AttemptRow",
    "CaseLine",
    "Figures",
    "HouseholdLine",
    "JournalRow",
    "NoticeLine",
    "PartyLine",
    "PersonLine",
    "TerminalLine",
    "alarm_lanes",
    "alarms_of",
    "answers_of",
    "attempts_of",
    "case_ids",
    "case_of_leg",
    "count_cases",
    "figures",
    "home_of",
    "households",
    "journal_of",
    "last_answer",
    "live_cases",
    "lock_due",
    "lock_person",
    "lock_sites",
    "notices_of",
    "own",
    "page_of_cases",
    "parties",
    "party_names",
    "persons",
    "set_closed",
    "set_leg_state",
    "set_safe",
    "site_key",
    "terminal",
    "terminals",
    "told_legs",
    "withdraw_legs",
]


# One case


@dataclass(frozen=True, slots=True)
class AlarmRow:
    """An alarm of a case."""

    id: UUID
    terminal_id: str | None
    transport: str
    kinds: list[str]
    test: bool
    pressed_at: datetime | None
    received_at: datetime
    stored_at: datetime
    boot: int | None
    seq: int | None
    fix: dict[str, Any] | None
    battery_pct: int | None
    signal_dbm: int | None
    problems: list[str]
    repeats: int
    repeated_at: datetime | None


@dataclass(frozen=True, slots=True)
class NoticeLine:
    """A notice of a leg."""

    id: str
    leg_id: UUID
    number: int
    reason: str
    state: str
    tries: int
    queued_at: datetime
    due_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """One try to deliver a notice."""

    notice_id: str
    channel: str
    started_at: datetime
    answered_at: datetime
    outcome: str
    status: int | None
    detail: str | None


@dataclass(frozen=True, slots=True)
class AnswerRow:
    """What a party answered."""

    leg_id: UUID
    answer: str
    reason: str | None
    minutes: int | None
    by_whom: str | None
    via: str
    at: datetime


@dataclass(frozen=True, slots=True)
class JournalRow:
    """An entry of a journal with the key it is sealed under; ``wrapped`` is None once that was erased."""

    entry: Entry
    key_id: UUID
    wrapped: bytes | None


async def alarms_of(conn: Connection, case_id: UUID) -> list[AlarmRow]:
    """Return the alarms of a case in the order in which they were stored."""
    async with conn.cursor(row_factory=class_row(AlarmRow)) as cursor:
        await cursor.execute(
            """
            SELECT id, terminal_id, transport, kinds, test, pressed_at, received_at, stored_at, boot, seq, fix,
                   battery_pct, signal_dbm, problems, repeats, repeated_at
            FROM alarm WHERE case_id = %s ORDER BY stored_at, id
            """,
            (case_id,),
        )
        return await cursor.fetchall()


async def notices_of(conn: Connection, case_id: UUID) -> list[NoticeLine]:
    """Return the notices of a case, in order within each leg."""
    async with conn.cursor(row_factory=class_row(NoticeLine)) as cursor:
        await cursor.execute(
            """
            SELECT id, leg_id, number, reason, state, tries, queued_at, due_at, ended_at
            FROM notice WHERE case_id = %s ORDER BY leg_id, number
            """,
            (case_id,),
        )
        return await cursor.fetchall()


async def attempts_of(conn: Connection, case_id: UUID) -> list[AttemptRow]:
    """Return the attempts of a case in the order in which they were made."""
    async with conn.cursor(row_factory=class_row(AttemptRow)) as cursor:
        await cursor.execute(
            """
            SELECT a.notice_id, a.channel, a.started_at, a.answered_at, a.outcome, a.status, a.detail
            FROM attempt a JOIN notice n ON n.id = a.notice_id WHERE n.case_id = %s ORDER BY a.started_at, a.id
            """,
            (case_id,),
        )
        return await cursor.fetchall()


async def answers_of(conn: Connection, case_id: UUID) -> list[AnswerRow]:
    """Return the answers of a case in the order in which they came."""
    async with conn.cursor(row_factory=class_row(AnswerRow)) as cursor:
        await cursor.execute(
            """
            SELECT a.leg_id, a.answer, a.reason, a.minutes, a.by_whom, a.via, a.at
            FROM answer a JOIN leg ON leg.id = a.leg_id WHERE leg.case_id = %s ORDER BY a.id
            """,
            (case_id,),
        )
        return await cursor.fetchall()


async def journal_of(conn: Connection, case_id: UUID) -> list[JournalRow]:
    """Return the chain of a case with its keys: what was written after an erasure is under another one."""
    cursor = await conn.execute(
        """
        SELECT j.n, j.at, j.kind, j.actor, j.sealed, j.prev, j.hash, k.id, k.wrapped
        FROM journal j JOIN data_key k ON k.id = j.key_id WHERE j.case_id = %s ORDER BY j.n
        """,
        (case_id,),
    )
    return [
        JournalRow(
            Entry(
                case_id=case_id,
                n=row[0],
                at=row[1],
                kind=row[2],
                actor=row[3],
                sealed=bytes(row[4]),
                prev=bytes(row[5]),
                hash=bytes(row[6]),
            ),
            row[7],
            row[8],
        )
        for row in await cursor.fetchall()
    ]


async def case_ids(conn: Connection, *, after: UUID, limit: int) -> list[UUID]:
    """Return the ids of cases behind `after`, in their order."""
    cursor = await conn.execute("SELECT id FROM cases WHERE id > %s ORDER BY id LIMIT %s", (after, limit))
    return [row[0] for row in await cursor.fetchall()]


async def count_cases(conn: Connection) -> int:
    """Return how many cases there are."""
    row = await (await conn.execute("SELECT count(*) FROM cases")).fetchone()
    assert row is not None
    return int(row[0])


async def site_key(conn: Connection, site: str) -> UUID:
    """Return the data key of a site."""
    row = await (await conn.execute("SELECT key_id FROM site WHERE id = %s", (site,))).fetchone()
    assert row is not None
    key: UUID = row[0]
    return key


async def party_names(conn: Connection, case_id: UUID) -> list[str]:
    """Return the ids of all parties that a case has legs to."""
    cursor = await conn.execute(
        "SELECT DISTINCT party_id FROM leg WHERE case_id = %s AND party_id IS NOT NULL", (case_id,)
    )
    return [row[0] for row in await cursor.fetchall()]


# Changes of a case; the caller holds the lock of its row


async def case_of_leg(conn: Connection, leg: UUID) -> UUID | None:
    """Return the case of a leg."""
    row = await (await conn.execute("SELECT case_id FROM leg WHERE id = %s", (leg,))).fetchone()
    return None if row is None else row[0]


async def last_answer(conn: Connection, leg: UUID, by: str | None) -> AnswerRow | None:
    """Return the newest answer that `by` gave on a leg."""
    async with conn.cursor(row_factory=class_row(AnswerRow)) as cursor:
        await cursor.execute(
            "SELECT leg_id, answer, reason, minutes, by_whom, via, at FROM answer "
            "WHERE leg_id = %s AND by_whom IS NOT DISTINCT FROM %s ORDER BY id DESC LIMIT 1",
            (leg, by),
        )
        return await cursor.fetchone()


async def set_leg_state(conn: Connection, leg: UUID, state: str) -> None:
    """Move a leg to an ended state."""
    await conn.execute(
        "UPDATE leg SET state = %s, ended_at = coalesce(ended_at, onekey_now()) WHERE id = %s", (state, leg)
    )


async def own(conn: Connection, case_id: UUID, operator: str) -> datetime:
    """Give a case its owner; returns when."""
    return await _when(
        conn,
        "UPDATE cases SET owner = %s, first_owner = %s, owned_at = onekey_now() WHERE id = %s RETURNING owned_at",
        (operator, operator, case_id),
    )


async def set_safe(conn: Connection, case_id: UUID, by: str) -> datetime:
    """Note who confirmed that the person is safe; returns when."""
    return await _when(
        conn,
        "UPDATE cases SET state = 'safe', safe_at = onekey_now(), safe_by = %s WHERE id = %s RETURNING safe_at",
        (by, case_id),
    )


async def set_closed(
    conn: Connection, case_id: UUID, *, outcome: str, by: str, false_alarm: str | None = None
) -> datetime:
    """Close a case; returns when."""
    return await _when(
        conn,
        "UPDATE cases SET state = 'closed', closed_at = onekey_now(), closed_by = %s, outcome = %s, false_alarm = %s "
        "WHERE id = %s RETURNING closed_at",
        (by, outcome, false_alarm, case_id),
    )


async def _when(conn: Connection, statement: str, values: tuple[object, ...]) -> datetime:
    row = await (await conn.execute(statement.encode(), values)).fetchone()
    assert row is not None
    at: datetime = row[0]
    return at


async def lock_due(conn: Connection, case_id: UUID) -> None:
    """Lock what is due of a case, so that no dispatcher takes any of it before the transaction ends."""
    await conn.execute(
        "SELECT FROM notice WHERE case_id = %s AND state = 'due' ORDER BY id FOR NO KEY UPDATE", (case_id,)
    )


async def told_legs(conn: Connection, case_id: UUID) -> set[UUID]:
    """Return the legs on which something may have reached the party.

    An attempt that timed out may have arrived, and what a dispatcher holds at this moment may be on its way.
    """
    cursor = await conn.execute(
        """
        SELECT id FROM leg WHERE case_id = %s AND party_id IS NOT NULL AND (
            delivered_at IS NOT NULL
            OR EXISTS (SELECT FROM notice n WHERE n.leg_id = leg.id AND (n.state = 'sent' OR n.worker IS NOT NULL))
            OR EXISTS (SELECT FROM attempt a WHERE a.leg_id = leg.id))
        """,
        (case_id,),
    )
    return {row[0] for row in await cursor.fetchall()}


async def withdraw_legs(conn: Connection, case_id: UUID) -> list[UUID]:
    """End every obligation of a case that is still open, and return which these were."""
    cursor = await conn.execute(
        "UPDATE leg SET state = 'withdrawn', ended_at = onekey_now() "
        "WHERE case_id = %s AND state IN ('pending', 'delivered') RETURNING id",
        (case_id,),
    )
    return [row[0] for row in await cursor.fetchall()]


# Pages


@dataclass(frozen=True, slots=True)
class CaseLine:
    """A case as a list shows it. ``legs`` counts the legs by state."""

    id: UUID
    case_class: str
    state: str
    district: str
    household_id: str | None
    terminal_id: str | None
    kinds: list[str]
    urgency: int
    test: bool
    drill_id: UUID | None
    received_at: datetime
    opened_at: datetime
    owner: str | None
    owned_at: datetime | None
    safe_at: datetime | None
    closed_at: datetime | None
    outcome: str | None
    legs: dict[str, int]


async def page_of_cases(
    conn: Connection,
    *,
    state: str | None,
    case_class: str | None,
    district: str | None,
    household: str | None,
    before: tuple[datetime, UUID] | None,
    limit: int,
) -> list[CaseLine]:
    """Return cases, newest first; `before` is opening time and id of the last one seen."""
    async with conn.cursor(row_factory=class_row(CaseLine)) as cursor:
        await cursor.execute(
            """
            SELECT id, class AS case_class, state, district, household_id, terminal_id, kinds, urgency, test,
                   drill_id, received_at, opened_at, owner, owned_at, safe_at, closed_at, outcome,
                   (SELECT coalesce(jsonb_object_agg(l.state, l.n), '{}') FROM
                       (SELECT leg.state, count(*) AS n FROM leg WHERE leg.case_id = cases.id GROUP BY leg.state) l
                   ) AS legs
            FROM cases
            WHERE (%(state)s::text IS NULL OR state = %(state)s) AND (%(class)s::text IS NULL OR class = %(class)s)
              AND (%(district)s::text IS NULL OR district = %(district)s)
              AND (%(household)s::text IS NULL OR household_id = %(household)s)
              AND (%(at)s::timestamptz IS NULL OR (opened_at, id) < (%(at)s, %(id)s::uuid))
            ORDER BY opened_at DESC, id DESC LIMIT %(limit)s
            """,
            {
                "state": state,
                "class": case_class,
                "district": district,
                "household": household,
                "at": None if before is None else before[0],
                "id": None if before is None else before[1],
                "limit": limit,
            },
        )
        return await cursor.fetchall()


@dataclass(frozen=True, slots=True)
class PartyLine:
    """A party, still sealed."""

    id: str
    role: str
    district: str
    active: bool
    sealed: bytes
    key_id: UUID
    wrapped: bytes | None


@dataclass(frozen=True, slots=True)
class PersonLine:
    """A person, still sealed."""

    id: str
    household_id: str
    district: str
    active: bool
    erased_at: datetime | None
    sealed: bytes
    key_id: UUID
    wrapped: bytes | None


@dataclass(frozen=True, slots=True)
class HouseholdLine:
    """A household, its address still sealed, with the ids of who and what belongs to it."""

    id: str
    district: str
    active: bool
    sealed: bytes
    key_id: UUID
    wrapped: bytes | None
    persons: list[str]
    parties: list[str]
    terminals: list[str]


@dataclass(frozen=True, slots=True)
class TerminalLine:
    """A terminal with its newest state; everything behind ``test_until`` is None before its first report."""

    id: str
    district: str
    model: str
    active: bool
    household_id: str | None
    test_until: datetime | None
    seen_at: datetime | None
    boot: int | None
    seq: int | None
    battery_pct: int | None
    signal_dbm: int | None
    mains: bool | None
    firmware: str | None
    status_at: datetime | None
    fix: dict[str, Any] | None
    fix_at: datetime | None
    clock_skew_s: float | None
    state: str | None
    state_since: datetime | None
    battery_days: float | None
    troubles: list[str]


async def parties(
    conn: Connection, *, district: str | None, role: str | None, after: str | None, limit: int
) -> list[PartyLine]:
    """Return parties in the order of their ids."""
    async with conn.cursor(row_factory=class_row(PartyLine)) as cursor:
        await cursor.execute(
            """
            SELECT p.id, p.role, p.district, p.active, p.sealed, k.id AS key_id, k.wrapped
            FROM party p JOIN data_key k ON k.id = p.key_id
            WHERE (%(district)s::text IS NULL OR p.district = %(district)s)
              AND (%(role)s::text IS NULL OR p.role = %(role)s)
              AND (%(after)s::text IS NULL OR p.id > %(after)s)
            ORDER BY p.id LIMIT %(limit)s
            """,
            {"district": district, "role": role, "after": after, "limit": limit},
        )
        return await cursor.fetchall()


async def persons(
    conn: Connection, *, district: str | None, household: str | None, after: str | None, limit: int
) -> list[PersonLine]:
    """Return persons in the order of their ids."""
    async with conn.cursor(row_factory=class_row(PersonLine)) as cursor:
        await cursor.execute(
            """
            SELECT p.id, p.household_id, p.district, p.active, k.erased_at, p.sealed, k.id AS key_id, k.wrapped
            FROM person p JOIN data_key k ON k.id = p.key_id
            WHERE (%(district)s::text IS NULL OR p.district = %(district)s)
              AND (%(household)s::text IS NULL OR p.household_id = %(household)s)
              AND (%(after)s::text IS NULL OR p.id > %(after)s)
            ORDER BY p.id LIMIT %(limit)s
            """,
            {"district": district, "household": household, "after": after, "limit": limit},
        )
        return await cursor.fetchall()


async def households(conn: Connection, *, district: str | None, after: str | None, limit: int) -> list[HouseholdLine]:
    """Return households in the order of their ids."""
    async with conn.cursor(row_factory=class_row(HouseholdLine)) as cursor:
        await cursor.execute(
            """
            SELECT h.id, h.district, h.active, h.sealed, k.id AS key_id, k.wrapped,
                   ARRAY(SELECT p.id FROM person p WHERE p.household_id = h.id AND p.active
                         ORDER BY p.position) AS persons,
                   ARRAY(SELECT hp.party_id FROM household_party hp WHERE hp.household_id = h.id
                         ORDER BY hp.position) AS parties,
                   ARRAY(SELECT t.public_id FROM assignment a JOIN terminal t ON t.uid = a.terminal_uid
                         WHERE a.household_id = h.id AND a.until IS NULL ORDER BY t.public_id) AS terminals
            FROM household h JOIN data_key k ON k.id = h.key_id
            WHERE (%(district)s::text IS NULL OR h.district = %(district)s)
              AND (%(after)s::text IS NULL OR h.id > %(after)s)
            ORDER BY h.id LIMIT %(limit)s
            """,
            {"district": district, "after": after, "limit": limit},
        )
        return await cursor.fetchall()


_TERMINALS = """
            SELECT t.public_id AS id, t.district, t.model, t.active, a.household_id,
                   (SELECT max(w.closes_at) FROM test_window w WHERE w.terminal_uid = t.uid
                    AND onekey_now() >= w.opens_at AND onekey_now() < w.closes_at) AS test_until,
                   s.seen_at, s.boot, s.seq, s.battery_pct, s.signal_dbm, s.mains, s.firmware, s.status_at, s.fix,
                   s.fix_at, s.clock_skew_s, w.state, w.state_since, w.battery_days,
                   ARRAY(SELECT o.cause FROM trouble o WHERE o.terminal_uid = t.uid AND o.cleared_at IS NULL
                         ORDER BY o.since) AS troubles
            FROM terminal t
            LEFT JOIN watch w ON w.terminal_uid = t.uid
            LEFT JOIN assignment a ON a.terminal_uid = t.uid AND a.until IS NULL
            LEFT JOIN terminal_state s ON s.terminal_uid = t.uid
"""


async def terminal(conn: Connection, terminal: str) -> TerminalLine | None:
    """Return one terminal, or None."""
    async with conn.cursor(row_factory=class_row(TerminalLine)) as cursor:
        await cursor.execute(f"{_TERMINALS} WHERE t.public_id = %s", (terminal,))
        return await cursor.fetchone()


async def terminals(
    conn: Connection,
    *,
    district: str | None,
    household: str | None,
    silent_for: timedelta | None,
    after: str | None,
    limit: int,
) -> list[TerminalLine]:
    """Return terminals in the order of their ids; with `silent_for` those from which nothing came for that long."""
    async with conn.cursor(row_factory=class_row(TerminalLine)) as cursor:
        await cursor.execute(
            f"""
            {_TERMINALS}
            WHERE (%(district)s::text IS NULL OR t.district = %(district)s)
              AND (%(household)s::text IS NULL OR a.household_id = %(household)s)
              AND (%(silent)s::interval IS NULL OR s.seen_at IS NULL OR s.seen_at < now() - %(silent)s)
              AND (%(after)s::text IS NULL OR t.public_id > %(after)s)
            ORDER BY t.public_id LIMIT %(limit)s
            """,  # every word of it stands in this file
            {"district": district, "household": household, "silent": silent_for, "after": after, "limit": limit},
        )
        return await cursor.fetchall()


# Persons


async def lock_sites(conn: Connection) -> None:
    """Wait until nobody applies a site file, and let nobody do it until the transaction ends."""
    await conn.execute("SELECT pg_advisory_xact_lock(hashtext('onekey site'))")


async def lock_person(conn: Connection, person: str) -> tuple[str, str, str, UUID, bool] | None:
    """Lock a person; returns site, district, household, data key, and whether that was erased already."""
    cursor = await conn.execute(
        """
        SELECT p.site_id, p.district, p.household_id, k.id, k.wrapped IS NULL
        FROM person p JOIN data_key k ON k.id = p.key_id WHERE p.id = %s FOR UPDATE
        """,
        (person,),
    )
    row = await cursor.fetchone()
    return None if row is None else (row[0], row[1], row[2], row[3], row[4])


async def home_of(conn: Connection, person: str) -> tuple[str, str, int, datetime, str | None] | None:
    """Return household, site, the site's revision, the time and the model of a terminal of a person in use."""
    cursor = await conn.execute(
        """
        SELECT p.household_id, s.id, s.revision, onekey_now(),
               (SELECT t.model FROM assignment a JOIN terminal t ON t.uid = a.terminal_uid
                WHERE a.household_id = p.household_id AND a.until IS NULL AND t.active ORDER BY t.public_id LIMIT 1)
        FROM person p JOIN household h ON h.id = p.household_id JOIN site s ON s.id = h.site_id
        WHERE p.id = %s AND p.active AND h.active
        """,
        (person,),
    )
    row = await cursor.fetchone()
    return None if row is None else (row[0], row[1], row[2], row[3], row[4])


async def live_cases(conn: Connection, *, household: str, key: UUID) -> int:
    """Return how many cases of a household, or sealed under `key`, are not over: open, or still being told about."""
    cursor = await conn.execute(
        """
        SELECT count(*) FROM cases c WHERE (c.household_id = %s OR c.key_id = %s)
          AND (c.state <> 'closed' OR EXISTS (SELECT FROM notice n WHERE n.case_id = c.id AND n.state = 'due'))
        """,
        (household, key),
    )
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


# Figures


@dataclass(frozen=True, slots=True)
class Figures:
    """How the gateway stands. Ages are in seconds, 0 when there is nothing that could be old."""

    waiting: int
    sending: int
    postponed: int
    oldest_due_s: float
    unacknowledged: int
    oldest_unacknowledged_s: float
    quarantine: int
    open_cases: dict[str, int]
    skew_over_1_min: int
    skew_over_5_min: int
    skew_over_1_h: int
    gateways: int


_ALIVE = "seen_at > onekey_now() - interval '5 seconds'"


async def alarm_lanes(conn: Connection) -> tuple[int, int]:
    """Return how many gateways were seen within five seconds, and how many of them hear alarms from the broker."""
    cursor = await conn.execute(
        f"SELECT count(*), count(*) FILTER (WHERE status @> '{{\"alarms\": true}}') FROM worker WHERE {_ALIVE}"  # noqa: S608
    )
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


async def figures(conn: Connection) -> Figures:
    """Count what the metrics show."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            f"""
            WITH due AS (
                SELECT count(*) FILTER (WHERE worker IS NULL AND due_at <= onekey_now()) AS waiting,
                       count(*) FILTER (WHERE worker IS NOT NULL) AS sending,
                       count(*) FILTER (WHERE worker IS NULL AND due_at > onekey_now()) AS postponed,
                       extract(epoch FROM onekey_now() - min(queued_at)) AS oldest
                FROM notice WHERE state = 'due'
            ), alone AS (
                SELECT count(*) AS n, extract(epoch FROM onekey_now() - min(opened_at)) AS oldest
                FROM cases WHERE state = 'open' AND class = 'emergency' AND owner IS NULL
            ), skew AS (
                SELECT count(*) FILTER (WHERE abs(clock_skew_s) > 60) AS a,
                       count(*) FILTER (WHERE abs(clock_skew_s) > 300) AS b,
                       count(*) FILTER (WHERE abs(clock_skew_s) > 3600) AS c
                FROM terminal_state
            )
            SELECT due.waiting, due.sending, due.postponed, coalesce(due.oldest, 0)::float8 AS oldest_due_s,
                   alone.n AS unacknowledged, coalesce(alone.oldest, 0)::float8 AS oldest_unacknowledged_s,
                   (SELECT count(*) FROM quarantine WHERE state = 'kept') AS quarantine,
                   (SELECT coalesce(jsonb_object_agg(class, n), '{{}}') FROM
                       (SELECT class, count(*) AS n FROM cases WHERE state <> 'closed' GROUP BY class) c) AS open_cases,
                   skew.a AS skew_over_1_min, skew.b AS skew_over_5_min, skew.c AS skew_over_1_h,
                   (SELECT count(*) FROM worker WHERE {_ALIVE}) AS gateways
            FROM due, alone, skew
            """  # noqa: S608
        )
        row = await cursor.fetchone()
        assert row is not None
        return Figures(**row)
