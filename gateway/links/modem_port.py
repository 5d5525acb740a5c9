"""A modem's serial line: bytes in and out, one command at a time, and an end when the line is gone.

pyserial opens and configures the port; the event loop watches its descriptor, so no thread waits for it.
"""

import asyncio
import contextlib
import errno
import logging
import os
import re
import termios
from collections.abc import Callable, Sequence
from pathlib import Path

import serial

from protocols.gsm.at import Answer, Dialogue, Notice, Prompt

__all__ = ["ModemGone", "ModemPort", "ModemSilent", "PortRefused"]

_log = logging.getLogger(__name__)

_BAUD = 115_200
_PIECE = 4096
_GUARD_S = 0.02
_DRAIN_S = 0.3
_SYNC_S = 0.5
_QUIET_S = 0.3
_SYNC_TRIES = 10
_WHY = {
    errno.EAGAIN: "another program has it open: another gateway or onekey modem test, or ModemManager",
    errno.EBUSY: "another program has it open: another gateway or onekey modem test, or ModemManager",
    errno.EACCES: "this user may not open it: add the user to the group that owns the port, often dialout",
    errno.EPERM: "this user may not open it: add the user to the group that owns the port, often dialout",
    errno.ENOTTY: "it is no serial port",
    errno.EISDIR: "it is a directory, no serial port",
    errno.EINVAL: "it is no serial port",
}
_GONE = frozenset({errno.EIO, errno.ENODEV, errno.ENXIO, errno.EBADF})


class ModemGone(Exception):
    """The port is not there, or not there any more."""


class PortRefused(ModemGone):
    """The port is there, and cannot be used: somebody has to see to it."""


class ModemSilent(Exception):
    """The modem did not answer in time; what it still says of that command counts for nothing."""


def _number_of(exc: BaseException) -> int:
    """Return the number of the error of the system, which pyserial hides in different places."""
    if isinstance(exc, OSError) and exc.errno:
        return exc.errno
    found = re.search(r"\[Errno (\d+)\]|\((\d+), ", str(exc))
    return int(found[1] or found[2]) if found else 0


class ModemPort:
    """An open port. `notice` hears what the modem says unasked."""

    def __init__(self, path: Path, *, notice: Callable[[Notice], None] = lambda _: None) -> None:
        self._path = path
        self._notice = notice
        self._serial: serial.Serial | None = None
        self._dialogue = Dialogue()
        self._turn = asyncio.Lock()
        self._answer: asyncio.Future[Answer] | None = None
        self._unwritten = bytearray()
        self._heard = 0
        self.gone = asyncio.Event()
        self.silences = 0
        """How many commands in a row were not answered."""

    def open(self) -> None:
        """Open the port for us alone.

        Raises:
            ModemGone: It is not there.
            PortRefused: It cannot be used: somebody else has it, it is no serial port, or it is forbidden.
        """
        try:
            port = serial.Serial(str(self._path), _BAUD, timeout=0, write_timeout=0, exclusive=True)
        except (serial.SerialException, OSError, ValueError) as exc:
            why = _WHY.get(_number_of(exc))
            if why is None:
                raise ModemGone(f"{self._path}: {exc}") from exc
            raise PortRefused(f"{self._path}: {why}") from exc
        # A pseudo-terminal has no lines to raise, and some adapters neither.
        with contextlib.suppress(OSError, serial.SerialException):
            port.dtr = port.rts = True
        self._serial = port
        asyncio.get_running_loop().add_reader(port.fileno(), self._readable)

    def close(self) -> None:
        """Close the port; whoever waits for an answer hears that it is gone."""
        port, self._serial = self._serial, None
        if port is not None:
            loop = asyncio.get_running_loop()
            with contextlib.suppress(OSError, ValueError):
                loop.remove_reader(port.fileno())
                loop.remove_writer(port.fileno())
            with contextlib.suppress(OSError, serial.SerialException, termios.error):
                port.reset_output_buffer()  # else closing waits until a modem that hangs has taken it: 30 s
            with contextlib.suppress(OSError, serial.SerialException):
                port.close()
        self.gone.set()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ModemGone(f"{self._path} is gone"))

    def _readable(self) -> None:
        if self._serial is None:
            return
        try:
            data = os.read(self._serial.fileno(), _PIECE)
        except BlockingIOError:
            return
        except OSError as exc:
            if exc.errno not in _GONE:
                _log.warning("a modem's port failed: %s", exc)
            data = b""
        if not data:
            self.close()
            return
        self._heard += len(data)
        for event in self._dialogue.feed(data):
            match event:
                case Answer():
                    if self._answer is not None and not self._answer.done():
                        self._answer.set_result(event)
                case Prompt(body=body):
                    self._write(body)
                case Notice():
                    self._notice(event)

    def _write(self, data: bytes) -> None:
        self._unwritten += data
        self._writable()

    def _writable(self) -> None:
        if self._serial is None:
            return
        loop, number = asyncio.get_running_loop(), self._serial.fileno()
        try:
            while self._unwritten:
                del self._unwritten[: os.write(number, self._unwritten)]
        except BlockingIOError:
            loop.add_writer(number, self._writable)
            return
        except OSError:
            self.close()
            return
        loop.remove_writer(number)

    async def ask(
        self,
        command: str,
        *,
        prefix: str | Sequence[str] = (),
        free: bool = False,
        calls: bool = False,
        numeric: bool = False,
        body: str | None = None,
        timeout_s: float = 5.0,
    ) -> Answer:
        """Give a command and return its answer, whatever that is; see `Dialogue.send`. Others wait for their turn.

        Raises:
            ModemGone: The port is gone.
            ModemSilent: No answer within `timeout_s`; ask `synchronise` before anything else.
        """
        async with self._turn:
            if self._serial is None:
                raise ModemGone(f"{self._path} is gone")
            self._answer = asyncio.get_running_loop().create_future()
            self._write(self._dialogue.send(command, prefix=prefix, free=free, calls=calls, numeric=numeric, body=body))
            try:
                async with asyncio.timeout(timeout_s):
                    answer = await self._answer
            except TimeoutError:
                self.silences += 1
                raise ModemSilent(f"no answer within {timeout_s:g} s") from None
            finally:
                self._answer = None
                if self._dialogue.busy:
                    # Out of a prompt, if it was in one; and what comes too late must not be the answer to the next.
                    self._write(self._dialogue.abandon())
            self.silences = 0
            if body is None:
                await asyncio.sleep(_GUARD_S)  # what waited behind the answer comes now
            return answer

    async def synchronise(self) -> None:
        """Bring the modem to listen again: out of a prompt, past what it still has to say.

        Raises:
            ModemGone: The port is gone.
            ModemSilent: It does not answer.
        """
        async with self._turn:
            self._write(self._dialogue.abandon())
            await asyncio.sleep(_DRAIN_S)
        answered = False
        for _ in range(_SYNC_TRIES):
            with contextlib.suppress(ModemSilent):
                if (await self.ask("AT", numeric=True, timeout_s=_SYNC_S)).ok:
                    answered, heard = True, self._heard
                    await asyncio.sleep(_QUIET_S)
                    if self._heard == heard:
                        return  # it was the answer to this one, not to one that waited before it
        if answered:
            return
        raise ModemSilent(f"it does not answer AT, {_SYNC_TRIES} times asked")
