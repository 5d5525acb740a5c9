"""The messages of a modem: its stores, and how it says, keeps and sends one (3GPP TS 27.005)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from firmware_sim.modem.chassis import Chassis, Sim
from firmware_sim.modem.line import cms
from firmware_sim.modem.network import Network, Refused
from firmware_sim.modem.personas import Persona
from protocols.errors import FrameError
from protocols.gsm.address import Address
from protocols.gsm.tpdu import Deliver, StatusReport, Submit, read_pdu, write_pdu

__all__ = ["Messages"]

_UNREAD, _READ, _UNSENT, _SENT = range(4)
_CONFIRMED_WITHIN_S = 15.0  # 3GPP TS 24.011, 10: TR2M is between 12 and 20 s


@dataclass(slots=True)
class _Stored:
    state: int
    pdu: str
    length: int
    report: bool = False


class Messages(Chassis):
    """A modem as far as messages go."""

    def __init__(self, network: Network, sim: Sim | None, persona: Persona) -> None:
        super().__init__(network, sim, persona)
        self.sent = 0
        self._stores: dict[str, dict[int, _Stored]] = {name: {} for name in persona.stores if name != "MT"}
        self._unconfirmed: Deliver | StatusReport | None = None

    def stored(self, memory: str = "SM") -> int:
        """Return how many messages lie in a store."""
        return len(self._stores[memory])

    def _do_cmgf(self, rest: str) -> list[str]:
        return self._number("CMGF", rest, (0, 1), lambda: int(not self._settings.pdu_mode), self._mode)

    def _mode(self, text: int) -> None:
        self._settings.pdu_mode = not text

    def _do_csms(self, rest: str) -> list[str]:
        if rest == "=?":
            return ["+CSMS: (0,1)"]
        if rest == "?":
            return [f"+CSMS: {self._settings.service},1,1,1"]
        if rest not in ("=0", "=1"):
            raise cms(302)
        self._settings.service = int(rest[1:])
        return ["+CSMS: 1,1,1"]

    def _do_cmms(self, rest: str) -> list[str]:
        return ["+CMMS: (0-2)"] if rest == "=?" else ["+CMMS: 0"] if rest == "?" else []

    def _do_csmp(self, rest: str) -> list[str]:
        return ["+CSMP: 17,167,0,0"] if rest == "?" else []

    def _do_csdh(self, rest: str) -> list[str]:
        return ["+CSDH: 0"] if rest == "?" else []

    def _do_csca(self, rest: str) -> list[str]:
        self._open_sim()
        if rest == "?":
            return [f'+CSCA: "{self._written(self.network.centre)}",145']
        if rest.startswith('="'):
            self.network.centre = self._read(rest[2:].partition('"')[0])
        return []

    def _names(self) -> list[str]:
        return list(self.persona.stores)

    def _do_cpms(self, rest: str) -> list[str]:
        self._open_sim()
        names, memories = self._names(), self._settings.memories
        if rest == "=?":
            group = ",".join(f'"{name}"' for name in names)
            return [f"+CPMS: ({group}),({group}),({group})"]
        if rest == "?":
            return [
                "+CPMS: " + ",".join(f'"{name}",{self._used(name)},{self.persona.stores[name]}' for name in memories)
            ]
        asked = [part.strip().strip('"').upper() for part in rest[1:].split(",")]
        if any(name not in names for name in asked):
            raise cms(302)
        memories[: len(asked)] = asked
        return ["+CPMS: " + ",".join(f"{self._used(name)},{self.persona.stores[name]}" for name in memories)]

    def _used(self, memory: str) -> int:
        return sum(len(self._stores[name]) for name in self._of(memory))

    def _of(self, memory: str) -> list[str]:
        return [name for name in self._stores if memory in ("MT", name)]

    def _places(self) -> Iterator[tuple[int, dict[int, _Stored], int]]:
        """Every stored message of the first memory: place as shown, its store, place in there."""
        base = 0
        for name in self._of(self._settings.memories[0]):
            for place in sorted(self._stores[name]):
                yield base + place, self._stores[name], place
            base += self.persona.stores[name]

    def _find(self, text: str) -> tuple[dict[int, _Stored], int] | None:
        if not text.strip().isdecimal():
            raise cms(321)
        return next(((store, place) for shown, store, place in self._places() if shown == int(text)), None)

    def _do_cmgl(self, rest: str) -> list[str]:
        self._open_sim()
        if rest == "=?":
            return ["+CMGL: (0-4)"]
        wanted = rest[1:].strip('" ') or "0"
        if not self._settings.pdu_mode:
            raise cms(303)
        if wanted not in ("0", "1", "2", "3", "4"):
            raise cms(305)
        lines: list[str] = []
        for shown, store, place in list(self._places()):
            one = store[place]
            if wanted in ("4", str(one.state)):
                lines += [f"+CMGL: {shown},{one.state},,{one.length}", one.pdu]
                one.state = _READ if one.state == _UNREAD else one.state
        return lines

    def _do_cmgr(self, rest: str) -> list[str]:
        self._open_sim()
        found = self._find(rest[1:])
        if found is None:
            if self.persona.empty_place:
                raise cms(321)
            return []
        if not self._settings.pdu_mode:
            raise cms(303)
        one = found[0][found[1]]
        lines = [f"+CMGR: {one.state},,{one.length}", one.pdu]
        one.state = _READ if one.state == _UNREAD else one.state
        return lines

    def _do_cmgd(self, rest: str) -> list[str]:
        self._open_sim()
        if rest == "=?":
            return [f"+CMGD: ({','.join(str(shown) for shown, _, _ in self._places())}),(0-4)"]
        index, _, flag = rest[1:].partition(",")
        kept = {"1": (_UNREAD, _UNSENT, _SENT), "2": (_UNREAD, _UNSENT), "3": (_UNREAD,), "4": ()}.get(flag.strip())
        if kept is not None:
            for _, store, place in list(self._places()):
                if store[place].state not in kept:
                    del store[place]
        elif (found := self._find(index)) is not None:
            del found[0][found[1]]
        return []

    def _do_cnmi(self, rest: str) -> list[str]:
        if rest == "=?":
            return ["+CNMI: " + ",".join(self.persona.notify)]
        notify = self._settings.notify
        if rest == "?":
            return ["+CNMI: " + ",".join(map(str, notify))]
        for place, text in enumerate(rest[1:].split(",")):
            if not text.strip():
                continue
            if (
                place >= len(notify)
                or not text.strip().isdecimal()
                or int(text) not in _numbers(self.persona.notify[place])
            ):
                raise cms(302)
            notify[place] = int(text)
        return []

    def _do_cnma(self, rest: str) -> list[str] | None:
        if rest == "=?":
            return ["+CNMA: (0-2)"]
        how, _, length = rest[1:].partition(",")
        if (how.strip() or "0") not in ("0", "1", "2"):
            raise cms(302)
        if self._unconfirmed is None:
            raise cms(340)
        if length:
            return self._ask_for_text(f"AT+CNMA={how}", f"={length}")
        self._confirm(how)
        return []

    def _confirm(self, how: str) -> None:
        """Take what +CNMA says of the last message: 2 is that it could not be kept, so it comes again."""
        if how.strip() == "2":
            self._give_back()
        self._unconfirmed = None

    def _do_cmgs(self, rest: str) -> list[str] | None:
        return self._ask_for_text("AT+CMGS", rest)

    def _do_cmgw(self, rest: str) -> list[str] | None:
        return self._ask_for_text("AT+CMGW", rest)

    def _ask_for_text(self, command: str, rest: str) -> list[str] | None:
        self._open_sim()
        length = rest[1:].partition(",")[0].strip()
        if not self._settings.pdu_mode or not length.isdecimal():
            raise cms(304)
        self.line.prompt(command, int(length))
        return None

    def _message(self, command: str, length: int, text: str) -> list[str]:
        if command.startswith("AT+CNMA"):
            if not re.fullmatch(r"(?:[0-9A-Fa-f]{2})+", text) or len(text) != 2 * length:
                raise cms(304)
            self._confirm(command.partition("=")[2])
            return []
        try:
            _, message = read_pdu(text, from_phone=True)
        except FrameError:
            raise cms(304) from None
        octets = bytes.fromhex(text)
        if len(octets) - 1 - octets[0] != length or not isinstance(message, Submit):
            raise cms(304)
        if command == "AT+CMGW":
            place = self._keep(_Stored(_UNSENT, text, length), self._settings.memories[1])
            if place is None:
                raise cms(322)
            return [f"+CMGW: {place}"]
        if not self.registered:
            raise cms(331)
        if self.faults.barred:
            raise cms(8)
        try:
            reference = self.network.submit(self, message)
        except Refused as refused:
            raise cms(refused.cause) from None
        self.sent += 1
        return [f"+CMGS: {reference}"]

    def _keep(self, one: _Stored, memory: str) -> int | None:
        """Keep a message where there is room; returns its place as shown, None: there is no room."""
        base = 0
        for name in self._of(memory):
            store = self._stores[name]
            free = next((place for place in range(1, self.persona.stores[name] + 1) if place not in store), None)
            if free is not None:
                store[free] = one
                return base + free
            base += self.persona.stores[name]
        return None

    def take(self, message: Deliver | StatusReport) -> bool:
        """Take a message from the network; False: no room, or not to be reached."""
        if not self.registered or self.faults.deaf:
            return False
        pdu, length = write_pdu(message, centre=Address.parse(self.network.centre))
        _, mt, _, ds, _ = self._settings.notify
        report = isinstance(message, StatusReport)
        if report and ds == 0:
            return True  # nobody wanted to hear of it
        if report and ds == 1:
            return self._hand_over(message, f"+CDS: {length}\r\n{pdu}")
        if not report and mt == 2:
            return self._hand_over(message, f"+CMT: ,{length}\r\n{pdu}")
        memory = self._settings.memories[2]
        place = self._keep(_Stored(_UNREAD, pdu, length, report=report), memory)
        if place is None:
            return False
        if report:
            self._notice(f'+CDSI: "{memory}",{place}')
        elif mt == 1:
            self._notice(f'+CMTI: "{memory}",{place}')
        return True

    def _hand_over(self, message: Deliver | StatusReport, line: str) -> bool:
        """Say a message instead of keeping it. In service 1 of +CSMS it has to be confirmed before the next one."""
        if self._settings.service:
            if self._unconfirmed is not None:
                return False
            self._unconfirmed = message
            self.network.later(self._wait_for_confirmation(message))
        self._notice(line)
        return True

    async def _wait_for_confirmation(self, message: Deliver | StatusReport) -> None:
        """Say no more messages when one is not confirmed: they are kept from now on (27.005, 3.4.4)."""
        await self.network.sleep(_CONFIRMED_WITHIN_S)
        if self._unconfirmed is message:
            self._settings.notify[1] = self._settings.notify[3] = 0
            self._give_back()

    def _give_back(self) -> None:
        """Let the network send again what was said and not confirmed."""
        message, self._unconfirmed = self._unconfirmed, None
        if message is not None:
            self.network.later(self.network.again(self, message))


def _numbers(group: str) -> set[int]:
    numbers: set[int] = set()
    for part in group.strip("()").split(","):
        low, _, high = part.partition("-")
        numbers.update(range(int(low), int(high or low) + 1))
    return numbers
