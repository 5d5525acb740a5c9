"""Who may do what: API keys, their roles, and the one table of rights."""

import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from gateway.domain.case import NotFound
from gateway.keyring import Keyring
from gateway.store import access
from gateway.store.access import KeyRow
from gateway.store.pool import Pool

__all__ = ["RIGHTS", "Principal", "Right", "Role", "check_key", "create_key", "is_valid", "list_keys", "revoke_key"]

_PURPOSE = "api key"
_KEY = re.compile(r"okk_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")


class Role(StrEnum):
    """What a key is for."""

    ADMIN = "admin"
    OPERATOR = "operator"
    INTEGRATOR = "integrator"
    INSTALLER = "installer"


class Right(StrEnum):
    """One thing that a key may be allowed to do."""

    READ_CASES = "read cases"
    HANDLE_CASES = "own, confirm and close cases"
    ANSWER_LEGS = "answer for a party"
    READ_PARTIES = "read parties"
    READ_PERSONS = "read persons and households"
    ERASE_PERSONS = "erase persons"
    READ_TERMINALS = "read terminals"
    OPEN_TEST_WINDOWS = "open test windows"
    RUN_DRILLS = "plan, start and end drills"
    COMMAND_TERMINALS = "command terminals"
    READ_QUARANTINE = "read the quarantine"
    SETTLE_QUARANTINE = "replay and dismiss messages of the quarantine"
    READ_WORK_ORDERS = "read work orders"
    WRITE_WORK_ORDERS = "write work orders"
    INSPECT_WORK_ORDERS = "inspect work orders"
    ERASE_WORK_ORDERS = "erase work orders"
    NAME_OPERATORS = "name operators"
    READ_FIGURES = "read the figures"
    READ_STREAM = "read the stream"
    READ_METRICS = "read the metrics"
    READ_CHECKPOINTS = "read the checkpoints of the journal"


RIGHTS: Mapping[Role, frozenset[Right]] = {
    Role.ADMIN: frozenset(Right),
    Role.OPERATOR: frozenset(Right)
    - {
        Right.ERASE_PERSONS,
        Right.ERASE_WORK_ORDERS,
        Right.INSPECT_WORK_ORDERS,
        Right.NAME_OPERATORS,
        Right.OPEN_TEST_WINDOWS,
        Right.READ_CHECKPOINTS,
        Right.SETTLE_QUARANTINE,
    },
    Role.INTEGRATOR: frozenset(
        {
            Right.READ_CASES,
            Right.ANSWER_LEGS,
            Right.READ_PARTIES,
            Right.READ_TERMINALS,
            Right.READ_FIGURES,
            Right.READ_STREAM,
            Right.READ_METRICS,
            Right.READ_CHECKPOINTS,
        }
    ),
    Role.INSTALLER: frozenset(
        {Right.READ_TERMINALS, Right.OPEN_TEST_WINDOWS, Right.COMMAND_TERMINALS, Right.READ_QUARANTINE}
    ),
}
"""The rights of every role. Nothing else in the program decides who may do what."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Whoever holds a valid key."""

    id: str
    name: str
    role: Role

    def may(self, right: Right) -> bool:
        """Is this allowed?"""
        return right in RIGHTS[self.role]


async def create_key(pool: Pool, keyring: Keyring, *, name: str, role: Role) -> tuple[str, str]:
    """Make a key; returns its id and its text, which cannot be shown again."""
    key, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    async with pool.connection() as conn:
        await access.add(conn, key=key, name=name, role=role, mac=keyring.mac(_PURPOSE, secret))
    return key, f"okk_{key}_{secret}"


async def check_key(pool: Pool, keyring: Keyring, text: str) -> Principal | None:
    """Return who holds the key `text`, or None when it is unknown, wrong or revoked."""
    match = _KEY.fullmatch(text)
    if match is None:
        return None
    async with pool.connection() as conn:
        row = await access.by_id(conn, match[1])
    expected = bytes(32) if row is None else bytes(row.mac)
    if not hmac.compare_digest(expected, keyring.mac(_PURPOSE, match[2])) or row is None or row.revoked_at is not None:
        return None
    return Principal(row.id, row.name, Role(row.role))


async def is_valid(pool: Pool, key: str) -> bool:
    """Is the key with this id still good? For connections that outlive the check of the key."""
    async with pool.connection() as conn:
        row = await access.by_id(conn, key)
    return row is not None and row.revoked_at is None


async def revoke_key(pool: Pool, key: str) -> None:
    """Revoke a key by its id; it dies at once.

    Raises:
        NotFound: No such key.
    """
    async with pool.connection() as conn:
        if not await access.revoke(conn, key):
            raise NotFound(f"There is no key {key}.")


async def list_keys(pool: Pool) -> list[KeyRow]:
    """Return all keys, oldest first."""
    async with pool.connection() as conn:
        return await access.listing(conn)
