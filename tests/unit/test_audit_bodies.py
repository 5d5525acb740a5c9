"""What the auditor reads of plans and procedures, and the words in which it speaks."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.audit.bodies import plan_body, procedure_body, seconds
from gateway.audit.checks import CHECKS
from gateway.audit.steps import RunSeen, StepSeen, amiss
from gateway.audit.words import KINDS, words_of
from gateway.domain.procedure import parse_due

DOCS = Path(__file__).resolve().parents[2] / "docs"
NOW = datetime(2026, 9, 25, 7, 0, tzinfo=UTC)


@pytest.mark.parametrize("text", ["500 ms", "10 s", "10s", "0.5 s", "3 min", "2 h", "1 d", "0 s"])
def test_spans_of_time_are_what_the_rules_take_them_for(text: str) -> None:
    duration = parse_due(text).duration
    assert duration is not None
    assert seconds(text) == pytest.approx(duration.total_seconds())


@pytest.mark.parametrize("text", ["", "10", "10 weeks", "next day 17:00", "s 10"])
def test_what_is_no_span_of_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="span of time"):
        seconds(text)


def test_a_plan_from_before_ladders_only_asks_that_its_roles_are_called() -> None:
    body = plan_body(site="s", name="p@1", roles=["hotline"], procedure=None, details={})
    assert [(one.role, one.times) for one in body.asked] == [("hotline", None)]


@pytest.mark.parametrize("details", [{"roles": [{"role": "hotline"}]}, {"roles": 3}, {"countdown": "soon"}])
def test_a_plan_that_cannot_be_read_is_said_to_be_so(details: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"cannot be read|span of time"):
        plan_body(site="s", name="p@1", roles=["hotline"], procedure=None, details=details)


@pytest.mark.parametrize("body", [{}, {"steps": 3}, {"steps": [{"after": ["started"]}]}])
def test_a_procedure_that_cannot_be_read_is_said_to_be_so(body: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        procedure_body(body)


def test_a_step_that_was_to_end_at_its_deadline_and_was_only_found_late() -> None:
    body = procedure_body({"steps": [{"step": "call", "expires": "no_answer", "within": "1 min"}]})
    row = StepSeen("open", NOW, started=True, due_at=NOW, breached=True, ended_at=None, result=None)
    run = RunSeen(known={"started": NOW}, steps={"call": row})
    late = NOW + timedelta(seconds=11)
    assert list(amiss(body, run, now=late, grace=timedelta(seconds=10))) == [("step_stays_open", "call", NOW)]
    assert list(amiss(body, run, now=NOW, grace=timedelta(seconds=10))) == []


def test_every_kind_is_said_in_both_languages_and_explained_to_whoever_reads_it() -> None:
    text = (DOCS / "operations.md").read_text(encoding="utf-8")
    explained = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    assert sorted(explained) == sorted(KINDS)
    assert all(set(said) == {"zh", "en"} for said in KINDS.values())


def test_every_kind_that_a_check_returns_has_words() -> None:
    said = {kind for statement in CHECKS.values() for kind in re.findall(r"'([a-z]+(?:_[a-z0-9]+)+)'", statement)}
    assert said & KINDS.keys() == KINDS.keys() - {"step_missing", "step_stays_open", "check_failed"}


def test_times_are_told_to_the_second_in_utc() -> None:
    detail = {"since": "2026-09-25T15:00:08.123456+08:00", "step": "take", "procedure": "p"}
    assert "at 2026-09-25T07:00:08Z" in words_of("step_missing", detail)["en"]
