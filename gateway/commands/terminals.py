"""Commands about terminals: how one is, what is wrong with any, incidents, uptime; test windows."""

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from gateway.cli import asynchronous, out, settings_of, show_json, show_table, sparkline
from gateway.service.read_series import read_curve, read_terminal
from gateway.service.read_supervision import Uptime, list_incidents, list_troubles, read_uptime
from gateway.service.test_windows import open_window
from gateway.store.pool import open_pool
from gateway.store.queries import TerminalLine
from gateway.store.series import CurvePoint
from gateway.store.supervision_figures import IncidentLine, TroubleLine

__all__ = ["terminal_app"]

Json = Annotated[bool, typer.Option("--json", help="Print for a machine.")]


_SPARKS = 60
terminal_app = typer.Typer(no_args_is_help=True, help="Terminals.")


@terminal_app.command("show")
def show_terminal(
    ctx: typer.Context,
    terminal: str,
    hours: Annotated[int, typer.Option(min=1, max=24 * 366, help="How far back to look.")] = 24,
    as_json: Json = False,
) -> None:
    """Show the newest state of a terminal, and how its battery and signal went."""
    settings = settings_of(ctx)
    end = datetime.now(UTC)
    every = timedelta(hours=hours) / _SPARKS

    async def work() -> tuple[TerminalLine, list[CurvePoint]]:
        async with open_pool(settings.database_url, name="cli", size=1) as pool:
            line = await read_terminal(pool, terminal)
            return line, await read_curve(pool, terminal, begin=end - timedelta(hours=hours), end=end, every=every)

    line, curve = asynchronous(work())
    if as_json:
        show_json({"state": asdict(line), "curve": [asdict(point) for point in curve]})
        return
    for name, value in asdict(line).items():
        if name not in ("fix", "silent_s") and value not in (None, []):
            value = ", ".join(value) if isinstance(value, list) else value
            out.print(f"{name:>14}  {value}", highlight=False)
    begin = end - timedelta(hours=hours)
    for name, values in (
        ("battery_pct", [(point.at, point.battery_pct) for point in curve]),
        ("signal_dbm", [(point.at, point.signal_dbm) for point in curve]),
        ("beats", [(point.at, float(point.beats)) for point in curve]),
    ):
        known = [value for _, value in values if value is not None]
        if known:
            drawn = sparkline([((at - begin) / every, value) for at, value in values if value is not None], _SPARKS)
            out.print(f"{name:>14}  {drawn}  {min(known):.0f} to {max(known):.0f}", highlight=False)


@terminal_app.command("test-window")
def open_test_window(
    ctx: typer.Context,
    terminal: str,
    minutes: Annotated[int, typer.Option(min=1, max=1440, help="How long test presses are believed.")] = 15,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "commissioning",
) -> None:
    """Believe the test flag of a terminal for some minutes. A press without the flag stays real."""
    settings = settings_of(ctx)

    async def work() -> None:
        async with open_pool(settings.database_url, name="cli", size=1) as pool:
            await open_window(pool, terminal, minutes=minutes, reason=reason, by="cli")

    asynchronous(work())
    out.print(f"test presses of {terminal} are believed for {minutes} minutes", highlight=False)


@terminal_app.command("troubles")
def show_troubles(
    ctx: typer.Context,
    terminal: Annotated[str | None, typer.Argument(help="Only of this terminal.")] = None,
    cause: Annotated[str | None, typer.Option(help="Only these, for example offline.")] = None,
    district: Annotated[str | None, typer.Option(help="Only of this district.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Those that are over as well.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=500, help="At most so many.")] = 50,
    as_json: Json = False,
) -> None:
    """List what is wrong with terminals now, newest first."""
    settings = settings_of(ctx)

    async def work() -> list[TroubleLine]:
        async with open_pool(settings.database_url, name="cli", size=1) as pool:
            page = await list_troubles(
                pool,
                is_open=None if everything else True,
                cause=cause,
                terminal=terminal,
                district=district,
                limit=limit,
            )
            return list(page.items)

    found = asynchronous(work())
    if as_json:
        show_json([asdict(one) for one in found])
        return
    show_table(
        "Troubles",
        ["terminal", "cause", "since", "over", "household", "incident", "detail"],
        [
            [
                one.terminal,
                one.cause,
                _time(one.since),
                _time(one.cleared_at),
                one.household or "",
                str(one.incident or ""),
                ", ".join(f"{name} {value}" for name, value in one.detail.items()),
            ]
            for one in found
        ],
    )


@terminal_app.command("incidents")
def show_incidents(
    ctx: typer.Context,
    everything: Annotated[bool, typer.Option("--all", help="Those that are over as well.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=500, help="At most so many.")] = 50,
    as_json: Json = False,
) -> None:
    """List what many terminals of one area have in common now."""
    settings = settings_of(ctx)

    async def work() -> list[IncidentLine]:
        async with open_pool(settings.database_url, name="cli", size=1) as pool:
            page = await list_incidents(pool, is_open=None if everything else True, limit=limit)
            return list(page.items)

    found = asynchronous(work())
    if as_json:
        show_json([asdict(one) for one in found])
        return
    show_table(
        "Incidents",
        ["incident", "area", "cause", "since", "over", "in trouble", "of all"],
        [
            [
                str(one.id),
                one.kind or "site",
                one.cause,
                _time(one.since),
                _time(one.cleared_at),
                str(one.in_trouble),
                str(one.of_all),
            ]
            for one in found
        ],
    )


@terminal_app.command("uptime")
def show_uptime(
    ctx: typer.Context,
    days: Annotated[int, typer.Option(min=1, max=366, help="How far back to look.")] = 30,
    district: Annotated[str | None, typer.Option(help="Only of this district.")] = None,
    as_json: Json = False,
) -> None:
    """Show by district how long terminals were there, and for how long persons had none that could have called."""
    settings = settings_of(ctx)
    end = datetime.now(UTC)

    async def work() -> Uptime:
        async with open_pool(settings.database_url, name="cli", size=1) as pool:
            return await read_uptime(pool, begin=end - timedelta(days=days), end=end, district=district)

    found = asynchronous(work())
    if as_json:
        show_json(asdict(found))
        return
    show_table(
        f"The last {days} days",
        ["district", "terminals", "uptime", "losses", "persons", "unprotected hours"],
        [
            [
                one.district,
                str(one.terminals),
                f"{1 - one.offline_h / one.supervised_h:.4%}" if one.supervised_h else "",
                str(one.losses),
                str(one.persons),
                f"{one.unprotected_h:.1f}",
            ]
            for one in found.districts
        ],
    )


def _time(at: datetime | None) -> str:
    return "" if at is None else at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
