"""Broken messages and modem dialogues: nothing but a refusal comes of them, and no message behind them is lost."""

import os
from itertools import islice
from pathlib import Path

import pytest
from typer.testing import CliRunner

from firmware_sim import fuzz_gsm
from gateway.cli import app
from protocols.gsm import at

COUNT = 100_000 if os.environ.get("CI") else 5_000


@pytest.mark.timeout(400)
def test_whatever_is_broken_is_read_or_refused() -> None:
    for data in islice(fuzz_gsm.inputs(11), COUNT):
        problem = fuzz_gsm.check(data)
        assert problem is None, data.hex()


def test_what_is_not_broken_is_in_order_too() -> None:
    assert [fuzz_gsm.check(data) for data in fuzz_gsm.corpus()] == [None] * len(fuzz_gsm.corpus())


def test_inputs_are_the_same_for_the_same_seed_and_really_broken() -> None:
    known = set(fuzz_gsm.corpus())
    first, again, other = (list(islice(fuzz_gsm.inputs(seed), 300)) for seed in (1, 1, 2))
    assert first == again != other
    assert sum(data in known for data in first) < 30


def test_a_reader_that_loses_something_is_found_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(at, "_LONGEST_LINE", 20)  # what is longer would be cut
    folder = tmp_path / "found"
    result = CliRunner().invoke(app, ["fuzz", "gsm", "--minutes", "0.5", "--engine", "own", "--folder", str(folder)])
    assert result.exit_code == 1
    assert "a message that came after the noise was lost" in result.output
    assert fuzz_gsm.check((folder / "failed.bin").read_bytes()) is not None


def test_the_command_says_what_it_did(tmp_path: Path) -> None:
    command = ["fuzz", "gsm", "--minutes", "0.01", "--engine", "own", "--folder", str(tmp_path / "none")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "PASS" in result.output
    assert not (tmp_path / "none").exists()


def test_atheris_looks_as_well(tmp_path: Path) -> None:
    if not fuzz_gsm.has_atheris():
        if os.environ.get("CI"):
            pytest.fail("atheris is missing: pip install atheris")
        pytest.skip("atheris is missing: pip install atheris")
    assert fuzz_gsm.run_atheris(seconds=5, folder=tmp_path) is None
