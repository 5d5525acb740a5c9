"""What a site file may say about supervision: what is expected of each model, and who hears when it is not met.

The plans that come with the gateway stand here too; a site overrules them by naming a kind in a plan of its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, time, timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from gateway.domain.location import Coordinates, Datum
from gateway.domain.plan import SHIPPED
from gateway.domain.procedure import parse_due
from gateway.domain.supervision import Profile
from gateway.domain.wellbeing import Care, Fence
from gateway.site.fields import Finding, Id, Line, Part, Path, doubt, full_date, wrong
from gateway.site.plans import PlanEntry, RoleEntry, between_of, hours_of_day

__all__ = [
    "SHIPPED_PLANS",
    "CareEntry",
    "FenceEntry",
    "PaidUntil",
    "SilentAfter",
    "SupervisionEntry",
    "care_record",
    "profile_of",
    "read_care",
    "supervision_findings",
]

_LEAST = timedelta(seconds=30)
_MOST = timedelta(days=14)


def _span(value: str) -> timedelta:
    due = parse_due(value)
    assert due.duration is not None, "validated as a duration"
    return due.duration


def _duration(value: str | None) -> str | None:
    if value is None:
        return None
    try:
        span = parse_due(value).duration
    except ValueError:
        span = None
    if span is None or not _LEAST <= span <= _MOST:
        raise wrong("is no time between 30 s and 14 d")
    return value


def _fix_interval(value: str | None) -> str | None:
    if value is None:
        return None
    try:
        span = parse_due(value).duration
    except ValueError:
        span = None
    if span is None or not timedelta(seconds=5) <= span <= timedelta(days=1):
        raise wrong("is no time between 5 s and 1 d")
    return value


def _clock(value: str | None) -> str | None:
    if value is not None:
        try:
            time.fromisoformat(value)
        except ValueError:
            raise wrong("is not a time of day") from None
    return value


_Duration = Annotated[
    str | None,
    AfterValidator(_duration),
    Field(description='a duration from 30 s to 14 d, for example "5 min" or "24 h"'),
]
_Percent = Annotated[int, Field(strict=True, ge=1, le=90, description="percent from 1 to 90")]


class SupervisionEntry(Part):
    """What is expected of terminals of some models. Without any entry a terminal may be silent for an hour."""

    models: Annotated[tuple[Line, ...], Field(min_length=1, description='models of terminals, or ["*"] for all others')]
    silent_after: _Duration = "1 h"
    heartbeat: _Duration = None
    battery_low: _Percent = 20
    battery_critical: _Percent = 10
    signal_weak: Annotated[int, Field(strict=True, ge=-150, le=-50, description="dBm from -150 to -50")] = -107
    tested_days: Annotated[int, Field(strict=True, ge=1, le=3660, description="days from 1 to 3660")] = 30
    sim_balance: Annotated[float, Field(ge=0, le=1000, description="yuan that must be left on the SIM")] = 10.0
    firmware: Annotated[Line | None, Field(description='the oldest good version, for example "2.4.0"')] = None
    track: Annotated[
        str | None,
        AfterValidator(lambda value: _fix_interval(value)),
        Field(description='how often it is to report its place while an emergency is open, for example "10 s"'),
    ] = None
    fix: Annotated[
        str,
        AfterValidator(lambda value: _fix_interval(value)),
        Field(description='how often otherwise, for example "10 min"'),
    ] = "10 min"


class FenceEntry(Part):
    """A circle in which a person is to be, or is not to be; around their home where no place is named."""

    name: Id
    radius_m: Annotated[float, Field(ge=20, le=50_000, description="metres from 20 to 50000")]
    lat: Annotated[float | None, Field(ge=-90, le=90, description="degrees north")] = None
    lon: Annotated[float | None, Field(ge=-180, le=180, description="degrees east")] = None
    datum: Literal["wgs84", "gcj02", "bd09"] = "wgs84"
    must: Annotated[Literal["inside", "outside"], Field(description="where the person is to be")] = "inside"
    between: Annotated[
        str | None,
        AfterValidator(lambda value: None if value is None else hours_of_day(value)),
        Field(description='two times of day at the site, for example "22:00-06:00"'),
    ] = None


class CareEntry(Part):
    """What a household has asked for: fences for a person who may go astray, and how long no sign of life is well."""

    fences: Annotated[tuple[FenceEntry, ...], Field(description="a list of circles")] = ()
    inactivity: Annotated[
        str | None,
        AfterValidator(_duration),
        Field(description='after how long without any sign of life somebody is to look, for example "16 h"'),
    ] = None
    well_by: Annotated[
        str | None,
        AfterValidator(_clock),
        Field(description='the time of day by which there must be a sign of life, for example "10:00"'),
    ] = None


def care_record(care: CareEntry, home: Coordinates | None) -> dict[str, Any]:
    """Return what was asked for as it is stored: places in WGS-84."""
    fences = []
    for fence in care.fences:
        centre = home
        if fence.lat is not None and fence.lon is not None:
            centre = Coordinates(fence.lat, fence.lon, Datum(fence.datum)).to(Datum.WGS84)
        if centre is not None:
            place = {"lat": centre.lat, "lon": centre.lon}
            fences.append(fence.model_dump(mode="json", include={"name", "radius_m", "must", "between"}) | place)
    return {"fences": fences, "inactivity": care.inactivity, "well_by": care.well_by}


def read_care(record: Mapping[str, Any]) -> Care:
    """Return what `care_record` stored."""
    return Care(
        fences=tuple(
            Fence(
                name=one["name"],
                centre=Coordinates(one["lat"], one["lon"], Datum.WGS84),
                radius_m=one["radius_m"],
                must=one["must"],
                between=between_of(one["between"]),
            )
            for one in record["fences"]
        ),
        inactivity=None if record["inactivity"] is None else _span(record["inactivity"]),
        well_by=None if record["well_by"] is None else time.fromisoformat(record["well_by"]),
    )


def profile_of(
    model: str,
    entries: Sequence[SupervisionEntry],
    *,
    silent_after: str | None = None,
    sim_paid_until: date | None = None,
) -> Profile:
    """Return what is expected of a terminal: its own entry goes before that of its model, and that before "*"."""
    named = {name: entry for entry in reversed(entries) for name in entry.models}
    entry = named.get(model) or named.get("*") or SupervisionEntry(models=("*",))
    beat = entry.heartbeat if silent_after is None else None
    return Profile(
        silent_after=_span(silent_after or entry.silent_after or "1 h"),
        heartbeat=None if beat is None else _span(beat),
        battery_low=entry.battery_low,
        battery_critical=min(entry.battery_critical, entry.battery_low),
        signal_weak=entry.signal_weak,
        tested_days=entry.tested_days,
        sim_balance=entry.sim_balance,
        sim_paid_until=sim_paid_until,
        firmware=entry.firmware,
        track_s=None if entry.track is None else round(_span(entry.track).total_seconds()),
        fix_s=round(_span(entry.fix).total_seconds()),
    )


def supervision_findings(entries: Sequence[SupervisionEntry], models: Sequence[str]) -> Iterator[Finding]:
    """Yield what is wrong or doubtful in them. `models` are those that the site has."""
    claimed: dict[str, int] = {}
    for index, entry in enumerate(entries):
        path: Path = ("supervision", index)
        for place, name in enumerate(entry.models):
            if claimed.setdefault(name, index) != index:
                what = f"entry {claimed[name] + 1} already has the model {name}"
                yield Finding((*path, "models", place), what, "each model belongs to one entry")
            if name != "*" and name not in models:
                yield doubt((*path, "models", place), f"no terminal has the model {name}", "a typing error?")
        if entry.battery_critical >= entry.battery_low:
            yield Finding((*path, "battery_critical"), "is not below battery_low", "a battery is low first")
        if entry.heartbeat is not None and _span(entry.heartbeat) * 2 > _span(entry.silent_after or "1 h"):
            what = "is more than half of silent_after"
            yield doubt(
                (*path, "heartbeat"), what, "one lost report and the terminal counts as lost: give it two at least"
            )


PaidUntil = Annotated[
    date | None,
    BeforeValidator(lambda value: None if value is None else full_date(value)),
    Field(description="year-month-day, the last day paid for"),
]
SilentAfter = _Duration

_CENTRE = RoleEntry(role="service_center", stand_in=("community", "hotline"), times=2, again="30 min", within="1 h")
_FAMILY = RoleEntry(role="guardian", stand_in=("relative",), times=2, again="30 min", within="1 h")

SHIPPED_PLANS = (
    PlanEntry(
        id=f"{SHIPPED}lost",
        kinds=("offline", "battery_critical", "out_of_range", "sim_unpaid"),
        roles=(_CENTRE, _FAMILY),
        template={
            "zh": "{lead}{who}家的一键通：{what}。修好之前按键可能打不出去，有急事请直接拨打120或119。{where}",
            "en": "{lead}One-key terminal of {who}: {what}. Until it is repaired a press may not get through: "
            "in need dial 120 or 119 directly. {where}",
        },
    ),
    PlanEntry(
        id=f"{SHIPPED}power",
        kinds=("power_lost",),
        roles=(_CENTRE,),
        delay="10 min",
        jitter="5 min",
    ),
    PlanEntry(id=f"{SHIPPED}tamper", kinds=("tamper",), roles=(_CENTRE,)),
    PlanEntry(
        id=f"{SHIPPED}care",
        kinds=("low_battery", "clock_wrong", "signal_weak", "not_tested", "never_pressed", "firmware_old"),
        roles=(_CENTRE,),
        quiet="21:00-07:00",
    ),
)
"""Who hears of what supervision found where the site says nothing else (R24)."""
