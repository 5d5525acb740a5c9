"""``onekey simulate``: a fleet against a gateway that is running already, and whether it took every press."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from time import monotonic
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from firmware_sim import fleet as fleets
from firmware_sim.figures import quantile, summary
from firmware_sim.fleet import Broker, Fleet, PressRecord
from firmware_sim.sites import TerminalEntry

__all__ = ["Options", "Outcome", "run"]

_REFRESH_S = 0.5
_RECEIVED_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the fleet does. Rates are sums over all terminals; ``heartbeat_every_s`` is that of one terminal."""

    mqtt: str
    duration_s: float = 60.0
    heartbeat_every_s: float = 60.0
    fix_every_s: float | None = None
    presses_per_s: float = 0.0
    kinds: tuple[str, ...] = ("sos",)
    test: bool = False
    connects_per_s: float = 100.0
    seed: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the terminals saw. Times are milliseconds from the key to ``received``."""

    terminals: int
    never_online: int
    connections_lost: int
    telemetry_sent: int
    telemetry_confirmed: int
    presses: int
    unreceived: tuple[str, ...]
    received_ms: tuple[float, ...]

    @property
    def passed(self) -> bool:
        """Whether every terminal came online and every press was received."""
        return not self.unreceived and not self.never_online

    def document(self) -> dict[str, Any]:
        """Return the outcome as plain data."""
        return {
            "passed": self.passed,
            "terminals": self.terminals,
            "never_online": self.never_online,
            "connections_lost": self.connections_lost,
            "telemetry_sent": self.telemetry_sent,
            "telemetry_confirmed": self.telemetry_confirmed,
            "presses": self.presses,
            "unreceived": list(self.unreceived),
            "received_ms": summary(self.received_ms),
        }


async def run(entries: Sequence[TerminalEntry], options: Options, console: Console) -> Outcome:
    """Run the terminals for the wanted time, then wait up to a minute for what is not yet received."""
    rng = Random(options.seed)
    every, fix_every = timedelta(seconds=options.heartbeat_every_s), options.fix_every_s
    fleet = Fleet(
        Broker.from_url(options.mqtt),
        [
            entry.member(
                heartbeat_every=every or None,
                fix_every=None if fix_every is None else timedelta(seconds=fix_every),
            )
            for entry in entries
        ],
        rng=rng,
        connects_per_s=options.connects_per_s,
    )
    began_s = monotonic()
    async with fleets.running(fleet), asyncio.TaskGroup() as tasks:
        showing = tasks.create_task(_show(fleet, began_s, console), name="show")
        pressing = tasks.create_task(_press(fleet, options, rng), name="press")
        await asyncio.sleep(options.duration_s)
        pressing.cancel()
        try:
            async with asyncio.timeout(_RECEIVED_WITHIN_S):
                await fleet.wait_received()
        except TimeoutError:
            # The outcome names what is missing.
            pass
        showing.cancel()
        lost = fleet.counts.disconnects
        never = sum(not fleet.was_online(terminal) for terminal in fleet.terminals)
    return Outcome(
        terminals=len(entries),
        never_online=never,
        connections_lost=lost,
        telemetry_sent=fleet.counts.telemetry_sent,
        telemetry_confirmed=fleet.counts.telemetry_confirmed,
        presses=len(fleet.presses),
        unreceived=tuple(
            f"{press.terminal} {press.key.boot}/{press.key.seq}" for press in fleet.presses if press.received_ns is None
        ),
        received_ms=tuple(_received_ms(fleet.presses)),
    )


async def _press(fleet: Fleet, options: Options, rng: Random) -> None:
    if options.presses_per_s <= 0:
        return
    await fleet.wait_online()
    while True:
        await asyncio.sleep(rng.expovariate(options.presses_per_s))
        fleet.press(rng.choice(fleet.terminals), options.kinds, test=options.test)


def _received_ms(presses: Sequence[PressRecord]) -> list[float]:
    return [(press.received_ns - press.pressed_ns) / 1e6 for press in presses if press.received_ns is not None]


async def _show(fleet: Fleet, began_s: float, console: Console) -> None:
    with Live(console=console, transient=True, auto_refresh=False) as live:
        while True:
            live.update(_table(fleet, monotonic() - began_s), refresh=True)
            await asyncio.sleep(_REFRESH_S)


def _table(fleet: Fleet, running_s: float) -> Table:
    received_ms = _received_ms(fleet.presses)
    table = Table(title=f"{running_s:.0f} s", title_justify="left", show_header=False)
    table.add_row("terminals online", f"{fleet.online} of {len(fleet.terminals)}")
    table.add_row("connections lost", str(fleet.counts.disconnects))
    table.add_row("heartbeats and fixes sent", str(fleet.counts.telemetry_sent))
    table.add_row("presses", str(len(fleet.presses)))
    table.add_row("received", str(len(received_ms)))
    if received_ms:
        table.add_row("key to «received», p50", f"{quantile(received_ms, 0.5):.1f} ms")
        table.add_row("key to «received», p99", f"{quantile(received_ms, 0.99):.1f} ms")
    return table
