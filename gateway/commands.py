"""The gateway's own commands: run it, set it up, look into it."""

import asyncio
import base64
import contextlib
import itertools
import json
import signal
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop
from rich.markup import escape

from gateway.app import keyring_of
from gateway.app import run as run_gateway
from gateway.audit_commands import audit
from gateway.cli import asynchronous, err, out, settings_of, show_json, show_table
from gateway.config import Settings
from gateway.domain.case import NotFound
from gateway.garbage import in_small_pieces
from gateway.ingest.telemetry import PIECE, REST_S
from gateway.links.mqtt import Delivery, MqttLink
from gateway.logs import set_up
from gateway.service import apply_site as sites
from gateway.service import quarantine as quarantines
from gateway.site.load import LoadedSite, Problem, SiteFileError, load
from gateway.store import quarantine
from gateway.store.directory import Directory
from gateway.store.migrate import migrate as run_migrations
from gateway.store.pool import open_pool

__all__ = ["register"]

Json = Annotated[bool, typer.Option("--json", help="Print for a machine.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command("run")(run)
    app.command("gateway")(gateway)
    app.command("receive", hidden=True)(receive)
    app.command("audit")(audit)
    app.command("migrate")(migrate)
    for name, group in (
        ("config", _config),
        ("site", _site),
        ("broker", _broker),
        ("quarantine", _quarantine),
    ):
        app.add_typer(group, name=name)


# ---------------------------------------------------------------- running


def run(
    ctx: typer.Context,
    bind: Annotated[str | None, typer.Option(help="Address on which our servers listen.", show_default=False)] = None,
    mqtt_port: Annotated[
        int | None, typer.Option(help="Port of the embedded broker (1883).", show_default=False)
    ] = None,
    http_port: Annotated[int | None, typer.Option(help="Port of the API (8080).", show_default=False)] = None,
    public_url: Annotated[
        str | None, typer.Option(help="Address under which people reach the API.", show_default=False)
    ] = None,
) -> None:
    """Start everything on this machine: database, broker, gateway and API. Ctrl-C stops it."""
    from gateway.embedded import supervisor

    settings = settings_of(
        ctx, running=False, bind=bind, mqtt_port=mqtt_port, http_port=http_port, public_url=public_url
    )
    raise typer.Exit(supervisor.run(settings))


def gateway(ctx: typer.Context) -> None:
    """Run only the gateway process, against a database and a broker that run already."""
    settings = settings_of(ctx)
    set_up(settings.log_level)
    run_migrations(settings.database_url)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_until_stopped(settings))


def receive(ctx: typer.Context, topic: Annotated[str, typer.Option(help="Filter of the messages to take.")]) -> None:
    """Take messages, acknowledge them, do nothing else, and say ten times a second how many: a floor for the bench."""
    settings = settings_of(ctx)
    with contextlib.suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_receive(settings, topic))


async def _receive(settings: Settings, topic: str) -> None:
    in_small_pieces()
    link = MqttLink(settings.broker, client_id="~floor", filters=((topic, 1),), piece=PIECE, rest_s=REST_S)
    waiting: list[Delivery] = []
    count = 0
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(link.run(waiting.append), name="floor-link")
        for turn in itertools.count():
            await asyncio.sleep(0.02)
            count += len(waiting)
            link.acknowledge_all(waiting)
            waiting.clear()
            if turn % 5 == 0:
                typer.echo(json.dumps(count))


async def _until_stopped(settings: Settings) -> None:
    in_small_pieces()
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await run_gateway(settings)


def migrate(ctx: typer.Context, as_json: Json = False) -> None:
    """Bring the database to this version. Starting does this by itself."""
    applied = run_migrations(settings_of(ctx).database_url)
    if as_json:
        show_json({"applied": [migration.name for migration in applied]})
    elif applied:
        for migration in applied:
            out.print(f"applied {migration.name}", highlight=False)
    else:
        out.print("nothing to do: the database is up to date")


_config = typer.Typer(no_args_is_help=True, help="Settings.")


@_config.command("show")
def show_config(ctx: typer.Context, as_json: Json = False) -> None:
    """Print the settings in force, secrets masked."""
    shown = settings_of(ctx).shown()
    if as_json:
        show_json(shown)
        return
    fields = Settings.model_fields
    rows = [
        [name, "" if value is None else str(value), fields[name].description or ""] for name, value in shown.items()
    ]
    show_table("Settings in force (ONEKEY_NAME in the environment sets each)", ["setting", "value", "meaning"], rows)


# ---------------------------------------------------------------- sites

_site = typer.Typer(no_args_is_help=True, help="Who lives where and who is told: the site file.")


def _show_problems(problems: list[Problem]) -> None:
    for problem in problems:
        colour = "red" if problem.severity == "error" else "yellow"
        text = escape(str(problem)).replace(f"{problem.severity}:", f"[{colour}]{problem.severity}:[/]", 1)
        err.print(text, highlight=False, soft_wrap=True)


def _load(file: Path) -> LoadedSite:
    try:
        loaded = load(file)
    except SiteFileError as exc:
        _show_problems(exc.problems)
        errors = sum(problem.severity == "error" for problem in exc.problems)
        err.print(f"[bold red]{errors} error{'s' if errors != 1 else ''}[/] in {escape(str(file))}", highlight=False)
        raise typer.Exit(1) from exc
    return loaded


@_site.command("check")
def check_site(
    file: Annotated[Path, typer.Argument(help="The site file (YAML).")],
    strict: Annotated[bool, typer.Option(help="Count warnings as errors.")] = False,
    as_json: Json = False,
) -> None:
    """Check a site file: every error with its line, what is wrong and what would be right."""
    if as_json:
        try:
            problems = load(file).problems
            failed = False
        except SiteFileError as exc:
            problems, failed = exc.problems, True
        rows = [
            {
                "line": problem.line,
                "column": problem.column,
                "where": problem.where,
                "what": problem.what,
                "hint": problem.hint,
                "severity": problem.severity,
            }
            for problem in problems
        ]
        show_json({"ok": not failed, "problems": rows})
        raise typer.Exit(1 if failed or (strict and problems) else 0)
    loaded = _load(file)
    _show_problems(loaded.problems)
    site = loaded.site
    out.print(
        f"[green]ok[/]  {site.site}: {len(site.parties)} parties, {len(site.households)} households, "
        f"{len(site.terminals)} terminals, {len(site.plans)} plans, {len(loaded.problems)} warnings",
        highlight=False,
    )
    if strict and loaded.problems:
        raise typer.Exit(1)


@_site.command("apply")
def apply_site(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="The site file (YAML).")],
    prune: Annotated[bool, typer.Option("--prune", help="Take out of use what the file no longer names.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Show what a site file would change, then change it, all or nothing. Twice the same changes nothing."""
    loaded = _load(file)
    settings = settings_of(ctx)
    if not as_json:
        _show_problems(loaded.problems)
    applied = asynchronous(_apply(settings, loaded, prune=prune, ask=not (yes or as_json), quiet=as_json))
    if as_json:
        changes = [vars_of(change) for change in applied.changes]
        show_json({"site": loaded.site.site, "changes": changes, "secrets": dict(applied.secrets)})
        return
    done = sum(change.action != "left" for change in applied.changes)
    out.print(f"[green]applied[/]  {done} changes" if done else "[green]nothing to change[/]", highlight=False)
    if applied.secrets:
        rows = [[terminal, secret] for terminal, secret in applied.secrets.items()]
        show_table("New secrets. They are shown only now: put them into the terminals.", ["terminal", "secret"], rows)


def vars_of(change: sites.Change) -> dict[str, Any]:
    """Return a change for a machine."""
    return {"action": change.action, "kind": change.kind, "id": change.id, "fields": list(change.fields)}


async def _apply(settings: Settings, loaded: LoadedSite, *, prune: bool, ask: bool, quiet: bool) -> sites.Applied:
    keyring = keyring_of(settings)
    async with open_pool(settings.database_url, name="site", size=1) as pool:
        if not quiet:
            changes = await sites.compare(pool, keyring, loaded.site, prune=prune)
            _show_changes(changes)
            if ask and any(change.action != "left" for change in changes):
                await asyncio.to_thread(typer.confirm, "Apply?", abort=True)
        return await sites.apply_site(pool, keyring, loaded.site, prune=prune)


_MARKS = {"add": "[green]+[/]", "change": "[yellow]~[/]", "remove": "[red]-[/]", "left": "[dim]=[/]"}


def _show_changes(changes: list[sites.Change]) -> None:
    for change in changes[:200]:
        note = f" [dim]({', '.join(change.fields)})[/]" if change.fields else ""
        if change.action == "left":
            note = " [dim](no longer in the file, stays without --prune)[/]"
        out.print(f"{_MARKS[change.action]} {change.kind} {change.id}{note}", highlight=False)
    if len(changes) > 200:
        out.print(f"[dim]… and {len(changes) - 200} more[/]")


# ---------------------------------------------------------------- brokers

_broker = typer.Typer(no_args_is_help=True, help="Configuration for brokers of your own.")


@_broker.command("mosquitto")
def mosquitto(
    directory: Annotated[Path, typer.Argument(help="Where to write mosquitto.conf, acl and passwords.")],
    site: Annotated[Path | None, typer.Option(help="Site file whose terminals and platforms get a password.")] = None,
    bind: Annotated[str, typer.Option(help="Address for terminals.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port for terminals.")] = 1883,
    gateway_port: Annotated[int, typer.Option(help="Port for the gateway, on loopback.")] = 1884,
) -> None:
    """Write a configuration for Mosquitto 2 that keeps what this gateway promises."""
    from gateway.embedded import mosquitto as files

    loaded = None if site is None else _load(site).site
    files.write(directory, site=loaded, bind=bind, port=port, gateway_port=gateway_port)
    out.print(f"wrote {directory}/mosquitto.conf, acl, passwords", highlight=False)
    out.print(f"start it:  mosquitto -c {directory}/mosquitto.conf", highlight=False)
    out.print(f'use it:    ONEKEY_MQTT="$(cat {directory}/gateway.url)" onekey run', highlight=False, soft_wrap=True)
    if loaded is not None and (silent := files.without_password(directory, loaded)):
        out.print(f"[yellow]no secret in the site file, cannot connect:[/] {', '.join(silent)}", highlight=False)


# ---------------------------------------------------------------- quarantine

_quarantine = typer.Typer(no_args_is_help=True, help="Messages that could not be read.")


@_quarantine.command("list")
def list_quarantine(
    ctx: typer.Context,
    state: Annotated[str | None, typer.Option(help="kept, replayed or dismissed.")] = "kept",
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    as_json: Json = False,
) -> None:
    """List kept messages, newest first."""

    async def read() -> list[quarantine.Kept]:
        async with open_pool(settings_of(ctx).database_url, name="cli", size=1) as pool, pool.connection() as conn:
            return await quarantine.listing(conn, before=None, state=state, district=None, limit=limit)

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


def _kept(one: quarantine.Kept) -> dict[str, Any]:
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


@_quarantine.command("show")
def show_quarantine(ctx: typer.Context, number: int, as_json: Json = False) -> None:
    """Show one message with its bytes."""

    async def read() -> quarantine.Kept | None:
        async with open_pool(settings_of(ctx).database_url, name="cli", size=1) as pool, pool.connection() as conn:
            return await quarantine.one(conn, number)

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


@_quarantine.command("replay")
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


@_quarantine.command("dismiss")
def dismiss_quarantine(ctx: typer.Context, number: int) -> None:
    """Settle a message without doing anything."""
    settings = settings_of(ctx)

    async def work() -> None:
        async with open_pool(settings.database_url, name="cli", size=1) as pool:
            await quarantines.dismiss(pool, number, by="cli")

    asynchronous(work())
    out.print(f"dismissed {number}", highlight=False)
