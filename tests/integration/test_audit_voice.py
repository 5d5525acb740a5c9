"""What was found reaches people: by the auditor's own webhook, without any dispatcher, and as a technical case (I3)."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest
from aiohttp import web

from firmware_sim.responders import Fails, FailsFirst, Hangs, Responder, Responders
from gateway.audit.auditor import Auditor
from gateway.keyring import Keyring
from gateway.service.report_findings import report_findings
from gateway.store.directory import Directory
from tests.integration.desk import Desk, desk_in
from tests.integration.watching import Watch, watching

NANJING = "860000000000001"
SECRET = "whsec_aG90bGluZS1kZW1vLXNlY3JldC0wMDAwMDAwMDAwMDA="
BROKEN = "UPDATE cases SET owned_at = NULL"
MENDED = "UPDATE cases SET owned_at = opened_at"


class Heard:
    """A city with a case, its auditor, and the platform of the hotline at the other end of the webhook."""

    def __init__(self, watch: Watch, responders: Responders) -> None:
        self.watch = watch
        self.responders = responders

    @property
    def desk(self) -> Desk:
        return self.watch.desk

    async def told(self) -> None:
        """Wait until everything there is to tell was taken."""
        async with asyncio.timeout(20):
            while not await self.watch.auditor.tell():
                await asyncio.sleep(0.1)

    def states(self) -> list[list[tuple[str, str]]]:
        """Kind and state of the findings in each message."""
        return [[(one.kind, one.state) for one in message.data.findings] for _, _, message in self.responders.audits]


@asynccontextmanager
async def city(
    database: str, directory: Directory, keyring: Keyring, responders: Responders, *, channels: Any = None
) -> AsyncIterator[Heard]:
    webhook = {"kind": "webhook", "url": responders.url("hotline-12349"), "secret": SECRET}

    def change(site: dict[str, Any]) -> None:
        for party in site["parties"]:
            if party["id"] == "hotline-12349":
                party["channels"] = [{"kind": "stream"}, webhook] if channels is None else channels

    async with (
        desk_in(database, directory, keyring, "nanjing", change=change) as desk,
        watching(desk, database, keyring) as watch,
    ):
        case = await desk.press(NANJING)
        await desk.own(case)
        await watch.clean()
        yield Heard(watch, responders)


@pytest.fixture
async def responders() -> AsyncIterator[Responders]:
    party = Responder(party="hotline-12349", role="hotline", secret=SECRET)
    async with Responders([party]).serving() as played:
        yield played


@pytest.fixture
async def heard(database: str, directory: Directory, keyring: Keyring, responders: Responders) -> AsyncIterator[Heard]:
    async with city(database, directory, keyring, responders) as found:
        yield found


async def test_a_finding_is_told_once_and_again_every_ten_minutes_and_when_it_is_over(heard: Heard) -> None:
    await heard.watch.sabotage(BROKEN)
    finding = await heard.watch.raises("owner_without_time")
    await heard.told()
    await heard.told()
    [(_, party, message)] = heard.responders.audits  # its signature was verified, or it would not be in there
    assert (party, message.data.site, message.data.open) == ("hotline-12349", "nanjing-demo", 1)
    [told] = message.data.findings
    assert (told.id, told.kind, told.state, told.case) == (finding.id, finding.kind, "raised", finding.case_id)
    assert told.text == finding.words
    assert "王秀兰" not in message.model_dump_json(), "nothing personal"
    assert heard.responders.arrivals == [], "the dispatcher of the desk sends nothing by itself"

    await heard.desk.at(9 * 60)
    await heard.watch.round()
    await heard.told()
    assert len(heard.responders.audits) == 1
    await heard.desk.at(11 * 60)
    await heard.told()
    assert heard.states()[1:] == [[("owner_without_time", "holds")]]

    await heard.watch.sabotage(MENDED)
    await heard.watch.clean()
    await heard.told()
    assert len(heard.responders.audits) == 2, "it may come back at once"
    await heard.desk.at(12 * 60)
    await heard.told()
    assert heard.states()[2:] == [[("owner_without_time", "cleared")]]
    await heard.desk.at(40 * 60)
    await heard.watch.clean()
    await heard.told()
    assert len(heard.responders.audits) == 3
    assert len({name for name, _, _ in heard.responders.audits}) == 3


async def test_what_is_not_taken_is_told_again_under_the_same_id(heard: Heard) -> None:
    heard.responders.behave("hotline-12349", FailsFirst(times=2))
    await heard.watch.sabotage(BROKEN)
    await heard.watch.raises("owner_without_time")
    assert not await heard.watch.auditor.tell()
    assert await heard.desk.rows("SELECT told_at FROM finding") == [(None,)]
    await heard.told()
    assert len(heard.responders.audits) == 3
    assert len({name for name, _, _ in heard.responders.audits}) == 1
    assert await heard.desk.rows("SELECT told_at IS NOT NULL FROM finding") == [(True,)]


async def test_what_comes_back_after_its_end_was_told_is_told_anew(heard: Heard) -> None:
    await heard.watch.sabotage(BROKEN)
    await heard.watch.raises("owner_without_time")
    await heard.told()
    await heard.watch.sabotage(MENDED)
    await heard.watch.round()
    await heard.desk.at(40)
    await heard.told()
    await heard.watch.sabotage(BROKEN)
    await heard.watch.round()
    await heard.told()
    assert [state for [(_, state)] in heard.states()] == ["raised", "cleared", "raised"]


async def test_a_fallback_that_hangs_keeps_the_auditor_from_nothing(heard: Heard, keyring: Keyring) -> None:
    heard.responders.behave("hotline-12349", Hangs(30))
    await heard.watch.sabotage(BROKEN)
    auditor = Auditor(heard.watch.auditor._pool, keyring, every_s=0.1)
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(auditor.run())
        while not heard.responders.audits:
            await asyncio.sleep(0.05)
        heard.desk.turn(seconds=1)
        seen = heard.desk.now
        while (seen,) not in await heard.desk.rows("SELECT at FROM audit_run"):
            await asyncio.sleep(0.05)
        running.cancel()


async def test_a_site_that_cannot_be_told_is_said_loudly(
    database: str,
    directory: Directory,
    keyring: Keyring,
    responders: Responders,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with city(database, directory, keyring, responders, channels=[{"kind": "stream"}]) as heard:
        await heard.watch.sabotage(BROKEN)
        await heard.watch.raises("owner_without_time")
        assert not await heard.watch.auditor.tell()
        await heard.watch.auditor.tell()
        loud = [record for record in caplog.records if record.levelno == logging.CRITICAL]
        assert len(loud) == 1
        assert "webhook" in loud[0].getMessage()
        await heard.watch.round()
        assert await heard.desk.rows("SELECT deaf FROM audit_run") == [(["nanjing-demo"],)]


async def test_more_than_one_message_can_hold_comes_in_several(heard: Heard) -> None:
    await heard.watch.sabotage(
        "INSERT INTO finding (key, kind, site_id, words, detail, first_seen, last_seen, raised_at) "
        "SELECT 'x' || g, 'no_legs', 'nanjing-demo', '{}', '{}', now(), now(), now() FROM generate_series(1, 120) g"
    )
    await heard.told()
    sizes = [(len(message.data.findings), message.data.more) for _, _, message in heard.responders.audits]
    assert sizes == [(50, 70), (50, 20), (20, 0)]


# As a case


async def test_a_finding_becomes_a_technical_case_of_the_site_for_its_fallback(
    heard: Heard, directory: Directory
) -> None:
    await heard.watch.sabotage(BROKEN)
    finding = await heard.watch.raises("owner_without_time")
    [case] = await report_findings(heard.desk.pool, directory)
    assert await report_findings(heard.desk.pool, directory) == [], "once"
    await heard.desk.act()
    rows = await heard.desk.rows(
        "SELECT class, kinds, site_id, district, subject, problem, terminal_id FROM cases WHERE id = %s", case
    )
    [(class_, kinds, site, district, subject, problem, terminal)] = rows
    assert (class_, kinds, site, district, terminal) == ("technical", ["audit"], "nanjing-demo", "320102", None)
    assert subject == "terminal:~nanjing-demo"
    assert "没有接手时间" in problem
    assert str(finding.case_id) in problem
    assert await heard.desk.legs(case) == {"hotline-12349": "delivered"}
    assert await heard.desk.told(case, "hotline") == ["fallback"]
    assert await heard.desk.rows("SELECT audit_case FROM finding") == [(case,)]
    await heard.desk.at(30)
    assert {one.kind for one in (await heard.watch.round()).open} == {"owner_without_time"}, (
        "the case is healthy itself"
    )


async def test_further_findings_join_the_case_at_most_once_a_minute(heard: Heard, directory: Directory) -> None:
    await heard.watch.sabotage(BROKEN)
    await heard.watch.raises("owner_without_time")
    [case] = await report_findings(heard.desk.pool, directory)
    await heard.watch.sabotage("UPDATE cases SET journal_n = journal_n - 1 WHERE class = 'emergency'")
    await heard.watch.raises("journal_broken")
    assert await report_findings(heard.desk.pool, directory) == []
    heard.desk.turn(seconds=61)
    assert await report_findings(heard.desk.pool, directory) == [case]
    await heard.desk.deliver()
    assert await heard.desk.told(case, "hotline") == ["fallback", "pressed_again"]
    assert "日志链" in (await heard.desk.rows("SELECT problem FROM cases WHERE id = %s", case))[0][0]


async def test_a_case_that_somebody_holds_keeps_the_auditor_from_nothing(heard: Heard, directory: Directory) -> None:
    await heard.watch.sabotage(BROKEN)
    await heard.watch.raises("owner_without_time")
    [case] = await report_findings(heard.desk.pool, directory)
    heard.desk.turn(seconds=61)
    await heard.watch.sabotage("UPDATE cases SET journal_n = journal_n - 1 WHERE class = 'emergency'")
    await heard.watch.raises("journal_broken")
    async with heard.desk.pool.connection() as conn, conn.transaction():
        await conn.execute("SELECT FROM cases WHERE id = %s FOR UPDATE", (case,))
        async with asyncio.timeout(15), asyncio.TaskGroup() as tasks:
            refused = tasks.create_task(_refused(heard, directory))
            await asyncio.sleep(0.2)
            await heard.watch.round()
        assert refused.result()
    assert await heard.desk.rows(
        "SELECT count(*) FROM finding WHERE audit_case IS NULL AND kind = 'journal_broken'"
    ) == [(1,)]
    assert await report_findings(heard.desk.pool, directory) == [case]


async def _refused(heard: Heard, directory: Directory) -> bool:
    with pytest.raises(psycopg.errors.LockNotAvailable):
        await report_findings(heard.desk.pool, directory)
    return True


async def test_a_finding_about_the_case_of_findings_makes_no_further_one(heard: Heard, directory: Directory) -> None:
    await heard.watch.sabotage(BROKEN)
    await heard.watch.raises("owner_without_time")
    [case] = await report_findings(heard.desk.pool, directory)
    heard.desk.turn(seconds=70)  # nobody sends its message either
    found = {one.kind for one in (await heard.watch.round()).open if one.case_id == case}
    assert found == {"notice_late"}
    assert await report_findings(heard.desk.pool, directory) == [case], "what is new of the emergency joins"
    heard.desk.turn(seconds=70)
    await heard.watch.sabotage("UPDATE finding SET audit_case = %s WHERE case_id <> %s", case, case)
    assert await report_findings(heard.desk.pool, directory) == []


async def test_a_terminal_that_sends_the_word_audit_still_calls_for_help(heard: Heard, directory: Directory) -> None:
    await heard.watch.sabotage(BROKEN)
    await heard.watch.raises("owner_without_time")
    await report_findings(heard.desk.pool, directory)
    case = await heard.desk.press("860000000000002", "audit")
    assert await heard.desk.rows("SELECT class FROM cases WHERE id = %s", case) == [("emergency",)]
    unknown = await heard.desk.press("nobody-knows", "low_battery")
    assert await heard.desk.rows("SELECT kinds FROM cases WHERE id = %s", unknown) == [(["low_battery"],)]


# The dead man's switch


async def test_the_dead_mans_switch_hears_of_clean_rounds_alone(heard: Heard, keyring: Keyring) -> None:
    pings = []

    async def ping(_: web.Request) -> web.Response:
        pings.append(1)
        return web.Response()

    app = web.Application()
    app.router.add_get("/ping", ping)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/ping"
    try:
        for broken in (True, False):
            await heard.watch.sabotage(BROKEN if broken else MENDED)
            await heard.watch.sabotage("UPDATE worker SET seen_at = clock_timestamp() + interval '1 minute'")
            auditor = Auditor(heard.watch.auditor._pool, keyring, every_s=0.1, ping_url=url)
            async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
                running = tasks.create_task(auditor.run())
                if broken:
                    while not heard.responders.audits:
                        await asyncio.sleep(0.05)
                    assert pings == []
                else:
                    while not pings:
                        await asyncio.sleep(0.05)
                running.cancel()
    finally:
        await runner.cleanup()


async def test_nothing_of_it_reaches_a_log_but_ids(heard: Heard, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    heard.responders.behave("hotline-12349", Fails(500))
    await heard.watch.sabotage(BROKEN)
    await heard.watch.raises("owner_without_time")
    await heard.watch.auditor.tell()
    told = "\n".join(f"{record.getMessage()} {vars(record)}" for record in caplog.records if record.name != "aiohttp")
    assert "500" in told
    for secret in (SECRET, heard.responders.url("hotline-12349"), "王秀兰", "+8613900000001"):
        assert secret not in told
