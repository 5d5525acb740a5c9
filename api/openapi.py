"""The OpenAPI document: what FastAPI derives, with problems told in the form in which they are sent."""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from schemas.case import Problem, ProblemField

__all__ = ["document"]

_DESCRIPTION = """\
The REST side of the gateway between one-key emergency terminals and the people who help.

Every request needs an API key (`Authorization: Bearer okk_…`), except the health checks. Commands may be repeated
safely. What goes wrong is told as a problem document (RFC 9457). Answers may get more fields: ignore those that you
do not know; unknown fields in requests are refused.
"""

_TAGS = [
    {"name": "cases", "description": "Cases (警情): read, own, confirm safety, close, and answer for a party."},
    {"name": "journal", "description": "Signed checkpoints, by which everybody can prove what happened when."},
    {
        "name": "work orders",
        "description": "Work orders (工单, DB3201/T 1033-2021, appendix C), their inspection and export, operators.",
    },
    {"name": "figures", "description": "Response, duty, records and satisfaction of a period, against their bars."},
    {"name": "stream", "description": "What happens, as it happens."},
    {"name": "terminals", "description": "Where a terminal was, how its battery and signal went."},
    {"name": "directory", "description": "Who is told, who is protected, where, and by which terminals."},
    {"name": "quarantine", "description": "What could not be read. Nothing that a terminal sent is ever thrown away."},
    {"name": "findings", "description": "What should have happened and did not, found by the auditor."},
    {"name": "metrics", "description": "Figures for Prometheus."},
    {"name": "health", "description": "Whether the service lives and is ready."},
]

_WHEN = {
    400: "The request cannot be understood.",
    401: "No key, or none that is valid.",
    403: "The key may not do this.",
    404: "No such thing.",
    409: "It does not fit the state; the detail says why.",
    410: "What this was about was erased.",
    413: "The body is too large.",
    422: "A value is missing, wrong or unknown.",
    503: "The database does not answer; try again.",
}


def document(app: FastAPI) -> dict[str, Any]:
    """Return the document of `app`."""
    if app.openapi_schema is None:
        written = get_openapi(
            title="onekey", version=app.version, description=_DESCRIPTION, routes=app.routes, tags=_TAGS
        )
        schemas = written["components"]["schemas"]
        schemas.pop("HTTPValidationError", None)
        schemas.pop("ValidationError", None)
        for model in (Problem, ProblemField):
            schemas[model.__name__] = _schema(model.model_json_schema(ref_template="#/components/schemas/{model}"))
        for path, operations in written["paths"].items():
            for method, operation in operations.items():
                _tell_problems(path, method, operation)
        written["components"]["schemas"] = dict(sorted(schemas.items()))
        app.openapi_schema = written
    return app.openapi_schema


def _schema(schema: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key != "$defs"}


def _tell_problems(path: str, method: str, operation: dict[str, Any]) -> None:
    responses: dict[str, Any] = operation["responses"]
    responses.pop("422", None)
    if path.startswith("/health"):
        return
    told = [401, 403, 503]
    if operation.get("parameters"):
        told += [422]
    if any(parameter["name"] in ("cursor", "after") for parameter in operation.get("parameters", ())):
        told += [400]
    if "{" in path:
        told += [404]
    if method in ("post", "patch"):
        told += [409]
    if "requestBody" in operation:
        told += [400, 413, 422]
    if path.startswith("/v1/work-orders") and method in ("post", "patch"):
        told += [410]
    if path.endswith("/stream"):
        told += [409]
    for status in sorted(set(told)):
        responses[str(status)] = _problem(_WHEN[status])
    operation["responses"] = dict(sorted(responses.items()))


def _problem(description: str) -> Mapping[str, Any]:
    return {
        "description": description,
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
