"""What every part of a modem has in common: its SIM, its settings, its line."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

from firmware_sim.modem.faults import Faults
from firmware_sim.modem.line import Line, cme
from firmware_sim.modem.network import Calling, Network
from firmware_sim.modem.personas import Persona

__all__ = ["Chassis", "Settings", "Sim"]


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
class Settings:
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


class Chassis(ABC):
    """A modem without its commands."""

    line: Line

    def __init__(self, network: Network, sim: Sim | None, persona: Persona) -> None:
        self.network = network
        self.sim = sim
        self.persona = persona
        self.faults = Faults()
        self._settings = Settings()
        self._on = True

    @property
    def number(self) -> str:
        """Its number, where it has a SIM."""
        return self.sim.number if self.sim is not None else ""

    @property
    def registered(self) -> bool:
        """Can it be reached?"""
        return self._on and self.sim is not None and self._is_open(self.sim) and self.faults.state in (1, 5)

    @abstractmethod
    def ring(self, call: Calling) -> bool:
        """Ring with a call from the network; False: it cannot be reached, or there is another call."""

    def _notice(self, line: str) -> None:
        if self._on:
            self.line.notice(line)

    def _is_open(self, sim: Sim) -> bool:
        return sim.pin is None or sim.open

    def _open_sim(self) -> Sim:
        if self.sim is None:
            raise cme(10)
        if not self._is_open(self.sim):
            raise cme(11 if self.sim.tries else 12)
        return self.sim

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
