"""Whether the service lives, and whether it can take an alarm from the terminal to the people who help."""

import asyncio
from datetime import timedelta

import psycopg
from fastapi import APIRouter, Response

from api.dependencies import Parts, PartsDep
from gateway.store import findings, queries
from schemas.case import Health

__all__ = ["router"]

router = APIRouter(prefix="/health", tags=["health"])

_PATIENCE_S = 2.0
_AUDITOR_PATIENCE = timedelta(seconds=60)


@router.get("/live")
async def read_liveness() -> Health:
    """Say that this process answers. It says nothing about the rest."""
    return Health(ready=True, reasons=[])


@router.get("/ready", responses={503: {"model": Health, "description": "Not ready; the reasons say why."}})
async def read_readiness(parts: PartsDep, response: Response) -> Health:
    """Say whether an alarm pressed now would be heard: a gateway is there, connected to database and broker."""
    reasons = await _reasons(parts)
    response.status_code = 503 if reasons else 200
    return Health(ready=not reasons, reasons=reasons)


async def _reasons(parts: Parts) -> list[str]:
    try:
        async with asyncio.timeout(_PATIENCE_S), parts.pool.connection() as conn:
            alive, hearing = await queries.alarm_lanes(conn)
            silent = await findings.silent_for(conn)
    except psycopg.errors.UndefinedTable:
        return ["the database has no tables yet: run «onekey migrate»"]
    except (psycopg.OperationalError, psycopg.InterfaceError, TimeoutError):
        return ["the database does not answer"]
    reasons = []
    if alive == 0:
        reasons.append("no gateway was seen within 5 seconds")
    elif hearing == 0:
        reasons.append("no gateway hears alarms from the broker")
    if silent is not None and silent > _AUDITOR_PATIENCE:
        reasons.append(f"the auditor has been silent for {silent.total_seconds():.0f} s")
    if not parts.hub.connected:
        reasons.append("the stream does not hear of events")
    return reasons
