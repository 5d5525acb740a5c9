"""How the benches show what they measured: tables on a console, curves in a file."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from firmware_sim import bench_history as histories
from firmware_sim import bench_modem as modems
from firmware_sim import bench_parties as parties
from firmware_sim import bench_series as series_bench
from firmware_sim import bench_storm as storms
from firmware_sim import bench_supervise as supervise
from firmware_sim import bench_technical as technicals
from firmware_sim import bench_telemetry as telemetry
from firmware_sim.figures import BARS, QUANTILES, Judged, Phase, Report, quantile, summary
from firmware_sim.sites import NANJING, ROLE_WORDS

__all__ = [
    "plot_modem",
    "plot_parties",
    "plot_press",
    "plot_storm",
    "plot_technical",
    "plot_telemetry",
    "show_history",
    "show_modem",
    "show_parties",
    "show_press",
    "show_series",
    "show_storm",
    "show_supervise",
    "show_technical",
    "show_telemetry",
]

_FAILURES_SHOWN = 40
_QUANTILES = ("p50", "p95", "p99", "max")


# ---------------------------------------------------------------- on a console


def show_press(report: Report, console: Console) -> None:
    """Print figures and verdict."""
    _show_machine(report, console)
    for phase in report.phases:
        title = f"\n{phase.name}: {len(phase.samples)} presses at {report.options.rate_per_s:g}/s"
        if phase.asked_per_s:
            title += f", {phase.confirmed_per_s:.0f} heartbeats/s confirmed"
        console.print(_press_table(phase, title))
    console.print(f"{report.duplicates} webhooks came twice.")
    bars = ", ".join(f"{bar.name} ≤ {bar.limit_ms:.0f} ms" for bar in BARS)
    _show_verdict(report, f"p99 of {bars}", console)


def _press_table(phase: Phase, title: str) -> Table:
    table = _table(title, "from publication to, ms", *_QUANTILES, "p50 ÷ floor", "p99 ÷ floor")
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
        values = series[key]
        ratios = [f"{quantile(values, q) / quantile(floor, q):.1f}" if values and floor else "–" for q in (0.5, 0.99)]
        table.add_row(name, *_figures(values), *ratios, end_section=key in ("floor", "ambulance_120"))
    return table


def show_parties(report: parties.Report, console: Console) -> None:
    """Print figures and verdict."""
    _show_machine(report, console)
    options, series = report.options, report.series()
    title = f"\n{options.presses} presses of each kind at {options.rate_per_s:g}/s, legs of {', '.join(parties.GOOD)}"
    table = _table(title, "from publication to a good party, ms", *_QUANTILES)
    names = {
        "before": "all six good, before any bad party was called",
        "control": "all six good, in turn with the next",
        "troubled": "three of six bad",
    }
    for key, name in names.items():
        table.add_row(name, *_figures(series[key]), end_section=key in ("before", "troubled"))
    if series["control"] and series["troubled"]:
        pairs = [(quantile(series["troubled"], q), quantile(series["control"], q)) for q in QUANTILES]
        table.add_row("difference of the last two", *(f"{troubled - control:+.1f}" for troubled, control in pairs))
        table.add_row("ratio of the last two", *(f"{troubled / control:.2f}" for troubled, control in pairs))
    console.print(table)
    if report.chance is not None:
        console.print(
            f"Shuffled at random, the presses differ at least so much at p99 in {report.chance:.0%} of cases."
        )
    calls = ", ".join(f"{name} {number} times" for name, number in report.bad_calls.items())
    console.print(f"Called meanwhile: {calls}.")
    bar = f"control + {parties.SLACK_MS:.0f} ms, or {parties.SLACK_RATIO:g} × control if that is more"
    _show_verdict(report, f"p99 with three bad parties ≤ {bar}; ≤ {parties.LIMIT_MS:.0f} ms in any case", console)


def show_storm(report: storms.Report, console: Console) -> None:
    """Print figures and verdict."""
    _show_machine(report, console)
    storm, series = report.storm, report.series()
    console.print(f"\n{report.options.presses} keys at once, {len(NANJING)} parties each")
    moments = _table("", "since the first publication", "ms")
    moments.add_row("last alarm published", _ms(storm.published_ms))
    moments.add_row("last alarm confirmed by the broker", _ms(storm.confirmed_ms))
    moments.add_row("last alarm committed: «received» at its terminal", _ms(storm.received_ms))
    moments.add_row("of the last press, the first party told", _ms(storm.first_ms))
    moments.add_row("last party told", _ms(storm.told_ms))
    console.print(moments)
    table = _table("", "from a press to its, ms", *_QUANTILES)
    table.add_row("«received» at the terminal", *_figures(series["received"]))
    table.add_row("last of six", *_figures(series["last"]))
    console.print(table)
    lost = report.options.presses * len(NANJING) - storm.deliveries
    console.print(
        f"{storm.deliveries} deliveries, {storm.per_s:.0f}/s; {lost} lost; "
        f"{storm.duplicates} came twice under the same id."
    )
    _show_busy(report.busy, console)
    console.print(f"Processor time of everything together: {report.cpu_ms:.2f} ms for one delivery.")
    console.print(
        f"A bare HTTP client, which stores and signs nothing, then made {report.bare_per_s:.0f} requests/s of the same "
        f"size to the same parties: {storm.per_s / report.bare_per_s:.2f} of that was reached."
    )
    bar = (
        f"≥ {storms.BAR_PER_S:.0f} deliveries/s; of the last press the first party told within "
        f"{storms.FIRST_WITHIN_MS:.0f} ms; none lost, none twice under another id"
    )
    _show_verdict(report, bar, console)


def show_history(report: histories.Report, console: Console) -> None:
    """Print figures and verdict."""
    _show_machine(report, console)
    series = report.series()
    options = report.options
    console.print(f"\n{report.closed:,} closed cases in the full history, {report.bytes / 1e9:.1f} GB of database")
    for key, name in (("received", "«received»: the case is committed"), ("last", "the last of six parties")):
        before, after = series["empty"][key], series["full"][key]
        title = f"\n{options.presses} presses of each gateway, in turn, at {options.rate_per_s:g}/s"
        table = _table(title if key == "received" else "", f"from publication to {name}, ms", *_QUANTILES)
        table.add_row("no history", *_figures(before))
        table.add_row("history full", *_figures(after), end_section=True)
        if before and after:
            table.add_row("ratio", *(f"{quantile(after, q) / quantile(before, q):.2f}" for q in QUANTILES))
        console.print(table)
    _show_verdict(report, f"median until the case is committed ≤ {histories.RATIO:g} × that with none closed", console)


def show_technical(report: technicals.Report, console: Console) -> None:
    """Print figures and verdict."""
    _show_machine(report, console)
    options, series = report.options, report.series()
    title = f"\n{options.falls} falls on the idle system, as many in the midst of {options.technical} technical alarms"
    table = _table(title, "from a fall to, ms", *_QUANTILES)
    for key, name in (("received", "«received» at the terminal"), ("first", "first of six"), ("last", "last of six")):
        for side, words in (("idle", "idle"), ("midst", "in the midst")):
            table.add_row(f"{name}, {words}", *_figures(series[f"{side}: {key}"]), end_section=side == "midst")
    console.print(table)
    if report.waiting:
        (first, first_notices), (last, last_notices) = report.waiting[0], report.waiting[-1]
        console.print(
            f"At the first of these falls {first} technical alarms waited to be committed and {first_notices} notices "
            f"of such to be sent, at the last {last} and {last_notices}."
        )
    whole = [sample for sample in report.technical if not sample.problems]
    console.print(
        f"{len(whole)} of {options.technical} technical alarms were told to all, within {report.took_s:.1f} s."
    )
    _show_busy(report.busy, console)
    bar = f"p95 of the last of six ≤ that on the idle system + {technicals.SLACK_MS:.0f} ms; no technical alarm lost"
    _show_verdict(report, bar, console)


def show_telemetry(report: telemetry.Report, console: Console) -> None:
    """Print figures and verdict."""
    _show_machine(report, console)
    table = _table(
        "", f"{report.options.seconds:g} s of reports from terminals, QoS 1", "reports/s", "of the bare client"
    )
    rows = (
        ("the bare client: acknowledges, stores nothing", report.floor),
        ("stored, acknowledged after the commit", report.stored),
        ("a transaction for every report", report.naive),
    )
    for name, one in rows:
        table.add_row(name, f"{one.per_s:.0f}", f"{one.per_s / report.floor.per_s:.2f}" if report.floor.per_s else "–")
    console.print(table)
    console.print(f"{report.sent} heartbeats were sent, {report.rows} are stored.")
    memory = [mb for _, _, mb in report.stored.curve]
    if memory:
        grown = telemetry.growth(report.stored.curve)
        console.print(f"Memory of the gateway: {memory[0]:.0f} MB, {memory[-1]:.0f} MB at the end, {grown:.2f} ×.")
    _show_busy(report.stored.busy, console)
    presses = _table("", "from a press to the last of six, ms", *_QUANTILES)
    for name, values in report.series().items():
        presses.add_row(name, *_figures(values))
    console.print(presses)
    bar = (
        f"≥ {telemetry.BAR_PER_S:.0f} reports/s and ≥ {telemetry.SHARE:g} of the bare client; every one stored once; "
        f"memory ≤ {telemetry.GROWTH:g} ×; last of six p99 ≤ {telemetry.LAST_MS:.0f} ms"
    )
    _show_verdict(report, bar, console)


def show_modem(report: modems.Report, console: Console) -> None:
    """Print figures and verdict."""
    _show_machine(report, console)
    options = report.options
    console.print(
        f"{report.decoded_per_s:.0f} messages read a second on one core; their digits alone are made octets "
        f"{report.floor_per_s / report.decoded_per_s:.0f} times as fast."
    )
    table = _table(
        "", f"{options.messages} messages, {options.modems} modems, clock × {options.speed:g}", "messages", "sending"
    )
    for name, share in report.busy.items():
        table.add_row(f"modem …{name[-2:]}", str(sum(one.modem == name for one in report.taken)), f"{share:.1%}")
    console.print(table)
    waits = _table("", "from a fall to its message at the network, s of our clock", *_QUANTILES)
    waits.add_row("falls", *(f"{quantile(list(report.waited_s), q):.2f}" for q in (0.5, 0.95, 0.99, 1.0)))
    console.print(waits)
    console.print(
        f"All was sent within {report.took_s:.1f} s; {report.overtaken} messages about batteries were begun while a "
        f"fall was waiting, {report.missing} guardians were not told."
    )
    bar = f"falls first, nobody left out, each modem sending ≥ {modems.BUSY:.0%} of the time"
    _show_verdict(report, bar, console)


def show_series(report: series_bench.Report, console: Console) -> None:
    """Print figures and verdict."""
    _show_machine(report, console)
    options = report.options
    console.print(
        f"\n{report.rows:,} rows: {options.days} days of {options.terminals} terminals, {report.bytes / 1e9:.1f} GB, "
        f"loaded in {report.load_s:.0f} s"
    )
    table = _table("", "what was asked, ms", *_QUANTILES)
    for name, values in report.ms.items():
        table.add_row(name, *_figures(values))
    console.print(table)
    console.print(f"The oldest day was dropped: {report.dropped} tables in {report.drop_s * 1000:.0f} ms.")
    bar = (
        f"track of a day and a page of newest states p95 ≤ {series_bench.ASKED_MS:.0f} ms; no writer waits longer than "
        f"{series_bench.HELD_UP_MS:.0f} ms for a drop"
    )
    _show_verdict(report, bar, console)


def show_supervise(report: supervise.Report, console: Console) -> None:
    """Print figures and verdict."""
    _show_machine(report, console)
    options, compared = report.options, report.compared
    table = _table(
        f"\n{options.terminals} terminals for {options.seconds:.0f} s, {report.sent} reports",
        "seconds",
        *_QUANTILES,
        "n",
    )
    for name, values in (
        ("a loss found after it could be", compared.found_s),
        ("a return after it", compared.cleared_s),
    ):
        figures = summary(values)
        table.add_row(name, *(f"{figures[q]:.2f}" if q in figures else "–" for q in _QUANTILES), str(len(values)))
    console.print(table)
    console.print(
        f"{len(report.deaf)} restarts, nothing heard for "
        + ", ".join(f"{end - begin:.1f} s" for begin, end in report.deaf)
        + f"; {compared.after_restart} losses were found right after one; "
        + ("the clock was put forward by an hour." if report.jumped else "the clock was not put forward.")
    )
    console.print(
        f"{len(compared.missed)} missed, {len(compared.false)} made up, {len(compared.late)} late; "
        f"{report.open_cases} open technical cases, {report.cases_twice} twice."
    )
    for count, ms in report.sweep_ms.items():
        console.print(f"A sweep with {count} terminals registered: {ms:.2f} ms.")
    bar = f"every loss and return within {supervise.FOUND_S:.0f} s, none missed, none made up; sweeps flat"
    _show_verdict(report, bar, console)


def _show_busy(busy: Mapping[str, float], console: Console) -> None:
    if busy:
        shares = ", ".join(f"{part} {share:.0%}" for part, share in busy.items())
        console.print(f"Share of one core: {shares}; together {sum(busy.values()):.0%}.")


def _show_machine(report: Judged, console: Console) -> None:
    machine = report.machine
    console.print(
        f"{machine['cores_usable']} of {machine['cores']} cores, Python {machine['python']}, {machine['system']}, "
        f"load average before {machine['load_average_before']}"
    )


def _show_verdict(report: Judged, bar: str, console: Console) -> None:
    for failure in report.failures[:_FAILURES_SHOWN]:
        console.print(Text(failure, style="red"))
    if len(report.failures) > _FAILURES_SHOWN:
        console.print(f"[red]… and {len(report.failures) - _FAILURES_SHOWN} more[/red]")
    verdict = "[bold green]PASS[/bold green]" if report.passed else "[bold red]FAIL[/bold red]"
    console.print(f"{verdict}: {bar}")


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(title=title or None, title_justify="left")
    table.add_column(first)
    for heading in others:
        table.add_column(heading, justify="right")
    return table


def _figures(values: Sequence[float]) -> list[str]:
    return [f"{quantile(values, q):.1f}" if values else "–" for q in QUANTILES]


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"


# ---------------------------------------------------------------- as curves


def plot_press(report: Report, file: Path) -> None:
    """Draw how many of the presses had reached the last party after which time, with the bar, as PNG or SVG."""
    limit_ms = next(bar.limit_ms for bar in BARS if bar.of == "last")

    def draw(axes: Any) -> None:
        for number, phase in enumerate(report.phases):
            series = phase.series()
            for key, style in (("floor", ":"), ("received", "--"), ("last", "-")):
                if series[key]:
                    axes.ecdf(series[key], color=f"C{number}", linestyle=style, label=f"{phase.name}: {key}")

    _plot(draw, file, report.machine, limit_ms=limit_ms, title="One press, six parties", of="presses")


def plot_parties(report: parties.Report, file: Path) -> None:
    """Draw how many of the good parties had been told after which time, with the bar, as PNG or SVG."""
    series = report.series()
    limit_ms = parties.limit_ms(series["control"]) if series["control"] else parties.LIMIT_MS

    def draw(axes: Any) -> None:
        for key, style in (("before", ":"), ("control", "--"), ("troubled", "-")):
            if series[key]:
                axes.ecdf(series[key], linestyle=style, label=key)

    _plot(draw, file, report.machine, limit_ms=limit_ms, title="Good parties beside bad ones", of="good legs")


def _plot(
    draw: Callable[[Any], None],
    file: Path,
    machine: Mapping[str, Any],
    *,
    limit_ms: float,
    title: str,
    of: str,
    since: str = "the alarm was published",
    logarithmic: bool = True,
) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 5), layout="constrained")
    draw(axes)
    axes.axvline(limit_ms, color="black", linewidth=1)
    axes.axhline(0.99, color="grey", linewidth=0.5)
    axes.annotate(f"bar: {limit_ms:.0f} ms", (limit_ms, 0.02), rotation=90, ha="right", fontsize=8)
    if logarithmic:
        axes.set_xscale("log")
    axes.set_xlabel(f"milliseconds since {since}")
    axes.set_ylabel(f"share of {of}")
    axes.set_title(f"{title}: {machine['cores_usable']} cores, Python {machine['python']}")
    axes.grid(visible=True, which="both", alpha=0.2)
    axes.legend(fontsize=8, loc="lower right", bbox_to_anchor=(0.95, 0.05))
    figure.savefig(file)
    plt.close(figure)


def plot_storm(report: storms.Report, file: Path) -> None:
    """Draw how much was done at which time since the first publication, with both bars, as PNG or SVG."""
    rate_ms = report.options.presses * len(NANJING) / storms.BAR_PER_S * 1000

    def draw(axes: Any) -> None:
        for (name, times_ms), style in zip(report.storm.curves.items(), (":", "--", "-"), strict=True):
            if times_ms:
                axes.ecdf(times_ms, linestyle=style, label=name)
        axes.axvline(storms.FIRST_WITHIN_MS, color="black", linewidth=1, linestyle="--")

    _plot(
        draw,
        file,
        report.machine,
        limit_ms=rate_ms,
        title=f"{report.options.presses} keys at once",
        of="presses, or of deliveries",
        since="the first alarm was published",
        logarithmic=False,
    )


def plot_technical(report: technicals.Report, file: Path) -> None:
    """Draw how many of the falls had reached their last party after which time, with the bar, as PNG or SVG."""
    series = report.series()
    limit_ms = (quantile(series["idle: last"], 0.95) if series["idle: last"] else 0.0) + technicals.SLACK_MS

    def draw(axes: Any) -> None:
        for number, side in enumerate(("idle", "midst")):
            for key, style in (("received", ":"), ("last", "-")):
                if series[f"{side}: {key}"]:
                    axes.ecdf(series[f"{side}: {key}"], color=f"C{number}", linestyle=style, label=f"{side}: {key}")

    _plot(draw, file, report.machine, limit_ms=limit_ms, title="Falls beside technical alarms", of="falls")


def plot_modem(report: modems.Report, file: Path) -> None:
    """Draw which message was sent when, by modem."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 3.5), layout="constrained")
    names = sorted(report.busy)
    for fall, colour, words in ((False, "tab:grey", "battery low"), (True, "tab:red", "fall")):
        points = [(one.at_s, names.index(one.modem)) for one in report.taken if one.fall is fall]
        axes.scatter([x for x, _ in points], [y for _, y in points], s=200, marker="|", color=colour, label=words)
    axes.set_yticks(range(len(names)), [f"modem …{name[-2:]}" for name in names])
    axes.set_xlabel("seconds")
    axes.legend(fontsize=8)
    figure.savefig(file)
    plt.close(figure)


def plot_telemetry(report: telemetry.Report, file: Path) -> None:
    """Draw reports a second and the gateway's memory over time, as PNG or SVG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (rates, memory) = plt.subplots(2, 1, figsize=(9, 7), layout="constrained", sharex=True)
    for name, one in (("the bare client", report.floor), ("stored", report.stored)):
        points = one.curve[:: max(10, len(one.curve) // 200)]  # a second at least: counts come in steps
        steps = list(pairwise(points))
        rates.plot(
            [after[0] for _, after in steps],
            [(after[1] - before[1]) / (after[0] - before[0]) for before, after in steps],
            label=name,
        )
        memory.plot([at for at, _, _ in points], [mb for _, _, mb in points], label=name)
    rates.axhline(telemetry.BAR_PER_S, color="black", linewidth=1)
    rates.set_ylabel("reports a second")
    rates.set_ylim(bottom=0)
    memory.set_ylabel("MB of memory")
    memory.set_ylim(bottom=0)
    memory.set_xlabel("seconds")
    machine = report.machine
    rates.set_title(f"Telemetry: {machine['cores_usable']} cores, Python {machine['python']}")
    for axes in (rates, memory):
        axes.grid(visible=True, alpha=0.2)
        axes.legend(fontsize=8, loc="lower right")
    figure.savefig(file)
    plt.close(figure)
