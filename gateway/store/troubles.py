"""Troubles of terminals on their way to people: their cases, the incidents of areas, and who is tracked meanwhile."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from psycopg.rows import class_row

from gateway.store.pool import Connection

__all__ = [
    "AreaRow",
    "IncidentRow",
    "OpenCase",
    "TroubleRow",
    "cased",
    "crowds",
    "end_incidents",
    "end_tracking",
    "fresh_cells",
    "incident_cased",
    "incident_over",
    "over",
    "raised_by",
    "recase",
    "start_incident",
    "thinned",
    "to_track",
    "track",
    "tracked_enough",
    "uncased",
    "unsettled",
    "unsettled_incidents",
    "write_areas",
    "write_cell",
    "write_members",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class TroubleRow:
    """A trouble that needs something: a case, or the end of one."""

    id: int
    terminal_uid: UUID
    terminal: str
    household: str | None
    cause: str
    since: datetime
    detail: dict[str, Any]
    case_id: UUID | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenCase:
    """An open technical case of a terminal: which kind, and when the terminal last raised it itself."""

    terminal: str
    kind: str
    case_id: UUID
    raised_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AreaRow:
    """An area with terminals in the same trouble: how many, of how many that are supervised there."""

    area_id: UUID | None
    site_id: str
    district: str
    troubled: int
    of_all: int
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentRow:
    """An incident whose case is to be raised, or to be closed."""

    id: int
    area_id: UUID | None
    site_id: str
    kind: str | None
    sealed: bytes | None
    cause: str
    since: datetime
    members: int
    of_all: int
    cleared: bool
    case_id: UUID | None


# Cases of troubles

_TROUBLE = """
    SELECT o.id, o.terminal_uid, t.public_id AS terminal, o.household_id AS household, o.cause, o.since, o.detail,
           o.case_id
    FROM trouble o JOIN terminal t ON t.uid = o.terminal_uid
"""


async def uncased(conn: Connection, *, limit: int) -> list[TroubleRow]:
    """Return troubles that nobody has been told of, in no case and in no incident: first what concerns a person."""
    async with conn.cursor(row_factory=class_row(TroubleRow)) as cursor:
        await cursor.execute(
            f"{_TROUBLE} WHERE NOT case_over AND case_id IS NULL AND incident_id IS NULL AND cleared_at IS NULL "
            "ORDER BY o.cause NOT IN ('wander', 'inactivity'), o.id LIMIT %s",
            (limit,),
        )
        return await cursor.fetchall()


async def unsettled(conn: Connection, *, limit: int) -> list[TroubleRow]:
    """Return troubles that are over, or part of an incident, and whose own case is still to be closed."""
    async with conn.cursor(row_factory=class_row(TroubleRow)) as cursor:
        await cursor.execute(
            f"{_TROUBLE} WHERE NOT case_over AND case_id IS NOT NULL "
            "AND (cleared_at IS NOT NULL OR incident_id IS NOT NULL) ORDER BY o.id LIMIT %s",
            (limit,),
        )
        return await cursor.fetchall()


async def cased(conn: Connection, cases: Mapping[int, UUID]) -> None:
    """Note in which case each trouble is; one that is over meanwhile has a case to be closed."""
    await conn.execute(
        "UPDATE trouble SET case_id = new.case_id, case_over = false "
        "FROM unnest(%b::bigint[], %b::uuid[]) AS new (id, case_id) WHERE trouble.id = new.id",
        (list(cases), list(cases.values())),
    )


async def over(conn: Connection, troubles: Sequence[int]) -> None:
    """Note that no case is left to be closed for these. One that goes on in an incident has no case of its own."""
    await conn.execute(
        "UPDATE trouble SET case_over = true WHERE id = ANY(%b)",
        (list(troubles),),
    )


async def recase(conn: Connection, *, after: timedelta) -> int:
    """Let troubles that go on count as untold again when people closed their case more than `after` ago."""
    cursor = await conn.execute(
        """
        UPDATE trouble o SET case_id = NULL, case_over = false FROM cases c
        WHERE o.cleared_at IS NULL AND o.incident_id IS NULL AND c.id = o.case_id AND c.state = 'closed'
          AND c.closed_at <= onekey_now() - %s
        """,
        (after,),
    )
    return cursor.rowcount


async def raised_by(conn: Connection, terminals: Sequence[str]) -> list[OpenCase]:
    """Return the open technical cases of terminals."""
    cursor = await conn.execute(
        """
        SELECT c.terminal_id, c.kinds[1], c.id,
               (SELECT max(received_at) FROM alarm a WHERE a.case_id = c.id AND a.transport <> 'supervision')
        FROM cases c WHERE c.class = 'technical' AND c.state = 'open' AND c.terminal_id = ANY(%b)
        """,
        (list(terminals),),
    )
    return [
        OpenCase(terminal=terminal, kind=kind, case_id=case, raised_at=at)
        for terminal, kind, case, at in await cursor.fetchall()
    ]


# Areas and incidents


async def write_areas(
    conn: Connection, *, site: str, district: str, areas: Mapping[UUID, tuple[str, bytes]], key: UUID
) -> None:
    """Store areas of a site, id to kind and sealed words."""
    await conn.execute(
        """
        INSERT INTO area (id, site_id, district, kind, sealed, key_id)
        SELECT id, %b, %b, kind, sealed, %b FROM unnest(%b::uuid[], %b::text[], %b::bytea[]) AS new (id, kind, sealed)
        ON CONFLICT (id) DO NOTHING
        """,
        (
            site,
            district,
            key,
            list(areas),
            [kind for kind, _ in areas.values()],
            [sealed for _, sealed in areas.values()],
        ),
    )


async def write_members(conn: Connection, households: Sequence[str], members: Sequence[tuple[str, UUID]]) -> None:
    """Let `households` be in the areas of `members` and in no others."""
    await conn.execute("DELETE FROM household_area WHERE household_id = ANY(%b)", (list(households),))
    await conn.execute(
        "INSERT INTO household_area (household_id, area_id) SELECT * FROM unnest(%b::text[], %b::uuid[]) "
        "ON CONFLICT DO NOTHING",
        ([home for home, _ in members], [area for _, area in members]),
    )


async def crowds(conn: Connection, *, cause: str, since: datetime, least: int, share: float) -> list[AreaRow]:
    """Return areas in which many terminals came into the same trouble since `since`: that with the most first.

    That is at least `least` of them, and `share` of all that are supervised there; of two with as many it is the
    smaller. The whole of a site is an area without id, and comes before all others if it counts three times `least`.
    Those that are in an incident already count for no other but that; where one goes on, every further one does.
    """
    async with conn.cursor(row_factory=class_row(AreaRow)) as cursor:
        await cursor.execute(
            """
            WITH fresh AS (
                SELECT o.household_id, o.incident_id, o.since, t.site_id, t.district
                FROM trouble o JOIN terminal t ON t.uid = o.terminal_uid
                WHERE o.cause = %(cause)s AND o.cleared_at IS NULL AND o.found_at >= %(since)s
            ), going_on AS (
                SELECT site_id, area_id FROM incident WHERE cause = %(cause)s AND cleared_at IS NULL
            ), here AS (
                SELECT ha.area_id, count(*) AS troubled, min(f.since) AS since
                FROM fresh f JOIN household_area ha USING (household_id) WHERE f.incident_id IS NULL
                GROUP BY ha.area_id HAVING count(*) >= %(least)s OR ha.area_id IN (SELECT area_id FROM going_on)
            ), sites AS (
                SELECT site_id, min(district) AS district, count(*) AS troubled, min(since) AS since
                FROM fresh GROUP BY site_id HAVING count(*) FILTER (WHERE incident_id IS NULL) > 0
                AND (count(*) >= 3 * %(least)s OR site_id IN (SELECT site_id FROM going_on WHERE area_id IS NULL))
            ), found AS (
                SELECT h.area_id, a.kind, a.site_id, a.district, h.troubled, h.since,
                       (SELECT count(*) FROM household_area x JOIN assignment s ON s.household_id = x.household_id
                                AND s.until IS NULL
                        WHERE x.area_id = h.area_id) AS of_all
                FROM here h JOIN area a ON a.id = h.area_id
                UNION ALL
                SELECT NULL, NULL, site_id, district, troubled, since,
                       (SELECT count(*) FROM assignment s JOIN terminal t ON t.uid = s.terminal_uid
                        WHERE s.until IS NULL AND t.site_id = sites.site_id)
                FROM sites
            )
            SELECT area_id, site_id, district, troubled::int, of_all::int, since FROM found
            WHERE troubled >= %(share)s * of_all
               OR EXISTS (SELECT FROM going_on g
                          WHERE g.site_id = found.site_id AND g.area_id IS NOT DISTINCT FROM found.area_id)
            ORDER BY area_id IS NOT NULL, troubled DESC, of_all,
                     array_position(ARRAY['building', 'feeder', 'cell', 'street'], kind), area_id
            """,
            {"cause": cause, "since": since, "least": least, "share": share},
        )
        return await cursor.fetchall()


async def fresh_cells(conn: Connection, *, since: datetime, least: int) -> list[tuple[str, str, str]]:
    """Return radio cells in which at least `least` terminals were lost since `since`: site, district and cell."""
    cursor = await conn.execute(
        """
        SELECT t.site_id, min(t.district), s.cell
        FROM trouble o JOIN terminal t ON t.uid = o.terminal_uid
        JOIN terminal_state s ON s.terminal_uid = o.terminal_uid
        WHERE o.cause = 'offline' AND o.cleared_at IS NULL AND o.found_at >= %s AND s.cell IS NOT NULL
        GROUP BY t.site_id, s.cell HAVING count(*) >= %s
        """,
        (since, least),
    )
    return await cursor.fetchall()


async def write_cell(conn: Connection, area: UUID, *, site: str, cell: str) -> None:
    """Let the area of a radio cell hold the homes of those terminals that reported from it last."""
    await conn.execute("DELETE FROM household_area WHERE area_id = %s", (area,))
    await conn.execute(
        """
        INSERT INTO household_area (household_id, area_id)
        SELECT DISTINCT a.household_id, %s::uuid FROM terminal_state s JOIN terminal t ON t.uid = s.terminal_uid
        JOIN assignment a ON a.terminal_uid = t.uid AND a.until IS NULL WHERE s.cell = %s AND t.site_id = %s
        """,
        (area, cell, site),
    )


async def start_incident(conn: Connection, area: AreaRow, *, cause: str, since: datetime, least: int) -> int | None:
    """Begin an incident, or go on with the one that is there, and put the troubles of its area into it.

    One of a whole site takes those of its areas over. Returns its id, or None when others have taken so many of its
    troubles meanwhile that it is none.
    """
    values = {"cause": cause, "since": since, "site": area.site_id, "area": area.area_id}
    known = await (
        await conn.execute(
            "SELECT id FROM incident WHERE site_id = %(site)s AND area_id IS NOT DISTINCT FROM %(area)s::uuid "
            "AND cause = %(cause)s AND cleared_at IS NULL",
            values,
        )
    ).fetchone()
    whole = area.area_id is None
    free = f"""
        o.cause = %(cause)s AND o.cleared_at IS NULL AND o.found_at >= %(since)s AND t.uid = o.terminal_uid
        AND t.site_id = %(site)s AND {"true" if whole else "o.incident_id IS NULL"}
        AND (%(area)s::uuid IS NULL
             OR o.household_id IN (SELECT household_id FROM household_area WHERE area_id = %(area)s))
    """  # noqa: S608
    if known is None:
        row = await (
            await conn.execute(f"SELECT count(*) FROM trouble o, terminal t WHERE {free}", values)  # noqa: S608
        ).fetchone()
        if row is None or row[0] < least:
            return None
        known = await (
            await conn.execute(
                "INSERT INTO incident (area_id, site_id, district, cause, since, members, of_all) "
                "VALUES (%s, %s, %s, %s, %s, 0, %s) RETURNING id",
                (area.area_id, area.site_id, area.district, cause, area.since, area.of_all),
            )
        ).fetchone()
        assert known is not None
    values["incident"] = known[0]
    await conn.execute(
        f"UPDATE trouble o SET incident_id = %(incident)s FROM terminal t "  # noqa: S608
        f"WHERE {free} AND o.incident_id IS DISTINCT FROM %(incident)s",
        values,
    )
    await conn.execute(
        """
        UPDATE incident i SET of_all = %s, members = greatest(members, (SELECT count(*) FROM trouble o
            WHERE o.incident_id = i.id AND o.cleared_at IS NULL)) WHERE id = %s
        """,
        (area.of_all, known[0]),
    )
    return int(known[0])


async def thinned(conn: Connection, *, share: float) -> list[int]:
    """Return open incidents of which no more than `share` of the members are still in trouble."""
    cursor = await conn.execute(
        """
        SELECT i.id FROM incident i
        WHERE i.cleared_at IS NULL
          AND (SELECT count(*) FROM trouble o WHERE o.incident_id = i.id AND o.cleared_at IS NULL)
              <= %s * i.members
        """,
        (share,),
    )
    return [incident for (incident,) in await cursor.fetchall()]


async def end_incidents(conn: Connection, incidents: Sequence[int]) -> None:
    """End incidents. Whoever is still in trouble is on its own again, and will have a case of its own."""
    await conn.execute("UPDATE incident SET cleared_at = onekey_now() WHERE id = ANY(%b)", (list(incidents),))
    await conn.execute(
        """
        UPDATE trouble SET incident_id = NULL, case_id = NULL, case_over = false
        WHERE incident_id = ANY(%b) AND cleared_at IS NULL
        """,
        (list(incidents),),
    )


async def unsettled_incidents(conn: Connection, *, limit: int) -> list[IncidentRow]:
    """Return incidents without a case, and those that are over and whose case is still to be closed."""
    async with conn.cursor(row_factory=class_row(IncidentRow)) as cursor:
        await cursor.execute(
            """
            SELECT i.id, i.area_id, i.site_id, a.kind, a.sealed, i.cause, i.since, i.members, i.of_all,
                   i.cleared_at IS NOT NULL AS cleared, i.case_id
            FROM incident i LEFT JOIN area a ON a.id = i.area_id
            WHERE NOT i.case_over AND (i.case_id IS NULL OR i.cleared_at IS NOT NULL) ORDER BY i.id LIMIT %s
            """,
            (limit,),
        )
        return await cursor.fetchall()


async def incident_cased(conn: Connection, incident: int, case: UUID) -> None:
    """Note in which case an incident is told."""
    await conn.execute("UPDATE incident SET case_id = %s WHERE id = %s", (case, incident))


async def incident_over(conn: Connection, incident: int) -> None:
    """Note that no case is left to be closed for an incident."""
    await conn.execute("UPDATE incident SET case_over = true WHERE id = %s", (incident,))


# Tracking


async def to_track(conn: Connection) -> list[tuple[UUID, str, int]]:
    """Return open emergencies whose terminal is to report its place more often now: case, terminal, seconds."""
    cursor = await conn.execute(
        """
        SELECT c.id, c.terminal_id, (w.profile ->> 'track_s')::int
        FROM cases c JOIN terminal t ON t.public_id = c.terminal_id JOIN watch w ON w.terminal_uid = t.uid
        WHERE c.state = 'open' AND c.class = 'emergency' AND w.profile ->> 'track_s' IS NOT NULL
          AND NOT EXISTS (SELECT FROM tracking k WHERE k.case_id = c.id AND k.terminal_id = c.terminal_id)
        """
    )
    return await cursor.fetchall()


async def tracked_enough(conn: Connection) -> list[tuple[UUID, str, int]]:
    """Return what was tracked for cases that are closed: case, terminal, and the usual seconds between two places.

    A terminal that another open case has tracked as well is left out.
    """
    cursor = await conn.execute(
        """
        SELECT k.case_id, k.terminal_id, coalesce((w.profile ->> 'fix_s')::int, 600)
        FROM tracking k JOIN cases c ON c.id = k.case_id JOIN terminal t ON t.public_id = k.terminal_id
        LEFT JOIN watch w ON w.terminal_uid = t.uid
        WHERE k.ended_at IS NULL AND c.state = 'closed' AND NOT EXISTS (
            SELECT FROM tracking o JOIN cases oc ON oc.id = o.case_id
            WHERE o.terminal_id = k.terminal_id AND o.ended_at IS NULL AND oc.state <> 'closed')
        """
    )
    return await cursor.fetchall()


async def track(conn: Connection, case: UUID, terminal: str) -> None:
    """Note that a terminal was told to report its place more often."""
    await conn.execute(
        "INSERT INTO tracking (case_id, terminal_id) VALUES (%s, %s) ON CONFLICT DO NOTHING", (case, terminal)
    )


async def end_tracking(conn: Connection, terminal: str) -> None:
    """Note that it was told to report as usual."""
    await conn.execute(
        "UPDATE tracking SET ended_at = onekey_now() WHERE terminal_id = %s AND ended_at IS NULL", (terminal,)
    )
