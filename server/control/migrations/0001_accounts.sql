-- Text that suits SQLite and PostgreSQL alike: ids and hashes as lower-case hexadecimal, times as nanoseconds since 1970.
CREATE TABLE customers (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    created_ns BIGINT NOT NULL
);

CREATE TABLE users (
    id TEXT NOT NULL PRIMARY KEY,
    customer_id TEXT NOT NULL REFERENCES customers (id),
    name TEXT NOT NULL,
    created_ns BIGINT NOT NULL,
    UNIQUE (customer_id, name)
);

CREATE TABLE vaults (
    id TEXT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id),
    name TEXT NOT NULL,
    created_ns BIGINT NOT NULL,
    UNIQUE (user_id, name)
);

CREATE TABLE tokens (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    secret_hash TEXT NOT NULL UNIQUE,
    may_operate BOOLEAN NOT NULL,
    may_backup BOOLEAN NOT NULL,
    may_restore BOOLEAN NOT NULL,
    vault_id TEXT REFERENCES vaults (id),
    created_ns BIGINT NOT NULL,
    expires_ns BIGINT,
    revoked_ns BIGINT,
    used_ns BIGINT,
    -- An operator's token belongs to no vault, every other token to exactly one.
    CHECK (may_operate = (vault_id IS NULL)),
    CHECK (NOT (may_operate AND (may_backup OR may_restore))),
    CHECK (may_operate OR may_backup OR may_restore)
);

CREATE TABLE operator_links (
    secret_hash TEXT NOT NULL PRIMARY KEY,
    created_ns BIGINT NOT NULL,
    used_ns BIGINT
);

-- One row per master key this server has had; the sheet of the current one is confirmed or not.
CREATE TABLE master_keys (
    fingerprint TEXT NOT NULL PRIMARY KEY,
    first_seen_ns BIGINT NOT NULL,
    confirmed_ns BIGINT
);
