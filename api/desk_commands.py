"""Commands for whoever looks after a hotline: work orders and figures."""

import asyncio
import sys
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from api import order_page, order_words, sheets
from api import order_views as views
from gateway.cli import out, settings_of, show_json, show_table
from gateway.domain.figures import FigureLine, Share, Waits, figure_line, waits_of
from gateway.domain.processing_record import REASONS
from gateway.domain.work_order import Kind
from gateway.keyring import keyring_of
from gateway.service import work_orders
from gateway.service.figures import FiguresOf, figures_of
from gateway.service.work_orders import Wanted
from gateway.store.directory import Directory
from gateway.store.pool import Pool, open_pool
from schemas.work_order import OrderOut

__all__ = ["orders_app", "show_figures"]

T = TypeVar("T")

_Json = Annotated[bool, typer.Option("--json", help="Print for a machine.")]
_DAY = {"formats": ["%Y-%m-%d"], "metavar": "YYYY-MM-DD"}
_From = Annotated[datetime | None, typer.Option("--from", help="First day, of the site.", **_DAY)]
_To = Annotated[datetime | None, typer.Option("--to", help="Last day, included.", **_DAY)]
_District = Annotated[str | None, typer.Option(help="Only of this district.", show_default=False)]
_Operator = Annotated[str | None, typer.Option(help="Only of this seat.", show_default=False)]


def _run(ctx: typer.Context, work: Callable[[Pool, Directory], Coroutine[Any, Any, T]]) -> T:
    settings = settings_of(ctx)
    directory = Directory(keyring_of(settings))

    async def opened() -> T:
        async with open_pool(settings.database_url, name="cli", size=1) as pool:
            return await work(pool, directory)

    return asyncio.run(opened())


def _wanted(
    operator: str | None,
    kind: Kind | None,
    district: str | None,
    first: datetime | None,
    last: datetime | None,
    *,
    open_only: bool,
    overdue: bool,
) -> Wanted:
    return Wanted(
        operator=operator,
        kind=None if kind is None else kind.value,
        district=district,
        open_only=open_only,
        overdue=overdue,
        first=None if first is None else first.date(),
        last=None if last is None else last.date(),
    )


# ---------------------------------------------------------------- work orders

orders_app = typer.Typer(no_args_is_help=True, help="Work orders: what was asked for, what was done, how it was rated.")

_KINDS = {
    "emergency_rescue": "rescue",
    "public_service_query": "query",
    "referral": "referral",
    "complaint": "complaint",
    "institution_query": "inst. query",
}
_Kind = Annotated[Kind | None, typer.Option(help="Only of this kind.", show_default=False)]
_Open = Annotated[bool, typer.Option("--open", help="Only those that are not completed.")]
_Overdue = Annotated[bool, typer.Option("--overdue", help="Only those with a deadline that is over.")]


@orders_app.command("list")
def list_orders(
    ctx: typer.Context,
    operator: _Operator = None,
    kind: _Kind = None,
    district: _District = None,
    first: _From = None,
    last: _To = None,
    open_only: _Open = False,
    overdue: _Overdue = False,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    as_json: _Json = False,
) -> None:
    """List work orders by the time of the call, newest first. Nothing personal is shown."""
    wanted = _wanted(operator, kind, district, first, last, open_only=open_only, overdue=overdue)
    page = _run(ctx, lambda pool, directory: work_orders.list_orders(pool, directory, wanted, limit=limit))
    lines = [views.order_line_out(line) for line in page.items]
    if as_json:
        show_json([line.model_dump(mode="json") for line in lines])
        return
    rows = [
        [
            str(line.id),
            line.called_at.strftime("%m-%d %H:%M"),
            _KINDS[line.kind],
            line.operator or "",
            str(len(line.missing)) if line.missing else "[green]–[/]",
        ]
        for line in lines
    ]
    _print("Work orders", ["id", "called, UTC", "kind", "seat", "missing"], rows)


def _print(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], *, right: bool = False) -> None:
    """Print a table with as few lines as will do: ids stay whole on a terminal of 80 columns."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for head in heads:
        whole = head in ("id", "case")
        table.add_column(
            head,
            overflow="fold",
            no_wrap=whole or head == heads[0],
            min_width=36 if whole else None,
            justify="right" if right and head != heads[0] else "left",
        )
    for row in rows:
        table.add_row(*row)
    out.print(table)


@orders_app.command("show")
def show_order(ctx: typer.Context, order: UUID, as_json: _Json = False) -> None:
    """Show one work order with everything it says, in the language of its site."""
    found = _run(ctx, lambda pool, directory: work_orders.read_order(pool, directory, order, by="cli"))
    shown = views.order_out(found)
    if as_json:
        show_json(shown.model_dump(mode="json"))
        return
    lang = order_words.language(None, found.locale)
    cells = zip(order_words.COLUMNS, order_words.row_of(shown, lang=lang), strict=True)
    rows = [[order_words.WORDS[lang][name], escape(cell)] for name, cell in cells if cell]
    show_table(order_words.WORDS[lang]["title"], ["", ""], rows)


@orders_app.command("export")
def export_orders(
    ctx: typer.Context,
    file: Annotated[
        Path, typer.Argument(help="Where to write: its name ends with .csv, .json or .html (to be printed).")
    ],
    order: Annotated[UUID | None, typer.Option("--id", help="Only this one.", show_default=False)] = None,
    operator: _Operator = None,
    kind: _Kind = None,
    district: _District = None,
    first: _From = None,
    last: _To = None,
    open_only: _Open = False,
    overdue: _Overdue = False,
    lang: Annotated[
        Literal["zh", "en"] | None, typer.Option(help="Without it the language of the site.", show_default=False)
    ] = None,
) -> None:
    """Write work orders with everything they say into a file that only you can read."""
    form = file.suffix.lower()
    if form not in _FORMS:
        raise typer.BadParameter(f"the name ends with one of: {', '.join(_FORMS)}")
    wanted = _wanted(operator, kind, district, first, last, open_only=open_only, overdue=overdue)

    async def read(pool: Pool, directory: Directory) -> tuple[list[OrderOut], str]:
        if order is not None:
            found = [await work_orders.read_order(pool, directory, order, by="cli")]
        else:
            found = [one async for one in work_orders.every_order(pool, directory, wanted, by="cli")]
        locale = found[0].locale if found else "zh"
        return [views.order_out(one) for one in found], order_words.language(lang, locale)

    orders, language = _run(ctx, read)
    file.touch(mode=0o600)
    file.chmod(0o600)
    file.write_text(_FORMS[form](orders, language), encoding="utf-8", newline="")
    out.print(f"wrote {len(orders)} work orders to {escape(str(file))}", highlight=False)


def _csv(orders: Sequence[OrderOut], lang: str) -> str:
    heads = [order_words.WORDS[lang][name] for name in order_words.COLUMNS]
    return "".join(sheets.sheet([heads, *(order_words.row_of(one, lang=lang) for one in orders)]))


def _json(orders: Sequence[OrderOut], lang: str) -> str:
    del lang  # the names of fields are those of the API
    return "[" + ",\n".join(one.model_dump_json() for one in orders) + "]\n"


def _html(orders: Sequence[OrderOut], lang: str) -> str:
    return order_page.document(orders, lang=lang, now=datetime.now(UTC))


_FORMS: dict[str, Callable[[Sequence[OrderOut], str], str]] = {".csv": _csv, ".json": _json, ".html": _html}


# ---------------------------------------------------------------- figures

_TITLES = {
    "answered": ("answered within 10 s", "R16"),
    "connected": ("connected: a human took it", "R16"),
    "first_operator": ("closed by the first operator", "R17"),
    "follow_ups": ("follow-ups in time", "R11, R12"),
    "complaints": ("complaints in time", "R21"),
    "complete": ("records complete", "R18"),
    "accurate": ("records accurate, by inspection", "R18"),
    "asked": ("asked for a rating", "R19"),
    "rated": ("rated", "R19"),
    "satisfied": ("satisfied, of those rated", "R19"),
}
_SHORT = {
    "answered": "≤10 s",
    "connected": "taken",
    "first_operator": "first\nop.",
    "follow_ups": "follow\n-up",
    "complaints": "compl.",
    "complete": "full",
    "accurate": "right",
    "rated": "rated",
    "satisfied": "satis-\nfied",
}


def show_figures(
    ctx: typer.Context,
    first: _From = None,
    last: _To = None,
    district: _District = None,
    operator: _Operator = None,
    as_json: _Json = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print a sheet: one line for all, each operator, each district.")
    ] = False,
) -> None:
    """Show how the service stands against its bars; without days, of the last 30. Tests and drills never count."""

    async def read(pool: Pool, directory: Directory) -> FiguresOf:
        return await figures_of(
            pool,
            directory,
            first=None if first is None else first.date(),
            last=None if last is None else last.date(),
            district=district,
            operator=operator,
        )

    found = _run(ctx, read)
    if as_json:
        show_json(views.figures_out(found, district=district, operator=operator).model_dump(mode="json"))
    elif as_csv:
        sys.stdout.write("".join(sheets.sheet(_sheet(found))))
    else:
        _show(found)


def _sheet(found: FiguresOf) -> list[list[str]]:
    lines = [("all", "", found.total), *(("operator", one.operator or "", one) for one in found.operators)]
    lines += [("district", one.district, one) for one in found.districts]
    names = list(figure_line(found.total).shares())
    heads = [
        "of",
        "name",
        "emergencies",
        "orders",
        *(f"{name} {part}" for name in names for part in ("count", "of", "%")),
    ]
    heads += ["p50 s", "p95 s", "p99 s", "unconfirmed"]
    rows = [heads]
    for of, name, tally in lines:
        line, waits = figure_line(tally), waits_of(tally)
        cells = [of, name, str(line.emergencies), str(line.orders)]
        for share in line.shares().values():
            cells += [str(share.count), str(share.of), _percent(share)]
        rows.append(
            [*cells, *(_seconds(value) for value in (waits.p50_s, waits.p95_s, waits.p99_s)), str(waits.unconfirmed)]
        )
    return rows


def _percent(share: Share) -> str:
    """Return a share in percent, cut and never rounded: 99.96 % of what has to be whole is not 100 %."""
    return "" if share.of == 0 else f"{share.count * 1000 // share.of / 10:.1f}"


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _marked(share: Share, unit: str = "") -> str:
    """Return a share in percent with a mark where it is below its bar."""
    text = _percent(share)
    if not text:
        return "[dim]–[/]"
    if share.met is None:
        return text + unit
    return f"[green]{text}{unit}[/]" if share.met else f"[bold red]▼{text}{unit}[/]"


def _show(found: FiguresOf) -> None:
    line, waits = figure_line(found.total), waits_of(found.total)
    days = f"{found.period.first} to {found.period.last} ({found.timezone})"
    table = Table(
        title=f"Figures, {days}: {line.emergencies} emergencies, {line.orders} work orders", title_justify="left"
    )
    for name, side in (
        ("figure", "left"),
        ("share", "right"),
        ("counted", "right"),
        ("bar", "right"),
        ("clause", "left"),
    ):
        table.add_column(name, justify="right" if side == "right" else "left")
    for name, share in line.shares().items():
        title, clause = _TITLES[name]
        bar = "" if share.bar is None else f"{share.bar} %"
        table.add_row(title, _marked(share, " %"), f"{share.count} of {share.of}", bar, clause)
    out.print(table)
    _show_waits(waits)
    if len(found.operators) > 1:
        _show_lines("By operator", [(one.operator or "nobody", figure_line(one)) for one in found.operators])
    if len(found.districts) > 1:
        _show_lines("By district", [(one.district, figure_line(one)) for one in found.districts])
    _show_rest(found)


def _show_waits(waits: Waits) -> None:
    parts = [
        f"p{percent} {'[bold red]nobody came[/]' if value is None else f'{value:.1f} s'}"
        for percent, value in ((50, waits.p50_s), (95, waits.p95_s), (99, waits.p99_s))
    ]
    if waits.emergencies:
        alone = f", [bold red]for {waits.unconfirmed} nobody came[/]" if waits.unconfirmed else ""
        out.print(f"Press to first responsible human: {', '.join(parts)}{alone}", highlight=False)


def _show_lines(title: str, lines: Sequence[tuple[str, FigureLine]]) -> None:
    rows = []
    for name, line in lines:
        shares = line.shares()
        rows.append([name, str(line.emergencies), *(_marked(shares[short]) for short in _SHORT)])
    _print(f"{title}, in percent", ["", "cases", *_SHORT.values()], rows, right=True)


def _show_rest(found: FiguresOf) -> None:
    zone = ZoneInfo(found.timezone)
    if found.worst:
        rows = [
            [
                "[bold red]nobody came[/]" if case.wait_s is None else f"{case.wait_s:.1f} s",
                case.received_at.astimezone(zone).strftime("%Y-%m-%d %H:%M:%S"),
                str(case.case_id),
                case.operator or "",
            ]
            for case in found.worst
        ]
        _print("Longest waits; the API has each at /v1/cases/CASE", ["wait", "received", "case", "seat"], rows)
    if found.total.false_alarms:
        by_count = sorted(found.total.false_alarms.items(), key=lambda item: -item[1])
        _print("False alarms", ["reason", "cases"], [[REASONS["en"][why], str(count)] for why, count in by_count])
    if found.total.breaches:
        late = sorted(found.total.breaches.items(), key=lambda item: (-item[1], item[0]))
        rows = [[*name, str(count)] for name, count in late]
        _print("Steps that were late", ["procedure", "step", "times"], rows)
