-- Replays of many deliveries, each known by what it is named and what it asks for: what was asked once is not done again.
-- `step` rises with every change of the place it has come to, which is compare-and-set on it. Stages: 0 deliveries,
-- 1 events, 2 all looked at; `after` is the identity that was looked at last.
CREATE TABLE replays (
    id uuid PRIMARY KEY,
    tenant uuid NOT NULL,
    after uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    started_at timestamptz NOT NULL,
    finished_at timestamptz,
    -- The end of the time that was asked for; what came after the replay began is left alone all the same.
    asked_until timestamptz NOT NULL,
    step int8 NOT NULL DEFAULT 0,
    matched int8 NOT NULL DEFAULT 0,
    queued int8 NOT NULL DEFAULT 0,
    delivered int8 NOT NULL DEFAULT 0,
    failed int8 NOT NULL DEFAULT 0,
    stage int2 NOT NULL CHECK (stage BETWEEN 0 AND 2)
) WITH (fillfactor = 50);
CREATE INDEX replays_by_tenant ON replays (tenant, started_at);
CREATE INDEX replays_by_time ON replays (asked_until);

-- Runs that a replay started and of which it does not know yet how they ended: queued - delivered - failed rows.
CREATE TABLE replay_runs (
    replay uuid NOT NULL,
    delivery uuid NOT NULL,
    run int4 NOT NULL,
    PRIMARY KEY (replay, delivery)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000);
