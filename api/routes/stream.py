"""The stream: every event in the order of the commits, without gaps, as Server-Sent Events."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

import anyio
import psycopg
from fastapi import APIRouter, Depends, Header, Query, Response
from sse_starlette import EventSourceResponse, ServerSentEvent

from api.dependencies import District, Parts, PartsDep, may
from api.errors import BadPosition
from gateway.domain.case import StateConflict
from gateway.service.access import Principal, Right, is_valid
from gateway.store import events
from gateway.store.events import Event

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["stream"])

_PAGE = 200
_RECHECK_S = 3.0
_HEARTBEAT_S = 15
_STUCK_S = 30.0

_EXAMPLE = """: from position 4711

id: 4712
event: case.opened
data: {"case":"0b0f3f0c-6a52-5f0e-8a55-3f1f0a6f2d11","at":"2026-11-22T06:31:05.123456+00:00","district":"320102",\
"class":"emergency","kinds":["sos"],"urgency":1,"test":false}

"""


@router.get(
    "/stream",
    response_class=EventSourceResponse,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}, "example": _EXAMPLE}}}},
)
async def read_stream(
    parts: PartsDep,
    who: Annotated[Principal, Depends(may(Right.READ_STREAM))],
    last_event_id: Annotated[
        str | None, Header(alias="Last-Event-ID", description="Position of the last event seen; resume behind it.")
    ] = None,
    after: Annotated[str | None, Query(description="The same for a first request.", examples=["4711"])] = None,
    district: District = None,
) -> Response:
    """Read what happens, from now on or from a position on.

    Every event has its position as ``id``, its kind as ``event``, and JSON with ``case``, ``at`` and ``district`` as
    ``data``; it holds nothing personal, so ask for the case. A comment comes every 15 seconds when nothing happens.
    """
    asked = last_event_id or after
    async with parts.pool.connection() as conn:
        newest = await events.last_position(conn)
    position = newest if asked is None else _position(asked)
    if position > newest:
        raise StateConflict(
            f"There is no position {position}, the newest is {newest}: the database is another one or was restored. "
            "Read the open cases and begin anew."
        )
    closing = anyio.Event()
    return EventSourceResponse(
        _events(parts, who, position, district, closing),
        shutdown_event=closing,
        shutdown_grace_period=1.0,
        ping=_HEARTBEAT_S,
        ping_message_factory=lambda: ServerSentEvent(comment="still here"),
        send_timeout=_STUCK_S,
    )


def _position(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise BadPosition("A position is a whole number, as the stream gave it in the id of an event.")
    return int(text)


async def _events(
    parts: Parts, who: Principal, position: int, district: str | None, closing: anyio.Event
) -> AsyncIterator[ServerSentEvent]:
    """Yield what comes after `position` until the client is gone, its key was revoked, or the server is `closing`.

    Each client reads for itself when it is ready for more, so a slow one holds up nobody. A database that is away
    is waited out: many clients of such streams do not come back after an error.
    """
    clock = asyncio.get_running_loop().time
    checked = clock()
    yield ServerSentEvent(comment=f"from position {position}", retry=2000)
    while not closing.is_set():
        pulse = parts.hub.pulse
        try:
            if clock() - checked >= _RECHECK_S:
                if not await is_valid(parts.pool, who.id):
                    return
                checked = clock()
            async with parts.pool.connection() as conn:
                page = await events.read_after(conn, position, district=district, limit=_PAGE)
        except psycopg.OperationalError:
            page = []
        for event in page:
            position = event.position
            yield ServerSentEvent(id=str(position), event=event.kind, data=json.dumps(_data(event), ensure_ascii=False))
        if len(page) < _PAGE:
            await _news(pulse, closing)


async def _news(pulse: asyncio.Event, closing: anyio.Event) -> None:
    """Wait until there may be more, until the server closes, or until it is time to look at the key again."""
    async with asyncio.TaskGroup() as tasks:
        waits = [tasks.create_task(pulse.wait(), name="news"), tasks.create_task(closing.wait(), name="closing")]
        await asyncio.wait(waits, timeout=_RECHECK_S, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()


def _data(event: Event) -> dict[str, Any]:
    case = None if event.case_id is None else str(event.case_id)
    return {"case": case, "at": event.at.isoformat(), "district": event.district, **event.data}
