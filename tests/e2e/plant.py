"""A whole installation on loopback for one test: real database, real broker, real gateway process, real parties."""

import asyncio
import base64
import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import psycopg

from firmware_sim.fleet import Broker, Fleet, running
from firmware_sim.responders import Responders
from firmware_sim.sites import SiteFile, made_up
from gateway.embedded.nats import Nats
from gateway.embedded.postgres import Postgres
from gateway.keyring import Keyring
from gateway.service.apply_site import apply_site
from gateway.site.load import load
from gateway.store.migrate import migrate
from gateway.store.pool import open_pool

__all__ = ["Plant", "plant"]

ROOT = Path(__file__).resolve().parents[2]


class Plant:
    """The parts, and what a test does to them."""

    def __init__(self, directory: Path, *, households: int, environment: dict[str, str]) -> None:
        self.directory = directory
        self.site: SiteFile = made_up(households, seed=7)
        self.responders = Responders(self.site.responders())
        self.postgres = Postgres(directory / "pg", log=directory / "postgres.log")
        self.nats = Nats(
            directory / "nats",
            log=directory / "nats.log",
            bind="127.0.0.1",
            mqtt_port=0,
            sync_interval="1s",
            ack_wait_s=1.0,
        )
        self.master_key = base64.b64encode(secrets.token_bytes(32)).decode()
        self.environment = environment
        self.gateway: subprocess.Popen[bytes] | None = None
        self.database = ""
        self.began_at = datetime.now(UTC)

    def start_servers(self) -> None:
        self.database = self.postgres.start()
        migrate(self.database)
        self.nats.start()

    async def apply_site(self) -> None:
        self.site.point_webhooks(self.responders.url)
        file = self.directory / "site.yaml"
        self.site.save(file)
        async with open_pool(self.database, name="test", size=1) as pool:
            await apply_site(pool, Keyring.from_text(self.master_key), load(file).site, prune=False)

    def start_gateway(self, *, kill_at: str | None = None, under: Sequence[str] = ()) -> None:
        """Start the gateway; with `kill_at` ("step:n") it dies there, `under` is a command that runs it."""
        assert self.gateway is None or self.gateway.poll() is not None
        environment = {
            **os.environ,
            "PYTHONPATH": f"{ROOT}:{ROOT / 'firmware-sim'}",
            "ONEKEY_DATA": str(self.directory),
            "ONEKEY_DATABASE": self.database,
            "ONEKEY_MQTT": self.nats.gateway_url,
            "ONEKEY_AUTH_URL": self.nats.auth_url,
            "ONEKEY_AUTH_SEED": self.nats.auth_seed,
            "ONEKEY_MASTER_KEY": self.master_key,
            "ONEKEY_REPLICA": "a",
            **self.environment,
        }
        if kill_at is not None:
            environment["KILL_AT"] = kill_at
        program = [*under, sys.executable, str(Path(__file__).with_name("gateway_under_test.py"))]
        self.began_at = datetime.now(UTC)
        with (self.directory / "gateway.log").open("ab") as log:
            self.gateway = subprocess.Popen(program, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def kill_gateway(self) -> None:
        """Kill it -9."""
        assert self.gateway is not None
        self.gateway.kill()
        self.gateway.wait()

    async def gateway_died(self, timeout_s: float = 60) -> None:
        """Wait until the gateway has died by itself."""
        assert self.gateway is not None
        async with asyncio.timeout(timeout_s):
            while self.gateway.poll() is None:
                await asyncio.sleep(0.01)

    async def ready(self, timeout_s: float = 30) -> None:
        """Wait until the alarm lane of the gateway that was started last is connected."""
        async with asyncio.timeout(timeout_s):
            while not await self.rows(  # another process gets ready, nothing tells us
                "SELECT 1 FROM worker WHERE status->>'alarms' = 'true' AND status->>'auth' = 'true' "
                "AND seen_at > now() - interval '1 s' AND started_at > %s",
                self.began_at,
            ):
                assert self.gateway is None or self.gateway.poll() is None, self.log()
                await asyncio.sleep(0.05)

    def log(self) -> str:
        """The end of the gateway's log."""
        return (self.directory / "gateway.log").read_text(errors="replace")[-4000:]

    async def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Ask the database; nothing while it is away."""
        try:
            async with await psycopg.AsyncConnection.connect(self.database, connect_timeout=2) as conn:
                return await (await conn.execute(query, values)).fetchall()
        except psycopg.OperationalError:
            return []

    async def eventually(self, query: str, expected: list[tuple[Any, ...]], timeout_s: float = 20) -> None:
        """Wait until a query gives what is expected."""
        rows: list[tuple[Any, ...]] = []
        try:
            async with asyncio.timeout(timeout_s):
                while (rows := await self.rows(query)) != expected:
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"{query}\n gives {rows}, not {expected}\n{self.log()}") from None

    def fleet(self, *, rng: Random | None = None) -> Fleet:
        """All terminals of the site."""
        members = [entry.member() for entry in self.site.terminals()]
        return Fleet(Broker("127.0.0.1", self.nats.mqtt_port), members, rng=rng or Random(7))

    def stop(self) -> None:
        if self.gateway is not None and self.gateway.poll() is None:
            self.gateway.terminate()
            try:
                self.gateway.wait(10)
            except subprocess.TimeoutExpired:
                self.kill_gateway()
        self.nats.stop()
        self.postgres.stop()


@asynccontextmanager
async def plant(
    directory: Path, *, households: int = 3, alter: Callable[[SiteFile], None] = lambda _: None, **environment: str
) -> AsyncIterator[Plant]:
    """Set a plant up, with its site applied and parties listening; the gateway is not started yet."""
    installation = Plant(directory, households=households, environment=environment)
    alter(installation.site)
    installation.responders = Responders(installation.site.responders())
    async with installation.responders.serving():
        try:
            installation.start_servers()
            await installation.apply_site()
            yield installation
        finally:
            installation.stop()


fleet_running = running
