-- What follows from a licence, and how things end.

-- Days that the data of an ended service is kept before it is destroyed.
ALTER TABLE products ADD COLUMN kept_days BIGINT NOT NULL DEFAULT 60 CHECK (kept_days BETWEEN 0 AND 3660);
-- When a paid term was ordered for a service that has expired: it begins with the payment.
ALTER TABLE services ADD COLUMN renewal_ordered_ns BIGINT;
CREATE INDEX services_by_state ON services (state, expires_ns);

-- An administrator who may become the owner, and has not yet said so.
CREATE TABLE owner_offers (
    tenant_id TEXT NOT NULL PRIMARY KEY REFERENCES tenants (id) ON DELETE CASCADE,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    offered_ns BIGINT NOT NULL,
    expires_ns BIGINT NOT NULL
);

-- Proof of destroyed vaults, one row each, kept for good: written when it is decided, finished when nothing is left.
CREATE TABLE removal_receipts (
    vault_id TEXT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL,
    tenant_id TEXT NOT NULL,
    cause TEXT NOT NULL,
    decided_ns BIGINT NOT NULL,
    finished_ns BIGINT,
    packs BIGINT,
    pack_bytes BIGINT,
    keyring_generation BIGINT
);
CREATE INDEX removal_receipts_by_tenant ON removal_receipts (tenant_id);
CREATE INDEX users_by_deletion ON users (delete_after_ns) WHERE delete_after_ns IS NOT NULL;
CREATE INDEX tenants_by_deletion ON tenants (delete_after_ns) WHERE delete_after_ns IS NOT NULL;
