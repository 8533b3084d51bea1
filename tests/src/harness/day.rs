//! A server on its first day: people come in by the mails it sends them, enrol computers with one line, and everybody goes
//! by a clock that the test moves. Needs programs whose clock can be moved:
//! `cargo build -p server -p agent --bins --features server/testing,agent/testing`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test says what is wrong by failing

use super::{Binaries, Login, Server};
use crate::process;
use crate::receivers::{SmtpReceiver, SmtpSettings};
use agent::tls::Trust;
use agent::transport::{HttpTransport, Method, Request, Transport};
use bytes::Bytes;
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const CLOCK_VARIABLE: &str = "HOLDFAST_TEST_CLOCK_FILE";
const SECOND: i64 = 1_000_000_000;
/// Longest wait for anything that is to happen by itself.
const SOON: Duration = Duration::from_secs(60);
const PASSWORD: &str = "correct horse battery staple";

/// The server, the mails it sends, and the clock that everybody goes by.
pub struct Day {
    /// The server.
    pub server: Server,
    /// Who receives its mails.
    pub mails: SmtpReceiver,
    binaries: Binaries,
    fingerprint: String,
    folder: tempfile::TempDir,
}

impl Day {
    /// Begins at a moment, nanoseconds since 1970, with further arguments of `holdfastd serve`.
    pub fn begin(at_ns: i64, more: &[&str]) -> Day {
        Self::begin_with(at_ns, more, &[])
    }

    /// The same, with environment variables of the server.
    pub fn begin_with(at_ns: i64, more: &[&str], variables: &[(&str, &OsStr)]) -> Day {
        let folder = tempfile::tempdir().unwrap();
        let binaries = Binaries::of_this_build().unwrap();
        set_clock(folder.path(), at_ns);
        let mails = SmtpReceiver::start(SmtpSettings::default());
        let smtp = mails.address.to_string();
        let mut arguments = vec!["--heartbeat-seconds", "10", "--smtp-security", "none", "--smtp-server", &smtp];
        arguments.extend(["--mail-from", "Holdfast <backup@sender.example>"]);
        arguments.extend(more);
        let clock = folder.path().join("clock");
        let variables = [&[(CLOCK_VARIABLE, clock.as_os_str())], variables].concat();
        let listen = ([127, 0, 0, 1], 0).into();
        let data = folder.path().join("data");
        let server = Server::start_with(&binaries, &data, listen, &arguments, &variables).unwrap();
        let mut day = Day { server, mails, binaries, fingerprint: String::new(), folder };
        let log = day.server.log();
        let line = log.lines().find_map(|line| line.trim().strip_prefix("certificate ")).unwrap();
        day.fingerprint = line.trim().to_owned();
        day
    }

    /// A path in the folder of this day.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `holdfastd WORDS --json`, which must end well.
    pub fn operator(&self, words: &[&str]) -> Value {
        let mut words = words.to_vec();
        words.push("--json");
        serde_json::from_str(&self.server.administer(&self.binaries, &words).unwrap()).unwrap()
    }

    /// One request, and its answer; `who` is the secret of a login session, or nothing.
    pub fn ask(&self, who: Option<&str>, method: Method, path: &str, body: &Value) -> (u16, Value) {
        let trust = Trust::Pinned(self.fingerprint.parse().unwrap());
        let token = who.map(|secret| secret.to_owned().into());
        let transport = HttpTransport::new(&self.server.url(), &trust, token, None).unwrap();
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let path = format!("{}{path}", api::PREFIX);
        let mut answer = transport.send(&Request { method, path, content_type: "application/json", body }).unwrap();
        let mut bytes = Vec::new();
        while let Some(piece) = answer.body.next_piece().unwrap() {
            bytes.extend_from_slice(&piece);
        }
        (answer.status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    /// A request that must succeed; its answer.
    pub fn done(&self, who: &Person, method: Method, path: &str, body: &Value) -> Value {
        let (status, answer) = self.ask(Some(&who.secret), method, path, body);
        assert!((200..300).contains(&status), "{path}: {status} {answer}");
        answer
    }

    /// Takes the link out of the mail, comes in by it, and logs in.
    pub fn come_in(&self, email: &str) -> Person {
        let mail = self.mails.mails.wait_for(SOON, |mail| mail.to == [email]);
        let body = mail.body();
        let (_, rest) = body.split_once("/invitation#").unwrap_or_else(|| panic!("no link in {body}"));
        let secret: String = rest.chars().take_while(|c| !c.is_whitespace()).collect();
        let accept = json!({ "secret": secret, "name": email.split_once('@').unwrap().0, "password": PASSWORD });
        let (status, accepted) = self.ask(None, Method::Post, "/invitations/accept", &accept);
        assert!((200..300).contains(&status), "{status} {accepted}");
        // The link works once.
        assert_eq!(self.ask(None, Method::Post, "/invitations/accept", &accept).0, 404);
        let wrong = json!({ "login": email, "password": "correct horse battery stable" });
        assert_eq!(self.ask(None, Method::Post, "/login", &wrong).0, 401);
        let (user, tenant) = (text(&accepted, "user"), text(&accepted, "tenant"));
        self.log_in(Person { email: email.to_owned(), secret: String::new(), user, tenant })
    }

    /// Logs in, again where the session before has ended.
    pub fn log_in(&self, person: Person) -> Person {
        let login = json!({ "login": person.email, "password": PASSWORD });
        let (status, session) = self.ask(None, Method::Post, "/login", &login);
        assert!((200..300).contains(&status), "{status} {session}");
        Person { secret: text(&session, "secret"), ..person }
    }

    /// A computer enrolled with the line that its owner is shown.
    pub fn enrol(&self, owner: &Person, name: &str) -> (Login, String) {
        let made = self.done(owner, Method::Post, &format!("/users/{}/enrolments", owner.user), &json!({}));
        let agent = Login::without_login(&self.binaries, &self.path(name));
        let token = text(&made, "token");
        let words = ["enrol", &text(&made, "url"), "--fingerprint", &self.fingerprint, "--token", &token];
        let outcome = agent.run(words.iter().chain(&["--name", name, "--json"])).unwrap();
        assert_eq!(outcome.code, Some(0), "{}{}", outcome.text(), outcome.stderr);
        let said: Value = serde_json::from_str(&outcome.text()).unwrap();
        // The token too works once.
        let again = Login::without_login(&self.binaries, &self.path("again"));
        assert_ne!(again.run(words.iter().chain(&["--name", "again"])).unwrap().code, Some(0));
        (agent, text(&said, "computer"))
    }

    /// `holdfast run` on a computer.
    pub fn run(&self, agent: &Login) -> Service {
        let mut command = agent.command(["run"]);
        command.env(CLOCK_VARIABLE, self.path("clock"));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap();
        Service(Some(child))
    }

    /// From now on it is this moment, nanoseconds since 1970, and time goes on from there.
    pub fn move_clock(&self, to_ns: i64) {
        set_clock(self.folder.path(), to_ns);
    }

    /// Waits until there are so many snapshots of a plan; when each was committed, and its id, the oldest first.
    pub fn snapshots(&self, agent: &Login, plan: &str, count: usize) -> Vec<(i64, String)> {
        let started = Instant::now();
        loop {
            let outcome = agent.run(["snapshots", "--json"]).unwrap();
            let listed = outcome.text();
            let all = listed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            let of_plan = all.filter(|snapshot| snapshot["series"] == plan);
            let mut found: Vec<(i64, String)> =
                of_plan.map(|snapshot| (snapshot["committed_ns"].as_i64().unwrap(), text(&snapshot, "id"))).collect();
            found.sort();
            if found.len() >= count {
                assert_eq!(found.len(), count, "{listed}");
                return found;
            }
            assert!(started.elapsed() < SOON, "not {count} snapshots of {plan}: {listed}{}", outcome.stderr);
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until a job has ended.
    pub fn ended(&self, who: &Person, job: &str) -> Value {
        let started = Instant::now();
        loop {
            let job = self.done(who, Method::Get, &format!("/jobs/{job}"), &Value::Null);
            if !matches!(job["state"].as_str(), Some("queued" | "running")) {
                return job;
            }
            assert!(started.elapsed() < SOON, "{job}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Somebody who is logged in.
pub struct Person {
    /// Mail address, which is the name at the log-in.
    pub email: String,
    /// Of the login session.
    pub secret: String,
    /// Id.
    pub user: String,
    /// Id of the tenant.
    pub tenant: String,
}

/// `holdfast run`; killed when a test fails.
pub struct Service(Option<Child>);

impl Service {
    /// Asks it to end, and waits.
    pub fn stop(mut self) {
        process::end(self.0.take()).unwrap();
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

/// A text in an answer.
pub fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}")).to_owned()
}
