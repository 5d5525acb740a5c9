-- Supervision: who should have been heard by now, what is wrong with a terminal, and what many have in common.

-- The steady time of the last sign of life: no step of the wall clock moves it (see gateway/supervise/clock.py).
ALTER TABLE terminal_state ADD heard_at timestamptz, ADD kept boolean NOT NULL DEFAULT false, ADD cell text,
    ADD clock_good_at timestamptz,                   -- steady: when its clock was last seen to be right
    -- when each of these was said: reports that come in another order say the same in the end
    ADD battery_pct_at timestamptz, ADD signal_dbm_at timestamptz, ADD mains_at timestamptz,
    ADD firmware_at timestamptz, ADD cell_at timestamptz;
UPDATE terminal_state SET heard_at = seen_at, battery_pct_at = status_at, signal_dbm_at = status_at,
    mains_at = status_at, firmware_at = status_at;
ALTER TABLE terminal_state ALTER heard_at SET NOT NULL;
CREATE INDEX terminal_state_cell ON terminal_state (cell) WHERE cell IS NOT NULL;

ALTER TABLE cases ADD begun_urgency integer NOT NULL DEFAULT 1;   -- 2 in the midst of an incident

CREATE INDEX cases_open_technical ON cases (terminal_id) WHERE class = 'technical' AND state = 'open';

CREATE TABLE watch (                                 -- one row per terminal that is supervised or was
    terminal_uid uuid PRIMARY KEY REFERENCES terminal,
    -- its profile, from its model and its settings
    silent_after interval NOT NULL CHECK (silent_after > interval '0'),
    late_after   interval NOT NULL CHECK (late_after > interval '0'),
    profile      jsonb NOT NULL,                     -- thresholds, see gateway/domain/supervision.py
    since        timestamptz NOT NULL,               -- steady: when it began to be supervised here
    -- what is known
    state        text NOT NULL DEFAULT 'never_seen' CHECK (state IN ('never_seen', 'online', 'late', 'offline', 'back')),
    state_since  timestamptz NOT NULL,
    memory       jsonb NOT NULL DEFAULT '{}',        -- what a look has to know of the looks before
    said         jsonb NOT NULL DEFAULT '{}',        -- newest events that say how it is: name to value and time
    battery_days real,                               -- forecast: days until the battery is empty
    care         bytea,                              -- fences and rests of its household, sealed under its key
    care_key     uuid REFERENCES data_key,
    -- when it is looked at next: by the clock, or woken by a report that trips one of these wires
    look_at      timestamptz NOT NULL,
    daily_at     timestamptz NOT NULL,
    calm         boolean NOT NULL DEFAULT false,     -- nothing but time and the wires matters
    battery_from smallint, battery_to smallint,      -- the battery is in [from, to)
    signal_from  smallint, signal_to smallint,
    skew_from    double precision, skew_to double precision,
    mains        boolean,
    firmware     text
) WITH (fillfactor = 80);
CREATE INDEX watch_look ON watch (look_at);

CREATE TABLE area (                                  -- what terminals have in common: a building, a street, a feeder, a cell
    id       uuid PRIMARY KEY,                       -- made from its words under a key of ours
    site_id  text NOT NULL REFERENCES site,
    district text NOT NULL,
    kind     text NOT NULL CHECK (kind IN ('building', 'street', 'feeder', 'cell')),
    sealed   bytea NOT NULL,                         -- its words, under the key of the site
    key_id   uuid NOT NULL REFERENCES data_key
);
CREATE TABLE household_area (
    household_id text NOT NULL REFERENCES household,
    area_id      uuid NOT NULL REFERENCES area,
    PRIMARY KEY (household_id, area_id)
);
CREATE INDEX ON household_area (area_id);

CREATE TABLE incident (                              -- many terminals of one area in the same trouble at once
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    area_id    uuid REFERENCES area,                 -- NULL: a whole site
    site_id    text NOT NULL REFERENCES site,
    district   text NOT NULL,
    cause      text NOT NULL,
    since      timestamptz NOT NULL,
    found_at   timestamptz NOT NULL DEFAULT onekey_now(),
    cleared_at timestamptz,
    members    integer NOT NULL,                     -- at the most
    of_all     integer NOT NULL,                     -- terminals that are supervised there
    case_id    uuid REFERENCES cases,
    case_over  boolean NOT NULL DEFAULT false        -- its case is closed, by us or by people
);
CREATE UNIQUE INDEX incident_open ON incident (site_id, coalesce(area_id, '00000000-0000-0000-0000-000000000000'), cause)
    WHERE cleared_at IS NULL;
CREATE INDEX incident_unsettled ON incident (id) WHERE case_id IS NULL OR NOT case_over;

CREATE TABLE trouble (                               -- what was or is wrong with one terminal
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    terminal_uid uuid NOT NULL REFERENCES terminal,
    household_id text REFERENCES household,          -- where it stood then
    district     text NOT NULL,
    cause        text NOT NULL,
    since        timestamptz NOT NULL,               -- when it began: for a silence, when it should have been heard
    found_at     timestamptz NOT NULL DEFAULT onekey_now(),
    cleared_at   timestamptz,
    detail       jsonb NOT NULL DEFAULT '{}',
    incident_id  bigint REFERENCES incident,
    case_id      uuid REFERENCES cases,
    case_over    boolean NOT NULL DEFAULT false
);
CREATE UNIQUE INDEX trouble_open ON trouble (terminal_uid, cause) WHERE cleared_at IS NULL;
CREATE INDEX trouble_uncased ON trouble (id)
    WHERE NOT case_over AND case_id IS NULL AND incident_id IS NULL AND cleared_at IS NULL;
CREATE INDEX trouble_unsettled ON trouble (id)
    WHERE NOT case_over AND case_id IS NOT NULL AND (cleared_at IS NOT NULL OR incident_id IS NOT NULL);
CREATE INDEX ON trouble (terminal_uid, found_at DESC);
CREATE INDEX ON trouble (household_id) WHERE cleared_at IS NULL;
CREATE INDEX ON trouble (incident_id) WHERE incident_id IS NOT NULL;
CREATE INDEX ON trouble (district, since) WHERE cause = 'offline';

CREATE TABLE tracking (                              -- terminals that report their place more often while a case is open
    case_id     uuid NOT NULL REFERENCES cases,
    terminal_id text NOT NULL,
    began_at    timestamptz NOT NULL DEFAULT onekey_now(),
    ended_at    timestamptz,
    PRIMARY KEY (case_id, terminal_id)
);
CREATE INDEX tracking_now ON tracking (terminal_id) WHERE ended_at IS NULL;

CREATE TABLE hearing (                               -- one row: up to when everything that terminals said is stored
    one      boolean PRIMARY KEY DEFAULT true CHECK (one),
    horizon  timestamptz NOT NULL,                   -- steady
    boot     text NOT NULL,                          -- which machine's steady time, and which of its starts
    uptime_s double precision NOT NULL,              -- of that machine when it was the horizon
    deaf_from timestamptz, deaf_until timestamptz,   -- the last time in which nobody could listen
    deaf_total boolean NOT NULL DEFAULT false,       -- and no broker kept what came meanwhile
    swept_at timestamptz NOT NULL DEFAULT onekey_now()
);

GRANT SELECT, INSERT, UPDATE, DELETE ON watch, area, household_area, incident, trouble, tracking, hearing TO onekey_runtime;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO onekey_runtime;
