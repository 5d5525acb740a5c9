"""The ways to a modem: a pseudo-terminal for most software, TCP for oFono, a Unix socket for ModemManager."""

import asyncio
import os
import tty
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

__all__ = ["Port", "pseudo_terminal"]

_MOST_UNSAID = 1 << 17


class Port:
    """A pseudo-terminal whose other end is a modem. ``path`` is what software opens, a link that stays the same."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.feed: Callable[[bytes], None] = lambda _: None
        self._unsaid = bytearray()
        self._ours: int | None = None
        self._theirs: int | None = None

    def plug_in(self) -> None:
        """Make the device, under its old name."""
        self._ours, self._theirs = os.openpty()
        for end in (self._ours, self._theirs):
            tty.setraw(end)
        os.set_blocking(self._ours, False)
        self.path.unlink(missing_ok=True)
        self.path.symlink_to(os.ttyname(self._theirs))
        asyncio.get_running_loop().add_reader(self._ours, self._readable)

    def unplug(self) -> None:
        """Pull it out: whoever has it open gets an error, and nobody finds it any more."""
        if self._ours is None or self._theirs is None:
            return
        asyncio.get_running_loop().remove_reader(self._ours)
        asyncio.get_running_loop().remove_writer(self._ours)
        self._unsaid.clear()
        self.path.unlink(missing_ok=True)
        for end in (self._ours, self._theirs):
            os.close(end)
        self._ours = self._theirs = None

    def write(self, data: bytes) -> None:
        """Say something, as fast as it is read; what nobody reads for long is lost."""
        if len(self._unsaid) < _MOST_UNSAID:
            self._unsaid += data
        self._writable()

    def _writable(self) -> None:
        if self._ours is None:
            return
        loop = asyncio.get_running_loop()
        try:
            while self._unsaid:
                del self._unsaid[: os.write(self._ours, self._unsaid)]
        except BlockingIOError:
            loop.add_writer(self._ours, self._writable)
            return
        except OSError:
            self._unsaid.clear()
        loop.remove_writer(self._ours)

    def _readable(self) -> None:
        assert self._ours is not None
        try:
            data = os.read(self._ours, 4096)
        except (BlockingIOError, OSError):
            return
        if data:
            self.feed(data)


@asynccontextmanager
async def pseudo_terminal(path: Path) -> AsyncIterator[Port]:
    """Have a pseudo-terminal for the length of a block."""
    port = Port(path)
    port.plug_in()
    try:
        yield port
    finally:
        port.unplug()
