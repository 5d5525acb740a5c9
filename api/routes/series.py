"""The series of a terminal: where it was, how its battery and signal went."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query

from api.dependencies import Cursor, PoolDep, may
from gateway.domain.location import Coordinates, Datum
from gateway.service.access import Right
from gateway.service.read_series import read_curve, read_track
from schemas.case import Page
from schemas.series import CurveOut, CurvePointOut, GeoJsonOut, TrackPointOut
from schemas.units import PublicId, UtcDatetime

__all__ = ["router"]

router = APIRouter(prefix="/v1/terminals", tags=["terminals"])

_DAY = timedelta(days=1)
_MOST_POINTS = 2000

_Id = Annotated[PublicId, Path()]
_From = Annotated[UtcDatetime | None, Query(alias="from", description="Begin; null: a day before the end.")]
_Until = Annotated[UtcDatetime | None, Query(description="End, which is not included; null: now.")]
_Points = Annotated[int, Query(description="At most so many.", ge=1, le=_MOST_POINTS)]
_Every = Annotated[int | None, Query(ge=1, le=31_536_000, description="Only the first of each so many seconds.")]


def _span(begin: datetime | None, end: datetime | None) -> tuple[datetime, datetime]:
    end = end or datetime.now(UTC)
    return begin or end - _DAY, end


@router.get("/{terminal}/track", dependencies=[Depends(may(Right.READ_PERSONS))])
async def read_terminal_track(
    terminal: _Id,
    pool: PoolDep,
    begin: _From = None,
    until: _Until = None,
    every_s: _Every = None,
    cursor: Cursor = None,
    limit: _Points = 500,
) -> Page[TrackPointOut]:
    """Read where a terminal was, oldest first. That says where a person was: it takes the right to read of persons."""
    begin, end = _span(begin, until)
    every = None if every_s is None else timedelta(seconds=every_s)
    page = await read_track(pool, terminal, begin=begin, end=end, every=every, cursor=cursor, limit=limit)
    return Page(items=[TrackPointOut.model_validate(point) for point in page.items], cursor=page.cursor)


@router.get("/{terminal}/track.geojson", dependencies=[Depends(may(Right.READ_PERSONS))])
async def read_terminal_track_geojson(
    terminal: _Id, pool: PoolDep, begin: _From = None, until: _Until = None, every_s: _Every = None
) -> GeoJsonOut:
    """Read the same as a line on a map, in WGS-84; the property `cut_off` says that there are more points."""
    begin, end = _span(begin, until)
    every = None if every_s is None else timedelta(seconds=every_s)
    page = await read_track(pool, terminal, begin=begin, end=end, every=every, limit=_MOST_POINTS)
    places = [Coordinates(one.lat, one.lon, Datum(one.datum)).to(Datum.WGS84) for one in page.items]
    line = [[round(place.lon, 7), round(place.lat, 7)] for place in places]
    shape: dict[str, Any] | None = {"type": "LineString", "coordinates": line} if len(line) > 1 else None
    if len(line) == 1:
        shape = {"type": "Point", "coordinates": line[0]}
    times = [one.at.isoformat() for one in page.items]
    return GeoJsonOut(
        geometry=shape, properties={"terminal": terminal, "times": times, "cut_off": page.cursor is not None}
    )


@router.get("/{terminal}/heartbeats", dependencies=[Depends(may(Right.READ_TERMINALS))])
async def read_terminal_heartbeats(
    terminal: _Id,
    pool: PoolDep,
    begin: _From = None,
    until: _Until = None,
    every_s: Annotated[int, Query(ge=1, le=31_536_000, description="Length of a spell in seconds.")] = 3600,
) -> CurveOut:
    """Read how battery and signal of a terminal went, by spells."""
    begin, end = _span(begin, until)
    points = await read_curve(pool, terminal, begin=begin, end=end, every=timedelta(seconds=every_s))
    return CurveOut(items=[CurvePointOut.model_validate(point) for point in points])
