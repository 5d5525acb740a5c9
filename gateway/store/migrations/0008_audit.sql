-- The auditor (I3): what it found amiss, and that it looked. No key points into the cases: looking locks no row.

CREATE TABLE finding (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key        text NOT NULL,                        -- kind, case and row: the same in every round while it holds
    kind       text NOT NULL,
    case_id    uuid,
    site_id    text,                                 -- NULL: it concerns every site
    district   text,
    words      jsonb NOT NULL,                       -- one sentence in zh and en, without anything personal
    detail     jsonb NOT NULL,                       -- ids, counts and times
    first_seen timestamptz NOT NULL,
    last_seen  timestamptz NOT NULL,
    raised_at  timestamptz,                          -- since when people are told; NULL: it may still pass by itself
    cleared_at timestamptz,
    told_at    timestamptz,                          -- when the fallback took the newest word of it
    over_told_at timestamptz,                        -- and when the word that it is over
    audit_case uuid,                                 -- the technical case in which it was raised
    cased_at   timestamptz
);
CREATE UNIQUE INDEX finding_open ON finding (key) WHERE cleared_at IS NULL;
CREATE INDEX finding_recent ON finding (cleared_at) WHERE cleared_at IS NOT NULL;
CREATE INDEX finding_uncased ON finding (id) WHERE raised_at IS NOT NULL AND audit_case IS NULL;
CREATE INDEX finding_untold ON finding (id) WHERE told_at IS NOT NULL AND cleared_at IS NOT NULL AND over_told_at IS NULL;

CREATE TABLE audit_run (                             -- one row: the newest round; that it is there says that one is expected
    one      boolean PRIMARY KEY DEFAULT true CHECK (one),
    at       timestamptz NOT NULL,
    took_ms  double precision NOT NULL,
    cases    integer NOT NULL,
    findings integer NOT NULL,                       -- raised and not over
    deaf     text[] NOT NULL DEFAULT '{}'            -- sites whose fallback has no webhook: nobody can be told directly
);

-- What a round looks at beside the open cases.
CREATE INDEX cases_closed ON cases (closed_at) WHERE state = 'closed';
CREATE INDEX run_going_on ON run (case_id) WHERE ended_at IS NULL;

GRANT SELECT, INSERT, UPDATE ON finding TO onekey_runtime;
GRANT SELECT, INSERT, UPDATE, DELETE ON audit_run TO onekey_runtime;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO onekey_runtime;
