-- Core tables. The owner runs this; the service runs as onekey_runtime, which may not touch what was journaled.

CREATE TABLE data_key (
    id         uuid PRIMARY KEY,
    subject    text NOT NULL UNIQUE,                 -- person:ID, household:ID, site:ID
    wrapped    bytea,                                -- under the master key; NULL: erased (D15)
    created_at timestamptz NOT NULL DEFAULT now(),
    erased_at  timestamptz,
    CHECK ((wrapped IS NULL) = (erased_at IS NOT NULL))
);

-- ------------------------------------------------------------------ directory

CREATE TABLE site (
    id         text PRIMARY KEY,
    district   text NOT NULL,
    timezone   text NOT NULL,
    locale     text NOT NULL,
    fallback   text[] NOT NULL CHECK (cardinality(fallback) > 0),   -- D13: nobody is left without legs
    key_id     uuid NOT NULL REFERENCES data_key,
    revision   bigint NOT NULL DEFAULT (random() * 9e18)::bigint,   -- a new one at every change; caches hold by it
    applied_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE site_object (                           -- what a site file created, and thus owns
    site_id text NOT NULL REFERENCES site,
    kind    text NOT NULL,
    id      text NOT NULL,
    sealed  bytea NOT NULL,                          -- its definition as applied
    PRIMARY KEY (site_id, kind, id)
);
CREATE UNIQUE INDEX ON site_object (kind, id) WHERE kind <> 'plan';   -- ids are unique in the whole installation

CREATE TABLE party (
    id       text PRIMARY KEY CHECK (id ~ '^[A-Za-z0-9_-]{1,64}$'),
    site_id  text NOT NULL REFERENCES site,
    district text NOT NULL,
    role     text NOT NULL,
    sealed   bytea NOT NULL,                         -- name, phone, channels with their secrets
    key_id   uuid NOT NULL REFERENCES data_key,
    broker_mac bytea,                                -- password of its platform at the broker
    active   boolean NOT NULL DEFAULT true
);

CREATE TABLE household (
    id       text PRIMARY KEY CHECK (id ~ '^[A-Za-z0-9_-]{1,64}$'),
    site_id  text NOT NULL REFERENCES site,
    district text NOT NULL,
    sealed   bytea NOT NULL,                         -- address
    key_id   uuid NOT NULL REFERENCES data_key,
    active   boolean NOT NULL DEFAULT true
);

CREATE TABLE person (
    id           text PRIMARY KEY CHECK (id ~ '^[A-Za-z0-9_-]{1,64}$'),
    site_id      text NOT NULL REFERENCES site,
    district     text NOT NULL,
    household_id text NOT NULL REFERENCES household,
    position     integer NOT NULL,
    sealed       bytea NOT NULL,                     -- name, birth date, phone, health
    key_id       uuid NOT NULL REFERENCES data_key,
    active       boolean NOT NULL DEFAULT true
);
CREATE INDEX ON person (household_id);

CREATE TABLE household_party (
    household_id text NOT NULL REFERENCES household,
    party_id     text NOT NULL REFERENCES party,
    position     integer NOT NULL,
    PRIMARY KEY (household_id, party_id)
);
CREATE INDEX ON household_party (party_id);

CREATE TABLE terminal (
    uid        uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    public_id  text NOT NULL UNIQUE CHECK (public_id ~ '^[A-Za-z0-9_-]{1,64}$'),
    site_id    text NOT NULL REFERENCES site,
    district   text NOT NULL,
    model      text NOT NULL,
    epoch      integer NOT NULL DEFAULT 1,           -- credential epoch (D10): part of every press's key
    secret_mac bytea,                                -- HMAC-SHA-256 under the pepper (D6)
    active     boolean NOT NULL DEFAULT true
);

CREATE TABLE terminal_address (                      -- IMEI, SIM number, vendor id …: rows of their own, dated
    kind         text NOT NULL,
    address      text NOT NULL,
    terminal_uid uuid NOT NULL REFERENCES terminal,
    since        timestamptz NOT NULL DEFAULT now(),
    until        timestamptz
);
CREATE UNIQUE INDEX ON terminal_address (kind, address) WHERE until IS NULL;
CREATE INDEX ON terminal_address (terminal_uid);

CREATE TABLE assignment (                            -- where a terminal stands, dated: replacing it rewrites no history
    terminal_uid uuid NOT NULL REFERENCES terminal,
    household_id text NOT NULL REFERENCES household,
    since        timestamptz NOT NULL DEFAULT now(),
    until        timestamptz
);
CREATE UNIQUE INDEX ON assignment (terminal_uid) WHERE until IS NULL;
CREATE INDEX ON assignment (household_id);

CREATE TABLE test_window (                           -- D11: a test flag counts only in here
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    terminal_uid uuid NOT NULL REFERENCES terminal,
    opens_at     timestamptz NOT NULL,
    closes_at    timestamptz NOT NULL CHECK (closes_at > opens_at AND closes_at <= opens_at + interval '1 day'),
    reason       text NOT NULL,
    opened_by    text NOT NULL
);
CREATE INDEX ON test_window (terminal_uid, closes_at);

CREATE TABLE plan (
    site_id text NOT NULL REFERENCES site,
    id      text NOT NULL,
    version integer NOT NULL,
    kinds   text[] NOT NULL,
    roles   text[] NOT NULL,
    privacy jsonb NOT NULL DEFAULT '{}',
    current boolean NOT NULL,
    PRIMARY KEY (site_id, id, version)
);
CREATE UNIQUE INDEX ON plan (site_id, id) WHERE current;

-- ------------------------------------------------------------------ cases

CREATE TABLE cases (
    id           uuid PRIMARY KEY,
    subject      text NOT NULL,                      -- household:ID, or terminal:ID while that is unknown
    class        text NOT NULL CHECK (class IN ('emergency', 'service', 'technical', 'test')),
    state        text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'safe', 'closed')),
    district     text NOT NULL,
    site_id      text REFERENCES site,
    household_id text REFERENCES household,
    terminal_id  text,
    kinds        text[] NOT NULL CHECK (cardinality(kinds) > 0),
    urgency      integer NOT NULL DEFAULT 1 CHECK (urgency > 0),
    test         boolean NOT NULL DEFAULT false,
    pressed_at   timestamptz,                        -- the terminal's word, may be wrong
    received_at  timestamptz NOT NULL,               -- ours
    opened_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    location     jsonb,
    problem      text,
    plans        text[] NOT NULL DEFAULT '{}',       -- id@version of the plans it began with
    privacy      jsonb NOT NULL DEFAULT '{}',
    owner        text,
    owned_at     timestamptz,
    safe_at      timestamptz,
    safe_by      text,
    closed_at    timestamptz,
    closed_by    text,
    outcome      text,
    note         text,
    previous     uuid REFERENCES cases,
    key_id       uuid NOT NULL REFERENCES data_key,
    journal_n    integer NOT NULL DEFAULT 0,
    journal_head bytea NOT NULL DEFAULT decode(repeat('00', 32), 'hex'),
    CHECK (state <> 'closed' OR (closed_at IS NOT NULL AND outcome IS NOT NULL)),
    CHECK (class <> 'test' OR test)
);
-- D10: one open case per household and class; an emergency stops being "open" when it is safe.
CREATE UNIQUE INDEX cases_one_open ON cases (subject, class) WHERE state = 'open';
CREATE INDEX ON cases (opened_at DESC, id DESC);
CREATE INDEX ON cases (subject, class, opened_at DESC);
CREATE INDEX ON cases (state, opened_at DESC) WHERE state <> 'closed';
CREATE INDEX ON cases (household_id);

CREATE TABLE alarm (
    id          uuid PRIMARY KEY,
    key         text NOT NULL,
    occurrence  integer NOT NULL,
    case_id     uuid NOT NULL REFERENCES cases DEFERRABLE INITIALLY DEFERRED,
    terminal_uid uuid REFERENCES terminal,
    terminal_id text,
    epoch       integer,
    boot        bigint,
    seq         bigint,
    kinds       text[] NOT NULL,
    test        boolean NOT NULL DEFAULT false,
    pressed_at  timestamptz,
    received_at timestamptz NOT NULL,
    stored_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    transport   text NOT NULL,
    fix         jsonb,
    battery_pct smallint,
    signal_dbm  smallint,
    problems    text[] NOT NULL DEFAULT '{}',
    digest      bytea NOT NULL,
    repeats     integer NOT NULL DEFAULT 0,
    repeated_at timestamptz,
    UNIQUE (key, occurrence)
);
CREATE INDEX ON alarm (case_id);
CREATE INDEX ON alarm (terminal_id, received_at DESC);

CREATE TABLE leg (
    id          uuid PRIMARY KEY,
    case_id     uuid NOT NULL REFERENCES cases DEFERRABLE INITIALLY DEFERRED,
    party_id    text REFERENCES party,
    role        text NOT NULL,
    district    text NOT NULL,
    origin      text NOT NULL CHECK (origin IN ('plan', 'fallback')),
    -- pending -> delivered -> answered | refused;  pending -> failed;  any open one -> withdrawn;  answered -> pending (pressed again)
    state       text NOT NULL CHECK (state IN ('pending', 'delivered', 'answered', 'refused', 'failed', 'withdrawn', 'skipped')),
    channel     integer NOT NULL DEFAULT 0,          -- index of the channel in use
    problem     text,
    notices     integer NOT NULL DEFAULT 0,          -- numbers given out so far
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    delivered_at timestamptz,
    ended_at    timestamptz,
    CHECK ((state IN ('pending', 'delivered')) = (ended_at IS NULL)),
    CHECK (party_id IS NOT NULL OR state IN ('failed', 'skipped', 'withdrawn'))
);
CREATE UNIQUE INDEX ON leg (case_id, role, coalesce(party_id, ''));
CREATE INDEX ON leg (party_id);
CREATE INDEX leg_open ON leg (created_at) WHERE state IN ('pending', 'delivered');

-- I3: a case without obligations cannot be committed.
CREATE FUNCTION case_must_have_legs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM leg WHERE case_id = NEW.id) THEN
        RAISE EXCEPTION 'case % has no legs', NEW.id USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER case_has_legs AFTER INSERT ON cases
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION case_must_have_legs();

CREATE TABLE worker (                                -- a running dispatcher; it also holds an advisory lock on its id
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    seen_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    status     jsonb NOT NULL DEFAULT '{}'
);

CREATE TABLE notice (                                -- the outbox: one message to one party
    id        text PRIMARY KEY,
    leg_id    uuid NOT NULL REFERENCES leg,
    case_id   uuid NOT NULL REFERENCES cases DEFERRABLE INITIALLY DEFERRED,
    party_id  text NOT NULL REFERENCES party,
    number    integer NOT NULL,
    reason    text NOT NULL CHECK (reason IN ('alarm', 'fallback', 'pressed_again', 'location', 'closed')),
    -- due -> sent | failed | cancelled
    state     text NOT NULL DEFAULT 'due' CHECK (state IN ('due', 'sent', 'failed', 'cancelled')),
    channel   integer NOT NULL DEFAULT 0,
    tries     integer NOT NULL DEFAULT 0,            -- on this channel
    queued_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    due_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    worker    bigint,                                -- who is sending it; void when that worker is dead
    ended_at  timestamptz,
    UNIQUE (leg_id, number)
);
CREATE INDEX notice_due ON notice (due_at) WHERE state = 'due';
CREATE INDEX ON notice (case_id);

CREATE TABLE attempt (                               -- append-only
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    notice_id   text NOT NULL REFERENCES notice,
    leg_id      uuid NOT NULL REFERENCES leg,
    channel     text NOT NULL,
    queued_at   timestamptz NOT NULL,
    started_at  timestamptz NOT NULL,
    answered_at timestamptz NOT NULL,
    outcome     text NOT NULL CHECK (outcome IN ('sent', 'try_again', 'give_up')),
    status      integer,
    detail      text
);
CREATE INDEX ON attempt (leg_id);
CREATE INDEX ON attempt (notice_id);

CREATE TABLE answer (                                -- append-only
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    leg_id  uuid NOT NULL REFERENCES leg,
    case_id uuid NOT NULL REFERENCES cases,
    answer  text NOT NULL CHECK (answer IN ('accepted', 'coming', 'arrived', 'cannot')),
    reason  text,
    minutes integer,
    by_whom text,
    via     text NOT NULL,
    at      timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX ON answer (leg_id);

CREATE TABLE journal (                               -- append-only, hash-chained per case (日志链)
    case_id uuid NOT NULL REFERENCES cases DEFERRABLE INITIALLY DEFERRED,
    n       integer NOT NULL CHECK (n > 0),
    at      timestamptz NOT NULL,
    kind    text NOT NULL,
    actor   text NOT NULL,
    sealed  bytea NOT NULL,
    key_id  uuid NOT NULL REFERENCES data_key,
    prev    bytea NOT NULL,
    hash    bytea NOT NULL,
    PRIMARY KEY (case_id, n)
);

-- The stream. `position` is given after the commit, under a lock, so that positions become visible in their order.
CREATE TABLE event (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    position bigint UNIQUE,
    at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    kind     text NOT NULL,
    district text,
    case_id  uuid,
    data     jsonb NOT NULL
);
CREATE INDEX event_unplaced ON event (id) WHERE position IS NULL;
CREATE TABLE event_head (position bigint NOT NULL);
INSERT INTO event_head VALUES (0);

CREATE TABLE quarantine (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    received_at timestamptz NOT NULL,
    transport   text NOT NULL,
    topic       text NOT NULL,
    terminal_id text,
    district    text,
    payload     bytea NOT NULL,
    digest      bytea NOT NULL,
    reason      text NOT NULL,
    copies      integer NOT NULL DEFAULT 1,
    case_id     uuid REFERENCES cases,
    state       text NOT NULL DEFAULT 'kept' CHECK (state IN ('kept', 'replayed', 'dismissed')),
    settled_at  timestamptz,
    settled_by  text
);
CREATE INDEX ON quarantine (received_at DESC);
CREATE INDEX ON quarantine (topic, digest);

CREATE TABLE api_key (
    id         text PRIMARY KEY,
    name       text NOT NULL,
    role       text NOT NULL CHECK (role IN ('admin', 'operator', 'integrator', 'installer')),
    mac        bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    revoked_at timestamptz
);

-- ------------------------------------------------------------------ telemetry

CREATE TABLE terminal_state (                        -- the newest known of each terminal; older reports never overwrite it
    terminal_uid uuid PRIMARY KEY REFERENCES terminal,
    seen_at      timestamptz NOT NULL,
    boot         bigint,
    seq          bigint,
    battery_pct  smallint,
    signal_dbm   smallint,
    mains        boolean,
    firmware     text,
    status_at    timestamptz,
    fix          jsonb,
    fix_at       timestamptz,
    clock_skew_s double precision
);

CREATE TABLE heartbeat (
    at           timestamptz NOT NULL,               -- the terminal's time when sane, else ours
    terminal_uid uuid NOT NULL,
    boot         bigint NOT NULL DEFAULT -1,
    seq          bigint NOT NULL DEFAULT -1,
    received_at  timestamptz NOT NULL,
    battery_pct  smallint,
    battery_mv   integer,
    signal_dbm   smallint,
    mains        boolean,
    uptime_s     bigint,
    temperature_c double precision,
    PRIMARY KEY (terminal_uid, at, boot, seq)        -- a redelivered row does not count twice
) PARTITION BY RANGE (at);

CREATE TABLE fix (
    at           timestamptz NOT NULL,
    terminal_uid uuid NOT NULL,
    boot         bigint NOT NULL DEFAULT -1,
    seq          bigint NOT NULL DEFAULT -1,
    received_at  timestamptz NOT NULL,
    lat          double precision NOT NULL,
    lon          double precision NOT NULL,
    datum        text NOT NULL,
    source       text NOT NULL,
    accuracy_m   double precision,
    PRIMARY KEY (terminal_uid, at, boot, seq)
) PARTITION BY RANGE (at);

CREATE TABLE terminal_event (
    at           timestamptz NOT NULL,
    terminal_uid uuid NOT NULL,
    boot         bigint NOT NULL DEFAULT -1,
    seq          bigint NOT NULL DEFAULT -1,
    received_at  timestamptz NOT NULL,
    name         text NOT NULL,
    value        jsonb,
    PRIMARY KEY (terminal_uid, at, boot, seq, name)
) PARTITION BY RANGE (at);

-- With TimescaleDB these three become hypertables, without it they stay tables partitioned by day. Same columns either way.
DO $$
DECLARE
    t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['heartbeat', 'fix', 'terminal_event'] LOOP
        IF EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') THEN
            EXECUTE format('CREATE TABLE %I_h (LIKE %I INCLUDING ALL)', t, t);
            EXECUTE format('DROP TABLE %I', t);
            EXECUTE format('ALTER TABLE %I_h RENAME TO %I', t, t);
            EXECUTE format('SELECT create_hypertable(%L, %L, chunk_time_interval => interval ''1 day'')', t, 'at');
        ELSE
            EXECUTE format('CREATE TABLE %I_rest PARTITION OF %I DEFAULT', t, t);
        END IF;
    END LOOP;
END $$;

-- ------------------------------------------------------------------ wake-ups

CREATE FUNCTION announce() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify(TG_ARGV[0], '');
    RETURN NULL;
END $$;
CREATE TRIGGER event_announced AFTER INSERT ON event FOR EACH STATEMENT EXECUTE FUNCTION announce('onekey_event');
CREATE TRIGGER notice_announced AFTER INSERT ON notice FOR EACH ROW WHEN (NEW.worker IS NULL)
    EXECUTE FUNCTION announce('onekey_notice');
CREATE TRIGGER terminal_announced AFTER INSERT OR UPDATE OR DELETE ON terminal
    FOR EACH STATEMENT EXECUTE FUNCTION announce('onekey_credential');
CREATE TRIGGER party_announced AFTER INSERT OR UPDATE OR DELETE ON party
    FOR EACH STATEMENT EXECUTE FUNCTION announce('onekey_credential');

-- ------------------------------------------------------------------ rights of the service

GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO onekey_runtime;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO onekey_runtime;
REVOKE UPDATE, DELETE, TRUNCATE ON journal, attempt, answer FROM onekey_runtime;
REVOKE DELETE, TRUNCATE ON cases, alarm, leg, notice, event, quarantine, data_key FROM onekey_runtime;
