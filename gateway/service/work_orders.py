"""Work orders: of calls without a terminal, and what operators and inspectors do with all of them (R18, R21, R28)."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from gateway.domain import keys
from gateway.domain.case import CaseState, NotFound, StateConflict
from gateway.domain.figures import BadPeriod, Period
from gateway.domain.kinds import CaseClass
from gateway.domain.privacy import Privacy
from gateway.domain.work_order import ALWAYS_REPLIED, RATINGS, Kind, is_satisfied, merged, reply_needed
from gateway.keyring import DataKey, ErasedKey, Keyring
from gateway.service import complaints
from gateway.service.case_work import Work, WorkingDay, locked
from gateway.service.desk import complete_task
from gateway.service.disclosures import disclose
from gateway.service.order_content import Content, name_of, open_content, record_now, tell, with_content
from gateway.service.paging import NOT_OURS, BadCursor, Page, page_of, read_cursor
from gateway.service.views import site_of
from gateway.store import procedures, work_orders
from gateway.store.directory import Directory, SiteView
from gateway.store.disclosures import Disclosure
from gateway.store.journal import Note
from gateway.store.pool import Connection, Pool
from gateway.store.work_orders import JudgementRow, OrderLine, OrderRow, OrderStep

__all__ = [
    "Change",
    "Judgement",
    "NewOrder",
    "Wanted",
    "WorkOrder",
    "create_order",
    "end_step",
    "erase_order",
    "every_order",
    "judge_order",
    "list_orders",
    "only_site",
    "rate_order",
    "read_order",
    "update_order",
]

_CLOCKS_APART = timedelta(minutes=1)
_PAGE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class NewOrder:
    """A call that came without a terminal. ``call`` is its name at the telephone system: the same call is one order."""

    call: str
    kind: Kind
    operator: str
    site: str | None = None
    district: str | None = None
    case: UUID | None = None
    person: str | None = None
    called_at: datetime | None = None
    reply_needed: bool | None = None
    content: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What an operator changes, having seen `version`.

    ``fields`` has those that are to change of ``kind``, ``operator``, ``reply_needed``, ``replied`` and ``completed``;
    ``content`` is a merge patch of what is sealed. A record of None is one that the journal writes again.
    """

    version: int
    by: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    content: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What an inspector found."""

    version: int
    accurate: bool
    inspector: str
    remarks: str | None
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkOrder:
    """A work order, opened. ``content`` is None once it was erased."""

    row: OrderRow
    content: Content | None
    due_at: datetime | None
    steps: list[OrderStep]
    judgements: list[Judgement]
    timezone: str
    locale: str


@dataclass(frozen=True, slots=True)
class _Held:
    """A work order under change: its row, and that of its case, are locked."""

    conn: Connection
    row: OrderRow
    site: SiteView
    work: Work | None
    content: Content | None


@asynccontextmanager
async def _held(pool: Pool, directory: Directory, order: UUID) -> AsyncIterator[_Held]:
    async with pool.connection() as conn, conn.transaction():
        found = await work_orders.case_of(conn, order)
        work = None if found is None or found[0] is None else await locked(conn, directory, found[0])
        row = await work_orders.lock(conn, order)
        if row is None:
            raise NotFound(f"There is no work order {order}.")
        site = await site_of(conn, directory, row.site_id)
        if work is not None and work.case.state == CaseState.CLOSED:  # a terminal may have closed it
            row = replace(row, over=True)
        yield _Held(conn, row, site, work, open_content(directory.keyring, row))
        if work is not None:
            await work.flush()


async def only_site(conn: Connection, directory: Directory, site: str | None) -> SiteView:
    """Return the site named, or the only one there is.

    Raises:
        NotFound: There is no such site.
        StateConflict: There are several, and none was named.
    """
    sites = {view.id: view for view in await directory.sites(conn)}
    if site is None and len(sites) > 1:
        raise StateConflict(f"Say which site: {', '.join(sites)}.")
    if not sites or (site is not None and site not in sites):
        raise NotFound(f"There is no site {site}." if site is not None else "No site is set up: apply a site file.")
    return next(iter(sites.values())) if site is None else sites[site]


# Making one


async def create_order(
    pool: Pool, directory: Directory, new: NewOrder, *, is_working_day: WorkingDay
) -> tuple[WorkOrder, bool]:
    """Make the work order of a call. The same call and kind again returns the one there is, and False.

    What is personal is sealed under the key of the case, or of the registered person, so that it goes when they are
    erased; else under a key of its own.

    Raises:
        NotFound: No such case, person or site.
        StateConflict: Several sites and none named; a call from the future; a reply refused where one is always needed.
        ErasedKey: The person was erased.
    """
    async with pool.connection() as conn, conn.transaction():
        work = None if new.case is None else await locked(conn, directory, new.case)
        site = await only_site(conn, directory, new.site) if work is None else work.around.site
        order = keys.call_order_id(site.id, call=new.call, kind=new.kind)
        made = await work_orders.by_id(conn, order) is None
        if made:
            row = await _new_row(conn, new, order, site, work)
            if new.kind is Kind.COMPLAINT:
                row = await complaints.started(
                    conn, row, work, since=row.called_at, by=new.operator, is_working_day=is_working_day
                )
            key, content = await _sealing(conn, directory, new, row, site, work)
            row = with_content(row, content, key=key)
            made = await work_orders.add(conn, row)  # else another request stored the same call meanwhile
        if made:
            _journal(work, "created", row, {"kind": row.kind, "missing": row.missing}, by=row.operator)
            await tell(conn, "created", row)
            await complaints.advance_in(conn, directory, row, is_working_day=is_working_day)
        if work is not None:
            await work.flush()
    return await read_order(pool, directory, order), made


async def _new_row(conn: Connection, new: NewOrder, order: UUID, site: SiteView, work: Work | None) -> OrderRow:
    now = await procedures.the_time(conn)
    called_at = new.called_at or now
    if called_at > now + _CLOCKS_APART:
        raise StateConflict("The call is said to have come in the future.")
    return OrderRow(
        id=order,
        site_id=site.id,
        district=new.district or (site.district if work is None else work.case.district),
        case_id=new.case,
        origin="call",
        kind=new.kind,
        operator=new.operator,
        called_at=called_at,
        reply_needed=_reply_needed(new.kind, new.reply_needed),
        edited="record" in new.content,
        over=True,
        key_id=site.key.id,
        created_at=now,
        updated_at=now,
    )


def _reply_needed(kind: Kind, said: bool | None) -> bool | None:  # noqa: FBT001 # as the domain has it
    try:
        return reply_needed(kind, said=said)
    except ValueError as exc:
        raise StateConflict(str(exc)) from exc


async def _sealing(
    conn: Connection, directory: Directory, new: NewOrder, row: OrderRow, site: SiteView, work: Work | None
) -> tuple[DataKey, Content]:
    """Return the key that a new work order is sealed under, and what it says with what the directory knows."""
    keyring = directory.keyring
    known: Content = {"operator_name": await name_of(conn, keyring, new.operator)}
    if new.person is not None:
        record = await work_orders.person(conn, new.person, site=site.id)
        if record is None:
            raise NotFound(f"There is no person {new.person}.")
        key = keyring.unwrap(record[1], record[2])
        person = directory.person(new.person, record[0], key)
        today = row.called_at.astimezone(ZoneInfo(site.timezone)).date()
        known["person"] = {"name": person.name, "age": person.age(today), "phone": person.phone}
    if work is not None:
        key = work.around.key
    elif new.person is None:
        fresh, wrapped = keyring.new_key()
        key = keyring.unwrap(*await work_orders.add_key(conn, fresh, wrapped, subject=f"work_order:{row.id}"))
    return key, merged(merged({}, known), new.content)


def _journal(work: Work | None, what: str, row: OrderRow, data: Mapping[str, object], *, by: str | None) -> None:
    """Journal what happened to a work order, where it belongs to a case."""
    if work is not None:
        told = {"work_order": str(row.id), "version": row.version, **data}
        actor = "gateway" if by is None else f"operator:{by}"
        work.journal.add(Note(f"work_order.{what}", told, actor=actor), at=work.now)


# Changing one


async def update_order(
    pool: Pool, directory: Directory, order: UUID, change: Change, *, is_working_day: WorkingDay
) -> WorkOrder:
    """Change a work order. What says nothing new changes nothing, whatever version was seen: a repeat is harmless.

    Raises:
        NotFound: No such work order.
        StateConflict: Somebody else changed it since the version that was seen; or the change does not fit its kind.
        ErasedKey: What it said was erased.
    """
    async with _held(pool, directory, order) as held:
        content = _changed_content(held, change)
        row = await _changed_row(held, change, content, directory)
        if row == held.row and content == (held.content or {}):
            return await _whole(held.conn, directory, held.row)
        if held.row.version != change.version:
            raise StateConflict(
                f"The work order was changed meanwhile: it is at version {held.row.version}, and {change.version} was "
                "seen. Read it again, then change it."
            )
        if row.kind == Kind.COMPLAINT != held.row.kind:
            now = await procedures.the_time(held.conn)
            by = change.by or row.operator or "operator"
            row = await complaints.started(held.conn, row, held.work, since=now, by=by, is_working_day=is_working_day)
        if held.content is not None:
            row = with_content(row, content, key=directory.keyring.unwrap(row.key_id, row.wrapped))
        saved = await work_orders.save(held.conn, row)
        await complaints.advance_in(held.conn, directory, saved, is_working_day=is_working_day)
        told = {"changes": {**change.fields, **change.content}}
        _journal(held.work, "updated", saved, told, by=change.by or row.operator)
        await tell(held.conn, "updated", saved, fields=sorted({*change.fields, *change.content}))
        return await _whole(held.conn, directory, saved)


def _changed_content(held: _Held, change: Change) -> Content:
    if held.content is None:
        if change.content or set(change.fields) - {"completed", "replied"}:
            raise ErasedKey(f"the content of work order {held.row.id} was erased")
        return {}
    return merged(held.content, change.content)


async def _changed_row(held: _Held, change: Change, content: Content, directory: Directory) -> OrderRow:
    """Return the row as it is to stand, and complete `content` by what follows from the change."""
    row, wanted = held.row, change.fields
    now = await procedures.the_time(held.conn)
    kind = Kind(wanted.get("kind") or row.kind)
    _refuse_kind(held, kind)
    said = wanted.get("reply_needed", None if kind in ALWAYS_REPLIED else row.reply_needed)
    row = replace(row, kind=kind.value, reply_needed=_reply_needed(kind, said))
    operator = wanted.get("operator")
    if operator is not None and operator != row.operator:
        row = replace(row, operator=operator)
        if "operator_name" not in change.content:
            content["operator_name"] = await name_of(held.conn, directory.keyring, operator)
    if "replied" in wanted:
        row = replace(row, replied_at=(row.replied_at or now) if wanted["replied"] else None)
    if "completed" in wanted and bool(wanted["completed"]) != (row.completed_at is not None):
        done = bool(wanted["completed"])
        if done and not row.over:
            raise StateConflict("The case goes on; its work order is completed after it is closed.")
        by = change.by or row.operator or "operator"
        row = replace(row, completed_at=now if done else None, completed_by=by if done else None)
    if "record" in change.content:
        row = replace(row, edited=change.content["record"] is not None)
    if not row.edited and row.origin == "case" and held.content is not None and held.work is not None:
        content["record"] = await record_now(held.conn, directory.keyring, held.work.case, site=held.site)
    return row


def _refuse_kind(held: _Held, kind: Kind) -> None:
    before = held.row.kind
    if kind == before:
        return
    emergency = held.work is not None and held.work.case.case_class == CaseClass.EMERGENCY
    if held.row.origin == "case" and emergency:
        raise StateConflict("The work order of an emergency is one of emergency rescue and stays so.")
    if before == Kind.COMPLAINT:
        raise StateConflict("The procedure of the complaint runs; a complaint stays one to its end.")


async def rate_order(
    pool: Pool,
    directory: Directory,
    order: UUID,
    *,
    rating: str | None,
    asked_by: str,
    comment: str | None,
) -> WorkOrder:
    """Record how satisfied the client is; None: they were asked, and gave no answer. The same changes nothing.

    Raises:
        NotFound: No such work order.
        ErasedKey: There is a comment, and what the work order said was erased.
    """
    async with _held(pool, directory, order) as held:
        row, content = held.row, held.content
        step = row.rating if rating is None else RATINGS.index(rating) + 1
        if content is None and comment is not None:
            raise ErasedKey(f"the content of work order {order} was erased")
        said = None if content is None else merged(content, {"rating_comment": comment} if comment else {})
        if row.rating_asked_by == asked_by and row.rating == step and said == content:
            return await _whole(held.conn, directory, row)
        now = await procedures.the_time(held.conn)
        row = replace(row, rating=step, rating_asked_at=now, rating_asked_by=asked_by)
        if said is not None:
            row = with_content(row, said, key=directory.keyring.unwrap(row.key_id, row.wrapped))
        saved = await work_orders.save(held.conn, row)
        told = {
            "rating": None if step is None else RATINGS[step - 1],
            "satisfied": None if step is None else is_satisfied(step),
            "asked_by": asked_by,
        }
        _journal(held.work, "rated", saved, told, by=asked_by)
        await tell(held.conn, "rated", saved, **told)
        return await _whole(held.conn, directory, saved)


async def judge_order(
    pool: Pool, directory: Directory, order: UUID, *, accurate: bool, inspector: str, remarks: str | None
) -> WorkOrder:
    """Record what an inspector found about a work order as it stands (R18). The newest judgement counts.

    Raises:
        NotFound: No such work order.
        StateConflict: What it is about goes on, so there is nothing to judge yet.
    """
    async with _held(pool, directory, order) as held:
        row = held.row
        if not row.over:
            raise StateConflict("The case goes on; a work order is judged after it is closed.")
        judgements = await work_orders.judgements_of(held.conn, [row.id])
        known = [_judgement(directory.keyring, one) for one in judgements]
        if known and known[-1].version == row.version - 1 and _said(known[-1]) == (accurate, inspector, remarks):
            return await _whole(held.conn, directory, row)  # nothing but this judgement happened since
        key = held.site.key if row.wrapped is None else directory.keyring.unwrap(row.key_id, row.wrapped)
        sealed = key.seal({"remarks": remarks}, about=f"judgement {row.id} {row.version}")
        await work_orders.add_judgement(
            held.conn,
            row.id,
            version=row.version,
            accurate=accurate,
            inspector=inspector,
            sealed=sealed,
            key=key.id,
        )
        saved = await work_orders.save(held.conn, replace(row, accurate=accurate))
        told = {"accurate": accurate, "inspector": inspector}
        _journal(held.work, "inspected", saved, told, by=inspector)
        await tell(held.conn, "inspected", saved, **told)
        return await _whole(held.conn, directory, saved)


def _said(judgement: Judgement) -> tuple[bool, str, str | None]:
    return judgement.accurate, judgement.inspector, judgement.remarks


async def end_step(
    pool: Pool,
    directory: Directory,
    order: UUID,
    step: str,
    *,
    result: str,
    by: str,
    note: str | None,
    is_working_day: WorkingDay,
) -> WorkOrder:
    """Record how a step of a complaint ended, wherever its procedure runs. The same result again changes nothing.

    Raises:
        NotFound: No such work order, or no such step that has begun.
        StateConflict: The step is over, or does not end with this result.
        ErasedKey: There is a note, and what the work order said was erased.
    """
    async with pool.connection() as conn:
        row = await work_orders.by_id(conn, order)
        if row is None:
            raise NotFound(f"There is no work order {order}.")
        tasks = {one.name: one.id for one in await work_orders.steps_of(conn, [row.id])}
    if step not in tasks:
        raise NotFound(f"There is no step {step} of this work order that has begun.")
    if row.run_id is not None:
        task = tasks[step]
        await complete_task(pool, directory, task, result=result, by=by, note=note, is_working_day=is_working_day)
        return await read_order(pool, directory, order)
    async with _held(pool, directory, order) as held:
        ended = await complaints.end_own_step(
            held.conn, directory, held.row, step, result=result, by=by, is_working_day=is_working_day
        )
        saved = held.row
        if ended and note is not None:
            if held.content is None:
                raise ErasedKey(f"the content of work order {order} was erased")
            content = merged(held.content, {"notes": {step: note}})
            key = directory.keyring.unwrap(held.row.key_id, held.row.wrapped)
            saved = await work_orders.save(held.conn, with_content(held.row, content, key=key))
        if ended:
            told = {"step": step, "result": result}
            _journal(held.work, "updated", saved, told, by=by)
            await tell(held.conn, "updated", saved, **told)
        return await _whole(held.conn, directory, saved)


async def erase_order(pool: Pool, directory: Directory, order: UUID, *, by: str) -> None:
    """Erase what the work order of a call says. One that hangs on a person or a case goes with these.

    Raises:
        NotFound: No such work order.
        StateConflict: Its key is that of a person or of a case.
    """
    async with _held(pool, directory, order) as held:
        if held.row.wrapped is None:
            return
        subject = await work_orders.key_subject(held.conn, held.row.key_id)
        if subject != f"work_order:{order}":
            raise StateConflict(f"What this work order says goes with {subject}: erase that.")
        await work_orders.erase(held.conn, held.row.key_id)
        await tell(held.conn, "erased", held.row, by=by)


# Reading


def _judgement(keyring: Keyring, row: JudgementRow) -> Judgement:
    try:
        record: Any = keyring.unwrap(row.key_id, row.wrapped).open(
            bytes(row.sealed), about=f"judgement {row.order_id} {row.version}"
        )
    except ErasedKey:
        record = {"remarks": None}
    return Judgement(
        version=row.version,
        accurate=row.accurate,
        inspector=row.inspector,
        remarks=record["remarks"],
        at=row.at,
    )


async def _opened(conn: Connection, directory: Directory, rows: Sequence[OrderRow]) -> list[WorkOrder]:
    """Open work orders: as many questions for a page of them as for one."""
    ids = [row.id for row in rows]
    sites = {site: await site_of(conn, directory, site) for site in {row.site_id for row in rows}}
    due = await work_orders.next_deadlines(conn, ids)
    steps = await work_orders.steps_of(conn, ids)
    judgements = await work_orders.judgements_of(conn, ids)
    return [
        WorkOrder(
            row=row,
            content=open_content(directory.keyring, row),
            due_at=due.get(row.id),
            steps=[step for step in steps if step.order_id == row.id],
            judgements=[_judgement(directory.keyring, one) for one in judgements if one.order_id == row.id],
            timezone=sites[row.site_id].timezone,
            locale=sites[row.site_id].locale,
        )
        for row in rows
    ]


async def _whole(conn: Connection, directory: Directory, row: OrderRow) -> WorkOrder:
    (order,) = await _opened(conn, directory, [row])
    return order


async def read_order(pool: Pool, directory: Directory, order: UUID, *, by: str | None = None) -> WorkOrder:
    """Return a work order with everything it says, to be shown to `by` (R22).

    Raises:
        NotFound: No such work order.
    """
    async with pool.connection() as conn:
        row = await work_orders.by_id(conn, order)
        if row is None:
            raise NotFound(f"There is no work order {order}.")
        whole = await _whole(conn, directory, row)
    await _disclose(pool, directory, whole, by=by)
    return whole


async def _disclose(pool: Pool, directory: Directory, order: WorkOrder, *, by: str | None) -> None:
    """Let the journal of a case say who is about to see what its work order says."""
    case = order.row.case_id
    if by is not None and case is not None and order.content is not None:
        one = Disclosure(case_id=case, who=by, what="work_order", level=Privacy.FULL)
        await disclose(pool, directory, one)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which work orders a list shows; days are those of the site, the last one included."""

    operator: str | None = None
    kind: str | None = None
    district: str | None = None
    case: UUID | None = None
    open_only: bool = False
    overdue: bool = False
    first: date | None = None
    last: date | None = None


async def list_orders(
    pool: Pool, directory: Directory, wanted: Wanted, *, cursor: str | None = None, limit: int = 50
) -> Page[OrderLine]:
    """Return work orders by the time of the call, newest first; lines hold nothing personal.

    Raises:
        BadCursor: Not a cursor of ours.
        BadPeriod: The last day is before the first.
    """
    async with pool.connection() as conn:
        since, until = await _bounds(conn, directory, wanted)
        lines = await work_orders.page(
            conn,
            operator=wanted.operator,
            kind=wanted.kind,
            district=wanted.district,
            case=wanted.case,
            open_only=wanted.open_only,
            overdue=wanted.overdue,
            since=since,
            until=until,
            before=_place(cursor),
            limit=limit + 1,
        )
    return page_of(lines, limit, lambda line: f"{line.called_at.isoformat()}|{line.id}")


def _place(cursor: str | None) -> tuple[datetime, UUID] | None:
    text = read_cursor(cursor)
    if text is None:
        return None
    at, _, name = text.partition("|")
    try:
        return datetime.fromisoformat(at), UUID(name)
    except ValueError as exc:
        raise BadCursor(NOT_OURS) from exc


async def _bounds(conn: Connection, directory: Directory, wanted: Wanted) -> tuple[datetime | None, datetime | None]:
    if wanted.first is None and wanted.last is None:
        return None, None
    if wanted.first is not None and wanted.last is not None and wanted.last < wanted.first:
        raise BadPeriod(f"The period ends on {wanted.last}, before it begins on {wanted.first}: swap the two days.")
    sites = await directory.sites(conn)
    timezone = sites[0].timezone if sites else "UTC"
    return (
        None if wanted.first is None else Period(wanted.first, wanted.first).bounds(timezone)[0],
        None if wanted.last is None else Period(wanted.last, wanted.last).bounds(timezone)[1],
    )


async def every_order(pool: Pool, directory: Directory, wanted: Wanted, *, by: str) -> AsyncIterator[WorkOrder]:
    """Yield every work order of a list, newest first, to be shown to `by` (R22). Nothing is held while one is taken."""
    cursor: str | None = None
    while True:
        page = await list_orders(pool, directory, wanted, cursor=cursor, limit=_PAGE)
        async with pool.connection() as conn:
            rows = await work_orders.by_ids(conn, [line.id for line in page.items])
            orders = await _opened(conn, directory, rows)
        for order in orders:
            await _disclose(pool, directory, order, by=by)
            yield order
        cursor = page.cursor
        if cursor is None:
            return
