"""Commands that the API adds to ``onekey``: run it, and look after its keys."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

import typer

from gateway.cli import out, settings_of, show_json, show_table
from gateway.config import Settings
from gateway.keyring import keyring_of
from gateway.logs import set_up
from gateway.service import access
from gateway.service.access import Role
from gateway.store.pool import Pool, open_pool

__all__ = ["api", "key_app", "serve"]

T = TypeVar("T")

_Json = Annotated[bool, typer.Option("--json", help="Print for a machine.")]

# A stream never ends by itself, so a server that waited for all answers to end would never stop.
_GRACE_S = 3


def api(ctx: typer.Context, as_json: _Json = False) -> None:
    """Run only the API process, against a database that runs already."""
    settings = settings_of(ctx)
    set_up(settings.log_level)
    serve(settings, as_json=as_json)


def serve(settings: Settings, *, as_json: bool = False) -> None:
    """Run the API until a signal ends it; prints where it listens once the port is taken."""
    import uvicorn

    from api.app import create_app

    config = uvicorn.Config(
        create_app(settings),
        host=settings.bind,
        port=settings.http_port,
        loop="uvloop",
        log_config=None,
        log_level="warning",
        ws="none",
        access_log=False,  # it would hold the tokens of links; api.middleware writes one without
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
    )
    sock = config.bind_socket()
    port = sock.getsockname()[1]
    host = f"[{settings.bind}]" if ":" in settings.bind else settings.bind
    url = f"http://{host}:{port}"
    if as_json:
        show_json({"url": url})
    else:
        out.print(f"API on {url}", highlight=False)
    uvicorn.Server(config).run(sockets=[sock])


key_app = typer.Typer(no_args_is_help=True, help="API keys.")


def _run(settings: Settings, work: Callable[[Pool], Coroutine[Any, Any, T]]) -> T:
    async def opened() -> T:
        async with open_pool(settings.database_url, name="cli", size=1) as pool:
            return await work(pool)

    return asyncio.run(opened())


@key_app.command("create")
def create_key(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="What or whom it is for, to recognise it by.")],
    role: Annotated[Role, typer.Option(help="What it may do.")],
    as_json: _Json = False,
) -> None:
    """Make a key. It is shown only now: the database keeps no more than a hash."""
    settings = settings_of(ctx)
    keyring = keyring_of(settings)

    async def work(pool: Pool) -> tuple[str, str]:
        return await access.create_key(pool, keyring, name=name, role=role)

    key, text = _run(settings, work)
    if as_json:
        show_json({"id": key, "name": name, "role": role, "key": text})
    else:
        out.print(f"{text}\nShown only now. Revoke it with: onekey key revoke {key}", highlight=False, soft_wrap=True)


def _shown(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@key_app.command("list")
def list_keys(ctx: typer.Context, as_json: _Json = False) -> None:
    """List the keys, revoked ones too."""
    keys = _run(settings_of(ctx), access.list_keys)
    rows = [
        {
            "id": key.id,
            "name": key.name,
            "role": key.role,
            "created_at": _shown(key.created_at),
            "revoked_at": None if key.revoked_at is None else _shown(key.revoked_at),
        }
        for key in keys
    ]
    if as_json:
        show_json(rows)
    else:
        columns = ["id", "name", "role", "created_at", "revoked_at"]
        show_table("API keys", columns, [[str(row[column] or "") for column in columns] for row in rows])


@key_app.command("revoke")
def revoke_key(
    ctx: typer.Context,
    key: Annotated[str, typer.Argument(help="Its id, as «onekey key list» shows it.")],
    as_json: _Json = False,
) -> None:
    """Revoke a key. It dies at once, and the streams that it opened within seconds."""

    async def work(pool: Pool) -> None:
        await access.revoke_key(pool, key)

    _run(settings_of(ctx), work)
    if as_json:
        show_json({"revoked": key})
    else:
        out.print(f"revoked {key}", highlight=False)
