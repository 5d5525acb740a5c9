"""``onekey bench modem``: how fast messages are read, and what modems do while more waits than they can send.

A thousand guardians are to be told by SMS, all within a moment: most of them of a battery that is low, and in the midst
of that some of a fall. Four simulated modems send what they can, in a network whose clock is sped up. Whoever waits for
an emergency must not wait behind batteries, and no modem may stand idle while anybody waits.
"""

import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from firmware_sim.bench import installed, machine, online, progress_bar
from firmware_sim.figures import Judged, summary
from firmware_sim.fuzz_gsm import corpus_pdus
from firmware_sim.modem.device import Modem, Sim
from firmware_sim.modem.network import Network
from firmware_sim.modem.personas import PERSONAS
from firmware_sim.modem.ports import pseudo_terminal
from firmware_sim.sites import SiteFile, made_up
from protocols.gsm.tpdu import Deliver, Submit, read_pdu

__all__ = ["BUSY", "Options", "Report", "judge", "run"]

BUSY = 0.95
"""The share of the time during which a modem has to be sending while messages wait for it."""

_DECODING_S = 3.0
_ACCEPT_S = 4.0
"""How long a network takes to accept a message: fifteen a minute."""

_HEAD_START = 0.2
"""The share of the low batteries that is sent before the first fall."""

_STALLED_S = 30.0
_READY_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to measure. ``speed`` is how much faster the network's clock goes than ours."""

    messages: int = 1000
    falls: int = 100
    modems: int = 4
    speed: float = 10.0
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Taken:
    """A message as the network took it: seconds since the first, who sent it to whom, and whether it is of a fall."""

    at_s: float
    modem: str
    fall: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Report(Judged):
    """The whole run.

    Attributes:
        decoded_per_s: Messages read in a second on one core, text included.
        floor_per_s: The same octets only made of their digits.
        taken: Every message that the network took.
        busy: By modem the share of the time during which the network was accepting a message of it.
        overtaken: Messages of batteries that were begun while one of a fall was waiting.
        missing: Guardians whose phone got nothing.
        waited_s: From a fall to the moment when its guardian's message was taken, by our own clock.
        took_s: From the first to the last message.
    """

    options: Options
    decoded_per_s: float
    floor_per_s: float
    taken: tuple[Taken, ...] = field(repr=False)
    busy: dict[str, float]
    overtaken: int
    missing: int
    waited_s: tuple[float, ...]
    took_s: float

    def document(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return self.verdict() | {
            "options": asdict(self.options),
            "decoded_per_s": round(self.decoded_per_s),
            "floor_per_s": round(self.floor_per_s),
            "messages": len(self.taken),
            "busy": {name: round(share, 4) for name, share in self.busy.items()},
            "overtaken": self.overtaken,
            "missing": self.missing,
            "waited_s": summary(list(self.waited_s)),
            "took_s": round(self.took_s, 2),
        }


def judge(options: Options, busy: Sequence[float], overtaken: int, missing: int) -> tuple[str, ...]:
    """Return every reason why the run failed."""
    failures = []
    if missing:
        failures.append(f"{missing} guardians were not told")
    # What is being sent when a fall comes cannot be called back.
    if overtaken > options.modems:
        failures.append(f"{overtaken} messages about batteries were begun while a fall was waiting")
    if not busy or min(busy) < BUSY:
        failures.append(f"a modem was sending for {min(busy, default=0):.1%} of the time; the bar is {BUSY:.0%}")
    return tuple(failures)


def _decoded_per_s() -> tuple[float, float]:
    pdus = corpus_pdus()
    count, began_s = 0, time.perf_counter()
    while time.perf_counter() - began_s < _DECODING_S:
        for pdu, length, from_phone in pdus:
            _, message = read_pdu(pdu, from_phone=from_phone, length=length)
            if isinstance(message, Deliver | Submit):
                _ = message.user.text
        count += len(pdus)
    per_s = count / (time.perf_counter() - began_s)
    began_s = time.perf_counter()
    for _ in range(1000):
        for pdu, _length, _from in pdus:
            bytes.fromhex(pdu)
    return per_s, 1000 * len(pdus) / (time.perf_counter() - began_s)


def _phone(number: int) -> str:
    return f"+8613000{number:06}"


def _site(options: Options) -> SiteFile:
    groups = tuple(f"{number:04}" for number in range(options.messages))
    site = made_up(options.messages, seed=options.seed, prefix="bench", roles=("guardian",), groups=groups)
    for number, group in enumerate(groups):
        site.reach_by_phone(f"bench-{group}-guardian", _phone(number), [{"kind": "sms", "within_s": 60, "parts": 1}])
    site.call_once()
    return site


class _Rack:
    """Modems in a network that notes what it takes and when it is taking."""

    def __init__(self, options: Options) -> None:
        self.network = Network(speed=options.speed, rng=Random(options.seed))
        self.network.accept_s = _ACCEPT_S
        self.begun: list[tuple[float, float, str, str]] = []
        self.accepting_s: dict[str, float] = {}

    def took(self, modem: str, message: Submit) -> None:
        """Note a message that the network has just accepted."""
        now_s = time.monotonic()
        began_s = now_s - self.network.accept_s / self.network.speed
        self.begun.append((began_s, now_s, modem, str(message.recipient)))
        self.accepting_s[modem] = self.accepting_s.get(modem, 0.0) + now_s - began_s


async def run(options: Options, console: Console) -> Report:
    """Read messages, then start a gateway of its own with modems, measure, and stop it again.

    Raises:
        StackError: The gateway, the modems or the terminals did not come up.
    """
    found = machine()
    with console.status("Reading messages …"):
        decoded, floor = _decoded_per_s()
    site = _site(options)
    rack = _Rack(options)
    for number in range(options.messages):
        rack.network.phone(_phone(number))
    rack.network.taking = rack.took
    with TemporaryDirectory(prefix="onekey-modems-") as folder:
        async with AsyncExitStack() as stack:
            paths = []
            for place in range(options.modems):
                port = await stack.enter_async_context(pseudo_terminal(Path(folder) / f"modem{place}"))
                persona = list(PERSONAS.values())[place % len(PERSONAS)]
                modem = Modem(
                    rack.network,
                    Sim(f"+86139000000{place:02}"),
                    port.write,
                    persona=persona,
                    imei=f"8612345678901{place:02}",
                )
                port.feed = modem.feed
                stack.callback(modem.close)
                paths.append(str(port.path))
            stack.push_async_callback(rack.network.close)
            settings = {"ONEKEY_MODEMS": json.dumps([{"path": path, "daily_limit": 100_000} for path in paths])}
            gateway, info = await stack.enter_async_context(installed(site, console, settings=settings))
            with console.status("Waiting for the modems …"):
                await _all_ready(gateway, options.modems)
            fleet = await stack.enter_async_context(
                online(site.terminals(), gateway, info, seed=options.seed, console=console)
            )
            pressed, fallen = await _measure(fleet, site, rack, options, console)
    del pressed
    return _report(options, found, rack, fallen, decoded, floor)


async def _all_ready(gateway: Any, count: int) -> None:
    async with asyncio.timeout(_READY_WITHIN_S):
        while True:
            listed = await gateway.call("modem", "list", "--json")
            if sum(one["state"] == "ready" for one in listed["modems"]) >= count:
                return
            await asyncio.sleep(0.5)


async def _measure(
    fleet: Any, site: SiteFile, rack: _Rack, options: Options, console: Console
) -> tuple[float, dict[str, float]]:
    """Let batteries be low, then people fall; returns when the falls were, by the number of their guardian."""
    terminals = [entry.id for entry in site.terminals()]
    rng = Random(options.seed)
    falling = set(rng.sample(range(options.messages), options.falls))
    began_s = time.monotonic()
    for number, terminal in enumerate(terminals):
        if number not in falling:
            fleet.press(terminal, ("low_battery",))
            if number % 20 == 0:
                await asyncio.sleep(0)
    fallen: dict[str, float] = {}
    left = sorted(falling)
    with progress_bar("Messages", options.messages, console) as show:
        last, still_s = -1, time.monotonic()
        while len({to for *_, to in rack.begun}) < options.messages:
            await asyncio.sleep(0.05)
            done = len(rack.begun)
            if done >= _HEAD_START * options.messages and left:
                # One after the other: each is to find modems in the midst of batteries.
                number = left.pop(0)
                fallen[_phone(number)] = time.monotonic()
                fleet.press(terminals[number], ("fall",))
            if done != last:
                last, still_s = done, time.monotonic()
                show(done)
            elif time.monotonic() - still_s > _STALLED_S:
                break
    return began_s, fallen


def _report(
    options: Options,
    found: dict[str, Any],
    rack: _Rack,
    fallen: dict[str, float],
    decoded: float,
    floor: float,
) -> Report:
    begun = sorted(rack.begun)
    first_s, last_s = begun[0][0], max(end for _, end, _, _ in begun)
    first_to: dict[str, float] = {}
    for start, _, _, to in begun:
        first_to.setdefault(to, start)
    waiting = [(at, first_to[to]) for to, at in fallen.items() if to in first_to]
    # A message needs a moment from the key to the queue: what begins within it was begun before.
    overtaken = sum(
        to not in fallen and any(at + _TO_THE_QUEUE_S < start < sent for at, sent in waiting)
        for start, _, _, to in begun
    )
    # While there is enough for all of them: the last message of each modem ends its time.
    ends = [max(end for _, end, modem, _ in begun if modem == name) for name in rack.accepting_s]
    busy = {
        name: rack.accepting_s[name] / (min(ends) - first_s) if min(ends) > first_s else 0.0
        for name in sorted(rack.accepting_s)
    }
    missing = options.messages - len(first_to)
    shares = [min(1.0, share) for share in busy.values()]
    return Report(
        machine=found,
        failures=judge(options, shares, overtaken, missing),
        options=options,
        decoded_per_s=decoded,
        floor_per_s=floor,
        taken=tuple(Taken(start - first_s, modem, to in fallen) for start, _, modem, to in begun),
        busy=dict(zip(busy, shares, strict=True)),
        overtaken=overtaken,
        missing=missing,
        waited_s=tuple(sent - at for at, sent in waiting),
        took_s=last_s - first_s,
    )


_TO_THE_QUEUE_S = 0.15
