"""The journal in the database: entries are appended in the transaction of what they record."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.rows import class_row

from gateway.domain.journal import GENESIS, Entry, chain
from gateway.keyring import DataKey
from gateway.store.pool import Connection

__all__ = ["Head", "Note", "Writer", "entries", "flush_all", "lock_head"]


@dataclass(frozen=True, slots=True)
class Note:
    """What happened, before it is sealed. ``actor`` is a kind of actor with an id, never a name."""

    kind: str
    data: dict[str, Any]
    actor: str = "gateway"


@dataclass(frozen=True, slots=True)
class Head:
    """Where the chain of a case stands."""

    n: int = 0
    hash: bytes = GENESIS


@dataclass(slots=True)
class Writer:
    """Collects entries for one case whose row the transaction holds, and writes them at once."""

    case_id: UUID
    key: DataKey
    head: Head = field(default_factory=Head)
    _rows: list[tuple[Any, ...]] = field(default_factory=list)

    def add(self, note: Note, *, at: datetime) -> None:
        """Seal and chain `note`."""
        n = self.head.n + 1
        sealed = self.key.seal(note.data, about=f"journal {self.case_id} {n}")
        digest = chain(
            case_id=self.case_id, n=n, at=at, kind=note.kind, actor=note.actor, sealed=sealed, prev=self.head.hash
        )
        row = (self.case_id, n, at, note.kind, note.actor, sealed, self.key.id, self.head.hash, digest)
        self._rows.append(row)
        self.head = Head(n, digest)

    async def flush(self, conn: Connection) -> None:
        """Write what was added, and the new head into the row of the case."""
        await flush_all(conn, [self])

    @property
    def has_rows(self) -> bool:
        """Is there anything to write?"""
        return bool(self._rows)

    def take_rows(self) -> list[tuple[Any, ...]]:
        """Return what was added, to be written by the caller."""
        rows, self._rows = self._rows, []
        return rows


async def flush_all(conn: Connection, writers: Collection[Writer], *, update_cases: bool = True) -> None:
    """Write what was added for several cases. `update_cases` is off only where their rows have the head in them."""
    moved = [writer for writer in writers if writer.has_rows]
    rows = [row for writer in moved for row in writer.take_rows()]
    if not rows:
        return
    await conn.execute(
        """
        INSERT INTO journal (case_id, n, at, kind, actor, sealed, key_id, prev, hash)
        SELECT * FROM unnest(%b::uuid[], %b::int[], %b::timestamptz[], %b::text[], %b::text[],
                             %b::bytea[], %b::uuid[], %b::bytea[], %b::bytea[])
        """,
        [list(column) for column in zip(*rows, strict=True)],
    )
    if update_cases:
        await conn.execute(
            """
            UPDATE cases SET journal_n = head.n, journal_head = head.hash
            FROM unnest(%b::uuid[], %b::int[], %b::bytea[]) AS head (id, n, hash) WHERE cases.id = head.id
            """,
            (
                [writer.case_id for writer in moved],
                [writer.head.n for writer in moved],
                [writer.head.hash for writer in moved],
            ),
        )


async def lock_head(conn: Connection, case_id: UUID) -> Head | None:
    """Lock the case's row and return the head of its chain, or None when there is no such case."""
    cursor = await conn.execute("SELECT journal_n, journal_head FROM cases WHERE id = %s FOR NO KEY UPDATE", (case_id,))
    row = await cursor.fetchone()
    return None if row is None else Head(row[0], bytes(row[1]))


async def entries(conn: Connection, case_id: UUID) -> Sequence[Entry]:
    """Return the whole chain of a case, in order."""
    async with conn.cursor(row_factory=class_row(Entry)) as cursor:
        await cursor.execute(
            "SELECT case_id, n, at, kind, actor, sealed, prev, hash FROM journal WHERE case_id = %s ORDER BY n",
            (case_id,),
        )
        return await cursor.fetchall()
