"""A hotline: the API on a clock that the test turns, presses, and the runner that does what is due."""

import base64
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

import aiohttp
from pydantic import SecretStr

from api.app import create_app
from gateway.config import Settings
from gateway.keyring import Keyring
from gateway.procedures.runner import Runner
from gateway.service.access import Role, create_key
from gateway.service.apply_site import apply_site
from gateway.service.raise_alarm import Press, raise_alarm
from gateway.service.run_procedures import store_shipped
from gateway.service.workdays import Workdays
from gateway.site.load import load
from gateway.store import procedures
from gateway.store.directory import Directory
from gateway.store.pool import Pool, open_clocked_pool
from tests.conftest import ROOT
from tests.integration.api_client import Api, serving

__all__ = ["Hotline", "hotline"]

WANG = "860000000000001"
"""The box of somebody who lives alone."""


class _Link:
    """Stands where the broker is."""

    async def publish(self, topic: str, payload: bytes, *, qos: int = 0, timeout_s: float = 5.0) -> None:
        pass


@dataclass
class Hotline:
    """Presses go in, operators work through the API, and time passes when the test says so."""

    api: Api
    pool: Pool
    directory: Directory
    clock: list[datetime]
    runner: Runner
    presses: int = field(default=0)

    @property
    def now(self) -> datetime:
        return self.clock[0]

    async def at(self, instant: datetime) -> None:
        """Let time pass until `instant`, waking whenever something wants to be looked at."""
        while (wake := await self._next()) is not None and wake <= instant:
            self.clock[0] = max(self.now, wake)
            await self.act()
        self.clock[0] = instant
        await self.act()

    async def after(self, **time: float) -> None:
        await self.at(self.now + timedelta(**time))

    async def _next(self) -> datetime | None:
        query = "SELECT min(wake_at) FROM (SELECT wake_at FROM cases UNION ALL SELECT wake_at FROM work_order) w"
        return (await self.rows(query))[0][0]  # type: ignore[no-any-return]

    async def act(self) -> None:
        while True:
            async with self.pool.connection() as conn:
                if not await procedures.due_cases(conn, limit=1):
                    break
            await self.runner.advance_due()
        await self.runner.advance_complaints()

    async def press(self, terminal: str = WANG, *kinds: str, test: bool = False) -> UUID:
        self.presses += 1
        payload = f"{terminal} {self.presses}".encode()
        press = Press(
            terminal=terminal,
            transport="mqtt",
            kinds=kinds or ("sos",),
            received_at=self.now,
            payload=payload,
            digest=hashlib.sha256(payload).digest(),
            boot=1,
            seq=self.presses,
            test=test,
        )
        raised = await raise_alarm(self.pool, self.directory, press, worker=None)
        await self.act()
        return raised.case_id

    async def ok(self, method: str, path: str, body: object = None, *, role: Role = Role.OPERATOR) -> Any:
        status, answer = await self.api.call(method, path, role=role, body=body)
        assert status in (200, 201, 204), (method, path, answer)
        await self.act()
        return answer

    async def refused(self, method: str, path: str, body: object = None, *, role: Role = Role.OPERATOR) -> Any:
        """Return status and problem of a request that has to be refused."""
        status, answer = await self.api.call(method, path, role=role, body=body)
        assert status >= 400, (method, path, answer)
        return status, answer["detail"]

    async def own(self, case: UUID, operator: str = "seat-7") -> None:
        await self.ok("POST", f"/v1/cases/{case}/acknowledgement", {"operator": operator})

    async def close(self, case: UUID, outcome: str = "helped", **more: Any) -> None:
        body = {"outcome": outcome, "confirmed_by": "ambulance_120", **more}
        await self.ok("POST", f"/v1/cases/{case}/closure", body)

    async def order_of(self, case: UUID) -> Any:
        """The one work order of a case, whole."""
        (line,) = (await self.ok("GET", f"/v1/work-orders?case={case}"))["items"]
        return await self.ok("GET", f"/v1/work-orders/{line['id']}")

    async def change(self, order: Any, **fields: Any) -> Any:
        body = {"version": order["version"], "by": "seat-7", **fields}
        return await self.ok("PATCH", f"/v1/work-orders/{order['id']}", body)

    async def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        async with self.pool.connection() as conn:
            return await (await conn.execute(query, values)).fetchall()


@asynccontextmanager
async def hotline(database: str, keyring: Keyring, start: datetime) -> AsyncIterator[Hotline]:
    """The example of Nanjing at `start`."""
    clock = [start]
    directory = Directory(keyring)
    settings = Settings(database=SecretStr(database), master_key=SecretStr(base64.b64encode(bytes(range(32))).decode()))
    async with open_clocked_pool(database, clock=lambda: clock[0], size=4) as pool:
        await store_shipped(pool)
        await apply_site(pool, keyring, load(ROOT / "examples" / "nanjing.yaml").site, prune=False)
        keys = {role: (await create_key(pool, keyring, name=role, role=role))[1] for role in Role}
        runner = Runner(
            pool,
            directory,
            _Link(),  # type: ignore[arg-type]
            submit=lambda _: None,
            worker=lambda: None,
            is_working_day=Workdays().is_working_day,
            rng=Random(1),
        )
        async with serving(create_app(settings, pool=pool)) as url, aiohttp.ClientSession() as http:
            yield Hotline(Api(url, http, keys), pool, directory, clock, runner)
