"""A database of its own for every test, made from the real migrations, and the demo site to put into it."""

from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import LiteralString

import hypothesis
import psycopg
import pytest
from psycopg import sql

from gateway.embedded.postgres import Postgres
from gateway.keyring import Keyring
from gateway.service.apply_site import apply_site
from gateway.site.load import load
from gateway.store.directory import Directory
from gateway.store.migrate import migrate
from gateway.store.pool import Pool, open_pool

ROOT = Path(__file__).resolve().parents[1]

# A slow machine is no failure: nothing is timed here.
hypothesis.settings.register_profile("untimed", parent=hypothesis.settings(), deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """A PostgreSQL with a migrated database, which serves as template."""
    # Not under pytest's own directory: every other run of pytest closes that to the server's user again.
    with TemporaryDirectory(prefix="onekey-test-") as name:
        directory = Path(name)
        postgres = Postgres(directory / "data", log=directory / "log")
        try:
            url = postgres.start()
            migrate(url)
            yield url
        finally:
            postgres.stop()


class Stock:
    """Fresh databases: the next one is made, and the last one dropped, while a test runs. Half a second saved each."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._thread = ThreadPoolExecutor(1)
        self._numbers = count(1)
        self._next: Future[str] | None = None
        self._dropped: list[Future[None]] = []

    def take(self) -> str:
        ahead, self._next = self._next, None
        name = None if ahead is None or ahead.exception() is not None else ahead.result()
        try:
            return name or self._thread.submit(self._make).result()
        finally:
            self._next = self._thread.submit(self._make)

    def give_back(self, name: str) -> None:
        self._dropped.append(self._thread.submit(self._do, "DROP DATABASE {} WITH (FORCE)", name))

    def close(self) -> None:
        self._thread.shutdown()
        for dropped in self._dropped:
            dropped.result()

    def _make(self) -> str:
        name = f"test_{next(self._numbers)}"
        self._do("CREATE DATABASE {} TEMPLATE onekey", name)
        return name

    def _do(self, statement: LiteralString, name: str) -> None:
        with psycopg.connect(self._server.replace("/onekey?", "/postgres?"), autocommit=True) as conn:
            conn.execute(sql.SQL(statement).format(sql.Identifier(name)))


@pytest.fixture(scope="session")
def stock(server: str) -> Iterator[Stock]:
    databases = Stock(server)
    yield databases
    databases.close()


@pytest.fixture
def database(server: str, stock: Stock) -> Iterator[str]:
    """A fresh database with all migrations."""
    name = stock.take()
    yield server.replace("/onekey?", f"/{name}?")
    stock.give_back(name)


@pytest.fixture
def keyring() -> Keyring:
    return Keyring(bytes(range(32)))


@pytest.fixture
def directory(keyring: Keyring) -> Directory:
    return Directory(keyring)


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    async with open_pool(database, name="test", size=6) as opened:
        yield opened


@pytest.fixture
async def site(pool: Pool, keyring: Keyring) -> str:
    """The demo site of Nanjing, applied; returns its id."""
    loaded = load(ROOT / "examples" / "nanjing.yaml").site
    await apply_site(pool, keyring, loaded, prune=False)
    return loaded.site
