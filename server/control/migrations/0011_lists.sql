-- Lists of jobs at any size, and the search in their logs; deliveries to webhooks in turn.

-- Lists of jobs: each filter with each order is one range of one of these (src/job_list.rs names them). What nearly all
-- jobs are (succeeded, backups) is left out where a list of such jobs fills a page from the range without it.
CREATE INDEX jobs_start ON jobs (started_ns);
CREATE INDEX jobs_end ON jobs (ended_ns);
CREATE INDEX jobs_state_start ON jobs (state, started_ns);
CREATE INDEX jobs_state_end ON jobs (state, ended_ns);
CREATE INDEX jobs_tenant_start ON jobs (tenant_id, started_ns);
CREATE INDEX jobs_tenant_end ON jobs (tenant_id, ended_ns);
CREATE INDEX jobs_tenant_state_start ON jobs (tenant_id, state, started_ns) WHERE state <> 'succeeded';
CREATE INDEX jobs_tenant_state_end ON jobs (tenant_id, state, ended_ns) WHERE state <> 'succeeded';
CREATE INDEX jobs_user_start ON jobs (user_id, started_ns);
CREATE INDEX jobs_user_end ON jobs (user_id, ended_ns);
CREATE INDEX jobs_user_state_start ON jobs (user_id, state, started_ns) WHERE state <> 'succeeded';
CREATE INDEX jobs_user_state_end ON jobs (user_id, state, ended_ns) WHERE state <> 'succeeded';
CREATE INDEX jobs_computer_start ON jobs (computer_id, started_ns);
CREATE INDEX jobs_computer_end ON jobs (computer_id, ended_ns);
CREATE INDEX jobs_computer_state_start ON jobs (computer_id, state, started_ns) WHERE state <> 'succeeded';
CREATE INDEX jobs_computer_state_end ON jobs (computer_id, state, ended_ns) WHERE state <> 'succeeded';
CREATE INDEX jobs_plan_start ON jobs (plan_id, started_ns);
CREATE INDEX jobs_plan_end ON jobs (plan_id, ended_ns);
CREATE INDEX jobs_plan_state_start ON jobs (plan_id, state, started_ns) WHERE state <> 'succeeded';
-- Whole: notices ask every plan for its last success.
CREATE INDEX jobs_plan_state_end ON jobs (plan_id, state, ended_ns);
CREATE INDEX jobs_restore_start ON jobs (started_ns) WHERE kind = 'restore';
CREATE INDEX jobs_restore_end ON jobs (ended_ns) WHERE kind = 'restore';
CREATE INDEX jobs_restore_state_start ON jobs (state, started_ns) WHERE kind = 'restore';
CREATE INDEX jobs_restore_state_end ON jobs (state, ended_ns) WHERE kind = 'restore';
CREATE INDEX jobs_restore_tenant_start ON jobs (tenant_id, started_ns) WHERE kind = 'restore';
CREATE INDEX jobs_restore_tenant_end ON jobs (tenant_id, ended_ns) WHERE kind = 'restore';
CREATE INDEX jobs_restore_user_start ON jobs (user_id, started_ns) WHERE kind = 'restore';
CREATE INDEX jobs_restore_user_end ON jobs (user_id, ended_ns) WHERE kind = 'restore';
CREATE INDEX jobs_restore_computer_start ON jobs (computer_id, started_ns) WHERE kind = 'restore';
CREATE INDEX jobs_restore_computer_end ON jobs (computer_id, ended_ns) WHERE kind = 'restore';
CREATE INDEX jobs_restore_plan_start ON jobs (plan_id, started_ns) WHERE kind = 'restore';
CREATE INDEX jobs_restore_plan_end ON jobs (plan_id, ended_ns) WHERE kind = 'restore';

-- Of each webhook the delivery that is next.
CREATE INDEX webhook_deliveries_next ON webhook_deliveries (webhook_id, next_try_ns, id) WHERE state = 'queued';

-- The words of jobs' logs. Jobs of a tenant are numbered in buckets; of each word and bucket one row says which of the
-- bucket's jobs have it.
ALTER TABLE jobs ADD COLUMN log_indexed BIGINT NOT NULL DEFAULT 0;
CREATE INDEX jobs_log_not_indexed ON jobs (id) WHERE log_kept > log_indexed;
CREATE TABLE log_buckets (
    id TEXT NOT NULL PRIMARY KEY,
    tenant_id TEXT NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    opened_ns BIGINT NOT NULL,
    jobs BIGINT NOT NULL
);
CREATE INDEX log_buckets_by_tenant ON log_buckets (tenant_id, opened_ns);
CREATE TABLE log_bucket_jobs (
    bucket_id TEXT NOT NULL REFERENCES log_buckets (id) ON DELETE CASCADE,
    number BIGINT NOT NULL,
    job_id TEXT NOT NULL UNIQUE REFERENCES jobs (id) ON DELETE CASCADE,
    PRIMARY KEY (bucket_id, number)
);
CREATE TABLE log_words (
    word TEXT NOT NULL,
    opened_ns BIGINT NOT NULL,
    bucket_id TEXT NOT NULL REFERENCES log_buckets (id) ON DELETE CASCADE,
    tenant_id TEXT NOT NULL,
    -- Which jobs: `l` and their numbers, or `b` and their bits, hexadecimal.
    members TEXT NOT NULL,
    PRIMARY KEY (word, opened_ns, bucket_id)
);
CREATE INDEX log_words_by_bucket ON log_words (bucket_id);
