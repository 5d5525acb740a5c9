"""Presses, keys, answers, operators, broken channels, restarts, drills and clocks in any order, on real tables.

Nothing here says what the gateway should do next; what must be true of any life of a case is asked of the tables and of
every message at the moment at which it leaves (I1 to I7). The deadlines of ladders and procedures are worked out once
more, in other words than the gateway's.
"""

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, TypeVar
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from gateway.domain import journal
from gateway.domain import procedure as procedure_rules
from gateway.domain.case import Fact, NotFound, StateConflict
from gateway.domain.outbox import DueNotice, GiveUp, Outcome, Sent, TryAgain
from gateway.domain.procedure import ChangeKind, Procedure
from gateway.keyring import Keyring
from gateway.service import case_work, run_procedures, settling
from gateway.service.case_commands import mark_safe
from gateway.service.desk import hand_over
from gateway.service.drills import drive_drills, end_drill, plan_drill, start_drill
from gateway.service.due import lease_due
from gateway.site.procedure_file import shipped
from gateway.store import outbox, queries
from gateway.store.directory import Directory
from gateway.store.pool import connect
from tests.integration.desk import WORKDAYS, Desk, desk_in

T = TypeVar("T")

BOX, OTHER = "860000000000101", "860000000000103"
KINDS = ("sos", "sos", "sos", "fall", "smoke", "duress", "power_lost", "service")
ROLES = ("relative", "emergency_contact", "neighbour", "hotline", "ambulance_120", "neighbourhood_committee")
RESCUE = ("ambulance_120", "fire_119", "police_110")
OVER = ("closed", "withdrawn")
STEPS = int(os.environ.get("ONEKEY_MACHINE_STEPS", "50"))
EXAMPLES = int(os.environ.get("ONEKEY_MACHINE_EXAMPLES", "280" if os.environ.get("CI") else "40"))
"""In CI more than 10,000 steps; a developer waits a minute."""


class Plant:
    """The city with a loop of its own, and a session that a restart takes away."""

    def __init__(self, database: str) -> None:
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.database = database
        self.admin = psycopg.connect(database, autocommit=True)
        self.admin.execute(f"ALTER DATABASE {self.admin.info.dbname} SET synchronous_commit = off".encode())
        keyring = Keyring(bytes(range(32)))
        self.directory = Directory(keyring)

        def change(site: dict[str, Any]) -> None:
            site["timezone"] = "Europe/Berlin"  # its clocks change while the test runs

        opening = desk_in(database, self.directory, keyring, "beijing", agreed=True, change=change)
        self.desk: Desk = self.run(self.stack.enter_async_context(opening))
        self.session: Any = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def restart(self) -> None:
        """Kill the gateway: what it was sending is anybody's, what it knew is gone."""

        async def anew() -> None:
            if self.session is not None:
                await self.session.close()
            self.session = await connect(self.database, name="machine")
            self.desk.worker = await outbox.register(self.session, "machine")

        self.run(anew())
        self.desk.runner = self.desk.restarted()

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        return self.admin.execute(query.encode(), values).fetchall()

    def forget(self) -> None:
        self.admin.execute(
            "TRUNCATE cases, alarm, leg, notice, attempt, answer, journal, event, quarantine, run, step, fact, "
            "command, progress, drill, test_window, terminal_state, worker CASCADE"
        )
        self.admin.execute("UPDATE event_head SET position = 0")

    def close(self) -> None:
        async def end() -> None:
            if self.session is not None:
                await self.session.close()
            await self.stack.aclose()

        self.run(end())
        self.admin.close()
        self.runner.close()


@pytest.fixture
def plant(database: str) -> Iterator[Plant]:
    opened = Plant(database)
    yield opened
    opened.close()


class Rescue(RuleBasedStateMachine):
    """Everything that can happen to the cases of two homes."""

    plant: ClassVar[Plant]
    steps: ClassVar[int] = 0

    @initialize(hours=st.integers(0, 30))
    def begin(self, hours: int) -> None:
        self.plant.forget()
        self.desk._clock[0] = datetime(2026, 10, 24, 10, tzinfo=UTC) + timedelta(hours=hours)
        self.desk.started = self.desk.now
        self.desk.link.sent.clear()
        self.desk.channel = self._channel
        self.dead: set[str] = set()
        self.latest = self.desk.now
        self.presses: list[tuple[str, tuple[str, ...], int]] = []
        self.progress: dict[str, int] = {}
        self.plant.restart()

    @property
    def desk(self) -> Desk:
        return self.plant.desk

    def _channel(self, notice: DueNotice) -> Outcome:
        """Every message passes here as it leaves; what must not leave is caught in the act."""
        ((state, leg, test, taking_part),) = self.plant.rows(
            "SELECT c.state, l.state, c.test, c.taking_part FROM leg l JOIN cases c ON c.id = l.case_id "
            "WHERE l.id = %s",
            notice.leg_id,
        )
        if state == "closed":
            assert notice.reason == "closed", f"{notice.reason} for a case that is over (I4)"
        if leg == "withdrawn":
            assert notice.reason in OVER, f"{notice.reason} to whom it was taken back (I4)"
        if test and notice.role in RESCUE:
            assert taking_part is not None and notice.party.id in taking_part, "a test wakes nobody"  # noqa: PT018
        assert (taking_part is None) == (notice.case.drill is None), "a drill is visible in every message"
        if notice.role in self.dead:
            return GiveUp("dead") if notice.role == "neighbour" else TryAgain("no answer")
        return Sent(200)

    def _act(self) -> None:
        self.plant.run(self.desk.act())
        self.latest = max(self.latest, self.desk.now)

    def _open_cases(self) -> list[UUID]:
        return [
            row[0] for row in self.plant.rows("SELECT id FROM cases WHERE state <> 'closed' ORDER BY opened_at, id")
        ]

    # What terminals do

    @rule(
        terminal=st.sampled_from([BOX, OTHER]),
        kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=2, unique=True),
    )
    def press(self, terminal: str, kinds: list[str]) -> None:
        number = len(self.presses) + 1
        case = self.plant.run(self.desk.press(terminal, *kinds, seq=number))
        self.presses.append((terminal, tuple(kinds), number))
        self._act()
        [(state, known)] = self.plant.rows("SELECT state, kinds FROM cases WHERE id = %s", case)
        assert state == "open", "a new press belongs to a case that is not over (D10)"
        assert set(kinds) <= set(known), "no kind hides another (I2)"

    @precondition(lambda self: self.presses)
    @rule(data=st.data())
    def send_a_press_again(self, data: st.DataObject) -> None:
        terminal, kinds, number = data.draw(st.sampled_from(self.presses))
        case = self.plant.run(self.desk.press(terminal, *kinds, seq=number))
        self._act()
        assert self.plant.rows("SELECT state FROM cases WHERE id = %s", case) == [("open",)]

    @rule(terminal=st.sampled_from([BOX, OTHER]), word=st.sampled_from(["cancel", "key.ok", "power_restored"]))
    def press_another_key(self, terminal: str, word: str) -> None:
        before = self.plant.rows("SELECT id FROM cases WHERE state <> 'closed' AND 'duress' = ANY(kinds)")
        self.plant.run(self.desk.say(terminal, word))
        self._act()
        after = self.plant.rows("SELECT id FROM cases WHERE state <> 'closed' AND 'duress' = ANY(kinds)")
        assert set(before) <= set(after), "under duress a key ends nothing"

    # What parties do

    @precondition(lambda self: self._open_cases())
    @rule(
        data=st.data(), role=st.sampled_from(ROLES), answer=st.sampled_from(["accepted", "coming", "arrived", "cannot"])
    )
    def answer(self, data: st.DataObject, role: str, answer: str) -> None:
        case = data.draw(st.sampled_from(self._open_cases()))
        if self.plant.rows("SELECT 1 FROM leg WHERE case_id = %s AND role = %s AND party_id IS NOT NULL", case, role):
            self.plant.run(self.desk.answer(case, role, answer))
            self._act()

    @rule(role=st.sampled_from(ROLES))
    def a_channel_breaks(self, role: str) -> None:
        self.dead.add(role)

    @rule()
    def every_channel_works_again(self) -> None:
        self.dead.clear()

    # What operators do

    @precondition(lambda self: self._open_cases())
    @rule(data=st.data(), operator=st.sampled_from(["seat-1", "seat-2"]))
    def own(self, data: st.DataObject, operator: str) -> None:
        self._try(self.desk.own(data.draw(st.sampled_from(self._open_cases())), operator))

    @precondition(lambda self: self._open_cases())
    @rule(data=st.data(), by=st.sampled_from(["seat-1", "seat-2"]))
    def give_it_away(self, data: st.DataObject, by: str) -> None:
        case = data.draw(st.sampled_from(self._open_cases()))
        ((first,),) = self.plant.rows("SELECT first_owner FROM cases WHERE id = %s", case)
        give = hand_over(
            self.desk.pool,
            self.desk.directory,
            case,
            by=by,
            to="seat-3",
            reason="x",
            is_working_day=WORKDAYS.is_working_day,
        )
        self._try(give)
        assert self.plant.rows("SELECT first_owner FROM cases WHERE id = %s", case) == [(first,)], (
            "first is first (R17)"
        )

    @precondition(lambda self: self._open_cases())
    @rule(
        data=st.data(),
        fact=st.sampled_from([Fact.HEARD, Fact.INFORMED, Fact.DISPATCHED, Fact.ON_SCENE]),
        role=st.sampled_from(ROLES),
    )
    def say_what_is_known(self, data: st.DataObject, fact: Fact, role: str) -> None:
        case = data.draw(st.sampled_from(self._open_cases()))
        self._try(self.desk.fact(case, fact, about=None if fact is Fact.HEARD else role))

    @precondition(lambda self: self.plant.rows("SELECT 1 FROM step WHERE state = 'open' AND does = 'task' LIMIT 1"))
    @rule(data=st.data())
    def do_a_task(self, data: st.DataObject) -> None:
        found = self.plant.rows(
            "SELECT s.case_id, s.name, r.procedure FROM step s JOIN run r ON r.id = s.run_id "
            "WHERE s.state = 'open' AND s.does = 'task' ORDER BY s.planned_at, s.name"
        )
        case, name, procedure = data.draw(st.sampled_from(found))
        step = next(one for one in shipped()[procedure].steps if one.id == name)
        self._try(self.desk.done(case, name, data.draw(st.sampled_from(step.results))))

    @precondition(lambda self: self._open_cases())
    @rule(data=st.data())
    def the_person_is_safe(self, data: st.DataObject) -> None:
        case = data.draw(st.sampled_from(self._open_cases()))
        self._try(mark_safe(self.desk.pool, self.desk.directory, case, by="seat-1"))

    @precondition(lambda self: self._open_cases())
    @rule(data=st.data(), outcome=st.sampled_from(["helped", "hospital", "false_alarm"]))
    def close(self, data: st.DataObject, outcome: str) -> None:
        case = data.draw(st.sampled_from(self._open_cases()))
        self._try(self.desk.close(case, outcome, "why"))
        assert self.plant.rows("SELECT state FROM cases WHERE id = %s", case) == [("closed",)]

    def _try(self, work: Coroutine[Any, Any, Any]) -> None:
        with suppress(StateConflict, NotFound):
            self.plant.run(work)
        self._act()

    # What drills do

    @rule(terminal=st.sampled_from([BOX, OTHER]))
    def drill(self, terminal: str) -> None:
        async def go() -> None:
            row = await plan_drill(
                self.desk.pool,
                title="drill",
                terminals=[terminal],
                participants=["platform-yijiantong"],
                scenario=[{"after_s": 0, "terminal": terminal, "kinds": ["sos"]}],
                lasts=timedelta(minutes=10),
                with_rescue=False,
                by="chief",
            )
            await start_drill(self.desk.pool, row.id, by="chief")
            await drive_drills(self.desk.pool, self.desk.directory, worker=None)

        self._try(go())

    @precondition(lambda self: self.plant.rows("SELECT 1 FROM drill WHERE state = 'running'"))
    @rule()
    def end_the_drill(self) -> None:
        real = self.plant.rows("SELECT count(*) FROM cases WHERE state = 'closed' AND NOT test")
        ((drill,), *_) = self.plant.rows("SELECT id FROM drill WHERE state = 'running'")
        self.plant.run(end_drill(self.desk.pool, self.desk.directory, drill, by="chief"))
        self._act()
        assert self.plant.rows("SELECT count(*) FROM cases WHERE state = 'closed' AND NOT test") == real

    # What time and machines do

    @rule(seconds=st.sampled_from([1, 9, 11, 30, 61, 181, 400, 3600, 90_000]), looks=st.booleans())
    def time_passes(self, seconds: int, looks: bool) -> None:
        if looks and seconds < 1000:
            until = self.desk.now + timedelta(seconds=seconds)
            self.plant.run(self.desk.at((until - self.desk.started).total_seconds()))
        else:
            self.desk.turn(seconds=seconds)  # nobody looked all that time
        self.plant.run(drive_drills(self.desk.pool, self.desk.directory, worker=None))
        self._act()

    @rule(seconds=st.sampled_from([1, 60, 3600]))
    def the_clock_goes_back(self, seconds: int) -> None:
        self.desk.turn(seconds=-seconds)
        self._act()

    @rule(sending=st.booleans())
    def the_gateway_is_killed(self, sending: bool) -> None:
        if sending:  # with messages in its hands, of which nobody will ever know whether they left
            self.plant.run(
                lease_due(self.desk.pool, self.desk.directory, worker=self.desk.worker, holding=(), limit=500)
            )
        self.plant.restart()
        self._act()

    # What must be true

    @invariant()
    def everything_holds(self) -> None:
        type(self).steps += 1
        self.no_case_is_without_obligations()
        self.every_number_has_its_press()
        self.one_emergency_is_open_in_a_home()
        self.nothing_of_a_closed_case_is_still_on_its_way()
        self.a_leg_is_answered_only_by_its_own_role()
        self.nobody_unanswered_is_left_uncalled()
        self.no_message_has_two_ids()
        self.every_step_that_could_begin_has_begun()
        self.what_the_person_hears_goes_forward()

    def no_case_is_without_obligations(self) -> None:
        assert self.plant.rows("SELECT id FROM cases c WHERE NOT EXISTS (SELECT FROM leg WHERE case_id = c.id)") == []
        assert (
            self.plant.rows("SELECT a.id FROM alarm a LEFT JOIN cases c ON c.id = a.case_id WHERE c.id IS NULL") == []
        )

    def every_number_has_its_press(self) -> None:
        known = {(terminal, number) for terminal, _, number in self.presses}
        stored = self.plant.rows("SELECT DISTINCT terminal_id, seq FROM alarm WHERE transport = 'mqtt'")
        assert set(stored) == known

    def one_emergency_is_open_in_a_home(self) -> None:
        assert (
            self.plant.rows(
                "SELECT subject FROM cases WHERE state = 'open' GROUP BY subject, class HAVING count(*) > 1"
            )
            == []
        )

    def nothing_of_a_closed_case_is_still_on_its_way(self) -> None:
        assert (
            self.plant.rows(
                "SELECT n.id, n.reason FROM notice n JOIN cases c ON c.id = n.case_id "
                "WHERE c.state = 'closed' AND n.state = 'due' AND n.reason <> 'closed'"
            )
            == []
        )
        assert (
            self.plant.rows(
                "SELECT l.id FROM leg l JOIN cases c ON c.id = l.case_id "
                "WHERE c.state = 'closed' AND l.state IN ('pending', 'delivered')"
            )
            == []
        )
        assert (
            self.plant.rows(
                "SELECT id FROM cases WHERE state = 'closed' "
                "AND (outcome IS NULL OR safe_by IS NULL OR closed_by IS NULL)"
            )
            == []
        )

    def a_leg_is_answered_only_by_its_own_role(self) -> None:
        assert (
            self.plant.rows(
                """
            SELECT l.role, l.party_id FROM leg l JOIN cases c ON c.id = l.case_id
            WHERE l.state = 'answered'
              AND NOT EXISTS (SELECT FROM answer a WHERE a.leg_id = l.id AND a.answer <> 'cannot')
              AND NOT EXISTS (SELECT FROM fact f WHERE f.case_id = l.case_id AND f.role = l.role)
              AND NOT (l.role = 'hotline' AND c.owner IS NOT NULL)
            """
            )
            == []
        )

    def nobody_unanswered_is_left_uncalled(self) -> None:
        """Work out once more how many calls each open leg has had by now."""
        found = self.plant.rows(
            """
            SELECT l.id, l.role, l.calls, l.armed_at, l.overdue_at, l.ladder FROM leg l JOIN cases c ON c.id = l.case_id
            WHERE c.state = 'open' AND l.state IN ('pending', 'delivered') AND l.ladder IS NOT NULL
            """
        )
        for _, role, calls, armed_at, overdue_at, ladder in found:
            waited_s = (self.latest - armed_at).total_seconds()
            if waited_s < 0:
                continue  # it is told only after a while
            wanted = min(ladder["times"], 1 + int(waited_s // ladder["again_s"])) if ladder["again_s"] else 1
            assert calls == max(1, wanted) or self.desk.now < self.latest, f"{role}: {calls} calls, {wanted} wanted"
            late = ladder["within_s"] and waited_s >= ladder["within_s"]
            assert bool(overdue_at) == bool(late) or self.desk.now < self.latest, f"{role}: deadline"

    def no_message_has_two_ids(self) -> None:
        assert self.plant.rows("SELECT leg_id FROM notice GROUP BY leg_id, number HAVING count(DISTINCT id) > 1") == []

    def every_step_that_could_begin_has_begun(self) -> None:
        if self.desk.now < self.latest:
            return
        for run, case, name, started, closed_at, owned_at, safe_at in self.plant.rows(
            "SELECT r.id, r.case_id, r.procedure, r.started_at, c.closed_at, c.owned_at, c.safe_at "
            "FROM run r JOIN cases c ON c.id = r.case_id"
        ):
            signals = {"started": started}
            signals |= {
                k: v for k, v in (("closed", closed_at), ("owned", owned_at), ("safe", safe_at)) if v is not None
            }
            for fact, role, at in self.plant.rows(
                "SELECT fact, role, at FROM fact WHERE case_id = %s ORDER BY at", case
            ):
                signals.setdefault(fact, at)
                signals[f"{fact}:{role}"] = at
            steps = {}
            for step, was, planned, began, due, breached, ended, result in self.plant.rows(
                "SELECT name, state, planned_at, started_at, due_at, breached_at, ended_at, result FROM step "
                "WHERE run_id = %s",
                run,
            ):
                steps[step] = (was, planned, breached)
                if began is not None:
                    signals[f"{step}:started"] = planned
                if breached is not None:
                    signals[f"{step}:breached"] = due
                if was == "done":
                    signals[step] = signals[f"{step}:{result}"] = ended
                assert breached is not None or due is None or was != "open" or due > self.latest, (
                    f"{step} is late unseen"
                )
            self._begun(shipped()[name], steps, signals, case)
            if "contacts" in steps and steps["contacts"][0] != "skipped":
                heard = "heard" in signals or "assess:help_needed" in signals
                twice = {"call-back-1:no_answer", "call-back-2:no_answer"} <= set(signals)
                assert heard or twice, "nobody goes on before two call-backs (R15)"

    def _begun(self, procedure: Procedure, steps: dict[str, Any], signals: dict[str, datetime], case: UUID) -> None:
        for step in procedure.steps:
            if "pressed_again" in "".join(step.after):
                continue
            since = []
            for wanted in step.after:
                times = [signals[one.strip()] for one in wanted.split("|") if one.strip() in signals]
                since.append(min(times) if times else None)
            if any(at is None for at in since):
                assert steps.get(step.id, ("skipped",))[0] == "skipped", f"{step.id} began without reason"
                continue
            planned = max(at for at in since if at is not None) + step.delay
            if planned <= self.latest:
                assert step.id in steps, f"{step.id} of {case} was left out"
            if step.id in steps and steps[step.id][0] != "skipped":
                began = steps[step.id][1]
                assert began <= planned + timedelta(seconds=1) or step.after == ("closed",), (
                    f"{step.id} is planned late"
                )

    def what_the_person_hears_goes_forward(self) -> None:
        order = ("told", "coming", "arrived", "closed")
        for (states,) in self.plant.rows("SELECT array_agg(state ORDER BY id) FROM progress GROUP BY case_id"):
            places = [order.index(state) for state in states]
            assert places == sorted(places)

    def teardown(self) -> None:
        for case, head, count in self.plant.rows("SELECT id, journal_head, journal_n FROM cases"):
            chain = self.plant.rows(
                "SELECT case_id, n, at, kind, actor, sealed, prev, hash FROM journal WHERE case_id = %s ORDER BY n",
                case,
            )
            entries = [
                journal.Entry(case_id=c, n=n, at=at, kind=k, actor=a, sealed=bytes(s), prev=bytes(p), hash=bytes(h))
                for c, n, at, k, a, s, p, h in chain
            ]
            assert journal.verify(entries, head=bytes(head), count=count) is None


def _settings(examples: int, steps: int = STEPS) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )


@pytest.mark.timeout(1200)
def test_whatever_happens_the_invariants_hold(plant: Plant) -> None:
    machine = type("Whole", (Rescue,), {"plant": plant})
    run_state_machine_as_test(machine, settings=_settings(EXAMPLES))
    print(f"{machine.steps} steps")  # noqa: T201 # shown with -s
    assert machine.steps >= EXAMPLES * STEPS * 0.72, "a life ends before its last step now and then, not much more"


# Mutants: each of these must be seen


async def _settles_everybody(conn: Any, case: Any, role: str, *, fact: Fact, by: str, journal: Any, now: Any) -> None:
    for (other,) in await (
        await conn.execute("SELECT DISTINCT role FROM leg WHERE case_id = %s", (case.id,))
    ).fetchall():
        await _settle_role(conn, case, other, fact=Fact.ON_SCENE, by=by, journal=journal, now=now)


_settle_role = settling.settle_role
_begin_step = procedure_rules._begin


def _skips_what_was_slept_through(step: Any, known: Any, flags: Any, now: datetime, *rest: Any) -> Any:
    change, later = _begin_step(step, known, flags, now, *rest)
    if change is not None and change.kind is ChangeKind.START and now - change.at > timedelta(seconds=20):
        return None, None
    return change, later


def _without_the_second_call_back(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = shipped()["beijing-emergency"]
    steps = tuple(
        replace(step, after=tuple(one.replace("call-back-2", "call-back-1") for one in step.after))
        for step in whole.steps
        if step.id != "call-back-2"
    )
    mutant = replace(whole, steps=steps)

    class Bodies(run_procedures._Bodies):
        async def get(self, conn: Any, procedure: str, version: int) -> Procedure:
            return mutant if procedure == whole.id else await super().get(conn, procedure, version)

    monkeypatch.setattr(run_procedures, "_bodies", Bodies())


async def _nothing(*_: Any, **__: Any) -> None:
    return None


MUTANTS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "the acknowledgement of one role ends the calls to another": lambda patch: patch.setattr(
        case_work, "settle_role", _settles_everybody
    ),
    "a press after the closure goes into the old case": lambda patch: patch.setattr(
        "gateway.service.raise_alarm.is_repeat", lambda *_, **__: True
    ),
    "what was cancelled is sent once more": lambda patch: patch.setattr(outbox, "cancel_of_case", _nothing),
    "a step is skipped when the clock jumps": lambda patch: patch.setattr(
        procedure_rules, "_begin", _skips_what_was_slept_through
    ),
    "the second call-back is left out": _without_the_second_call_back,
    "a leg is not withdrawn at the closure": lambda patch: patch.setattr(queries, "withdraw_legs", _no_legs),
}


async def _no_legs(*_: Any) -> list[UUID]:
    return []


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mutant_dies(plant: Plant, monkeypatch: pytest.MonkeyPatch, mutant: str) -> None:
    MUTANTS[mutant](monkeypatch)
    machine = type("Mutant", (Rescue,), {"plant": plant})
    with pytest.raises((AssertionError, psycopg.Error, BaseExceptionGroup)):
        run_state_machine_as_test(machine, settings=_settings(300))
