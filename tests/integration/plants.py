"""A district whose terminals report on a virtual clock, for whoever supervises them."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from typing import Any, Self
from uuid import UUID

from gateway.service.supervise import Swept, sweep
from gateway.service.telemetry import Told, store_reports
from gateway.service.troubles import (
    gather_incidents,
    settle_incidents,
    settle_troubles,
    tell_troubles,
    track_emergencies,
)
from gateway.site.model import Site
from gateway.store import supervision
from gateway.store.directory import Directory
from gateway.store.pool import Pool, open_clocked_pool
from schemas.reports import EventReport, Fix, FixReport, HeartbeatReport

__all__ = ["District", "district_site"]


def district_site(
    buildings: Sequence[int],
    *,
    silent_after: str = "5 min",
    care: dict[str, Any] | None = None,
    track: str | None = None,
) -> Site:
    """Return a site of buildings in streets of their own, with so many homes each; a terminal is named tB-H.

    The first home of the first building has asked for `care`.
    """
    names = [(building, home) for building, homes in enumerate(buildings) for home in range(homes)]
    return Site.model_validate(
        {
            "site": "district",
            "district": "320102",
            "timezone": "Asia/Shanghai",
            "locale": "zh-CN",
            "fallback": ["centre"],
            "parties": [
                {"id": "centre", "role": "service_center", "name": "中心", "channels": [{"kind": "stream"}]},
                {"id": "family", "role": "guardian", "name": "家人", "channels": [{"kind": "stream"}]},
                {"id": "rescue", "role": "ambulance_120", "name": "120", "channels": [{"kind": "stream"}]},
            ],
            "households": [
                {
                    "id": f"h{building}-{home}",
                    "address": {
                        "district": "320102",
                        "street": f"street {building}",
                        "building": "1",
                        "room": str(home),
                        "lat": 32.06,
                        "lon": 118.79,
                    },
                    "care": care if (building, home) == (0, 0) else None,
                    "persons": [{"id": f"p{building}-{home}", "name": "王"}],
                    "parties": ["centre", "family", "rescue"],
                    "terminals": [f"t{building}-{home}"],
                }
                for building, home in names
            ],
            "terminals": [
                {"id": f"t{building}-{home}", "model": "box", "secret": "0123456789abcdef"} for building, home in names
            ],
            "plans": [{"id": "all", "kinds": ["*"], "roles": ["guardian", "service_center", "ambulance_120"]}],
            "supervision": [{"models": ["box"], "silent_after": silent_after, "track": track}],
        }
    )


class District:
    """The clock, what terminals say, sweeps, and what the tables hold afterwards."""

    def __init__(self, database: str, directory: Directory, start: datetime) -> None:
        self._database = database
        self.directory = directory
        self.now = start
        self.pool: Pool

    async def __aenter__(self) -> Self:
        self._stack = AsyncExitStack()
        self.pool = await self._stack.enter_async_context(open_clocked_pool(self._database, clock=lambda: self.now))
        return self

    async def __aexit__(self, *args: object) -> None:
        await self._stack.aclose()

    def pass_by(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def beat(self, terminal: str, *, kept: bool = True, at: datetime | None = None, **fields: Any) -> Told:
        """A heartbeat that comes now; `at` is what it says itself."""
        report = HeartbeatReport(v=1, at=at, **fields)
        return Told(terminal, self.now, report, heard_at=self.now, kept=kept)

    def fix(self, terminal: str, metres: float) -> Told:
        """A position so far north of home, measured now."""
        place = Fix(lat=32.06 + metres / 111_195, lon=118.79, source="gnss", accuracy_m=8, at=self.now)
        return Told(terminal, self.now, FixReport(v=1, at=self.now, fix=place), heard_at=self.now)

    def event(self, terminal: str, name: str, value: Any) -> Told:
        return Told(terminal, self.now, EventReport(v=1, name=name, value=value), heard_at=self.now)

    async def tell(self, *told: Told) -> None:
        await store_reports(self.pool, self.directory, told, worker=None)

    async def sweep(self) -> Swept:
        """Look as the supervisor does, with all that comes behind it."""
        async with self.pool.connection() as conn:
            await supervision.keep_hearing(conn, horizon=self.now, boot="test", uptime_s=0, steady=self.now)
        total = await sweep(self.pool, self.directory.keyring, now=self.now)
        swept = total
        while swept.more:
            swept = await sweep(self.pool, self.directory.keyring, now=self.now)
        await gather_incidents(self.pool, self.directory)
        await settle_incidents(self.pool, self.directory)
        await track_emergencies(self.pool, self.directory)
        while await tell_troubles(self.pool, self.directory):
            pass
        while await settle_troubles(self.pool, self.directory):
            pass
        return total

    async def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        async with self.pool.connection() as conn:
            return await (await conn.execute(query, values)).fetchall()

    async def state(self, terminal: str) -> str:
        rows = await self.rows(
            "SELECT state FROM watch w JOIN terminal t ON t.uid = w.terminal_uid WHERE public_id = %s", terminal
        )
        return str(rows[0][0])

    async def troubles(self, terminal: str | None = None) -> set[tuple[str, str]]:
        """Return the open troubles: terminal and cause."""
        rows = await self.rows(
            "SELECT public_id, cause FROM trouble o JOIN terminal t ON t.uid = o.terminal_uid "
            "WHERE cleared_at IS NULL AND (%s::text IS NULL OR public_id = %s)",
            terminal,
            terminal,
        )
        return {(one, cause) for one, cause in rows}

    async def open_cases(self) -> list[tuple[str | None, list[str]]]:
        """Return the open technical cases: terminal and kinds."""
        rows = await self.rows(
            "SELECT terminal_id, kinds FROM cases WHERE class = 'technical' AND state = 'open' "
            "ORDER BY terminal_id, kinds"
        )
        return [(terminal, list(kinds)) for terminal, kinds in rows]

    async def case_of(self, terminal: str, kind: str) -> UUID:
        rows = await self.rows(
            "SELECT id FROM cases WHERE terminal_id = %s AND kinds = ARRAY[%s] AND class = 'technical' "
            "ORDER BY opened_at DESC LIMIT 1",
            terminal,
            kind,
        )
        found: UUID = rows[0][0]
        return found

    async def roles(self, case: UUID) -> set[str]:
        """Return whom a case calls."""
        rows = await self.rows("SELECT role FROM leg WHERE case_id = %s AND state <> 'skipped'", case)
        return {role for (role,) in rows}
