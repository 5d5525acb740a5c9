"""One modem looked at from end to end, in words for whoever stands at the rack."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from gateway.config import ModemSettings
from gateway.links.modem_port import ModemGone, ModemPort, ModemSilent, PortRefused
from gateway.modems.bring_up import Refused, Setup, Stopped, bring_up
from gateway.modems.pace import Pace
from protocols.gsm import replies

__all__ = ["Finding", "checkup"]

_WEAK_DBM = -103
_NEARLY_FULL = 0.8


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. ``good`` None: something to know, neither good nor bad."""

    name: str
    good: bool | None
    words: str


def _good(name: str, words: str) -> Finding:
    return Finding(name, good=True, words=words)


def _bad(name: str, words: str) -> Finding:
    return Finding(name, good=False, words=words)


async def checkup(
    path: Path, settings: ModemSettings, *, try_pin: bool = True, pace: Pace | None = None
) -> AsyncIterator[Finding]:
    """Yield what is found, in the order in which it is looked at; the last one says what to do where it ends early.

    Without `try_pin` no PIN is tried: nothing is known here of those that were wrong, and three of them lock the SIM.
    """
    pace = pace or Pace()
    port = ModemPort(path)
    try:
        port.open()
    except ModemGone as exc:
        words = str(exc)
        if isinstance(exc, PortRefused):
            words = words.partition(": ")[2]
        elif "No such file" in words:
            words = "there is no such port: is it plugged in? ls -l /dev/serial/by-id shows those that there are"
        yield _bad("port", words)
        return
    try:
        yield _good("port", "open")
        async for finding in _looked_at(port, settings, pace, try_pin=try_pin):
            yield finding
    except Stopped as exc:
        yield _bad("SIM", str(exc))
    except Refused as exc:
        yield _bad("set up", str(exc))
    except ModemSilent as exc:
        yield _bad("answers", f"{exc}: wrong port of the modem, no power, or it hangs: take its power away")
    except ModemGone:
        yield _bad("port", "it was pulled out, or the modem has started again")
    finally:
        port.close()


async def _looked_at(port: ModemPort, settings: ModemSettings, pace: Pace, *, try_pin: bool) -> AsyncIterator[Finding]:
    tried: list[str] = []

    async def refused_before(_sim: str, _pin: str) -> bool:
        if not try_pin:
            raise Stopped("it wants its PIN: the gateway tries the one in the settings, once; --pin tries one now")
        return False

    async def remember(sim: str, pin: str, *, refused: bool) -> None:
        del sim
        if refused:
            tried.append(pin)

    setup: Setup = await bring_up(port, settings, pace=pace, pin_refused=refused_before, remember_pin=remember)
    who = setup.identity
    yield _good("answers", f"{who.maker} {who.model}, {who.firmware}, IMEI {who.id}")
    yield _good("SIM", "ready, its PIN is right" if tried else "ready")
    line = await _first(port, "AT+CSQ", "+CSQ:")
    dbm = None if line is None else replies.signal_dbm(line)
    yield Finding(
        "signal",
        None if dbm is None else dbm > _WEAK_DBM,
        "not known yet" if dbm is None else f"{dbm} dBm{'' if dbm > _WEAK_DBM else ': weak, move its antenna'}",
    )
    states = {}
    for name in ("CREG", "CEREG"):
        line = await _first(port, f"AT+{name}?", f"+{name}:")
        if line is not None and (known := replies.registration(line, answer=True)) is not None:
            states[name] = known
    operator = await _first(port, "AT+COPS?", "+COPS:")
    if any(one.registered for one in states.values()):
        yield _good("network", (operator and replies.operator(operator)) or "registered")
    elif any(one.denied for one in states.values()):
        yield _bad("network", "the network refuses its SIM: not activated, not paid, or for another device")
    else:
        yield _bad("network", "none: antenna, SIM, or one that this modem does not speak (2G is ending)")
    line = await _first(port, "AT+CSCA?", "+CSCA:")
    centre = None if line is None else replies.centre(line)
    yield Finding(
        "service centre", bool(centre), centre or "missing: give centre in the settings, the operator knows the number"
    )
    for store in setup.stores:
        answer = await port.ask(f'AT+CPMS="{store}"', prefix="+CPMS:", timeout_s=2 * pace.command_s)
        counts = [replies.number_of(part) for part in replies.fields(answer.lines[0])] if answer.lines else []
        if len(counts) >= 2 and counts[0] is not None and counts[1]:
            full = counts[0] >= _NEARLY_FULL * counts[1]
            words = f"{counts[0]} of {counts[1]} messages{': nearly full' if full else ''}"
            yield Finding(f"store {store}", not full, words)
    yield Finding("arrival", bool(setup.again[5:]), "told" if setup.again[5:] else "not told: stores are read in turn")


async def _first(port: ModemPort, command: str, prefix: str) -> str | None:
    answer = await port.ask(command, prefix=prefix, timeout_s=10)
    return answer.lines[0] if answer.ok and answer.lines else None
