"""Applying a site file: the difference first, then all of it in one transaction, or nothing.

A site owns only what its file created. Applying the same file twice changes nothing; what the file no longer names
stays unless pruning is asked for, and pruning takes things out of use without rewriting history (D10).
"""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal
from uuid import UUID

from psycopg.types.json import Jsonb

from gateway.domain.case import DomainError
from gateway.keyring import DataKey, ErasedKey, Keyring
from gateway.site.model import MqttEntry, Site, TerminalEntry, areas_of, care_of, to_address, to_channel
from gateway.site.supervision import SHIPPED_PLANS, profile_of
from gateway.store import phone_book, queries, supervision, troubles
from gateway.store.pool import Connection, Pool

__all__ = ["Applied", "Change", "SiteConflict", "apply_site", "compare"]

Action = Literal["add", "change", "remove", "left"]
Definition = dict[str, Any]
Ref = tuple[str, str]


class SiteConflict(DomainError):
    """The file claims what belongs to another site, or names somebody who was erased."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One difference. ``fields`` name what changes; values are not shown, they may be secret or personal."""

    action: Action
    kind: str
    id: str
    fields: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What was done. ``secrets`` are those made for terminals that came without one: to be shown once."""

    changes: tuple[Change, ...]
    secrets: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Keys:
    """Data keys by subject, made when first needed."""

    conn: Connection
    keyring: Keyring
    known: dict[str, DataKey] = field(default_factory=dict)
    erased: set[str] = field(default_factory=set)

    async def read(self, subjects: Sequence[str]) -> None:
        cursor = await self.conn.execute(
            "SELECT subject, id, wrapped FROM data_key WHERE subject = ANY(%s)", (list(subjects),)
        )
        for subject, key_id, wrapped in await cursor.fetchall():
            try:
                self.known[subject] = self.keyring.unwrap(key_id, wrapped)
            except ErasedKey:
                self.erased.add(subject)

    async def get(self, subject: str) -> DataKey:
        if subject not in self.known:
            key_id, wrapped = self.keyring.new_key()
            await self.conn.execute(
                "INSERT INTO data_key (id, subject, wrapped) VALUES (%s, %s, %s)", (key_id, subject, wrapped)
            )
            self.known[subject] = self.keyring.unwrap(key_id, wrapped)
        return self.known[subject]


def _subject(site: str, ref: Ref) -> str:
    kind, name = ref
    return f"{kind}:{name}" if kind in ("person", "household") else f"site:{site}"


def _terminal(keyring: Keyring, terminal: TerminalEntry) -> Definition:
    mac = None if terminal.secret is None else keyring.mac("terminal", terminal.id, terminal.secret).hex()
    return {"model": terminal.model, "phone": terminal.phone, "secret": mac}


def _expected(site: Site, terminal: TerminalEntry) -> Definition:
    profile = profile_of(
        terminal.model,
        site.supervision,
        silent_after=terminal.silent_after,
        sim_paid_until=terminal.sim_paid_until,
    )
    return {"silent_after_s": profile.silent_after.total_seconds(), "expected": profile.record()}


def _definitions(site: Site, keyring: Keyring) -> dict[Ref, Definition]:
    """Return everything the file defines, in an order in which it can be written."""
    wanted: dict[Ref, Definition] = {
        ("site", site.site): {
            "district": site.district,
            "timezone": site.timezone,
            "locale": site.locale,
            "fallback": list(site.fallback),
        }
    }
    for party in site.parties:
        wanted["party", party.id] = party.model_dump(mode="json") | {"district": party.district or site.district}
    for household in site.households:
        wanted["household", household.id] = {
            "address": household.address.model_dump(mode="json"),
            "parties": list(household.parties),
            "terminals": list(household.terminals),
            "district": site.district,
            "feeder": household.feeder,
            "care": care_of(household),
        }
        for position, person in enumerate(household.persons):
            record = person.model_dump(mode="json")
            wanted["person", person.id] = record | {
                "household": household.id,
                "position": position,
                "district": site.district,
            }
    for terminal in site.terminals:
        expected = _expected(site, terminal)
        wanted["terminal", terminal.id] = _terminal(keyring, terminal) | {"district": site.district} | expected
    for plan in site.plans:
        wanted["plan", plan.id] = plan.definition()
    return wanted


async def _existing(conn: Connection, site: str, keys: _Keys) -> dict[Ref, Definition]:
    cursor = await conn.execute("SELECT kind, id, sealed FROM site_object WHERE site_id = %s", (site,))
    rows = await cursor.fetchall()
    await keys.read(sorted({_subject(site, (kind, name)) for kind, name, _ in rows} | {f"site:{site}"}))
    found: dict[Ref, Definition] = {}
    for kind, name, sealed in rows:
        subject = _subject(site, (kind, name))
        if subject in keys.erased:
            continue
        value: Any = keys.known[subject].open(bytes(sealed), about=f"site_object {kind} {name}")
        found[kind, name] = value
    return found


def _compare(wanted: Mapping[Ref, Definition], found: Mapping[Ref, Definition], *, prune: bool) -> list[Change]:
    changes = []
    for (kind, name), new in wanted.items():
        old = found.get((kind, name))
        if old is None:
            changes.append(Change(action="add", kind=kind, id=name))
            continue
        differing = [key for key in new if new[key] != old.get(key)]
        if kind == "terminal" and new["secret"] is None:
            differing = [key for key in differing if key != "secret"]  # no secret in the file: the one in force stays
        if differing:
            changes.append(Change(action="change", kind=kind, id=name, fields=tuple(differing)))
    for kind, name in found:
        if (kind, name) not in wanted:
            changes.append(Change(action="remove" if prune else "left", kind=kind, id=name))
    return changes


async def _refuse_conflicts(conn: Connection, site: Site, wanted: Mapping[Ref, Definition], keys: _Keys) -> None:
    kinds, names = zip(*[ref for ref in wanted if ref[0] != "plan"], strict=True)
    cursor = await conn.execute(
        """
        SELECT o.kind, o.id, o.site_id FROM site_object o
        JOIN unnest(%s::text[], %s::text[]) AS w (kind, id) ON w.kind = o.kind AND w.id = o.id WHERE o.site_id <> %s
        """,
        (list(kinds), list(names), site.site),
    )
    foreign = [f"{kind} {name} (site {owner})" for kind, name, owner in await cursor.fetchall()]
    if foreign:
        raise SiteConflict(f"Another site owns {', '.join(foreign[:10])}. Ids are unique in the whole installation.")
    people = {f"person:{name}" for kind, name in wanted if kind == "person"}
    await keys.read(sorted({_subject(site.site, ref) for ref in wanted}))  # what was pruned comes back under its key
    gone = sorted(subject.removeprefix("person:") for subject in keys.erased & people)
    if gone:
        raise SiteConflict(f"These persons were erased and cannot come back under their id: {', '.join(gone[:10])}.")


async def compare(pool: Pool, keyring: Keyring, site: Site, *, prune: bool) -> list[Change]:
    """Return what applying the file would change."""
    async with pool.connection() as conn:
        keys = _Keys(conn, keyring)
        return _compare(_definitions(site, keyring), await _existing(conn, site.site, keys), prune=prune)


async def apply_site(pool: Pool, keyring: Keyring, site: Site, *, prune: bool) -> Applied:
    """Make the directory say what the file says.

    Raises:
        SiteConflict: Something belongs to another site, or somebody was erased.
    """
    async with pool.connection() as conn, conn.transaction():
        await queries.lock_sites(conn)
        keys = _Keys(conn, keyring)
        wanted = _definitions(site, keyring)
        found = await _existing(conn, site.site, keys)
        await _refuse_conflicts(conn, site, wanted, keys)
        changes = _compare(wanted, found, prune=prune)
        writer = _Writer(conn, keyring, site, keys)
        for change in changes:
            ref = (change.kind, change.id)
            if change.action in ("add", "change"):
                await writer.write(ref, wanted[ref], found.get(ref), change)
            elif change.action == "remove":
                await writer.remove(ref)
        await writer.finish(changes)
        if any(change.action != "left" for change in changes):
            await conn.execute(
                "UPDATE site SET revision = (random() * 9e18)::bigint, applied_at = now() WHERE id = %s", (site.site,)
            )
        return Applied(changes=tuple(changes), secrets=writer.secrets)


class _Writer:
    """Writes one object after the other."""

    def __init__(self, conn: Connection, keyring: Keyring, site: Site, keys: _Keys) -> None:
        self._conn = conn
        self._keyring = keyring
        self._site = site
        self._keys = keys
        self._parties = {party.id: party for party in site.parties}
        self._households = {household.id: household for household in site.households}
        self._terminals = {terminal.id: terminal for terminal in site.terminals}
        self._homes = {terminal: household for household in site.households for terminal in household.terminals}
        self.secrets: dict[str, str] = {}

    async def write(self, ref: Ref, new: Definition, old: Definition | None, change: Change) -> None:
        kind, name = ref
        key = await self._keys.get(_subject(self._site.site, ref))
        match kind:
            case "site":
                await self._write_site(new, key.id)
            case "party":
                await self._write_party(name, key)
            case "household":
                await self._write_household(name, key)
            case "person":
                await self._write_person(name, new, key)
            case "terminal":
                new = await self._write_terminal(name, new, old, change)
            case _:
                await self._write_plan(name, new)
        await self._conn.execute(
            "INSERT INTO site_object (site_id, kind, id, sealed) VALUES (%s, %s, %s, %s) "
            "ON CONFLICT (site_id, kind, id) DO UPDATE SET sealed = excluded.sealed",
            (self._site.site, kind, name, key.seal(new, about=f"site_object {kind} {name}")),
        )

    async def _write_site(self, new: Definition, key_id: UUID) -> None:
        await self._conn.execute(
            """
            INSERT INTO site (id, district, timezone, locale, fallback, key_id) VALUES (%s, %s, %s, %s, %s, %s)
            ON CONFLICT (id) DO UPDATE SET district = excluded.district, timezone = excluded.timezone,
                locale = excluded.locale, fallback = excluded.fallback
            """,
            (self._site.site, new["district"], new["timezone"], new["locale"], new["fallback"], key_id),
        )

    async def _write_party(self, name: str, key: DataKey) -> None:
        party = self._parties[name]
        passwords = [channel.secret for channel in party.channels if isinstance(channel, MqttEntry)]
        record = {
            "name": party.name,
            "phone": party.phone,
            "channels": [asdict(to_channel(c)) for c in party.channels],
            "grade": party.grade,
        }
        await self._conn.execute(
            """
            INSERT INTO party (id, site_id, district, role, sealed, key_id, broker_mac)
            VALUES (%s, %s, %s, %s, %s, %s, %s)
            ON CONFLICT (id) DO UPDATE SET site_id = excluded.site_id, district = excluded.district,
                role = excluded.role, sealed = excluded.sealed, key_id = excluded.key_id,
                broker_mac = excluded.broker_mac, active = true
            """,
            (
                name,
                self._site.site,
                party.district or self._site.district,
                party.role,
                key.seal(record, about=f"party {name}"),
                key.id,
                self._keyring.mac("party", name, passwords[0]) if passwords else None,
            ),
        )
        await phone_book.list_phone(self._conn, self._keyring, kind="party", name=name, phone=party.phone)

    async def _write_household(self, name: str, key: DataKey) -> None:
        household = self._households[name]
        await self._conn.execute(
            """
            INSERT INTO household (id, site_id, district, sealed, key_id) VALUES (%s, %s, %s, %s, %s)
            ON CONFLICT (id) DO UPDATE SET site_id = excluded.site_id, district = excluded.district,
                sealed = excluded.sealed, active = true
            """,
            (
                name,
                self._site.site,
                self._site.district,
                key.seal(asdict(to_address(household.address)), about=f"household {name}"),
                key.id,
            ),
        )
        await self._conn.execute("DELETE FROM household_party WHERE household_id = %s", (name,))
        await self._conn.execute(
            "INSERT INTO household_party (household_id, party_id, position) "
            "SELECT %s, party, nth FROM unnest(%s::text[]) WITH ORDINALITY AS p (party, nth)",
            (name, list(dict.fromkeys(household.parties))),
        )
        await self._assign(name, household.terminals)

    async def _assign(self, household: str, terminals: Iterable[str]) -> None:
        """Date the assignments: what left is ended, what came begins now. A terminal not yet there follows later."""
        names = {"home": household, "here": list(terminals)}
        await self._conn.execute(
            """
            UPDATE assignment SET until = now() WHERE until IS NULL AND household_id = %(home)s
              AND terminal_uid <> ALL (ARRAY (SELECT uid FROM terminal WHERE public_id = ANY (%(here)s)))
            """,
            names,
        )
        await self._conn.execute(
            """
            UPDATE assignment SET until = now() WHERE until IS NULL AND household_id <> %(home)s
              AND terminal_uid = ANY (ARRAY (SELECT uid FROM terminal WHERE public_id = ANY (%(here)s)))
            """,
            names,
        )
        await self._conn.execute(
            """
            INSERT INTO assignment (terminal_uid, household_id)
            SELECT t.uid, %(home)s FROM terminal t WHERE t.public_id = ANY (%(here)s)
              AND NOT EXISTS (SELECT FROM assignment a WHERE a.terminal_uid = t.uid AND a.until IS NULL)
            """,
            names,
        )

    async def _write_person(self, name: str, new: Definition, key: DataKey) -> None:
        record = {field: new[field] for field in ("name", "born", "phone", "health", "agreements")}
        await self._conn.execute(
            """
            INSERT INTO person (id, site_id, district, household_id, position, sealed, key_id)
            VALUES (%s, %s, %s, %s, %s, %s, %s)
            ON CONFLICT (id) DO UPDATE SET household_id = excluded.household_id, position = excluded.position,
                sealed = excluded.sealed, site_id = excluded.site_id, district = excluded.district, active = true
            """,
            (
                name,
                self._site.site,
                self._site.district,
                new["household"],
                new["position"],
                key.seal(record, about=f"person {name}"),
                key.id,
            ),
        )
        await phone_book.list_phone(self._conn, self._keyring, kind="person", name=name, phone=new["phone"])

    async def _write_terminal(self, name: str, new: Definition, old: Definition | None, change: Change) -> Definition:
        terminal = self._terminals[name]
        mac = None
        if terminal.secret is not None:
            mac = self._keyring.mac("terminal", name, terminal.secret)
        elif old is None:
            made = secrets.token_urlsafe(32)
            self.secrets[name] = made
            mac = self._keyring.mac("terminal", name, made)
        await self._conn.execute(
            """
            INSERT INTO terminal (public_id, site_id, district, model, secret_mac)
            VALUES (%(id)s, %(site)s, %(district)s, %(model)s, %(mac)s)
            ON CONFLICT (public_id) DO UPDATE SET site_id = excluded.site_id, district = excluded.district,
                model = excluded.model, active = true,
                secret_mac = coalesce(excluded.secret_mac, terminal.secret_mac),
                epoch = terminal.epoch + CASE WHEN excluded.secret_mac <> terminal.secret_mac THEN 1 ELSE 0 END
            """,
            {
                "id": name,
                "site": self._site.site,
                "district": self._site.district,
                "model": terminal.model,
                "mac": mac,
            },
        )
        if old is None or "phone" in change.fields:
            await self._address(name, "phone", terminal.phone)
        home = self._homes.get(name)
        if old is None and home is not None:
            await self._assign(home.id, home.terminals)
        stored = old["secret"] if mac is None and old is not None else None if mac is None else mac.hex()
        return new | {"secret": stored}

    async def _address(self, terminal: str, kind: str, address: str | None) -> None:
        names = {"terminal": terminal, "kind": kind, "address": address}
        await self._conn.execute(
            """
            UPDATE terminal_address SET until = now() WHERE kind = %(kind)s AND until IS NULL
              AND terminal_uid = (SELECT uid FROM terminal WHERE public_id = %(terminal)s)
              AND address IS DISTINCT FROM %(address)s
            """,
            names,
        )
        if address is not None:
            await self._conn.execute(
                """
                UPDATE terminal_address SET until = now() WHERE kind = %(kind)s AND until IS NULL
                  AND address = %(address)s
                  AND terminal_uid <> (SELECT uid FROM terminal WHERE public_id = %(terminal)s)
                """,
                names,
            )
            await self._conn.execute(
                """
                INSERT INTO terminal_address (kind, address, terminal_uid)
                SELECT %(kind)s, %(address)s, uid FROM terminal WHERE public_id = %(terminal)s
                ON CONFLICT (kind, address) WHERE until IS NULL DO NOTHING
                """,
                names,
            )

    async def finish(self, changes: Sequence[Change]) -> None:
        """Write what hangs on many objects at once: who is supervised and how, where they stand, and our own plans."""
        written = [change.id for change in changes if change.action in ("add", "change") and change.kind == "terminal"]
        homes = [change.id for change in changes if change.action in ("add", "change") and change.kind == "household"]
        moved = {name for home in homes for name in self._households[home].terminals} - set(written)
        enrolments = []
        for name in sorted({*written, *(name for name in moved if name in self._terminals)}):
            terminal, home = self._terminals[name], self._homes.get(name)
            care = None if home is None else care_of(home)
            key = None if home is None or care is None else await self._keys.get(f"household:{home.id}")
            profile = profile_of(
                terminal.model,
                self._site.supervision,
                silent_after=terminal.silent_after,
                sim_paid_until=terminal.sim_paid_until,
            )
            enrolments.append(
                supervision.Enrolment(
                    terminal=name,
                    silent_after=profile.silent_after,
                    late_after=profile.late_after,
                    profile=profile.record(),
                    care=None if key is None else key.seal(care, about=f"care {name}"),
                    care_key=None if key is None else key.id,
                )
            )
        await supervision.enrol(self._conn, enrolments)
        await supervision.wake_named(self._conn, sorted(moved))
        await supervision.wake_homeless(self._conn, site=self._site.site)
        await self._write_areas(homes)
        for plan in SHIPPED_PLANS:
            if not await self._has_plan(plan.id, plan.definition()):
                await self._write_plan(plan.id, plan.definition())

    async def _has_plan(self, name: str, wanted: Definition) -> bool:
        cursor = await self._conn.execute(
            "SELECT kinds, details FROM plan WHERE site_id = %s AND id = %s AND current", (self._site.site, name)
        )
        row = await cursor.fetchone()
        kept = {one: wanted[one] for one in wanted if one not in ("kinds", "privacy", "procedure")}
        return row is not None and row[0] == wanted["kinds"] and row[1] == kept

    async def _write_areas(self, homes: Sequence[str]) -> None:
        """Note what households have in common. Their words are sealed; two that say the same have one id."""
        key = await self._keys.get(f"site:{self._site.site}")
        members: list[tuple[str, UUID]] = []
        areas: dict[UUID, tuple[str, bytes]] = {}
        for name in homes:
            for kind, words in areas_of(self._households[name]):
                area = self._keyring.area(self._site.site, kind, words)
                if area not in areas:
                    areas[area] = kind, key.seal(" ".join(words), about=f"area {area}")
                members.append((name, area))
        await troubles.write_areas(
            self._conn, site=self._site.site, district=self._site.district, areas=areas, key=key.id
        )
        await troubles.write_members(self._conn, homes, members)

    async def _write_plan(self, name: str, new: Definition) -> None:
        await self._conn.execute(
            "UPDATE plan SET current = false WHERE site_id = %s AND id = %s AND current", (self._site.site, name)
        )
        await self._conn.execute(
            """
            INSERT INTO plan (site_id, id, version, kinds, roles, privacy, procedure, details, current)
            SELECT %(site)s, %(id)s, coalesce(max(version), 0) + 1, %(kinds)s, %(roles)s, %(privacy)s,
                   %(procedure)s, %(details)s, true
            FROM plan WHERE site_id = %(site)s AND id = %(id)s
            """,
            {
                "site": self._site.site,
                "id": name,
                "kinds": new["kinds"],
                "roles": list(dict.fromkeys(entry["role"] for entry in new["roles"])),
                "privacy": Jsonb(new["privacy"]),
                "procedure": new["procedure"],
                "details": Jsonb({name: new[name] for name in new if name not in ("kinds", "privacy", "procedure")}),
            },
        )

    async def remove(self, ref: Ref) -> None:
        """Take an object out of use. Its rows stay: cases of the past point to them."""
        kind, name = ref
        site = self._site.site
        match kind:
            case "party":
                await self._conn.execute("DELETE FROM household_party WHERE party_id = %s", (name,))
                await self._conn.execute("UPDATE party SET active = false, broker_mac = NULL WHERE id = %s", (name,))
            case "household":
                await self._conn.execute("UPDATE household SET active = false WHERE id = %s", (name,))
                await self._conn.execute(
                    "UPDATE assignment SET until = now() WHERE household_id = %s AND until IS NULL", (name,)
                )
            case "person":
                await self._conn.execute("UPDATE person SET active = false WHERE id = %s", (name,))
            case "terminal":
                await self._conn.execute(
                    "UPDATE assignment SET until = now() WHERE until IS NULL AND terminal_uid = "
                    "(SELECT uid FROM terminal WHERE public_id = %s)",
                    (name,),
                )
                await self._conn.execute(
                    "UPDATE terminal SET active = false, secret_mac = NULL, epoch = epoch + 1 WHERE public_id = %s",
                    (name,),
                )
            case "plan":
                await self._conn.execute(
                    "UPDATE plan SET current = false WHERE site_id = %s AND id = %s AND current", (site, name)
                )
            case _:
                raise AssertionError(f"a site does not remove {kind}")
        await self._conn.execute(
            "DELETE FROM site_object WHERE site_id = %s AND kind = %s AND id = %s", (site, kind, name)
        )
