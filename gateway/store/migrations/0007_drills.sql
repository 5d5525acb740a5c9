-- Drills (演练, R23): planned, scored, and never in the way of a real press.

CREATE TABLE drill (
    id           uuid PRIMARY KEY,
    site_id      text NOT NULL REFERENCES site,
    district     text NOT NULL,
    title        text NOT NULL,
    terminals    text[] NOT NULL CHECK (cardinality(terminals) > 0),   -- whose presses, injected or made by hand, count
    participants text[] NOT NULL CHECK (cardinality(participants) > 0), -- parties that are told; nobody else is
    scenario     jsonb NOT NULL DEFAULT '[]',        -- [{"after_s", "terminal", "kinds"}]: presses that are injected
    lasts        interval NOT NULL CHECK (lasts > interval '0' AND lasts <= interval '1 day'),
    -- planned -> running -> ended;  planned -> ended (called off)
    state        text NOT NULL DEFAULT 'planned' CHECK (state IN ('planned', 'running', 'ended')),
    injected     integer NOT NULL DEFAULT 0,         -- presses of the scenario made so far
    created_at   timestamptz NOT NULL DEFAULT onekey_now(),
    created_by   text NOT NULL,
    started_at   timestamptz,
    ended_at     timestamptz,
    ended_by     text,
    CHECK ((state = 'running' OR state = 'ended' AND started_at IS NOT NULL) = (started_at IS NOT NULL)),
    CHECK ((state = 'ended') = (ended_at IS NOT NULL))
);
CREATE INDEX ON drill (created_at DESC, id DESC);
CREATE INDEX drill_running ON drill (started_at) WHERE state = 'running';

ALTER TABLE cases
    ADD drill_id uuid REFERENCES drill,
    ADD taking_part text[],                          -- who of its parties takes part in the drill; NULL: no drill
    ADD CHECK ((drill_id IS NULL) = (taking_part IS NULL)),
    ADD CHECK (drill_id IS NULL OR test);
CREATE INDEX ON cases (drill_id) WHERE drill_id IS NOT NULL;
ALTER TABLE alarm ADD drill_id uuid REFERENCES drill;
ALTER TABLE test_window ADD drill_id uuid REFERENCES drill;

GRANT SELECT, INSERT, UPDATE ON drill TO onekey_runtime;
