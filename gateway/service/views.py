"""From rows to the values that messages are made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from gateway.domain.directory import Household, Party
from gateway.domain.ladder import Ladder, arranged
from gateway.domain.outbox import CaseView, DueNotice
from gateway.domain.plan import kinds_shown
from gateway.keyring import DataKey, ErasedKey, Keyring
from gateway.store.cases import CaseRow
from gateway.store.directory import Directory, SiteView
from gateway.store.outbox import NoticeRow
from gateway.store.pool import Connection

__all__ = [
    "Surroundings",
    "agreements_of",
    "case_key",
    "case_keys",
    "due",
    "kinds_for",
    "site_of",
    "surroundings",
    "surroundings_now",
    "view_of",
]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the directory says about a case."""

    site: SiteView
    household: Household | None
    key: DataKey

    def party(self, party: str) -> Party | None:
        """Return a party of the household or of the fallback."""
        own = self.household.parties if self.household is not None else ()
        return next((known for known in (*own, *self.site.fallback) if known.id == party), None)


def agreements_of(household: Household | None) -> frozenset[str]:
    """Return the agreements that anybody of a household signed (R3)."""
    return frozenset() if household is None else frozenset(name for one in household.persons for name in one.agreements)


async def site_of(conn: Connection, directory: Directory, site: str) -> SiteView:
    """Look up a site as it stands now."""
    row = await (await conn.execute("SELECT revision FROM site WHERE id = %s", (site,))).fetchone()
    assert row is not None
    return await directory.site(conn, site, row[0])


async def surroundings(conn: Connection, directory: Directory, case: CaseRow) -> Surroundings:
    """Look up the site, the household and the journal's key of a case."""
    around, _ = await surroundings_now(conn, directory, case)
    return around


async def surroundings_now(conn: Connection, directory: Directory, case: CaseRow) -> tuple[Surroundings, datetime]:
    """Return what `surroundings` does, and the time of the database."""
    cursor = await conn.execute(
        "SELECT s.revision, k.wrapped, onekey_now() FROM site s, data_key k WHERE s.id = %s AND k.id = %s",
        (case.site_id, case.key_id),
    )
    row = await cursor.fetchone()
    assert row is not None
    site = await directory.site(conn, case.site_id, row[0])
    household = None
    if case.household_id is not None:
        household, _ = await directory.household(conn, case.household_id, row[0])
    try:
        key = directory.keyring.unwrap(case.key_id, row[1])
    except ErasedKey:
        key = site.key
    return Surroundings(site, household, key), row[2]


async def case_key(conn: Connection, keyring: Keyring, case: CaseRow, *, site: SiteView) -> DataKey:
    """Return the key that further entries of a case's journal are sealed under.

    What is written after the person was erased goes under the key of the site (D15).
    """
    row = await (await conn.execute("SELECT wrapped FROM data_key WHERE id = %s", (case.key_id,))).fetchone()
    assert row is not None
    try:
        return keyring.unwrap(case.key_id, row[0])
    except ErasedKey:
        return site.key


async def case_keys(conn: Connection, directory: Directory, cases: Sequence[CaseRow]) -> Mapping[UUID, DataKey]:
    """Return what `case_key` would for each of `cases`, by case."""
    rows = await (
        await conn.execute("SELECT id, wrapped FROM data_key WHERE id = ANY(%b)", ([case.key_id for case in cases],))
    ).fetchall()
    wrapped: dict[UUID, bytes | None] = dict(rows)
    found = {}
    for case in cases:
        try:
            found[case.id] = directory.keyring.unwrap(case.key_id, wrapped[case.key_id])
        except ErasedKey:
            found[case.id] = (await site_of(conn, directory, case.site_id)).key
    return found


def view_of(case: CaseRow, *, site: SiteView, household: Household | None) -> CaseView:
    """Return the case as messages show it."""
    return CaseView(
        id=case.id,
        case_class=case.case_class,
        state=case.state,
        site=site.id,
        district=case.district,
        timezone=site.timezone,
        locale=site.locale,
        kinds=tuple(case.kinds),
        urgency=case.urgency,
        test=case.test,
        pressed_at=case.pressed_at,
        received_at=case.received_at,
        terminal=case.terminal_id,
        household=household,
        location=case.location,
        problem=case.problem,
        outcome=case.outcome,
        drill=case.drill_id,
        privacy=case.privacy,
    )


def kinds_for(party: str | None, role: str, *, kinds: Sequence[str], site: SiteView) -> tuple[str, ...]:
    """Return the kinds that a party may hear of: the fallback of the site hears of all (D13)."""
    if any(party == trusted.id for trusted in site.fallback):
        return tuple(kinds)
    return tuple(kinds_shown(kinds, role=role, plans=site.plans))


def due(row: NoticeRow, *, party: Party, case: CaseView, site: SiteView) -> DueNotice:
    """Return a notice ready to be sent, with the kinds that the party may hear of and by the ladder of its leg."""
    kinds = kinds_for(party.id, row.role, kinds=case.kinds, site=site)
    if kinds != case.kinds:
        case = replace(case, kinds=kinds)
    ladder = Ladder.of_record(row.ladder)
    return DueNotice(
        id=row.id,
        leg_id=row.leg_id,
        number=row.number,
        reason=row.reason,
        channel=row.channel,
        tries=row.tries,
        queued_at=row.queued_at,
        first=row.first,
        role=row.role,
        party=arranged(party, ladder.channels),
        case=case,
        language=ladder.language,
        template=ladder.template,
    )
