"""Reading the directory: whose terminal this is, where it stands and who is responsible."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any
from uuid import UUID

from pydantic import ValidationError

from gateway.domain.directory import Address, ChannelSpec, Household, Party, Person
from gateway.domain.plan import Plan
from gateway.keyring import DataKey, ErasedKey, Keyring, KeyringError
from gateway.site.plans import PlanEntry, to_plan
from gateway.store.pool import Connection

__all__ = ["Directory", "Origin", "SiteView"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What is known about where an alarm comes from, as of one instant of the database's clock."""

    now: datetime
    terminal_uid: UUID | None = None
    epoch: int = 0
    model: str | None = None
    site: str | None = None
    revision: int = 0
    household: str | None = None
    in_test_window: bool = False
    drill: UUID | None = None
    last_fix: dict[str, Any] | None = None
    in_incident: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteView:
    """What a case needs to know of a site."""

    id: str
    district: str
    timezone: str
    locale: str
    plans: tuple[Plan, ...]
    fallback: tuple[Party, ...]
    key: DataKey


_PLAN = "id, version, kinds, roles, privacy, procedure, details"


def _plan(
    plan: str,
    version: int,
    kinds: list[str],
    roles: list[str],
    privacy: dict[str, str],
    procedure: str | None,
    details: dict[str, Any],
) -> Plan:
    entry = {"roles": roles} | details | {"id": plan, "kinds": kinds, "privacy": privacy, "procedure": procedure}
    return to_plan(PlanEntry.model_validate(entry), version=version)


def _plan_if_any(plan: str, *row: Any) -> Plan | None:
    """Leave a plan out that cannot be read: its kinds then go to the fallback, and no press is refused for it (D13)."""
    try:
        return _plan(plan, *row)
    except ValidationError:
        _log.exception("a stored plan cannot be read", extra={"plan": plan})
        return None


@dataclass(frozen=True, slots=True)
class _Record:
    """A household as it stands in the tables, sealed."""

    id: str
    head: Sequence[Any]
    people: list[Sequence[Any]] = field(default_factory=list)
    parties: list[Party] = field(default_factory=list)


class Directory:
    """Reads the directory through a cache that holds as long as the revision of the site does.

    Every change to a site gives it a new, random revision in the same transaction, so a stale answer cannot be given.
    """

    _LARGEST = 50_000

    def __init__(self, keyring: Keyring) -> None:
        """Open sealed records with the keys of `keyring`."""
        self.keyring = keyring
        self._sites: dict[str, tuple[int, SiteView]] = {}
        self._households: dict[str, tuple[int, Household, DataKey]] = {}
        self._plans: dict[tuple[str, str], Plan] = {}

    async def origin(self, conn: Connection, terminal: str | None) -> Origin:
        """Return what is known about `terminal` now; an unknown one has no site."""
        (found,) = await self.origins(conn, [terminal])
        return found

    async def origins(self, conn: Connection, terminals: Sequence[str | None]) -> list[Origin]:
        """Return what is known about each of `terminals` now, in their order."""
        cursor = await conn.execute(
            """
            SELECT now, t.uid, coalesce(t.epoch, 0), t.site_id, coalesce(s.revision, 0), a.household_id,
                   EXISTS (SELECT FROM test_window w
                           WHERE w.terminal_uid = t.uid AND now >= w.opens_at AND now < w.closes_at),
                   st.fix, t.model,
                   (SELECT d.id FROM test_window w JOIN drill d ON d.id = w.drill_id AND d.state = 'running'
                    WHERE w.terminal_uid = t.uid AND now >= w.opens_at AND now < w.closes_at LIMIT 1),
                   EXISTS (SELECT FROM incident i WHERE i.site_id = t.site_id AND i.cleared_at IS NULL
                           AND (i.area_id IS NULL OR EXISTS (
                               SELECT FROM household_area ha
                               WHERE ha.household_id = a.household_id AND ha.area_id = i.area_id)))
            FROM (SELECT onekey_now() OFFSET 0) AS clock (now)
            CROSS JOIN unnest(%b::text[]) WITH ORDINALITY AS asked (terminal, n)
            LEFT JOIN terminal t ON t.public_id = asked.terminal
            LEFT JOIN site s ON s.id = t.site_id
            LEFT JOIN assignment a ON a.terminal_uid = t.uid AND a.until IS NULL
            LEFT JOIN terminal_state st ON st.terminal_uid = t.uid
            ORDER BY asked.n
            """,
            (list(terminals),),
        )
        return [
            Origin(
                now=row[0],
                terminal_uid=row[1],
                epoch=row[2],
                site=row[3],
                revision=row[4],
                household=row[5],
                in_test_window=row[6],
                last_fix=row[7],
                model=row[8],
                drill=row[9],
                in_incident=row[10],
            )
            for row in await cursor.fetchall()
        ]

    async def origin_of_household(self, conn: Connection, household: str) -> Origin:
        """Return what is known about a call for help that comes from no terminal, by somebody who lives there."""
        cursor = await conn.execute(
            "SELECT onekey_now(), s.id, coalesce(s.revision, 0), h.id FROM (SELECT) AS one "
            "LEFT JOIN household h ON h.id = %s AND h.active LEFT JOIN site s ON s.id = h.site_id",
            (household,),
        )
        row = await cursor.fetchone()
        assert row is not None
        return Origin(now=row[0], site=row[1], revision=row[2], household=row[3])

    async def preload(self, conn: Connection, origins: Sequence[Origin]) -> None:
        """Read the households of many alarms into the cache at once. What cannot be opened is left for `household`."""
        missing = {
            origin.household: origin.revision
            for origin in origins
            if origin.household is not None and not self._holds(origin.household, origin.revision)
        }
        await self._read(conn, missing)

    async def _read(self, conn: Connection, missing: Mapping[str, int]) -> None:
        """Read households at these revisions; what cannot be opened is left out."""
        if not missing:
            return
        for record in await self._records(conn, list(missing)):
            try:
                self._open(record, missing[record.id])
            except (ErasedKey, KeyringError):
                continue

    async def revisions(self, conn: Connection) -> dict[str, int]:
        """Return the revision of every site: what is kept here of a site goes by it."""
        return dict(await (await conn.execute("SELECT id, revision FROM site")).fetchall())

    async def read_ahead(self, conn: Connection, *, after: str, limit: int) -> str | None:
        """Read up to `limit` households with terminals into the cache, in the order of their ids.

        Returns the last of them, for the next call, or None when that was all or there is no more room.
        """
        if len(self._households) + limit > self._LARGEST * 0.9:  # what is read when it is needed has room as well
            return None
        cursor = await conn.execute(
            "SELECT h.id, s.revision FROM household h JOIN site s ON s.id = h.site_id WHERE h.id > %s AND h.active "
            "AND EXISTS (SELECT FROM assignment a WHERE a.household_id = h.id AND a.until IS NULL) "
            "ORDER BY h.id LIMIT %s",
            (after, limit),
        )
        found: list[tuple[str, int]] = await cursor.fetchall()
        missing = {home: revision for home, revision in found if not self._holds(home, revision)}
        try:
            await self._read(conn, missing)
        except (ErasedKey, KeyringError):
            _log.error("some of these households cannot be read ahead: they are read when they are needed")
        return found[-1][0] if found else None

    async def sites(self, conn: Connection) -> list[SiteView]:
        """Return every site: whose fallback hears of what belongs to nobody (D13)."""
        rows = await (await conn.execute("SELECT id, revision FROM site ORDER BY applied_at, id")).fetchall()
        found = []
        for site, revision in rows:
            try:
                found.append(await self.site(conn, site, revision))
            except (KeyringError, ErasedKey):  # one that cannot be opened must not silence the others
                _log.error("the records of a site cannot be opened", extra={"site": site})
        return found

    async def site(self, conn: Connection, site: str, revision: int) -> SiteView:
        """Return a site at `revision`."""
        known = self._sites.get(site)
        if known is not None and known[0] == revision:
            return known[1]
        head = await (
            await conn.execute(
                "SELECT district, timezone, locale, fallback, k.id, k.wrapped FROM site s "
                "JOIN data_key k ON k.id = s.key_id WHERE s.id = %s",
                (site,),
            )
        ).fetchone()
        assert head is not None
        plans = await (
            await conn.execute(f"SELECT {_PLAN} FROM plan WHERE site_id = %s AND current ORDER BY id", (site,))  # noqa: S608
        ).fetchall()
        parties = {party.id: party for party in await self.parties(conn, head[3])}
        view = SiteView(
            id=site,
            district=head[0],
            timezone=head[1],
            locale=head[2],
            plans=tuple(plan for row in plans if (plan := _plan_if_any(*row)) is not None),
            fallback=tuple(parties[name] for name in head[3] if name in parties),
            key=self.keyring.unwrap(head[4], head[5]),
        )
        self._sites[site] = (revision, view)
        return view

    async def plans_of(self, conn: Connection, site: str, names: Sequence[str]) -> list[Plan]:
        """Return plans by id and version, as a case keeps them: they never change. One that is gone is left out."""
        missing = [name for name in names if (site, name) not in self._plans]
        if missing:
            cursor = await conn.execute(
                f"SELECT {_PLAN} FROM plan WHERE site_id = %s AND id || '@' || version = ANY(%s)",  # noqa: S608
                (site, missing),
            )
            for row in await cursor.fetchall():
                plan = _plan_if_any(*row)
                if plan is not None:
                    self._plans[site, plan.name] = plan
        return [self._plans[site, name] for name in names if (site, name) in self._plans]

    def _holds(self, household: str, revision: int) -> bool:
        known = self._households.get(household)
        return known is not None and known[0] == revision

    async def household(self, conn: Connection, household: str, revision: int) -> tuple[Household, DataKey]:
        """Return a household of a site at `revision`, and the key its cases are journaled under.

        That is the key of the person where one lives alone, else the key of the household.
        """
        if not self._holds(household, revision):
            (record,) = await self._records(conn, [household])
            self._open(record, revision)
        _, view, key = self._households[household]
        return view, key

    async def _records(self, conn: Connection, households: Sequence[str]) -> list["_Record"]:
        """Read the sealed records of households; in pipeline mode the first three questions travel together."""
        async with conn.cursor() as heads, conn.cursor() as people, conn.cursor() as names:
            await heads.execute(
                """
                SELECT h.id, h.site_id, h.district, s.timezone, s.locale, h.sealed, k.id, k.wrapped
                FROM household h JOIN site s ON s.id = h.site_id JOIN data_key k ON k.id = h.key_id
                WHERE h.id = ANY(%b)
                """,
                (list(households),),
            )
            await people.execute(
                "SELECT p.household_id, p.id, p.sealed, k.id, k.wrapped FROM person p JOIN data_key k "
                "ON k.id = p.key_id WHERE p.household_id = ANY(%b) AND p.active AND k.wrapped IS NOT NULL "
                "ORDER BY p.position",
                (list(households),),
            )
            await names.execute(
                "SELECT household_id, party_id FROM household_party WHERE household_id = ANY(%b) ORDER BY position",
                (list(households),),
            )
            found = {row[0]: _Record(row[0], row[1:]) for row in await heads.fetchall()}
            for row in await people.fetchall():
                found[row[0]].people.append(row[1:])
            responsible = await names.fetchall()
        parties = {party.id: party for party in await self.parties(conn, list({party for _, party in responsible}))}
        for household, party in responsible:
            if party in parties:
                found[household].parties.append(parties[party])
        return list(found.values())

    def _open(self, record: "_Record", revision: int) -> None:
        """Open the records of a household and keep them."""
        site, district, timezone, locale, sealed, key_id, wrapped = record.head
        key = self.keyring.unwrap(key_id, wrapped)
        address: Any = key.open(bytes(sealed), about=f"household {record.id}")
        people = record.people
        view = Household(
            id=record.id,
            site=site,
            district=district,
            timezone=timezone,
            locale=locale,
            address=Address(**address),
            persons=tuple(self.person(p[0], bytes(p[1]), self.keyring.unwrap(p[2], p[3])) for p in people),
            parties=tuple(record.parties),
        )
        journal_key = self.keyring.unwrap(people[0][2], people[0][3]) if len(people) == 1 else key
        if len(self._households) >= self._LARGEST:
            self._households.clear()
        self._households[record.id] = (revision, view, journal_key)

    def person(self, person: str, sealed: bytes, key: DataKey) -> Person:
        """Open one person's record."""
        record: Any = key.open(sealed, about=f"person {person}")
        return Person(
            id=person,
            name=record["name"],
            born=date.fromisoformat(record["born"]) if record.get("born") else None,
            phone=record.get("phone"),
            health=record.get("health") or {},
            agreements=tuple(record.get("agreements") or ()),
        )

    async def parties(self, conn: Connection, ids: Sequence[str]) -> list[Party]:
        """Return the parties named, in any order; those no longer active are left out."""
        rows = await (
            await conn.execute(
                "SELECT p.id, p.role, p.district, p.sealed, k.id, k.wrapped FROM party p "
                "JOIN data_key k ON k.id = p.key_id WHERE p.id = ANY(%s) AND p.active",
                (list(ids),),
            )
        ).fetchall()
        found = []
        for party, role, district, sealed, key_id, wrapped in rows:
            record: Any = self.keyring.unwrap(key_id, wrapped).open(bytes(sealed), about=f"party {party}")
            found.append(
                Party(
                    id=party,
                    role=role,
                    district=district,
                    name=record["name"],
                    phone=record.get("phone"),
                    channels=tuple(ChannelSpec(kind=c["kind"], options=c["options"]) for c in record["channels"]),
                    grade=record.get("grade", 1),
                )
            )
        return found
