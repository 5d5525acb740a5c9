"""``onekey drill``: plan, start, watch and end drills, and read what came of them."""

import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer
from pydantic import ValidationError
from rich.console import Group
from rich.live import Live
from rich.table import Table
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from gateway.cli import asynchronous, out, settings_of, show_json, show_table
from gateway.config import Settings
from gateway.domain.case import DomainError
from gateway.domain.scoring import Mark
from gateway.keyring import keyring_of
from gateway.service import drills
from gateway.service.drills import DrillFile
from gateway.store.directory import Directory
from gateway.store.drills import DrillRow
from gateway.store.pool import open_pool
from schemas.drill import DrillIn

__all__ = ["drill_app"]

Json = Annotated[bool, typer.Option("--json", help="Print for a machine.")]
By = Annotated[str, typer.Option(help="Who says so: a seat or staff number.")]

drill_app = typer.Typer(no_args_is_help=True, help="Drills: the real paths, with whoever takes part.")


@drill_app.command("plan")
def plan(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="The drill (YAML or JSON), in the form of POST /v1/drills.")],
    as_json: Json = False,
) -> None:
    """Plan a drill. Nothing happens before it is started."""
    settings = settings_of(ctx)
    try:
        body = DrillIn.model_validate(YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, MarkedYAMLError) as exc:
        raise DomainError(f"{file}: {exc}") from exc
    except ValidationError as exc:
        lines = "; ".join(f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in exc.errors())
        raise DomainError(f"{file}: {lines}") from exc

    async def work() -> UUID:
        async with open_pool(settings.database_url, name="cli", size=1) as pool:
            row = await drills.plan_drill(
                pool,
                title=body.title,
                terminals=body.terminals,
                participants=body.participants,
                scenario=[inject.model_dump() for inject in body.scenario],
                lasts=timedelta(minutes=body.minutes),
                with_rescue=body.with_rescue,
                by=body.operator,
            )
            return row.id

    drill = asynchronous(work())
    if as_json:
        show_json({"drill": drill})
    else:
        out.print(f"[green]planned[/]  start it:  onekey drill start {drill}", highlight=False, soft_wrap=True)


@drill_app.command("list")
def list_drills(ctx: typer.Context, as_json: Json = False) -> None:
    """List drills, newest first."""
    settings = settings_of(ctx)

    async def read() -> list[DrillRow]:
        async with open_pool(settings.database_url, name="cli", size=1) as pool:
            return (await drills.list_drills(pool)).items

    rows = asynchronous(read())
    if as_json:
        show_json(
            [{"id": row.id, "title": row.title, "state": row.state, "created_at": row.created_at} for row in rows]
        )
        return
    show_table(
        "Drills",
        ["id", "state", "created", "title"],
        [[str(row.id), row.state, row.created_at.isoformat(timespec="minutes"), row.title] for row in rows],
    )


@drill_app.command("start")
def start(ctx: typer.Context, drill: UUID, by: By = "cli") -> None:
    """Start a drill. A press without the test flag stays real."""
    settings = settings_of(ctx)

    async def work() -> None:
        async with open_pool(settings.database_url, name="cli", size=1) as pool:
            await drills.start_drill(pool, drill, by=by)

    asynchronous(work())
    out.print(f"[green]running[/]  watch it:  onekey drill watch {drill}", highlight=False, soft_wrap=True)


@drill_app.command("end")
def end(ctx: typer.Context, drill: UUID, by: By = "cli") -> None:
    """End a drill; whoever was told hears that it is over."""
    settings = settings_of(ctx)
    directory = Directory(keyring_of(settings))

    async def work() -> None:
        async with open_pool(settings.database_url, name="cli", size=1) as pool:
            await drills.end_drill(pool, directory, drill, by=by)

    asynchronous(work())
    out.print(f"[green]ended[/]  the report:  onekey drill report {drill}", highlight=False, soft_wrap=True)


async def _read(settings: Settings, drill: UUID) -> DrillFile:
    async with open_pool(settings.database_url, name="cli", size=1) as pool:
        return await drills.read_drill(pool, drill)


@drill_app.command("watch")
def watch(ctx: typer.Context, drill: UUID, every_s: Annotated[float, typer.Option(min=0.2)] = 1.0) -> None:
    """Watch the score of a drill until it ends. Ctrl-C stops the watching, not the drill."""
    settings = settings_of(ctx)
    with Live(console=out, refresh_per_second=4) as live:
        while True:
            file = asynchronous(_read(settings, drill))
            live.update(_shown(file))
            if file.drill.state == "ended":
                return
            time.sleep(every_s)


@drill_app.command("report")
def report(ctx: typer.Context, drill: UUID, as_json: Json = False) -> None:
    """Print what came of a drill: every deadline, who met it and who did not."""
    file = asynchronous(_read(settings_of(ctx), drill))
    if not as_json:
        out.print(_shown(file))
        return
    show_json(
        {
            "id": file.drill.id,
            "title": file.drill.title,
            "state": file.drill.state,
            "in_time": file.in_time,
            "cases": [
                {
                    "case": case.case_id,
                    "opened_at": case.opened_at,
                    "items": [
                        {"what": i.what, "who": i.who, "mark": i.mark, "due_at": i.due_at, "done_at": i.done_at}
                        for i in case.items
                    ],
                }
                for case in file.cases
            ],
        }
    )


_COLOURS = {Mark.IN_TIME: "green", Mark.LATE: "yellow", Mark.MISSED: "bold red", Mark.RUNNING: "cyan", Mark.VOID: "dim"}


def _shown(file: DrillFile) -> Group:
    row = file.drill
    score = "nothing decided yet" if file.in_time is None else f"{file.in_time:.0%} in time"
    head = f"{row.title}: {row.state}, {row.injected} of {len(row.scenario)} presses made, {score}"
    tables = []
    for case in file.cases:
        table = Table(title=f"case {case.case_id} ({case.state})", title_justify="left")
        for column in ("what", "who", "mark", "took or left"):
            table.add_column(column)
        for item in case.items:
            took = _seconds(item.took) if item.took is not None else _left(item.due_at, file.now, item.mark)
            table.add_row(item.what, item.who, f"[{_COLOURS[item.mark]}]{item.mark}[/]", took)
        tables.append(table)
    return Group(head, *tables)


def _left(due_at: datetime, now: datetime, mark: Mark) -> str:
    return _seconds(due_at - now) if mark is Mark.RUNNING else ""


def _seconds(span: timedelta) -> str:
    return f"{span.total_seconds():.1f} s"
