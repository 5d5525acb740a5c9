"""Steady time: like the time of day, but no step of a wall clock moves it.

Whoever judges a silence by a clock that was put forward by an hour finds a whole district dead. So signs of life are
stamped with a time that runs as the machine's uptime does. A process that starts again on the same boot of the same
machine goes on where the one before stopped; on another one the wall clock is all there is.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

__all__ = ["FOLLOWED_WITHIN", "Anchor", "SteadyClock", "machine"]

FOLLOWED_WITHIN = timedelta(seconds=0.25)
"""How far two clocks may be apart that go by one another."""

_FOLLOWS_FOR_S = 60.0

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Anchor:
    """A steady time, and the boot of a machine with its uptime in seconds when it was that."""

    at: datetime
    boot: str
    uptime_s: float


def machine() -> tuple[str, float]:
    """Return which boot of which machine this is, and its uptime in seconds; the boot is empty where nobody can say."""
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return "", time.monotonic()
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip(), time.clock_gettime(time.CLOCK_BOOTTIME)
    except OSError:
        return "", time.clock_gettime(time.CLOCK_BOOTTIME)


class SteadyClock:
    """Tells steady time. Until somebody anchors it, it runs from the wall clock at its making."""

    def __init__(
        self,
        *,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
        mono: Callable[[], float] = time.monotonic,
        machine: Callable[[], tuple[str, float]] = machine,
    ) -> None:
        """`wall` and `mono` (seconds) are the clocks of this process, `machine` tells its boot and uptime."""
        self._wall = wall
        self._mono = mono
        self._machine = machine
        self._at, self._mono_then = wall(), mono()
        self._followed_mono: float | None = None

    def follow(self, now: datetime) -> None:
        """Go by the clock of another process, which shows `now`: be at most `FOLLOWED_WITHIN` away from it."""
        self._followed_mono = self._mono()
        if abs(now - self.now()) > FOLLOWED_WITHIN:
            self._at, self._mono_then = now, self._followed_mono

    def resume(self, anchor: Anchor | None) -> None:
        """Go on from what another process left, if it was on the same boot; never behind it in any case.

        A clock that has gone by that other process's just now goes on as it is.
        """
        if self._followed_mono is not None and self._mono() - self._followed_mono < _FOLLOWS_FOR_S:
            return
        boot, uptime_s = self._machine()
        self._at, self._mono_then = self._wall(), self._mono()
        if anchor is None:
            return
        if boot and boot == anchor.boot and uptime_s >= anchor.uptime_s:
            self._at = anchor.at + timedelta(seconds=uptime_s - anchor.uptime_s)
        else:
            self._at = max(self._at, anchor.at)

    def now(self) -> datetime:
        """Return the steady time."""
        return self.at(self._mono())

    def at(self, mono: float) -> datetime:
        """Return the steady time when the monotonic clock of this process showed `mono` seconds."""
        return self._at + timedelta(seconds=mono - self._mono_then)

    def shift(self) -> timedelta:
        """Return how far the wall clock is ahead of steady time now."""
        return self._wall() - self.now()

    def anchor(self, at: datetime) -> Anchor:
        """Return what another process needs to go on from the steady time `at`."""
        boot, uptime_s = self._machine()
        return Anchor(at, boot, uptime_s - (self.now() - at).total_seconds())
