-- Several gateways share the telemetry: each share is a session at the broker, held by one of them at a time.

CREATE TABLE telemetry_share (
    share   int PRIMARY KEY,
    horizon timestamptz                              -- steady: up to when everything in this share is stored
);

-- What the steady clock of whoever supervises showed, and when by the clock of the database: others go by it.
ALTER TABLE hearing ADD COLUMN steady_at timestamptz, ADD COLUMN said_at timestamptz;

GRANT SELECT, INSERT, UPDATE, DELETE ON telemetry_share TO onekey_runtime;
