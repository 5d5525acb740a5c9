"""The modem itself: the commands it knows, and what it says unasked (3GPP TS 27.007, 27.005).

It does what terminals, daemons and managers of modems are known to ask of one. Faults are switched on from outside.
"""

import asyncio
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random

from firmware_sim.modem.faults import Faults
from firmware_sim.modem.line import ERROR, Fails, Line, Manner, cme, cms
from firmware_sim.modem.network import Calling, Network, Refused
from firmware_sim.modem.personas import SIM800, Persona
from protocols.errors import FrameError
from protocols.gsm.address import Address
from protocols.gsm.tpdu import Deliver, StatusReport, Submit, read_pdu, write_pdu

__all__ = ["Modem", "Sim"]

_UNREAD, _READ, _UNSENT, _SENT = range(4)
_STATES = {"active": 0, "dialling": 2, "ringing": 3, "incoming": 4}
_CONFIRMED_WITHIN_S = 15.0  # 3GPP TS 24.011, 10: TR2M is between 12 and 20 s
_EF_ICCID = 0x2FE2


@dataclass(slots=True)
class Sim:
    """A SIM. ``pin`` None: it wants none; three wrong ones and it is locked."""

    number: str
    imsi: str = "460001234567890"
    iccid: str = "89860012345678901234"
    pin: str | None = None
    tries: int = 3
    open: bool = False


@dataclass(slots=True)
class _Stored:
    state: int
    pdu: str
    length: int
    report: bool = False


@dataclass(slots=True)
class _Settings:
    """What a reset sets back."""

    charset: str = "GSM"
    pdu_mode: bool = True
    service: int = 0
    notify: list[int] = field(default_factory=lambda: [0, 0, 0, 0, 0])
    caller_id: bool = False
    rings_in_words: bool = False
    ussd: bool = False
    registration: dict[str, int] = field(default_factory=lambda: {"CREG": 0, "CGREG": 0, "CEREG": 0})
    operator_format: int = 0
    memories: list[str] = field(default_factory=lambda: ["SM", "SM", "SM"])


class Modem:
    """A modem with a SIM in a network. `write` gets what it says."""

    def __init__(
        self,
        network: Network,
        sim: Sim | None,
        write: Callable[[bytes], None],
        *,
        persona: Persona = SIM800,
        imei: str = "861234567890123",
        rng: Random | None = None,
    ) -> None:
        """Switch it on. Without a `sim` it says so."""
        self.network = network
        self.sim = sim
        self.persona = persona
        self.faults = Faults()
        self.imei = imei
        self.sent = 0
        self._stores: dict[str, dict[int, _Stored]] = {name: {} for name in persona.stores if name != "MT"}
        self._settings = _Settings()
        self.line = Line(write, obey=self._obey, send=self._send, faults=self.faults, rng=rng or Random(1))
        self._unconfirmed: Deliver | StatusReport | None = None
        self._calls: list[Calling] = []
        self._on = True
        if sim is not None:
            network.attach(self)

    @property
    def number(self) -> str:
        """Its number, where it has a SIM."""
        return self.sim.number if self.sim is not None else ""

    @property
    def registered(self) -> bool:
        """Can it be reached?"""
        return self._on and self.sim is not None and self._is_open(self.sim) and self.faults.state in (1, 5)

    def stored(self, memory: str = "SM") -> int:
        """Return how many messages lie in a store."""
        return len(self._stores[memory])

    # What comes over the line

    def feed(self, data: bytes) -> None:
        """Take bytes from whoever uses the modem."""
        if self._on:
            self.line.feed(data)

    def _notice(self, line: str) -> None:
        if self._on:
            self.line.notice(line)

    def _send(self, command: str, length: int, text: str) -> None:
        """Take a message that was typed behind a command."""
        if self.network.accept_s and command == "AT+CMGS":
            self.network.later(self._accept(command, length, text))
        else:
            self.line.answer(command, lambda: self._message(command, length, text))

    async def _accept(self, command: str, length: int, text: str) -> None:
        """Take a message as long as the network takes to accept it."""
        await self.network.sleep(self.network.accept_s)
        if self._on and not self.faults.silent:
            self.line.answer(command, lambda: self._message(command, length, text))

    # Commands

    def _obey(self, text: str) -> list[str] | None:
        """Do all commands of a line; the first that fails ends it. An answer of several lines is one text."""
        lines: list[str] = []
        for command in _parts(text):
            for begin, refusals in self.faults.refuses.items():
                if refusals and f"AT{command}".upper().startswith(begin):
                    raise Fails(refusals.pop(0))
            found = self._one(command)
            if found is None:
                return None
            if found:
                lines.append("\r\n".join(found))
        return lines

    def _one(self, command: str) -> list[str] | None:
        upper = command.upper()
        if self.persona.reset and f"AT{upper}" == self.persona.reset:
            self.network.later(self._restart())
            return []
        if not upper.startswith(("+", "*", "^", "$")):
            return self._basic(upper, command)
        match = re.fullmatch(r"([+*^$][A-Z0-9]+)(=\?|\?|=.*)?", command, re.IGNORECASE | re.DOTALL)
        if match is None:
            raise Fails(ERROR)
        name, rest = match[1].upper(), match[2] or ""
        handler = getattr(self, f"_do_{name[1:].lower()}", None) if name[0] == "+" else None
        if handler is None:
            raise Fails(ERROR)
        found: list[str] | None = handler(rest)
        return found

    def _basic(self, upper: str, command: str) -> list[str] | None:
        if upper.startswith("D"):
            return self._dial(command[1:])
        manner = self.line.manner
        match upper:
            case "E0" | "E1" | "E":
                manner.echo = upper == "E1"
            case "V0" | "V1" | "V":
                manner.words = upper == "V1"
            case "Z" | "Z0" | "&F" | "&F0":
                self.line.manner = Manner(echo=manner.echo)
                self._settings = _Settings(memories=self._settings.memories)
            case "I" | "I0":
                return [self.persona.maker, self.persona.model, self.persona.firmware]
            case "H" | "H0":
                self._hang_up()
            case "A":
                return self._pick_up()
            case _ if not re.fullmatch(r"|[QXSL]\d*(=\d+)?|&[A-Z]\d*", upper):
                raise Fails(ERROR)
        return []

    # Identity

    def _do_cgmi(self, _: str) -> list[str]:
        return [self.persona.maker]

    def _do_cgmm(self, _: str) -> list[str]:
        return [self.persona.model]

    def _do_cgmr(self, _: str) -> list[str]:
        return [self.persona.firmware]

    def _do_cgsn(self, _: str) -> list[str]:
        return [self.imei]

    _do_gmi, _do_gmm, _do_gmr, _do_gsn = _do_cgmi, _do_cgmm, _do_cgmr, _do_cgsn

    def _do_cimi(self, _: str) -> list[str]:
        return [self._open_sim().imsi]

    def _do_ccid(self, _: str) -> list[str]:
        return [f"+CCID: {self._open_sim().iccid}"]

    def _do_cnum(self, rest: str) -> list[str]:
        if rest == "=?":
            return []
        number = self._open_sim().number
        return [f'+CNUM: "","{self._written(number)}",145']

    def _do_gcap(self, _: str) -> list[str]:
        return ["+GCAP: +CGSM"]

    def _do_ws46(self, _: str) -> list[str]:
        return ["+WS46: (12,22,25,28)"]

    # SIM and power

    def _is_open(self, sim: Sim) -> bool:
        return sim.pin is None or sim.open

    def _open_sim(self) -> Sim:
        if self.sim is None:
            raise cme(10)
        if not self._is_open(self.sim):
            raise cme(11 if self.sim.tries else 12)
        return self.sim

    def _do_cpin(self, rest: str) -> list[str]:
        if self.sim is None:
            raise cme(10)
        sim = self.sim
        if rest == "?":
            state = "READY" if self._is_open(sim) else "SIM PIN" if sim.tries else "SIM PUK"
            return [f"+CPIN: {state}"]
        if rest == "=?":
            return []
        if self._is_open(sim):
            raise cme(3)
        if not sim.tries:
            raise cme(12)
        if rest[1:].strip().strip('"') != sim.pin:
            sim.tries -= 1
            raise cme(16)
        sim.open, sim.tries = True, 3
        return []

    def _do_crsm(self, rest: str) -> list[str]:
        """Read a file of the SIM (27.007, 8.18); only its serial number is there (51.011, 10.1.1)."""
        if self.sim is None:
            raise cme(10)
        if rest == "=?":
            return []
        words = rest[1:].split(",")
        if not all(word.strip().isdecimal() for word in words[:5]):
            raise cme(50)
        command, file, *where = (int(word) for word in words[:5])
        if file != _EF_ICCID:
            return ["+CRSM: 106,130"]  # no such file: 6A 82
        digits = self.sim.iccid.ljust(20, "F")
        octets = bytes.fromhex("".join(digits[at + 1] + digits[at] for at in range(0, 20, 2)))
        match command:
            case 176:  # READ BINARY
                high, low, length = (*where, 0, 0, 0)[:3]
                octets = octets[high << 8 | low :][: length or None]
            case 192:  # GET RESPONSE: size, name, a file of octets that anybody may read (51.011, 9.2.1)
                octets = bytes.fromhex(f"0000{len(octets):04X}{file:04X}04000FFFFF01020000")
            case _:
                return ["+CRSM: 109,0"]  # no such instruction: 6D 00
        return [f'+CRSM: 144,0,"{octets.hex().upper()}"']

    def _do_clck(self, rest: str) -> list[str]:
        if rest == "=?":
            return ['+CLCK: ("SC")']
        if rest.upper().replace(" ", "") == '="SC",2':
            return [f"+CLCK: {int(self.sim is not None and self.sim.pin is not None)}"]
        raise cme(3)

    def _do_cfun(self, rest: str) -> list[str]:
        match rest.replace(" ", ""):
            case "?":
                return ["+CFUN: 1"]
            case "=?":
                return ["+CFUN: (0,1,4),(0,1)"]
            case "=1,1" | "=0,1":
                self.network.later(self._restart())
            case "=0" | "=4":
                self.faults.state = 0
                self.faults.deaf = False
            case "=1" | "=1,0":
                self.faults.state = self.faults.state or 1
            case _:
                raise cme(50)
        return []

    def reset(self) -> None:
        """Let it start again, as when its power breaks down: what was set is gone, what is stored stays."""
        self.network.later(self._restart())

    async def _restart(self) -> None:
        await asyncio.sleep(0)
        self._on = False
        self._settings = _Settings()
        self.line.clear()
        self._give_back()
        if self.sim is not None:
            self.sim.open = False
        for call in list(self._calls):
            call.go("ended", "NO CARRIER")
        self._calls.clear()
        began = 0.0
        for at_s, line in self.persona.booting:
            await self.network.sleep(at_s - began)
            began = at_s
            self._on = True
            if self.sim is None and "CPIN" in line:
                line = "+CPIN: NOT INSERTED"
            self._notice(line)

    # The line

    def _do_cmee(self, rest: str) -> list[str]:
        return self._number("CMEE", rest, (0, 1, 2), lambda: self.line.manner.errors, self._errors)

    def _errors(self, mode: int) -> None:
        self.line.manner.errors = mode

    def _do_cscs(self, rest: str) -> list[str]:
        if rest == "=?":
            return ['+CSCS: ("GSM","IRA","HEX","UCS2")']
        if rest == "?":
            return [f'+CSCS: "{self._settings.charset}"']
        charset = rest[1:].strip('"').upper()
        if charset not in ("GSM", "IRA", "HEX", "UCS2"):
            raise cme(50)
        self._settings.charset = charset
        return []

    def _do_ipr(self, rest: str) -> list[str]:
        return ["+IPR: 115200"] if rest == "?" else []

    def _do_ifc(self, rest: str) -> list[str]:
        return ["+IFC: (0-2),(0-2)"] if rest == "=?" else []

    def _written(self, text: str) -> str:
        """Return a string as the character set has it."""
        if self._settings.charset in ("HEX", "UCS2"):
            return text.encode("utf-16-be").hex().upper()
        return text.encode("latin-1", errors="replace").decode("latin-1")

    def _read(self, text: str) -> str:
        if self._settings.charset in ("HEX", "UCS2") and re.fullmatch(r"(?:[0-9A-Fa-f]{4})+", text):
            return bytes.fromhex(text).decode("utf-16-be", errors="replace")
        return text

    def _set(self, name: str) -> Callable[[int], None]:
        return lambda value: setattr(self._settings, name, value)

    def _number(
        self, name: str, rest: str, allowed: tuple[int, ...], get: Callable[[], int], put: Callable[[int], None]
    ) -> list[str]:
        if rest == "=?":
            return [f"+{name}: ({','.join(map(str, allowed))})"]
        if rest == "?":
            return [f"+{name}: {get()}"]
        text = rest[1:].partition(",")[0].strip()
        if not text.isdecimal() or int(text) not in allowed:
            raise cme(50)
        put(int(text))
        return []

    # Network

    def _do_creg(self, rest: str) -> list[str]:
        return self._registration("CREG", rest)

    def _do_cgreg(self, rest: str) -> list[str]:
        return self._registration("CGREG", rest)

    def _do_cereg(self, rest: str) -> list[str]:
        return self._registration("CEREG", rest)

    def _registration(self, name: str, rest: str) -> list[str]:
        known = self._settings.registration
        if rest == "?":
            place = ',"2AF5","0B88E350",7' if known[name] == 2 and self.faults.state in (1, 5) else ""
            return [f"+{name}: {known[name]},{self.faults.state}{place}"]
        return self._number(name, rest, (0, 1, 2), lambda: known[name], lambda value: known.update({name: value}))

    def register(self, state: int) -> None:
        """Change the registration; who asked to hear of it does."""
        self.faults.state = state
        for name, mode in self._settings.registration.items():
            if mode:
                self._notice(f"+{name}: {state}")

    def _do_cops(self, rest: str) -> list[str]:
        settings = self._settings
        if rest == "=?":
            return ['+COPS: (2,"CHINA MOBILE","CMCC","46000")']
        if rest == "?":
            if self.faults.state not in (1, 5):
                return ["+COPS: 0"]
            name = "46000" if settings.operator_format == 2 else self._written("CHINA MOBILE")
            return [f'+COPS: 0,{settings.operator_format},"{name}",7']
        if rest.startswith("=3,") and rest[3:].isdecimal():
            settings.operator_format = int(rest[3:])
        return []

    def _do_csq(self, rest: str) -> list[str]:
        return ["+CSQ: (0-31,99),(0-7,99)"] if rest == "=?" else [f"+CSQ: {self.faults.signal},0"]

    def _do_cesq(self, rest: str) -> list[str]:
        return (
            ["+CESQ: (0-63,99),(0-7,99),(0-96,255),(0-49,255),(0-34,255),(0-97,255)"]
            if rest == "=?"
            else ["+CESQ: 99,99,255,255,20,55"]
        )

    def _do_cbc(self, _: str) -> list[str]:
        return ["+CBC: 0,95,4100"]

    def _do_cpas(self, _: str) -> list[str]:
        return [f"+CPAS: {4 if self._calls else 0}"]

    def _do_cclk(self, rest: str) -> list[str]:
        return [f'+CCLK: "{self.network.now():%y/%m/%d,%H:%M:%S}+32"'] if rest == "?" else []

    def _do_ctzu(self, _: str) -> list[str]:
        return []

    def _do_cgatt(self, rest: str) -> list[str]:
        return ["+CGATT: 1"] if rest == "?" else []

    def _do_cgdcont(self, rest: str) -> list[str]:
        return ['+CGDCONT: (1-16),"IP",,,(0),(0)'] if rest == "=?" else []

    # Messages

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

    # USSD

    def _do_cusd(self, rest: str) -> list[str]:
        if rest == "=?":
            return ["+CUSD: (0-2)"]
        if rest == "?":
            return [f"+CUSD: {int(self._settings.ussd)}"]
        match = re.fullmatch(r'=\s*([012])\s*(?:,\s*"?([^",]*)"?\s*(?:,\s*(\d+))?)?\s*', rest)
        if match is None:
            raise cme(50)
        self._settings.ussd = match[1] == "1"
        if match[2]:
            self.network.later(self._ask(self._read(match[2])))
        return []

    async def _ask(self, code: str) -> None:
        await self.network.sleep(1.0)
        answer = self.network.codes.get(code)
        if answer is None:
            self._notice("+CUSD: 4")
        elif self._settings.charset in ("HEX", "UCS2") or any(ord(char) > 0x7F for char in answer):
            self._notice(f'+CUSD: 0,"{answer.encode("utf-16-be").hex().upper()}",72')
        else:
            self._notice(f'+CUSD: 0,"{answer}",15')

    # Calls

    def _do_clip(self, rest: str) -> list[str]:
        return self._number(
            "CLIP", rest, (0, 1), lambda: int(self._settings.caller_id), lambda value: self._set("caller_id")(value)
        )

    def _do_crc(self, rest: str) -> list[str]:
        return self._number(
            "CRC", rest, (0, 1), lambda: int(self._settings.rings_in_words), self._set("rings_in_words")
        )

    def _do_colp(self, rest: str) -> list[str]:
        return ["+COLP: 0,1"] if rest == "?" else []

    def _do_ccwa(self, rest: str) -> list[str]:
        return ["+CCWA: (0,1)"] if rest == "=?" else []

    def _do_cvhu(self, rest: str) -> list[str]:
        return ["+CVHU: (0,1)"] if rest == "=?" else []

    def _do_cssn(self, rest: str) -> list[str]:
        return ["+CSSN: (0,1),(0,1)"] if rest == "=?" else []

    def _do_ddet(self, _: str) -> list[str]:
        return []

    def _do_vts(self, rest: str) -> list[str]:
        call = next((call for call in self._calls if call.state == "active"), None)
        if call is None:
            raise cme(3)
        call.keys += rest[1:].replace('"', "").replace(",", "")
        return []

    def _do_chup(self, rest: str) -> list[str]:
        if rest != "=?":
            self._hang_up()
        return []

    def _do_clcc(self, rest: str) -> list[str]:
        if rest == "=?":
            return []
        return [
            f'+CLCC: {place},{int(call.incoming)},{_STATES[call.state]},0,0,"{call.number}",'
            f"{145 if call.number.startswith('+') else 129}"
            for place, call in enumerate(self._calls, start=1)
            if call.state in _STATES
        ]

    def _dial(self, text: str) -> list[str]:
        number = text.lstrip("TPtp ").rstrip(";").strip()
        if not text.rstrip().endswith(";") or not re.fullmatch(r"[+*#0-9]+", number):
            raise Fails("NO CARRIER")
        if not self.registered:
            raise Fails("NO CARRIER")
        call = self.network.dial(number, caller=self.number)
        self._calls.append(call)
        call.watch(lambda: self._call_changed(call))
        return []

    def _call_changed(self, call: Calling) -> None:
        if call.pressed:
            for key in call.pressed:
                self._notice(f"{self.persona.said_of_keys} {key}")
            return
        said = self.persona.said_of_calls.get(call.state, ())
        if call.state == "ended":
            if call.how == "hung up here":  # V.250, 6.3.6: the answer is OK; NO CARRIER is for what others end
                said = tuple(line for line in said if line != "NO CARRIER")
            else:
                self._calls.remove(call)
                said = (call.how,) if call.how in ("BUSY", "NO ANSWER") else said or ("NO CARRIER",)
        for line in said:
            self._notice(line)

    def ring(self, call: Calling) -> bool:
        """Ring with a call from the network; False: it cannot be reached, or there is another call."""
        if not self.registered or self._calls:
            return False
        self._calls.append(call)
        call.watch(lambda: self._call_changed(call))
        self.network.later(self._ring_on(call))
        return True

    async def _ring_on(self, call: Calling) -> None:
        while call.state == "incoming":
            self._notice("+CRING: VOICE" if self._settings.rings_in_words else "RING")
            if self._settings.caller_id:
                kind = 145 if call.number.startswith("+") else 129
                self._notice(f'+CLIP: "{call.number}",{kind},,,,0')
            await self.network.sleep(2.0)

    def _pick_up(self) -> list[str]:
        for call in self._calls:
            if call.state == "incoming":
                call.go("active")
                return []
        raise Fails("NO CARRIER")

    def _hang_up(self) -> None:
        for call in list(self._calls):
            self._calls.remove(call)
            call.go("ended", "hung up here")

    def close(self) -> None:
        """Switch it off."""
        self._on = False
        self.network.detach(self)


def _parts(text: str) -> Iterator[str]:
    """Split the commands of a line at semicolons outside of quotes; dialling keeps its own."""
    if text[:1].upper() == "D":
        yield text
        return
    found, quoted = "", False
    for char in text:
        if char == '"':
            quoted = not quoted
        if char == ";" and not quoted:
            yield found
            found = ""
        else:
            found += char
    yield found


def _numbers(group: str) -> set[int]:
    numbers: set[int] = set()
    for part in group.strip("()").split(","):
        low, _, high = part.partition("-")
        numbers.update(range(int(low), int(high or low) + 1))
    return numbers
