-- Truth values become BIGINT 0 and 1, the one form in which every engine gives them back alike.
CREATE TABLE portable_tokens (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    secret_hash TEXT NOT NULL UNIQUE,
    may_operate BIGINT NOT NULL CHECK (may_operate IN (0, 1)),
    may_backup BIGINT NOT NULL CHECK (may_backup IN (0, 1)),
    may_restore BIGINT NOT NULL CHECK (may_restore IN (0, 1)),
    may_delete BIGINT NOT NULL CHECK (may_delete IN (0, 1)),
    may_purge BIGINT NOT NULL CHECK (may_purge IN (0, 1)),
    may_hold BIGINT NOT NULL CHECK (may_hold IN (0, 1)),
    vault_id TEXT REFERENCES vaults (id),
    created_ns BIGINT NOT NULL,
    expires_ns BIGINT,
    revoked_ns BIGINT,
    used_ns BIGINT,
    -- An operator's token belongs to no vault, every other token to exactly one.
    CHECK ((may_operate = 1) = (vault_id IS NULL)),
    CHECK (may_operate = 0 OR may_backup + may_restore + may_delete + may_purge + may_hold = 0),
    CHECK (may_operate + may_backup + may_restore + may_delete + may_purge + may_hold > 0)
);

INSERT INTO portable_tokens (id, name, secret_hash, may_operate, may_backup, may_restore, may_delete, may_purge,
    may_hold, vault_id, created_ns, expires_ns, revoked_ns, used_ns)
SELECT id, name, secret_hash, CASE WHEN may_operate THEN 1 ELSE 0 END, CASE WHEN may_backup THEN 1 ELSE 0 END,
    CASE WHEN may_restore THEN 1 ELSE 0 END, CASE WHEN may_delete THEN 1 ELSE 0 END,
    CASE WHEN may_purge THEN 1 ELSE 0 END, CASE WHEN may_hold THEN 1 ELSE 0 END, vault_id, created_ns, expires_ns,
    revoked_ns, used_ns FROM tokens;

DROP TABLE tokens;

ALTER TABLE portable_tokens RENAME TO tokens;
