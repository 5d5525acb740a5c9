"""Taking due notices out of the outbox, with all that is needed to send them."""

import logging
from collections.abc import Collection
from uuid import UUID

from gateway.domain.outbox import CaseView, DueNotice
from gateway.keyring import ErasedKey, KeyringError
from gateway.service.record import record_unreachable
from gateway.service.views import Surroundings, due, surroundings, view_of
from gateway.store import cases, outbox
from gateway.store.directory import Directory
from gateway.store.outbox import NoticeRow
from gateway.store.pool import Pool

_log = logging.getLogger(__name__)

__all__ = ["lease_due", "still_due"]


async def lease_due(
    pool: Pool, directory: Directory, *, worker: int, holding: Collection[str] | None, limit: int = 500
) -> list[DueNotice]:
    """Take what is due and nobody alive is sending. A party that is gone from the directory fails its leg."""
    async with pool.connection() as conn, conn.transaction():
        rows = await outbox.lease(conn, worker, holding=holding, limit=limit)
        notices: list[DueNotice] = []
        gone: list[NoticeRow] = []
        views: dict[UUID, tuple[CaseView, Surroundings] | None] = {}
        for row in rows:
            if row.case_id not in views:
                case = await cases.by_id(conn, row.case_id)
                assert case is not None
                try:
                    around = await surroundings(conn, directory, case)
                except (KeyringError, ErasedKey):
                    _log.error("the records of a case cannot be opened", extra={"case": row.case_id})
                    views[row.case_id] = None
                else:
                    views[row.case_id] = (view_of(case, site=around.site, household=around.household), around)
            known = views[row.case_id]
            if known is None:
                continue  # it stays due, in our name: people see the oldest unsent notice grow old
            view, around = known
            party = around.party(row.party_id)
            if party is None:
                party = next(iter(await directory.parties(conn, [row.party_id])), None)
            if party is None or not party.channels:
                gone.append(row)
                continue
            notices.append(due(row, party=party, case=view, site=around.site))
    return notices + await record_unreachable(pool, directory, gone, worker=worker)


async def still_due(pool: Pool, notices: Collection[str], *, worker: int) -> set[str]:
    """Return which notices that had to wait for their turn are still to be sent (I4)."""
    async with pool.connection() as conn:
        return await outbox.still_due(conn, notices, worker)
