"""Whoever sees personal data of a case is in its journal (R22): the first time, and nobody waits for it.

The reader has it recorded before it is shown. Where somebody holds the case's row at that moment, what was seen is
kept beside the case and the gateway journals it when the row is free (`settle_disclosures`).
"""

import logging
from uuid import UUID

import psycopg

from gateway.domain.directory import Household
from gateway.domain.privacy import Privacy
from gateway.keyring import KeyringError
from gateway.service.views import case_key
from gateway.store import cases, disclosures, procedures
from gateway.store.cases import CaseRow
from gateway.store.directory import Directory
from gateway.store.disclosures import Disclosure
from gateway.store.journal import Head, Note, Writer
from gateway.store.pool import Connection, Pool

__all__ = ["disclose", "settle_disclosures", "shows_health"]

_log = logging.getLogger(__name__)

_BE_QUICK = "SET LOCAL lock_timeout = '100ms'"


def shows_health(household: Household | None, level: Privacy) -> bool:
    """Is a health record among what `level` shows of a household?"""
    return level is Privacy.FULL and household is not None and any(person.health for person in household.persons)


async def disclose(pool: Pool, directory: Directory, one: Disclosure) -> None:
    """Record that somebody is about to see personal data of a case. What is on record already changes nothing.

    It never fails for a reader, and never waits longer than a tenth of a second for anybody.
    """
    try:
        async with pool.connection() as conn, conn.transaction():
            await conn.execute(_BE_QUICK)
            if await disclosures.known(conn, one):
                return
            held = await cases.lock_free_cases(conn, [one.case_id])
            if not held:
                await disclosures.put_due(conn, one)
            elif not await disclosures.known(conn, one):  # with the row in hand, nobody can be quicker
                await _journal(conn, directory, held[0], one)
    except (psycopg.Error, KeyringError):
        _log.warning("cannot journal a disclosure now", exc_info=True, extra={"case": one.case_id, "who": one.who})
        await _put_aside(pool, one)


async def _put_aside(pool: Pool, one: Disclosure) -> None:
    try:
        async with pool.connection() as conn, conn.transaction():
            await conn.execute(_BE_QUICK)
            await disclosures.put_due(conn, one)
    except psycopg.Error:  # the log is all that is left to say it
        _log.exception("a disclosure is not on record", extra={"case": one.case_id, "who": one.who, "what": one.what})


async def settle_disclosures(pool: Pool, directory: Directory) -> int:
    """Journal what waits, as far as the cases are free now; returns how many entries that were."""
    async with pool.connection() as conn:
        waiting = await disclosures.due_cases(conn)
    done = 0
    for case_id in waiting:
        try:
            done += await _settle(pool, directory, case_id)
        except (psycopg.IntegrityError, psycopg.DataError, KeyringError):  # one case must not stop the others
            _log.exception("disclosures of a case cannot be journaled", extra={"case": case_id})
    return done


async def _settle(pool: Pool, directory: Directory, case_id: UUID) -> int:
    async with pool.connection() as conn, conn.transaction():
        held = await cases.lock_free_cases(conn, [case_id])
        if not held:
            return 0
        done = 0
        for one, at in await disclosures.due_of(conn, case_id):
            await disclosures.drop_due(conn, one)
            if not await disclosures.known(conn, one):
                case = await cases.by_id(conn, case_id)
                assert case is not None
                await _journal(conn, directory, case, one, seen_at=at.isoformat())
                done += 1
        return done


async def _journal(
    conn: Connection, directory: Directory, case: CaseRow, one: Disclosure, *, seen_at: str | None = None
) -> None:
    row = await (await conn.execute("SELECT revision FROM site WHERE id = %s", (case.site_id,))).fetchone()
    assert row is not None
    site = await directory.site(conn, case.site_id, row[0])
    key = await case_key(conn, directory.keyring, case, site=site)
    writer = Writer(case.id, key, Head(case.journal_n, bytes(case.journal_head)))
    data = {"what": one.what, "privacy": one.level, "health": one.health}
    now = await procedures.the_time(conn)
    writer.add(Note("data.disclosed", data | ({} if seen_at is None else {"seen_at": seen_at}), actor=one.who), at=now)
    await writer.flush(conn)
    await disclosures.add(conn, one, n=writer.head.n, at=now)
