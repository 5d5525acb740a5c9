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

__all__ = ["GENESIS", "Break", "Entry", "chain", "verify"]

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
            return Break(position, f"entry {position} does not follow the one before it")
        expected = chain(
            case_id=entry.case_id,
            n=entry.n,
            at=entry.at,
            kind=entry.kind,
            actor=entry.actor,
            sealed=entry.sealed,
            prev=entry.prev,
        )
        if entry.hash != expected:
            return Break(position, f"entry {position} was altered")
        prev = entry.hash
    if count is not None and len(entries) < count:
        return Break(len(entries) + 1, f"the tail was cut off: {count} entries were written")
    marked = len(entries) if count is None else count
    if head is not None and head != (entries[marked - 1].hash if marked else GENESIS):
        return Break(marked, f"entry {marked} is not the one that was written")
    return None
