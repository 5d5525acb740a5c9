"""Rules of supervision without tables: forecasts, profiles, deafness, and that looking more often changes nothing."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.supervision import (
    Cause,
    Deafness,
    Look,
    Observed,
    Presence,
    Profile,
    Said,
    battery_days,
    look,
)

START = datetime(2026, 11, 24, tzinfo=UTC)
BOX = Profile(silent_after=timedelta(minutes=5))


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def judged(
    seen: Observed, *, at: float, before: Presence = Presence.ONLINE, profile: Profile = BOX, **more: Any
) -> Look:
    known: dict[str, Any] = {"memory": {}, "has": set(), "daily_at": after(86_400)} | more
    return look(profile, seen, before=before, now=after(at), **known)


def test_a_battery_that_falls_is_forecast_and_a_charge_begins_anew() -> None:
    first = date(2026, 11, 1)
    falling = [(first + timedelta(days=n), 90.0 - 5 * n) for n in range(6)]
    assert battery_days(falling, to=0) == pytest.approx(13)
    charged = [*falling, *((first + timedelta(days=6 + n), 100.0 - 2 * n) for n in range(4))]
    assert battery_days(charged, to=0) == pytest.approx(47)
    assert battery_days([(first + timedelta(days=n), 80.0) for n in range(6)], to=0) is None
    assert battery_days(falling[:2], to=0) is None


@pytest.mark.parametrize(
    ("kept", "total", "found_after"),
    [(True, False, 300), (False, False, 1000 + 220), (True, True, 1000 + 220)],
)
def test_after_a_deafness_only_whom_a_broker_had_kept_nothing_from_is_lost_at_once(
    kept: bool, total: bool, found_after: float
) -> None:
    seen = Observed(since=START, heard_at=START, kept=kept)
    deaf = Deafness(after(10), after(1000), total)
    assert judged(seen, at=found_after - 1, deafness=deaf).state is not Presence.OFFLINE or found_after <= 1000
    assert judged(seen, at=max(found_after, 1000), deafness=deaf).state is Presence.OFFLINE


def test_a_profile_survives_the_tables() -> None:
    profile = Profile(
        silent_after=timedelta(hours=2), heartbeat=timedelta(minutes=7), sim_paid_until=date(2027, 1, 1), track_s=9
    )
    assert Profile.of_record(profile.silent_after, profile.record()) == profile


def test_a_weak_signal_counts_when_it_stays() -> None:
    seen = Observed(since=START, heard_at=after(0), signal_dbm=-115)
    first = judged(seen, at=0)
    assert (first.opened, first.look_at) == ((), after(220))
    assert not first.calm
    still = Observed(since=START, heard_at=after(300), signal_dbm=-115)
    assert [one.cause for one in judged(still, at=300, memory=first.memory).opened] == [Cause.SIGNAL_WEAK]
    better = Observed(since=START, heard_at=after(200), signal_dbm=-80)
    assert judged(better, at=200, memory=first.memory).memory == {}


def test_a_sim_that_is_nearly_used_up_or_paid_for() -> None:
    for name, value in (("sim_balance", 2.5), ("sim_paid_until", "2026-11-28")):
        seen = Observed(since=START, heard_at=START, said={name: Said(value, START)})
        assert [one.cause for one in judged(seen, at=1).opened] == [Cause.SIM_UNPAID]
    for value in ("soon", True, None):
        seen = Observed(since=START, heard_at=START, said={"sim_balance": Said(value, START)})
        assert judged(seen, at=1).opened == ()


def test_once_a_day_presses_and_firmware_are_looked_at() -> None:
    old = Profile(silent_after=timedelta(minutes=5), firmware="2.10.0")
    seen = Observed(since=START - timedelta(days=40), heard_at=START, firmware="v2.9.9", daily=True)
    found = judged(seen, at=1, profile=old, daily_at=START)
    assert {one.cause for one in found.opened} == {Cause.FIRMWARE_OLD, Cause.NEVER_PRESSED}
    assert found.daily_at == after(1) + timedelta(days=1)
    pressed = Observed(since=seen.since, heard_at=START, last_press=START - timedelta(days=31), daily=True)
    assert [one.cause for one in judged(pressed, at=1, daily_at=START).opened] == [Cause.NOT_TESTED]
    # Between two daily looks it stays as it was.
    assert judged(Observed(since=seen.since, heard_at=START), at=1, has={Cause.NOT_TESTED}).cleared == ()


@given(
    heard=st.lists(st.integers(0, 3000), min_size=1, max_size=12),
    looks=st.lists(st.integers(0, 4000), max_size=40),
    battery=st.one_of(st.none(), st.integers(0, 100)),
)
def test_how_often_is_looked_changes_nothing(heard: list[int], looks: list[int], battery: int | None) -> None:
    """Whoever looks at every beat and whenever a look asks for it sees the same as whoever looks more often."""

    def play(times: set[int]) -> tuple[Presence, set[Cause]]:
        state, memory, has, daily = Presence.NEVER_SEEN, dict[str, Any](), set[Cause](), after(86_400)
        due = sorted(times | set(heard))
        at = 0
        while due:
            at = due.pop(0)
            last = max((one for one in heard if one <= at), default=None)
            seen = Observed(
                since=START,
                heard_at=None if last is None else after(last),
                battery_pct=None if last is None else battery,
            )
            found = look(BOX, seen, before=state, memory=memory, has=has, daily_at=daily, now=after(at))
            state, memory = found.state, found.memory
            has = (has | {one.cause for one in found.opened}) - set(found.cleared)
            next_s = (found.look_at - START).total_seconds()
            if next_s <= 4000 and int(next_s) + (next_s % 1 > 0) not in due:
                due = sorted({*due, int(next_s) + (next_s % 1 > 0)} - {at})
        return state, has

    assert play(set(looks) | {4000}) == play({4000})
