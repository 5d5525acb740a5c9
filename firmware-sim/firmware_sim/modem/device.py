"""The modem itself: the commands it knows, and what it says unasked (3GPP TS 27.007, 27.005).

It does what terminals, daemons and managers of modems are known to ask of one. Faults are switched on from outside.
"""

import asyncio
import re
from collections.abc import Callable, Iterator
from random import Random

from firmware_sim.modem.calls import Calls
from firmware_sim.modem.chassis import Settings, Sim
from firmware_sim.modem.line import ERROR, Fails, Line, Manner, cme
from firmware_sim.modem.messages import Messages
from firmware_sim.modem.network import Network
from firmware_sim.modem.personas import SIM800, Persona

__all__ = ["Modem", "Sim"]

_EF_ICCID = 0x2FE2


class Modem(Messages, Calls):
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
        super().__init__(network, sim, persona)
        self.imei = imei
        self.line = Line(write, obey=self._obey, send=self._send, faults=self.faults, rng=rng or Random(1))
        if sim is not None:
            network.attach(self)

    # What comes over the line

    def feed(self, data: bytes) -> None:
        """Take bytes from whoever uses the modem."""
        if self._on:
            self.line.feed(data)

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
                self._settings = Settings(memories=self._settings.memories)
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
        if self.sim is None:
            raise cme(10)
        return [f"+CCID: {self.sim.iccid}"]  # which is told without a PIN

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
        self._settings = Settings()
        self.line.clear()
        self._give_back()
        if self.sim is not None:
            self.sim.open = False
        self.faults.state = self.faults.state or 1  # it looks for a network anew
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
