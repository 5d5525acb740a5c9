"""One look at everything: a single snapshot, nothing written, no row locked."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg

from gateway.audit.bodies import Asked, PlanBody, StepBody, plan_body, procedure_body
from gateway.audit.checks import CHECKS, RUNS, SHORT, STEPS, WATCHED_CASES
from gateway.audit.steps import RunSeen, StepSeen, amiss
from gateway.store.pool import Connection, Pool

__all__ = ["GRACE", "WATCHED_FOR", "Look", "Looking", "Seen"]

GRACE = timedelta(seconds=10)
"""How late anything may be before it is a finding."""

WATCHED_FOR = timedelta(minutes=10)
"""How long a case is looked at after it was closed."""

_LIMIT = 100
"""At most so many findings of one check, the oldest: what is wrong everywhere is said often enough by that."""

_PATIENCE_MS = 5000

_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
_EVER = datetime(9000, 1, 1, tzinfo=UTC)
_MOST_WAYS = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Something amiss. ``detail`` holds ids, counts and times; ``since`` in it says since when."""

    kind: str
    subject: str
    case_id: UUID | None = None
    site_id: str | None = None
    district: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """What it is found by again: the same in every round."""
        return f"{self.kind}:{self.case_id or ''}:{self.subject}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one look saw, as of ``now`` of the database."""

    now: datetime
    cases: int
    seen: Mapping[str, Seen]


class Looking:
    """Looks, and remembers what never changes: plans and procedures at a version."""

    def __init__(self) -> None:
        self._plans: dict[tuple[str, str], PlanBody] = {}
        self._procedures: dict[tuple[str, int], tuple[StepBody, ...]] = {}
        self._ways: dict[tuple[str, int, str, str | None], bool] = {}

    async def look(self, pool: Pool) -> Look:
        """Look at every case under watch.

        A check that cannot be made, for what lies in the tables or takes too long, is itself a finding and stops no
        other.
        """
        async with pool.connection() as conn, conn.transaction():
            await conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            # Compiling the statements, or starting helpers for them, takes longer than running them.
            await conn.execute(
                "SELECT set_config('statement_timeout', %s, true), set_config('jit', 'off', true), "
                "set_config('max_parallel_workers_per_gather', '0', true)",
                (str(_PATIENCE_MS),),
            )
            row = await (await conn.execute("SELECT onekey_now()")).fetchone()
            assert row is not None
            now: datetime = row[0]
            seen: list[Seen] = []
            values: dict[str, Any] = {"now": now, "late": now - GRACE, "recent": now - WATCHED_FOR, "limit": _LIMIT}
            values |= await self._plan_values(conn, seen)
            for name, statement in CHECKS.items():
                seen += await _made(conn, name, statement, values)
            seen += await self._steps(conn, values, now)
            count = await (await conn.execute(WATCHED_CASES, values)).fetchone()
        return Look(now=now, cases=0 if count is None else count[0], seen={one.key: one for one in seen})

    async def _plan_values(self, conn: Connection, seen: list[Seen]) -> dict[str, Any]:
        """Return what the plans of the open cases ask for as columns for the statements.

        Cases have the same few combinations of plans; how a role is called is said only where one plan calls it.
        """
        rows = await (
            await conn.execute(
                "SELECT DISTINCT site_id, plans FROM cases WHERE state <> 'closed' AND plans <> '{}' "
                "AND site_id IS NOT NULL"
            )
        ).fetchall()
        wanted = {(site, name) for site, names in rows for name in names}
        self._plans = {key: plan for key, plan in self._plans.items() if key in wanted}
        if missing := wanted - self._plans.keys():
            await self._read_plans(conn, missing, seen)
        asked = []
        for site, names in rows:
            plans = [self._plans[site, name] for name in names if (site, name) in self._plans]
            calling: dict[str, list[tuple[str, Asked]]] = {}
            for plan in plans:
                for one in plan.asked:
                    calling.setdefault(one.role, []).append((plan.name, one))
            for role, calls in calling.items():
                own = Asked(role=role, graded=any(one.graded for _, one in calls))
                if len(calls) == 1 and len(plans) == len(names):
                    own = calls[0][1]
                asked.append((site, " ".join(names), role, calls[0][0], own))
        known = list(self._plans.values())
        return {
            "plan_sites": [plan.site for plan in known],
            "plan_names": [plan.name for plan in known],
            "procedures": [plan.procedure for plan in known],
            "countdowns_s": [plan.countdown_s for plan in known],
            "sites": [site for site, *_ in asked],
            "together": [names for _, names, *_ in asked],
            "roles": [role for _, _, role, *_ in asked],
            "plans": [plan for _, _, _, plan, _ in asked],
            "graded": [own.graded for *_, own in asked],
            "times": [own.times for *_, own in asked],
            "again_s": [own.again_s for *_, own in asked],
            "within_s": [own.within_s for *_, own in asked],
        }

    async def _read_plans(self, conn: Connection, missing: set[tuple[str, str]], seen: list[Seen]) -> None:
        rows = await (
            await conn.execute(
                "SELECT p.site_id, p.id || '@' || p.version, p.roles, p.procedure, p.details FROM plan p "
                "JOIN unnest(%s::text[], %s::text[]) AS w (site_id, name) "
                "ON w.site_id = p.site_id AND w.name = p.id || '@' || p.version",
                ([site for site, _ in missing], [name for _, name in missing]),
            )
        ).fetchall()
        for site, name, roles, procedure, details in rows:
            try:
                body = plan_body(site=site, name=name, roles=roles, procedure=procedure, details=details)
            except ValueError as exc:
                seen.append(_failed(f"plan {name}", exc, site=site))
            else:
                self._plans[site, name] = body

    async def _steps(self, conn: Connection, values: Mapping[str, Any], now: datetime) -> list[Seen]:
        """Hold the runs under watch to the bodies of their procedures."""
        try:
            async with conn.transaction():
                return await self._read_steps(conn, values, now)
        except psycopg.Error as exc:
            if conn.broken or conn.closed:
                raise
            return [_failed("steps", _refused(exc))]

    async def _read_steps(self, conn: Connection, values: Mapping[str, Any], now: datetime) -> list[Seen]:
        seen: list[Seen] = []
        short = await (await conn.execute(SHORT.encode(), values)).fetchall()
        bodies = await self._bodies(conn, {(procedure, version) for _, procedure, version, _, _ in short}, seen)
        # Most runs stand in one of few ways in which nothing can be amiss at any time; the others are read whole.
        doubtful = [run for run, *how in short if self._may_be_amiss(bodies, *how)]
        if not doubtful:
            return seen
        runs = await (await conn.execute(RUNS, {"runs": doubtful})).fetchall()
        steps: dict[UUID, dict[str, StepSeen]] = {}
        for run, name, *rest in await (await conn.execute(STEPS, {"runs": doubtful})).fetchall():
            steps.setdefault(run, {})[name] = StepSeen(*rest)
        for run_id, case, site, district, procedure, version, *since in runs:
            run = RunSeen(known=_known(*since), steps=steps.get(run_id, {}))
            for kind, step, at in amiss(bodies[procedure, version], run, now=now, grace=GRACE):
                detail = {"since": at.isoformat(), "step": step, "procedure": procedure}
                subject = f"{procedure} {step}"
                seen.append(
                    Seen(kind=kind, subject=subject, case_id=case, site_id=site, district=district, detail=detail)
                )
        return sorted(seen, key=lambda one: str(one.detail.get("since")))[:_LIMIT]

    def _may_be_amiss(
        self,
        bodies: Mapping[tuple[str, int], tuple[StepBody, ...]],
        procedure: str,
        version: int,
        known: str,
        steps: str | None,
    ) -> bool:
        how = (procedure, version, known, steps)
        answer = self._ways.get(how)
        if answer is None:
            body = bodies.get((procedure, version), ())
            answer = any(amiss(body, _long_ago(known, steps), now=_EVER, grace=GRACE))
            if len(self._ways) >= _MOST_WAYS:
                self._ways.clear()
            self._ways[how] = answer
        return answer

    async def _bodies(
        self, conn: Connection, wanted: set[tuple[str, int]], seen: list[Seen]
    ) -> dict[tuple[str, int], tuple[StepBody, ...]]:
        """Return the procedures that run; of one that cannot be read no step is known."""
        for procedure, version in wanted - self._procedures.keys():
            row = await (
                await conn.execute("SELECT body FROM procedure WHERE id = %s AND version = %s", (procedure, version))
            ).fetchone()
            assert row is not None, "a run refers to it"
            try:
                self._procedures[procedure, version] = procedure_body(row[0])
            except ValueError as exc:
                seen.append(_failed(f"procedure {procedure}", exc))
        return {key: self._procedures.get(key, ()) for key in wanted}


def _long_ago(known: str, steps: str | None) -> RunSeen:
    """Return a run as it is known in short, as if all of it had been so for ever."""
    rows = {}
    for text in (steps or "").split("\x1e"):
        name, state, *told = [*text.split("\x1f"), ""][:6]
        if told:
            started, due, breached, result = told
            rows[name] = StepSeen(
                state=state,
                planned_at=_LONG_AGO,
                started=started == "t",
                due_at=_LONG_AGO if due == "t" else None,
                breached=breached == "t",
                ended_at=None if state == "open" else _LONG_AGO,
                result=result or None,
            )
    facts = [text.replace(" ", ":", 1) for text in known.split("\x1e")]
    return RunSeen(known={name: _LONG_AGO for fact in facts for name in (fact, fact.partition(":")[0])}, steps=rows)


def _known(
    started: datetime,
    closed: datetime | None,
    owned: datetime | None,
    safe: datetime | None,
    pressed_again: datetime | None,
    facts: list[str] | None,
    facts_at: list[datetime] | None,
) -> dict[str, datetime]:
    """Return since when what is so that a procedure may wait for: a fact counts from whoever it was known of first."""
    since = {"started": started, "closed": closed, "owned": owned, "safe": safe, "pressed_again": pressed_again}
    known = {name: at for name, at in since.items() if at is not None}
    for text, at in zip(facts or (), facts_at or (), strict=True):
        fact, _, role = text.partition(" ")
        known.setdefault(fact, at)
        known[f"{fact}:{role}"] = at
    return known


async def _made(conn: Connection, name: str, statement: str, values: Mapping[str, Any]) -> list[Seen]:
    try:
        async with conn.transaction():  # a savepoint: what fails in it leaves the snapshot to the others
            rows = await (await conn.execute(statement.encode(), values)).fetchall()
    except psycopg.Error as exc:
        if conn.broken or conn.closed:
            raise
        return [_failed(name, _refused(exc))]
    return [
        Seen(kind=kind, case_id=case, site_id=site, district=district, subject=subject, detail=detail)
        for kind, case, site, district, subject, detail in rows
    ]


def _refused(exc: psycopg.Error) -> str:
    """Say what the database would not do without its words, which may quote a row."""
    return f"{type(exc).__name__} {exc.sqlstate or ''}".strip()


def _failed(check: str, error: object, *, site: str | None = None) -> Seen:
    return Seen(kind="check_failed", subject=check, site_id=site, detail={"check": check, "error": str(error)[:200]})
