"""What a terminal takes back: a fall cancelled in time, a person who answers by a key, power that is there again.

Nothing is ever deleted by it. What was announced already goes on, with the update that says what was pressed; people
decide (I6). Under duress a key ends nothing, since others may press it (D13).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from gateway.domain.case import CaseState, Fact, FalseAlarm
from gateway.domain.kinds import CaseClass
from gateway.domain.plan import DURESS
from gateway.domain.words import CANCEL, HEARD, RESTORES
from gateway.service import fan_out
from gateway.service.case_commands import Outcome, close_in
from gateway.service.case_work import Work, WorkingDay, add_fact, locked
from gateway.service.run_procedures import advance_work
from gateway.service.telemetry import SANE_CLOCK
from gateway.store import cases, outbox, procedures, queries, telemetry
from gateway.store.directory import Directory
from gateway.store.pool import Pool

__all__ = ["WORDS", "Missed", "Waited", "missed_words", "take_missed", "take_word"]

WORDS = frozenset({CANCEL, HEARD, *RESTORES})
_CANCEL_WITHIN = timedelta(minutes=5)
"""A cancel without number means an alarm that is not older: the broker may bring an old event once more."""


async def take_word(
    pool: Pool,
    directory: Directory,
    terminal: str,
    word: str,
    *,
    seq: int | None,
    said_at: datetime,
    is_working_day: WorkingDay,
    worker: int | None,
) -> list[UUID]:
    """Let a word of a terminal count for the open cases that it raised; returns which these were.

    `seq` is the number of the alarm that a cancel means. `said_at` is the terminal's time of the word, or ours: a word
    from before a press says nothing about that press, nor about the case that it belongs to.
    """
    async with pool.connection() as conn:
        kind = RESTORES.get(word)
        open_cases = await procedures.open_cases_of(conn, terminal, seq=seq, before=said_at, kind=kind)
    touched = []
    for case_id in open_cases:
        async with pool.connection() as conn, conn.transaction():
            work = await locked(conn, directory, case_id, worker=worker)
            if work.case.state == CaseState.CLOSED:
                continue
            by = f"terminal:{terminal}"
            if word in RESTORES:
                counted = await _restore(work, RESTORES[word], by=by)
            elif word == CANCEL and seq is None and work.now - await cases.last_press(conn, case_id) > _CANCEL_WITHIN:
                counted = False
            else:
                counted = await _person_pressed(work, word, by=by)
            if counted:
                await advance_work(work, is_working_day)
                await work.flush()
                touched.append(case_id)
    return touched


@dataclass(frozen=True, slots=True)
class Waited:
    """A terminal and since when an alarm of its waited to become a case."""

    terminal: str
    uid: UUID
    since: datetime


@dataclass(frozen=True, slots=True)
class Missed:
    """What a terminal said meanwhile."""

    uid: UUID
    terminal: str
    word: str
    value: object
    said_at: datetime


async def missed_words(pool: Pool, waited: Sequence[Waited]) -> list[Missed]:
    """Return what terminals took back while alarms of theirs still waited to become cases, each in its order."""
    names = {one.uid: one.terminal for one in waited}
    since: dict[UUID, datetime] = {}
    for one in waited:
        since[one.uid] = min(one.since, since.get(one.uid, one.since))
    async with pool.connection() as conn:
        said = await telemetry.words_since(conn, since, WORDS, skew=SANE_CLOCK)
    return [Missed(uid, names[uid], word, value, at) for uid, word, value, at in said]


async def take_missed(
    pool: Pool, directory: Directory, missed: Missed, *, is_working_day: WorkingDay, worker: int | None
) -> list[UUID]:
    """Let such a word count as if it had been said now; returns for which cases it does."""
    number = missed.value
    return await take_word(
        pool,
        directory,
        missed.terminal,
        missed.word,
        seq=number if isinstance(number, int) and not isinstance(number, bool) else None,
        said_at=missed.said_at,
        is_working_day=is_working_day,
        worker=worker,
    )


async def _restore(work: Work, kind: str, *, by: str) -> bool:
    """Note that a technical trouble is over; the case is closed when all of it is, told or not yet told."""
    case = work.case
    if case.case_class != CaseClass.TECHNICAL or kind not in case.kinds or kind in case.restored:
        return False
    restored = [*case.restored, kind]
    await procedures.set_restored(work.conn, case.id, restored)
    work.change(restored=restored)
    work.note("case.restored", {"kind": kind, "left": sorted(set(case.kinds) - set(restored))}, actor=by)
    if set(case.kinds) <= set(restored):
        await _close(work, Outcome.TECHNICAL_FIXED, note=None, by=by)
    return True


async def _person_pressed(work: Work, word: str, *, by: str) -> bool:
    """Take the key as the person's own word, unless somebody threatens them."""
    case = work.case
    if case.case_class not in (CaseClass.EMERGENCY, CaseClass.TEST):
        return False
    if DURESS in case.kinds:
        work.note("case.key_under_duress", {"key": word}, actor=by)
        return True
    await queries.lock_due(work.conn, case.id)
    if word == CANCEL and set(case.kinds) == {"fall"} and await outbox.waiting(work.conn, case.id):
        work.note("case.cancelled_in_time", {"key": word}, actor=by)
        await add_fact(work, Fact.HEARD, role="person", by=by)
        await _close(work, Outcome.FALSE_ALARM, note="cancelled at the terminal before anybody was told", by=by)
        return True
    if any(fact.fact == Fact.HEARD and fact.by_whom == by for fact in await work.facts()):
        return False  # said before
    work.note("case.person_pressed", {"key": word}, actor=by)
    await add_fact(work, Fact.HEARD, role="person", by=by)
    if word == CANCEL:
        told = await queries.told_legs(work.conn, case.id)
        legs = [leg for leg in await cases.legs_of(work.conn, case.id) if leg.id in told and leg.state != "withdrawn"]
        await fan_out.renotify(work.conn, case, legs, reason="cancelled", around=work.around, worker=None, rearm=False)
    return True


async def _close(work: Work, outcome: Outcome, *, note: str | None, by: str) -> None:
    await work.emit()
    await close_in(
        work.conn,
        work.case,
        work.around,
        work.journal,
        outcome=outcome,
        confirmed_by=by,
        note=note,
        by=by,
        actor=by,
        via="terminal",
        worker=None,
        false_alarm=FalseAlarm.OTHER if outcome is Outcome.FALSE_ALARM else None,
    )
    work.change(state=CaseState.CLOSED, closed_at=work.now, closed_by=by, outcome=outcome)
