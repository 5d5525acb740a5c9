"""Signed webhook, after the Standard Webhooks specification.

Headers ``webhook-id`` (stable for the notice, repeated on every retry, I5), ``webhook-timestamp`` (seconds) and
``webhook-signature`` (``v1,`` and the base64 HMAC-SHA256 over ``id.timestamp.body``). 2xx says delivered; a JSON body
in the form of ``schemas.notices.Answer`` answers for the party. 410 says never again.
"""

import errno
import socket
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Self

import aiohttp
from aiohttp.resolver import AsyncResolver
from pydantic import ValidationError
from standardwebhooks import Webhook

from gateway.domain.outbox import DueNotice, GiveUp, Outcome, PartyAnswer, Sent, TryAgain
from gateway.notify.compose import compose
from schemas.notices import Answer

__all__ = ["WebhookChannel"]

_LARGEST_ANSWER = 65_536
_GONE = 410
_DEFAULT_TIMEOUT_S = 10.0


class WebhookChannel:
    """Sends over one pool of connections without a common limit, so that no party waits for another's.

    Names are resolved by c-ares without threads: one whose server never answers holds up nobody else (D16).
    """

    def __init__(self, *, link: Callable[[DueNotice], str | None], dns_servers: Sequence[str] = ()) -> None:
        """`link` makes the address of the answer page of a notice."""
        self._link = link
        self._dns_servers = dns_servers
        self._resolver: AsyncResolver | None = None
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._resolver = AsyncResolver(nameservers=list(self._dns_servers)) if self._dns_servers else AsyncResolver()
        connector = aiohttp.TCPConnector(limit=0, limit_per_host=0, resolver=self._resolver, keepalive_timeout=60)
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "onekey-gateway", "Content-Type": "application/json"},
            auto_decompress=False,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()
        if self._resolver is not None:
            await self._resolver.close()  # the connector closes only a resolver of its own

    async def send(self, notice: DueNotice) -> Outcome:
        """Post once. Redirects are not followed: a signed message goes only where the site file says."""
        assert self._session is not None
        options: dict[str, Any] = notice.spec.options
        now = datetime.now(UTC)
        body = compose(notice, now=now, answer_url=self._link(notice))
        headers = {
            "webhook-id": notice.id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": _signer(options["secret"]).sign(notice.id, now, body.decode()),
        }
        timeout = _timeout(float(options.get("timeout_s", _DEFAULT_TIMEOUT_S)))
        try:
            async with self._session.post(
                options["url"], data=body, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                return _outcome(response.status, await _read(response))
        except TimeoutError:
            return TryAgain("no answer in time")
        except (aiohttp.ClientError, OSError) as exc:
            return TryAgain(_short(exc))


@lru_cache(maxsize=10_000)
def _signer(secret: str) -> Webhook:
    return Webhook(secret)


@lru_cache(maxsize=100)
def _timeout(total_s: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=total_s)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """Return the body, of a longer one the beginning."""
    raw = b""
    while len(raw) < _LARGEST_ANSWER and (more := await response.content.read(_LARGEST_ANSWER - len(raw))):
        raw += more
    return raw


def _outcome(status: int, raw: bytes) -> Outcome:
    if 200 <= status < 300:
        return Sent(status=status, answer=_answer(raw))
    if status == _GONE:
        return GiveUp("the receiver says that it is gone", status=status)
    return TryAgain(f"the receiver answered {status}", status=status)


def _answer(raw: bytes) -> PartyAnswer | None:
    """Read an answer, if the body is one: anything else only says delivered (I7)."""
    if not raw:
        return None
    try:
        answer = Answer.model_validate_json(raw)
    except ValidationError:
        return None
    return PartyAnswer(answer=answer.answer, reason=_clean(answer.reason), minutes=answer.minutes, by=_clean(answer.by))


def _clean(text: str | None) -> str | None:
    """Take out what the database cannot hold."""
    return None if text is None else text.replace("\x00", "")


def _short(exc: Exception) -> str:
    """Say what went wrong without the address, which may hold a token."""
    if isinstance(exc, aiohttp.ClientConnectorDNSError | socket.gaierror):
        return "the name cannot be resolved"
    number = getattr(exc, "errno", None)
    if isinstance(number, int) and number in errno.errorcode:
        return f"{type(exc).__name__} {errno.errorcode[number]}"
    return type(exc).__name__
