-- Rollups of telemetry: battery, signal and presence by the hour, the way of each day. With TimescaleDB the hours are a
-- continuous aggregate, without it a table of the same columns; both are made by the gateway, for what has changed.

CREATE TABLE rollup_wanted (                         -- what has changed since it was rolled up
    series  text NOT NULL CHECK (series IN ('heartbeat', 'fix')),
    bucket  timestamptz NOT NULL,                    -- the hour of heartbeats, the day (UTC) of positions
    changes bigint NOT NULL DEFAULT 1,               -- goes up with each batch, so that none is overlooked
    PRIMARY KEY (series, bucket)
) WITH (fillfactor = 50);

DO $$
DECLARE
    query text := $q$
        SELECT terminal_uid, %1$s AS hour, count(*) AS beats,
               sum(battery_pct)::bigint AS battery_sum, count(battery_pct) AS battery_n, min(battery_pct) AS battery_min,
               sum(signal_dbm)::bigint AS signal_sum, count(signal_dbm) AS signal_n, min(signal_dbm) AS signal_min,
               bool_and(mains) AS mains
        FROM heartbeat $q$;
BEGIN
    IF EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') THEN
        EXECUTE 'CREATE MATERIALIZED VIEW heartbeat_hourly WITH (timescaledb.continuous, timescaledb.materialized_only = true)
            AS ' || format(query, 'time_bucket(interval ''1 hour'', at)')
            || ' GROUP BY terminal_uid, time_bucket(interval ''1 hour'', at) WITH NO DATA';
    ELSE
        EXECUTE 'CREATE TABLE heartbeat_hourly AS ' || format(query, 'date_bin(interval ''1 hour'', at, ''2020-01-01Z'')')
            || ' GROUP BY 1, 2 WITH NO DATA';
        ALTER TABLE heartbeat_hourly ADD PRIMARY KEY (terminal_uid, hour);
        CREATE INDEX ON heartbeat_hourly (hour);
        GRANT SELECT, INSERT, UPDATE, DELETE ON heartbeat_hourly TO onekey_runtime;
    END IF;
END $$;

CREATE TABLE movement_daily (                        -- a lag over rows, which no continuous aggregate can have
    terminal_uid uuid NOT NULL,
    day          date NOT NULL,
    points       integer NOT NULL,
    distance_m   double precision NOT NULL,
    PRIMARY KEY (terminal_uid, day)
);
CREATE INDEX ON movement_daily (day);

-- Rolls up the heartbeats of one hour. What became empty meanwhile is not there any more afterwards.
CREATE PROCEDURE rollup_hour(wanted timestamptz) LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM heartbeat_hourly h WHERE h.hour = wanted;
    INSERT INTO heartbeat_hourly
    SELECT terminal_uid, wanted, count(*), sum(battery_pct), count(battery_pct), min(battery_pct),
           sum(signal_dbm), count(signal_dbm), min(signal_dbm), bool_and(mains)
    FROM heartbeat WHERE at >= wanted AND at < wanted + interval '1 hour' GROUP BY terminal_uid;
END $$;

-- Adds up the way of one day in metres. A step counts that is longer than its two ends are uncertain, and no faster
-- than a car: a position beside the house is no walk.
CREATE PROCEDURE rollup_day(wanted date) LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM movement_daily m WHERE m.day = wanted;
    INSERT INTO movement_daily
    SELECT terminal_uid, wanted, count(*),
           coalesce(sum(metres) FILTER (WHERE metres > unsure AND metres <= 60 * seconds), 0)
    FROM (
        SELECT terminal_uid, 2 * 6371000 * asin(least(1, sqrt(
                   power(sin(radians(lat - before_lat) / 2), 2)
                   + cos(radians(lat)) * cos(radians(before_lat)) * power(sin(radians(lon - before_lon) / 2), 2)))) AS metres,
               coalesce(accuracy_m, 20) + coalesce(before_accuracy, 20) AS unsure,
               extract(epoch FROM at - before_at) AS seconds
        FROM (SELECT terminal_uid, at, lat, lon, accuracy_m,
                     lag(lat) OVER way AS before_lat, lag(lon) OVER way AS before_lon, lag(at) OVER way AS before_at,
                     lag(accuracy_m) OVER way AS before_accuracy
              FROM fix
              WHERE at >= wanted::timestamp AT TIME ZONE 'UTC' AND at < (wanted + 1)::timestamp AT TIME ZONE 'UTC'
                AND datum = 'wgs84' AND source IN ('gnss', 'wifi')
              WINDOW way AS (PARTITION BY terminal_uid ORDER BY at, boot, seq)) AS steps) AS lengths
    GROUP BY terminal_uid;
END $$;

-- Forgets the rollups of one hour or day after the other before `before`, and returns how many rows that were.
CREATE FUNCTION rollups_forget(before timestamptz) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    gone bigint := 0;
    ways bigint;
BEGIN
    IF EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') THEN
        PERFORM drop_chunks('heartbeat_hourly', older_than => before);
    ELSE
        DELETE FROM heartbeat_hourly WHERE hour = (SELECT min(hour) FROM heartbeat_hourly) AND hour < before;
        GET DIAGNOSTICS gone = ROW_COUNT;
    END IF;
    DELETE FROM movement_daily WHERE day = (SELECT min(day) FROM movement_daily) AND day < before::date;
    GET DIAGNOSTICS ways = ROW_COUNT;
    RETURN gone + ways;
END $$;
REVOKE EXECUTE ON FUNCTION rollups_forget(timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION rollups_forget(timestamptz) TO onekey_runtime;

INSERT INTO rollup_wanted (series, bucket)
    SELECT DISTINCT 'heartbeat', date_bin(interval '1 hour', at, '2020-01-01Z') FROM heartbeat
    UNION SELECT DISTINCT 'fix', date_bin(interval '1 day', at, '2020-01-01Z') FROM fix;

GRANT SELECT, INSERT, UPDATE, DELETE ON rollup_wanted, movement_daily TO onekey_runtime;
GRANT SELECT ON heartbeat_hourly TO onekey_runtime;
