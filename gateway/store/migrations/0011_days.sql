-- Telemetry by day (D1): a day is a table, made when its first row comes and dropped whole when it is too old. With
-- TimescaleDB chunks do the same by themselves; the functions below are there either way.

CREATE FUNCTION telemetry_days(wanted date[]) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    t text;
    day date;
    part text;
BEGIN
    FOREACH t IN ARRAY ARRAY['heartbeat', 'fix', 'terminal_event'] LOOP
        CONTINUE WHEN NOT EXISTS (SELECT FROM pg_partitioned_table WHERE partrelid = t::regclass);
        FOREACH day IN ARRAY wanted LOOP
            part := format('%s_%s', t, to_char(day, 'YYYYMMDD'));
            CONTINUE WHEN to_regclass(format('public.%I', part)) IS NOT NULL;
            PERFORM pg_advisory_xact_lock(hashtext('telemetry_days'));
            CONTINUE WHEN to_regclass(format('public.%I', part)) IS NOT NULL;
            -- Made beside its parent and attached: whoever writes to other days goes on meanwhile.
            EXECUTE format('CREATE TABLE public.%I (LIKE public.%I INCLUDING ALL)', part, t);
            EXECUTE format('ALTER TABLE public.%I ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)', t, part,
                           day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC');
            EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON public.%I TO onekey_runtime', part);
        END LOOP;
    END LOOP;
END $$;

-- Drops the oldest day before `before` of one of the tables and returns its name, or NULL when there is none. It waits
-- for writers a tenth of a second at most, so that none waits behind it for longer; lock_not_available: try again.
CREATE FUNCTION telemetry_forget(before date) RETURNS text LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp SET lock_timeout = '100ms' AS $$
DECLARE
    t text;
    part text;
BEGIN
    IF EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') THEN
        FOREACH t IN ARRAY ARRAY['heartbeat', 'fix', 'terminal_event'] LOOP
            EXECUTE format('SELECT drop_chunks(%L, older_than => %L::timestamptz)', t, before::timestamp AT TIME ZONE 'UTC');
        END LOOP;
        RETURN NULL;
    END IF;
    SELECT c.relname INTO part FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent IN ('heartbeat'::regclass, 'fix'::regclass, 'terminal_event'::regclass)
      AND c.relname ~ '_[0-9]{8}$' AND right(c.relname, 8) < to_char(before, 'YYYYMMDD')
      AND i.inhparent IN (SELECT partrelid FROM pg_partitioned_table)
    ORDER BY right(c.relname, 8), c.relname LIMIT 1;
    IF part IS NOT NULL THEN
        EXECUTE format('DROP TABLE public.%I', part);
    END IF;
    RETURN part;
END $$;

-- Compresses what lies before `before`, by terminal, and returns how many chunks that were. Only TimescaleDB can.
CREATE FUNCTION telemetry_compress(before date) RETURNS integer LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    t text;
    compressed integer := 0;
    here integer;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') THEN
        RETURN 0;
    END IF;
    FOREACH t IN ARRAY ARRAY['heartbeat', 'fix', 'terminal_event'] LOOP
        EXECUTE format('SELECT count(compress_chunk(format(''%%I.%%I'', chunk_schema, chunk_name)::regclass))
                        FROM timescaledb_information.chunks
                        WHERE hypertable_name = %L AND NOT is_compressed AND range_end <= %L::timestamptz',
                       t, before::timestamp AT TIME ZONE 'UTC') INTO here;
        compressed := compressed + here;
    END LOOP;
    RETURN compressed;
END $$;

DO $$
DECLARE
    t text;
BEGIN
    IF EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') THEN
        FOREACH t IN ARRAY ARRAY['heartbeat', 'fix', 'terminal_event'] LOOP
            EXECUTE format('ALTER TABLE %I SET (timescaledb.compress, timescaledb.compress_segmentby = ''terminal_uid'',
                                                timescaledb.compress_orderby = ''at'')', t);
        END LOOP;
    END IF;
END $$;

REVOKE EXECUTE ON FUNCTION telemetry_days(date[]), telemetry_forget(date), telemetry_compress(date) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION telemetry_days(date[]), telemetry_forget(date), telemetry_compress(date) TO onekey_runtime;

-- What lay in one heap until now moves to its days.
DO $$
DECLARE
    t text;
    days date[];
BEGIN
    FOREACH t IN ARRAY ARRAY['heartbeat', 'fix', 'terminal_event'] LOOP
        CONTINUE WHEN to_regclass(format('public.%I', t || '_rest')) IS NULL;
        EXECUTE format('ALTER TABLE %I DETACH PARTITION %I', t, t || '_rest');
        EXECUTE format('SELECT coalesce(array_agg(DISTINCT (at AT TIME ZONE ''UTC'')::date), ''{}'') FROM %I', t || '_rest')
            INTO days;
        PERFORM telemetry_days(days);
        EXECUTE format('INSERT INTO %I SELECT * FROM %I', t, t || '_rest');
        EXECUTE format('DROP TABLE %I', t || '_rest');
    END LOOP;
END $$;

-- The newest state is written with every report: room on the page keeps its index out of it.
ALTER TABLE terminal_state SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);
