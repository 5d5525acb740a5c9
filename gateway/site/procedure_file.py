"""Procedure files: YAML to a checked `Procedure`. Nanjing's, Beijing's and the default come with the package."""

from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from gateway.domain.case import Fact
from gateway.domain.procedure import Does, Due, Procedure, Seat, Step, names_used, parse_due

__all__ = ["ProcedureFileError", "dumped", "load_procedure", "procedure_from", "shipped"]

_Id = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$", description="small letters, digits and hyphens")]
_Title = Annotated[dict[Annotated[str, Field(pattern="^(zh|en)$")], str], Field(min_length=1)]


class ProcedureFileError(Exception):
    """A procedure file that cannot be used; the text has one line for each thing that is wrong."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CommandEntry(_Part):
    """What the terminal is to do, see ``schemas.commands.Command``."""

    name: Literal["call_back", "dial", "play", "locate", "configure", "self_test"]
    arguments: dict[str, str | int | float | bool] = Field(default_factory=dict)


class StepEntry(_Part):
    """One step, see ``gateway.domain.procedure.Step``."""

    step: _Id
    does: Does
    title: _Title
    clause: str = ""
    after: Annotated[tuple[str, ...], Field(min_length=1)] = ("started",)
    delay: str = "0 s"
    given: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()
    ends_with: dict[str, str] = Field(default_factory=dict)
    within: str | None = None
    expires: str | None = None
    seat: Seat | None = None
    results: Annotated[tuple[str, ...], Field(min_length=1)] = ("done",)
    roles: tuple[str, ...] = ()
    command: CommandEntry | None = None
    dials: Literal["person"] | None = None
    aftercare: bool = False

    @model_validator(mode="after")
    def _fits(self) -> "StepEntry":
        parse_delay = parse_due(self.delay)
        if parse_delay.duration is None:
            raise ValueError("delay is a duration")
        if self.within is not None:
            parse_due(self.within)
        if self.does is Does.TASK and self.seat is None:
            raise ValueError("a task needs a seat: A, B, first or supervisor")
        if self.does in (Does.TELL, Does.WITHDRAW) and not self.roles:
            raise ValueError(f"{self.does} needs roles")
        if self.dials is not None and (self.does is not Does.TASK or "no_answer" not in self.results):
            raise ValueError("what dials is a task, and no_answer is one of its results")
        if (self.does is Does.COMMAND) != (self.command is not None):
            raise ValueError("command goes with does: command")
        if self.expires is not None and self.within is None:
            raise ValueError("what expires needs a deadline: within")
        return self


class ProcedureEntry(_Part):
    """The whole file."""

    procedure: _Id
    version: Annotated[int, Field(ge=1)]
    title: _Title
    source: str = ""
    steps: Annotated[tuple[StepEntry, ...], Field(min_length=1)]


def load_procedure(path: Path) -> Procedure:
    """Read a procedure file.

    Raises:
        ProcedureFileError: It cannot be read, or something in it does not fit.
    """
    try:
        return _read(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as exc:
        raise ProcedureFileError(f"{path}: {exc}") from exc


@cache
def shipped() -> Mapping[str, Procedure]:
    """Return the procedures that come with the package, by id."""
    folder = files("gateway.site") / "procedures"
    read = [
        _read(file.read_text(encoding="utf-8"), file.name) for file in folder.iterdir() if file.name[-5:] == ".yaml"
    ]
    return {procedure.id: procedure for procedure in sorted(read, key=lambda one: one.id)}


def _read(text: str, name: str) -> Procedure:
    try:
        return procedure_from(YAML(typ="safe", pure=True).load(text))
    except MarkedYAMLError as exc:
        raise ProcedureFileError(f"{name}: {exc}") from exc
    except ProcedureFileError as exc:
        raise ProcedureFileError("\n".join(f"{name}: {line}" for line in str(exc).splitlines())) from exc


def procedure_from(document: Any) -> Procedure:
    """Return the procedure that `document` describes, in the form of a file or of `dumped`.

    Raises:
        ProcedureFileError: Something in it does not fit.
    """
    try:
        entry = ProcedureEntry.model_validate(document)
    except ValidationError as exc:
        lines = (f"{'.'.join(str(part) for part in error['loc'])}: {error['msg']}" for error in exc.errors())
        raise ProcedureFileError("\n".join(lines)) from exc
    procedure = Procedure(
        id=entry.procedure,
        version=entry.version,
        title=entry.title,
        source=entry.source,
        steps=tuple(_step(one) for one in entry.steps),
    )
    wrong = [f"steps: {what}" for what in _findings(procedure)]
    if wrong:
        raise ProcedureFileError("\n".join(wrong))
    return procedure


def _step(entry: StepEntry) -> Step:
    delay: Due = parse_due(entry.delay)
    assert delay.duration is not None
    return Step(
        id=entry.step,
        does=entry.does,
        title=entry.title,
        after=entry.after,
        delay=delay.duration,
        given=entry.given,
        unless=entry.unless,
        ends_with=dict(entry.ends_with),
        within=None if entry.within is None else parse_due(entry.within),
        expires=entry.expires,
        seat=entry.seat,
        results=entry.results,
        roles=entry.roles,
        command=None if entry.command is None else entry.command.model_dump(mode="json"),
        dials=entry.dials is not None,
        aftercare=entry.aftercare,
        clause=entry.clause,
    )


_OUTSIDE = {"started", "closed", "heard", "pressed_again", *(fact.value for fact in Fact)}


def _findings(procedure: Procedure) -> Iterator[str]:
    steps = {step.id: step for step in procedure.steps}
    if len(steps) != len(procedure.steps):
        yield "two steps have the same name"
    for name in sorted(names_used(procedure.steps)):
        head, _, tail = name.partition(":")
        if head in _OUTSIDE:
            continue
        if head not in steps:
            yield f"{name} is neither a step nor a fact; facts are {', '.join(sorted(_OUTSIDE))}"
        elif tail and tail not in _ends(steps[head]):
            yield f"{name} can never be: {head} ends with {', '.join(sorted(_ends(steps[head])))}"
    waiting = dict(steps)
    known: set[str] = set()
    while ready := [one for one in waiting.values() if _reachable(one, known)]:
        for one in ready:
            known.add(waiting.pop(one.id).id)
    if waiting:
        yield f"these wait for each other: {', '.join(waiting)}"


def _ends(step: Step) -> set[str]:
    ends = {*step.results, *step.ends_with.values(), "started", "breached"}
    return ends | ({step.expires} if step.expires else set())


def _reachable(step: Step, known: set[str]) -> bool:
    def can_come(name: str) -> bool:
        head = name.strip().partition(":")[0]
        return head in _OUTSIDE or head in known

    return all(any(can_come(name) for name in wanted.split("|")) for wanted in step.after)


def dumped(procedure: Procedure) -> dict[str, Any]:
    """Return a procedure in the form of its file, to be stored: what once ran is never read from a file again."""

    def due(one: Due | None) -> str | None:
        if one is None:
            return None
        if one.next_day is not None:
            return f"next day {one.next_day:%H:%M}"
        if one.working_days is not None:
            return f"{one.working_days} working days"
        assert one.duration is not None
        return f"{round(one.duration.total_seconds() * 1000)} ms"

    return {
        "procedure": procedure.id,
        "version": procedure.version,
        "title": dict(procedure.title),
        "source": procedure.source,
        "steps": [
            {
                "step": step.id,
                "does": step.does.value,
                "title": dict(step.title),
                "clause": step.clause,
                "after": list(step.after),
                "delay": due(Due(duration=step.delay)),
                "given": list(step.given),
                "unless": list(step.unless),
                "ends_with": dict(step.ends_with),
                "within": due(step.within),
                "expires": step.expires,
                "seat": None if step.seat is None else step.seat.value,
                "results": list(step.results),
                "roles": list(step.roles),
                "command": None if step.command is None else dict(step.command),
                "aftercare": step.aftercare,
                # Only where it is so: procedures that were stored before there was such a thing say nothing of it.
                **({"dials": "person"} if step.dials else {}),
            }
            for step in procedure.steps
        ],
    }
