"""What a work order says: sealed, opened again, and written from the journal of its case."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

from gateway.domain.processing_record import Told, record_of
from gateway.domain.work_order import Kind, missing
from gateway.keyring import DataKey, ErasedKey, Keyring
from gateway.store import events, procedures, queries, work_orders
from gateway.store.cases import CaseRow
from gateway.store.directory import SiteView
from gateway.store.pool import Connection
from gateway.store.queries import JournalRow
from gateway.store.work_orders import OrderRow

__all__ = ["language", "name_of", "open_content", "record_now", "tell", "with_content"]

Content = dict[str, Any]
"""``number``, ``operator_name``, ``person`` (name, age, phone), ``institution``, ``record``, ``referral`` (needs,
offered, outcome, note), ``complaint`` (about, forwarded_to, result), ``rating_comment``, ``notes`` on steps."""


def _about(order: UUID) -> str:
    return f"work_order {order}"


def open_content(keyring: Keyring, row: OrderRow) -> Content | None:
    """Return what a work order says, or None once it was erased."""
    try:
        content: Any = keyring.unwrap(row.key_id, row.wrapped).open(bytes(row.sealed), about=_about(row.id))
    except ErasedKey:
        return None
    return dict(content)


def with_content(row: OrderRow, content: Content, *, key: DataKey) -> OrderRow:
    """Return `row` saying `content`, with what is missing then."""
    content = {name: value for name, value in content.items() if value is not None}
    known = content | {"operator": row.operator, "reply_needed": row.reply_needed, "replied_at": row.replied_at}
    return replace(
        row,
        sealed=key.seal(content, about=_about(row.id)),
        key_id=key.id,
        missing=missing(Kind(row.kind), known, completed=row.completed_at is not None),
    )


def language(locale: str) -> str:
    """Return the language in which a site keeps its records."""
    return "zh" if locale.startswith("zh") else "en"


async def record_now(conn: Connection, keyring: Keyring, case: CaseRow, *, site: SiteView) -> str:
    """Return the processing record that the journal of a case makes now."""
    lang = language(site.locale)
    titles: dict[str, str] = {}
    for run in await procedures.runs_of(conn, case.id):
        body = await procedures.body(conn, run.procedure, run.version)
        titles |= {
            step["step"]: step["title"].get(lang) or next(iter(step["title"].values())) for step in body["steps"]
        }
    told = [_told(keyring, row) for row in await queries.journal_of(conn, case.id)]
    known = [entry for entry in told if entry is not None]
    return record_of(known, lang=lang, timezone=site.timezone, titles=titles)


def _told(keyring: Keyring, row: JournalRow) -> Told | None:
    """Open an entry of a journal; None once it was erased."""
    entry = row.entry
    try:
        data: Any = keyring.unwrap(row.key_id, row.wrapped).open(
            entry.sealed, about=f"journal {entry.case_id} {entry.n}"
        )
    except ErasedKey:
        return None
    return Told(at=entry.at, kind=entry.kind, actor=entry.actor, data=data)


async def name_of(conn: Connection, keyring: Keyring, operator: str | None) -> str | None:
    """Return the name behind a seat number, where it is known."""
    rows = [] if operator is None else await work_orders.operators(conn, operator)
    if not rows:
        return None
    record: Any = keyring.unwrap(rows[0].key_id, rows[0].wrapped).open(
        bytes(rows[0].sealed), about=f"operator {operator}"
    )
    return str(record["name"])


async def tell(conn: Connection, what: str, row: OrderRow, **more: object) -> None:
    """Put an event about a work order on the stream: nothing personal goes along."""
    data: Mapping[str, object] = {
        "work_order": str(row.id),
        "kind": row.kind,
        "operator": row.operator,
        "version": row.version,
        "missing": row.missing,
        "completed": row.completed_at is not None,
    }
    await events.emit(conn, f"work_order.{what}", district=row.district, case_id=row.case_id, data={**data, **more})
