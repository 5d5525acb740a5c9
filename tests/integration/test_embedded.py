"""The servers that come with the package, and everything started together: they outlive no one and lose nothing."""

import json
import os
import queue
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import aiomqtt
import httpx
import psutil
import psycopg
import pytest

from gateway.embedded.nats import Nats
from gateway.embedded.postgres import Postgres
from gateway.embedded.processes import ServerError, rotate
from gateway.embedded.supervisor import read_run_file

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("ONEKEY_")},
    "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'firmware-sim'}",
    "PYTHONUNBUFFERED": "1",
}


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that another user may be let into; those of pytest are closed again whenever a session starts."""
    path = Path(tempfile.mkdtemp(prefix="onekey-test-"))
    yield path
    shutil.rmtree(path)


def eventually(condition: Callable[[], bool], *, within_s: float = 30) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)


# PostgreSQL


def test_what_was_committed_is_there_after_a_restart(place: Path) -> None:
    server = Postgres(place / "pg", log=place / "pg.log")
    with psycopg.connect(server.start()) as conn:
        conn.execute("CREATE TABLE press AS SELECT 7 AS seq")
    assert server.process is not None
    server.process.kill()
    server.process.wait()
    with psycopg.connect(server.start()) as conn:
        assert conn.execute("SELECT seq FROM press").fetchone() == (7,)
    server.stop()


def test_the_database_listens_on_no_network_and_logs_no_values(place: Path) -> None:
    server = Postgres(place / "pg", log=place / "logs" / "pg.log")
    with psycopg.connect(server.start(), autocommit=True) as conn:
        assert conn.execute("SHOW listen_addresses").fetchone() == ("",)
        assert conn.execute("SHOW fsync").fetchone() == ("on",)
        conn.execute("CREATE TABLE person (phone text PRIMARY KEY)")
        conn.execute("INSERT INTO person VALUES ('13912345678')")
        with pytest.raises(psycopg.errors.UniqueViolation):
            conn.execute("INSERT INTO person VALUES ('13912345678')")
    server.stop()
    assert stat.S_IMODE((place / "pg").stat().st_mode) == 0o700
    log = (place / "logs" / "pg.log").read_text()
    assert "duplicate key" in log
    assert "13912345678" not in log


@pytest.mark.parametrize("name", ["x" * 120, "with, comma", "老人"])
def test_any_directory_will_do(place: Path, name: str) -> None:
    server = Postgres(place / name, log=place / "pg.log")
    with psycopg.connect(server.start()) as conn:
        sockets = Path(conn.info.host)
    server.stop()
    assert not sockets.exists()
    with psycopg.connect(server.start()) as conn:
        assert conn.execute("SELECT current_database()").fetchone() == ("onekey",)
    server.stop()


def test_a_second_server_on_the_same_data_is_refused(place: Path) -> None:
    first = Postgres(place / "pg", log=place / "pg.log")
    first.start()
    assert first.process is not None
    with pytest.raises(ServerError, match=rf"in use.*{first.process.pid}"):
        Postgres(place / "pg", log=place / "pg2.log", patience_s=0.1).start()
    first.stop()


def test_an_interrupted_creation_is_done_again(place: Path) -> None:
    (place / "pg" / "unfinished" / "base").mkdir(parents=True)
    (place / "pg" / "unfinished" / "PG_VERSION").write_text("18\n")
    server = Postgres(place / "pg", log=place / "pg.log")
    psycopg.connect(server.start()).close()
    server.stop()
    assert not (place / "pg" / "unfinished").exists()


def test_a_left_over_process_id_that_another_process_has_now_does_no_harm(place: Path) -> None:
    server = Postgres(place / "pg", log=place / "pg.log")
    server.start()
    assert server.process is not None
    note = (place / "pg" / "18" / "postmaster.pid").read_text().splitlines()
    server.process.kill()
    server.process.wait()
    sleeper = subprocess.Popen(["sleep", "600"], user=(place / "pg").stat().st_uid if os.geteuid() == 0 else None)
    (place / "pg" / "18" / "postmaster.pid").write_text("\n".join([str(sleeper.pid), *note[1:]]))
    psycopg.connect(server.start()).close()
    server.stop()
    sleeper.kill()
    sleeper.wait()


def test_a_server_lives_on_when_the_thread_that_started_it_ends(place: Path) -> None:
    server = Postgres(place / "pg", log=place / "pg.log")
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
    with psycopg.connect(server.url) as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)
    server.stop()


# NATS


async def test_the_broker_keeps_what_the_gateway_has_not_taken(place: Path) -> None:
    broker = Nats(place / "nats", log=place / "nats.log")
    broker.start()
    async with gateway_client(broker) as client:
        await client.subscribe("okc/v1/+/up/alarm", qos=1)
    async with gateway_client(broker, name="~other") as client:
        await client.publish("okc/v1/8600/up/alarm", b"help", qos=1)
    broker.stop()
    broker.start()
    async with gateway_client(broker) as client:
        assert (await anext(aiter(client.messages))).payload == b"help"
    broker.stop()


def gateway_client(broker: Nats, *, name: str = "~gateway-1") -> aiomqtt.Client:
    url = urlsplit(broker.gateway_url)
    return aiomqtt.Client(
        url.hostname or "",
        url.port or 0,
        username=url.username,
        password=url.password,
        identifier=name,
        clean_session=False,
        protocol=aiomqtt.ProtocolVersion.V311,
    )


def test_its_secrets_are_made_once_and_only_ours_to_read(place: Path) -> None:
    broker = Nats(place / "nats", log=place / "nats.log")
    broker.start()
    broker.stop()
    before = (broker.auth_seed, urlsplit(broker.gateway_url).password)
    again = Nats(place / "nats", log=place / "nats.log")
    again.start()
    again.stop()
    assert (again.auth_seed, urlsplit(again.gateway_url).password) == before
    for name in ("keys.json", "nats.conf"):
        assert stat.S_IMODE((place / "nats" / name).stat().st_mode) == 0o600
    assert str(urlsplit(broker.gateway_url).password) not in (place / "nats.log").read_text()


def test_a_taken_port_is_named_with_the_flag(place: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ServerError, match=rf"{port}.*--mqtt-port"):
            Nats(place / "nats", log=place / "nats.log", mqtt_port=port).start()


def test_a_second_broker_on_the_same_data_is_refused(place: Path) -> None:
    first = Nats(place / "nats", log=place / "nats.log")
    first.start()
    assert first.process is not None
    with pytest.raises(ServerError, match=rf"in use.*{first.process.pid}"):
        Nats(place / "nats", log=place / "nats2.log", patience_s=0.1).start()
    first.stop()


# Whoever started them is killed

STARTER = """
import sys
from pathlib import Path
from gateway.embedded.nats import Nats
from gateway.embedded.postgres import Postgres
place = Path(sys.argv[1])
postgres = Postgres(place / "pg", log=place / "pg.log")
print(postgres.start(), flush=True)
broker = Nats(place / "nats", log=place / "nats.log")
broker.start()
print(postgres.process.pid, broker.process.pid, flush=True)
sys.stdin.read()
"""


def test_nothing_outlives_whoever_started_it_and_the_next_start_goes_on(place: Path) -> None:
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENVIRONMENT
    )
    assert starter.stdout is not None
    url = starter.stdout.readline().decode().strip()
    children = [psutil.Process(int(pid)) for pid in starter.stdout.readline().split()]
    with psycopg.connect(url) as conn:
        conn.execute("CREATE TABLE press AS SELECT 7 AS seq")
    starter.kill()
    starter.communicate()
    server, broker = Postgres(place / "pg", log=place / "pg.log"), Nats(place / "nats", log=place / "nats.log")
    with psycopg.connect(server.start()) as conn:  # While the old one may still be ending.
        assert conn.execute("SELECT seq FROM press").fetchone() == (7,)
    broker.start()
    assert psutil.wait_procs(children, timeout=30)[1] == []
    broker.stop()
    server.stop()


# Everything together, with small programs in the place of gateway and API

GATEWAY = """
import os, signal, psycopg
with psycopg.connect(os.environ["ONEKEY_DATABASE"]) as conn:
    conn.execute("SELECT FROM terminal")
print("gateway up", flush=True)
signal.pause()
"""
API = """
import http.server, os
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health/ready" else 404)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(os.environ["ONEKEY_HTTP_PORT"])), Answer).serve_forever()
"""
DRIVER = """
import json, sys
from gateway.config import load
from gateway.embedded import supervisor
programs = {name: [sys.executable, "-c", text] for name, text in json.loads(sys.argv[2]).items()}
sys.exit(supervisor.run(load(data=sys.argv[1], mqtt_port=0, http_port=0), programs=programs))
"""


class Run:
    """One ``onekey run`` as a process of its own. Its output comes line by line."""

    def __init__(self, data: Path, programs: dict[str, str] | None = None) -> None:
        self.data = data
        shown = json.dumps(programs or {"gateway": GATEWAY, "api": API})
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(data), shown],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=ENVIRONMENT,
            text=True,
            start_new_session=True,
        )
        self.lines: queue.Queue[str] = queue.Queue()
        self.text = ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.text += line
            self.lines.put(line)

    def until(self, words: str) -> None:
        while words not in self.lines.get(timeout=60):
            pass

    def ready(self) -> dict[str, str | int]:
        self.until("onekey is ready")
        found = read_run_file(self.data)
        assert found is not None
        return found

    def children(self) -> dict[str, psutil.Process]:
        found = {}
        for child in psutil.Process(self.process.pid).children():
            try:
                command = " ".join(child.cmdline())
            except psutil.Error:  # It has just ended.
                continue
            names = {"bin/postgres": "postgres", "nats-server": "nats", "http.server": "api", "signal.pause": "gateway"}
            found |= {name: child for part, name in names.items() if part in command}
        return found

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        if number == signal.SIGINT:  # Ctrl-C reaches the whole group.
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)
        status = self.process.wait(60)
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status


@pytest.fixture
def start(place: Path) -> Iterator[Callable[..., Run]]:
    """Start runs, none of which outlives the test."""
    runs: list[Run] = []

    def begin(data: Path, programs: dict[str, str] | None = None) -> Run:
        runs.append(Run(data, programs))
        return runs[-1]

    yield begin
    for run in runs:
        if run.process.returncode is None:
            run.end()


def serves(found: dict[str, str | int]) -> bool:
    try:
        return httpx.get(f"{found['http']}/health/ready").status_code == 200
    except httpx.TransportError:
        return False


def test_everything_starts_says_where_it_is_and_ends(place: Path, start: Callable[..., Run]) -> None:
    data = place / "data"
    run = start(data)
    found = run.ready()
    assert found["state"] == "ready"
    assert found["pid"] == run.process.pid
    assert serves(found)
    with psycopg.connect(str(found["database"])) as conn:
        assert conn.execute("SELECT count(*) FROM migration").fetchone() != (0,)
    assert stat.S_IMODE((data / "run.json").stat().st_mode) == 0o600
    assert stat.S_IMODE((data / "keys" / "master.key").stat().st_mode) == 0o600
    children = run.children()
    assert set(children) == {"postgres", "nats", "gateway", "api"}
    password = urlsplit(str(found["broker"])).password
    assert not any(str(password) in " ".join(child.cmdline()) for child in children.values())

    second = start(data)
    assert second.process.wait(60) == 2
    second.end()
    assert f"process {run.process.pid}" in second.text
    assert "--data" in second.text

    assert run.end(signal.SIGINT) == 0
    assert psutil.wait_procs(list(children.values()), timeout=1)[1] == []
    assert "KeyboardInterrupt" not in (data / "logs" / "gateway.log").read_text()
    assert read_run_file(data) is None
    assert not (data / "run.json").exists()


def test_whatever_dies_is_started_again_under_the_same_address(place: Path, start: Callable[..., Run]) -> None:
    run = start(place / "data")
    found = run.ready()
    before = run.children()
    for child in before.values():
        child.kill()

    def all_new() -> bool:
        now = run.children()
        return set(now) == set(before) and all(now[name] != before[name] for name in now)

    eventually(all_new)
    eventually(lambda: serves(found))

    def database_answers() -> bool:
        try:
            with psycopg.connect(str(found["database"])) as conn:
                return conn.execute("SELECT 1").fetchone() == (1,)
        except psycopg.OperationalError:
            return False

    eventually(database_answers)
    assert read_run_file(place / "data") == found
    assert run.end() == 0


def living(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Return those that still run: an orphan that ended may stay in the table until process 1 has looked at it."""
    return [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def test_a_killed_supervisor_leaves_no_orphans_and_the_next_one_goes_on(place: Path, start: Callable[..., Run]) -> None:
    run = start(place / "data")
    found = run.ready()
    with psycopg.connect(str(found["database"])) as conn:
        conn.execute("CREATE TABLE press AS SELECT 7 AS seq")
    children = list(run.children().values())
    run.end(signal.SIGKILL)
    assert read_run_file(place / "data") is None
    again = start(place / "data")
    found = again.ready()
    assert living(children) == []
    with psycopg.connect(str(found["database"])) as conn:
        assert conn.execute("SELECT seq FROM press").fetchone() == (7,)
    assert again.end() == 0


def test_a_program_that_cannot_start_ends_everything_with_its_words(place: Path, start: Callable[..., Run]) -> None:
    before = psutil.Process().children()
    run = start(
        place / "data",
        {"gateway": "raise SystemExit('no such thing as a moon')", "api": "import signal; signal.pause()"},
    )
    assert run.process.wait(60) == 1
    run.end()
    assert "no such thing as a moon" in run.text
    assert living([child for child in psutil.Process().children() if child not in before]) == []


def test_a_database_whose_key_is_lost_gets_no_new_one(place: Path, start: Callable[..., Run]) -> None:
    run = start(place / "data")
    run.ready()
    run.end()
    (place / "data" / "keys" / "master.key").rename(place / "kept")
    run = start(place / "data")
    assert run.process.wait(60) == 1
    run.end()
    assert "master key" in run.text


def test_a_large_log_is_moved_aside_under_its_writer(place: Path) -> None:
    log = place / "gateway.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"x" * 20_000_001)
        rotate(log)
        writer.write(b"next\n")
    assert log.read_bytes() == b"next\n"
    assert (place / "gateway.log.1").stat().st_size == 20_000_001
