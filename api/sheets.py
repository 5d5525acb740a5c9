"""CSV for spreadsheet programs: they show Chinese, and take nothing that somebody typed for a formula."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence

__all__ = ["BOM", "guarded", "read_sheet", "sheet", "unguarded"]

BOM = "\ufeff"
"""Without it spreadsheet programs read UTF-8 as the code page of their machine."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠", "'")  # full width counts too


def guarded(cell: str) -> str:
    """Return a cell that no spreadsheet program takes for a formula; `unguarded` undoes it.

    An apostrophe goes in front of whatever a formula can begin with, phone numbers with a plus among them, and in front
    of an apostrophe, so that nothing is lost.
    """
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


def unguarded(cell: str) -> str:
    """Return what stood in a cell before it was guarded."""
    return cell.removeprefix("'")


def sheet(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a sheet, the byte order mark first.

    Every cell is quoted: in a program that separates by semicolons an unquoted one could break apart, and its second
    half begin like a formula.
    """
    yield BOM
    for row in rows:
        line = io.StringIO(newline="")
        csv.writer(line, quoting=csv.QUOTE_ALL, lineterminator="\r\n").writerow([guarded(cell) for cell in row])
        yield line.getvalue()


def read_sheet(text: str) -> list[list[str]]:
    """Return the cells of what `sheet` wrote."""
    lines = csv.reader(io.StringIO(text.removeprefix(BOM), newline=""))
    return [[unguarded(cell) for cell in row] for row in lines]
