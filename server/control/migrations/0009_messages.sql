-- What the server tells people: mails on their way, webhooks, notices derived from the state of things.

-- A mail waits here until the operator's mail server has taken it.
CREATE TABLE outbox_mails (
    id TEXT NOT NULL PRIMARY KEY,
    -- Whose matter it is; NULL: the platform's own.
    tenant_id TEXT REFERENCES tenants (id) ON DELETE SET NULL,
    address TEXT NOT NULL,
    template TEXT NOT NULL,
    locale TEXT NOT NULL,
    -- JSON object of texts; emptied as soon as the mail is sent or given up, because links in it are secrets.
    template_values TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('queued', 'sent', 'failed', 'cancelled')),
    tries BIGINT NOT NULL DEFAULT 0,
    next_try_ns BIGINT NOT NULL,
    -- What the mail server said last.
    last_error TEXT,
    created_ns BIGINT NOT NULL,
    -- Sent, given up or cancelled.
    done_ns BIGINT
);
CREATE INDEX outbox_mails_due ON outbox_mails (next_try_ns, id) WHERE state = 'queued';
CREATE INDEX outbox_mails_by_state ON outbox_mails (state, created_ns, id);
CREATE INDEX outbox_mails_by_age ON outbox_mails (created_ns, id);

-- When a mail server last refused a mail to this user for good; empty again once one is taken.
ALTER TABLE users ADD COLUMN mail_bounced_ns BIGINT;
CREATE INDEX users_by_notify_email ON users (notify_email);

-- Where somebody wants to be told by HTTP. Of a tenant: everything in it and below; with a user only what is the user's.
CREATE TABLE webhooks (
    id TEXT NOT NULL PRIMARY KEY,
    tenant_id TEXT NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    user_id TEXT REFERENCES users (id) ON DELETE CASCADE,
    url TEXT NOT NULL,
    -- JSON list of names of events.
    events TEXT NOT NULL,
    -- The secret that signs what is sent, sealed by the server.
    sealed_secret TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('active', 'paused')),
    state_ns BIGINT NOT NULL,
    -- Since when nothing arrives; empty again once something does.
    failing_since_ns BIGINT,
    created_ns BIGINT NOT NULL
);
CREATE INDEX webhooks_by_tenant ON webhooks (tenant_id, created_ns, id);

CREATE TABLE webhook_deliveries (
    id TEXT NOT NULL PRIMARY KEY,
    webhook_id TEXT NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
    event TEXT NOT NULL,
    -- JSON, as it is sent and signed.
    body TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('queued', 'delivered', 'failed')),
    tries BIGINT NOT NULL DEFAULT 0,
    next_try_ns BIGINT NOT NULL,
    -- What was answered last: an HTTP status, or why there was none.
    last_status BIGINT,
    last_error TEXT,
    created_ns BIGINT NOT NULL,
    done_ns BIGINT
);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (next_try_ns, id) WHERE state = 'queued';
CREATE INDEX webhook_deliveries_by_webhook ON webhook_deliveries (webhook_id, created_ns, id);
CREATE INDEX webhook_deliveries_by_age ON webhook_deliveries (created_ns);

-- What is wrong, derived from the state of things: one notice per cause, from when it is seen until it is healed.
CREATE TABLE notices (
    id TEXT NOT NULL PRIMARY KEY,
    tenant_id TEXT NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    user_id TEXT REFERENCES users (id) ON DELETE CASCADE,
    kind TEXT NOT NULL,
    -- What it is about, such as `plan 0123…`.
    cause TEXT NOT NULL,
    -- How bad, in the kind's own measure, and how bad it has been: people are told again only when it gets worse.
    level BIGINT NOT NULL,
    worst_level BIGINT NOT NULL,
    -- JSON object of texts.
    facts TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'healed')),
    since_ns BIGINT NOT NULL,
    healed_ns BIGINT
);
CREATE UNIQUE INDEX notices_open ON notices (kind, cause) WHERE state = 'open';
CREATE INDEX notices_by_tenant ON notices (tenant_id, since_ns, id);
CREATE INDEX notices_by_time ON notices (state, since_ns, id);

-- After so many days without a backup where there should have been one, people are told.
ALTER TABLE tenants ADD COLUMN stale_days BIGINT NOT NULL DEFAULT 3 CHECK (stale_days BETWEEN 1 AND 365);
-- When the user's next weekly summary is due; 0: not yet reckoned.
ALTER TABLE users ADD COLUMN summary_due_ns BIGINT NOT NULL DEFAULT 0;
ALTER TABLE users ADD COLUMN wants_summary BIGINT NOT NULL DEFAULT 1 CHECK (wants_summary IN (0, 1));
CREATE INDEX users_by_summary ON users (summary_due_ns) WHERE wants_summary = 1;
