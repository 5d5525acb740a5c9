"""The parties at the other end: webhook receivers that check, record and then behave well or badly.

One aiohttp server on loopback, one path for each party. A request is verified as Standard Webhooks prescribe
and its body read as the published contract; everything that does not fit is recorded, nothing is raised.
"""

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic_ns
from typing import Any, Literal
from uuid import UUID

import aiohttp
from aiohttp import web
from pydantic import ValidationError
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from schemas.audit import AuditMessage
from schemas.notices import Answer, AnswerKind, Notice

__all__ = [
    "Answers",
    "Arrival",
    "Behaviour",
    "Fails",
    "FailsFirst",
    "Flaps",
    "Hangs",
    "Ignores",
    "Resets",
    "Responder",
    "Responders",
    "SilentNameServer",
    "act_on",
]


@dataclass(frozen=True, slots=True)
class Ignores:
    """Takes the notice and says nothing: delivered, not told (I7)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """Answers the alert as a human or a platform would; other notices are only taken.

    Attributes:
        after_s: How long the human needs, in seconds.
        via: In the body of the response, or by a request of its own to the gateway's API.
    """

    answer: AnswerKind
    reason: str | None = None
    minutes: int | None = None
    by: str | None = None
    after_s: float = 0.0
    via: Literal["response", "api"] = "response"


@dataclass(frozen=True, slots=True)
class Hangs:
    """Accepts the request and lets it wait so many seconds before taking it."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Fails:
    """Answers with this HTTP status."""

    status: int = 503


@dataclass(frozen=True, slots=True)
class FailsFirst:
    """Answers the first requests with this HTTP status, later ones properly."""

    times: int
    status: int = 503
    then: "Behaviour" = field(default_factory=Ignores)


@dataclass(frozen=True, slots=True)
class Resets:
    """Cuts the connection with a TCP reset after reading the request."""


@dataclass(frozen=True, slots=True)
class Flaps:
    """Works for some requests, then fails for some, and so on."""

    up: int = 1
    down: int = 1
    status: int = 503
    then: "Behaviour" = field(default_factory=Ignores)


Behaviour = Ignores | Answers | Hangs | Fails | FailsFirst | Resets | Flaps
Act = Ignores | Answers | Hangs | Fails | Resets


def act_on(behaviour: Behaviour, count: int) -> Act:
    """Return what a party with `behaviour` does with its `count`-th request, counted from 1."""
    match behaviour:
        case FailsFirst(times, status, then):
            return Fails(status) if count <= times else act_on(then, count - times)
        case Flaps(up, down, status, then):
            rounds, place = divmod(count - 1, up + down)
            return act_on(then, rounds * up + place + 1) if place < up else Fails(status)
        case _:
            return behaviour


@dataclass(frozen=True, slots=True, kw_only=True)
class Responder:
    """A party as the responders play it. ``secret`` is what its webhooks are signed with, ``whsec_…``."""

    party: str
    role: str
    secret: str = field(repr=False)
    behaviour: Behaviour = field(default_factory=Ignores)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One request of the gateway to one party.

    Attributes:
        id: The header ``webhook-id``, empty when it was missing.
        at_ns: ``time.monotonic_ns`` when the headers were there.
        problem: Why the request is not a notice to this party, or None.
        duplicate: This party had the same id before.
    """

    party: str
    role: str
    id: str
    at: datetime
    at_ns: int
    body: bytes
    verified: bool
    problem: str | None
    notice: Notice | None
    duplicate: bool

    @property
    def case(self) -> UUID | None:
        """The case it speaks of, where the body could be read."""
        return None if self.notice is None else self.notice.data.case


class Responders:
    """All parties of a run. `use_api` must have been called before a party can answer by API.

    Attributes:
        arrivals: Every request about a case so far, in the order of arrival.
        audits: What the auditor told, by the id of the message, with the party that it was told to.
        api_problems: Answers by API that the gateway did not take, one sentence each.
    """

    def __init__(self, parties: Iterable[Responder]) -> None:
        self.arrivals: list[Arrival] = []
        self.audits: list[tuple[str, str, AuditMessage]] = []
        self.api_problems: list[str] = []
        self.port = 0
        self._parties = {party.party: party for party in parties}
        self._seen: dict[str, Counter[str]] = {party: Counter() for party in self._parties}
        self._requests: Counter[str] = Counter()
        self._arrived = asyncio.Condition()
        self._to_answer: asyncio.Queue[tuple[UUID, Answers]] = asyncio.Queue()
        self._api: tuple[str, str] | None = None

    def url(self, party: str) -> str:
        """Return where the webhooks of `party` go."""
        return f"http://127.0.0.1:{self.port}/hooks/{party}"

    @property
    def parties(self) -> Mapping[str, Responder]:
        """Everybody who is played here, by id."""
        return self._parties

    @property
    def duplicates(self) -> int:
        """How many requests repeated an id that the same party had before."""
        return sum(arrival.duplicate for arrival in self.arrivals)

    def behave(self, party: str, behaviour: Behaviour) -> None:
        """Change how `party` behaves from its next request on; counting begins again."""
        old = self._parties[party]
        self._parties[party] = Responder(party=party, role=old.role, secret=old.secret, behaviour=behaviour)
        self._requests[party] = 0

    def use_api(self, url: str, key: str) -> None:
        """Say where answers by API go, and with which key."""
        self._api = (url.rstrip("/"), key)

    async def wait(self, condition: Callable[[list[Arrival]], bool]) -> None:
        """Wait until `condition` holds for all arrivals so far."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: condition(self.arrivals))

    @asynccontextmanager
    async def serving(self, *, port: int = 0) -> AsyncIterator["Responders"]:
        """Listen on loopback for the length of a block; port 0 takes a free one."""
        app = web.Application(client_max_size=1 << 20)
        app.router.add_post("/hooks/{party}", self._receive)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
            self.port = runner.addresses[0][1]
            async with asyncio.TaskGroup() as tasks:
                answering = tasks.create_task(self._answer_by_api(), name="answers by API")
                try:
                    yield self
                finally:
                    answering.cancel()
        finally:
            await runner.cleanup()

    async def _receive(self, request: web.Request) -> web.StreamResponse:
        at_ns, at = monotonic_ns(), datetime.now(UTC)
        party = self._parties.get(request.match_info["party"])
        if party is None:
            return web.Response(status=404)
        body = await request.read()
        self._requests[party.party] += 1
        act = act_on(party.behaviour, self._requests[party.party])
        if (audit := _audit(party, request.headers, body)) is not None:
            self.audits.append((request.headers.get("webhook-id", ""), party.party, audit))
            return web.Response(status=act.status if isinstance(act, Fails) else 204)
        arrival = self.take(party, request.headers, body, at=at, at_ns=at_ns)
        async with self._arrived:
            self._arrived.notify_all()
        return await self._act(request, arrival, act)

    def take(self, party: Responder, headers: Mapping[str, str], body: bytes, *, at: datetime, at_ns: int) -> Arrival:
        """Judge a request to `party`, whoever received it, and record it."""
        problems = []
        try:
            Webhook(party.secret).verify(body, dict(headers), json_parse=False)
            verified = True
        # The library lets what it cannot decode or split escape as ValueError.
        except (WebhookVerificationError, ValueError) as exc:
            verified = False
            problems.append(f"signature: {exc}")
        notice = None
        try:
            notice = Notice.model_validate_json(body)
        except ValidationError as exc:
            first = exc.errors(include_input=False, include_url=False)[0]
            problems.append(f"body: {'.'.join(map(str, first['loc']))}: {first['msg']}")
        else:
            if (notice.data.party.id, notice.data.party.role) != (party.party, party.role):
                problems.append(f"meant for {notice.data.party.role} {notice.data.party.id}")
        id_ = headers.get("webhook-id", "")
        self._seen[party.party][id_] += 1
        arrival = Arrival(
            party=party.party,
            role=party.role,
            id=id_,
            at=at,
            at_ns=at_ns,
            body=body,
            verified=verified,
            problem="; ".join(problems) or None,
            notice=notice,
            duplicate=self._seen[party.party][id_] > 1,
        )
        self.arrivals.append(arrival)
        return arrival

    async def _act(self, request: web.Request, arrival: Arrival, act: Act) -> web.StreamResponse:
        match act:
            case Fails(status):
                return web.Response(status=status)
            case Resets():
                _reset(request)
                return web.Response(status=500)
            case Hangs(seconds):
                await asyncio.sleep(seconds)
            case Answers() if arrival.verified and arrival.notice and arrival.notice.type == "case.alert":
                if act.via == "response":
                    await asyncio.sleep(act.after_s)
                    return web.json_response(_body(act))
                self._to_answer.put_nowait((arrival.notice.data.leg, act))
        return web.Response(status=204 if arrival.verified else 401)

    async def _answer_by_api(self) -> None:
        async with aiohttp.ClientSession() as client, asyncio.TaskGroup() as tasks:
            while True:
                leg, act = await self._to_answer.get()
                tasks.create_task(self._answer(client, leg, act), name=f"answer {leg}")

    async def _answer(self, client: aiohttp.ClientSession, leg: UUID, act: Answers) -> None:
        await asyncio.sleep(act.after_s)
        if self._api is None:
            self.api_problems.append(f"leg {leg}: no API to answer to")
            return
        url, key = self._api
        try:
            async with client.post(
                f"{url}/v1/legs/{leg}/answers", json=_body(act), headers={"Authorization": f"Bearer {key}"}
            ) as response:
                if not response.ok:
                    self.api_problems.append(f"leg {leg}: HTTP {response.status}")
        except (aiohttp.ClientError, TimeoutError) as exc:
            self.api_problems.append(f"leg {leg}: {exc!r}")


class SilentNameServer(asyncio.DatagramProtocol):
    """A name server on loopback that takes every query and answers none.

    Attributes:
        queries: How many it was asked.
    """

    def __init__(self) -> None:
        self.queries = 0
        self.address = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note where it listens, as ``host:port``."""
        host, port = transport.get_extra_info("sockname")
        self.address = f"{host}:{port}"

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        """Swallow a query."""
        del data, addr
        self.queries += 1

    @classmethod
    @asynccontextmanager
    async def serving(cls) -> AsyncIterator["SilentNameServer"]:
        """Listen on a free port for the length of a block."""
        transport, server = await asyncio.get_running_loop().create_datagram_endpoint(cls, ("127.0.0.1", 0))
        try:
            yield server
        finally:
            transport.close()


def _audit(party: Responder, headers: Mapping[str, str], body: bytes) -> AuditMessage | None:
    """Return what the auditor tells, if this is from it and signed as it should be."""
    try:
        message = AuditMessage.model_validate_json(body)
        Webhook(party.secret).verify(body, dict(headers), json_parse=False)
    except (ValidationError, WebhookVerificationError, ValueError):
        return None
    return message


def _body(act: Answers) -> dict[str, object]:
    answer = Answer(answer=act.answer, reason=act.reason, minutes=act.minutes, by=act.by)
    return answer.model_dump(mode="json", exclude_none=True)


def _reset(request: web.Request) -> None:
    if request.transport is None:
        return
    connection = request.transport.get_extra_info("socket")
    # Lingering for no time makes the kernel send RST instead of FIN.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.transport.abort()
