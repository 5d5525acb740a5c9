"""The work order on paper: the form of table C.1, safe against what people type, one sheet of A4."""

import base64
import hashlib
import os
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from api.order_page import HEADERS, document
from api.order_words import COLUMNS, WORDS, row_of
from gateway.domain.work_order import RATINGS, Kind
from schemas.work_order import NeedsFields, OrderOut, ReferralFields

NOW = datetime(2026, 11, 26, 2, 0, tzinfo=UTC)
BASE: dict[str, Any] = {
    "id": "3c0f9a52-7a51-5d1c-9d3a-64b5f4f0c2aa",
    "kind": "emergency_rescue",
    "district": "320102",
    "operator": "seat-7",
    "operator_name": "陈晓",
    "called_at": "2026-11-22T06:31:05Z",
    "number": "+8614400000001",
    "person": {"name": "王秀兰", "age": 85, "phone": "+8613900000001"},
    "reply_needed": True,
    "record": "14:31:05 收到报警\n14:31:11 seat-7 接警",
    "rating": "fair",
    "rating_asked_by": "seat-7",
    "missing": [],
    "version": 4,
    "steps": [],
    "judgements": [],
    "timezone": "Asia/Shanghai",
    "created_at": "2026-11-22T06:31:11Z",
    "updated_at": "2026-11-23T02:10:44Z",
}
COMPLAINT = BASE | {
    "kind": "complaint",
    "complaint": {"about": "送餐迟到", "forwarded_to": "服务中心", "result": "致歉"},
    "steps": [
        {"name": "forward", "state": "done", "ended_at": "2026-11-22T07:00:00Z", "result": "done", "note": "转李主任"},
        {
            "name": "settle",
            "state": "done",
            "due_at": "2026-11-25T16:00:00Z",
            "breached_at": "2026-11-25T16:00:00Z",
            "ended_at": "2026-11-26T01:00:00Z",
            "result": "dissatisfied",
        },
        {"name": "escalate", "seat": "supervisor", "state": "open", "due_at": "2026-12-01T16:00:00Z"},
    ],
}
REFERRAL = BASE | {
    "kind": "referral",
    "referral": {
        "needs": dict.fromkeys(NeedsFields.model_fields, "一段较长的说明文字，" * 3),
        "offered": [{"name": "甲养老院", "charges": "3000 元"}, {"name": "乙养老院"}],
        "outcome": "placed",
    },
}


def order(**fields: Any) -> OrderOut:
    return OrderOut.model_validate(BASE | fields)


def text_of(page: str) -> str:
    return re.sub(r"\s*\n\s*", " ", re.sub(r"<[^>]+>", "\n", page.partition("</style>")[2]))


def ticked(page: str) -> list[str]:
    return re.findall(r'class="box">✓</span>([^<]+)', page)


def test_the_form_has_every_cell_of_table_c1() -> None:
    text = text_of(document([order()], lang="zh", now=NOW))
    for word in (
        *("呼叫时间", "呼叫号码", "坐席工号", "坐席姓名", "需求类型", "服务老人", "姓名", "年龄", "联系电话"),
        *("服务机构", "机构名称", "紧急救援", "公共服务类查询", "转介资源", "投诉处理", "是否需要回复", "处理记录"),
        *("客户评价", "非常不满意", "比较不满意", "一般", "比较满意", "非常满意", "计为服务满意"),
    ):
        assert word in text, word
    assert text.count("公共服务类查询") == 2, "one for persons, one for institutions"
    assert text.count("非常不满意") == 5 + 1, "one per column, and the note"
    assert "2026-11-22 14:31:05" in text, "the clock of the site"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ["服务老人", "紧急救援", "需要", "一般"]),
        ({"kind": "complaint", "rating": None}, ["服务老人", "投诉处理", "需要"]),
        ({"kind": "public_service_query", "reply_needed": False}, ["服务老人", "公共服务类查询", "不需要", "一般"]),
        ({"kind": "public_service_query", "reply_needed": None, "rating": None}, ["服务老人", "公共服务类查询"]),
        (
            {"kind": "institution_query", "institution": "梅园养老院", "rating": "very_satisfied"},
            ["服务机构", "公共服务类查询", "需要", "非常满意"],
        ),
    ],
)
def test_what_is_so_is_ticked_and_nothing_else(fields: dict[str, Any], expected: list[str]) -> None:
    assert ticked(document([order(**fields)], lang="zh", now=NOW)) == expected


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_what_people_typed_is_text(lang: str) -> None:
    nasty = '"><script>alert(1)</script>&amp;'
    fields = {
        "record": nasty,
        "number": nasty,
        "person": {"name": nasty},
        "rating_comment": nasty,
        "complaint": {"about": nasty},
        "kind": "complaint",
    }
    page = document([order(**fields)], lang=lang, now=NOW)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 5


def test_it_loads_nothing_and_its_own_style_is_all_that_may_apply() -> None:
    page = document([order()], lang="zh", now=NOW)
    css = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert len(css) == 1
    digest = base64.b64encode(hashlib.sha256(css[0].encode()).digest()).decode()
    policy = HEADERS["Content-Security-Policy"]
    assert f"style-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert "frame-ancestors" not in re.findall(r'http-equiv="[^"]+" content="([^"]+)"', page)[0]
    assert not re.search(r"\b(?:src|href|url)\s*[=(]|\bstyle=|\bon\w+=|@import", page)


def test_the_progress_of_a_complaint_and_what_a_referral_needs() -> None:
    text = text_of(document([order(**COMPLAINT)], lang="zh", now=NOW))
    assert "转交受理单位：完成，2026-11-22 15:00:00；转李主任" in text
    assert "跟踪处理并告知结果：不满意，2026-11-26 09:00:00 ，已逾期" in text
    assert "上报上级主管部门：期限 2026-12-02 00:00:00" in text
    text = text_of(document([order(**REFERRAL)], lang="en", now=NOW))
    assert "Institutions offered 甲养老院, 3000 元 乙养老院 Outcome of the referral placed" in text


def test_an_erased_one_says_so() -> None:
    gone = order(erased=True, record=None, person=None, number=None, operator_name=None)
    assert "内容已按要求删除" in text_of(document([gone], lang="zh", now=NOW))
    assert row_of(gone, lang="zh")[COLUMNS.index("record")] == "内容已按要求删除"


def test_both_languages_have_every_word() -> None:
    assert set(WORDS["zh"]) == set(WORDS["en"])
    outcomes = re.findall(r"'(\w+)'", str(ReferralFields.model_fields["outcome"].annotation))
    for words in WORDS.values():
        assert {*Kind, *RATINGS, *COLUMNS, *NeedsFields.model_fields, *outcomes} <= set(words)


@pytest.fixture(scope="module")
def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("Chromium is missing: apt-get install chromium")
        pytest.skip("Chromium is missing: apt-get install chromium")
    return found


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_each_work_order_is_one_sheet_of_a4(chromium: str, tmp_path: Path, lang: str) -> None:
    page, sheet = tmp_path / "page.html", tmp_path / "page.pdf"
    orders = [order(), order(**COMPLAINT), order(**REFERRAL), order(kind="institution_query", institution="甲" * 20)]
    page.write_text(document(orders, lang=lang, now=NOW), encoding="utf-8")
    subprocess.run(
        [
            chromium,
            *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
            *(f"--user-data-dir={tmp_path / 'profile'}", "--no-pdf-header-footer", f"--print-to-pdf={sheet}"),
            page.as_uri(),
        ],
        check=True,
        capture_output=True,
        timeout=90,
    )
    pdf = sheet.read_bytes()
    assert len(re.findall(rb"/Type /Page\b(?!s)", pdf)) == len(orders)
    sizes = {tuple(float(side) for side in box.split()[2:]) for box in re.findall(rb"/MediaBox \[([^\]]+)\]", pdf)}
    assert all(abs(width - 595) < 2 and abs(height - 842) < 2 for width, height in sizes)
