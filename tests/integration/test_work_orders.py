"""Work orders from a press or a call to their end, through the API, on a real database and a clock that is turned."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from api.sheets import read_sheet
from gateway.domain.journal import verify
from gateway.keyring import Keyring
from gateway.service.access import Role
from gateway.service.take_back import take_word
from gateway.service.workdays import Workdays
from gateway.store import journal
from tests.integration.hotline import Hotline, hotline

# A Friday afternoon before the national holiday of 2026, 15:00 in Nanjing.
START = datetime(2026, 9, 25, 7, 0, tzinfo=UTC)
COUPLE = "860000000000002"


@pytest.fixture
async def desk(database: str, keyring: Keyring) -> AsyncIterator[Hotline]:
    async with hotline(database, keyring, START) as opened:
        yield opened


def call(kind: str, **more: Any) -> dict[str, Any]:
    """A call without a terminal, with all that its kind asks for at first."""
    person = {"name": "周桂芳", "age": 78, "phone": "02500000031"}
    body: dict[str, Any] = {
        "call": f"pbx-{kind}",
        "kind": kind,
        "operator": "seat-7",
        "operator_name": "陈晓",
        "number": "02500000031",
        "record": "来电咨询，已答复。",
    }
    if kind == "institution_query":
        return body | {"institution": "梅园养老院", "reply_needed": False} | more
    if kind == "complaint":
        body["complaint"] = {"about": "助餐送餐连续三天迟到", "forwarded_to": "梅园居家养老服务中心"}
    if kind == "public_service_query":
        body["reply_needed"] = True
    return body | {"person": person} | more


NEEDS = {
    "family": "独居，一子在外地",
    "income": "退休金每月 3200 元",
    "health": "高血压，行动不便",
    "address": "玄武区示范花园 1 幢",
    "contacts": "本人 02500000031，子 13800000000",
    "demand": "入住养老机构",
    "reasons": "夜间无人照料",
}


async def test_the_life_of_a_rescue_from_the_press_to_the_exported_work_order(desk: Hotline) -> None:
    await desk.ok("PUT", "/v1/operators/seat-7", {"name": "陈晓"}, role=Role.ADMIN)
    case = await desk.press()
    assert (await desk.ok("GET", "/v1/work-orders"))["items"] == [], "nobody owns it yet"
    await desk.after(seconds=6)
    await desk.own(case)
    order = await desk.order_of(case)
    assert (order["kind"], order["operator"], order["operator_name"]) == ("emergency_rescue", "seat-7", "陈晓")
    assert order["called_at"] == "2026-09-25T07:00:00Z"
    assert order["number"] == "+8614400000001"
    assert order["person"] == {"name": "王秀兰", "age": 85, "phone": "+8613900000001"}
    assert order["reply_needed"] is True
    assert order["missing"] == []
    assert order["record"].split("\n") == [
        "2026-09-25 15:00:00 收到报警：紧急呼叫（终端 860000000000001）",
        "15:00:00 同时通知 6 方：监护人、热线、居家服务中心、社区、区民政部门、120 急救",
        "15:00:06 seat-7 接警",
    ]
    assert order["due_at"] is not None, "the next task of the case"
    status, why = await desk.refused("PATCH", f"/v1/work-orders/{order['id']}", {"version": 1, "completed": True})
    assert (status, "after it is closed" in why) == (409, True)

    await desk.after(minutes=25)
    await desk.close(case, "hospital", note="送至鼓楼医院急诊", operator="seat-7")
    closed = await desk.order_of(case)
    assert closed["version"] == 2
    assert closed["record"].endswith("15:25:06 结案：送医（送至鼓楼医院急诊）")
    assert not closed["record_edited"]

    # Aftercare: the follow-up of next day stands in the record when the work order is completed.
    await desk.after(hours=20)
    ((task,),) = await desk.rows("SELECT id FROM step WHERE name = 'follow-up' AND state = 'open'")
    await _done(desk, task, "女儿说恢复良好")
    completed = await desk.change(closed, completed=True)
    assert "次日 17 时前回访" in completed["record"]
    assert "女儿说恢复良好" in completed["record"]
    assert completed["completed_by"] == "seat-7"
    body = {"rating": "fair", "asked_by": "seat-7", "comment": "来得快"}
    rated = await desk.ok("POST", f"/v1/work-orders/{order['id']}/rating", body)
    assert (rated["rating"], rated["satisfied"], rated["rating_comment"]) == ("fair", True, "来得快")
    assert (await desk.ok("POST", f"/v1/work-orders/{order['id']}/rating", body))["version"] == rated["version"]

    async with desk.api.http.get(
        f"{desk.api.url}/v1/work-orders/export", headers=desk.api.headers(Role.OPERATOR)
    ) as response:
        heads, cells = read_sheet((await response.read()).decode())
    exported = dict(zip(heads, cells, strict=True))
    assert exported["姓名"] == "王秀兰"
    assert exported["联系电话"] == "+8613900000001"
    assert exported["需求类型"] == "紧急救援"
    assert exported["客户评价"] == "一般"
    assert exported["处理记录"] == rated["record"]
    assert await desk.ok("GET", "/v1/work-orders/export?format=json") == [
        await desk.ok("GET", f"/v1/work-orders/{order['id']}")
    ]

    for lang, title in [("", "服务工单"), ("?lang=en", "Work order")]:
        response, page = await desk.api.page(
            "GET", f"/v1/work-orders/{order['id']}/page{lang}", headers=desk.api.headers(Role.OPERATOR)
        )
        assert (response.status, response.content_type) == (200, "text/html")
        assert response.headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert response.headers["Cache-Control"] == "no-store"
        assert title in page
        assert "王秀兰" in page

    # All of it is in the journal, which is whole, and nothing personal is on the stream.
    read = await desk.ok("GET", f"/v1/cases/{case}")
    kinds = [entry["kind"] for entry in read["timeline"] if entry["kind"].startswith("work_order")]
    assert kinds == ["work_order.created", "work_order.updated", "work_order.updated", "work_order.rated"]
    assert read["journal"]["intact"]
    report = await desk.ok("GET", f"/v1/cases/{case}/report")
    assert "work_order" in {seen["what"] for seen in report["disclosures"]}
    seen = [entry["data"]["what"] for entry in read["timeline"] if entry["kind"] == "data.disclosed"]
    assert seen.count("work_order") == 1, "who saw it stands there once, however often they looked (R22)"
    assert read["journal"]["intact"]
    told = await desk.rows("SELECT kind, data::text FROM event WHERE kind LIKE 'work_order.%%' ORDER BY id")
    assert [kind for kind, _ in told] == kinds
    for secret in ("王秀兰", "陈晓", "13900000001", "鼓楼", "来得快"):
        assert all(secret not in text for _, text in told), secret


async def _done(desk: Hotline, task: UUID, note: str) -> None:
    from gateway.service.desk import complete_task
    from gateway.service.workdays import Workdays

    await complete_task(
        desk.pool,
        desk.directory,
        task,
        result="done",
        by="seat-7",
        note=note,
        is_working_day=Workdays().is_working_day,
    )


async def test_a_case_has_one_work_order_however_often_it_is_asked_for(desk: Hotline) -> None:
    case = await desk.press()
    await asyncio.gather(
        *(
            desk.api.call("POST", f"/v1/cases/{case}/acknowledgement", role=Role.OPERATOR, body={"operator": seat})
            for seat in ("seat-1", "seat-2", "seat-1")
        )
    )
    assert len((await desk.ok("GET", "/v1/work-orders"))["items"]) == 1
    assert (await desk.rows("SELECT count(*) FROM event WHERE kind = 'work_order.created'")) == [(1,)]


async def test_what_is_no_call_for_service_has_no_work_order(desk: Hotline) -> None:
    battery = await desk.press("860000000000004", "low_battery")
    await desk.ok("POST", "/v1/terminals/860000000000001/test-windows", {"minutes": 5, "reason": "x"}, role=Role.ADMIN)
    test = await desk.press(test=True)
    for case in (battery, test):
        await desk.own(case)
        await desk.close(case, "other")
    assert (await desk.ok("GET", "/v1/work-orders"))["items"] == []


async def test_of_a_service_request_and_a_couple_the_operator_says_the_rest(desk: Hotline) -> None:
    case = await desk.press(COUPLE, "service")
    await desk.own(case)
    order = await desk.order_of(case)
    assert (order["kind"], order["reply_needed"], order["person"]) == ("public_service_query", None, None)
    assert order["missing"] == ["operator_name", "reply_needed", "person.name", "person.age", "person.phone"]
    order = await desk.change(order, person={"name": "李国强", "age": 87}, reply_needed=False, operator_name="陈晓")
    assert order["missing"] == ["person.phone"]
    order = await desk.change(order, person={"phone": "1", "age": None})
    assert order["missing"] == ["person.age"], "what was there stays, null takes away"
    # What was pressed as a service turns out to be a referral.
    order = await desk.change(order, kind="referral", referral={"needs": NEEDS})
    assert (order["kind"], order["reply_needed"]) == ("referral", True)
    assert order["missing"] == ["person.age", "referral.offered"]


async def test_closed_without_an_owner_it_still_has_its_work_order(desk: Hotline) -> None:
    case = await desk.press()
    await desk.close(case, "false_alarm", reason="pet")
    order = await desk.order_of(case)
    assert order["operator"] is None
    assert order["missing"] == ["operator", "operator_name"]
    assert order["record"].endswith("结案：误报（宠物触发）")
    other = await desk.press("860000000000004")
    await desk.close(other, "helped", operator="seat-9")
    assert (await desk.order_of(other))["operator"] == "seat-9"


async def test_what_an_operator_wrote_is_not_written_over(desk: Hotline) -> None:
    case = await desk.press()
    await desk.own(case)
    order = await desk.change(await desk.order_of(case), record="老人摔倒，女儿在场。\n已扶起。")
    assert order["record_edited"]
    await desk.close(case)
    order = await desk.order_of(case)
    assert order["record"] == "老人摔倒，女儿在场。\n已扶起。"
    order = await desk.change(order, record=None)
    assert not order["record_edited"]
    assert order["record"].endswith("结案：已获帮助")


async def test_two_operators_do_not_write_over_each_other(desk: Hotline) -> None:
    order = await desk.ok("POST", "/v1/work-orders", call("public_service_query"))
    path = f"/v1/work-orders/{order['id']}"
    tries = [
        desk.api.call("PATCH", path, role=Role.OPERATOR, body={"version": order["version"], "number": f"0250000000{n}"})
        for n in range(5)
    ]
    answers = await asyncio.gather(*tries)
    assert sorted(status for status, _ in answers) == [200, 409, 409, 409, 409]
    won = next(answer for status, answer in answers if status == 200)
    assert won["version"] == order["version"] + 1
    assert "changed meanwhile" in next(answer["detail"] for status, answer in answers if status == 409)
    # The answer may have been lost on the way: the same once more is no conflict.
    again = await desk.ok("PATCH", path, {"version": order["version"], "number": won["number"]})
    assert again == won


async def test_the_same_call_is_the_same_work_order(desk: Hotline) -> None:
    body = call("institution_query")
    answers = await asyncio.gather(
        *(desk.api.call("POST", "/v1/work-orders", role=Role.OPERATOR, body=body) for _ in range(3))
    )
    assert sorted(status for status, _ in answers) == [200, 200, 201]
    assert len({answer["id"] for _, answer in answers}) == 1
    assert answers[0][1]["missing"] == []
    other = await desk.ok("POST", "/v1/work-orders", call("public_service_query", call=body["call"]))
    assert other["id"] != answers[0][1]["id"], "one call may ask for two things"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (call("referral", reply_needed=False), 422),
        (call("institution_query", person={"name": "x"}), 422),
        (call("complaint", person={"age": 131}), 422),
        (call("complaint", complain="x"), 422),
        (call("complaint", operator="陈晓"), 422),
        (call("complaint", case=str(uuid4())), 404),
        (call("complaint", person_id="nobody"), 404),
        (call("complaint", site="elsewhere"), 404),
        (call("complaint", called_at="2026-09-25T08:00:00Z"), 409),
    ],
)
async def test_what_cannot_be_is_refused_and_leaves_nothing(desk: Hotline, body: Any, status: int) -> None:
    assert (await desk.refused("POST", "/v1/work-orders", body))[0] == status
    assert (await desk.ok("GET", "/v1/work-orders"))["items"] == []
    assert await desk.rows("SELECT count(*) FROM data_key WHERE subject LIKE 'work_order:%%'") == [(0,)]


async def test_the_kind_of_an_emergency_and_of_a_complaint_stays(desk: Hotline) -> None:
    case = await desk.press()
    await desk.own(case)
    emergency = await desk.order_of(case)
    path = f"/v1/work-orders/{emergency['id']}"
    assert (await desk.refused("PATCH", path, {"version": 1, "kind": "referral"}))[0] == 409
    assert (await desk.refused("PATCH", path, {"version": 1, "reply_needed": False}))[0] == 409
    complaint = await desk.ok("POST", "/v1/work-orders", call("complaint"))
    path = f"/v1/work-orders/{complaint['id']}"
    assert (await desk.refused("PATCH", path, {"version": 1, "kind": "referral"}))[0] == 409


# What was complained of, R21


async def test_a_complaint_by_telephone_is_due_in_three_working_days_and_its_breach_goes_to_the_supervisor(
    desk: Hotline,
) -> None:
    await desk.at(datetime(2026, 9, 30, 8, 0, tzinfo=UTC))  # the day before a week of holidays
    order = await desk.ok("POST", "/v1/work-orders", call("complaint"))
    assert [(step["name"], step["seat"], step["state"]) for step in order["steps"]] == [
        ("forward", "first", "open"),
        ("settle", "first", "open"),
    ]
    assert order["steps"][1]["due_at"] == "2026-10-10T16:00:00Z", "the Saturday is worked instead"
    assert order["due_at"] == order["steps"][0]["due_at"]
    path = f"/v1/work-orders/{order['id']}"
    for _ in range(2):
        order = await desk.ok("POST", f"{path}/steps/forward", {"result": "done", "by": "seat-7", "note": "已转交"})
    assert (order["steps"][0]["state"], order["steps"][0]["note"]) == ("done", "已转交")
    assert (await desk.ok("GET", "/v1/work-orders?overdue=true"))["items"] == []
    await desk.at(datetime(2026, 10, 10, 15, 59, tzinfo=UTC))
    assert (await desk.ok("GET", path))["steps"][1]["breached_at"] is None
    await desk.after(minutes=1)
    order = await desk.ok("GET", path)
    assert order["steps"][1]["breached_at"] == "2026-10-10T16:00:00Z"
    assert [(step["name"], step["seat"], step["state"]) for step in order["steps"]][2:] == [
        ("escalate", "supervisor", "open")
    ]
    late = (await desk.ok("GET", "/v1/work-orders?overdue=true&kind=complaint"))["items"]
    assert [line["id"] for line in late] == [order["id"]]
    told = await desk.rows(
        "SELECT kind, data ->> 'step', data ->> 'seat', data ->> 'work_order' FROM event ORDER BY id"
    )
    assert ("task.breached", "settle", "first", order["id"]) in told
    assert ("task.started", "escalate", "supervisor", order["id"]) in told


async def test_whoever_is_not_satisfied_with_the_result_goes_to_the_supervisor(desk: Hotline) -> None:
    order = await desk.ok("POST", "/v1/work-orders", call("complaint"))
    path = f"/v1/work-orders/{order['id']}"
    assert (await desk.refused("POST", f"{path}/steps/escalate", {"result": "done", "by": "chief"}))[0] == 404
    status, why = await desk.refused("POST", f"{path}/steps/settle", {"result": "done", "by": "seat-7"})
    assert (status, "satisfied, dissatisfied" in why) == (409, True)
    await desk.after(days=1)
    order = await desk.change(await desk.ok("GET", path), complaint={"result": "中心致歉"}, completed=True)
    order = await desk.ok("POST", f"{path}/steps/settle", {"result": "dissatisfied", "by": "seat-7"})
    assert [(step["name"], step["state"], step["result"]) for step in order["steps"]] == [
        ("forward", "open", None),
        ("settle", "done", "dissatisfied"),
        ("escalate", "open", None),
    ]
    done = await desk.ok("POST", f"{path}/steps/escalate", {"result": "done", "by": "chief-1"})
    assert next(step["by_whom"] for step in done["steps"] if step["name"] == "escalate") == "operator:chief-1"
    assert (await desk.refused("POST", f"{path}/steps/settle", {"result": "satisfied", "by": "seat-7"}))[0] == 409


async def test_a_complaint_about_a_case_runs_in_that_case_and_a_second_one_beside_it(desk: Hotline) -> None:
    case = await desk.press()
    await desk.own(case)
    await desk.close(case)
    first = await desk.ok("POST", "/v1/work-orders", call("complaint", case=str(case)))
    assert {step["name"] for step in first["steps"]} == {"forward", "settle"}
    assert await desk.rows("SELECT count(*) FROM run WHERE procedure = 'complaint'") == [(1,)]
    assert await desk.rows("SELECT count(*) FROM work_order_step") == [(0,)]
    again = await desk.ok("POST", "/v1/work-orders", call("complaint", case=str(case)))
    assert again["id"] == first["id"]
    settled = await desk.ok(
        "POST", f"/v1/work-orders/{first['id']}/steps/settle", {"result": "dissatisfied", "by": "seat-7"}
    )
    assert any(step["name"] == "escalate" and step["seat"] == "supervisor" for step in settled["steps"])
    second = await desk.ok("POST", "/v1/work-orders", call("complaint", case=str(case), call="pbx-2"))
    assert {step["state"] for step in second["steps"]} == {"open"}
    assert await desk.rows("SELECT count(*) FROM work_order_step") == [(2,)]
    read = await desk.ok("GET", f"/v1/cases/{case}")
    kinds = [entry["kind"] for entry in read["timeline"]]
    assert kinds.count("procedure.started") == 2
    assert kinds.count("work_order.created") == 3
    assert read["journal"]["intact"]
    # The case's own work order tells that somebody complained.
    (line,) = [
        one for one in (await desk.ok("GET", f"/v1/work-orders?case={case}"))["items"] if one["kind"] != "complaint"
    ]
    own = await desk.change(await desk.ok("GET", f"/v1/work-orders/{line['id']}"), completed=True)
    assert "seat-7 启动投诉处理流程" in own["record"]


async def test_a_query_that_turns_out_to_be_a_complaint_gets_its_deadline_from_then_on(desk: Hotline) -> None:
    order = await desk.ok("POST", "/v1/work-orders", call("public_service_query"))
    assert order["steps"] == []
    await desk.at(START + timedelta(days=20))  # Thursday the 15th of October
    order = await desk.change(order, kind="complaint")
    due = {step["name"]: step["due_at"] for step in order["steps"]}
    assert due["settle"] == "2026-10-20T16:00:00Z"


async def test_another_gateway_at_work_keeps_no_complaint_waiting_for_ever(desk: Hotline) -> None:
    order = await desk.ok("POST", "/v1/work-orders", call("complaint"))
    async with desk.pool.connection() as conn, conn.transaction():
        await conn.execute("SELECT FROM work_order WHERE id = %s FOR UPDATE", (order["id"],))
        desk.clock[0] = START + timedelta(days=30)
        await desk.runner.advance_complaints()
    await desk.runner.advance_complaints()
    names = {step["name"] for step in (await desk.ok("GET", f"/v1/work-orders/{order['id']}"))["steps"]}
    assert "escalate" in names


async def test_the_gateway_finds_by_itself_what_is_late(desk: Hotline) -> None:
    order = await desk.ok("POST", "/v1/work-orders", call("complaint"))
    desk.clock[0] = START + timedelta(days=30)
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(desk.runner.run(), name="runner")
        while not await desk.rows("SELECT FROM work_order_step WHERE name = 'escalate'"):
            await asyncio.sleep(0.02)
        running.cancel()
    read = await desk.api.call("GET", f"/v1/work-orders/{order['id']}", role=Role.OPERATOR)
    assert {step["name"]: step["breached_at"] is not None for step in read[1]["steps"]}["settle"]


# Who was referred, R28


async def test_a_referral_from_its_needs_to_its_outcome(desk: Hotline) -> None:
    body = call("referral", referral={"needs": NEEDS, "offered": [{"name": "甲养老院", "charges": "3000 元"}]})
    order = await desk.ok("POST", "/v1/work-orders", body)
    assert order["missing"] == []
    offered = [{"name": "甲养老院", "charges": "3000 元", "phone": "02500000071"}, {"name": "乙养老院"}]
    order = await desk.change(order, referral={"offered": offered})
    assert [one["name"] for one in order["referral"]["offered"]] == ["甲养老院", "乙养老院"]
    assert order["referral"]["needs"]["income"] == NEEDS["income"]
    order = await desk.change(order, completed=True)
    assert order["missing"] == ["referral.outcome"]
    order = await desk.change(order, referral={"outcome": "placed"})
    assert (order["missing"], order["completed_by"]) == ([], "seat-7")
    order = await desk.change(order, completed=False)
    assert order["completed_at"] is None


# Lists


async def test_lists_are_filtered_and_leafed_through(desk: Hotline) -> None:
    made = []
    for number in range(7):
        await desk.after(hours=20)
        kind = "institution_query" if number % 2 else "public_service_query"
        body = call(kind, call=f"pbx-{number}", operator=f"seat-{number % 3}")
        made.append(await desk.ok("POST", "/v1/work-orders", body))
    seen: list[str] = []
    cursor = ""
    while True:
        page = await desk.ok("GET", f"/v1/work-orders?limit=3{cursor}")
        seen += [line["id"] for line in page["items"]]
        if page["cursor"] is None:
            break
        cursor = f"&cursor={page['cursor']}"
    assert seen == [order["id"] for order in reversed(made)]
    await desk.change(made[0], completed=True)

    async def found(query: str) -> set[int]:
        items = (await desk.ok("GET", f"/v1/work-orders?{query}"))["items"]
        return {seen[::-1].index(line["id"]) for line in items}

    assert await found("operator=seat-0") == {0, 3, 6}
    assert await found("kind=institution_query") == {1, 3, 5}
    assert await found("open=true&kind=public_service_query") == {2, 4, 6}
    assert await found("district=320102") == set(range(7))
    assert await found("district=110101") == set()
    # 03:00Z on the 26th, 23:00Z, 19:00Z on the 27th (the 28th in Nanjing) …
    days = [order["called_at"] for order in made]
    assert days[1] == "2026-09-26T23:00:00Z"
    assert await found("from=2026-09-27&to=2026-09-27") == {1}
    assert await found("to=2026-09-27") == {0, 1}
    assert (await desk.refused("GET", "/v1/work-orders?from=2026-09-27&to=2026-09-26"))[0] == 422
    assert (await desk.refused("GET", "/v1/work-orders/export?from=2026-09-27&to=2026-09-26"))[0] == 422
    assert (await desk.refused("GET", "/v1/work-orders?cursor=QUJD"))[0] == 400


async def test_what_is_late_in_a_case_makes_its_work_order_overdue(desk: Hotline) -> None:
    case = await desk.press()
    await desk.own(case)
    await desk.after(minutes=4)
    await desk.close(case)
    assert (await desk.ok("GET", "/v1/work-orders?overdue=true"))["items"] == []
    await desk.at(datetime(2026, 9, 26, 9, 0, tzinfo=UTC))  # 17:00 of the next day
    (line,) = (await desk.ok("GET", "/v1/work-orders?overdue=true"))["items"]
    assert (line["case_id"], line["due_at"]) == (str(case), "2026-09-26T09:00:00Z")


# Inspection


async def test_a_sample_is_drawn_once_judged_and_counted(desk: Hotline) -> None:
    for number in range(12):
        await desk.ok(
            "POST", "/v1/work-orders", call("institution_query", call=f"pbx-{number}", operator=f"seat-{number % 2}")
        )
    open_case = await desk.press()
    await desk.own(open_case, "seat-0")
    body = {"from": "2026-09-01", "to": "2026-09-30", "per_operator": 3, "seed": "2026-09", "by": "chief-1"}
    drawn = await desk.ok("POST", "/v1/inspections", body, role=Role.ADMIN)
    assert [item["operator"] for item in drawn["items"]] == ["seat-0"] * 3 + ["seat-1"] * 3
    assert {item["kind"] for item in drawn["items"]} == {"institution_query"}, "what goes on is not judged"
    await desk.ok("POST", "/v1/work-orders", call("institution_query", call="late", operator="seat-0"))
    assert await desk.ok("POST", "/v1/inspections", body, role=Role.ADMIN) == drawn
    assert (await desk.ok("POST", "/v1/inspections", body | {"seed": "x"}, role=Role.ADMIN))["id"] != drawn["id"]
    first, second = (item["work_order"] for item in drawn["items"][:2])
    judgement = {"accurate": False, "inspector": "chief-1", "remarks": "与录音不符"}
    for _ in range(2):
        judged = await desk.ok("POST", f"/v1/work-orders/{first}/judgement", judgement, role=Role.ADMIN)
    assert [(one["accurate"], one["remarks"]) for one in judged["judgements"]] == [(False, "与录音不符")]
    corrected = await desk.change(judged, record="更正：电话为 02500000032")
    judged = await desk.ok(
        "POST", f"/v1/work-orders/{first}/judgement", judgement | {"accurate": True}, role=Role.ADMIN
    )
    assert [(one["accurate"], one["version"]) for one in judged["judgements"]] == [
        (False, 1),
        (True, corrected["version"]),
    ]
    await desk.ok("POST", f"/v1/work-orders/{second}/judgement", judgement, role=Role.ADMIN)
    read = await desk.ok("GET", f"/v1/inspections/{drawn['id']}", role=Role.ADMIN)
    assert (read["judged"], read["accurate"]) == (2, 1)
    order = await desk.order_of(open_case)
    path = f"/v1/work-orders/{order['id']}/judgement"
    assert (await desk.refused("POST", path, judgement, role=Role.ADMIN))[0] == 409
    assert (await desk.refused("POST", "/v1/inspections", body | {"to": "2026-08-01"}, role=Role.ADMIN))[0] == 422


# Erasure


async def test_an_erasure_takes_what_a_work_order_says_and_leaves_that_it_was(desk: Hotline) -> None:
    case = await desk.press()
    await desk.own(case)
    await desk.close(case)
    order = await desk.order_of(case)
    complaint = await desk.ok("POST", "/v1/work-orders", call("complaint", case=str(case)))
    query = await desk.ok("POST", "/v1/work-orders", call("public_service_query", person_id="wang-xiulan"))
    assert query["person"]["name"] == "周桂芳", "what is said goes before what is registered"
    stranger = await desk.ok("POST", "/v1/work-orders", call("institution_query"))
    # Nothing of a case may be erased while somebody has yet to be told that it is over.
    async with desk.pool.connection() as conn:
        await conn.execute("UPDATE notice SET state = 'sent', ended_at = onekey_now() WHERE state = 'due'")
    await desk.ok("POST", "/v1/persons/wang-xiulan/erasure", role=Role.ADMIN)
    for gone in (order, complaint, query):
        read = await desk.ok("GET", f"/v1/work-orders/{gone['id']}")
        assert read["erased"]
        assert (read["person"], read["record"], read["number"], read["operator_name"]) == (None, None, None, None)
        assert (read["operator"], read["kind"], read["missing"]) == ("seat-7", gone["kind"], gone["missing"])
        status, why = await desk.refused("PATCH", f"/v1/work-orders/{gone['id']}", {"version": 9, "number": "1"})
        assert (status, "erased" in why) == (410, True)
    # What is no content goes on: that it was rated, and that nothing more follows.
    path = f"/v1/work-orders/{order['id']}"
    rated = await desk.ok("POST", f"{path}/rating", {"rating": "satisfied", "asked_by": "seat-7"})
    assert (rated["rating"], rated["erased"]) == ("satisfied", True)
    assert (await desk.refused("POST", f"{path}/rating", {"asked_by": "seat-7", "comment": "x"}))[0] == 410
    await desk.change(rated, completed=True)
    judged = await desk.ok("POST", f"{path}/judgement", {"accurate": True, "inspector": "chief-1"}, role=Role.ADMIN)
    assert judged["accurate"]
    text = (await desk.ok("GET", "/v1/work-orders/export?format=json"))[-1]
    assert "王秀兰" not in json.dumps(text, ensure_ascii=False)
    # Somebody who is not registered is forgotten with the work order of their call alone.
    for _ in range(2):
        await desk.ok("POST", f"/v1/work-orders/{stranger['id']}/erasure", role=Role.ADMIN)
    assert (await desk.ok("GET", f"/v1/work-orders/{stranger['id']}"))["erased"]
    chain = await desk.rows("SELECT journal_n, journal_head FROM cases WHERE id = %s", case)
    async with desk.pool.connection() as conn:
        assert verify(list(await journal.entries(conn, case)), head=bytes(chain[0][1]), count=chain[0][0]) is None


async def test_a_registered_person_is_filled_in_from_the_directory(desk: Hotline) -> None:
    body = call("public_service_query", person_id="chen-yuzhen")
    del body["person"]
    order = await desk.ok("POST", "/v1/work-orders", body)
    assert order["person"] == {"name": "陈玉珍", "age": 83, "phone": "+8613900000003"}
    assert (await desk.refused("POST", f"/v1/work-orders/{order['id']}/erasure", role=Role.ADMIN))[0] == 409


async def test_no_table_holds_in_clear_what_a_work_order_says(desk: Hotline) -> None:
    await desk.ok("PUT", "/v1/operators/seat-7", {"name": "陈晓"}, role=Role.ADMIN)
    case = await desk.press()
    await desk.own(case)
    await desk.change(await desk.order_of(case), record="老人摔倒在厨房")
    order = await desk.ok("POST", "/v1/work-orders", call("complaint"))
    await desk.ok(
        "POST", f"/v1/work-orders/{order['id']}/steps/forward", {"result": "done", "by": "x", "note": "转给李主任"}
    )
    await desk.ok(
        "POST", f"/v1/work-orders/{order['id']}/rating", {"rating": "fair", "asked_by": "x", "comment": "凑合"}
    )
    tables = await desk.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    kept = ""
    for (table,) in tables:
        kept += "".join(row[0] for row in await desk.rows(f"SELECT t::text FROM {table} t"))
    assert len(kept) > 10_000
    for secret in ("陈晓", "王秀兰", "周桂芳", "02500000031", "厨房", "送餐", "李主任", "凑合", "pbx-complaint"):
        for form in (secret, secret.encode().hex(), json.dumps(secret)[1:-1]):
            assert form not in kept, secret


# What must never be held up by a form


async def test_an_emergency_is_owned_and_closed_even_when_no_work_order_can_be_written(
    desk: Hotline, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    with psycopg.connect(database, autocommit=True) as owner:
        case = await desk.press()
        owner.execute("ALTER TABLE work_order RENAME TO away")
        status, _ = await desk.api.call(
            "POST", f"/v1/cases/{case}/acknowledgement", role=Role.OPERATOR, body={"operator": "seat-7"}
        )
        assert status == 200
        assert "the work order of a case cannot be written" in caplog.text
        owner.execute("ALTER TABLE away RENAME TO work_order")
    assert (await desk.ok("GET", "/v1/work-orders"))["items"] == []
    await desk.close(case)
    order = await desk.order_of(case)
    assert (order["operator"], order["record"].count("\n")) == ("seat-7", 4)
    assert (await desk.ok("GET", f"/v1/cases/{case}"))["journal"]["intact"]


# False alarms


async def test_a_false_alarm_is_counted_by_its_reason(desk: Hotline) -> None:
    for terminal, body, reason in [
        ("860000000000001", {"reason": "child"}, "child"),
        ("860000000000002", {"note": "碰到了按钮"}, "other"),
        ("860000000000004", {"reason": "other", "note": "邻居敲门"}, "other"),
    ]:
        case = await desk.press(terminal)
        path = f"/v1/cases/{case}/closure"
        plain = {"outcome": "false_alarm", "confirmed_by": "guardian"}
        assert (await desk.refused("POST", path, plain))[0] == 409
        assert (await desk.refused("POST", path, plain | {"reason": "other"}))[0] == 409
        assert (await desk.refused("POST", path, plain | {"reason": "why"}))[0] == 422
        assert (await desk.refused("POST", path, plain | {"outcome": "helped", "reason": "child"}))[0] == 409
        for _ in range(2):
            await desk.ok("POST", path, plain | body)
        assert await desk.rows("SELECT false_alarm FROM cases WHERE id = %s", case) == [(reason,)]
    figures = await desk.ok("GET", "/v1/figures")
    assert figures["false_alarms"] == {"other": 2, "child": 1}


# Names of operators


async def test_operators_are_named_and_forgotten(desk: Hotline) -> None:
    await desk.ok("PUT", "/v1/operators/seat-7", {"name": "陈晓"}, role=Role.ADMIN)
    await desk.ok("PUT", "/v1/operators/seat-7", {"name": "陈小"}, role=Role.ADMIN)
    assert await desk.ok("GET", "/v1/operators") == [{"id": "seat-7", "site": "nanjing-demo", "name": "陈小"}]
    body = call("institution_query")
    del body["operator_name"]
    order = await desk.ok("POST", "/v1/work-orders", body)
    assert order["operator_name"] == "陈小"
    order = await desk.change(order, operator="seat-8")
    assert (order["operator_name"], order["missing"]) == (None, ["operator_name"])
    await desk.ok("DELETE", "/v1/operators/seat-7", role=Role.ADMIN)
    assert await desk.ok("GET", "/v1/operators") == []
    assert (await desk.refused("DELETE", "/v1/operators/seat-7", role=Role.ADMIN))[0] == 404


# What a terminal takes back


async def test_a_fall_cancelled_at_the_terminal_ends_the_work_order_of_who_took_it(desk: Hotline) -> None:
    case = await desk.press("860000000000001", "fall")
    await desk.own(case)
    async with desk.pool.connection() as conn:
        later = "UPDATE notice SET state = 'due', ended_at = NULL, due_at = onekey_now() + interval '1 min'"
        await conn.execute(later.encode() + b" WHERE case_id = %s", (case,))
    await desk.after(seconds=2)
    touched = await take_word(
        desk.pool,
        desk.directory,
        "860000000000001",
        "cancel",
        seq=None,
        said_at=desk.now,
        is_working_day=Workdays().is_working_day,
        worker=None,
    )
    assert touched == [case]
    assert await desk.rows("SELECT state, false_alarm FROM cases WHERE id = %s", case) == [("closed", "other")]
    order = await desk.change(await desk.order_of(case), completed=True)
    assert "结案：误报（其他；cancelled at the terminal" in order["record"]
    assert "老人在通知前取消" in order["record"]
    assert await desk.rows("SELECT over FROM work_order WHERE id = %s", order["id"]) == [(True,)]
