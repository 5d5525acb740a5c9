"""What the auditor found becomes a technical case of its site, so that people see it where they see everything (I3).

The auditor does not do this: it relies on nothing that it audits, and tells the fallback by itself. This is the second
way, and the one with a journal and an end that a human sets.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from gateway.domain.kinds import AUDIT
from gateway.service.paging import NOT_OURS, BadCursor, Page, page_of, read_cursor
from gateway.service.raise_alarm import Press, raise_alarm_in
from gateway.store import findings, procedures
from gateway.store.directory import Directory
from gateway.store.findings import FindingRow
from gateway.store.pool import Connection, Pool

__all__ = ["list_findings", "report_findings"]

_PAUSE = timedelta(minutes=1)
"""A site is told of further findings by its case no sooner than that: what is wrong everywhere is told once."""

_BATCH = 200
_SAID = 5


async def report_findings(pool: Pool, directory: Directory) -> list[UUID]:
    """Raise what was found and is in no case yet; returns the cases. A site's further findings join its open case.

    Each finding is in one case exactly: it is marked in the transaction that raises it.
    """
    async with pool.connection() as conn, conn.transaction():
        # Whatever holds up this must not hold up the auditor, who writes to the same rows.
        await conn.execute("SELECT set_config('lock_timeout', '2s', true), set_config('statement_timeout', '5s', true)")
        found = await findings.uncased(conn, kind=AUDIT, limit=_BATCH)
        if not found:
            return []
        sites = {site.id: site.locale for site in await directory.sites(conn)}
        quiet = set(await findings.quiet_sites(conn, pause=_PAUSE)) & sites.keys()
        by_site: dict[str, list[FindingRow]] = defaultdict(list)
        for one in found:
            concerned = [one.site_id] if one.site_id is not None else list(sites)
            if quiet.issuperset(concerned):
                for site in concerned:
                    by_site[site].append(one)
        raised = []
        for site in sorted(by_site):
            raised.append(await _raise(conn, directory, site, by_site[site], locale=sites[site]))
            await findings.cased(conn, [one.id for one in by_site[site]], raised[-1])
    return raised


async def _raise(
    conn: Connection, directory: Directory, site: str, found: Sequence[FindingRow], *, locale: str
) -> UUID:
    language = "zh" if locale.startswith("zh") else "en"
    said = [one.words[language] + (f" [{one.case_id}]" if one.case_id is not None else "") for one in found[:_SAID]]
    if len(found) > _SAID:
        said.append(f"+{len(found) - _SAID}")
    payload = json.dumps({"findings": [one.id for one in found]}).encode()
    press = Press(
        terminal=None,
        site=site,
        transport="audit",
        kinds=(AUDIT,),
        received_at=await procedures.the_time(conn),
        payload=payload,
        digest=hashlib.sha256(payload).digest(),
        boot=0,
        seq=found[-1].id,
        problems=tuple(said),
    )
    raised = await raise_alarm_in(conn, directory, press, worker=None)
    return raised.case_id


async def list_findings(
    pool: Pool,
    *,
    is_open: bool | None = None,
    case: UUID | None = None,
    district: str | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[FindingRow]:
    """Return findings, newest first.

    Raises:
        BadCursor: Not a cursor of ours.
    """
    text = read_cursor(cursor)
    if text is not None and not (text.isascii() and text.isdigit() and len(text) < 19):
        raise BadCursor(NOT_OURS)
    async with pool.connection() as conn:
        rows = await findings.listing(
            conn,
            is_open=is_open,
            case=case,
            district=district,
            before=None if text is None else int(text),
            limit=limit + 1,
        )
    return page_of(rows, limit, lambda one: str(one.id))
