"""Applying a site file: all of it or nothing, twice the same changes nothing, and history is never rewritten (D10)."""

import asyncio
import json
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest

from gateway.domain.outbox import PartyAnswer
from gateway.keyring import Keyring
from gateway.service.apply_site import Applied, Change, SiteConflict, apply_site, compare
from gateway.service.case_commands import answer_leg, close_case
from gateway.service.persons import erase_person
from gateway.service.raise_alarm import Press, raise_alarm
from gateway.site.load import load
from gateway.site.model import Site
from gateway.store.directory import Directory
from gateway.store.pool import Pool
from tests.conftest import ROOT

Document = dict[str, Any]

WANG_BOX = "860000000000001"


@pytest.fixture(scope="module")
def _nanjing() -> Document:
    site = load(ROOT / "examples" / "nanjing.yaml").site
    return site.model_dump(mode="json")


@pytest.fixture
def nanjing(_nanjing: Document) -> Document:
    """The demo site as a document that a test may change."""
    return deepcopy(_nanjing)


class Office:
    """Applies documents and looks at what is in the tables then."""

    def __init__(self, pool: Pool, keyring: Keyring) -> None:
        self._pool = pool
        self._keyring = keyring

    async def apply(self, document: Document, *, prune: bool = False) -> Applied:
        """Apply, after seeing that the comparison promises exactly what is then done."""
        site = Site.model_validate(document)
        promised = await compare(self._pool, self._keyring, site, prune=prune)
        applied = await apply_site(self._pool, self._keyring, site, prune=prune)
        assert list(applied.changes) == promised
        return applied

    async def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        async with self._pool.connection() as conn:
            return await (await conn.execute(query, values)).fetchall()

    async def dump(self) -> dict[str, list[str]]:
        """Everything in every table."""
        tables = await self.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
        return {
            name: sorted(row[0] for row in await self.rows(f"SELECT t::text FROM {name} t"))
            for (name,) in tables
            if name != "migration"
        }


@pytest.fixture
def office(pool: Pool, keyring: Keyring) -> Office:
    return Office(pool, keyring)


def entry(document: Document, part: str, name: str) -> Document:
    found: Document = next(one for one in document[part] if one["id"] == name)
    return found


def changed(applied: Applied) -> set[tuple[str, str, str]]:
    return {(change.action, change.kind, change.id) for change in applied.changes}


# The same again, and one thing else


async def test_the_first_time_everything_is_added_and_the_second_time_nothing_changes(
    office: Office, nanjing: Document
) -> None:
    first = await office.apply(nanjing)
    assert {change.action for change in first.changes} == {"add"}
    before = await office.dump()
    second = await office.apply(nanjing)
    assert second == Applied(changes=(), secrets={})
    assert await office.dump() == before


async def test_the_order_of_a_file_and_equal_defaults_change_nothing(office: Office, nanjing: Document) -> None:
    await office.apply(nanjing)
    for part in ("parties", "households", "terminals", "plans"):
        nanjing[part].reverse()
    assert (await office.apply(nanjing)).changes == ()


@pytest.mark.parametrize(
    ("part", "name", "field", "value", "kind"),
    [
        ("parties", "community-daying", "phone", "02500000099", "party"),
        ("parties", "community-daying", "name", "大影壁社区", "party"),
        ("parties", "community-daying", "district", "320104", "party"),
        ("households", "wang-501", "parties", ["hotline-12349", "guardian-wang"], "household"),
        ("terminals", WANG_BOX, "model", "okt-2", "terminal"),
        ("terminals", WANG_BOX, "phone", "+8614400000099", "terminal"),
        ("plans", "duress", "roles", ["hotline"], "plan"),
    ],
)
async def test_one_field_changes_one_object(
    office: Office, nanjing: Document, part: str, name: str, field: str, value: object, kind: str
) -> None:
    await office.apply(nanjing)
    entry(nanjing, part, name)[field] = value
    applied = await office.apply(nanjing)
    assert applied.changes == (Change(action="change", kind=kind, id=name, fields=(field,)),)
    assert (await office.apply(nanjing)).changes == ()


async def test_a_person_s_record_changes_without_the_household(office: Office, nanjing: Document) -> None:
    await office.apply(nanjing)
    entry(nanjing, "households", "wang-501")["persons"][0]["health"] = {"conditions": ["高血压", "糖尿病"]}
    applied = await office.apply(nanjing)
    assert applied.changes == (Change(action="change", kind="person", id="wang-xiulan", fields=("health",)),)


async def test_changes_name_fields_and_show_no_value(office: Office, nanjing: Document) -> None:
    await office.apply(nanjing)
    entry(nanjing, "parties", "guardian-wang").update(name="王大明", phone="+8613811112222")
    entry(nanjing, "terminals", WANG_BOX)["secret"] = "another-secret-for-tests"
    told = repr(await office.apply(nanjing))
    assert "王大明" not in told
    assert "13811112222" not in told
    assert "another-secret" not in told


async def test_whoever_reads_the_directory_sees_the_change_at_once(
    office: Office, nanjing: Document, pool: Pool, directory: Directory
) -> None:
    await office.apply(nanjing)
    first = await press(pool, directory, 1)
    entry(nanjing, "households", "wang-501")["parties"] = ["hotline-12349", "guardian-li"]
    await office.apply(nanjing)
    second = await press(pool, directory, 2)
    assert second == first, "it joins"
    told = await office.rows("SELECT party_id FROM leg WHERE case_id = %s", first)
    assert ("guardian-li",) in told


async def test_a_plan_s_change_is_a_new_version_and_the_old_one_stays(office: Office, nanjing: Document) -> None:
    await office.apply(nanjing)
    entry(nanjing, "plans", "duress")["roles"] = ["hotline"]
    await office.apply(nanjing)
    assert await office.rows("SELECT version, roles, current FROM plan WHERE id = 'duress' ORDER BY 1") == [
        (1, ["hotline", "district"], False),
        (2, ["hotline"], True),
    ]


async def test_a_party_that_is_listed_twice_is_told_once(office: Office, nanjing: Document) -> None:
    """Only a warning of «site check», so applying must not fail."""
    home = entry(nanjing, "households", "wang-501")
    home["parties"] = ["hotline-12349", *home["parties"]]
    nanjing["fallback"] = ["hotline-12349", "hotline-12349"]
    await office.apply(nanjing)
    parties = await office.rows(
        "SELECT party_id FROM household_party WHERE household_id = 'wang-501' ORDER BY position"
    )
    assert parties[0] == ("hotline-12349",)
    assert len(parties) == 6


# What the file no longer names


async def test_what_the_file_no_longer_names_stays_until_pruning_is_asked_for(
    office: Office, nanjing: Document
) -> None:
    await office.apply(nanjing)
    nanjing["households"] = [home for home in nanjing["households"] if home["id"] != "wang-501"]
    nanjing["parties"] = [party for party in nanjing["parties"] if party["id"] != "guardian-wang"]
    nanjing["terminals"] = [terminal for terminal in nanjing["terminals"] if terminal["id"] != WANG_BOX]
    nanjing["plans"] = [plan for plan in nanjing["plans"] if plan["id"] != "duress"]
    gone = {
        ("household", "wang-501"),
        ("person", "wang-xiulan"),
        ("party", "guardian-wang"),
        ("terminal", WANG_BOX),
        ("plan", "duress"),
    }
    before = await office.dump()
    assert changed(await office.apply(nanjing)) == {("left", *ref) for ref in gone}
    assert await office.dump() == before

    assert changed(await office.apply(nanjing, prune=True)) == {("remove", *ref) for ref in gone}
    assert await office.rows(
        "SELECT (SELECT active FROM household WHERE id = 'wang-501'), "
        "(SELECT active FROM person WHERE id = 'wang-xiulan'), "
        "(SELECT active FROM party WHERE id = 'guardian-wang'), (SELECT active FROM terminal WHERE public_id = %s), "
        "EXISTS (SELECT FROM plan WHERE id = 'duress' AND current)",
        WANG_BOX,
    ) == [(False, False, False, False, False)]
    assert await office.rows("SELECT secret_mac FROM terminal WHERE public_id = %s", WANG_BOX) == [(None,)]
    assert await office.rows("SELECT count(*), count(until) FROM assignment WHERE household_id = 'wang-501'") == [
        (1, 1)
    ], "the assignment is ended, not erased"
    assert (await office.apply(nanjing, prune=True)).changes == ()


async def test_what_was_pruned_can_come_back(
    office: Office, nanjing: Document, pool: Pool, directory: Directory
) -> None:
    await office.apply(nanjing)
    without = nanjing | {
        "households": [home for home in nanjing["households"] if home["id"] != "wang-501"],
        "terminals": [terminal for terminal in nanjing["terminals"] if terminal["id"] != WANG_BOX],
    }
    await office.apply(without, prune=True)
    await office.apply(nanjing)
    case = await press(pool, directory, 1)
    assert await office.rows("SELECT subject FROM cases WHERE id = %s", case) == [("household:wang-501",)]
    assert await office.rows("SELECT epoch > 1 FROM terminal WHERE public_id = %s", WANG_BOX) == [(True,)]


async def test_a_pruned_terminal_s_press_goes_to_the_fallback(
    office: Office, nanjing: Document, pool: Pool, directory: Directory
) -> None:
    await office.apply(nanjing)
    nanjing["terminals"] = [terminal for terminal in nanjing["terminals"] if terminal["id"] != WANG_BOX]
    entry(nanjing, "households", "wang-501")["terminals"] = []
    await office.apply(nanjing, prune=True)
    case = await press(pool, directory, 1)
    assert await office.rows("SELECT party_id, origin FROM leg WHERE case_id = %s", case) == [
        ("hotline-12349", "fallback")
    ]


# Sites beside each other


def _suzhou(nanjing: Document) -> Document:
    """Another site that shares no id with the first."""
    text = json.dumps(nanjing, ensure_ascii=False)
    ids = [party["id"] for party in nanjing["parties"]]
    ids += [home["id"] for home in nanjing["households"]]
    ids += [person["id"] for home in nanjing["households"] for person in home["persons"]]
    ids += [terminal["id"] for terminal in nanjing["terminals"]]
    for name in sorted(ids, key=len, reverse=True):
        text = text.replace(f'"{name}"', f'"suzhou-{name}"')
    document: Document = json.loads(text)
    for terminal in document["terminals"]:
        terminal["phone"] = None
    return document | {"site": "suzhou-demo", "district": "320508"}


async def test_two_sites_stand_beside_each_other(office: Office, nanjing: Document) -> None:
    await office.apply(nanjing)
    await office.apply(_suzhou(nanjing))
    assert (await office.apply(nanjing, prune=True)).changes == ()
    assert (await office.apply(_suzhou(nanjing), prune=True)).changes == ()


@pytest.mark.parametrize("kind", ["party", "household", "person", "terminal"])
async def test_two_sites_cannot_own_the_same_id(office: Office, nanjing: Document, kind: str) -> None:
    await office.apply(nanjing)
    other = _suzhou(nanjing)
    match kind:
        case "party":
            other["parties"].append(entry(nanjing, "parties", "community-daying"))
        case "household":
            other["households"][0]["id"] = "wang-501"
        case "person":
            other["households"][0]["persons"][0]["id"] = "wang-xiulan"
        case _:
            other["terminals"].append(entry(nanjing, "terminals", WANG_BOX) | {"phone": None})
    before = await office.dump()
    with pytest.raises(SiteConflict, match=rf"{kind} [a-z0-9-]+ \(site nanjing-demo\)"):
        await apply_site(office._pool, office._keyring, Site.model_validate(other), prune=False)
    assert await office.dump() == before


async def test_a_terminal_that_one_site_gave_away_belongs_to_the_other(
    office: Office, nanjing: Document, pool: Pool, directory: Directory
) -> None:
    await office.apply(nanjing)
    other = _suzhou(nanjing)
    await office.apply(other)
    moved = entry(nanjing, "terminals", WANG_BOX)
    nanjing["terminals"].remove(moved)
    entry(nanjing, "households", "wang-501")["terminals"] = []
    await office.apply(nanjing, prune=True)
    other["terminals"].append(moved)
    entry(other, "households", "suzhou-wang-501")["terminals"].append(WANG_BOX)
    await office.apply(other)
    case = await press(pool, directory, 1)
    assert await office.rows("SELECT site_id, district, household_id FROM cases WHERE id = %s", case) == [
        ("suzhou-demo", "320508", "suzhou-wang-501")
    ]


async def test_a_household_that_one_site_gave_away_belongs_to_the_other(
    office: Office, nanjing: Document, pool: Pool, directory: Directory
) -> None:
    await office.apply(nanjing)
    other = _suzhou(nanjing)
    home = entry(nanjing, "households", "wang-501")
    box = entry(nanjing, "terminals", WANG_BOX)
    nanjing["households"].remove(home)
    nanjing["terminals"].remove(box)
    await office.apply(nanjing, prune=True)
    other["households"].append(home | {"parties": ["suzhou-hotline-12349"]})
    other["terminals"].append(box)
    await office.apply(other)
    for table, name in (("household", "wang-501"), ("person", "wang-xiulan")):
        assert await office.rows(f"SELECT site_id, active FROM {table} WHERE id = %s", name) == [("suzhou-demo", True)]
    case = await press(pool, directory, 1)
    assert await office.rows("SELECT DISTINCT party_id FROM leg WHERE case_id = %s AND state = 'pending'", case) == [
        ("suzhou-hotline-12349",)
    ]


# Secrets and credentials


async def test_a_new_secret_counts_the_epoch_up_and_the_same_again_does_not(office: Office, nanjing: Document) -> None:
    epochs = "SELECT epoch, encode(secret_mac, 'hex') FROM terminal WHERE public_id = %s"
    await office.apply(nanjing)
    ((first, old_mac),) = await office.rows(epochs, WANG_BOX)
    entry(nanjing, "terminals", WANG_BOX)["secret"] = "another-secret-for-tests"
    assert (await office.apply(nanjing)).changes == (
        Change(action="change", kind="terminal", id=WANG_BOX, fields=("secret",)),
    )
    ((second, new_mac),) = await office.rows(epochs, WANG_BOX)
    assert second == first + 1
    assert new_mac != old_mac
    entry(nanjing, "terminals", WANG_BOX)["model"] = "okt-2"
    await office.apply(nanjing)
    assert await office.rows(epochs, WANG_BOX) == [(second, new_mac)]


async def test_a_missing_secret_is_made_shown_once_and_stays(
    office: Office, nanjing: Document, keyring: Keyring
) -> None:
    in_force = "SELECT epoch, secret_mac FROM terminal WHERE public_id = %s"
    entry(nanjing, "terminals", WANG_BOX)["secret"] = None
    made = (await office.apply(nanjing)).secrets
    assert list(made) == [WANG_BOX]
    assert len(made[WANG_BOX]) >= 43, "256 bits (D6)"
    expected = [(1, keyring.mac("terminal", WANG_BOX, made[WANG_BOX]))]
    assert await office.rows(in_force, WANG_BOX) == expected

    again = await office.apply(nanjing)
    assert (again.changes, dict(again.secrets)) == ((), {})
    entry(nanjing, "terminals", WANG_BOX)["model"] = "okt-2"
    assert dict((await office.apply(nanjing)).secrets) == {}
    assert await office.rows(in_force, WANG_BOX) == expected

    entry(nanjing, "terminals", WANG_BOX)["secret"] = made[WANG_BOX]
    assert (await office.apply(nanjing)).changes == (), "writing down the one in force changes nothing"


async def test_a_secret_that_leaves_the_file_stays_in_force(office: Office, nanjing: Document) -> None:
    await office.apply(nanjing)
    in_force = await office.rows("SELECT epoch, secret_mac FROM terminal ORDER BY public_id")
    entry(nanjing, "terminals", WANG_BOX)["secret"] = None
    again = await office.apply(nanjing)
    assert (again.changes, dict(again.secrets)) == ((), {})
    assert await office.rows("SELECT epoch, secret_mac FROM terminal ORDER BY public_id") == in_force


async def test_a_platform_s_password_is_kept_as_a_keyed_hash(
    office: Office, nanjing: Document, keyring: Keyring
) -> None:
    await office.apply(nanjing)
    mac = keyring.mac("party", "hotline-12349", "hotline-demo-password-0000")
    assert await office.rows("SELECT broker_mac FROM party WHERE id = 'hotline-12349'") == [(mac,)]


# Moving


async def test_moving_a_terminal_ends_its_assignment_and_begins_another(office: Office, nanjing: Document) -> None:
    history = """
        SELECT a.household_id, a.since, a.until FROM assignment a JOIN terminal t ON t.uid = a.terminal_uid
        WHERE t.public_id = %s ORDER BY a.since
    """
    await office.apply(nanjing)
    ((_, began, _),) = await office.rows(history, WANG_BOX)
    entry(nanjing, "households", "wang-501")["terminals"] = []
    entry(nanjing, "households", "li-chen-203")["terminals"].append(WANG_BOX)
    assert changed(await office.apply(nanjing)) == {
        ("change", "household", "wang-501"),
        ("change", "household", "li-chen-203"),
    }
    (old, new) = await office.rows(history, WANG_BOX)
    assert old[:2] == ("wang-501", began)
    assert old[2] == new[1] > began, "no gap, no overlap"
    assert new[0] == "li-chen-203"
    assert new[2] is None


async def test_a_terminal_that_goes_back_has_three_assignments(office: Office, nanjing: Document) -> None:
    for home, other in (("wang-501", "li-chen-203"), ("li-chen-203", "wang-501"), ("wang-501", "li-chen-203")):
        for name in (home, other):
            terminals = entry(nanjing, "households", name)["terminals"]
            terminals[:] = [terminal for terminal in terminals if terminal != WANG_BOX]
        entry(nanjing, "households", home)["terminals"].append(WANG_BOX)
        await office.apply(nanjing)
    rows = await office.rows(
        "SELECT household_id, until IS NULL FROM assignment a JOIN terminal t ON t.uid = a.terminal_uid "
        "WHERE public_id = %s ORDER BY since",
        WANG_BOX,
    )
    assert rows == [("wang-501", False), ("li-chen-203", False), ("wang-501", True)]


async def test_terminals_that_swap_their_numbers_are_both_found_under_the_new_one(
    office: Office, nanjing: Document
) -> None:
    await office.apply(nanjing)
    one, two = nanjing["terminals"][:2]
    one["phone"], two["phone"] = two["phone"], one["phone"]
    await office.apply(nanjing)
    now = await office.rows(
        "SELECT t.public_id, a.address FROM terminal_address a JOIN terminal t ON t.uid = a.terminal_uid "
        "WHERE until IS NULL AND t.public_id = ANY(%s) ORDER BY 1",
        [one["id"], two["id"]],
    )
    assert now == [(one["id"], one["phone"]), (two["id"], two["phone"])]
    assert await office.rows("SELECT count(*) FROM terminal_address WHERE until IS NOT NULL") == [(2,)]


async def test_a_person_who_moves_keeps_the_key_of_their_record(office: Office, nanjing: Document) -> None:
    await office.apply(nanjing)
    key = await office.rows("SELECT key_id FROM person WHERE id = 'wang-xiulan'")
    person = entry(nanjing, "households", "wang-501")["persons"].pop()
    entry(nanjing, "households", "li-chen-203")["persons"].append(person)
    await office.apply(nanjing)
    assert await office.rows("SELECT household_id, position FROM person WHERE id = 'wang-xiulan'") == [
        ("li-chen-203", 2)
    ]
    assert await office.rows("SELECT key_id FROM person WHERE id = 'wang-xiulan'") == key


# All or nothing


@pytest.mark.parametrize("table", ["party", "household_party", "assignment", "plan", "site_object"])
async def test_a_failure_in_the_middle_leaves_nothing_changed(
    office: Office, nanjing: Document, database: str, table: str
) -> None:
    await office.apply(nanjing)
    before = await office.dump()
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as owner:
        await owner.execute(
            "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'no space left' USING ERRCODE = 'disk_full'; END $$"
        )
        await owner.execute(f"CREATE TRIGGER full_disk AFTER INSERT OR UPDATE ON {table} EXECUTE FUNCTION full_disk()")
        for party in nanjing["parties"]:
            party["phone"] = "02500000099"
        entry(nanjing, "households", "wang-501")["terminals"] = []
        entry(nanjing, "households", "li-chen-203")["terminals"].append(WANG_BOX)
        entry(nanjing, "plans", "duress")["roles"] = ["hotline"]
        with pytest.raises(psycopg.errors.DiskFull):
            await apply_site(office._pool, office._keyring, Site.model_validate(nanjing), prune=True)
        assert await office.dump() == before
        await owner.execute(f"DROP TRIGGER full_disk ON {table}")
    assert (await office.apply(nanjing)).changes != ()


async def test_of_those_who_apply_the_same_at_once_one_changes_everything(office: Office, nanjing: Document) -> None:
    site = Site.model_validate(nanjing)
    async with asyncio.TaskGroup() as tasks:
        work = [
            tasks.create_task(apply_site(office._pool, office._keyring, site, prune=False), name=f"apply-{number}")
            for number in range(4)
        ]
    assert sorted(bool(task.result().changes) for task in work) == [False, False, False, True]


# Privacy


def _secrets_of(document: Document) -> dict[str, str]:
    """Everything in the file that may stand nowhere in clear: what it is, by value."""
    found: dict[str, str] = {}
    for party in document["parties"]:
        found |= {party["name"]: "name of a party", party["phone"]: "phone of a party"}
        for channel in party["channels"]:
            found |= {channel[field]: field for field in ("url", "secret") if field in channel}
    for home in document["households"]:
        for field in ("street", "compound", "landmark", "approach"):
            found[home["address"][field]] = field
        for person in home["persons"]:
            found |= {person["name"]: "name of a person", person["phone"]: "phone of a person"}
            found |= {word: "health" for value in person["health"].values() for word in value if len(value[0]) > 1}
    for terminal in document["terminals"]:
        found[terminal["secret"]] = "secret of a terminal"
    # Short numbers such as 120 stand in ids as well.
    return {value: what for value, what in found.items() if len(value) > 5 or not value.isascii()}


async def test_no_table_holds_a_name_a_number_an_address_or_a_secret_in_clear(
    office: Office, nanjing: Document, pool: Pool, directory: Directory
) -> None:
    await office.apply(nanjing)
    case = await press(pool, directory, 1)
    ((leg,),) = await office.rows("SELECT id FROM leg WHERE case_id = %s AND party_id = 'guardian-wang'", case)
    await answer_leg(pool, directory, leg, PartyAnswer("coming", minutes=5), via="webhook")
    await close_case(pool, directory, case, outcome="helped", confirmed_by="seat 7", note="王秀兰 fell", worker=None)
    kept = {
        f"{table}: {column}": value if isinstance(value, bytes) else str(value).encode()
        for table, rows in (await _cells(office)).items()
        for number, row in enumerate(rows)
        for column, value in ((f"{number}.{place}", value) for place, value in enumerate(row))
    }
    assert len(kept) > 500
    for value, what in (_secrets_of(nanjing) | {"王秀兰": "name of a person"}).items():
        forms = (value.encode(), json.dumps(value)[1:-1].encode(), value.encode("gb18030"))
        holds = [where for where, content in kept.items() if any(form in content for form in forms)]
        assert holds == [], f"{what} stands in clear"


async def _cells(office: Office) -> dict[str, list[tuple[Any, ...]]]:
    tables = await office.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
    return {name: await office.rows(f"SELECT * FROM {name}") for (name,) in tables if name != "migration"}


async def test_a_person_who_was_erased_does_not_come_back_and_the_rest_can_still_change(
    office: Office, nanjing: Document, pool: Pool, keyring: Keyring
) -> None:
    await office.apply(nanjing)
    await erase_person(pool, keyring, "wang-xiulan", by="operator 7")
    with pytest.raises(SiteConflict, match="wang-xiulan"):
        await apply_site(office._pool, office._keyring, Site.model_validate(nanjing), prune=False)
    entry(nanjing, "households", "wang-501")["persons"] = []
    entry(nanjing, "parties", "community-daying")["phone"] = "02500000099"
    assert changed(await office.apply(nanjing)) == {("change", "party", "community-daying")}


async def press(pool: Pool, directory: Directory, seq: int) -> UUID:
    """Press the key of the first terminal and return the case."""
    raised = await raise_alarm(
        pool,
        directory,
        Press(
            terminal=WANG_BOX,
            transport="mqtt",
            kinds=("sos",),
            received_at=datetime.now(UTC),
            payload=b"{}",
            digest=b"",
            boot=1,
            seq=seq,
        ),
        worker=None,
    )
    return raised.case_id
