"""Whatever is done to a journal afterwards shows (D15)."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.domain.journal import GENESIS, Entry, chain, verify

CASE = UUID("d6007f4b-0bef-5962-97f4-891cca7bf6c0")

instants = st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001  the strategy wants them naive
words = st.sampled_from(["", "a", "ab", "gateway", "case.opened"]) | st.text(st.characters(codec="utf-8"), max_size=12)
contents = st.tuples(instants, words, words, st.binary(max_size=40))
hashes = st.binary(min_size=32, max_size=32)


def extended(entries: Sequence[Entry], content: tuple[datetime, str, str, bytes]) -> list[Entry]:
    at, kind, actor, sealed = content
    n, prev = len(entries) + 1, entries[-1].hash if entries else GENESIS
    digest = chain(case_id=CASE, n=n, at=at, kind=kind, actor=actor, sealed=sealed, prev=prev)
    entry = Entry(case_id=CASE, n=n, at=at, kind=kind, actor=actor, sealed=sealed, prev=prev, hash=digest)
    return [*entries, entry]


def written(wanted: Sequence[tuple[datetime, str, str, bytes]]) -> list[Entry]:
    entries: list[Entry] = []
    for content in wanted:
        entries = extended(entries, content)
    return entries


journals = st.lists(contents, min_size=1, max_size=8).map(written)
checkpoints = st.sampled_from([(False, False), (True, False), (False, True), (True, True)])


def checked(entries: Sequence[Entry], true: Sequence[Entry], known: tuple[bool, bool]) -> bool:
    """Does `entries` pass for the journal `true`, of which head and count may be known?"""
    head, count = true[-1].hash if known[0] else None, len(true) if known[1] else None
    return verify(entries, head=head, count=count) is None


@given(journals, checkpoints)
def test_what_was_written_holds(journal: list[Entry], known: tuple[bool, bool]) -> None:
    assert checked(journal, journal, known)


CHANGES: dict[str, Callable[[Entry, st.DataObject], Entry]] = {
    "case_id": lambda entry, data: replace(entry, case_id=data.draw(st.uuids())),
    "n": lambda entry, data: replace(entry, n=data.draw(st.integers(-(2**63), 2**63 - 1))),
    "at": lambda entry, data: replace(entry, at=data.draw(instants)),
    "at, by little": lambda entry, data: replace(
        entry, at=entry.at + timedelta(microseconds=data.draw(st.sampled_from([-1, 1])))
    ),
    "kind": lambda entry, data: replace(entry, kind=data.draw(words)),
    "actor": lambda entry, data: replace(entry, actor=data.draw(words)),
    "kind and actor, their border moved": lambda entry, data: replace(
        entry, kind=(entry.kind + entry.actor)[:1], actor=(entry.kind + entry.actor)[1:]
    ),
    "actor and payload, their border moved": lambda entry, data: replace(
        entry, actor="", sealed=entry.actor.encode() + entry.sealed
    ),
    "sealed": lambda entry, data: replace(entry, sealed=data.draw(st.binary(max_size=40))),
    "prev": lambda entry, data: replace(entry, prev=data.draw(hashes)),
    "hash": lambda entry, data: replace(entry, hash=data.draw(hashes)),
}


@given(journals, checkpoints, st.sampled_from(sorted(CHANGES)), st.data())
def test_any_change_of_an_entry_shows(
    journal: list[Entry], known: tuple[bool, bool], change: str, data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(journal) - 1))
    altered = CHANGES[change](journal[place], data)
    assume(altered != journal[place])
    assert not checked([*journal[:place], altered, *journal[place + 1 :]], journal, known)


@given(journals, checkpoints, st.data())
def test_any_entry_taken_out_shows(journal: list[Entry], known: tuple[bool, bool], data: st.DataObject) -> None:
    assume(len(journal) > 1)
    place = data.draw(st.integers(0, len(journal) - 2))
    assert not checked([*journal[:place], *journal[place + 1 :]], journal, known)


@given(journals, checkpoints, st.data())
def test_any_other_order_shows(journal: list[Entry], known: tuple[bool, bool], data: st.DataObject) -> None:
    turned = data.draw(st.permutations(journal))
    assume(turned != journal)
    assert not checked(turned, journal, known)


@given(journals, checkpoints, st.data())
def test_any_entry_put_in_twice_shows(journal: list[Entry], known: tuple[bool, bool], data: st.DataObject) -> None:
    again = data.draw(st.sampled_from(journal))
    place = data.draw(st.integers(0, len(journal)))
    assert not checked([*journal[:place], again, *journal[place:]], journal, known)


@given(journals, st.data())
def test_a_tail_that_was_cut_off_shows_by_either_half_of_a_checkpoint(
    journal: list[Entry], data: st.DataObject
) -> None:
    kept = journal[: data.draw(st.integers(0, len(journal) - 1))]
    assert not checked(kept, journal, (True, False))
    assert not checked(kept, journal, (False, True))
    assert not checked(kept, journal, (True, True))


@given(st.lists(contents, min_size=1, max_size=6), st.lists(contents, max_size=4), st.data())
def test_a_history_written_anew_shows_by_the_checkpoint_however_it_goes_on(
    true: list[tuple[datetime, str, str, bytes]], more: list[tuple[datetime, str, str, bytes]], data: st.DataObject
) -> None:
    journal = written(true)
    place = data.draw(st.integers(0, len(true) - 1))
    lie = data.draw(contents)
    assume(lie != true[place])
    forged = written([*true[:place], lie, *true[place + 1 :], *more])
    assert verify(forged) is None  # the chain alone cannot tell: whoever can write all of it can hash all of it
    assert not checked(forged, journal, (True, True))


@given(journals, st.lists(contents, max_size=4))
def test_a_journal_that_went_on_keeps_every_checkpoint(
    journal: list[Entry], more: list[tuple[datetime, str, str, bytes]]
) -> None:
    longer = journal
    for content in more:
        longer = extended(longer, content)
    for count in range(len(journal) + 1):
        head = journal[count - 1].hash if count else GENESIS
        assert verify(longer, head=head, count=count) is None


@given(journals, journals, checkpoints, st.data())
def test_the_end_of_another_journal_shows(
    journal: list[Entry], other: list[Entry], known: tuple[bool, bool], data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, min(len(journal), len(other)) - 1))
    assume(place > 0 and journal[:place] != other[:place])
    assert not checked([*journal[:place], *other[place:]], journal, known)
