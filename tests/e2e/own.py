"""What an installer may have of their own: a broker that runs with the configuration we write for it."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.embedded import mosquitto
from gateway.embedded.processes import free_port
from gateway.site.load import load

__all__ = ["needed", "own_mosquitto"]


def needed(name: str, package: str) -> str:
    """Find a program, or skip and say what to install; in CI a missing one is a failure."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if found is None:
        sentence = f"{name} is missing: apt-get install {package}"
        if os.environ.get("CI"):
            pytest.fail(sentence)
        pytest.skip(sentence)
    return found


@contextmanager
def own_mosquitto(directory: Path, site: Path) -> Iterator[tuple[str, int]]:
    """Run Mosquitto for the terminals of a site file; the address for gateways, and the port for terminals."""
    program = needed("mosquitto", "mosquitto")
    port, gateway_port = free_port("127.0.0.1"), free_port("127.0.0.1")
    directory.chmod(0o755)
    folder = directory / "own-mosquitto"
    url = mosquitto.write(folder, site=load(site).site, port=port, gateway_port=gateway_port)
    with (directory / "mosquitto.log").open("wb") as log:
        broker = subprocess.Popen([program, "-c", str(folder / "mosquitto.conf")], stdout=log, stderr=log)
    try:
        yield url, port
    finally:
        broker.terminate()
        broker.wait(30)
