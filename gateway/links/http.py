"""POST requests over connections that are kept: HTTP/1.1, one answer to one request, and nothing else.

A storm sends thousands of requests a second from the same loop that stores the alarms, where a full client costs more
than everything else about a message (decision 16). Reading is left to llhttp (``httptools``), names to c-ares without
threads (D16), TLS and its trust to the standard library. Redirects are not followed, nothing is decoded, no cookie is
kept; ``tests/integration/test_webhook_channel.py`` holds it against platforms that fail and attack.
"""

import asyncio
import base64
import errno
import socket
import ssl
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Self, cast
from urllib.parse import quote, unquote, urlsplit

import httptools
from aiohappyeyeballs import AddrInfoType, start_connection
from aiohttp.resolver import AsyncResolver

__all__ = ["Answer", "PostFailed", "Poster"]

_LARGEST_HEAD = 65_536
_KEPT_S = 60.0
_NAMES_KEPT_S = 10.0
_NEXT_ADDRESS_S = 0.25
_SWITCHING = 101
_TOO_LATE = "no answer in time"


class PostFailed(Exception):
    """No answer. The text says why, without the address, which may hold a token."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; ``body`` is the beginning of one that is longer than was wanted."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class _Target:
    """An address taken apart. ``head`` is the beginning of every request to it."""

    tls: bool
    host: str
    port: int
    head: bytes

    @property
    def key(self) -> tuple[str, int, bool]:
        return self.host, self.port, self.tls


@lru_cache(maxsize=10_000)
def _target(url: str, common: str) -> _Target:
    parts = urlsplit(url)
    tls, host = parts.scheme == "https", (parts.hostname or "").encode("idna").decode()
    port = parts.port or (443 if tls else 80)
    path = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe="/:@!$&'()*+,;=%?~[]")
    shown = f"[{host}]" if ":" in host else host
    lines = [f"POST {path} HTTP/1.1", f"Host: {shown}{'' if parts.port is None else f':{port}'}"]
    if parts.username is not None:
        account = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        lines.append(f"Authorization: Basic {base64.b64encode(account.encode()).decode()}")
    return _Target(tls, host, port, "".join(f"{line}\r\n" for line in lines).encode() + common.encode())


class Poster:
    """A pool of connections without a common limit: no host waits for another's."""

    def __init__(self, *, headers: Mapping[str, str], longest_answer: int, dns_servers: Sequence[str] = ()) -> None:
        """Send `headers` with every request, and read up to `longest_answer` bytes of what comes back."""
        self._common = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._longest = longest_answer
        self._dns_servers = list(dns_servers)
        self._resolver: AsyncResolver | None = None
        self._tls = ssl.create_default_context()
        self._tls.set_alpn_protocols(["http/1.1"])
        self._idle: dict[tuple[str, int, bool], deque[_Connection]] = {}
        self._names: dict[tuple[str, int], tuple[float, list[AddrInfoType]]] = {}
        self._open: set[_Connection] = set()
        self._sweeping: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._resolver = AsyncResolver(nameservers=self._dns_servers) if self._dns_servers else AsyncResolver()
        self._sweep()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()
        for connection in list(self._open):
            connection.close()
        if self._resolver is not None:
            await self._resolver.close()

    async def post(self, url: str, body: bytes, *, headers: Mapping[str, str], timeout_s: float) -> Answer:
        """Send one request and return its answer.

        It is sent a second time only where a kept connection turned out to be closed before a byte of an answer came.

        Raises:
            PostFailed: No answer came in time, or what came is none.
        """
        target = _target(url, self._common)
        own = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        request = b"%b%bContent-Length: %d\r\n\r\n%b" % (target.head, own.encode(), len(body), body)
        until_s = self._loop.time() + timeout_s
        try:
            while True:
                connection = self._kept(target)
                if connection is None:
                    async with asyncio.timeout_at(until_s):
                        connection = await self._connect(target)
                answer = await connection.exchange(request, until_s=until_s)
                if answer is not None:
                    return answer
        except TimeoutError:
            raise PostFailed(_TOO_LATE) from None
        except OSError as exc:
            raise PostFailed(_short(exc)) from exc

    def _kept(self, target: _Target) -> "_Connection | None":
        idle = self._idle.get(target.key)
        return idle.pop() if idle else None  # the newest: the others may be closed when nobody needs them any more

    def _keep(self, connection: "_Connection") -> None:
        self._idle.setdefault(connection.key, deque()).append(connection)

    def _sweep(self) -> None:
        """Close what nobody has used for long."""
        for key, idle in list(self._idle.items()):
            while idle and self._loop.time() - idle[0].idle_since_s > _KEPT_S:
                idle.popleft().close()
            if not idle:
                del self._idle[key]
        self._sweeping = self._loop.call_later(_KEPT_S / 4, self._sweep)

    def _gone(self, connection: "_Connection") -> None:
        self._open.discard(connection)
        idle = self._idle.get(connection.key)
        if idle is not None and connection in idle:
            idle.remove(connection)

    async def _connect(self, target: _Target) -> "_Connection":
        sock = await start_connection(
            await self._addresses(target.host, target.port), happy_eyeballs_delay=_NEXT_ADDRESS_S
        )
        try:
            _, connection = await self._loop.create_connection(
                lambda: _Connection(target.key, self._longest, keep=self._keep, gone=self._gone),
                sock=sock,
                ssl=self._tls if target.tls else None,
                server_hostname=target.host if target.tls else None,
            )
        except BaseException:
            sock.close()
            raise
        self._open.add(connection)
        return connection

    async def _addresses(self, host: str, port: int) -> list[AddrInfoType]:
        now_s = self._loop.time()
        known = self._names.get((host, port))
        if known is not None and now_s < known[0]:
            return known[1]
        found = _literal(host, port)
        if found is None:
            assert self._resolver is not None
            try:
                nodes = await self._resolver.resolve(host, port, socket.AF_UNSPEC)
            except OSError as exc:
                raise PostFailed("the name cannot be resolved") from exc
            # A name may stand for an IPv6 address, which has a longer socket address.
            found = [info for node in nodes for info in _literal(node["host"], port) or ()]
        if len(self._names) >= 10_000:
            self._names.clear()
        self._names[host, port] = (now_s + _NAMES_KEPT_S, found)
        return found


def _literal(host: str, port: int) -> list[AddrInfoType] | None:
    """Return how to connect to an address that is written in digits, or None for a name."""
    try:
        return list[AddrInfoType](socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST))
    except socket.gaierror:
        return None


class _Connection(asyncio.Protocol):
    """One connection, which carries one request at a time. llhttp calls the ``on_`` methods."""

    def __init__(
        self,
        key: tuple[str, int, bool],
        longest: int,
        *,
        keep: Callable[["_Connection"], None],
        gone: Callable[["_Connection"], None],
    ) -> None:
        self.key = key
        self.idle_since_s = 0.0
        self._longest = longest
        self._tell_kept = keep
        self._tell_gone = gone
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Answer | None] | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._used = False
        self._begin()

    def _begin(self) -> None:
        self._head = 0
        self._status = 0
        self._framed = False
        self._body = b""

    async def exchange(self, request: bytes, *, until_s: float) -> Answer | None:
        """Send a request and return the answer; None when a connection used before was closed meanwhile.

        Raises:
            PostFailed: What came is no answer, or not a whole one, or too late.
            OSError: The connection was lost.
        """
        if self._transport is None or self._transport.is_closing():
            return None
        self._begin()
        self._parser = httptools.HttpResponseParser(self)
        self._answer = self._loop.create_future()
        self._transport.write(request)
        timer = self._loop.call_at(until_s, self._fail, PostFailed(_TOO_LATE))
        try:
            return await self._answer
        except asyncio.CancelledError:
            self.close()  # the answer may still come, and would be taken for that of the next request
            raise
        finally:
            timer.cancel()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._answer is None or self._parser is None:
            self.close()  # nobody asked
            return
        if not self._status:
            self._head += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as exc:
            self._fail(PostFailed(f"what was answered is not HTTP ({type(exc).__name__})"))
            return
        if not self._status and self._head > _LARGEST_HEAD:
            self._fail(PostFailed("the head of the answer does not end"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._parser = None  # it holds us: without this only the collector would free both
        self._tell_gone(self)
        if self._answer is None:
            return
        if exc is None and self._status and not self._framed:
            self._end(keep=False)  # a body without a length ends with the connection
        elif self._used and not self._head:
            self._settle(None)
        elif isinstance(exc, OSError):
            self._fail(exc)
        else:
            self._fail(PostFailed("the connection was closed before the answer was whole"))

    def close(self) -> None:
        """Close at once, whatever is under way."""
        if self._transport is not None:
            self._transport.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note how the end of the body will be known."""
        del value
        self._framed = self._framed or name.lower() in (b"content-length", b"transfer-encoding")

    def on_headers_complete(self) -> None:
        """Take the status, unless more is to follow (1xx)."""
        assert self._parser is not None
        status = self._parser.get_status_code()
        if status >= 200 or status == _SWITCHING:
            self._status = status
        else:
            self._framed = False

    def on_body(self, body: bytes) -> None:
        """Collect what is wanted of the body."""
        self._body += body
        if len(self._body) >= self._longest:
            self._body = self._body[: self._longest]
            self._end(keep=False)

    def on_message_complete(self) -> None:
        """End the exchange."""
        assert self._parser is not None
        if self._status:
            self._end(keep=self._parser.should_keep_alive() and self._status != _SWITCHING)

    def _end(self, *, keep: bool) -> None:
        if self._answer is None:
            self.close()  # a second answer to one request
            return
        self._settle(Answer(self._status, self._body))
        self._used = True
        if keep:
            self.idle_since_s = self._loop.time()
            self._tell_kept(self)
        else:
            self.close()

    def _settle(self, answer: Answer | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(answer)
        self._answer = None

    def _fail(self, exc: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc)
        self._answer = None
        self.close()


def _short(exc: OSError) -> str:
    """Say what went wrong without the address."""
    name = errno.errorcode.get(exc.errno or 0)
    return type(exc).__name__ if name is None else f"{type(exc).__name__} {name}"
