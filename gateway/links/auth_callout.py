"""Who may connect to the embedded broker, and to which topics: our answers to the NATS auth callout (D14).

The server sends a signed request for every connection and waits for a signed answer. User name, client id and topics
of a terminal are bound together: whoever could take the gateway's client id, or another terminal's, would throw it off.

Requests and answers are JWTs of NATS: ``alg`` is ``ed25519-nkey``, ``nats.type`` is ``authorization_request``,
``authorization_response`` or ``user``. The server proves who it is by its connection, to which only it has the subject.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import logging
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import nats.errors
import nkeys
import orjson
import psycopg
from nats.aio.client import Client
from nats.aio.msg import Msg

from gateway.keyring import Keyring
from gateway.store.pool import Connection, connect
from protocols.errors import FrameError
from protocols.okc.topics import (
    ID_PATTERN,
    notice_topic,
    party_user,
    terminal_publish_topics,
    terminal_subscribe_filters,
)

__all__ = [
    "CredentialCache",
    "Credentials",
    "Grant",
    "Refusal",
    "Request",
    "Responder",
    "decide",
    "read_request",
    "write_answer",
]

_log = logging.getLogger(__name__)

_SUBJECT = "$SYS.REQ.USER.AUTH"
_TERMINAL = re.compile(ID_PATTERN)
_PARTY = re.compile(rf"{re.escape(party_user(''))}({ID_PATTERN})")
_CLIENT_SUFFIX = re.compile(r"~[A-Za-z0-9_-]{1,32}")
_WORTH_A_LOOK = frozenset({"unknown user", "wrong password"})


# What is asked and what is answered, without I/O


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One connection that asks to be let in. ``expires`` is in seconds since 1970, 0 when the server did not say."""

    server: str
    nkey: str
    kind: str
    client_id: str
    user: str
    password: str
    expires: int


@dataclass(frozen=True, slots=True)
class Grant:
    """Let it in, to these subjects of NATS and no others."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Keep it out. The reason is for our log: whoever guesses learns nothing."""

    reason: str


def read_request(token: bytes) -> Request:
    """Read a request of the server.

    Raises:
        FrameError: Not such a request.
    """
    try:
        _, claims, _ = token.split(b".")
        body = orjson.loads(base64.urlsafe_b64decode(claims + b"=" * (-len(claims) % 4)))
        asked, client, options = body["nats"], body["nats"]["client_info"], body["nats"]["connect_opts"]
        return Request(
            server=asked["server_id"]["id"],
            nkey=asked["user_nkey"],
            kind=client.get("type", ""),
            client_id=client.get("mqtt_id", ""),
            user=options.get("user", ""),
            password=options.get("pass", ""),
            expires=body.get("exp", 0),
        )
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error) as exc:
        raise FrameError(f"not an authorization request: {exc.__class__.__name__}") from exc


def decide(request: Request, expected: bytes | None, keyring: Keyring) -> Grant | Refusal:
    """Decide on `request`; `expected` is the keyed hash of the user's secret, None where the user is unknown.

    A client id is the user name itself, or that with ``~`` and a suffix for another connection of the same user.
    """
    if request.kind != "mqtt":
        return Refusal("not MQTT")
    party = _PARTY.fullmatch(request.user)
    if party is None and not _TERMINAL.fullmatch(request.user):
        return Refusal("malformed user name")
    own = request.client_id.startswith(request.user)
    suffix = request.client_id.removeprefix(request.user)
    if not own or (suffix and not _CLIENT_SUFFIX.fullmatch(suffix)):
        return Refusal("foreign client id")
    if expected is None:
        return Refusal("unknown user")
    presented = (
        keyring.mac("terminal", request.user, request.password)
        if party is None
        else keyring.mac("party", party[1], request.password)
    )
    if not hmac.compare_digest(presented, expected):
        return Refusal("wrong password")
    if party is not None:
        return Grant(publish=(), subscribe=(_subject(notice_topic(party[1])),))
    down = {_subject(topic) for topic in terminal_subscribe_filters(request.user)}
    return Grant(
        publish=tuple(_subject(topic) for topic in terminal_publish_topics(request.user)),
        # A filter with + is another subject than each that it stands for, and has to be allowed itself.
        subscribe=tuple(sorted(down | {f"{subject.rpartition('.')[0]}.*" for subject in down})),
    )


def _subject(topic: str) -> str:
    """Return the NATS subject of an MQTT topic. Ours have no dots in their levels, so nothing has to be escaped."""
    return topic.replace("/", ".")


def write_answer(request: Request, decision: Grant | Refusal, keys: nkeys.KeyPair, *, issued_at: int) -> bytes:
    """Write and sign the answer to `request`. ``issued_at`` is in seconds since 1970."""
    issuer = keys.public_key.decode()
    answer: dict[str, Any] = {"type": "authorization_response", "version": 2}
    if isinstance(decision, Grant):
        permissions: dict[str, Any] = {
            "type": "user",
            "version": 2,
            "allowed_connection_types": ["MQTT"],
            "subs": 64,
            "data": -1,
            "payload": -1,
            # An empty list of what is allowed would allow everything.
            "pub": {"allow": list(decision.publish)} if decision.publish else {"deny": [">"]},
            "sub": {"allow": list(decision.subscribe)},
        }
        user = {"iat": issued_at, "iss": issuer, "sub": request.nkey, "aud": "APP", "name": request.user}
        answer["jwt"] = _signed({**user, "nats": permissions}, keys).decode()
    else:
        answer["error"] = "refused"
    return _signed({"iat": issued_at, "iss": issuer, "sub": request.nkey, "aud": request.server, "nats": answer}, keys)


def _signed(claims: dict[str, Any], keys: nkeys.KeyPair) -> bytes:
    digest = hashlib.sha256(orjson.dumps(claims)).digest()
    body = orjson.dumps({**claims, "jti": base64.b32encode(digest).decode().rstrip("=")})
    head = _HEADER + b"." + base64.urlsafe_b64encode(body).rstrip(b"=")
    return head + b"." + base64.urlsafe_b64encode(keys.sign(head)).rstrip(b"=")


_HEADER = base64.urlsafe_b64encode(b'{"typ":"JWT","alg":"ed25519-nkey"}').rstrip(b"=")


# Where the credentials come from


class Credentials(Protocol):
    """Keyed hashes of secrets by user name."""

    keyring: Keyring
    loaded: asyncio.Event

    def known(self, user: str) -> bytes | None:
        """Return what is known now, without waiting."""
        ...

    async def looked_up(self, user: str) -> bytes | None:
        """Return what the database says, as long as it can be asked; else what is known."""
        ...

    async def run(self) -> None:
        """Keep what is known fresh until cancelled."""
        ...


class CredentialCache:
    """All credentials of terminals and platforms in memory, so that terminals reconnect while the database is away.

    A change in the database is announced and loaded within about a second; loading takes at most a tenth of the time.
    Until then, one look into the database decides on a user who would be refused: a new one, or a new password.
    """

    _PAUSE_S = 1.0
    _LOOKS_PER_S = 50
    _CHUNK = 2000

    _ALL = """
        SELECT public_id, secret_mac FROM terminal WHERE active AND secret_mac IS NOT NULL
        UNION ALL
        SELECT %(party)s || id, broker_mac FROM party WHERE active AND broker_mac IS NOT NULL
    """
    _ONE = f"SELECT mac FROM ({_ALL}) credential (name, mac) WHERE name = %(user)s"  # noqa: S608  both are ours

    def __init__(self, database: str, keyring: Keyring) -> None:
        """Read from `database`; secrets are hashed under `keyring`."""
        self.keyring = keyring
        self.loaded = asyncio.Event()
        self._database = database
        self._macs: dict[str, bytes] = {}
        self._asking = asyncio.Lock()
        self._asked: Connection | None = None
        self._looks_left = float(self._LOOKS_PER_S)
        self._looked_at = time.monotonic()

    def known(self, user: str) -> bytes | None:
        """Return the hash of the user's secret, or None when there is no such user."""
        return self._macs.get(user)

    async def looked_up(self, user: str) -> bytes | None:
        """Ask the database about one user, unless it was asked too often or is away: then what is known counts."""
        now = time.monotonic()
        self._looks_left = min(self._LOOKS_PER_S, self._looks_left + (now - self._looked_at) * self._LOOKS_PER_S)
        self._looked_at = now
        if self._looks_left < 1:
            return self.known(user)
        self._looks_left -= 1
        try:
            async with asyncio.timeout(3), self._asking:
                mac = await self._ask(user)
        except (psycopg.Error, TimeoutError):
            return self.known(user)
        if mac is None:
            self._macs.pop(user, None)
        else:
            self._macs[user] = mac
        return mac

    async def _ask(self, user: str) -> bytes | None:
        conn, self._asked = self._asked, None
        if conn is None or conn.closed:
            conn = await connect(self._database, name="credential")
        try:
            cursor = await conn.execute(self._ONE, {"party": party_user(""), "user": user})
            row = await cursor.fetchone()
            self._asked = conn
        finally:
            if self._asked is None:
                await conn.close()
        return None if row is None else bytes(row[0])

    async def run(self) -> None:
        """Load everything and follow the changes, until cancelled; a lost database is waited for."""
        delay_s = 0.2
        try:
            while True:
                try:
                    async with await connect(self._database, name="credentials") as conn:
                        await conn.execute("LISTEN onekey_credential")
                        while True:
                            took_s = await self._load(conn)
                            delay_s = 0.2
                            await asyncio.sleep(max(self._PAUSE_S, 9 * took_s))
                            await _announced(conn)
                except psycopg.Error as exc:
                    _log.warning("credentials: the database is away: %s", exc.__class__.__name__)
                await asyncio.sleep(delay_s * random.uniform(0.5, 1.0))
                delay_s = min(delay_s * 2, 5.0)
        finally:
            if self._asked is not None:
                await self._asked.close()

    async def _load(self, conn: Connection) -> float:
        """Read all credentials, a piece at a time so that answers go on meanwhile. Returns the seconds it took."""
        began = time.monotonic()
        fresh: dict[str, bytes] = {}
        async with conn.transaction(), conn.cursor(name="credentials") as cursor:
            await cursor.execute(self._ALL, {"party": party_user("")})
            while rows := await cursor.fetchmany(self._CHUNK):
                for user, mac in rows:
                    fresh[user] = bytes(mac)
        self._macs = fresh
        self.loaded.set()
        return time.monotonic() - began


async def _announced(conn: Connection) -> None:
    """Wait for a change, and take all that were announced so far as one."""
    async for _ in conn.notifies(stop_after=1):
        pass
    async for _ in conn.notifies(timeout=0):
        pass


# Answering


class Responder:
    """Answers the broker's questions."""

    _LOG_AGAIN_S = 60.0
    _LOG_AT_MOST = 1000

    def __init__(
        self, url: str, seed: str, credentials: Credentials, *, clock: Callable[[], float] = time.time
    ) -> None:
        """Connect to `url`, which carries user and password, and sign with the account's `seed`."""
        self._url = url
        self._keys: nkeys.KeyPair = nkeys.from_seed(seed.encode())
        self._credentials = credentials
        self._clock = clock
        self._logged: dict[tuple[str, str], float] = {}
        self.ready = asyncio.Event()

    async def run(self) -> None:
        """Answer until cancelled; a lost broker is waited for. Begins once the credentials were read."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._credentials.run(), name="credentials")
            tasks.create_task(self._answer_all(tasks), name="answers")

    async def _answer_all(self, tasks: asyncio.TaskGroup) -> None:
        async def take(message: Msg) -> None:
            await self._take(message, tasks)

        await self._credentials.loaded.wait()
        while True:
            closed = asyncio.Event()
            client = Client()
            try:
                await self._connect(client, closed)
                await client.subscribe(_SUBJECT, cb=take)
                await client.flush()
                await self._on_connected()
                await closed.wait()
            except (nats.errors.Error, OSError, TimeoutError) as exc:
                _log.warning("auth callout: the broker is away: %s", exc.__class__.__name__)
            finally:
                self.ready.clear()
                if not client.is_closed:
                    await client.close()
            await asyncio.sleep(random.uniform(0.3, 1.0))

    async def _connect(self, client: Client, closed: asyncio.Event) -> None:
        """Connect, however long it takes; after a loss the client reconnects and subscribes again by itself."""

        async def on_closed() -> None:
            closed.set()

        await client.connect(
            self._url,
            name="onekey-auth",
            max_reconnect_attempts=-1,
            reconnect_time_wait=1,
            ping_interval=5,
            max_outstanding_pings=2,
            closed_cb=on_closed,
            error_cb=_on_error,
            disconnected_cb=self._on_disconnected,
            reconnected_cb=self._on_connected,
        )

    async def _on_connected(self) -> None:
        _log.info("auth callout: connected to the broker")
        self.ready.set()

    async def _on_disconnected(self) -> None:
        if self.ready.is_set():
            _log.warning("auth callout: lost the broker")
        self.ready.clear()

    async def _take(self, message: Msg, tasks: asyncio.TaskGroup) -> None:
        """Answer at once what can be; what needs a look into the database must not hold up the others."""
        now = self._clock()
        try:
            request = read_request(message.data)
        except FrameError as exc:
            _log.error("auth callout: %s", exc)
            return
        if 0 < request.expires < now:
            return  # The server gave up on it. After a storm only answers that are still waited for are worth signing.
        decision = decide(request, self._credentials.known(request.user), self._credentials.keyring)
        if isinstance(decision, Refusal) and decision.reason in _WORTH_A_LOOK:
            tasks.create_task(self._look_and_answer(message, request), name="auth-look")
        else:
            await self._answer(message, request, decision)

    async def _look_and_answer(self, message: Msg, request: Request) -> None:
        expected = await self._credentials.looked_up(request.user)
        await self._answer(message, request, decide(request, expected, self._credentials.keyring))

    async def _answer(self, message: Msg, request: Request, decision: Grant | Refusal) -> None:
        if isinstance(decision, Refusal):
            self._note(request, decision)
        try:
            await message.respond(write_answer(request, decision, self._keys, issued_at=int(self._clock())))
        except nats.errors.Error as exc:
            _log.warning("auth callout: no answer sent: %s", exc.__class__.__name__)

    def _note(self, request: Request, refusal: Refusal) -> None:
        """Log a refusal, the same one at most once a minute and never more than so many users."""
        now = self._clock()
        if len(self._logged) >= self._LOG_AT_MOST:
            self._logged = {key: at for key, at in self._logged.items() if now - at < self._LOG_AGAIN_S}
        key = (request.user[:70], refusal.reason)
        if now - self._logged.get(key, float("-inf")) < self._LOG_AGAIN_S or len(self._logged) >= self._LOG_AT_MOST:
            return
        self._logged[key] = now
        # A malformed name may be a password in the wrong place.
        name = "?" if refusal.reason == "malformed user name" else request.user
        _log.warning("connection refused: %s", refusal.reason, extra={"terminal_id": name})


async def _on_error(exc: Exception) -> None:
    _log.debug("auth callout: %s", exc.__class__.__name__)  # One for each attempt to reconnect.
