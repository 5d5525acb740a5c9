"""The calls of a modem: those that it makes, and those that ring at it (3GPP TS 27.007)."""

import re

from firmware_sim.modem.chassis import Chassis, Sim
from firmware_sim.modem.line import Fails, cme
from firmware_sim.modem.network import Calling, Network
from firmware_sim.modem.personas import Persona

__all__ = ["Calls"]

_STATES = {"active": 0, "dialling": 2, "ringing": 3, "incoming": 4}


class Calls(Chassis):
    """A modem as far as calls go."""

    def __init__(self, network: Network, sim: Sim | None, persona: Persona) -> None:
        super().__init__(network, sim, persona)
        self._calls: list[Calling] = []

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
        if not self.registered or self.faults.barred:
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
