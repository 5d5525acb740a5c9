"""The chain that makes a case provable (日志链): each entry carries the hash of the one before.

Payloads are encrypted before they are hashed, under a key of the person, so that erasing the key
erases the person and leaves the chain whole (D15).
"""

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

__all__ = ["GENESIS", "Break", "Entry", "Mark", "chain", "prove", "verify"]

GENESIS = bytes(32)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry of a case's journal. ``sealed`` is ciphertext; ``at`` has microseconds."""

    case_id: UUID
    n: int
    at: datetime
    kind: str
    actor: str
    sealed: bytes
    prev: bytes
    hash: bytes


@dataclass(frozen=True, slots=True)
class Break:
    """Where a chain does not hold, and how."""

    n: int
    what: str


@dataclass(frozen=True, slots=True)
class Mark:
    """What is known elsewhere of a chain: the hash of its entry `n`. ``source`` says where, for people."""

    n: int
    head: bytes
    source: str


def chain(*, case_id: UUID, n: int, at: datetime, kind: str, actor: str, sealed: bytes, prev: bytes) -> bytes:
    """Return the SHA-256 that seals an entry: over every field, each with its length in front."""
    digest = hashlib.sha256()
    micros = (at - _EPOCH) // timedelta(microseconds=1)
    for part in (prev, case_id.bytes, struct.pack(">qq", n, micros), kind.encode(), actor.encode(), sealed):
        digest.update(struct.pack(">Q", len(part)))
        digest.update(part)
    return digest.digest()


def verify(entries: Sequence[Entry], *, head: bytes | None = None, count: int | None = None) -> Break | None:
    """Return the first place where the chain is broken, or None when it holds.

    `head` and `count` are those of the last checkpoint known elsewhere: with them a cut-off tail shows.
    """
    prev = GENESIS
    for position, entry in enumerate(entries, start=1):
        if entry.n != position:
            return Break(position, f"entry {position} is missing, {entry.n} stands in its place")
        if entry.prev != prev:
            return Break(position, _out_of_place(entries, position, prev))
        if entry.hash != _sealed_as(entry, entry.n):
            return Break(position, f"entry {position} was altered")
        prev = entry.hash
    if count is not None and len(entries) < count:
        return Break(len(entries) + 1, f"the tail was cut off: {count} entries were written")
    marked = len(entries) if count is None else count
    if head is not None and head != (entries[marked - 1].hash if marked else GENESIS):
        return Break(marked, f"entry {marked} is not the one that was written")
    return None


def _sealed_as(entry: Entry, n: int) -> bytes:
    """Return the hash of an entry if it had been written as number `n`."""
    return chain(
        case_id=entry.case_id,
        n=n,
        at=entry.at,
        kind=entry.kind,
        actor=entry.actor,
        sealed=entry.sealed,
        prev=entry.prev,
    )


def _out_of_place(entries: Sequence[Entry], position: int, prev: bytes) -> str:
    """Say what is the matter with an entry that does not follow `prev`: perhaps it, or the right one, was moved."""
    there = entries[position - 1]
    home = next((n for n in range(1, len(entries) + 2) if n != position and there.hash == _sealed_as(there, n)), None)
    moved = f"what was written as entry {home} stands in place {position}"
    for place, entry in enumerate(entries, start=1):
        if place > position and entry.prev == prev and entry.hash == _sealed_as(entry, position):
            own = f"entry {position} was moved to place {place}"
            return own if home is None else f"{moved}, and {own}: the order was changed"
    if home is not None:
        return f"entry {position} is missing: {moved}"
    return f"entry {position} does not follow the one before it"


def prove(entries: Sequence[Entry], *, head: bytes, count: int, marks: Sequence[Mark]) -> list[Break]:
    """Return everything that is wrong with a chain, given what its case says of it and what is known elsewhere.

    `marks` come in the order of their numbers. Whoever wrote all of the chain anew shows by them: by the first entry
    that they know differently, after the last one on which they agree.
    """
    breaks = [found for found in (verify(entries, head=head, count=count),) if found is not None]
    if len(entries) > count and not breaks:
        breaks.append(Break(count + 1, f"entry {count + 1} was added behind the end: the case counts {count} entries"))
    agreed = 0
    for mark in marks:
        if mark.n > len(entries):
            lost = len(entries) + 1
            missing = f"entries {lost} to {mark.n} are" if mark.n > lost else f"entry {lost} is"
            breaks.append(
                Break(lost, f"{missing} missing: {mark.source} knows {mark.n} entries, {len(entries)} are there")
            )
            break
        if entries[mark.n - 1].hash != mark.head:
            first = agreed + 1
            what = (
                f"entry {mark.n} is not the one"
                if first == mark.n
                else f"one of the entries {first} to {mark.n} is not the one"
            )
            breaks.append(Break(first, f"{what} that was written: {mark.source} knows another entry {mark.n}"))
            break
        agreed = mark.n
    return breaks
