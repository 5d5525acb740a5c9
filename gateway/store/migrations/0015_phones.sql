-- Modems: what comes over the phone network, what goes out over it, and how the modems are.

-- Whose numbers these are, as keyed hashes. Numbers of terminals stand in terminal_address.
CREATE TABLE phone_book (
    mac  bytea NOT NULL,
    kind text NOT NULL CHECK (kind IN ('party', 'person')),
    id   text NOT NULL,
    PRIMARY KEY (mac, kind, id)
);
CREATE INDEX ON phone_book (kind, id);
-- Numbers are compared by their last ten digits: see gateway.domain.phones.
CREATE INDEX ON terminal_address (right(regexp_replace(address, '\D', '', 'g'), 10))
    WHERE kind = 'phone' AND until IS NULL;
ALTER TABLE party ADD COLUMN phone_listed boolean NOT NULL DEFAULT false;   -- false: from before there was a book
ALTER TABLE person ADD COLUMN phone_listed boolean NOT NULL DEFAULT false;

CREATE TABLE modem (
    id          text PRIMARY KEY,                    -- its IMEI, or where it is plugged in until that is known
    replica     text NOT NULL,
    path        text NOT NULL,
    state       text NOT NULL,
    problem     text,
    maker       text,
    model       text,
    operator    text,
    signal_dbm  smallint,
    busy        boolean NOT NULL DEFAULT false,
    voice       boolean NOT NULL DEFAULT false,      -- may call people
    since       timestamptz NOT NULL,
    seen_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    heard_at    timestamptz,                         -- when its store of messages was last read
    balance     numeric,
    balance_at  timestamptz,
    trouble     bigint NOT NULL DEFAULT 0,           -- numbers its troubles
    case_id     uuid REFERENCES cases                -- of the trouble that is open
);

CREATE TABLE refused_pin (                           -- PINs that were wrong, with the SIM: never tried again
    mac      bytea PRIMARY KEY,                      -- keyed hash of both
    tried_at timestamptz NOT NULL DEFAULT onekey_now()
);

CREATE TABLE phone_out (                             -- what is to go out: messages and calls
    id         text PRIMARY KEY,
    kind       text NOT NULL CHECK (kind IN ('sms', 'call')),
    notice_id  text REFERENCES notice,
    leg_id     uuid REFERENCES leg,
    case_id    uuid REFERENCES cases,
    step_id    uuid,                                 -- of a procedure that calls the person
    number     integer,                              -- of the notice
    code       text,                                 -- letter by which an answer names the case
    peer       bytea NOT NULL,                       -- keyed hash of the number
    sealed     bytea,                                -- number and text; NULL when it is long over
    key_id     uuid NOT NULL REFERENCES data_key,
    rank       smallint NOT NULL,                    -- calls for help first
    parts      integer NOT NULL DEFAULT 1,
    -- queued -> sending -> sent | failed;  queued -> withdrawn;  sending -> queued (again, or its worker is dead)
    state      text NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'sending', 'sent', 'failed', 'withdrawn')),
    queued_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    due_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    worker     bigint,
    modem      text,
    avoid      text[] NOT NULL DEFAULT '{}',         -- modems that could not
    tries      integer NOT NULL DEFAULT 0,
    started_at timestamptz,
    ended_at   timestamptz,
    progress   text,                                 -- of a call
    keys       text,                                 -- pressed in a call
    report     text CHECK (report IN ('delivered', 'unconfirmed', 'trying', 'failed')),
    report_at  timestamptz,
    detail     text
);
CREATE INDEX phone_out_due ON phone_out (rank, queued_at) WHERE state IN ('queued', 'sending');
CREATE INDEX ON phone_out (peer, queued_at DESC);
CREATE INDEX ON phone_out (leg_id);
CREATE INDEX ON phone_out (queued_at DESC);
CREATE INDEX ON phone_out (ended_at) WHERE sealed IS NOT NULL;

CREATE TABLE phone_part (                            -- each part that the network took, for its status report
    out_id      text NOT NULL REFERENCES phone_out,
    part        integer NOT NULL,
    modem       text NOT NULL,
    reference   smallint NOT NULL,
    sent_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    status      smallint,
    reported_at timestamptz,
    PRIMARY KEY (out_id, part, sent_at)
);
CREATE INDEX ON phone_part (modem, reference, sent_at DESC);
CREATE INDEX ON phone_part (modem, sent_at);

CREATE TABLE phone_in (                              -- as it came, before the modem forgets it (I1)
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind        text NOT NULL CHECK (kind IN ('message', 'report', 'ring')),
    modem       text NOT NULL,
    received_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    peer        bytea,
    sealed      bytea,                               -- as the modem said it; NULL when it is long over
    key_id      uuid NOT NULL REFERENCES data_key,
    digest      bytea NOT NULL,
    occurrence  integer NOT NULL DEFAULT 1,
    forgotten   boolean NOT NULL DEFAULT false,      -- the modem has it no more: the same octets again are another one
    parts       smallint NOT NULL DEFAULT 1,
    part        smallint NOT NULL DEFAULT 1,
    reference   integer,
    state       text NOT NULL DEFAULT 'new' CHECK (state IN ('new', 'waiting', 'handled')),
    outcome     text,
    case_id     uuid REFERENCES cases,
    copies      integer NOT NULL DEFAULT 1,
    tries       integer NOT NULL DEFAULT 0,          -- that failed
    due_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    handled_at  timestamptz,
    UNIQUE (digest, occurrence)
);
CREATE INDEX phone_in_open ON phone_in (id) WHERE state <> 'handled';
CREATE INDEX ON phone_in (peer, received_at DESC);
CREATE INDEX ON phone_in (received_at DESC);

CREATE TRIGGER phone_out_announced AFTER INSERT OR UPDATE OF state ON phone_out
    FOR EACH STATEMENT EXECUTE FUNCTION announce('onekey_phone');

GRANT SELECT, INSERT, UPDATE, DELETE ON phone_book, modem, refused_pin, phone_out, phone_part, phone_in TO onekey_runtime;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO onekey_runtime;
