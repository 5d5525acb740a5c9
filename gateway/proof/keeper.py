"""The keeper: makes checkpoints, writes them outside the database, and journals who saw what once the case is free.

Any number of replicas may run it; each keeps a file of its own, or they share one.
"""

import asyncio
import logging
import time
from pathlib import Path

from gateway.service.checkpoints import export_checkpoints
from gateway.service.disclosures import settle_disclosures
from gateway.store.directory import Directory
from gateway.store.pool import Pool

__all__ = ["Keeper"]

_log = logging.getLogger(__name__)

_LOOK_EVERY_S = 2.0


class Keeper:
    """Keeps the proof until cancelled."""

    def __init__(self, pool: Pool, directory: Directory, *, file: Path, every_s: float) -> None:
        """Write checkpoints to `file`, one every `every_s` seconds while anything happens."""
        self._pool = pool
        self._directory = directory
        self._file = file
        self._every_s = every_s

    async def run(self) -> None:
        """Work, wait. A lost database is for whoever supervises this; a full disk is waited out."""
        due = 0.0
        while True:
            await settle_disclosures(self._pool, self._directory)
            if time.monotonic() >= due:
                due = time.monotonic() + self._every_s
                try:
                    await export_checkpoints(self._pool, self._directory.keyring, self._file)
                except OSError as exc:
                    _log.error("cannot write checkpoints outside the database: %s", exc.strerror or exc)
            await asyncio.sleep(min(_LOOK_EVERY_S, self._every_s))
