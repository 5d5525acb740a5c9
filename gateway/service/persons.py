"""Forgetting a person (D15)."""

from gateway.domain import keys
from gateway.domain.case import NotFound, StateConflict
from gateway.store import cases, events, queries
from gateway.store.pool import Pool

__all__ = ["erase_person"]


async def erase_person(pool: Pool, person_id: str, *, by: str) -> None:
    """Erase the key of a person, and with it their record and the journals of their cases; the chains stay whole.

    A person erased already stays so. While a case of the household is not closed, or somebody has yet to be told
    that it is, nothing is erased: the people who come to help need the record.

    Raises:
        NotFound: No such person.
        StateConflict: A case of the household is not over.
    """
    async with pool.connection() as conn, conn.transaction():
        place = await (await conn.execute("SELECT household_id FROM person WHERE id = %s", (person_id,))).fetchone()
        if place is None:
            raise NotFound(f"There is no person {person_id}.")
        await cases.lock_subject(conn, keys.subject(household=place[0], terminal=None))
        person = await queries.lock_person(conn, person_id)
        assert person is not None
        site, district, household, key, erased = person
        if erased:
            return
        if waiting := await queries.live_cases(conn, household=household, key=key):
            raise StateConflict(
                f"{waiting} cases of household {household} are not closed, or not everybody was told so yet: "
                "close them, and try again."
            )
        await queries.drop_person(conn, person_id, site=site, key=key)
        await events.emit(conn, "person.erased", district=district, case_id=None, data={"person": person_id, "by": by})
