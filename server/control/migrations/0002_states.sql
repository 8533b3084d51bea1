-- What holders of tokens may do to stored snapshots, and what retention does. SQLite cannot change a CHECK, so the
-- table of tokens is made again; nothing refers to it.
CREATE TABLE tokens_with_more_rights (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    secret_hash TEXT NOT NULL UNIQUE,
    may_operate BOOLEAN NOT NULL,
    may_backup BOOLEAN NOT NULL,
    may_restore BOOLEAN NOT NULL,
    may_delete BOOLEAN NOT NULL,
    may_purge BOOLEAN NOT NULL,
    may_hold BOOLEAN NOT NULL,
    vault_id TEXT REFERENCES vaults (id),
    created_ns BIGINT NOT NULL,
    expires_ns BIGINT,
    revoked_ns BIGINT,
    used_ns BIGINT,
    -- An operator's token belongs to no vault, every other token to exactly one.
    CHECK (may_operate = (vault_id IS NULL)),
    CHECK (NOT (may_operate AND (may_backup OR may_restore OR may_delete OR may_purge OR may_hold))),
    CHECK (may_operate OR may_backup OR may_restore OR may_delete OR may_purge OR may_hold)
);

INSERT INTO tokens_with_more_rights (id, name, secret_hash, may_operate, may_backup, may_restore, may_delete,
    may_purge, may_hold, vault_id, created_ns, expires_ns, revoked_ns, used_ns)
SELECT id, name, secret_hash, may_operate, may_backup, may_restore, FALSE, FALSE, FALSE, vault_id, created_ns,
    expires_ns, revoked_ns, used_ns FROM tokens;

DROP TABLE tokens;

ALTER TABLE tokens_with_more_rights RENAME TO tokens;

-- For how many days a deleted snapshot of the vault can be brought back.
ALTER TABLE vaults ADD COLUMN undelete_days BIGINT NOT NULL DEFAULT 14 CHECK (undelete_days BETWEEN 0 AND 999);

-- What the server keeps by itself. Without a row nothing of a vault expires.
CREATE TABLE retention_policies (
    vault_id TEXT NOT NULL REFERENCES vaults (id) ON DELETE CASCADE,
    -- Both empty: for every series of the vault that has no policy of its own. Neither can be empty in a series.
    computer TEXT NOT NULL,
    series TEXT NOT NULL,
    keep_last BIGINT NOT NULL,
    keep_hourly BIGINT NOT NULL,
    keep_daily BIGINT NOT NULL,
    keep_weekly BIGINT NOT NULL,
    keep_monthly BIGINT NOT NULL,
    keep_yearly BIGINT NOT NULL,
    keep_within_seconds BIGINT NOT NULL,
    -- Tags of snapshots that never expire, a JSON list.
    keep_tags TEXT NOT NULL,
    -- Name in the IANA database of time zones.
    time_zone TEXT NOT NULL,
    changed_ns BIGINT NOT NULL,
    PRIMARY KEY (vault_id, computer, series),
    CHECK ((computer = '') = (series = ''))
);
