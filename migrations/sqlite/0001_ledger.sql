-- The embedded ledger.
--
-- Identities are 16-byte blobs; they begin with their time, so that new rows go to the end of their trees.
-- Times are milliseconds since the Unix epoch; 9007199254740991 stands for "never". No foreign keys: every
-- change is compare-and-set, and each table is written in one place.

-- One row: the identity of this ledger and the version of its routing table.
CREATE TABLE ledger (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    id BLOB NOT NULL,
    table_version INTEGER NOT NULL
);
INSERT INTO ledger (one, id, table_version) VALUES (1, randomblob(16), 0);

-- Accepted events. `targets` holds 32 bytes a target: subscription, endpoint. The large columns come last.
CREATE TABLE events (
    tenant BLOB NOT NULL,
    id BLOB NOT NULL CHECK (length(id) = 16),
    event_type TEXT NOT NULL,
    recipient TEXT,
    content_type TEXT NOT NULL,
    attributes TEXT NOT NULL,
    table_version INTEGER NOT NULL,
    fanout_count INTEGER NOT NULL,
    targets BLOB NOT NULL CHECK (length(targets) = 32 * fanout_count),
    body BLOB NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE INDEX events_by_type ON events (tenant, event_type, id);

-- Parts of events that nobody has recorded a result for: a slice of the event's targets, leased.
CREATE TABLE outbox (
    event BLOB NOT NULL,
    part INTEGER NOT NULL,
    tenant BLOB NOT NULL,
    pool TEXT NOT NULL,
    gen INTEGER NOT NULL,
    lease_until INTEGER NOT NULL,
    first_target INTEGER NOT NULL,
    target_count INTEGER NOT NULL CHECK (target_count > 0),
    PRIMARY KEY (event, part)
) WITHOUT ROWID;
CREATE INDEX outbox_by_lease ON outbox (pool, lease_until);
CREATE INDEX outbox_by_tenant ON outbox (tenant, event);

-- One row a delivery, from its first result on. States: 0 open, 1 delivered, 2 dead, 3 cancelled.
CREATE TABLE deliveries (
    id BLOB PRIMARY KEY CHECK (length(id) = 16),
    tenant BLOB NOT NULL,
    event BLOB NOT NULL,
    subscription BLOB NOT NULL,
    endpoint BLOB NOT NULL,
    state INTEGER NOT NULL CHECK (state BETWEEN 0 AND 3),
    reason TEXT,
    run INTEGER NOT NULL,
    run_started_at INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    last_outcome TEXT,
    last_status_code INTEGER
) WITHOUT ROWID;
-- In the order of the listings, newest last. A delivery that succeeds at once never enters the partial ones.
CREATE INDEX deliveries_by_tenant ON deliveries (tenant, id);
CREATE INDEX deliveries_by_endpoint ON deliveries (endpoint, id);
CREATE INDEX deliveries_by_tenant_state ON deliveries (tenant, state, id) WHERE state <> 1;
CREATE INDEX deliveries_by_endpoint_state ON deliveries (endpoint, state, id) WHERE state <> 1;

-- `of_part` is 1 for attempts made under a part's hold. The rows of a part begin with the generation of its hold.
CREATE TABLE attempts (
    delivery BLOB NOT NULL,
    run INTEGER NOT NULL,
    of_part INTEGER NOT NULL,
    gen INTEGER NOT NULL,
    number INTEGER NOT NULL,
    superseded INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    duration_us INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    status_code INTEGER,
    excerpt BLOB NOT NULL,
    PRIMARY KEY (delivery, run, of_part, gen)
) WITHOUT ROWID;

-- Exactly the open deliveries that have a row. States: 0 waiting, 1 queued, 2 in flight; `due_at` of the latter
-- two is the end of the lease, and `owner` the process that holds them, if it is known.
CREATE TABLE due (
    delivery BLOB PRIMARY KEY,
    endpoint BLOB NOT NULL,
    due_at INTEGER NOT NULL,
    run INTEGER NOT NULL,
    gen INTEGER NOT NULL,
    state INTEGER NOT NULL CHECK (state BETWEEN 0 AND 2),
    owner BLOB
) WITHOUT ROWID;
CREATE INDEX due_by_endpoint ON due (endpoint, due_at);
CREATE INDEX due_in_flight ON due (owner) WHERE state = 2;

-- One row an endpoint: its gate, its place in the round, and when it next has something due. `next_due` is never
-- later than the truth; the claim that finds it too early corrects it.
CREATE TABLE lanes (
    endpoint BLOB PRIMARY KEY,
    tenant BLOB NOT NULL,
    pool TEXT NOT NULL,
    revision TEXT,
    shut INTEGER NOT NULL DEFAULT 0,
    dropped_at INTEGER,
    disabled_reason TEXT,
    disabled_revision TEXT,
    gate_until INTEGER NOT NULL DEFAULT 0,
    quota INTEGER,
    next_due INTEGER NOT NULL DEFAULT 9007199254740991,
    turn INTEGER NOT NULL DEFAULT 0,
    last_outcome TEXT,
    last_status_code INTEGER,
    ready_at INTEGER NOT NULL GENERATED ALWAYS AS (
        CASE WHEN shut OR disabled_reason IS NOT NULL THEN 9007199254740991 ELSE max(gate_until, next_due, turn) END
    ) STORED
) WITHOUT ROWID;
CREATE INDEX lanes_by_readiness ON lanes (pool, ready_at);
CREATE INDEX lanes_by_tenant ON lanes (tenant);
CREATE INDEX lanes_disabled ON lanes (endpoint) WHERE disabled_reason IS NOT NULL;
CREATE INDEX lanes_dropped ON lanes (dropped_at) WHERE dropped_at IS NOT NULL;

-- Attempts of the last minutes. `bucket` is the place of the duration in a fixed row of bounds.
CREATE TABLE endpoint_statistics (
    minute INTEGER NOT NULL,
    endpoint BLOB NOT NULL,
    bucket INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    succeeded INTEGER NOT NULL,
    PRIMARY KEY (minute, endpoint, bucket)
) WITHOUT ROWID;

CREATE TABLE idempotency (
    tenant BLOB NOT NULL,
    key TEXT NOT NULL,
    digest BLOB NOT NULL,
    event BLOB NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, key)
) WITHOUT ROWID;
CREATE INDEX idempotency_by_expiry ON idempotency (expires_at);

-- The routing table. A dropped row stays as a tombstone, so that readers who ask for changes see that it went.
CREATE TABLE routes (
    kind INTEGER NOT NULL,
    id BLOB NOT NULL,
    version INTEGER NOT NULL,
    row TEXT,
    PRIMARY KEY (kind, id)
) WITHOUT ROWID;
CREATE INDEX routes_by_version ON routes (version);

-- Processes that work on this ledger, each as it was last heard of. `beating_since` is when its present row of beats,
-- none long after the one before, began: only who has been heard of all along can tell that another has not.
CREATE TABLE dispatchers (
    instance BLOB PRIMARY KEY CHECK (length(instance) = 16),
    role TEXT NOT NULL,
    pool TEXT,
    table_version INTEGER NOT NULL,
    beating_since INTEGER NOT NULL,
    last_seen INTEGER NOT NULL
) WITHOUT ROWID;
