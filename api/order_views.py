"""From work orders and figures to what clients receive."""

from gateway.domain.figures import FigureLine, Share, Tally, figure_line, waits_of
from gateway.domain.work_order import RATINGS, is_satisfied
from gateway.service.figures import FiguresOf
from gateway.service.inspections import Inspection
from gateway.service.work_orders import WorkOrder
from gateway.store.work_orders import OrderLine, OrderRow
from schemas.figures import (
    BreachOut,
    FigureLineOut,
    FiguresOut,
    NamedLineOut,
    ShareOut,
    WaitsOut,
    WorstCaseOut,
)
from schemas.work_order import (
    InspectionLineOut,
    InspectionOut,
    JudgementOut,
    OrderLineOut,
    OrderOut,
    OrderStepOut,
)

__all__ = ["figures_out", "inspection_out", "order_line_out", "order_out"]


def order_line_out(line: OrderLine) -> OrderLineOut:
    """Return a work order as lists show it."""
    return OrderLineOut.model_validate(_head(line) | {"due_at": line.due_at})


def _head(row: OrderLine | OrderRow) -> dict[str, object]:
    names = [name for name in OrderLineOut.model_fields if name not in ("rating", "due_at")]
    rating = None if row.rating is None else RATINGS[row.rating - 1]
    return {name: getattr(row, name) for name in names} | {"rating": rating}


def order_out(order: WorkOrder) -> OrderOut:
    """Return a whole work order."""
    row, content = order.row, order.content or {}
    notes = content.get("notes", {})
    said = {
        name: content.get(name) or None
        for name in ("number", "operator_name", "person", "institution", "record", "referral", "complaint")
    }
    return OrderOut.model_validate(
        _head(row)
        | said
        | {
            "due_at": order.due_at,
            "erased": order.content is None,
            "record_edited": row.edited,
            "replied_at": row.replied_at,
            "rating_asked_by": row.rating_asked_by,
            "rating_asked_at": row.rating_asked_at,
            "rating_comment": content.get("rating_comment"),
            "satisfied": None if row.rating is None else is_satisfied(row.rating),
            "steps": [
                OrderStepOut.model_validate(step).model_copy(update={"note": notes.get(step.name)})
                for step in order.steps
            ],
            "judgements": [JudgementOut.model_validate(judgement) for judgement in order.judgements],
            "timezone": order.timezone,
            "created_at": row.created_at,
            "updated_at": row.updated_at,
            "completed_by": row.completed_by,
        }
    )


def inspection_out(inspection: Inspection) -> InspectionOut:
    """Return a sample with what was found so far."""
    row, lines = inspection.row, inspection.lines
    heads = {name: getattr(row, name) for name in InspectionOut.model_fields if hasattr(row, name)}
    return InspectionOut.model_validate(
        heads
        | {
            "judged": sum(line.accurate is not None for line in lines),
            "accurate": sum(line.accurate is True for line in lines),
            "items": [InspectionLineOut.model_validate(line) for line in lines],
        }
    )


def figures_out(figures: FiguresOf, *, district: str | None, operator: str | None) -> FiguresOut:
    """Return what was counted in a period."""
    whole = figures.total
    breaches = sorted(whole.breaches.items(), key=lambda item: (-item[1], item[0]))
    return FiguresOut(
        first_day=figures.period.first,
        last_day=figures.period.last,
        timezone=figures.timezone,
        district=district,
        operator=operator,
        total=FigureLineOut.model_validate(_line(figure_line(whole))),
        operators=[_named(tally.operator, tally) for tally in figures.operators],
        districts=[_named(tally.district, tally) for tally in figures.districts],
        first_human=WaitsOut.model_validate(waits_of(whole)),
        worst=[
            WorstCaseOut(
                case_id=case.case_id,
                district=case.district,
                operator=case.operator,
                received_at=case.received_at,
                wait_s=None if case.wait_s is None else round(case.wait_s, 3),
                link=f"/v1/cases/{case.case_id}",
            )
            for case in figures.worst
        ],
        false_alarms=dict(sorted(whole.false_alarms.items(), key=lambda item: (-item[1], item[0]))),
        breaches=[BreachOut(procedure=name[0], step=name[1], late=late) for name, late in breaches],
    )


def _named(name: str | None, tally: Tally) -> NamedLineOut:
    return NamedLineOut.model_validate({"name": name, **_line(figure_line(tally))})


def _line(line: FigureLine) -> dict[str, object]:
    return {
        "emergencies": line.emergencies,
        "orders": line.orders,
        **{name: _share(share) for name, share in line.shares().items()},
    }


def _share(share: Share) -> ShareOut:
    return ShareOut(count=share.count, of=share.of, share=share.share, bar=share.bar, met=share.met)
