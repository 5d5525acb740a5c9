"""What makes a press cheap: statements that go by an index, a directory read ahead, cases that sleep."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from gateway.ingest import read_ahead as ahead
from gateway.service.raise_alarm import Press, raise_alarm
from gateway.store.directory import Directory
from gateway.store.pool import Pool, open_pool

BOX = "860000000000001"


def press(kind: str, seq: int) -> Press:
    return Press(
        terminal=BOX,
        transport="mqtt",
        kinds=(kind,),
        received_at=datetime.now(UTC),
        payload=b"{}",
        digest=b"",
        boot=1,
        seq=seq,
    )


async def test_a_plan_made_while_a_table_was_small_does_not_read_it_all_when_it_is_not(database: str) -> None:
    async with open_pool(database, name="lookups", size=1) as pool, pool.connection() as conn:
        await conn.execute("CREATE TEMP TABLE kept (id int PRIMARY KEY, n int)")
        await conn.execute("INSERT INTO kept SELECT n, n FROM generate_series(1, 3) n")
        await conn.execute("ANALYZE kept")
        (plan,) = await (await conn.execute("EXPLAIN SELECT n FROM kept WHERE id = 1")).fetchone() or ("",)
        assert "Index" in plan
    async with open_pool(database, name="reports", size=1, wide=True) as pool, pool.connection() as conn:
        assert await (await conn.execute("SHOW enable_seqscan")).fetchone() == ("on",)


@pytest.mark.usefixtures("site")
async def test_a_household_that_was_read_ahead_is_not_asked_for_again(
    pool: Pool, directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "_LOOK_EVERY_S", 0.05)
    asked: list[str] = []
    records = directory._records

    async def listed(conn: object, households: list[str]) -> object:
        asked.extend(households)
        return await records(conn, households)  # type: ignore[arg-type]

    monkeypatch.setattr(directory, "_records", listed)
    task = asyncio.ensure_future(ahead.read_ahead(pool, directory, quiet=lambda: True))
    await until(lambda: len(asked) >= 3)
    await asyncio.sleep(0.2)
    first = sorted(asked)
    assert len(first) == len(set(first)), "each once"
    await raise_alarm(pool, directory, press("sos", 1), worker=None)
    assert sorted(asked) == first
    async with pool.connection() as conn:
        await conn.execute("UPDATE site SET revision = revision + 1")  # a site file was applied
    await until(lambda: sorted(asked) == sorted(first * 2))
    task.cancel()
    await asyncio.wait({task})


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.mark.usefixtures("site")
async def test_nobody_looks_at_a_case_that_wants_nothing(pool: Pool, directory: Directory) -> None:
    await raise_alarm(pool, directory, press("low_battery", 1), worker=None)
    await raise_alarm(pool, directory, press("sos", 2), worker=None)
    async with pool.connection() as conn:
        rows = await (await conn.execute("SELECT class, wake_at IS NULL OR wake_at > opened_at FROM cases")).fetchall()
    assert dict(rows) == {"technical": True, "emergency": False}
