-- Work orders (工单, DB3201/T 1033-2021 appendix C), their inspection, and what figures are counted from.

CREATE TABLE operator (                              -- the name behind a seat number; everything else knows numbers only
    id      text PRIMARY KEY CHECK (id ~ '^[A-Za-z0-9._:@-]{1,64}$'),
    site_id text NOT NULL REFERENCES site,
    sealed  bytea NOT NULL,                          -- name
    key_id  uuid NOT NULL REFERENCES data_key
);

CREATE TABLE work_order (
    id              uuid PRIMARY KEY,                -- derived from the case, or from the call
    site_id         text NOT NULL REFERENCES site,
    district        text NOT NULL,
    case_id         uuid REFERENCES cases,
    origin          text NOT NULL CHECK (origin IN ('case', 'call')),
    kind            text NOT NULL CHECK (kind IN ('emergency_rescue', 'public_service_query', 'referral', 'complaint',
                                                  'institution_query')),
    operator        text,                            -- seat number
    called_at       timestamptz NOT NULL,
    reply_needed    boolean,                         -- NULL: nobody said yet
    replied_at      timestamptz,
    rating          smallint CHECK (rating BETWEEN 1 AND 5),    -- from 3 on it counts as satisfied
    rating_asked_at timestamptz,
    rating_asked_by text,
    edited          boolean NOT NULL DEFAULT false,  -- the processing record is an operator's, no longer the journal's
    over            boolean NOT NULL,                -- what it is about has ended: from then on it is to be complete
    missing         text[] NOT NULL,                 -- required fields that are not filled
    accurate        boolean,                         -- the newest judgement of an inspector
    sealed          bytea NOT NULL,                  -- everything personal
    key_id          uuid NOT NULL REFERENCES data_key,
    version         integer NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT onekey_now(),
    updated_at      timestamptz NOT NULL DEFAULT onekey_now(),
    completed_at    timestamptz,
    completed_by    text,
    run_id          uuid REFERENCES run,             -- the complaint's procedure where it runs in the case …
    procedure       text,                            -- … and where it runs for the work order alone
    procedure_version integer,
    procedure_since timestamptz,                     -- its deadlines count from here
    wake_at         timestamptz,
    CHECK (origin <> 'case' OR case_id IS NOT NULL),
    CHECK (kind NOT IN ('emergency_rescue', 'referral', 'complaint') OR reply_needed),
    CHECK ((completed_at IS NULL) = (completed_by IS NULL)),
    CHECK ((procedure IS NULL) = (procedure_version IS NULL) AND (procedure IS NULL) = (procedure_since IS NULL)),
    FOREIGN KEY (procedure, procedure_version) REFERENCES procedure
);
CREATE UNIQUE INDEX work_order_of_case ON work_order (case_id) WHERE origin = 'case';
CREATE INDEX ON work_order (case_id);
CREATE INDEX ON work_order (called_at DESC, id DESC);
CREATE INDEX ON work_order (operator, called_at DESC, id DESC);
CREATE UNIQUE INDEX ON work_order (run_id) WHERE run_id IS NOT NULL;
CREATE INDEX ON work_order (wake_at) WHERE wake_at IS NOT NULL;

CREATE TABLE work_order_step (                       -- a procedure of a work order without a case, as table step
    id            uuid PRIMARY KEY,
    work_order_id uuid NOT NULL REFERENCES work_order,
    district      text NOT NULL,
    name          text NOT NULL,
    seat          text CHECK (seat IN ('A', 'B', 'first', 'supervisor')),
    state         text NOT NULL CHECK (state IN ('open', 'done', 'skipped', 'cancelled')),
    planned_at    timestamptz NOT NULL,
    started_at    timestamptz,
    due_at        timestamptz,
    breached_at   timestamptz,
    ended_at      timestamptz,
    result        text,
    by_whom       text,
    UNIQUE (work_order_id, name),
    CHECK ((state = 'open') = (ended_at IS NULL)),
    CHECK ((state = 'done') = (result IS NOT NULL))
);
CREATE INDEX work_order_step_open ON work_order_step (due_at) WHERE state = 'open';

CREATE TABLE judgement (                             -- append-only: an inspector compared a work order with what was
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    work_order_id uuid NOT NULL REFERENCES work_order,
    version       integer NOT NULL,                  -- of the work order that was judged
    accurate      boolean NOT NULL,
    inspector     text NOT NULL,
    sealed        bytea NOT NULL,                    -- remarks
    key_id        uuid NOT NULL REFERENCES data_key,
    at            timestamptz NOT NULL DEFAULT onekey_now()
);
CREATE INDEX ON judgement (work_order_id);

CREATE TABLE inspection (                            -- a sample that was drawn; the same question draws it no second time
    id           uuid PRIMARY KEY,
    seed         text NOT NULL,
    first_day    date NOT NULL,
    last_day     date NOT NULL,
    district     text,
    operator     text,
    per_operator integer NOT NULL CHECK (per_operator > 0),
    drawn_by     text NOT NULL,
    drawn_at     timestamptz NOT NULL DEFAULT onekey_now()
);
CREATE TABLE inspection_item (
    inspection_id uuid NOT NULL REFERENCES inspection,
    work_order_id uuid NOT NULL REFERENCES work_order,
    position      integer NOT NULL,
    PRIMARY KEY (inspection_id, work_order_id)
);

ALTER TABLE IF EXISTS disclosure DROP CONSTRAINT disclosure_what_check;
ALTER TABLE IF EXISTS disclosure ADD CONSTRAINT disclosure_what_check
    CHECK (what IN ('case', 'answer_page', 'report', 'work_order'));

ALTER TABLE cases ADD false_alarm text CHECK (
    false_alarm IN ('accidental', 'child', 'device_fault', 'test_unannounced', 'pet', 'unknown', 'other'));
UPDATE cases SET false_alarm = 'other' WHERE outcome = 'false_alarm';

-- When a responsible human first confirmed: who owns the case, or a role that knows, is on its way or is there. Kept with
-- the case, since looking it up for every case of a year takes longer than all other figures together.
ALTER TABLE cases ADD human_at timestamptz;
UPDATE cases c SET human_at = least(c.owned_at, (SELECT min(f.at) FROM fact f
    WHERE f.case_id = c.id AND f.fact IN ('informed', 'dispatched', 'on_scene')));
CREATE FUNCTION human_owns() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.human_at := least(NEW.human_at, NEW.owned_at);
    RETURN NEW;
END $$;
CREATE TRIGGER case_owned BEFORE UPDATE OF owned_at ON cases FOR EACH ROW EXECUTE FUNCTION human_owns();
CREATE FUNCTION human_confirms() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE cases SET human_at = NEW.at WHERE id = NEW.case_id AND (human_at IS NULL OR human_at > NEW.at);
    RETURN NULL;
END $$;
CREATE TRIGGER fact_confirms AFTER INSERT ON fact FOR EACH ROW
    WHEN (NEW.fact IN ('informed', 'dispatched', 'on_scene')) EXECUTE FUNCTION human_confirms();

-- What figures are counted from.
CREATE INDEX cases_of_site ON cases (site_id, received_at);
CREATE INDEX work_order_of_site ON work_order (site_id, called_at);
CREATE INDEX step_breached ON step (case_id) WHERE breached_at IS NOT NULL;
CREATE INDEX step_follow_up ON step (case_id) INCLUDE (state, due_at, ended_at, breached_at)
    WHERE name = 'follow-up';

GRANT SELECT, INSERT, UPDATE, DELETE ON operator TO onekey_runtime;
GRANT SELECT, INSERT, UPDATE ON work_order, work_order_step TO onekey_runtime;
GRANT SELECT, INSERT ON judgement, inspection, inspection_item TO onekey_runtime;
