-- The first attempt stands in the row of its delivery when the delivery ended with it, as most do: one row instead of
-- two. Further attempts, and the first one of a delivery that stayed open, have rows of their own in `attempts`.
ALTER TABLE deliveries
    ADD COLUMN first_started_at timestamptz,
    ADD COLUMN first_duration_us int8,
    ADD COLUMN first_status_code int2,
    ADD COLUMN first_outcome text,
    ADD COLUMN first_excerpt bytea;

DO $$
BEGIN
    ALTER TABLE deliveries ALTER COLUMN first_excerpt SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN
    RAISE NOTICE 'this server is built without lz4';
END $$;
