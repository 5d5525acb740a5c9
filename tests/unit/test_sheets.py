"""Sheets: what spreadsheet programs must not take for a formula."""

import pytest

from api.sheets import BOM, guarded, read_sheet, sheet, unguarded


@pytest.mark.parametrize(
    "cell",
    ["=HYPERLINK(1)", "+8613900000001", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1＋1", "'=1"],
)
def test_nothing_that_somebody_typed_is_a_formula(cell: str) -> None:
    assert guarded(cell) == f"'{cell}"
    assert unguarded(guarded(cell)) == cell


@pytest.mark.parametrize("cell", ["", "王秀兰", "85", "a=b", "3 + 4", " =1"])
def test_everything_else_stays_as_it_is(cell: str) -> None:
    assert guarded(cell) == cell


def test_the_bytes_are_those_that_spreadsheet_programs_read() -> None:
    written = "".join(sheet([["姓名", "电话"], ["王;=1", '"x",\n2']])).encode()
    assert written == (BOM + '"姓名","电话"\r\n"王;=1","""x"",\n2"\r\n').encode()
    assert written.startswith(b"\xef\xbb\xbf")
    assert read_sheet(written.decode()) == [["姓名", "电话"], ["王;=1", '"x",\n2']]
