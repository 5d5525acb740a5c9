"""``onekey demo``: one press, six parties, and a verdict that does not come from the gateway.

Everything runs on free ports of loopback in a scratch directory: the gateway as a process of its own, the six
parties of the Nanjing example as HTTP servers, and a handful of terminals of which one presses its key (R1).
"""

import asyncio
import json
import logging
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from random import Random
from time import monotonic_ns
from typing import Any

import aiohttp
from rich.console import Console
from rich.table import Table
from rich.text import Text

from firmware_sim import fleet as fleets
from firmware_sim.fleet import Broker, Fleet, PressRecord
from firmware_sim.responders import Answers, Arrival, Ignores, Responders
from firmware_sim.sites import NANJING, ROLE_WORDS, SiteFile, TerminalEntry, example
from firmware_sim.stack import Api, RunInfo, Stack, StackError
from firmware_sim.terminal import Heard, Output, Received
from protocols.okc import Up, up_topic
from schemas.case import CaseLineOut, CaseOut
from schemas.commands import Progress

__all__ = ["PRESSING", "SPREAD_BAR_MS", "Check", "Verdict", "judge", "run"]

log = logging.getLogger(__name__)

PRESSING = "860000000000001"
_BY_HAND = "860000000000099"
SPREAD_BAR_MS = 50.0
"""Between the first and the last party told: what "at the same time" means here (design, section 5)."""

_ANSWERS: dict[str, Answers] = {
    "guardian": Answers(answer="coming", minutes=12, by="王小明"),
    "hotline": Answers(answer="accepted"),
    "ambulance_120": Answers(answer="accepted"),
}
_TOLD_WITHIN_S = 30.0
_ANSWERED_WITHIN_S = 10.0
_TWICE_WITHIN_S = 2.0
_LOOK_EVERY_S = 0.1


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that had to be so."""

    name: str
    passed: bool = field(kw_only=True)
    found: str = field(kw_only=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the witness says about one press. Times are milliseconds since the press."""

    checks: tuple[Check, ...]
    received_ms: float | None
    told_ms: Mapping[str, float]
    spread_ms: float | None

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)


@dataclass(slots=True)
class _Findings:
    cases: list[CaseLineOut] = field(default_factory=list)
    case: CaseOut | None = None


def judge(
    press: PressRecord,
    arrivals: Sequence[Arrival],
    *,
    parties: Mapping[str, str],
    cases: Sequence[CaseLineOut],
    case: CaseOut | None,
    answers: Mapping[str, Answers],
) -> Verdict:
    """Say whether the press did all that R1 and the design promise.

    Args:
        press: The press, as the terminal saw it.
        arrivals: Everything that reached any party.
        parties: Who had to be told: party to role.
        cases: All cases that the gateway has.
        case: The case of the press, with legs and alarms, where there is one.
        answers: What each role answered.
    """
    checks = []
    received_ms = None if press.received_ns is None else (press.received_ns - press.pressed_ns) / 1e6
    found = "never" if received_ms is None else f"after {received_ms:.1f} ms"
    checks.append(Check("the terminal heard «received»", passed=received_ms is not None, found=found))
    alerts = [
        arrival
        for arrival in arrivals
        if arrival.notice is None or (arrival.notice.type == "case.alert" and arrival.case == press.case)
    ]
    told_ms: dict[str, float] = {}
    for party, role in parties.items():
        own = [arrival for arrival in alerts if arrival.party == party]
        if own:
            told_ms[role] = (own[0].at_ns - press.pressed_ns) / 1e6
        checks.append(_told(role, own))
    spread_ms = max(told_ms.values()) - min(told_ms.values()) if told_ms else None
    strangers = sorted({arrival.party for arrival in alerts} - set(parties))
    checks.append(Check("nobody else was told", passed=not strangers, found=", ".join(strangers) or "nobody"))
    at_once = spread_ms is not None and len(told_ms) == len(parties) and spread_ms <= SPREAD_BAR_MS
    found = "nobody told" if spread_ms is None else f"{spread_ms:.1f} ms from first to last"
    checks.append(Check(f"all within {SPREAD_BAR_MS:.0f} ms of each other", passed=at_once, found=found))
    emergencies = [line for line in cases if line.case_class == "emergency"]
    one_case = [line.id for line in emergencies] == [press.case]
    checks.append(Check("exactly one case", passed=one_case, found=f"{len(emergencies)} emergencies"))
    numbers = [] if case is None else [(alarm.terminal_id, alarm.boot, alarm.seq) for alarm in case.alarms]
    same = numbers == [(press.terminal, press.key.boot, press.key.seq)]
    checks.append(Check("the case holds this press and no other", passed=same, found=f"{len(numbers)} alarms"))
    intact = case is not None and case.journal.intact
    found = "no case" if case is None else case.journal.problem or f"{case.journal.entries} entries"
    checks.append(Check("the journal is whole", passed=intact, found=found))
    for role, answer in answers.items():
        checks.append(_recorded(role, answer, case))
    return Verdict(checks=tuple(checks), received_ms=received_ms, told_ms=told_ms, spread_ms=spread_ms)


def _told(role: str, own: Sequence[Arrival]) -> Check:
    name = f"{role} {ROLE_WORDS.get(role, '')}: once, signed, located"
    problems = [arrival.problem for arrival in own if arrival.problem is not None]
    ids = {arrival.id for arrival in own}
    if not own:
        return Check(name, passed=False, found="never told")
    if problems:
        return Check(name, passed=False, found=problems[0])
    if len(own) > 1:
        return Check(name, passed=False, found=f"{len(own)} times under {len(ids)} ids")
    location = None if own[0].notice is None else own[0].notice.data.location
    if location is None:
        return Check(name, passed=False, found="no location")
    return Check(name, passed=True, found=f"{location.source} {location.datum}")


def _recorded(role: str, expected: Answers, case: CaseOut | None) -> Check:
    name = f"the answer of {role} {ROLE_WORDS.get(role, '')} is on record"
    legs = [] if case is None else [leg for leg in case.legs if leg.role == role]
    given = [(answer.answer, answer.minutes) for leg in legs for answer in leg.answers]
    shown = ", ".join(answer if minutes is None else f"{answer} in {minutes} min" for answer, minutes in given)
    return Check(name, passed=given == [(expected.answer, expected.minutes)], found=shown or "none")


class _Timeline:
    """Prints what happens as it happens, in milliseconds since the press."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._pressed_ns: int | None = None
        self.lines: list[tuple[float, str]] = []

    def start(self, pressed_ns: int) -> None:
        self._pressed_ns = pressed_ns

    def add(self, at_ns: int, what: str, *, style: str = "") -> None:
        if self._pressed_ns is None:
            return
        after_ms = (at_ns - self._pressed_ns) / 1e6
        self.lines.append((after_ms, what))
        self._console.print(Text(f"{after_ms:10.1f} ms  ", style="dim") + Text(what, style=style))


async def run(*, terminals: int, keep: bool, as_json: bool, console: Console) -> bool:
    """Run the demonstration and return whether everything was as promised.

    Args:
        terminals: How many terminals are switched on; one of them presses its key.
        keep: Leave everything running until interrupted, and say what to try.
        as_json: Print one JSON document on standard output; all else goes to `console`.
        console: For progress, timeline and verdict.

    Raises:
        StackError: The gateway did not start, or refused the site.
    """
    folder = Path(tempfile.mkdtemp(prefix="onekey-demo-"))
    passed = False
    try:
        passed = await _run(folder, terminals=terminals, keep=keep, as_json=as_json, console=console)
    finally:
        if passed and not keep:
            shutil.rmtree(folder)
        else:
            console.print(f"The data directory stays: {folder}")
    return passed


async def _run(folder: Path, *, terminals: int, keep: bool, as_json: bool, console: Console) -> bool:
    site = _site(terminals)
    entries = {entry.id: entry for entry in site.terminals()}
    by_hand = entries.pop(_BY_HAND)
    parties = {party: role for party, role in site.roles_of(PRESSING).items() if role in NANJING}
    timeline = _Timeline(console)
    async with AsyncExitStack() as cleanup:
        responders = Responders(site.responders())
        for party in responders.parties.values():
            responders.behave(party.party, _ANSWERS.get(party.role, Ignores()))
        await cleanup.enter_async_context(responders.serving())
        site.point_webhooks(responders.url)
        site.save(folder / "site.yaml")
        stack = Stack(folder / "data", log=folder / "gateway.log")
        info = await cleanup.enter_async_context(_started(stack, console))
        with console.status("Applying the Nanjing example …"):
            await stack.apply_site(folder / "site.yaml")
            key = await stack.create_key(role="operator", name="demo")
        console.print(f"The Nanjing example is in force: {len(parties)} parties stand behind terminal {PRESSING}.")
        api = Api(await cleanup.enter_async_context(aiohttp.ClientSession()), info.http, key)
        fleet = Fleet(
            Broker.from_url(info.mqtt),
            [
                entry.member(heartbeat_every=timedelta(seconds=5), fix_every=timedelta(seconds=10))
                for entry in list(entries.values())[:terminals]
            ],
            rng=Random(1),
            on_output=lambda terminal, output: _show_output(timeline, terminal, output),
        )
        await cleanup.enter_async_context(fleets.running(fleet))
        with console.status(f"Switching on {terminals} terminals …"):
            try:
                async with asyncio.timeout(_TOLD_WITHIN_S):
                    await fleet.wait_online()
            except TimeoutError:
                raise StackError(f"only {fleet.online} of {terminals} terminals came online\n{stack.tail()}") from None
        console.print(f"{terminals} terminals are online at {info.mqtt} and send heartbeats.")
        console.print(f"\n[bold]Terminal {PRESSING} presses its key (sos).[/bold]\n")
        press = fleet.press(PRESSING)
        timeline.start(press.pressed_ns)
        timeline.add(press.pressed_ns, "pressed 按键", style="bold")
        await _watch(responders, parties, press, timeline)
        findings = await _answers(api, press)
        verdict = judge(
            press, responders.arrivals, parties=parties, cases=findings.cases, case=findings.case, answers=_ANSWERS
        )
        _show(verdict, console)
        if as_json:
            Console().print_json(data=_document(verdict, press, timeline))
        if keep:
            _show_what_to_try(console, info=info, key=key, case=str(press.case), terminal=by_hand, folder=folder)
            async with asyncio.TaskGroup() as tasks:
                showing = tasks.create_task(_show_arrivals(responders, console), name="show arrivals")
                await _interrupted()
                showing.cancel()
        return verdict.passed


def _site(terminals: int) -> SiteFile:
    site = SiteFile.load(example("nanjing.yaml"))
    rng = Random()
    site.fill_secrets(rng)
    more = range(len(site.terminals()) + 1, terminals + 1)
    site.add_neighbours([*(f"8600000000{number:05}" for number in more), _BY_HAND], rng)
    return site


@asynccontextmanager
async def _started(stack: Stack, console: Console) -> AsyncIterator[RunInfo]:
    began_ns = monotonic_ns()
    with console.status("Starting PostgreSQL, the broker and the gateway …") as status:
        info = await stack.start(on_state=lambda state: status.update(f"Starting the gateway: {state} …"))
    console.print(f"The gateway is ready after {(monotonic_ns() - began_ns) / 1e9:.1f} s: API at {info.http}")
    try:
        yield info
    finally:
        with console.status("Stopping the gateway …"):
            await stack.stop()


def _show_output(timeline: _Timeline, terminal: str, output: Output) -> None:
    match output:
        case Received():
            timeline.add(monotonic_ns(), "stored, and the terminal heard «received» 已收到", style="green")
        case Heard(message=Progress() as progress):
            who = f" {progress.role} {ROLE_WORDS.get(progress.role, '')}" if progress.role else ""
            when = f", {progress.minutes} min" if progress.minutes is not None else ""
            timeline.add(monotonic_ns(), f"terminal {terminal} hears: {progress.state}{who}{when}", style="magenta")


async def _watch(responders: Responders, parties: Mapping[str, str], press: PressRecord, timeline: _Timeline) -> None:
    """Show arrivals until everybody was told and the terminal knows, then look whether somebody is told twice."""
    shown = 0

    def show(arrivals: list[Arrival]) -> None:
        nonlocal shown
        for arrival in arrivals[shown:]:
            kind = "unreadable" if arrival.notice is None else arrival.notice.type
            what = f"told: {arrival.role} {ROLE_WORDS.get(arrival.role, '')} ({kind})"
            timeline.add(arrival.at_ns, what, style="red" if arrival.problem else "cyan")
        shown = len(arrivals)

    def all_told(arrivals: list[Arrival]) -> bool:
        show(arrivals)
        return set(parties) <= {arrival.party for arrival in arrivals}

    def never(arrivals: list[Arrival]) -> bool:
        show(arrivals)
        return False

    await _at_most(_TOLD_WITHIN_S, lambda: responders.wait(all_told))
    await _at_most(_TOLD_WITHIN_S, press.ended.wait)
    await _at_most(_TWICE_WITHIN_S, lambda: responders.wait(never))


async def _at_most(seconds: float, what: Callable[[], Any]) -> None:
    try:
        async with asyncio.timeout(seconds):
            await what()
    except TimeoutError:
        log.debug("gave up after %s s", seconds)


async def _answers(api: Api, press: PressRecord) -> _Findings:
    """Read the cases until the answers are on record, or it is clear that they will not be."""
    findings = _Findings()
    try:
        async with asyncio.timeout(_ANSWERED_WITHIN_S):
            while True:
                findings.cases = await api.cases()
                if press.case is not None:
                    findings.case = await api.case(press.case)
                    if set(_ANSWERS) <= {leg.role for leg in findings.case.legs if leg.answers}:
                        return findings
                await asyncio.sleep(_LOOK_EVERY_S)
    except TimeoutError:
        return findings


def _show(verdict: Verdict, console: Console) -> None:
    table = Table(title="\nThe verdict of the witness 裁定", title_justify="left")
    table.add_column("")
    table.add_column("what had to be so")
    table.add_column("what was found")
    for check in verdict.checks:
        mark = Text("ok", style="green") if check.passed else Text("NO", style="bold red")
        table.add_row(mark, check.name, check.found)
    console.print(table)
    if verdict.passed:
        console.print(f"[bold green]PASS[/bold green]: one press, {len(verdict.told_ms)} parties told at once.")
    else:
        failed = sum(not check.passed for check in verdict.checks)
        console.print(f"[bold red]FAIL[/bold red]: {failed} of {len(verdict.checks)} checks failed.")


def _document(verdict: Verdict, press: PressRecord, timeline: _Timeline) -> dict[str, Any]:
    return {
        "passed": verdict.passed,
        "terminal": press.terminal,
        "case": None if press.case is None else str(press.case),
        "received_ms": verdict.received_ms,
        "told_ms": dict(verdict.told_ms),
        "spread_ms": verdict.spread_ms,
        "checks": [{"name": c.name, "passed": c.passed, "found": c.found} for c in verdict.checks],
        "timeline": [{"ms": round(ms, 3), "what": what} for ms, what in timeline.lines],
    }


def _show_what_to_try(
    console: Console, *, info: RunInfo, key: str, case: str, terminal: TerminalEntry, folder: Path
) -> None:
    broker = Broker.from_url(info.mqtt)
    alarm = json.dumps({"v": 1, "kinds": ["sos"]}, separators=(",", ":"))
    auth = f"-H 'Authorization: Bearer {key}'"
    lines = [
        ("# press the key of another terminal by hand (package mosquitto-clients)", "dim"),
        (
            (
                f"mosquitto_pub -h {broker.host} -p {broker.port} -V 311 -i {terminal.id} -u {terminal.id} "
                f"-P {terminal.secret} -q 1 -t {up_topic(terminal.id, Up.ALARM)} -m '{alarm}'"
            ),
            "",
        ),
        ("# the open cases, the case of this demonstration, and everything as it happens", "dim"),
        (f"curl -s {auth} '{info.http}/v1/cases?state=open'", ""),
        (f"curl -s {auth} {info.http}/v1/cases/{case}", ""),
        (f"curl -sN {auth} {info.http}/v1/stream", ""),
        ("# the files: the site, the log of the gateway, its data", "dim"),
        (f"ls {folder}", ""),
    ]
    console.print("\n[bold]Everything keeps running. Try:[/bold]\n")
    for line, style in lines:
        # One line each, however wide the window is, so that it can be copied.
        console.print(Text(line, style=style), soft_wrap=True)
    console.print("\nStop with ctrl-C.")


async def _show_arrivals(responders: Responders, console: Console) -> None:
    """Print who is told from now on, so that a press by hand is seen to arrive."""
    shown = len(responders.arrivals)

    def more(arrivals: list[Arrival]) -> bool:
        return len(arrivals) > shown

    while True:
        await responders.wait(more)
        for arrival in responders.arrivals[shown:]:
            kind = "unreadable" if arrival.notice is None else arrival.notice.type
            line = f"{arrival.at:%H:%M:%S.%f} UTC  told: {arrival.role} {ROLE_WORDS.get(arrival.role, '')} ({kind})"
            console.print(Text(line, style="red" if arrival.problem else "cyan"))
            shown += 1


async def _interrupted() -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        await stop.wait()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
