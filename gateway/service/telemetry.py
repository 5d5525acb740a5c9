"""Heartbeats, fixes and events of many terminals at once: stored, and the newest state kept."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from gateway.domain.outbox import DueNotice
from gateway.service.moving import move_cases
from gateway.service.raise_alarm import Press
from gateway.store import supervision, telemetry
from gateway.store.directory import Directory
from gateway.store.pool import Connection, Pool, as_jsonb
from gateway.store.telemetry import ReportRow, StateRow
from schemas.reports import EventReport, Fix, FixReport, HeartbeatReport, ResultReport

__all__ = [
    "SANE_CLOCK",
    "Told",
    "fix_record",
    "sane_time",
    "state_of",
    "store_reports",
    "store_reports_in",
    "store_states",
]

T = TypeVar("T")

_PIECE = 50
"""Reports that are prepared in one go: an alarm must not wait for two thousand."""

_MOST_KNOWN = 2_000_000

SANE_CLOCK = timedelta(days=7)
"""A terminal's time further than this from ours is no time to store a series under; ours is taken instead."""


class Told(NamedTuple):
    """One report that could be read.

    ``heard_at`` is the steady time of its receipt, None: the same as the time of day. ``kept``: the broker keeps such
    reports for us while we are away; ``late``: it had kept this one, so its own time is when it was sent.
    """

    terminal: str
    received_at: datetime
    report: HeartbeatReport | FixReport | EventReport | ResultReport
    heard_at: datetime | None = None
    kept: bool = True
    late: bool = False

    @property
    def kind(self) -> str:
        """What it is, as its topic names it."""
        return _KINDS[type(self.report)]


_KINDS = {HeartbeatReport: "heartbeat", FixReport: "fix", EventReport: "event", ResultReport: "result"}


def sane_time(at: datetime | None, received_at: datetime) -> datetime:
    """Return the terminal's time where it can be true, else ours."""
    return at if at is not None and abs(at - received_at) <= SANE_CLOCK else received_at


def state_of(terminal: UUID, press: Press) -> StateRow:
    """Return what an alarm says of the state of its terminal."""
    skew_s = None if press.pressed_at is None else (press.pressed_at - press.received_at).total_seconds()
    return StateRow(
        terminal=terminal,
        seen_at=press.received_at,
        status_at=press.received_at,
        boot=press.boot,
        seq=press.seq,
        battery_pct=press.battery_pct,
        signal_dbm=press.signal_dbm,
        fix=press.fix,
        fix_at=None if press.fix is None else press.received_at,
        clock_skew_s=skew_s,
    )


def fix_record(fix: Fix, at: datetime | None, received_at: datetime) -> dict[str, Any]:
    """Return a fix as it is stored and sent. One without a time of its own is as old as its report."""
    return fix.model_dump(mode="json") | {"at": (fix.at or at or received_at).isoformat()}


def _row(n: int, uid: UUID, told: Told) -> ReportRow:
    """Return a report of the terminal `uid` as it is staged; `n` is its place in the batch."""
    report, received_at = told.report, told.received_at
    own = report.fix.at or report.at if isinstance(report, FixReport) else report.at
    at = sane_time(own, received_at)
    heard_at = received_at if told.heard_at is None else told.heard_at
    row = (
        uid,
        at,
        own is not None and at == own,
        report.boot,
        report.seq,
        received_at,
        None if report.at is None or told.late else (report.at - heard_at).total_seconds(),
        heard_at,
        report.at if told.late and report.at is not None and report.at <= heard_at else None,
        told.kept,
    )
    # A clock that is ahead must not hold back what the terminal says once it is right: nothing is newer than now.
    newest = min(at, received_at)
    match report:
        case HeartbeatReport():
            return ReportRow(
                n,
                "heartbeat",
                *row,
                newest,
                report.battery_pct,
                report.battery_mv,
                report.signal_dbm,
                report.mains,
                report.uptime_s,
                report.temperature_c,
                report.firmware,
                report.cell,
            )
        case FixReport(fix=fix):
            return ReportRow(
                n,
                "fix",
                *row,
                lat=fix.lat,
                lon=fix.lon,
                datum=fix.datum,
                source=fix.source,
                accuracy_m=fix.accuracy_m,
                fix_at=newest,
                fix=as_jsonb(fix_record(fix, report.at, received_at)),
            )
        case EventReport():
            return ReportRow(n, "event", *row, name=report.name, value=as_jsonb(report.value))
        case ResultReport():
            return ReportRow(n, "event", *row, name=f"result.{report.state}", value=as_jsonb(report.command))


async def store_reports(
    pool: Pool,
    directory: Directory,
    told: Sequence[Told],
    *,
    worker: int | None,
    known: dict[str, UUID] | None = None,
    give_way: Callable[[], Awaitable[None]] = lambda: asyncio.sleep(0),
) -> list[DueNotice]:
    """Store a batch in one transaction; reports of terminals that nobody knows are left out.

    A fix that is worth telling moves the location of the terminal's open cases: the updates that `worker` has to
    send because of that come back. `known` remembers from one batch to the next which terminal is which: a terminal
    keeps its uid for ever. `give_way` is waited for after every small piece of work.
    """
    async with pool.connection() as conn, conn.transaction():
        return await store_reports_in(conn, directory, told, worker=worker, known=known, give_way=give_way)


async def store_reports_in(
    conn: Connection,
    directory: Directory,
    told: Sequence[Told],
    *,
    worker: int | None,
    known: dict[str, UUID] | None = None,
    give_way: Callable[[], Awaitable[None]] = lambda: asyncio.sleep(0),
) -> list[DueNotice]:
    """Do the work of `store_reports` in the caller's transaction."""
    known = {} if known is None else known
    if unknown := {one.terminal for one in told}.difference(known):
        if len(known) > _MOST_KNOWN:
            known.clear()
            unknown = {one.terminal for one in told}
        known |= await telemetry.uids(conn, sorted(unknown))
    rows: list[ReportRow] = []
    for n, one in enumerate(told):
        if (uid := known.get(one.terminal)) is not None:
            rows.append(_row(n, uid, one))
        if n % _PIECE == _PIECE - 1:
            await give_way()
    if not rows:
        return []
    await telemetry.stage(conn, rows, give_way=give_way)
    await telemetry.store_staged(conn, {row.kind for row in rows})
    moved = _newest_fixes(rows)
    if not moved:
        return []
    return await move_cases(conn, directory, moved, worker=worker)


def _newest_fixes(rows: Sequence[ReportRow]) -> Mapping[UUID, dict[str, Any]]:
    newest: dict[UUID, ReportRow] = {}
    for row in rows:
        if row.fix_at is None:
            continue
        known = newest.get(row.terminal)
        if known is None or known.fix_at is None or known.fix_at <= row.fix_at:
            newest[row.terminal] = row
    return {terminal: row.fix.obj for terminal, row in newest.items() if row.fix is not None}


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
        await supervision.wake(conn, list(states))
