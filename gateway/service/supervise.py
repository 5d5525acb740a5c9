"""A sweep: everybody whose turn it is is looked at, and what that finds is written down (R24, I1).

No terminal is told and no case raised in here: that would hold up the telemetry lane, whose rows are locked meanwhile.
``gateway.service.troubles`` does it right afterwards.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from gateway.domain.supervision import Cause, Deafness, Observed, Presence, Profile, Said, look
from gateway.domain.wellbeing import Care, Place, Signs
from gateway.keyring import ErasedKey, Keyring, KeyringError
from gateway.service.places import place_of
from gateway.site.supervision import read_care
from gateway.store import events, supervision, troubles
from gateway.store.events import NewEvent
from gateway.store.pool import Connection, Pool
from gateway.store.supervision import DailyRow, HearingRow, LookRow, NewTrouble, WatchRow
from gateway.store.troubles import OpenCase

__all__ = ["STATES", "Swept", "note_state", "sweep"]

STATES = frozenset({"out_of_range", "tamper", "tamper_cleared", "sim_balance", "sim_paid_until", "well", "activity"})
"""Names of events by which a terminal says how it is, or that its person is up."""

_CURVE = timedelta(days=21)


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What a sweep came to: how many were put off, how many looked at, and what changed."""

    postponed: int = 0
    looked_at: int = 0
    opened: int = 0
    cleared: int = 0
    more: bool = False


async def note_state(pool: Pool, terminal: str, name: str, value: object, *, at: datetime) -> None:
    """Keep what a terminal says of itself; it is looked at with the next sweep."""
    if name == "tamper_cleared":
        name, value = "tamper", False
    async with pool.connection() as conn:
        await supervision.note_said(conn, terminal, name, value, at=at)


async def sweep(
    pool: Pool, keyring: Keyring, *, now: datetime, shift: timedelta = timedelta(0), limit: int = 500
) -> Swept:
    """Look at up to `limit` terminals as of the steady time `now`, up to which everything is stored.

    `shift` is how far the wall clock is ahead of steady time: what people see is told in time of day. ``more``: there
    are others whose turn it is.
    """
    async with pool.connection() as conn:
        postponed = await supervision.postpone(conn, now=now)
        async with conn.transaction():
            found = await supervision.awake(conn, now=now, limit=limit)
            if not found:
                return Swept(postponed=postponed)
            opened, cleared = await _look(conn, keyring, found, now=now, shift=shift)
    return Swept(postponed=postponed, looked_at=len(found), opened=opened, cleared=cleared, more=len(found) == limit)


async def _look(
    conn: Connection, keyring: Keyring, found: Sequence[WatchRow], *, now: datetime, shift: timedelta
) -> tuple[int, int]:
    deafness = _deafness(await supervision.hearing(conn))
    raised: dict[str, list[OpenCase]] = {}
    for case in await troubles.raised_by(conn, [row.terminal for row in found]):
        raised.setdefault(case.terminal, []).append(case)
    due = [row.terminal_uid for row in found if row.daily_at <= now]
    daily = await supervision.daily(conn, due, since=now - _CURVE) if due else {}

    looks: list[LookRow] = []
    opened: list[NewTrouble] = []
    cleared: list[tuple[UUID, str]] = []
    news: list[NewEvent] = []
    for row in found:
        alarms = raised.get(row.terminal, [])
        seen = _observed(row, alarms, daily.get(row.terminal_uid), is_daily=row.daily_at <= now)
        care = _care(keyring, row)
        if care is not None:
            seen = replace(seen, care=care, signs=_signs(row, wall=now + shift, since=row.since + shift))
        result = look(
            Profile.of_record(row.silent_after, row.profile),
            seen,
            before=Presence(row.state),
            memory=row.memory,
            has={Cause(cause) for cause in row.has},
            daily_at=row.daily_at,
            now=now,
            deafness=deafness,
        )
        changed = result.state != row.state
        looks.append(
            LookRow(
                terminal_uid=row.terminal_uid,
                state=result.state,
                state_since=now + shift if changed else None,
                memory=result.memory,
                battery_days=result.battery_days,
                look_at=result.look_at,
                daily_at=result.daily_at,
                calm=result.calm,
                battery=result.wires.battery,
                signal=result.wires.signal,
                skew=result.wires.skew,
                mains=result.wires.mains,
                firmware=result.wires.firmware,
            )
        )
        cases = {case.kind: case.case_id for case in alarms}
        opened += [
            NewTrouble(
                terminal_uid=row.terminal_uid,
                household=row.household,
                district=row.district,
                cause=trouble.cause,
                since=trouble.since + shift,
                detail=trouble.detail,
                case_id=cases.get(trouble.cause),
            )
            for trouble in result.opened
        ]
        cleared += [(row.terminal_uid, cause) for cause in result.cleared]
        if changed or result.opened or result.cleared:
            news.append(_news(row, result.state, [one.cause for one in result.opened], result.cleared))
    await supervision.write_watches(conn, looks)
    await supervision.add_troubles(conn, opened)
    await supervision.clear_troubles(conn, cleared)
    await events.emit_all(conn, news)
    return len(opened), len(cleared)


def _deafness(row: HearingRow | None) -> Deafness | None:
    if row is None or row.deaf_from is None or row.deaf_until is None:
        return None
    return Deafness(row.deaf_from, row.deaf_until, row.deaf_total)


def _observed(row: WatchRow, alarms: Sequence[OpenCase], daily: DailyRow | None, *, is_daily: bool) -> Observed:
    values: dict[str, Any] = {}
    if daily is not None:
        values["last_press"] = daily.last_press
        values["battery_curve"] = _curve(daily.days, daily.battery)
        values["signal_curve"] = _curve(daily.days, daily.signal)
    return Observed(
        since=row.since,
        supervised=row.active and row.household is not None,
        heard_at=row.heard_at,
        kept=row.kept is not False,
        battery_at=row.battery_at,
        mains_at=row.mains_at,
        battery_pct=row.battery_pct,
        signal_dbm=row.signal_dbm,
        mains=row.mains,
        firmware=row.firmware,
        skew_s=row.skew_s,
        said={name: Said(value, datetime.fromisoformat(at)) for name, (value, at) in row.said.items()},
        alarms={case.kind: case.raised_at for case in alarms if case.raised_at is not None},
        daily=is_daily,
        **values,
    )


def _care(keyring: Keyring, row: WatchRow) -> Care | None:
    if row.care is None or row.care_key is None:
        return None
    try:
        record: Any = keyring.unwrap(row.care_key, row.care_wrapped).open(bytes(row.care), about=f"care {row.terminal}")
    except (ErasedKey, KeyringError):
        return None  # nobody lives there any more whom anybody could name
    return read_care(record)


def _signs(row: WatchRow, *, wall: datetime, since: datetime) -> Signs:
    local = wall.astimezone(ZoneInfo(row.timezone))
    place = None
    if row.fix is not None:
        at = place_of(row.fix)
        place = Place(at=at.at or wall, coordinates=at.coordinates, source=at.source.value, accuracy_m=at.accuracy_m)
    signs = [datetime.fromisoformat(row.said[name][1]) for name in ("well", "activity") if name in row.said]
    if row.pressed_at is not None:
        signs.append(row.pressed_at)
    life = max(signs).astimezone(local.tzinfo) if signs else None
    return Signs(now=local, place=place, life=life, watched_since=since)


def _curve(days: Sequence[Any], values: Sequence[float | None]) -> list[tuple[Any, float]]:
    return [(day, value) for day, value in zip(days, values, strict=True) if value is not None]


def _news(row: WatchRow, state: Presence, opened: Sequence[str], cleared: Sequence[str]) -> NewEvent:
    return NewEvent(
        kind="terminal.state",
        district=row.district,
        case_id=None,
        data={
            "terminal": row.terminal,
            "household": row.household,
            "state": state,
            "before": row.state,
            "opened": list(opened),
            "cleared": list(cleared),
        },
    )
