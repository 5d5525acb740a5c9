"""The commands of ``onekey``: each is there, and asking for one does not bring in all the others."""

import subprocess
import sys
from importlib.metadata import entry_points

import pytest
from typer.testing import CliRunner

from gateway.cli import app


@pytest.mark.parametrize("name", sorted(entry_points(group="onekey.commands").names))
def test_every_command_has_a_help_of_its_own(name: str) -> None:
    result = CliRunner().invoke(app, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert f"onekey {name}" in result.output.replace("root", "onekey")


def test_a_mistyped_command_is_a_sentence_and_a_proposal() -> None:
    result = CliRunner().invoke(app, ["modme"])
    assert result.exit_code == 2
    assert "Did you mean 'modem'?" in result.output


def test_a_command_is_imported_without_the_others() -> None:
    asked = (
        "import sys; from typer.testing import CliRunner; from gateway.cli import app; "
        "assert CliRunner().invoke(app, ['modem', 'list', '--help']).exit_code == 0; "
        "print(*({'fastapi', 'gateway.app', 'reportlab', 'firmware_sim'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
