"""The gateway as a process: started, watched and stopped from outside, spoken to by its command line and its API."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp

from schemas.case import CaseLineOut, CaseOut, Page

__all__ = ["Api", "RunInfo", "Stack", "StackError", "running"]

_READY_WITHIN_S = 90.0
_STOP_WITHIN_S = 20.0
_LOOK_EVERY_S = 0.05
_TAIL_LINES = 25


class StackError(Exception):
    """The gateway did not start, died, or refused a command; the text is for a human."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInfo:
    """Where a running gateway can be reached: ``run.json`` in its data directory.

    ``broker`` and ``database`` are the gateway's own addresses, with its credentials.
    """

    mqtt: str
    http: str
    pid: int
    database: str | None = field(default=None, repr=False)
    broker: str | None = field(default=None, repr=False)


class Stack:
    """One gateway on one data directory, with the database and broker that it brings along."""

    def __init__(
        self,
        data: Path,
        *,
        log: Path,
        options: Sequence[str] = (),
        settings: Mapping[str, str] | None = None,
        command: Sequence[str] = (),
    ) -> None:
        """Prepare, start nothing.

        Args:
            data: Data directory; may not exist yet.
            log: File for everything the gateway prints.
            options: Further options of ``onekey`` itself, such as ``--database URL``.
            settings: ``ONEKEY_…`` variables for what has no option.
            command: How to call ``onekey``; by default the one installed beside this package.
        """
        self.data = data
        self.log = log
        self._options = tuple(options)
        self._settings = dict(settings or {})
        self._command = tuple(command) or (sys.executable, "-m", "gateway.cli")
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, *, on_state: Callable[[str], None] = lambda _state: None) -> RunInfo:
        """Start the gateway on free ports of loopback and wait until it is ready.

        Raises:
            StackError: It died, or was not ready within 90 s; says what it printed last.
        """
        self.data.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            # A session of its own: ctrl-C is for us, and we stop the gateway when we are done with it.
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                *("--data", str(self.data), *self._options),
                *("run", "--mqtt-port", "0", "--http-port", "0"),
                env=self._environment(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            async with asyncio.timeout(_READY_WITHIN_S):
                return await self._ready(self._process, on_state)
        except TimeoutError:
            await self.stop()
            raise StackError(f"the gateway was not ready within {_READY_WITHIN_S:.0f} s\n{self.tail()}") from None
        except BaseException:
            await self.stop()
            raise

    async def _ready(self, process: asyncio.subprocess.Process, on_state: Callable[[str], None]) -> RunInfo:
        last = ""
        while True:
            found = self._run_file()
            # A file with another pid is left over from a run that was killed.
            if found.get("pid") == process.pid:
                state = str(found.get("state"))
                if state != last:
                    on_state(state)
                    last = state
                if state == "ready":
                    return RunInfo(
                        mqtt=found["mqtt"],
                        http=found["http"],
                        pid=found["pid"],
                        database=found.get("database"),
                        broker=found.get("broker"),
                    )
            if process.returncode is not None:
                raise StackError(f"the gateway ended with status {process.returncode} while starting\n{self.tail()}")
            await asyncio.sleep(_LOOK_EVERY_S)

    def _environment(self) -> dict[str, str]:
        """Return our environment with our settings alone: any others would point this gateway at another's database."""
        plain = {name: value for name, value in os.environ.items() if not name.startswith("ONEKEY_")}
        return plain | self._settings

    def _run_file(self) -> dict[str, Any]:
        try:
            found = json.loads((self.data / "run.json").read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return found if isinstance(found, dict) else {}

    def tail(self) -> str:
        """Return what the gateway printed last."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join([f"--- end of {self.log}", *lines[-_TAIL_LINES:]])

    async def wait(self) -> int:
        """Wait until the gateway ends by itself and return its status."""
        if self._process is None:
            raise StackError("the gateway was never started")
        return await self._process.wait()

    async def stop(self) -> None:
        """Interrupt the gateway and wait for it; kill what does not go within 20 s. Stopping twice is harmless."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.send_signal(signal.SIGINT)
        try:
            async with asyncio.timeout(_STOP_WITHIN_S):
                await process.wait()
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """Kill the gateway and what it started in its session, as a power cut would."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()

    async def call(self, *arguments: str) -> Any:
        """Run one ``onekey`` command on this data directory and return the JSON that it prints.

        Raises:
            StackError: The command failed, or printed no JSON.
        """
        process = await asyncio.create_subprocess_exec(
            *self._command,
            *("--data", str(self.data)),
            *arguments,
            env=self._environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        # Only the words of the command: its options may hold secrets.
        name = " ".join(["onekey", *arguments[:2]])
        if process.returncode != 0:
            said = (err or out).decode(errors="replace").strip()
            raise StackError(f"{name} failed with status {process.returncode}:\n{said[-4000:]}")
        try:
            return json.loads(out)
        except json.JSONDecodeError as exc:
            raise StackError(f"{name} printed no JSON: {out[:300]!r}") from exc

    async def apply_site(self, file: Path) -> Any:
        """Make the site in `file` the one that the gateway serves."""
        return await self.call("site", "apply", str(file), "--yes", "--json")

    async def create_key(self, *, role: str, name: str) -> str:
        """Return a new API key."""
        return str((await self.call("key", "create", name, "--role", role, "--json"))["key"])


@asynccontextmanager
async def running(stack: Stack, *, on_state: Callable[[str], None] = lambda _state: None) -> AsyncIterator[RunInfo]:
    """Run `stack` for the length of a block."""
    info = await stack.start(on_state=on_state)
    try:
        yield info
    finally:
        await stack.stop()


class Api:
    """The gateway's REST API, as far as a witness reads it."""

    def __init__(self, client: aiohttp.ClientSession, url: str, key: str) -> None:
        self._client = client
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {key}"}

    async def get(self, path: str, **query: str | int) -> bytes:
        """Return the body at `path`.

        Raises:
            StackError: Any status but 200.
        """
        async with self._client.get(self._url + path, params=query, headers=self._headers) as response:
            body = await response.read()
            if response.status != 200:
                raise StackError(f"GET {path}: HTTP {response.status}: {body[:300].decode(errors='replace')}")
            return body

    async def cases(self, **query: str | int) -> list[CaseLineOut]:
        """Return all cases that match `query`, page by page."""
        found: list[CaseLineOut] = []
        while True:
            page = Page[CaseLineOut].model_validate_json(await self.get("/v1/cases", limit=50, **query))
            found += page.items
            if page.cursor is None:
                return found
            query["cursor"] = page.cursor

    async def case(self, case: UUID) -> CaseOut:
        """Return one case with its alarms, legs and timeline."""
        return CaseOut.model_validate_json(await self.get(f"/v1/cases/{case}"))
