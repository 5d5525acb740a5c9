"""The HTTP service: the only place that builds its parts and connects them."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute

from api import errors, guide, openapi
from api.dependencies import Parts, any_key
from api.hub import Hub
from api.middleware import Envelope
from api.routes import (
    cases,
    commands,
    directory,
    drills,
    figures,
    findings,
    health,
    journal,
    legs,
    link,
    metrics,
    operators,
    phones,
    quarantine,
    series,
    stream,
    supervision,
    tasks,
    work_orders,
)
from gateway import __version__
from gateway.config import Settings
from gateway.keyring import keyring_of
from gateway.service.workdays import Workdays
from gateway.store.directory import Directory
from gateway.store.pool import Pool, open_pool

__all__ = ["create_app", "describe"]

_POOL_SIZE = 8


def create_app(settings: Settings, *, pool: Pool | None = None) -> FastAPI:
    """Return the service. With `pool` it uses that one, which stays the caller's.

    Raises:
        ConfigError: No database is known.
        KeyringError: The master key is missing or malformed.
    """
    database = settings.database_url
    keyring = keyring_of(settings)
    workdays = Workdays.load(settings.calendar)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            used = pool
            if used is None:
                used = await stack.enter_async_context(open_pool(database, name="api", size=_POOL_SIZE, wide=True))
            hub = Hub(database, rng=Random())  # noqa: S311  spreads reconnects
            app.state.parts = Parts(used, Directory(keyring), hub, workdays, settings.report_font)
            async with hub.running():
                yield

    return _assembled(lifespan)


def describe() -> dict[str, Any]:
    """Return the OpenAPI document."""
    return _assembled(None).openapi()


def _assembled(lifespan: Any | None) -> FastAPI:
    # The browsable documents of FastAPI come with scripts from elsewhere, which a closed network does not have.
    app = FastAPI(
        title="onekey",
        version=__version__,
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=_operation_id,
        separate_input_output_schemas=False,
    )
    for module in (
        *(health, cases, legs, tasks, work_orders, operators, figures),
        *(
            drills,
            commands,
            journal,
            stream,
            directory,
            series,
            supervision,
            phones,
            quarantine,
            findings,
            metrics,
            link,
        ),
    ):
        app.include_router(module.router)

    @app.get("/v1/openapi.json", tags=["health"], dependencies=[Depends(any_key)])
    async def read_openapi() -> dict[str, Any]:
        """Read this description."""
        return app.openapi()

    @app.get("/docs", include_in_schema=False)
    async def read_guide() -> HTMLResponse:
        """Show the guide; it holds what is published with every release, so it needs no key."""
        text, headers = guide.page(app.openapi())
        return HTMLResponse(text, headers=headers)

    app.openapi = lambda: openapi.document(app)  # type: ignore[method-assign]  # how FastAPI wants it replaced
    app.add_middleware(Envelope)
    errors.install(app)
    return app


def _operation_id(route: APIRoute) -> str:
    return route.name
