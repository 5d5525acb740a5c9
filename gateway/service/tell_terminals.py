"""What the person on the floor is told of the help that comes: family told, somebody coming, arrived, over (R9).

In the order of events, never back from a later to an earlier one, and after the closure only that it is over (I4).
Nothing in a case of duress: whoever threatens the person would hear it (D13).
"""

from dataclasses import dataclass

from gateway.domain.case import CaseState, Fact
from gateway.domain.plan import DURESS
from gateway.service.case_work import Work
from gateway.store import procedures

__all__ = ["tell_terminals"]

_STAGES = ("told", "coming", "arrived", "closed")


@dataclass(frozen=True, slots=True)
class _Word:
    state: str
    role: str | None = None
    minutes: int | None = None


async def tell_terminals(work: Work) -> None:
    """Queue what is new for the terminals of a case."""
    if DURESS in work.case.kinds:
        return
    words = await _words(work)
    if not words:
        return
    known = await procedures.progress_of(work.conn, work.case.id)
    said = {_Word(row.state, row.role, row.minutes) for row in known}
    stage = max((_STAGES.index(row.state) for row in known), default=-1)
    for word in words:
        place = _STAGES.index(word.state)
        if place < stage or word in said or (place == stage and word.state in ("told", "closed")):
            continue
        await procedures.add_progress(work.conn, work.case.id, word.state, role=word.role, minutes=word.minutes)
        said.add(word)
        stage = place


async def _words(work: Work) -> list[_Word]:
    """Return all that could be said by now, in the order in which it happened."""
    if work.case.state == CaseState.CLOSED:
        return [_Word("closed")]
    facts = await work.facts()
    if not facts:
        return []
    answers = await procedures.coming(work.conn, work.case.id)
    roles = {role for role, _, _ in answers}
    words = [(at, _Word("coming", role, minutes)) for role, minutes, at in answers]
    for fact in facts:
        match fact.fact:
            case Fact.INFORMED:
                words.append((fact.at, _Word("told", fact.role)))
            case Fact.DISPATCHED if fact.role not in roles:
                words.append((fact.at, _Word("coming", fact.role)))
            case Fact.ON_SCENE:
                words.append((fact.at, _Word("arrived", fact.role)))
    return [word for _, word in sorted(words, key=lambda one: (one[0], _STAGES.index(one[1].state)))]
