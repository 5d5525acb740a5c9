"""How the modems of this machine are: written down for everybody to see, asked now and then, told of when one is lost.

A modem may answer everything and yet hear nothing for days, or have a SIM without money: it writes to itself once a
while, and its operator is asked what is left.
"""

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Protocol

from gateway.domain.modems import ModemState
from gateway.domain.phones import tail
from gateway.modems.driver import Modem, NotSent
from gateway.modems.pace import Pace
from gateway.modems.texts import pdus
from gateway.service import modem_troubles
from gateway.store import modems as store
from gateway.store.directory import Directory
from gateway.store.pool import Pool

__all__ = ["Aside", "Watch"]

_log = logging.getLogger(__name__)

_SHOW_S = 5.0
_TELL_AFTER_S = 60.0
_BALANCE_EVERY_S = 86_400.0
_TROUBLES = (ModemState.DEAD, ModemState.STOPPED, ModemState.GONE)
_SELF_TEST = "onekey self-test"
_DEAF = 2
"""After so many messages to itself that did not come back people are told."""
_MOST_MEASURES = 3
_DEAF_EVERY = 4


class Aside(Protocol):
    """Does something beside everything else."""

    def __call__(self, work: Callable[[], Awaitable[None]], *, name: str) -> None:
        """Begin it; what goes wrong in it ends only itself."""
        ...


@dataclass(slots=True)
class _Test:
    """A message of a modem to itself."""

    sent_s: float
    heard: bool = False
    late: bool = False


class Watch:
    """Looks after the modems."""

    def __init__(
        self,
        pool: Pool,
        directory: Directory,
        *,
        replica: str,
        pace: Pace,
        modems: Callable[[], list[Modem]],
        aside: Aside,
        freed: Callable[[], None],
    ) -> None:
        """`freed` is called when a modem can be used again that wrote to itself."""
        self._pool = pool
        self._directory = directory
        self._replica = replica
        self._pace = pace
        self._modems = modems
        self._aside = aside
        self._freed = freed
        self._show = asyncio.Event()
        self._asked_balance_s: dict[str, float] = {}
        self._low: set[str] = set()
        self._asking: set[str] = set()
        self._tests: dict[str, _Test] = {}
        self._heard_once: set[str] = set()
        self._deaf: dict[str, int] = {}
        """How many messages of a modem to itself did not come back, one after the other."""

    def changed(self) -> None:
        """Write down how they are now."""
        self._show.set()

    def forget(self) -> None:
        """Begin anew: what was being asked is asked no more."""
        self._asking.clear()

    async def run(self) -> None:
        """Write down how the modems are, and tell people of one that is lost."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SHOW_S):
                    await self._show.wait()
            self._show.clear()
            for modem in self._those():
                async with self._pool.connection() as conn:
                    ours = await store.show(
                        conn,
                        id=self._name(modem),
                        replica=self._replica,
                        path=str(modem.path),
                        state=modem.state,
                        problem=modem.problem,
                        maker=modem.identity.maker,
                        model=modem.identity.model,
                        operator=modem.operator,
                        signal_dbm=modem.signal_dbm,
                        busy=modem.busy_with is not None,
                        voice=modem.settings.voice,
                        since=modem.since,
                        heard_at=modem.heard_at,
                    )
                if ours:  # one that another gateway has now is not lost
                    await self._look_after(modem)
            await asyncio.sleep(min(0.2, self._pace.find_s))

    def _those(self) -> list[Modem]:
        """Return the modems, each once: one that came back at another port is not gone."""
        there = {modem.id for modem in self._modems() if modem.state is not ModemState.GONE}
        return [modem for modem in self._modems() if modem.state is not ModemState.GONE or modem.id not in there]

    def _name(self, modem: Modem) -> str:
        """Return the name of a modem in the tables; while nobody knows which one it is, that of its port, and where."""
        return modem.id if modem.id != str(modem.path) else self._port_name(modem)

    def _port_name(self, modem: Modem) -> str:
        return f"{modem.path}@{self._replica}"

    async def _look_after(self, modem: Modem) -> None:
        lost_s = (datetime.now(UTC) - modem.since).total_seconds()
        patience_s = self._pace.find_s if modem.state is not ModemState.GONE else min(_TELL_AFTER_S, self._pace.boot_s)
        if modem.state in _TROUBLES and lost_s >= patience_s:
            await self._tell(modem, modem.problem or modem.state)
        elif modem.state is ModemState.READY:
            if modem.barred is not None:
                await self._tell(modem, f"its SIM may not send: {modem.barred}")
            elif self._deaf.get(modem.id, 0) >= _DEAF:
                await self._tell(
                    modem, "its messages to itself do not come back: it hears nothing, or its number is wrong"
                )
            elif modem.id not in self._low:
                await modem_troubles.settle_trouble(self._pool, self._directory, modem.id)
            # Before it said which one it is, its trouble was that of its port.
            await modem_troubles.settle_trouble(self._pool, self._directory, self._port_name(modem))
            self._begin_asking(modem)

    async def _tell(self, modem: Modem, problem: str) -> None:
        await modem_troubles.raise_trouble(self._pool, self._directory, self._name(modem), problem)

    def _begin_asking(self, modem: Modem) -> None:
        if modem.ready and modem.id not in self._asking:
            self._asking.add(modem.id)
            self._aside(partial(self._ask, modem), name="modems-ask")

    async def _ask(self, modem: Modem) -> None:
        """Ask what takes its time: nobody else is kept waiting by it."""
        try:
            await self._ask_balance(modem)
            await self._test_itself(modem)
        finally:
            self._asking.discard(modem.id)

    async def _test_itself(self, modem: Modem) -> None:
        """Let a modem write to itself now and then: some answer to everything, and hear nothing for days."""
        number, now_s = modem.settings.number, time.monotonic()
        if number is None or not modem.ready:
            return
        test = self._tests.get(modem.id)
        if test is not None and not test.heard:
            deaf = self._deaf.get(modem.id, 0)
            if not test.late and now_s - test.sent_s > self._pace.echo_s:
                test.late = True
                deaf = self._deaf[modem.id] = deaf + 1
                if deaf <= _MOST_MEASURES:  # what that has not cured takes somebody to come
                    modem.suspect("a message to itself did not come back", measures=deaf)
            # Of one that never heard itself the number may be somebody else's, who is not to be written to for ever.
            strange = deaf >= _MOST_MEASURES and modem.id not in self._heard_once
            if not test.late or strange:
                return
            if deaf > _MOST_MEASURES and now_s - test.sent_s < _DEAF_EVERY * self._pace.echo_s:
                return
        elif test is not None and now_s - test.sent_s < self._pace.self_test_s:
            return
        try:
            await self._send_itself(modem, number, f"{_SELF_TEST} {datetime.now(UTC):%Y-%m-%d %H:%M}")
            self._tests[modem.id] = _Test(now_s)
        except (NotSent, ValueError) as exc:
            _log.warning("modem %s cannot write to itself: %s", modem.id, exc)
            self._tests[modem.id] = _Test(now_s, heard=True)  # that it cannot send is noticed otherwise

    async def _ask_balance(self, modem: Modem) -> None:
        code, to = modem.settings.balance_code, modem.settings.balance_to
        if (code is None and to is None) or not modem.ready:
            return
        asked_s = self._asked_balance_s.get(modem.id)
        if asked_s is not None and time.monotonic() - asked_s < _BALANCE_EVERY_S:
            return
        self._asked_balance_s[modem.id] = time.monotonic()
        said = None
        try:
            if code is not None:
                said = await modem.ask_network(code)
            elif to is not None:
                await self._send_itself(modem, to, modem.settings.balance_text)  # its answer comes as a message
        except (NotSent, ValueError) as exc:
            _log.warning("modem %s does not tell its balance: %s", modem.id, exc)
        if said is not None and said.text is not None:
            await self._note_balance(modem, said.text)

    async def _send_itself(self, modem: Modem, to: str, text: str) -> None:
        """Send a message by this modem and no other, beside the queue."""
        modem.busy_with = "itself"
        try:
            for pdu, length in pdus(to, text, reference=0, report=False):
                await modem.send(pdu, length)
        finally:
            modem.busy_with = None
            self._freed()

    def heard(self, modem_id: str, sender: str, text: str) -> None:
        """Look whether what a stranger writes is our own test, or the operator's answer about the balance."""
        if text.startswith(_SELF_TEST) and (test := self._tests.get(modem_id)) is not None:
            test.heard = True
            self._deaf.pop(modem_id, None)
            self._heard_once.add(modem_id)
        for modem in self._modems():
            to = modem.settings.balance_to
            if modem.id == modem_id and to is not None and tail(sender) == tail(to):
                self._aside(partial(self._note_balance, modem, text), name="modems-balance")

    async def _note_balance(self, modem: Modem, text: str) -> None:
        match = re.search(modem.settings.balance_pattern, text, re.IGNORECASE)
        try:
            amount = Decimal(match[1]) if match is not None else None
        except (ArithmeticError, TypeError):
            amount = None
        if amount is None:
            _log.warning("modem %s: no amount is found in what the operator says of its balance", modem.id)
            return
        async with self._pool.connection() as conn:
            await store.set_balance(conn, modem.id, amount)
        self._low.discard(modem.id)
        if amount < Decimal(str(modem.settings.balance_low)):
            self._low.add(modem.id)
            await self._tell(modem, f"only {amount} left on its SIM")
