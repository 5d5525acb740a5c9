"""``onekey bench storm``: every key at once, and how long until everybody was told of every press.

The alarms are published by a process of its own, and the six parties are one more; neither does more than it must
while the clock runs. Signatures and contents are checked afterwards, all of them.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from random import Random
from time import monotonic, monotonic_ns
from typing import Any

from rich.console import Console

from firmware_sim import receivers, volley
from firmware_sim.bench import installed, machine
from firmware_sim.children import Child, child
from firmware_sim.figures import Judged, Sample, evaluate, summary
from firmware_sim.fleet import PressRecord
from firmware_sim.responders import Arrival, Responders
from firmware_sim.sites import NANJING, TerminalEntry, made_up
from firmware_sim.stack import StackError
from firmware_sim.terminal import Pressed, Publish, Received, Terminal
from protocols.okc import Down, down_topic

__all__ = ["BAR_PER_S", "Options", "Report", "Storm", "judge", "measure", "run"]

BAR_PER_S = 3000.0
"""Deliveries a second from the first publication to the last delivery (design, section 5)."""

# A gateway that lost its broker needs up to its keep-alive to see it: what comes then is late, not lost.
_STALLED_S = 60.0
_TWICE_WITHIN_S = 2.0
_LOOK_EVERY_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to measure: so many keys, pressed at once."""

    presses: int = 2000
    seed: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Storm:
    """What was measured. Times are milliseconds since the first publication, None where nothing came.

    Attributes:
        published_ms: The last publication.
        confirmed_ms: The last PUBACK: the broker has every alarm.
        received_ms: The last ``received`` at a terminal: every alarm is committed.
        told_ms: The last party told of the last press.
        deliveries: Different parties told of different presses, whether or not the terminal heard ``received``.
        duplicates: Requests that repeated an id, which parties throw away.
    """

    samples: tuple[Sample, ...]
    published_ms: float | None
    confirmed_ms: float | None
    received_ms: float | None
    told_ms: float | None
    deliveries: int
    duplicates: int

    @property
    def per_s(self) -> float:
        """Deliveries a second."""
        return self.deliveries / self.told_ms * 1000 if self.told_ms else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Report(Judged):
    """The whole run. ``busy`` is the share of one core that our own processes took while the clock ran."""

    options: Options
    storm: Storm
    busy: Mapping[str, float]

    def series(self) -> dict[str, list[float]]:
        """Return the figures of single presses in milliseconds since their own publication."""
        whole = [sample for sample in self.storm.samples if not sample.problems]
        return {
            "received": [sample.received_ms for sample in whole if sample.received_ms is not None],
            "last": [sample.last_ms for sample in whole],
        }

    def document(self) -> dict[str, Any]:
        """Return the report as plain data, with every single sample and without addresses."""
        storm = asdict(self.storm)
        samples = storm.pop("samples")
        return self.verdict() | {
            "options": asdict(self.options),
            "bar_per_s": BAR_PER_S,
            "per_s": round(self.storm.per_s, 1),
            "busy": dict(self.busy),
            **storm,
            "ms": {name: summary(values) for name, values in self.series().items()},
            "samples": samples,
        }


def measure(records: Sequence[PressRecord], arrivals: Sequence[Arrival]) -> Storm:
    """Put together what the terminals saw and what the parties got."""
    published_ns = [record.published_ns for record in records if record.published_ns is not None]
    # Every terminal pressed once.
    pressed = {record.terminal for record in records}
    told_ns: dict[tuple[str, str], int] = {}
    for arrival in arrivals:
        terminal = _alerted_to(arrival)
        if terminal in pressed and arrival.problem is None:
            told_ns.setdefault((terminal, arrival.party), arrival.at_ns)

    def since_the_first(times_ns: Iterable[int | None]) -> float | None:
        known_ns = [at_ns for at_ns in times_ns if at_ns is not None]
        return (max(known_ns) - min(published_ns)) / 1e6 if known_ns and published_ns else None

    return Storm(
        samples=tuple(evaluate(records, arrivals)),
        published_ms=since_the_first(published_ns),
        confirmed_ms=since_the_first(record.confirmed_ns for record in records),
        received_ms=since_the_first(record.received_ns for record in records),
        told_ms=since_the_first(told_ns.values()),
        deliveries=len(told_ns),
        duplicates=sum(arrival.duplicate for arrival in arrivals),
    )


def _alerted_to(arrival: Arrival) -> str | None:
    notice = arrival.notice
    return None if notice is None or notice.type != "case.alert" else notice.data.terminal


def judge(storm: Storm, arrivals: Sequence[Arrival]) -> tuple[str, ...]:
    """Return every reason why the run failed."""
    failures = [problem for sample in storm.samples for problem in sample.problems]
    ids: dict[tuple[str, str], set[str]] = {}
    for arrival in arrivals:
        if (terminal := _alerted_to(arrival)) is not None:
            ids.setdefault((terminal, arrival.party), set()).add(arrival.id)
    failures += [
        f"{party} was alerted to the one press of {terminal} under {len(several)} ids"
        for (terminal, party), several in ids.items()
        if len(several) > 1
    ]
    if storm.per_s < BAR_PER_S:
        failures.append(f"{storm.per_s:.0f} deliveries/s, the bar {BAR_PER_S:.0f}/s")
    return tuple(failures)


async def run(options: Options, console: Console) -> Report:
    """Start a gateway of its own, measure, and stop it again.

    Raises:
        StackError: The gateway, the terminals or the parties did not come up.
    """
    found = machine()
    site = made_up(options.presses, seed=options.seed, prefix="bench")
    entries = site.terminals()
    async with AsyncExitStack() as cleanup:
        parties = await cleanup.enter_async_context(child("firmware_sim.receivers"))
        book = Responders(site.responders())
        book.port = await parties.hear()
        site.point_webhooks(book.url)
        _, info = await cleanup.enter_async_context(installed(site, console))
        terminals = await cleanup.enter_async_context(child("firmware_sim.volley"))
        orders = volley.Orders(mqtt=info.mqtt, terminals=[(entry.id, entry.secret) for entry in entries])
        with console.status(f"Connecting {len(entries)} terminals …"):
            online = await terminals.ask(asdict(orders))
        if online != len(entries):
            raise StackError(f"only {online} of {len(entries)} terminals stayed online")
        presses = [_Press(entry, Random(f"{options.seed}/{entry.id}")) for entry in entries]
        watch = _Watch(terminals, parties, presses=len(presses))
        with console.status("All keys at once …") as status:
            await watch.begin()
            await terminals.tell([press.payload for press in presses])
            await watch.until_still(status.update)
        with console.status("Checking every webhook …"):
            await _collect(terminals, presses)
            await _read(parties, book)
    records = [press.record for press in presses]
    storm = measure(records, book.arrivals)
    return Report(
        options=options,
        machine=found,
        failures=judge(storm, book.arrivals),
        storm=storm,
        busy=watch.busy(),
    )


class _Press:
    """One key: the terminal that it belongs to, which also reads the answer."""

    def __init__(self, entry: TerminalEntry, rng: Random) -> None:
        now, now_ns = datetime.now(UTC), monotonic_ns()
        self._terminal = Terminal(entry.member(heartbeat_every=None).config, rng)
        self._terminal.power_on(now)
        self._terminal.connected(now)
        pressed, publish = self._terminal.press(now)
        assert isinstance(pressed, Pressed)
        assert isinstance(publish, Publish)
        self.payload = publish.payload.decode()
        self.record = PressRecord(
            terminal=entry.id, kinds=("sos",), test=False, pressed_at=now, pressed_ns=now_ns, key=pressed.key
        )

    def fired(self, fired: volley.Fired) -> None:
        """Note what became of it."""
        self.record.published_ns = fired.published_ns
        self.record.confirmed_ns = fired.confirmed_ns
        if fired.heard is None:
            return
        topic = down_topic(self.record.terminal, Down.ACK)
        for output in self._terminal.received(topic, fired.heard.encode(), datetime.now(UTC)):
            if isinstance(output, Received) and output.key == self.record.key:
                self.record.received_ns = fired.received_ns
                self.record.case = output.case


@dataclass(frozen=True, slots=True)
class _Look:
    at_s: float
    terminals: volley.Seen
    parties: receivers.Seen

    @property
    def came(self) -> tuple[int, int]:
        return self.terminals.received, self.parties.notices


class _Watch:
    """Looks at both processes until everything came, or nothing comes any more."""

    def __init__(self, terminals: Child, parties: Child, *, presses: int) -> None:
        self._terminals = terminals
        self._parties = parties
        self._presses = presses
        self._looks: list[_Look] = []

    async def begin(self) -> None:
        """Note what the processes have used so far."""
        await self._look()

    async def until_still(self, tell: Callable[[str], None]) -> None:
        """Return when everything came and time enough has passed for it to come twice, or nothing comes any more."""
        moved_s = monotonic()
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            before, now = self._looks[-1], await self._look()
            if now.came != before.came:
                moved_s = now.at_s
            received, notices = now.came
            tell(f"{received} of {self._presses} presses received, {notices} notices")
            complete = received >= self._presses and notices >= self._presses * len(NANJING)
            if now.at_s - moved_s > (_TWICE_WITHIN_S if complete else _STALLED_S):
                return

    async def _look(self) -> _Look:
        terminals = volley.Seen(**await self._terminals.ask("progress"))
        parties = receivers.Seen(**await self._parties.ask("progress"))
        self._looks.append(_Look(monotonic(), terminals, parties))
        return self._looks[-1]

    def busy(self) -> dict[str, float]:
        """Return the share of one core that each process took from the first look to the last thing that came."""
        first = self._looks[0]
        last = next(look for look in self._looks[1:] if look.came == self._looks[-1].came)
        took_s = last.at_s - first.at_s
        return {
            "terminals": round((last.terminals.cpu_s - first.terminals.cpu_s) / took_s, 3),
            "parties": round((last.parties.cpu_s - first.parties.cpu_s) / took_s, 3),
        }


async def _collect(terminals: Child, presses: Sequence[_Press]) -> None:
    await terminals.tell("report")
    for press in presses:
        press.fired(volley.Fired(**await terminals.hear()))


async def _read(parties: Child, book: Responders) -> None:
    """Judge every request that the parties kept, as they would have done."""
    for _ in range(await parties.ask("report")):
        kept = receivers.Kept(**await parties.hear())
        party = book.parties.get(kept.party)
        if party is not None:
            at = datetime.fromtimestamp(kept.at_s, UTC)
            book.take(party, kept.headers, kept.raw_body, at=at, at_ns=kept.at_ns)
