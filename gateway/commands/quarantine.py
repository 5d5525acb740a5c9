"""Look at messages that could not be read, and settle them."""

import base64
from typing import Annotated, Any

import typer
from rich.markup import escape

from gateway.cli import asynchronous, out, settings_of, show_json, show_table
from gateway.domain.case import NotFound
from gateway.keyring import keyring_of
from gateway.service import quarantine as quarantines
from gateway.store import quarantine as store
from gateway.store.directory import Directory
from gateway.store.pool import open_pool

__all__ = ["quarantine_app"]

Json = Annotated[bool, typer.Option("--json", help="Print for a machine.")]

quarantine_app = typer.Typer(no_args_is_help=True, help="Messages that could not be read.")


@quarantine_app.command("list")
def list_quarantine(
    ctx: typer.Context,
    state: Annotated[str | None, typer.Option(help="kept, replayed or dismissed.")] = "kept",
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    as_json: Json = False,
) -> None:
    """List kept messages, newest first."""

    async def read() -> list[store.Kept]:
        async with open_pool(settings_of(ctx).database_url, name="cli", size=1) as pool, pool.connection() as conn:
            return await store.listing(conn, before=None, state=state, district=None, limit=limit)

    kept = asynchronous(read())
    if as_json:
        show_json([_kept(one) for one in kept])
        return
    rows = [
        [
            str(one.id),
            one.received_at.isoformat(timespec="seconds"),
            one.topic,
            f"{len(one.payload)} B ×{one.copies}",
            one.reason,
            "" if one.case_id is None else str(one.case_id),
        ]
        for one in kept
    ]
    show_table("Quarantine", ["no", "received", "topic", "size", "reason", "case"], rows)


def _kept(one: store.Kept) -> dict[str, Any]:
    return {
        "id": one.id,
        "received_at": one.received_at,
        "topic": one.topic,
        "terminal": one.terminal_id,
        "reason": one.reason,
        "copies": one.copies,
        "case": one.case_id,
        "state": one.state,
        "payload": base64.b64encode(one.payload).decode(),
    }


@quarantine_app.command("show")
def show_quarantine(ctx: typer.Context, number: int, as_json: Json = False) -> None:
    """Show one message with its bytes."""

    async def read() -> store.Kept | None:
        async with open_pool(settings_of(ctx).database_url, name="cli", size=1) as pool, pool.connection() as conn:
            return await store.one(conn, number)

    kept = asynchronous(read())
    if kept is None:
        raise NotFound(f"There is no message {number} in quarantine.")
    if as_json:
        show_json(_kept(kept))
        return
    for name, value in _kept(kept).items():
        if name != "payload":
            out.print(f"{name:12} {escape(str(value))}", highlight=False, soft_wrap=True)
    for offset in range(0, min(len(kept.payload), 4096), 16):
        part = kept.payload[offset : offset + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        out.print(f"{offset:06x}  {part.hex(' '):<47}  {escape(text)}", highlight=False)


@quarantine_app.command("replay")
def replay_quarantine(ctx: typer.Context, number: int, as_json: Json = False) -> None:
    """Read a message again with the rules of today, and do what would have been done."""
    settings = settings_of(ctx)

    async def work() -> quarantines.ReplayResult:
        directory = Directory(keyring_of(settings))
        async with open_pool(settings.database_url, name="cli", size=1) as pool:
            return await quarantines.replay(pool, directory, number, by="cli")

    result = asynchronous(work())
    if as_json:
        show_json({"state": result.state, "case": result.case_id, "detail": result.detail})
    else:
        out.print(f"{result.state}: {result.detail}", highlight=False)


@quarantine_app.command("dismiss")
def dismiss_quarantine(ctx: typer.Context, number: int) -> None:
    """Settle a message without doing anything."""
    settings = settings_of(ctx)

    async def work() -> None:
        async with open_pool(settings.database_url, name="cli", size=1) as pool:
            await quarantines.dismiss(pool, number, by="cli")

    asynchronous(work())
    out.print(f"dismissed {number}", highlight=False)
