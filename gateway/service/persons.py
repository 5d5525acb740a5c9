"""Forgetting a person (D15)."""

from gateway.domain import keys
from gateway.domain.case import NotFound, StateConflict
from gateway.keyring import Keyring
from gateway.store import cases, erasure, events, queries
from gateway.store.pool import Connection, Pool

__all__ = ["erase_person"]


async def erase_person(pool: Pool, keyring: Keyring, person_id: str, *, by: str) -> None:
    """Erase the key of a person, and with it their record and the journals of their cases; the chains stay whole.

    What lies in the tables unsealed goes as well: positions, and what people wrote in answers. When nobody of the
    household is left, its own key is changed, so that what was journaled while several lived there goes too. A person
    erased already stays so; asking again takes away what came in since, as a late answer.

    While a case of the household is not closed, or somebody has yet to be told that it is, nothing is erased: the
    people who come to help need the record.

    Raises:
        NotFound: No such person.
        StateConflict: A case of the household is not over.
    """
    async with pool.connection() as conn, conn.transaction():
        await queries.lock_sites(conn)
        place = await (await conn.execute("SELECT household_id FROM person WHERE id = %s", (person_id,))).fetchone()
        if place is None:
            raise NotFound(f"There is no person {person_id}.")
        await cases.lock_subject(conn, keys.subject(household=place[0], terminal=None))
        person = await queries.lock_person(conn, person_id)
        assert person is not None
        site, district, household, key, erased = person
        if erased:
            await erasure.clear_traces(conn, person_id)
            return
        if waiting := await queries.live_cases(conn, household=household, key=key):
            raise StateConflict(
                f"{waiting} cases of household {household} are not closed, or not everybody was told so yet: "
                "close them, and try again."
            )
        await erasure.drop_person(conn, person_id, site=site, key=key)
        await erasure.clear_traces(conn, person_id)
        if not await erasure.left_in(conn, household):
            await _renew(conn, keyring, household)
        await events.emit(conn, "person.erased", district=district, case_id=None, data={"person": person_id, "by": by})


async def _renew(conn: Connection, keyring: Keyring, household: str) -> None:
    """Seal a household's address under another key: the old one is erased with all that it sealed."""
    old_id, old_wrapped, sealed, definition = await erasure.secrets_of(conn, household)
    old = keyring.unwrap(old_id, old_wrapped)
    new_id, wrapped = keyring.new_key()
    new = keyring.unwrap(new_id, wrapped)

    def moved(text: bytes, about: str) -> bytes:
        return new.seal(old.open(text, about=about), about=about)

    await erasure.renew_household(
        conn,
        household,
        old=old_id,
        new=new_id,
        wrapped=wrapped,
        sealed=moved(sealed, f"household {household}"),
        definition=None if definition is None else moved(definition, f"site_object household {household}"),
    )
