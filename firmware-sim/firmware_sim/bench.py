"""What the benches share: an installation of their own, terminals that are online, keys pressed one by one."""

import asyncio
import gc
import os
import platform
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from firmware_sim import fleet as fleets
from firmware_sim import stack as stacks
from firmware_sim.fleet import Broker, Fleet, PressRecord
from firmware_sim.responders import Arrival, Responders
from firmware_sim.seat import Refused, Seat
from firmware_sim.sites import NANJING, SiteFile, TerminalEntry
from firmware_sim.stack import RunInfo, Stack, StackError

__all__ = [
    "WARM_UP",
    "close_cases",
    "installed",
    "machine",
    "online",
    "press_one_by_one",
    "progress_bar",
    "settled",
    "undisturbed",
]

WARM_UP = 10
"""Presses that do not count: the first ones open connections and fill caches."""

_ARRIVE_WITHIN_S = 10.0
_ONLINE_WITHIN_S = 120.0
_CLOSING = 4


async def _nothing() -> None:
    return


def machine() -> dict[str, Any]:
    """Return what the figures depend on most."""
    return {
        "cores": os.cpu_count(),
        "cores_usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "load_average_before": [round(load, 2) for load in os.getloadavg()],
    }


@asynccontextmanager
async def installed(
    site: SiteFile, console: Console, *, options: Sequence[str] = (), settings: Mapping[str, str] | None = None
) -> AsyncIterator[tuple[Stack, RunInfo]]:
    """Run a gateway that serves `site`, in a scratch directory, for the length of a block.

    Raises:
        StackError: It did not start, or refused the site.
    """
    with tempfile.TemporaryDirectory(prefix="onekey-bench-") as scratch:
        folder = Path(scratch)
        site.save(folder / "site.yaml")
        stack = Stack(folder / "data", log=folder / "gateway.log", options=options, settings=settings)
        async with AsyncExitStack() as cleanup:
            with console.status("Starting PostgreSQL, the broker and the gateway …"):
                info = await cleanup.enter_async_context(stacks.running(stack))
            with console.status(f"Applying a site of {len(site.terminals())} households …"):
                await stack.apply_site(folder / "site.yaml")
            yield stack, info


@asynccontextmanager
async def online(
    entries: Sequence[TerminalEntry], stack: Stack, info: RunInfo, *, seed: int, console: Console
) -> AsyncIterator[Fleet]:
    """Run terminals without heartbeats for the length of a block, which begins when all are connected.

    Raises:
        StackError: They did not get there.
    """
    fleet = Fleet(
        Broker.from_url(info.mqtt), [entry.member(heartbeat_every=None) for entry in entries], rng=Random(seed)
    )
    async with fleets.running(fleet):
        try:
            with console.status(f"Connecting {len(entries)} terminals …"):
                async with asyncio.timeout(_ONLINE_WITHIN_S):
                    await fleet.wait_online()
        except TimeoutError:
            text = f"only {fleet.online} of {len(entries)} terminals came online\n{stack.tail()}"
            raise StackError(text) from None
        yield fleet


@contextmanager
def undisturbed() -> Iterator[None]:
    """Collect no garbage for the length of a block: a collection in this process would look like a slow gateway."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


async def press_one_by_one(
    name: str,
    terminals: Sequence[str],
    fleet: Fleet,
    *,
    rate_per_s: float,
    rng: Random,
    console: Console,
    between: Callable[[], Awaitable[None]] = _nothing,
) -> list[PressRecord]:
    """Press the key of each of `terminals` after a pause of random length, with `between` in the middle of it."""
    records: list[PressRecord] = []
    with console.status(name) as status:
        for terminal in terminals:
            half_s = rng.uniform(0.5, 1.5) / rate_per_s / 2
            await asyncio.sleep(half_s)
            await between()
            await asyncio.sleep(half_s)
            records.append(fleet.press(terminal))
            status.update(f"{name}: {len(records)} of {len(terminals)} presses")
    return records


async def settled(
    fleet: Fleet, responders: Responders, records: Sequence[PressRecord], *, roles: Collection[str] = NANJING
) -> None:
    """Wait until every press was received and every party of these roles was told of it, or a time is over.

    What is missing then is for `figures.evaluate` to name.
    """
    try:
        async with asyncio.timeout(_ARRIVE_WITHIN_S):
            await fleet.wait_received(*records)
            cases = {record.case for record in records}
            told: set[tuple[UUID | None, str]] = set()
            looked = 0

            def everybody(arrivals: list[Arrival]) -> bool:
                nonlocal looked
                told.update((a.case, a.role) for a in arrivals[looked:] if a.case in cases and a.role in roles)
                looked = len(arrivals)
                return len(told) >= len(cases) * len(roles)

            await responders.wait(everybody)
    except TimeoutError:
        pass


@contextmanager
def progress_bar(what: str, total: int, console: Console) -> Iterator[Callable[[int], None]]:
    """Show how far long work is, for the length of a block: call what it gives with how much is done."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task(what, total=total)
        yield lambda done: progress.update(bar, completed=min(done, total))


async def close_cases(seat: Seat, cases: Sequence[UUID], console: Console) -> None:
    """Have an operator bring cases to their end: with nobody answering, everybody in them would be called again.

    Raises:
        StackError: One could not be closed.
    """
    left = iter(cases)

    async def work() -> None:
        for case in left:
            await seat.own(case)
            await seat.fact(case, "on_scene", "ambulance_120")
            await seat.close(case, "hospital", confirmed_by="ambulance_120")

    try:
        with console.status(f"Closing {len(cases)} cases …"):
            async with asyncio.TaskGroup() as tasks:
                for _ in range(_CLOSING):
                    tasks.create_task(work(), name="closing")
    except* Refused as refused:
        raise StackError(f"a case could not be closed: {refused.exceptions[0]}") from None
