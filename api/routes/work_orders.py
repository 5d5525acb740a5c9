"""Work orders (工单): made from cases by themselves or of calls, completed, rated, inspected, exported and printed."""

from collections.abc import AsyncIterator
from datetime import date
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Response
from fastapi.responses import HTMLResponse, StreamingResponse

from api import order_page, order_words, sheets
from api import order_views as views
from api.dependencies import Cursor, DirectoryDep, District, Limit, Parts, PartsDep, PoolDep, WorkdaysDep, may
from gateway.domain.work_order import Kind
from gateway.service import inspections
from gateway.service import work_orders as commands
from gateway.service.access import Principal, Right
from gateway.service.work_orders import Change, NewOrder, Wanted, WorkOrder
from gateway.store import procedures
from schemas.case import Page
from schemas.rest import Who
from schemas.work_order import (
    InspectionIn,
    InspectionOut,
    JudgementIn,
    OrderKind,
    OrderLineOut,
    OrderOut,
    OrderPatch,
    RatingIn,
    StepResultIn,
    WorkOrderIn,
)

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["work orders"])

_Reader = Depends(may(Right.READ_WORK_ORDERS))
_Sees = Annotated[Principal, _Reader]
_Writer = Depends(may(Right.WRITE_WORK_ORDERS))
_Inspector = Depends(may(Right.INSPECT_WORK_ORDERS))
_Operator = Annotated[Who | None, Query(description="Only of this seat.", examples=["seat-7"])]
_Lang = Annotated[Literal["zh", "en"] | None, Query(description="Null: the language of the site.")]
_CONTENT = ("number", "operator_name", "person", "institution", "record", "referral", "complaint")
_FIELDS = ("kind", "operator", "reply_needed", "replied", "completed")


def _wanted(
    operator: _Operator = None,
    kind: OrderKind | None = None,
    district: District = None,
    case: Annotated[UUID | None, Query(description="Only of this case.")] = None,
    open: Annotated[bool, Query(description="Only those that are not completed.")] = False,  # noqa: A002, FBT002 # query
    overdue: Annotated[bool, Query(description="Only those with a deadline that is over.")] = False,  # noqa: FBT002
    first: Annotated[date | None, Query(alias="from", description="First day, of the site.")] = None,
    last: Annotated[date | None, Query(alias="to", description="Last day, included.")] = None,
) -> Wanted:
    return Wanted(
        operator=operator,
        kind=kind,
        district=district,
        case=case,
        open_only=open,
        overdue=overdue,
        first=first,
        last=last,
    )


_Which = Annotated[Wanted, Depends(_wanted)]


@router.get("/work-orders", dependencies=[_Reader])
async def list_work_orders(
    pool: PoolDep, directory: DirectoryDep, wanted: _Which, cursor: Cursor = None, limit: Limit = 50
) -> Page[OrderLineOut]:
    """List work orders by the time of the call, newest first. Lines hold nothing personal."""
    page = await commands.list_orders(pool, directory, wanted, cursor=cursor, limit=limit)
    return Page(items=[views.order_line_out(line) for line in page.items], cursor=page.cursor)


@router.post("/work-orders", status_code=201, dependencies=[_Writer])
async def create_work_order(
    body: WorkOrderIn, pool: PoolDep, directory: DirectoryDep, workdays: WorkdaysDep, response: Response
) -> OrderOut:
    """Make the work order of a call without a terminal; 200 when the call has one of this kind already.

    A complaint starts its procedure: in its case, or for the work order alone.
    """
    new = NewOrder(
        call=body.call,
        kind=Kind(body.kind),
        operator=body.operator,
        site=body.site,
        district=body.district,
        case=body.case,
        person=body.person_id,
        called_at=body.called_at,
        reply_needed=body.reply_needed,
        content=body.model_dump(mode="json", include=set(_CONTENT), exclude_none=True),
    )
    order, made = await commands.create_order(pool, directory, new, is_working_day=workdays.is_working_day)
    response.status_code = 201 if made else 200
    return views.order_out(order)


@router.get(
    "/work-orders/export",
    response_class=StreamingResponse,
    responses={
        200: {
            "content": {
                "text/csv": {"schema": {"type": "string"}},
                "application/json": {"schema": {"type": "array", "items": {"$ref": "#/components/schemas/OrderOut"}}},
            }
        }
    },
)
async def export_work_orders(
    parts: PartsDep,
    wanted: _Which,
    who: _Sees,
    format: Annotated[Literal["csv", "json"], Query(description="csv is UTF-8 with a byte order mark.")] = "csv",  # noqa: A002 # query
    lang: _Lang = None,
) -> Response:
    """Export work orders with everything they say, for a spreadsheet program or a machine.

    That you did is in the journals of their cases.
    """
    await commands.list_orders(parts.pool, parts.directory, wanted, limit=1)  # what is wrong is said before a 200
    language = await _language(parts, lang)
    orders = commands.every_order(parts.pool, parts.directory, wanted, by=f"api:{who.id}")
    name = f'attachment; filename="work-orders.{format}"'
    if format == "json":
        return StreamingResponse(_as_json(orders), media_type="application/json", headers={"Content-Disposition": name})
    media_type = "text/csv; charset=utf-8; header=present"
    return StreamingResponse(_as_csv(orders, language), media_type=media_type, headers={"Content-Disposition": name})


async def _language(parts: Parts, lang: str | None) -> str:
    async with parts.pool.connection() as conn:
        sites = await parts.directory.sites(conn)
    return order_words.language(lang, sites[0].locale if sites else "zh")


async def _as_json(orders: AsyncIterator[WorkOrder]) -> AsyncIterator[str]:
    separator = "["
    async for order in orders:
        yield separator + views.order_out(order).model_dump_json()
        separator = ",\n"
    yield "[]" if separator == "[" else "]\n"


async def _as_csv(orders: AsyncIterator[WorkOrder], lang: str) -> AsyncIterator[str]:
    for line in sheets.sheet([[order_words.WORDS[lang][name] for name in order_words.COLUMNS]]):
        yield line
    async for order in orders:
        _, line = sheets.sheet([order_words.row_of(views.order_out(order), lang=lang)])
        yield line


@router.get("/work-orders/{order}")
async def read_work_order(order: UUID, pool: PoolDep, directory: DirectoryDep, who: _Sees) -> OrderOut:
    """Read one work order with everything it says. That you did is in the journal of its case."""
    return views.order_out(await commands.read_order(pool, directory, order, by=f"api:{who.id}"))


@router.patch("/work-orders/{order}", dependencies=[_Writer])
async def change_work_order(
    order: UUID, body: OrderPatch, pool: PoolDep, directory: DirectoryDep, workdays: WorkdaysDep
) -> OrderOut:
    """Complete a work order, having seen a version of it. What says nothing new changes nothing."""
    said = body.model_dump(mode="json", exclude_unset=True)
    change = Change(
        version=body.version,
        by=body.by,
        fields={name: said[name] for name in _FIELDS if name in said},
        content={name: said[name] for name in _CONTENT if name in said},
    )
    return views.order_out(
        await commands.update_order(pool, directory, order, change, is_working_day=workdays.is_working_day)
    )


@router.post("/work-orders/{order}/rating", dependencies=[_Writer])
async def rate_work_order(order: UUID, body: RatingIn, pool: PoolDep, directory: DirectoryDep) -> OrderOut:
    """Record how satisfied the client is. A later rating replaces an earlier one; silence replaces none."""
    rated = await commands.rate_order(
        pool, directory, order, rating=body.rating, asked_by=body.asked_by, comment=body.comment
    )
    return views.order_out(rated)


@router.post("/work-orders/{order}/steps/{step}", dependencies=[_Writer])
async def end_work_order_step(
    order: UUID,
    step: Annotated[str, Path(pattern="^[a-z0-9][a-z0-9-]{0,63}$", examples=["settle"])],
    body: StepResultIn,
    pool: PoolDep,
    directory: DirectoryDep,
    workdays: WorkdaysDep,
) -> OrderOut:
    """Record how a step of a complaint ended. A result that leaves somebody dissatisfied takes it to the supervisor."""
    ended = await commands.end_step(
        pool,
        directory,
        order,
        step,
        result=body.result,
        by=body.by,
        note=body.note,
        is_working_day=workdays.is_working_day,
    )
    return views.order_out(ended)


@router.get(
    "/work-orders/{order}/page",
    response_class=HTMLResponse,
    responses={200: {"content": {"text/html": {"schema": {"type": "string"}}}}},
)
async def print_work_order(
    order: UUID, pool: PoolDep, directory: DirectoryDep, who: _Sees, lang: _Lang = None
) -> Response:
    """Show a work order in the form of table C.1, to be printed on A4."""
    found = await commands.read_order(pool, directory, order, by=f"api:{who.id}")
    async with pool.connection() as conn:
        now = await procedures.the_time(conn)
    text = order_page.document([views.order_out(found)], lang=order_words.language(lang, found.locale), now=now)
    return HTMLResponse(text, headers=order_page.HEADERS)


@router.post("/work-orders/{order}/judgement", dependencies=[_Inspector])
async def judge_work_order(order: UUID, body: JudgementIn, pool: PoolDep, directory: DirectoryDep) -> OrderOut:
    """Record whether an inspector found a work order accurate. The newest judgement counts."""
    judged = await commands.judge_order(
        pool, directory, order, accurate=body.accurate, inspector=body.inspector, remarks=body.remarks
    )
    return views.order_out(judged)


@router.post("/work-orders/{order}/erasure", status_code=204, response_class=Response)
async def erase_work_order(
    order: UUID,
    pool: PoolDep,
    directory: DirectoryDep,
    who: Annotated[Principal, Depends(may(Right.ERASE_WORK_ORDERS))],
) -> Response:
    """Erase what the work order of a call says, for good. Those of cases and of registered persons go with these."""
    await commands.erase_order(pool, directory, order, by=f"api:{who.id}")
    return Response(status_code=204)


@router.post("/inspections", status_code=201, dependencies=[_Inspector])
async def draw_inspection(body: InspectionIn, pool: PoolDep, directory: DirectoryDep) -> InspectionOut:
    """Draw a random sample of work orders per operator. The same question gives the sample there is."""
    drawn = await inspections.draw_inspection(
        pool,
        directory,
        seed=body.seed,
        first=body.first,
        last=body.last,
        per_operator=body.per_operator,
        district=body.district,
        operator=body.operator,
        site=body.site,
        by=body.by,
    )
    return views.inspection_out(drawn)


@router.get("/inspections/{inspection}", dependencies=[_Inspector])
async def read_inspection(inspection: UUID, pool: PoolDep) -> InspectionOut:
    """Read a sample with what was found in it so far."""
    return views.inspection_out(await inspections.read_inspection(pool, inspection))
