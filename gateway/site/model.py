"""The shape of a site file, what it must not say, and how its parts become values of the directory."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from ipaddress import ip_address
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from gateway.domain import directory
from gateway.domain.location import Coordinates, Datum
from gateway.domain.phones import is_emergency_line
from gateway.site.fields import (
    KNOWN_KINDS,
    KNOWN_ROLES,
    Finding,
    Id,
    Line,
    Name,
    Part,
    Password,
    Path,
    Phone,
    Role,
    Severity,
    Text,
    doubt,
    full_date,
    known_timezone,
    known_words,
    suggestion,
    unknown_role,
    web_address,
    webhook_secret,
)
from gateway.site.plans import PlanEntry, plan_findings, to_plan
from gateway.site.supervision import (
    CareEntry,
    PaidUntil,
    SilentAfter,
    SupervisionEntry,
    care_record,
    supervision_findings,
)

__all__ = [
    "KNOWN_KINDS",
    "KNOWN_ROLES",
    "AddressEntry",
    "ChannelEntry",
    "Finding",
    "HouseholdEntry",
    "HttpSmsEntry",
    "MqttEntry",
    "PartyEntry",
    "PersonEntry",
    "PlanEntry",
    "Severity",
    "SignEntry",
    "Site",
    "SmsEntry",
    "StreamEntry",
    "TerminalEntry",
    "VoiceEntry",
    "WebhookEntry",
    "areas_of",
    "care_of",
    "findings",
    "suggestion",
    "to_address",
    "to_channel",
    "to_household",
    "to_party",
    "to_person",
    "to_plan",
]

SHORTEST_SAFE_SECRET = 16
"""Characters. A shorter secret of a terminal or platform can be guessed and is good for demos only."""


# The file


class WebhookEntry(Part):
    """A signed HTTP message (Standard Webhooks) to the party's platform."""

    kind: Literal["webhook"]
    url: Annotated[
        str, AfterValidator(web_address), Field(description="http:// or https://, then a host", max_length=2000)
    ]
    secret: Annotated[
        str,
        AfterValidator(webhook_secret),
        Field(description="whsec_ and the base64 of 24 to 64 random bytes"),
    ]
    timeout_s: Annotated[int, Field(strict=True, ge=1, le=60, description="whole seconds from 1 to 60")] = 10


class MqttEntry(Part):
    """A message on the topic of the party, which its platform fetches from the broker as user ``party~{id}``."""

    kind: Literal["mqtt"]
    secret: Password


class StreamEntry(Part):
    """The event stream of the API, which the party's platform or console keeps open."""

    kind: Literal["stream"]


class SmsEntry(Part):
    """A text to the party's phone through a modem of the gateway; it is answered by writing back."""

    kind: Literal["sms"]
    within_s: Annotated[
        int,
        Field(strict=True, ge=5, le=60, description="seconds it may wait for a modem before the next channel is taken"),
    ] = 30
    parts: Annotated[int, Field(strict=True, ge=1, le=6, description="messages that one text may take")] = 3


class VoiceEntry(Part):
    """A call to the party's phone through a modem of the gateway. Nobody speaks; pressing 1, 2 or 0 answers."""

    kind: Literal["voice"]
    emergency_line: Annotated[
        bool, Field(strict=True, description="true: site and licence allow automatic calls to 110, 119 or 120 (D13)")
    ] = False


class SignEntry(Part):
    """How a provider wants requests signed."""

    how: Annotated[
        Literal["hmac-sha256", "hmac-sha1", "sha256", "md5"], Field(description="hmac-sha256, hmac-sha1, sha256 or md5")
    ]
    over: Annotated[Text, Field(description="what is signed, with the same words in braces as body")]
    secret: Annotated[str, Field(max_length=500, description="key of an hmac; empty for sha256 and md5")] = ""
    written: Literal["hex", "base64"] = "hex"


class HttpSmsEntry(Part):
    """A text to the party's phone through a provider on the internet."""

    kind: Literal["http_sms"]
    url: Annotated[
        str, AfterValidator(web_address), Field(description="http:// or https://, then a host", max_length=2000)
    ]
    body: Annotated[Text, AfterValidator(known_words), Field(description="what is sent, with {number}, {text} …")]
    form: Annotated[Literal["json", "form"], Field(description="how words in braces are written into body")] = "json"
    headers: Annotated[dict[str, str], Field(description="name: value lines, for example Authorization")] = Field(
        default_factory=dict
    )
    sign: SignEntry | None = None
    good: Annotated[str | None, Field(max_length=200, description="what a good answer holds beside its status")] = None
    timeout_s: Annotated[int, Field(strict=True, ge=1, le=60, description="whole seconds from 1 to 60")] = 10
    parts: Annotated[int, Field(strict=True, ge=1, le=6, description="messages that one text may take")] = 3


_Channel = WebhookEntry | MqttEntry | StreamEntry | SmsEntry | VoiceEntry | HttpSmsEntry
ChannelEntry = Annotated[_Channel, Field(discriminator="kind")]


class PartyEntry(Part):
    """Somebody who is told (联动方)."""

    id: Id
    role: Role
    name: Name
    district: Annotated[Id | None, Field(description='the code of its district, for example "320102"')] = None
    phone: Phone | None = None
    channels: Annotated[
        tuple[ChannelEntry, ...], Field(description="a list of channels, in the order in which they are tried")
    ] = ()
    grade: Annotated[
        int, Field(strict=True, ge=1, le=9, description="1 to 9: who of several contacts is called first (R5)")
    ] = 1


class AddressEntry(Part):
    """A registered address, precise to the room, with what rescuers look for (R6, R13)."""

    district: Line
    street: Line
    community: Line | None = None
    compound: Line | None = None
    building: Line | None = None
    unit: Line | None = None
    floor: Line | None = None
    room: Line | None = None
    landmark: Text | None = None
    approach: Text | None = None
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


class PersonEntry(Part):
    """A protected person (R5)."""

    id: Id
    name: Name
    born: Annotated[date | None, BeforeValidator(full_date), Field(description="year-month-day from 1890-01-01 on")] = (
        None
    )
    phone: Phone | None = None
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


class HouseholdEntry(Part):
    """One address with the persons who live there, who is responsible for them, and their terminals."""

    id: Id
    address: Annotated[AddressEntry, Field(description="district, street … down to the room")]
    persons: Annotated[tuple[PersonEntry, ...], Field(description="a list of persons")] = ()
    parties: Annotated[tuple[Id, ...], Field(description="a list of ids of parties")] = ()
    terminals: Annotated[tuple[Id, ...], Field(description="a list of ids of terminals, in quotes")] = ()
    care: Annotated[
        CareEntry | None,
        Field(description="fences, inactivity and well_by: when somebody is to look after the persons"),
    ] = None
    feeder: Annotated[Line | None, Field(description="the transformer or line that its power comes from")] = None


class TerminalEntry(Part):
    """A one-key terminal. Without ``secret`` one is generated when the file is applied, and shown once.

    ``silent_after`` overrules what its model may do; ``sim_paid_until`` is for SIMs that nobody can ask (R24).
    """

    id: Id
    model: Line
    phone: Phone | None = None
    secret: Password | None = None
    silent_after: SilentAfter = None
    sim_paid_until: PaidUntil = None


class Site(Part):
    """The whole file."""

    site: Id
    district: Annotated[Id, Field(description='the code of the district, for example "320102"')]
    timezone: Annotated[
        str, AfterValidator(known_timezone), Field(description="an IANA name, for example Asia/Shanghai")
    ]
    locale: Annotated[
        str, Field(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$", description="a language tag, for example zh-CN")
    ]
    fallback: Annotated[
        tuple[Id, ...],
        Field(min_length=1, description="a list of at least one party: who hears of what nobody planned for"),
    ]
    parties: Annotated[tuple[PartyEntry, ...], Field(description="a list of parties")]
    households: Annotated[tuple[HouseholdEntry, ...], Field(description="a list of households")] = ()
    terminals: Annotated[tuple[TerminalEntry, ...], Field(description="a list of terminals")] = ()
    plans: Annotated[tuple[PlanEntry, ...], Field(description="a list of plans")] = ()
    supervision: Annotated[
        tuple[SupervisionEntry, ...], Field(description="a list of models and what is expected of them")
    ] = ()


# What the shape alone cannot tell


def findings(site: Site, *, today: date) -> Iterator[Finding]:
    """Yield everything that is wrong between the parts of `site`, in no particular order."""
    yield from _repeated_ids(site)
    yield from _references(site)
    yield from _parties(site)
    for index, household in enumerate(site.households):
        yield from _household(("households", index), household, today=today)
    yield from _terminals(site)
    yield from plan_findings(site.plans)
    yield from supervision_findings(site.supervision, [terminal.model for terminal in site.terminals])
    yield from _missing_roles(site)


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
                yield doubt((*path, place), f"{noun} {name} is listed twice", "once is enough")
            seen.add(name)


def _parties(site: Site) -> Iterator[Finding]:
    used = {name for household in site.households for name in household.parties}
    for index, party in enumerate(site.parties):
        path: Path = ("parties", index)
        if party.role not in KNOWN_ROLES:
            yield unknown_role((*path, "role"), party.role)
        if party.id not in used and party.id not in site.fallback:
            yield doubt(path, f"party {party.id} is never told", "name it in a household or in fallback, or remove it")
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
            if isinstance(channel, SmsEntry | VoiceEntry | HttpSmsEntry):
                yield from _phone((*path, "channels", place), channel, party)


def _channel(path: Path, channel: _Channel) -> Iterator[Finding]:
    if isinstance(channel, MqttEntry) and len(channel.secret) < SHORTEST_SAFE_SECRET:
        yield _short_secret((*path, "secret"))
    url = channel.url if isinstance(channel, WebhookEntry | HttpSmsEntry) else ""
    if url.startswith("http:") and not _stays_here(url):
        what = "sends names and health records over an unencrypted connection"
        yield doubt((*path, "url"), what, "use https:// for a platform on another machine (R22)")


def _phone(path: Path, channel: SmsEntry | VoiceEntry | HttpSmsEntry, party: PartyEntry) -> Iterator[Finding]:
    if party.phone is None:
        yield Finding(path, f"party {party.id} has no phone", f"{channel.kind} needs one: add phone to the party")
    elif isinstance(channel, VoiceEntry) and is_emergency_line(party.phone) and not channel.emergency_line:
        what = f"the gateway never dials {party.phone} by itself"
        yield doubt(path, what, "emergency_line: true, if site and licence allow it (D13), or leave it out")


def _stays_here(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _short_secret(path: Path) -> Finding:
    return doubt(path, f"is shorter than {SHORTEST_SAFE_SECRET} characters", "only for demos: use a long random one")


def _household(path: Path, household: HouseholdEntry, *, today: date) -> Iterator[Finding]:
    address, at = household.address, (*path, "address")
    if (address.lat is None) is not (address.lon is None):
        present, absent = ("lon", "lat") if address.lat is None else ("lat", "lon")
        yield Finding((*at, present), f"{present} stands without {absent}", "give both or neither")
    elif address.lat is None:
        yield doubt(at, "has no lat and lon", "without them no map shows the house when the terminal has no fix (R1)")
    if address.landmark is None:
        yield doubt(at, "has no landmark", "write what stands nearby, for example a bus stop or a school gate (R6)")
    if address.approach is None:
        yield doubt(at, "has no approach", "write how an ambulance gets in: gate, lift, door code (R13)")
    if household.care is not None and address.lat is None:
        for place, fence in enumerate(household.care.fences):
            if fence.lat is None or fence.lon is None:
                here = (*path, "care", "fences", place)
                yield Finding(here, f"fence {fence.name} has no place", "give lat and lon here, or to the address")
    if not household.persons:
        yield doubt(path, f"household {household.id} has no person", "write who lives there: add persons (R5)")
    if not household.terminals:
        yield doubt(path, f"household {household.id} has no terminal", "nobody there can call: add terminals")
    for place, person in enumerate(household.persons):
        here = (*path, "persons", place)
        if person.born is None:
            yield doubt(here, f"person {person.id} has no date of birth", "rescuers ask for the age: add born (R5)")
        elif person.born > today:
            yield Finding((*here, "born"), "lies in the future", "year-month-day, not after today")
        if person.phone is None:
            yield doubt(here, f"person {person.id} has no phone", "operators call back twice: add phone (R5, R15)")


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
            yield doubt(path, f"terminal {terminal.id} is in no household", hint)
        if terminal.secret is not None and len(terminal.secret) < SHORTEST_SAFE_SECRET:
            yield _short_secret((*path, "secret"))
        if terminal.phone is not None and phones.setdefault(terminal.phone, terminal.id) != terminal.id:
            other = phones[terminal.phone]
            what = f"has the number of terminal {other} too"
            yield doubt((*path, "phone"), what, "a call or message from it could come from either: correct one")


def _missing_roles(site: Site) -> Iterator[Finding]:
    role_of = {party.id: party.role for party in site.parties}
    for index, household in enumerate(site.households):
        present = {role_of.get(name) for name in household.parties}
        for plan in site.plans:
            for entry in {entry.role: entry for entry in plan.roles}.values():
                if entry.role in present:
                    continue
                helper = next((role for role in entry.stand_in if role in present), None)
                who = "the fallback is told" if helper is None else f"{helper} steps in"
                yield doubt(
                    ("households", index, "parties") if household.parties else ("households", index),
                    f"plan {plan.id} tells the role {entry.role}, which household {household.id} has nobody for",
                    f"at alarm time this becomes a failed leg, and {who}",
                )


# To the directory


def to_channel(channel: _Channel) -> directory.ChannelSpec:
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
        grade=party.grade,
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


def areas_of(household: HouseholdEntry) -> list[tuple[str, tuple[str, ...]]]:
    """Return what a household has in common with others: kind of area, and the words that name it."""
    at = household.address
    found: list[tuple[str, tuple[str, ...]]] = [("street", (at.district, at.street))]
    if at.building is not None:
        found.append(("building", (at.district, at.street, at.compound or "", at.building)))
    if household.feeder is not None:
        found.append(("feeder", (household.feeder,)))
    return found


def care_of(household: HouseholdEntry) -> dict[str, Any] | None:
    """Return the care that a household has asked for, as it is stored."""
    at = household.address
    home = None
    if at.lat is not None and at.lon is not None:
        home = Coordinates(at.lat, at.lon, Datum(at.datum)).to(Datum.WGS84)
    return None if household.care is None else care_record(household.care, home)


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
