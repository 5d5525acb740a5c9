"""The file of checkpoints: it only grows, and nothing that cuts it off harms it."""

import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path

import pytest

from gateway.domain.checkpoint import FIRST, Checkpoint, digest, parse
from gateway.store.checkpoint_file import append, last, read
from tests.unit.test_checkpoint import CASE, line


def chain(count: int, *, cases: int = 1) -> list[Checkpoint]:
    lines: list[bytes] = []
    for number in range(1, count + 1):
        lines.append(line(number, digest(lines[-1]) if lines else FIRST, [(CASE, number, bytes(32))] * cases))
    return [parse(one) for one in lines]


TEN = chain(10)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "journal.jsonl"


def lines(file: Path) -> list[bytes]:
    return list(read(file))


def test_it_begins_with_nothing_and_grows(file: Path) -> None:
    assert last(file) is None
    append(file, TEN[:3])
    append(file, TEN[:3])
    append(file, TEN)
    assert lines(file) == [one.line for one in TEN]
    assert last(file) == TEN[9]
    assert file.stat().st_mode & 0o007 == 0


@pytest.mark.parametrize("kept", [0, 1, 40, -2, -1])
def test_a_line_that_was_cut_off_is_written_again(file: Path, kept: int) -> None:
    append(file, TEN[:4])
    rest = TEN[4].line + b"\n"
    with file.open("ab") as torn:
        torn.write(rest[:kept])
    assert lines(file) == [one.line for one in TEN[:4]], "what has no end is no line yet"
    assert last(file) == TEN[3]
    append(file, TEN[:6])
    assert lines(file) == [one.line for one in TEN[:6]]


def test_a_file_of_which_nothing_but_a_piece_is_left_is_written_anew(file: Path) -> None:
    file.parent.mkdir()
    file.write_bytes(b"\x00" * 5000)
    append(file, TEN[:2])
    assert lines(file) == [one.line for one in TEN[:2]]


def test_a_line_that_somebody_spoiled_stays_for_whoever_verifies(file: Path) -> None:
    append(file, TEN[:3])
    with file.open("ab") as spoiled:
        spoiled.write(b"not a checkpoint\n")
    append(file, TEN[:5])
    assert lines(file) == [*(one.line for one in TEN[:3]), b"not a checkpoint", *(one.line for one in TEN[3:5])]


def test_long_lines_are_read_from_the_end(file: Path) -> None:
    long = chain(4, cases=2000)
    assert len(long[0].line) > 200_000
    append(file, long[:3])
    assert last(file) == long[2]
    with file.open("ab") as torn:
        torn.write(long[3].line[:150_000])
    append(file, long)
    assert lines(file) == [one.line for one in long]


def test_a_full_disk_leaves_the_file_as_it_was(file: Path) -> None:
    append(file, TEN[:3])
    size = file.stat().st_size
    code = """
import signal, resource, sys
from pathlib import Path
from tests.unit.test_checkpoint_file import TEN, append
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
try:
    append(Path(sys.argv[1]), TEN)
except OSError as exc:
    sys.exit(9)
"""
    limit = size + len(TEN[3].line) // 2  # half a line still fits
    done = subprocess.run([sys.executable, "-c", code, str(file), str(limit)], check=False)
    assert done.returncode == 9
    assert file.stat().st_size == size
    append(file, TEN)
    assert lines(file) == [one.line for one in TEN]


def test_a_writer_that_is_killed_at_any_moment_leaves_a_file_that_goes_on(file: Path) -> None:
    code = """
import os, sys, threading
from pathlib import Path
from tests.unit.test_checkpoint_file import TEN, append
threading.Timer(float(sys.argv[2]), lambda: os.kill(os.getpid(), 9)).start()
while True:
    for n in range(len(TEN)):
        append(Path(sys.argv[1]), TEN[: n + 1])
    os.truncate(sys.argv[1], 0)
"""
    for delay in (0.01, 0.02, 0.05):
        subprocess.run([sys.executable, "-c", code, str(file), str(delay)], check=False)
        append(file, TEN)
        assert lines(file) == [one.line for one in TEN]


MANY = chain(300)


def _write_all(file: Path) -> None:
    for n in range(len(MANY)):
        append(file, MANY[: n + 1])


def test_several_writers_of_one_file_write_each_line_once(file: Path) -> None:
    with get_context("fork").Pool(3) as pool:
        pool.map(_write_all, [file] * 3)
    assert lines(file) == [one.line for one in MANY]


def test_a_file_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="ascii")
    with pytest.raises(OSError, match=r"[Nn]ot a directory|exists"):
        append(tmp_path / "file" / "journal.jsonl", TEN)
    with pytest.raises(OSError, match=r"[Ii]s a directory"):
        append(tmp_path, TEN)
