"""The auditor reads procedures by itself: held against the rules by which they run, on procedures that nobody wrote."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.audit.bodies import procedure_body
from gateway.audit.steps import RunSeen, StepSeen, amiss
from gateway.domain.procedure import (
    Advance,
    ChangeKind,
    Does,
    Due,
    Procedure,
    Seat,
    Step,
    StepRow,
    advance,
    end_step,
)
from gateway.site.procedure_file import dumped, shipped

START = datetime(2026, 9, 25, 7, 0, tzinfo=UTC)
GRACE = timedelta(seconds=10)
FACTS = ("owned", "safe", "heard", "on_scene", "closed", "pressed_again")
FLAGS = ("test", "duress", "agreed:dial_on_behalf")


@st.composite
def procedures(draw: st.DrawFn) -> Procedure:
    """A procedure whose steps come after facts and earlier steps, by every word that a step may say."""
    steps: list[Step] = []
    signals = [*FACTS, "started", "informed:guardian"]
    for number in range(draw(st.integers(1, 6))):
        wanted = st.lists(st.sampled_from(signals), min_size=1, max_size=2, unique=True).map(" | ".join)
        name = f"s{number}"
        within = draw(st.none() | st.integers(1, 60).map(lambda s: Due(duration=timedelta(seconds=s))))
        does = draw(st.sampled_from([Does.TASK, Does.TELL, Does.COMMAND]))
        steps.append(
            Step(
                id=name,
                does=does,
                title={"zh": name, "en": name},
                seat=Seat.A if does is Does.TASK else None,
                after=tuple(draw(st.lists(wanted, min_size=1, max_size=2))),
                delay=timedelta(seconds=draw(st.sampled_from([0, 5, 20]))),
                given=tuple(
                    draw(st.lists(st.sampled_from(FLAGS) | st.sampled_from(FLAGS).map("not {}".format), max_size=1))
                ),
                unless=tuple(draw(st.lists(wanted, max_size=1))),
                ends_with=draw(st.dictionaries(wanted, st.just("ended"), max_size=1)),
                within=within,
                expires="done" if within is not None and draw(st.booleans()) else None,
                aftercare=draw(st.booleans()),
            )
        )
        signals += [name, f"{name}:done", f"{name}:ended", f"{name}:started", f"{name}:breached"]
    return Procedure(id="p", version=1, title={"zh": "p", "en": "p"}, steps=tuple(steps))


events = st.lists(
    st.tuples(
        st.integers(0, 30).map(lambda s: timedelta(seconds=s)),
        st.sampled_from([*FACTS, "informed:guardian", "task", "nothing"]),
    ),
    max_size=12,
)
flags = st.sets(st.sampled_from(FLAGS)).map(frozenset)


def run(
    procedure: Procedure,
    rows: Mapping[str, StepRow],
    known: Mapping[str, datetime],
    held: frozenset[str],
    now: datetime,
) -> Advance:
    return advance(
        procedure,
        rows,
        signals=known,
        flags=held,
        now=now,
        timezone="Asia/Shanghai",
        is_working_day=lambda _: True,
    )


def seen(rows: Mapping[str, StepRow], known: Mapping[str, datetime]) -> RunSeen:
    steps = {
        name: StepSeen(
            state=row.state.value,
            planned_at=row.planned_at,
            started=row.started_at is not None,
            due_at=row.due_at,
            breached=row.breached_at is not None,
            ended_at=row.ended_at,
            result=row.result,
        )
        for name, row in rows.items()
    }
    return RunSeen(known=known, steps=steps)


@given(procedures(), events, flags, st.none() | st.sampled_from(FACTS), st.integers(0, 60), st.randoms())
def test_the_auditor_and_the_runner_agree_on_what_is_late(
    procedure: Procedure,
    happening: list[tuple[timedelta, str]],
    held: frozenset[str],
    unseen: str | None,
    silence_s: int,
    rng: Any,
) -> None:
    body = procedure_body(dumped(procedure))
    known = {"started": START}
    now = START
    rows: Mapping[str, StepRow] = run(procedure, {}, known, held, now).steps
    for wait, what in happening:
        now += wait
        rows = run(procedure, rows, known, held, now).steps
        if what == "task":
            tasks = [step for step in procedure.steps if step.id in rows and rows[step.id].state == "open"]
            if tasks:
                step = rng.choice(tasks)
                rows = {**rows, step.id: end_step(step, rows[step.id], result="done", now=now).row}
        elif what != "nothing":
            known = {what: now} | known
        rows = run(procedure, rows, known, held, now).steps
        assert list(amiss(body, seen(rows, known), now=now, grace=timedelta(0))) == [], (
            "whoever just looked is not late"
        )
    # Now something happens, and nobody looks for a while.
    if unseen is not None:
        known = {unseen: now} | known
    now += timedelta(seconds=silence_s)
    found = {step for _, step, _ in amiss(body, seen(rows, known), now=now, grace=GRACE)}
    changed = {change.step.id for change in run(procedure, rows, known, held, now).changes}
    assert found <= changed, "what is said to be missing would happen if somebody looked"
    if silence_s <= GRACE.total_seconds():
        return
    would = run(procedure, rows, known, held, now - GRACE - timedelta(microseconds=1)).changes
    certain = (ChangeKind.START, ChangeKind.END, ChangeKind.CANCEL)
    if would and would[0].kind in certain:  # what follows from it, or from a deadline nobody noted, comes after it
        assert would[0].step.id in found, "what should have happened by then is missed"


@given(st.sampled_from(sorted(shipped())), st.data())
def test_a_row_that_is_taken_away_is_missed(name: str, data: st.DataObject) -> None:
    procedure = shipped()[name]
    body = procedure_body(dumped(procedure))
    known = {"started": START, "owned": START + timedelta(seconds=5)}
    now = START + timedelta(minutes=20)
    rows = dict(run(procedure, {}, known, frozenset(), now).steps)
    gone = data.draw(st.sampled_from(sorted(rows)))
    del rows[gone]
    assert ("step_missing", gone) in [
        (kind, step) for kind, step, _ in amiss(body, seen(rows, known), now=now, grace=GRACE)
    ]
