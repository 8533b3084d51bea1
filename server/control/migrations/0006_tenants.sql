-- The tree platform > partner > customer > user, who belongs where, what a customer has bought and given to its users,
-- and the log of who did what. Truth values are BIGINT 0 and 1; lists and bodies are JSON as TEXT.

ALTER TABLE customers RENAME TO tenants;
ALTER TABLE tenants ADD COLUMN kind TEXT NOT NULL DEFAULT 'customer' CHECK (kind IN ('platform', 'partner', 'customer'));
ALTER TABLE tenants ADD COLUMN parent_id TEXT REFERENCES tenants (id);
-- Ids from the platform down to the tenant itself, each followed by a slash: a subtree is one range.
ALTER TABLE tenants ADD COLUMN path TEXT NOT NULL DEFAULT '';
ALTER TABLE tenants ADD COLUMN state TEXT NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'disconnected', 'deleting'));
ALTER TABLE tenants ADD COLUMN state_ns BIGINT NOT NULL DEFAULT 0;
-- When the data of a disconnected tenant goes, unless it comes back before.
ALTER TABLE tenants ADD COLUMN delete_after_ns BIGINT;
-- For people; `name` is for addresses such as CUSTOMER/USER.
ALTER TABLE tenants ADD COLUMN title TEXT NOT NULL DEFAULT '';
-- Two sets of data, JSON objects of texts: what stands on invoices, and how to reach the tenant.
ALTER TABLE tenants ADD COLUMN legal_data TEXT NOT NULL DEFAULT '{}';
ALTER TABLE tenants ADD COLUMN contact_data TEXT NOT NULL DEFAULT '{}';
ALTER TABLE tenants ADD COLUMN locale TEXT NOT NULL DEFAULT 'en';
ALTER TABLE tenants ADD COLUMN time_zone TEXT NOT NULL DEFAULT 'UTC';
-- Until when those above may look into the tenant's content; 0 never, the largest number always.
ALTER TABLE tenants ADD COLUMN support_access_until_ns BIGINT NOT NULL DEFAULT 0;
-- Security policy: a child may only be stricter than its parent.
ALTER TABLE tenants ADD COLUMN idle_minutes BIGINT NOT NULL DEFAULT 30 CHECK (idle_minutes BETWEEN 5 AND 480);
ALTER TABLE tenants ADD COLUMN second_factor TEXT NOT NULL DEFAULT 'optional' CHECK (second_factor IN ('off', 'optional', 'required'));
-- JSON list of networks; empty = from anywhere.
ALTER TABLE tenants ADD COLUMN trusted_networks TEXT NOT NULL DEFAULT '[]';
CREATE INDEX tenants_by_path ON tenants (path);
CREATE INDEX tenants_by_parent ON tenants (parent_id);

INSERT INTO tenants (id, kind, path, name, title, created_ns)
VALUES ('00000000000000000000000000000000', 'platform', '00000000000000000000000000000000/', '@platform', 'Platform', 0);

-- Partners were names on customers; each becomes a tenant, its id derived from its first customer's.
INSERT INTO tenants (id, kind, parent_id, path, name, title, partner, created_ns)
SELECT id, 'partner', '00000000000000000000000000000000', '00000000000000000000000000000000/' || id || '/',
    CASE WHEN EXISTS (SELECT 1 FROM tenants AS taken WHERE taken.name = found.partner)
        THEN found.partner || ' (partner)' ELSE found.partner END,
    found.partner, found.partner, found.created_ns
FROM (SELECT CASE WHEN SUBSTR(MIN(id), 1, 1) = 'f' THEN 'e' ELSE 'f' END || SUBSTR(MIN(id), 2) AS id, partner,
    MIN(created_ns) AS created_ns FROM tenants WHERE partner IS NOT NULL GROUP BY partner) AS found;

UPDATE tenants SET parent_id = COALESCE(
    (SELECT above.id FROM tenants AS above WHERE above.kind = 'partner' AND above.partner = tenants.partner),
    '00000000000000000000000000000000') WHERE kind = 'customer';
UPDATE tenants SET path = (SELECT above.path FROM tenants AS above WHERE above.id = tenants.parent_id) || id || '/',
    title = name WHERE kind = 'customer';
-- A quota without a partner of this name limited nobody.
DELETE FROM quotas WHERE partner IS NOT NULL
    AND NOT EXISTS (SELECT 1 FROM tenants WHERE kind = 'partner' AND tenants.partner = quotas.partner);
UPDATE quotas SET customer_id = (SELECT id FROM tenants WHERE kind = 'partner' AND tenants.partner = quotas.partner),
    partner = NULL WHERE partner IS NOT NULL;
ALTER TABLE tenants DROP COLUMN partner;

ALTER TABLE users RENAME COLUMN customer_id TO tenant_id;
-- How a person logs in, as typed and as compared; without one the user is only known to the command line.
ALTER TABLE users ADD COLUMN email TEXT;
ALTER TABLE users ADD COLUMN email_folded TEXT;
ALTER TABLE users ADD COLUMN notify_email TEXT;
-- Two letters, six digits and the platform's suffix; personal, never given again.
ALTER TABLE users ADD COLUMN customer_code TEXT;
ALTER TABLE users ADD COLUMN title TEXT NOT NULL DEFAULT '';
ALTER TABLE users ADD COLUMN locale TEXT NOT NULL DEFAULT 'en';
ALTER TABLE users ADD COLUMN time_zone TEXT NOT NULL DEFAULT 'UTC';
ALTER TABLE users ADD COLUMN state TEXT NOT NULL DEFAULT 'active'
    CHECK (state IN ('invited', 'active', 'disabled', 'deleted', 'erased'));
ALTER TABLE users ADD COLUMN state_ns BIGINT NOT NULL DEFAULT 0;
ALTER TABLE users ADD COLUMN delete_after_ns BIGINT;
ALTER TABLE users ADD COLUMN last_login_ns BIGINT;
CREATE UNIQUE INDEX users_by_email ON users (email_folded);
CREATE UNIQUE INDEX users_by_customer_code ON users (customer_code);
CREATE INDEX users_by_tenant ON users (tenant_id);

CREATE TABLE memberships (
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    tenant_id TEXT NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    -- admin: operator, partner or customer administrator by the tenant's kind; user: backs up; auditor: reads, no content.
    role TEXT NOT NULL CHECK (role IN ('admin', 'user', 'auditor')),
    -- One administrator of a tenant is its owner.
    owner BIGINT NOT NULL DEFAULT 0 CHECK (owner IN (0, 1)),
    created_ns BIGINT NOT NULL,
    PRIMARY KEY (user_id, tenant_id, role)
);
CREATE INDEX memberships_by_tenant ON memberships (tenant_id, role);
INSERT INTO memberships (user_id, tenant_id, role, created_ns) SELECT id, tenant_id, 'user', created_ns FROM users;

-- Members of a partner's group may do some actions for some customers.
CREATE TABLE member_groups (
    id TEXT NOT NULL PRIMARY KEY,
    tenant_id TEXT NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    verbs TEXT NOT NULL,
    all_customers BIGINT NOT NULL CHECK (all_customers IN (0, 1)),
    created_ns BIGINT NOT NULL,
    UNIQUE (tenant_id, name)
);
CREATE TABLE group_customers (
    group_id TEXT NOT NULL REFERENCES member_groups (id) ON DELETE CASCADE,
    tenant_id TEXT NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    PRIMARY KEY (group_id, tenant_id)
);
CREATE TABLE group_members (
    group_id TEXT NOT NULL REFERENCES member_groups (id) ON DELETE CASCADE,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    PRIMARY KEY (group_id, user_id)
);
CREATE INDEX group_members_by_user ON group_members (user_id);

-- What can be bought.
CREATE TABLE products (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    unit TEXT NOT NULL CHECK (unit IN ('gib', 'computer', 'user')),
    price_minor BIGINT NOT NULL,
    currency TEXT NOT NULL,
    trial_users BIGINT NOT NULL,
    trial_days BIGINT NOT NULL,
    -- Longest term behind the first booking, months.
    term_months BIGINT NOT NULL,
    -- Space above the quantity before the hard quota, percent.
    overage_percent BIGINT NOT NULL,
    -- JSON list of names, such as full_export.
    features TEXT NOT NULL,
    retired_ns BIGINT,
    created_ns BIGINT NOT NULL
);
INSERT INTO products (id, name, unit, price_minor, currency, trial_users, trial_days, term_months, overage_percent,
    features, created_ns)
VALUES ('00000000000000000000000000000001', 'backup', 'gib', 0, 'EUR', 5, 30, 12, 0, '["full_export"]', 0);

-- What a customer has bought.
CREATE TABLE services (
    id TEXT NOT NULL PRIMARY KEY,
    tenant_id TEXT NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    product_id TEXT NOT NULL REFERENCES products (id),
    licence TEXT NOT NULL CHECK (licence IN ('paid', 'trial')),
    -- In the product's unit.
    quantity BIGINT NOT NULL CHECK (quantity > 0),
    first_booked_ns BIGINT NOT NULL,
    expires_ns BIGINT NOT NULL,
    auto_renew BIGINT NOT NULL CHECK (auto_renew IN (0, 1)),
    state TEXT NOT NULL CHECK (state IN
        ('ordered', 'trial', 'active', 'restricted', 'suspended', 'expired', 'cancelled', 'terminated')),
    state_ns BIGINT NOT NULL,
    created_ns BIGINT NOT NULL
);
CREATE INDEX services_by_tenant ON services (tenant_id);

-- The part of a service given to a user.
CREATE TABLE allocations (
    service_id TEXT NOT NULL REFERENCES services (id) ON DELETE CASCADE,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    bytes BIGINT NOT NULL CHECK (bytes >= 0),
    computers BIGINT CHECK (computers >= 0),
    changed_ns BIGINT NOT NULL,
    PRIMARY KEY (service_id, user_id)
);
CREATE INDEX allocations_by_user ON allocations (user_id);

-- Exactly one person for each kind; set and changed, never absent once the service is there.
CREATE TABLE service_contacts (
    service_id TEXT NOT NULL REFERENCES services (id) ON DELETE CASCADE,
    kind TEXT NOT NULL CHECK (kind IN ('admin', 'technical', 'billing')),
    user_id TEXT NOT NULL REFERENCES users (id),
    changed_ns BIGINT NOT NULL,
    PRIMARY KEY (service_id, kind)
);
CREATE INDEX service_contacts_by_user ON service_contacts (user_id);

-- Who did what: append-only, each entry carries the hash of the one before.
CREATE TABLE audit_entries (
    sequence BIGINT NOT NULL PRIMARY KEY,
    at_ns BIGINT NOT NULL,
    -- Id of the person or computer, or a name such as `local`; on whose behalf, when for somebody else.
    actor TEXT NOT NULL,
    actor_name TEXT NOT NULL,
    behalf_tenant_id TEXT,
    tenant_id TEXT NOT NULL,
    user_id TEXT,
    verb TEXT NOT NULL,
    -- Kind and id, such as `service 0123…`.
    object TEXT NOT NULL,
    -- JSON: what it was, what it became.
    before_json TEXT,
    after_json TEXT,
    address TEXT NOT NULL,
    previous_hash TEXT NOT NULL,
    hash TEXT NOT NULL
);
CREATE INDEX audit_entries_by_tenant ON audit_entries (tenant_id, sequence);
