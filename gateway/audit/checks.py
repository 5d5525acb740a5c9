"""What the auditor looks for, each as one statement over all cases under watch: open ones and those just closed.

Every statement returns the same columns: kind, case, site, district, the row it is about, and a detail that holds ids,
counts and times only. ``%(late)s`` is the time by which whatever was due should have happened.
"""

# ruff: noqa: S608 # the statements are put together from constants of this module alone

__all__ = ["CHECKS", "RUNS", "SHORT", "STEPS", "WATCHED_CASES"]

# What is closed for long is many times more than what is open: whatever is looked at begins here, by index.
_COLUMNS = """id, site_id, district, household_id, class, state, drill_id, kinds, urgency, begun_urgency, opened_at,
        owner, owned_at, safe_at, closed_at, closed_by, outcome, journal_n, journal_head,
        array_to_string(plans, ' ') AS together"""
_WATCHED = f"""
    watched AS MATERIALIZED (
        SELECT {_COLUMNS} FROM cases WHERE state <> 'closed'
        UNION ALL
        SELECT {_COLUMNS} FROM cases WHERE state = 'closed' AND closed_at > %(recent)s
    )
"""

_ASKED = """
    asked AS MATERIALIZED (
        SELECT * FROM unnest(%(sites)s::text[], %(together)s::text[], %(roles)s::text[], %(plans)s::text[],
                             %(graded)s::bool[], %(times)s::int[], %(again_s)s::float8[], %(within_s)s::float8[])
            AS asked (site_id, together, role, plan, graded, times, again_s, within_s)
    )
"""

_NAMED = """
    named AS MATERIALIZED (
        SELECT * FROM unnest(%(plan_sites)s::text[], %(plan_names)s::text[], %(procedures)s::text[],
                             %(countdowns_s)s::float8[])
            AS named (site_id, plan, procedure, countdown_s)
    )
"""

CASES = f"""
    WITH {_WATCHED}
    SELECT 'owner_without_time', id, site_id, district, '', '{{}}'::jsonb
    FROM watched WHERE owner IS NOT NULL AND owned_at IS NULL
    UNION ALL
    SELECT 'closed_incomplete', id, site_id, district, '', jsonb_build_object('since', closed_at, 'missing',
        concat_ws(', ', CASE WHEN outcome IS NULL THEN 'outcome' END, CASE WHEN closed_by IS NULL THEN 'closed_by' END,
                  CASE WHEN class = 'emergency' AND safe_at IS NULL THEN 'safe_at' END))
    FROM watched
    WHERE state = 'closed' AND (outcome IS NULL OR closed_by IS NULL OR class = 'emergency' AND safe_at IS NULL)
    ORDER BY 2 LIMIT %(limit)s
"""

TWO_EMERGENCIES = """
    SELECT 'two_emergencies', (array_agg(id ORDER BY opened_at DESC))[1], min(site_id), min(district), subject,
           jsonb_build_object('since', max(opened_at), 'cases', count(*))
    FROM cases WHERE state = 'open' AND class = 'emergency' GROUP BY subject HAVING count(*) > 1
    ORDER BY subject LIMIT %(limit)s
"""

ASLEEP = """
    SELECT 'case_asleep', id, site_id, district, '', jsonb_build_object('since', wake_at)
    FROM cases WHERE wake_at < %(late)s ORDER BY wake_at LIMIT %(limit)s
"""

OBLIGATIONS = f"""
    WITH {_ASKED}, {_NAMED}, {_WATCHED}, wanted AS MATERIALIZED (
        SELECT site_id, together, array_agg(role) AS roles, array_agg(role) FILTER (WHERE NOT graded) AS whole
        FROM asked GROUP BY site_id, together
    ), called AS MATERIALIZED (
        SELECT c.*, w.roles AS wanted, w.whole, l.roles, l.parties, l.reached
        FROM watched c LEFT JOIN wanted w ON w.site_id = c.site_id AND w.together = c.together
        CROSS JOIN LATERAL (
            SELECT array_agg(role) AS roles, array_agg(role || ' ' || coalesce(party_id, '')) AS parties,
                   bool_or(delivered_at IS NOT NULL OR state IN ('answered', 'refused')) AS reached
            FROM leg WHERE case_id = c.id) l
    ), own AS MATERIALIZED (
        -- Only where the directory had not been changed for long: who came later need not have been told, and a file
        -- counts as applied from when that began.
        SELECT c.*, h.own FROM called c CROSS JOIN LATERAL (
            SELECT array_agg(q.role || ' ' || q.id) AS own
            FROM household_party h JOIN party q ON q.id = h.party_id AND q.active AND q.role = ANY (c.whole)
            WHERE h.household_id = c.household_id) h
        WHERE c.state <> 'closed' AND EXISTS (
            SELECT FROM site s WHERE s.id = c.site_id AND s.applied_at < c.opened_at - interval '1 hour')
          AND NOT h.own <@ coalesce(c.parties, '{{}}')
    ), found AS (
        SELECT 'no_legs' AS kind, id, site_id, district, opened_at, NULL AS plan, NULL AS role, NULL AS party
        FROM called WHERE roles IS NULL
        UNION ALL
        SELECT 'nobody_reached', id, site_id, district, opened_at, NULL, NULL, NULL
        FROM called c
        WHERE state = 'open' AND class = 'emergency' AND opened_at < %(now)s - interval '15 seconds'
          AND reached IS NOT TRUE
          -- A fall can be cancelled for a while before anybody is told.
          AND (kinds <> '{{fall}}' OR opened_at < %(now)s - interval '15 seconds' - interval '1 second' * coalesce(
              (SELECT max(countdown_s) FROM named p
               WHERE p.site_id = c.site_id AND p.plan = ANY (string_to_array(c.together, ' '))), 0))
        UNION ALL
        SELECT 'role_without_leg', c.id, c.site_id, c.district, c.opened_at, a.plan, a.role, NULL
        FROM called c JOIN asked a ON a.site_id = c.site_id AND a.together = c.together
        WHERE c.state <> 'closed' AND NOT c.wanted <@ coalesce(c.roles, '{{}}')
          AND a.role <> ALL (coalesce(c.roles, '{{}}'))
        UNION ALL
        SELECT 'party_without_leg', c.id, c.site_id, c.district, c.opened_at, a.plan, a.role, split_part(party, ' ', 2)
        FROM own c CROSS JOIN LATERAL unnest(c.own) AS party
        JOIN asked a ON a.site_id = c.site_id AND a.together = c.together AND a.role = split_part(party, ' ', 1)
        WHERE party <> ALL (coalesce(c.parties, '{{}}'))
    )
    SELECT kind, id, site_id, district, concat_ws(' ', role, party),
           jsonb_strip_nulls(jsonb_build_object('since', opened_at, 'plan', plan, 'role', role, 'party', party))
    FROM found ORDER BY opened_at, id, role LIMIT %(limit)s
"""

LEGS = f"""
    WITH {_ASKED}, {_WATCHED}, open_leg AS MATERIALIZED (
        SELECT l.id, l.case_id, l.role, l.party_id, l.state, l.armed_at, l.calls, l.overdue_at, l.created_at,
               (l.ladder->>'times')::int AS times, (l.ladder->>'again_s')::float8 AS again_s,
               (l.ladder->>'within_s')::float8 AS within_s, c.state AS case_state, c.closed_at, c.site_id, c.district,
               a.plan, a.times AS asked_times, a.again_s AS asked_again_s, a.within_s AS asked_within_s
        FROM leg l JOIN watched c ON c.id = l.case_id
        -- Where several plans call a role, which of them counts is a rule of theirs; one plan alone is plain.
        LEFT JOIN asked a ON a.site_id = c.site_id AND a.together = c.together AND a.role = l.role
            AND l.origin = 'plan' AND c.state <> 'closed' AND (c.class = 'emergency' OR c.drill_id IS NOT NULL)
        WHERE l.state IN ('pending', 'delivered') AND l.party_id IS NOT NULL
    ), amiss AS (
        SELECT *, case_state <> 'closed' AND state = 'pending' AND NOT EXISTS (
                      SELECT FROM notice n WHERE n.leg_id = l.id
                      AND (n.state = 'due' OR n.state = 'sent' AND n.ended_at >= l.armed_at)) AS silent,
               case_state = 'open' AND calls < times AND again_s > 0
                   AND armed_at + again_s * calls * interval '1 second' < %(late)s AS uncalled,
               case_state = 'open' AND overdue_at IS NULL AND within_s > 0
                   AND armed_at + within_s * interval '1 second' < %(late)s AS unanswered,
               case_state = 'closed' AND closed_at < %(late)s AS unclosed,
               asked_times IS NOT NULL AND (asked_times, asked_again_s, asked_within_s)
                   IS DISTINCT FROM (times, again_s, within_s) AS differs
        FROM open_leg l
    )
    SELECT v.kind, a.case_id, a.site_id, a.district, a.id::text, jsonb_strip_nulls(jsonb_build_object(
        'since', v.since, 'leg', a.id, 'role', a.role, 'party', a.party_id,
        'call', CASE v.kind WHEN 'call_missing' THEN a.calls + 1 END,
        'plan', CASE v.kind WHEN 'ladder_differs' THEN a.plan END))
    FROM amiss a CROSS JOIN LATERAL (VALUES
        ('leg_without_call', a.silent, a.armed_at),
        ('call_missing', a.uncalled, a.armed_at + a.again_s * a.calls * interval '1 second'),
        ('deadline_missing', a.unanswered, a.armed_at + a.within_s * interval '1 second'),
        ('leg_open_after_closure', a.unclosed, a.closed_at),
        ('ladder_differs', a.differs, a.created_at)
    ) v (kind, holds, since)
    WHERE (a.silent OR a.uncalled OR a.unanswered OR a.unclosed OR a.differs) AND v.holds
    ORDER BY a.created_at, a.id LIMIT %(limit)s
"""

NOTICES = """
    SELECT v.kind, c.id, c.site_id, c.district, n.leg_id::text,
           jsonb_build_object('since', min(n.due_at), 'leg', n.leg_id, 'role', min(l.role), 'party', min(n.party_id),
                              'notices', count(*))
    FROM notice n JOIN cases c ON c.id = n.case_id JOIN leg l ON l.id = n.leg_id LEFT JOIN worker w ON w.id = n.worker
    CROSS JOIN LATERAL (VALUES
        ('notice_late',
         (c.state <> 'closed' OR n.reason = 'closed') AND n.due_at < CASE
            WHEN n.worker IS NULL THEN %(late)s
            -- Its worker is dead, and that for five seconds after its lease of two was over.
            WHEN w.id IS NULL OR w.seen_at < clock_timestamp() - interval '7 seconds' THEN %(now)s
            -- A text waits for a modem, and a call for its end.
            WHEN EXISTS (SELECT FROM phone_out o WHERE o.notice_id = n.id AND o.state IN ('queued', 'sending'))
                THEN %(now)s - interval '3 minutes'
            ELSE %(now)s - interval '15 seconds' END),
        ('due_after_closure', c.state = 'closed' AND n.reason <> 'closed')
    ) v (kind, holds)
    WHERE n.state = 'due' AND v.holds
    GROUP BY v.kind, c.id, n.leg_id
    ORDER BY min(n.due_at), n.leg_id LIMIT %(limit)s
"""

SENT = f"""
    WITH {_WATCHED}
    SELECT 'sent_after_closure', c.id, c.site_id, c.district, n.leg_id::text,
           jsonb_build_object('since', min(a.started_at), 'leg', n.leg_id, 'role', min(l.role),
                              'party', min(l.party_id), 'attempts', count(*))
    FROM watched c JOIN notice n ON n.case_id = c.id JOIN attempt a ON a.notice_id = n.id JOIN leg l ON l.id = n.leg_id
    WHERE c.state = 'closed' AND n.reason NOT IN ('closed', 'withdrawn')
      -- What was on its way when the case was closed is no fault, nor are clocks that differ a little.
      AND a.started_at > c.closed_at + interval '2 seconds'
    GROUP BY c.id, c.site_id, c.district, n.leg_id
    UNION ALL
    SELECT v.kind, c.id, c.site_id, c.district, l.id::text,
           jsonb_build_object('since', min(a.started_at), 'leg', l.id, 'role', l.role, 'party', l.party_id)
    FROM watched w JOIN cases c ON c.id = w.id JOIN leg l ON l.case_id = c.id JOIN attempt a ON a.leg_id = l.id
    CROSS JOIN LATERAL (SELECT CASE
        WHEN l.party_id = ANY (c.taking_part) THEN NULL
        WHEN l.role IN ('ambulance_120', 'fire_119', 'police_110') THEN 'test_woke_rescue'
        WHEN c.drill_id IS NOT NULL THEN 'drill_told_others' END AS kind) v
    WHERE (w.class = 'test' OR w.drill_id IS NOT NULL) AND v.kind IS NOT NULL
    GROUP BY v.kind, c.id, c.site_id, c.district, l.id
    UNION ALL
    SELECT 'progress_after_closure', c.id, c.site_id, c.district, p.id::text,
           jsonb_build_object('since', p.sent_at, 'progress', p.state)
    FROM watched c JOIN progress p ON p.case_id = c.id
    WHERE c.state = 'closed' AND p.state <> 'closed' AND p.sent_at > c.closed_at
    ORDER BY 2, 5 LIMIT %(limit)s
"""

RUN_MISSING = f"""
    WITH {_NAMED}, missing AS MATERIALIZED (
        SELECT c.id, c.site_id, c.district, c.opened_at, v.procedure
        FROM cases c CROSS JOIN LATERAL (
            SELECT procedure FROM named p
            WHERE p.site_id = c.site_id AND p.plan = ANY (c.plans) AND procedure IS NOT NULL
              AND NOT EXISTS (SELECT FROM run r WHERE r.case_id = c.id AND r.procedure = p.procedure)
            UNION
            SELECT '' WHERE c.class = 'emergency' AND NOT EXISTS (SELECT FROM run r WHERE r.case_id = c.id)
              AND NOT EXISTS (SELECT FROM named p WHERE p.site_id = c.site_id AND p.plan = ANY (c.plans)
                              AND procedure IS NOT NULL)
        ) v
        WHERE c.state <> 'closed' AND c.opened_at < %(late)s
          AND (NOT c.test OR c.drill_id IS NOT NULL)  -- a mere test begins none
    )
    SELECT CASE m.procedure WHEN '' THEN 'no_procedure' ELSE 'run_missing' END, m.id, m.site_id, m.district,
           m.procedure, jsonb_build_object('since', m.opened_at, 'procedure', m.procedure)
    FROM missing m
    -- Another press may just have brought another plan.
    WHERE NOT EXISTS (SELECT FROM alarm a WHERE a.case_id = m.id AND a.stored_at >= %(late)s)
    ORDER BY m.opened_at, m.id, m.procedure LIMIT %(limit)s
"""

STEP_LATE = """
    SELECT 'step_late', s.case_id, c.site_id, c.district, s.id::text,
           jsonb_build_object('since', s.due_at, 'step', s.name, 'procedure', r.procedure)
    FROM step s JOIN run r ON r.id = s.run_id JOIN cases c ON c.id = s.case_id
    WHERE s.state = 'open' AND s.due_at < %(late)s AND s.breached_at IS NULL
    ORDER BY s.due_at, s.id LIMIT %(limit)s
"""

JOURNAL = f"""
    WITH {_WATCHED}, counted AS MATERIALIZED (
        SELECT c.id, c.site_id, c.district, c.opened_at, c.journal_n, j.entries,
               (SELECT hash FROM journal WHERE case_id = c.id AND n = c.journal_n)
                   IS DISTINCT FROM c.journal_head AS other
        FROM watched c CROSS JOIN LATERAL (SELECT count(*) AS entries FROM journal WHERE case_id = c.id) j
    )
    SELECT 'journal_broken', id, site_id, district, '', jsonb_build_object('expected', journal_n, 'entries', entries)
    FROM counted WHERE entries <> journal_n OR other
    ORDER BY opened_at, id LIMIT %(limit)s
"""

GATEWAYS = """
    WITH alive AS (
        -- The beat of a worker is the database's own clock, whatever time a test plays.
        SELECT status FROM worker WHERE seen_at > clock_timestamp() - interval '5 seconds'
    )
    SELECT 'nobody_runs', NULL::uuid, NULL::text, NULL::text, '', '{}'::jsonb
    WHERE NOT EXISTS (SELECT FROM alive) AND (
        EXISTS (SELECT FROM notice WHERE state = 'due' AND due_at < %(now)s - interval '5 seconds')
        -- The first one by the index: a planner that only asks for any would look for it through all that is closed.
        OR (SELECT min(wake_at) FROM cases) < %(now)s - interval '5 seconds'
        OR EXISTS (SELECT FROM inbox WHERE received_at < %(now)s - interval '5 seconds'))
    UNION ALL
    SELECT 'alarms_wait', NULL, NULL, NULL, '', '{}'
    WHERE EXISTS (SELECT FROM alive) AND EXISTS (SELECT FROM inbox WHERE received_at < %(now)s - interval '60 seconds')
    UNION ALL
    SELECT 'alarms_unheard', NULL, NULL, NULL, '', '{}'
    FROM alive HAVING count(*) > 0 AND bool_and(status ? 'alarms' AND status->>'alarms' <> 'true')
    UNION ALL
    SELECT 'terminals_unheard', NULL, NULL, NULL, '', jsonb_build_object('since', swept_at)
    FROM hearing WHERE swept_at < %(now)s - interval '60 seconds' AND EXISTS (SELECT FROM alive)
"""

PHONES = """
    SELECT 'phone_unheard', NULL::uuid, NULL::text, NULL::text, 'phone',
           jsonb_build_object('since', min(received_at), 'messages', count(*))
    FROM phone_in
    -- What waits for its other parts has a little longer.
    WHERE state <> 'handled' AND received_at < %(now)s - CASE state WHEN 'new' THEN interval '30 seconds'
                                                         ELSE interval '3 minutes' END
    HAVING count(*) > 0 LIMIT %(limit)s
"""

CHECKS = {
    "cases": CASES,
    "two_emergencies": TWO_EMERGENCIES,
    "asleep": ASLEEP,
    "obligations": OBLIGATIONS,
    "legs": LEGS,
    "notices": NOTICES,
    "sent": SENT,
    "runs": RUN_MISSING,
    "deadlines": STEP_LATE,
    "journal": JOURNAL,
    "gateways": GATEWAYS,
    "phones": PHONES,
}

# Procedures: what is known of each run in short, without the times, and then of few of them whole, for `steps`.

SHORT = f"""
    WITH {_WATCHED}
    SELECT r.id, r.procedure, r.version,
           concat_ws(chr(30), 'started', CASE WHEN c.state = 'closed' AND NOT r.after_closure THEN 'closed' END,
               CASE WHEN c.owned_at IS NOT NULL THEN 'owned' END, CASE WHEN c.safe_at IS NOT NULL THEN 'safe' END,
               CASE WHEN c.urgency > c.begun_urgency THEN 'pressed_again' END,
               (SELECT string_agg(fact || ' ' || role, chr(30) ORDER BY fact, role) FROM fact WHERE case_id = c.id)),
           (SELECT string_agg(concat_ws(chr(31), name, state, started_at IS NOT NULL, due_at IS NOT NULL,
                              breached_at IS NOT NULL, result), chr(30) ORDER BY name)
            FROM step s WHERE s.run_id = r.id)
    FROM watched c JOIN run r ON r.case_id = c.id
    WHERE r.ended_at IS NULL
"""

RUNS = """
    SELECT r.id, r.case_id, c.site_id, c.district, r.procedure, r.version, r.started_at,
           CASE WHEN NOT r.after_closure THEN c.closed_at END, c.owned_at, c.safe_at,
           CASE WHEN c.urgency > c.begun_urgency THEN (SELECT max(stored_at) FROM alarm a WHERE a.case_id = c.id) END,
           f.facts, f.at
    FROM run r JOIN cases c ON c.id = r.case_id
    CROSS JOIN LATERAL (SELECT array_agg(fact || ' ' || role ORDER BY at, fact) AS facts,
                               array_agg(at ORDER BY at, fact) AS at FROM fact WHERE case_id = c.id) f
    WHERE r.id = ANY (%(runs)s)
"""

STEPS = """
    SELECT run_id, name, state, planned_at, started_at IS NOT NULL, due_at, breached_at IS NOT NULL, ended_at, result
    FROM step WHERE run_id = ANY (%(runs)s)
"""

WATCHED_CASES = f"WITH {_WATCHED} SELECT count(*) FROM watched"
