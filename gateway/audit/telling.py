"""The auditor's own voice: a signed webhook to the fallback of each site, past the dispatcher that it audits.

A Standard Webhooks message as every other of the site, made and sent by code of its own, one POST a site at a time, so
that it also gets through while nothing else does.
"""

import asyncio
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic
from typing import Any

import aiohttp
from standardwebhooks import Webhook

from gateway.audit.ledger import Finding, told, untold
from gateway.keyring import ErasedKey, Keyring, KeyringError
from gateway.store.pool import Pool
from schemas.audit import AuditData, AuditMessage, FindingTold

__all__ = ["Voice"]

_log = logging.getLogger(__name__)

_AT_MOST = 50
_TIMEOUT = aiohttp.ClientTimeout(total=10)
_LONGEST_PAUSE_S = 60.0
_COMPLAIN_EVERY_S = 600.0


@dataclass(frozen=True, slots=True)
class _Ear:
    """Where a site hears of findings: the first webhook of its fallback."""

    site: str
    party: str
    url: str = field(repr=False)
    secret: str = field(repr=False)


@dataclass(slots=True)
class _Pause:
    """How long a site that does not answer is left alone."""

    until: float = 0.0
    length_s: float = 0.5


class Voice:
    """Tells, and tries again with back-off until it was heard.

    Attributes:
        deaf: Sites of which nobody can be told directly, since no party of their fallback has a webhook.
    """

    def __init__(self, pool: Pool, keyring: Keyring) -> None:
        """Read who is to be told with `pool`, and their secrets with `keyring`."""
        self.deaf: tuple[str, ...] = ()
        self._pool = pool
        self._keyring = keyring
        self._pauses: dict[str, _Pause] = {}
        self._heard: set[tuple[str, int, str]] = set()  # site, finding and state: what others have yet to hear
        self._complained_at: float | None = None

    async def tell(self) -> bool:
        """Tell every site what there is to tell; True when all of them have heard it."""
        ears, sites = await self._ears()
        self._complain(tuple(site for site in sites if site not in {ear.site for ear in ears}))
        findings = await untold(self._pool)
        if not findings or not ears:
            return not findings
        async with aiohttp.ClientSession(headers={"User-Agent": "onekey-auditor"}) as http:
            await asyncio.gather(*(self._tell(http, ear, findings) for ear in ears))
        took = [one for one in findings if self._is_heard(one, ears)]
        if took:
            await told(self._pool, took)
            self._heard -= {(ear.site, one.id, one.state) for ear in ears for one in took}
        return len(took) == len(findings)

    def _is_heard(self, finding: Finding, ears: Sequence[_Ear]) -> bool:
        """Did everybody hear of it whom it concerns?"""
        concerned = [ear for ear in ears if finding.site_id in (None, ear.site)]
        return bool(concerned) and all((ear.site, finding.id, finding.state) in self._heard for ear in concerned)

    async def _tell(self, http: aiohttp.ClientSession, ear: _Ear, findings: Sequence[Finding]) -> None:
        """Tell one site what it has not heard yet."""
        ours = [
            one
            for one in findings
            if one.site_id in (None, ear.site) and (ear.site, one.id, one.state) not in self._heard
        ]
        pause = self._pauses.setdefault(ear.site, _Pause())
        if not ours or monotonic() < pause.until:
            return
        said = ours[:_AT_MOST]
        why = await _post(http, ear, said, more=len(ours) - len(said), open_now=await self._count(ear.site))
        if why is None:
            self._heard |= {(ear.site, one.id, one.state) for one in said}
            del self._pauses[ear.site]
            return
        pause.length_s = min(pause.length_s * 2, _LONGEST_PAUSE_S)
        pause.until = monotonic() + pause.length_s
        _log.warning("the fallback does not take a finding: %s", why, extra={"site": ear.site, "party": ear.party})

    async def _count(self, site: str) -> int:
        async with self._pool.connection() as conn:
            row = await (
                await conn.execute(
                    "SELECT count(*) FROM finding WHERE cleared_at IS NULL AND raised_at IS NOT NULL "
                    "AND (site_id IS NULL OR site_id = %s)",
                    (site,),
                )
            ).fetchone()
        return 0 if row is None else int(row[0])

    async def _ears(self) -> tuple[list[_Ear], list[str]]:
        """Return where each site hears, and all sites."""
        async with self._pool.connection() as conn:
            rows = await (
                await conn.execute(
                    """
                    SELECT s.id, p.id, p.sealed, k.id, k.wrapped
                    FROM site s LEFT JOIN LATERAL unnest(s.fallback) WITH ORDINALITY AS f (party, place) ON true
                    LEFT JOIN party p ON p.id = f.party AND p.active LEFT JOIN data_key k ON k.id = p.key_id
                    ORDER BY s.id, f.place
                    """
                )
            ).fetchall()
        ears: dict[str, _Ear] = {}
        for site, party, sealed, key_id, wrapped in rows:
            if party is None or site in ears:
                continue
            try:
                record: Any = self._keyring.unwrap(key_id, wrapped).open(bytes(sealed), about=f"party {party}")
            except (KeyringError, ErasedKey):
                _log.error("the record of a fallback party cannot be opened", extra={"site": site, "party": party})
                continue
            for channel in record["channels"]:
                if channel["kind"] == "webhook":
                    options = channel["options"]
                    ears[site] = _Ear(site, party, options["url"], options["secret"])
                    break
        return list(ears.values()), list(dict.fromkeys(row[0] for row in rows))

    def _complain(self, deaf: tuple[str, ...]) -> None:
        """Say loudly of which sites nobody can be told; again every ten minutes."""
        due = self._complained_at is None or monotonic() - self._complained_at > _COMPLAIN_EVERY_S
        if deaf and (due or deaf != self.deaf):
            self._complained_at = monotonic()
            _log.critical(
                "nobody can be told of findings directly: no fallback party with a webhook", extra={"sites": deaf}
            )
        self.deaf = deaf


async def _post(
    http: aiohttp.ClientSession, ear: _Ear, findings: Sequence[Finding], *, more: int, open_now: int
) -> str | None:
    """Post once; returns None when it was taken, else why not."""
    now = datetime.now(UTC)
    told_of = [
        FindingTold(
            id=one.id,
            kind=one.kind,
            state=one.state,
            case=one.case_id,
            district=one.district,
            text=one.words,
            detail=one.detail,
            raised_at=one.raised_at or one.first_seen,
            cleared_at=one.cleared_at,
        )
        for one in findings
    ]
    data = AuditData(site=ear.site, open=open_now, more=more, findings=told_of)
    body = AuditMessage(type="audit.finding", timestamp=now, data=data).model_dump_json(exclude_none=True)
    name = _id_of(ear, findings)
    try:
        signature = Webhook(ear.secret).sign(name, now, body)
        headers = {
            "Content-Type": "application/json",
            "webhook-id": name,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": signature,
        }
        async with http.post(
            ear.url, data=body.encode(), headers=headers, timeout=_TIMEOUT, allow_redirects=False
        ) as response:
            return None if 200 <= response.status < 300 else f"it answered {response.status}"
    except TimeoutError:
        return "no answer in time"
    except (aiohttp.ClientError, OSError, ValueError) as exc:
        return type(exc).__name__  # without the address, which may hold a token


def _id_of(ear: _Ear, findings: Sequence[Finding]) -> str:
    """Return the id of a message: the same on every try, as long as it says the same of the same findings."""
    said = " ".join(f"{one.id}{one.state}{'' if one.told_at is None else one.told_at.isoformat()}" for one in findings)
    return f"aud_{hashlib.sha256(f'{ear.site} {said}'.encode()).hexdigest()[:32]}"
