"""The ways to a modem: a pseudo-terminal for most software, TCP for oFono, a Unix socket for ModemManager."""

import asyncio
import os
import socket
import tty
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

__all__ = ["Port", "SocketPort", "pseudo_terminal", "tcp", "unix_socket"]

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


class SocketPort:
    """A socket whose other end is a modem. One client has it at a time: who comes later takes it over.

    ``address`` is where software connects: host and port, or the name of a Unix socket.
    """

    def __init__(self, address: str | tuple[str, int]) -> None:
        self.address = address
        self.feed: Callable[[bytes], None] = lambda _: None
        self._client: asyncio.Transport | None = None

    def write(self, data: bytes) -> None:
        """Say something, as fast as it is read; what nobody reads for long is lost."""
        if self._client is not None and self._client.get_write_buffer_size() < _MOST_UNSAID:
            self._client.write(data)

    def unplug(self) -> None:
        """Cut the client off; it may come again."""
        self.change(None)

    def change(self, client: asyncio.Transport | None) -> None:
        """Give the line to another client, or to none."""
        if self._client is not None:
            self._client.abort()
        self._client = client

    def gone(self, client: asyncio.Transport) -> None:
        """Have the line free again, if it was still with that client."""
        if client is self._client:
            self._client = None


class _Client(asyncio.Protocol):
    """A connection to a socket port."""

    def __init__(self, port: SocketPort) -> None:
        self._port = port
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._port.change(transport)

    def data_received(self, data: bytes) -> None:
        self._port.feed(data)

    def connection_lost(self, _: Exception | None) -> None:
        self._port.gone(self._transport)


@asynccontextmanager
async def tcp() -> AsyncIterator[SocketPort]:
    """Have a port of the loopback address, one that is free, for the length of a block."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with _served(listener, listener.getsockname()) as port:
            yield port


@asynccontextmanager
async def unix_socket(name: str) -> AsyncIterator[SocketPort]:
    """Have an abstract Unix socket, one without a file, for the length of a block (Linux only)."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{name}")
        async with _served(listener, name) as port:
            yield port


@asynccontextmanager
async def _served(listener: socket.socket, address: str | tuple[str, int]) -> AsyncIterator[SocketPort]:
    port = SocketPort(address)
    server = await asyncio.get_running_loop().create_server(lambda: _Client(port), sock=listener)
    try:
        yield port
    finally:
        server.close()
        port.unplug()
        await server.wait_closed()
