"""``onekey bench storm``: every key at once, and how long until everybody was told of every press.

The alarms are published by a process of its own, and the six parties are one more; neither does more than it must
while the clock runs. Signatures and contents are checked afterwards, all of them.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from random import Random
from time import monotonic, monotonic_ns
from typing import Any

from rich.console import Console

from firmware_sim import bare, processes, receivers, volley
from firmware_sim.bench import installed, machine
from firmware_sim.children import Child, child
from firmware_sim.figures import Judged, Sample, evaluate, summary
from firmware_sim.fleet import PressRecord
from firmware_sim.responders import Arrival, Responders
from firmware_sim.sites import NANJING, SiteFile, TerminalEntry, made_up
from firmware_sim.stack import StackError
from firmware_sim.terminal import Pressed, Publish, Received, Terminal
from protocols.okc import Down, down_topic

__all__ = [
    "BAR_PER_S",
    "FIRST_WITHIN_MS",
    "Options",
    "Press",
    "Report",
    "Stage",
    "Storm",
    "Watch",
    "judge",
    "measure",
    "run",
    "stage",
    "told_under_two_ids",
]

BAR_PER_S = 3000.0
"""Deliveries a second from the first publication to the last delivery (design, section 5)."""

FIRST_WITHIN_MS = 3000.0
"""When of every press at least one party has been told, since the first publication."""

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
        first_ms: The last press of which the first of its parties was told.
        told_ms: The last party told of the last press.
        deliveries: Different parties told of different presses, whether or not the terminal heard ``received``.
        duplicates: Requests that repeated an id, which parties throw away.
        curves: When each alarm was committed, each press had its first party told, and each delivery was made.
    """

    samples: tuple[Sample, ...]
    published_ms: float | None
    confirmed_ms: float | None
    received_ms: float | None
    first_ms: float | None
    told_ms: float | None
    deliveries: int
    duplicates: int
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict, repr=False)

    @property
    def per_s(self) -> float:
        """Deliveries a second."""
        return self.deliveries / self.told_ms * 1000 if self.told_ms else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Report(Judged):
    """The whole run.

    Attributes:
        busy: The share of one core that each process took while the clock ran, ours and theirs.
        took_s: How long that was.
        bare_per_s: Requests a second that a bare HTTP client made afterwards, of the same size and to the same parties.
    """

    options: Options
    storm: Storm
    busy: Mapping[str, float]
    took_s: float
    bare_per_s: float

    @property
    def cpu_ms(self) -> float:
        """Processor time of everything together for one delivery, in milliseconds."""
        return sum(self.busy.values()) * self.took_s / max(1, self.storm.deliveries) * 1000

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
        del storm["curves"]  # they are in the samples
        return self.verdict() | {
            "options": asdict(self.options),
            "bar_per_s": BAR_PER_S,
            "bar_first_ms": FIRST_WITHIN_MS,
            "per_s": round(self.storm.per_s, 1),
            "busy": dict(self.busy),
            "cpu_ms_per_delivery": round(self.cpu_ms, 3),
            "bare_per_s": round(self.bare_per_s, 1),
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

    first_ns: dict[str, int] = {}
    for (terminal, _), at_ns in told_ns.items():
        first_ns[terminal] = min(at_ns, first_ns.get(terminal, at_ns))

    def since_the_first(times_ns: Iterable[int | None]) -> list[float]:
        began_ns = min(published_ns, default=0)
        return sorted((at_ns - began_ns) / 1e6 for at_ns in times_ns if at_ns is not None and published_ns)

    curves = {
        "committed": since_the_first(record.received_ns for record in records),
        "first party told": since_the_first(first_ns.values()),
        "party told": since_the_first(told_ns.values()),
    }
    return Storm(
        samples=tuple(evaluate(records, arrivals)),
        published_ms=_last(since_the_first(published_ns)),
        confirmed_ms=_last(since_the_first(record.confirmed_ns for record in records)),
        received_ms=_last(curves["committed"]),
        first_ms=_last(curves["first party told"]),
        told_ms=_last(curves["party told"]),
        deliveries=len(told_ns),
        duplicates=sum(arrival.duplicate for arrival in arrivals),
        curves=curves,
    )


def _last(times_ms: Sequence[float]) -> float | None:
    return times_ms[-1] if times_ms else None


def _alerted_to(arrival: Arrival) -> str | None:
    notice = arrival.notice
    return None if notice is None or notice.type != "case.alert" else notice.data.terminal


def told_under_two_ids(arrivals: Sequence[Arrival]) -> list[str]:
    """Return who was alerted to one press as if to several."""
    ids: dict[tuple[str, str], set[str]] = {}
    for arrival in arrivals:
        if (terminal := _alerted_to(arrival)) is not None:
            ids.setdefault((terminal, arrival.party), set()).add(arrival.id)
    return [
        f"{party} was alerted to the one press of {terminal} under {len(several)} ids"
        for (terminal, party), several in ids.items()
        if len(several) > 1
    ]


def judge(storm: Storm, arrivals: Sequence[Arrival]) -> tuple[str, ...]:
    """Return every reason why the run failed."""
    failures = [problem for sample in storm.samples for problem in sample.problems]
    failures += told_under_two_ids(arrivals)
    if storm.per_s < BAR_PER_S:
        failures.append(f"{storm.per_s:.0f} deliveries/s, the bar {BAR_PER_S:.0f}/s")
    if storm.first_ms is not None and storm.first_ms > FIRST_WITHIN_MS:
        failures.append(
            f"of the last press nobody was told for {storm.first_ms:.0f} ms, the bar {FIRST_WITHIN_MS:.0f} ms"
        )
    return tuple(failures)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A gateway as process `pid`, its terminals, all online, and its parties, each side in a process of its own."""

    entries: Sequence[TerminalEntry]
    terminals: Child
    parties: Child
    book: Responders
    pid: int

    async def collect(self, presses: Sequence["Press"]) -> None:
        """Hear from the terminals, in their order, what became of their presses, and judge every request that came."""
        await self.terminals.tell("report")
        for press in presses:
            press.fired(volley.Fired(**await self.terminals.hear()))
        for _ in range(await self.parties.ask("report")):
            kept = receivers.Kept(**await self.parties.hear())
            party = self.book.parties.get(kept.party)
            if party is not None:
                at = datetime.fromtimestamp(kept.at_s, UTC)
                self.book.take(party, kept.headers, kept.raw_body, at=at, at_ns=kept.at_ns)


@asynccontextmanager
async def stage(site: SiteFile, console: Console) -> AsyncIterator[Stage]:
    """Start a gateway for `site`, and everybody around it.

    Raises:
        StackError: The gateway, the terminals or the parties did not come up.
    """
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
        yield Stage(entries=entries, terminals=terminals, parties=parties, book=book, pid=info.pid)


async def run(options: Options, console: Console) -> Report:
    """Start a gateway of its own, measure, and stop it again.

    Raises:
        StackError: The gateway, the terminals or the parties did not come up.
    """
    found = machine()
    async with stage(made_up(options.presses, seed=options.seed, prefix="bench"), console) as on:
        presses = [Press(entry, Random(f"{options.seed}/{entry.id}")) for entry in on.entries]
        watch = Watch(on, received=len(presses), notices=len(presses) * len(NANJING))
        with console.status("All keys at once …") as status:
            await watch.begin()
            payloads = [(number, press.payload) for number, press in enumerate(presses)]
            await on.terminals.tell(asdict(volley.Fire(payloads=payloads)))
            await watch.until_still(status.update)
        with console.status("Checking every webhook …"):
            await on.collect(presses)
        with console.status("As many requests by a bare client …"):
            bare_per_s = await _bare(on.book)
    records = [press.record for press in presses]
    storm = measure(records, on.book.arrivals)
    return Report(
        options=options,
        machine=found,
        failures=judge(storm, on.book.arrivals),
        storm=storm,
        busy=watch.busy(),
        took_s=watch.took_s,
        bare_per_s=bare_per_s,
    )


async def _bare(book: Responders) -> float:
    """Let a client that does nothing else send what the gateway sent; returns its requests a second."""
    sent = [len(arrival.body) for arrival in book.arrivals]
    urls = sorted(book.url(party) for party in book.parties)
    size = sum(sent) // max(1, len(sent))
    orders = bare.Orders(urls=urls, requests=max(len(sent), len(urls)), size=size)
    async with child("firmware_sim.bare") as client:
        took_s: float = await client.ask(asdict(orders))
    return orders.requests / took_s


class Press:
    """One key: the terminal that it belongs to, which also reads the answer."""

    def __init__(self, entry: TerminalEntry, rng: Random, *, kind: str = "sos") -> None:
        now, now_ns = datetime.now(UTC), monotonic_ns()
        self._terminal = Terminal(entry.member(heartbeat_every=None).config, rng)
        self._terminal.power_on(now)
        self._terminal.connected(now)
        pressed, publish = self._terminal.press(now, (kind,))
        assert isinstance(pressed, Pressed)
        assert isinstance(publish, Publish)
        self.payload = publish.payload.decode()
        self.record = PressRecord(
            terminal=entry.id, kinds=(kind,), test=False, pressed_at=now, pressed_ns=now_ns, key=pressed.key
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


class Watch:
    """Looks at both processes until everything came, or nothing comes any more."""

    def __init__(self, on: "Stage", *, received: int, notices: int) -> None:
        """Everything is so many terminals that heard ``received``, and so many notices."""
        self._on = on
        self._everything = received, notices
        self._looks: list[_Look] = []
        self._used: list[tuple[float, dict[str, float]]] = []

    async def begin(self) -> None:
        """Note what the processes have used so far."""
        await self._use(await self._look())

    async def until_still(self, tell: Callable[[str], None]) -> None:
        """Return when everything came and time enough has passed for it to come twice, or nothing comes any more."""
        moved_s = monotonic()
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            before, now = self._looks[-1], await self._look()
            if now.came != before.came:
                moved_s = now.at_s
            tell(f"{now.came[0]} of {self._everything[0]} presses received, {now.came[1]} notices")
            complete = all(came >= wanted for came, wanted in zip(now.came, self._everything, strict=True))
            if complete and len(self._used) == 1:
                await self._use(now)
            if now.at_s - moved_s > (_TWICE_WITHIN_S if complete else _STALLED_S):
                return

    async def _look(self) -> _Look:
        terminals = volley.Seen(**await self._on.terminals.ask("progress"))
        parties = receivers.Seen(**await self._on.parties.ask("progress"))
        self._looks.append(_Look(monotonic(), terminals, parties))
        return self._looks[-1]

    async def _use(self, look: _Look) -> None:
        ours = {"terminals": look.terminals.cpu_s, "parties": look.parties.cpu_s}
        self._used.append((look.at_s, ours | processes.used_s(self._on.pid)))

    @property
    def came(self) -> tuple[int, int]:
        """Presses received and notices that came, as of the last look."""
        return self._looks[-1].came

    @property
    def took_s(self) -> float:
        """From the beginning until everything had come; 0 when it never did."""
        return self._used[-1][0] - self._used[0][0]

    def busy(self) -> dict[str, float]:
        """Return the share of one core that each process took until everything had come; nothing if it never did."""
        if len(self._used) < 2:
            return {}
        (_, before), (_, after) = self._used
        return {part: round((used_s - before.get(part, 0.0)) / self.took_s, 3) for part, used_s in after.items()}
