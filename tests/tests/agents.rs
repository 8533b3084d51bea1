//! The agent as a service, with the real programs and a clock that the test moves: enrolled with one line, its plan runs by
//! itself at its minutes, also in the hour in which clocks change; what it slept through is made up for; a version is
//! restored on another computer by an order; another machine takes a computer's place.
//!
//! Needs programs whose clock can be moved:
//! `cargo build -p server -p agent --bins --features server/testing,agent/testing`, then this with `--features testing`.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::panic)] // a test says what is wrong by failing

use control::{
    Actor, ComputerId, Control, Due, EnrolmentId, Job, JobCause, JobState, NewRevision, Plan, Scope, ScopePart,
    TenantId, UserId,
};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tests::harness::{Binaries, Login, Outcome, Server, User};
use tests::process;

const CLOCK_VARIABLE: &str = "HOLDFAST_TEST_CLOCK_FILE";
const SECOND: i64 = 1_000_000_000;
const MINUTE: i64 = 60 * SECOND;
/// 2027-03-28 00:00 UTC; an hour later clocks in Berlin go from 02:00 to 03:00.
const NIGHT: i64 = 1_806_192_000 * SECOND;
/// Longest wait for anything that is to happen by itself.
const SOON: Duration = Duration::from_secs(60);

struct Bed {
    binaries: Binaries,
    folder: tempfile::TempDir,
    server: Server,
    user: User,
    accounts: Control,
    scope: Scope,
    owner: UserId,
    runtime: tokio::runtime::Runtime,
}

fn actor() -> Actor {
    Actor { id: "test".into(), name: "anna".into(), behalf: None, address: "local".into() }
}

impl Bed {
    fn new() -> Bed {
        let folder = tempfile::tempdir().unwrap();
        let binaries = Binaries::of_this_build().unwrap();
        set_clock(folder.path(), NIGHT);
        let clock = folder.path().join("clock");
        let variables = [(CLOCK_VARIABLE, clock.as_os_str())];
        let arguments = ["--heartbeat-seconds", "1"];
        let listen = ([127, 0, 0, 1], 0).into();
        let data = folder.path().join("data");
        let server = Server::start_with(&binaries, &data, listen, &arguments, &variables).unwrap();
        let user = server.add_user(&binaries, "anna").unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let accounts = runtime.block_on(Control::open(&data.join("accounts.sqlite"))).unwrap();
        let authority = accounts.take_authority().unwrap();
        let scope = Scope::new(&authority, vec![ScopePart::Subtree(TenantId::PLATFORM)]);
        let at = runtime.block_on(accounts.locate_vault(&user.vault.parse().unwrap())).unwrap();
        let owner = at.unwrap().user.unwrap();
        Bed { binaries, folder, server, user, accounts, scope, owner, runtime }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn move_clock(&self, to_ns: i64) {
        set_clock(self.folder.path(), to_ns);
    }

    /// An agent that knows nobody yet.
    fn agent(&self, name: &str) -> Login {
        Login::without_login(&self.binaries, &self.path(name))
    }

    fn token(&self, replaces: Option<&ComputerId>) -> (EnrolmentId, String) {
        let anna = actor();
        let make = self.accounts.create_enrolment(&self.scope, &anna, &self.owner, replaces, i64::MAX, NIGHT);
        let made = self.runtime.block_on(make).unwrap();
        (made.id, made.secret.expose().to_owned())
    }

    fn enrol(&self, agent: &Login, token: &str, more: &[&str]) -> Outcome {
        let (url, fingerprint) = (&self.user.url, &self.user.fingerprint);
        let mut words = vec!["enrol", url, "--fingerprint", fingerprint, "--token", token, "--json"];
        words.extend_from_slice(more);
        agent.run(words).unwrap()
    }

    /// A computer enrolled under a name.
    fn enrolled(&self, name: &str) -> (Login, ComputerId) {
        let agent = self.agent(name);
        let outcome = self.enrol(&agent, &self.token(None).1, &["--name", name]);
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        let said: serde_json::Value = serde_json::from_str(&outcome.text()).unwrap();
        (agent, said["computer"].as_str().unwrap().parse().unwrap())
    }

    fn plan(&self, computer: &ComputerId, name: &str, body: &serde_json::Value) -> Plan {
        let body = body.to_string();
        // Before the first moment at which the test runs it nothing is missed.
        let due = Some(Due { slot_ns: NIGHT + 30 * MINUTE, overdue_ns: NIGHT + 45 * MINUTE });
        let new = NewRevision { body: &body, due, retention: None };
        let anna = actor();
        let make = self.accounts.create_plan(&self.scope, &anna, computer, name, &new, NIGHT);
        self.runtime.block_on(make).unwrap()
    }

    /// Jobs that were begun or missed, the oldest first, as the audit log tells of them.
    fn jobs(&self) -> Vec<Job> {
        self.runtime.block_on(async {
            let entries = self.accounts.audit_entries(&self.scope, None, 1000).await.unwrap();
            let mut jobs = Vec::new();
            for entry in entries.into_iter().rev() {
                if matches!(entry.verb.as_str(), "job.begin" | "job.missed") {
                    let id = entry.object.strip_prefix("job ").unwrap().parse().unwrap();
                    jobs.push(self.accounts.job(&self.scope, &id).await.unwrap());
                }
            }
            jobs
        })
    }

    /// Waits until so many jobs have ended.
    fn ended_jobs(&self, count: usize) -> Vec<Job> {
        let started = Instant::now();
        loop {
            let jobs = self.jobs();
            if jobs.len() >= count && jobs.iter().all(|job| job.state.has_ended()) {
                assert_eq!(jobs.len(), count, "{jobs:?}");
                return jobs;
            }
            assert!(started.elapsed() < SOON, "not {count} jobs have ended: {jobs:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn log(&self, job: &Job) -> String {
        let lines = self.runtime.block_on(self.accounts.job_log(&self.scope, &job.id, None, 200)).unwrap();
        lines.into_iter().map(|line| line.text + "\n").collect()
    }

    fn start(&self, agent: &Login) -> Service {
        let mut command = agent.command(["run"]);
        command.env(CLOCK_VARIABLE, self.path("clock"));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap();
        Service(Some(child))
    }
}

/// `holdfast run`; killed when a test fails.
struct Service(Option<Child>);

impl Service {
    fn stop(mut self) {
        process::end(self.0.take()).unwrap();
    }

    fn kill(mut self) {
        process::kill(self.0.take().unwrap()).unwrap();
    }

    /// Waits until it ends by itself; its exit code.
    fn ends(mut self) -> Option<i32> {
        let mut child = self.0.take().unwrap();
        let status = process::wait_at_most(&mut child, SOON * 2).unwrap();
        match status {
            Some(status) => status.code(),
            None => {
                process::kill(child).unwrap();
                panic!("the service did not end by itself");
            }
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(child) = self.0.take() {
            process::kill(child).ok();
        }
    }
}

fn set_clock(folder: &Path, to_ns: i64) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i64;
    let partial = folder.join("clock.partial");
    fs::write(&partial, ((to_ns - now) / SECOND).to_string()).unwrap();
    fs::rename(partial, folder.join("clock")).unwrap();
}

fn folders(path: &Path, rule: serde_json::Value) -> serde_json::Value {
    serde_json::json!({
        "source": { "kind": "folders", "paths": [path], "excludes": ["*.tmp"] },
        "schedule": { "rule": rule, "time_zone": "Europe/Berlin" },
        "before": [{ "command": ["/bin/sh", "-c", "echo said before"] }],
    })
}

#[test]
fn a_plan_runs_by_itself_at_its_minutes_and_a_version_comes_back_elsewhere() {
    let bed = Bed::new();
    let source = bed.path("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("note"), "first").unwrap();
    fs::write(source.join("left.tmp"), "out").unwrap();
    let (one, computer) = bed.enrolled("one");
    let every = serde_json::json!({ "every": "cron", "expression": "*/10 * * * *" });
    let plan = bed.plan(&computer, "documents", &folders(&source, every));
    let service = bed.start(&one);

    // The hour in which 02:00 becomes 03:00: seven moments, ten minutes of real time apart.
    for number in 1..=7 {
        fs::write(source.join("note"), format!("version {number}")).unwrap();
        bed.move_clock(NIGHT + 20 * MINUTE + number * 10 * MINUTE + 2 * SECOND);
        bed.ended_jobs(number as usize);
    }
    let jobs = bed.jobs();
    let slots: Vec<i64> = jobs.iter().map(|job| job.slot_ns.unwrap()).collect();
    let expected: Vec<i64> = (1..=7).map(|number| NIGHT + 20 * MINUTE + number * 10 * MINUTE).collect();
    assert_eq!(slots, expected);
    for job in &jobs {
        assert_eq!(
            (job.state, job.cause, job.plan),
            (JobState::Succeeded, JobCause::Schedule, Some(plan.id)),
            "{job:?}"
        );
        assert_eq!(job.counts.files, 1, "{job:?}");
        let log = bed.log(job);
        assert!(log.contains("said before") && log.contains(job.snapshot.as_deref().unwrap()), "{log}");
    }

    // It is killed, and an hour and a half passes: the server knows what was missed, and one run makes up for it.
    service.kill();
    bed.move_clock(NIGHT + 180 * MINUTE);
    let started = Instant::now();
    // Due from 01:40 to 02:40; those of the last quarter of an hour may still come.
    while bed.jobs().len() < 7 + 7 {
        assert!(started.elapsed() < SOON, "{:?}", bed.jobs());
        std::thread::sleep(Duration::from_millis(100));
    }
    let missed = bed.jobs().split_off(7);
    assert!(missed.iter().all(|job| job.state == JobState::Missed), "{missed:?}");
    fs::write(source.join("note"), "late").unwrap();
    let service = bed.start(&one);
    let jobs = bed.ended_jobs(15);
    assert_eq!((jobs[14].state, jobs[14].counts.files), (JobState::Succeeded, 1));

    // The third version, on another computer, by an order.
    let (two, other) = bed.enrolled("two");
    let target = bed.path("restored");
    let snapshot = jobs[2].snapshot.clone().unwrap();
    let order = serde_json::json!({ "snapshot": snapshot, "target": target, "paths": [source] });
    let (anna, order) = (actor(), order.to_string());
    let queue = bed.accounts.order_restore(&bed.scope, &anna, &other, &order, NIGHT + 180 * MINUTE);
    let queued = bed.runtime.block_on(queue).unwrap();
    let second = bed.start(&two);
    let restored = bed.ended_jobs(16).pop().unwrap();
    assert_eq!((restored.id, restored.state), (queued.id, JobState::Succeeded), "{}", bed.log(&restored));
    let back = target.join(source.strip_prefix("/").unwrap());
    assert_eq!(fs::read_to_string(back.join("note")).unwrap(), "version 3");
    assert!(!back.join("left.tmp").exists());
    second.stop();

    // Another machine takes the first one's place: its service ends, and the series goes on.
    let third = bed.agent("three");
    let (_, token) = bed.token(Some(&computer));
    let refused = bed.enrol(&third, &token, &[]);
    assert!(refused.stderr.contains("--replace") || refused.text().contains("--replace"), "{}", refused.stderr);
    let outcome = bed.enrol(&third, &token, &["--replace", "one"]);
    assert_eq!(outcome.code, Some(0), "{}{}", outcome.text(), outcome.stderr);
    assert_eq!(service.ends(), Some(4));
    let third_service = bed.start(&third);
    bed.move_clock(NIGHT + 190 * MINUTE + 2 * SECOND);
    let jobs = bed.ended_jobs(17);
    assert_eq!((jobs[16].computer, jobs[16].plan), (computer, Some(plan.id)));
    let listed = third.run(["snapshots", "--json"]).unwrap().text();
    assert_eq!(listed.matches("\"computer\":\"one\"").count(), 9, "{listed}");
    third_service.stop();
    bed.server.stop().unwrap();
}

#[test]
fn a_command_that_fails_leaves_a_failed_job_with_a_clear_log_and_no_snapshot() {
    let bed = Bed::new();
    let (one, computer) = bed.enrolled("one");
    let script = |text: &str| {
        serde_json::json!({
            "source": { "kind": "command", "command": ["/bin/sh", "-c", text], "file_name": "dump.sql" },
            "schedule": { "rule": { "every": "hour", "minute": 1 } },
        })
    };
    bed.plan(&computer, "good", &script("echo the dump"));
    bed.plan(&computer, "bad", &script("echo half; echo disk on fire >&2; exit 3"));
    let service = bed.start(&one);
    bed.move_clock(NIGHT + MINUTE + 2 * SECOND);
    let jobs = bed.ended_jobs(2);
    let (failed, good): (Vec<&Job>, Vec<&Job>) = jobs.iter().partition(|job| job.state == JobState::Failed);
    assert_eq!((failed.len(), good.len()), (1, 1), "{jobs:?}");
    assert_eq!(good[0].state, JobState::Succeeded);
    assert_eq!((failed[0].error_code.as_deref(), &failed[0].snapshot), (Some("command_failed"), &None));
    let log = bed.log(failed[0]);
    assert!(log.contains("disk on fire") && log.contains('3'), "{log}");
    let listed = one.run(["snapshots"]).unwrap().text();
    assert!(listed.contains("good") && !listed.contains("bad"), "{listed}");
    service.stop();
    bed.server.stop().unwrap();
}
