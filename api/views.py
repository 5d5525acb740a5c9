"""From what the use cases return to what clients receive."""

import base64
from datetime import date
from zoneinfo import ZoneInfo

from gateway.domain.directory import Address, Person
from gateway.domain.location import map_links
from gateway.service.case_reading import CaseFile, HouseholdRecord, LegFile, PersonRecord
from gateway.service.places import place_of
from gateway.store.quarantine import Kept
from schemas.case import (
    AddressOut,
    AlarmOut,
    AnswerOut,
    AttemptOut,
    CaseHeadOut,
    CaseOut,
    HouseholdOut,
    JournalOut,
    LegOut,
    NoticeOut,
    PersonOut,
    QuarantineLineOut,
    QuarantineOut,
    TimelineOut,
)
from schemas.desk import CommandOut, FactOut, ProgressOut, RunOut, TaskOut
from schemas.notices import Location

__all__ = ["case_out", "household_out", "person_record_out", "quarantine_line_out", "quarantine_out"]

_PREVIEW = 500
_MAP_LABELS = {True: "求助位置", False: "Call for help"}


def case_out(file: CaseFile) -> CaseOut:
    """Return a whole case."""
    case, household = file.case, file.household
    today = file.now.astimezone(ZoneInfo(file.site.timezone)).date()
    location = None if case.location is None else _location(file)
    label = _MAP_LABELS[file.site.locale.startswith("zh")]
    return CaseOut(
        **CaseHeadOut.model_validate(case).model_dump(),
        pressed_at=case.pressed_at,
        location=location,
        maps={} if case.location is None else map_links(place_of(case.location).coordinates, label),
        problem=case.problem,
        plans=case.plans,
        first_owner=case.first_owner,
        seat_b=case.seat_b,
        restored=case.restored,
        facts=[FactOut.model_validate(fact) for fact in file.desk.facts],
        procedures=[
            RunOut(
                procedure=one.run.procedure,
                version=one.run.version,
                title=one.title,
                started_at=one.run.started_at,
                ended_at=one.run.ended_at,
            )
            for one in file.desk.runs
        ],
        tasks=[TaskOut.model_validate(task.fields()) for task in file.desk.tasks],
        commands=[CommandOut.model_validate(command) for command in file.desk.commands],
        progress=[ProgressOut.model_validate(row) for row in file.desk.progress],
        safe_by=case.safe_by,
        closed_by=case.closed_by,
        previous=case.previous,
        timezone=file.site.timezone,
        address=None if household is None else _address(household.address),
        persons=[] if household is None else [_person(person, today) for person in household.persons],
        alarms=[AlarmOut.model_validate(alarm) for alarm in file.alarms],
        legs=[_leg(leg) for leg in file.legs],
        timeline=[TimelineOut.model_validate(entry) for entry in file.timeline],
        journal=JournalOut(
            entries=case.journal_n,
            head=bytes(case.journal_head).hex(),
            intact=file.broken is None,
            problem=None if file.broken is None else file.broken.what,
        ),
    )


def _location(file: CaseFile) -> Location:
    location = Location.model_validate(file.case.location)
    if location.at is None:
        return location
    return location.model_copy(update={"age_s": max(0, int((file.now - location.at).total_seconds()))})


def _leg(file: LegFile) -> LegOut:
    leg, party = file.leg, file.party
    return LegOut(
        id=leg.id,
        role=leg.role,
        party=leg.party_id,
        name=None if party is None else party.name,
        phone=None if party is None else party.phone,
        origin=leg.origin,
        state=leg.state,
        problem=leg.problem,
        calls=leg.calls,
        overdue_at=leg.overdue_at,
        instead_of=leg.instead_of,
        created_at=leg.created_at,
        delivered_at=leg.delivered_at,
        ended_at=leg.ended_at,
        notices=[
            NoticeOut(
                id=notice.id,
                number=notice.number,
                reason=notice.reason,
                state=notice.state,
                tries=notice.tries,
                queued_at=notice.queued_at,
                due_at=notice.due_at,
                ended_at=notice.ended_at,
                attempts=[AttemptOut.model_validate(attempt) for attempt in attempts],
            )
            for notice, attempts in file.notices
        ],
        answers=[
            AnswerOut(
                answer=answer.answer,
                reason=answer.reason,
                minutes=answer.minutes,
                by=answer.by_whom,
                via=answer.via,
                at=answer.at,
            )
            for answer in file.answers
        ],
    )


def _address(address: Address) -> AddressOut:
    return AddressOut.model_validate(
        {name: getattr(address, name) for name in AddressOut.model_fields if name != "text"} | {"text": address.text()}
    )


def _person(person: Person, today: date) -> PersonOut:
    return PersonOut(
        id=person.id,
        name=person.name,
        born=person.born,
        age=person.age(today),
        phone=person.phone,
        health=person.health,
    )


def person_record_out(record: PersonRecord) -> PersonOut:
    """Return a person of the directory."""
    line, person = record.line, record.person
    return PersonOut(
        id=line.id,
        household_id=line.household_id,
        district=line.district,
        active=line.active,
        erased=line.erased_at is not None,
        name=None if person is None else person.name,
        born=None if person is None else person.born,
        phone=None if person is None else person.phone,
        health={} if person is None else person.health,
    )


def household_out(record: HouseholdRecord) -> HouseholdOut:
    """Return a household of the directory."""
    line = record.line
    return HouseholdOut(
        id=line.id,
        district=line.district,
        active=line.active,
        address=None if record.address is None else _address(record.address),
        persons=line.persons,
        parties=line.parties,
        terminals=line.terminals,
    )


def quarantine_line_out(kept: Kept) -> QuarantineLineOut:
    """Return a message in quarantine without its bytes."""
    return QuarantineLineOut.model_validate({**_kept(kept)})


def quarantine_out(kept: Kept) -> QuarantineOut:
    """Return a message in quarantine with its bytes."""
    payload = bytes(kept.payload)
    return QuarantineOut.model_validate(
        {**_kept(kept), "payload": base64.b64encode(payload).decode(), "preview": _printable(payload)}
    )


def _kept(kept: Kept) -> dict[str, object]:
    names = [name for name in QuarantineLineOut.model_fields if name != "size"]
    return {**{name: getattr(kept, name) for name in names}, "size": len(kept.payload)}


def _printable(payload: bytes) -> str:
    text = payload[: 4 * _PREVIEW].decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text[:_PREVIEW])
