"""Commands about cases and the proof of what happened in them: list, show, verify, report; checkpoints."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID
from zoneinfo import ZoneInfo

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from gateway.cli import asynchronous, err, out, settings_of, show_json, show_table
from gateway.config import Settings
from gateway.keyring import Keyring, keyring_of
from gateway.report.compose import compose_report, key_out, proof_out
from gateway.report.words import words_of
from gateway.service import case_reading, proof
from gateway.service.case_report import read_report
from gateway.service.checkpoints import export_checkpoints
from gateway.service.proof import CaseProof, Evidence
from gateway.store.directory import Directory
from gateway.store.pool import Pool, open_pool
from gateway.store.queries import CaseLine
from schemas.report import ReportOut

__all__ = ["case_app", "journal_app"]

Json = Annotated[bool, typer.Option("--json", help="Print for a machine.")]
CaseId = Annotated[UUID, typer.Argument(metavar="ID", help="The case.")]

_BY = "cli"
_LONGEST = 100


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[Pool]:
    async with open_pool(settings.database_url, name="cli", size=1) as pool:
        yield pool


# ---------------------------------------------------------------- cases

case_app = typer.Typer(no_args_is_help=True, help="Cases, and the proof of what happened in them.")


@case_app.command("list")
def list_cases(
    ctx: typer.Context,
    state: Annotated[Literal["open", "safe", "closed"] | None, typer.Option(help="Only cases in this state.")] = None,
    district: Annotated[str | None, typer.Option(help="Only this district.")] = None,
    household: Annotated[str | None, typer.Option(help="Only this household.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 30,
    as_json: Json = False,
) -> None:
    """List cases, newest first."""
    settings = settings_of(ctx)

    async def read() -> list[CaseLine]:
        async with _opened(settings) as pool:
            page = await case_reading.list_cases(pool, state=state, district=district, household=household, limit=limit)
            return page.items

    lines = asynchronous(read())
    if as_json:
        show_json([{name: getattr(line, name) for name in CaseLine.__slots__} for line in lines])
        return
    rows = [
        [
            str(line.id),
            line.opened_at.strftime("%Y-%m-%d %H:%M:%S"),
            f"{line.case_class}{' TEST' if line.test else ''}",
            ", ".join(line.kinds),
            line.household_id or line.terminal_id or "",
            line.state if line.outcome is None else f"{line.state}: {line.outcome}",
            line.owner or "",
            ", ".join(f"{count} {name}" for name, count in sorted(line.legs.items())),
        ]
        for line in lines
    ]
    columns = ["case", "opened (UTC)", "class", "kinds", "household", "state", "owner", "legs"]
    show_table("Cases", columns, [[escape(cell) for cell in row] for row in rows])


@case_app.command("show")
def show_case(ctx: typer.Context, case_id: CaseId, as_json: Json = False) -> None:
    """Show everything that stands in the journal of a case, entry by entry. That you did is journaled (R22)."""
    settings = settings_of(ctx)

    async def read() -> case_reading.CaseFile:
        async with _opened(settings) as pool:
            return await case_reading.read_case(pool, Directory(keyring_of(settings)), case_id, by=_BY)

    file = asynchronous(read())
    if as_json:
        entries = [
            {"n": one.n, "at": one.at, "kind": one.kind, "actor": one.actor, "data": one.data, "erased": one.erased}
            for one in file.timeline
        ]
        broken = None if file.broken is None else file.broken.what
        show_json({"case": case_id, "state": file.case.state, "broken": broken, "timeline": entries})
        return
    _show_head(file)
    zone, began = ZoneInfo(file.site.timezone), file.timeline[0].at if file.timeline else file.now
    words = words_of("en")
    table = Table(title=f"Journal ({file.site.timezone})", title_justify="left")
    for column in ("n", "time", "after", "what", "who", "details"):
        table.add_column(column, overflow="fold")
    for one in file.timeline:
        after = words.after((one.at - began).total_seconds())
        data = "[dim]erased[/]" if one.erased else escape(_short(one.data))
        time = one.at.astimezone(zone).strftime("%m-%d %H:%M:%S.%f")[:-3]
        table.add_row(str(one.n), time, after, one.kind, escape(one.actor), data)
    out.print(table)
    if file.broken is not None:
        err.print(f"[bold red]the journal is broken:[/] {escape(file.broken.what)}", highlight=False)


def _show_head(file: case_reading.CaseFile) -> None:
    case_row, household = file.case, file.household
    pairs = {
        "case": str(case_row.id),
        "state": case_row.state if case_row.outcome is None else f"{case_row.state}: {case_row.outcome}",
        "kinds": ", ".join(case_row.kinds),
        "household": case_row.household_id or "",
        "persons": "" if household is None else ", ".join(person.name for person in household.persons),
        "address": "" if household is None else household.address.text(),
        "owner": case_row.owner or "",
    }
    for name, value in pairs.items():
        if value:
            out.print(f"[dim]{name:10}[/] {escape(value)}", highlight=False, soft_wrap=True)


def _short(data: dict[str, Any] | None) -> str:
    """Return what an entry says in one line, without what is long."""
    if data is None:
        return ""
    plain = {name: value for name, value in data.items() if isinstance(value, str | int | float) and value != ""}
    text = " ".join(f"{name}={value}" for name, value in plain.items() if name not in ("raw", "sha256"))
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


@case_app.command("verify")
def verify_case(
    ctx: typer.Context,
    case_id: Annotated[UUID | None, typer.Argument(metavar="ID", help="The case.", show_default=False)] = None,
    every: Annotated[bool, typer.Option("--all", help="Verify all cases.")] = False,
    checkpoints: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A copy of the checkpoints kept elsewhere, instead of the file in the data directory."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Find out whether a journal is what was written; ends with 1 when it is not.

    Shows every entry that was removed, altered, added or reordered, and a tail that was cut off, also when all hashes
    were computed anew: by the signed checkpoints in the database and in a file outside it.
    """
    if (case_id is None) == (not every):
        raise typer.BadParameter("give the ID of a case, or --all")
    settings = settings_of(ctx)
    work = _verify(settings, case_id, copy=checkpoints, quiet=as_json)
    try:
        evidence, proofs, verified = asynchronous(work)
    except OSError as exc:
        err.print(f"[bold red]onekey:[/] cannot read {escape(str(exc.filename))}: {exc.strerror}", highlight=False)
        raise typer.Exit(2) from exc
    broken = [one for one in proofs if one.breaks]
    if as_json:
        show_json(
            {
                "intact": not broken and not evidence.flaws,
                "verified": verified,
                "checkpoints": {"checked": evidence.checked, "flaws": evidence.flaws, "notes": evidence.notes},
                "cases": [proof_out(one).model_dump(mode="json") for one in proofs],
            }
        )
    else:
        _show_cases(proofs, verified, every=every)
        _show_checkpoints(evidence)
    raise typer.Exit(1 if broken or evidence.flaws else 0)


async def _verify(
    settings: Settings, case_id: UUID | None, *, copy: Path | None, quiet: bool
) -> tuple[Evidence, list[CaseProof], int]:
    """Return what the checkpoints say, the one proof asked for or all that are broken, and how many were looked at."""
    keyring = keyring_of(settings)
    only = None if case_id is None else (case_id,)
    async with _opened(settings) as pool:
        file = settings.checkpoint_file if copy is None else copy
        evidence = await proof.examine(pool, keyring, file=file, own=copy is None, only=only)
        if case_id is not None:
            return evidence, [await proof.prove_case(pool, keyring, case_id, evidence)], 1
        return evidence, *await _verify_all(pool, keyring, evidence, quiet=quiet)


async def _verify_all(pool: Pool, keyring: Keyring, evidence: Evidence, *, quiet: bool) -> tuple[list[CaseProof], int]:
    broken: list[CaseProof] = []
    seen: set[UUID] = set()
    uncovered = 0
    columns = (TextColumn("verifying"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=quiet) as progress:
        total = await proof.count_cases(pool)
        task = progress.add_task("cases", total=total)
        async for page in proof.case_ids(pool):
            for one in page:
                found = await proof.prove_case(pool, keyring, one, evidence)
                broken += [found] if found.breaks else []
                uncovered += found.entries > (0 if found.cover is None else found.cover.entries)
                seen.add(one)
                progress.advance(task)
    if uncovered:
        evidence.notes.append(f"{uncovered} cases have entries that no checkpoint covers yet")
    lost = sorted(set(evidence.heads.cases()) - seen)
    broken += [found for one in lost if (found := await proof.prove_case(pool, keyring, one, evidence)).breaks]
    return broken, len(seen) + len(lost)


def _show_cases(proofs: list[CaseProof], verified: int, *, every: bool) -> None:
    for one in proofs:
        if not one.breaks:
            out.print(f"[green]intact[/]  case {one.case_id}: {_entries(one)}", highlight=False, soft_wrap=True)
            continue
        out.print(f"[bold red]BROKEN[/]  case {one.case_id}", highlight=False, soft_wrap=True)
        for found in one.breaks:
            out.print(f"        {escape(found.what)}", highlight=False, soft_wrap=True)
    if every:
        colour = "red" if proofs else "green"
        out.print(f"[{colour}]{verified} cases verified, {len(proofs)} broken[/]", highlight=False)


def _show_checkpoints(evidence: Evidence) -> None:
    if evidence.flaws:
        out.print(f"[bold red]BROKEN[/]  checkpoints ({evidence.checked} are right)", highlight=False)
        for flaw in evidence.flaws:
            out.print(f"        {escape(flaw)}", highlight=False, soft_wrap=True)
    else:
        newest = evidence.newest
        upto = "" if newest is None else f", the newest of {_utc(newest.at)}"
        out.print(f"[green]intact[/]  {evidence.checked} checkpoints{upto}", highlight=False)
    for note in evidence.notes:
        err.print(f"[yellow]note:[/] {escape(note)}", highlight=False, soft_wrap=True)


def _entries(one: CaseProof) -> str:
    text = f"{one.entries} entries"
    if one.erased:
        text += f", {one.erased} of them erased"
    if one.cover is None:
        return f"{text}, no checkpoint names it yet"
    return f"{text}, 1 to {one.cover.entries} covered by checkpoint {one.cover.number} of {_utc(one.cover.at)}"


def _utc(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M:%S UTC")


@case_app.command("report")
def report_case(
    ctx: typer.Context,
    case_id: CaseId,
    pdf: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it as PDF.")] = None,
    as_json: Json = False,
) -> None:
    """Print the rescue report of a case, or write it as PDF. That you did is journaled (R22)."""
    settings = settings_of(ctx)

    async def read() -> ReportOut:
        async with _opened(settings) as pool:
            return compose_report(await read_report(pool, Directory(keyring_of(settings)), case_id, by=_BY))

    report = asynchronous(read())
    if pdf is not None:
        from gateway.report.pdf import render_pdf  # takes half a second to load

        pdf.write_bytes(render_pdf(report, font=settings.report_font))
    if as_json:
        show_json(report.model_dump(mode="json"))
    elif pdf is not None:
        out.print(f"wrote {escape(str(pdf))}", highlight=False, soft_wrap=True)
    else:
        _print_report(report)


def _print_report(report: ReportOut) -> None:
    words = words_of(report.language)
    out.print(f"[bold]{words['title']}[/]  {report.case}", highlight=False, soft_wrap=True)
    table = Table(show_header=False, box=None, padding=(0, 1))
    for line in report.timeline:
        table.add_row(
            words.clock(line.at, report.timezone, tenths=True),
            f"[dim]{words.after(line.after_s)}[/]",
            escape(line.text),
        )
    out.print(table)
    chain = report.proof
    verdict = words["chain_intact"].format(n=chain.entries)
    if not chain.intact:
        verdict = words["chain_broken"].format(what=words["stop"].join(found.what for found in chain.breaks))
    out.print(f"{words['chain']}{words['colon']}{escape(verdict)}", highlight=False, soft_wrap=True)


# ---------------------------------------------------------------- the journal

journal_app = typer.Typer(no_args_is_help=True, help="Signed checkpoints of the journal.")


@journal_app.command("key")
def show_key(ctx: typer.Context, as_json: Json = False) -> None:
    """Print the public key with which anybody can check checkpoints."""
    key = keyring_of(settings_of(ctx)).public
    if as_json:
        show_json(key_out(key).model_dump())
    else:
        out.print(key.pem.rstrip(), highlight=False)
        err.print(f"[dim]checkpoints call it {key.name}[/]", highlight=False)


@journal_app.command("checkpoint")
def make_checkpoint(
    ctx: typer.Context,
    to: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Where to; otherwise the file in the data directory.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a checkpoint now, and append all that the file does not hold yet."""
    settings = settings_of(ctx)
    path = to or settings.checkpoint_file

    async def work() -> int:
        async with _opened(settings) as pool:
            return await export_checkpoints(pool, keyring_of(settings), path)

    try:
        newest = asynchronous(work())
    except OSError as exc:
        err.print(f"[bold red]onekey:[/] cannot write {escape(str(path))}: {exc.strerror}", highlight=False)
        raise typer.Exit(2) from exc
    if as_json:
        show_json({"newest": newest, "file": str(path)})
    else:
        out.print(f"{escape(str(path))} holds checkpoints up to {newest}", highlight=False, soft_wrap=True)


@journal_app.command("verify")
def verify_checkpoints(
    ctx: typer.Context,
    file: Annotated[
        Path | None, typer.Argument(help="A copy kept elsewhere, instead of the file in the data directory.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check the checkpoints themselves: order, gaps, signatures, database against file; ends with 1 on a flaw."""
    settings = settings_of(ctx)

    async def work() -> Evidence:
        async with _opened(settings) as pool:
            path = file or settings.checkpoint_file
            return await proof.examine(pool, keyring_of(settings), file=path, own=file is None, only=())

    try:
        evidence = asynchronous(work())
    except OSError as exc:
        err.print(f"[bold red]onekey:[/] cannot read {escape(str(exc.filename))}: {exc.strerror}", highlight=False)
        raise typer.Exit(2) from exc
    if as_json:
        show_json({"checked": evidence.checked, "flaws": evidence.flaws, "notes": evidence.notes})
    else:
        _show_checkpoints(evidence)
    raise typer.Exit(1 if evidence.flaws else 0)
