"""Troubles of terminals become technical cases, one for each terminal and cause, and end with them (R24).

Where many terminals of one area come into the same trouble at once, one incident with a list stands for all of them; an
emergency in its midst stays a case of its own.
"""

import hashlib
import json
import logging
from collections.abc import Coroutine, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg

from gateway.domain import keys
from gateway.domain.case import CaseState
from gateway.domain.kinds import AREA_LOST, EMERGENCIES, WORDS
from gateway.domain.supervision import Cause
from gateway.service.case_commands import Outcome, close_in
from gateway.service.case_work import locked
from gateway.service.command_terminals import give_command
from gateway.service.raise_alarm import Press, raise_alarm_in, raise_alarms_in
from gateway.store import procedures
from gateway.store import troubles as store
from gateway.store.directory import Directory
from gateway.store.pool import Connection, Pool, is_data_error
from gateway.store.troubles import IncidentRow, TroubleRow

__all__ = [
    "close_technical",
    "gather_incidents",
    "settle_incidents",
    "settle_troubles",
    "tell_troubles",
    "track_emergencies",
]

_log = logging.getLogger(__name__)

_TOGETHER = frozenset({Cause.OFFLINE, Cause.POWER_LOST})
"""What a building, a feeder or a network can have as a whole."""

_FRESH = timedelta(minutes=10)
_LEAST = 3
_SHARE = 0.3
_AGAIN = timedelta(days=1)
_BY = "supervision"
_COMMAND_LIVES = timedelta(hours=1)


async def gather_incidents(pool: Pool, directory: Directory) -> int:
    """Make incidents of what many terminals of an area have in common, and end those that are over.

    Returns how many began or ended.
    """
    changed = 0
    async with pool.connection() as conn, conn.transaction():
        await _know_cells(conn, directory, since=await procedures.the_time(conn) - _FRESH)
        for cause in sorted(_TOGETHER):
            since = await procedures.the_time(conn) - _FRESH
            found = await store.crowds(conn, cause=cause, since=since, least=_LEAST, share=_SHARE)
            for area in found:
                # The smallest area first: whoever is in its incident does not count for the larger ones.
                if await store.start_incident(conn, area, cause=cause, since=since, least=_LEAST) is not None:
                    changed += 1
        over = await store.thinned(conn, share=_SHARE)
        if over:
            await store.end_incidents(conn, over)
    return changed + len(over)


async def _know_cells(conn: Connection, directory: Directory, *, since: datetime) -> None:
    """Note who was in which radio cell, for those cells that lost terminals: nobody registers them beforehand."""
    found = await store.fresh_cells(conn, since=since, least=_LEAST)
    if not found:
        return
    sites = {site.id: site for site in await directory.sites(conn)}
    for name, district, cell in found:
        if (site := sites.get(name)) is None:
            continue
        area = directory.keyring.area(name, "cell", (cell,))
        sealed = site.key.seal(cell, about=f"area {area}")
        await store.write_areas(conn, site=name, district=district, areas={area: ("cell", sealed)}, key=site.key.id)
        await store.write_cell(conn, area, site=name, cell=cell)


async def tell_troubles(pool: Pool, directory: Directory, *, limit: int = 50) -> int:
    """Raise cases for troubles that nobody has been told of; returns how many troubles that were.

    A case that is open already for this terminal and cause, because the terminal has called by itself, is the one.
    A trouble that goes on though people closed its case a day ago is told of again. One that we fail on keeps no other
    from being told (D12).
    """
    async with pool.connection() as conn:
        await store.recase(conn, after=_AGAIN)
        found = await store.uncased(conn, limit=limit)
    if not found:
        return 0
    try:
        await _tell(pool, directory, found)
    except Exception as exc:
        if _is_away(exc):
            raise
    else:
        return len(found)
    return sum([await _surely(_tell(pool, directory, [one]), one) for one in found])


async def _surely(act: Coroutine[Any, Any, None], one: TroubleRow) -> bool:
    """Do something about one trouble; a fault is logged, and tried again with the next round."""
    try:
        await act
    except Exception as exc:
        if _is_away(exc):
            raise
        _log.exception("a trouble could not be handled", extra={"terminal": one.terminal})
        return False
    return True


def _is_away(exc: Exception) -> bool:
    return isinstance(exc, psycopg.Error) and not is_data_error(exc)


async def _tell(pool: Pool, directory: Directory, found: Sequence[TroubleRow]) -> None:
    async with pool.connection() as conn, conn.pipeline(), conn.transaction():
        raised_before = await store.raised_by(conn, [one.terminal for one in found])
        open_now = {(case.terminal, case.kind): case.case_id for case in raised_before}
        cases: dict[int, UUID] = {}
        new: list[TroubleRow] = []
        for one in found:
            known = open_now.get((one.terminal, one.cause))
            if known is None:
                new.append(one)
            else:
                cases[one.id] = known
        now = await procedures.the_time(conn)
        presses = [_press(one, now=now) for one in new]
        raised = await raise_alarms_in(conn, directory, presses, worker=None)
        for one, press, done in zip(new, presses, raised, strict=True):
            if done is None:
                done = await raise_alarm_in(conn, directory, press, worker=None)
            cases[one.id] = done.case_id
        await store.cased(conn, cases)


def _press(one: TroubleRow, *, now: datetime) -> Press:
    payload = json.dumps({"cause": one.cause, "since": one.since.isoformat(), **one.detail}).encode()
    return Press(
        terminal=one.terminal,
        transport="supervision",
        kinds=(one.cause,),
        received_at=now,
        payload=payload,
        digest=hashlib.sha256(b"%d " % one.id + payload).digest(),
        seq=one.id,
        battery_pct=one.detail.get("battery_pct"),
        signal_dbm=one.detail.get("signal_dbm"),
        problems=_said(one.detail),
        about=keys.trouble_subject(one.terminal, one.cause),
    )


def _said(detail: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(f"{name} {value}" for name, value in detail.items() if name not in ("battery_pct", "signal_dbm"))


async def settle_troubles(pool: Pool, directory: Directory, *, limit: int = 50) -> int:
    """Close the cases of troubles that are over, or that an incident now stands for; returns how many those were."""
    async with pool.connection() as conn:
        found = await store.unsettled(conn, limit=limit)
    return sum([await _surely(_settle(pool, directory, one), one) for one in found])


async def _settle(pool: Pool, directory: Directory, one: TroubleRow) -> None:
    assert one.case_id is not None
    async with pool.connection() as conn, conn.transaction():
        if one.cause in EMERGENCIES:
            # That they are back, or up, is good to know; that all is well a human has to say (I4, I7).
            work = await locked(conn, directory, one.case_id)
            if work.case.state != CaseState.CLOSED:
                work.note("case.restored", {"kind": one.cause, "left": work.case.kinds}, actor=_BY)
                await work.flush()
        else:
            await close_technical(conn, directory, one.case_id, {"kind": one.cause})
        await store.over(conn, [one.id])


async def settle_incidents(pool: Pool, directory: Directory, *, limit: int = 20) -> int:
    """Raise the cases of new incidents, and close those of incidents that are over; returns how many those were."""
    async with pool.connection() as conn:
        found = await store.unsettled_incidents(conn, limit=limit)
    for one in found:
        async with pool.connection() as conn, conn.transaction():
            if one.case_id is None and not one.cleared:
                case = await raise_alarm_in(conn, directory, await _report(conn, directory, one), worker=None)
                await store.incident_cased(conn, one.id, case.case_id)
            else:
                if one.case_id is not None:
                    await close_technical(conn, directory, one.case_id, {"kind": AREA_LOST})
                await store.incident_over(conn, one.id)
    return len(found)


async def track_emergencies(pool: Pool, directory: Directory) -> int:
    """Have terminals report their place more often while their emergency is open, and as usual afterwards.

    Returns how many were told. Only those whose model is set up for it; nothing is heard in the room by it.
    """
    async with pool.connection() as conn:
        begin, end = await store.to_track(conn), await store.tracked_enough(conn)
    for case, terminal, every_s in begin:
        await _every(pool, directory, terminal, every_s, case=case)
        async with pool.connection() as conn:
            await store.track(conn, case, terminal)
    for terminal, every_s in {terminal: every_s for _, terminal, every_s in end}.items():
        await _every(pool, directory, terminal, every_s, case=None)
        async with pool.connection() as conn:
            await store.end_tracking(conn, terminal)
    return len(begin) + len(end)


async def _every(pool: Pool, directory: Directory, terminal: str, every_s: int, *, case: UUID | None) -> None:
    await give_command(
        pool,
        directory,
        terminal,
        name="configure",
        arguments={"fix_s": every_s},
        life=_COMMAND_LIVES,
        case_id=case,
        by=_BY,
    )


async def _report(conn: Connection, directory: Directory, one: IncidentRow) -> Press:
    site = next((site for site in await directory.sites(conn) if site.id == one.site_id), None)
    language = "zh" if site is None or site.locale.startswith("zh") else "en"
    where = one.site_id
    if one.sealed is not None and site is not None:
        where = str(site.key.open(one.sealed, about=f"area {one.area_id}"))
    said = {
        "zh": f"{where}：{one.of_all}台终端中有{one.members}台{WORDS['zh'][one.cause]}",
        "en": f"{where}: {one.members} of {one.of_all} terminals, {WORDS['en'][one.cause].lower()}",
    }[language]
    payload = json.dumps({"incident": one.id, "cause": one.cause, "members": one.members}).encode()
    return Press(
        terminal=None,
        site=one.site_id,
        transport="supervision",
        kinds=(AREA_LOST,),
        received_at=await procedures.the_time(conn),
        payload=payload,
        digest=hashlib.sha256(payload).digest(),
        seq=one.id,
        problems=(said,),
        about=f"incident:{one.id}",
    )


async def close_technical(
    conn: Connection, directory: Directory, case_id: UUID, data: dict[str, Any], *, by: str = _BY
) -> None:
    """Close a technical case whose cause is over by itself; `data` says what is restored, `by` who found out."""
    work = await locked(conn, directory, case_id)
    case = work.case
    if case.state == CaseState.CLOSED:
        return
    restored = [*case.restored, *(kind for kind in case.kinds if kind not in case.restored)]
    await procedures.set_restored(conn, case.id, restored)
    work.change(restored=restored)
    work.note("case.restored", data | {"left": []}, actor=by)
    await work.emit()
    await close_in(
        conn,
        work.case,
        work.around,
        work.journal,
        outcome=Outcome.TECHNICAL_FIXED,
        confirmed_by=by,
        note=None,
        by=by,
        actor=by,
        via=by,
        worker=None,
        false_alarm=None,
    )
    work.change(state=CaseState.CLOSED, closed_at=work.now, closed_by=by, outcome=Outcome.TECHNICAL_FIXED)
    await work.flush()
