"""``onekey plan``, ``procedure`` and ``task``: what would happen, what has to happen, and who owes it."""

import math
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo

import typer
from rich.markup import escape
from rich.table import Table

from gateway.cli import asynchronous, err, out, settings_of, show_json, show_table
from gateway.domain.case import DomainError, NotFound
from gateway.domain.procedure import Change, ChangeKind, Does, Procedure
from gateway.domain.simulation import Act, simulate
from gateway.keyring import keyring_of
from gateway.service.explain_plan import Explanation, explain
from gateway.service.read_desk import TaskFile, list_tasks
from gateway.service.run_procedures import store_procedure
from gateway.service.workdays import Workdays
from gateway.site.procedure_file import ProcedureFileError, dumped, load_procedure, procedure_from, shipped
from gateway.store import procedures
from gateway.store.directory import Directory
from gateway.store.pool import open_pool

__all__ = ["plan_app", "procedure_app", "task_app"]

Json = Annotated[bool, typer.Option("--json", help="Print for a machine.")]

plan_app = typer.Typer(no_args_is_help=True, help="Response plans: who would be called, and how a procedure would run.")
procedure_app = typer.Typer(no_args_is_help=True, help="Procedures: timed steps of a case, as data.")
task_app = typer.Typer(no_args_is_help=True, help="Tasks of people at the seats.")


# ---------------------------------------------------------------- plans


@plan_app.command("explain")
def explain_plan(
    ctx: typer.Context,
    person: Annotated[str, typer.Argument(help="Id of the person.")],
    kind: Annotated[list[str] | None, typer.Option(help="Kind of alarm; may be given several times.")] = None,
    at: Annotated[datetime | None, typer.Option(help="Local time of the press; now if not given.")] = None,
    as_json: Json = False,
) -> None:
    """Say who would be called now, how, in which order, until when, and what is missing. Nothing is sent."""
    settings = settings_of(ctx)
    keyring = keyring_of(settings)

    async def work() -> Explanation:
        async with open_pool(settings.database_url, name="cli", size=1) as pool:
            moment = None if at is None else at.astimezone(UTC)
            return await explain(pool, Directory(keyring), person, kinds=tuple(kind or ("sos",)), at=moment)

    found = asynchronous(work())
    if as_json:
        show_json(_as_document(found))
        return
    delay = f", told after up to {_span(found.delay)} unless it is over by then" if found.delay else ""
    out.print(
        f"[bold]{escape(person)}[/] in {escape(found.household)}: {', '.join(found.kinds)} is "
        f"[bold]{found.case_class}[/] by plan {', '.join(found.plans) or 'none'}{delay}",
        highlight=False,
    )
    table = Table(title="Called at once, each until its own fact is there", title_justify="left")
    for column in ("role", "party", "calls", "until", "by", "then", "may know"):
        table.add_column(column, overflow="fold")
    for call in found.calls:
        who = "[red]nobody[/]" if call.party is None else f"{escape(call.name or '')} ({escape(call.party)})"
        if call.origin != "plan":
            who += f" [dim]{call.origin}{'' if call.instead_of is None else f' for {call.instead_of}'}[/]"
        calls = f"[yellow]{escape(call.problem)}[/]" if call.problem else _calls(call.calls)
        by = "" if call.deadline is None else _span(call.deadline)
        table.add_row(call.role, who, calls, call.until, by, ", ".join(call.then), call.privacy)
    out.print(table)
    out.print(f"Procedure: {', '.join(found.procedures) or 'none'} [dim](onekey plan simulate …)[/]", highlight=False)
    for what in found.missing:
        out.print(f"[yellow]missing[/]  {escape(what)}", highlight=False)
    if not found.missing:
        out.print("[green]nothing is missing[/]")


def _as_document(found: Explanation) -> dict[str, object]:
    return {
        "household": found.household,
        "kinds": list(found.kinds),
        "class": found.case_class,
        "plans": list(found.plans),
        "procedures": list(found.procedures),
        "told_after_s": found.delay.total_seconds(),
        "calls": [
            {
                "role": call.role,
                "party": call.party,
                "origin": call.origin,
                "instead_of": call.instead_of,
                "calls": [{"after_s": after.total_seconds(), "channel": channel} for after, channel in call.calls],
                "until": call.until,
                "deadline_s": None if call.deadline is None else call.deadline.total_seconds(),
                "then": list(call.then),
                "privacy": call.privacy,
                "problem": call.problem,
            }
            for call in found.calls
        ],
        "missing": list(found.missing),
    }


def _calls(calls: tuple[tuple[timedelta, str], ...]) -> str:
    shown = [f"{_span(after)} {channel}" for after, channel in calls[:3]]
    return ", ".join(shown) + (f" … {len(calls)} in all" if len(calls) > 3 else "")


def _span(duration: timedelta) -> str:
    seconds = round(duration.total_seconds())
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 7200:
        return f"{seconds // 60} min" + (f" {seconds % 60} s" if seconds % 60 else "")
    hours = seconds // 3600
    return f"{hours} h" + (f" {seconds % 3600 // 60} min" if seconds % 3600 // 60 else "")


_DO = re.compile(r"(?P<step>[a-z0-9-]+)=(?P<result>[a-z0-9_]+)@(?P<s>\d+)")
_SAY = re.compile(r"(?P<signal>[a-z_]+(:[a-z0-9_]+)?)@(?P<s>\d+)")


@plan_app.command("simulate")
def simulate_plan(
    ctx: typer.Context,
    procedure: Annotated[str, typer.Argument(help="Id of a procedure, or a file.")],
    people: Annotated[str, typer.Option(help="nobody: no task is done; prompt: each is done at once.")] = "nobody",
    do: Annotated[list[str] | None, typer.Option(help="STEP=RESULT@SECONDS: a task that is done then.")] = None,
    say: Annotated[
        list[str] | None, typer.Option(help="FACT@SECONDS: owned, heard, on_scene, informed:guardian, closed …")
    ] = None,
    flag: Annotated[list[str] | None, typer.Option(help="What holds: test, duress, agreed:dial_on_behalf …")] = None,
    start: Annotated[datetime | None, typer.Option(help="Local time of the press; now if not given.")] = None,
    hours: Annotated[float, typer.Option(min=0.01, max=24 * 60, help="How long to look.")] = 72,
    as_json: Json = False,
) -> None:
    """Run a procedure on a virtual clock and draw its timeline. No database is needed for those that are shipped."""
    found = _find(ctx, procedure)
    settings = settings_of(ctx, running=False)
    zone = ZoneInfo("Asia/Shanghai")
    begins = (start.replace(tzinfo=zone) if start is not None else datetime.now(zone)).astimezone(UTC)
    acts = [_act(text, begins, _DO, "STEP=RESULT@SECONDS") for text in do or ()]
    acts += [_act(text, begins, _SAY, "FACT@SECONDS") for text in say or ()]
    if people not in ("nobody", "prompt"):
        raise DomainError("--people is nobody or prompt")

    def prompt(change: Change) -> Act | None:
        step = change.step
        if step.ends_with and not set(step.results) - {"done"}:
            return None  # what only a fact ends
        return Act(at=change.at + timedelta(seconds=5), step=step.id, result=step.results[0])

    happened = simulate(
        found,
        acts,
        start=begins,
        until=begins + timedelta(hours=hours),
        flags=frozenset(flag or ()),
        is_working_day=Workdays.load(settings.calendar).is_working_day,
        people=prompt if people == "prompt" else lambda _: None,
    )
    if as_json:
        show_json([_line(change, begins) for change in happened])
        return
    _draw(found, happened, begins, zone)


def _act(text: str, begins: datetime, form: re.Pattern[str], wanted: str) -> Act:
    match = form.fullmatch(text)
    if match is None:
        raise DomainError(f"{text} is not of the form {wanted}")
    found = match.groupdict()
    return Act(
        at=begins + timedelta(seconds=int(found["s"])),
        step=found.get("step"),
        result=found.get("result"),
        signal=found.get("signal"),
    )


def _line(change: Change, begins: datetime) -> dict[str, object]:
    row = change.row
    return {
        "after_s": (change.at - begins).total_seconds(),
        "at": change.at,
        "step": change.step.id,
        "does": change.step.does,
        "what": change.kind,
        "result": row.result,
        "due_at": row.due_at,
        "seat": change.step.seat,
        "clause": change.step.clause,
    }


_COLOURS = {
    ChangeKind.START: "cyan",
    ChangeKind.END: "green",
    ChangeKind.BREACH: "bold red",
    ChangeKind.SKIP: "dim",
    ChangeKind.CANCEL: "yellow",
}
_MARKS = {
    ChangeKind.START: "▶",
    ChangeKind.END: "✔",
    ChangeKind.BREACH: "!",
    ChangeKind.SKIP: "·",
    ChangeKind.CANCEL: "✘",
}


def _draw(procedure: Procedure, happened: list[Change], begins: datetime, zone: ZoneInfo) -> None:
    title = f"{procedure.title.get('en', '')} {procedure.title.get('zh', '')}"
    out.print(f"[bold]{procedure.id}[/] version {procedure.version}: {escape(title)}", highlight=False)
    out.print(f"[dim]begins {begins.astimezone(zone):%Y-%m-%d %H:%M:%S} {zone.key}[/]\n", highlight=False)
    grid = Table.grid(padding=(0, 1))
    for change in happened:
        step, colour = change.step, _COLOURS[change.kind]
        seat = "" if step.seat is None else f"seat {step.seat}" if len(step.seat) == 1 else str(step.seat)
        name = step.title.get("en") or next(iter(step.title.values()))
        grid.add_row(
            f"[dim]{change.at.astimezone(zone):%m-%d %H:%M:%S}[/]",
            f"+{_span(change.at - begins)}",
            f"[{colour}]{_MARKS[change.kind]}[/]",
            f"[bold]{step.id}[/] [{colour}]{_said(change)}[/] {escape(name)} [dim]{seat or step.does} {step.clause}[/]",
        )
    out.print(grid, highlight=False)
    out.print()
    _draw_bars(procedure, happened, begins)


def _said(change: Change) -> str:
    match change.kind:
        case ChangeKind.START if change.step.does in (Does.TELL, Does.WITHDRAW):
            return "done:"
        case ChangeKind.START:
            due = change.row.due_at
            return "begins:" if due is None else f"begins, {_span(due - change.at)}:"
        case ChangeKind.END:
            return f"ends with {change.row.result}:"
        case ChangeKind.BREACH:
            return "is late:"
        case _:
            return f"is {'skipped' if change.kind is ChangeKind.SKIP else 'cancelled'}:"


_WIDTH = 46


def _draw_bars(procedure: Procedure, happened: list[Change], begins: datetime) -> None:
    """Draw one bar for each step that began, on a logarithmic scale from seconds to days."""
    newest = {change.step.id: change.row for change in happened}
    last = max([change.at for change in happened] + [row.due_at for row in newest.values() if row.due_at is not None])
    whole = math.log1p(max(1.0, (last - begins).total_seconds()))

    def place(at: datetime) -> int:
        return round(_WIDTH * math.log1p(max(0.0, (at - begins).total_seconds())) / whole)

    for step in procedure.steps:
        row = newest.get(step.id)
        if row is None or row.started_at is None:
            continue
        starts, stops = place(row.planned_at), place(row.ended_at or last)
        bar = list(" " * starts + "█" * max(1, stops - starts) + " " * (_WIDTH + 1 - max(stops, starts + 1)))
        if row.due_at is not None:
            bar[min(place(row.due_at), _WIDTH)] = "▎" if row.breached_at is None else "!"
        colour = "red" if row.breached_at is not None else "green" if row.ended_at is not None else "cyan"
        out.print(f"{step.id[:18]:18} [{colour}]{''.join(bar)}[/] {row.result or row.state.value}", highlight=False)
    marks = [(1, "1s"), (10, "10s"), (60, "1m"), (600, "10m"), (3600, "1h"), (86_400, "1d"), (604_800, "1w")]
    axis = [" "] * (_WIDTH + 4)
    for seconds, name in marks:
        at = round(_WIDTH * math.log1p(seconds) / whole)
        if at <= _WIDTH:
            axis[at : at + len(name)] = name
    out.print(f"[dim]{'':18} {''.join(axis)}[/]", highlight=False)


# ---------------------------------------------------------------- procedures


def _find(ctx: typer.Context, name: str) -> Procedure:
    if name.endswith((".yaml", ".yml")):
        return _load(Path(name))
    if name in shipped():
        return shipped()[name]
    settings = settings_of(ctx)

    async def read() -> list[dict[str, object]]:
        async with open_pool(settings.database_url, name="cli", size=1) as pool, pool.connection() as conn:
            return await procedures.bodies(conn)

    found = next((body for body in asynchronous(read()) if body["procedure"] == name), None)
    if found is None:
        raise NotFound(f"There is no procedure {name}; shipped are {', '.join(shipped())}.")
    return procedure_from(found)


def _load(file: Path) -> Procedure:
    try:
        return load_procedure(file)
    except ProcedureFileError as exc:
        for line in str(exc).splitlines():
            err.print(f"[red]error:[/] {escape(line)}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from exc


@procedure_app.command("list")
def list_procedures(ctx: typer.Context, as_json: Json = False) -> None:
    """List the procedures that are shipped, and those of the database where one is known."""
    known = {(one.id, one.version): ("shipped", one) for one in shipped().values()}
    settings = settings_of(ctx)
    if settings.database is not None:

        async def read() -> list[dict[str, object]]:
            async with open_pool(settings.database_url, name="cli", size=1) as pool, pool.connection() as conn:
                return await procedures.bodies(conn)

        for body in asynchronous(read()):
            one = procedure_from(body)
            known.setdefault((one.id, one.version), ("added", one))
    rows = [
        [one.id, str(one.version), where, f"{one.title.get('en', '')} {one.title.get('zh', '')}", str(len(one.steps))]
        for where, one in known.values()
    ]
    if as_json:
        show_json([dict(zip(("id", "version", "from", "title", "steps"), row, strict=True)) for row in rows])
    else:
        show_table("Procedures", ["id", "version", "from", "title", "steps"], rows)


@procedure_app.command("show")
def show_procedure(ctx: typer.Context, name: str, as_json: Json = False) -> None:
    """Show the steps of a procedure: what, when, who, by when, and what asks for it."""
    found = _find(ctx, name)
    if as_json:
        show_json(dumped(found))
        return
    rows = [
        [
            step.id,
            str(step.seat or step.does),
            f"{step.title.get('zh', '')}\n{step.title.get('en', '')}",
            "\nand ".join(step.after) + (f"\nafter {_span(step.delay)}" if step.delay else ""),
            str(dumped(found)["steps"][number]["within"] or ""),
            ", ".join(step.results),
            step.clause,
        ]
        for number, step in enumerate(found.steps)
    ]
    show_table(
        f"{found.id} version {found.version} ({found.source})",
        ["step", "seat", "what", "after", "within", "ends with", "clause"],
        rows,
    )


@procedure_app.command("check")
def check_procedure(file: Annotated[Path, typer.Argument(help="A procedure file (YAML).")]) -> None:
    """Check a procedure file."""
    found = _load(file)
    out.print(f"[green]ok[/]  {found.id} version {found.version}, {len(found.steps)} steps", highlight=False)


@procedure_app.command("add")
def add_procedure(ctx: typer.Context, file: Annotated[Path, typer.Argument(help="A procedure file (YAML).")]) -> None:
    """Add a procedure, or a new version of one. Cases that run keep the version that they began with."""
    found = _load(file)
    settings = settings_of(ctx)

    async def work() -> None:
        async with open_pool(settings.database_url, name="cli", size=1) as pool:
            await store_procedure(pool, found)

    asynchronous(work())
    out.print(f"[green]added[/]  {found.id} version {found.version}", highlight=False)


# ---------------------------------------------------------------- tasks


@task_app.command("list")
def show_tasks(
    ctx: typer.Context,
    operator: Annotated[str | None, typer.Option(help="Only what this seat owes.")] = None,
    overdue: Annotated[bool, typer.Option("--overdue", help="Only what is late.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    as_json: Json = False,
) -> None:
    """List what people owe, the most urgent first."""
    settings = settings_of(ctx)

    async def read() -> list[TaskFile]:
        async with open_pool(settings.database_url, name="cli", size=1) as pool:
            page = await list_tasks(pool, state="open", operator=operator, overdue=overdue, limit=limit)
            return page.items

    files = asynchronous(read())
    if as_json:
        show_json([file.fields() for file in files])
        return
    now = datetime.now(UTC)
    rows = []
    for file in files:
        line = file.line
        left = "" if line.due_at is None else _left(line.due_at - now)
        rows.append(
            [left, str(line.owner or line.seat), file.step.title.get("zh", ""), file.step.clause, str(line.case_id)]
        )
    show_table("Open tasks", ["left", "who", "what", "clause", "case"], rows)


def _left(left: timedelta) -> str:
    return _span(left) if left > timedelta(0) else f"[bold red]late by {_span(-left)}[/]"
