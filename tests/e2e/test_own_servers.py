"""``onekey run`` on a PostgreSQL and a Mosquitto of one's own, set up as the guides say, and restarted under it."""

import asyncio
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import psutil
import psycopg
import pytest

from firmware_sim.fleet import Broker, Fleet, running
from firmware_sim.responders import Responders
from firmware_sim.sites import NANJING, made_up
from firmware_sim.stack import Stack
from firmware_sim.stack import running as stack_running
from gateway.embedded.processes import Account, Process, free_port, make_reachable, spawn, stop

HOUSEHOLDS = 6


def needed(found: str | Path | None, what: str, package: str) -> Path:
    """Skip and say what to install where a program is missing; in CI that is a failure."""
    if found is None:
        sentence = f"{what} is missing: apt-get install {package}"
        if os.environ.get("CI"):
            pytest.fail(sentence)
        pytest.skip(sentence)
    return Path(found)


class OwnPostgres:
    """A PostgreSQL of the system, on a port of loopback. As root it runs as the user postgres."""

    def __init__(self, directory: Path) -> None:
        newest = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), default=None)
        self._programs = needed(newest, "PostgreSQL", "postgresql")
        self._data = directory / "own-postgres"
        self._log = directory / "own-postgres.log"
        self._port = free_port("127.0.0.1")
        self._process: Process | None = None
        self._account: Account | None = None
        self._data.mkdir(mode=0o700)
        if os.geteuid() == 0:
            entry = pwd.getpwnam("postgres")
            self._account = Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
            os.chown(self._data, entry.pw_uid, entry.pw_gid)
            make_reachable(self._data, self._account)
        made = self._spawn("initdb", "-A", "trust", "-U", "admin", "-E", "UTF8", "--no-locale")
        assert made.wait(60) == 0, self._log.read_text()

    def _spawn(self, program: str, *options: str) -> Process:
        return spawn(
            [str(self._programs / program), "-D", str(self._data), *options],
            log=self._log,
            environment={"PATH": os.defpath, "LC_ALL": "C"},
            on_our_death=signal.SIGINT,
            account=self._account,
        )

    def url(self, user: str, database: str) -> str:
        return f"postgresql://{user}@127.0.0.1:{self._port}/{database}"

    def start(self) -> None:
        self._process = self._spawn("postgres", f"-p{self._port}", "-h127.0.0.1", "-k", str(self._data))
        while True:
            try:
                psycopg.connect(self.url("admin", "postgres"), connect_timeout=5).close()
                return
            except psycopg.OperationalError:
                assert self._process.poll() is None, self._log.read_text()

    def stop(self) -> None:
        stop(self._process, (signal.SIGINT, 30))

    def administrate(self, *statements: str) -> None:
        with psycopg.connect(self.url("admin", "postgres"), autocommit=True) as conn:
            for statement in statements:
                conn.execute(statement.encode())


class OwnMosquitto:
    """A Mosquitto of the system, on what ``onekey broker mosquitto`` has written."""

    def __init__(self, directory: Path, site: Path) -> None:
        path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin"
        self._program = needed(shutil.which("mosquitto", path=path), "Mosquitto", "mosquitto")
        self._log = directory / "own-mosquitto.log"
        self._folder = directory / "own-mosquitto"
        self.port, self._gateway_port = free_port("127.0.0.1"), free_port("127.0.0.1")
        self._process: Process | None = None
        ports = ("--port", str(self.port), "--gateway-port", str(self._gateway_port))
        status, out = command("broker", "mosquitto", self._folder, "--site", site, *ports)
        assert status == 0, out
        self.gateway_url = (self._folder / "gateway.url").read_text().strip()

    def start(self) -> None:
        self._process = spawn(
            [str(self._program), "-c", str(self._folder / "mosquitto.conf")],
            log=self._log,
            environment={"PATH": os.defpath},
            on_our_death=signal.SIGTERM,
        )
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
                return
            except ConnectionRefusedError:
                assert self._process.poll() is None, self._log.read_text()

    def stop(self) -> None:
        stop(self._process, (signal.SIGTERM, 30))


def command(*words: str | Path, **settings: str) -> tuple[int, str]:
    """Run one ``onekey`` command and return its status and everything that it printed."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("ONEKEY_")}
    done = subprocess.run(
        [sys.executable, "-m", "gateway.cli", *map(str, words)],
        env={**plain, "COLUMNS": "400", **settings},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout.decode()


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[OwnPostgres]:
    server = OwnPostgres(tmp_path)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def test_an_ordinary_database_user_is_told_what_an_administrator_has_to_do(
    tmp_path: Path, postgres: OwnPostgres
) -> None:
    postgres.administrate("CREATE ROLE plain LOGIN", "CREATE DATABASE onekey OWNER plain")
    database = postgres.url("plain", "onekey")
    status, out = command("--data", tmp_path / "data", "migrate", ONEKEY_DATABASE=database)
    assert status == 2, out
    assert "Traceback" not in out
    statements = re.findall(r"(?:CREATE ROLE|GRANT) [^;]+;", out)
    assert len(statements) == 2, out
    postgres.administrate(*(statement.replace("<this user>", "plain") for statement in statements))
    status, out = command("--data", tmp_path / "data", "migrate", "--json", ONEKEY_DATABASE=database)
    assert status == 0, out
    assert json.loads(out)["applied"]


async def test_presses_arrive_while_both_servers_are_restarted(tmp_path: Path, postgres: OwnPostgres) -> None:
    """The user of the database is no superuser: it may create roles, and owns its database."""
    postgres.administrate("CREATE ROLE owner LOGIN CREATEROLE", "CREATE DATABASE onekey OWNER owner")
    site, file = made_up(HOUSEHOLDS, seed=3), tmp_path / "site.yaml"
    responders = Responders(site.responders())
    async with responders.serving():
        site.point_webhooks(responders.url)
        site.save(file)
        mosquitto = OwnMosquitto(tmp_path, file)
        mosquitto.start()
        settings = {"ONEKEY_DATABASE": postgres.url("owner", "onekey"), "ONEKEY_MQTT": mosquitto.gateway_url}
        stack = Stack(tmp_path / "data", log=tmp_path / "run.log", settings=settings)
        try:
            async with stack_running(stack) as info:
                commands = [" ".join(child.cmdline()) for child in psutil.Process(info.pid).children()]
                assert sorted(words.rpartition(" ")[2] for words in commands) == ["api", "gateway"], "no server of ours"
                await stack.apply_site(file)
                members = [entry.member() for entry in site.terminals()]
                fleet = Fleet(Broker("127.0.0.1", mosquitto.port), members, rng=Random(7))
                async with running(fleet), asyncio.timeout(120):
                    await fleet.wait_online()
                    homes = iter(fleet.terminals)
                    for _ in range(2):
                        fleet.press(next(homes))
                    await fleet.wait_received()
                    await asyncio.to_thread(postgres.stop)
                    presses = [fleet.press(next(homes)) for _ in range(2)]
                    await asyncio.to_thread(postgres.start)
                    await fleet.wait_received(*presses)
                    await asyncio.to_thread(mosquitto.stop)
                    presses = [fleet.press(next(homes)) for _ in range(2)]
                    await asyncio.to_thread(mosquitto.start)
                    await fleet.wait_received(*presses)
                    await responders.wait(lambda arrivals: len({(one.party, one.case) for one in arrivals}) == 36)
                assert stack.tail().count("ended") == 0, stack.tail()
        finally:
            mosquitto.stop()
    assert {arrival.role for arrival in responders.arrivals} == set(NANJING)
    assert all(arrival.verified and arrival.problem is None for arrival in responders.arrivals)
    ids: dict[object, set[str]] = {}
    for arrival in responders.arrivals:
        ids.setdefault((arrival.party, arrival.case), set()).add(arrival.id)
    assert {len(one) for one in ids.values()} == {1}
    assert {press.case for press in fleet.presses} == {arrival.case for arrival in responders.arrivals}
    assert len({press.case for press in fleet.presses}) == HOUSEHOLDS
