"""Telemetry gives way to alarms (D12), and cannot be starved by them."""

import asyncio
import time
from collections.abc import Callable

__all__ = ["GivingWay"]

_LONGEST_S = 0.1
_LOOK_EVERY_S = 0.002


class GivingWay:
    """Says when what is in no hurry should wait: while an alarm is on its way, but never long.

    In a storm somebody is always on his way: then the others wait for a tenth of a second, have as long for themselves,
    and so on.
    """

    def __init__(self, on_its_way: Callable[[], bool], *, clock: Callable[[], float] = time.monotonic) -> None:
        """`on_its_way` tells whether an alarm is; `clock` counts seconds."""
        self._on_its_way = on_its_way
        self._clock = clock
        self._began_s: float | None = None
        self._free_until_s = float("-inf")

    def now(self) -> bool:
        """Should the caller wait now? Ask again soon."""
        if not self._on_its_way():
            self._began_s = None
            return False
        now_s = self._clock()
        if self._began_s is None:
            if now_s < self._free_until_s:
                return False
            self._began_s = now_s
        if now_s - self._began_s < _LONGEST_S:
            return True
        # However seldom anybody asks: whoever has waited goes on before he waits again.
        self._began_s, self._free_until_s = None, now_s + _LONGEST_S
        return False

    async def wait(self) -> None:
        """Let others have a turn, and wait as long as `now` says so."""
        await asyncio.sleep(0)
        while self.now():
            await asyncio.sleep(_LOOK_EVERY_S)
