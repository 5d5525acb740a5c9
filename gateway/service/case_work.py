"""One case under work: its row is locked, its directory looked up, and what happens to it is collected."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Any
from uuid import UUID

from gateway.domain.case import Fact, NotFound
from gateway.domain.outbox import DueNotice
from gateway.keyring import ErasedKey, KeyringError
from gateway.service.settling import settle_role
from gateway.service.views import Surroundings, case_key, surroundings_now
from gateway.store import cases, events, procedures
from gateway.store.cases import CaseRow
from gateway.store.directory import Directory
from gateway.store.events import NewEvent
from gateway.store.journal import Head, Note, Writer
from gateway.store.pool import Connection
from gateway.store.procedures import FactRow

__all__ = ["Work", "WorkingDay", "add_fact", "locked", "work_on"]

WorkingDay = Callable[[date], bool]


@dataclass(slots=True)
class Work:
    """A locked case. ``notices`` are to be sent by ``worker`` after the commit; the caller flushes it at the end."""

    conn: Connection
    directory: Directory
    case: CaseRow
    around: Surroundings
    journal: Writer
    now: datetime
    worker: int | None
    notices: list[DueNotice] = field(default_factory=list)
    known: list[FactRow] | None = None
    news: list[NewEvent] = field(default_factory=list)

    async def facts(self) -> list[FactRow]:
        """Return what is known of the rescue, oldest first; read once for each piece of work."""
        if self.known is None:
            self.known = await procedures.facts_of(self.conn, self.case.id)
        return self.known

    def note(self, kind: str, data: dict[str, Any], *, actor: str, private: dict[str, Any] | None = None) -> None:
        """Put something on record: `data` in the journal and the stream, `private` in the journal alone."""
        self.journal.add(Note(kind, data | (private or {}), actor=actor), at=self.now)
        self.news.append(NewEvent(kind=kind, district=self.case.district, case_id=self.case.id, data=data))

    async def emit(self) -> None:
        """Put what was noted on the stream, before whatever is emitted next."""
        if self.news:
            await events.emit_all(self.conn, self.news)
            self.news = []

    async def flush(self) -> None:
        """Write what was noted; the last thing in the transaction."""
        await self.emit()
        await self.journal.flush(self.conn)

    def change(self, **values: Any) -> None:
        """Follow a change of the row."""
        self.case = replace(self.case, **values)


async def work_on(conn: Connection, directory: Directory, case: CaseRow, *, worker: int | None) -> Work:
    """Return the work on a case whose row the caller has locked."""
    try:
        around, now = await surroundings_now(conn, directory, case)
    except (KeyringError, ErasedKey):
        # The household cannot be read any more; tasks of people go on, and the fallback can still be told.
        row = await (await conn.execute("SELECT revision FROM site WHERE id = %s", (case.site_id,))).fetchone()
        assert row is not None
        site = await directory.site(conn, case.site_id, row[0])
        around = Surroundings(site, None, await case_key(conn, directory.keyring, case, site=site))
        now = await procedures.the_time(conn)
    journal = Writer(case.id, around.key, Head(case.journal_n, bytes(case.journal_head)))
    return Work(conn, directory, case, around, journal, now, worker)


async def locked(conn: Connection, directory: Directory, case_id: UUID, *, worker: int | None = None) -> Work:
    """Lock a case and return the work on it.

    Raises:
        NotFound: No such case.
    """
    case = await cases.lock_case(conn, case_id)
    if case is None:
        raise NotFound(f"There is no case {case_id}.")
    return await work_on(conn, directory, case, worker=worker)


async def add_fact(work: Work, fact: Fact, *, role: str, by: str) -> None:
    """Record a fact about a role, and end the calls to that role if it is the one that ends them."""
    work.known = None
    added = await procedures.add_facts(work.conn, work.case.id, [fact], role=role, by=by)
    for name in added:
        work.note("case.fact", {"fact": name, "role": role, "by": by}, actor=by)
    await work.emit()
    await settle_role(work.conn, work.case, role, fact=fact, by=by, journal=work.journal, now=work.now)
