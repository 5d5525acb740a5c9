"""The directory: who is told, who is protected, where, and by which terminals."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response

from api import views
from api.dependencies import Cursor, DirectoryDep, District, Limit, PoolDep, may
from gateway.service import case_reading
from gateway.service.access import Principal, Right
from gateway.service.persons import erase_person as erase
from gateway.service.test_windows import open_window
from schemas.case import HouseholdOut, Page, PartyOut, PersonOut, TerminalOut, TestWindowIn, TestWindowOut
from schemas.units import PublicId

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["directory"])

_Id = Annotated[PublicId, Path()]
_Persons = Depends(may(Right.READ_PERSONS))


@router.get("/parties", dependencies=[Depends(may(Right.READ_PARTIES))])
async def list_parties(
    pool: PoolDep,
    directory: DirectoryDep,
    district: District = None,
    role: Annotated[str | None, Query(pattern="^[a-z][a-z0-9_]{0,63}$", examples=["guardian"])] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[PartyOut]:
    """List parties by id. Secrets and addresses of their channels are never shown."""
    page = await case_reading.list_parties(pool, directory, district=district, role=role, cursor=cursor, limit=limit)
    return Page(items=[PartyOut.model_validate(party) for party in page.items], cursor=page.cursor)


@router.get("/persons", dependencies=[_Persons])
async def list_persons(
    pool: PoolDep,
    directory: DirectoryDep,
    district: District = None,
    household: PublicId | None = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[PersonOut]:
    """List protected persons by id."""
    page = await case_reading.list_persons(
        pool, directory, district=district, household=household, cursor=cursor, limit=limit
    )
    return Page(items=[views.person_record_out(record) for record in page.items], cursor=page.cursor)


@router.post("/persons/{person}/erasure", status_code=204, response_class=Response)
async def erase_person(
    person: _Id,
    pool: PoolDep,
    directory: DirectoryDep,
    who: Annotated[Principal, Depends(may(Right.ERASE_PERSONS))],
) -> Response:
    """Erase a person for good: the record and what the journals say of them. The chains stay whole."""
    await erase(pool, directory.keyring, person, by=f"api:{who.id}")
    return Response(status_code=204)


@router.get("/households", dependencies=[_Persons])
async def list_households(
    pool: PoolDep, directory: DirectoryDep, district: District = None, cursor: Cursor = None, limit: Limit = 50
) -> Page[HouseholdOut]:
    """List households by id."""
    page = await case_reading.list_households(pool, directory, district=district, cursor=cursor, limit=limit)
    return Page(items=[views.household_out(record) for record in page.items], cursor=page.cursor)


@router.get("/terminals", dependencies=[Depends(may(Right.READ_TERMINALS))])
async def list_terminals(
    pool: PoolDep,
    district: District = None,
    household: PublicId | None = None,
    silent_s: Annotated[
        int | None, Query(ge=0, le=31_536_000, description="Only those from which nothing came for so many seconds.")
    ] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[TerminalOut]:
    """List terminals by id, each with its newest state."""
    page = await case_reading.list_terminals(
        pool,
        district=district,
        household=household,
        silent_for=None if silent_s is None else timedelta(seconds=silent_s),
        cursor=cursor,
        limit=limit,
    )
    return Page(items=[TerminalOut.model_validate(line) for line in page.items], cursor=page.cursor)


@router.post("/terminals/{terminal}/test-windows", status_code=201)
async def open_test_window(
    terminal: _Id, body: TestWindowIn, pool: PoolDep, who: Annotated[Principal, Depends(may(Right.OPEN_TEST_WINDOWS))]
) -> TestWindowOut:
    """Believe the test flag of a terminal for some minutes. A press without the flag stays real."""
    closes_at = await open_window(pool, terminal, minutes=body.minutes, reason=body.reason, by=f"api:{who.id}")
    return TestWindowOut(terminal=terminal, closes_at=closes_at)
