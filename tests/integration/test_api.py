"""The API against a real database: who may do what, cases from press to closure, the stream, signed links, erasure."""

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, get_args
from uuid import UUID, uuid4

import aiohttp
import psycopg
import pytest
from psycopg_pool import AsyncConnectionPool
from pydantic import SecretStr

from api.app import create_app
from api.export import FILE, render
from api.hub import Hub
from gateway.config import Settings
from gateway.domain.journal import verify
from gateway.domain.outbox import PartyAnswer
from gateway.keyring import Keyring
from gateway.procedures.runner import Runner
from gateway.service.access import RIGHTS, Right, Role, create_key, revoke_key
from gateway.service.apply_site import apply_site
from gateway.service.case_commands import Outcome, answer_leg, close_case
from gateway.service.case_reading import read_link
from gateway.service.quarantine import Misread, keep
from gateway.service.run_procedures import store_shipped
from gateway.service.telemetry import Told, store_reports
from gateway.site.load import load
from gateway.store import events, journal, outbox
from gateway.store.directory import Directory
from gateway.store.pool import Pool, connect, open_pool
from schemas.case import OutcomeName
from schemas.reports import Fix, FixReport
from tests.conftest import ROOT
from tests.integration.api_client import Api, press, read_events, serving

TERMINAL = "860000000000001"


def settings_for(database: str) -> Settings:
    return Settings(database=SecretStr(database), master_key=SecretStr(base64.b64encode(bytes(range(32))).decode()))


@pytest.fixture
async def api(database: str, pool: Pool, keyring: Keyring, site: str) -> AsyncIterator[Api]:
    keys = {role: (await create_key(pool, keyring, name=role, role=role))[1] for role in Role}
    async with serving(create_app(settings_for(database), pool=pool)) as url, aiohttp.ClientSession() as http:
        yield Api(url, http, keys)


async def one_case(api: Api, case: UUID) -> Any:
    status, body = await api.call("GET", f"/v1/cases/{case}")
    assert status == 200, body
    return body


async def leg_of(api: Api, case: UUID, role: str) -> Any:
    return next(leg for leg in (await one_case(api, case))["legs"] if leg["role"] == role)


# Who may do what

DOORS = {
    Right.READ_CASES: [
        ("GET", "/v1/cases"),
        ("GET", f"/v1/cases/{uuid4()}"),
        ("GET", "/v1/tasks"),
        ("GET", f"/v1/tasks/{uuid4()}"),
        ("GET", "/v1/drills"),
        ("GET", f"/v1/drills/{uuid4()}"),
        ("GET", "/v1/findings"),
        ("GET", f"/v1/cases/{uuid4()}/proof"),
        ("GET", f"/v1/cases/{uuid4()}/report"),
        ("GET", f"/v1/cases/{uuid4()}/report.pdf"),
    ],
    Right.HANDLE_CASES: [
        ("POST", f"/v1/cases/{uuid4()}/acknowledgement"),
        ("POST", f"/v1/cases/{uuid4()}/safety"),
        ("POST", f"/v1/cases/{uuid4()}/closure"),
        ("POST", f"/v1/cases/{uuid4()}/facts"),
        ("POST", f"/v1/cases/{uuid4()}/handover"),
        ("POST", f"/v1/cases/{uuid4()}/seat-b"),
        ("POST", f"/v1/cases/{uuid4()}/procedures"),
        ("POST", f"/v1/cases/{uuid4()}/emergency"),
        ("POST", f"/v1/tasks/{uuid4()}/completion"),
    ],
    Right.ANSWER_LEGS: [("POST", f"/v1/legs/{uuid4()}/answers")],
    Right.READ_PARTIES: [("GET", "/v1/parties")],
    Right.READ_PERSONS: [
        ("GET", "/v1/persons"),
        ("GET", "/v1/households"),
        ("GET", "/v1/terminals/none/track"),
        ("GET", "/v1/terminals/none/track.geojson"),
    ],
    Right.ERASE_PERSONS: [("POST", "/v1/persons/nobody/erasure")],
    Right.READ_TERMINALS: [("GET", "/v1/terminals"), ("GET", "/v1/terminals/none/heartbeats")],
    Right.OPEN_TEST_WINDOWS: [("POST", "/v1/terminals/none/test-windows")],
    Right.RUN_DRILLS: [
        ("POST", "/v1/drills"),
        ("POST", f"/v1/drills/{uuid4()}/start"),
        ("POST", f"/v1/drills/{uuid4()}/end"),
    ],
    Right.COMMAND_TERMINALS: [("POST", "/v1/terminals/none/commands")],
    Right.READ_QUARANTINE: [("GET", "/v1/quarantine"), ("GET", "/v1/quarantine/1")],
    Right.SETTLE_QUARANTINE: [("POST", "/v1/quarantine/1/replay"), ("POST", "/v1/quarantine/1/dismissal")],
    Right.READ_WORK_ORDERS: [
        ("GET", "/v1/work-orders"),
        ("GET", "/v1/work-orders/export"),
        ("GET", f"/v1/work-orders/{uuid4()}"),
        ("GET", f"/v1/work-orders/{uuid4()}/page"),
        ("GET", "/v1/operators"),
    ],
    Right.WRITE_WORK_ORDERS: [
        ("POST", "/v1/work-orders"),
        ("PATCH", f"/v1/work-orders/{uuid4()}"),
        ("POST", f"/v1/work-orders/{uuid4()}/rating"),
        ("POST", f"/v1/work-orders/{uuid4()}/steps/settle"),
    ],
    Right.INSPECT_WORK_ORDERS: [
        ("POST", f"/v1/work-orders/{uuid4()}/judgement"),
        ("POST", "/v1/inspections"),
        ("GET", f"/v1/inspections/{uuid4()}"),
    ],
    Right.ERASE_WORK_ORDERS: [("POST", f"/v1/work-orders/{uuid4()}/erasure")],
    Right.NAME_OPERATORS: [("PUT", "/v1/operators/seat-7"), ("DELETE", "/v1/operators/seat-7")],
    Right.READ_FIGURES: [("GET", "/v1/figures")],
    Right.READ_STREAM: [("GET", "/v1/stream?after=x")],  # a position that is none: the stream would not end
    Right.READ_METRICS: [("GET", "/metrics")],
    Right.READ_CHECKPOINTS: [("GET", "/v1/journal/checkpoints"), ("GET", "/v1/journal/key")],
}


def test_every_right_has_a_door() -> None:
    assert set(DOORS) == set(Right)


def test_nobody_but_who_has_to_sees_persons_or_changes_what_is_kept() -> None:
    def may(right: Right) -> set[Role]:
        return {role for role in Role if right in RIGHTS[role]}

    assert may(Right.READ_PERSONS) == may(Right.HANDLE_CASES) == {Role.ADMIN, Role.OPERATOR}
    assert may(Right.ERASE_PERSONS) == may(Right.SETTLE_QUARANTINE) == {Role.ADMIN}
    assert may(Right.READ_WORK_ORDERS) == may(Right.WRITE_WORK_ORDERS) == {Role.ADMIN, Role.OPERATOR}
    assert may(Right.INSPECT_WORK_ORDERS) == may(Right.ERASE_WORK_ORDERS) == may(Right.NAME_OPERATORS) == {Role.ADMIN}
    assert may(Right.OPEN_TEST_WINDOWS) == {Role.ADMIN, Role.INSTALLER}
    assert may(Right.READ_CHECKPOINTS) == {Role.ADMIN, Role.INTEGRATOR}
    assert Role.INSTALLER not in may(Right.READ_CASES) | may(Right.READ_STREAM) | may(Right.ANSWER_LEGS)


async def test_a_door_opens_only_to_keys_with_the_right(api: Api) -> None:
    for right, doors in DOORS.items():
        for method, path in doors:
            for role in (None, *Role):
                async with api.http.request(method, api.url + path, headers=api.headers(role)) as response:
                    expected = 401 if role is None else None if right in RIGHTS[role] else 403
                    said = (method, path, role, response.status)
                    if expected is None:
                        assert response.status in (200, 400, 404, 422), said
                    else:
                        assert response.status == expected, said
                        assert response.content_type == "application/problem+json"
                        assert ("WWW-Authenticate" in response.headers) == (expected == 401)


async def test_a_key_must_be_whole_and_not_revoked(api: Api, pool: Pool, keyring: Keyring) -> None:
    key, text = await create_key(pool, keyring, name="one", role=Role.OPERATOR)
    other, _ = await create_key(pool, keyring, name="other", role=Role.ADMIN)
    wrong = ["", "okk_", text[:-1], text + "A", text.replace(key, other), f"okk_{'0' * 12}_{text[-43:]}", "Ω" * 60]
    for attempt in wrong:
        headers = {"Authorization": f"Bearer {attempt}".encode().decode("latin-1")}
        async with api.http.get(f"{api.url}/v1/cases", headers=headers) as response:
            assert response.status == 401, attempt
    headers = {"Authorization": f"Bearer {text}"}
    async with api.http.get(f"{api.url}/v1/cases", headers=headers) as response:
        assert response.status == 200
    await revoke_key(pool, key)
    async with api.http.get(f"{api.url}/v1/cases", headers=headers) as response:
        assert response.status == 401
    async with pool.connection() as conn:
        stored = await (await conn.execute("SELECT string_agg(k::text, '') FROM api_key k")).fetchone()
    assert stored is not None
    assert text[-43:] not in stored[0]


# What goes wrong


async def test_everything_that_goes_wrong_is_a_problem_document(api: Api) -> None:
    case = uuid4()
    for method, path, body, status in [
        ("GET", "/nowhere", None, 404),
        ("DELETE", "/v1/cases", None, 405),
        ("GET", f"/v1/cases/{case}", None, 404),
        ("GET", "/v1/cases/not-a-uuid", None, 422),
        ("GET", "/v1/cases?limit=0", None, 422),
        ("GET", "/v1/cases?cursor=%25%00", None, 400),
        ("GET", "/v1/cases?cursor=QUJD", None, 400),
        ("GET", "/v1/parties?cursor=AAAA", None, 400),
        ("GET", "/v1/quarantine?cursor=QUJD", None, 400),
        ("GET", "/v1/stream?after=-1", None, 400),
        ("GET", "/v1/stream?after=999", None, 409),
        ("POST", f"/v1/cases/{case}/acknowledgement", {"operator": "seat-7"}, 404),
        ("POST", f"/v1/cases/{case}/acknowledgement", {"operator": "seat-7", "extra": 1}, 422),
        ("POST", f"/v1/cases/{case}/acknowledgement", {"operator": "x" * 70_000}, 413),
        ("POST", f"/v1/legs/{case}/answers", {"answer": "perhaps"}, 422),
        ("POST", f"/v1/legs/{case}/answers", {"answer": "coming"}, 404),
        ("POST", "/v1/persons/nobody/erasure", None, 404),
        ("POST", f"/v1/terminals/{TERMINAL}/test-windows", {"minutes": 2000, "reason": "x"}, 422),
        ("POST", "/v1/terminals/none/test-windows", {"minutes": 20, "reason": "x"}, 404),
    ]:
        async with api.http.request(method, api.url + path, headers=api.headers(), json=body) as response:
            told = await response.json(content_type="application/problem+json")
            assert response.status == status, (method, path, told)
            assert told["status"] == status
            assert told["title"]
            assert told["type"].startswith("urn:onekey:problem:")
    _, told = await api.call("POST", f"/v1/cases/{case}/acknowledgement", body={"operator": "王 小 明"})
    assert told["errors"][0]["where"] == "body.operator"
    assert "王" not in json.dumps(told, ensure_ascii=False)


async def test_a_database_that_is_away_is_said_so_and_the_service_recovers(database: str, keyring: Keyring) -> None:
    name = database.partition("?")[0].rpartition("/")[2]
    hasty: Pool = AsyncConnectionPool(database, open=False, timeout=0.5, check=AsyncConnectionPool.check_connection)
    async with hasty, serving(create_app(settings_for(database), pool=hasty)) as url, aiohttp.ClientSession() as http:
        _, key = await create_key(hasty, keyring, name="one", role=Role.ADMIN)
        headers = {"Authorization": f"Bearer {key}"}
        with psycopg.connect(database.replace(f"/{name}?", "/postgres?"), autocommit=True) as admin:
            admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
            async with http.get(f"{url}/v1/cases", headers=headers) as response:
                assert response.status == 503
                assert response.headers["Retry-After"]
                assert response.content_type == "application/problem+json"
            async with http.get(f"{url}/health/ready") as response:
                assert response.status == 503
                assert await response.json() == {"ready": False, "reasons": ["the database does not answer"]}
            async with http.get(f"{url}/health/live") as response:
                assert response.status == 200
            async with http.get(f"{url}/r/x") as response:
                assert response.status == 404
            admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true".encode())
        while True:
            async with http.get(f"{url}/v1/cases", headers=headers) as response:
                if response.status == 200:
                    break


async def test_ready_only_while_a_gateway_hears_alarms(api: Api, database: str) -> None:
    async with await connect(database, name="worker") as conn:
        worker = await outbox.register(conn, "a")
        async with asyncio.timeout(20):  # the stream's own connection comes a moment after the service
            while (
                "the stream does not hear of events"
                in (await api.call("GET", "/health/ready", role=None))[1]["reasons"]
            ):
                await asyncio.sleep(0.02)
        for status, reasons in [
            ({}, ["no gateway hears alarms from the broker"]),
            ({"alarms": False}, ["no gateway hears alarms from the broker"]),
            ({"alarms": True}, []),
        ]:
            await outbox.beat(conn, worker, status)
            code, told = await api.call("GET", "/health/ready", role=None)
            assert (code, told["reasons"]) == (503 if reasons else 200, reasons)
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as owner:
        await owner.execute("UPDATE worker SET seen_at = now() - interval '6 seconds'")
    code, told = await api.call("GET", "/health/ready", role=None)
    assert (code, told["reasons"]) == (503, ["no gateway was seen within 5 seconds"])


# Lists


async def test_leafing_through_cases_shows_each_once_even_while_more_come(
    api: Api, pool: Pool, directory: Directory
) -> None:
    opened = [(await press(pool, directory, terminal=f"unknown-{n}")).case_id for n in range(7)]
    seen: list[str] = []
    cursor = ""
    while True:
        _, page = await api.call("GET", f"/v1/cases?limit=3{cursor}")
        seen += [line["id"] for line in page["items"]]
        if page["cursor"] is None:
            break
        cursor = f"&cursor={page['cursor']}"
        await press(pool, directory, terminal=f"late-{len(seen)}")
    assert seen == [str(case) for case in reversed(opened)]


async def test_lists_are_filtered(api: Api, pool: Pool, directory: Directory) -> None:
    emergency = (await press(pool, directory)).case_id
    technical = (await press(pool, directory, terminal="860000000000004", kinds=("low_battery",))).case_id
    await close_case(pool, directory, technical, outcome="technical_fixed", confirmed_by=None, note=None)
    for query, expected in [
        ("", {emergency, technical}),
        ("?state=open", {emergency}),
        ("?state=closed", {technical}),
        ("?class=technical", {technical}),
        ("?household=wang-501", {emergency}),
        ("?district=320102", {emergency, technical}),
        ("?district=110101", set()),
    ]:
        _, page = await api.call("GET", f"/v1/cases{query}")
        assert {line["id"] for line in page["items"]} == {str(case) for case in expected}, query
    _, page = await api.call("GET", "/v1/cases?state=open")
    assert page["items"][0]["legs"] == {"pending": 6}


async def test_the_directory_is_listed_without_secrets(api: Api) -> None:
    _, parties = await api.call("GET", "/v1/parties")
    assert {party["id"]: party["channels"] for party in parties["items"]}["hotline-12349"] == [
        "webhook",
        "mqtt",
        "stream",
    ]
    assert "whsec" not in json.dumps(parties)
    assert "127.0.0.1" not in json.dumps(parties)
    _, persons = await api.call("GET", "/v1/persons?household=li-chen-203")
    assert [person["name"] for person in persons["items"]] == ["陈玉珍", "李国强"]
    _, homes = await api.call("GET", "/v1/households?limit=1")
    assert homes["items"][0]["address"]["text"].startswith("玄武区梅园新村街道")
    _, more = await api.call("GET", f"/v1/households?limit=200&cursor={homes['cursor']}")
    assert len(more["items"]) == 2
    _, terminals = await api.call("GET", "/v1/terminals?household=wang-501")
    assert [(terminal["id"], terminal["seen_at"]) for terminal in terminals["items"]] == [(TERMINAL, None)]


async def test_a_test_window_opens_for_a_while(api: Api, pool: Pool, directory: Directory) -> None:
    path = f"/v1/terminals/{TERMINAL}/test-windows"
    status, window = await api.call("POST", path, role=Role.INSTALLER, body={"minutes": 5, "reason": "installation"})
    assert (status, window["terminal"]) == (201, TERMINAL)
    raised = await press(pool, directory, test=True)
    assert (await one_case(api, raised.case_id))["case_class"] == "test"
    _, page = await api.call("GET", "/v1/terminals?household=wang-501", role=Role.INSTALLER)
    assert page["items"][0]["test_until"] == window["closes_at"]


async def test_the_quarantine_is_read_replayed_and_dismissed(api: Api, pool: Pool) -> None:
    async def kept(topic: str, payload: bytes) -> int:
        misread = Misread(
            transport="mqtt",
            topic=topic,
            terminal=TERMINAL,
            payload=payload,
            received_at=datetime.now(UTC),
            reason="why",
        )
        return await keep(pool, misread)

    good = await kept(f"okc/v1/{TERMINAL}/up/alarm", b'{"v":1,"kinds":["sos"]}')
    bad = await kept(f"okc/v1/{TERMINAL}/up/alarm", b"\x00\xff\x1b[31m")
    status, one = await api.call("GET", f"/v1/quarantine/{bad}", role=Role.INSTALLER)
    assert status == 200
    assert base64.b64decode(one["payload"]) == b"\x00\xff\x1b[31m"
    assert one["preview"].isprintable()
    status, told = await api.call("POST", f"/v1/quarantine/{good}/replay")
    assert (status, told["state"]) == (200, "replayed")
    assert (await one_case(api, told["case_id"]))["kinds"] == ["sos"]
    assert (await api.call("POST", f"/v1/quarantine/{good}/replay"))[0] == 409
    assert (await api.call("POST", f"/v1/quarantine/{bad}/replay"))[0] == 409
    assert (await api.call("POST", f"/v1/quarantine/{bad}/dismissal"))[0] == 204
    _, page = await api.call("GET", "/v1/quarantine?limit=1")
    assert [line["state"] for line in page["items"]] == ["dismissed"]
    _, page = await api.call("GET", f"/v1/quarantine?limit=1&cursor={page['cursor']}")
    assert [line["id"] for line in page["items"]] == [good]


# From press to closure


async def test_a_case_is_read_whole(api: Api, pool: Pool, directory: Directory) -> None:
    fix = {"lat": 32.0603, "lon": 118.7969, "datum": "wgs84", "source": "gnss", "accuracy_m": 12.0, "at": None}
    raised = await press(pool, directory, fix=fix)
    case = await one_case(api, raised.case_id)
    assert [person["name"] for person in case["persons"]] == ["王秀兰"]
    assert case["persons"][0]["health"]["blood"] == "A+"
    assert case["address"]["approach"].startswith("从北门进")
    assert case["location"]["source"] == "gnss"
    assert set(case["maps"]) == {"amap", "baidu", "tencent", "geo"}
    assert [alarm["seq"] for alarm in case["alarms"]] == [1]
    assert {leg["role"] for leg in case["legs"]} == {
        *("guardian", "hotline", "service_center", "community", "district", "ambulance_120"),
    }
    assert all(len(leg["notices"]) == 1 for leg in case["legs"])
    assert [entry["kind"] for entry in case["timeline"]] == ["alarm.received", "case.opened"]
    assert case["journal"]["intact"]
    assert case["journal"]["entries"] == 2


async def test_an_answer_ends_the_leg_and_its_notices_and_counts_once(
    api: Api, pool: Pool, directory: Directory
) -> None:
    raised = await press(pool, directory)
    leg = await leg_of(api, raised.case_id, "guardian")
    path = f"/v1/legs/{leg['id']}/answers"
    for _ in range(2):
        status, told = await api.call(
            "POST", path, role=Role.INTEGRATOR, body={"answer": "coming", "minutes": 6, "by": "女儿"}
        )
        assert (status, told["state"], told["counted"]) == (200, "answered", True)
    leg = await leg_of(api, raised.case_id, "guardian")
    assert [(answer["answer"], answer["minutes"], answer["by"]) for answer in leg["answers"]] == [("coming", 6, "女儿")]
    assert [notice["state"] for notice in leg["notices"]] == ["cancelled"]

    _, told = await api.call("POST", path, body={"answer": "cannot", "reason": "路上\x00堵车", "by": "女儿"})
    assert told["state"] == "refused"
    _, told = await api.call("POST", path, body={"answer": "coming", "minutes": 6, "by": "女儿"})
    assert told["state"] == "answered"
    leg = await leg_of(api, raised.case_id, "guardian")
    assert [answer["reason"] for answer in leg["answers"]] == [None, "路上 堵车", None]


async def test_the_same_answer_counts_again_when_the_button_was_pressed_again(
    api: Api, pool: Pool, directory: Directory
) -> None:
    raised = await press(pool, directory)
    leg = UUID((await leg_of(api, raised.case_id, "guardian"))["id"])
    coming = PartyAnswer("coming", minutes=6)
    await answer_leg(pool, directory, leg, coming, via="link")
    await press(pool, directory, seq=2)
    assert (await leg_of(api, raised.case_id, "guardian"))["state"] == "pending"
    assert (await answer_leg(pool, directory, leg, coming, via="link")).state == "answered"
    assert len((await leg_of(api, raised.case_id, "guardian"))["answers"]) == 2


async def test_the_first_operator_stays_responsible(api: Api, pool: Pool, directory: Directory) -> None:
    case = (await press(pool, directory)).case_id
    path = f"/v1/cases/{case}/acknowledgement"
    tries = [api.call("POST", path, role=Role.OPERATOR, body={"operator": f"seat-{n}"}) for n in range(5)]
    results = await asyncio.gather(*tries)
    assert sorted(status for status, _ in results) == [200, 409, 409, 409, 409]
    owner = next(told["owner"] for status, told in results if status == 200)
    status, told = await api.call("POST", path, role=Role.OPERATOR, body={"operator": owner})
    assert (status, told["owner"]) == (200, owner)
    refusal = next(told for status, told in results if status == 409)
    assert "owned already" in refusal["detail"]
    timeline = (await one_case(api, case))["timeline"]
    assert [entry["kind"] for entry in timeline].count("case.acknowledged") == 1


async def test_an_emergency_is_closed_only_after_somebody_confirmed_safety(
    api: Api, pool: Pool, directory: Directory
) -> None:
    case = (await press(pool, directory)).case_id
    path = f"/v1/cases/{case}/closure"
    status, told = await api.call("POST", path, body={"outcome": "helped", "operator": "seat-7"})
    assert (status, (await one_case(api, case))["state"]) == (409, "open"), told
    for _ in range(2):
        status, told = await api.call("POST", f"/v1/cases/{case}/safety", body={"by": "guardian"})
        assert (status, told["state"]) == (200, "safe")
    for _ in range(2):
        status, told = await api.call("POST", path, body={"outcome": "helped", "operator": "seat-7"})
        assert (status, told["state"], told["outcome"]) == (200, "closed", "helped")
    status, _ = await api.call("POST", path, body={"outcome": "hospital", "operator": "seat-7"})
    assert status == 409
    case_now = await one_case(api, case)
    assert (case_now["safe_by"], case_now["closed_by"]) == ("guardian", "seat-7")
    status, told = await api.call("POST", f"/v1/cases/{case}/acknowledgement", body={"operator": "seat-8"})
    assert status == 409


async def test_after_a_closure_nothing_is_sent_but_the_word_that_it_is_over(
    api: Api, pool: Pool, directory: Directory, database: str
) -> None:
    raised = await press(pool, directory)
    told, in_hand, tried = ("guardian", "hotline", "community")
    ids = {leg["role"]: UUID(leg["id"]) for leg in (await one_case(api, raised.case_id))["legs"]}
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as conn:
        await conn.execute("UPDATE notice SET state = 'sent', ended_at = now() WHERE leg_id = %s", (ids[told],))
        await conn.execute("UPDATE leg SET state = 'delivered', delivered_at = now() WHERE id = %s", (ids[told],))
        await conn.execute("UPDATE notice SET worker = 1 WHERE leg_id = %s", (ids[in_hand],))
        await conn.execute(
            "INSERT INTO attempt (notice_id, leg_id, channel, queued_at, started_at, answered_at, outcome) "
            "SELECT id, leg_id, 'webhook', now(), now(), now(), 'try_again' FROM notice WHERE leg_id = %s",
            (ids[tried],),
        )
    status, _ = await api.call(
        "POST",
        f"/v1/cases/{raised.case_id}/closure",
        body={"outcome": "hospital", "confirmed_by": "ambulance_120", "operator": "seat-7", "note": "送至鼓楼医院"},
    )
    assert status == 200
    case = await one_case(api, raised.case_id)
    for leg in case["legs"]:
        assert leg["state"] == "withdrawn"
        due = [notice["reason"] for notice in leg["notices"] if notice["state"] == "due"]
        assert due == (["closed"] if leg["role"] in (told, in_hand, tried) else [])
        assert {notice["state"] for notice in leg["notices"][:1]} <= {"sent", "cancelled"}
    closed = next(entry for entry in case["timeline"] if entry["kind"] == "case.closed")
    assert closed["data"]["note"] == "送至鼓楼医院"
    assert case["journal"]["intact"]
    async with pool.connection() as reading:
        row = await (await reading.execute("SELECT note FROM cases WHERE id = %s", (raised.case_id,))).fetchone()
    assert row == (None,)

    answered = await answer_leg(pool, directory, ids["guardian"], PartyAnswer("coming"), via="link")
    assert (answered.counted, answered.state) == (False, "withdrawn")
    leg = await leg_of(api, raised.case_id, "guardian")
    assert [answer["answer"] for answer in leg["answers"]] == ["coming"]
    assert [notice["state"] for notice in leg["notices"]] == ["sent", "due"]


def test_the_contract_knows_the_same_outcomes() -> None:
    assert set(get_args(OutcomeName)) == set(Outcome)


# The stream


async def emit(conn: Any, name: str) -> None:
    await events.emit(conn, name, district="320102", case_id=None, data={})


async def test_the_stream_follows_the_commits_and_resumes_without_a_gap(api: Api, pool: Pool, database: str) -> None:
    async with api.http.get(f"{api.url}/v1/stream", headers=api.headers(Role.INTEGRATOR)) as response:
        reading = read_events(response)
        async with await connect(database, name="late") as late, pool.connection() as early:
            async with late.transaction():
                await emit(late, "lower.id")
                async with early.transaction():
                    await emit(early, "higher.id")
                first = await anext(reading)
                assert first[1] == "higher.id"
            second = await anext(reading)
            assert second[1] == "lower.id"
            assert second[0] == first[0] + 1
        # Whoever was disconnected between the two misses nothing.
        headers = api.headers() | {"Last-Event-ID": str(first[0])}
        async with api.http.get(f"{api.url}/v1/stream", headers=headers) as resumed:
            assert await anext(read_events(resumed)) == second
        async with api.http.get(f"{api.url}/v1/stream?after={first[0] - 1}", headers=api.headers()) as resumed:
            again = read_events(resumed)
            assert [await anext(again), await anext(again)] == [first, second]


async def test_many_writers_and_a_reader_that_keeps_leaving_lose_nothing(api: Api, database: str) -> None:
    writers, each = 5, 40

    async def write(number: int) -> None:
        async with await connect(database, name="writer") as conn:
            for turn in range(each):
                async with conn.transaction():
                    await emit(conn, f"w{number}.{turn}")
                    await conn.execute("SELECT pg_sleep(random() / 200)")

    async def read() -> list[tuple[int, str]]:
        got: list[tuple[int, str]] = []
        while len(got) < writers * each:
            headers = api.headers() | {"Last-Event-ID": str(got[-1][0] if got else 0)}
            async with api.http.get(f"{api.url}/v1/stream", headers=headers) as response:
                reading = read_events(response)
                for _ in range(min(17, writers * each - len(got))):
                    position, kind, _ = await anext(reading)
                    got.append((position, kind))
        return got

    async with Hub(database, rng=Random(1)).running(), asyncio.TaskGroup() as tasks:  # another process places as well
        reader = tasks.create_task(read())
        for number in range(writers):
            tasks.create_task(write(number))
    got = reader.result()
    assert [position for position, _ in got] == list(range(1, writers * each + 1))
    assert {kind for _, kind in got} == {f"w{n}.{turn}" for n in range(writers) for turn in range(each)}


async def test_a_stream_tells_of_a_case_without_anything_personal(api: Api, pool: Pool, directory: Directory) -> None:
    async with api.http.get(f"{api.url}/v1/stream?district=320102", headers=api.headers()) as response:
        reading = read_events(response)
        raised = await press(pool, directory)
        _, kind, data = await anext(reading)
        assert (kind, data["case"], data["district"]) == ("case.opened", str(raised.case_id), "320102")
        leg = UUID((await leg_of(api, raised.case_id, "guardian"))["id"])
        await answer_leg(pool, directory, leg, PartyAnswer("cannot", reason="secret", by="王小明"), via="link")
        _, kind, data = await anext(reading)
        assert (kind, data["answer"], data["role"]) == ("leg.answered", "cannot", "guardian")
        assert not re.search("secret|王", json.dumps(data, ensure_ascii=False))


async def test_a_revoked_key_ends_its_streams(api: Api, pool: Pool, keyring: Keyring) -> None:
    key, text = await create_key(pool, keyring, name="one", role=Role.OPERATOR)
    async with api.http.get(f"{api.url}/v1/stream", headers={"Authorization": f"Bearer {text}"}) as response:
        assert response.status == 200
        await revoke_key(pool, key)
        assert [event async for event in read_events(response)] == []


# Signed links


@pytest.fixture
async def links(api: Api, pool: Pool, directory: Directory, keyring: Keyring) -> dict[str, str]:
    raised = await press(pool, directory)
    legs = (await one_case(api, raised.case_id))["legs"]
    return {leg["role"]: f"/r/{keyring.link_token(UUID(leg['id']))}" for leg in legs} | {"case": str(raised.case_id)}


async def rows(database: str) -> int:
    async with await psycopg.AsyncConnection.connect(database) as conn:
        row = await (
            await conn.execute(
                "SELECT (SELECT count(*) FROM answer) + (SELECT count(*) FROM journal) + (SELECT count(*) FROM event)"
            )
        ).fetchone()
        assert row is not None
        return int(row[0])


async def test_opening_a_link_is_on_record_and_changes_nothing_else_and_a_button_counts(
    api: Api, links: dict[str, str], database: str
) -> None:
    before = await rows(database)
    response, text = await api.page("GET", links["guardian"])
    assert response.status == 200
    assert await rows(database) == before + 1  # the journal says that it was opened (R22)
    await api.page("GET", links["guardian"])
    assert await rows(database) == before + 1
    leg = await leg_of(api, UUID(links["case"]), "guardian")
    assert (leg["state"], leg["answers"]) == ("pending", [])
    assert response.headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'sha256-")
    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert response.headers["Cache-Control"] == "no-store"
    assert "noindex" in response.headers["X-Robots-Tag"]
    assert not re.search(r"<script|<img|<link|https?://(?!uri\.amap|api\.map\.baidu|apis\.map\.qq)", text)
    assert "我正赶来" in text
    assert "王秀兰" in text
    assert "青霉素" not in text  # a guardian's message holds no health record either

    response, _ = await api.page("POST", links["guardian"], data={"answer": "coming", "minutes": "15"})
    assert (response.status, response.headers["Location"]) == (303, "?lang=zh")
    leg = await leg_of(api, UUID(links["case"]), "guardian")
    assert [(a["answer"], a["minutes"], a["via"]) for a in leg["answers"]] == [("coming", 15, "link")]
    _, text = await api.page("GET", links["guardian"])
    assert "正在赶来，约 15 分钟" in text

    await api.page(
        "POST", links["guardian"] + "?lang=en", data={"answer": "cannot", "reason": "away", "more": " on <b> "}
    )
    leg = await leg_of(api, UUID(links["case"]), "guardian")
    assert (leg["state"], leg["answers"][-1]["reason"]) == ("refused", "Not nearby: on <b>")
    _, text = await api.page("GET", links["guardian"] + "?lang=en")
    assert "You answered: cannot come" in text


async def test_each_role_sees_what_it_may_know(api: Api, links: dict[str, str], database: str) -> None:
    _, ambulance = await api.page("GET", links["ambulance_120"])
    assert "青霉素" in ambulance
    assert "从北门进" in ambulance
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as conn:
        await conn.execute("""UPDATE cases SET privacy = '{"guardian": "neighbour"}'""")
    _, neighbour = await api.page("GET", links["guardian"])
    assert "示范小区3幢2单元5层501室" in neighbour
    assert not re.search("王秀兰|13900000001|从北门进|amap|青霉素|85 岁", neighbour)


@pytest.mark.parametrize("answer", [{}, {"answer": "accepted"}, {"answer": "x" * 600}, {"answer": "coming\x00"}])
async def test_what_is_no_button_does_not_count(
    api: Api, links: dict[str, str], database: str, answer: dict[str, str]
) -> None:
    before = await rows(database)
    response, text = await api.page("POST", links["guardian"], data=answer)
    assert response.status in (400, 422)
    assert response.content_type == "text/html"
    assert "<button" not in text
    assert await rows(database) == before


async def test_a_link_that_we_did_not_make_shows_nothing(api: Api, links: dict[str, str], keyring: Keyring) -> None:
    token = links["guardian"].removeprefix("/r/")
    swapped = links["hotline"].removeprefix("/r/")[:22] + token[22:]
    tampered = ("A" if token[0] != "A" else "B") + token[1:]
    for wrong in (swapped, tampered, token[:-1], token + "AA", "x", "%00", "é" * 43, keyring.link_token(uuid4())):
        for method in ("GET", "POST"):
            response, text = await api.page(
                method, f"/r/{wrong}", data={"answer": "coming"} if method == "POST" else None
            )
            assert response.status == 404, wrong
            assert response.content_type == "text/html"
            assert "王秀兰" not in text


async def test_when_it_is_over_a_link_tells_that_and_nobody_s_name(
    api: Api, links: dict[str, str], pool: Pool, directory: Directory
) -> None:
    await close_case(pool, directory, UUID(links["case"]), outcome="helped", confirmed_by="guardian", note=None)
    _, text = await api.page("GET", links["ambulance_120"])
    assert "本次求助已结束" in text
    assert "<button" not in text
    assert not re.search("王秀兰|示范小区|青霉素|amap", text)
    view = await read_link(pool, directory, links["ambulance_120"].removeprefix("/r/"))
    assert (view.address, view.persons, view.location) == (None, (), None)


async def test_hostile_texts_stay_texts(database: str, pool: Pool, keyring: Keyring, tmp_path: Any) -> None:
    hostile = "<script>alert(1)</script>\"'&<img src=x onerror=alert(2)>"
    text = (ROOT / "examples" / "nanjing.yaml").read_text(encoding="utf-8")
    quoted = json.dumps(hostile)
    text = text.replace("name: 王秀兰", f"name: {quoted}").replace("blood: A+}", f"{quoted}: {quoted}}}")
    text = text.replace("landmark: 小区北门对面是示范小学", f"landmark: {quoted}")
    file = tmp_path / "site.yaml"
    file.write_text(text, encoding="utf-8")
    await apply_site(pool, keyring, load(file).site, prune=False)
    directory = Directory(keyring)
    raised = await press(pool, directory, kinds=("sos", hostile))
    _, key = await create_key(pool, keyring, name="one", role=Role.ADMIN)
    async with serving(create_app(settings_for(database), pool=pool)) as url, aiohttp.ClientSession() as http:
        api = Api(url, http, {Role.ADMIN: key})
        case = await one_case(api, raised.case_id)
        assert case["persons"][0]["name"] == hostile
        leg = next(leg["id"] for leg in case["legs"] if leg["role"] == "ambulance_120")
        _, page = await api.page("GET", f"/r/{keyring.link_token(UUID(leg))}")
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 6  # title, heading, landmark, name, health twice
    assert not re.search(r"<script|<img|onerror=alert\(2\)>", page)


# Erasure and figures


async def test_an_erased_person_is_gone_and_the_chain_still_holds(
    api: Api, pool: Pool, directory: Directory, database: str
) -> None:
    case = (await press(pool, directory)).case_id
    path = "/v1/persons/wang-xiulan/erasure"
    status, told = await api.call("POST", path)
    assert status == 409
    assert "not closed" in told["detail"]
    await close_case(pool, directory, case, outcome="helped", confirmed_by="guardian", note="王秀兰很好")
    assert (await one_case(api, case))["persons"][0]["name"] == "王秀兰"
    for _ in range(2):
        assert (await api.call("POST", path))[0] == 204

    after = await one_case(api, case)
    assert after["persons"] == []
    assert after["journal"]["intact"]
    assert {(entry["erased"], entry["data"]) for entry in after["timeline"]} == {(True, None)}
    async with pool.connection() as conn:
        assert verify(await journal.entries(conn, case)) is None
    _, persons = await api.call("GET", "/v1/persons?household=wang-501")
    assert [(person["id"], person["erased"], person["name"]) for person in persons["items"]] == [
        ("wang-xiulan", True, None)
    ]
    assert (await api.call("POST", path.replace("wang-xiulan", "nobody")))[0] == 404

    leg = (await leg_of(api, case, "guardian"))["id"]
    status, told = await api.call("POST", f"/v1/legs/{leg}/answers", body={"answer": "arrived"})
    assert (status, told["counted"]) == (200, False)
    assert [entry["erased"] for entry in (await one_case(api, case))["timeline"]][-1] is False

    # The next press of the household still reaches everybody.
    again = await one_case(api, (await press(pool, directory, seq=2)).case_id)
    assert len(again["legs"]) == 6
    async with await psycopg.AsyncConnection.connect(database) as conn:
        row = await (
            await conn.execute("SELECT count(*) FROM data_key WHERE subject = 'person:wang-xiulan' AND wrapped IS NULL")
        ).fetchone()
    assert row == (1,)


async def test_metrics_show_how_the_database_stands(api: Api, pool: Pool, directory: Directory) -> None:
    await press(pool, directory)
    async with api.http.get(f"{api.url}/metrics", headers=api.headers(Role.INTEGRATOR)) as response:
        text = await response.text()
    for line in (
        'onekey_notices_due{state="waiting"} 6.0',
        "onekey_emergencies_unacknowledged 1.0",
        'onekey_cases_not_closed{class="emergency"} 1.0',
        'onekey_terminals_clock_off{more_than_s="60"} 0.0',
        "onekey_gateways_alive 0.0",
        "onekey_quarantine_kept 0.0",
        'onekey_modems{state="ready"} 0.0',
        "onekey_phone_waiting 0.0",
    ):
        assert line in text
    assert re.search(r"onekey_notices_oldest_due_seconds [0-9.e-]+", text)


async def test_modems_are_listed(api: Api, pool: Pool) -> None:
    async with pool.connection() as conn:
        await conn.execute(
            "INSERT INTO modem (id, replica, path, state, problem, signal_dbm, since, balance, balance_at) VALUES "
            "('861234567890123', 'a', '/dev/ttyUSB2', 'searching', 'no network', -105, now(), 8.40, now())"
        )
    status, found = await api.call("GET", "/v1/modems")
    assert status == 200
    (modem,) = found
    assert (modem["state"], modem["problem"], modem["balance"]) == ("searching", "no network", 8.4)
    assert "/dev" not in str(found)


def test_the_published_openapi_document_is_what_the_code_says() -> None:
    assert FILE.read_text(encoding="utf-8") == render(), "run python -m api.export"


async def test_the_service_opens_its_own_pool(database: str, keyring: Keyring) -> None:
    async with open_pool(database, name="setup", size=1) as pool:
        _, key = await create_key(pool, keyring, name="one", role=Role.ADMIN)
    async with serving(create_app(settings_for(database))) as url, aiohttp.ClientSession() as http:
        assert await Api(url, http, {Role.ADMIN: key}).call("GET", "/v1/cases") == (200, {"items": [], "cursor": None})
        async with http.get(f"{url}/v1/openapi.json") as response:
            assert response.status == 401
        async with http.get(f"{url}/docs") as response:
            guide = await response.text()
        assert "/v1/cases/{case_id}/closure" in guide
        assert not re.search(r"<script|<link|src=", guide)


# At a seat


async def test_a_seat_sees_its_tasks_and_does_them(api: Api, pool: Pool, directory: Directory) -> None:
    runner = Runner(
        pool,
        directory,
        None,  # type: ignore[arg-type]  # nothing is sent to a terminal here
        submit=lambda _: None,
        worker=lambda: None,
        is_working_day=lambda _: True,
        rng=Random(1),
    )
    await store_shipped(pool)
    case = (await press(pool, directory)).case_id
    await runner.advance_due()
    _, page = await api.call("GET", "/v1/tasks?limit=1")
    assert (page["items"][0]["name"], page["items"][0]["clause"], page["items"][0]["owner"]) == ("take", "R16", None)
    _, more = await api.call("GET", f"/v1/tasks?limit=5&cursor={page['cursor']}")
    assert [task["name"] for task in more["items"]] == ["call-120"]
    assert (await api.call("GET", "/v1/tasks?cursor=AAAA"))[0] == 400
    await api.call("POST", f"/v1/cases/{case}/acknowledgement", body={"operator": "seat-7"})
    _, mine = await api.call("GET", "/v1/tasks?operator=seat-7")
    assert {task["name"] for task in mine["items"]} >= {"call-120"}
    task = next(task for task in mine["items"] if task["name"] == "call-120")
    path = f"/v1/tasks/{task['id']}/completion"
    status, problem = await api.call("POST", path, body={"result": "perhaps", "operator": "seat-7"})
    assert (status, "dispatched" in problem["detail"]) == (409, True)
    for _ in range(2):
        status, done = await api.call(
            "POST", path, body={"result": "dispatched", "operator": "seat-7", "note": "3 号车"}
        )
        assert (status, done["state"], done["by_whom"]) == (200, "done", "operator:seat-7")
    whole = await one_case(api, case)
    assert {(fact["fact"], fact["role"]) for fact in whole["facts"]} == {("dispatched", "ambulance_120")}
    assert next(leg["state"] for leg in whole["legs"] if leg["role"] == "ambulance_120") == "answered"
    assert [one["procedure"] for one in whole["procedures"]] == ["nanjing-emergency"]
    assert any(entry["data"].get("note") == "3 号车" for entry in whole["timeline"])
    async with pool.connection() as conn:
        told = await (await conn.execute("SELECT string_agg(data::text, '') FROM event")).fetchone()
    assert told is not None
    assert "3 号车" not in told[0], "what is private is in the journal alone"


async def test_seats_facts_and_commands_by_api(api: Api, pool: Pool, directory: Directory) -> None:
    await store_shipped(pool)
    case = (await press(pool, directory)).case_id
    base = f"/v1/cases/{case}"
    assert (await api.call("POST", f"{base}/handover", body={"operator": "a", "to": "b", "reason": "x"}))[0] == 409
    await api.call("POST", f"{base}/acknowledgement", body={"operator": "seat-7"})
    status, head = await api.call(
        "POST", f"{base}/handover", body={"operator": "seat-7", "to": "seat-9", "reason": "x"}
    )
    assert (status, head["owner"]) == (200, "seat-9")
    assert (await api.call("POST", f"{base}/seat-b", body={"operator": "seat-3", "by": "seat-9"}))[0] == 200
    wrong = {"fact": "dispatched", "about": "guardian", "operator": "seat-9"}
    assert (await api.call("POST", f"{base}/facts", body=wrong))[0] == 409
    assert (await api.call("POST", f"{base}/facts", body={"fact": "heard", "operator": "seat-9"}))[0] == 200
    assert (await api.call("POST", f"{base}/facts", body={"fact": "safe", "operator": "seat-9"}))[0] == 422
    ask = {"name": "locate", "operator": "seat-9", "case": str(case)}
    status, command = await api.call("POST", f"/v1/terminals/{TERMINAL}/commands", body=ask)
    assert (status, command["state"]) == (202, "due")
    assert (await api.call("GET", f"/v1/commands/{command['id']}"))[1]["name"] == "locate"
    assert (await api.call("POST", "/v1/terminals/none/commands", body={"name": "locate", "operator": "a"}))[0] == 404
    assert (await api.call("POST", f"{base}/procedures", body={"procedure": "complaint", "operator": "a"}))[0] == 200
    assert (await api.call("POST", f"{base}/procedures", body={"procedure": "complaint", "operator": "a"}))[0] == 409
    whole = await one_case(api, case)
    assert (whole["first_owner"], whole["owner"], whole["seat_b"]) == ("seat-7", "seat-9", "seat-3")
    assert [one["name"] for one in whole["commands"]] == ["locate"]
    service = (await press(pool, directory, kinds=("service",))).case_id
    status, made = await api.call("POST", f"/v1/cases/{service}/emergency", body={"kind": "fall", "operator": "seat-9"})
    assert (status, made["case_id"]) == (201, str(case)), "it joins the emergency that is open"


async def test_a_track_is_read_as_points_and_as_a_line_on_a_map(api: Api, pool: Pool, directory: Directory) -> None:
    now = datetime.now(UTC)
    steps = [
        Told(
            TERMINAL,
            now - timedelta(minutes=10 - n),
            FixReport(v=1, boot=1, seq=n, fix=Fix(lat=32 + n / 100, lon=118.8)),
        )
        for n in range(3)
    ]
    await store_reports(pool, directory, steps, worker=None)
    status, page = await api.call("GET", f"/v1/terminals/{TERMINAL}/track")
    assert (status, [point["lat"] for point in page["items"]]) == (200, [32.0, 32.01, 32.02])
    status, line = await api.call("GET", f"/v1/terminals/{TERMINAL}/track.geojson?every_s=1")
    assert status == 200
    assert (line["type"], line["geometry"]["type"]) == ("Feature", "LineString")
    assert line["geometry"]["coordinates"] == [[118.8, 32.0], [118.8, 32.01], [118.8, 32.02]]
    assert line["properties"]["cut_off"] is False
    status, problem = await api.call("GET", f"/v1/terminals/{TERMINAL}/heartbeats?every_s=1&from=2026-01-01T00:00:00Z")
    assert (status, problem["title"]) == (400, "Not a span of time")
