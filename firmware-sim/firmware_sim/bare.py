"""What a bare HTTP client makes of this machine: as many requests as a storm brings, and nothing stored or signed.

It is told what to send, in one line, and says how long that took, in seconds. Beside it the figures of a storm can be
read on any machine: a gateway that stores, signs and records cannot be much faster than a client that only sends.
"""

import asyncio
import json
import time
from dataclasses import dataclass

import aiohttp
import uvloop

from firmware_sim.children import hearing, say

__all__ = ["Orders"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """So many requests with a body of so many bytes, to these addresses in turn, so many at a time to each."""

    urls: list[str]
    requests: int
    size: int
    parallel: int = 8


async def _send(orders: Orders) -> None:
    body = b"x" * orders.size
    left = iter(range(orders.requests // len(orders.urls) * len(orders.urls)))
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as client, asyncio.TaskGroup() as tasks:

        async def keep_sending(url: str) -> None:
            for _ in left:
                async with client.post(url, data=body) as answer:
                    await answer.read()

        for url in orders.urls * orders.parallel:
            tasks.create_task(keep_sending(url))


async def _run() -> None:
    async for line in await hearing():
        orders = Orders(**json.loads(line))
        began_s = time.monotonic()
        await _send(orders)
        say(time.monotonic() - began_s)


if __name__ == "__main__":
    uvloop.run(_run())
