"""What routes ask for: the database, the directory, and whoever holds the key."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Query, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.errors import Forbidden, Unauthorized
from api.hub import Hub
from gateway.service.access import Principal, Right, check_key
from gateway.service.workdays import Workdays
from gateway.store.directory import Directory
from gateway.store.pool import Pool
from schemas.units import PublicId

__all__ = [
    "Cursor",
    "DirectoryDep",
    "District",
    "Limit",
    "Parts",
    "PartsDep",
    "PoolDep",
    "WorkdaysDep",
    "any_key",
    "may",
]


@dataclass(frozen=True, slots=True)
class Parts:
    """What the service is made of."""

    pool: Pool
    directory: Directory
    hub: Hub
    workdays: Workdays
    report_font: Path | None = None


def _parts(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


PartsDep = Annotated[Parts, Depends(_parts)]


def _pool(parts: PartsDep) -> Pool:
    return parts.pool


def _directory(parts: PartsDep) -> Directory:
    return parts.directory


def _workdays(parts: PartsDep) -> Workdays:
    return parts.workdays


PoolDep = Annotated[Pool, Depends(_pool)]
WorkdaysDep = Annotated[Workdays, Depends(_workdays)]
DirectoryDep = Annotated[Directory, Depends(_directory)]

_BEARER = HTTPBearer(
    scheme_name="key", bearerFormat="okk_…", description="An API key, made with «onekey key create».", auto_error=False
)


async def any_key(
    request: Request, parts: PartsDep, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]
) -> Principal:
    """Return who holds the key of a request."""
    if credentials is None:
        raise Unauthorized("Send a key: Authorization: Bearer okk_…")
    principal = await check_key(parts.pool, parts.directory.keyring, credentials.credentials)
    if principal is None:
        raise Unauthorized("This key is unknown or was revoked.")
    request.state.key = principal.id
    return principal


def may(right: Right) -> Callable[[Principal], Awaitable[Principal]]:
    """Return the dependency that lets only keys with `right` pass."""

    async def allowed(principal: Annotated[Principal, Depends(any_key)]) -> Principal:
        if not principal.may(right):
            raise Forbidden(f"A key with the role {principal.role} may not {right}.")
        return principal

    return allowed


District = Annotated[PublicId | None, Query(description="Only this district.", examples=["320102"])]
Cursor = Annotated[str | None, Query(description="From the answer before this one.", max_length=200)]
Limit = Annotated[int, Query(description="At most so many.", ge=1, le=200)]
