"""Directories of the end-to-end tests."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A short path, not below pytest's directory, which each start of pytest closes to the user of the database."""
    with tempfile.TemporaryDirectory(prefix="onekey-", ignore_cleanup_errors=True) as directory:
        yield Path(directory)
