"""The commands for work orders and figures, as a person types them."""

import asyncio
import base64
import json
import os
import stat
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from api.sheets import read_sheet
from gateway.keyring import Keyring
from tests.integration.hotline import Hotline, hotline


@pytest.fixture
async def desk(database: str, keyring: Keyring) -> AsyncIterator[Hotline]:
    async with hotline(database, keyring, datetime.now(UTC) - timedelta(hours=3)) as opened:
        yield opened


async def onekey(database: str, *arguments: str | Path, width: int = 200) -> tuple[int, str, str]:
    """Run one command; returns its status, what it printed and what it complained about."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("ONEKEY_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway.cli", "--database", database),
        *map(str, arguments),
        env=plain | {"COLUMNS": str(width), "ONEKEY_MASTER_KEY": base64.b64encode(bytes(range(32))).decode()},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_work_orders_are_listed_shown_and_exported(desk: Hotline, database: str, tmp_path: Path) -> None:
    case = await desk.press()
    await desk.after(seconds=4)
    await desk.own(case)
    await desk.close(case, note="=HYPERLINK(1)")
    order = await desk.change(await desk.order_of(case), operator_name="=cmd|x")

    status, out, _ = await onekey(database, "work-order", "list")
    assert status == 0
    assert order["id"] in out
    assert "王秀兰" not in out
    status, out, _ = await onekey(database, "work-order", "list", "--json", "--kind", "referral")
    assert (status, json.loads(out)) == (0, [])
    status, out, _ = await onekey(database, "work-order", "show", order["id"])
    assert (status, "王秀兰" in out, "结案" in out) == (0, True, True)
    status, out, _ = await onekey(database, "work-order", "show", order["id"], "--json")
    assert json.loads(out) == order
    status, _, err = await onekey(database, "work-order", "show", str(case))
    assert (status, "There is no work order" in err) == (2, True)

    for name in ("orders.csv", "orders.json", "orders.html"):
        status, out, err = await onekey(database, "work-order", "export", tmp_path / name)
        assert (status, err) == (0, "")
        assert "wrote 1 work orders" in out
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    raw = (tmp_path / "orders.csv").read_bytes()
    assert raw.startswith(b"\xef\xbb\xbf")
    heads, cells = read_sheet(raw.decode())
    assert dict(zip(heads, cells, strict=True))["坐席姓名"] == "=cmd|x"
    assert '"\'=cmd|x"' in raw.decode()
    assert json.loads((tmp_path / "orders.json").read_text()) == [order]
    assert "服务工单" in (tmp_path / "orders.html").read_text()
    status, _, err = await onekey(database, "work-order", "export", tmp_path / "orders.pdf")
    assert (status, ".csv, .json, .html" in err) == (2, True)


async def test_figures_are_readable_and_say_what_is_below_its_bar(desk: Hotline, database: str) -> None:
    for wait_s in (4, 31):
        case = await desk.press()
        await desk.after(seconds=wait_s)
        await desk.own(case)
        await desk.close(case, operator=f"seat-{wait_s}")
        await desk.after(minutes=30)
    status, out, _ = await onekey(database, "figures")
    assert status == 0
    lines = [line for line in out.split("\n") if "answered within 10 s" in line]
    assert len(lines) == 1
    assert "▼50.0 %" in lines[0]
    assert "1 of 2" in lines[0]
    assert "100 %" in next(line for line in out.split("\n") if "connected" in line and "▼" not in line)
    assert str(case) in out
    assert "p50 4.0 s, p95 31.0 s" in out
    _, out, _ = await onekey(database, "figures", "--json")
    assert json.loads(out)["total"]["answered"]["count"] == 1
    _, out, _ = await onekey(database, "figures", "--csv")
    heads, whole, *rest = read_sheet(out)
    assert dict(zip(heads, whole, strict=True))["answered %"] == "50.0"
    assert [row[0] for row in rest] == ["operator", "district"]
    status, out, _ = await onekey(database, "figures", "--operator", "nobody")
    assert (status, "0 emergencies" in out) == (0, True)


@pytest.mark.parametrize(
    ("days", "says"),
    [
        (("--from", "2026-02-10", "--to", "2026-02-01"), "swap the two days"),
        (("--from", "2999-01-01"), "still to come"),
        (("--from", "2026-02-30"), "does not match"),
    ],
)
async def test_a_period_that_cannot_be_is_refused_with_a_reason(
    desk: Hotline, database: str, days: tuple[str, ...], says: str
) -> None:
    status, out, err = await onekey(database, "figures", *days)
    assert (status, out) == (2, "")
    assert says in err
