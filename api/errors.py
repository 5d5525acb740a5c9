"""From exceptions to problem documents (RFC 9457): one table, one form for everything that goes wrong."""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

import psycopg
import psycopg_pool
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from api import answer_page
from gateway.domain.case import DomainError, NotFound, StateConflict
from gateway.domain.figures import BadPeriod
from gateway.keyring import ErasedKey
from gateway.service.paging import BadCursor
from gateway.service.read_series import BadSpan
from schemas.case import Problem, ProblemField

__all__ = ["BadPosition", "Forbidden", "Unauthorized", "install"]

_MEDIA_TYPE = "application/problem+json"


class Unauthorized(Exception):
    """No key came along, or none that is valid."""


class Forbidden(Exception):
    """The key is valid, but it may not do this."""


class BadPosition(Exception):
    """Not a position of the stream."""


@dataclass(frozen=True, slots=True)
class _Kind:
    status: HTTPStatus
    name: str
    title: str
    headers: Mapping[str, str] | None = None
    detail: str | None = None
    """What to say instead of the text of the exception, which may be of no use to a client or tell too much."""


_AWAY = _Kind(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "unavailable",
    "Not available for the moment",
    {"Retry-After": "2"},
    "The database does not answer. Nothing was changed; try again.",
)

_TABLE: Mapping[type[Exception], _Kind] = {
    NotFound: _Kind(HTTPStatus.NOT_FOUND, "not-found", "Not found"),
    StateConflict: _Kind(HTTPStatus.CONFLICT, "conflict", "Does not fit the state"),
    BadCursor: _Kind(HTTPStatus.BAD_REQUEST, "bad-cursor", "Not a cursor"),
    BadSpan: _Kind(HTTPStatus.BAD_REQUEST, "bad-span", "Not a span of time"),
    BadPosition: _Kind(HTTPStatus.BAD_REQUEST, "bad-position", "Not a position of the stream"),
    BadPeriod: _Kind(HTTPStatus.UNPROCESSABLE_ENTITY, "bad-period", "Not a period"),
    DomainError: _Kind(HTTPStatus.CONFLICT, "refused", "Cannot be done"),
    ErasedKey: _Kind(HTTPStatus.GONE, "erased", "Erased for good", detail="What this was about was erased for good."),
    Unauthorized: _Kind(
        HTTPStatus.UNAUTHORIZED, "unauthorized", "No valid key", {"WWW-Authenticate": 'Bearer realm="onekey"'}
    ),
    Forbidden: _Kind(HTTPStatus.FORBIDDEN, "forbidden", "Not allowed"),
    psycopg.DataError: _Kind(
        HTTPStatus.UNPROCESSABLE_ENTITY, "invalid", "Not valid", detail="The database refuses one of the values."
    ),
    psycopg.OperationalError: _AWAY,
    psycopg.InterfaceError: _AWAY,
    psycopg_pool.PoolClosed: _AWAY,
    Exception: _Kind(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "internal",
        "A fault of the gateway",
        detail="This is a fault of the gateway; its log says more.",
    ),
}


def install(app: FastAPI) -> None:
    """Let every exception of `app` become a problem document."""
    for exception in _TABLE:
        app.add_exception_handler(exception, _from_table)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _of_framework)


def _from_table(request: Request, exc: Exception) -> Response:
    kind = next(_TABLE[known] for known in type(exc).__mro__ if known in _TABLE)
    return _respond(request, kind, kind.detail or str(exc) or None, kind.headers)


def _invalid(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, RequestValidationError)
    # Without the input: it may be personal, and it is the client's own.
    errors = [
        ProblemField(where=".".join(str(part) for part in error["loc"]), what=error["msg"]) for error in exc.errors()
    ]
    kind = _Kind(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid", "Not valid")
    return _respond(request, kind, "; ".join(f"{error.where}: {error.what}" for error in errors[:3]), errors=errors)


def _of_framework(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    status = HTTPStatus(exc.status_code)
    kind = _Kind(status, status.phrase.lower().replace(" ", "-"), status.phrase)
    detail = None if exc.detail == status.phrase else exc.detail
    return _respond(request, kind, detail, exc.headers)


def _respond(
    request: Request,
    kind: _Kind,
    detail: str | None,
    headers: Mapping[str, str] | None = None,
    errors: list[ProblemField] | None = None,
) -> Response:
    if request.url.path.startswith(answer_page.PREFIX):  # who stands there is a person with a phone
        return answer_page.failed(kind.status, request.headers.get("accept-language", ""), headers)
    problem = Problem(
        type=f"urn:onekey:problem:{kind.name}", title=kind.title, status=kind.status, detail=detail, errors=errors
    )
    return Response(problem.model_dump_json(exclude_none=True), kind.status, headers, _MEDIA_TYPE)
