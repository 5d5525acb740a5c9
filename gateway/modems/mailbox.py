"""What has arrived at a modem: given to the caller, and forgotten by the modem only when it is safe there (I1)."""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from gateway.links.modem_port import ModemPort
from gateway.modems.bring_up import Refused, told
from gateway.modems.pace import Pace
from protocols.gsm import replies
from protocols.gsm.at import Notice
from protocols.gsm.causes import cause_of

__all__ = ["Arrived", "Mailbox"]

_log = logging.getLogger(__name__)

_PATIENCE = 3


@dataclass(frozen=True, slots=True)
class Arrived:
    """What a modem has for us, as it said it. ``index`` is its place in ``store``; None: it came by itself."""

    pdu: str
    length: int | None
    store: str | None = None
    index: int | None = None


class Mailbox:
    """The stores of one modem, and what it hands over by itself."""

    def __init__(
        self,
        keep: Callable[[Sequence[Arrived]], Awaitable[None]],
        forgotten: Callable[[Sequence[Arrived]], Awaitable[None]],
        *,
        name: Callable[[], str],
        wake: Callable[[], None],
        pace: Pace,
    ) -> None:
        """`keep` has safe what it is given before it returns; `forgotten` knows what the modem has no more."""
        self.arrived = False
        """Is there something that was not looked at?"""
        self._keep = keep
        self._forgotten = forgotten
        self._name = name
        self._wake = wake
        self._pace = pace
        self._direct: deque[Arrived] = deque()
        self._undeleted = 0
        self._doubts: dict[tuple[str | None, int | None], int] = {}

    def heard(self, notice: Notice) -> bool:
        """Take what a modem says unasked, if it is about messages."""
        line = notice.line.upper()
        if notice.pdu is not None and line.startswith(("+CMT:", "+CDS:")):
            length = replies.number_of(replies.fields(notice.line)[-1])
            self._direct.append(Arrived(notice.pdu, length))
        elif line.startswith(("+CMTI:", "+CDSI:", "+CMT:", "+CDS:", "^SMMEMFULL", "+SMS FULL")):
            self.arrived = True
        else:
            return False
        return True

    async def sweep(self, port: ModemPort, stores: Sequence[str]) -> None:
        """Give everything that lies in `stores` to the caller, and let the modem forget it.

        Raises:
            ModemGone: The modem was pulled out.
            ModemSilent: It does not answer.
            Refused: It cannot read a store, or never deletes anything from a full one.
        """
        found = [await self._empty(port, store, one_of_several=len(stores) > 1) for store in stores]
        if not any(found):
            with contextlib.suppress(Exception):  # it is said again with the next look
                await self._forgotten(())

    async def take_direct(self) -> None:
        """Give the caller what came by itself and lies nowhere else."""
        if self._direct and await self._kept(direct := list(self._direct)):
            for _ in direct:
                self._direct.popleft()

    async def _empty(self, port: ModemPort, store: str, *, one_of_several: bool) -> bool:
        """Take what lies in a store; False: nothing does."""
        if one_of_several:
            await told(port, f'AT+CPMS="{store}"', pace=self._pace, prefix="+CPMS:", timeout_s=2 * self._pace.command_s)
        answer = await told(port, "AT+CMGL=4", pace=self._pace, prefix="+CMGL:", timeout_s=self._pace.list_s)
        stored = [one for one in replies.stored_messages(answer.lines) if one.index is not None]
        found = [Arrived(one.pdu, one.length, store, one.index) for one in stored if not one.from_phone]
        if not found:
            if stored:
                await self._make_room(port, store, [one.index for one in stored if one.index is not None])
            return False
        # What got damaged on the line is read again, a few times: once deleted nobody could.
        found = [one for one in found if _sound(one) or self._doubted(one)]
        if not found or not await self._kept(found):
            return True
        deleted: list[Arrived] = []
        stuck = None
        for one in found:
            self._doubts.pop((store, one.index), None)
            gone = await port.ask(f"AT+CMGD={one.index}", timeout_s=self._pace.command_s)
            if gone.ok:
                deleted.append(one)
            else:
                stuck = cause_of(gone.final)
        self._undeleted = 0 if stuck is None else self._undeleted + 1
        if stuck is not None and self._undeleted >= _PATIENCE and await self._is_full(port, store):
            self._undeleted = 0
            raise Refused("AT+CMGD", stuck)  # nothing arrives any more
        with contextlib.suppress(Exception):  # it is said with the next look that finds nothing
            if deleted:
                await self._forgotten(deleted)
        return True

    async def _make_room(self, port: ModemPort, store: str, mine: Sequence[int]) -> None:
        """Delete what was sent or written by it, `mine`, if its store is so full of that that nothing can arrive."""
        if not await self._is_full(port, store):
            return
        _log.warning("modem %s: its store %s was full of %d messages that it had sent", self._name(), store, len(mine))
        for index in mine:
            await port.ask(f"AT+CMGD={index}", timeout_s=self._pace.command_s)

    async def _is_full(self, port: ModemPort, store: str) -> bool:
        answer = await port.ask("AT+CPMS?", prefix="+CPMS:", timeout_s=2 * self._pace.command_s)
        used = replies.fill(answer.lines[0], store) if answer.ok and answer.lines else None
        return used is not None and used[0] >= used[1]

    def _doubted(self, one: Arrived) -> bool:
        """Is a message that looks damaged to be taken as it is, since it looked so again and again?"""
        doubts = self._doubts[one.store, one.index] = self._doubts.get((one.store, one.index), 0) + 1
        if doubts < _PATIENCE:
            asyncio.get_running_loop().call_later(self._pace.find_s, self.look_again)
            return False
        return True

    async def _kept(self, arrived: Sequence[Arrived]) -> bool:
        """Have messages kept; if they cannot be, the modem goes on holding them, and they are found again (I1)."""
        try:
            await self._keep(arrived)
        except Exception as exc:  # noqa: BLE001 # whatever it is that fails there, it is no fault of the modem
            _log.error("modem %s: %d messages cannot be kept yet: %s", self._name(), len(arrived), type(exc).__name__)
            asyncio.get_running_loop().call_later(self._pace.find_s, self.look_again)
            return False
        return True

    def look_again(self) -> None:
        """Have the stores read soon."""
        self.arrived = True
        self._wake()


def _sound(one: Arrived) -> bool:
    """Has a message the length that the modem says it has? Some leave out the service centre in front."""
    try:
        octets = bytes.fromhex(one.pdu)
    except ValueError:
        return False
    behind = len(octets) - 1 - octets[0] if octets else 0
    return one.length in (None, len(octets), behind)
