"""The rescue report (R11, R14): what it says, and that it is a document that an office can read."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

import aiohttp
import psycopg
import pytest
from pypdf import PdfReader

from api.app import create_app
from gateway.keyring import Keyring
from gateway.report import fonts
from gateway.report.compose import compose_report
from gateway.report.pdf import render_pdf
from gateway.service.access import Role, create_key
from gateway.service.apply_site import apply_site
from gateway.service.case_report import read_report
from gateway.service.checkpoints import make_checkpoints
from gateway.service.persons import erase_person
from gateway.site.load import load
from gateway.site.model import Site
from gateway.store.directory import Directory
from gateway.store.pool import Pool
from schemas.report import ReportOut
from tests.conftest import ROOT
from tests.integration.api_client import Api, press, serving
from tests.integration.rescues import START, Rescue, rescuing
from tests.integration.test_api import settings_for
from tests.integration.test_proof import onekey


@pytest.fixture
async def rescue(database: str, site: str, directory: Directory) -> AsyncIterator[Rescue]:
    async with rescuing(database, directory) as one:
        yield one


async def reported(rescue: Rescue) -> ReportOut:
    return compose_report(await read_report(rescue.pool, rescue.directory, rescue.case, by="api:test"))


def text_of(document: bytes) -> str:
    """The text of a PDF without its line breaks, as another program reads it."""
    return "".join(page.extract_text() for page in PdfReader(io.BytesIO(document)).pages).replace("\n", "")


async def test_a_report_says_what_happened_when(rescue: Rescue, keyring: Keyring) -> None:
    case = await rescue.whole()
    await make_checkpoints(rescue.pool, keyring)
    report = await reported(rescue)
    assert (report.case, report.language, report.state, report.outcome) == (case, "zh", "closed", "hospital")
    assert [(person.name, person.age, person.phone) for person in report.persons] == [("王秀兰", 85, "+8613900000001")]
    assert report.address is not None
    assert report.address.approach == "从北门进，左转到底，电梯旁单元门密码见门卫"
    assert report.location is not None
    assert (report.location.source, report.location.accuracy_m, report.location.age_s) == ("gnss", 12.0, 25)
    assert report.note == "送至鼓楼医院急诊，女儿陪同。"
    assert (report.first_owner, report.safe_by, report.closed_by) == ("seat-7", "ambulance_120", "seat-7")

    times = report.times
    assert (times.stored_s, times.parties, times.spread_s, times.told) == (0.041, 6, 0.04, 6)
    assert (times.owned_s, times.answered_s, times.on_scene_s) == (6.2, 14.8, 412.0)
    assert (times.safe_s, times.closed_s) == (1710.0, 1770.0)
    first, second = report.presses
    assert (first.pressed_at, first.battery_pct) == (START - timedelta(seconds=0.6), 78)
    assert second.received_at == START + timedelta(seconds=130)

    said = {round(line.after_s, 3): line.text for line in report.timeline}
    assert said[0.0] == "收到报警：紧急呼叫（MQTT）"
    assert said[0.041] == "警情写入数据库并回执终端"
    assert said[0.06].startswith("同时通知 6 方：")
    assert said[0.06].endswith("首末相差 40 毫秒")
    assert said[6.2] == "seat-7 接警，首单负责到底"
    assert said[14.8] == "监护人 王小明 答复：正在赶来、约 6 分钟、王小明"
    assert said[130.0] == "老人再次按键：紧急呼叫"
    assert said[1710.0] == "120 急救 确认老人安全"
    assert said[1770.0] == "结案：送医（seat-7）"
    assert [line.at for line in report.timeline] == sorted(line.at for line in report.timeline)
    assert any(line.kind == "breached" and "及时呈报领导" in line.text for line in report.timeline)

    parties = {party.role: party for party in report.parties}
    assert set(parties) == {"guardian", "hotline", "service_center", "community", "district", "ambulance_120"}
    community = parties["community"]
    assert (community.tries, community.channel, community.told_after_s) == (2, "webhook", 9.023)
    assert [answer.answer for answer in community.answers] == ["cannot"]
    assert [answer.answer for answer in parties["ambulance_120"].answers] == ["accepted", "arrived"]
    assert parties["hotline"].answers == []

    assert {(fact.fact, fact.role) for fact in report.facts} >= {
        ("informed", "guardian"),
        ("dispatched", "ambulance_120"),
        ("on_scene", "ambulance_120"),
    }
    tasks = {task.step: task for task in report.tasks}
    assert (tasks["take"].state, tasks["take"].result, tasks["take"].clause) == ("done", "taken", "R16")
    assert tasks["supervisor"].breached_at is not None
    follow_up = tasks["follow-up"]
    assert (follow_up.aftercare, follow_up.state, follow_up.seat) == (True, "open", "first")
    assert follow_up.due_at == datetime(2026, 11, 23, 9, 0, tzinfo=UTC)  # 17:00 next day in Nanjing (R11)

    proof = report.proof
    assert (proof.intact, proof.checkpoint_flaws, proof.erased) == (True, [], 0)
    assert proof.checkpoint is not None
    assert (proof.checkpoint.number, proof.checkpoint.entries) == (1, proof.entries)
    assert [(seen.who, seen.what) for seen in (await reported(rescue)).disclosures] == [("api:test", "report")]


async def test_what_ails_a_person_is_not_in_a_report(rescue: Rescue) -> None:
    await rescue.whole()
    report = await reported(rescue)
    assert "青霉素" not in report.model_dump_json()
    assert "青霉素" not in text_of(render_pdf(report))


async def test_a_report_is_a_document_of_one_page(rescue: Rescue, keyring: Keyring) -> None:
    await rescue.press()
    await rescue.deliver(0.06)
    await rescue.own(6.2)
    await rescue.answer(14.8, "guardian", "coming", minutes=6)
    await rescue.answer(31, "ambulance_120", "accepted")
    await rescue.answer(412, "ambulance_120", "arrived")
    await rescue.advance()
    await rescue.close(1710)
    await make_checkpoints(rescue.pool, keyring)
    document = render_pdf(await reported(rescue))
    assert document.startswith(b"%PDF-")
    reader = PdfReader(io.BytesIO(document))
    assert len(reader.pages) == 1
    assert [round(float(side)) for side in reader.pages[0].mediabox[2:]] == [595, 842]  # A4
    assert reader.metadata is not None
    assert str(rescue.case) in str(reader.metadata.title)
    text = text_of(document)
    for words in (
        "紧急救援报告",
        "王秀兰",
        "10:02:03.1",
        "+41 毫秒",
        "首末相差 40 毫秒",
        "+6.2 秒",
        "seat-7 接警，首单负责到底",
        "120 急救 确认老人安全",
        "次日 17 时前回访",
        "11-23 17:00",
        "完整，共",
        "第 1 页 / 共 1 页",
        str(rescue.case),
    ):
        assert words in text, words


async def test_a_long_case_goes_on_to_further_pages(rescue: Rescue) -> None:
    await rescue.press()
    for n in range(1, 60):
        await rescue.press(n * 40)
        await rescue.answer(n * 40 + 5, "guardian", "coming", minutes=n)
    pages = PdfReader(io.BytesIO(render_pdf(await reported(rescue)))).pages
    assert len(pages) > 2
    assert f"第 {len(pages)} 页 / 共 {len(pages)} 页" in pages[-1].extract_text()
    assert "事件" in pages[1].extract_text(), "the head of a table stands on every page"


async def test_an_erased_person_leaves_a_report_that_proves_and_tells_nobody_who_it_was(
    rescue: Rescue, keyring: Keyring
) -> None:
    await rescue.whole()
    await make_checkpoints(rescue.pool, keyring)
    rescue.at(4000)
    await erase_person(rescue.pool, keyring, "wang-xiulan", by="api:test")
    report = await reported(rescue)
    assert (report.erased, report.persons, report.address) == (True, [], None)
    assert (report.location, report.note) == (None, None)
    assert report.proof.intact
    assert [line.kind for line in report.timeline][:4] == ["alarm", "stored", "addressed", "tries"]
    text = text_of(render_pdf(report))
    assert "个人信息已按要求永久删除，日志链仍可验证" in text
    for words in ("王秀兰", "13900000001", "鼓楼", "32.06", "13900000099", "示范小区"):
        assert words not in text, words


async def test_a_broken_journal_is_said_in_the_report(rescue: Rescue, database: str) -> None:
    await rescue.whole()
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as owner:
        await owner.execute(
            "UPDATE journal SET sealed = set_byte(sealed, 30, 1 + get_byte(sealed, 30) % 255) WHERE n = 9"
        )
    report = await reported(rescue)
    assert not report.proof.intact
    assert "不完整：entry 9 was altered" in text_of(render_pdf(report))


async def test_a_report_speaks_the_language_of_its_site(pool: Pool, keyring: Keyring, database: str) -> None:
    text = (ROOT / "examples" / "nanjing.yaml").read_text(encoding="utf-8").replace("locale: zh-CN", "locale: en")
    document = await asyncio.to_thread(_site_of, text)
    await apply_site(pool, keyring, document, prune=False)
    async with rescuing(database, Directory(keyring)) as rescue:
        await rescue.whole()
        report = await reported(rescue)
    assert report.language == "en"
    assert report.timeline[1].text == "Case stored, the terminal is told so"
    assert {task.title for task in report.tasks} >= {"Take the case within 10 s"}
    text = text_of(render_pdf(report))
    assert "Rescue report" in text
    assert "seat-7 owns the case and stays responsible" in text


def _site_of(text: str) -> Site:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "site.yaml"
        file.write_text(text, encoding="utf-8")
        return load(file).site


async def test_hostile_texts_stay_texts(pool: Pool, keyring: Keyring, database: str) -> None:
    hostile = "<b>&amp; <font color='red'>x</font> ]]> <img src='file:///etc/passwd'/> 王"
    text = (ROOT / "examples" / "nanjing.yaml").read_text(encoding="utf-8")
    text = text.replace("name: 王秀兰", f"name: {json.dumps(hostile)}").replace(
        "name: 南京市急救中心", f"name: {json.dumps(hostile)}"
    )
    await apply_site(pool, keyring, await asyncio.to_thread(_site_of, text), prune=False)
    async with rescuing(database, Directory(keyring)) as rescue:
        await rescue.press()
        await rescue.deliver(0.06)
        await rescue.answer(5, "guardian", "cannot", reason=f"{hostile}\x07\u202e")
        report = await reported(rescue)
    assert "<img src='file:///etc/passwd'/>" in text_of(render_pdf(report)).replace("  ", " ")


async def test_a_case_of_nobody_has_a_report(pool: Pool, directory: Directory, site: str) -> None:
    raised = await press(pool, directory, terminal="nobody-s", kinds=("unreadable",))
    report = compose_report(await read_report(pool, directory, raised.case_id, by="cli"))
    assert (report.persons, report.address, report.location, report.tasks) == ([], None, None, [])
    assert "无法识别的报警" in text_of(render_pdf(report))


# Fonts


@pytest.fixture
def no_fonts(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A machine without any font."""
    monkeypatch.setattr(fonts, "_FOLDERS", ("/nonexistent",))
    fonts.font_for.cache_clear()
    yield
    fonts.font_for.cache_clear()


async def test_without_a_font_the_viewer_has_to_bring_one(rescue: Rescue, no_fonts: None) -> None:
    await rescue.whole()
    document = render_pdf(await reported(rescue))
    assert b"/STSong-Light" in document
    assert b"/UniGB-UCS2-H" in document
    assert "紧急救援报告" in text_of(document)


def test_a_font_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    wrong = tmp_path / "font.ttf"
    wrong.write_bytes(b"no font")
    latin = next(Path(fonts.__file__).parents[2].glob(".venv/**/DejaVuSans.ttf"), None)
    for path in [wrong, tmp_path / "none.ttf", *([latin] if latin is not None else [])]:
        with pytest.raises(fonts.ConfigError, match="no TrueType font with Chinese"):
            fonts.font_for(path)


# From outside


async def test_the_api_gives_a_report_as_json_and_as_a_document(
    database: str, pool: Pool, keyring: Keyring, rescue: Rescue
) -> None:
    case = await rescue.whole()
    _, key = await create_key(pool, keyring, name="desk", role=Role.OPERATOR)
    async with serving(create_app(settings_for(database), pool=pool)) as url, aiohttp.ClientSession() as http:
        api = Api(url, http, {Role.OPERATOR: key})
        status, report = await api.call("GET", f"/v1/cases/{case}/report", role=Role.OPERATOR)
        assert (status, report["case"], report["times"]["owned_s"]) == (200, str(case), 6.2)
        accepting = api.headers(Role.OPERATOR) | {"Accept": "application/pdf"}
        for path, headers in (("report", accepting), ("report.pdf", api.headers(Role.OPERATOR))):
            async with http.get(f"{url}/v1/cases/{case}/{path}", headers=headers) as response:
                assert (response.status, response.content_type) == (200, "application/pdf")
                assert "王秀兰" in text_of(await response.read())
        assert (await api.call("GET", f"/v1/cases/{UUID(int=0)}/report", role=Role.OPERATOR))[0] == 404


async def test_the_command_writes_a_report(rescue: Rescue, database: str, tmp_path: Path) -> None:
    case = await rescue.whole()
    file = tmp_path / "report.pdf"
    run = ("case", "report", str(case))
    code, said, errors = await asyncio.to_thread(onekey, database, tmp_path, *run, "--pdf", str(file))
    assert code == 0, errors
    assert "王秀兰" in text_of(file.read_bytes())
    code, said, errors = await asyncio.to_thread(onekey, database, tmp_path, *run, "--json")
    assert ReportOut.model_validate_json(said).case == case
    code, said, errors = await asyncio.to_thread(onekey, database, tmp_path, *run)
    assert (code, errors) == (0, "")
    assert "seat-7 接警，首单负责到底" in said
