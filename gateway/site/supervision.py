"""What a site file may say about supervision: what is expected of each model, and who hears when it is not met.

The plans that come with the gateway stand here too; a site overrules them by naming a kind in a plan of its own.
"""

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from gateway.domain.plan import SHIPPED
from gateway.domain.procedure import parse_due
from gateway.domain.supervision import Profile
from gateway.site.fields import Finding, Line, Part, Path, doubt, full_date, wrong
from gateway.site.plans import PlanEntry, RoleEntry

__all__ = ["SHIPPED_PLANS", "SupervisionEntry", "profile_of", "supervision_findings"]

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
