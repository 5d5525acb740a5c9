"""How the modems are, for people."""

from gateway.store import modems
from gateway.store.modems import ModemRow
from gateway.store.pool import Pool

__all__ = ["list_modems"]


async def list_modems(pool: Pool) -> list[ModemRow]:
    """Return every modem that was ever seen."""
    async with pool.connection() as conn:
        return await modems.listing(conn)
