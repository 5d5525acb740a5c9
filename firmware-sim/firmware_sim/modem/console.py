"""``onekey simulate-modem``: modems on pseudo-terminals for whoever tries a gateway without one, and a small network.

What goes through the network is printed; what is typed happens in it.
"""

import asyncio
import sys
import zlib
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from firmware_sim.modem.device import Modem, Sim
from firmware_sim.modem.network import Calling, Network, Text
from firmware_sim.modem.personas import Persona
from firmware_sim.modem.ports import Port, pseudo_terminal
from protocols.gsm.tpdu import Submit

__all__ = ["HELP", "Desk", "run"]

HELP = """\
text FROM WORDS     write to the modem from a phone
ring FROM           call the modem
phone NUMBER [busy|off|silent|KEYS]   have a phone: busy, switched off, never picked up, or pressing keys in a call
modem N             what follows happens to the modem N; at first that is 1
reset | silent | speaks | unplug | plug
network | nonetwork | denied | deaf     deaf: as if all were well, but nothing arrives
signal 0-31         how strong it is; 99: unknown
sim in | out | barred | good            barred: the network takes nothing from it
noise PERCENT       so much of what it says is garbage
quit"""

_REGISTERED = {"network": 1, "nonetwork": 0, "denied": 3}
_SIM = ("in", "out", "barred", "good")


class Desk:
    """The network and its modems, and the words that make things happen."""

    def __init__(
        self, network: Network, modems: Sequence[Modem], ports: Sequence[Port], say: Callable[[str], None]
    ) -> None:
        """`say` gets what happens, line by line."""
        self._network = network
        self._modems = modems
        self._ports = ports
        self._say = say
        self._place = 0
        self._sims = [modem.sim for modem in modems]
        network.taking = self._took

    def _took(self, modem: str, message: Submit) -> None:
        number = str(message.recipient)
        phone = self._network.phones.get(number)
        if phone is None:
            phone = self._network.phone(number)
        if phone.hears is None:
            phone.hears = self._arrived
        part = message.user.header.concat
        of = "" if part is None else f" (part {part.seq} of {part.total})"
        self._say(f"{modem} sends to {number}{of}")

    def _arrived(self, number: str, text: Text) -> None:
        self._say(f"{number} reads: {text.text}")

    def do(self, line: str) -> bool:
        """Do what a line says; False: it is to end."""
        word, _, rest = line.strip().partition(" ")
        number, _, more = rest.strip().partition(" ")
        modem, port = self._modems[self._place], self._ports[self._place]
        match word:
            case "":
                pass
            case "quit":
                return False
            case "text" if number and more:
                self._network.later(self._network.text(modem.number, more, sender=number))
            case "ring" if number:
                self._follow(self._network.call(modem.number, caller=number))
            case "phone" if number:
                self._phone(number, more.strip())
            case "modem" if number.isdecimal() and 0 < int(number) <= len(self._modems):
                self._place = int(number) - 1
            case "reset":
                modem.reset()
            case "silent" | "speaks":
                modem.faults.silent = word == "silent"
            case "unplug":
                port.unplug()
            case "plug":
                port.unplug()
                port.plug_in()
            case "nonetwork" | "network" | "denied":
                modem.register(_REGISTERED[word])
                modem.faults.deaf = False
            case "deaf":
                modem.faults.deaf = True
            case "signal" if number.isdecimal() and (int(number) <= 31 or number == "99"):
                modem.faults.signal = int(number)
            case "sim" if number in _SIM:
                self._sim(number)
            case "noise" if number.isdecimal() and int(number) <= 100:
                modem.faults.noise = int(number) / 100
            case _:
                self._say(HELP)
        return True

    def _sim(self, word: str) -> None:
        modem = self._modems[self._place]
        modem.faults.barred = word == "barred"
        there = self._sims[self._place] if word != "out" else None
        if modem.sim is not there:
            modem.sim = there
            modem.reset()  # as most do when it is put in or taken out

    def _phone(self, number: str, habit: str) -> None:
        phone = self._network.phone(number, hears=self._arrived, busy=habit == "busy", reachable=habit != "off")
        phone.picks_up_after_s = None if habit == "silent" else 3.0
        phone.presses = habit if habit and set(habit) <= set("0123456789*#") else ""
        self._say(f"{number} is a phone{f': {habit}' if habit else ''}")

    def _follow(self, call: Calling) -> None:
        call.watch(lambda: self._say(f"the call is {call.state}{f': {call.how}' if call.how else ''}"))
        self._say(f"the call is {call.state}")


def imei_of(path: Path) -> str:
    """Return a number of a device that is another one for each port, whichever process has it."""
    return f"86123456{zlib.crc32(str(path.absolute()).encode()) % 10_000_000:07}"


async def run(
    paths: Sequence[Path], personas: Sequence[Persona], *, pin: str | None, speed: float, say: Callable[[str], None]
) -> None:
    """Have modems at `paths` until the words end that are typed."""
    network = Network(speed=speed)
    async with AsyncExitStack() as stack:
        ports, modems = [], []
        for place, path in enumerate(paths):
            port = await stack.enter_async_context(pseudo_terminal(path))
            sim = Sim(f"+86139999900{place + 1:02}", pin=pin)
            modem = Modem(
                network,
                sim,
                port.write,
                persona=personas[place % len(personas)],
                imei=imei_of(path),
            )
            port.feed = modem.feed
            stack.callback(modem.close)
            ports.append(port)
            modems.append(modem)
            say(f"{path}: {modem.persona.model}, number {sim.number}")
        stack.push_async_callback(network.close)
        desk = Desk(network, modems, ports, say)
        say(HELP)
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            if not desk.do(line.decode(errors="replace")):
                return
