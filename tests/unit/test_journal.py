"""The chain of a case: pinned to the byte, and what `verify` says where it does not hold (D15)."""

import hashlib
import struct
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest

from gateway.domain.journal import GENESIS, Break, Entry, Mark, chain, prove, verify

CASE = UUID("d6007f4b-0bef-5962-97f4-891cca7bf6c0")
AT = datetime(2026, 11, 22, 6, 31, 5, 398_001, tzinfo=UTC)


def written(*payloads: bytes) -> list[Entry]:
    """Write a journal as the store does."""
    entries: list[Entry] = []
    for n, sealed in enumerate(payloads, start=1):
        prev = entries[-1].hash if entries else GENESIS
        at = AT + timedelta(seconds=n)
        digest = chain(case_id=CASE, n=n, at=at, kind="leg.delivered", actor="gateway", sealed=sealed, prev=prev)
        entries.append(
            Entry(
                case_id=CASE, n=n, at=at, kind="leg.delivered", actor="gateway", sealed=sealed, prev=prev, hash=digest
            )
        )
    return entries


THREE = written(b"opened", b"told", b"closed")
HEAD = THREE[-1].hash


def test_the_hash_of_an_entry_never_changes() -> None:
    # Written down once: a journal is proof for years, so every later version has to find the same hash.
    digest = chain(
        case_id=CASE, n=1, at=AT, kind="alarm.received", actor="terminal:8", sealed=b"\x00\xff", prev=GENESIS
    )
    assert digest.hex() == "38cfb6e73bdeade6fb4c68fd04352665c317e55e29e0897750eceeaf5ab23c47"


def test_anybody_can_compute_the_hash_without_this_program() -> None:
    micros = 1_795_329_065_398_001
    parts = [GENESIS, CASE.bytes, struct.pack(">qq", 1, micros), b"alarm.received", b"terminal:8", b"\x00\xff"]
    stream = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    assert hashlib.sha256(stream).digest() == chain(
        case_id=CASE, n=1, at=AT, kind="alarm.received", actor="terminal:8", sealed=b"\x00\xff", prev=GENESIS
    )


def test_a_whole_journal_holds() -> None:
    assert verify(THREE) is None
    assert verify(THREE, head=HEAD, count=3) is None
    assert verify([]) is None
    assert verify([], head=GENESIS, count=0) is None


def test_the_same_instant_in_another_time_zone_is_the_same_entry() -> None:
    shanghai = timezone(timedelta(hours=8))
    assert verify([replace(entry, at=entry.at.astimezone(shanghai)) for entry in THREE], head=HEAD, count=3) is None


def test_an_altered_entry_is_named() -> None:
    assert verify([THREE[0], replace(THREE[1], sealed=b"t0ld"), THREE[2]]) == Break(2, "entry 2 was altered")


def test_a_missing_entry_is_named() -> None:
    assert verify([THREE[0], THREE[2]]) == Break(2, "entry 2 is missing, 3 stands in its place")


def test_an_entry_of_another_chain_is_named() -> None:
    other = written(b"opened differently", b"told")
    assert verify([THREE[0], other[1], THREE[2]]) == Break(2, "entry 2 does not follow the one before it")


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_a_tail_that_was_cut_off_shows_by_the_count_and_by_the_head(kept: int) -> None:
    assert verify(THREE[:kept]) is None  # nothing in the chain itself can show it
    assert verify(THREE[:kept], count=3) == Break(kept + 1, "the tail was cut off: 3 entries were written")
    found = verify(THREE[:kept], head=HEAD)
    assert found is not None
    assert found.n == kept


def test_a_journal_written_anew_shows_by_the_head() -> None:
    forged = written(b"opened", b"told nobody", b"closed")
    assert verify(forged) is None
    assert verify(forged, head=HEAD, count=3) == Break(3, "entry 3 is not the one that was written")


def test_a_journal_written_anew_shows_even_when_it_went_on_after_the_checkpoint() -> None:
    forged = written(b"opened", b"told nobody", b"closed", b"exported")
    assert verify(forged, head=HEAD, count=3) == Break(3, "entry 3 is not the one that was written")


def test_entries_after_the_checkpoint_are_no_break() -> None:
    longer = written(b"opened", b"told", b"closed", b"exported")
    assert verify(longer, head=HEAD, count=3) is None
    assert verify(longer, head=GENESIS, count=0) is None


# Against what is known elsewhere


def marks(*known: tuple[int, bytes]) -> list[Mark]:
    return [Mark(n, head, f"checkpoint {number}") for number, (n, head) in enumerate(known, start=1)]


FIVE = written(b"opened", b"told", b"answered", b"owned", b"closed")
KNOWN = marks((2, FIVE[1].hash), (4, FIVE[3].hash))


def said(entries: list[Entry], *, count: int | None = None, known: list[Mark] = KNOWN) -> list[str]:
    head = entries[-1].hash if entries else GENESIS
    return [
        found.what for found in prove(entries, head=head, count=len(entries) if count is None else count, marks=known)
    ]


def test_a_journal_that_agrees_with_everything_known_is_proved() -> None:
    assert said(FIVE) == []
    assert said(FIVE, known=[]) == []


def test_a_tail_that_was_cut_off_with_the_head_set_back_shows_by_a_checkpoint() -> None:
    assert said(FIVE[:3]) == ["entry 4 is missing: checkpoint 2 knows 4 entries, 3 are there"]
    assert said(FIVE[:1]) == ["entry 2 is missing: checkpoint 1 knows 2 entries, 1 are there"]
    assert said([]) == ["entries 1 to 2 are missing: checkpoint 1 knows 2 entries, 0 are there"]


def test_a_journal_written_anew_shows_between_which_checkpoints() -> None:
    assert said(written(b"opened", b"told", b"ANSWERED", b"owned", b"closed")) == [
        "one of the entries 3 to 4 is not the one that was written: checkpoint 2 knows another entry 4"
    ]
    assert said(written(b"opened", b"told nobody", b"answered", b"owned", b"closed")) == [
        "one of the entries 1 to 2 is not the one that was written: checkpoint 1 knows another entry 2"
    ]
    one_by_one = marks(*((entry.n, entry.hash) for entry in FIVE))
    assert said(written(b"opened", b"told", b"ANSWERED", b"owned", b"closed"), known=one_by_one) == [
        "entry 3 is not the one that was written: checkpoint 3 knows another entry 3"
    ]


def test_an_entry_behind_the_end_shows() -> None:
    found = prove(FIVE, head=FIVE[3].hash, count=4, marks=KNOWN)
    assert [one.what for one in found] == ["entry 5 was added behind the end: the case counts 4 entries"]


def test_two_entries_that_changed_places_are_named() -> None:
    swapped = [FIVE[0], replace(FIVE[2], n=2), replace(FIVE[1], n=3), *FIVE[3:]]
    assert said(swapped)[0] == (
        "what was written as entry 3 stands in place 2, and entry 2 was moved to place 3: the order was changed"
    )


def test_an_entry_that_was_taken_out_with_the_others_moved_up_is_named() -> None:
    moved = [FIVE[0], *(replace(entry, n=entry.n - 1) for entry in FIVE[2:])]
    assert said(moved)[0] == "entry 2 is missing: what was written as entry 3 stands in place 2"
