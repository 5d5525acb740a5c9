"""A small phone network: a service centre with its delays, losses and reports, phones and what they do, USSD.

Everything happens on the clock of the event loop, sped up by ``speed``.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from itertools import count
from random import Random
from typing import Protocol

from protocols.gsm.address import Address, NumberType
from protocols.gsm.coding import DataCoding
from protocols.gsm.tpdu import Deliver, StatusReport, Submit
from protocols.gsm.userdata import UserData, joined, split

__all__ = ["Calling", "Network", "Phone", "Refused", "Station", "Text"]

_ZONE = timezone(timedelta(hours=8))
_DELIVERED, _GONE = 0x00, 0x49


class Refused(Exception):
    """The network does not take a message. ``cause`` is the number behind +CMS ERROR."""

    def __init__(self, cause: int) -> None:
        super().__init__(f"+CMS ERROR: {cause}")
        self.cause = cause


class Station(Protocol):
    """A modem, as the network sees it."""

    @property
    def number(self) -> str:
        """Its number."""

    def take(self, message: Deliver | StatusReport) -> bool:
        """Take a message; False: there is no room, so it is tried again."""

    def ring(self, call: "Calling") -> bool:
        """Ring; False: it cannot be reached."""


@dataclass(frozen=True, slots=True)
class Text:
    """A text that a phone has received, once all of its parts are there."""

    sender: str
    text: str
    at: datetime


@dataclass(slots=True)
class Phone:
    """Somebody's phone.

    Attributes:
        answer: What it answers to a text, None: nothing.
        picks_up_after_s: When somebody picks up; None: nobody does.
        talks_for_s: For how long then.
        presses: Keys that are pressed then, a second after picking up.
        busy: Is somebody else on the line?
        reachable: Is it switched on?
        hears: Told of every text that is whole, with its own number.
    """

    number: str
    answer: Callable[[Text], str | None] = lambda _: None
    picks_up_after_s: float | None = 3.0
    talks_for_s: float = 20.0
    presses: str = ""
    busy: bool = False
    reachable: bool = True
    hears: "Callable[[str, Text], None] | None" = None
    received: list[Text] = field(default_factory=list)
    calls: list[tuple[str, str]] = field(default_factory=list)
    _parts: dict[tuple[str, int, int], dict[int, UserData]] = field(default_factory=dict)

    def take(self, sender: str, user: UserData, at: datetime) -> Text | None:
        """Take a message; returns the text when it is whole."""
        concat = user.header.concat
        if concat is None:
            whole = user
        else:
            key = (sender, concat.reference, concat.total)
            parts = self._parts.setdefault(key, {})
            parts[concat.seq] = user
            if len(parts) < concat.total:
                return None
            whole = joined([parts[seq] for seq in sorted(self._parts.pop(key))])
        text = Text(sender, whole.text if whole.text is not None else whole.payload.hex(), at)
        self.received.append(text)
        if self.hears is not None:
            self.hears(self.number, text)
        return text


class Calling:
    """A call between a modem and a phone. ``state``: dialling, ringing, active, ended; ``how`` it ended."""

    def __init__(self, number: str, *, incoming: bool) -> None:
        self.number = number
        self.incoming = incoming
        self.state = "incoming" if incoming else "dialling"
        self.how = ""
        self.keys = ""
        self.pressed = ""
        self._watchers: list[Callable[[], None]] = []
        self._ended = asyncio.Event()

    def watch(self, watcher: Callable[[], None]) -> None:
        """Have `watcher` called whenever the state changes."""
        self._watchers.append(watcher)

    def go(self, state: str, how: str = "") -> None:
        """Go on to another state; an ended call stays ended."""
        if self.state == "ended" or self.state == state:
            return
        self.state, self.how = state, how
        if state == "ended":
            self._ended.set()
        for watcher in self._watchers:
            watcher()

    def press(self, keys: str) -> None:
        """Let the other side press keys."""
        self.pressed = keys
        for watcher in self._watchers:
            watcher()
        self.pressed = ""

    async def ended(self) -> None:
        """Wait until it has ended."""
        await self._ended.wait()


class Network:
    """The network. Numbers are as in `Address`, international with a plus."""

    def __init__(self, *, speed: float = 1.0, rng: Random | None = None) -> None:
        """`speed` is how much faster its clock goes than ours."""
        self.speed = speed
        self.centre = "+8613800100500"
        self.accept_s = 0.0
        """How long it takes to accept a message from a modem."""

        self.delay_s = 0.5
        self.report_delay_s = 1.0
        self.retry_s = 5.0
        self.loss = 0.0
        self.doubles = 0.0
        self.refuses: list[int] = []
        """Causes with which the next messages are refused, one each."""

        self.taking: Callable[[str, Submit], None] = lambda _number, _message: None
        """Hears of every message that it takes, and from whom."""

        self.codes: dict[str, str] = {"*100#": "您的余额为 36.50 元。"}
        self.phones: dict[str, Phone] = {}
        self.submitted: list[Submit] = []
        self._rng = rng or Random(1)
        self._stations: dict[str, Station] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._references = count(1)

    def attach(self, station: Station) -> None:
        """Connect a modem."""
        self._stations[station.number] = station

    def detach(self, station: Station) -> None:
        """Disconnect a modem."""
        if self._stations.get(station.number) is station:
            del self._stations[station.number]

    def phone(self, number: str, **how: object) -> Phone:
        """Return the phone of `number`, a new one where there is none, with these habits."""
        phone = self.phones.setdefault(number, Phone(number))
        for name, value in how.items():
            setattr(phone, name, value)
        return phone

    def now(self) -> datetime:
        """Return the time that is in the stamps of the service centre."""
        return datetime.now(UTC).astimezone(_ZONE).replace(microsecond=0)

    async def sleep(self, seconds: float) -> None:
        """Wait by the network's clock."""
        await asyncio.sleep(seconds / self.speed)

    def later(self, what: Awaitable[None]) -> None:
        """Let something happen by itself."""
        task = asyncio.ensure_future(what)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """End everything that is under way."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # Texts

    def submit(self, station: Station, message: Submit) -> int:
        """Take a message from a modem; returns its reference.

        Raises:
            Refused: The network does not take it.
        """
        if self.refuses:
            raise Refused(self.refuses.pop(0))
        self.taking(str(station.number), message)
        reference = next(self._references) % 256
        self.submitted.append(message)
        self.later(self._forward(station, message, reference))
        return reference

    async def _forward(self, station: Station, message: Submit, reference: int) -> None:
        accepted = self.now()
        await self.sleep(self.delay_s)
        to = str(message.recipient)
        there = to in self.phones or to in self._stations
        if self._rng.random() >= self.loss:
            for _ in range(2 if self._rng.random() < self.doubles else 1):
                await self._hand_over(to, str(station.number), message)
        if message.report:
            await self.sleep(self.report_delay_s)
            report = StatusReport(
                reference=reference,
                recipient=message.recipient,
                accepted_at=accepted,
                ended_at=self.now(),
                status=_DELIVERED if there else _GONE,
            )
            await self._offer(station, report)

    async def _hand_over(self, to: str, sender: str, message: Submit) -> None:
        phone = self.phones.get(to)
        if phone is not None:
            text = phone.take(sender, message.user, self.now())
            answer = None if text is None else phone.answer(text)
            if answer is not None:
                await self.sleep(self.delay_s)
                await self.text(sender, answer, sender=to)
        elif (station := self._stations.get(to)) is not None:
            await self._offer(station, self._deliver(sender, message.user, message.coding))

    def _deliver(self, sender: str, user: UserData, coding: DataCoding) -> Deliver:
        return Deliver(sender=_address(sender), user=user, sent_at=self.now(), coding=coding)

    async def _offer(self, station: Station, message: Deliver | StatusReport) -> None:
        """Offer a message until it is taken: a store that is full has room some day."""
        while not station.take(message):
            await self.sleep(self.retry_s)

    async def again(self, station: Station, message: Deliver | StatusReport) -> None:
        """Offer a message again, after a while, that was taken and then could not be kept."""
        await self.sleep(self.retry_s)
        await self._offer(station, message)

    async def text(
        self, to: str, text: str, *, sender: str, shuffled: bool = False, left_out: frozenset[int] = frozenset()
    ) -> None:
        """Send a text to a modem, in any order of its parts if `shuffled`, without those `left_out` (from 1)."""
        parts = split(text, reference=self._rng.randrange(256))
        numbered = [(seq, part) for seq, part in enumerate(parts, start=1) if seq not in left_out]
        if shuffled:
            self._rng.shuffle(numbered)
        for _, part in numbered:
            await self.message(to, part, sender=sender)

    async def message(self, to: str, user: UserData, *, sender: str) -> None:
        """Send one message to a modem."""
        station = self._stations.get(to)
        if station is not None:
            await self._offer(station, self._deliver(sender, user, DataCoding.of(user.alphabet)))

    # Calls

    def dial(self, number: str, *, caller: str) -> Calling:
        """Call a phone from a modem."""
        call = Calling(number, incoming=False)
        self.later(self._connect(call, caller))
        return call

    async def _connect(self, call: Calling, caller: str) -> None:
        phone = self.phones.get(call.number)
        await self.sleep(0.5)
        if phone is None or not phone.reachable:
            call.go("ended", "NO CARRIER")
            return
        if phone.busy:
            phone.calls.append((caller, "busy"))
            call.go("ended", "BUSY")
            return
        call.go("ringing")
        if phone.picks_up_after_s is None:
            phone.calls.append((caller, "missed"))
            await self.sleep(30)
            call.go("ended", "NO ANSWER")
            return
        await self.sleep(phone.picks_up_after_s)
        if call.state == "ended":
            phone.calls.append((caller, "missed"))
            return
        phone.calls.append((caller, "answered"))
        call.go("active")
        if phone.presses:
            await self.sleep(1)
            call.press(phone.presses)
        try:
            async with asyncio.timeout(phone.talks_for_s / self.speed):
                await call.ended()
        except TimeoutError:
            call.go("ended", "NO CARRIER")

    def call(self, to: str, *, caller: str | None, rings_for_s: float = 20.0) -> Calling:
        """Call a modem; `caller` None: the number is withheld."""
        call = Calling(caller or "", incoming=True)
        station = self._stations.get(to)
        if station is None or not station.ring(call):
            call.go("ended", "NO CARRIER")
            return call

        async def give_up() -> None:
            await self.sleep(rings_for_s)
            if call.state == "incoming":
                call.go("ended", "NO CARRIER")

        self.later(give_up())
        return call


def _address(number: str) -> Address:
    try:
        return Address.parse(number)
    except ValueError:
        return Address("0", NumberType.UNKNOWN)
