"""Signed webhook, after the Standard Webhooks specification.

Headers ``webhook-id`` (stable for the notice, repeated on every retry, I5), ``webhook-timestamp`` (seconds) and
``webhook-signature`` (``v1,`` and the base64 HMAC-SHA256 over ``id.timestamp.body``). 2xx says delivered; a JSON body
in the form of ``schemas.notices.Answer`` answers for the party. 410 says never again.
"""

import base64
import hmac
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Self

from pydantic import ValidationError

from gateway.domain.outbox import DueNotice, GiveUp, Outcome, PartyAnswer, Sent, TryAgain
from gateway.links.http import Poster, PostFailed
from gateway.notify.compose import compose
from schemas.notices import Answer

__all__ = ["WebhookChannel"]

_LONGEST_ANSWER = 65_536
_GONE = 410
_DEFAULT_TIMEOUT_S = 10.0


class WebhookChannel:
    """Sends over connections of its own, without a common limit, so that no party waits for another's."""

    def __init__(self, *, link: Callable[[DueNotice], str | None], dns_servers: Sequence[str] = ()) -> None:
        """`link` makes the address of the answer page of a notice."""
        self._link = link
        self._poster = Poster(
            headers={"User-Agent": "onekey-gateway", "Content-Type": "application/json"},
            longest_answer=_LONGEST_ANSWER,
            dns_servers=dns_servers,
        )

    async def __aenter__(self) -> Self:
        await self._poster.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._poster.__aexit__(*exc)

    async def send(self, notice: DueNotice) -> Outcome:
        """Post once. Redirects are not followed: a signed message goes only where the site file says."""
        options: dict[str, Any] = notice.spec.options
        now = datetime.now(UTC)
        body = compose(notice, now=now, answer_url=self._link(notice))
        headers = {
            "webhook-id": notice.id,
            "webhook-timestamp": (at := str(int(now.timestamp()))),
            "webhook-signature": _signature(options["secret"], f"{notice.id}.{at}.".encode() + body),
        }
        timeout_s = float(options.get("timeout_s", _DEFAULT_TIMEOUT_S))
        try:
            answer = await self._poster.post(options["url"], body, headers=headers, timeout_s=timeout_s)
        except PostFailed as exc:
            return TryAgain(str(exc))
        return _outcome(answer.status, answer.body)


@lru_cache(maxsize=10_000)
def _key(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix("whsec_"))


def _signature(secret: str, signed: bytes) -> str:
    """Sign in one call of the library: ``standardwebhooks``, which tests verify with, takes three times as long."""
    return "v1," + base64.b64encode(hmac.digest(_key(secret), signed, "sha256")).decode()


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
