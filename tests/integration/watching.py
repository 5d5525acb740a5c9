"""A city under audit: the real auditor on the clock of the desk, and somebody who can break the tables."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import psycopg

from gateway.audit.auditor import Auditor, Round
from gateway.audit.ledger import Finding
from gateway.keyring import Keyring
from gateway.store.pool import open_clocked_pool
from tests.integration.desk import Desk

__all__ = ["Watch", "watching"]


class Watch:
    """Looks at a city, and sabotages it as only the owner of the database can.

    The worker of the desk beats before every look, unless it is said to be dead: its clock is not the desk's.
    """

    def __init__(self, desk: Desk, auditor: Auditor, owner: "psycopg.AsyncConnection[tuple[Any, ...]]") -> None:
        self.desk = desk
        self.auditor = auditor
        self.worker_lives = True
        self._owner = owner

    async def round(self) -> Round:
        age = "interval '0'" if self.worker_lives else "interval '1 minute'"
        await self.sabotage(f"UPDATE worker SET seen_at = clock_timestamp() - {age}")
        return await self.auditor.round()

    async def found(self) -> dict[str, Finding]:
        """Look once; returns what counts by kind."""
        return {one.kind: one for one in (await self.round()).open}

    async def raises(self, kind: str, *words: str) -> Finding:
        """Look twice: what is amiss is raised by the first look, in these words, and by the second not again."""
        first, second = await self.round(), await self.round()
        raised = [one for one in first.kept.raised if one.kind == kind]
        assert raised, f"no {kind} among {sorted(one.kind for one in first.kept.open)}"
        told = f"{raised[0].words['en']} / {raised[0].words['zh']}"
        assert [word for word in words if word not in told] == [], told
        assert kind not in {one.kind for one in second.kept.raised}
        assert raised[0].id in {one.id for one in second.open}
        return raised[0]

    async def clears(self, finding: Finding) -> None:
        """Look once: it is over by itself."""
        cleared = (await self.round()).kept.cleared
        assert finding.id in {one.id for one in cleared}, [one.words["en"] for one in (await self.round()).open]

    async def clean(self) -> None:
        seen = (await self.round()).kept.open
        assert [(one.kind, one.words["en"], one.detail) for one in seen] == [], f"at {self.desk.now}"

    async def sabotage(self, statement: str, *values: Any) -> None:
        """Change the tables behind everybody's back: no trigger fires, no rule holds."""
        async with self._owner.transaction():
            await self._owner.execute("SET LOCAL session_replication_role = replica")
            await self._owner.execute(statement.encode(), values)

    async def without_rule(self, name: str) -> None:
        """Take away a rule of the table of cases."""
        await self._owner.execute(f"ALTER TABLE cases DROP CONSTRAINT {name}".encode())

    def after_every_act(self) -> None:
        """From now on look after whatever the desk does, and demand that nothing is amiss."""
        act: Callable[[], Awaitable[None]] = self.desk.act

        async def acted() -> None:
            await act()
            await self.clean()

        self.desk.act = acted  # type: ignore[method-assign] # the stories go by the desk's own method


@asynccontextmanager
async def watching(desk: Desk, database: str, keyring: Keyring) -> AsyncIterator[Watch]:
    """Audit a city on the clock of its desk, with connections of the auditor's own."""
    async with (
        open_clocked_pool(database, clock=lambda: desk.now) as pool,
        await psycopg.AsyncConnection.connect(database, autocommit=True) as owner,
    ):
        yield Watch(desk, Auditor(pool, keyring, every_s=5), owner)
