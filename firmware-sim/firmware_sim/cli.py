"""The commands of the witness: ``onekey demo``, ``onekey bench``, ``onekey fuzz`` and ``onekey simulate``."""

import asyncio
import json
import re
import signal
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from rich.console import Console
from rich.text import Text

# What the commands need is imported when one of them runs: every ``onekey`` loads this module.

__all__ = ["bench_app", "demo", "fuzz_app", "simulate", "simulate_modem"]

_T = TypeVar("_T")
_UNITS_S = {"s": 1.0, "min": 60.0, "h": 3600.0}

bench_app = typer.Typer(help="Measure a gateway of its own against the bars of the design.", no_args_is_help=True)
fuzz_app = typer.Typer(help="Throw broken frames at a reader until something breaks.", no_args_is_help=True)


def _run(what: Coroutine[Any, Any, _T]) -> _T:
    """Run `what`; SIGTERM ends it like ctrl-C, so that the gateway it started is stopped too."""
    from firmware_sim.stack import StackError

    async def interruptible() -> _T:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await what

    try:
        return asyncio.run(interruptible())
    except asyncio.CancelledError:
        raise typer.Exit(143) from None
    except (StackError, ValueError) as exc:
        _say(exc)
    except BaseExceptionGroup as group:
        # What fails beside running tasks comes out of their group.
        expected, others = group.split((StackError, ValueError))
        if expected is None or others is not None:
            raise
        for one in _flat(expected):
            _say(one)
    raise typer.Exit(2)


def _flat(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for exc in group.exceptions:
        if isinstance(exc, BaseExceptionGroup):
            yield from _flat(exc)
        else:
            yield exc


def _say(exc: BaseException) -> None:
    Console(stderr=True).print(Text("onekey: ", style="bold red") + Text(str(exc)), soft_wrap=True)


def _rate(text: str) -> float:
    """Parse ``5``, ``5/s``, ``30/min`` or ``100/h`` into a number a second."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(?:/(s|min|h))?", text.strip())
    if match is None:
        raise typer.BadParameter("write a rate like 5/s, 30/min or 100/h")
    return float(match[1]) / _UNITS_S[match[2] or "s"]


def simulate_modem(
    paths: Annotated[list[Path], typer.Argument(help="Where the modems are to be found, as /tmp/modem0.")],
    persona: Annotated[list[str] | None, typer.Option(help="sim800, a7670 or ec25; several in turn.")] = None,
    pin: Annotated[str | None, typer.Option(help="PIN of their SIMs.", show_default=False)] = None,
    speed: Annotated[float, typer.Option(min=0.1, max=100, help="How much faster the network's clock goes.")] = 1.0,
) -> None:
    """Have GSM modems on pseudo-terminals, with a small phone network that does what is typed.

    Give their paths to the gateway in onekey.toml (docs/modems.md), or to onekey modem test.
    """
    from firmware_sim.modem import console
    from firmware_sim.modem.personas import PERSONAS

    unknown = [name for name in persona or () if name not in PERSONAS]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]} is none of {', '.join(PERSONAS)}", param_hint="--persona")
    if any(path.exists() and not path.is_symlink() for path in paths):
        raise typer.BadParameter("there is something already", param_hint="PATHS")
    chosen = [PERSONAS[name] for name in persona or PERSONAS]
    out = Console()
    _run(console.run(paths, chosen, pin=pin, speed=speed, say=lambda line: out.print(Text(line), soft_wrap=True)))


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running and say what to try next.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdict as JSON.")] = False,
    terminals: Annotated[int, typer.Option(min=1, max=500, help="Terminals to switch on; one presses its key.")] = 5,
) -> None:
    """Press one key and watch six parties being told (R1), everything on this machine.

    Starts a gateway in a scratch directory on free ports, with the Nanjing example, six parties as HTTP
    servers and a few virtual terminals. Ends with status 0 when everything was as promised, 1 when not.
    """
    from firmware_sim import demo

    console = Console(stderr=as_json)
    passed = _run(demo.run(terminals=terminals, keep=keep, as_json=as_json, console=console))
    raise typer.Exit(0 if passed else 1)


_Rate = Annotated[str, typer.Option(help="Presses a second, as 5/s.")]
_JsonFile = Annotated[Path | None, typer.Option("--json", help="Write all figures to this file.")]
_PlotFile = Annotated[Path | None, typer.Option("--plot", help="Draw the curves: a .png or .svg file.")]
_Seed = Annotated[int, typer.Option(help="For everything that is random, and the made-up site.")]


def _bench_rate(text: str) -> float:
    rate_per_s = _rate(text)
    if rate_per_s <= 0:
        raise typer.BadParameter("a bench has to press: write a rate above 0")
    return rate_per_s


def _end_bench(document: dict[str, Any], json_file: Path | None) -> NoReturn:
    if json_file is not None:
        json_file.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    raise typer.Exit(0 if document["passed"] else 1)


@fuzz_app.command("gsm")
def _fuzz_gsm(
    minutes: Annotated[float, typer.Option(min=0.01, help="For how long.")] = 1.0,
    seed: Annotated[int, typer.Option(help="What is broken, and how.")] = 1,
    engine: Annotated[
        str, typer.Option(help="atheris: steered by the code that was reached; own: at random; auto: what is there.")
    ] = "auto",
    folder: Annotated[Path, typer.Option(help="Where what failed is left.")] = Path("fuzz-gsm"),
) -> None:
    """Break SMS and modem dialogues in every way, and see whether anything but a refusal comes of it.

    Ends with status 1 when something does, and leaves the input in a file. atheris is used where it is installed
    (``pip install atheris``).
    """
    from firmware_sim import fuzz_gsm

    console = Console()
    if engine not in ("auto", "own", "atheris"):
        raise typer.BadParameter("write auto, own or atheris")
    steered = engine == "atheris" or (engine == "auto" and fuzz_gsm.has_atheris())
    if steered and not fuzz_gsm.has_atheris():
        raise typer.BadParameter("atheris is not installed: pip install atheris")
    if steered:
        failure = fuzz_gsm.run_atheris(seconds=minutes * 60, folder=folder)
    else:
        with console.status("") as status:
            count, failure = fuzz_gsm.run_own(
                seed=seed, seconds=minutes * 60, progress=lambda done: status.update(f"{done} broken inputs")
            )
        console.print(f"{count} broken inputs, seed {seed}", highlight=False)
    if failure is None:
        console.print("[green]PASS[/]: all read or refused, and no message after them lost")
        return
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "failed.bin"
    file.write_bytes(failure.data)
    console.print(
        f"[bold red]FAIL[/]: {failure.problem}\n{failure.data.hex()}\nin {file}", highlight=False, soft_wrap=True
    )
    raise typer.Exit(1)


@bench_app.command("press")
def _bench_press(
    presses: Annotated[int, typer.Option(min=1, max=5000, help="Presses in each phase.")] = 300,
    rate: _Rate = "5/s",
    heartbeats: Annotated[float, typer.Option(min=0, help="Heartbeats a second beside it; 0: idle only.")] = 1000.0,
    json_file: _JsonFile = None,
    plot_file: _PlotFile = None,
    database: Annotated[str | None, typer.Option(help="PostgreSQL to use; default: the embedded one.")] = None,
    mqtt: Annotated[str | None, typer.Option(help="MQTT broker to use; default: the embedded one.")] = None,
    seed: _Seed = 1,
) -> None:
    """Measure the way from a key to each of six parties, idle and under load, beside the floor of this machine.

    The floor is one hop through the broker, one commit and one HTTP request, measured between the presses against
    the same servers. Ends with status 1 when a bar was missed or anything did not arrive.
    """
    from firmware_sim import bench_press, bench_report
    from firmware_sim.figures import Options

    console = Console()
    options = Options(
        presses=presses,
        rate_per_s=_bench_rate(rate),
        heartbeats_per_s=heartbeats,
        database=database,
        mqtt=mqtt,
        seed=seed,
    )
    report = _run(bench_press.run(options, console))
    bench_report.show_press(report, console)
    if plot_file is not None:
        bench_report.plot_press(report, plot_file)
    _end_bench(report.document(), json_file)


@bench_app.command("parties")
def _bench_parties(
    presses: Annotated[int, typer.Option(min=1, max=2000, help="Presses of each kind.")] = 200,
    rate: _Rate = "5/s",
    json_file: _JsonFile = None,
    plot_file: _PlotFile = None,
    seed: _Seed = 1,
) -> None:
    """Measure whether bad parties delay the good ones.

    Households with six good parties press in turn with others, of whose six one hangs for 30 s, one resets the
    connection and one has a name that never resolves. Ends with status 1 when the good parties of the latter are told
    later than the bar allows, or anything did not arrive.
    """
    from firmware_sim import bench_parties, bench_report

    console = Console()
    options = bench_parties.Options(presses=presses, rate_per_s=_bench_rate(rate), seed=seed)
    report = _run(bench_parties.run(options, console))
    bench_report.show_parties(report, console)
    if plot_file is not None:
        bench_report.plot_parties(report, plot_file)
    _end_bench(report.document(), json_file)


@bench_app.command("storm")
def _bench_storm(
    presses: Annotated[int, typer.Option(min=1, max=10_000, help="Keys that are pressed at once.")] = 2000,
    technical: Annotated[
        int | None,
        typer.Option(min=100, max=15_000, help="Instead: so many technical alarms at once, and falls in their midst."),
    ] = None,
    json_file: _JsonFile = None,
    plot_file: _PlotFile = None,
    seed: _Seed = 1,
) -> None:
    """Press every key at once and measure until the last of six parties was told of the last press.

    Ends with status 1 when fewer deliveries a second than the bar were made, of the last press nobody was told for too
    long, one was lost, or a party was alerted to one case under two ids. With --technical: when a fall in the midst of
    technical alarms is told later than the bar allows, or any of these alarms is lost.
    """
    from firmware_sim import bench_report, bench_storm, bench_technical

    console = Console()
    if technical is not None:
        options = bench_technical.Options(technical=technical, seed=seed)
        midst = _run(bench_technical.run(options, console))
        bench_report.show_technical(midst, console)
        if plot_file is not None:
            bench_report.plot_technical(midst, plot_file)
        _end_bench(midst.document(), json_file)
    report = _run(bench_storm.run(bench_storm.Options(presses=presses, seed=seed), console))
    bench_report.show_storm(report, console)
    if plot_file is not None:
        bench_report.plot_storm(report, plot_file)
    _end_bench(report.document(), json_file)


@bench_app.command("telemetry")
def _bench_telemetry(
    seconds: Annotated[float, typer.Option(min=3, max=3600, help="Seconds of telemetry.")] = 20.0,
    presses: Annotated[int, typer.Option(min=1, max=1000, help="Presses on each side.")] = 60,
    json_file: _JsonFile = None,
    plot_file: _PlotFile = None,
    seed: _Seed = 1,
) -> None:
    """Measure how many reports a second the gateway stores while terminals send as much as it takes.

    Beside it stand the same client that only acknowledges, and a gateway with a transaction for every report; then keys
    are pressed beside telemetry at the bar's rate. Ends with status 1 when fewer reports a second were stored than the
    bars allow, one is missing or there twice, the gateway's memory grows, or a party hears of a press too late.
    """
    from firmware_sim import bench_report, bench_telemetry

    console = Console()
    options = bench_telemetry.Options(seconds=seconds, presses=presses, seed=seed)
    report = _run(bench_telemetry.run(options, console))
    bench_report.show_telemetry(report, console)
    if plot_file is not None:
        bench_report.plot_telemetry(report, plot_file)
    _end_bench(report.document(), json_file)


@bench_app.command("supervise")
def _bench_supervise(
    terminals: Annotated[int, typer.Option(min=1000, help="Terminals that report.")] = 100_000,
    seconds: Annotated[float, typer.Option(min=200, help="Seconds to watch.")] = 420.0,
    silent: Annotated[int, typer.Option(min=30, help="How many of them fall silent, or nearly.")] = 2000,
    sweeps: Annotated[bool, typer.Option(help="Measure sweeps with 10,000 and 1,000,000 registered as well.")] = True,
    json_file: _JsonFile = None,
    seed: _Seed = 1,
) -> None:
    """Measure how soon lost terminals are found, and whether any is found that is none.

    The gateway is killed three times meanwhile, and its clock put forward by an hour (needs libfaketime). Ends with
    status 1 when a silence or a return is missed, late or made up, or a sweep takes longer the more are registered.
    """
    from firmware_sim import bench_report, bench_supervise

    console = Console()
    options = bench_supervise.Options(
        terminals=terminals,
        seconds=seconds,
        silent=silent,
        registered=(10_000, 1_000_000) if sweeps else (),
        seed=seed,
    )
    report = _run(bench_supervise.run(options, console))
    bench_report.show_supervise(report, console)
    _end_bench(report.document(), json_file)


@bench_app.command("modem")
def _bench_modem(
    messages: Annotated[int, typer.Option(min=50, max=5000, help="Guardians who are to be told by SMS.")] = 1000,
    falls: Annotated[int, typer.Option(min=1, max=500, help="Falls among so many low batteries.")] = 100,
    modems: Annotated[int, typer.Option(min=1, max=16, help="Modems.")] = 4,
    speed: Annotated[float, typer.Option(min=1, max=50, help="How much faster the network's clock goes.")] = 10.0,
    plot_file: _PlotFile = None,
    json_file: _JsonFile = None,
    seed: _Seed = 1,
) -> None:
    """Measure how fast messages are read, and what modems do while more waits than they can send.

    Runs a gateway of its own with simulated modems. Ends with status 1 when a guardian is not told, messages about
    batteries go before messages about falls, or a modem stands idle.
    """
    from firmware_sim import bench_modem, bench_report

    console = Console()
    options = bench_modem.Options(messages=messages, falls=falls, modems=modems, speed=speed, seed=seed)
    report = _run(bench_modem.run(options, console))
    bench_report.show_modem(report, console)
    if plot_file is not None:
        bench_report.plot_modem(report, plot_file)
    _end_bench(report.document(), json_file)


@bench_app.command("series")
def _bench_series(
    days: Annotated[int, typer.Option(min=2, max=150, help="Days of telemetry.")] = 30,
    terminals: Annotated[
        int, typer.Option(min=10, max=10_000, help="Terminals, each with a report every 5 min.")
    ] = 2000,
    json_file: _JsonFile = None,
    seed: _Seed = 1,
) -> None:
    """Measure how long a month of telemetry takes to answer, and whether dropping a day holds up who writes.

    Fills the series of a gateway of its own with made-up reports: 35 million rows and some 5 GB in the scratch
    directory for 30 days. Ends with status 1 when the track of a day or a page of newest states takes too long, or a
    writer waits.
    """
    from firmware_sim import bench_report, bench_series

    console = Console()
    options = bench_series.Options(days=days, terminals=terminals, seed=seed)
    report = _run(bench_series.run(options, console))
    bench_report.show_series(report, console)
    _end_bench(report.document(), json_file)


@bench_app.command("history")
def _bench_history(
    presses: Annotated[int, typer.Option(min=1, max=2000, help="Presses of each gateway.")] = 200,
    cases: Annotated[int, typer.Option(min=1, help="Closed cases in the full history.")] = 1_000_000,
    rate: _Rate = "5/s",
    json_file: _JsonFile = None,
    seed: _Seed = 1,
) -> None:
    """Measure whether opening a case takes longer when many are closed.

    Runs two gateways and fills the history of one with copies of cases that were really opened and closed; then both
    are pressed in turn. A million cases take an hour and 40 GB in the scratch directory. Ends with status 1 when the
    median press takes longer than the bar allows, or anything did not arrive.
    """
    from firmware_sim import bench_history, bench_report

    console = Console()
    options = bench_history.Options(presses=presses, cases=cases, rate_per_s=_bench_rate(rate), seed=seed)
    report = _run(bench_history.run(options, console))
    bench_report.show_history(report, console)
    _end_bench(report.document(), json_file)


def simulate(
    mqtt: Annotated[str, typer.Option(help="Broker of the running gateway.")] = "mqtt://127.0.0.1:1883",
    site: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Site file with the terminals.")
    ] = None,
    terminals: Annotated[int | None, typer.Option(min=1, help="Instead: so many made-up terminals.")] = None,
    write_site: Annotated[
        Path | None, typer.Option(help="Write the site of the made-up terminals, to be applied first, and end.")
    ] = None,
    duration: Annotated[float, typer.Option(min=1, help="Seconds to run.")] = 60.0,
    heartbeat: Annotated[float, typer.Option(min=0, help="Seconds between heartbeats of a terminal; 0: none.")] = 60.0,
    fix: Annotated[float | None, typer.Option(min=1, help="Seconds between positions of a terminal.")] = None,
    presses: Annotated[str, typer.Option(help="Presses of all together, as 6/min.")] = "0",
    kind: Annotated[list[str] | None, typer.Option(help="What a press reports; may be repeated.")] = None,
    test: Annotated[bool, typer.Option("--test", help="Mark presses as tests; counts only in a test window.")] = False,
    connects: Annotated[float, typer.Option(min=1, help="Connections a second at the start.")] = 100.0,
    seed: Annotated[int, typer.Option(help="For everything that is random, and the made-up terminals.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Run virtual terminals against a gateway that is running: heartbeats, positions, presses.

    Presses are real: every party of the site is told. Ends with status 1 when a terminal never came online or a
    press was not received within a minute after the end.
    """
    from firmware_sim import simulate
    from firmware_sim.sites import SiteFile, made_up

    if (site is None) == (terminals is None):
        raise typer.BadParameter("give either --site FILE or --terminals N")
    try:
        file = SiteFile.load(site) if site is not None else made_up(terminals or 0, seed=seed)
        entries = file.terminals()
    except ValueError as exc:
        raise typer.BadParameter(str(exc)) from exc
    console = Console(stderr=as_json)
    if write_site is not None:
        file.save(write_site)
        console.print(f"Written: {len(entries)} terminals. Apply it with: onekey site apply {write_site}")
        return
    options = simulate.Options(
        mqtt=mqtt,
        duration_s=duration,
        heartbeat_every_s=heartbeat,
        fix_every_s=fix,
        presses_per_s=_rate(presses),
        kinds=tuple(kind or ("sos",)),
        test=test,
        connects_per_s=connects,
        seed=seed,
    )
    outcome = _run(simulate.run(entries, options, console))
    console.print(
        f"{outcome.terminals - outcome.never_online} of {outcome.terminals} terminals were online; "
        f"{outcome.presses - len(outcome.unreceived)} of {outcome.presses} presses were received."
    )
    for press in outcome.unreceived[:40]:
        console.print(Text(f"never received: {press}", style="red"))
    console.print("[bold green]PASS[/bold green]" if outcome.passed else "[bold red]FAIL[/bold red]")
    if as_json:
        Console().print_json(data=outcome.document())
    raise typer.Exit(0 if outcome.passed else 1)
