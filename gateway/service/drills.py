"""Drills (演练, R23): planned, run on the real paths with whoever takes part, scored, and reported on.

A drill never wakes 120, 119 or 110 unless it names them and says so, and a press that is no test is a real case at
once, from the same terminal too: the drill has a class of its own and shares no case with it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from gateway.domain.case import CaseState, NotFound, StateConflict
from gateway.domain.kinds import NEVER_IN_A_TEST
from gateway.domain.ladder import Ladder
from gateway.domain.outbox import DueNotice
from gateway.domain.scoring import Item, mark_of, share_in_time
from gateway.service.case_commands import Outcome, close_in
from gateway.service.case_work import locked
from gateway.service.paging import NOT_OURS, BadCursor, Page, page_of, read_cursor
from gateway.service.raise_alarm import Press, raise_alarm_in
from gateway.store import drills, events, procedures
from gateway.store.directory import Directory
from gateway.store.drills import DrillRow
from gateway.store.pool import Connection, Pool

__all__ = [
    "CaseScore",
    "DrillFile",
    "drive_drills",
    "end_drill",
    "list_drills",
    "plan_drill",
    "read_drill",
    "start_drill",
]

_TOLD_WITHIN = timedelta(seconds=5)
_OWNED_WITHIN = timedelta(seconds=10)


async def plan_drill(
    pool: Pool,
    *,
    title: str,
    terminals: Sequence[str],
    participants: Sequence[str],
    scenario: Sequence[dict[str, Any]],
    lasts: timedelta,
    with_rescue: bool,
    by: str,
) -> DrillRow:
    """Plan a drill. `scenario` holds presses to inject: ``after_s``, ``terminal`` and ``kinds``.

    Raises:
        NotFound: A terminal or party is not in use.
        StateConflict: Terminals of several sites; a public service takes part and `with_rescue` does not say so; the
            scenario uses another terminal or goes on after the end.
    """
    drill = uuid4()
    async with pool.connection() as conn, conn.transaction():
        places = await drills.known_terminals(conn, terminals)
        if missing := sorted(set(terminals) - set(places)):
            raise NotFound(f"There is no terminal {missing[0]} in use in a household.")
        sites = {site for site, _ in places.values()}
        if len(sites) > 1:
            raise StateConflict("The terminals of a drill belong to one site.")
        site = sites.pop()
        roles = await drills.known_parties(conn, site, participants)
        if missing := sorted(set(participants) - set(roles)):
            raise NotFound(f"There is no party {missing[0]} of this site in use.")
        rescue = sorted(party for party, role in roles.items() if role in NEVER_IN_A_TEST)
        if rescue and not with_rescue:
            raise StateConflict(f"{', '.join(rescue)} would be called: say with_rescue if that is agreed with them.")
        for inject in scenario:
            if inject["terminal"] not in terminals:
                raise StateConflict(f"The scenario presses at {inject['terminal']}, which is not in the drill.")
            if inject["after_s"] >= lasts.total_seconds():
                raise StateConflict(f"The scenario goes on {inject['after_s']} s after the start, after the end.")
        await drills.add(
            conn,
            id=drill,
            site=site,
            district=next(iter(places.values()))[1],
            title=title,
            terminals=terminals,
            participants=participants,
            scenario=sorted(scenario, key=lambda inject: inject["after_s"]),
            lasts=lasts,
            by=by,
        )
        row = await drills.one(conn, drill)
        assert row is not None
        await _tell(conn, row, "drill.planned")
    return row


async def _tell(conn: Connection, drill: DrillRow, kind: str) -> None:
    data = {"drill": str(drill.id), "terminals": drill.terminals, "participants": drill.participants}
    await events.emit(conn, kind, district=drill.district, case_id=None, data=data)


async def start_drill(pool: Pool, drill: UUID, *, by: str) -> None:
    """Start a planned drill; one that runs stays as it is.

    Raises:
        NotFound: No such drill.
        StateConflict: It has ended, or one of its homes has an open test case, which would swallow it.
    """
    async with pool.connection() as conn, conn.transaction():
        row = await _lock(conn, drill)
        if row.state == "running":
            return
        if row.state == "ended":
            raise StateConflict("The drill has ended; plan another one.")
        busy = await procedures.open_tests_at(conn, row.terminals)
        if busy:
            raise StateConflict(f"A test case is open at {busy[0]}: close it before the drill.")
        await drills.start(conn, drill, by=by)
        await _tell(conn, row, "drill.started")


async def _lock(conn: Connection, drill: UUID) -> DrillRow:
    row = await drills.lock(conn, drill)
    if row is None:
        raise NotFound(f"There is no drill {drill}.")
    return row


async def drive_drills(pool: Pool, directory: Directory, *, worker: int | None) -> list[DueNotice]:
    """Make the presses of running scenarios that are due, and end what has lasted long enough."""
    async with pool.connection() as conn:
        running = await drills.running(conn)
        now = await procedures.the_time(conn) if running else None
    notices: list[DueNotice] = []
    for row in running:
        assert row.started_at is not None
        assert now is not None
        while row.injected < len(row.scenario) and _due(row) <= now:
            notices += await _inject(pool, directory, row.id, worker=worker)
            async with pool.connection() as conn:
                fresh = await drills.one(conn, row.id)
            assert fresh is not None
            row = fresh  # it goes on with what is so now
        if row.state == "running" and row.started_at is not None and row.started_at + row.lasts <= now:
            await end_drill(pool, directory, row.id, by="gateway")
    return notices


def _due(row: DrillRow) -> datetime:
    assert row.started_at is not None
    return row.started_at + timedelta(seconds=row.scenario[row.injected]["after_s"])


async def _inject(pool: Pool, directory: Directory, drill: UUID, *, worker: int | None) -> list[DueNotice]:
    """Make the next press, once: the drill's row is locked until it is stored and counted."""
    async with pool.connection() as conn, conn.transaction():
        row = await _lock(conn, drill)
        if row.state != "running" or row.injected >= len(row.scenario):
            return []
        inject = row.scenario[row.injected]
        now = await procedures.the_time(conn)
        press = Press(
            terminal=inject["terminal"],
            transport="drill",
            kinds=tuple(inject["kinds"]),
            received_at=now,
            payload=b"",
            digest=hashlib.sha256(f"{drill} {row.injected}".encode()).digest(),
            drill=drill,
        )
        raised = await raise_alarm_in(conn, directory, press, worker=worker)
        await drills.inject(conn, drill, row.injected + 1)
    return list(raised.notices)


async def end_drill(pool: Pool, directory: Directory, drill: UUID, *, by: str) -> None:
    """End a drill: its windows close, its open cases are closed as tests, and whoever was told hears that it is over.

    Raises:
        NotFound: No such drill.
    """
    async with pool.connection() as conn, conn.transaction():
        row = await _lock(conn, drill)
        if row.state == "ended":
            return
        await drills.end(conn, drill, by=by)
        await _tell(conn, row, "drill.ended")
        found = await drills.cases_of(conn, drill)
    for case_id, state, *_ in found:
        if state == CaseState.CLOSED:
            continue
        async with pool.connection() as conn, conn.transaction():
            work = await locked(conn, directory, case_id)
            if work.case.state == CaseState.CLOSED:
                continue
            await close_in(
                conn,
                work.case,
                work.around,
                work.journal,
                outcome=Outcome.TEST,
                confirmed_by=None,
                note=None,
                by=by,
                actor=f"drill:{drill}",
                via="drill",
                worker=None,
            )
            await work.flush()


# Reading and scoring


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseScore:
    """One case of a drill against its deadlines."""

    case_id: UUID
    state: str
    opened_at: datetime
    items: list[Item]


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillFile:
    """A drill with its score as of ``now``; after its end that is the after-action report."""

    drill: DrillRow
    now: datetime
    cases: list[CaseScore]
    in_time: float | None


async def read_drill(pool: Pool, drill: UUID) -> DrillFile:
    """Return a drill and how it stands against its deadlines: live while it runs, final afterwards.

    Raises:
        NotFound: No such drill.
    """
    async with pool.connection() as conn, conn.transaction():
        await conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        row = await drills.one(conn, drill)
        if row is None:
            raise NotFound(f"There is no drill {drill}.")
        now = await procedures.the_time(conn)
        found = await drills.cases_of(conn, drill)
        legs = await drills.legs_of(conn, drill)
        steps = await drills.steps_of(conn, drill)
    until = now if row.ended_at is None else row.ended_at
    scores = []
    for case_id, state, opened_at, owned_at, owner in found:
        items = [_item("owned", owner or "nobody", opened_at, opened_at + _OWNED_WITHIN, owned_at, until)]
        for leg in (one for one in legs if one.case_id == case_id):
            due_at = leg.armed_at + _TOLD_WITHIN
            items.append(_item(f"told {leg.role}", leg.party, leg.armed_at, due_at, leg.delivered_at, until))
            within = Ladder.of_record(leg.ladder).within
            if within:
                due_at = leg.armed_at + within
                items.append(_item(f"answer of {leg.role}", leg.party, leg.armed_at, due_at, leg.answered_at, until))
        for step in (one for one in steps if one.case_id == case_id and one.due_at is not None):
            assert step.due_at is not None
            done_at = step.ended_at if step.state == "done" and step.by_whom is not None else None
            void = step.state in ("cancelled", "done") and done_at is None and (step.ended_at or until) <= step.due_at
            mark = mark_of(due_at=step.due_at, done_at=done_at, now=until, void=void)
            who = step.by_whom or f"seat {step.seat}"
            items.append(
                Item(what=f"task {step.name}", who=who, mark=mark, due_at=step.due_at, done_at=done_at, took=None)
            )
        scores.append(CaseScore(case_id=case_id, state=state, opened_at=opened_at, items=items))
    whole = [item for score in scores for item in score.items]
    return DrillFile(drill=row, now=now, cases=scores, in_time=share_in_time(whole))


def _item(what: str, who: str, begins: datetime, due_at: datetime, done_at: datetime | None, until: datetime) -> Item:
    return Item(
        what=what,
        who=who,
        mark=mark_of(due_at=due_at, done_at=done_at, now=until),
        due_at=due_at,
        done_at=done_at,
        took=None if done_at is None else done_at - begins,
    )


async def list_drills(pool: Pool, *, cursor: str | None = None, limit: int = 50) -> Page[DrillRow]:
    """Return drills, newest first.

    Raises:
        BadCursor: Not a cursor of ours.
    """
    text = read_cursor(cursor)
    before = None
    if text is not None:
        at, _, name = text.partition("|")
        try:
            before = datetime.fromisoformat(at), UUID(name)
        except ValueError as exc:
            raise BadCursor(NOT_OURS) from exc
    async with pool.connection() as conn:
        rows = await drills.page(conn, before=before, limit=limit + 1)
    return page_of(rows, limit, lambda row: f"{row.created_at.isoformat()}|{row.id}")
