-- Computers and the credentials that make them, plans with their revisions, jobs with their logs, and orders to agents.
-- Lists and bodies are JSON as TEXT. What lists of jobs need beside this stands with those lists.

CREATE TABLE computers (
    id TEXT NOT NULL PRIMARY KEY,
    tenant_id TEXT NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    -- Its name in every snapshot it makes.
    name TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('active', 'retired')),
    state_ns BIGINT NOT NULL,
    -- Of the one credential that works; none once it is retired.
    secret_hash TEXT UNIQUE,
    credential_ns BIGINT NOT NULL,
    -- As the agent says it.
    os TEXT NOT NULL DEFAULT '',
    agent_version TEXT NOT NULL DEFAULT '',
    -- Last heard of, to the minute.
    seen_ns BIGINT,
    -- Rises with every change of one of its plans.
    plans_version BIGINT NOT NULL DEFAULT 0,
    created_ns BIGINT NOT NULL
);
CREATE UNIQUE INDEX computers_by_name ON computers (user_id, name) WHERE state = 'active';
CREATE INDEX computers_by_tenant ON computers (tenant_id);

-- Good once, for ten minutes, to make a computer or to give one a new credential.
CREATE TABLE enrolments (
    id TEXT NOT NULL PRIMARY KEY,
    tenant_id TEXT NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    secret_hash TEXT NOT NULL UNIQUE,
    -- The computer whose place is taken.
    replaces_id TEXT REFERENCES computers (id) ON DELETE CASCADE,
    created_ns BIGINT NOT NULL,
    expires_ns BIGINT NOT NULL,
    used_ns BIGINT
);
CREATE INDEX enrolments_by_user ON enrolments (user_id);

CREATE TABLE plans (
    id TEXT NOT NULL PRIMARY KEY,
    tenant_id TEXT NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    computer_id TEXT NOT NULL REFERENCES computers (id) ON DELETE CASCADE,
    -- Its snapshots' series.
    name TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('enabled', 'paused', 'deleted')),
    state_ns BIGINT NOT NULL,
    -- The current one.
    revision BIGINT NOT NULL,
    -- The next moment at which it is to run, as the server reckons; none while it runs by hand alone or not at all.
    due_ns BIGINT,
    -- From then on a run that was due and has not begun is missed.
    overdue_ns BIGINT,
    created_ns BIGINT NOT NULL
);
CREATE UNIQUE INDEX plans_by_name ON plans (computer_id, name) WHERE state <> 'deleted';
CREATE INDEX plans_by_user ON plans (user_id);
CREATE INDEX plans_by_tenant ON plans (tenant_id);
CREATE INDEX plans_overdue ON plans (overdue_ns) WHERE state = 'enabled';

-- Never changed: a job says by which one it ran.
CREATE TABLE plan_revisions (
    plan_id TEXT NOT NULL REFERENCES plans (id) ON DELETE CASCADE,
    revision BIGINT NOT NULL,
    -- What, when, how long it is kept: JSON.
    body TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_ns BIGINT NOT NULL,
    PRIMARY KEY (plan_id, revision)
);

CREATE TABLE jobs (
    -- Chosen by whoever makes it, so that making it again is the same job.
    id TEXT NOT NULL PRIMARY KEY,
    tenant_id TEXT NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    computer_id TEXT NOT NULL REFERENCES computers (id) ON DELETE CASCADE,
    plan_id TEXT REFERENCES plans (id) ON DELETE CASCADE,
    plan_revision BIGINT,
    kind TEXT NOT NULL CHECK (kind IN ('backup', 'restore')),
    cause TEXT NOT NULL CHECK (cause IN ('schedule', 'catch_up', 'order')),
    state TEXT NOT NULL CHECK (state IN
        ('queued', 'running', 'succeeded', 'warning', 'failed', 'cancelled', 'missed')),
    -- Why it did not succeed, as a word and for people. `lost`: the agent fell silent.
    error_code TEXT,
    message TEXT,
    -- The moment of the schedule that it runs for.
    slot_ns BIGINT,
    created_ns BIGINT NOT NULL,
    -- When it began; until then when it was made, and of a missed one when it should have.
    started_ns BIGINT NOT NULL,
    -- When it ended; the largest number until then, so that it can be sorted by.
    ended_ns BIGINT NOT NULL DEFAULT 9223372036854775807,
    -- Last heard of while it runs.
    heartbeat_ns BIGINT,
    -- What it has done so far, and in the end.
    files BIGINT NOT NULL DEFAULT 0,
    bytes_done BIGINT NOT NULL DEFAULT 0,
    -- Of how many, when that is known.
    bytes_total BIGINT,
    bytes_added BIGINT NOT NULL DEFAULT 0,
    warnings BIGINT NOT NULL DEFAULT 0,
    -- What it made.
    snapshot_id TEXT,
    -- Lines of its log, and of those how many were kept.
    log_lines BIGINT NOT NULL DEFAULT 0,
    log_kept BIGINT NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX jobs_by_slot ON jobs (plan_id, slot_ns);
-- The few that have not ended.
CREATE INDEX jobs_open ON jobs (computer_id, state) WHERE state IN ('queued', 'running');

CREATE TABLE job_log (
    job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    -- From 0, counted by the agent.
    line BIGINT NOT NULL,
    at_ns BIGINT NOT NULL,
    level TEXT NOT NULL CHECK (level IN ('info', 'warning', 'error')),
    text TEXT NOT NULL,
    PRIMARY KEY (job_id, line)
);

-- What an agent is to do now.
CREATE TABLE orders (
    id TEXT NOT NULL PRIMARY KEY,
    computer_id TEXT NOT NULL REFERENCES computers (id) ON DELETE CASCADE,
    kind TEXT NOT NULL CHECK (kind IN ('start', 'cancel', 'restore')),
    -- The job that is to be begun or cancelled.
    job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    -- Of a restore: what and where to, JSON.
    body TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'delivered', 'done', 'withdrawn')),
    created_by TEXT NOT NULL,
    created_ns BIGINT NOT NULL,
    state_ns BIGINT NOT NULL
);
CREATE INDEX orders_waiting ON orders (computer_id, created_ns) WHERE state IN ('waiting', 'delivered');
