-- The distributed ledger.
--
-- Identities begin with their time, so that events, deliveries and attempts are partitioned by day over them; the
-- partitions are made by the ledger's maintenance, and the default ones catch what a wrong clock sends elsewhere.
-- What is not finished stands in small tables without partitions: outbox, due, lanes. Times are the database's.
-- No foreign keys: every change is compare-and-set, and each table is written in one place.
--
-- Indexes for listings hold an identity as its bytes, which sort as it does. With the identity itself the planner may,
-- while a table is small, take such an index for a look-up by identity alone, and keep that plan when it is large.

-- One row: the identity of this ledger, the version of its routing table, and the oldest release, by the version of
-- the schema that it knows, that may still work with this schema.
CREATE TABLE ledger (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    table_version int8 NOT NULL DEFAULT 0,
    usable_from int8 NOT NULL
);
INSERT INTO ledger (usable_from) VALUES (1);

-- Accepted events. `targets` holds 32 bytes a target: subscription, endpoint.
CREATE TABLE events (
    tenant uuid NOT NULL,
    id uuid NOT NULL,
    table_version int8 NOT NULL,
    fanout_count int4 NOT NULL,
    event_type text NOT NULL,
    recipient text,
    content_type text NOT NULL,
    attributes text NOT NULL,
    targets bytea NOT NULL CHECK (length(targets) = 32 * fanout_count),
    body bytea NOT NULL,
    PRIMARY KEY (tenant, id)
) PARTITION BY RANGE (id);
CREATE INDEX events_by_type ON events (tenant, event_type, uuid_send(id));

-- One row a delivery, from its first result on. States: 0 open, 1 delivered, 2 dead, 3 cancelled.
CREATE TABLE deliveries (
    id uuid PRIMARY KEY,
    tenant uuid NOT NULL,
    event uuid NOT NULL,
    subscription uuid NOT NULL,
    endpoint uuid NOT NULL,
    run_started_at timestamptz NOT NULL,
    run int4 NOT NULL,
    attempts int4 NOT NULL,
    state int2 NOT NULL CHECK (state BETWEEN 0 AND 3),
    last_status_code int2,
    reason text,
    last_outcome text
) PARTITION BY RANGE (id);
-- In the order of the listings. A delivery that succeeds at once never enters the partial ones.
CREATE INDEX deliveries_by_tenant ON deliveries (tenant, uuid_send(id));
CREATE INDEX deliveries_by_endpoint ON deliveries (endpoint, uuid_send(id));
CREATE INDEX deliveries_by_tenant_state ON deliveries (tenant, state, uuid_send(id)) WHERE state <> 1;
CREATE INDEX deliveries_by_endpoint_state ON deliveries (endpoint, state, uuid_send(id)) WHERE state <> 1;

-- `of_part` is true for attempts made under a part's hold. The rows of a part begin with the generation of its hold.
-- What a receiver answered is kept as bytes: one NUL would fail a text column, and the whole batch with it.
CREATE TABLE attempts (
    delivery uuid NOT NULL,
    started_at timestamptz NOT NULL,
    duration_us int8 NOT NULL,
    run int4 NOT NULL,
    gen int4 NOT NULL,
    number int4 NOT NULL,
    status_code int2,
    of_part boolean NOT NULL,
    superseded boolean NOT NULL,
    outcome text NOT NULL,
    excerpt bytea NOT NULL,
    PRIMARY KEY (delivery, run, of_part, gen)
) PARTITION BY RANGE (delivery);

-- Large values are compressed fast where the server can, and as usual where it cannot.
DO $$
BEGIN
    ALTER TABLE events ALTER COLUMN body SET COMPRESSION lz4;
    ALTER TABLE attempts ALTER COLUMN excerpt SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN
    RAISE NOTICE 'this server is built without lz4';
END $$;

CREATE TABLE events_default PARTITION OF events DEFAULT;
CREATE TABLE deliveries_default PARTITION OF deliveries DEFAULT;
CREATE TABLE attempts_default PARTITION OF attempts DEFAULT;

-- Parts of events that nobody has recorded a result for: a slice of the event's targets, leased.
CREATE TABLE outbox (
    event uuid NOT NULL,
    tenant uuid NOT NULL,
    lease_until timestamptz NOT NULL,
    part int4 NOT NULL,
    gen int4 NOT NULL,
    first_target int4 NOT NULL,
    target_count int4 NOT NULL CHECK (target_count > 0),
    pool text NOT NULL,
    PRIMARY KEY (event, part)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX outbox_by_lease ON outbox (pool, lease_until);
CREATE INDEX outbox_by_tenant ON outbox (tenant, uuid_send(event));

-- Exactly the open deliveries that have a row. States: 0 waiting, 1 queued, 2 in flight; `due_at` of the latter
-- two is the end of the lease, and `owner` the process that holds them, if it is known.
CREATE TABLE due (
    delivery uuid PRIMARY KEY,
    endpoint uuid NOT NULL,
    due_at timestamptz NOT NULL,
    run int4 NOT NULL,
    gen int4 NOT NULL,
    owner uuid,
    state int2 NOT NULL CHECK (state BETWEEN 0 AND 2)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX due_by_endpoint ON due (endpoint, due_at);
-- What is in flight alone, so that claims do not pay for it.
CREATE INDEX due_in_flight ON due (owner) WHERE state = 2;

-- One row an endpoint: its gate, its place in the round, and when it next has something due. `next_due` is never
-- later than the truth; the claim that finds it too early corrects it.
CREATE TABLE lanes (
    endpoint uuid PRIMARY KEY,
    tenant uuid NOT NULL,
    gate_until timestamptz NOT NULL DEFAULT '-infinity',
    next_due timestamptz NOT NULL DEFAULT 'infinity',
    turn timestamptz NOT NULL DEFAULT '-infinity',
    dropped_at timestamptz,
    quota int4,
    shut boolean NOT NULL DEFAULT false,
    pool text NOT NULL,
    revision text,
    disabled_reason text,
    disabled_revision text,
    ready_at timestamptz NOT NULL GENERATED ALWAYS AS (
        CASE WHEN shut OR disabled_reason IS NOT NULL THEN 'infinity'::timestamptz
             ELSE greatest(gate_until, next_due, turn) END
    ) STORED
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
        autovacuum_vacuum_cost_delay = 0);
CREATE INDEX lanes_by_readiness ON lanes (pool, ready_at);
CREATE INDEX lanes_by_tenant ON lanes (tenant);
CREATE INDEX lanes_disabled ON lanes (endpoint) WHERE disabled_reason IS NOT NULL;
CREATE INDEX lanes_dropped ON lanes (dropped_at) WHERE dropped_at IS NOT NULL;

-- What was last heard of an endpoint, and its attempts of the last minutes. `bucket` is the place of the duration
-- in a fixed row of bounds. Written apart from the results themselves, which would wait for each other here.
CREATE TABLE endpoint_health (
    endpoint uuid PRIMARY KEY,
    last_status_code int2,
    last_outcome text NOT NULL
) WITH (fillfactor = 50);
CREATE TABLE endpoint_statistics (
    minute int8 NOT NULL,
    endpoint uuid NOT NULL,
    bucket int4 NOT NULL,
    attempts int8 NOT NULL,
    succeeded int8 NOT NULL,
    PRIMARY KEY (minute, endpoint, bucket)
) WITH (fillfactor = 50);

-- Not partitioned: at midnight two clocks would both be first.
CREATE TABLE idempotency (
    tenant uuid NOT NULL,
    event uuid NOT NULL,
    expires_at timestamptz NOT NULL,
    key text NOT NULL,
    digest bytea NOT NULL CHECK (length(digest) = 32),
    PRIMARY KEY (tenant, key)
);
CREATE INDEX idempotency_by_expiry ON idempotency (expires_at);

-- The routing table. A dropped row stays as a tombstone, so that readers who ask for changes see that it went.
CREATE TABLE routes (
    kind int2 NOT NULL,
    id uuid NOT NULL,
    version int8 NOT NULL,
    content text,
    PRIMARY KEY (kind, id)
);
CREATE INDEX routes_by_version ON routes (version);

-- Processes that work on this ledger, each as it was last heard of. `beating_since` is when its present row of beats,
-- none long after the one before, began: only who has been heard of all along can tell that another has not.
CREATE TABLE dispatchers (
    instance uuid PRIMARY KEY,
    table_version int8 NOT NULL,
    beating_since timestamptz NOT NULL,
    last_seen timestamptz NOT NULL,
    role text NOT NULL,
    pool text
) WITH (fillfactor = 50);
