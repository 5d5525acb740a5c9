"""The auditor as a process and by the API: its command, its figures, and that its silence is heard."""

import asyncio
import base64
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psycopg
import pytest
from pydantic import SecretStr

from api.app import create_app
from gateway.audit.auditor import Auditor
from gateway.config import Settings
from gateway.keyring import Keyring
from gateway.service.access import Role, create_key
from gateway.store import outbox
from gateway.store.directory import Directory
from gateway.store.pool import Pool, connect
from tests.integration.api_client import Api, press, serving

MASTER_KEY = base64.b64encode(bytes(range(32))).decode()


@pytest.fixture
async def api(database: str, pool: Pool, keyring: Keyring, site: str) -> AsyncIterator[Api]:
    keys = {role: (await create_key(pool, keyring, name=role, role=role))[1] for role in Role}
    settings = Settings(database=SecretStr(database), master_key=SecretStr(MASTER_KEY))
    async with serving(create_app(settings, pool=pool)) as url, aiohttp.ClientSession() as http:
        yield Api(url, http, keys)


@asynccontextmanager
async def auditing(
    database: str, data: Path, *arguments: str, **settings: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run ``onekey audit`` on a database, until it ends or the block does."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("ONEKEY_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway.cli", "--data", str(data), "--database", database, "audit", *arguments),
        env={**plain, "ONEKEY_MASTER_KEY": MASTER_KEY, **settings},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(60):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def asked(database: str, data: Path, *arguments: str) -> tuple[int | None, Any]:
    async with auditing(database, data, *arguments) as process:
        out, err = await process.communicate()
        assert b"Traceback" not in err, err.decode()
    return process.returncode, json.loads(out) if out else None


async def change(database: str, statement: str) -> None:
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as owner:
        await owner.execute("SET session_replication_role = replica")
        await owner.execute(statement.encode())


async def test_once_for_a_script(database: str, pool: Pool, directory: Directory, site: str, tmp_path: Path) -> None:
    assert await asked(database, tmp_path, "--once", "--json") == (
        0,
        {"cases": 0, "took_ms": pytest.approx(0, abs=5000), "findings": []},
    )
    raised = await press(pool, directory)
    await change(database, "UPDATE cases SET owner = 'seat-7'")
    code, told = await asked(database, tmp_path, "--once", "--json")
    assert code == 1
    found = {one["kind"]: one["case"] for one in told["findings"]}  # beside it, that no gateway is there
    assert found["owner_without_time"] == str(raised.case_id)
    async with pool.connection() as conn:
        rows = await (await conn.execute("SELECT problem FROM cases WHERE kinds = '{audit}'")).fetchall()
        assert len(rows) == 1, "it is a case as well"
        assert await (await conn.execute("SELECT FROM audit_run")).fetchone() is None, (
            "nobody is expected to look again"
        )


async def test_the_process_goes_on_by_itself_and_its_end_is_heard(
    api: Api, database: str, pool: Pool, directory: Directory, tmp_path: Path
) -> None:
    await press(pool, directory)
    async with auditing(database, tmp_path, ONEKEY_AUDIT_EVERY_S="1") as process:
        while not await _ages(database):
            await asyncio.sleep(0.05)
        await change(database, "UPDATE cases SET owner = 'seat-7'")
        while "owner_without_time" not in await open_kinds(api):
            await asyncio.sleep(0.05)
        while len((await api.call("GET", "/v1/cases"))[1]["items"]) < 2:
            await asyncio.sleep(0.05)
        await change(database, "UPDATE cases SET owned_at = now() WHERE owner IS NOT NULL")
        while "owner_without_time" in await open_kinds(api):
            await asyncio.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    [finding] = (await api.call("GET", "/v1/findings?open=false"))[1]["items"]
    assert finding["kind"] == "owner_without_time"
    assert finding["words"]["zh"]
    assert finding["audit_case"]
    about = (await api.call("GET", f"/v1/findings?case={finding['case_id']}"))[1]["items"]
    assert finding in about
    assert {one["case_id"] for one in about} == {finding["case_id"]}
    assert (await api.call("GET", "/v1/findings?district=999999"))[1]["items"] == []

    async with await connect(database, name="worker") as conn:
        worker = await outbox.register(conn, "a")
        await outbox.beat(conn, worker, {"alarms": True})
        assert not await silent(api)
        await change(database, "UPDATE audit_run SET at = now() - interval '75 seconds'")
        (words,) = await silent(api)
        assert re.fullmatch("the auditor has been silent for 7[5-9] s", words)
        assert await asked(database, tmp_path, "--retire") == (0, None)
        assert not await silent(api)


async def open_kinds(api: Api) -> set[str]:
    return {one["kind"] for one in (await api.call("GET", "/v1/findings?open=true"))[1]["items"]}


async def _ages(database: str) -> bool:
    async with await psycopg.AsyncConnection.connect(database) as conn:
        return await (await conn.execute("SELECT FROM audit_run")).fetchone() is not None


async def silent(api: Api) -> list[str]:
    _, told = await api.call("GET", "/health/ready", role=None)
    return [reason for reason in told["reasons"] if "auditor" in reason]


async def test_the_figures_show_what_is_amiss_and_that_somebody_looks(
    api: Api, pool: Pool, keyring: Keyring, database: str, directory: Directory
) -> None:
    async def figures() -> dict[str, float]:
        async with api.http.get(f"{api.url}/metrics", headers=api.headers()) as response:
            lines = (await response.text()).splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}

    assert "onekey_audit_age_seconds" not in await figures()
    await press(pool, directory)
    await change(database, "UPDATE cases SET owner = 'seat-7'")
    auditor = Auditor(pool, keyring, every_s=5)
    await auditor.round()
    shown = await figures()
    assert shown['onekey_findings_open{kind="owner_without_time"}'] == 1
    assert shown["onekey_audit_age_seconds"] < 30
    assert shown["onekey_audit_deaf_sites"] == 0


async def test_findings_come_page_by_page(api: Api, database: str) -> None:
    await change(
        database,
        "INSERT INTO finding (key, kind, words, detail, first_seen, last_seen) "
        "SELECT 'x' || g, 'no_legs', '{}', '{}', now(), now() FROM generate_series(1, 5) g",
    )
    seen, cursor = [], ""
    while True:
        status, page = await api.call("GET", f"/v1/findings?limit=2{cursor}")
        assert status == 200
        seen += [one["id"] for one in page["items"]]
        if page["cursor"] is None:
            break
        cursor = f"&cursor={page['cursor']}"
    assert seen == sorted(seen, reverse=True)
    assert len(seen) == 5
    assert (await api.call("GET", "/v1/findings?cursor=nonsense"))[0] == 400
