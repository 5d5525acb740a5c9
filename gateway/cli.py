"""``onekey``: one program for everything. Its commands come by entry points, of this package and of others."""

import asyncio
import json
import sys
from collections.abc import Coroutine, Iterable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group

from gateway import __version__
from gateway.config import ConfigError, Settings, load
from gateway.domain.case import DomainError
from gateway.keyring import KeyringError

__all__ = ["State", "app", "main", "settings_of"]

T = TypeVar("T")

_COMMANDS, _HIDDEN = "onekey.commands", "onekey.hidden"

out = Console()
err = Console(stderr=True)


class State:
    """What the flags before the command said. Settings are read when a command first asks for them."""

    def __init__(self, file: Path | None, flags: dict[str, object]) -> None:
        """Keep the flags."""
        self._file = file
        self._flags = flags

    def settings(self, *, running: bool = True, **flags: object) -> Settings:
        """Return the settings in force.

        With `running`, what a running ``onekey run`` on the same data started counts where nothing else was said, so
        that commands beside it find its database and broker.
        """
        given = self._flags | {name: value for name, value in flags.items() if value is not None}
        settings = load(file=self._file, **given)
        if running and settings.database is None:
            from gateway.embedded.supervisor import read_run_file

            run = read_run_file(settings.data)
            if run is not None:
                given = given | {"database": run["database"]}
                if settings.mqtt is None and run.get("broker"):
                    given["mqtt"] = run["broker"]
                settings = load(file=self._file, **given)
        return settings


def settings_of(ctx: typer.Context, *, running: bool = True, **flags: object) -> Settings:
    """Return the settings of the command that runs."""
    state = ctx.find_root().obj
    assert isinstance(state, State)
    return state.settings(running=running, **flags)


def asynchronous(main: Coroutine[Any, Any, T]) -> T:
    """Run the asynchronous part of a command."""
    return asyncio.run(main)


class Commands(TyperGroup):
    """The commands of all packages, each imported when it is asked for: ``onekey modem list`` needs no web server."""

    def __init__(self, **more: Any) -> None:
        """Know the names, which are proposed to whoever has mistyped one."""
        super().__init__(**more)
        self.commands: Any = dict.fromkeys(sorted(entry_points(group=_COMMANDS).names))

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of the commands that people use."""
        del ctx
        return list(self.commands)

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | TyperGroup | None:
        """Return a command; None: there is none of that name."""
        del ctx
        for group in (_COMMANDS, _HIDDEN):
            for entry in entry_points(group=group, name=cmd_name):
                loaded = entry.load()
                if isinstance(loaded, typer.Typer):
                    made = get_group(loaded)
                    made.name = cmd_name
                    return made
                alone = typer.Typer(add_completion=False)
                alone.command(cmd_name, hidden=group == _HIDDEN)(loaded)
                return cast("TyperCommand", get_command(alone))
        return None


app = typer.Typer(
    name="onekey",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="The gateway between one-key terminals and the people who help.",
)


def _version(value: bool) -> None:
    if value:
        out.print(f"onekey {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    data: Annotated[
        Path | None, typer.Option(help="Directory for everything that is kept.", show_default=False)
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Settings file (TOML).", show_default=False)] = None,
    database: Annotated[
        str | None, typer.Option(help="PostgreSQL to use instead of the embedded one.", show_default=False)
    ] = None,
    mqtt: Annotated[
        str | None, typer.Option(help="MQTT broker to use instead of the embedded one.", show_default=False)
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.", show_default=False)] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Read the flags that every command shares."""
    del version  # its callback did all there is to do
    flags = {"data": data, "database": database, "mqtt": mqtt, "log_level": log_level}
    ctx.obj = State(config, {name: value for name, value in flags.items() if value is not None})


def main() -> None:
    """Run the program; what a person did wrong ends it with a sentence and 2, not with a traceback."""
    from gateway.store.migrate import MigrationError

    try:
        app()
    except (ConfigError, DomainError, KeyringError, MigrationError) as exc:
        err.print(f"[bold red]onekey:[/] {exc}", highlight=False)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def show_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a table."""
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    out.print(table)


def show_json(value: object) -> None:
    """Print a value for a machine."""
    print(json.dumps(value, ensure_ascii=False, default=str))


if __name__ == "__main__":
    # Under this name the module is another one than the commands import: start the one that they know.
    from gateway.cli import main as start

    start()


_SPARKS = "▁▂▃▄▅▆▇█"


def sparkline(points: Iterable[tuple[float, float]], width: int) -> str:
    """Draw values in a line of `width` places: each stands at its place from 0 on; a place without any stays blank."""
    places: dict[int, float] = {}
    for place, value in points:
        places[min(max(int(place), 0), width - 1)] = value
    if not places:
        return " " * width
    low, high = min(places.values()), max(places.values())
    scale = (len(_SPARKS) - 1) / (high - low) if high > low else 0.0
    return "".join(_SPARKS[round((places[n] - low) * scale)] if n in places else " " for n in range(width))
