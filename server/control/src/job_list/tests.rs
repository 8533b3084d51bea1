//! A million jobs on SQLite: how long lists take, and the search in logs. The rows are written straight into the tables:
//! through the front door they would take hours.

use super::*;
use crate::{Authority, LogLine};
use std::time::{Duration, Instant};

const TENANTS: i64 = 1000;
const COMPUTERS: i64 = 10_000;
const JOBS: i64 = 1_000_000;
const DAY_NS: i64 = 24 * 3600 * 1_000_000_000;
const START_NS: i64 = 1_763_000_000_000_000_000;
const PAGE: u32 = 50;
/// Ninety-five of a hundred pages come within this.
const PAGE_MAX: Duration = Duration::from_millis(50);

fn id(kind: u8, number: i64) -> String {
    format!("{kind:02x}{number:030x}")
}

async fn run(control: &Control, text: String) {
    let mut transaction = control.write().await.unwrap();
    sqlx::query(sqlx::AssertSqlSafe(text)).execute(&mut *transaction).await.unwrap();
    transaction.commit().await.unwrap();
}

/// A thousand customers with ten computers each, two plans on every computer, and a year of jobs: 90 % succeeded, a
/// hundredth restores, one of fifty customers with a third of everything.
async fn fill(control: &Control, jobs: i64) {
    let series =
        |to: i64| format!("WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {to} - 1)");
    let platform = TenantId::PLATFORM;
    run(
        control,
        format!(
            "{} INSERT INTO tenants (id, kind, parent_id, path, name, title, created_ns) SELECT '01' || printf('%030x', i), \
             'customer', '{platform}', '{platform}/01' || printf('%030x', i) || '/', 'c' || i, 'Customer ' || i, 0 FROM n",
            series(TENANTS)
        ),
    )
    .await;
    run(
        control,
        format!(
            "{} INSERT INTO users (id, tenant_id, name, created_ns) SELECT '02' || printf('%030x', i), \
             '01' || printf('%030x', i % {TENANTS}), 'u' || i, 0 FROM n",
            series(COMPUTERS)
        ),
    )
    .await;
    run(
        control,
        format!(
            "{} INSERT INTO computers (id, tenant_id, user_id, name, state, state_ns, credential_ns, created_ns) \
             SELECT '03' || printf('%030x', i), '01' || printf('%030x', i % {TENANTS}), '02' || printf('%030x', i), \
             'pc' || i, 'active', 0, 0, 0 FROM n",
            series(COMPUTERS)
        ),
    )
    .await;
    run(
        control,
        format!(
            "{} INSERT INTO plans (id, tenant_id, user_id, computer_id, name, state, state_ns, revision, created_ns) \
             SELECT '04' || printf('%030x', i), '01' || printf('%030x', i / 2 % {TENANTS}), \
             '02' || printf('%030x', i / 2), '03' || printf('%030x', i / 2), 'plan' || (i % 2), 'enabled', 0, 1, 0 FROM n",
            series(COMPUTERS * 2)
        ),
    )
    .await;
    // A third of the jobs is on the ten computers of twenty customers; the others are spread evenly.
    run(
        control,
        format!(
            "{}, r(i, p, c, s) AS (SELECT i, abs(random()) % 100, CASE WHEN i % 3 = 0 \
                THEN abs(random()) % 20 + {TENANTS} * (abs(random()) % 10) ELSE abs(random()) % {COMPUTERS} END, \
                {START_NS} + i * (365 * {DAY_NS} / {jobs}) FROM n) \
             INSERT INTO jobs (id, tenant_id, user_id, computer_id, plan_id, plan_revision, kind, cause, state, \
                created_ns, started_ns, ended_ns) \
             SELECT lower(hex(randomblob(16))), '01' || printf('%030x', c % {TENANTS}), '02' || printf('%030x', c), \
                '03' || printf('%030x', c), CASE WHEN i % 100 = 7 THEN NULL ELSE '04' || printf('%030x', c * 2 + i % 2) END, \
                1, CASE WHEN i % 100 = 7 THEN 'restore' ELSE 'backup' END, 'schedule', \
                CASE WHEN i > {jobs} - 200 THEN CASE i % 2 WHEN 0 THEN 'running' ELSE 'queued' END \
                    WHEN p < 90 THEN 'succeeded' WHEN p < 94 THEN 'warning' WHEN p < 97 THEN 'failed' \
                    WHEN p < 99 THEN 'missed' ELSE 'cancelled' END, \
                s, s, CASE WHEN i > {jobs} - 200 THEN 9223372036854775807 ELSE s + abs(random()) % 3600000000000 END \
             FROM r",
            series(jobs)
        ),
    )
    .await;
    run(control, "ANALYZE".into()).await;
}

fn singles() -> Vec<(String, JobFilter)> {
    let none = JobFilter::default();
    let mut filters: Vec<(String, JobFilter)> = JOB_STATE_ORDER
        .iter()
        .map(|state| (state.as_str().to_owned(), JobFilter { state: Some(*state), ..none.clone() }))
        .collect();
    let (busy, quiet) = (TenantId::stored(&id(1, 3)).unwrap(), TenantId::stored(&id(1, 500)).unwrap());
    let user = UserId::stored(&id(2, 3)).unwrap();
    let computer = ComputerId::stored(&id(3, 3)).unwrap();
    let plan = PlanId::stored(&id(4, 6)).unwrap();
    let (from_ns, to_ns) = (START_NS + 100 * DAY_NS, START_NS + 200 * DAY_NS);
    filters.extend(
        [
            ("busy tenant", JobFilter { tenant: Some(busy), ..none.clone() }),
            ("quiet tenant", JobFilter { tenant: Some(quiet), ..none.clone() }),
            ("user", JobFilter { user: Some(user), ..none.clone() }),
            ("computer", JobFilter { computer: Some(computer), ..none.clone() }),
            ("plan", JobFilter { plan: Some(plan), ..none.clone() }),
            ("backup", JobFilter { kind: Some(JobKind::Backup), ..none.clone() }),
            ("restore", JobFilter { kind: Some(JobKind::Restore), ..none.clone() }),
            ("time", JobFilter { from_ns: Some(from_ns), to_ns: Some(to_ns), ..none }),
        ]
        .map(|(name, filter)| (name.to_owned(), filter)),
    );
    filters
}

fn both(a: &JobFilter, b: &JobFilter) -> JobFilter {
    JobFilter {
        state: a.state.or(b.state),
        tenant: a.tenant.or(b.tenant),
        user: a.user.or(b.user),
        computer: a.computer.or(b.computer),
        plan: a.plan.or(b.plan),
        kind: a.kind.or(b.kind),
        from_ns: a.from_ns.or(b.from_ns),
        to_ns: a.to_ns.or(b.to_ns),
    }
}

fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort();
    times[(times.len() * percent / 100).min(times.len() - 1)]
}

fn scopes(authority: &Authority) -> Vec<(&'static str, Scope)> {
    let tenant = TenantId::stored(&id(1, 3)).unwrap();
    let users = (0..30).map(|number| ScopePart::User(UserId::stored(&id(2, number * 7)).unwrap())).collect();
    vec![
        ("platform", Scope::new(authority, vec![ScopePart::Subtree(TenantId::PLATFORM)])),
        ("tenant", Scope::new(authority, vec![ScopePart::Subtree(tenant)])),
        ("user", Scope::new(authority, vec![ScopePart::User(UserId::stored(&id(2, 3)).unwrap())])),
        ("users", Scope::new(authority, users)),
    ]
}

#[tokio::test]
#[ignore = "long: a million jobs"]
async fn a_page_of_a_million_jobs_comes_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let control = Control::open(&folder.path().join("accounts.sqlite")).await.unwrap();
    let filling = Instant::now();
    fill(&control, JOBS).await;
    println!("filled in {:?}", filling.elapsed());
    let authority = control.take_authority().unwrap();
    let singles = singles();
    let mut filters = vec![("all".to_owned(), JobFilter::default())];
    for (at, (name, one)) in singles.iter().enumerate() {
        filters.push((name.clone(), one.clone()));
        filters.extend(singles[at + 1..].iter().map(|(other, two)| (format!("{name} + {other}"), both(one, two))));
    }
    let (mut all, mut slow) = (Vec::new(), Vec::new());
    for (scope_name, scope) in scopes(&authority) {
        for (name, filter) in &filters {
            for sort in [JobSort::Start, JobSort::End, JobSort::State] {
                for ascending in [false, true] {
                    let (mut worst, mut after) = (Duration::ZERO, None);
                    for _ in 0..3 {
                        let began = Instant::now();
                        let page = control.jobs(&scope, filter, sort, ascending, after.as_ref(), PAGE).await.unwrap();
                        let took = began.elapsed();
                        all.push(took);
                        worst = worst.max(took);
                        let Some(last) = page.last() else { break };
                        after = Some(last.cursor(sort));
                    }
                    if worst > PAGE_MAX {
                        slow.push((worst, format!("{scope_name}: {name} {sort:?} {ascending}")));
                    }
                }
            }
        }
    }
    slow.sort();
    for (took, what) in slow.iter().rev().take(40) {
        println!("{took:?} {what}");
    }
    let pages = all.len();
    let (p50, p95, p99) = (percentile(&mut all, 50), percentile(&mut all, 95), percentile(&mut all, 99));
    println!(
        "{pages} pages of {PAGE} jobs of {JOBS}: median {p50:?}, p95 {p95:?}, p99 {p99:?}, worst {:?}",
        all[pages - 1]
    );
    println!("{} of {} lists had a page slower than {PAGE_MAX:?}", slow.len(), filters.len() * 4 * 6);
    assert!(p95 <= PAGE_MAX, "{p95:?}");
}

#[tokio::test]
#[ignore = "long: the logs of two hundred thousand jobs"]
async fn logs_are_searched_at_once() {
    const STEP: u32 = 1000;
    // A million take a quarter of an hour to be written and indexed.
    let logs: i64 = std::env::var("HOLDFAST_LOGS").map_or(200_000, |logs| logs.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let control = Control::open(&folder.path().join("accounts.sqlite")).await.unwrap();
    fill(&control, logs).await;
    // Five lines each: what all logs say, what one of a thousand says, and names of files of a thousand sorts.
    for (line, text) in [
        (0, "'plan nightly, revision 1'"),
        (1, "'reading /home/user' || (abs(random()) % 1000) || '/documents'"),
        (2, "'file report' || (abs(random()) % 1000) || '.pdf was read'"),
        (3, "CASE abs(random()) % 1000 WHEN 0 THEN 'permission denied' ELSE 'nothing was left out' END"),
        (4, "'snapshot ' || lower(hex(randomblob(16))) || ': 12345 files'"),
    ] {
        run(
            &control,
            format!(
                "INSERT INTO job_log (job_id, line, at_ns, level, text) SELECT id, {line}, started_ns, 'info', {text} FROM jobs"
            ),
        )
        .await;
    }
    run(&control, "UPDATE jobs SET log_kept = 5, log_lines = 5".into()).await;
    let indexing = Instant::now();
    let mut now_ns = START_NS;
    while control.index_logs(now_ns, STEP).await.unwrap() == STEP {
        // As over a year, so that the jobs lie in as many buckets.
        now_ns += 365 * DAY_NS / (logs / i64::from(STEP));
    }
    let indexed = indexing.elapsed();
    println!("{logs} logs of 5 lines were indexed in {indexed:?}, {:?} each", indexed / logs as u32);
    let authority = control.take_authority().unwrap();
    let mut all = Vec::new();
    for (scope_name, scope) in scopes(&authority) {
        for words in [
            "denied",
            "permission denied",
            "report17",
            "user999 report3",
            "plan nightly",
            "reading elephants",
            "quokka",
        ] {
            let (mut after, mut found, mut worst) = (None, 0, Duration::ZERO);
            for _ in 0..3 {
                let began = Instant::now();
                let filter = JobFilter::default();
                let page = control.search_logs(&scope, words, &filter, after.as_ref(), PAGE).await.unwrap();
                let took = began.elapsed();
                all.push(took);
                worst = worst.max(took);
                found += page.found.len();
                assert!(page.found.iter().all(|log: &crate::FoundLog| !Vec::<LogLine>::is_empty(&log.lines)));
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            println!("{scope_name}: {words:?}: {found} found, worst page {worst:?}");
        }
    }
    let (p50, p95) = (percentile(&mut all, 50), percentile(&mut all, 95));
    println!("{} pages: median {p50:?}, p95 {p95:?}, worst {:?}", all.len(), all[all.len() - 1]);
    assert!(p95 <= Duration::from_millis(200), "{p95:?}");
}
