"""Counting what figures are made of: the heavy part, in the database. `gateway.domain.figures` says what it means."""

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.rows import class_row, dict_row

from gateway.domain.figures import ANSWER_WITHIN
from gateway.domain.work_order import COMPLAINT, SETTLE
from gateway.store.pool import Connection

__all__ = ["FOLLOW_UP", "Span", "WorstCase", "breaches", "cases", "complaints", "follow_ups", "orders", "worst"]

FOLLOW_UP = "follow-up"
"""The step in which the first operator asks how the person is (R11, R12)."""

_MINE = """
    (%(district)s::text IS NULL OR {0}.district = %(district)s)
    AND (%(operator)s::text IS NULL OR {0}.{1} = %(operator)s)
"""
_CASES = f"""
    cases c WHERE c.site_id = %(site)s AND c.received_at >= %(begins)s AND c.received_at < %(ends)s
    AND NOT c.test AND c.class IN ('emergency', 'service') AND {_MINE.format("c", "first_owner")}
"""
_ORDERS = f"""
    work_order w WHERE w.site_id = %(site)s AND w.called_at >= %(begins)s AND w.called_at < %(ends)s
    AND {_MINE.format("w", "operator")}
"""
# A press that somebody may still take in time says nothing yet.
_COUNTS = "c.class = 'emergency' AND (c.owned_at IS NOT NULL OR c.state = 'closed' OR c.received_at <= %(decided)s)"

_IN_TIME = "s.state = 'done' AND s.ended_at <= s.due_at AND s.breached_at IS NULL"
_DECIDED = "(s.state = 'done' OR s.state = 'open' AND s.due_at <= %(now)s)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """What is counted: of a site from an instant to another, of one district and operator or of all."""

    site: str
    begins: datetime
    ends: datetime
    now: datetime
    district: str | None = None
    operator: str | None = None

    def values(self) -> dict[str, Any]:
        """Return the parameters of every statement in here."""
        limits = {"decided": self.now - ANSWER_WITHIN, "within": ANSWER_WITHIN}
        return {one.name: getattr(self, one.name) for one in fields(self)} | limits


async def _groups(conn: Connection, query: str, span: Span) -> list[dict[str, Any]]:
    async with conn.cursor(row_factory=dict_row, binary=True) as cursor:
        # Planned for these days: a plan for any days would take the way that is good for few.
        await cursor.execute(query.encode(), span.values(), prepare=False)
        return await cursor.fetchall()


async def cases(conn: Connection, span: Span) -> list[dict[str, Any]]:
    """Count cases by district, first owner and reason of a false alarm, with how long each emergency waited."""
    return await _groups(
        conn,
        f"""
        SELECT c.district, c.first_owner AS operator, c.false_alarm, count(*) AS cases,
               count(*) FILTER (WHERE {_COUNTS}) AS emergencies,
               count(*) FILTER (WHERE c.class = 'emergency' AND c.owned_at IS NOT NULL) AS taken,
               count(*) FILTER (WHERE c.class = 'emergency' AND c.owned_at - c.received_at <= %(within)s) AS answered,
               count(*) FILTER (WHERE c.state = 'closed' AND c.owned_at IS NOT NULL) AS closed,
               count(*) FILTER (WHERE c.state = 'closed' AND c.owner = c.first_owner AND c.closed_by = c.first_owner)
                   AS closed_by_first,
               coalesce(array_agg(extract(epoch FROM c.human_at - c.received_at)::float8)
                   FILTER (WHERE {_COUNTS} AND c.human_at IS NOT NULL), '{{}}') AS waits
        FROM {_CASES}
        GROUP BY c.district, c.first_owner, c.false_alarm
        """,  # noqa: S608
        span,
    )


async def follow_ups(conn: Connection, span: Span) -> list[dict[str, Any]]:
    """Count follow-ups that are done or should be, and those done in time."""
    return await _groups(
        conn,
        f"""
        SELECT c.district, c.first_owner AS operator, count(*) AS follow_ups,
               count(*) FILTER (WHERE {_IN_TIME}) AS follow_ups_in_time
        FROM step s, {_CASES} AND s.case_id = c.id AND s.name = '{FOLLOW_UP}'
          AND {_DECIDED}
        GROUP BY c.district, c.first_owner
        """,  # noqa: S608
        span,
    )


async def complaints(conn: Connection, span: Span) -> list[dict[str, Any]]:
    """Count complaints that are settled or should be, and those settled in time, wherever their procedure runs.

    One that was started for a case without a work order counts with the day and the first owner of the case.
    """
    return await _groups(
        conn,
        f"""
        SELECT w.district, w.operator, count(*) AS complaints,
               count(*) FILTER (WHERE {_IN_TIME}) AS complaints_in_time
        FROM (SELECT * FROM {_ORDERS} AND w.kind = '{COMPLAINT}') w CROSS JOIN LATERAL (
            SELECT state, due_at, ended_at, breached_at FROM step WHERE run_id = w.run_id AND name = '{SETTLE}'
            UNION ALL
            SELECT state, due_at, ended_at, breached_at FROM work_order_step
            WHERE work_order_id = w.id AND name = '{SETTLE}'
        ) s
        WHERE {_DECIDED}
        GROUP BY w.district, w.operator
        UNION ALL
        SELECT c.district, c.first_owner, count(*), count(*) FILTER (WHERE {_IN_TIME})
        FROM run r JOIN step s ON s.run_id = r.id AND s.name = '{SETTLE}', {_CASES}
          AND c.id = r.case_id AND r.procedure = '{COMPLAINT}' AND {_DECIDED}
          AND NOT EXISTS (SELECT FROM work_order w WHERE w.run_id = r.id)
        GROUP BY c.district, c.first_owner
        """,  # noqa: S608
        span,
    )


async def breaches(conn: Connection, span: Span) -> list[dict[str, Any]]:
    """Count steps that were late by procedure and step: of cases by their first owner, of complaints by the seat."""
    return await _groups(
        conn,
        f"""
        SELECT c.district, c.first_owner AS operator, r.procedure, s.name AS step, count(*) AS late
        FROM step s JOIN run r ON r.id = s.run_id, {_CASES} AND s.case_id = c.id AND s.breached_at IS NOT NULL
        GROUP BY c.district, c.first_owner, r.procedure, s.name
        UNION ALL
        SELECT w.district, w.operator, w.procedure, s.name, count(*)
        FROM work_order_step s, {_ORDERS} AND s.work_order_id = w.id AND s.breached_at IS NOT NULL
        GROUP BY w.district, w.operator, w.procedure, s.name
        """,  # noqa: S608
        span,
    )


async def orders(conn: Connection, span: Span) -> list[dict[str, Any]]:
    """Count work orders by district and operator."""
    return await _groups(
        conn,
        f"""
        SELECT w.district, w.operator, count(*) AS orders,
               count(*) FILTER (WHERE w.over) AS over,
               count(*) FILTER (WHERE w.over AND w.missing = '{{}}') AS complete,
               count(w.rating_asked_at) AS asked,
               count(w.rating) AS rated,
               count(*) FILTER (WHERE w.rating >= 3) AS satisfied,
               count(w.accurate) AS inspected,
               count(*) FILTER (WHERE w.accurate) AS accurate
        FROM {_ORDERS}
        GROUP BY w.district, w.operator
        """,  # noqa: S608
        span,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WorstCase:
    """An emergency that waited long for the first responsible human. ``wait_s`` is None where nobody came."""

    case_id: UUID
    district: str
    operator: str | None
    received_at: datetime
    wait_s: float | None


async def worst(conn: Connection, span: Span, *, limit: int) -> list[WorstCase]:
    """Return the emergencies that waited longest, those for which nobody came first."""
    async with conn.cursor(row_factory=class_row(WorstCase)) as cursor:
        await cursor.execute(
            f"""
            SELECT c.id AS case_id, c.district, c.first_owner AS operator, c.received_at,
                   extract(epoch FROM c.human_at - c.received_at)::float8 AS wait_s
            FROM {_CASES} AND {_COUNTS}
            ORDER BY c.human_at - c.received_at DESC NULLS FIRST, c.received_at, c.id LIMIT %(limit)s
            """.encode(),  # noqa: S608
            {**span.values(), "limit": limit},
            prepare=False,
        )
        return await cursor.fetchall()
