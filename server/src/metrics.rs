//! Prometheus metrics: names, labels and their bounds. Labels are route patterns, methods, statuses and fixed words;
//! never a path, a vault or a name, so the number of series has a bound.

mod quota;

use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};
use quota::QuotaMetrics;
use std::time::Duration;
use store::QuotaReading;

const LATENCY_SECONDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
const HANDSHAKE_SECONDS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];

/// All metrics of the process.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    seconds: HistogramVec,
    received_bytes: IntCounter,
    sent_bytes: IntCounter,
    connections: IntGauge,
    agents_waiting: IntGauge,
    handshake_failures: IntCounter,
    handshake_seconds: Histogram,
    objects_received: IntCounterVec,
    objects_sent: IntCounter,
    stored_bytes: IntCounter,
    upload_sessions: IntGauge,
    vaults: IntGauge,
    objects: IntGauge,
    bytes: IntGaugeVec,
    snapshots: IntGauge,
    master_key_unconfirmed: IntGauge,
    draining: IntGauge,
    disk_full: IntGauge,
    quotas: QuotaMetrics,
    vault_states: IntGaugeVec,
    index_reopened: IntGauge,
    damaged_objects: IntGauge,
    clock_jumped: IntGauge,
    job_pending: IntGaugeVec,
    job_failures: IntCounterVec,
    job_done_seconds: IntGaugeVec,
    collected: IntCounterVec,
    scrubbed_bytes: IntCounter,
    scrub_damage: IntCounter,
    audit_differences: IntCounterVec,
    mails: IntGaugeVec,
    mail_tries: IntCounterVec,
    webhook_tries: IntCounterVec,
    sftp_refused: IntCounterVec,
    sftp_bytes: IntCounter,
    notices: IntGaugeVec,
}

/// What the vaults hold together, for the gauges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Vaults.
    pub vaults: u64,
    /// Objects stored.
    pub objects: u64,
    /// Bytes in packs.
    pub physical_bytes: u64,
    /// Sum of file sizes over all snapshots.
    pub logical_bytes: u64,
    /// Sum of file sizes over deleted snapshots that can be brought back.
    pub deleted_logical_bytes: u64,
    /// Bytes of objects nothing refers to: being reclaimed.
    pub pending_bytes: u64,
    /// Bytes in packs of what is gone: compaction frees them.
    pub dead_bytes: u64,
    /// Snapshots, deleted ones included.
    pub snapshots: u64,
    /// Objects found damaged and not yet healed.
    pub damaged_objects: u64,
    /// The clock that retention goes by is not believed.
    pub has_clock_jumped: bool,
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

impl Metrics {
    /// Registers everything. An error means that a name is used twice: a defect.
    pub fn new() -> Result<Metrics, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let metric = IntCounter::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let single = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let metric = IntGauge::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let counters = |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec, prometheus::Error> {
            let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| -> Result<IntGaugeVec, prometheus::Error> {
            let metric = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let seconds = HistogramVec::new(
            HistogramOpts::new("holdfast_http_request_seconds", "Time until the answer's head, by route")
                .buckets(LATENCY_SECONDS.to_vec()),
            &["route"],
        )?;
        registry.register(Box::new(seconds.clone()))?;
        let handshake_seconds = Histogram::with_opts(
            HistogramOpts::new("holdfast_tls_handshake_seconds", "Time of finished TLS handshakes")
                .buckets(HANDSHAKE_SECONDS.to_vec()),
        )?;
        registry.register(Box::new(handshake_seconds.clone()))?;
        let build = gauges("holdfast_build_info", "Always 1; the label names the version", &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Ok(Metrics {
            requests: counters("holdfast_http_requests_total", "Requests answered", &["route", "method", "status"])?,
            seconds,
            received_bytes: counter("holdfast_http_received_bytes_total", "Bytes of request bodies")?,
            sent_bytes: counter("holdfast_http_sent_bytes_total", "Bytes of answer bodies")?,
            connections: single("holdfast_connections", "Open connections, handshakes included")?,
            agents_waiting: single("holdfast_agents_waiting", "Agents that wait for orders, each on a connection")?,
            handshake_failures: counter(
                "holdfast_tls_handshake_failures_total",
                "Handshakes that failed or timed out",
            )?,
            handshake_seconds,
            objects_received: counters(
                "holdfast_objects_received_total",
                "Objects received by uploads; `new` were not in their vault before",
                &["kind", "state"],
            )?,
            objects_sent: counter("holdfast_objects_sent_total", "Objects sent to restores")?,
            stored_bytes: counter("holdfast_stored_bytes_total", "Bytes added to packs by uploads")?,
            upload_sessions: single("holdfast_upload_sessions", "Upload sessions with a request in the last minutes")?,
            vaults: single("holdfast_vaults", "Vaults")?,
            objects: single("holdfast_objects", "Objects stored, all vaults")?,
            bytes: gauges(
                "holdfast_bytes",
                "Bytes of all vaults: logical (deleted_logical of them held after deletion), physical (pending of them \
                 being reclaimed), dead (in packs, freed by compaction)",
                &["kind"],
            )?,
            snapshots: single("holdfast_snapshots", "Snapshots, all vaults")?,
            master_key_unconfirmed: single(
                "holdfast_master_key_unconfirmed",
                "1 until somebody has confirmed the master key",
            )?,
            draining: single("holdfast_draining", "1 while the server goes down")?,
            disk_full: single("holdfast_disk_full", "1 while the disk is at its reserve and uploads are refused")?,
            quotas: QuotaMetrics::new(&registry)?,
            vault_states: gauges(
                "holdfast_vault_states",
                "Vaults by what can be done with them: ready, read_only, unavailable (someone must act), deleting",
                &["state"],
            )?,
            index_reopened: single("holdfast_index_reopened", "Times the index failed and was opened again")?,
            damaged_objects: single("holdfast_damaged_objects", "Objects found damaged and not yet healed")?,
            clock_jumped: single(
                "holdfast_clock_jumped",
                "1 while the server's clock is not believed and nothing expires",
            )?,
            job_pending: gauges("holdfast_job_pending_vaults", "Vaults that wait for a background job", &["job"])?,
            job_failures: counters("holdfast_job_failures_total", "Steps of background jobs that failed", &["job"])?,
            job_done_seconds: gauges(
                "holdfast_job_done_seconds",
                "When a background job last had nothing left to do, seconds since 1970",
                &["job"],
            )?,
            collected: counters(
                "holdfast_collected_total",
                "What background jobs removed or moved: expired_snapshots, purged_snapshots, objects, object_bytes, \
                 packs, pack_bytes, copied_bytes, upload_sessions",
                &["what"],
            )?,
            scrubbed_bytes: counter("holdfast_scrubbed_bytes_total", "Bytes verified by the scrub")?,
            audit_differences: counters(
                "holdfast_audit_differences_total",
                "Differences that audits found: too_low, too_high, missing, miscounted",
                &["what"],
            )?,
            mails: gauges(
                "holdfast_mails",
                "Mails in the outbox by state: queued, sent, failed, cancelled",
                &["state"],
            )?,
            webhook_tries: counters(
                "holdfast_webhook_tries_total",
                "Deliveries sent to webhooks, by what came of it: delivered, failed",
                &["result"],
            )?,
            sftp_refused: counters(
                "holdfast_sftp_refused_total",
                "SFTP connections and log-ins refused, by reason",
                &["reason"],
            )?,
            sftp_bytes: counter("holdfast_sftp_sent_bytes_total", "Bytes of exports sent over SFTP")?,
            notices: gauges("holdfast_notices", "Notices that are open, by kind", &["kind"])?,
            mail_tries: counters(
                "holdfast_mail_tries_total",
                "Mails handed to the mail server, by what came of it: sent, refused, delayed",
                &["result"],
            )?,
            scrub_damage: counter("holdfast_scrub_damage_total", "Objects and packs the scrub found damaged")?,
            registry,
        })
    }

    /// One request answered. `route` is a pattern, `method` is cut to the known ones.
    pub fn request(&self, route: &str, method: &str, status: u16, elapsed: Duration) {
        let method = match method {
            "GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "PATCH" | "OPTIONS" => method,
            _ => "other",
        };
        self.requests.with_label_values(&[route, method, &status.to_string()]).inc();
        self.seconds.with_label_values(&[route]).observe(elapsed.as_secs_f64());
    }

    /// Counter of bytes in request bodies.
    pub fn received_bytes(&self) -> IntCounter {
        self.received_bytes.clone()
    }

    /// Counter of bytes in answer bodies.
    pub fn sent_bytes(&self) -> IntCounter {
        self.sent_bytes.clone()
    }

    /// Gauge of open connections.
    pub fn connections(&self) -> &IntGauge {
        &self.connections
    }

    /// A handshake that failed or took too long.
    pub fn handshake_failed(&self) {
        self.handshake_failures.inc();
    }

    /// A handshake that was done.
    pub fn handshake_done(&self, elapsed: Duration) {
        self.handshake_seconds.observe(elapsed.as_secs_f64());
    }

    /// Objects an upload brought; `new` of them were not stored before and took `stored_bytes`.
    pub fn objects_received(&self, kind: repo_format::id::ObjectKind, received: u64, new: u64, stored_bytes: u64) {
        let kind = match kind {
            repo_format::id::ObjectKind::Chunk => "chunk",
            repo_format::id::ObjectKind::Node => "node",
        };
        self.objects_received.with_label_values(&[kind, "new"]).inc_by(new);
        self.objects_received.with_label_values(&[kind, "known"]).inc_by(received.saturating_sub(new));
        self.stored_bytes.inc_by(stored_bytes);
    }

    /// Objects sent to a restore.
    pub fn objects_sent(&self, count: u64) {
        self.objects_sent.inc_by(count);
    }

    /// Sets the gauges that are read off the server when somebody asks.
    pub fn set_gauges(
        &self,
        totals: &Totals,
        upload_sessions: u64,
        unconfirmed: bool,
        draining: bool,
        disk_full: bool,
    ) {
        self.vaults.set(gauge(totals.vaults));
        self.objects.set(gauge(totals.objects));
        self.bytes.with_label_values(&["physical"]).set(gauge(totals.physical_bytes));
        self.bytes.with_label_values(&["logical"]).set(gauge(totals.logical_bytes));
        self.bytes.with_label_values(&["pending"]).set(gauge(totals.pending_bytes));
        self.bytes.with_label_values(&["deleted_logical"]).set(gauge(totals.deleted_logical_bytes));
        self.bytes.with_label_values(&["dead"]).set(gauge(totals.dead_bytes));
        self.snapshots.set(gauge(totals.snapshots));
        self.damaged_objects.set(gauge(totals.damaged_objects));
        self.clock_jumped.set(i64::from(totals.has_clock_jumped));
        self.upload_sessions.set(gauge(upload_sessions));
        self.master_key_unconfirmed.set(i64::from(unconfirmed));
        self.draining.set(i64::from(draining));
        self.disk_full.set(i64::from(disk_full));
    }

    /// Sets how many agents wait for orders.
    pub fn set_agents_waiting(&self, agents: usize) {
        self.agents_waiting.set(gauge(agents as u64));
    }

    /// Sets the metrics of quotas.
    pub fn set_quotas(&self, readings: &[QuotaReading], refusals: u64) {
        self.quotas.set(readings, refusals);
    }

    /// Sets the gauges of how the store does. `states` counts vaults by the name of their state.
    pub fn set_store_gauges(&self, states: &std::collections::BTreeMap<&'static str, u64>, index_reopened: u64) {
        for state in ["ready", "read_only", "unavailable", "deleting"] {
            let count = states.get(state).copied().unwrap_or_default();
            self.vault_states.with_label_values(&[state]).set(gauge(count));
        }
        self.index_reopened.set(gauge(index_reopened));
    }

    /// How many vaults wait for a job.
    pub fn job_pending(&self, job: &'static str, vaults: u64) {
        self.job_pending.with_label_values(&[job]).set(gauge(vaults));
    }

    /// A step of a job failed.
    pub fn job_failed(&self, job: &'static str) {
        self.job_failures.with_label_values(&[job]).inc();
    }

    /// A job has nothing left to do, at `now_seconds` since 1970.
    pub fn job_idle(&self, job: &'static str, now_seconds: i64) {
        self.job_done_seconds.with_label_values(&[job]).set(now_seconds);
    }

    fn collected(&self, what: &str, count: u64) {
        self.collected.with_label_values(&[what]).inc_by(count);
    }

    /// A step of garbage collection.
    pub fn maintained(&self, done: &store::Maintained) {
        self.collected("purged_snapshots", done.purged_snapshots);
        self.collected("objects", done.reaped_objects);
        self.collected("object_bytes", done.reaped_bytes);
        self.collected("packs", done.dropped_packs);
        self.collected("pack_bytes", done.dropped_bytes);
        self.collected("copied_bytes", done.copied_bytes);
        self.collected("upload_sessions", done.expired_uploads);
    }

    /// Snapshots expired by retention.
    pub fn expired(&self, snapshots: u64) {
        self.collected("expired_snapshots", snapshots);
    }

    /// A step of the scrub.
    pub fn scrubbed(&self, step: &store::ScrubStep) {
        self.scrubbed_bytes.inc_by(step.bytes);
        self.scrub_damage.inc_by(step.objects_damaged + step.packs_damaged + step.packs_missing);
    }

    /// An audit that ended.
    pub fn audited(&self, report: &store::AuditReport) {
        for (what, count) in [
            ("too_low", report.too_low),
            ("too_high", report.too_high),
            ("missing", report.missing),
            ("miscounted", report.miscounted),
        ] {
            self.audit_differences.with_label_values(&[what]).inc_by(count);
        }
    }

    /// A mail was handed to the mail server: `sent`, `refused` or `delayed`.
    pub fn mail(&self, result: &'static str) {
        self.mail_tries.with_label_values(&[result]).inc();
    }

    /// A delivery was sent to a webhook: `delivered` or `failed`.
    pub fn webhook(&self, result: &'static str) {
        self.webhook_tries.with_label_values(&[result]).inc();
    }

    /// An SFTP connection or log-in was refused; the reason is one of the gateway's words.
    pub fn sftp_refused(&self, reason: &str) {
        self.sftp_refused.with_label_values(&[reason]).inc();
    }

    /// Bytes of an export were sent.
    pub fn sftp_bytes(&self, bytes: u64) {
        self.sftp_bytes.inc_by(bytes);
    }

    /// Sets the gauges of open notices.
    pub fn set_notices(&self, counts: &std::collections::BTreeMap<&'static str, i64>) {
        for (kind, count) in counts {
            self.notices.with_label_values(&[kind]).set(*count);
        }
    }

    /// Sets the gauges of the outbox.
    pub fn set_mails(&self, counts: &std::collections::BTreeMap<&'static str, i64>) {
        for (state, count) in counts {
            self.mails.with_label_values(&[state]).set(*count);
        }
    }

    /// Everything in the text format.
    pub fn text(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut out = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut out)?;
        Ok(out)
    }
}
