"""Whose number it is that calls or writes: terminals by their address, parties and persons by a keyed hash."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gateway.domain.phones import tail
from gateway.keyring import ErasedKey, Keyring, KeyringError
from gateway.store.pool import Connection

__all__ = ["Owners", "household_of", "is_terminal", "list_all", "list_phone", "owners", "peer", "terminal_of"]

_log = logging.getLogger(__name__)

_BATCH = 500


@dataclass(frozen=True, slots=True)
class Owners:
    """Who has a number: ids, several where it is registered more than once."""

    terminals: tuple[str, ...] = ()
    parties: tuple[str, ...] = ()
    persons: tuple[str, ...] = ()

    @property
    def known(self) -> bool:
        """Has anybody?"""
        return bool(self.terminals or self.parties or self.persons)


def peer(keyring: Keyring, number: str) -> bytes:
    """Return the keyed hash by which a number is found again."""
    return keyring.mac("phone", tail(number))


async def list_phone(conn: Connection, keyring: Keyring, *, kind: str, name: str, phone: str | None) -> None:
    """Enter the number of a ``party`` or ``person`` in place of an older one; None: it has none."""
    await conn.execute("DELETE FROM phone_book WHERE kind = %s AND id = %s", (kind, name))
    if phone is not None:
        await conn.execute(
            "INSERT INTO phone_book (mac, kind, id) VALUES (%s, %s, %s)", (peer(keyring, phone), kind, name)
        )
    table = "UPDATE party SET phone_listed = true WHERE id = %s"
    await conn.execute(table if kind == "party" else table.replace("party", "person"), (name,))


async def list_all(conn: Connection, keyring: Keyring) -> int:
    """Enter parties and persons from before there was a book; returns how many those were."""
    count = 0
    for kind, statement in (
        ("party", "SELECT t.id, t.sealed, k.id, k.wrapped FROM party t JOIN data_key k ON k.id = t.key_id "),
        ("person", "SELECT t.id, t.sealed, k.id, k.wrapped FROM person t JOIN data_key k ON k.id = t.key_id "),
    ):
        while True:
            cursor = await conn.execute(
                statement + "WHERE NOT t.phone_listed AND k.wrapped IS NOT NULL LIMIT %s", (_BATCH,)
            )
            rows = await cursor.fetchall()
            for name, sealed, key_id, wrapped in rows:
                phone = None
                try:
                    record: Any = keyring.unwrap(key_id, wrapped).open(bytes(sealed), about=f"{kind} {name}")
                    phone = record.get("phone")
                except (ErasedKey, KeyringError):
                    _log.error("a record cannot be opened: its number is not known", extra={kind: name})
                async with conn.transaction():
                    await list_phone(conn, keyring, kind=kind, name=name, phone=phone)
            count += len(rows)
            if len(rows) < _BATCH:
                break
    return count


async def owners(conn: Connection, keyring: Keyring, number: str) -> Owners:
    """Return who has `number` now."""
    cursor = await conn.execute(
        """
        SELECT 'terminal', t.public_id FROM terminal_address a JOIN terminal t ON t.uid = a.terminal_uid
        WHERE a.kind = 'phone' AND a.until IS NULL AND t.active
          AND right(regexp_replace(a.address, '\\D', '', 'g'), 10) = %(tail)s
        UNION ALL
        SELECT b.kind, b.id FROM phone_book b JOIN party p ON p.id = b.id AND p.active
        WHERE b.kind = 'party' AND b.mac = %(peer)s
        UNION ALL
        SELECT b.kind, b.id FROM phone_book b JOIN person p ON p.id = b.id AND p.active
        WHERE b.kind = 'person' AND b.mac = %(peer)s
        ORDER BY 1, 2
        """,
        {"tail": tail(number), "peer": peer(keyring, number)},
    )
    found: dict[str, list[str]] = {"terminal": [], "party": [], "person": []}
    for kind, name in await cursor.fetchall():
        found[kind].append(name)
    return Owners(tuple(found["terminal"]), tuple(found["party"]), tuple(found["person"]))


async def terminal_of(conn: Connection, persons: Sequence[str]) -> str | None:
    """Return a terminal of the household of these persons."""
    cursor = await conn.execute(
        "SELECT t.public_id FROM person p JOIN assignment a ON a.household_id = p.household_id AND a.until IS NULL "
        "JOIN terminal t ON t.uid = a.terminal_uid AND t.active WHERE p.id = ANY(%s) ORDER BY 1 LIMIT 1",
        (list(persons),),
    )
    row = await cursor.fetchone()
    return None if row is None else row[0]


async def household_of(conn: Connection, persons: Sequence[str]) -> str | None:
    """Return where these persons live."""
    cursor = await conn.execute(
        "SELECT household_id FROM person WHERE id = ANY(%s) ORDER BY id LIMIT 1", (list(persons),)
    )
    row = await cursor.fetchone()
    return None if row is None else row[0]


async def is_terminal(conn: Connection, terminal: str) -> bool:
    """Is it registered?"""
    cursor = await conn.execute("SELECT FROM terminal WHERE public_id = %s AND active", (terminal,))
    return await cursor.fetchone() is not None
