"""Supervision in the tables: who is to be looked at, by when everything was heard, and what a look found.

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
    "DailyRow",
    "Enrolment",
    "HearingRow",
    "LookRow",
    "NewTrouble",
    "WatchRow",
    "add_troubles",
    "awake",
    "clear_troubles",
    "close_share",
    "daily",
    "enrol",
    "expect",
    "hear_again",
    "hearing",
    "keep_hearing",
    "keep_shares",
    "note_said",
    "open_share",
    "open_shares",
    "postpone",
    "say_steady",
    "shares_heard",
    "silent_share",
    "steady_now",
    "wake",
    "wake_homeless",
    "wake_named",
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


async def keep_hearing(conn: Connection, *, horizon: datetime, boot: str, uptime_s: float, steady: datetime) -> None:
    """Note up to when everything is stored, and the steady time that it is now."""
    await conn.execute(
        """
        INSERT INTO hearing AS h (horizon, boot, uptime_s, steady_at, said_at)
        VALUES (%b, %b, %b, %b, clock_timestamp())
        ON CONFLICT (one) DO UPDATE SET horizon = greatest(h.horizon, excluded.horizon), boot = excluded.boot,
            uptime_s = excluded.uptime_s, steady_at = excluded.steady_at, said_at = excluded.said_at,
            swept_at = onekey_now()
        """,
        (horizon, boot, uptime_s, steady),
    )


async def say_steady(conn: Connection, steady: datetime) -> None:
    """Say what the steady time is now, for those who go by it."""
    await conn.execute("UPDATE hearing SET steady_at = %s, said_at = clock_timestamp()", (steady,))


async def steady_now(conn: Connection, *, within: timedelta) -> datetime | None:
    """Return the steady time of whoever supervises; None when it was said longer ago than `within`, or never."""
    row = await (
        await conn.execute(
            "SELECT steady_at + (clock_timestamp() - said_at) FROM hearing "
            "WHERE clock_timestamp() - said_at BETWEEN '0' AND %s::interval",
            (within,),
        )
    ).fetchone()
    return None if row is None else row[0]


async def keep_shares(conn: Connection, until: Mapping[int, datetime]) -> None:
    """Note up to when everything in these shares of the reports is stored."""
    await conn.execute(
        "UPDATE telemetry_share s SET horizon = greatest(s.horizon, new.horizon) "
        "FROM unnest(%b::int4[], %b::timestamptz[]) AS new (share, horizon) WHERE s.share = new.share",
        (list(until), list(until.values())),
    )


async def shares_heard(conn: Connection) -> dict[int, datetime | None]:
    """Return up to when everything in each share but the first is stored, by what their holders said last."""
    cursor = await conn.execute("SELECT share, horizon FROM telemetry_share")
    return dict(await cursor.fetchall())


async def open_share(conn: Connection, share: int) -> None:
    """Note that there is a session at the broker for this share."""
    await conn.execute("INSERT INTO telemetry_share (share) VALUES (%s) ON CONFLICT DO NOTHING", (share,))


async def close_share(conn: Connection, share: int) -> None:
    """Note that there is no session for this share any more."""
    await conn.execute("DELETE FROM telemetry_share WHERE share = %s", (share,))


async def open_shares(conn: Connection) -> list[int]:
    """Return the shares that have a session at the broker."""
    cursor = await conn.execute("SELECT share FROM telemetry_share ORDER BY share")
    return [share for (share,) in await cursor.fetchall()]


async def hear_again(conn: Connection, begin: datetime, end: datetime, *, total: bool) -> None:
    """Note a time in which nobody listened.

    While terminals still have the time to report again after one of which a broker has kept nothing, a later one counts
    as such too.
    """
    await conn.execute(
        """
        UPDATE hearing SET deaf_from = %(begin)s, deaf_until = %(end)s,
            deaf_total = %(total)s OR (deaf_total AND deaf_until > %(begin)s - (SELECT max(late_after) FROM watch))
        """,
        {"begin": begin, "end": end, "total": total},
    )


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
