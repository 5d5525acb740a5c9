"""A database of its own for every test, made from the real migrations, and the demo site to put into it."""

from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

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
_numbers = count(1)


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


@pytest.fixture
def database(server: str) -> Iterator[str]:
    """A fresh database with all migrations."""
    name = f"test_{next(_numbers)}"
    with psycopg.connect(server.replace("/onekey?", "/postgres?"), autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE DATABASE {} TEMPLATE onekey").format(sql.Identifier(name)))
        try:
            yield server.replace("/onekey?", f"/{name}?")
        finally:
            conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


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
