"""A database of its own for every test, from the real migrations; the demo site in it; the API on a real port."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from uuid import UUID

import aiohttp
import psycopg
import pytest
import uvicorn
from fastapi import FastAPI
from psycopg import sql

from gateway.embedded.postgres import Postgres
from gateway.keyring import Keyring
from gateway.service.access import Role, create_key
from gateway.service.apply_site import apply_site
from gateway.site.load import load
from gateway.store.directory import Directory
from gateway.store.migrate import migrate
from gateway.store.pool import Pool, open_pool

ROOT = Path(__file__).resolve().parents[1]
_TEMPLATE = "onekey"
_numbers = count(1)


def url_of(server: str, database: str) -> str:
    """Return the address of another database of the same server."""
    return server.replace("/onekey?", f"/{database}?")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL with a migrated database, which serves as template."""
    directory = tmp_path_factory.mktemp("postgres")
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
    name = sql.Identifier(f"test_{next(_numbers)}")
    template = sql.Identifier(_TEMPLATE)
    with psycopg.connect(url_of(server, "postgres"), autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(name, template))
        yield url_of(server, name.as_string(None).strip('"'))
        conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


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


class _Server(uvicorn.Server):
    """A server that says when it serves."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: object = None) -> None:
        await super().startup(sockets)
        self.up.set()


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[str]:
    """Serve `app` on a free port of loopback and yield its address."""
    config = uvicorn.Config(app, port=0, log_config=None, access_log=False, ws="none", timeout_graceful_shutdown=1)
    running = _Server(config)
    sock = config.bind_socket()
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(running.serve(sockets=[sock]), name="api under test")
            await running.up.wait()
            try:
                yield f"http://127.0.0.1:{sock.getsockname()[1]}"
            finally:
                running.should_exit = True
    finally:
        sock.close()


@dataclass(frozen=True)
class Api:
    """The API as a client sees it."""

    url: str
    http: aiohttp.ClientSession
    keys: dict[Role, str] = field(default_factory=dict)

    def headers(self, role: Role | None = Role.ADMIN) -> dict[str, str]:
        return {} if role is None else {"Authorization": f"Bearer {self.keys[role]}"}

    async def call(
        self, method: str, path: str, *, role: Role | None = Role.ADMIN, json: object = None
    ) -> tuple[int, dict[str, object]]:
        """Return status and JSON of an answer; nothing at all becomes an empty object."""
        async with self.http.request(method, self.url + path, headers=self.headers(role), json=json) as response:
            if response.status == 204:
                return 204, {}
            body = await response.json(content_type=None)
            return response.status, body


async def make_keys(pool: Pool, keyring: Keyring) -> dict[Role, str]:
    return {role: (await create_key(pool, keyring, name=role, role=role))[1] for role in Role}


def party_leg(legs: list[dict[str, object]], role: str) -> UUID:
    """Return the leg of a role from a case as the API shows it."""
    return UUID(str(next(leg["id"] for leg in legs if leg["role"] == role)))
