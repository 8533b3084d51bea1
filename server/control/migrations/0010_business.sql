-- What follows from a licence, and how things end.

-- Days that the data of an ended service is kept before it is destroyed.
ALTER TABLE products ADD COLUMN kept_days BIGINT NOT NULL DEFAULT 60 CHECK (kept_days BETWEEN 0 AND 3660);
-- When a paid term was ordered for a service that has expired: it begins with the payment.
ALTER TABLE services ADD COLUMN renewal_ordered_ns BIGINT;
CREATE INDEX services_by_state ON services (state, expires_ns);

-- When everything of the tenant was gone; the row stays, without its data.
ALTER TABLE tenants ADD COLUMN deleted_ns BIGINT;

-- An administrator who may become the owner, and has not yet said so.
CREATE TABLE owner_offers (
    tenant_id TEXT NOT NULL PRIMARY KEY REFERENCES tenants (id) ON DELETE CASCADE,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    offered_ns BIGINT NOT NULL,
    expires_ns BIGINT NOT NULL
);

-- Proof of destroyed vaults, one row each, kept for good.
CREATE TABLE removal_receipts (
    vault_id TEXT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL,
    tenant_id TEXT NOT NULL,
    cause TEXT NOT NULL,
    decided_ns BIGINT NOT NULL,
    finished_ns BIGINT NOT NULL,
    packs BIGINT NOT NULL,
    pack_bytes BIGINT NOT NULL,
    keyring_generation BIGINT NOT NULL
);
CREATE INDEX removal_receipts_by_tenant ON removal_receipts (tenant_id);
