-- Procedures: what runs by the clock in a case, who owes what by when, and what is known of the rescue.

-- Time is an argument (D9): whoever sets onekey.now in a session plays weeks in seconds on the real tables.
CREATE FUNCTION onekey_now() RETURNS timestamptz LANGUAGE sql VOLATILE PARALLEL RESTRICTED AS
$$ SELECT coalesce(nullif(current_setting('onekey.now', true), '')::timestamptz, clock_timestamp()) $$;

ALTER TABLE cases ALTER opened_at SET DEFAULT onekey_now();
ALTER TABLE alarm ALTER stored_at SET DEFAULT onekey_now();
ALTER TABLE leg ALTER created_at SET DEFAULT onekey_now();
ALTER TABLE notice ALTER queued_at SET DEFAULT onekey_now(), ALTER due_at SET DEFAULT onekey_now();
ALTER TABLE answer ALTER at SET DEFAULT onekey_now();
ALTER TABLE event ALTER at SET DEFAULT onekey_now();

ALTER TABLE plan ADD procedure text, ADD details jsonb NOT NULL DEFAULT '{}';

CREATE TABLE procedure (                             -- what once ran never changes
    id       text NOT NULL CHECK (id ~ '^[a-z0-9][a-z0-9-]{0,63}$'),
    version  integer NOT NULL CHECK (version > 0),
    body     jsonb NOT NULL,
    added_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (id, version)
);

CREATE TABLE run (
    id         uuid PRIMARY KEY,
    case_id    uuid NOT NULL REFERENCES cases,
    procedure  text NOT NULL,
    version    integer NOT NULL,
    started_at timestamptz NOT NULL,
    ended_at   timestamptz,
    after_closure boolean NOT NULL DEFAULT false,    -- as for a complaint: the closure of the case ends none of it
    UNIQUE (case_id, procedure),
    FOREIGN KEY (procedure, version) REFERENCES procedure
);

CREATE TABLE step (
    id          uuid PRIMARY KEY,
    run_id      uuid NOT NULL REFERENCES run,
    case_id     uuid NOT NULL REFERENCES cases,
    district    text NOT NULL,
    name        text NOT NULL,
    does        text NOT NULL CHECK (does IN ('task', 'tell', 'withdraw', 'command')),
    seat        text CHECK (seat IN ('A', 'B', 'first', 'supervisor')),
    -- open -> done | cancelled;  skipped from the start
    state       text NOT NULL CHECK (state IN ('open', 'done', 'skipped', 'cancelled')),
    planned_at  timestamptz NOT NULL,
    started_at  timestamptz,
    due_at      timestamptz,
    breached_at timestamptz,
    ended_at    timestamptz,
    result      text,
    by_whom     text,
    UNIQUE (run_id, name),
    CHECK ((state = 'open') = (ended_at IS NULL)),
    CHECK ((state = 'done') = (result IS NOT NULL))
);
CREATE INDEX ON step (case_id);
CREATE INDEX step_open ON step (due_at) WHERE state = 'open';

CREATE TABLE fact (                                  -- append-only: who knew or did what first, by role
    case_id uuid NOT NULL REFERENCES cases,
    fact    text NOT NULL CHECK (fact IN ('informed', 'owned', 'dispatched', 'on_scene', 'heard', 'safe')),
    role    text NOT NULL,                           -- whom it is about
    by_whom text NOT NULL,                           -- who says so: party:ID, operator:SEAT, terminal:ID
    at      timestamptz NOT NULL DEFAULT onekey_now(),
    PRIMARY KEY (case_id, fact, role)
);

CREATE TABLE command (                               -- what a terminal was asked to do (R9)
    id           text PRIMARY KEY,
    case_id      uuid REFERENCES cases,
    step_id      uuid REFERENCES step,
    terminal_id  text NOT NULL,
    name         text NOT NULL,
    arguments    jsonb NOT NULL DEFAULT '{}',
    -- due -> sent -> accepted -> done | failed | refused;  any of the first three -> expired, which an answer still ends
    state        text NOT NULL DEFAULT 'due'
                 CHECK (state IN ('due', 'sent', 'accepted', 'done', 'failed', 'refused', 'expired')),
    queued_at    timestamptz NOT NULL DEFAULT onekey_now(),
    next_at      timestamptz DEFAULT onekey_now(),   -- when it is sent next; NULL: no more
    expires_at   timestamptz NOT NULL,
    answered_at  timestamptz,
    detail       text
);
CREATE INDEX command_next ON command (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX ON command (case_id);

CREATE TABLE progress (                              -- what the person on the floor is told, in the order of events
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    case_id   uuid NOT NULL REFERENCES cases,
    state     text NOT NULL CHECK (state IN ('told', 'coming', 'arrived', 'closed')),
    role      text,
    minutes   integer,
    queued_at timestamptz NOT NULL DEFAULT onekey_now(),
    next_at   timestamptz DEFAULT onekey_now(),      -- when it is sent next; NULL: no more
    sends     integer NOT NULL DEFAULT 0,
    sent_at   timestamptz
);
CREATE INDEX progress_next ON progress (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX ON progress (case_id);

ALTER TABLE cases ADD first_owner text, ADD seat_b text, ADD wake_at timestamptz;
UPDATE cases SET first_owner = owner WHERE owner IS NOT NULL;
UPDATE cases SET wake_at = now() WHERE state <> 'closed';
ALTER TABLE cases ALTER wake_at SET DEFAULT onekey_now();
CREATE INDEX cases_wake ON cases (wake_at) WHERE wake_at IS NOT NULL;

-- Whatever matters to a procedure wakes its case; nobody can forget it.
CREATE FUNCTION wake_case() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.wake_at := onekey_now();
    RETURN NEW;
END $$;
CREATE TRIGGER case_wakes BEFORE UPDATE ON cases FOR EACH ROW
    WHEN ((OLD.state, OLD.urgency, OLD.owner, OLD.plans) IS DISTINCT FROM (NEW.state, NEW.urgency, NEW.owner, NEW.plans))
    EXECUTE FUNCTION wake_case();
CREATE FUNCTION wake_case_of_fact() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE cases SET wake_at = onekey_now() WHERE id = NEW.case_id;
    RETURN NULL;
END $$;
CREATE TRIGGER fact_wakes AFTER INSERT ON fact FOR EACH ROW EXECUTE FUNCTION wake_case_of_fact();

-- How a leg is called on until its own fact is there: the ladder of the plan that the case began with.
ALTER TABLE leg
    ADD ladder jsonb,                                -- NULL: called once
    ADD armed_at timestamptz,                        -- the press, or the end of the delay, that the calls count from
    ADD calls integer NOT NULL DEFAULT 1 CHECK (calls > 0),
    ADD overdue_at timestamptz,                      -- its deadline passed without an answer
    ADD instead_of text;                             -- the role for which this party stepped in
UPDATE leg SET armed_at = created_at;
ALTER TABLE leg ALTER armed_at SET NOT NULL, ALTER armed_at SET DEFAULT onekey_now();
ALTER TABLE leg DROP CONSTRAINT leg_origin_check;
ALTER TABLE leg ADD CONSTRAINT leg_origin_check CHECK (origin IN ('plan', 'fallback', 'procedure', 'stand_in'));
ALTER TABLE notice DROP CONSTRAINT notice_reason_check;
ALTER TABLE notice ADD CONSTRAINT notice_reason_check
    CHECK (reason IN ('alarm', 'fallback', 'procedure', 'stand_in', 'unanswered', 'pressed_again', 'cancelled',
                      'location', 'withdrawn', 'closed'));

-- What was reported as over again, as mains that came back: a case all of whose kinds are over is closed by that.
ALTER TABLE cases ADD restored text[] NOT NULL DEFAULT '{}';

GRANT SELECT, INSERT ON procedure, fact TO onekey_runtime;
GRANT SELECT, INSERT, UPDATE ON run, step, command, progress TO onekey_runtime;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO onekey_runtime;
