//! The first day of everyone, from an empty data folder, with the real programs and nothing but the command line and the
//! API: an operator makes a partner, the partner a customer on trial, the customer a user with 20 GiB, who enrols a
//! computer with one line; its plan runs by itself at its minutes, also in the hour in which clocks change; a version
//! comes back on another computer by an order.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::panic)] // a test says what is wrong by failing

use agent::tls::Trust;
use agent::transport::{HttpTransport, Method, Request, Transport};
use bytes::Bytes;
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tests::harness::{Binaries, Login, Server};
use tests::process;
use tests::receivers::{SmtpReceiver, SmtpSettings};

const CLOCK_VARIABLE: &str = "HOLDFAST_TEST_CLOCK_FILE";
const SECOND: i64 = 1_000_000_000;
const MINUTE: i64 = 60 * SECOND;
const GIB: i64 = 1 << 30;
/// 2026-10-25 00:00 UTC; an hour later clocks in Berlin go from 03:00 back to 02:00.
const NIGHT: i64 = 1_792_886_400 * SECOND;
/// Longest wait for anything that is to happen by itself.
const SOON: Duration = Duration::from_secs(60);
const PASSWORD: &str = "correct horse battery staple";

/// The server, the mails it sends, and the clock that everybody goes by.
struct Day {
    binaries: Binaries,
    folder: tempfile::TempDir,
    server: Server,
    mails: SmtpReceiver,
    fingerprint: String,
}

impl Day {
    fn begin() -> Day {
        let folder = tempfile::tempdir().unwrap();
        let binaries = Binaries::of_this_build().unwrap();
        set_clock(folder.path(), NIGHT);
        let mails = SmtpReceiver::start(SmtpSettings::default());
        let smtp = mails.address.to_string();
        let arguments = [
            "--heartbeat-seconds",
            "1",
            "--smtp-security",
            "none",
            "--mail-from",
            "Holdfast <backup@sender.example>",
            "--smtp-server",
            &smtp,
        ];
        let clock = folder.path().join("clock");
        let variables: [(&str, &OsStr); 1] = [(CLOCK_VARIABLE, clock.as_os_str())];
        let listen = ([127, 0, 0, 1], 0).into();
        let data = folder.path().join("data");
        let server = Server::start_with(&binaries, &data, listen, &arguments, &variables).unwrap();
        let mut day = Day { binaries, folder, server, mails, fingerprint: String::new() };
        let log = day.server.log();
        let line = log.lines().find_map(|line| line.trim().strip_prefix("certificate ")).unwrap();
        day.fingerprint = line.trim().to_owned();
        day
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn operator(&self, words: &[&str]) -> Value {
        let mut words = words.to_vec();
        words.push("--json");
        serde_json::from_str(&self.server.administer(&self.binaries, &words).unwrap()).unwrap()
    }

    /// One request, and its answer; `who` is the secret of a login session, or nothing.
    fn ask(&self, who: Option<&str>, method: Method, path: &str, body: &Value) -> (u16, Value) {
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

    fn done(&self, who: &Person, method: Method, path: &str, body: &Value) -> Value {
        let (status, answer) = self.ask(Some(&who.secret), method, path, body);
        assert!((200..300).contains(&status), "{path}: {status} {answer}");
        answer
    }

    /// Takes the link out of the mail, comes in by it, and logs in.
    fn come_in(&self, email: &str) -> Person {
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
    fn log_in(&self, person: Person) -> Person {
        let login = json!({ "login": person.email, "password": PASSWORD });
        let (status, session) = self.ask(None, Method::Post, "/login", &login);
        assert!((200..300).contains(&status), "{status} {session}");
        Person { secret: text(&session, "secret"), ..person }
    }

    /// A computer enrolled with the line that its owner is shown.
    fn enrol(&self, owner: &Person, name: &str) -> (Login, String) {
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

    fn run(&self, agent: &Login) -> Service {
        let mut command = agent.command(["run"]);
        command.env(CLOCK_VARIABLE, self.path("clock"));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap();
        Service(Some(child))
    }

    fn move_clock(&self, to_ns: i64) {
        set_clock(self.folder.path(), to_ns);
    }

    /// Waits until there are so many snapshots of a plan; when each was committed, and its id, the oldest first.
    fn snapshots(&self, agent: &Login, plan: &str, count: usize) -> Vec<(i64, String)> {
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
    fn ended(&self, who: &Person, job: &str) -> Value {
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
struct Person {
    email: String,
    /// Of the login session.
    secret: String,
    user: String,
    tenant: String,
}

/// `holdfast run`; killed when a test fails.
struct Service(Option<Child>);

impl Service {
    fn stop(mut self) {
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

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}")).to_owned()
}

#[test]
fn from_an_empty_folder_to_a_version_on_another_computer() {
    let day = Day::begin();
    let product = day.operator(&["product", "add", "Backup"]);
    day.operator(&["invitation", "send", "petra@partner.example", "--partner", "North IT"]);
    let partner = day.come_in("petra@partner.example");

    // The partner invites a customer with a trial of 50 GiB; what a trial may hold is the product's to say.
    let invite = json!({
        "kind": "customer", "email": "carla@acme.example", "title": "Acme Ltd",
        "service": { "product": text(&product, "id"), "licence": "trial", "quantity": 50 },
    });
    day.done(&partner, Method::Post, &format!("/tenants/{}/invitations", partner.tenant), &invite);
    let customer = day.come_in("carla@acme.example");
    assert_ne!(customer.tenant, partner.tenant);
    let services = day.done(&customer, Method::Get, "/services", &Value::Null);
    let service = services["items"][0].clone();
    assert_eq!((service["state"].as_str(), service["quantity"].as_i64()), (Some("trial"), Some(50)), "{service}");
    let service = text(&service, "id");

    // The customer invites a user and gives her 20 GiB, which she sees, and which cannot be more than there is.
    let invite = json!({ "kind": "user", "email": "anna@acme.example", "role": "user" });
    day.done(&customer, Method::Post, &format!("/tenants/{}/invitations", customer.tenant), &invite);
    let anna = day.come_in("anna@acme.example");
    let allocation = format!("/services/{service}/allocations/{}", anna.user);
    let (status, refused) = day.ask(Some(&customer.secret), Method::Put, &allocation, &json!({ "bytes": 51 * GIB }));
    assert_eq!((status, refused["code"].as_str()), (409, Some("allocation_exceeds_free")), "{refused}");
    let given = day.done(&customer, Method::Put, &allocation, &json!({ "bytes": 20 * GIB }));
    assert_eq!(given["bytes"].as_i64(), Some(20 * GIB));
    let (status, own) = day.ask(Some(&anna.secret), Method::Put, &allocation, &json!({ "bytes": 30 * GIB }));
    assert_eq!(status, 403, "nobody gives themselves space: {own}");

    // One line on her computer; one plan every ten minutes, also in the hour that comes twice, and one at a fixed time
    // that comes twice, of which once is enough.
    let source = day.path("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("note"), "first").unwrap();
    let (one, computer) = day.enrol(&anna, "one");
    day.move_clock(NIGHT + 21 * MINUTE);
    let plan = |name: &str, rule: Value| {
        let body = json!({
            "name": name,
            "source": { "kind": "folders", "paths": [source] },
            "schedule": { "rule": rule, "time_zone": "Europe/Berlin" },
        });
        text(&day.done(&anna, Method::Post, &format!("/computers/{computer}/plans"), &body), "id")
    };
    plan("documents", json!({ "every": "cron", "expression": "*/10 * * * *" }));
    plan("daily", json!({ "every": "day", "at": "02:30" }));
    let running = day.run(&one);
    let slots: Vec<i64> = (0..10).map(|number| NIGHT + 30 * MINUTE + number * 10 * MINUTE).collect();
    for (number, slot) in slots.iter().enumerate() {
        fs::write(source.join("note"), format!("version {}", number + 1)).unwrap();
        day.move_clock(slot + 2 * SECOND);
        day.snapshots(&one, "documents", number + 1);
    }
    let snapshots = day.snapshots(&one, "documents", slots.len());
    for ((committed, _), slot) in snapshots.iter().zip(&slots) {
        assert!((*slot..slot + MINUTE).contains(committed), "{snapshots:?}");
    }
    let once = day.snapshots(&one, "daily", 1);
    assert!((slots[0]..slots[1]).contains(&once[0].0), "{once:?}");

    // The third version on another computer, by an order that is given on the server.
    // Who has done nothing for two hours is asked to log in again.
    assert_eq!(day.ask(Some(&anna.secret), Method::Get, "/profile", &Value::Null).0, 401);
    let [partner, customer, anna] = [partner, customer, anna].map(|person| day.log_in(person));
    let (two, other) = day.enrol(&anna, "two");
    let second = day.run(&two);
    let target = day.path("restored");
    let order = json!({ "snapshot": snapshots[2].1, "target": target, "paths": [source] });
    let restores = format!("/computers/{other}/restores");
    let ordered = day.done(&anna, Method::Post, &restores, &order);
    let restored = day.ended(&anna, &text(&ordered, "id"));
    assert_eq!(restored["state"], "succeeded", "{restored}");
    let back = target.join(source.strip_prefix("/").unwrap());
    assert_eq!(fs::read_to_string(back.join("note")).unwrap(), "version 3");

    // Neither the customer nor the partner reads what is Anna's, and both see that it is there.
    for above in [&customer, &partner] {
        let (status, answer) = day.ask(Some(&above.secret), Method::Post, &restores, &order);
        assert_eq!(status, 403, "{answer}");
        day.done(above, Method::Get, &format!("/computers/{computer}"), &Value::Null);
    }
    let checked = day.operator(&["accounts", "check"]);
    assert_eq!(checked["items"].as_array().map(Vec::len), Some(0), "{checked}");
    second.stop();
    running.stop();
    day.server.stop().unwrap();
}
