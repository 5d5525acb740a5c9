"""What came over the phone network, kept as it came before the modem forgets it (I1)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from psycopg.rows import class_row

from gateway.keyring import DataKey, Keyring
from gateway.store.pool import Connection

__all__ = [
    "Came",
    "NewArrival",
    "add",
    "clear_old",
    "count_only",
    "emptied",
    "forgotten",
    "handled",
    "of_all_since",
    "of_peer_since",
    "open_emergency",
    "open_ones",
    "own_key",
    "parts_of",
    "put_off",
    "rest_of",
    "wait",
]

_KEY_SUBJECT = "modems"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewArrival:
    """What a modem said. ``digest`` tells it from everything else that came."""

    kind: str
    modem: str
    peer: bytes | None
    sealed: bytes
    digest: bytes
    parts: int = 1
    part: int = 1
    reference: int | None = None


@dataclass(frozen=True, slots=True)
class Came:
    """What came and is not dealt with yet."""

    id: int
    kind: str
    modem: str
    received_at: datetime
    peer: bytes | None
    sealed: bytes | None
    digest: bytes
    occurrence: int
    parts: int
    part: int
    reference: int | None
    state: str
    tries: int
    age_s: float


async def own_key(conn: Connection, keyring: Keyring) -> DataKey:
    """Return the key under which is kept what belongs to nobody yet; it is made when it is first needed."""
    row = await (await conn.execute("SELECT id, wrapped FROM data_key WHERE subject = %s", (_KEY_SUBJECT,))).fetchone()
    if row is None:
        key_id, wrapped = keyring.new_key()
        await conn.execute(
            "INSERT INTO data_key (id, subject, wrapped) VALUES (%s, %s, %s) ON CONFLICT (subject) DO NOTHING",
            (key_id, _KEY_SUBJECT, wrapped),
        )
        cursor = await conn.execute("SELECT id, wrapped FROM data_key WHERE subject = %s", (_KEY_SUBJECT,))
        row = await cursor.fetchone()
    assert row is not None
    return keyring.unwrap(row[0], row[1])


async def add(conn: Connection, new: Sequence[NewArrival], *, key: UUID) -> int:
    """Keep what arrived, and return how many were new: what is kept already and still lies with its modem is the same.

    The same octets after the modem has forgotten the first ones were sent once more: they count as another message.
    """
    added = 0
    for one in new:
        cursor = await conn.execute(
            """
            INSERT INTO phone_in (kind, modem, peer, sealed, key_id, digest, occurrence, parts, part, reference)
            SELECT %(kind)s, %(modem)s, %(peer)s, %(sealed)s, %(key)s, %(digest)s, coalesce(last.occurrence, 0) + 1,
                   %(parts)s, %(part)s, %(reference)s
            FROM (SELECT 1) AS one LEFT JOIN LATERAL (
                SELECT occurrence, forgotten FROM phone_in WHERE digest = %(digest)s ORDER BY occurrence DESC LIMIT 1
            ) AS last ON true
            WHERE last.forgotten IS NOT FALSE
            ON CONFLICT (digest, occurrence) DO NOTHING
            """,
            {
                "kind": one.kind,
                "modem": one.modem,
                "peer": one.peer,
                "sealed": one.sealed,
                "key": key,
                "digest": one.digest,
                "parts": one.parts,
                "part": one.part,
                "reference": one.reference,
            },
        )
        added += cursor.rowcount
    return added


async def forgotten(conn: Connection, digests: Sequence[bytes]) -> None:
    """Note that the modem has these no more."""
    await conn.execute(
        "UPDATE phone_in SET forgotten = true WHERE digest = ANY(%s) AND NOT forgotten", (list(digests),)
    )


async def emptied(conn: Connection, modem: str) -> None:
    """Note that nothing lies with a modem any more."""
    await conn.execute("UPDATE phone_in SET forgotten = true WHERE modem = %s AND NOT forgotten", (modem,))


_COLUMNS = """
    id, kind, modem, received_at, peer, sealed, digest, occurrence, parts, part, reference, state, tries,
    extract(epoch FROM onekey_now() - received_at)::float8 AS age_s
"""


async def open_ones(conn: Connection, *, limit: int) -> list[Came]:
    """Return what is to be dealt with now, what failed before behind everything else, the oldest first."""
    async with conn.cursor(row_factory=class_row(Came)) as cursor:
        await cursor.execute(
            f"SELECT {_COLUMNS} FROM phone_in WHERE state <> 'handled' AND due_at <= onekey_now() "  # noqa: S608
            "ORDER BY tries, id LIMIT %s",
            (limit,),
        )
        return await cursor.fetchall()


async def parts_of(conn: Connection, one: Came) -> list[Came]:
    """Lock and return what there is of the message that `one` is a part of: of each part the newest.

    Parts may come by another service centre, in any order and twice; another reference or number of parts is another
    message.
    """
    async with conn.cursor(row_factory=class_row(Came)) as cursor:
        await cursor.execute(
            f"""
            SELECT {_COLUMNS} FROM phone_in
            WHERE state <> 'handled' AND (id = %(id)s OR %(parts)s > 1 AND kind = 'message'
                AND peer IS NOT DISTINCT FROM %(peer)s AND reference = %(reference)s AND parts = %(parts)s)
            ORDER BY part, id FOR UPDATE
            """,  # noqa: S608
            {"id": one.id, "peer": one.peer, "reference": one.reference, "parts": one.parts},
        )
        return await cursor.fetchall()


async def wait(conn: Connection, ids: Sequence[int], *, longest: timedelta) -> None:
    """Note that these wait for their other parts, which bring them along; at the longest for so long."""
    await conn.execute(
        "UPDATE phone_in SET state = 'waiting', due_at = received_at + %s WHERE id = ANY(%s)", (longest, list(ids))
    )


async def put_off(conn: Connection, came: int, *, after: timedelta) -> None:
    """Let something be dealt with again later: it failed."""
    await conn.execute("UPDATE phone_in SET tries = tries + 1, due_at = onekey_now() + %s WHERE id = %s", (after, came))


async def rest_of(conn: Connection, one: Came) -> UUID | None:
    """Return the case of an alarm whose beginning was dealt with, if this is the rest of its message."""
    cursor = await conn.execute(
        """
        SELECT case_id FROM phone_in
        WHERE state = 'handled' AND (outcome LIKE 'alarm %%' OR outcome = 'call for help')
          AND peer IS NOT DISTINCT FROM %s AND reference = %s
          AND parts = %s AND part <> %s AND received_at > %s - interval '10 minutes' ORDER BY id DESC LIMIT 1
        """,
        (one.peer, one.reference, one.parts, one.part, one.received_at),
    )
    row = await cursor.fetchone()
    return None if row is None else row[0]


async def handled(conn: Connection, ids: Sequence[int], *, outcome: str, case_id: UUID | None = None) -> None:
    """Note that these are dealt with."""
    await conn.execute(
        "UPDATE phone_in SET state = 'handled', outcome = %s, case_id = %s, handled_at = onekey_now() "
        "WHERE id = ANY(%s)",
        (outcome, case_id, list(ids)),
    )


async def of_peer_since(conn: Connection, peer: bytes | None, *, within: timedelta, outcome: str = "stranger") -> int:
    """Return how many messages of a number nobody knows were kept lately with this outcome."""
    cursor = await conn.execute(
        "SELECT count(*) FROM phone_in WHERE peer IS NOT DISTINCT FROM %s AND outcome = %s "
        "AND received_at > onekey_now() - %s",
        (peer, outcome, within),
    )
    row = await cursor.fetchone()
    return 0 if row is None else int(row[0])


async def of_all_since(conn: Connection, *, within: timedelta, outcome: str = "stranger") -> int:
    """Return how many messages of all numbers that nobody knows were kept lately with this outcome."""
    cursor = await conn.execute(
        "SELECT count(*) FROM phone_in WHERE outcome = %s AND received_at > onekey_now() - %s", (outcome, within)
    )
    row = await cursor.fetchone()
    return 0 if row is None else int(row[0])


async def count_only(conn: Connection, one: Came) -> None:
    """Count a message of a flood at the newest that was kept of it, and keep no more of it than that."""
    await conn.execute(
        """
        UPDATE phone_in SET copies = copies + 1 WHERE id = (
            SELECT id FROM phone_in WHERE outcome = 'stranger' AND id <> %(id)s
            ORDER BY (peer IS NOT DISTINCT FROM %(peer)s) DESC, id DESC LIMIT 1)
        """,
        {"id": one.id, "peer": one.peer},
    )
    await conn.execute(
        "UPDATE phone_in SET state = 'handled', outcome = 'flood', sealed = NULL, handled_at = onekey_now() "
        "WHERE id = %s",
        (one.id,),
    )


async def clear_old(conn: Connection, *, after: timedelta) -> None:
    """Forget what was said long ago, and what only had to be counted."""
    await conn.execute(
        "UPDATE phone_in SET sealed = NULL WHERE received_at < onekey_now() - %s AND sealed IS NOT NULL", (after,)
    )
    await conn.execute(
        "UPDATE phone_out SET sealed = NULL WHERE ended_at < onekey_now() - %s AND sealed IS NOT NULL", (after,)
    )
    for statement, longer in (
        ("DELETE FROM phone_in WHERE outcome = 'flood' AND received_at < onekey_now() - %s", timedelta(days=1)),
        ("DELETE FROM phone_in WHERE outcome = 'stranger' AND received_at < onekey_now() - %s", after),
        ("DELETE FROM phone_in WHERE state = 'handled' AND received_at < onekey_now() - %s", 12 * after),
        ("DELETE FROM phone_part WHERE sent_at < onekey_now() - %s", 12 * after),
        (
            """
            DELETE FROM phone_out o WHERE ended_at < onekey_now() - %s
              AND NOT EXISTS (SELECT FROM phone_part p WHERE p.out_id = o.id)
            """,
            13 * after,
        ),
    ):
        await conn.execute(statement.encode(), (longer,))


async def open_emergency(conn: Connection, persons: Sequence[str]) -> UUID | None:
    """Return the emergency that is open where these persons live, locked."""
    cursor = await conn.execute(
        "SELECT c.id FROM cases c JOIN person p ON p.household_id = c.household_id WHERE p.id = ANY(%s) "
        # Locked: what is said while the case is being closed must not end up on the timeline of a closed one.
        "AND c.class = 'emergency' AND c.state = 'open' ORDER BY c.opened_at DESC LIMIT 1 FOR UPDATE OF c",
        (list(persons),),
    )
    row = await cursor.fetchone()
    return None if row is None else row[0]
