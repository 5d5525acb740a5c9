"""Parties in a process of their own that take every webhook as fast as a machine can, and read nothing in it.

It is told nothing and says its port; after that it answers "progress" and "report". HTTP/1.1 is read here by hand, as
much of it as a request with a known length needs: six full servers on the same machine would take from the gateway
under test what they spend on checking signatures. Whoever asked for the report checks them.
"""

import asyncio
import json
import re
import time
from dataclasses import asdict, dataclass
from functools import partial
from typing import cast

import uvloop

from firmware_sim.children import hearing, say

__all__ = ["Kept", "Seen", "take_requests"]

_HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_ID = re.compile(rb"\r\nwebhook-id: *([^\r]+)", re.IGNORECASE)
_TAKEN = b"HTTP/1.1 204 No Content\r\n\r\n"
_LENGTH_REQUIRED = b"HTTP/1.1 411 Length Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One request. ``at_ns`` is ``time.monotonic_ns`` when it was there, ``at_s`` the same moment since 1970."""

    at_ns: int
    at_s: float
    head: str
    body: str

    @classmethod
    def from_bytes(cls, head: bytes, body: bytes, *, at_ns: int, at_s: float) -> "Kept":
        """Take a request as it came: as text it can be told on, and no byte of it is lost."""
        return cls(at_ns=at_ns, at_s=at_s, head=_text(head), body=_text(body))

    @property
    def party(self) -> str:
        """The last part of the path."""
        return self.head.split(" ", 2)[1].rpartition("/")[2]

    @property
    def headers(self) -> dict[str, str]:
        """The header fields, names in small letters."""
        fields = (line.partition(":") for line in self.head.split("\r\n")[1:])
        return {name.lower(): value.strip() for name, _, value in fields}

    @property
    def raw_body(self) -> bytes:
        """The body as it came."""
        return self.body.encode(errors="surrogateescape")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """How far it is: notices with different ids so far, and the processor time of this process."""

    notices: int
    cpu_s: float


def _text(data: bytes) -> str:
    return data.decode(errors="surrogateescape")


def take_requests(buffer: bytearray) -> list[tuple[bytes, bytes]]:
    """Remove whole requests from the front of `buffer` and return head and body of each.

    Raises:
        ValueError: One does not say how long it is.
    """
    requests = []
    while (head_ends := buffer.find(_HEAD_END)) >= 0:
        length = _LENGTH.search(buffer, 0, head_ends)
        if length is None:
            raise ValueError("no content-length")
        begins = head_ends + len(_HEAD_END)
        ends = begins + int(length[1])
        if ends > len(buffer):
            break
        requests.append((bytes(buffer[:head_ends]), bytes(buffer[begins:ends])))
        del buffer[:ends]
    return requests


class _Receiver(asyncio.Protocol):
    """One connection of the gateway."""

    def __init__(self, kept: list[tuple[bytes, bytes, int, float]], ids: set[bytes]) -> None:
        self._kept = kept
        self._ids = ids
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # that of uvloop is one without saying so

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        at_ns, at_s = time.monotonic_ns(), time.time()
        self._buffer += data
        try:
            requests = take_requests(self._buffer)
        except ValueError:
            self._transport.write(_LENGTH_REQUIRED)
            self._transport.close()
            return
        for head, body in requests:
            self._transport.write(_TAKEN)
            self._kept.append((head, body, at_ns, at_s))
            if (id_ := _ID.search(head)) is not None:
                self._ids.add(id_[1])


async def _run() -> None:
    kept: list[tuple[bytes, bytes, int, float]] = []
    ids: set[bytes] = set()
    server = await asyncio.get_running_loop().create_server(partial(_Receiver, kept, ids), "127.0.0.1", 0, backlog=1024)
    async with server:
        say(server.sockets[0].getsockname()[1])
        async for line in await hearing():
            match json.loads(line):
                case "progress":
                    say(asdict(Seen(notices=len(ids), cpu_s=time.process_time())))
                case "report":
                    say(len(kept))
                    for head, body, at_ns, at_s in kept:
                        say(asdict(Kept.from_bytes(head, body, at_ns=at_ns, at_s=at_s)))


if __name__ == "__main__":
    uvloop.run(_run())
