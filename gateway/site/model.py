"""The shape of a site file, what it must not say, and how its parts become values of the directory.

Every field's description says what a right value looks like: it is the hint beside each error about it.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from difflib import get_close_matches
from ipaddress import ip_address
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from gateway.domain import directory
from gateway.domain.kinds import EMERGENCIES, SERVICE, TECHNICAL
from gateway.domain.plan import EVERY_KIND
from gateway.domain.privacy import Privacy
from protocols.okc.topics import ID_PATTERN

__all__ = [
    "KNOWN_KINDS",
    "KNOWN_ROLES",
    "AddressEntry",
    "ChannelEntry",
    "Finding",
    "HouseholdEntry",
    "MqttEntry",
    "PartyEntry",
    "PersonEntry",
    "PlanEntry",
    "Severity",
    "Site",
    "StreamEntry",
    "TerminalEntry",
    "WebhookEntry",
    "findings",
    "suggestion",
    "to_address",
    "to_channel",
    "to_household",
    "to_party",
    "to_person",
    "to_plan",
]

KNOWN_ROLES = (
    "guardian",
    "relative",
    "hotline",
    "service_center",
    "community",
    "neighbourhood_committee",
    "district",
    "ambulance_120",
    "fire_119",
    "police_110",
    "neighbour",
    "care_station",
    "emergency_contact",
    "supplier",
)
"""Roles of Nanjing and Beijing (R1, R2). A site may have others: roles are data."""

KNOWN_KINDS = tuple(sorted(EMERGENCIES | TECHNICAL | SERVICE))

_EARLIEST_BIRTH = date(1890, 1, 1)
SHORTEST_SAFE_SECRET = 16
"""Characters. A shorter secret of a terminal or platform can be guessed and is good for demos only."""


# Types of fields


def suggestion(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that `word` most likely wants to be, or None."""
    plain = {name.lower().replace("-", "_"): name for name in known}
    close = get_close_matches(word.lower().replace("-", "_"), plain, n=1, cutoff=0.7)
    return plain[close[0]] if close else None


def _wrong(what: str) -> PydanticCustomError:
    """Return the error for a value that is wrong. The text holds no part of the value: it may be a secret."""
    return PydanticCustomError("site", "{what}", {"what": what})


def _day(value: object) -> object:
    """Let nothing but a full date pass: pydantic alone would read 19410302 as seconds since 1970."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        try:
            day = date.fromisoformat(value)
        except ValueError:
            raise _wrong("there is no such day") from None
        if day < _EARLIEST_BIRTH:
            raise _wrong(f"lies before {_EARLIEST_BIRTH}")
        return day
    raise _wrong("is not a date")


def _timezone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError):
        near = suggestion(value, available_timezones())
        raise _wrong("is not a time zone" + (f"; did you mean {near}?" if near else "")) from None
    return value


def _web_address(value: str) -> str:
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or re.search(r"[\s\x00-\x1f\x7f]", value):
        raise _wrong("is not a web address")
    return value


def _webhook_secret(value: str) -> str:
    if not value.startswith("whsec_"):
        raise _wrong("does not begin with whsec_")
    try:
        key = base64.b64decode(value.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        raise _wrong("is not valid base64 behind whsec_") from None
    if not 24 <= len(key) <= 64:
        raise _wrong(f"holds a key of {len(key)} bytes")
    return value


_LINE = r"^[^\x00-\x1f\x7f]+$"
_Id = Annotated[
    str, Field(pattern=rf"^{ID_PATTERN}$", description="1 to 64 letters A-Z a-z, digits, - or _, for example wang-501")
]
_Role = Annotated[
    str,
    Field(pattern=r"^[a-z][a-z0-9_]{0,63}$", description="a word of small letters, digits and _, for example guardian"),
]
_Kind = Annotated[str, Field(pattern=_LINE, max_length=64, description='a kind of alarm such as sos, or "*" for all')]
_Name = Annotated[str, Field(pattern=_LINE, max_length=200, description="a name in one line")]
_Line = Annotated[str, Field(pattern=_LINE, max_length=200, description="a text in one line")]
_Text = Annotated[str, Field(min_length=1, max_length=2000, description="a text")]
_Phone = Annotated[
    str,
    Field(
        pattern=r"^(\+[1-9][0-9]{5,14}|[0-9]{3,12})$",
        description='digits in quotes: "+86…" with the country code, or a short number such as "120"',
    ),
]
_Password = Annotated[
    str,
    Field(pattern=r"^[\x21-\x7e]+$", max_length=256, description="1 to 256 ASCII characters without spaces"),
]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Show nothing but ids: a part that is printed or logged holds names, numbers and secrets (R22)."""
        return ((name, value) for name, value in super().__repr_args__() if name in ("site", "id", "kind"))


# The file


class WebhookEntry(_Part):
    """A signed HTTP message (Standard Webhooks) to the party's platform."""

    kind: Literal["webhook"]
    url: Annotated[
        str, AfterValidator(_web_address), Field(description="http:// or https://, then a host", max_length=2000)
    ]
    secret: Annotated[
        str,
        AfterValidator(_webhook_secret),
        Field(description="whsec_ and the base64 of 24 to 64 random bytes"),
    ]
    timeout_s: Annotated[int, Field(strict=True, ge=1, le=60, description="whole seconds from 1 to 60")] = 10


class MqttEntry(_Part):
    """A message on the topic of the party, which its platform fetches from the broker as user ``party~{id}``."""

    kind: Literal["mqtt"]
    secret: _Password


class StreamEntry(_Part):
    """The event stream of the API, which the party's platform or console keeps open."""

    kind: Literal["stream"]


ChannelEntry = Annotated[WebhookEntry | MqttEntry | StreamEntry, Field(discriminator="kind")]


class PartyEntry(_Part):
    """Somebody who is told (联动方)."""

    id: _Id
    role: _Role
    name: _Name
    district: Annotated[_Id | None, Field(description='the code of its district, for example "320102"')] = None
    phone: _Phone | None = None
    channels: Annotated[
        tuple[ChannelEntry, ...], Field(description="a list of channels, in the order in which they are tried")
    ] = ()


class AddressEntry(_Part):
    """A registered address, precise to the room, with what rescuers look for (R6, R13)."""

    district: _Line
    street: _Line
    community: _Line | None = None
    compound: _Line | None = None
    building: _Line | None = None
    unit: _Line | None = None
    floor: _Line | None = None
    room: _Line | None = None
    landmark: _Text | None = None
    approach: _Text | None = None
    lat: Annotated[
        float | None,
        Field(strict=True, ge=-90, le=90, allow_inf_nan=False, description="degrees north, for example 32.0611"),
    ] = None
    lon: Annotated[
        float | None,
        Field(strict=True, ge=-180, le=180, allow_inf_nan=False, description="degrees east, for example 118.7921"),
    ] = None
    datum: Annotated[
        Literal["wgs84", "gcj02", "bd09"], Field(description="wgs84, gcj02 (Amap, Tencent) or bd09 (Baidu)")
    ] = "wgs84"


class PersonEntry(_Part):
    """A protected person (R5)."""

    id: _Id
    name: _Name
    born: Annotated[date | None, BeforeValidator(_day), Field(description="year-month-day from 1890-01-01 on")] = None
    phone: _Phone | None = None
    health: Annotated[
        dict[str, Any],
        Field(
            description="name: value lines of your choice, for example conditions: [高血压]",
        ),
    ] = Field(default_factory=dict)
    agreements: Annotated[
        tuple[Literal["dial_on_behalf"], ...],
        Field(description="a list of signed agreements; dial_on_behalf lets an operator dial 120 and 119 (R3)"),
    ] = ()


class HouseholdEntry(_Part):
    """One address with the persons who live there, who is responsible for them, and their terminals."""

    id: _Id
    address: Annotated[AddressEntry, Field(description="district, street … down to the room")]
    persons: Annotated[tuple[PersonEntry, ...], Field(description="a list of persons")] = ()
    parties: Annotated[tuple[_Id, ...], Field(description="a list of ids of parties")] = ()
    terminals: Annotated[tuple[_Id, ...], Field(description="a list of ids of terminals, in quotes")] = ()


class TerminalEntry(_Part):
    """A one-key terminal. Without ``secret`` one is generated when the file is applied, and shown once."""

    id: _Id
    model: _Line
    phone: _Phone | None = None
    secret: _Password | None = None


class PlanEntry(_Part):
    """Which roles hear of which kinds of alarm, and how much they may know (预案)."""

    id: _Id
    kinds: Annotated[
        tuple[_Kind, ...], Field(min_length=1, description='a list of kinds of alarm, or ["*"] for all others')
    ]
    roles: Annotated[tuple[_Role, ...], Field(min_length=1, description="a list of roles")]
    privacy: Annotated[
        dict[_Role, Annotated[Privacy, Field(description="full, care, family or neighbour")]],
        Field(description="role: level lines, with level full, care, family or neighbour"),
    ] = Field(default_factory=dict)
    procedure: Annotated[
        str | None,
        Field(
            pattern=r"^[a-z0-9][a-z0-9-]{0,63}$",
            description="the id of a procedure, for example nanjing-emergency; see onekey procedure list",
        ),
    ] = None


class Site(_Part):
    """The whole file."""

    site: _Id
    district: Annotated[_Id, Field(description='the code of the district, for example "320102"')]
    timezone: Annotated[str, AfterValidator(_timezone), Field(description="an IANA name, for example Asia/Shanghai")]
    locale: Annotated[
        str, Field(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$", description="a language tag, for example zh-CN")
    ]
    fallback: Annotated[
        tuple[_Id, ...],
        Field(min_length=1, description="a list of at least one party: who hears of what nobody planned for"),
    ]
    parties: Annotated[tuple[PartyEntry, ...], Field(description="a list of parties")]
    households: Annotated[tuple[HouseholdEntry, ...], Field(description="a list of households")] = ()
    terminals: Annotated[tuple[TerminalEntry, ...], Field(description="a list of terminals")] = ()
    plans: Annotated[tuple[PlanEntry, ...], Field(description="a list of plans")] = ()


# What the shape alone cannot tell

Severity = Literal["error", "warning"]
Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong or doubtful at `path`, with what would be right. Holds no name, number or secret."""

    path: Path
    what: str
    hint: str
    severity: Severity = "error"


def findings(site: Site, *, today: date) -> Iterator[Finding]:
    """Yield everything that is wrong between the parts of `site`, in no particular order."""
    yield from _repeated_ids(site)
    yield from _references(site)
    yield from _parties(site)
    for index, household in enumerate(site.households):
        yield from _household(("households", index), household, today=today)
    yield from _terminals(site)
    yield from _plans(site)
    yield from _missing_roles(site)


def _doubt(path: Path, what: str, hint: str) -> Finding:
    return Finding(path, what, hint, "warning")


def _dotted(path: Path) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def _repeated_ids(site: Site) -> Iterator[Finding]:
    persons = [
        (("households", index, "persons", place, "id"), person.id)
        for index, household in enumerate(site.households)
        for place, person in enumerate(household.persons)
    ]
    lists: Sequence[tuple[str, Iterable[tuple[Path, str]]]] = (
        ("party", ((("parties", index, "id"), entry.id) for index, entry in enumerate(site.parties))),
        ("household", ((("households", index, "id"), entry.id) for index, entry in enumerate(site.households))),
        ("person", persons),
        ("terminal", ((("terminals", index, "id"), entry.id) for index, entry in enumerate(site.terminals))),
        ("plan", ((("plans", index, "id"), entry.id) for index, entry in enumerate(site.plans))),
    )
    for noun, entries in lists:
        first: dict[str, Path] = {}
        for path, name in entries:
            if name in first:
                yield Finding(
                    path, f"a second {noun} has the id {name}", f"the first is {_dotted(first[name][:-1])}; rename one"
                )
            first.setdefault(name, path)


def _references(site: Site) -> Iterator[Finding]:
    party_ids = [entry.id for entry in site.parties]
    terminal_ids = [entry.id for entry in site.terminals]
    seekers: list[tuple[Path, str, Sequence[str], str, Sequence[str]]] = [
        (("fallback",), "party", site.fallback, "parties", party_ids)
    ]
    for index, household in enumerate(site.households):
        path: Path = ("households", index)
        seekers.append(((*path, "parties"), "party", household.parties, "parties", party_ids))
        seekers.append(((*path, "terminals"), "terminal", household.terminals, "terminals", terminal_ids))
    known = {"parties": set(party_ids), "terminals": set(terminal_ids)}
    guesses_left = 50  # Each looks through all ids: thousands of wrong ones would take minutes.
    for path, noun, names, where, ids in seekers:
        seen: set[str] = set()
        for place, name in enumerate(names):
            if name not in known[where]:
                near = suggestion(name, ids) if guesses_left > 0 else None
                guesses_left -= 1
                hint = f"did you mean {near}?" if near else f"add it to {where}, or leave it out here"
                yield Finding((*path, place), f"there is no {noun} {name}", hint)
            if name in seen:
                yield _doubt((*path, place), f"{noun} {name} is listed twice", "once is enough")
            seen.add(name)


def _parties(site: Site) -> Iterator[Finding]:
    used = {name for household in site.households for name in household.parties}
    for index, party in enumerate(site.parties):
        path: Path = ("parties", index)
        if party.role not in KNOWN_ROLES:
            yield _unknown_role((*path, "role"), party.role)
        if party.id not in used and party.id not in site.fallback:
            yield _doubt(path, f"party {party.id} is never told", "name it in a household or in fallback, or remove it")
        if not party.channels:
            role_in_site = "fallback party" if party.id in site.fallback else "party"
            yield Finding(
                path,
                f"{role_in_site} {party.id} has no channel",
                "it can never be told: add channels with a webhook, mqtt or stream",
                "error" if party.id in site.fallback else "warning",
            )
        for place, channel in enumerate(party.channels):
            yield from _channel((*path, "channels", place), channel)


def _channel(path: Path, channel: WebhookEntry | MqttEntry | StreamEntry) -> Iterator[Finding]:
    if isinstance(channel, MqttEntry) and len(channel.secret) < SHORTEST_SAFE_SECRET:
        yield _short_secret((*path, "secret"))
    if isinstance(channel, WebhookEntry) and channel.url.startswith("http:") and not _stays_here(channel.url):
        what = "sends names and health records over an unencrypted connection"
        yield _doubt((*path, "url"), what, "use https:// for a platform on another machine (R22)")


def _stays_here(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _short_secret(path: Path) -> Finding:
    return _doubt(path, f"is shorter than {SHORTEST_SAFE_SECRET} characters", "only for demos: use a long random one")


def _unknown_role(path: Path, role: str) -> Finding:
    near = suggestion(role, KNOWN_ROLES)
    hint = f"did you mean {near}?" if near else "right if you made it up; known are " + ", ".join(KNOWN_ROLES)
    return _doubt(path, f"role {role} is not one of the known ones", hint)


def _household(path: Path, household: HouseholdEntry, *, today: date) -> Iterator[Finding]:
    address, at = household.address, (*path, "address")
    if (address.lat is None) is not (address.lon is None):
        present, absent = ("lon", "lat") if address.lat is None else ("lat", "lon")
        yield Finding((*at, present), f"{present} stands without {absent}", "give both or neither")
    elif address.lat is None:
        yield _doubt(at, "has no lat and lon", "without them no map shows the house when the terminal has no fix (R1)")
    if address.landmark is None:
        yield _doubt(at, "has no landmark", "write what stands nearby, for example a bus stop or a school gate (R6)")
    if address.approach is None:
        yield _doubt(at, "has no approach", "write how an ambulance gets in: gate, lift, door code (R13)")
    if not household.persons:
        yield _doubt(path, f"household {household.id} has no person", "write who lives there: add persons (R5)")
    if not household.terminals:
        yield _doubt(path, f"household {household.id} has no terminal", "nobody there can call: add terminals")
    for place, person in enumerate(household.persons):
        here = (*path, "persons", place)
        if person.born is None:
            yield _doubt(here, f"person {person.id} has no date of birth", "rescuers ask for the age: add born (R5)")
        elif person.born > today:
            yield Finding((*here, "born"), "lies in the future", "year-month-day, not after today")
        if person.phone is None:
            yield _doubt(here, f"person {person.id} has no phone", "operators call back twice: add phone (R5, R15)")


def _terminals(site: Site) -> Iterator[Finding]:
    home: dict[str, str] = {}
    for index, household in enumerate(site.households):
        for place, name in enumerate(household.terminals):
            owner = home.setdefault(name, household.id)
            if owner != household.id:
                yield Finding(
                    ("households", index, "terminals", place),
                    f"terminal {name} already belongs to household {owner}",
                    "a terminal stands in one household: remove it from the other",
                )
    phones: dict[str, str] = {}
    for index, terminal in enumerate(site.terminals):
        path: Path = ("terminals", index)
        if terminal.id not in home:
            hint = "its alarms go to the fallback only: name it in a household"
            yield _doubt(path, f"terminal {terminal.id} is in no household", hint)
        if terminal.secret is not None and len(terminal.secret) < SHORTEST_SAFE_SECRET:
            yield _short_secret((*path, "secret"))
        if terminal.phone is not None and phones.setdefault(terminal.phone, terminal.id) != terminal.id:
            other = phones[terminal.phone]
            what = f"has the number of terminal {other} too"
            yield _doubt((*path, "phone"), what, "a call or message from it could come from either: correct one")


def _plans(site: Site) -> Iterator[Finding]:
    claimed: dict[str, int] = {}
    for index, plan in enumerate(site.plans):
        for place, kind in enumerate(plan.kinds):
            path: Path = ("plans", index, "kinds", place)
            earlier = claimed.setdefault(kind, index)
            if earlier != index:
                what = f"plan {site.plans[earlier].id} already has the kind {kind}"
                yield Finding(path, what, "each kind, and *, belongs to one plan")
            elif kind in plan.kinds[:place]:
                yield _doubt(path, f"kind {kind} is listed twice", "once is enough")
            if kind != EVERY_KIND and kind not in KNOWN_KINDS:
                near = suggestion(kind, KNOWN_KINDS)
                hint = f"did you mean {near}?" if near else "right if your terminals send it"
                yield _doubt(path, f"kind {kind} is not one of the known ones", hint)
        for place, role in enumerate(plan.roles):
            path = ("plans", index, "roles", place)
            if role not in KNOWN_ROLES:
                yield _unknown_role(path, role)
            if role in plan.roles[:place]:
                yield _doubt(path, f"role {role} is listed twice", "once is enough")
        for role in plan.privacy:
            if role not in plan.roles:
                what = f"role {role} is not told by plan {plan.id}"
                yield _doubt(("plans", index, "privacy", role), what, "add it to roles, or leave it out here")
    if EVERY_KIND not in claimed:
        where: Path = ("plans",) if site.plans else ()
        what = f'no plan has the kind "{EVERY_KIND}"'
        hint = f'a kind nobody planned for would go to fallback only: add a plan with kinds: ["{EVERY_KIND}"]'
        yield _doubt(where, what, hint)


def _missing_roles(site: Site) -> Iterator[Finding]:
    role_of = {party.id: party.role for party in site.parties}
    for index, household in enumerate(site.households):
        present = {role_of.get(name) for name in household.parties}
        for plan in site.plans:
            for role in dict.fromkeys(plan.roles):
                if role not in present:
                    yield _doubt(
                        ("households", index, "parties") if household.parties else ("households", index),
                        f"plan {plan.id} tells the role {role}, which household {household.id} has nobody for",
                        "at alarm time this becomes a failed leg, and the fallback is told",
                    )


# To the directory


def to_channel(channel: WebhookEntry | MqttEntry | StreamEntry) -> directory.ChannelSpec:
    """Return the channel as the directory keeps it."""
    return directory.ChannelSpec(kind=channel.kind, options=channel.model_dump(exclude={"kind"}))


def to_party(site: Site, party: PartyEntry) -> directory.Party:
    """Return the party as the directory keeps it. Without a district of its own it has the site's."""
    return directory.Party(
        id=party.id,
        role=party.role,
        name=party.name,
        district=party.district or site.district,
        phone=party.phone,
        channels=tuple(to_channel(channel) for channel in party.channels),
    )


def to_address(address: AddressEntry) -> directory.Address:
    """Return the address as the directory keeps it."""
    return directory.Address(
        district=address.district,
        street=address.street,
        community=address.community or "",
        compound=address.compound or "",
        building=address.building or "",
        unit=address.unit or "",
        floor=address.floor or "",
        room=address.room or "",
        landmark=address.landmark,
        approach=address.approach,
        lat=address.lat,
        lon=address.lon,
        datum=address.datum,
    )


def to_person(person: PersonEntry) -> directory.Person:
    """Return the person as the directory keeps it."""
    return directory.Person(
        id=person.id,
        name=person.name,
        born=person.born,
        phone=person.phone,
        health=dict(person.health),
        agreements=person.agreements,
    )


def to_household(
    site: Site, household: HouseholdEntry, *, parties: Mapping[str, directory.Party] | None = None
) -> directory.Household:
    """Return the household as the directory keeps it, its parties in the order of the file.

    `parties` by id saves time when many households are converted.

    Raises:
        KeyError: A party of the household is not in the site; `findings` tells so beforehand.
    """
    by_id = parties if parties is not None else {party.id: to_party(site, party) for party in site.parties}
    return directory.Household(
        id=household.id,
        site=site.site,
        district=site.district,
        timezone=site.timezone,
        locale=site.locale,
        address=to_address(household.address),
        persons=tuple(to_person(person) for person in household.persons),
        parties=tuple(by_id[name] for name in dict.fromkeys(household.parties)),
    )


def to_plan(plan: PlanEntry, *, version: int) -> directory.Plan:
    """Return the plan as the directory keeps it. `version` is counted up by whoever stores it."""
    return directory.Plan(
        id=plan.id,
        version=version,
        kinds=plan.kinds,
        roles=plan.roles,
        privacy={role: level.value for role, level in plan.privacy.items()},
        procedure=plan.procedure,
    )
