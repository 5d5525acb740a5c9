"""SMS through a provider on the internet: address, body, headers and signature are a template of the site file.

A good status, and what the template says a good answer holds, is *delivered* (I7).
"""

import base64
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Self
from urllib.parse import quote_plus

from gateway.domain.outbox import DueNotice, GiveUp, Outcome, Sent, TryAgain
from gateway.links.http import Poster, PostFailed
from gateway.notify.short import compose_short

__all__ = ["HttpSmsChannel", "request"]

_LONGEST_ANSWER = 16_384
_CONTENT = {"json": "application/json", "form": "application/x-www-form-urlencoded"}
_NEVER = frozenset({400, 401, 403, 404, 410, 422})
_CHINA = "+86"


class HttpSmsChannel:
    """Posts texts to whatever provider a party's channel names."""

    def __init__(self, *, link: Callable[[DueNotice], str | None], dns_servers: Sequence[str] = ()) -> None:
        """`link` makes the address of the answer page of a notice: nobody can write back to a provider."""
        self._link = link
        self._poster = Poster(
            headers={"User-Agent": "onekey-gateway"}, longest_answer=_LONGEST_ANSWER, dns_servers=dns_servers
        )

    async def __aenter__(self) -> Self:
        await self._poster.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._poster.__aexit__(*exc)

    async def send(self, notice: DueNotice) -> Outcome:
        """Post once. The provider gets the id of the notice, so that it can tell a repeat (I5)."""
        to, options = notice.party.phone, notice.spec.options
        if to is None:
            return GiveUp("the party has no phone")
        now = datetime.now(UTC)
        text = compose_short(
            notice,
            now=now,
            link=self._link(notice),
            letter=None,
            replies=False,
            parts=int(options.get("parts", 3)),
        )
        body, headers = request(options, number=to, text=text, id=notice.id, now=now, nonce=secrets.token_hex(8))
        try:
            answer = await self._poster.post(
                options["url"], body, headers=headers, timeout_s=float(options.get("timeout_s", 10))
            )
        except PostFailed as exc:
            return TryAgain(str(exc))
        if not 200 <= answer.status < 300:
            return (GiveUp if answer.status in _NEVER else TryAgain)(
                f"the provider answered {answer.status}", status=answer.status
            )
        good = options.get("good")
        if good and good not in answer.body.decode(errors="replace"):
            return TryAgain("the provider's answer does not say that it was taken", status=answer.status)
        return Sent(status=answer.status, detail="taken by the provider")


def request(
    options: Mapping[str, Any],
    *,
    number: str,
    text: str,
    id: str,  # noqa: A002 # as the template calls it
    now: datetime,
    nonce: str,
) -> tuple[bytes, dict[str, str]]:
    """Return body and headers of a request, filled in and signed."""
    form = options.get("form", "json")
    values = {
        "number": number,
        "digits": number.removeprefix("+"),
        "national": number.removeprefix(_CHINA),
        "text": text,
        "id": id,
        "timestamp": str(int(now.timestamp())),
        "timestamp_ms": str(int(now.timestamp() * 1000)),
        "nonce": nonce,
        "signature": "",
    }
    if options.get("sign"):
        values["signature"] = _signature(options["sign"], values)
    body = _filled(options["body"], values, _json if form == "json" else quote_plus)
    headers = {"Content-Type": _CONTENT[form]}
    headers |= {
        name: re.sub(r"[\r\n]", " ", _filled(value, values, str)) for name, value in options.get("headers", {}).items()
    }
    return body.encode(), headers


def _json(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)[1:-1]


def _filled(template: str, values: Mapping[str, str], write: Callable[[str], str]) -> str:
    return re.sub(r"\{([a-z_]+)\}", lambda match: write(values.get(match[1], match[0])), template)


def _signature(sign: Mapping[str, str], values: Mapping[str, str]) -> str:
    over = _filled(sign["over"], values, str).encode()
    key = sign.get("secret", "").encode()
    match sign["how"]:
        case "hmac-sha256":
            digest = hmac.digest(key, over, "sha256")
        case "hmac-sha1":
            digest = hmac.digest(key, over, "sha1")
        case "sha256":
            digest = hashlib.sha256(over).digest()
        case _:
            digest = hashlib.md5(over).digest()  # noqa: S324 # what a provider asks for is not ours to choose
    return base64.b64encode(digest).decode() if sign.get("written") == "base64" else digest.hex()
