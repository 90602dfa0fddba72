-- Replays of many deliveries, each known by what it is named and what it asks for: what was asked once is not done again.
-- `step` rises with every change of the place it has come to, which is compare-and-set on it. Stages: 0 deliveries,
-- 1 events, 2 all looked at; `after` is the identity that was looked at last.
CREATE TABLE replays (
    id BLOB PRIMARY KEY CHECK (length(id) = 16),
    tenant BLOB NOT NULL,
    stage INTEGER NOT NULL CHECK (stage BETWEEN 0 AND 2),
    after BLOB NOT NULL DEFAULT x'00000000000000000000000000000000',
    step INTEGER NOT NULL DEFAULT 0,
    started_at INTEGER NOT NULL,
    finished_at INTEGER,
    -- The end of the time that was asked for; what came after the replay began is left alone all the same.
    asked_until INTEGER NOT NULL,
    matched INTEGER NOT NULL DEFAULT 0,
    queued INTEGER NOT NULL DEFAULT 0,
    delivered INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX replays_by_tenant ON replays (tenant, started_at);
CREATE INDEX replays_by_time ON replays (asked_until);

-- Runs that a replay started and of which it does not know yet how they ended: queued - delivered - failed rows.
CREATE TABLE replay_runs (
    replay BLOB NOT NULL,
    delivery BLOB NOT NULL,
    run INTEGER NOT NULL,
    PRIMARY KEY (replay, delivery)
) WITHOUT ROWID;
