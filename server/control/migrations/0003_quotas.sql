-- The partner that brought a customer; partners get a table of their own when they can log in.
ALTER TABLE customers ADD COLUMN partner TEXT;

-- What a vault, a user, a customer or a partner may use, bytes; NULL is without bound. Without a row nothing is limited.
CREATE TABLE quotas (
    vault_id TEXT UNIQUE REFERENCES vaults (id) ON DELETE CASCADE,
    user_id TEXT UNIQUE REFERENCES users (id) ON DELETE CASCADE,
    customer_id TEXT UNIQUE REFERENCES customers (id) ON DELETE CASCADE,
    partner TEXT UNIQUE,
    physical_soft BIGINT CHECK (physical_soft >= 0),
    physical_hard BIGINT CHECK (physical_hard >= 0),
    logical_soft BIGINT CHECK (logical_soft >= 0),
    logical_hard BIGINT CHECK (logical_hard >= 0),
    changed_ns BIGINT NOT NULL,
    -- Exactly one of them.
    CHECK (CASE WHEN vault_id IS NULL THEN 0 ELSE 1 END + CASE WHEN user_id IS NULL THEN 0 ELSE 1 END
        + CASE WHEN customer_id IS NULL THEN 0 ELSE 1 END + CASE WHEN partner IS NULL THEN 0 ELSE 1 END = 1)
);
