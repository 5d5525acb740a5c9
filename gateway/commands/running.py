"""Run the gateway, alone or with everything it needs; bring its database up to date; show its settings."""

import asyncio
import contextlib
import itertools
import json
import signal
from typing import Annotated

import typer
import uvloop

from gateway.cli import out, settings_of, show_json, show_table
from gateway.config import Settings
from gateway.garbage import in_small_pieces
from gateway.logs import set_up
from gateway.store.migrate import migrate as run_migrations

__all__ = ["config_app", "gateway", "migrate", "receive", "run"]

Json = Annotated[bool, typer.Option("--json", help="Print for a machine.")]


def run(
    ctx: typer.Context,
    bind: Annotated[str | None, typer.Option(help="Address on which our servers listen.", show_default=False)] = None,
    mqtt_port: Annotated[
        int | None, typer.Option(help="Port of the embedded broker (1883).", show_default=False)
    ] = None,
    http_port: Annotated[int | None, typer.Option(help="Port of the API (8080).", show_default=False)] = None,
    public_url: Annotated[
        str | None, typer.Option(help="Address under which people reach the API.", show_default=False)
    ] = None,
) -> None:
    """Start everything on this machine: database, broker, gateway and API. Ctrl-C stops it."""
    from gateway.embedded import supervisor

    settings = settings_of(
        ctx, running=False, bind=bind, mqtt_port=mqtt_port, http_port=http_port, public_url=public_url
    )
    raise typer.Exit(supervisor.run(settings))


def gateway(ctx: typer.Context) -> None:
    """Run only the gateway process, against a database and a broker that run already."""
    settings = settings_of(ctx)
    set_up(settings.log_level)
    run_migrations(settings.database_url)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_until_stopped(settings))


def receive(ctx: typer.Context, topic: Annotated[str, typer.Option(help="Filter of the messages to take.")]) -> None:
    """Take messages, acknowledge them, do nothing else, and say ten times a second how many: a floor for the bench."""
    settings = settings_of(ctx)
    with contextlib.suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_receive(settings, topic))


async def _receive(settings: Settings, topic: str) -> None:
    from gateway.ingest.telemetry import PIECE, REST_S
    from gateway.links.mqtt import Delivery, MqttLink

    in_small_pieces()
    link = MqttLink(settings.broker, client_id="~floor", filters=((topic, 1),), piece=PIECE, rest_s=REST_S)
    waiting: list[Delivery] = []
    count = 0
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(link.run(waiting.append), name="floor-link")
        for turn in itertools.count():
            await asyncio.sleep(0.02)
            count += len(waiting)
            link.acknowledge_all(waiting)
            waiting.clear()
            if turn % 5 == 0:
                typer.echo(json.dumps(count))


async def _until_stopped(settings: Settings) -> None:
    from gateway.app import run as run_gateway

    in_small_pieces()
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await run_gateway(settings)


def migrate(ctx: typer.Context, as_json: Json = False) -> None:
    """Bring the database to this version. Starting does this by itself."""
    applied = run_migrations(settings_of(ctx).database_url)
    if as_json:
        show_json({"applied": [migration.name for migration in applied]})
    elif applied:
        for migration in applied:
            out.print(f"applied {migration.name}", highlight=False)
    else:
        out.print("nothing to do: the database is up to date")


config_app = typer.Typer(no_args_is_help=True, help="Settings.")


@config_app.command("show")
def showconfig(ctx: typer.Context, as_json: Json = False) -> None:
    """Print the settings in force, secrets masked."""
    shown = settings_of(ctx).shown()
    if as_json:
        show_json(shown)
        return
    fields = Settings.model_fields
    rows = [
        [name, "" if value is None else str(value), fields[name].description or ""] for name, value in shown.items()
    ]
    show_table("Settings in force (ONEKEY_NAME in the environment sets each)", ["setting", "value", "meaning"], rows)
