"""Forgetting a person: their key, and whatever else in the tables could still be read of them (D15)."""

from uuid import UUID

from gateway.store.pool import Connection

__all__ = ["HouseholdSecrets", "clear_traces", "drop_person", "left_in", "renew_household", "secrets_of"]

HouseholdSecrets = tuple[UUID, bytes | None, bytes, bytes | None]
"""A household's data key, that key wrapped, its sealed address, and its sealed definition in the site file."""


async def drop_person(conn: Connection, person: str, *, site: str, key: UUID) -> None:
    """Erase the key of a person, and change the site's revision so that nobody goes on with what is cached."""
    await conn.execute("UPDATE data_key SET wrapped = NULL, erased_at = onekey_now() WHERE id = %s", (key,))
    await conn.execute("UPDATE person SET active = false WHERE id = %s", (person,))
    await conn.execute("UPDATE site SET revision = (random() * 9e18)::bigint WHERE id = %s", (site,))


_CASES = """
    SELECT c.id FROM person p JOIN data_key k ON k.id = p.key_id
    JOIN cases c ON c.key_id = k.id OR c.household_id = p.household_id
    WHERE p.id = %(person)s AND c.state = 'closed' AND c.opened_at <= k.erased_at
"""
_STAYS = """
    SELECT a.terminal_uid, t.public_id, a.since, least(a.until, k.erased_at) AS until
    FROM person p JOIN data_key k ON k.id = p.key_id JOIN assignment a ON a.household_id = p.household_id
    JOIN terminal t ON t.uid = a.terminal_uid WHERE p.id = %(person)s AND a.since <= k.erased_at
"""

_TRACES = [
    text.encode()
    for text in (
        f"UPDATE cases SET location = NULL, problem = NULL, note = NULL WHERE id IN ({_CASES})",  # noqa: S608
        f"UPDATE alarm SET fix = NULL, problems = '{{}}' WHERE case_id IN ({_CASES})",  # noqa: S608
        f"UPDATE event SET data = data - 'location' WHERE data ? 'location' AND case_id IN ({_CASES})",  # noqa: S608
        f"UPDATE command SET arguments = '{{}}', detail = NULL WHERE case_id IN ({_CASES})",  # noqa: S608
        "SELECT forget_answers(%(person)s)",
        "DELETE FROM phone_book WHERE kind = 'person' AND id = %(person)s",
        f"UPDATE phone_in SET sealed = NULL WHERE case_id IN ({_CASES})",  # noqa: S608
        f"""
        DELETE FROM fix f USING ({_STAYS}) s
        WHERE f.terminal_uid = s.terminal_uid AND f.received_at BETWEEN s.since AND s.until
        """,  # noqa: S608
        f"""
        UPDATE terminal_event e SET value = NULL FROM ({_STAYS}) s
        WHERE e.terminal_uid = s.terminal_uid AND e.received_at BETWEEN s.since AND s.until
        """,  # noqa: S608
        f"""
        SELECT FROM terminal_state WHERE terminal_uid IN (SELECT terminal_uid FROM ({_STAYS}) s)
        ORDER BY terminal_uid FOR NO KEY UPDATE -- in the order of the telemetry lane
        """,  # noqa: S608
        f"""
        UPDATE terminal_state t SET fix = NULL, fix_at = NULL FROM ({_STAYS}) s
        WHERE t.terminal_uid = s.terminal_uid AND t.fix_at BETWEEN s.since AND s.until
        """,  # noqa: S608
        f"""
        UPDATE quarantine q SET payload = '', reason = 'erased with the person',
            settled_at = CASE q.state WHEN 'kept' THEN onekey_now() ELSE q.settled_at END,
            settled_by = CASE q.state WHEN 'kept' THEN 'erasure' ELSE q.settled_by END,
            state = CASE q.state WHEN 'kept' THEN 'dismissed' ELSE q.state END
        FROM ({_STAYS}) s WHERE q.terminal_id = s.public_id AND q.received_at BETWEEN s.since AND s.until
        """,  # noqa: S608
    )
]
"""Everything that can be read without a key. When there were presses, messages and answers stays, for the figures."""


async def clear_traces(conn: Connection, person: str) -> None:
    """Take out of the tables what could still be read of a person whose key is erased: places and free texts.

    All of it that belongs to the closed cases and the terminals of the household until the erasure goes, also where
    somebody else still lives there: nobody can tell whose it was. What is sealed in their journal stays theirs.
    """
    for statement in _TRACES:
        await conn.execute(statement, {"person": person})


async def left_in(conn: Connection, household: str) -> int:
    """Return how many persons of a household have a key, whether they live there still or not."""
    cursor = await conn.execute(
        "SELECT count(*) FROM person p JOIN data_key k ON k.id = p.key_id "
        "WHERE p.household_id = %s AND k.wrapped IS NOT NULL",
        (household,),
    )
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def secrets_of(conn: Connection, household: str) -> HouseholdSecrets:
    """Lock a household and return what is sealed under its key beside the journals."""
    cursor = await conn.execute(
        """
        SELECT k.id, k.wrapped, h.sealed, (SELECT sealed FROM site_object WHERE kind = 'household' AND id = h.id)
        FROM household h JOIN data_key k ON k.id = h.key_id WHERE h.id = %s FOR UPDATE OF h
        """,
        (household,),
    )
    row = await cursor.fetchone()
    assert row is not None
    return row[0], row[1], bytes(row[2]), None if row[3] is None else bytes(row[3])


async def renew_household(
    conn: Connection, household: str, *, old: UUID, new: UUID, wrapped: bytes, sealed: bytes, definition: bytes | None
) -> None:
    """Give a household another key, with its address sealed under it, and erase the old one with the journals."""
    subject = f"household:{household}"
    await conn.execute(
        "UPDATE data_key SET subject = subject || ' until ' || id, wrapped = NULL, erased_at = onekey_now() "
        "WHERE id = %s",
        (old,),
    )
    await conn.execute("INSERT INTO data_key (id, subject, wrapped) VALUES (%s, %s, %s)", (new, subject, wrapped))
    await conn.execute("UPDATE household SET key_id = %s, sealed = %s WHERE id = %s", (new, sealed, household))
    await conn.execute(
        "UPDATE site_object SET sealed = coalesce(%s, sealed) WHERE kind = 'household' AND id = %s",
        (definition, household),
    )
