"""The one interface of every channel (渠道)."""

from typing import Protocol

from gateway.domain.outbox import DueNotice, Outcome

__all__ = ["Channel"]


class Channel(Protocol):
    """One way to reach a party."""

    async def send(self, notice: DueNotice) -> Outcome:
        """Try once, within the channel's own time-out. Retrying is the dispatcher's job."""
        ...
