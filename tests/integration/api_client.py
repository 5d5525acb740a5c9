"""The API on a real port, as a client sees it, and presses that reach the gateway behind it."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import aiohttp
import uvicorn
from fastapi import FastAPI

from gateway.service.access import Role
from gateway.service.raise_alarm import Press, Raised, raise_alarm
from gateway.store.directory import Directory
from gateway.store.pool import Pool

__all__ = ["Api", "press", "read_events", "serving"]


class _Server(uvicorn.Server):
    """A server that says when it serves."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: Any = None) -> None:
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
    """The API with a key for each role."""

    url: str
    http: aiohttp.ClientSession
    keys: dict[Role, str]

    def headers(self, role: Role | None = Role.ADMIN) -> dict[str, str]:
        return {} if role is None else {"Authorization": f"Bearer {self.keys[role]}"}

    async def call(
        self, method: str, path: str, *, role: Role | None = Role.ADMIN, body: object = None
    ) -> tuple[int, Any]:
        """Return status and JSON of an answer; an empty one is None."""
        request = self.http.request(method, self.url + path, headers=self.headers(role), json=body)
        async with request as response:
            text = await response.text()
            return response.status, json.loads(text) if text else None

    async def page(self, method: str, path: str, **arguments: Any) -> tuple[aiohttp.ClientResponse, str]:
        """Return a page and its text, without following it to the next."""
        async with self.http.request(method, self.url + path, allow_redirects=False, **arguments) as response:
            return response, await response.text()


async def read_events(response: aiohttp.ClientResponse) -> AsyncIterator[tuple[int, str, dict[str, Any]]]:
    """Yield position, kind and data of every event of a stream."""
    told: dict[str, str] = {}
    async for raw in response.content:
        line = raw.decode().rstrip("\r\n")
        if line:
            name, _, value = line.partition(": ")
            told[name] = value
        else:
            if "id" in told:
                yield int(told["id"]), told["event"], json.loads(told["data"])
            told = {}


async def press(
    pool: Pool,
    directory: Directory,
    *,
    terminal: str = "860000000000001",
    kinds: tuple[str, ...] = ("sos",),
    seq: int = 1,
    fix: dict[str, Any] | None = None,
    test: bool = False,
    worker: int | None = None,
) -> Raised:
    """Press the button of a terminal."""
    payload = f"{terminal} {kinds} {seq}".encode()
    return await raise_alarm(
        pool,
        directory,
        Press(
            terminal=terminal,
            transport="mqtt",
            kinds=kinds,
            received_at=datetime.now(UTC),
            payload=payload,
            digest=hashlib.sha256(payload).digest(),
            boot=1,
            seq=seq,
            fix=fix,
            test=test,
        ),
        worker=worker,
    )
