-- BYTES stands for BYTEA (PostgreSQL) or BLOB (SQLite). Ids are hexadecimal text; times are milliseconds, 0 for never.
CREATE TABLE meta (
    id BIGINT PRIMARY KEY,
    generation BIGINT NOT NULL,
    epoch BIGINT NOT NULL
);
INSERT INTO meta (id, generation, epoch) VALUES (1, 1, 1);
CREATE TABLE term (
    id BIGINT PRIMARY KEY,
    term BIGINT NOT NULL,
    holder TEXT NOT NULL,
    expires_at_ms BIGINT NOT NULL
);
INSERT INTO term (id, term, holder, expires_at_ms) VALUES (1, 0, '', 0);
CREATE TABLE layouts (
    pool TEXT NOT NULL,
    version BIGINT NOT NULL,
    body TEXT NOT NULL,
    created_ms BIGINT NOT NULL,
    PRIMARY KEY (pool, version)
);
CREATE TABLE tenants (
    tenant_id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    microsoft_tenant TEXT NOT NULL,
    cloud TEXT NOT NULL,
    graph_url TEXT NOT NULL,
    login_url TEXT NOT NULL,
    pool TEXT NOT NULL,
    backup_client_id TEXT NOT NULL,
    backup_secret BYTES NOT NULL,
    restore_client_id TEXT NOT NULL,
    restore_secret BYTES NOT NULL,
    wrapped_keys BYTES NOT NULL,
    created_ms BIGINT NOT NULL,
    discovered_ms BIGINT NOT NULL
);
CREATE TABLE resources (
    tenant_id TEXT NOT NULL,
    resource_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    microsoft_id TEXT NOT NULL,
    name TEXT NOT NULL,
    name_key TEXT NOT NULL,
    display_name TEXT NOT NULL,
    state TEXT NOT NULL,
    wrapped_key BYTES NOT NULL,
    seen_ms BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, resource_id),
    UNIQUE (tenant_id, kind, microsoft_id)
);
CREATE INDEX resources_name ON resources (tenant_id, name_key);
CREATE TABLE protections (
    tenant_id TEXT NOT NULL,
    resource_id TEXT NOT NULL,
    workload TEXT NOT NULL,
    last_attempt BIGINT NOT NULL,
    last_sequence BIGINT NOT NULL,
    used_sequence BIGINT NOT NULL,
    last_snapshot_ms BIGINT NOT NULL,
    last_result TEXT NOT NULL,
    PRIMARY KEY (tenant_id, resource_id, workload)
);
CREATE TABLE runs (
    run_id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    actor TEXT NOT NULL,
    created_ms BIGINT NOT NULL
);
CREATE TABLE jobs (
    tenant_id TEXT NOT NULL,
    job_id TEXT NOT NULL UNIQUE,
    run_id TEXT NOT NULL,
    resource_id TEXT NOT NULL,
    workload TEXT NOT NULL,
    kind TEXT NOT NULL,
    class TEXT NOT NULL,
    state TEXT NOT NULL,
    spec TEXT NOT NULL,
    attempts BIGINT NOT NULL,
    not_before_ms BIGINT NOT NULL,
    published_at_ms BIGINT NOT NULL,
    fence_generation BIGINT NOT NULL,
    fence_attempt BIGINT NOT NULL,
    lease_until_ms BIGINT NOT NULL,
    worker TEXT NOT NULL,
    account TEXT NOT NULL,
    items_expected BIGINT NOT NULL,
    code TEXT NOT NULL,
    message TEXT NOT NULL,
    traceparent TEXT NOT NULL,
    created_ms BIGINT NOT NULL,
    started_ms BIGINT NOT NULL,
    finished_ms BIGINT NOT NULL,
    pin BYTES NOT NULL,
    pin_hash TEXT NOT NULL,
    failed TEXT NOT NULL,
    snapshot_id TEXT NOT NULL,
    PRIMARY KEY (tenant_id, job_id)
);
CREATE INDEX jobs_due ON jobs (state, class, not_before_ms);
CREATE INDEX jobs_of_resource ON jobs (tenant_id, resource_id, workload, state);
CREATE INDEX jobs_of_run ON jobs (run_id);
CREATE INDEX jobs_newest ON jobs (created_ms);
CREATE TABLE failed_items (
    tenant_id TEXT NOT NULL,
    resource_id TEXT NOT NULL,
    workload TEXT NOT NULL,
    item_id TEXT NOT NULL,
    code TEXT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (tenant_id, resource_id, workload, item_id)
);
CREATE TABLE snapshots (
    tenant_id TEXT NOT NULL,
    resource_id TEXT NOT NULL,
    workload TEXT NOT NULL,
    sequence BIGINT NOT NULL,
    snapshot_id TEXT NOT NULL UNIQUE,
    pin_hash TEXT NOT NULL,
    pin BYTES NOT NULL,
    account TEXT NOT NULL,
    created_ms BIGINT NOT NULL,
    job_id TEXT NOT NULL,
    PRIMARY KEY (tenant_id, resource_id, workload, sequence)
);
CREATE TABLE audit_head (
    id BIGINT PRIMARY KEY,
    number BIGINT NOT NULL,
    hash TEXT NOT NULL
);
INSERT INTO audit_head (id, number, hash) VALUES (1, 0, '');
CREATE TABLE audit (
    number BIGINT PRIMARY KEY,
    time_ms BIGINT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    hash TEXT NOT NULL
);
