-- Alarms that wait to be stored because others go first: safe here, so that the broker can forget them meanwhile.

CREATE TABLE inbox (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    worker      bigint NOT NULL,                     -- who stores it; when that one is dead, whoever finds it
    topic       text NOT NULL,
    payload     bytea NOT NULL,
    received_at timestamptz NOT NULL,
    retained    boolean NOT NULL,
    kept_at     timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Its rows live for seconds, thousands at a time: it is to be cleaned long before a fifth of it is dead.
ALTER TABLE inbox SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

GRANT SELECT, INSERT, UPDATE, DELETE ON inbox TO onekey_runtime;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO onekey_runtime;
