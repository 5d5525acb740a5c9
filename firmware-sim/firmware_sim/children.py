"""Generators in processes of their own, so that what they cost is not taken for slowness of the gateway.

Both sides speak lines of JSON: `Child` is the end of the bench, `say` and `hearing` are the end of the generator. A
generator ends when its standard input is closed.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from firmware_sim.stack import StackError

__all__ = ["Child", "child", "hearing", "say"]

_LONGEST_LINE = 1 << 26


class Child:
    """A generator, as the bench sees it."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self._name = name
        self._process = process

    async def tell(self, document: object) -> None:
        """Send one line."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(document).encode() + b"\n")
        await self._process.stdin.drain()

    async def hear(self) -> Any:
        """Wait for one line.

        Raises:
            StackError: It ended instead; why stands on its standard error, which is ours.
        """
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise StackError(f"{self._name} ended with status {await self._process.wait()}")
        return json.loads(line)

    async def ask(self, document: object) -> Any:
        """Send one line and wait for the one that answers it."""
        await self.tell(document)
        return await self.hear()


@asynccontextmanager
async def child(module: str) -> AsyncIterator[Child]:
    """Run `module` for the length of a block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", module),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_LONGEST_LINE,
    )
    assert process.stdin is not None
    try:
        yield Child(module, process)
    finally:
        process.stdin.close()
        await process.wait()


def say(document: object) -> None:
    """Say one line to the bench."""
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


async def hearing() -> asyncio.StreamReader:
    """Return what the bench tells, to be read by lines."""
    reader = asyncio.StreamReader(limit=_LONGEST_LINE)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader
