-- What pools of dispatchers get done, and how many dispatchers they want.

-- Counts by period.
CREATE TABLE pool_statistics (
    period INTEGER NOT NULL,
    pool TEXT NOT NULL,
    accepted INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    delivered INTEGER NOT NULL,
    PRIMARY KEY (period, pool)
) WITHOUT ROWID;

-- One row a pool, written by the control plane.
CREATE TABLE pool_metrics (
    pool TEXT PRIMARY KEY,
    backlog INTEGER NOT NULL,
    arrival_per_second REAL NOT NULL,
    delivery_per_second REAL NOT NULL,
    wanted_replicas INTEGER NOT NULL,
    measured_at INTEGER NOT NULL
) WITHOUT ROWID;
