"""A rack of simulated modems, on pseudo-terminals, in a network that goes faster than ours."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random

from firmware_sim.modem.device import Modem, Sim
from firmware_sim.modem.network import Network
from firmware_sim.modem.personas import EC25, Persona
from firmware_sim.modem.ports import Port, pseudo_terminal

__all__ = ["FAST", "GATEWAY_NUMBER", "Rack", "rack"]

GATEWAY_NUMBER = "+8613900000001"
FAST = json.dumps(
    {
        "find_s": 0.1,
        "command_s": 1.0,
        "list_s": 2.0,
        "send_s": 5.0,
        "look_s": 1.0,
        "sweep_s": 1.0,
        "sim_s": 2.0,
        "register_s": 3.0,
        "boot_s": 0.5,
        "dead_s": 2.0,
        "pause_s": 1.0,
        "retry_s": 0.2,
        "ring_s": 3.0,
        "talk_s": 2.0,
        "poll_s": 0.1,
    }
)
"""Times of the gateway's side for such a network."""


class Rack:
    """The modems. ``network`` is around them."""

    def __init__(self, network: Network, ports: list[Port], modems: list[Modem]) -> None:
        self.network = network
        self.ports = ports
        self.modems = modems

    @property
    def settings(self) -> str:
        """The modems as the gateway's setting ``ONEKEY_MODEMS``."""
        return json.dumps([{"path": str(port.path)} for port in self.ports])


@asynccontextmanager
async def rack(
    directory: Path,
    *,
    modems: int = 1,
    personas: Sequence[Persona] = (EC25,),
    speed: float = 20,
    pin: str | None = None,
) -> AsyncIterator[Rack]:
    """Have modems for the length of a block; their numbers follow `GATEWAY_NUMBER`."""
    network = Network(speed=speed, rng=Random(7))
    async with AsyncExitStack() as stack:
        ports, made = [], []
        for place in range(modems):
            port = await stack.enter_async_context(pseudo_terminal(directory / f"modem{place}"))
            number = f"+{int(GATEWAY_NUMBER[1:]) + place}"
            sim = Sim(number, iccid=f"8986001234567890{place:04}", pin=pin)
            modem = Modem(
                network, sim, port.write, persona=personas[place % len(personas)], imei=f"86123456789{place:04}"
            )
            port.feed = modem.feed
            ports.append(port)
            made.append(modem)
        try:
            yield Rack(network, ports, made)
        finally:
            for modem in made:
                modem.close()
            await network.close()
