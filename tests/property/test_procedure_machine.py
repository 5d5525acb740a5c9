"""The engine of procedures alone: signals, results, looks and clocks in any order, thousands of times.

Whatever happens, and however seldom somebody looks: no step is lost, none begins before its time or after the closure,
every deadline is planned from what led to it, and the same moment looked at twice changes nothing.
"""

from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from gateway.domain.procedure import Advance, Does, Procedure, Step, StepRow, StepState, advance, end_step, signals_of
from gateway.domain.simulation import Act, simulate
from gateway.service.workdays import Workdays
from gateway.site.procedure_file import dumped, procedure_from, shipped

START = datetime(2026, 9, 25, 7, 0, tzinfo=UTC)
WORKDAYS = Workdays()
FACTS = (
    *("owned", "heard", "heard:person", "safe", "on_scene", "on_scene:police_110", "pressed_again", "informed"),
    *("informed:relative", "informed:guardian", "dispatched", "dispatched:ambulance_120", "dispatched:police_110"),
)
FLAGS = ("test", "duress", "agreed:dial_on_behalf", "kind:sos")


class Engine(RuleBasedStateMachine):
    """One run of one procedure."""

    total: ClassVar[int] = 0

    @initialize(
        procedure=st.sampled_from(sorted(shipped())),
        flags=st.sets(st.sampled_from(FLAGS)).map(frozenset),
        zone=st.sampled_from(["Asia/Shanghai", "Europe/Berlin"]),
    )
    def begin(self, procedure: str, flags: frozenset[str], zone: str) -> None:
        self.procedure: Procedure = shipped()[procedure]
        self.flags, self.zone = flags, zone
        self.now = self.latest = START
        self.signals = {"started": START}
        self.rows: dict[str, StepRow] = {}
        self.seen_closed = False
        self.look()

    def _advance(self, now: datetime) -> Advance:
        return advance(
            self.procedure,
            self.rows,
            signals=self.signals,
            flags=self.flags,
            now=now,
            timezone=self.zone,
            is_working_day=WORKDAYS.is_working_day,
        )

    @rule()
    def look(self) -> None:
        result = self._advance(self.now)
        for name, row in self.rows.items():
            after = result.steps[name]
            assert row.state is StepState.OPEN or after == row, "what has ended stays as it is"
            assert (after.planned_at, after.due_at) == (row.planned_at, row.due_at), "no deadline is moved"
        self.rows = dict(result.steps)
        again = self._advance(self.now)
        assert again.changes == ()
        assert again.wake_at == result.wake_at
        assert result.wake_at is None or result.wake_at > self.now
        self.seen_closed = "closed" in self.signals and self.signals["closed"] <= self.now

    @rule(seconds=st.sampled_from([1, 9, 10, 30, 60, 61, 180, 3600, 86_400, 259_200]))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)
        self.latest = max(self.latest, self.now)

    @rule(seconds=st.sampled_from([1, 60, 3600]))
    def the_clock_goes_back(self, seconds: int) -> None:
        self.now -= timedelta(seconds=seconds)

    @rule(fact=st.sampled_from(FACTS))
    def something_is_known(self, fact: str) -> None:
        self.signals.setdefault(fact, self.now)

    @precondition(lambda self: any(one.state is StepState.OPEN for one in self.rows.values()))
    @rule(data=st.data())
    def a_task_is_done(self, data: st.DataObject) -> None:
        steps = [step for step in self.procedure.steps if self._open(step) and step.does is Does.TASK]
        if steps:
            step = data.draw(st.sampled_from(steps))
            result = data.draw(st.sampled_from(step.results))
            self.rows[step.id] = end_step(step, self.rows[step.id], result=result, now=self.now).row

    def _open(self, step: Step) -> bool:
        return step.id in self.rows and self.rows[step.id].state is StepState.OPEN

    @precondition(lambda self: "closed" not in self.signals)
    @rule()
    def the_case_is_closed(self) -> None:
        self.signals.setdefault("safe", self.now)
        self.signals["closed"] = self.now

    @invariant()
    def everything_holds(self) -> None:
        type(self).total += 1
        known = self.signals | signals_of(self.rows)
        for step in self.procedure.steps:
            row = self.rows.get(step.id)
            if row is None:
                continue
            if row.started_at is not None:
                reasons = [
                    min(known[name.strip()] for name in wanted.split("|") if name.strip() in known)
                    for wanted in step.after
                ]
                assert row.planned_at == max(reasons) + step.delay, "planned from what led to it"
                assert all(name.removeprefix("not ") in self.flags or name.startswith("not ") for name in step.given)
            if row.breached_at is not None:
                assert row.due_at is not None
                assert row.due_at <= row.breached_at
            if row.state is StepState.OPEN and self.seen_closed:
                assert step.aftercare, "only aftercare outlives the closure"
        if "contacts" in self.rows and self.rows["contacts"].started_at is not None and "assess" not in self.rows:
            ends = [self.rows[name].result for name in ("call-back-1", "call-back-2")]
            assert ends == ["no_answer", "no_answer"], "two call-backs, then the others (R15)"
        if "withdraw-110" in self.rows and self.rows["withdraw-110"].started_at is not None:
            assert "heard" in self.signals, "taken back only when the person is heard (I7)"

    def teardown(self) -> None:
        if not hasattr(self, "procedure"):
            return
        # Long afterwards nothing is pending that time alone would bring.
        self.now = self.latest + timedelta(days=60)
        self.look()
        assert self._advance(self.now).wake_at is None


def test_however_it_goes_the_engine_loses_nothing() -> None:
    options = settings(max_examples=400, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck))
    Engine.total = 0
    run_state_machine_as_test(Engine, settings=options)
    assert Engine.total >= 10_000


def test_a_procedure_is_stored_as_it_was_read() -> None:
    for procedure in shipped().values():
        assert procedure_from(dumped(procedure)) == procedure


def _ends(**changes: Any) -> dict[str, tuple[StepState, str | None]]:
    happened = simulate(
        shipped()["beijing-emergency"],
        [Act(at=START + timedelta(seconds=at), **act) for at, act in changes.pop("acts", [])],
        start=START,
        until=START + timedelta(days=7),
        is_working_day=WORKDAYS.is_working_day,
        **changes,
    )
    rows = {change.step.id: change.row for change in happened}
    return {name: (row.state, row.result) for name, row in rows.items()}


def test_simulated_nobody_answers_and_110_is_asked() -> None:
    ends = _ends()
    assert ends["ask-110"] == (StepState.DONE, "done")
    assert ends["keep-calling"] == (StepState.OPEN, None)
    assert "withdraw-110" not in ends


def test_simulated_the_person_is_heard_and_110_is_taken_back() -> None:
    ends = _ends(acts=[(600, {"signal": "heard"})])
    assert ends["withdraw-110"] == (StepState.DONE, "done")
    assert ends["keep-calling"] == (StepState.DONE, "heard")


def test_simulated_people_do_their_tasks() -> None:
    ends = _ends(
        acts=[
            (8, {"signal": "owned"}),
            (20, {"step": "call-back-1", "result": "answered"}),
            (900, {"signal": "closed"}),
        ],
    )
    assert ends["take"] == (StepState.DONE, "taken")
    assert ends["assess"] == (StepState.CANCELLED, None)
    assert ends["follow-up"] == (StepState.OPEN, None)
