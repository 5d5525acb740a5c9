"""A call of ours by a modem, for as long as it goes on.

Modems tell of a call in their own words, and none tells everything: what all of them know is the list of calls, so it
is asked for again and again. That somebody picks up is no answer (I7); a pressed key is one.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from gateway.domain.modems import CallState
from gateway.links.modem_port import ModemPort
from gateway.modems.pace import Pace
from protocols.gsm import replies

__all__ = ["Call", "Called"]

_PRESSED = ("+DTMF:", "+RXDTMF:", "+QTONEDET:")
_MOVES = ("MO RING", "MO CONNECTED", "VOICE CALL", "^DSCI", "^ORIG", "^CONF", "^CONN", "^CEND")
_PICKED_UP = ("MO CONNECTED", "^CONN:")
_STATES = {2: CallState.DIALLING, 3: CallState.RINGING, 0: CallState.PICKED_UP}


@dataclass(frozen=True, slots=True)
class Called:
    """How a call ended. ``keys`` were pressed by the other side."""

    how: CallState
    picked_up: bool
    keys: str
    detail: str


class Call:
    """A call, from the moment it is dialled.

    Attributes:
        alone: Nothing else can be done while it goes on.
        watched: The list of calls was asked for all the time, so that nothing of it went unseen.
    """

    def __init__(self) -> None:
        self.alone = False
        self.watched = True
        self._how: CallState | None = None
        self._detail = ""
        self._rang = False
        self._picked_up = False
        self._keys = ""
        self._changed = asyncio.Event()
        self._until_s = 0.0

    @property
    def left_s(self) -> float:
        """How long it may go on; 0: it has not begun, or is over."""
        return 0.0 if self._how is not None or self._keys else max(0.0, self._until_s - time.monotonic())

    def end(self, how: CallState, detail: str) -> None:
        """It is over; what ended it first counts."""
        if self._how is None:
            lost = how is CallState.FAILED and self._picked_up
            self._how, self._detail = CallState.HUNG_UP if lost else how, detail
            self._changed.set()

    def so_far(self, detail: str) -> Called | None:
        """Return how it ended as far as anybody knows, the modem being lost; None: nobody had picked up."""
        if not self._picked_up:
            return None
        return Called(CallState.HUNG_UP, picked_up=True, keys=self._keys, detail=detail)

    def heard(self, line: str) -> bool:
        """Take what a modem says, in capital letters, if it is about the call."""
        if line.startswith(("NO CARRIER", "VOICE CALL: END")):
            rang = self._rang or not self.watched
            ended = CallState.HUNG_UP if self._picked_up else CallState.NO_ANSWER if rang else CallState.FAILED
            self.end(ended, "the other side or the network ended it")
        elif line.startswith("BUSY"):
            self.end(CallState.BUSY, "busy")
        elif line.startswith("NO ANSWER"):
            self.end(CallState.NO_ANSWER, "nobody picked up")
        elif line.startswith("NO DIALTONE"):
            self.end(CallState.FAILED, "no network")
        elif line.startswith(_PRESSED):
            self._keys += "".join(char for char in line.partition(":")[2] if char in "0123456789*#")
            self._picked_up = True
            self._changed.set()
        elif line.startswith(_MOVES):
            self._rang |= line.startswith("MO RING")
            self._picked_up |= line.startswith(_PICKED_UP)
            self._changed.set()
        else:
            return False
        return True

    async def follow(
        self, port: ModemPort, pace: Pace, progress: Callable[[CallState], Awaitable[None]], *, ring_s: float
    ) -> Called:
        """Look at the call until it is over, a key is pressed, or it took too long; `progress` hears how far it is.

        It is not hung up here.

        Raises:
            ModemGone: The modem was pulled out.
            ModemSilent: It does not answer any more.
        """
        self._until_s = time.monotonic() + ring_s
        seen = CallState.DIALLING
        while self._how is None:
            lines = (await port.ask("AT+CLCC", prefix="+CLCC:", timeout_s=pace.command_s)).lines
            mine = next((one for one in replies.calls(lines) if not one.incoming and one.voice), None)
            if mine is None and self._how is None:
                await asyncio.sleep(pace.poll_s / 2)  # its last words may still be on their way
                self.end(CallState.HUNG_UP if self._picked_up else CallState.FAILED, "the call is over")
                break
            now = _STATES.get(mine.state if mine else -1)
            if now is not None and now is not seen:
                seen = now
                if now is CallState.RINGING:
                    self._rang = True
                if now is CallState.PICKED_UP:
                    self._picked_up = True
                    self._until_s = time.monotonic() + pace.talk_s
                await progress(now)
            if self._keys or time.monotonic() > self._until_s:
                self.end(CallState.HUNG_UP if self._picked_up else CallState.NO_ANSWER, "hung up by us")
                break
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pace.poll_s):
                    await self._changed.wait()
            self._changed.clear()
        assert self._how is not None
        return Called(self._how, self._picked_up, self._keys, self._detail)
