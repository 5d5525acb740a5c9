"""A seat at the hotline: an operator who works through the gateway's API, as a platform would."""

import asyncio
from typing import Any
from uuid import UUID

import aiohttp

__all__ = ["Refused", "Seat"]

_LOOK_EVERY_S = 0.1


class Refused(Exception):
    """The gateway did not do what the operator asked; the text is its problem document."""


class Seat:
    """One operator. Everything is said in their name."""

    def __init__(self, client: aiohttp.ClientSession, url: str, key: str, name: str) -> None:
        """Work at `url` with an API key for operators."""
        self._client = client
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {key}"}
        self.name = name

    async def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Make one request and return its body.

        Raises:
            Refused: Any status that is no success.
        """
        async with self._client.request(method, self._url + path, json=body, headers=self._headers) as response:
            answer = await response.json()
            if response.status >= 300:
                raise Refused(f"{method} {path}: {response.status} {answer.get('detail')}")
            return answer

    async def case(self, case: UUID) -> Any:
        """Read a case."""
        return await self.call("GET", f"/v1/cases/{case}")

    async def own(self, case: UUID) -> None:
        """Take a case."""
        await self.call("POST", f"/v1/cases/{case}/acknowledgement", {"operator": self.name})

    async def fact(self, case: UUID, fact: str, about: str | None = None) -> None:
        """Pass on what somebody said."""
        await self.call("POST", f"/v1/cases/{case}/facts", {"fact": fact, "about": about, "operator": self.name})

    async def close(self, case: UUID, outcome: str, *, confirmed_by: str, note: str | None = None) -> None:
        """Close a case."""
        body = {"outcome": outcome, "confirmed_by": confirmed_by, "note": note, "operator": self.name}
        await self.call("POST", f"/v1/cases/{case}/closure", body)

    async def open_tasks(self, case: UUID) -> dict[str, str]:
        """Return the open tasks of a case: name to id."""
        page = await self.call("GET", f"/v1/tasks?case={case}&limit=200")
        return {task["name"]: task["id"] for task in page["items"]}

    async def task(self, case: UUID, name: str, *, within_s: float = 20) -> str:
        """Wait until a task is open and return its id.

        Raises:
            TimeoutError: It was not within `within_s`.
        """
        async with asyncio.timeout(within_s):
            while name not in (found := await self.open_tasks(case)):
                await asyncio.sleep(_LOOK_EVERY_S)
        return found[name]

    async def done(self, case: UUID, name: str, result: str = "done") -> None:
        """Do a task, waiting for it first."""
        task = await self.task(case, name)
        await self.call("POST", f"/v1/tasks/{task}/completion", {"result": result, "operator": self.name})
