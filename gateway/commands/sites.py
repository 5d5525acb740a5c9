"""Check and apply site files; write configurations for brokers of one's own."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from gateway.cli import asynchronous, err, out, settings_of, show_json, show_table
from gateway.config import Settings
from gateway.keyring import keyring_of
from gateway.service import apply_site as sites
from gateway.site.load import LoadedSite, Problem, SiteFileError, load
from gateway.store.pool import open_pool

__all__ = ["broker_app", "site_app"]

Json = Annotated[bool, typer.Option("--json", help="Print for a machine.")]

site_app = typer.Typer(no_args_is_help=True, help="Who lives where and who is told: the site file.")


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


@site_app.command("check")
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


@site_app.command("apply")
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


broker_app = typer.Typer(no_args_is_help=True, help="Configuration for brokers of your own.")


@broker_app.command("mosquitto")
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
