"""Every disclosure of personal data is in the journal (R22): once, and no reader waits or fails because of it."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import aiohttp
import psycopg
import pytest

from api.app import create_app
from gateway.keyring import Keyring
from gateway.proof.keeper import Keeper
from gateway.service.access import Role, create_key
from gateway.service.case_reading import read_case
from gateway.service.disclosures import disclose, settle_disclosures
from gateway.store.directory import Directory
from gateway.store.disclosures import Disclosure
from gateway.store.pool import Pool
from tests.integration.api_client import Api, press, serving
from tests.integration.rescues import rescuing
from tests.integration.test_api import settings_for


@pytest.fixture
async def api(database: str, pool: Pool, keyring: Keyring, site: str) -> AsyncIterator[Api]:
    keys = {role: (await create_key(pool, keyring, name=role, role=role))[1] for role in Role}
    async with serving(create_app(settings_for(database), pool=pool)) as url, aiohttp.ClientSession() as http:
        yield Api(url, http, keys)


async def disclosed(pool: Pool, directory: Directory, case: UUID) -> list[tuple[str, dict[str, Any]]]:
    """Who saw what, as the journal says."""
    file = await read_case(pool, directory, case)
    assert file.broken is None
    return [(one.actor, one.data or {}) for one in file.timeline if one.kind == "data.disclosed"]


def key_of(api: Api, role: Role) -> str:
    return f"api:{api.keys[role].split('_')[1]}"


async def test_each_reader_is_journaled_once_for_each_thing_that_they_saw(
    api: Api, pool: Pool, directory: Directory, keyring: Keyring
) -> None:
    case = (await press(pool, directory)).case_id
    for _ in range(3):
        await api.call("GET", f"/v1/cases/{case}", role=Role.OPERATOR)
    operator, admin = key_of(api, Role.OPERATOR), key_of(api, Role.ADMIN)
    whole = {"what": "case", "privacy": "full", "health": True}
    assert await disclosed(pool, directory, case) == [(operator, whole)]
    await api.call("GET", f"/v1/cases/{case}")
    for path in ("report", "report.pdf", "report"):
        async with api.http.get(f"{api.url}/v1/cases/{case}/{path}", headers=api.headers()) as response:
            assert response.status == 200
    assert await disclosed(pool, directory, case) == [
        (operator, whole),
        (admin, whole),
        (admin, {"what": "report", "privacy": "care", "health": False}),
    ]
    legs = {leg["role"]: leg["id"] for leg in (await api.call("GET", f"/v1/cases/{case}"))[1]["legs"]}
    for role in ("guardian", "ambulance_120", "guardian"):
        response, _ = await api.page("GET", f"/r/{keyring.link_token(UUID(legs[role]))}")
        assert response.status == 200
    assert (await disclosed(pool, directory, case))[3:] == [
        ("party:guardian-wang", {"what": "answer_page", "privacy": "family", "health": False}),
        ("party:ambulance-120", {"what": "answer_page", "privacy": "full", "health": True}),
    ]
    for path in ("", f"/{case}/proof"):  # these show nobody's data
        await api.call("GET", f"/v1/cases{path}", role=Role.INTEGRATOR)
    assert len(await disclosed(pool, directory, case)) == 5


async def test_a_link_that_is_over_discloses_nothing(
    api: Api, database: str, pool: Pool, directory: Directory, keyring: Keyring
) -> None:
    async with rescuing(database, directory) as rescue:
        case = await rescue.whole()
        leg = await rescue.leg("guardian")
    await api.page("GET", f"/r/{keyring.link_token(leg)}")
    assert await disclosed(pool, directory, case) == []


async def test_a_message_says_in_the_journal_what_went_along(database: str, site: str, directory: Directory) -> None:
    async with rescuing(database, directory) as rescue:
        case = await rescue.whole()
        file = await read_case(rescue.pool, directory, case)
    sent = [one.data for one in file.timeline if one.kind in ("leg.delivered", "leg.attempt_failed") and one.data]
    assert {(data["role"], data["privacy"], data["health"]) for data in sent} == {
        ("guardian", "family", False),
        ("hotline", "full", True),
        ("service_center", "care", False),
        ("community", "care", False),
        ("district", "care", False),
        ("ambulance_120", "full", True),
    }


async def test_readers_at_once_make_one_entry(
    pool: Pool, directory: Directory, site: str, caplog: pytest.LogCaptureFixture
) -> None:
    case = (await press(pool, directory)).case_id
    one = Disclosure(case_id=case, who="api:desk", what="case", level="full", health=True)
    await asyncio.gather(*(disclose(pool, directory, one) for _ in range(20)))
    await settle_disclosures(pool, directory)
    assert len(await disclosed(pool, directory, case)) == 1
    assert caplog.text == ""


@pytest.mark.parametrize("mode", ["FOR UPDATE", "FOR NO KEY UPDATE"])
async def test_a_reader_does_not_wait_while_somebody_holds_the_case(
    api: Api, pool: Pool, directory: Directory, database: str, keyring: Keyring, mode: str
) -> None:
    case = (await press(pool, directory)).case_id
    async with await psycopg.AsyncConnection.connect(database) as holder:
        await holder.execute(f"SELECT FROM cases WHERE id = %s {mode}".encode(), (case,))
        began = time.monotonic()
        status, body = await api.call("GET", f"/v1/cases/{case}")
        took = time.monotonic() - began
        assert (status, body["persons"][0]["name"]) == (200, "王秀兰")
        assert took < 1
        await api.call("GET", f"/v1/cases/{case}")
        assert await settle_disclosures(pool, directory) == 0
        assert await disclosed(pool, directory, case) == []
        await holder.rollback()
    assert await settle_disclosures(pool, directory) == 1
    assert await settle_disclosures(pool, directory) == 0
    ((who, data),) = await disclosed(pool, directory, case)
    assert who == key_of(api, Role.ADMIN)
    assert data["seen_at"] < (await read_case(pool, directory, case)).timeline[-1].at.isoformat()


async def test_the_keeper_journals_what_waits(
    pool: Pool, directory: Directory, site: str, database: str, tmp_path: Any
) -> None:
    case = (await press(pool, directory)).case_id
    async with await psycopg.AsyncConnection.connect(database) as holder:
        await holder.execute("SELECT FROM cases WHERE id = %s FOR UPDATE", (case,))
        await disclose(pool, directory, Disclosure(case_id=case, who="cli", what="case", level="full"))
    keeper = Keeper(pool, directory, file=tmp_path / "journal.jsonl", every_s=0.05)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(keeper.run())
        async with asyncio.timeout(20):
            while not await disclosed(pool, directory, case):
                await asyncio.sleep(0.02)
        task.cancel()


async def test_a_reader_does_not_fail_when_nothing_can_be_recorded(
    api: Api, pool: Pool, directory: Directory, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    case = (await press(pool, directory)).case_id
    async with await psycopg.AsyncConnection.connect(database) as holder:
        await holder.execute("LOCK TABLE disclosure, disclosure_due IN ACCESS EXCLUSIVE MODE")
        began = time.monotonic()
        status, _ = await api.call("GET", f"/v1/cases/{case}")
        assert status == 200
        assert time.monotonic() - began < 5  # it would wait for the lock for ever
    assert "a disclosure is not on record" in caplog.text
    assert "王秀兰" not in caplog.text
