"""Reading supervision: troubles and incidents by pages, uptime by district, hours in which nobody could have called."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.rows import class_row

from gateway.store.pool import Connection

__all__ = ["DistrictFigures", "IncidentLine", "TroubleLine", "by_district", "incidents", "members", "troubles"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TroubleLine:
    """A trouble of a terminal as a list shows it."""

    id: int
    terminal: str
    household: str | None
    district: str
    cause: str
    since: datetime
    found_at: datetime
    cleared_at: datetime | None
    detail: dict[str, Any]
    incident: int | None
    case_id: UUID | None


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentLine:
    """An incident as a list shows it. ``kind`` is that of its area (building, street …); None: a whole site."""

    id: int
    site: str
    district: str
    kind: str | None
    cause: str
    since: datetime
    found_at: datetime
    cleared_at: datetime | None
    members: int
    of_all: int
    in_trouble: int
    case_id: UUID | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DistrictFigures:
    """A district in a span of time. Hours are those of terminals, or of persons.

    ``unprotected_h``: in which no terminal of a person's home could have called.
    """

    district: str
    terminals: int
    supervised_h: float
    offline_h: float
    losses: int
    persons: int
    unprotected_h: float


_TROUBLES = """
    SELECT o.id, t.public_id AS terminal, o.household_id AS household, o.district, o.cause, o.since, o.found_at,
           o.cleared_at, o.detail, o.incident_id AS incident, o.case_id
    FROM trouble o JOIN terminal t ON t.uid = o.terminal_uid
"""


async def troubles(
    conn: Connection,
    *,
    is_open: bool | None,
    cause: str | None,
    terminal: str | None,
    district: str | None,
    before: int | None,
    limit: int,
) -> list[TroubleLine]:
    """Return troubles, newest first; `before` is the id of the last one seen."""
    async with conn.cursor(row_factory=class_row(TroubleLine)) as cursor:
        await cursor.execute(
            f"""
            {_TROUBLES}
            WHERE (%(open)s::bool IS NULL OR (o.cleared_at IS NULL) = %(open)s)
              AND (%(cause)s::text IS NULL OR o.cause = %(cause)s)
              AND (%(terminal)s::text IS NULL OR t.public_id = %(terminal)s)
              AND (%(district)s::text IS NULL OR o.district = %(district)s)
              AND (%(before)s::bigint IS NULL OR o.id < %(before)s)
            ORDER BY o.id DESC LIMIT %(limit)s
            """,  # every word of it stands in this file
            {
                "open": is_open,
                "cause": cause,
                "terminal": terminal,
                "district": district,
                "before": before,
                "limit": limit,
            },
        )
        return await cursor.fetchall()


async def incidents(
    conn: Connection, *, is_open: bool | None, district: str | None, before: int | None, limit: int
) -> list[IncidentLine]:
    """Return incidents, newest first; `before` is the id of the last one seen."""
    async with conn.cursor(row_factory=class_row(IncidentLine)) as cursor:
        await cursor.execute(
            """
            SELECT i.id, i.site_id AS site, i.district, a.kind, i.cause, i.since, i.found_at, i.cleared_at, i.members,
                   i.of_all, (SELECT count(*) FROM trouble o WHERE o.incident_id = i.id AND o.cleared_at IS NULL)::int
                       AS in_trouble, i.case_id
            FROM incident i LEFT JOIN area a ON a.id = i.area_id
            WHERE (%(open)s::bool IS NULL OR (i.cleared_at IS NULL) = %(open)s)
              AND (%(district)s::text IS NULL OR i.district = %(district)s)
              AND (%(before)s::bigint IS NULL OR i.id < %(before)s)
            ORDER BY i.id DESC LIMIT %(limit)s
            """,
            {"open": is_open, "district": district, "before": before, "limit": limit},
        )
        return await cursor.fetchall()


async def members(conn: Connection, incident: int, *, after: int | None, limit: int) -> list[TroubleLine]:
    """Return the troubles of an incident, oldest first; `after` is the id of the last one seen."""
    async with conn.cursor(row_factory=class_row(TroubleLine)) as cursor:
        await cursor.execute(
            f"{_TROUBLES} WHERE o.incident_id = %s AND (%s::bigint IS NULL OR o.id > %s) ORDER BY o.id LIMIT %s",
            (incident, after, after, limit),
        )
        return await cursor.fetchall()


async def by_district(
    conn: Connection, *, begin: datetime, end: datetime, district: str | None, cannot_call: Collection[str]
) -> list[DistrictFigures]:
    """Return the figures of each district between two times, for terminals that stand in a home."""
    async with conn.cursor(row_factory=class_row(DistrictFigures)) as cursor:
        await cursor.execute(
            """
            WITH span AS (
                SELECT %(begin)s::timestamptz AS begins, least(%(end)s::timestamptz, onekey_now()) AS ends
            ), stood AS (
                SELECT t.uid, t.district, a.household_id,
                       tstzrange(greatest(a.since, begins), least(coalesce(a.until, ends), ends)) AS here
                FROM span, assignment a JOIN terminal t ON t.uid = a.terminal_uid
                WHERE a.since < ends AND coalesce(a.until, ends) > begins
                  AND greatest(a.since, begins) < least(coalesce(a.until, ends), ends)
                  AND (%(district)s::text IS NULL OR t.district = %(district)s)
            ), wrong AS (
                SELECT s.uid, s.district, s.household_id, o.cause,
                       s.here * tstzrange(o.since, coalesce(o.cleared_at, 'infinity')) AS amiss
                FROM stood s JOIN trouble o ON o.terminal_uid = s.uid AND o.cause = ANY(%(causes)s)
                JOIN span ON o.since < span.ends AND coalesce(o.cleared_at, 'infinity') > span.begins
                WHERE o.since <= coalesce(o.cleared_at, 'infinity')
            ), terminals AS (
                SELECT district, count(DISTINCT uid) AS terminals,
                       sum(extract(epoch FROM upper(here) - lower(here))) AS supervised_s
                FROM stood GROUP BY district
            ), offline AS (
                SELECT district, count(*) AS losses, sum(extract(epoch FROM upper(amiss) - lower(amiss))) AS offline_s
                FROM wrong WHERE cause = 'offline' AND NOT isempty(amiss) GROUP BY district
            ), dead AS (  -- per terminal, however many causes there were at once
                SELECT household_id, uid, range_agg(amiss) AS dead FROM wrong WHERE NOT isempty(amiss) GROUP BY 1, 2
            ), homes AS (
                SELECT household_id, min(district) AS district, count(DISTINCT uid) AS terminals FROM stood GROUP BY 1
            ), alone AS (  -- the times in which all terminals of a home could not call
                SELECT d.household_id, range_intersect_agg(d.dead) AS alone
                FROM dead d JOIN homes h USING (household_id) GROUP BY d.household_id, h.terminals
                HAVING count(*) = h.terminals
            ), people AS (
                SELECT h.household_id, h.district, count(p.id) AS persons
                FROM homes h LEFT JOIN person p ON p.household_id = h.household_id AND p.active GROUP BY 1, 2
            ), unprotected AS (
                SELECT p.district, sum(p.persons) AS persons, sum(p.persons * coalesce((
                           SELECT sum(extract(epoch FROM upper(one) - lower(one))) FROM unnest(a.alone) AS one), 0))
                       AS alone_s
                FROM people p LEFT JOIN alone a USING (household_id) GROUP BY p.district
            )
            SELECT t.district, t.terminals::int, (t.supervised_s / 3600)::float8 AS supervised_h,
                   (coalesce(o.offline_s, 0) / 3600)::float8 AS offline_h, coalesce(o.losses, 0)::int AS losses,
                   coalesce(u.persons, 0)::int AS persons, (coalesce(u.alone_s, 0) / 3600)::float8 AS unprotected_h
            FROM terminals t LEFT JOIN offline o USING (district) LEFT JOIN unprotected u USING (district)
            ORDER BY t.district
            """,
            {"begin": begin, "end": end, "district": district, "causes": sorted(cannot_call)},
        )
        return await cursor.fetchall()
