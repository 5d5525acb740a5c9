"""What a report says: the rows of a case in the order in which they happened, with sentences for people."""

import base64
from collections.abc import Iterator
from datetime import datetime
from itertools import chain
from zoneinfo import ZoneInfo

from gateway.domain.privacy import privacy_of
from gateway.keyring import PublicKey
from gateway.report.words import Words, words_of
from gateway.service.case_reading import LegFile
from gateway.service.case_report import ReportFile
from gateway.service.proof import CaseProof
from gateway.store.checkpoints import CheckpointRow
from gateway.store.queries import AttemptRow
from schemas.notices import AddressCard, Location
from schemas.proof import BreakOut, CheckpointOut, CoverOut, JournalKeyOut, ProofOut
from schemas.report import (
    ReportAnswer,
    ReportDisclosure,
    ReportFact,
    ReportLine,
    ReportOut,
    ReportParty,
    ReportPerson,
    ReportPress,
    ReportTask,
    ReportTimes,
)

__all__ = ["checkpoint_out", "compose_report", "key_out", "proof_out"]

_FIRST = ("alarm", "fallback", "procedure", "pressed_again")
"""Reasons of the notices that call somebody."""


def proof_out(proof: CaseProof, flaws: tuple[str, ...] | list[str] = ()) -> ProofOut:
    """Return how a journal stands, as clients receive it."""
    return ProofOut(
        case=proof.case_id,
        entries=proof.entries,
        head=proof.head.hex(),
        erased=proof.erased,
        intact=not proof.breaks,
        breaks=[BreakOut(entry=found.n, what=found.what) for found in proof.breaks],
        checkpoint=None if proof.cover is None else CoverOut.model_validate(proof.cover),
        checkpoint_flaws=list(flaws),
    )


def checkpoint_out(row: CheckpointRow) -> CheckpointOut:
    """Return a checkpoint as clients receive it."""
    return CheckpointOut.model_validate(row)


def key_out(key: PublicKey) -> JournalKeyOut:
    """Return the key that signs checkpoints, as clients receive it."""
    return JournalKeyOut(name=key.name, public_key=base64.b64encode(key.raw).decode(), pem=key.pem)


def compose_report(report: ReportFile) -> ReportOut:
    """Return the report of a case in the language of its site."""
    file = report.file
    case, household = file.case, file.household
    words = words_of(file.site.locale)
    began = min((alarm.received_at for alarm in file.alarms), default=case.received_at)
    today = file.now.astimezone(ZoneInfo(file.site.timezone)).date()
    parties = [_party(leg, report, began) for leg in file.legs]
    tasks = _tasks(report, words)
    return ReportOut(
        language="zh" if words.language == "zh" else "en",
        made_at=file.now,
        timezone=file.site.timezone,
        case=case.id,
        case_class=case.case_class,
        state=case.state,
        test=case.test,
        kinds=case.kinds,
        urgency=case.urgency,
        site=file.site.id,
        district=case.district,
        household=case.household_id,
        terminal=case.terminal_id,
        previous=case.previous,
        plans=case.plans,
        problem=case.problem,
        erased=report.proof.erased > 0,
        persons=[
            ReportPerson(name=person.name, age=person.age(today), phone=person.phone)
            for person in (household.persons if household is not None else ())
        ],
        address=None
        if household is None
        else AddressCard(
            text=household.address.text(), landmark=household.address.landmark, approach=household.address.approach
        ),
        location=_location(report, began),
        received_at=began,
        opened_at=case.opened_at,
        owner=case.owner,
        first_owner=report.first_owner,
        owned_at=case.owned_at,
        safe_at=case.safe_at,
        safe_by=case.safe_by,
        closed_at=case.closed_at,
        closed_by=case.closed_by,
        outcome=case.outcome,
        note=_note(report),
        times=_times(report, parties, began),
        timeline=_timeline(report, parties, tasks, words, began),
        presses=[
            ReportPress(
                terminal=alarm.terminal_id,
                transport=alarm.transport,
                kinds=alarm.kinds,
                test=alarm.test,
                pressed_at=alarm.pressed_at,
                received_at=alarm.received_at,
                stored_at=alarm.stored_at,
                battery_pct=alarm.battery_pct,
                repeats=alarm.repeats,
            )
            for alarm in file.alarms
        ],
        parties=parties,
        facts=[
            ReportFact(fact=fact.fact, role=fact.role, by=fact.by_whom, at=fact.at, after_s=_after(fact.at, began))
            for fact in report.facts
        ],
        tasks=tasks,
        disclosures=[
            ReportDisclosure.model_validate({"who": seen.who, "what": seen.what, "privacy": seen.level, "at": seen.at})
            for seen in report.disclosures
        ],
        proof=proof_out(report.proof, report.flaws),
    )


def _after(at: datetime, began: datetime) -> float:
    return round((at - began).total_seconds(), 3)


def _until(at: datetime | None, began: datetime) -> float | None:
    return None if at is None else _after(at, began)


def _location(report: ReportFile, began: datetime) -> Location | None:
    record = report.file.case.location
    if record is None:
        return None
    location = Location.model_validate(record)
    if location.at is None:
        return location
    return location.model_copy(update={"age_s": max(0, round((began - location.at).total_seconds()))})


def _note(report: ReportFile) -> str | None:
    """Return what was written at the closure: it stands in the journal alone."""
    closings = [entry.data for entry in report.file.timeline if entry.kind == "case.closed" and entry.data]
    return closings[-1].get("note") if closings else None


# The parties


def _attempts(leg: LegFile, *reasons: str) -> list[AttemptRow]:
    tried = (attempts for notice, attempts in leg.notices if not reasons or notice.reason in reasons)
    return sorted(chain.from_iterable(tried), key=lambda attempt: attempt.started_at)


def _party(file: LegFile, report: ReportFile, began: datetime) -> ReportParty:
    leg, attempts = file.leg, _attempts(file)
    sent = next((attempt for attempt in attempts if attempt.outcome == "sent"), None)
    return ReportParty(
        role=leg.role,
        party=leg.party_id,
        name=None if file.party is None else file.party.name,
        phone=None if file.party is None else file.party.phone,
        origin=leg.origin,
        state=leg.state,
        problem=leg.problem,
        privacy=privacy_of(leg.role, report.file.case.privacy),
        addressed_at=attempts[0].started_at if attempts else None,
        told_at=None if sent is None else sent.answered_at,
        told_after_s=None if sent is None else _after(sent.answered_at, began),
        channel=None if sent is None else sent.channel,
        tries=len(attempts) if sent is None else attempts.index(sent) + 1,
        answers=[
            ReportAnswer.model_validate(
                {
                    "answer": answer.answer,
                    "minutes": answer.minutes,
                    "reason": answer.reason,
                    "by": answer.by_whom,
                    "via": answer.via,
                    "at": answer.at,
                    "after_s": _after(answer.at, began),
                }
            )
            for answer in file.answers
        ],
    )


def _first_calls(report: ReportFile) -> list[tuple[LegFile, list[AttemptRow]]]:
    """Return the legs of the first press, as far as they were tried, with the attempts of their first notice."""
    found = []
    for leg in report.file.legs:
        first = [attempts for notice, attempts in leg.notices if notice.number == 1 and notice.reason == "alarm"]
        if first and first[0]:
            found.append((leg, sorted(first[0], key=lambda attempt: attempt.started_at)))
    return found


def _times(report: ReportFile, parties: list[ReportParty], began: datetime) -> ReportTimes:
    case = report.file.case
    stored = min((alarm.stored_at for alarm in report.file.alarms), default=None)
    calls = _first_calls(report)
    starts = [attempts[0].started_at for _, attempts in calls]
    told = [
        attempt.answered_at
        for _, attempts in calls
        if (attempt := next((one for one in attempts if one.outcome == "sent"), None)) is not None
    ]
    on_scene = min((fact.at for fact in report.facts if fact.fact == "on_scene"), default=None)
    return ReportTimes(
        stored_s=_until(stored, began),
        parties=len(calls),
        spread_s=round((max(starts) - min(starts)).total_seconds(), 3) if starts else None,
        told=len(told),
        told_s=_until(max(told, default=None), began),
        owned_s=_until(case.owned_at, began),
        answered_s=_until(min((answer.at for party in parties for answer in party.answers), default=None), began),
        on_scene_s=_until(on_scene, began),
        safe_s=_until(case.safe_at, began),
        closed_s=_until(case.closed_at, began),
    )


# The tasks


def _tasks(report: ReportFile, words: Words) -> list[ReportTask]:
    tasks = []
    for row in report.steps:
        procedure = report.procedures[row.procedure, row.version]
        step = next((step for step in procedure.steps if step.id == row.name), None)
        titles = {} if step is None else step.title
        tasks.append(
            ReportTask(
                procedure=f"{row.procedure}@{row.version}",
                step=row.name,
                title=titles.get(words.language) or next(iter(titles.values()), row.name),
                does=row.does,
                clause=None if step is None else step.clause or None,
                seat=row.seat,
                aftercare=step is not None and step.aftercare,
                state=row.state,
                planned_at=row.planned_at,
                started_at=row.started_at,
                due_at=row.due_at,
                breached_at=row.breached_at,
                ended_at=row.ended_at,
                result=row.result,
                by=row.by_whom,
            )
        )
    return tasks


# The timeline

_Happened = tuple[datetime, str, str]


def _timeline(
    report: ReportFile, parties: list[ReportParty], tasks: list[ReportTask], words: Words, began: datetime
) -> list[ReportLine]:
    happened = [
        *_presses(report, words),
        *_messages(report, words),
        *_answers(parties, words),
        *_facts(report, parties, words),
        *_deadlines(report, tasks, words),
        *_course(report, words),
    ]
    return [
        ReportLine(at=at, after_s=_after(at, began), kind=kind, text=text)
        for at, kind, text in sorted(happened, key=lambda one: one[0])
    ]


def _presses(report: ReportFile, words: Words) -> Iterator[_Happened]:
    for number, alarm in enumerate(report.file.alarms):
        by = words.name("transport", alarm.transport)
        if number == 0:
            yield alarm.received_at, "alarm", words["line.press"].format(kinds=words.kinds(alarm.kinds), by=by)
            yield alarm.stored_at, "stored", words["line.stored"]
        else:
            yield alarm.received_at, "again", words["line.again"].format(kinds=words.kinds(alarm.kinds))


def _messages(report: ReportFile, words: Words) -> Iterator[_Happened]:
    calls = _first_calls(report)
    if calls:
        starts = [attempts[0].started_at for _, attempts in calls]
        yield (
            min(starts),
            "addressed",
            words["line.addressed"].format(
                n=len(calls),
                roles=_roles([leg for leg, _ in calls], words),
                spread=words.after((max(starts) - min(starts)).total_seconds()).lstrip("+"),
            ),
        )
        told = [(leg, attempt) for leg, attempts in calls for attempt in attempts if attempt.outcome == "sent"]
        if told:
            legs = [leg for leg, _ in told]
            text = words["line.told"].format(n=len(legs), roles=_roles(legs, words))
            yield max(attempt.answered_at for _, attempt in told), "told", text
    for leg in report.file.legs:
        role = _who(leg, words)
        failed = [attempt for attempt in _attempts(leg) if attempt.outcome != "sent"]
        if failed:
            yield (
                failed[-1].answered_at,
                "tries",
                words["line.tries"].format(
                    role=role,
                    channel=words.name("channel", failed[-1].channel),
                    n=len(failed),
                    problem=failed[-1].detail or "",
                ),
            )
        if leg.leg.state == "failed" and leg.leg.ended_at is not None:
            problem = leg.leg.problem or ""
            yield leg.leg.ended_at, "failed", words["line.failed"].format(role=role, problem=problem)
        if leg.leg.origin != "plan" and (called := _attempts(leg, *_FIRST)):
            reason = next(notice.reason for notice, _ in leg.notices)
            yield called[0].started_at, "called", words["line.called"].format(role=role, reason=reason)


def _roles(legs: list[LegFile], words: Words) -> str:
    return words["comma"].join(dict.fromkeys(words.name("role", leg.leg.role) for leg in legs))


def _who(leg: LegFile, words: Words) -> str:
    name = "" if leg.party is None else f" {leg.party.name}"
    return words.name("role", leg.leg.role) + name


def _answers(parties: list[ReportParty], words: Words) -> Iterator[_Happened]:
    for party in parties:
        for answer in party.answers:
            role = f"{words.name('role', party.role)}{'' if party.name is None else f' {party.name}'}"
            yield answer.at, "answer", words["line.answer"].format(role=role, answer=answer_text(answer, words))


def answer_text(answer: ReportAnswer, words: Words) -> str:
    """Return an answer in words."""
    parts = [words.name("answer", answer.answer)]
    if answer.minutes is not None:
        parts.append(words["in_minutes"].format(n=answer.minutes))
    parts += [part for part in (answer.reason, answer.by) if part]
    return words["comma"].join(parts)


def _facts(report: ReportFile, parties: list[ReportParty], words: Words) -> Iterator[_Happened]:
    answered = {(f"party:{party.party}", round(answer.at.timestamp())) for party in parties for answer in party.answers}
    for fact in report.facts:
        second = round(fact.at.timestamp())
        if fact.fact == "owned" or any((fact.by_whom, second + near) in answered for near in (-1, 0, 1)):
            continue  # an owner has a line of their own, and so has the answer that said it
        text = words["line.fact"].format(
            fact=words.name("fact", fact.fact), role=words.name("role", fact.role), by=words.who(fact.by_whom)
        )
        yield fact.at, "fact", text


def _deadlines(report: ReportFile, tasks: list[ReportTask], words: Words) -> Iterator[_Happened]:
    for task in tasks:
        if task.breached_at is not None and task.due_at is not None:
            due = words.clock(task.due_at, report.file.site.timezone, day=False)
            yield task.due_at, "breached", words["line.breached"].format(task=task.title, due=due)
        if task.does == "task" and task.state == "done" and task.ended_at is not None and task.by is not None:
            text = words["line.ended"].format(
                task=task.title, result=words.name("result", task.result), by=words.who(task.by)
            )
            yield task.ended_at, "task", text


def _course(report: ReportFile, words: Words) -> Iterator[_Happened]:
    case = report.file.case
    for entry in report.file.timeline:
        if entry.kind == "case.location":
            place = None if entry.data is None else entry.data["location"]
            text = (
                words["line.location_erased"]
                if place is None
                else words["line.location"].format(source=words.name("source", place["source"]))
            )
            yield entry.at, "location", text
    if case.owned_at is not None:
        yield case.owned_at, "owned", words["line.owned"].format(who=words.who(report.first_owner or case.owner))
    if case.safe_at is not None:
        yield case.safe_at, "safe", words["line.safe"].format(who=words.who(case.safe_by))
    if case.closed_at is not None:
        text = words["line.closed"].format(outcome=words.name("outcome", case.outcome), who=words.who(case.closed_by))
        yield case.closed_at, "closed", text
