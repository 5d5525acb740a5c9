"""Messages out of the bytes of an MQTT connection, many at a time (MQTT 3.1.1, section 3.3).

paho asks a socket for single bytes and makes half a dozen objects of every message, which takes longer than all else
that is done with a report. So the socket is read in pieces, and PUBLISH packets that came whole are read here. What is
left, every other packet and a PUBLISH that is long or odd, paho reads as ever.
"""

import socket
import ssl
from struct import unpack_from
from typing import Any, NamedTuple

__all__ = ["Pieces", "Publish"]

_PUBLISH = 0x30
_KIND = 0xF0
_MORE = 0x80
_LONGEST_LENGTH = 4
_TOO_LONG = 1 << 28
_NOT_YET = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Publish(NamedTuple):
    """One message. ``again``: the sender marks it as one that it has sent before; ``mid`` is 0 with QoS 0."""

    topic: str
    payload: bytes
    qos: int
    retained: bool
    again: bool
    mid: int


class Pieces:
    """A socket that is read in pieces of up to `size` bytes.

    `publishes` takes the messages at the head of what has come, `recv` is for paho, and `pending` is what aiomqtt asks
    to know whether to go on without waiting for the socket. ``full``: the last piece that was read filled its size, so
    there may be more.
    """

    def __init__(self, sock: socket.socket, size: int) -> None:
        self._sock = sock
        self._size = size
        self._piece = b""
        self._at = 0
        self._cut = False
        self._ended = False
        self.full = False

    def publishes(self) -> list[Publish]:
        """Return the messages at the head of what has come, reading at most one piece; none when others come first."""
        if self._cut or self._at == len(self._piece):
            self._read_on()
        piece, end, found = self._piece, len(self._piece), []
        self._cut = False
        while self._at < end and piece[self._at] & _KIND == _PUBLISH:
            body, length = _remaining(piece, self._at + 1)
            if length is None or body + length > end:
                # Its rest comes, unless it is longer than we read at once.
                self._cut = not self._ended and (length is None or body - self._at + length <= self._size)
                break
            publish = _publish(piece[self._at], piece[body : body + length])
            if publish is None:
                break
            found.append(publish)
            self._at = body + length
        return found

    def _read_on(self) -> None:
        if self._ended:
            return
        try:
            more = self._sock.recv(self._size)
        except _NOT_YET:
            self.full = False
            return
        except OSError:
            more = b""
        self.full = self._fills(more)
        self._ended = not more
        self._piece, self._at = self._piece[self._at :] + more, 0

    def _fills(self, piece: bytes) -> bool:
        """May there be more at once? With TLS nobody knows: a record is what comes, however much there is."""
        return bool(piece) if isinstance(self._sock, ssl.SSLSocket) else len(piece) == self._size

    @property
    def for_paho(self) -> bool:
        """Is there something that `publishes` left to paho?"""
        return not self._cut and (self._ended or self._at < len(self._piece))

    def recv(self, size: int) -> bytes:
        """Return up to `size` bytes, as a socket does."""
        if self._at == len(self._piece) and not self._ended:
            self._piece, self._at = self._sock.recv(self._size), 0
            self.full = self._fills(self._piece)
        start, self._at = self._at, min(self._at + size, len(self._piece))
        return self._piece[start : self._at]

    def pending(self) -> int:
        """Return how many bytes can be worked on without the socket becoming readable first."""
        below = self._sock.pending() if isinstance(self._sock, ssl.SSLSocket) else 0
        return below if self._cut else len(self._piece) - self._at + below

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


def _remaining(piece: bytes, at: int) -> tuple[int, int | None]:
    """Read the remaining length at `at`: where the rest begins, and its length, None if that has not come whole."""
    length = 0
    for place in range(_LONGEST_LENGTH):
        if at + place == len(piece):
            return at, None
        byte = piece[at + place]
        length |= (byte & ~_MORE) << 7 * place
        if not byte & _MORE:
            return at + place + 1, length
    return at, _TOO_LONG


def _publish(head: int, body: bytes) -> Publish | None:
    """Read a message; None when it breaks the protocol, which is for paho to answer."""
    qos = head >> 1 & 3
    if len(body) < 2:
        return None
    (length,) = unpack_from("!H", body)
    start = 2 + length
    mid = 0
    if qos:
        if len(body) < start + 2:
            return None
        (mid,) = unpack_from("!H", body, start)
        start += 2
    if qos > 1 or not length or len(body) < start:
        return None
    topic = body[2 : 2 + length].decode(errors="replace")
    return Publish(topic, body[start:], qos, bool(head & 1), bool(head & 8), mid)
