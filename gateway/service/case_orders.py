"""The work order of a case: made by itself as soon as a human owns the case, and written from its journal (R18)."""

import logging
from dataclasses import replace
from typing import Any
from zoneinfo import ZoneInfo

import psycopg

from gateway.domain import keys
from gateway.domain.case import CaseState
from gateway.domain.kinds import CaseClass
from gateway.domain.work_order import Kind, reply_needed
from gateway.keyring import Keyring
from gateway.service.order_content import Content, name_of, open_content, record_now, tell, with_content
from gateway.service.views import Surroundings
from gateway.store import procedures, work_orders
from gateway.store.cases import CaseRow
from gateway.store.journal import Head, Note, Writer
from gateway.store.pool import Connection
from gateway.store.work_orders import OrderRow

__all__ = ["write_up"]

_log = logging.getLogger(__name__)

_KINDS = {CaseClass.EMERGENCY: Kind.EMERGENCY_RESCUE, CaseClass.SERVICE: Kind.PUBLIC_SERVICE_QUERY}


async def write_up(
    conn: Connection, keyring: Keyring, case: CaseRow, around: Surroundings, head: Head, *, operator: str | None
) -> None:
    """Make the work order of a case, or write its record anew as long as no operator edited it.

    The caller holds the case's row and has journaled, up to `head`, all that happened; nothing is journaled after this.
    Tests and technical cases are no calls for service and have no work order. `operator` is whoever handles the case.

    Nobody may be kept from taking or closing an emergency by a form: a fault of ours in here costs the work order,
    which is tried again at the closure, and never the command that it goes along with.
    """
    kind = _KINDS.get(CaseClass(case.case_class))
    if kind is None or case.test:
        return
    journal = Writer(case.id, around.key, head)
    try:
        async with conn.transaction():
            order = await work_orders.of_case(conn, case.id)
            if order is None:
                await _make(conn, keyring, case, around, journal, kind=kind, operator=operator)
            else:
                await _write_anew(conn, keyring, case, around, journal, order)
            await journal.flush(conn)
    except (psycopg.OperationalError, psycopg.InterfaceError):
        raise
    except Exception:  # noqa: BLE001 # see above
        _log.exception("the work order of a case cannot be written", extra={"case": case.id})


async def _make(
    conn: Connection,
    keyring: Keyring,
    case: CaseRow,
    around: Surroundings,
    journal: Writer,
    *,
    kind: Kind,
    operator: str | None,
) -> None:
    now = await procedures.the_time(conn)
    row = OrderRow(
        id=keys.work_order_id(case.id),
        site_id=around.site.id,
        district=case.district,
        case_id=case.id,
        origin="case",
        kind=kind,
        operator=operator,
        called_at=case.received_at,
        reply_needed=reply_needed(kind, said=None),
        over=case.state == CaseState.CLOSED,
        key_id=around.key.id,
        created_at=now,
        updated_at=now,
    )
    person = _person(case, around)
    number = None if case.terminal_id is None else await work_orders.terminal_number(conn, case.terminal_id)
    content: Content = {
        "number": number or person.get("phone") or case.terminal_id,
        "operator_name": await name_of(conn, keyring, operator),
        "person": person,
        "record": await record_now(conn, keyring, case, site=around.site),
    }
    row = with_content(row, content, key=around.key)
    if await work_orders.add(conn, row):
        data = {"work_order": str(row.id), "kind": kind, "missing": row.missing}
        journal.add(Note("work_order.created", data), at=now)
        await tell(conn, "created", row)


def _person(case: CaseRow, around: Surroundings) -> dict[str, Any]:
    """Return whom the case is about; of a couple nobody knows who pressed, so an operator has to say."""
    persons = () if around.household is None else around.household.persons
    if len(persons) != 1:
        return {}
    today = case.received_at.astimezone(ZoneInfo(around.site.timezone)).date()
    return {"name": persons[0].name, "age": persons[0].age(today), "phone": persons[0].phone}


async def _write_anew(
    conn: Connection, keyring: Keyring, case: CaseRow, around: Surroundings, journal: Writer, order: OrderRow
) -> None:
    content = open_content(keyring, order)
    if content is None:
        return
    over = case.state == CaseState.CLOSED
    row = replace(order, over=over)
    record = content.get("record") if row.edited else await record_now(conn, keyring, case, site=around.site)
    if row == order and record == content.get("record"):
        return
    key = keyring.unwrap(order.key_id, order.wrapped)
    saved = await work_orders.save(conn, with_content(row, content | {"record": record}, key=key))
    data = {"work_order": str(order.id), "version": saved.version, "because": "closed" if over else "owned"}
    journal.add(Note("work_order.updated", data), at=saved.updated_at)
    await tell(conn, "updated", saved, fields=[] if row.edited else ["record"])
