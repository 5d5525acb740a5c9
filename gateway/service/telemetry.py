"""Heartbeats, fixes and events of many terminals at once: stored, and the newest state kept."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from gateway.domain.outbox import DueNotice
from gateway.service.moving import move_cases
from gateway.store import telemetry
from gateway.store.directory import Directory
from gateway.store.pool import Connection, Pool
from gateway.store.telemetry import EventRow, FixRow, HeartbeatRow, StateRow
from schemas.reports import EventReport, Fix, FixReport, HeartbeatReport, ResultReport

__all__ = ["SANE_CLOCK", "Told", "fix_record", "sane_time", "store_reports", "store_reports_in", "store_states"]

T = TypeVar("T")

SANE_CLOCK = timedelta(days=7)
"""A terminal's time further than this from ours is no time to store a series under; ours is taken instead."""


@dataclass(frozen=True, slots=True)
class Told:
    """One report that could be read."""

    terminal: str
    received_at: datetime
    report: HeartbeatReport | FixReport | EventReport | ResultReport


def sane_time(at: datetime | None, received_at: datetime) -> datetime:
    """Return the terminal's time where it can be true, else ours."""
    return at if at is not None and abs(at - received_at) <= SANE_CLOCK else received_at


def _skew_s(at: datetime | None, received_at: datetime) -> float | None:
    return None if at is None else (at - received_at).total_seconds()


def fix_record(fix: Fix, at: datetime | None, received_at: datetime) -> dict[str, Any]:
    """Return a fix as it is stored and sent. One without a time of its own is as old as its report."""
    return fix.model_dump(mode="json") | {"at": (fix.at or at or received_at).isoformat()}


def _state(terminal: UUID, told: Told) -> StateRow:
    report = told.report
    # A clock that is ahead must not hold back what the terminal says once it is right: nothing is newer than now.
    at = min(sane_time(report.at, told.received_at), told.received_at)
    row = StateRow(terminal=terminal, seen_at=told.received_at, clock_skew_s=_skew_s(report.at, told.received_at))
    if isinstance(report, HeartbeatReport):
        return replace(
            row,
            status_at=at,
            boot=report.boot,
            seq=report.seq,
            battery_pct=report.battery_pct,
            signal_dbm=report.signal_dbm,
            mains=report.mains,
            firmware=report.firmware,
        )
    if isinstance(report, FixReport):
        return replace(
            row,
            fix=fix_record(report.fix, report.at, told.received_at),
            fix_at=min(sane_time(report.fix.at or report.at, told.received_at), told.received_at),
        )
    return row


def _merge(old: StateRow, new: StateRow) -> StateRow:
    """Join what two reports of one terminal in the same batch say: per group of fields the newer one wins."""
    merged = replace(
        old, seen_at=max(old.seen_at, new.seen_at), clock_skew_s=_first(new.clock_skew_s, old.clock_skew_s)
    )
    if new.status_at is not None:
        before = old.status_at is not None and new.status_at < old.status_at
        winner, other = (old, new) if before else (new, old)
        merged = replace(
            merged,
            status_at=winner.status_at,
            boot=_first(winner.boot, other.boot),
            seq=_first(winner.seq, other.seq),
            battery_pct=_first(winner.battery_pct, other.battery_pct),
            signal_dbm=_first(winner.signal_dbm, other.signal_dbm),
            mains=_first(winner.mains, other.mains),
            firmware=_first(winner.firmware, other.firmware),
        )
    if new.fix_at is not None and (old.fix_at is None or new.fix_at >= old.fix_at):
        merged = replace(merged, fix=new.fix, fix_at=new.fix_at)
    return merged


def _first(one: T | None, other: T | None) -> T | None:
    return other if one is None else one


async def store_reports(
    pool: Pool, directory: Directory, told: Sequence[Told], *, worker: int | None
) -> list[DueNotice]:
    """Store a batch in one transaction; reports of terminals that nobody knows are left out.

    A fix that is worth telling moves the location of the terminal's open cases: the updates that `worker` has to
    send because of that come back.
    """
    async with pool.connection() as conn, conn.transaction():
        return await store_reports_in(conn, directory, told, worker=worker)


async def store_reports_in(
    conn: Connection, directory: Directory, told: Sequence[Told], *, worker: int | None
) -> list[DueNotice]:
    """Do the work of `store_reports` in the caller's transaction."""
    known = await telemetry.uids(conn, sorted({one.terminal for one in told}))
    ours = [(known[one.terminal][0], one) for one in told if one.terminal in known]
    heartbeats, fixes, happenings = [], [], []
    states: dict[UUID, StateRow] = {}
    for terminal, one in ours:
        report = one.report
        boot = -1 if report.boot is None else report.boot
        seq = -1 if report.seq is None else report.seq
        at = sane_time(report.at, one.received_at)
        if isinstance(report, HeartbeatReport):
            heartbeats.append(
                HeartbeatRow(
                    at=at,
                    terminal=terminal,
                    boot=boot,
                    seq=seq,
                    received_at=one.received_at,
                    battery_pct=report.battery_pct,
                    battery_mv=report.battery_mv,
                    signal_dbm=report.signal_dbm,
                    mains=report.mains,
                    uptime_s=report.uptime_s,
                    temperature_c=report.temperature_c,
                )
            )
        elif isinstance(report, FixReport):
            fixes.append(
                FixRow(
                    at=sane_time(report.fix.at or report.at, one.received_at),
                    terminal=terminal,
                    boot=boot,
                    seq=seq,
                    received_at=one.received_at,
                    lat=report.fix.lat,
                    lon=report.fix.lon,
                    datum=report.fix.datum,
                    source=report.fix.source,
                    accuracy_m=report.fix.accuracy_m,
                )
            )
        else:
            name = report.name if isinstance(report, EventReport) else f"result.{report.state}"
            value: object = report.value if isinstance(report, EventReport) else report.command
            happenings.append(
                EventRow(
                    at=at,
                    terminal=terminal,
                    boot=boot,
                    seq=seq,
                    received_at=one.received_at,
                    name=name,
                    value=value,
                )
            )
        state = _state(terminal, one)
        states[terminal] = state if terminal not in states else _merge(states[terminal], state)
    if heartbeats:
        await telemetry.add_heartbeats(conn, heartbeats)
    if fixes:
        await telemetry.add_fixes(conn, fixes)
    if happenings:
        await telemetry.add_events(conn, happenings)
    if states:
        await telemetry.renew(conn, [states[terminal] for terminal in sorted(states)])
    moving = {terminal: state.fix for terminal, state in states.items() if state.fix is not None}
    return await move_cases(conn, directory, moving, worker=worker) if moving else []


async def store_states(pool: Pool, told: Sequence[StateRow]) -> None:
    """Note what alarms say about the states of their terminals.

    It does not wait long for a batch of telemetry that holds a row: then the next report says it.
    """
    states: dict[UUID, StateRow] = {}
    for one in told:
        states[one.terminal] = _merge(states[one.terminal], one) if one.terminal in states else one
    async with pool.connection() as conn, conn.transaction():
        await conn.execute("SET LOCAL lock_timeout = '500ms'")
        await telemetry.renew(conn, [states[terminal] for terminal in sorted(states)])
