-- How people prove who they are, what they are invited to, and how they come back when they cannot. Secrets are stored
-- as hashes only; what must be read again (the secret behind one-time codes) is sealed by the server.

CREATE TABLE passwords (
    user_id TEXT NOT NULL PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    -- `$argon2id$v=19$m=…,t=…,p=…$salt$hash`.
    hash TEXT NOT NULL,
    changed_ns BIGINT NOT NULL
);

-- One-time codes by time (RFC 6238).
CREATE TABLE second_factors (
    user_id TEXT NOT NULL PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    sealed_secret TEXT NOT NULL,
    -- The last step of time whose code was used: none is taken twice.
    used_step BIGINT NOT NULL,
    -- Set when the person has shown that their app makes the right codes; it counts from then on.
    confirmed_ns BIGINT,
    created_ns BIGINT NOT NULL
);

CREATE TABLE recovery_codes (
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    code_hash TEXT NOT NULL,
    used_ns BIGINT,
    PRIMARY KEY (user_id, code_hash)
);

-- A random key under which second factors are sealed, wrapped by the master key with this fingerprint. Two rows only
-- while the master key is being changed.
CREATE TABLE sealing_keys (
    master_fingerprint TEXT NOT NULL PRIMARY KEY,
    wrapped TEXT NOT NULL,
    created_ns BIGINT NOT NULL
);

CREATE TABLE login_sessions (
    id TEXT NOT NULL PRIMARY KEY,
    secret_hash TEXT NOT NULL UNIQUE,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_ns BIGINT NOT NULL,
    -- Last use, or up to a minute before it.
    seen_ns BIGINT NOT NULL,
    ends_ns BIGINT NOT NULL,
    step_up_until_ns BIGINT NOT NULL,
    address TEXT NOT NULL,
    -- What the caller says it is.
    program TEXT NOT NULL
);
CREATE INDEX login_sessions_by_user ON login_sessions (user_id);

CREATE TABLE api_tokens (
    id TEXT NOT NULL PRIMARY KEY,
    secret_hash TEXT NOT NULL UNIQUE,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    -- Nothing outside of this tenant's subtree.
    tenant_id TEXT NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    -- JSON lists: verbs of the permission matrix; networks from which it works, empty = from anywhere.
    verbs TEXT NOT NULL,
    networks TEXT NOT NULL,
    created_ns BIGINT NOT NULL,
    expires_ns BIGINT,
    revoked_ns BIGINT,
    -- To the minute.
    used_ns BIGINT
);
CREATE INDEX api_tokens_by_user ON api_tokens (user_id, created_ns, id);

CREATE TABLE invitations (
    id TEXT NOT NULL PRIMARY KEY,
    -- user: into this tenant. customer, partner: to be made below this tenant, with the person as owner.
    kind TEXT NOT NULL CHECK (kind IN ('user', 'customer', 'partner')),
    tenant_id TEXT NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    email TEXT NOT NULL,
    email_folded TEXT NOT NULL,
    -- Of an invited user; NULL for somebody who is only to be in groups.
    role TEXT CHECK (role IN ('admin', 'user', 'auditor')),
    -- JSON list of ids.
    member_groups TEXT NOT NULL,
    -- Of a tenant to be made.
    title TEXT,
    -- What it gets at once, JSON; NULL = nothing.
    service TEXT,
    locale TEXT NOT NULL,
    -- NULL: the operator of the server.
    inviter_id TEXT REFERENCES users (id) ON DELETE CASCADE,
    inviter_name TEXT NOT NULL,
    secret_hash TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL CHECK (state IN ('sent', 'accepted', 'expired', 'revoked')),
    state_ns BIGINT NOT NULL,
    expires_ns BIGINT NOT NULL,
    created_ns BIGINT NOT NULL,
    accepted_user_id TEXT REFERENCES users (id) ON DELETE SET NULL
);
CREATE INDEX invitations_by_tenant ON invitations (tenant_id, created_ns, id);

CREATE TABLE password_resets (
    secret_hash TEXT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_ns BIGINT NOT NULL,
    expires_ns BIGINT NOT NULL
);
CREATE INDEX password_resets_by_user ON password_resets (user_id);

-- Every customer code ever given; rows stay when their users go, so that none is given again.
CREATE TABLE customer_codes (
    code TEXT NOT NULL PRIMARY KEY,
    created_ns BIGINT NOT NULL
);

-- How an operator gives an account back to somebody who has lost mail address or second factor.
CREATE TABLE account_recoveries (
    id TEXT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    new_email TEXT NOT NULL,
    reason TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('asked', 'waiting', 'done', 'cancelled')),
    state_ns BIGINT NOT NULL,
    -- Actors as in the audit log.
    asked_by TEXT NOT NULL,
    asked_by_name TEXT NOT NULL,
    approved_by TEXT,
    approved_by_name TEXT,
    -- When it may be carried out; NULL before its approval.
    due_ns BIGINT,
    created_ns BIGINT NOT NULL
);
CREATE INDEX account_recoveries_by_user ON account_recoveries (user_id, state);
