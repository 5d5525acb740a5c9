"""Supervision in the tables: who is to be looked at, what a look found, and which troubles still need a case.

Two kinds of writers meet here. The telemetry lane renews the states of terminals and then, in a statement of its own,
wakes whoever tripped a wire. A sweep locks the states first and writes the watches afterwards. So a report either is
seen by the look, or finds the watch as the look left it and wakes it: none gets lost between the two.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

from psycopg.rows import class_row

from gateway.store.pool import Connection, as_jsonb

__all__ = [
    "AreaRow",
    "DailyRow",
    "Enrolment",
    "HearingRow",
    "IncidentRow",
    "LookRow",
    "NewTrouble",
    "OpenCase",
    "TroubleRow",
    "WatchRow",
    "add_troubles",
    "awake",
    "cased",
    "clear_troubles",
    "crowds",
    "daily",
    "end_incidents",
    "end_tracking",
    "enrol",
    "expect",
    "fresh_cells",
    "hear_again",
    "hearing",
    "incident_cased",
    "incident_over",
    "keep_hearing",
    "note_said",
    "open_technical",
    "over",
    "postpone",
    "raised_by",
    "recase",
    "silent_share",
    "start_incident",
    "thinned",
    "to_track",
    "track",
    "tracked_enough",
    "uncased",
    "unsettled",
    "unsettled_incidents",
    "wake",
    "wake_homeless",
    "wake_named",
    "write_areas",
    "write_cell",
    "write_members",
    "write_watches",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """A terminal and what is expected of it."""

    terminal: str
    silent_after: timedelta
    late_after: timedelta
    profile: Mapping[str, Any]
    care: bytes | None = None
    care_key: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchRow:
    """A terminal that is to be looked at, with its newest state."""

    terminal_uid: UUID
    terminal: str
    district: str
    household: str | None
    active: bool
    silent_after: timedelta
    profile: dict[str, Any]
    since: datetime
    state: str
    state_since: datetime
    memory: dict[str, Any]
    said: dict[str, list[Any]]
    daily_at: datetime
    has: list[str]
    heard_at: datetime | None
    kept: bool | None
    battery_at: datetime | None
    mains_at: datetime | None
    battery_pct: int | None
    signal_dbm: int | None
    mains: bool | None
    firmware: str | None
    skew_s: float | None
    timezone: str
    care: bytes | None
    care_key: UUID | None
    care_wrapped: bytes | None
    fix: dict[str, Any] | None
    pressed_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LookRow:
    """What a look leaves behind. ``state_since`` is None while the state stays as it is."""

    terminal_uid: UUID
    state: str
    state_since: datetime | None
    memory: dict[str, Any]
    battery_days: float | None
    look_at: datetime
    daily_at: datetime
    calm: bool
    battery: tuple[int, int] | None
    signal: tuple[int, int] | None
    skew: tuple[float, float] | None
    mains: bool | None
    firmware: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTrouble:
    """A trouble that begins; ``case_id`` where the terminal itself has raised it already."""

    terminal_uid: UUID
    household: str | None
    district: str
    cause: str
    since: datetime
    detail: Mapping[str, Any]
    case_id: UUID | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TroubleRow:
    """A trouble that needs something: a case, or the end of one."""

    id: int
    terminal_uid: UUID
    terminal: str
    household: str | None
    cause: str
    since: datetime
    detail: dict[str, Any]
    case_id: UUID | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenCase:
    """An open technical case of a terminal: which kind, and when the terminal last raised it itself."""

    terminal: str
    kind: str
    case_id: UUID
    raised_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DailyRow:
    """What only a daily look asks for: the last press, and the battery and signal of recent days."""

    terminal_uid: UUID
    last_press: datetime | None
    days: list[date]
    battery: list[float | None]
    signal: list[float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class HearingRow:
    """Up to when everything is stored, by whose clock, and the last time in which nobody listened."""

    horizon: datetime
    boot: str
    uptime_s: float
    deaf_from: datetime | None
    deaf_until: datetime | None
    deaf_total: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AreaRow:
    """An area with terminals in the same trouble: how many, of how many that are supervised there."""

    area_id: UUID | None
    site_id: str
    district: str
    troubled: int
    of_all: int
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentRow:
    """An incident whose case is to be raised, or to be closed."""

    id: int
    area_id: UUID | None
    site_id: str
    kind: str | None
    sealed: bytes | None
    cause: str
    since: datetime
    members: int
    of_all: int
    cleared: bool
    case_id: UUID | None


# Who is supervised


async def enrol(conn: Connection, terminals: Sequence[Enrolment]) -> None:
    """Supervise terminals from now on, or change what is expected of them. They are looked at soon."""
    if not terminals:
        return
    await conn.execute(
        """
        INSERT INTO watch AS w (terminal_uid, silent_after, late_after, profile, care, care_key, since, state_since,
                                look_at, daily_at)
        SELECT t.uid, silent_after, late_after, profile, care, care_key, began, onekey_now(), began,
               began + interval '1 day' * random()
        FROM (SELECT coalesce((SELECT horizon FROM hearing), onekey_now()) AS began) AS clock,
             unnest(%b::text[], %b::interval[], %b::interval[], %b::jsonb[], %b::bytea[], %b::uuid[])
             AS new (terminal, silent_after, late_after, profile, care, care_key)
        JOIN terminal t ON t.public_id = new.terminal ORDER BY t.uid
        ON CONFLICT (terminal_uid) DO UPDATE SET silent_after = excluded.silent_after,
            late_after = excluded.late_after, profile = excluded.profile, care = excluded.care,
            care_key = excluded.care_key, look_at = '-infinity', calm = false
        """,
        (
            [one.terminal for one in terminals],
            [one.silent_after for one in terminals],
            [one.late_after for one in terminals],
            [as_jsonb(one.profile) for one in terminals],
            [one.care for one in terminals],
            [one.care_key for one in terminals],
        ),
    )


async def expect(
    conn: Connection, terminal: str, *, silent_after: timedelta, late_after: timedelta, heartbeat_s: float
) -> None:
    """Expect a terminal to be heard at another interval from now on."""
    await conn.execute(
        """
        UPDATE watch w SET silent_after = %(silent)s, late_after = %(late)s, calm = false, look_at = '-infinity',
            profile = w.profile || jsonb_build_object('heartbeat_s', %(beat)s::float8)
        FROM terminal t WHERE t.uid = w.terminal_uid AND t.public_id = %(terminal)s
        """,
        {"silent": silent_after, "late": late_after, "beat": heartbeat_s, "terminal": terminal},
    )


async def wake(conn: Connection, terminals: Sequence[UUID]) -> None:
    """Have terminals looked at with the next sweep, whatever they report."""
    await conn.execute(
        "UPDATE watch SET calm = false, look_at = '-infinity' WHERE terminal_uid = ANY(%b)", (list(terminals),)
    )


async def wake_named(conn: Connection, terminals: Sequence[str]) -> None:
    """Have terminals looked at with the next sweep: they stand elsewhere now, or nowhere."""
    await conn.execute(
        "UPDATE watch SET calm = false, look_at = '-infinity' "
        "FROM terminal t WHERE t.public_id = ANY(%b) AND t.uid = watch.terminal_uid",
        (list(terminals),),
    )


async def wake_homeless(conn: Connection, *, site: str) -> None:
    """Have those terminals of a site looked at that stand nowhere: nobody waits for them any more."""
    await conn.execute(
        """
        UPDATE watch SET calm = false, look_at = '-infinity' FROM terminal t
        WHERE t.uid = watch.terminal_uid AND t.site_id = %s
          AND NOT EXISTS (SELECT FROM assignment a WHERE a.terminal_uid = t.uid AND a.until IS NULL)
        """,
        (site,),
    )


async def write_areas(
    conn: Connection, *, site: str, district: str, areas: Mapping[UUID, tuple[str, bytes]], key: UUID
) -> None:
    """Store areas of a site, id to kind and sealed words."""
    await conn.execute(
        """
        INSERT INTO area (id, site_id, district, kind, sealed, key_id)
        SELECT id, %b, %b, kind, sealed, %b FROM unnest(%b::uuid[], %b::text[], %b::bytea[]) AS new (id, kind, sealed)
        ON CONFLICT (id) DO NOTHING
        """,
        (
            site,
            district,
            key,
            list(areas),
            [kind for kind, _ in areas.values()],
            [sealed for _, sealed in areas.values()],
        ),
    )


async def write_members(conn: Connection, households: Sequence[str], members: Sequence[tuple[str, UUID]]) -> None:
    """Let `households` be in the areas of `members` and in no others."""
    await conn.execute("DELETE FROM household_area WHERE household_id = ANY(%b)", (list(households),))
    await conn.execute(
        "INSERT INTO household_area (household_id, area_id) SELECT * FROM unnest(%b::text[], %b::uuid[]) "
        "ON CONFLICT DO NOTHING",
        ([home for home, _ in members], [area for _, area in members]),
    )


async def note_said(conn: Connection, terminal: str, name: str, value: object, *, at: datetime) -> None:
    """Keep what a terminal says of itself, unless it has said something newer, and have it looked at."""
    await conn.execute(
        """
        UPDATE watch w SET said = jsonb_set(said, ARRAY[%(name)s], jsonb_build_array(%(value)s::jsonb, %(at)s::text)),
                           calm = false, look_at = '-infinity'
        FROM terminal t WHERE t.public_id = %(terminal)s AND w.terminal_uid = t.uid
          AND coalesce((said -> %(name)s ->> 1)::timestamptz, '-infinity') <= %(at)s::timestamptz
        """,
        {"terminal": terminal, "name": name, "value": as_jsonb(value), "at": at.isoformat()},
    )


# Hearing


async def hearing(conn: Connection) -> HearingRow | None:
    """Return up to when everything is stored; None: nobody ever listened here."""
    async with conn.cursor(row_factory=class_row(HearingRow)) as cursor:
        await cursor.execute("SELECT horizon, boot, uptime_s, deaf_from, deaf_until, deaf_total FROM hearing")
        return await cursor.fetchone()


async def keep_hearing(conn: Connection, *, horizon: datetime, boot: str, uptime_s: float) -> None:
    """Note up to when everything is stored."""
    await conn.execute(
        """
        INSERT INTO hearing AS h (horizon, boot, uptime_s) VALUES (%b, %b, %b)
        ON CONFLICT (one) DO UPDATE SET horizon = greatest(h.horizon, excluded.horizon), boot = excluded.boot,
            uptime_s = excluded.uptime_s, swept_at = onekey_now()
        """,
        (horizon, boot, uptime_s),
    )


async def hear_again(conn: Connection, begin: datetime, end: datetime, *, total: bool) -> None:
    """Note a time in which nobody listened."""
    await conn.execute("UPDATE hearing SET deaf_from = %s, deaf_until = %s, deaf_total = %s", (begin, end, total))


async def silent_share(conn: Connection, *, since: datetime, now: datetime) -> tuple[int, int]:
    """Return how many terminals were heard since `since`, and how many are overdue now that were well before."""
    row = await (
        await conn.execute(
            """
            SELECT count(*) FILTER (WHERE s.heard_at > %(since)s),
                   count(*) FILTER (WHERE s.heard_at <= %(since)s AND s.heard_at + w.late_after <= %(now)s
                                          AND s.heard_at + w.late_after > %(since)s)
            FROM watch w JOIN terminal_state s USING (terminal_uid) WHERE w.state <> 'offline'
            """,
            {"since": since, "now": now},
        )
    ).fetchone()
    assert row is not None
    return row[0], row[1]


# Tracking


async def to_track(conn: Connection) -> list[tuple[UUID, str, int]]:
    """Return open emergencies whose terminal is to report its place more often now: case, terminal, seconds."""
    cursor = await conn.execute(
        """
        SELECT c.id, c.terminal_id, (w.profile ->> 'track_s')::int
        FROM cases c JOIN terminal t ON t.public_id = c.terminal_id JOIN watch w ON w.terminal_uid = t.uid
        WHERE c.state = 'open' AND c.class = 'emergency' AND w.profile ->> 'track_s' IS NOT NULL
          AND NOT EXISTS (SELECT FROM tracking k WHERE k.case_id = c.id AND k.terminal_id = c.terminal_id)
        """
    )
    return await cursor.fetchall()


async def tracked_enough(conn: Connection) -> list[tuple[UUID, str, int]]:
    """Return what was tracked for cases that are closed: case, terminal, and the usual seconds between two places.

    A terminal that another open case has tracked as well is left out.
    """
    cursor = await conn.execute(
        """
        SELECT k.case_id, k.terminal_id, coalesce((w.profile ->> 'fix_s')::int, 600)
        FROM tracking k JOIN cases c ON c.id = k.case_id JOIN terminal t ON t.public_id = k.terminal_id
        LEFT JOIN watch w ON w.terminal_uid = t.uid
        WHERE k.ended_at IS NULL AND c.state = 'closed' AND NOT EXISTS (
            SELECT FROM tracking o JOIN cases oc ON oc.id = o.case_id
            WHERE o.terminal_id = k.terminal_id AND o.ended_at IS NULL AND oc.state <> 'closed')
        """
    )
    return await cursor.fetchall()


async def track(conn: Connection, case: UUID, terminal: str) -> None:
    """Note that a terminal was told to report its place more often."""
    await conn.execute(
        "INSERT INTO tracking (case_id, terminal_id) VALUES (%s, %s) ON CONFLICT DO NOTHING", (case, terminal)
    )


async def end_tracking(conn: Connection, terminal: str) -> None:
    """Note that it was told to report as usual."""
    await conn.execute(
        "UPDATE tracking SET ended_at = onekey_now() WHERE terminal_id = %s AND ended_at IS NULL", (terminal,)
    )


# A sweep


async def postpone(conn: Connection, *, now: datetime) -> int:
    """Put off the look at everybody who was heard in time and is otherwise well; returns how many that were."""
    cursor = await conn.execute(
        """
        UPDATE watch w SET look_at = least(s.heard_at + w.late_after, w.daily_at)
        FROM terminal_state s
        WHERE w.look_at <= %(now)s AND w.calm AND w.daily_at > %(now)s
          AND s.terminal_uid = w.terminal_uid AND s.heard_at + w.late_after > %(now)s
        """,
        {"now": now},
    )
    return cursor.rowcount


async def awake(conn: Connection, *, now: datetime, limit: int) -> list[WatchRow]:
    """Lock the states of terminals whose turn it is, and return what is known of them: the longest due first."""
    due = await (
        await conn.execute("SELECT terminal_uid FROM watch WHERE look_at <= %s ORDER BY look_at LIMIT %s", (now, limit))
    ).fetchall()
    if not due:
        return []
    terminals = sorted(uid for (uid,) in due)
    # In the order in which the telemetry lane takes them.
    await conn.execute(
        "SELECT FROM terminal_state WHERE terminal_uid = ANY(%b) ORDER BY terminal_uid FOR NO KEY UPDATE", (terminals,)
    )
    async with conn.cursor(row_factory=class_row(WatchRow)) as cursor:
        await cursor.execute(
            """
            SELECT w.terminal_uid, t.public_id AS terminal, t.district, a.household_id AS household, t.active,
                   w.silent_after, w.profile, w.since, w.state, w.state_since, w.memory, w.said, w.daily_at,
                   ARRAY(SELECT cause FROM trouble o WHERE o.terminal_uid = w.terminal_uid AND o.cleared_at IS NULL
                         ORDER BY cause) AS has,
                   s.heard_at, s.kept, s.battery_pct_at AS battery_at, s.mains_at, s.battery_pct, s.signal_dbm, s.mains,
                   s.firmware,
                   s.clock_skew_s AS skew_s, i.timezone, w.care, w.care_key, k.wrapped AS care_wrapped,
                   CASE WHEN w.care IS NOT NULL THEN s.fix END AS fix,
                   CASE WHEN w.care IS NOT NULL THEN (
                       SELECT max(received_at) FROM alarm a
                       WHERE a.terminal_id = t.public_id AND a.transport <> 'supervision') END AS pressed_at
            FROM watch w JOIN terminal t ON t.uid = w.terminal_uid JOIN site i ON i.id = t.site_id
            LEFT JOIN data_key k ON k.id = w.care_key
            LEFT JOIN assignment a ON a.terminal_uid = w.terminal_uid AND a.until IS NULL
            LEFT JOIN terminal_state s ON s.terminal_uid = w.terminal_uid
            WHERE w.terminal_uid = ANY(%b) ORDER BY w.terminal_uid
            """,
            (terminals,),
        )
        return await cursor.fetchall()


async def daily(conn: Connection, terminals: Sequence[UUID], *, since: datetime) -> dict[UUID, DailyRow]:
    """Return what a daily look asks for."""
    async with conn.cursor(row_factory=class_row(DailyRow)) as cursor:
        await cursor.execute(
            """
            SELECT t.uid AS terminal_uid,
                   (SELECT max(received_at) FROM alarm
                    WHERE terminal_id = t.public_id AND transport <> 'supervision') AS last_press,
                   days.days, days.battery, days.signal
            FROM terminal t, LATERAL (
                SELECT coalesce(array_agg(day ORDER BY day), '{}') AS days,
                       coalesce(array_agg(battery ORDER BY day), '{}') AS battery,
                       coalesce(array_agg(signal ORDER BY day), '{}') AS signal
                FROM (SELECT (hour AT TIME ZONE 'UTC')::date AS day,
                             (sum(battery_sum) / nullif(sum(battery_n), 0))::float8 AS battery,
                             (sum(signal_sum) / nullif(sum(signal_n), 0))::float8 AS signal
                      FROM heartbeat_hourly WHERE terminal_uid = t.uid AND hour >= %(since)s
                      GROUP BY 1) AS by_day) AS days
            WHERE t.uid = ANY(%(terminals)s)
            """,
            {"since": since, "terminals": list(terminals)},
        )
        return {row.terminal_uid: row for row in await cursor.fetchall()}


async def open_technical(conn: Connection, subjects: Mapping[str, tuple[str, str]]) -> list[OpenCase]:
    """Return the open technical cases among `subjects`, each of which stands for a terminal and a kind."""
    cursor = await conn.execute(
        """
        SELECT c.subject, c.id,
               (SELECT max(received_at) FROM alarm a WHERE a.case_id = c.id AND a.transport <> 'supervision')
        FROM unnest(%b::text[]) AS asked (subject)
        JOIN cases c ON c.subject = asked.subject AND c.class = 'technical' AND c.state = 'open'
        """,
        (list(subjects),),
    )
    return [
        OpenCase(terminal=subjects[subject][0], kind=subjects[subject][1], case_id=case, raised_at=at)
        for subject, case, at in await cursor.fetchall()
    ]


async def raised_by(conn: Connection, terminals: Sequence[str]) -> list[OpenCase]:
    """Return the open technical cases of terminals."""
    cursor = await conn.execute(
        """
        SELECT c.terminal_id, c.kinds[1], c.id,
               (SELECT max(received_at) FROM alarm a WHERE a.case_id = c.id AND a.transport <> 'supervision')
        FROM cases c WHERE c.class = 'technical' AND c.state = 'open' AND c.terminal_id = ANY(%b)
        """,
        (list(terminals),),
    )
    return [
        OpenCase(terminal=terminal, kind=kind, case_id=case, raised_at=at)
        for terminal, kind, case, at in await cursor.fetchall()
    ]


async def write_watches(conn: Connection, rows: Sequence[LookRow]) -> None:
    """Write what looks leave behind."""
    if not rows:
        return
    ordered = sorted(rows, key=lambda one: one.terminal_uid)

    def ends(pairs: Sequence[tuple[Any, Any] | None], place: int) -> list[Any]:
        return [None if pair is None else pair[place] for pair in pairs]

    battery, signal, skew = (
        [one.battery for one in ordered],
        [one.signal for one in ordered],
        [one.skew for one in ordered],
    )
    await conn.execute(
        """
        UPDATE watch w SET state = new.state, state_since = coalesce(new.state_since, w.state_since),
            memory = new.memory, battery_days = new.battery_days, look_at = new.look_at, daily_at = new.daily_at,
            calm = new.calm, battery_from = new.battery_from, battery_to = new.battery_to,
            signal_from = new.signal_from, signal_to = new.signal_to, skew_from = new.skew_from, skew_to = new.skew_to,
            mains = new.mains, firmware = new.firmware
        FROM unnest(%b::uuid[], %b::text[], %b::timestamptz[], %b::jsonb[], %b::float4[], %b::timestamptz[],
                    %b::timestamptz[], %b::bool[], %b::int2[], %b::int2[], %b::int2[], %b::int2[], %b::float8[],
                    %b::float8[], %b::bool[], %b::text[])
             AS new (uid, state, state_since, memory, battery_days, look_at, daily_at, calm, battery_from, battery_to,
                     signal_from, signal_to, skew_from, skew_to, mains, firmware)
        WHERE w.terminal_uid = new.uid
        """,
        (
            [one.terminal_uid for one in ordered],
            [one.state for one in ordered],
            [one.state_since for one in ordered],
            [as_jsonb(one.memory) for one in ordered],
            [one.battery_days for one in ordered],
            [one.look_at for one in ordered],
            [one.daily_at for one in ordered],
            [one.calm for one in ordered],
            ends(battery, 0),
            ends(battery, 1),
            ends(signal, 0),
            ends(signal, 1),
            ends(skew, 0),
            ends(skew, 1),
            [one.mains for one in ordered],
            [one.firmware for one in ordered],
        ),
    )


async def add_troubles(conn: Connection, new: Sequence[NewTrouble]) -> None:
    """Begin troubles; one that a terminal is known to have already is left as it is."""
    if not new:
        return
    await conn.execute(
        """
        INSERT INTO trouble (terminal_uid, household_id, district, cause, since, detail, case_id)
        SELECT * FROM unnest(%b::uuid[], %b::text[], %b::text[], %b::text[], %b::timestamptz[], %b::jsonb[], %b::uuid[])
        ON CONFLICT (terminal_uid, cause) WHERE cleared_at IS NULL DO NOTHING
        """,
        (
            [one.terminal_uid for one in new],
            [one.household for one in new],
            [one.district for one in new],
            [one.cause for one in new],
            [one.since for one in new],
            [as_jsonb(dict(one.detail)) for one in new],
            [one.case_id for one in new],
        ),
    )


async def clear_troubles(conn: Connection, cleared: Sequence[tuple[UUID, str]]) -> None:
    """End troubles."""
    if not cleared:
        return
    await conn.execute(
        """
        UPDATE trouble SET cleared_at = onekey_now(), case_over = case_id IS NULL
        FROM unnest(%b::uuid[], %b::text[]) AS over (uid, cause)
        WHERE terminal_uid = over.uid AND trouble.cause = over.cause AND cleared_at IS NULL
        """,
        ([uid for uid, _ in cleared], [cause for _, cause in cleared]),
    )


# Cases of troubles

_TROUBLE = """
    SELECT o.id, o.terminal_uid, t.public_id AS terminal, o.household_id AS household, o.cause, o.since, o.detail,
           o.case_id
    FROM trouble o JOIN terminal t ON t.uid = o.terminal_uid
"""


async def uncased(conn: Connection, *, limit: int) -> list[TroubleRow]:
    """Return troubles that nobody has been told of, in no case and in no incident: first what concerns a person."""
    async with conn.cursor(row_factory=class_row(TroubleRow)) as cursor:
        await cursor.execute(
            f"{_TROUBLE} WHERE NOT case_over AND case_id IS NULL AND incident_id IS NULL AND cleared_at IS NULL "
            "ORDER BY o.cause NOT IN ('wander', 'inactivity'), o.id LIMIT %s",
            (limit,),
        )
        return await cursor.fetchall()


async def unsettled(conn: Connection, *, limit: int) -> list[TroubleRow]:
    """Return troubles that are over, or part of an incident, and whose own case is still to be closed."""
    async with conn.cursor(row_factory=class_row(TroubleRow)) as cursor:
        await cursor.execute(
            f"{_TROUBLE} WHERE NOT case_over AND case_id IS NOT NULL "
            "AND (cleared_at IS NOT NULL OR incident_id IS NOT NULL) ORDER BY o.id LIMIT %s",
            (limit,),
        )
        return await cursor.fetchall()


async def cased(conn: Connection, cases: Mapping[int, UUID]) -> None:
    """Note in which case each trouble is; one that is over meanwhile has a case to be closed."""
    await conn.execute(
        "UPDATE trouble SET case_id = new.case_id, case_over = false "
        "FROM unnest(%b::bigint[], %b::uuid[]) AS new (id, case_id) WHERE trouble.id = new.id",
        (list(cases), list(cases.values())),
    )


async def over(conn: Connection, troubles: Sequence[int]) -> None:
    """Note that no case is left to be closed for these. One that goes on in an incident has no case of its own."""
    await conn.execute(
        "UPDATE trouble SET case_over = true WHERE id = ANY(%b)",
        (list(troubles),),
    )


async def recase(conn: Connection, *, after: timedelta) -> int:
    """Let troubles that go on count as untold again when people closed their case more than `after` ago."""
    cursor = await conn.execute(
        """
        UPDATE trouble o SET case_id = NULL, case_over = false FROM cases c
        WHERE o.cleared_at IS NULL AND o.incident_id IS NULL AND c.id = o.case_id AND c.state = 'closed'
          AND c.closed_at <= onekey_now() - %s
        """,
        (after,),
    )
    return cursor.rowcount


# Incidents


async def crowds(conn: Connection, *, cause: str, since: datetime, least: int, share: float) -> list[AreaRow]:
    """Return areas in which many terminals came into the same trouble since `since`: that with the most first.

    That is at least `least` of them, and `share` of all that are supervised there; of two with as many it is the
    smaller. The whole of a site is an area without id, and comes before all others if it counts three times `least`.
    Those that are in an incident already count for no other but that; where one goes on, every further one does.
    """
    async with conn.cursor(row_factory=class_row(AreaRow)) as cursor:
        await cursor.execute(
            """
            WITH fresh AS (
                SELECT o.household_id, o.incident_id, o.since, t.site_id, t.district
                FROM trouble o JOIN terminal t ON t.uid = o.terminal_uid
                WHERE o.cause = %(cause)s AND o.cleared_at IS NULL AND o.found_at >= %(since)s
            ), going_on AS (
                SELECT site_id, area_id FROM incident WHERE cause = %(cause)s AND cleared_at IS NULL
            ), here AS (
                SELECT ha.area_id, count(*) AS troubled, min(f.since) AS since
                FROM fresh f JOIN household_area ha USING (household_id) WHERE f.incident_id IS NULL
                GROUP BY ha.area_id HAVING count(*) >= %(least)s OR ha.area_id IN (SELECT area_id FROM going_on)
            ), sites AS (
                SELECT site_id, min(district) AS district, count(*) AS troubled, min(since) AS since
                FROM fresh GROUP BY site_id HAVING count(*) FILTER (WHERE incident_id IS NULL) > 0
                AND (count(*) >= 3 * %(least)s OR site_id IN (SELECT site_id FROM going_on WHERE area_id IS NULL))
            ), found AS (
                SELECT h.area_id, a.kind, a.site_id, a.district, h.troubled, h.since,
                       (SELECT count(*) FROM household_area x JOIN assignment s ON s.household_id = x.household_id
                                AND s.until IS NULL
                        WHERE x.area_id = h.area_id) AS of_all
                FROM here h JOIN area a ON a.id = h.area_id
                UNION ALL
                SELECT NULL, NULL, site_id, district, troubled, since,
                       (SELECT count(*) FROM assignment s JOIN terminal t ON t.uid = s.terminal_uid
                        WHERE s.until IS NULL AND t.site_id = sites.site_id)
                FROM sites
            )
            SELECT area_id, site_id, district, troubled::int, of_all::int, since FROM found
            WHERE troubled >= %(share)s * of_all
               OR EXISTS (SELECT FROM going_on g
                          WHERE g.site_id = found.site_id AND g.area_id IS NOT DISTINCT FROM found.area_id)
            ORDER BY area_id IS NOT NULL, troubled DESC, of_all,
                     array_position(ARRAY['building', 'feeder', 'cell', 'street'], kind), area_id
            """,
            {"cause": cause, "since": since, "least": least, "share": share},
        )
        return await cursor.fetchall()


async def fresh_cells(conn: Connection, *, since: datetime, least: int) -> list[tuple[str, str, str]]:
    """Return radio cells in which at least `least` terminals were lost since `since`: site, district and cell."""
    cursor = await conn.execute(
        """
        SELECT t.site_id, min(t.district), s.cell
        FROM trouble o JOIN terminal t ON t.uid = o.terminal_uid
        JOIN terminal_state s ON s.terminal_uid = o.terminal_uid
        WHERE o.cause = 'offline' AND o.cleared_at IS NULL AND o.found_at >= %s AND s.cell IS NOT NULL
        GROUP BY t.site_id, s.cell HAVING count(*) >= %s
        """,
        (since, least),
    )
    return await cursor.fetchall()


async def write_cell(conn: Connection, area: UUID, *, site: str, cell: str) -> None:
    """Let the area of a radio cell hold the homes of those terminals that reported from it last."""
    await conn.execute("DELETE FROM household_area WHERE area_id = %s", (area,))
    await conn.execute(
        """
        INSERT INTO household_area (household_id, area_id)
        SELECT DISTINCT a.household_id, %s::uuid FROM terminal_state s JOIN terminal t ON t.uid = s.terminal_uid
        JOIN assignment a ON a.terminal_uid = t.uid AND a.until IS NULL WHERE s.cell = %s AND t.site_id = %s
        """,
        (area, cell, site),
    )


async def start_incident(conn: Connection, area: AreaRow, *, cause: str, since: datetime, least: int) -> int | None:
    """Begin an incident, or go on with the one that is there, and put the troubles of its area into it.

    One of a whole site takes those of its areas over. Returns its id, or None when others have taken so many of its
    troubles meanwhile that it is none.
    """
    values = {"cause": cause, "since": since, "site": area.site_id, "area": area.area_id}
    known = await (
        await conn.execute(
            "SELECT id FROM incident WHERE site_id = %(site)s AND area_id IS NOT DISTINCT FROM %(area)s::uuid "
            "AND cause = %(cause)s AND cleared_at IS NULL",
            values,
        )
    ).fetchone()
    whole = area.area_id is None
    free = f"""
        o.cause = %(cause)s AND o.cleared_at IS NULL AND o.found_at >= %(since)s AND t.uid = o.terminal_uid
        AND t.site_id = %(site)s AND {"true" if whole else "o.incident_id IS NULL"}
        AND (%(area)s::uuid IS NULL
             OR o.household_id IN (SELECT household_id FROM household_area WHERE area_id = %(area)s))
    """  # noqa: S608
    if known is None:
        row = await (
            await conn.execute(f"SELECT count(*) FROM trouble o, terminal t WHERE {free}", values)  # noqa: S608
        ).fetchone()
        if row is None or row[0] < least:
            return None
        known = await (
            await conn.execute(
                "INSERT INTO incident (area_id, site_id, district, cause, since, members, of_all) "
                "VALUES (%s, %s, %s, %s, %s, 0, %s) RETURNING id",
                (area.area_id, area.site_id, area.district, cause, area.since, area.of_all),
            )
        ).fetchone()
        assert known is not None
    values["incident"] = known[0]
    await conn.execute(
        f"UPDATE trouble o SET incident_id = %(incident)s FROM terminal t "  # noqa: S608
        f"WHERE {free} AND o.incident_id IS DISTINCT FROM %(incident)s",
        values,
    )
    await conn.execute(
        """
        UPDATE incident i SET of_all = %s, members = greatest(members, (SELECT count(*) FROM trouble o
            WHERE o.incident_id = i.id AND o.cleared_at IS NULL)) WHERE id = %s
        """,
        (area.of_all, known[0]),
    )
    return int(known[0])


async def thinned(conn: Connection, *, share: float) -> list[int]:
    """Return open incidents of which no more than `share` of the members are still in trouble."""
    cursor = await conn.execute(
        """
        SELECT i.id FROM incident i
        WHERE i.cleared_at IS NULL
          AND (SELECT count(*) FROM trouble o WHERE o.incident_id = i.id AND o.cleared_at IS NULL)
              <= %s * i.members
        """,
        (share,),
    )
    return [incident for (incident,) in await cursor.fetchall()]


async def end_incidents(conn: Connection, incidents: Sequence[int]) -> None:
    """End incidents. Whoever is still in trouble is on its own again, and will have a case of its own."""
    await conn.execute("UPDATE incident SET cleared_at = onekey_now() WHERE id = ANY(%b)", (list(incidents),))
    await conn.execute(
        """
        UPDATE trouble SET incident_id = NULL, case_id = NULL, case_over = false
        WHERE incident_id = ANY(%b) AND cleared_at IS NULL
        """,
        (list(incidents),),
    )


async def unsettled_incidents(conn: Connection, *, limit: int) -> list[IncidentRow]:
    """Return incidents without a case, and those that are over and whose case is still to be closed."""
    async with conn.cursor(row_factory=class_row(IncidentRow)) as cursor:
        await cursor.execute(
            """
            SELECT i.id, i.area_id, i.site_id, a.kind, a.sealed, i.cause, i.since, i.members, i.of_all,
                   i.cleared_at IS NOT NULL AS cleared, i.case_id
            FROM incident i LEFT JOIN area a ON a.id = i.area_id
            WHERE NOT i.case_over AND (i.case_id IS NULL OR i.cleared_at IS NOT NULL) ORDER BY i.id LIMIT %s
            """,
            (limit,),
        )
        return await cursor.fetchall()


async def incident_cased(conn: Connection, incident: int, case: UUID) -> None:
    """Note in which case an incident is told."""
    await conn.execute("UPDATE incident SET case_id = %s WHERE id = %s", (case, incident))


async def incident_over(conn: Connection, incident: int) -> None:
    """Note that no case is left to be closed for an incident."""
    await conn.execute("UPDATE incident SET case_over = true WHERE id = %s", (incident,))
