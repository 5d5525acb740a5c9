"""Figures over cases that were lived through the API, and over a year of generated ones."""

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from gateway.domain.case import Fact
from gateway.domain.figures import figure_line, waits_of
from gateway.domain.outbox import PartyAnswer
from gateway.keyring import Keyring
from gateway.service.access import Role
from gateway.service.apply_site import apply_site
from gateway.service.case_commands import answer_leg
from gateway.service.figures import figures_of
from gateway.service.run_procedures import store_shipped
from gateway.site.load import load
from gateway.store.directory import Directory
from gateway.store.pool import open_pool
from tests.conftest import ROOT
from tests.integration.hotline import Hotline, hotline
from tests.integration.many_cases import fill

# Noon of a Monday in Nanjing.
START = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)
ZHAO = "860000000000004"


@pytest.fixture
async def desk(database: str, keyring: Keyring) -> AsyncIterator[Hotline]:
    async with hotline(database, keyring, START) as opened:
        yield opened


async def rescue(
    desk: Hotline, terminal: str, *, owned_after: float, by: str = "seat-7", closed_by: str | None = None
) -> Any:
    """One emergency from the press to the closure half an hour later."""
    case = await desk.press(terminal)
    await desk.after(seconds=owned_after)
    await desk.own(case, by)
    await desk.after(minutes=30)
    await desk.close(case, operator=closed_by or by)
    return case


async def test_the_figures_of_a_day(desk: Hotline) -> None:
    quick = await rescue(desk, ZHAO, owned_after=4)
    await desk.after(hours=1)
    slow = await rescue(desk, ZHAO, owned_after=31, closed_by="seat-8")
    await desk.after(hours=1)
    # Somebody of the family confirmed long before an operator took it.
    heard = await desk.press()
    await desk.after(seconds=9)
    ((leg,),) = await desk.rows("SELECT id FROM leg WHERE case_id = %s AND role = 'guardian'", heard)
    await answer_leg(desk.pool, desk.directory, leg, PartyAnswer("coming"), via="api")
    await desk.after(seconds=40)
    await desk.own(heard, "seat-8")
    await desk.close(heard, "false_alarm", reason="accidental")
    alone = await desk.press(ZHAO)  # and nobody ever takes this one
    await desk.after(minutes=10)

    order = await desk.order_of(quick)
    await desk.ok("POST", f"/v1/work-orders/{order['id']}/rating", {"rating": "dissatisfied", "asked_by": "seat-7"})
    other = await desk.order_of(slow)
    await desk.ok("POST", f"/v1/work-orders/{other['id']}/rating", {"rating": "fair", "asked_by": "seat-7"})
    judgement = {"accurate": True, "inspector": "chief-1"}
    await desk.ok("POST", f"/v1/work-orders/{order['id']}/judgement", judgement, role=Role.ADMIN)
    await desk.change(order | {"version": 4}, operator_name="陈晓")

    read = await desk.ok("GET", "/v1/figures?from=2026-11-23&to=2026-11-23")
    total = read["total"]
    assert (total["emergencies"], total["orders"]) == (4, 3)
    assert total["answered"] == {"count": 1, "of": 4, "share": 0.25, "bar": 100, "met": False}
    assert (total["connected"]["count"], total["connected"]["of"]) == (3, 4)
    assert (total["first_operator"]["count"], total["first_operator"]["of"]) == (2, 3)
    assert (total["rated"]["count"], total["rated"]["of"]) == (2, 3)
    assert total["satisfied"] == {"count": 1, "of": 2, "share": 0.5, "bar": 90, "met": False}
    assert total["accurate"] == {"count": 1, "of": 1, "share": 1.0, "bar": 90, "met": True}
    assert (total["complete"]["count"], total["complete"]["of"]) == (1, 3)
    assert read["first_human"] == {
        "emergencies": 4,
        "unconfirmed": 1,
        "p50_s": 9.0,
        "p95_s": None,
        "p99_s": None,
    }
    assert [(one["case_id"], one["wait_s"], one["operator"]) for one in read["worst"]] == [
        (str(alone), None, None),
        (str(slow), 31.0, "seat-7"),
        (str(heard), 9.0, "seat-8"),
        (str(quick), 4.0, "seat-7"),
    ]
    assert await desk.ok("GET", read["worst"][0]["link"])
    assert read["false_alarms"] == {"accidental": 1}
    late = {(one["procedure"], one["step"]): one["late"] for one in read["breaches"]}
    assert late["nanjing-emergency", "take"] == 3
    assert [one["name"] for one in read["operators"]] == ["seat-7", "seat-8", None]
    assert read["operators"][2]["connected"]["count"] == 0

    only = await desk.ok("GET", "/v1/figures?operator=seat-8")
    assert (only["total"]["emergencies"], only["total"]["orders"]) == (1, 1)
    assert (await desk.ok("GET", "/v1/figures?district=110101"))["total"]["emergencies"] == 0

    # Next day at 17:00 a follow-up is due: of three one was done in time, one late, one never.
    tasks = await desk.rows("SELECT case_id, id FROM step WHERE name = 'follow-up' ORDER BY planned_at")
    assert [case for case, _ in tasks] == [quick, slow, heard]
    await desk.at(datetime(2026, 11, 24, 8, 59, tzinfo=UTC))
    await _done(desk, tasks[0][1])
    await desk.after(hours=1)
    await _done(desk, tasks[1][1])
    figures = await desk.ok("GET", "/v1/figures?from=2026-11-23&to=2026-11-23")
    assert figures["total"]["follow_ups"] == {"count": 1, "of": 3, "share": 1 / 3, "bar": None, "met": None}


async def _done(desk: Hotline, task: Any) -> None:
    from gateway.service.desk import complete_task
    from gateway.service.workdays import Workdays

    await complete_task(
        desk.pool,
        desk.directory,
        task,
        result="done",
        by="seat-7",
        note=None,
        is_working_day=Workdays().is_working_day,
    )


async def test_days_end_at_midnight_of_the_site_and_tests_never_count(desk: Hotline) -> None:
    await desk.at(datetime(2026, 11, 23, 15, 59, 50, tzinfo=UTC))
    await rescue(desk, ZHAO, owned_after=1)  # 23:59:50 in Nanjing
    await desk.at(datetime(2026, 11, 24, 15, 59, 59, tzinfo=UTC))
    await desk.ok("POST", f"/v1/terminals/{ZHAO}/test-windows", {"minutes": 9, "reason": "x"}, role=Role.ADMIN)
    await desk.press(ZHAO, test=True)
    await desk.press("860000000000003", "low_battery")
    for first, last, emergencies in [("23", "23", 1), ("24", "24", 0), ("22", "24", 1), ("22", "22", 0)]:
        read = await desk.ok("GET", f"/v1/figures?from=2026-11-{first}&to=2026-11-{last}")
        assert read["total"]["emergencies"] == emergencies, first
    async with desk.pool.connection() as conn:
        await conn.execute("UPDATE cases SET test = true")
    assert (await desk.ok("GET", "/v1/figures"))["total"]["emergencies"] == 0


async def test_a_press_that_can_still_be_taken_in_time_counts_against_nobody(desk: Hotline) -> None:
    await desk.press(ZHAO)
    await desk.after(seconds=9)
    assert (await desk.ok("GET", "/v1/figures"))["total"]["emergencies"] == 0
    await desk.after(seconds=1)
    read = await desk.ok("GET", "/v1/figures")
    assert (read["total"]["emergencies"], read["total"]["answered"]["count"]) == (1, 0)
    assert read["first_human"]["unconfirmed"] == 1


async def test_a_complaint_is_in_time_or_not(desk: Hotline) -> None:
    def complaint(number: int) -> dict[str, Any]:
        return {"call": f"pbx-{number}", "kind": "complaint", "operator": "seat-7"}

    orders = [await desk.ok("POST", "/v1/work-orders", complaint(number)) for number in range(3)]
    path = "/v1/work-orders/{}/steps/settle"
    await desk.ok("POST", path.format(orders[0]["id"]), {"result": "satisfied", "by": "seat-7"})
    share = (await desk.ok("GET", "/v1/figures"))["total"]["complaints"]
    assert (share["count"], share["of"]) == (1, 1), "what is not due yet counts against nobody"
    await desk.at(datetime(2026, 11, 26, 16, 0, tzinfo=UTC))  # midnight after the third working day
    await desk.ok("POST", path.format(orders[1]["id"]), {"result": "satisfied", "by": "seat-7"})
    read = await desk.ok("GET", "/v1/figures")
    assert (read["total"]["complaints"]["count"], read["total"]["complaints"]["of"]) == (1, 3)
    assert {"procedure": "complaint", "step": "settle", "late": 2} in read["breaches"]
    assert (await desk.ok("GET", "/v1/figures?operator=seat-8"))["breaches"] == []


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("from=2026-11-22&to=2026-11-21", "swap"),
        ("from=2026-11-24", "still to come"),
        ("from=1999-01-01", "ten years"),
        ("from=2026-02-30", "from"),
    ],
)
async def test_a_period_that_cannot_be_is_refused_with_a_reason(desk: Hotline, query: str, says: str) -> None:
    status, why = await desk.refused("GET", f"/v1/figures?{query}")
    assert status == 422
    assert says in why


async def test_a_fact_moves_the_first_human_only_forward(desk: Hotline) -> None:
    case = await desk.press(ZHAO)

    async def human() -> Any:
        return (await desk.rows("SELECT human_at FROM cases WHERE id = %s", case))[0][0]

    from gateway.service.desk import set_fact
    from gateway.service.workdays import Workdays

    async def fact(fact: Fact, about: str) -> None:
        await set_fact(
            desk.pool,
            desk.directory,
            case,
            fact,
            role="operator",
            about=about,
            by="seat-7",
            is_working_day=Workdays().is_working_day,
        )

    await desk.after(seconds=3)
    await fact(Fact.HEARD, "person")
    assert await human() is None, "that the person was heard is no human who comes"
    await desk.after(seconds=3)
    await fact(Fact.INFORMED, "guardian")
    assert await human() == START + timedelta(seconds=6)
    await desk.after(seconds=3)
    await desk.own(case)
    await fact(Fact.ON_SCENE, "community")
    assert await human() == START + timedelta(seconds=6)


# A year


async def test_a_year_of_a_busy_hotline_is_counted_at_once(database: str, keyring: Keyring) -> None:
    directory = Directory(keyring)
    async with open_pool(database, name="test", size=2) as pool:
        await store_shipped(pool)
        await apply_site(pool, keyring, load(ROOT / "examples" / "nanjing.yaml").site, prune=False)
        with psycopg.connect(database, autocommit=True) as owner:
            fill(owner, site="nanjing-demo", count=20_000)
        first = datetime.now(UTC).date() - timedelta(days=365)
        await figures_of(pool, directory, first=first)  # the first one reads everything from the disk
        began = time.monotonic()
        found = await figures_of(pool, directory, first=first)
        took_s = time.monotonic() - began
    line, waits = figure_line(found.total), waits_of(found.total)
    assert (line.emergencies, line.orders, line.connected.count) == (18_000, 20_000, 18_000)
    assert len(found.operators) == 40
    assert len(found.districts) == 12
    assert line.answered.count / line.emergencies == pytest.approx(8 / 9, abs=0.02)
    assert waits.p50_s == pytest.approx(6.5, abs=0.2)
    assert found.worst[0].wait_s == waits.p99_s or (found.worst[0].wait_s or 0) > (waits.p99_s or 0)
    assert took_s < 1.5, "100,000 cases take 0.6 s on an idle machine of two cores"
