-- The proof of what happened: signed checkpoints of the chains, who saw personal data, and what an erasure takes along.

-- ------------------------------------------------------------------ checkpoints

CREATE TABLE checkpoint (                            -- append-only; the line is what is signed and kept elsewhere
    number bigint PRIMARY KEY CHECK (number > 0),
    at     timestamptz NOT NULL,
    line   text NOT NULL
);

-- Which cases a checkpoint names is read from the signed line itself, so that no second table can say otherwise.
CREATE FUNCTION checkpoint_cases(line text) RETURNS uuid[] LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS
$$ SELECT coalesce(array_agg((head->>0)::uuid), '{}') FROM jsonb_array_elements(line::jsonb->'heads') AS head $$;
CREATE INDEX ON checkpoint USING gin (checkpoint_cases(line));

CREATE TABLE chain_growth (case_id uuid NOT NULL);   -- a row whenever a chain grew, until the next checkpoint takes it
CREATE FUNCTION note_growth() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO chain_growth SELECT DISTINCT case_id FROM added;
    RETURN NULL;
END $$;
CREATE TRIGGER journal_grows AFTER INSERT ON journal REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION note_growth();
INSERT INTO chain_growth SELECT id FROM cases WHERE journal_n > 0;

-- ------------------------------------------------------------------ who saw personal data (R22)

CREATE TABLE disclosure (                            -- append-only: the first time; entry n of the case's journal says so
    case_id uuid NOT NULL,
    who     text NOT NULL,                           -- api:KEY, party:ID, cli
    what    text NOT NULL CHECK (what IN ('case', 'answer_page', 'report')),
    level   text NOT NULL,
    n       integer NOT NULL,
    at      timestamptz NOT NULL,
    PRIMARY KEY (case_id, who, what, level)
);

CREATE TABLE disclosure_due (                        -- somebody held the case's row: to be journaled when it is free
    case_id uuid NOT NULL,
    who     text NOT NULL,
    what    text NOT NULL,
    level   text NOT NULL,
    health  boolean NOT NULL,
    at      timestamptz NOT NULL DEFAULT onekey_now(),
    PRIMARY KEY (case_id, who, what, level)
);

-- ------------------------------------------------------------------ erasure (D15)

CREATE INDEX ON cases (key_id);
CREATE INDEX ON event (case_id) WHERE data ? 'location';

-- The service may not change answers. This it may: take the free text out of those of a person who was erased.
CREATE FUNCTION forget_answers(erased text) RETURNS void LANGUAGE sql SECURITY DEFINER
    SET search_path = public, pg_temp AS
$$
    UPDATE answer SET reason = NULL, by_whom = NULL
    WHERE (reason IS NOT NULL OR by_whom IS NOT NULL) AND leg_id IN (
        SELECT leg.id FROM person p JOIN data_key k ON k.id = p.key_id
        JOIN cases c ON c.key_id = k.id OR c.household_id = p.household_id
        JOIN leg ON leg.case_id = c.id
        WHERE p.id = erased AND k.wrapped IS NULL AND c.state = 'closed' AND c.opened_at <= k.erased_at
    )
$$;
REVOKE ALL ON FUNCTION forget_answers(text) FROM PUBLIC;

-- ------------------------------------------------------------------ rights of the service

GRANT SELECT, INSERT ON checkpoint, disclosure TO onekey_runtime;
GRANT SELECT, INSERT, DELETE ON chain_growth, disclosure_due TO onekey_runtime;
GRANT EXECUTE ON FUNCTION forget_answers(text) TO onekey_runtime;
