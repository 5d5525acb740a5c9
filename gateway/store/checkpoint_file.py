"""Checkpoints outside the database: a file of lines that only grows, whoever writes it and wherever it is cut.

A line is complete when its end is there. What a killed process or a full disk left of one is cut off by the next that
writes, and written again from the database.
"""

import fcntl
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from gateway.domain.checkpoint import Checkpoint, parse

__all__ = ["append", "last", "read"]

_log = logging.getLogger(__name__)

_BLOCK = 65_536


def read(path: Path) -> Iterator[bytes]:
    """Yield the complete lines of a file; what stands behind the last end of a line is no line yet.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield line[:-1]


def last(path: Path) -> Checkpoint | None:
    """Return the newest line of a file that is a checkpoint, or None when there is no file or no such line.

    Raises:
        OSError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            return _last(file)
    except FileNotFoundError:
        return None


def append(path: Path, lines: Sequence[Checkpoint]) -> None:
    """Write the checkpoints that are not in the file yet and return when they are on the disk.

    Several may do this at once on one file. A write that fails leaves the file as it was.

    Raises:
        OSError: The disk is full, or the file cannot be written.
    """
    with _locked(path) as file:
        known = _last(file)
        number = 0 if known is None else known.number
        fresh = b"".join(one.line + b"\n" for one in lines if one.number > number)
        if not fresh:
            return
        size = file.seek(0, os.SEEK_END)
        try:
            left = memoryview(fresh)
            while left:
                left = left[file.write(left) :]
            os.fsync(file.fileno())
        except OSError:
            file.truncate(size)
            raise


@contextmanager
def _locked(path: Path) -> Iterator[FileIO]:
    """Open a file for nobody but us, with nothing behind its last complete line."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = not path.exists()
    with FileIO(os.open(path, os.O_RDWR | os.O_CREAT, 0o640), "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        size = file.seek(0, os.SEEK_END)
        if (whole := _end(file, size)) != size:
            _log.warning("cut off an incomplete checkpoint at the end of %s", path.name)
            file.truncate(whole)
        yield file
    if fresh:
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _end(file: BinaryIO | FileIO, size: int) -> int:
    """Return where the last complete line ends."""
    end = size
    while end:
        start = max(0, end - _BLOCK)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def _last(file: BinaryIO | FileIO) -> Checkpoint | None:
    for line in _backwards(file, _end(file, file.seek(0, os.SEEK_END)) - 1):
        try:
            return parse(line)
        except ValueError:
            continue  # whoever verifies hears of it
    return None


def _backwards(file: BinaryIO | FileIO, end: int) -> Iterator[bytes]:
    """Yield the lines in front of `end`, the last one first."""
    rest = b""
    while end > 0:
        start = max(0, end - _BLOCK)
        file.seek(start)
        rest, *lines = (file.read(end - start) + rest).split(b"\n")
        yield from reversed(lines)
        end = start
    if rest:
        yield rest
