"""Cases (警情): reading them, owning them, confirming safety, closing them."""

import asyncio
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Query, Response

from api import views
from api.dependencies import Cursor, DirectoryDep, District, Limit, Parts, PartsDep, PoolDep, WorkdaysDep, may
from gateway.domain.case import OPERATOR, Fact
from gateway.report.compose import compose_report, proof_out
from gateway.report.pdf import render_pdf
from gateway.service import case_commands, case_reading, desk
from gateway.service.access import Principal, Right
from gateway.service.case_report import read_report
from gateway.service.proof import read_proof
from gateway.service.run_procedures import start_procedure as start
from gateway.service.upgrade import upgrade_case
from schemas.case import (
    AcknowledgeIn,
    CaseClass,
    CaseHeadOut,
    CaseLineOut,
    CaseOut,
    CaseState,
    ClosureIn,
    Page,
    SafetyIn,
)
from schemas.desk import EmergencyIn, EmergencyOut, FactIn, HandOverIn, ProcedureIn, SeatBIn
from schemas.proof import ProofOut
from schemas.report import ReportOut
from schemas.units import PublicId

__all__ = ["router"]

router = APIRouter(prefix="/v1/cases", tags=["cases"])

_Reader = Depends(may(Right.READ_CASES))
_Viewer = Annotated[Principal, Depends(may(Right.READ_CASES))]
_Handler = Annotated[Principal, Depends(may(Right.HANDLE_CASES))]


@router.get("", dependencies=[_Reader])
async def list_cases(
    pool: PoolDep,
    state: CaseState | None = None,
    case_class: Annotated[CaseClass | None, Query(alias="class")] = None,
    district: District = None,
    household: PublicId | None = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[CaseLineOut]:
    """List cases, newest first."""
    page = await case_reading.list_cases(
        pool,
        state=state,
        case_class=case_class,
        district=district,
        household=household,
        cursor=cursor,
        limit=limit,
    )
    return Page(items=[CaseLineOut.model_validate(line) for line in page.items], cursor=page.cursor)


@router.get("/{case_id}")
async def read_case(case_id: UUID, pool: PoolDep, directory: DirectoryDep, who: _Viewer) -> CaseOut:
    """Read one case with everything: people, place, presses, every message and answer, and the journal."""
    return views.case_out(await case_reading.read_case(pool, directory, case_id, by=f"api:{who.id}"))


@router.get("/{case_id}/proof", dependencies=[_Reader])
async def prove_case(case_id: UUID, pool: PoolDep, directory: DirectoryDep) -> ProofOut:
    """Verify the journal of a case against itself and against every checkpoint in the database that names it.

    Hold ``checkpoint.line`` against a copy of your own: whoever can change the whole database cannot change that.
    """
    proof, evidence = await read_proof(pool, directory.keyring, case_id)
    return proof_out(proof, evidence.flaws)


@router.get("/{case_id}/report", responses={200: {"content": {"application/pdf": {}}}})
async def report_case(
    case_id: UUID,
    parts: PartsDep,
    who: _Viewer,
    accept: Annotated[str, Header(description="application/pdf: as a document.")] = "application/json",
) -> ReportOut:
    """Read the rescue report of a case, in the language of its site. That you did is in its journal."""
    report = compose_report(await read_report(parts.pool, parts.directory, case_id, by=f"api:{who.id}"))
    if "application/pdf" in accept:
        return await _as_pdf(report, parts)  # type: ignore[return-value]  # a response goes out as it is
    return report


@router.get("/{case_id}/report.pdf", response_class=Response, responses={200: {"content": {"application/pdf": {}}}})
async def report_case_as_pdf(case_id: UUID, parts: PartsDep, who: _Viewer) -> Response:
    """Read the rescue report of a case as a document (A4). That you did is in its journal."""
    report = compose_report(await read_report(parts.pool, parts.directory, case_id, by=f"api:{who.id}"))
    return await _as_pdf(report, parts)


async def _as_pdf(report: ReportOut, parts: Parts) -> Response:
    document = await asyncio.to_thread(render_pdf, report, font=parts.report_font)
    headers = {"Content-Disposition": f'inline; filename="report-{report.case}.pdf"', "Cache-Control": "no-store"}
    return Response(document, media_type="application/pdf", headers=headers)


@router.post("/{case_id}/acknowledgement")
async def acknowledge_case(
    case_id: UUID, body: AcknowledgeIn, pool: PoolDep, directory: DirectoryDep, who: _Handler
) -> CaseHeadOut:
    """Own a case. Asking again with the same operator changes nothing; another operator is refused."""
    case = await case_commands.acknowledge_case(pool, directory, case_id, operator=body.operator, via=f"api:{who.id}")
    return CaseHeadOut.model_validate(case)


@router.post("/{case_id}/safety")
async def confirm_safety(
    case_id: UUID, body: SafetyIn, pool: PoolDep, directory: DirectoryDep, who: _Handler
) -> CaseHeadOut:
    """Note that somebody confirmed that the person is safe. A case that is safe or closed already stays as it is."""
    case = await case_commands.mark_safe(
        pool, directory, case_id, by=body.by, urgency=body.urgency, via=f"api:{who.id}"
    )
    return CaseHeadOut.model_validate(case)


@router.post("/{case_id}/closure")
async def close_case(
    case_id: UUID, body: ClosureIn, pool: PoolDep, directory: DirectoryDep, who: _Handler
) -> CaseHeadOut:
    """Close a case: nothing more is sent for it but the word that it is over, to everybody who was told."""
    await case_commands.close_case(
        pool,
        directory,
        case_id,
        outcome=body.outcome,
        confirmed_by=body.confirmed_by,
        note=body.note,
        reason=body.reason,
        urgency=body.urgency,
        operator=body.operator,
        via=f"api:{who.id}",
    )
    return CaseHeadOut.model_validate(await case_reading.read_line(pool, case_id))


@router.post("/{case_id}/facts")
async def state_fact(
    case_id: UUID, body: FactIn, pool: PoolDep, directory: DirectoryDep, workdays: WorkdaysDep, who: _Handler
) -> CaseHeadOut:
    """Say what is known of the rescue, and of whom. It ends the calls to that role, and to no other."""
    del who
    await desk.set_fact(
        pool,
        directory,
        case_id,
        Fact(body.fact),
        role=OPERATOR,
        about=body.about,
        by=body.operator,
        is_working_day=workdays.is_working_day,
    )
    return CaseHeadOut.model_validate(await case_reading.read_line(pool, case_id))


@router.post("/{case_id}/handover")
async def hand_over(
    case_id: UUID, body: HandOverIn, pool: PoolDep, directory: DirectoryDep, workdays: WorkdaysDep, who: _Handler
) -> CaseHeadOut:
    """Give a case to another operator; the first one stays responsible for its follow-up."""
    del who
    await desk.hand_over(
        pool,
        directory,
        case_id,
        by=body.operator,
        to=body.to,
        reason=body.reason,
        is_working_day=workdays.is_working_day,
    )
    return CaseHeadOut.model_validate(await case_reading.read_line(pool, case_id))


@router.post("/{case_id}/seat-b")
async def take_seat_b(
    case_id: UUID, body: SeatBIn, pool: PoolDep, directory: DirectoryDep, who: _Handler
) -> CaseHeadOut:
    """Say who stays with the person while the owner calls the helpers."""
    del who
    await desk.take_seat_b(pool, directory, case_id, operator=body.operator, by=body.by)
    return CaseHeadOut.model_validate(await case_reading.read_line(pool, case_id))


@router.post("/{case_id}/procedures")
async def start_procedure(
    case_id: UUID, body: ProcedureIn, pool: PoolDep, directory: DirectoryDep, workdays: WorkdaysDep, who: _Handler
) -> CaseHeadOut:
    """Start a further procedure, for example that of a complaint."""
    del who
    await start(pool, directory, case_id, body.procedure, by=body.operator, is_working_day=workdays.is_working_day)
    return CaseHeadOut.model_validate(await case_reading.read_line(pool, case_id))


@router.post("/{case_id}/emergency", status_code=201)
async def upgrade(
    case_id: UUID, body: EmergencyIn, pool: PoolDep, directory: DirectoryDep, who: _Handler
) -> EmergencyOut:
    """Make an emergency of a request: everybody of that plan is called at once."""
    del who
    now = datetime.now(UTC)
    emergency = await upgrade_case(pool, directory, case_id, kind=body.kind, by=body.operator, now=now)
    return EmergencyOut(case_id=emergency, previous=case_id)
