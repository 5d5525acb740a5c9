"""How a bench shows what it measured: tables on a console, curves in a file."""

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from firmware_sim.figures import BARS, QUANTILES, Phase, Report, quantile
from firmware_sim.sites import NANJING, ROLE_WORDS

__all__ = ["plot", "show"]


def show(report: Report, console: Console) -> None:
    """Print figures and verdict."""
    machine = report.machine
    console.print(
        f"{machine['cores_usable']} of {machine['cores']} cores, Python {machine['python']}, {machine['system']}, "
        f"load average before {machine['load_average_before']}"
    )
    for phase in report.phases:
        title = f"\n{phase.name}: {len(phase.samples)} presses at {report.options.rate_per_s:g}/s"
        if phase.asked_per_s:
            title += f", {phase.confirmed_per_s:.0f} heartbeats/s confirmed"
        console.print(_table(phase, title))
    console.print(f"{report.duplicates} webhooks came twice.")
    for failure in report.failures[:40]:
        console.print(Text(failure, style="red"))
    if len(report.failures) > 40:
        console.print(f"[red]… and {len(report.failures) - 40} more[/red]")
    bars = ", ".join(f"{bar.name} ≤ {bar.limit_ms:.0f} ms" for bar in BARS)
    verdict = "[bold green]PASS[/bold green]" if report.passed else "[bold red]FAIL[/bold red]"
    console.print(f"{verdict}: p99 of {bars}")


def _table(phase: Phase, title: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("from publication to, ms")
    for heading in ("p50", "p95", "p99", "max", "p50 ÷ floor", "p99 ÷ floor"):
        table.add_column(heading, justify="right")
    series = phase.series()
    floor = series["floor"]
    names = {
        "floor": "floor: hop + commit + request",
        **{role: f"{role} {ROLE_WORDS[role]}" for role in NANJING},
        "last": "last of six",
        "spread": "spread: first to last",
        "received": "«received» at the terminal",
    }
    for key, name in names.items():
        if not (values := series[key]):
            table.add_row(name, *6 * ("–",))
            continue
        ratios = [f"{quantile(values, q) / quantile(floor, q):.1f}" if floor else "–" for q in (0.5, 0.99)]
        figures = [f"{quantile(values, q):.1f}" for q in QUANTILES]
        table.add_row(name, *figures, *ratios, end_section=key in ("floor", "ambulance_120"))
    return table


def plot(report: Report, file: Path) -> None:
    """Draw how many of the presses had reached the last party after which time, with the bar, as PNG or SVG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 5), layout="constrained")
    for number, phase in enumerate(report.phases):
        series = phase.series()
        for key, style in (("floor", ":"), ("received", "--"), ("last", "-")):
            if series[key]:
                axes.ecdf(series[key], color=f"C{number}", linestyle=style, label=f"{phase.name}: {key}")
    limit_ms = next(bar.limit_ms for bar in BARS if bar.of == "last")
    axes.axvline(limit_ms, color="black", linewidth=1)
    axes.axhline(0.99, color="grey", linewidth=0.5)
    axes.annotate(f"bar: {limit_ms:.0f} ms at 99 %", (limit_ms, 0.02), rotation=90, ha="right", fontsize=8)
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds since the alarm was published")
    axes.set_ylabel("share of presses")
    machine = report.machine
    axes.set_title(f"One press, six parties: {machine['cores_usable']} cores, Python {machine['python']}")
    axes.grid(visible=True, which="both", alpha=0.2)
    axes.legend(fontsize=8, loc="lower right", bbox_to_anchor=(0.95, 0.05))
    figure.savefig(file)
    plt.close(figure)
