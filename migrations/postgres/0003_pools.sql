-- What pools of dispatchers get done, and how many dispatchers they want.

-- Counts by period, as `endpoint_statistics`: written apart, about once a second by each process.
CREATE TABLE pool_statistics (
    period int8 NOT NULL,
    accepted int8 NOT NULL,
    attempts int8 NOT NULL,
    delivered int8 NOT NULL,
    pool text NOT NULL,
    PRIMARY KEY (period, pool)
) WITH (fillfactor = 50);

-- One row a pool, written by the control plane, for autoscalers of others.
CREATE TABLE pool_metrics (
    pool text PRIMARY KEY,
    backlog int8 NOT NULL,
    arrival_per_second float8 NOT NULL,
    delivery_per_second float8 NOT NULL,
    wanted_replicas int4 NOT NULL,
    measured_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);
