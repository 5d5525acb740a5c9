"""The ways to a modem: a pseudo-terminal for most software, TCP for oFono, a Unix socket for ModemManager."""

import asyncio
import os
import tty
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

__all__ = ["Port", "pseudo_terminal"]


class Port:
    """A pseudo-terminal whose other end is a modem. ``path`` is what software opens, a link that stays the same."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.feed: Callable[[bytes], None] = lambda _: None
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
        self.path.unlink(missing_ok=True)
        for end in (self._ours, self._theirs):
            os.close(end)
        self._ours = self._theirs = None

    def write(self, data: bytes) -> None:
        """Say something; what nobody reads is lost when the buffer is full."""
        if self._ours is not None:
            with suppress(BlockingIOError, OSError):
                os.write(self._ours, data)

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
