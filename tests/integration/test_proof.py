"""Whoever can write the whole database cannot change what happened unseen (D15): every tampering, done as its owner."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import psycopg
import pytest

from api.app import create_app
from gateway.domain.case import NotFound
from gateway.domain.journal import GENESIS, chain
from gateway.keyring import Keyring
from gateway.proof.keeper import Keeper
from gateway.service.access import Role, create_key
from gateway.service.apply_site import apply_site
from gateway.service.checkpoints import export_checkpoints, list_checkpoints, make_checkpoints
from gateway.service.persons import erase_person
from gateway.service.proof import CaseProof, Evidence, examine, prove_case, read_proof
from gateway.site.load import load
from gateway.store import checkpoint_file, checkpoints
from gateway.store.directory import Directory
from gateway.store.migrate import available, migrate
from gateway.store.pool import Pool, connect, open_pool
from tests.conftest import ROOT
from tests.integration.api_client import Api, press, serving
from tests.integration.rescues import Rescue, rescuing
from tests.integration.test_api import settings_for

Owner = psycopg.Connection[Any]


@pytest.fixture
async def rescue(database: str, site: str, directory: Directory) -> AsyncIterator[Rescue]:
    async with rescuing(database, directory) as one:
        yield one


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


@contextmanager
def owning(database: str) -> Iterator[Owner]:
    """Whoever stole the password of the database: the owner, without the master key."""
    with psycopg.connect(database, autocommit=True) as conn:
        yield conn


async def judged(pool: Pool, keyring: Keyring, case: UUID, file: Path | None = None) -> tuple[CaseProof, Evidence]:
    evidence = await examine(pool, keyring, file=file)
    return await prove_case(pool, keyring, case, evidence), evidence


async def broken(pool: Pool, keyring: Keyring, case: UUID, file: Path | None = None) -> list[str]:
    """What is wrong with the journal, found only because of what is outside the case's own row."""
    proof, evidence = await judged(pool, keyring, case, file)
    assert evidence.flaws == []
    return [found.what for found in proof.breaks]


def rewrite(conn: Owner, case: UUID, first: int) -> None:
    """Compute every hash anew from entry `first` on, as one would who knows how it is done, and set the head."""
    rows = conn.execute(
        "SELECT n, at, kind, actor, sealed, hash FROM journal WHERE case_id = %s ORDER BY n", (case,)
    ).fetchall()
    prev = GENESIS
    for n, at, kind, actor, sealed, old in rows:
        digest = old
        if n >= first:
            digest = chain(case_id=case, n=n, at=at, kind=kind, actor=actor, sealed=bytes(sealed), prev=prev)
            conn.execute(
                "UPDATE journal SET prev = %s, hash = %s WHERE case_id = %s AND n = %s", (prev, digest, case, n)
            )
        prev = bytes(digest)
    conn.execute("UPDATE cases SET journal_head = %s, journal_n = %s WHERE id = %s", (prev, len(rows), case))


async def test_a_rescue_is_proved_from_end_to_end(rescue: Rescue, keyring: Keyring, file: Path) -> None:
    case = await rescue.whole()
    proof, evidence = await judged(rescue.pool, keyring, case)
    assert (proof.breaks, proof.cover, evidence.checked) == ((), None, 0)
    assert proof.entries > 40
    assert await export_checkpoints(rescue.pool, keyring, file) == 1
    proof, evidence = await judged(rescue.pool, keyring, case, file)
    assert (proof.breaks, evidence.flaws, evidence.notes, evidence.checked) == ((), [], [], 1)
    assert proof.cover is not None
    assert (proof.cover.number, proof.cover.entries) == (1, proof.entries)
    with pytest.raises(NotFound):
        await prove_case(rescue.pool, keyring, uuid4(), evidence)


async def test_an_altered_entry_shows(rescue: Rescue, keyring: Keyring, database: str) -> None:
    case = await rescue.whole()
    await make_checkpoints(rescue.pool, keyring)
    with owning(database) as conn:
        conn.execute("UPDATE journal SET at = at - interval '10 seconds' WHERE case_id = %s AND n = 9", (case,))
    assert await broken(rescue.pool, keyring, case) == ["entry 9 was altered"]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE journal SET kind = kind || '2' WHERE case_id = %s AND n = 9",
        "UPDATE journal SET actor = 'operator:seat-8' WHERE case_id = %s AND n = 9",
        "UPDATE journal SET sealed = set_byte(sealed, 20, 255 - get_byte(sealed, 20)) WHERE case_id = %s AND n = 9",
        "UPDATE journal SET hash = set_byte(hash, 0, 255 - get_byte(hash, 0)) WHERE case_id = %s AND n = 9",
    ],
)
async def test_every_field_counts(rescue: Rescue, keyring: Keyring, database: str, change: str) -> None:
    case = await rescue.whole()
    with owning(database) as conn:
        conn.execute(change.encode(), (case,))
    found = await broken(rescue.pool, keyring, case)
    assert found[0] == "entry 9 was altered"


async def test_a_removed_entry_shows(rescue: Rescue, keyring: Keyring, database: str) -> None:
    case = await rescue.whole()
    await make_checkpoints(rescue.pool, keyring)
    with owning(database) as conn:
        conn.execute("DELETE FROM journal WHERE case_id = %s AND n = 9", (case,))
    found = await broken(rescue.pool, keyring, case)
    assert found[0] == "entry 9 is missing, 10 stands in its place"
    with owning(database) as conn:
        conn.execute("UPDATE journal SET n = n + 10000 WHERE case_id = %s AND n > 9", (case,))
        conn.execute("UPDATE journal SET n = n - 10001 WHERE case_id = %s AND n > 9", (case,))
    found = await broken(rescue.pool, keyring, case)
    assert found[0] == "entry 9 is missing: what was written as entry 10 stands in place 9"


async def test_two_entries_in_the_wrong_order_show(rescue: Rescue, keyring: Keyring, database: str) -> None:
    case = await rescue.whole()
    with owning(database) as conn, conn.transaction():
        for old, new in ((9, -9), (12, 9), (-9, 12)):
            conn.execute("ALTER TABLE journal DROP CONSTRAINT IF EXISTS journal_n_check")
            conn.execute("UPDATE journal SET n = %s WHERE case_id = %s AND n = %s", (new, case, old))
    assert (await broken(rescue.pool, keyring, case))[0] == (
        "what was written as entry 12 stands in place 9, and entry 9 was moved to place 12: the order was changed"
    )


async def test_a_history_written_anew_with_every_hash_shows_by_a_checkpoint_and_only_by_that(
    rescue: Rescue, keyring: Keyring, database: str
) -> None:
    await rescue.press()
    await rescue.deliver(0.06)
    await make_checkpoints(rescue.pool, keyring)
    await rescue.own(6.2)
    await make_checkpoints(rescue.pool, keyring)
    case = rescue.case
    with owning(database) as conn:
        row = conn.execute("SELECT max(n) FROM journal WHERE case_id = %s", (case,)).fetchone()
        assert row is not None
        last = row[0]
        conn.execute("UPDATE journal SET at = at - interval '2 minutes' WHERE case_id = %s AND n = %s", (case, last))
        rewrite(conn, case, last)
    found = await broken(rescue.pool, keyring, case)
    assert len(found) == 1
    assert found[0].endswith(f"that was written: checkpoint 2 knows another entry {last}")
    with owning(database) as conn:  # without checkpoints nobody could tell
        conn.execute("DELETE FROM checkpoint")
    proof, _ = await judged(rescue.pool, keyring, case)
    assert proof.breaks == ()


async def test_a_tail_that_was_cut_off_with_the_head_set_back_shows(
    rescue: Rescue, keyring: Keyring, database: str, file: Path
) -> None:
    case = await rescue.whole()
    await export_checkpoints(rescue.pool, keyring, file)
    before, _ = await judged(rescue.pool, keyring, case)
    with owning(database) as conn:
        conn.execute("DELETE FROM journal WHERE case_id = %s AND n > %s", (case, before.entries - 3))
        rewrite(conn, case, before.entries)
    first, last = before.entries - 2, before.entries
    told = f"entries {first} to {last} are missing: checkpoint 1 knows {last} entries, {first - 1} are there"
    assert await broken(rescue.pool, keyring, case) == [told]
    with owning(database) as conn:  # with the checkpoints gone as well, the file still knows
        conn.execute("DELETE FROM checkpoint")
    proof, evidence = await judged(rescue.pool, keyring, case, file)
    assert [found.what for found in proof.breaks] == [told]
    assert evidence.flaws == [f"database: checkpoint 1 is missing, {file} has it"]


async def test_an_entry_added_later_shows(rescue: Rescue, keyring: Keyring, database: str) -> None:
    case = await rescue.whole()
    before, _ = await judged(rescue.pool, keyring, case)
    with owning(database) as conn:
        conn.execute(
            "INSERT INTO journal SELECT case_id, n + 1, at, kind, actor, sealed, key_id, hash, hash FROM journal "
            "WHERE case_id = %s AND n = %s",
            (case, before.entries),
        )
    assert await broken(rescue.pool, keyring, case) != []


async def test_a_whole_case_that_was_removed_shows(
    rescue: Rescue, keyring: Keyring, database: str, directory: Directory
) -> None:
    case = await rescue.whole()
    other = (await press(rescue.pool, directory, terminal="860000000000004")).case_id
    await make_checkpoints(rescue.pool, keyring)
    with owning(database) as conn:
        conn.execute("SET session_replication_role = replica")
        conn.execute("DELETE FROM journal WHERE case_id = %s", (case,))
        conn.execute("DELETE FROM cases WHERE id = %s", (case,))
    found = await broken(rescue.pool, keyring, case)
    assert len(found) == 1
    assert found[0].startswith("the whole case is missing: checkpoint 1 knows ")
    assert await broken(rescue.pool, keyring, other) == []


async def test_an_entry_made_unreadable_by_naming_another_key_shows(
    rescue: Rescue, keyring: Keyring, database: str
) -> None:
    case = await rescue.whole()
    with owning(database) as conn:
        conn.execute(
            "UPDATE journal SET key_id = (SELECT id FROM data_key WHERE subject = 'person:zhao-dehua') "
            "WHERE case_id = %s AND n = 9",
            (case,),
        )
    assert await broken(rescue.pool, keyring, case) == [
        "entry 9 names a key that is neither that of its case nor that of the site"
    ]
    with owning(database) as conn:
        conn.execute("UPDATE journal SET key_id = (SELECT key_id FROM site) WHERE case_id = %s AND n = 9", (case,))
    assert await broken(rescue.pool, keyring, case) == ["entry 9 cannot be opened with the key that it names"]


async def test_an_erased_person_leaves_the_proof_whole(
    rescue: Rescue, keyring: Keyring, file: Path, directory: Directory
) -> None:
    case = await rescue.whole()
    await export_checkpoints(rescue.pool, keyring, file)
    await erase_person(rescue.pool, keyring, "wang-xiulan", by="api:test")
    await export_checkpoints(rescue.pool, keyring, file)
    proof, evidence = await judged(rescue.pool, keyring, case, file)
    assert (proof.breaks, evidence.flaws) == ((), [])
    assert proof.erased == proof.entries > 0
    await rescue.answer(4000, "guardian", "arrived")  # too late, and journaled under the key of the site
    await export_checkpoints(rescue.pool, keyring, file)
    proof, evidence = await judged(rescue.pool, keyring, case, file)
    assert (proof.breaks, evidence.flaws, evidence.checked) == ((), [], 2)
    assert proof.entries == proof.erased + 1


# The checkpoints themselves


async def several(rescue: Rescue, keyring: Keyring, file: Path) -> None:
    """Five checkpoints, in the database and in the file."""
    await rescue.press()
    await export_checkpoints(rescue.pool, keyring, file)
    for number in range(2, 6):
        await rescue.answer(number, "guardian", "coming", minutes=number)
        assert await export_checkpoints(rescue.pool, keyring, file) == number


async def flaws(rescue: Rescue, keyring: Keyring, file: Path) -> list[str]:
    return (await examine(rescue.pool, keyring, file=file)).flaws


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            "DELETE FROM checkpoint WHERE number = 3",
            ["database: checkpoint 3 is missing", "database: checkpoint 3 is missing, FILE has it"],
        ),
        ("DELETE FROM checkpoint WHERE number = 5", ["database: checkpoint 5 is missing, FILE has it"]),
        (
            "UPDATE checkpoint SET line = replace(line, '\"number\":3', '\"number\":4') WHERE number = 3",
            [
                "database: checkpoint 4 was altered or is not ours: its signature is wrong",
                "database: checkpoint 3 is missing, FILE has it",
            ],
        ),
        (
            "UPDATE checkpoint SET line = overlay(line placing 'AAAA' from length(line) - 20) WHERE number = 5",
            [
                "database: checkpoint 5 was altered or is not ours: its signature is wrong",
                "database: checkpoint 5 is missing, FILE has it",
            ],
        ),
        (
            "UPDATE checkpoint c SET line = o.line FROM checkpoint o WHERE (c.number, o.number) IN ((2, 4), (4, 2))",
            [
                "database: checkpoints 2 to 3 are missing",
                "database: checkpoint 3 stands behind checkpoint 4: the order was changed",
                "database: checkpoint 2 stands behind checkpoint 4: the order was changed",
            ],
        ),
    ],
)
async def test_what_is_done_to_checkpoints_in_the_database_shows(
    rescue: Rescue, keyring: Keyring, file: Path, database: str, change: str, expected: list[str]
) -> None:
    await several(rescue, keyring, file)
    assert await flaws(rescue, keyring, file) == []
    with owning(database) as conn:
        conn.execute(change.encode())
    assert await flaws(rescue, keyring, file) == [text.replace("FILE", str(file)) for text in expected]


async def test_what_is_done_to_the_file_shows(rescue: Rescue, keyring: Keyring, file: Path) -> None:
    await several(rescue, keyring, file)
    lines = file.read_bytes().splitlines(keepends=True)

    async def with_lines(changed: list[bytes]) -> list[str]:
        file.write_bytes(b"".join(changed))
        return [flaw.removeprefix(f"{file}: ") for flaw in await flaws(rescue, keyring, file)]

    assert await with_lines(lines) == []
    assert await with_lines([*lines[:2], *lines[3:]]) == ["checkpoint 3 is missing"]
    assert await with_lines(lines[1:]) == ["checkpoint 1 is missing"]
    assert await with_lines([*lines[:2], lines[2].replace(b"6", b"7", 1), *lines[3:]]) != []
    assert await with_lines([lines[1], lines[0], *lines[2:]]) != []
    # An end that is not there yet is written again within a minute; until then it is only said.
    assert await with_lines(lines[:4]) == []
    assert (await examine(rescue.pool, keyring, file=file)).notes == [f"{file} ends 1 checkpoint before the database"]
    await export_checkpoints(rescue.pool, keyring, file)
    assert file.read_bytes() == b"".join(lines)


async def test_a_forged_checkpoint_vouches_for_nothing(
    rescue: Rescue, keyring: Keyring, file: Path, database: str
) -> None:
    """Everything written anew, checkpoints as well, but with a key of one's own."""
    await several(rescue, keyring, file)
    thief = Keyring(bytes(range(5, 37)))
    thief.public.name = keyring.public.name  # the name of a key is no secret
    with owning(database) as conn:
        conn.execute("UPDATE journal SET at = at - interval '2 minutes' WHERE case_id = %s AND n = 1", (rescue.case,))
        rewrite(conn, rescue.case, 1)
        conn.execute("DELETE FROM checkpoint")
        conn.execute("INSERT INTO chain_growth VALUES (%s)", (rescue.case,))
    await make_checkpoints(rescue.pool, thief)
    proof, evidence = await judged(rescue.pool, keyring, rescue.case, file)
    assert "database: checkpoint 1 was altered or is not ours: its signature is wrong" in evidence.flaws
    assert [found.n for found in proof.breaks] == [1]


async def test_copies_held_elsewhere_show_what_all_others_hide(
    rescue: Rescue, keyring: Keyring, file: Path, database: str, tmp_path: Path
) -> None:
    """Whoever took the machine, master key and all, can sign: what is elsewhere still tells another story."""
    await several(rescue, keyring, file)
    copy = tmp_path / "copy.jsonl"
    rows = await list_checkpoints(rescue.pool, after=2, limit=100)
    copy.write_text("".join(f"{row.line}\n" for row in rows), encoding="ascii")
    with owning(database) as conn:
        conn.execute("UPDATE journal SET at = at - interval '2 minutes' WHERE case_id = %s AND n = 1", (rescue.case,))
        rewrite(conn, rescue.case, 1)
        conn.execute("DELETE FROM checkpoint")
        conn.execute("INSERT INTO chain_growth VALUES (%s)", (rescue.case,))
    file.unlink()
    await export_checkpoints(rescue.pool, keyring, file)
    proof, evidence = await judged(rescue.pool, keyring, rescue.case, file)
    assert (proof.breaks, evidence.flaws) == ((), [])
    evidence = await examine(rescue.pool, keyring, file=copy, own=False)
    proof = await prove_case(rescue.pool, keyring, rescue.case, evidence)
    assert [found.n for found in proof.breaks] == [1]
    assert evidence.flaws == [f"database: 3 checkpoints from 3 to 5 are missing, {copy} has them"]


# Making them


async def test_only_what_grew_is_named_and_nothing_is_written_when_nothing_did(
    rescue: Rescue, keyring: Keyring, directory: Directory
) -> None:
    await rescue.press()
    other = (await press(rescue.pool, directory, terminal="860000000000004")).case_id
    assert await make_checkpoints(rescue.pool, keyring) == 1
    assert await make_checkpoints(rescue.pool, keyring) == 0
    await rescue.own(6.2)
    assert await make_checkpoints(rescue.pool, keyring) == 1
    named = [
        {head[0] for head in json.loads(row.line)["heads"]}
        for row in await list_checkpoints(rescue.pool, after=0, limit=10)
    ]
    assert named == [{str(rescue.case), str(other)}, {str(rescue.case)}]


async def test_replicas_that_work_at_once_make_one_sequence(
    pool: Pool, keyring: Keyring, directory: Directory, site: str, tmp_path: Path
) -> None:
    files = [tmp_path / "one.jsonl", tmp_path / "one.jsonl", tmp_path / "two.jsonl"]
    over = asyncio.Event()

    async def keep(file: Path) -> None:
        while not over.is_set():
            await export_checkpoints(pool, keyring, file)
            await asyncio.sleep(0)

    async def work() -> None:
        for seq in range(1, 26):
            await press(pool, directory, seq=seq)
        over.set()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(work())
        for file in files:
            tasks.create_task(keep(file))
    for file in files:
        await export_checkpoints(pool, keyring, file)
        evidence = await examine(pool, keyring, file=file)
        assert (evidence.flaws, evidence.notes) == ([], [])
        assert evidence.checked > 3


async def test_one_replica_at_a_time_makes_a_checkpoint(rescue: Rescue, keyring: Keyring, database: str) -> None:
    await rescue.press()
    async with await connect(database, name="other") as other, asyncio.TaskGroup() as tasks:
        async with other.transaction():
            await checkpoints.lock(other)
            making = tasks.create_task(make_checkpoints(rescue.pool, keyring))
            await asyncio.wait({making}, timeout=0.5)
            assert not making.done()
        assert await making == 1


async def test_many_cases_are_spread_over_several_checkpoints(
    pool: Pool, keyring: Keyring, directory: Directory, site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.service.checkpoints.LARGEST", 3)
    opened = [(await press(pool, directory, terminal=f"unknown-{n}")).case_id for n in range(8)]
    assert await make_checkpoints(pool, keyring) == 3
    evidence = await examine(pool, keyring)
    assert (set(evidence.heads.cases()), evidence.flaws) == (set(opened), [])


async def test_the_keeper_goes_on_when_the_disk_is_in_the_way(
    rescue: Rescue, keyring: Keyring, tmp_path: Path, directory: Directory, database: str
) -> None:
    await rescue.press()
    blocked = tmp_path / "blocked"
    blocked.write_text("", encoding="ascii")
    keeper = Keeper(rescue.pool, directory, file=blocked / "journal.jsonl", every_s=0.05)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(keeper.run())
        async with asyncio.timeout(20):
            while (await examine(rescue.pool, keyring)).checked == 0:  # the database has it all the same
                await asyncio.sleep(0.02)
            blocked.unlink()
            while not (blocked / "journal.jsonl").exists():
                await asyncio.sleep(0.02)
        task.cancel()
    assert await flaws(rescue, keyring, blocked / "journal.jsonl") == []


async def test_a_database_restored_from_a_backup_goes_on_where_it_stood_and_shows_what_it_lost(
    rescue: Rescue, keyring: Keyring, file: Path, database: str
) -> None:
    await several(rescue, keyring, file)
    lost = rescue.case
    with owning(database) as conn:  # as it was before the fourth checkpoint
        conn.execute("DELETE FROM checkpoint WHERE number > 3")
        row = conn.execute("SELECT max(n) FROM journal WHERE case_id = %s", (lost,)).fetchone()
        assert row is not None
        conn.execute("DELETE FROM journal WHERE case_id = %s AND n > %s", (lost, row[0] - 2))
        rewrite(conn, lost, row[0])
    await rescue.answer(10, "hotline", "accepted")
    assert await export_checkpoints(rescue.pool, keyring, file) == 6
    proof, evidence = await judged(rescue.pool, keyring, lost, file)
    assert (evidence.flaws, evidence.checked) == ([], 6)
    assert len(proof.breaks) == 1


async def test_what_was_journaled_before_there_were_checkpoints_is_covered_by_the_first(
    server: str, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(server.replace("/onekey?", "/postgres?"), autocommit=True) as admin:
        admin.execute("CREATE DATABASE before_0004")
    url = server.replace("/onekey?", "/before_0004?")
    earlier = [one for one in available() if one.number != 4]  # the service knows what came after it
    monkeypatch.setattr("gateway.store.migrate.available", lambda: earlier)
    await asyncio.to_thread(migrate, url)
    directory = Directory(keyring)
    async with open_pool(url, name="test", size=1) as pool:
        await apply_site(pool, keyring, load(ROOT / "examples" / "nanjing.yaml").site, prune=False)
        case = (await press(pool, directory)).case_id
        monkeypatch.undo()
        applied = await asyncio.to_thread(migrate, url)
        assert applied[0].name == "0004_proof.sql"
        assert await make_checkpoints(pool, keyring) == 1
        proof, evidence = await judged(pool, keyring, case)
        assert (proof.breaks, evidence.flaws) == ((), [])
        assert proof.cover is not None
        assert proof.cover.entries == proof.entries == 2
    with psycopg.connect(server.replace("/onekey?", "/postgres?"), autocommit=True) as admin:
        admin.execute("DROP DATABASE before_0004 WITH (FORCE)")


async def test_the_service_itself_may_change_none_of_the_proof(rescue: Rescue, keyring: Keyring, site: str) -> None:
    await rescue.whole()
    await make_checkpoints(rescue.pool, keyring)
    for table in ("journal", "checkpoint", "disclosure", "attempt", "answer"):
        for statement in (f"UPDATE {table} SET at = now()", f"DELETE FROM {table}", f"TRUNCATE {table}"):
            async with rescue.pool.connection() as conn:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    await conn.execute(statement.replace("attempt SET at", "attempt SET started_at").encode())


# From outside


@pytest.fixture
async def api(database: str, pool: Pool, keyring: Keyring, site: str) -> AsyncIterator[Api]:
    keys = {role: (await create_key(pool, keyring, name=role, role=role))[1] for role in Role}
    async with serving(create_app(settings_for(database), pool=pool)) as url, aiohttp.ClientSession() as http:
        yield Api(url, http, keys)


async def test_a_platform_holds_copies_and_asks_for_proof(
    api: Api, rescue: Rescue, keyring: Keyring, file: Path, database: str
) -> None:
    await several(rescue, keyring, file)
    _, key = await api.call("GET", "/v1/journal/key", role=Role.INTEGRATOR)
    assert key["name"] == keyring.public.name
    lines, after = [], "0"
    while after is not None:
        status, page = await api.call("GET", f"/v1/journal/checkpoints?limit=2&after={after}", role=Role.INTEGRATOR)
        assert status == 200
        lines += [one["line"] for one in page["items"]]
        after = page["cursor"]
    assert "".join(f"{line}\n" for line in lines) == file.read_text(encoding="ascii")
    assert (await api.call("GET", "/v1/journal/checkpoints", role=Role.OPERATOR))[0] == 403

    path = f"/v1/cases/{rescue.case}/proof"
    status, proof = await api.call("GET", path, role=Role.OPERATOR)
    assert (status, proof["intact"], proof["checkpoint_flaws"]) == (200, True, [])
    assert proof["checkpoint"]["line"] == lines[-1]
    assert proof["checkpoint"]["entries"] == proof["entries"]
    with owning(database) as conn:
        conn.execute("UPDATE journal SET at = at - interval '1 minute' WHERE case_id = %s AND n = 2", (rescue.case,))
        rewrite(conn, rescue.case, 2)
        conn.execute("DELETE FROM checkpoint WHERE number = 2")
    _, proof = await api.call("GET", path, role=Role.OPERATOR)
    assert not proof["intact"]
    assert proof["breaks"][0]["entry"] == 1
    assert proof["checkpoint_flaws"] == ["database: 1 checkpoints are missing"]
    assert (await api.call("GET", f"/v1/cases/{uuid4()}/proof"))[0] == 404
    status, _ = await api.call("GET", f"/v1/cases/{rescue.case}")
    assert status == 200, "a case whose journal was tampered with can still be read"


async def test_the_quick_proof_and_the_whole_one_agree(rescue: Rescue, keyring: Keyring, file: Path) -> None:
    await several(rescue, keyring, file)
    whole, _ = await judged(rescue.pool, keyring, rescue.case, file)
    quick, evidence = await read_proof(rescue.pool, keyring, rescue.case)
    assert (quick, evidence.flaws) == (whole, [])


def onekey(database: str, tmp_path: Path, *arguments: str) -> tuple[int, str, str]:
    """Run a command in a process of its own, with the master key of the tests."""
    key = tmp_path / "data" / "keys" / "master.key"
    if not key.exists():
        key.parent.mkdir(parents=True)
        key.write_text("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n", encoding="ascii")
        key.chmod(0o600)
    command = [sys.executable, "-m", "gateway.cli", "--data", str(tmp_path / "data"), "--database", database]
    done = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, check=False, env={"COLUMNS": "200", "PATH": ""}
    )
    return done.returncode, done.stdout, done.stderr


async def test_the_commands_say_what_is_wrong_and_end_with_1(
    rescue: Rescue, database: str, tmp_path: Path, directory: Directory
) -> None:
    case = await rescue.whole()
    other = (await press(rescue.pool, directory, terminal="860000000000004")).case_id

    async def run(*arguments: str) -> tuple[int, str, str]:
        return await asyncio.to_thread(onekey, database, tmp_path, *arguments)

    code, said, _ = await run("journal", "key")
    assert (code, said.splitlines()[0]) == (0, "-----BEGIN PUBLIC KEY-----")
    code, said, errors = await run("journal", "checkpoint")
    assert code == 0, errors
    file = tmp_path / "data" / "checkpoints" / "journal.jsonl"
    assert len(list(checkpoint_file.read(file))) == 1
    copy = tmp_path / "copy.jsonl"
    assert (await run("journal", "checkpoint", "--out", str(copy)))[0] == 0
    assert copy.read_bytes() == file.read_bytes()

    code, said, errors = await run("case", "verify", str(case))
    assert (code, errors) == (0, ""), said
    assert said.startswith(f"intact  case {case}: ")
    code, said, _ = await run("case", "verify", "--all", "--json")
    told = json.loads(said)
    assert (code, told["intact"], told["verified"], told["cases"]) == (0, True, 2, [])
    assert told["checkpoints"]["notes"] == []
    await rescue.answer(5000, "community", "arrived")
    told = json.loads((await run("case", "verify", "--all", "--json"))[1])
    assert told["checkpoints"]["notes"] == ["1 cases have entries that no checkpoint covers yet"]
    code, said, errors = await run("case", "list", "--json")
    assert {line["id"] for line in json.loads(said)} == {str(case), str(other)}
    code, said, errors = await run("case", "show", str(case))
    assert code == 0, errors
    assert "alarm.received" in said
    assert "王秀兰" in said
    assert (await run("case", "verify"))[0] == (await run("case", "verify", str(case), "--all"))[0] == 2
    assert (await run("case", "verify", str(uuid4())))[0] == 2
    assert (await run("case", "verify", str(case), "--checkpoints", str(tmp_path / "none")))[0] == 2

    with owning(database) as conn:
        conn.execute("UPDATE journal SET actor = 'operator:seat-8' WHERE case_id = %s AND n = 9", (case,))
        rewrite(conn, case, 9)
        conn.execute("DELETE FROM checkpoint")
    code, said, _ = await run("case", "verify", str(case))
    assert code == 1
    assert f"BROKEN  case {case}" in said
    assert "that was written: checkpoint 1 knows another entry" in said
    assert "checkpoint 1 is missing" in said
    code, said, _ = await run("case", "verify", "--all", "--checkpoints", str(copy), "--json")
    told = json.loads(said)
    assert (code, told["verified"]) == (1, 2)
    assert [one["case"] for one in told["cases"]] == [str(case)]
    code, said, _ = await run("journal", "verify")
    assert code == 1
    assert "checkpoint 1 is missing" in said
