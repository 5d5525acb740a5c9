"""An erasure leaves nothing that anybody could read (D15), and takes nothing away that proves."""

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from gateway.domain.case import StateConflict
from gateway.keyring import Keyring
from gateway.service.apply_site import apply_site
from gateway.service.case_reading import list_households, read_case
from gateway.service.checkpoints import make_checkpoints
from gateway.service.persons import erase_person
from gateway.service.proof import examine, prove_case
from gateway.service.quarantine import Misread, keep
from gateway.service.telemetry import Told, store_reports
from gateway.site.load import load
from gateway.store.directory import Directory
from gateway.store.pool import Pool
from schemas.reports import EventReport, FixReport
from tests.conftest import ROOT
from tests.integration.api_client import press
from tests.integration.rescues import TERMINAL, Rescue, rescuing

PLACE = {"lat": 32.0603, "lon": 118.7969, "datum": "wgs84", "source": "gnss", "accuracy_m": 12.0}
READABLE = "32\\.06|118\\.79|13900000099|王小明|王秀兰|鼓楼|玄武区|SECRET"
COUPLE = "860000000000002"


async def dumped(database: str) -> str:
    """Everything in the tables, as whoever steals the disk reads it; byte strings as text where they are any."""
    found = []
    async with await psycopg.AsyncConnection.connect(database) as conn:
        tables = await (
            await conn.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
        ).fetchall()
        for (table,) in tables:
            for row in await (await conn.execute(f"SELECT * FROM {table}".encode())).fetchall():
                cells = [cell.decode("utf-8", "replace") if isinstance(cell, bytes) else str(cell) for cell in row]
                found.append(f"{table}: {' | '.join(cells)}")
    return "\n".join(found)


def readable(text: str) -> list[str]:
    return [line for line in text.splitlines() if re.search(READABLE, line)]


async def telemetry(pool: Pool, directory: Directory, terminal: str, *, seq: int) -> None:
    now = datetime.now(UTC)
    fix = FixReport.model_validate({"v": 1, "boot": 1, "seq": seq, "at": now.isoformat(), "fix": PLACE})
    event = EventReport.model_validate({"v": 1, "boot": 1, "seq": seq + 1, "name": "note", "value": "SECRET"})
    told = [Told(terminal, now, fix), Told(terminal, now, event)]
    await store_reports(pool, directory, told, worker=None)
    misread = Misread(
        transport="mqtt",
        topic=f"okc/v1/{terminal}/up/fix",
        terminal=terminal,
        payload=b'{"lat": 32.0603, ' + str(seq).encode(),
        received_at=now,
        reason="not JSON: 32.0603",
    )
    await keep(pool, misread)


@pytest.fixture
async def rescue(database: str, site: str, directory: Directory) -> AsyncIterator[Rescue]:
    async with rescuing(database, directory) as one:
        # The rescue is played in another year: what belongs to it was written while the terminal stood there.
        async with await psycopg.AsyncConnection.connect(database, autocommit=True) as conn:
            await conn.execute("UPDATE assignment SET since = '2020-01-01'")
        yield one


async def test_nothing_of_an_erased_person_can_be_read_and_everything_is_proved(
    rescue: Rescue, pool: Pool, directory: Directory, keyring: Keyring, database: str
) -> None:
    case = await rescue.whole()
    rescue.at(3600 * 24 * 4000)  # long after anything that happens while this test runs
    await telemetry(rescue.pool, directory, TERMINAL, seq=1)
    await make_checkpoints(rescue.pool, keyring)
    before = readable(await dumped(database))
    assert {line.partition(":")[0] for line in before} >= {
        *("alarm", "answer", "cases", "event", "fix", "quarantine", "terminal_event", "terminal_state"),
    }
    others = len(await rows(database, "SELECT FROM answer"))

    await erase_person(rescue.pool, keyring, "wang-xiulan", by="api:test")

    assert readable(await dumped(database)) == []
    assert len(await rows(database, "SELECT FROM answer")) == others
    assert await rows(database, "SELECT count(*) FROM attempt") > [(6,)]
    evidence = await examine(rescue.pool, keyring)
    assert (await prove_case(rescue.pool, keyring, case, evidence)).breaks == ()
    assert evidence.flaws == []
    file = await read_case(rescue.pool, directory, case)
    assert {(one.erased, one.data is None) for one in file.timeline} == {(True, True)}


async def rows(database: str, query: str, *values: Any) -> list[tuple[Any, ...]]:
    async with await psycopg.AsyncConnection.connect(database) as conn:
        return await (await conn.execute(query.encode(), values)).fetchall()


async def test_what_came_later_and_what_is_others_stays(
    pool: Pool, directory: Directory, keyring: Keyring, site: str, database: str
) -> None:
    await telemetry(pool, directory, TERMINAL, seq=1)
    await telemetry(pool, directory, COUPLE, seq=1)
    await erase_person(pool, keyring, "wang-xiulan", by="api:test")
    await telemetry(pool, directory, TERMINAL, seq=5)
    found = readable(await dumped(database))
    assert [line.partition(":")[0] for line in found].count("fix") == 2
    assert [line.partition(":")[0] for line in found].count("terminal_state") == 2
    assert await rows(database, "SELECT state, settled_by, payload FROM quarantine ORDER BY id LIMIT 1") == [
        ("dismissed", "erasure", b"")
    ]


async def test_the_next_person_at_the_same_terminal_is_not_touched(
    pool: Pool, directory: Directory, keyring: Keyring, site: str, database: str
) -> None:
    """The terminal moved on to another household; what it says there is not the first person's."""
    await telemetry(pool, directory, TERMINAL, seq=1)
    moved = load(ROOT / "examples" / "nanjing.yaml").site.model_dump(mode="json")
    homes = {home["id"]: home for home in moved["households"]}
    homes["wang-501"]["terminals"], homes["zhao-1102"]["terminals"] = [], [*homes["zhao-1102"]["terminals"], TERMINAL]
    await apply_site(
        pool, keyring, type(load(ROOT / "examples" / "nanjing.yaml").site).model_validate(moved), prune=False
    )
    await telemetry(pool, directory, TERMINAL, seq=5)
    await erase_person(pool, keyring, "wang-xiulan", by="api:test")
    assert await rows(database, "SELECT seq FROM fix") == [(5,)]
    assert await rows(database, "SELECT fix IS NOT NULL FROM terminal_state") == [(True,)]


async def test_of_a_couple_the_journal_goes_with_the_second_and_with_it_everything(
    database: str, site: str, directory: Directory, keyring: Keyring
) -> None:
    async with rescuing(database, directory, terminal=COUPLE) as rescue:
        case = await rescue.whole()
        pool = rescue.pool
        await make_checkpoints(pool, keyring)
        rescue.at(3600 * 24 * 4000)
        await erase_person(pool, keyring, "li-guoqiang", by="api:test")
        file = await read_case(pool, directory, case)
        assert [one.erased for one in file.timeline].count(True) == 0, "what is journaled is hers as well"
        assert file.household is not None
        assert [person.name for person in file.household.persons] == ["陈玉珍"]
        assert readable(await dumped(database)) == []

        await erase_person(pool, keyring, "chen-yuzhen", by="api:test")
        file = await read_case(pool, Directory(keyring), case)
        assert {one.erased for one in file.timeline} == {True}
        evidence = await examine(pool, keyring)
        assert (await prove_case(pool, keyring, case, evidence)).breaks == ()

        # The house is still there: who presses next is found, and the site file can change.
        page = await list_households(pool, Directory(keyring))
        home = next(one for one in page.items if one.line.id == "li-chen-203")
        assert home.address is not None
        assert home.address.room == "203"
        changed = load(ROOT / "examples" / "nanjing.yaml").site.model_dump(mode="json")
        for household in changed["households"]:
            if household["id"] == "li-chen-203":
                household["persons"] = []
                household["address"]["landmark"] = "新标志物"
        model = type(load(ROOT / "examples" / "nanjing.yaml").site)
        applied = await apply_site(pool, keyring, model.model_validate(changed), prune=False)
        assert [(one.action, one.id, one.fields) for one in applied.changes if one.kind == "household"] == [
            ("change", "li-chen-203", ("address",))
        ]
        raised = await press(pool, Directory(keyring), terminal=COUPLE, seq=99)
        again = await read_case(pool, Directory(keyring), raised.case_id)
        assert again.household is not None
        assert again.household.address.landmark == "新标志物"
        assert not any(one.erased for one in again.timeline)
        assert len(again.legs) == 6


async def test_a_late_answer_is_taken_away_by_asking_again(rescue: Rescue, keyring: Keyring, database: str) -> None:
    await rescue.whole()
    rescue.at(4000)
    await erase_person(rescue.pool, keyring, "wang-xiulan", by="api:test")
    await rescue.answer(5000, "community", "cannot", reason="SECRET")
    assert [line.partition(":")[0] for line in readable(await dumped(database))] == ["answer"]
    await erase_person(rescue.pool, keyring, "wang-xiulan", by="api:test")
    assert readable(await dumped(database)) == []


async def test_the_service_can_empty_no_answers_but_those_of_the_erased(
    rescue: Rescue, keyring: Keyring, database: str
) -> None:
    case: UUID = await rescue.whole()
    said = "SELECT count(*) FROM answer WHERE case_id = %s AND reason IS NOT NULL"
    async with rescue.pool.connection() as conn:
        await conn.execute("SELECT forget_answers('wang-xiulan')")
        await conn.execute(
            "CREATE TEMP TABLE data_key AS SELECT id, NULL::bytea AS wrapped, now() AS erased_at FROM public.data_key"
        )
        await conn.execute("SELECT forget_answers('wang-xiulan')")
        await conn.execute("DROP TABLE pg_temp.data_key")
    assert await rows(database, said, case) == [(1,)]
    await rescue.press(9000)
    with pytest.raises(StateConflict):
        await erase_person(rescue.pool, keyring, "wang-xiulan", by="api:test")
    assert await rows(database, said, case) == [(1,)]


async def test_a_case_after_the_erasure_keeps_what_it_says(rescue: Rescue, keyring: Keyring, database: str) -> None:
    await rescue.whole()
    rescue.at(4000)
    await erase_person(rescue.pool, keyring, "wang-xiulan", by="api:test")
    later = await rescue.press(timedelta(days=1).total_seconds())
    await erase_person(rescue.pool, keyring, "wang-xiulan", by="api:test")
    assert await rows(database, "SELECT location IS NOT NULL FROM cases WHERE id = %s", later) == [(True,)]
