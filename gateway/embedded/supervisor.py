"""``onekey run``: everything on one machine, started in order, kept running, ended in order.

Database, broker, gateway, API and auditor are child processes. Each is started again when it ends; none outlives this
process (``gateway.embedded.processes``), and correctness depends on none of them ending well.
"""

import asyncio
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import psycopg
from pydantic import BaseModel, SecretStr
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel

from gateway import __version__
from gateway.config import Settings
from gateway.embedded.nats import Nats
from gateway.embedded.postgres import Postgres
from gateway.embedded.processes import (
    BusyError,
    Process,
    ServerError,
    address,
    check_port,
    free_port,
    is_locked,
    locked,
    reachable,
    rotate,
    spawn,
    stop,
    tail,
    write_private,
)
from gateway.keyring import Keyring, KeyringError
from gateway.store.migrate import MigrationError, migrate

__all__ = ["as_environment", "read_run_file", "run"]

_FIRST_DELAY_S = 0.2
_LONGEST_DELAY_S = 5.0
_HEALTHY_S = 30.0
_EARLY_DEATHS = 3
_LOG_CHECK_S = 60.0

_PROGRAMS: Mapping[str, Sequence[str]] = {
    # -P: whatever lies in the current directory is not to be imported.
    "gateway": (sys.executable, "-P", "-m", "gateway.cli", "gateway"),
    "api": (sys.executable, "-P", "-m", "gateway.cli", "api"),
    "audit": (sys.executable, "-P", "-m", "gateway.cli", "audit"),
}


class _Service(Protocol):
    """Something that runs as a child process. ``start`` and ``stop`` may block."""

    name: str
    process: Process | None

    def start(self) -> object:
        """Start it and return when it serves."""
        ...

    def stop(self) -> None:
        """End it and return when it is gone."""
        ...


class _Program:
    """One of our own programs as a child process."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], data: Path) -> None:
        self.name = name
        self.process: Process | None = None
        self.log = data / "logs" / f"{name}.log"
        self._command = command
        self._environment = environment
        self._lock = data / f"{name}.lock"

    def start(self) -> None:
        try:
            with locked(self._lock, patience_s=30) as lock:
                self.process = spawn(
                    self._command,
                    log=self.log,
                    environment=self._environment,
                    on_our_death=signal.SIGTERM,
                    lock=lock,
                )
        except BusyError as exc:
            raise ServerError(f"an older {self.name} does not end: stop process {exc.pid or 'unknown'}") from exc

    def stop(self) -> None:
        stop(self.process, (signal.SIGTERM, 10))


def run(settings: Settings, *, programs: Mapping[str, Sequence[str]] = _PROGRAMS) -> int:
    """Run everything until Ctrl-C or SIGTERM, and return the exit status.

    `programs` are the commands for our own processes, by name, in the order in which they are started.
    """
    console = Console(highlight=False)
    settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        # A second of patience: who asks whether this is held holds it for an instant.
        with locked(settings.data / "lock", patience_s=1):
            return asyncio.run(_Supervisor(settings, programs, console).run())
    except BusyError as exc:
        who = f"process {exc.pid}" if exc.pid else "another process"
        console.print(
            f"[red]onekey runs already[/] on {escape(str(settings.data))}, as {who}. "
            "Stop that one, or give this one its own directory with --data.",
            soft_wrap=True,
        )
        return 2


def read_run_file(data: Path) -> dict[str, Any] | None:
    """Return where everything is that a running ``onekey run`` on `data` started, or None when none is ready."""
    if not is_locked(data / "lock"):
        return None
    try:
        found: dict[str, Any] = json.loads((data / "run.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return found


class _Supervisor:
    def __init__(self, settings: Settings, programs: Mapping[str, Sequence[str]], console: Console) -> None:
        self._settings = settings
        self._programs = programs
        self._console = console
        self._data = settings.data
        self._run_file = settings.data / "run.json"
        self._auth_url: str | None = None
        self._services: list[_Service] = []
        self._stopping = asyncio.Event()
        self._is_ready = False
        self._early_deaths = 0
        self._status = 0

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(16, thread_name_prefix="wait"))  # One waits for each child.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._stopping.set)
        self._run_file.unlink(missing_ok=True)
        self._console.print(f"[bold]onekey {__version__}[/], data in {escape(str(self._data))}", soft_wrap=True)
        try:
            async with asyncio.TaskGroup() as tasks:
                try:
                    await self._start(tasks)
                    await self._stopping.wait()
                except (ServerError, MigrationError, KeyringError) as exc:
                    if not self._stopping.is_set():
                        self._fail(str(exc))
                except psycopg.Error as exc:
                    if not self._stopping.is_set():
                        self._fail(f"the database does not answer: {exc}")
        finally:
            self._run_file.unlink(missing_ok=True)
            if self._is_ready:
                self._console.print("stopping …")
            for service in reversed(self._services):
                await asyncio.to_thread(service.stop)
        return self._status

    def _fail(self, why: str) -> None:
        self._console.print(f"[bold red]onekey:[/] {escape(why)}", soft_wrap=True)
        self._status = 1
        self._stopping.set()

    async def _start(self, tasks: asyncio.TaskGroup) -> None:
        """Start one after the other, each on what the ones before it gave."""
        tasks.create_task(self._rotate_logs(), name="logs")
        steps: Sequence[Callable[[asyncio.TaskGroup], Awaitable[None]]] = (
            self._start_database,
            self._start_broker,
            self._start_programs,
            self._finish,
        )
        for step in steps:
            if not self._stopping.is_set():
                await step(tasks)

    async def _start_database(self, tasks: asyncio.TaskGroup) -> None:
        directory = self._data / "postgres"
        if self._settings.master_key is None:
            # To a database whose key is lost, a new key would only hide the loss.
            fresh = self._settings.database is not None or not directory.exists()
            Keyring.load(self._settings.master_key_file, create=fresh)
        if self._settings.database is None:
            postgres = Postgres(directory, log=self._log("postgres"))
            await self._add(postgres, tasks)
            self._settings = self._settings.model_copy(update={"database": SecretStr(postgres.url)})
        applied = await asyncio.to_thread(migrate, self._settings.database_url)
        if applied:
            self._tell(f"database at migration {applied[-1].number:04}")

    async def _start_broker(self, tasks: asyncio.TaskGroup) -> None:
        if self._settings.mqtt is not None:
            return
        nats = Nats(
            self._data / "nats",
            log=self._log("nats"),
            bind=self._settings.bind,
            mqtt_port=self._settings.mqtt_port,
            sync_interval=self._settings.broker_sync,
            ack_wait_s=self._settings.broker_ack_wait_s,
        )
        await self._add(nats, tasks)
        self._auth_url = nats.auth_url
        self._settings = self._settings.model_copy(
            update={
                "mqtt": SecretStr(nats.gateway_url),
                "mqtt_port": nats.mqtt_port,
                "auth_url": SecretStr(nats.auth_url),
                "auth_seed": SecretStr(nats.auth_seed),
            }
        )

    async def _start_programs(self, tasks: asyncio.TaskGroup) -> None:
        port = self._settings.http_port or free_port(self._settings.bind)
        self._settings = self._settings.model_copy(update={"http_port": port})
        metrics = self._data / "metrics"
        shutil.rmtree(metrics, ignore_errors=True)
        metrics.mkdir(mode=0o700)
        environment = {
            **os.environ,
            **as_environment(self._settings),
            "PROMETHEUS_MULTIPROC_DIR": str(metrics),
            "PYTHONUNBUFFERED": "1",
        }
        added = [_Program(name, command, environment, self._data) for name, command in self._programs.items()]
        check_port(self._settings.bind, port, what="HTTP", flag="--http-port")
        for program in added:
            await self._add(program, tasks)

    async def _finish(self, _: asyncio.TaskGroup) -> None:
        """Wait until everything serves, then say so to programs and people."""
        host, port = reachable(self._settings.bind), self._settings.http_port
        began = time.monotonic()
        patience_s = 20.0
        while not await _answers(host, port, "/health/ready"):
            if await self._stopped_within(0.1):
                return
            if time.monotonic() - began > patience_s:
                self._tell(f"[yellow]not ready after {patience_s:.0f} s[/], see {escape(str(self._data / 'logs'))}")
                patience_s *= 2
        self._is_ready = True
        broker = self._settings.broker
        where = {
            "state": "ready",
            "pid": os.getpid(),
            "http": f"http://{address(host, port)}",
            "mqtt": broker.public(),
            "database": self._settings.database_url,
            "broker": self._settings.mqtt.get_secret_value() if self._settings.mqtt else None,
            "auth_url": self._auth_url,
        }
        write_private(self._run_file, json.dumps(where, indent=2) + "\n")
        self._console.print(self._panel(where["http"], broker.public()))

    def _panel(self, http: object, mqtt: str) -> Panel:
        onekey = "onekey" if "data" not in self._settings.model_fields_set else f"onekey --data {self._data}"
        text = (
            f"API         {http}\n"
            f"API guide   {http}/docs\n"
            f"MQTT        {mqtt}\n"
            f"Logs        {self._data / 'logs'}\n\n"
            "Next, in another terminal: check a site file, take it, see everything else\n"
            f"  {onekey} site check FILE\n"
            f"  {onekey} site apply FILE\n"
            f"  {onekey} --help\n\n"
            "Ctrl-C stops it."
        )
        if self._settings.master_key is None:
            key = self._settings.master_key_file
            text += f"\nWithout this key the data cannot be read, keep a copy elsewhere:\n  {key}"
        return Panel(escape(text), title="onekey is ready", border_style="green", expand=False)

    def _log(self, name: str) -> Path:
        return self._data / "logs" / f"{name}.log"

    def _tell(self, text: str) -> None:
        self._console.print(f"  {text}", soft_wrap=True)

    async def _add(self, service: _Service, tasks: asyncio.TaskGroup) -> None:
        """Start a service and see to it that it stays."""
        rotate(self._log(service.name.lower()))
        began = time.monotonic()
        self._services.append(service)
        await self._start_service(service)
        self._tell(f"{service.name} started [dim]({time.monotonic() - began:.1f} s)[/]")
        tasks.create_task(self._keep(service), name=service.name)

    async def _start_service(self, service: _Service) -> None:
        """Start a service; when we are told to stop meanwhile, do not wait for a database to replay its log."""
        starting = asyncio.ensure_future(asyncio.to_thread(service.start))
        stopping = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not starting.done():
            await asyncio.to_thread(service.stop)
        await starting

    async def _keep(self, service: _Service) -> None:
        """Start a service again whenever it ends, until we are stopping."""
        delay_s = _FIRST_DELAY_S
        began = time.monotonic()
        while True:
            if service.process is not None and service.process.poll() is None:
                await self._ended(service.process)
            if self._stopping.is_set():
                return
            if time.monotonic() - began > _HEALTHY_S:
                delay_s = _FIRST_DELAY_S
            code = service.process.returncode if service.process is not None else None
            self._tell(f"[yellow]{service.name} ended[/] (status {code}), starting it again")
            if isinstance(service, _Program) and not self._is_ready:
                self._early_deaths += 1
                if self._early_deaths >= _EARLY_DEATHS:
                    self._fail(f"{service.name} does not start; the end of {service.log}:{tail(service.log)}")
                    return
            if await self._stopped_within(delay_s):
                return
            delay_s = min(delay_s * 2, _LONGEST_DELAY_S)
            began = time.monotonic()
            try:
                await self._start_service(service)
            except ServerError as exc:
                self._tell(f"[red]{escape(str(exc))}[/]")

    async def _ended(self, process: Process) -> None:
        """Wait until `process` has ended, or until we are stopping; then its thread ends when the process does."""
        waits = [asyncio.ensure_future(asyncio.to_thread(process.wait)), asyncio.ensure_future(self._stopping.wait())]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    async def _stopped_within(self, seconds: float) -> bool:
        """Wait, and tell whether we are stopping."""
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return False
        return True

    async def _rotate_logs(self) -> None:
        while not await self._stopped_within(_LOG_CHECK_S):
            for service in self._services:
                await asyncio.to_thread(rotate, self._log(service.name.lower()))


def as_environment(settings: Settings) -> dict[str, str]:
    """Return the settings as our programs read them. Secrets travel here and never on a command line."""
    found = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            value = value.get_secret_value()
        if value is not None:
            found[f"ONEKEY_{name.upper()}"] = (
                json.dumps(value, default=_plain) if isinstance(value, list) else str(value)
            )
    return found


def _plain(value: object) -> object:
    """Return what stands in a list of settings as JSON has it, secrets as they are."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    assert isinstance(value, BaseModel), value
    return value.model_dump()


async def _answers(host: str, port: int, path: str) -> bool:
    """Is there a 200 at this address?"""
    try:
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(
                    f"GET {path} HTTP/1.1\r\nHost: {address(host, port)}\r\nConnection: close\r\n\r\n".encode()
                )
                status = await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
    return status.split(b" ")[1:2] == [b"200"]
