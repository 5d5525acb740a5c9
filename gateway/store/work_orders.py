"""Work orders, their steps, their inspection, and the names of operators in the database."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from uuid import UUID

from psycopg.rows import class_row

from gateway.domain.procedure import StepRow, StepState
from gateway.store.pool import Connection

__all__ = [
    "InspectionLine",
    "InspectionRow",
    "JudgementRow",
    "OperatorRow",
    "OrderLine",
    "OrderRow",
    "OrderStep",
    "add",
    "add_inspection",
    "add_judgement",
    "add_key",
    "by_id",
    "by_ids",
    "case_of",
    "drop_operator",
    "due_orders",
    "erase",
    "inspection",
    "inspection_lines",
    "judgements_of",
    "key_subject",
    "lock",
    "lock_if_free",
    "next_deadlines",
    "of_case",
    "operators",
    "page",
    "person",
    "population",
    "put_off",
    "run_of",
    "save",
    "save_step",
    "set_operator",
    "sleep_until",
    "step_rows",
    "steps_of",
    "terminal_number",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderRow:
    """A work order as it stands in the table; ``wrapped`` is its key, None once that was erased."""

    id: UUID
    site_id: str
    district: str
    case_id: UUID | None
    origin: str
    kind: str
    operator: str | None
    called_at: datetime
    created_at: datetime
    updated_at: datetime
    over: bool
    reply_needed: bool | None = None
    replied_at: datetime | None = None
    rating: int | None = None
    rating_asked_at: datetime | None = None
    rating_asked_by: str | None = None
    edited: bool = False
    missing: list[str] = field(default_factory=list)
    accurate: bool | None = None
    sealed: bytes = b""
    key_id: UUID
    wrapped: bytes | None = None
    version: int = 1
    completed_at: datetime | None = None
    completed_by: str | None = None
    run_id: UUID | None = None
    procedure: str | None = None
    procedure_version: int | None = None
    procedure_since: datetime | None = None


_ORDER = """
    w.id, w.site_id, w.district, w.case_id, w.origin, w.kind, w.operator, w.called_at, w.reply_needed, w.replied_at,
    w.rating, w.rating_asked_at, w.rating_asked_by, w.edited, w.over, w.missing, w.accurate, w.sealed, w.key_id,
    k.wrapped, w.version, w.created_at, w.updated_at, w.completed_at, w.completed_by, w.run_id, w.procedure,
    w.procedure_version, w.procedure_since
"""
_FROM = "FROM work_order w JOIN data_key k ON k.id = w.key_id"


async def _one(conn: Connection, where: str, value: UUID) -> OrderRow | None:
    async with conn.cursor(row_factory=class_row(OrderRow)) as cursor:
        await cursor.execute(f"SELECT {_ORDER} {_FROM} WHERE {where}".encode(), (value,))
        return await cursor.fetchone()


async def by_id(conn: Connection, order: UUID) -> OrderRow | None:
    """Return a work order."""
    return await _one(conn, "w.id = %s", order)


async def by_ids(conn: Connection, orders: Sequence[UUID]) -> list[OrderRow]:
    """Return work orders in the order of their ids as given; those that are not there are left out."""
    async with conn.cursor(row_factory=class_row(OrderRow)) as cursor:
        await cursor.execute(
            f"SELECT {_ORDER} {_FROM} JOIN unnest(%s::uuid[]) WITH ORDINALITY AS wanted (id, n) ON wanted.id = w.id "
            "ORDER BY wanted.n",
            (list(orders),),
        )
        return await cursor.fetchall()


async def of_case(conn: Connection, case_id: UUID) -> OrderRow | None:
    """Lock and return the work order that was made for a case by itself; the caller holds the case's row."""
    return await _one(conn, "w.case_id = %s AND w.origin = 'case' FOR NO KEY UPDATE OF w", case_id)


async def lock(conn: Connection, order: UUID) -> OrderRow | None:
    """Lock and return a work order. Whoever changes one that belongs to a case locks the case first."""
    return await _one(conn, "w.id = %s FOR NO KEY UPDATE OF w", order)


async def lock_if_free(conn: Connection, order: UUID) -> OrderRow | None:
    """Lock and return a work order, or None while somebody else holds it."""
    return await _one(conn, "w.id = %s FOR NO KEY UPDATE OF w SKIP LOCKED", order)


async def case_of(conn: Connection, order: UUID) -> tuple[UUID | None] | None:
    """Return the case that a work order belongs to, in a tuple of one; None when there is no such work order."""
    row = await (await conn.execute("SELECT case_id FROM work_order WHERE id = %s", (order,))).fetchone()
    return None if row is None else (row[0],)


async def add(conn: Connection, row: OrderRow) -> bool:
    """Store a new work order; False when its id, which says what it is about, is there already."""
    cursor = await conn.execute(
        """
        INSERT INTO work_order (id, site_id, district, case_id, origin, kind, operator, called_at, reply_needed,
                                replied_at, edited, over, missing, sealed, key_id, run_id, procedure,
                                procedure_version, procedure_since, created_at, wake_at)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s,
                CASE WHEN %s::text IS NOT NULL THEN onekey_now() END)
        ON CONFLICT (id) DO NOTHING RETURNING id
        """,
        (
            row.id,
            row.site_id,
            row.district,
            row.case_id,
            row.origin,
            row.kind,
            row.operator,
            row.called_at,
            row.reply_needed,
            row.replied_at,
            row.edited,
            row.over,
            row.missing,
            row.sealed,
            row.key_id,
            row.run_id,
            row.procedure,
            row.procedure_version,
            row.procedure_since,
            row.created_at,
            row.procedure,
        ),
    )
    return await cursor.fetchone() is not None


async def save(conn: Connection, row: OrderRow) -> OrderRow:
    """Store how a work order, which the caller holds, stands now, one version further; returns it."""
    cursor = await conn.execute(
        """
        UPDATE work_order SET kind = %s, operator = %s, reply_needed = %s, replied_at = %s, rating = %s,
            rating_asked_at = %s, rating_asked_by = %s, edited = %s, over = %s, missing = %s, accurate = %s,
            sealed = %s, completed_at = %s, completed_by = %s, run_id = %s, procedure = %s, procedure_version = %s,
            procedure_since = %s,
            wake_at = CASE WHEN procedure IS DISTINCT FROM %s THEN onekey_now() ELSE wake_at END,
            version = version + 1, updated_at = onekey_now()
        WHERE id = %s
        """,
        (
            row.kind,
            row.operator,
            row.reply_needed,
            row.replied_at,
            row.rating,
            row.rating_asked_at,
            row.rating_asked_by,
            row.edited,
            row.over,
            row.missing,
            row.accurate,
            row.sealed,
            row.completed_at,
            row.completed_by,
            row.run_id,
            row.procedure,
            row.procedure_version,
            row.procedure_since,
            row.procedure,
            row.id,
        ),
    )
    assert cursor.rowcount == 1
    saved = await by_id(conn, row.id)
    assert saved is not None
    return saved


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderLine:
    """A work order as a list shows it: nothing personal. ``due_at`` is the next deadline of what it obliges to."""

    id: UUID
    district: str
    case_id: UUID | None
    kind: str
    operator: str | None
    called_at: datetime
    reply_needed: bool | None
    rating: int | None
    missing: list[str]
    accurate: bool | None
    version: int
    completed_at: datetime | None
    due_at: datetime | None


# The tasks of its own, of its complaint, or, where it is the work order of a case, of that case.
_DUE = """
    SELECT min(due_at) FROM (
        SELECT s.due_at FROM work_order_step s WHERE s.work_order_id = w.id AND s.state = 'open'
        UNION ALL
        SELECT s.due_at FROM step s WHERE s.case_id = w.case_id AND s.state = 'open' AND s.does = 'task'
            AND (w.origin = 'case' OR s.run_id = w.run_id)
    ) s
"""
# The same from the other end: what is late is little, and has an index.
_LATE = """
    SELECT s.work_order_id FROM work_order_step s WHERE s.state = 'open' AND s.due_at <= (SELECT onekey_now())
    UNION ALL
    SELECT o.id FROM step s JOIN work_order o ON o.case_id = s.case_id
    WHERE s.state = 'open' AND s.does = 'task' AND s.due_at <= (SELECT onekey_now())
        AND (o.origin = 'case' OR s.run_id = o.run_id)
"""


async def page(
    conn: Connection,
    *,
    operator: str | None,
    kind: str | None,
    district: str | None,
    case: UUID | None,
    open_only: bool,
    overdue: bool,
    since: datetime | None,
    until: datetime | None,
    before: tuple[datetime, UUID] | None,
    limit: int,
) -> list[OrderLine]:
    """Return work orders by the time of the call, newest first; `before` is that and the id of the last one seen."""
    async with conn.cursor(row_factory=class_row(OrderLine)) as cursor:
        await cursor.execute(
            f"""
            SELECT w.id, w.district, w.case_id, w.kind, w.operator, w.called_at, w.reply_needed, w.rating, w.missing,
                   w.accurate, w.version, w.completed_at, d.due_at
            FROM work_order w CROSS JOIN LATERAL ({_DUE}) d (due_at)
            WHERE (%(operator)s::text IS NULL OR w.operator = %(operator)s)
              AND (%(kind)s::text IS NULL OR w.kind = %(kind)s)
              AND (%(district)s::text IS NULL OR w.district = %(district)s)
              AND (%(case)s::uuid IS NULL OR w.case_id = %(case)s)
              AND (NOT %(open)s OR w.completed_at IS NULL)
              AND (NOT %(overdue)s OR w.id IN ({_LATE}))
              AND (%(since)s::timestamptz IS NULL OR w.called_at >= %(since)s)
              AND (%(until)s::timestamptz IS NULL OR w.called_at < %(until)s)
              AND (%(at)s::timestamptz IS NULL OR (w.called_at, w.id) < (%(at)s, %(id)s::uuid))
            ORDER BY w.called_at DESC, w.id DESC LIMIT %(limit)s
            """,  # noqa: S608
            {
                "operator": operator,
                "kind": kind,
                "district": district,
                "case": case,
                "open": open_only,
                "overdue": overdue,
                "since": since,
                "until": until,
                "at": None if before is None else before[0],
                "id": None if before is None else before[1],
                "limit": limit,
            },
        )
        return await cursor.fetchall()


async def next_deadlines(conn: Connection, orders: Sequence[UUID]) -> dict[UUID, datetime]:
    """Return the next deadline of what each of the work orders obliges to, where there is one."""
    query = f"SELECT w.id, d.due_at FROM work_order w CROSS JOIN LATERAL ({_DUE}) d (due_at) WHERE w.id = ANY(%s)"  # noqa: S608
    rows = await (await conn.execute(query.encode(), (list(orders),))).fetchall()
    return {order: due for order, due in rows if due is not None}


# Keys


async def person(conn: Connection, person_id: str, *, site: str) -> tuple[bytes, UUID, bytes | None] | None:
    """Return a registered person of a site, still sealed, with the key: what is sealed under that goes with them."""
    cursor = await conn.execute(
        "SELECT p.sealed, k.id, k.wrapped FROM person p JOIN data_key k ON k.id = p.key_id "
        "WHERE p.id = %s AND p.site_id = %s",
        (person_id, site),
    )
    row = await cursor.fetchone()
    return None if row is None else (bytes(row[0]), row[1], row[2])


async def key_subject(conn: Connection, key: UUID) -> str:
    """Return whose key a data key is."""
    row = await (await conn.execute("SELECT subject FROM data_key WHERE id = %s", (key,))).fetchone()
    assert row is not None
    subject: str = row[0]
    return subject


async def add_key(conn: Connection, key: UUID, wrapped: bytes, *, subject: str) -> tuple[UUID, bytes | None]:
    """Store a data key, or return the one that `subject` has already."""
    await conn.execute(
        "INSERT INTO data_key (id, subject, wrapped) VALUES (%s, %s, %s) ON CONFLICT (subject) DO NOTHING",
        (key, subject, wrapped),
    )
    row = await (await conn.execute("SELECT id, wrapped FROM data_key WHERE subject = %s", (subject,))).fetchone()
    assert row is not None
    return row[0], row[1]


async def erase(conn: Connection, key: UUID) -> None:
    """Erase a data key; one that was erased stays so."""
    await conn.execute(
        "UPDATE data_key SET wrapped = NULL, erased_at = onekey_now() WHERE id = %s AND wrapped IS NOT NULL", (key,)
    )


async def terminal_number(conn: Connection, terminal: str) -> str | None:
    """Return the number that a terminal calls from."""
    cursor = await conn.execute(
        "SELECT a.address FROM terminal_address a JOIN terminal t ON t.uid = a.terminal_uid "
        "WHERE t.public_id = %s AND a.kind = 'phone' AND a.until IS NULL LIMIT 1",
        (terminal,),
    )
    row = await cursor.fetchone()
    return None if row is None else row[0]


# Steps


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderStep:
    """A step of a complaint, wherever its procedure runs."""

    order_id: UUID
    id: UUID
    name: str
    seat: str | None
    state: str
    planned_at: datetime
    started_at: datetime | None
    due_at: datetime | None
    breached_at: datetime | None
    ended_at: datetime | None
    result: str | None
    by_whom: str | None


_STEP = """
    s.id, s.name, s.seat, s.state, s.planned_at, s.started_at, s.due_at, s.breached_at, s.ended_at, s.result, s.by_whom
"""


async def steps_of(conn: Connection, orders: Sequence[UUID]) -> list[OrderStep]:
    """Return the steps of work orders' complaints, in the order in which they were planned."""
    async with conn.cursor(row_factory=class_row(OrderStep)) as cursor:
        await cursor.execute(
            f"""
            SELECT s.work_order_id AS order_id, {_STEP} FROM work_order_step s WHERE s.work_order_id = ANY(%(orders)s)
            UNION ALL
            SELECT w.id AS order_id, {_STEP} FROM work_order w JOIN step s ON s.run_id = w.run_id AND s.does = 'task'
            WHERE w.id = ANY(%(orders)s)
            ORDER BY planned_at, due_at, name
            """,  # noqa: S608
            {"orders": list(orders)},
        )
        return await cursor.fetchall()


async def step_rows(conn: Connection, order: UUID) -> dict[str, StepRow]:
    """Return how each step of a work order's own procedure stands."""
    cursor = await conn.execute(
        "SELECT name, state, planned_at, started_at, due_at, breached_at, ended_at, result FROM work_order_step "
        "WHERE work_order_id = %s",
        (order,),
    )
    return {
        name: StepRow(
            state=StepState(state),
            planned_at=planned,
            started_at=started,
            due_at=due,
            breached_at=breached,
            ended_at=ended,
            result=result,
        )
        for name, state, planned, started, due, breached, ended, result in await cursor.fetchall()
    }


async def save_step(
    conn: Connection,
    row: StepRow,
    *,
    id: UUID,  # noqa: A002 # the column
    order: UUID,
    district: str,
    name: str,
    seat: str | None,
    by: str | None,
) -> None:
    """Store how a step of a work order's own procedure stands now."""
    await conn.execute(
        """
        INSERT INTO work_order_step (id, work_order_id, district, name, seat, state, planned_at, started_at, due_at,
                                     breached_at, ended_at, result, by_whom)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
        ON CONFLICT (id) DO UPDATE SET state = EXCLUDED.state, due_at = EXCLUDED.due_at, result = EXCLUDED.result,
            breached_at = EXCLUDED.breached_at, ended_at = EXCLUDED.ended_at, by_whom = EXCLUDED.by_whom
        """,
        (
            id,
            order,
            district,
            name,
            seat,
            row.state,
            row.planned_at,
            row.started_at,
            row.due_at,
            row.breached_at,
            row.ended_at,
            row.result,
            by,
        ),
    )


async def run_of(conn: Connection, case_id: UUID, procedure: str) -> tuple[UUID, bool] | None:
    """Return the run of a procedure for a case, and whether a work order has it already."""
    cursor = await conn.execute(
        "SELECT id, EXISTS (SELECT FROM work_order w WHERE w.run_id = run.id) FROM run "
        "WHERE case_id = %s AND procedure = %s",
        (case_id, procedure),
    )
    row = await cursor.fetchone()
    return None if row is None else (row[0], row[1])


async def due_orders(conn: Connection, *, limit: int) -> list[UUID]:
    """Return the work orders whose procedure wants to be looked at, the longest overdue first."""
    cursor = await conn.execute(
        "SELECT id FROM work_order WHERE wake_at <= (SELECT onekey_now()) ORDER BY wake_at LIMIT %s", (limit,)
    )
    return [row[0] for row in await cursor.fetchall()]


async def sleep_until(conn: Connection, order: UUID, at: datetime | None) -> None:
    """Say when time alone changes something about a work order's procedure again."""
    await conn.execute("UPDATE work_order SET wake_at = %s WHERE id = %s", (at, order))


async def put_off(conn: Connection, order: UUID, delay: timedelta) -> None:
    """Let a work order that cannot be handled wait, so that it does not keep the others waiting (D12)."""
    await conn.execute("UPDATE work_order SET wake_at = onekey_now() + %s WHERE id = %s", (delay, order))


# Inspection


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgementRow:
    """What an inspector found, its remarks still sealed."""

    order_id: UUID
    version: int
    accurate: bool
    inspector: str
    at: datetime
    sealed: bytes
    key_id: UUID
    wrapped: bytes | None


async def add_judgement(
    conn: Connection, order: UUID, *, version: int, accurate: bool, inspector: str, sealed: bytes, key: UUID
) -> None:
    """Store what an inspector found."""
    await conn.execute(
        "INSERT INTO judgement (work_order_id, version, accurate, inspector, sealed, key_id) "
        "VALUES (%s, %s, %s, %s, %s, %s)",
        (order, version, accurate, inspector, sealed, key),
    )


async def judgements_of(conn: Connection, orders: Sequence[UUID]) -> list[JudgementRow]:
    """Return what inspectors found about work orders, oldest first."""
    async with conn.cursor(row_factory=class_row(JudgementRow)) as cursor:
        await cursor.execute(
            """
            SELECT j.work_order_id AS order_id, j.version, j.accurate, j.inspector, j.at, j.sealed, j.key_id, k.wrapped
            FROM judgement j JOIN data_key k ON k.id = j.key_id WHERE j.work_order_id = ANY(%s) ORDER BY j.id
            """,
            (list(orders),),
        )
        return await cursor.fetchall()


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectionRow:
    """A sample that was drawn, and from what."""

    id: UUID
    seed: str
    first_day: date
    last_day: date
    district: str | None
    operator: str | None
    per_operator: int
    drawn_by: str
    drawn_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectionLine:
    """A work order of a sample."""

    work_order: UUID
    operator: str | None
    kind: str
    called_at: datetime
    accurate: bool | None


async def population(
    conn: Connection, *, site: str, since: datetime, until: datetime, district: str | None, operator: str | None
) -> list[tuple[str | None, UUID]]:
    """Return operator and id of every work order that can be inspected: what it is about is over."""
    cursor = await conn.execute(
        """
        SELECT operator, id FROM work_order WHERE site_id = %s AND called_at >= %s AND called_at < %s AND over
          AND (%s::text IS NULL OR district = %s) AND (%s::text IS NULL OR operator = %s)
        """,
        (site, since, until, district, district, operator, operator),
    )
    return [(row[0], row[1]) for row in await cursor.fetchall()]


async def add_inspection(conn: Connection, row: InspectionRow, orders: Sequence[UUID]) -> bool:
    """Store a sample; False when the same question was answered before."""
    cursor = await conn.execute(
        """
        INSERT INTO inspection (id, seed, first_day, last_day, district, operator, per_operator, drawn_by)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (id) DO NOTHING RETURNING id
        """,
        (
            row.id,
            row.seed,
            row.first_day,
            row.last_day,
            row.district,
            row.operator,
            row.per_operator,
            row.drawn_by,
        ),
    )
    if await cursor.fetchone() is None:
        return False
    await conn.execute(
        "INSERT INTO inspection_item (inspection_id, work_order_id, position) "
        "SELECT %s, id, position FROM unnest(%s::uuid[]) WITH ORDINALITY AS drawn (id, position)",
        (row.id, list(orders)),
    )
    return True


async def inspection(conn: Connection, inspection_id: UUID) -> InspectionRow | None:
    """Return what a sample was drawn from."""
    async with conn.cursor(row_factory=class_row(InspectionRow)) as cursor:
        await cursor.execute(
            "SELECT id, seed, first_day, last_day, district, operator, per_operator, drawn_by, drawn_at "
            "FROM inspection WHERE id = %s",
            (inspection_id,),
        )
        return await cursor.fetchone()


async def inspection_lines(conn: Connection, inspection_id: UUID) -> list[InspectionLine]:
    """Return the work orders of a sample, each with the newest judgement."""
    async with conn.cursor(row_factory=class_row(InspectionLine)) as cursor:
        await cursor.execute(
            "SELECT w.id AS work_order, w.operator, w.kind, w.called_at, w.accurate FROM inspection_item i "
            "JOIN work_order w ON w.id = i.work_order_id WHERE i.inspection_id = %s ORDER BY i.position",
            (inspection_id,),
        )
        return await cursor.fetchall()


# Names of operators


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorRow:
    """The name behind a seat number, still sealed."""

    id: str
    site_id: str
    sealed: bytes
    key_id: UUID
    wrapped: bytes | None


async def operators(conn: Connection, operator: str | None = None) -> list[OperatorRow]:
    """Return the operators, or the one named, by seat number."""
    async with conn.cursor(row_factory=class_row(OperatorRow)) as cursor:
        await cursor.execute(
            "SELECT o.id, o.site_id, o.sealed, o.key_id, k.wrapped FROM operator o JOIN data_key k ON k.id = o.key_id "
            "WHERE %s::text IS NULL OR o.id = %s ORDER BY o.id",
            (operator, operator),
        )
        return await cursor.fetchall()


async def set_operator(conn: Connection, operator: str, *, site: str, sealed: bytes, key: UUID) -> None:
    """Store the name behind a seat number."""
    await conn.execute(
        "INSERT INTO operator (id, site_id, sealed, key_id) VALUES (%s, %s, %s, %s) ON CONFLICT (id) DO UPDATE "
        "SET site_id = excluded.site_id, sealed = excluded.sealed, key_id = excluded.key_id",
        (operator, site, sealed, key),
    )


async def drop_operator(conn: Connection, operator: str) -> bool:
    """Forget the name behind a seat number; False when there is none."""
    cursor = await conn.execute("DELETE FROM operator WHERE id = %s RETURNING id", (operator,))
    return await cursor.fetchone() is not None
