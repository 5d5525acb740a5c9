"""From an open port to a modem that can be used: who it is, its SIM, and how it tells of what arrives.

Nothing here is a matter of one maker: what a modem offers is asked for, and the nearest is taken (TS 27.005, 27.007).
"""

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from gateway.config import ModemSettings
from gateway.links.modem_port import ModemPort
from gateway.modems.pace import Pace
from protocols.gsm import replies
from protocols.gsm.at import Answer
from protocols.gsm.causes import Action, Cause, cause_of

__all__ = ["Identity", "Refused", "Setup", "Stopped", "bring_up", "told"]


class Refused(Exception):
    """The modem or the network did not do it."""

    def __init__(self, command: str, cause: Cause) -> None:
        """``cause`` says why, and what is to be done."""
        super().__init__(f"{command.partition('=')[0]}: {cause.text}")
        self.cause = cause


class Stopped(Exception):
    """Somebody has to come: trying again is of no use, or makes it worse."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Which modem it is. ``id`` is its IMEI where it tells."""

    id: str
    maker: str
    model: str
    firmware: str


@dataclass(frozen=True, slots=True)
class Setup:
    """A modem that is set up.

    ``stores`` are those that messages arrive in, the one in use first. ``again`` are commands that a modem forgets when
    it is ready only a while after it said so.
    """

    identity: Identity
    stores: tuple[str, ...]
    again: tuple[str, ...]


class RememberPin(Protocol):
    """Remembers a PIN with its SIM."""

    async def __call__(self, sim: str, pin: str, *, refused: bool) -> None:
        """As refused while it is tried; not any more once it was right."""
        ...


_ICCID = re.compile(r"\d{18,20}")
_READ_ICCID = "AT+CRSM=176,12258,0,0,10"  # EF_ICCID (51.011, 10.1.1)
_ICCID_OCTETS = re.compile(r'144,\s*0,\s*"?([0-9]{2}[0-9A-Fa-f]{18})')

_QUIETLY = (
    # Hanging up with ATH ends calls too; keys that the other side presses are told; no cell broadcast.
    "AT+CVHU=0",
    "AT+DDET=1",
    "AT+QTONEDET=1",
    "AT+CLIP=1",
    "AT+CRC=1",
    "AT+CREG=2",
    "AT+CEREG=2",
    "AT+COPS=3,0",
    "AT+CSMS=0",
)


async def told(port: ModemPort, command: str, *, pace: Pace, **how: object) -> Answer:
    """Give a command that has to be done, and return its answer.

    Raises:
        Refused: It was not done.
        ModemGone: The port is gone.
        ModemSilent: No answer.
    """
    answer = await port.ask(command, **({"timeout_s": pace.command_s} | how))  # type: ignore[arg-type]
    if not answer.ok:
        raise Refused(command, cause_of(answer.final))
    return answer


async def bring_up(
    port: ModemPort,
    settings: ModemSettings,
    *,
    pace: Pace,
    pin_refused: Callable[[str, str], Awaitable[bool]],
    remember_pin: RememberPin,
) -> Setup:
    """Set a modem up whose port is open; it need not have a network yet.

    `remember_pin` gets the SIM and the PIN that is being tried, and again once it was right; `pin_refused` asks whether
    it was tried before with that SIM and was not right: after three wrong ones a SIM is locked.

    Raises:
        Stopped: Somebody has to come.
        Refused: It would not be set up.
        ModemGone: The port is gone.
        ModemSilent: It does not answer.
    """
    await port.synchronise()
    await port.ask("ATE0", numeric=True)
    await port.ask("ATV1", numeric=True)
    for command in ("ATQ0", "AT+CMEE=1"):
        await port.ask(command)
    identity = await _identity(port, settings.path)
    if (await _first(port, "AT+CFUN?", "+CFUN:")) not in ("+CFUN: 1", None):
        await told(port, "AT+CFUN=1", pace=pace, timeout_s=15)
    await _open_sim(port, settings, identity, pace=pace, pin_refused=pin_refused, remember_pin=remember_pin)
    for command in _QUIETLY:
        await port.ask(command, timeout_s=pace.command_s)
    await told(port, "AT+CMGF=0", pace=pace)
    await port.ask('AT+CSCS="GSM"')
    stores = await _choose_stores(port, pace)
    notices = await _choose_notices(port, pace)
    await _set_centre(port, settings, pace)
    return Setup(identity, stores, ("AT+CMEE=1", "AT+CMGF=0", "AT+CLIP=1", "AT+CREG=2", "AT+CEREG=2", *notices))


async def _first(port: ModemPort, command: str, prefix: str) -> str | None:
    answer = await port.ask(command, prefix=prefix)
    return answer.lines[0] if answer.ok and answer.lines else None


async def _identity(port: ModemPort, path: str) -> Identity:
    said = []
    for command in ("AT+CGSN", "AT+CGMI", "AT+CGMM", "AT+CGMR"):
        answer = await port.ask(command, free=True)
        line = answer.lines[0] if answer.ok and answer.lines else ""
        said.append(line.partition(":")[2].strip() or line if line.startswith("+") else line)
    imei = "".join(char for char in said[0] if char.isdecimal())
    return Identity(imei if len(imei) >= 14 else path, said[1], said[2], said[3].removeprefix("Revision:").strip())


async def _sim(port: ModemPort) -> str | None:
    """Return the serial number of the SIM, which may be read before its PIN is given; None: the modem does not tell."""
    for command in ("AT+CCID", "AT+QCCID", "AT+ICCID", "AT^ICCID?"):
        answer = await port.ask(command, free=True, timeout_s=10)
        found = _ICCID.search(answer.lines[0]) if answer.ok and answer.lines else None
        if found is not None:
            return found[0]
    answer = await port.ask(_READ_ICCID, prefix="+CRSM:", timeout_s=10)
    octets = _ICCID_OCTETS.search(answer.lines[0]) if answer.ok and answer.lines else None
    if octets is None:
        return None
    return "".join(octets[1][at + 1] + octets[1][at] for at in range(0, 20, 2)).rstrip("Ff")


async def _open_sim(
    port: ModemPort,
    settings: ModemSettings,
    identity: Identity,
    *,
    pace: Pace,
    pin_refused: Callable[[str, str], Awaitable[bool]],
    remember_pin: RememberPin,
) -> None:
    until_s = asyncio.get_running_loop().time() + pace.sim_s
    while True:
        answer = await port.ask("AT+CPIN?", prefix="+CPIN:", timeout_s=15)
        state = answer.lines[0].partition(":")[2].strip().upper() if answer.ok and answer.lines else ""
        if state == "READY":
            if settings.pin is not None:  # whoever was killed while it was tried must not be locked out by that
                sim = await _sim(port) or identity.id
                await remember_pin(sim, settings.pin.get_secret_value(), refused=False)
            return
        if state in ("SIM PIN", "SIM PUK", "SIM PIN2", "SIM PUK2"):
            break
        cause = cause_of(answer.final) if not answer.ok else Cause("it does not say how its SIM is", Action.WAIT)
        if cause.action is Action.NO_SIM or asyncio.get_running_loop().time() > until_s:
            raise Stopped(cause.text)
        if cause.action is Action.STOP:
            break
        await asyncio.sleep(min(1.0, pace.sim_s / 10))
    if "PUK" in state:
        raise Stopped("the SIM is locked and wants its PUK: unlock it in a phone")
    if settings.pin is None:
        raise Stopped("the SIM wants its PIN: give it in the settings, or take it off in a phone")
    pin = settings.pin.get_secret_value()
    sim = await _sim(port) or identity.id
    if await pin_refused(sim, pin):
        raise Stopped("the PIN in the settings was wrong once: it is not tried again, for three times lock the SIM")
    # Before it is given: whoever is killed between both must not try it again and again.
    await remember_pin(sim, pin, refused=True)
    answer = await port.ask(f'AT+CPIN="{pin}"', timeout_s=15)
    if not answer.ok:
        raise Stopped(cause_of(answer.final).text)
    await remember_pin(sim, pin, refused=False)
    for _ in range(10):
        ready = await port.ask("AT+CPIN?", prefix="+CPIN:", timeout_s=15)
        if ready.ok and ready.lines and "READY" in ready.lines[0].upper():
            return
        await asyncio.sleep(min(0.5, pace.sim_s / 20))


async def _choose_stores(port: ModemPort, pace: Pace) -> tuple[str, ...]:
    """Choose where messages arrive: the SIM is small, so the modem's own store where it may be used for that."""
    line = await _first(port, "AT+CPMS=?", "+CPMS:")
    offered = replies.stores(line) if line is not None else []
    both = [name for name in ("ME", "SM") if all(name in group for group in offered)] if offered else ["SM"]
    readable = [name for name in ("ME", "SM") if offered and name in offered[0]] or ["SM"]
    for name in [*both, "SM"]:
        answer = await port.ask(f'AT+CPMS="{name}","{name}","{name}"', prefix="+CPMS:", timeout_s=pace.list_s)
        if answer.ok:
            return (name, *(other for other in readable if other != name))
    raise Refused("AT+CPMS", Cause("it has no store for messages that can be used", Action.WAIT))


async def _choose_notices(port: ModemPort, pace: Pace) -> tuple[str, ...]:
    """Have it tell where a message lies (1), not the message: what is lost on the line would be lost for ever.

    Returns the command that it took, none if it took none: then it tells nothing, and its stores are read all the same.
    """
    line = await _first(port, "AT+CNMI=?", "+CNMI:")
    offered = replies.choices(line) if line is not None else []
    wanted = ((2, 1, 3), (1,), (0,), (1, 2, 0), (0, 1))
    chosen = []
    for place, preferred in enumerate(wanted):
        allowed = offered[place] if place < len(offered) else set(preferred)
        chosen.append(next((one for one in preferred if one in allowed), preferred[0]))
    for numbers in (chosen, chosen[:4], [2, 1, 0, 1, 0], [2, 1], [1, 1]):
        command = f"AT+CNMI={','.join(map(str, numbers))}"
        if (await port.ask(command, timeout_s=pace.command_s)).ok:
            return (command,)
    return ()


async def _set_centre(port: ModemPort, settings: ModemSettings, pace: Pace) -> None:
    """Set the service centre where there is none: a SIM that has one knows it better."""
    line = await _first(port, "AT+CSCA?", "+CSCA:")
    known = None if line is None else replies.centre(line)
    if not known and settings.centre is not None:
        kind = 145 if settings.centre.startswith("+") else 129
        with contextlib.suppress(Refused):
            await told(port, f'AT+CSCA="{settings.centre}",{kind}', pace=pace)
