//! An export on its whole way: asked for, released, dumped afresh by the agent, verified, and downloaded by OpenSSH's sftp
//! with the key that was shown once; its dates, with a clock that the test moves.
//!
//! Needs programs whose clock can be moved:
//! `cargo build -p server -p agent --bins --features server/testing,agent/testing`, then this with `--features testing`.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::panic)] // a test says what is wrong by failing

use agent::transport::Method;
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use tests::harness::{Day, Person, text};
use tests::postgres::{Cluster, USER};
use tests::shop::{fill_postgresql, state_of_shop};

const SECOND: i64 = 1_000_000_000;
const DAY_NS: i64 = 24 * 3600 * SECOND;
/// 2027-01-15 01:00 UTC.
const NIGHT: i64 = 1_799_974_800 * SECOND;
/// Longest wait for anything that is to happen by itself.
const SOON: Duration = Duration::from_secs(120);
/// Between two looks at what has no event.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const PLATFORM: &str = "00000000000000000000000000000000";
const PASSWORD: &str = "correct horse battery staple";

/// The owner of a new customer, with space of her own and a fresh factor.
fn owner(day: &Day, email: &str) -> Person {
    let product = day.operator(&["product", "add", "Backup"]);
    let local = fs::read_to_string(day.server.data().join("run/local-token")).unwrap();
    let invite = json!({
        "kind": "customer", "email": email, "title": "Acme Ltd",
        "service": { "product": text(&product, "id"), "licence": "trial", "quantity": 1 },
    });
    let path = format!("/tenants/{PLATFORM}/invitations");
    let (status, answer) = day.ask(Some(local.trim()), Method::Post, &path, &invite);
    assert!((200..300).contains(&status), "{status} {answer}");
    let owner = day.come_in(email);
    let services = day.done(&owner, Method::Get, "/services", &Value::Null);
    let service = text(&services["items"][0], "id");
    let path = format!("/services/{service}/allocations/{}", owner.user);
    day.done(&owner, Method::Put, &path, &json!({ "bytes": 1 << 29 }));
    step_up(day, &owner);
    owner
}

fn step_up(day: &Day, person: &Person) {
    day.done(person, Method::Post, "/login/step-up", &json!({ "password": PASSWORD }));
}

/// Waits until an export is in a state.
fn until_state(day: &Day, person: &Person, export: &str, state: &str) -> Value {
    let started = Instant::now();
    loop {
        let seen = day.done(person, Method::Get, &format!("/exports/{export}"), &Value::Null);
        if seen["state"] == state {
            return seen;
        }
        assert!(started.elapsed() < SOON, "not {state}: {seen}{}", day.server.log());
        std::thread::sleep(LOOK_EVERY);
    }
}

fn private_file(path: &Path, text: &str) {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// OpenSSH's sftp, with a batch of commands.
struct Sftp {
    port: String,
    user: String,
    key: PathBuf,
    known_hosts: PathBuf,
    folder: PathBuf,
}

impl Sftp {
    fn run(&self, batch: &str) -> Output {
        let batch_file = self.folder.join("batch");
        fs::write(&batch_file, batch).unwrap();
        let mut command = Command::new("sftp");
        command.args(["-F", "/dev/null", "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=yes"]);
        command.arg("-o").arg(format!("UserKnownHostsFile={}", self.known_hosts.display()));
        command.arg("-i").arg(&self.key).args(["-P", &self.port]).arg("-b").arg(&batch_file);
        command.arg(format!("{}@127.0.0.1", self.user)).current_dir(&self.folder).output().unwrap()
    }
}

#[test]
fn an_export_is_asked_for_released_dumped_and_downloaded() {
    let day = Day::begin(NIGHT, &["--sftp-listen", "127.0.0.1:0"]);
    let anna = owner(&day, "anna@acme.example");
    let (one, computer) = day.enrol(&anna, "one");
    let cluster = Cluster::start();
    fill_postgresql(&cluster, 20_000);
    let source = json!({ "kind": "postgresql", "database": "it's shop", "host": cluster.folder(), "user": USER });
    let body = json!({ "name": "books", "source": source, "schedule": { "rule": { "every": "never" } } });
    let made = day.done(&anna, Method::Post, &format!("/computers/{computer}/plans"), &body);
    let plan = text(&made, "id");
    let running = day.run(&one);

    // Asked for by the customer, released by the operator, dumped by the agent: nobody else does anything.
    let asked = day.done(&anna, Method::Post, "/exports", &json!({ "plan": plan }));
    assert_eq!(asked["state"], "awaiting_release");
    let export = text(&asked, "id");
    let (status, refused) =
        day.ask(Some(&anna.secret), Method::Post, &format!("/exports/{export}/release"), &json!({}));
    assert_eq!((status, refused["code"].as_str()), (403, Some("forbidden")));
    let next_ns = asked["next_allowed_ns"].as_i64().unwrap();
    assert_eq!(next_ns, asked["requested_ns"].as_i64().unwrap() + 28 * DAY_NS);
    let again = |who: &Person| day.ask(Some(&who.secret), Method::Post, "/exports", &json!({ "plan": plan }));
    let (status, early) = again(&anna);
    assert_eq!(
        (status, early["code"].as_str(), early["next_allowed_ns"].as_i64()),
        (409, Some("too_early"), Some(next_ns))
    );
    let keys = format!("/exports/{export}/keys");
    let terms = day.ask(None, Method::Get, "/export-terms", &Value::Null).1;
    let accept = json!({ "terms_version": text(&terms, "version") });
    let (status, early) = day.ask(Some(&anna.secret), Method::Post, &keys, &accept);
    assert_eq!((status, early["code"].as_str()), (409, Some("wrong_state")), "{early}");
    let local = fs::read_to_string(day.server.data().join("run/local-token")).unwrap();
    let (status, released) =
        day.ask(Some(local.trim()), Method::Post, &format!("/exports/{export}/release"), &json!({}));
    assert_eq!((status, released["state"].as_str()), (200, Some("in_progress")), "{released}");
    let ready = until_state(&day, &anna, &export, "ready");
    let files = ready["files"].as_array().unwrap();
    assert!(!files.is_empty(), "{ready}");
    let expires_ns = ready["expires_ns"].as_i64().unwrap();
    assert_eq!(expires_ns, ready["ready_ns"].as_i64().unwrap() + 10 * DAY_NS);

    // The key is in the answer, once; old terms are not accepted.
    assert_eq!(day.ask(Some(&anna.secret), Method::Post, &keys, &json!({ "terms_version": "1" })).0, 400);
    let access = day.done(&anna, Method::Post, &keys, &accept);
    let folder = day.path("downloads");
    fs::create_dir(&folder).unwrap();
    let (pem, known) = (folder.join("export.pem"), folder.join("known_hosts"));
    private_file(&pem, &text(&access, "pem"));
    let lines: Vec<&str> =
        access["known_hosts"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    // The server is called by its address here, not by its name.
    let host = text(&access, "host");
    fs::write(&known, lines.join("\n").replace(&host, "127.0.0.1") + "\n").unwrap();
    let port = access["port"].as_u64().unwrap().to_string();
    let sftp = Sftp { port, user: text(&access, "user"), key: pem, known_hosts: known, folder: folder.clone() };
    let got = sftp.run("ls -l\nget -p *\n");
    assert!(got.status.success(), "{}{}", String::from_utf8_lossy(&got.stderr), day.server.log());
    let listed = String::from_utf8_lossy(&got.stdout).into_owned();
    for file in files {
        let name = text(file, "name");
        assert!(listed.contains(&name), "{name} is not in {listed}");
        let bytes = fs::read(folder.join(&name)).unwrap();
        assert_eq!(bytes.len() as u64, file["size_bytes"].as_u64().unwrap(), "{name}");
        let sum = Command::new("sha256sum").arg(folder.join(&name)).output().unwrap();
        assert!(
            String::from_utf8_lossy(&sum.stdout).trim_start_matches('\\').starts_with(&text(file, "sha256")),
            "{name}"
        );
    }
    // What was downloaded comes back in an empty server, by the instructions beside it.
    let other = Cluster::start();
    let said = fs::read_to_string(folder.join("it's shop.restore.txt")).unwrap();
    assert!(said.contains("psql") || said.contains("pg_restore"), "{said}");
    let restore = |name: &str, database: &str| {
        let mut command = Command::new("psql");
        command.env("PGHOST", other.folder()).env("PGUSER", USER).args(["-X", "-q", "-d", database, "-f"]);
        let done = command.arg(folder.join(name)).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    let named = |part: &str| {
        let found = files.iter().map(|file| text(file, "name")).find(|name| name.contains(part));
        found.unwrap_or_else(|| panic!("no {part} in {files:?}"))
    };
    restore(&named(".globals.sql"), "postgres");
    restore(&named(".create.sql"), "postgres");
    let dump = files.iter().map(|file| text(file, "name"));
    let dump = dump.filter(|name| !name.contains(".globals.") && !name.contains(".create.") && !name.ends_with(".txt"));
    for name in dump {
        restore(&name, "it's shop");
    }
    assert_eq!(state_of_shop(&other), state_of_shop(&cluster));

    // Who downloaded what is told, also in the audit log.
    let started = Instant::now();
    let downloads = loop {
        let found = day.done(&anna, Method::Get, &format!("/exports/{export}/downloads"), &Value::Null);
        if found["items"].as_array().unwrap().len() >= files.len() {
            break found;
        }
        assert!(started.elapsed() < SOON, "{found}");
        std::thread::sleep(LOOK_EVERY);
    };
    assert!(downloads["items"].as_array().unwrap().iter().all(|one| one["is_complete"] == true), "{downloads}");

    // Nobody comes in with a key that was taken back, and there is no oracle in the answer.
    let id = text(&access["key"], "id");
    day.done(&anna, Method::Delete, &format!("{keys}/{id}"), &Value::Null);
    let refused = sftp.run("ls\n");
    assert!(!refused.status.success());
    let stranger = Sftp { user: "export-nobody".into(), ..sftp };
    let unknown = stranger.run("ls\n");
    let said = |output: &Output, user: &str| String::from_utf8_lossy(&output.stderr).replace(user, "USER");
    assert_eq!(said(&refused, &text(&access, "user")), said(&unknown, "export-nobody"));

    // Ten days later it is gone; eighteen days after that another one may be asked for.
    running.stop();
    day.move_clock(expires_ns + 60 * SECOND);
    let anna = day.log_in(anna);
    step_up(&day, &anna);
    until_state(&day, &anna, &export, "expired");
    let (status, late) = day.ask(Some(&anna.secret), Method::Post, &keys, &accept);
    assert_eq!((status, late["code"].as_str()), (409, Some("wrong_state")), "{late}");
    assert_eq!(again(&anna).0, 409);
    day.move_clock(next_ns + 60 * SECOND);
    let anna = day.log_in(anna);
    step_up(&day, &anna);
    let (status, asked) = again(&anna);
    assert_eq!((status, asked["state"].as_str()), (201, Some("awaiting_release")), "{asked}");
    day.server.stop().unwrap();
}
