"""The webhook channel against platforms that behave, fail and attack, over real sockets."""

import asyncio
import base64
import hashlib
import hmac
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from gateway.domain.outbox import DueNotice, GiveUp, Outcome, PartyAnswer, Sent, TryAgain
from gateway.notify.channels.webhook import WebhookChannel
from schemas.notices import Notice
from tests.integration.notices import made_up_notice

KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()
ANSWER_PAGE = "http://127.0.0.1:8080/r/token"

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Request:
    """What a platform was sent."""

    line: str
    headers: dict[str, str]
    body: bytes


class Platform:
    """A server that reads a request and then does what a test says, byte by byte."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.requests: list[Request] = []
        self.url = ""
        self._behaviour = behaviour
        self._arrived = asyncio.Condition()

    async def arrived(self, count: int) -> None:
        """Wait until so many requests have come."""
        async with asyncio.timeout(20), self._arrived:
            await self._arrived.wait_for(lambda: len(self.requests) >= count)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Platform"]:
        async with _serving(self._serve) as port:
            self.url = f"http://127.0.0.1:{port}/hook?token=hidden-token"
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
        headers = {name.lower(): value.strip() for name, _, value in (part.partition(":") for part in lines)}
        body = await reader.readexactly(int(headers["content-length"]))
        async with self._arrived:
            self.requests.append(Request(line, headers, body))
            self._arrived.notify_all()
        await self._behaviour(reader, writer)


@asynccontextmanager
async def _serving(serve: Behaviour) -> AsyncIterator[int]:
    """Serve on a free port, and end what is under way with the block."""
    under_way: set[asyncio.Task[None]] = set()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        under_way.add(task)
        try:
            await serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            writer.close()
            under_way.discard(task)

    server = await asyncio.start_server(one, "127.0.0.1", 0, backlog=1024)
    with closing(server):
        yield server.sockets[0].getsockname()[1]
        tasks = list(under_way)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# What a platform may do


async def _replies(_: asyncio.StreamReader, writer: asyncio.StreamWriter, *, parts: Sequence[bytes]) -> None:
    """Send the parts in segments of their own: each leaves before the next is written."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for part in parts:
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(0.05)


def replies(*parts: bytes) -> Behaviour:
    return partial(_replies, parts=parts)


def answers(body: bytes, *, status: int = 200, more: str = "") -> Behaviour:
    head = f"HTTP/1.1 {status} x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return replies(head.encode() + body)


async def hangs(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


async def resets(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def trickles(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X-Slow: 1\r\n")
        await writer.drain()
        await asyncio.sleep(0.02)


async def never_ends(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"4000\r\n" + b" " * 0x4000 + b"\r\n")
        await writer.drain()


# The channel


@pytest.fixture
async def channel() -> AsyncIterator[WebhookChannel]:
    async with WebhookChannel(link=lambda _: ANSWER_PAGE) as opened:
        yield opened


def notice_to(url: str, **options: Any) -> DueNotice:
    return made_up_notice("webhook", url=url, secret=SECRET, **({"timeout_s": 10} | options))


async def outcome_of(channel: WebhookChannel, behaviour: Behaviour, **options: Any) -> Outcome:
    async with Platform(behaviour).serving() as platform, asyncio.timeout(30):
        return await channel.send(notice_to(platform.url, **options))


def signature(request: Request) -> str:
    """Sign what arrived, from the words of the specification alone."""
    signed = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.".encode() + request.body
    return "v1," + base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()


async def test_the_message_is_signed_over_id_time_and_body_and_keeps_the_contract(channel: WebhookChannel) -> None:
    async with Platform(answers(b"", status=204)).serving() as platform:
        notice = notice_to(platform.url)
        assert await channel.send(notice) == Sent(status=204)
    (request,) = platform.requests
    assert request.line == "POST /hook?token=hidden-token HTTP/1.1"
    assert request.headers["webhook-signature"] == signature(request)
    assert request.headers["webhook-id"] == notice.id
    assert request.headers["content-type"] == "application/json"
    told = Notice.model_validate_json(request.body)
    assert request.headers["webhook-timestamp"] == str(int(told.timestamp.timestamp()))
    assert abs((datetime.now(UTC) - told.timestamp).total_seconds()) < 60
    assert told.data.case == notice.case.id
    assert told.data.party.id == notice.party.id
    assert told.data.answer_url == ANSWER_PAGE


async def test_a_retry_carries_the_same_id_and_a_signature_of_its_own(channel: WebhookChannel) -> None:
    async with Platform(answers(b"", status=503)).serving() as platform:
        notice = notice_to(platform.url)
        assert isinstance(await channel.send(notice), TryAgain)
        assert isinstance(await channel.send(notice), TryAgain)
    first, second = platform.requests
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == notice.id
    assert [request.headers["webhook-signature"] for request in (first, second)] == [
        signature(first),
        signature(second),
    ]
    assert first.body != second.body, "the second tells the state of its own time"


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_a_status_of_success_is_delivered(channel: WebhookChannel, status: int) -> None:
    assert await outcome_of(channel, answers(b"", status=status)) == Sent(status=status)


@pytest.mark.parametrize("status", [300, 304, 400, 401, 404, 408, 429, 500, 503, 599])
async def test_any_other_status_is_tried_again(channel: WebhookChannel, status: int) -> None:
    outcome = await outcome_of(channel, answers(b"", status=status))
    assert isinstance(outcome, TryAgain)
    assert outcome.status == status


async def test_a_receiver_that_is_gone_is_given_up(channel: WebhookChannel) -> None:
    outcome = await outcome_of(channel, answers(b"", status=410))
    assert isinstance(outcome, GiveUp)
    assert outcome.status == 410


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(channel: WebhookChannel, status: int) -> None:
    async with Platform(answers(b"")).serving() as elsewhere:
        moved = answers(b"", status=status, more=f"Location: {elsewhere.url}\r\n")
        outcome = await outcome_of(channel, moved)
    assert isinstance(outcome, TryAgain)
    assert outcome.status == status
    assert elsewhere.requests == []


# Answers


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        (b'{"answer":"accepted"}', PartyAnswer("accepted")),
        (
            '{"answer":"coming","minutes":6,"by":"坐席 12","more":[1]}'.encode(),
            PartyAnswer("coming", minutes=6, by="坐席 12"),
        ),
        (b'{"answer":"cannot","reason":"none free"}', PartyAnswer("cannot", reason="none free")),
    ],
)
async def test_an_answer_in_the_body_answers_for_the_party(
    channel: WebhookChannel, body: bytes, answer: PartyAnswer
) -> None:
    assert await outcome_of(channel, answers(body)) == Sent(status=200, answer=answer)


@pytest.mark.parametrize(
    "parts",
    [
        (b'HTTP/1.1 200 OK\r\nContent-Length: 21\r\n\r\n{"answer":', b'"accepted"}'),
        (b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\n{"answer":\r\n', b'b\r\n"accepted"}\r\n0\r\n\r\n'),
        (b'HTTP/1.0 200 OK\r\n\r\n{"answer":', b'"accepted"}'),
    ],
    ids=["length", "chunked", "until the end"],
)
async def test_an_answer_that_comes_in_pieces_is_an_answer(channel: WebhookChannel, parts: Sequence[bytes]) -> None:
    assert await outcome_of(channel, replies(*parts)) == Sent(status=200, answer=PartyAnswer("accepted"))


async def test_a_second_answer_to_one_request_is_nobodys(channel: WebhookChannel) -> None:
    taken = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    async with Platform(replies(taken + taken.replace(b"200", b"500"))).serving() as platform, asyncio.timeout(10):
        notice = notice_to(platform.url)
        assert await channel.send(notice) == Sent(status=200)
        # One connection must not be taken for two.
        assert await asyncio.gather(channel.send(notice), channel.send(notice)) == [Sent(status=200)] * 2
    assert len(platform.requests) == 3


@pytest.mark.parametrize(
    "body",
    [
        b"ok",
        b"{",
        b"[]",
        b"null",
        b'{"answer":"maybe"}',
        b'{"answer":["coming"]}',
        b'{"answer":"coming","minutes":-1}',
        b'{"answer":"coming","minutes":' + b"9" * 5000 + b"}",
        b'{"answer":"coming","by":"\\ud800"}',
        b'{"answer":"coming","reason":"' + b"x" * 501 + b'"}',
        b'{"answer":"coming","x":' + b"[" * 30_000 + b"}",
        b"\xff\xfe\x00\x01",
        b" " * 1_000_000 + b'{"answer":"coming"}',
        b'{"answer":"coming","by":"' + b"\x00" + b'"}',
    ],
    ids=lambda body: body[:30].decode("latin-1"),
)
async def test_a_body_that_is_no_answer_says_delivered_and_no_more(channel: WebhookChannel, body: bytes) -> None:
    assert await outcome_of(channel, answers(body)) == Sent(status=200)


async def test_an_answer_holds_nothing_that_the_database_refuses(channel: WebhookChannel) -> None:
    body = b'{"answer":"cannot","by":"a\\u0000b","reason":"\\u0000"}'
    outcome = await outcome_of(channel, answers(body))
    assert isinstance(outcome, Sent)
    assert outcome.answer is not None
    assert "\x00" not in f"{outcome.answer.by}{outcome.answer.reason}"


@pytest.mark.parametrize("status", [500, 410])
async def test_an_answer_beside_a_failure_counts_for_nothing(channel: WebhookChannel, status: int) -> None:
    assert not isinstance(await outcome_of(channel, answers(b'{"answer":"coming"}', status=status)), Sent)


async def test_an_endless_body_ends(channel: WebhookChannel) -> None:
    assert await outcome_of(channel, never_ends) == Sent(status=200)


# Failures on the way


async def _says_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


@pytest.mark.parametrize(
    "behaviour",
    [
        hangs,
        trickles,
        resets,
        _says_nothing,
        replies(b"\x00\x01\x02\xff" * 100),
        replies(b"SSH-2.0-OpenSSH_9.2\r\n"),
        replies(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\n"),
        replies(b"HTTP/1.1 20x OK\r\n\r\n"),
        replies(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"),
        replies(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"answer":'),
    ],
    ids=[
        "silence",
        "headers that never end",
        "reset",
        "closed",
        "noise",
        "another protocol",
        "a header of 1 MB",
        "no number",
        "a negative length",
        "an answer cut off",
    ],
)
async def test_what_breaks_on_the_way_is_tried_again(channel: WebhookChannel, behaviour: Behaviour) -> None:
    outcome = await outcome_of(channel, behaviour, timeout_s=0.5)
    assert isinstance(outcome, TryAgain)
    assert outcome.status is None
    assert "hidden-token" not in outcome.detail


async def test_a_refused_connection_is_tried_again_and_its_address_stays_hidden(channel: WebhookChannel) -> None:
    async with Platform(hangs).serving() as platform:
        closed = platform.url
    outcome = await channel.send(notice_to(closed))
    assert isinstance(outcome, TryAgain)
    assert "ECONNREFUSED" in outcome.detail
    assert "hidden-token" not in outcome.detail


async def test_a_platform_without_tls_under_https_is_tried_again(channel: WebhookChannel) -> None:
    async with Platform(hangs).serving() as platform:
        url = platform.url.replace("http:", "https:")
        # The server reads the handshake as a request and waits for its end.
        assert isinstance(await channel.send(notice_to(url, timeout_s=0.5)), TryAgain)


async def test_more_hanging_requests_than_any_limit_delay_no_other(channel: WebhookChannel) -> None:
    async with Platform(hangs).serving() as slow, Platform(answers(b"")).serving() as quick:
        async with asyncio.TaskGroup() as tasks:
            waiting = [tasks.create_task(channel.send(notice_to(slow.url)), name=f"slow-{n}") for n in range(150)]
            await slow.arrived(150)
            assert await channel.send(notice_to(quick.url)) == Sent(status=200)
            assert not any(task.done() for task in waiting)
            for task in waiting:
                task.cancel()


# Names


class NameServer(asyncio.DatagramProtocol):
    """A name server on loopback. `reply` gets the query and says nothing where it returns None."""

    def __init__(self, reply: Callable[[bytes], bytes | None]) -> None:
        self.address = ""
        self.asked = asyncio.Event()
        self._reply = reply
        self._transport: asyncio.DatagramTransport | None = None

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["NameServer"]:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        self._transport = transport
        self.address = "127.0.0.1:{1}".format(*transport.get_extra_info("sockname"))
        with closing(transport):
            yield self

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        assert self._transport is not None
        self.asked.set()
        reply = self._reply(data)
        if reply is not None:
            self._transport.sendto(reply, addr)


def _question(query: bytes) -> bytes:
    """Return the question of a query, without what else it asks for."""
    end = query.index(b"\0", 12) + 5
    return query[12:end]


def _no_such_name(query: bytes) -> bytes:
    return query[:2] + b"\x81\x83\0\1\0\0\0\0\0\0" + _question(query)


def _here(query: bytes) -> bytes:
    question = _question(query)
    if question[-4:-2] != b"\0\1":
        return query[:2] + b"\x81\x80\0\1\0\0\0\0\0\0" + question
    record = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + socket.inet_aton("127.0.0.1")
    return query[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + question + record


async def test_names_are_asked_of_the_servers_of_the_settings() -> None:
    async with (
        NameServer(_here).serving() as names,
        Platform(answers(b"")).serving() as platform,
        WebhookChannel(link=lambda _: None, dns_servers=[names.address]) as channel,
    ):
        url = platform.url.replace("127.0.0.1", "platform.example.test")
        assert await channel.send(notice_to(url)) == Sent(status=200)
    assert platform.requests[0].headers["host"].startswith("platform.example.test:")


async def test_a_cookie_is_not_kept() -> None:
    async with (
        NameServer(_here).serving() as names,
        Platform(answers(b"", more="Set-Cookie: tracked=1\r\n")).serving() as platform,
        WebhookChannel(link=lambda _: None, dns_servers=[names.address]) as channel,
    ):
        url = platform.url.replace("127.0.0.1", "platform.example.test")
        for _ in range(2):
            assert await channel.send(notice_to(url)) == Sent(status=200)
    assert ["cookie" in request.headers for request in platform.requests] == [False, False]


async def test_a_name_that_does_not_exist_is_tried_again() -> None:
    async with (
        NameServer(_no_such_name).serving() as names,
        WebhookChannel(link=lambda _: None, dns_servers=[names.address]) as channel,
    ):
        outcome = await channel.send(notice_to("http://nobody.example.test/"))
    assert outcome == TryAgain("the name cannot be resolved")


async def test_a_name_that_never_resolves_delays_no_other_and_is_tried_again() -> None:
    async with (
        NameServer(lambda _: None).serving() as names,
        Platform(answers(b"")).serving() as platform,
        WebhookChannel(link=lambda _: None, dns_servers=[names.address]) as channel,
        asyncio.TaskGroup() as tasks,
    ):
        lost = [
            tasks.create_task(channel.send(notice_to(f"http://lost-{n}.example.test/", timeout_s=2)), name=f"lost-{n}")
            for n in range(40)
        ]
        async with asyncio.timeout(20):
            await names.asked.wait()
        assert await channel.send(notice_to(platform.url)) == Sent(status=200)
        assert not any(task.done() for task in lost)
        assert {type(await task) for task in lost} == {TryAgain}
