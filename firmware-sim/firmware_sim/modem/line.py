"""The line of a modem, from its own end: keys come in, echoes, answers and notices go out (ITU-T V.250)."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from firmware_sim.modem.faults import Faults

__all__ = ["ERROR", "OK", "Fails", "Line", "Manner", "cme", "cms"]

OK, ERROR = "OK", "ERROR"
_CR, _LF, _ESC, _CTRL_Z, _BACKSPACE = 0x0D, 0x0A, 0x1B, 0x1A, 0x08
_NUMBERS = {OK: "0", "NO CARRIER": "3", ERROR: "4", "BUSY": "7", "NO ANSWER": "8"}


class Fails(Exception):
    """The command ends with this line."""


def cme(code: int) -> Fails:
    """Return an error of the equipment (3GPP TS 27.007, 9.2)."""
    return Fails(f"+CME ERROR: {code}")


def cms(code: int) -> Fails:
    """Return an error of a message (3GPP TS 27.005, 3.2.5)."""
    return Fails(f"+CMS ERROR: {code}")


@dataclass(slots=True)
class Manner:
    """How it talks. ``echo``: it says what it hears; ``words``: answers are no numbers; ``errors``: as in +CMEE."""

    echo: bool = True
    words: bool = True
    errors: int = 0


class Line:
    """The line.

    `obey` does what a line of commands says, without its ``AT``, and returns lines to say. `send` takes a message,
    behind its command and its length, and has it answered when it likes. `write` gets what is said.
    """

    def __init__(
        self,
        write: Callable[[bytes], None],
        *,
        obey: Callable[[str], list[str] | None],
        send: Callable[[str, int, str], None],
        faults: Faults,
        rng: Random,
    ) -> None:
        self.write = write
        self.manner = Manner()
        self._obey = obey
        self._send = send
        self._faults = faults
        self._rng = rng
        self._typed = bytearray()
        self._last = ""
        self._prompt: tuple[str, int] | None = None
        self._body = bytearray()
        self._held: deque[str] = deque()

    def clear(self) -> None:
        """Forget what was set and what was being typed."""
        self.manner = Manner()
        self._typed.clear()
        self._prompt = None
        self._body.clear()
        self._held.clear()

    # What comes in

    def feed(self, data: bytes) -> None:
        """Take bytes from whoever uses the modem."""
        if self._faults.silent:
            return
        for byte in data:
            if self._prompt is not None:
                self._key_of_message(*self._prompt, byte)
            else:
                self._key(byte)

    def _key(self, byte: int) -> None:
        if self.manner.echo:
            self._put(bytes((byte,)))
        if byte == _LF:
            return
        if byte in (_ESC, _CTRL_Z):
            self._typed.clear()
        elif byte == _BACKSPACE:
            del self._typed[-1:]
        elif byte == _CR:
            line = self._typed.decode("ascii", errors="replace").strip()
            self._typed.clear()
            if line:
                self._command(line)
        else:
            self._typed.append(byte)

    def _command(self, line: str) -> None:
        if line.upper() == "A/":
            line = self._last
        start = line.upper().find("AT")
        if start < 0:
            return
        self._last = line = line[start:]
        late_s = max((late for begin, late in self._faults.slow.items() if line.upper().startswith(begin)), default=0.0)
        if late_s:
            asyncio.get_running_loop().call_later(late_s, self.answer, line, lambda: self._obey(line[2:]))
        else:
            self.answer(line, lambda: self._obey(line[2:]))

    def prompt(self, command: str, length: int) -> None:
        """Ask for the message of a command; until it is typed nothing else is said."""
        self._prompt = (command, length)
        self._put(b"\r\n> ")

    def _key_of_message(self, command: str, length: int, byte: int) -> None:
        """Take a key of a message, until it is sent or given up."""
        if byte == _LF and not self._body:
            return  # the end of the line of the command
        if self.manner.echo:
            self._put(bytes((byte,)))
        if byte == _ESC:
            self._end_prompt()
            self._say(OK)
        elif byte == _CTRL_Z:
            text = self._body.decode("ascii", errors="replace").strip()
            self._end_prompt()
            self._send(command, length, text)
        else:
            self._body.append(byte)

    def _end_prompt(self) -> None:
        self._prompt = None
        self._body.clear()
        while self._held:
            self._say(self._held.popleft())

    # What goes out

    def answer(self, command: str, work: Callable[[], list[str] | None]) -> None:
        """Do what a command asks for, and answer it, unless there is more to come: `work` returns None then."""
        try:
            lines, final = work(), OK
        except Fails as failed:
            lines, final = [], str(failed)
            if not self.manner.errors and final.startswith("+CME"):
                final = ERROR
        if lines is None:
            return
        if command.upper().startswith("AT+CMGS") and self._faults.lost_answers:
            self._faults.lost_answers -= 1
            return
        for line in lines:
            self._say(line)
        if self.manner.words:
            self._say(final)
        else:
            self._put(f"{_NUMBERS.get(final, '4')}\r".encode())

    def notice(self, line: str) -> None:
        """Say something unasked; while a message is typed it waits."""
        if self._faults.silent:
            return
        if self._prompt is not None:
            self._held.append(line)
        else:
            self._say(line)

    def _say(self, line: str) -> None:
        self._put(f"\r\n{line}\r\n".encode() if self.manner.words else f"{line}\r\n".encode())

    def _put(self, data: bytes) -> None:
        noise = self._faults.noise
        if noise:
            # None of it is a digit: a digit for another would be a sound message that says something else.
            data = bytes(self._rng.randrange(128, 256) if self._rng.random() < noise else byte for byte in data)
        self.write(data)
