"""API keys in the database. Only a keyed hash of each is there."""

from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row

from gateway.store.pool import Connection

__all__ = ["KeyRow", "add", "by_id", "listing", "revoke"]


@dataclass(frozen=True, slots=True)
class KeyRow:
    """An API key."""

    id: str
    name: str
    role: str
    mac: bytes
    created_at: datetime
    revoked_at: datetime | None


async def add(conn: Connection, *, key: str, name: str, role: str, mac: bytes) -> None:
    """Store a new key."""
    await conn.execute("INSERT INTO api_key (id, name, role, mac) VALUES (%s, %s, %s, %s)", (key, name, role, mac))


async def by_id(conn: Connection, key: str) -> KeyRow | None:
    """Return a key, revoked or not."""
    async with conn.cursor(row_factory=class_row(KeyRow)) as cursor:
        await cursor.execute("SELECT id, name, role, mac, created_at, revoked_at FROM api_key WHERE id = %s", (key,))
        return await cursor.fetchone()


async def listing(conn: Connection) -> list[KeyRow]:
    """Return all keys, oldest first."""
    async with conn.cursor(row_factory=class_row(KeyRow)) as cursor:
        await cursor.execute("SELECT id, name, role, mac, created_at, revoked_at FROM api_key ORDER BY created_at, id")
        return await cursor.fetchall()


async def revoke(conn: Connection, key: str) -> bool:
    """Revoke a key; one that is revoked stays so. Returns whether there is such a key."""
    cursor = await conn.execute(
        "UPDATE api_key SET revoked_at = coalesce(revoked_at, onekey_now()) WHERE id = %s RETURNING id", (key,)
    )
    return await cursor.fetchone() is not None
