"""Proving what happened in a case: its chain against itself, its case, and every checkpoint that names it (D15)."""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from uuid import UUID

from gateway.domain import journal
from gateway.domain.case import NotFound
from gateway.domain.checkpoint import Checkpoint, Examiner, Heads, parse
from gateway.domain.journal import Break, Mark
from gateway.keyring import ErasedKey, Keyring, KeyringError
from gateway.store import cases, checkpoint_file, checkpoints, queries
from gateway.store.cases import CaseRow
from gateway.store.pool import Connection, Pool
from gateway.store.queries import JournalRow

__all__ = [
    "CaseProof",
    "Cover",
    "Evidence",
    "case_ids",
    "count_cases",
    "examine",
    "proof_of",
    "prove_case",
    "read_proof",
]

_STEP = 500


@dataclass(frozen=True, slots=True)
class Cover:
    """The newest checkpoint that names a case, and how many of its entries it covers."""

    number: int
    at: datetime
    entries: int
    line: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseProof:
    """How the journal of a case stands. ``erased`` entries cannot be read any more; they still prove.

    ``breaks`` is empty when nothing was removed, altered, added or reordered, as far as anybody outside can tell:
    what was written behind the newest checkpoint is vouched for only by the database itself.
    """

    case_id: UUID
    entries: int
    head: bytes
    erased: int
    breaks: tuple[Break, ...]
    cover: Cover | None


@dataclass(slots=True)
class Evidence:
    """What the checkpoints say. ``flaws`` are what was done to them, ``notes`` what is only worth knowing."""

    heads: Heads
    flaws: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    checked: int = 0
    newest: Checkpoint | None = None


async def examine(
    pool: Pool, keyring: Keyring, *, file: Path | None = None, own: bool = True, only: Collection[UUID] | None = None
) -> Evidence:
    """Read and check all checkpoints: those of the database, and those of a file held against them.

    `own` says that it is the gateway's, which holds all of them and need not be there yet; a copy kept elsewhere may
    begin later, but has to be there. With `only`, what they say of other cases is not kept.

    Raises:
        OSError: The file cannot be read.
    """
    heads = Heads()
    table = Examiner("database", keyring.public.signed, heads, only=only)
    async with pool.connection() as conn:
        async for page in checkpoints.every(conn):
            table.read(row.line.encode() for row in page)
            await asyncio.sleep(0)
    found = Evidence(heads, table.flaws, checked=len(table.known), newest=table.newest)
    if file is None:
        return found
    other = Examiner(str(file), keyring.public.signed, heads, only=only, whole=own)
    try:
        await asyncio.to_thread(other.read, checkpoint_file.read(file))
    except FileNotFoundError:
        if not own:
            raise
        found.notes.append(f"there is no file {file}: the checkpoints of the database had nothing to be held against")
    else:
        _compare(found, table, other)
    return found


def _compare(found: Evidence, table: Examiner, other: Examiner) -> None:
    found.flaws += other.flaws
    lost = sorted(other.known.keys() - table.known.keys())
    if lost:
        found.flaws.append(f"database: {_named(lost)} missing, {other.place} has {'it' if len(lost) == 1 else 'them'}")
    forked = sorted(number for number, line in other.known.items() if table.known.get(number, line) != line)
    if forked:
        found.flaws.append(f"{other.place}: {_named(forked)} different from the database's, and both are signed")
    ahead = max(table.known, default=0) - max(other.known, default=0)
    if ahead > 0:
        found.notes.append(f"{other.place} ends {ahead} checkpoint{'s' if ahead > 1 else ''} before the database")


def _named(numbers: Sequence[int]) -> str:
    if len(numbers) == 1:
        return f"checkpoint {numbers[0]} is"
    return f"{len(numbers)} checkpoints from {numbers[0]} to {numbers[-1]} are"


async def prove_case(pool: Pool, keyring: Keyring, case_id: UUID, evidence: Evidence) -> CaseProof:
    """Return how the journal of a case stands against `evidence`.

    Raises:
        NotFound: There is no such case, and no checkpoint ever named it.
    """
    async with pool.connection() as conn, conn.transaction():
        await conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        case = await cases.by_id(conn, case_id)
        rows = await queries.journal_of(conn, case_id)
        return await proof_of(conn, keyring, case_id, case, rows, evidence.heads)


async def read_proof(pool: Pool, keyring: Keyring, case_id: UUID) -> tuple[CaseProof, Evidence]:
    """Return how the journal of a case stands against the checkpoints in the database that name it.

    Quick enough for every reader: of the others it sees only that none is missing.

    Raises:
        NotFound: There is no such case, and no checkpoint ever named it.
    """
    async with pool.connection() as conn, conn.transaction():
        await conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        case = await cases.by_id(conn, case_id)
        rows = await queries.journal_of(conn, case_id)
        evidence = await evidence_in(conn, keyring, case_id)
        return await proof_of(conn, keyring, case_id, case, rows, evidence.heads), evidence


async def evidence_in(conn: Connection, keyring: Keyring, case_id: UUID) -> Evidence:
    """Return what the checkpoints in the database that name a case say, each with its signature checked."""
    evidence = Evidence(Heads())
    for row in await checkpoints.naming(conn, case_id):
        try:
            checkpoint = parse(row.line.encode())
        except ValueError:
            checkpoint = None
        if checkpoint is None or not checkpoint.signed(keyring.public.signed):
            evidence.flaws.append(f"database: checkpoint {row.number} was altered: its signature is wrong")
        else:
            evidence.heads.add(checkpoint, only=(case_id,))
            evidence.checked += 1
            evidence.newest = checkpoint
    if missing := await checkpoints.gaps(conn):
        evidence.flaws.append(f"database: {missing} checkpoints are missing")
    return evidence


async def proof_of(
    conn: Connection,
    keyring: Keyring,
    case_id: UUID,
    case: CaseRow | None,
    rows: Sequence[JournalRow],
    heads: Heads,
) -> CaseProof:
    """Judge a chain that was read in the caller's transaction."""
    known = heads.of(case_id)
    if case is None and not known:
        raise NotFound(f"There is no case {case_id}.")
    breaks = []
    if case is None:
        breaks.append(
            Break(1, f"the whole case is missing: checkpoint {known[-1][2]} knows {known[-1][0]} entries of it")
        )
    else:
        breaks = journal.prove(
            [row.entry for row in rows],
            head=bytes(case.journal_head),
            count=case.journal_n,
            marks=[Mark(n, head, f"checkpoint {number}") for n, head, number in known],
        )
        breaks += await _misplaced_keys(conn, keyring, case, rows)
    cover = None
    if known and (row := await checkpoints.one(conn, known[-1][2])) is not None:
        cover = Cover(row.number, row.at, known[-1][0], row.line)
    return CaseProof(
        case_id=case_id,
        entries=len(rows),
        head=bytes(rows[-1].entry.hash) if rows else journal.GENESIS,
        erased=sum(row.wrapped is None for row in rows),
        breaks=tuple(breaks),
        cover=cover,
    )


async def _misplaced_keys(conn: Connection, keyring: Keyring, case: CaseRow, rows: Sequence[JournalRow]) -> list[Break]:
    """Find entries that were made unreadable by naming another key: which key it is under is not in the hash."""
    ours = {case.key_id, await queries.site_key(conn, case.site_id)}
    breaks = []
    for row in rows:
        n = row.entry.n
        if row.key_id not in ours:
            breaks.append(Break(n, f"entry {n} names a key that is neither that of its case nor that of the site"))
            continue
        try:
            keyring.unwrap(row.key_id, row.wrapped).open(row.entry.sealed, about=f"journal {case.id} {n}")
        except ErasedKey:
            continue
        except KeyringError:
            breaks.append(Break(n, f"entry {n} cannot be opened with the key that it names"))
    return breaks


async def count_cases(pool: Pool) -> int:
    """Return how many cases there are."""
    async with pool.connection() as conn:
        return await queries.count_cases(conn)


async def case_ids(pool: Pool) -> AsyncIterator[list[UUID]]:
    """Yield the ids of all cases, some at a time."""
    last = UUID(int=0)
    while True:
        async with pool.connection() as conn:
            page = await queries.case_ids(conn, after=last, limit=_STEP)
        if not page:
            return
        yield page
        last = page[-1]
