-- Exports: database dumps made ready for download, each with a read-only SFTP account of its own.

-- How soon another one may be asked for, how long one is there, and whether an operator looks at each.
ALTER TABLE products ADD COLUMN export_wait_days BIGINT NOT NULL DEFAULT 28 CHECK (export_wait_days BETWEEN 0 AND 3660);
ALTER TABLE products ADD COLUMN export_kept_days BIGINT NOT NULL DEFAULT 10 CHECK (export_kept_days BETWEEN 1 AND 3660);
ALTER TABLE products ADD COLUMN export_release TEXT NOT NULL DEFAULT 'operator'
    CHECK (export_release IN ('operator', 'automatic'));

CREATE TABLE exports (
    id TEXT NOT NULL PRIMARY KEY,
    tenant_id TEXT NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    -- The plan that dumps the database.
    plan_id TEXT NOT NULL REFERENCES plans (id) ON DELETE CASCADE,
    asked_by TEXT NOT NULL,
    asked_by_name TEXT NOT NULL,
    -- The newest complete dump will do while the agent is away.
    newest_will_do BIGINT NOT NULL CHECK (newest_will_do IN (0, 1)),
    -- No list of values: what a later version wrote is shown as invalid_value, and alarmed.
    state TEXT NOT NULL,
    state_ns BIGINT NOT NULL,
    requested_ns BIGINT NOT NULL,
    -- When the next one may be asked for, unless this one fails.
    next_allowed_ns BIGINT NOT NULL,
    -- The backup that makes the dump.
    job_id TEXT,
    -- How much of it is verified.
    bytes_done BIGINT NOT NULL DEFAULT 0,
    bytes_total BIGINT,
    -- What is served, from when it is ready: files of a snapshot, which is held for them; the files are JSON.
    vault_id TEXT,
    snapshot_id TEXT,
    dumped_ns BIGINT,
    files TEXT,
    size_bytes BIGINT,
    ready_ns BIGINT,
    expires_ns BIGINT,
    -- How the SFTP account is called; nobody else ever is.
    account TEXT UNIQUE,
    -- Why it failed, for people, and what to name to the operator.
    error TEXT,
    reference TEXT
);
CREATE INDEX exports_by_tenant ON exports (tenant_id, requested_ns);
CREATE INDEX exports_by_user ON exports (user_id);
CREATE INDEX exports_by_plan ON exports (plan_id, requested_ns);
CREATE INDEX exports_open ON exports (state) WHERE state IN ('awaiting_release', 'in_progress', 'ready');

-- Public keys that open an export.
CREATE TABLE export_keys (
    id TEXT NOT NULL PRIMARY KEY,
    export_id TEXT NOT NULL REFERENCES exports (id) ON DELETE CASCADE,
    -- SHA-256 of the public key as OpenSSH writes it.
    fingerprint TEXT NOT NULL,
    public_key TEXT NOT NULL,
    -- Made here and shown once, or the customer's own.
    is_own BIGINT NOT NULL CHECK (is_own IN (0, 1)),
    -- Networks from which it is taken, a JSON list; anywhere when empty.
    networks TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_ns BIGINT NOT NULL,
    expires_ns BIGINT NOT NULL,
    -- Who accepted which terms of download, from where.
    terms_version TEXT NOT NULL,
    terms_address TEXT NOT NULL,
    revoked_ns BIGINT,
    used_ns BIGINT,
    used_address TEXT
);
CREATE UNIQUE INDEX export_keys_by_fingerprint ON export_keys (export_id, fingerprint);

-- Every opened file: who, which key, from where, how much of it.
CREATE TABLE export_downloads (
    id TEXT NOT NULL PRIMARY KEY,
    export_id TEXT NOT NULL REFERENCES exports (id) ON DELETE CASCADE,
    key_id TEXT NOT NULL,
    address TEXT NOT NULL,
    program TEXT NOT NULL,
    path TEXT NOT NULL,
    bytes BIGINT NOT NULL,
    is_complete BIGINT NOT NULL CHECK (is_complete IN (0, 1)),
    began_ns BIGINT NOT NULL,
    ended_ns BIGINT NOT NULL
);
CREATE INDEX export_downloads_by_export ON export_downloads (export_id, began_ns);
